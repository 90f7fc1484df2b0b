//! Foreign code that panics at input it should refuse, turned into an error.
//!
//! The crate `tokenizers` indexes and unwraps by what tokenizer.json says, and `parquet` and `arrow` by the numbers in a
//! Parquet file. These files are a stranger's: what they can bring down is the one call, not the program.

use std::{
    any::Any,
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
};

thread_local! {
    static FENCED: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread runs foreign code whose panics become errors.
///
/// A program's panic hook asks this, so as not to print what the error will say:
///
/// ```
/// let usual = std::panic::take_hook();
/// std::panic::set_hook(Box::new(move |panic| {
///     if !frostbert_cache::fence::is_fenced() {
///         usual(panic);
///     }
/// }));
/// ```
pub fn is_fenced() -> bool {
    FENCED.get()
}

/// Runs foreign code; where it panics, what it said is the error.
///
/// What it worked on may be left half changed, and is not to be used after an error.
///
/// # Errors
/// The words of the panic.
pub fn fenced<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let before = FENCED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    FENCED.set(before);
    done.map_err(|panic| said(&*panic))
}

/// As [`fenced`], for code that can fail by itself: `refuse` makes a panic an error of the same kind.
///
/// # Errors
/// Those of the code, and what `refuse` makes of a panic.
pub fn fenced_or<T, E>(
    work: impl FnOnce() -> Result<T, E>,
    refuse: impl FnOnce(String) -> E,
) -> Result<T, E> {
    fenced(work).unwrap_or_else(|panic| Err(refuse(panic)))
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no reason given".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_with_its_words_and_the_fence_is_down_afterwards() {
        let numbers: Vec<u32> = Vec::new();
        assert_eq!(fenced(|| numbers.len()), Ok(0));
        let error = fenced(|| numbers[numbers.len()]).unwrap_err();
        assert!(error.contains("index out of bounds"), "{error}");
        assert_eq!(fenced(|| panic!("plainly")), Err::<(), _>("plainly".into()));
        assert!(fenced(is_fenced).unwrap() && !is_fenced());
    }
}

//! Turns panics of third-party code into errors.
//!
//! The crate `tokenizers` indexes and unwraps based on the content of tokenizer.json, and `parquet` and `arrow` based
//! on the numbers in a Parquet file. Such files come from strangers: a bad one may fail the call, but must not abort
//! the program.

use std::{
    any::Any,
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
};

thread_local! {
    static FENCED: Cell<bool> = const { Cell::new(false) };
}

/// Returns whether this thread is running third-party code whose panics become errors.
///
/// A program's panic hook can check this to avoid printing what the error will say anyway:
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

/// Runs third-party code and turns a panic into an error.
///
/// The data that the code worked on may be left half modified and must not be used after an error.
///
/// # Errors
/// Returns the message of the panic.
pub fn fenced<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    let before = FENCED.replace(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    FENCED.set(before);
    done.map_err(|panic| said(&*panic))
}

/// Does the same as [`fenced`] for code that is fallible itself: `refuse` turns a panic into an error of the same type.
///
/// # Errors
/// Returns the errors of the code, and the result of `refuse` for a panic.
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

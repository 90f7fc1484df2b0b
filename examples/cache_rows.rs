//! Rows of a cache. After `make demo`, which fills one,
//!
//! ```text
//! cargo run --release --example cache_rows -- cache/FINGERPRINT mean-L06 "Worth every penny."
//! ```
//!
//! prints the first values of a stored state for each text that is named.

#![expect(clippy::print_stdout, reason = "an example prints")]

use std::{env, error::Error, path::Path};

use frostbert::{Cache, Key, Mode, ndarray::Array2};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [folder, state, texts @ ..] = &arguments[..] else {
        return Err("name a cache folder, a state and some texts".into());
    };
    println!("{:.3}", rows(Path::new(folder), state, texts)?);
    Ok(())
}

pub(crate) fn rows(
    folder: &Path,
    state: &str,
    texts: &[impl AsRef<str>],
) -> Result<Array2<f32>, Box<dyn Error>> {
    let cache = Cache::open(folder)?;
    let keys: Vec<Key> = texts.iter().map(|text| Key::of(Mode::Text, &[text])).collect();
    Ok(cache.rows(&keys, state.parse()?)?) // [texts, hidden]
}

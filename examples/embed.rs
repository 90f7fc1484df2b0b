//! Texts to an array. After `make setup`, `cargo run --release --example embed` prints how alike three texts are: the
//! cosines of their mean states.

#![expect(clippy::print_stdout, reason = "an example prints")]

use frostbert::{Embedder, EmbedderOptions, Pooling, Result, ndarray::Array2};

fn main() -> Result<()> {
    let texts = ["It works well.", "It does its job.", "The film was too long."];
    println!("{:.2}", cosines("models/minilm", &EmbedderOptions::default(), &texts)?);
    Ok(())
}

pub(crate) fn cosines(
    model: &str,
    options: &EmbedderOptions,
    texts: &[&str],
) -> Result<Array2<f32>> {
    let mut embedder = Embedder::open(model, options)?;
    let mut states = embedder.embed(texts, Pooling::Mean)?; // [texts, hidden]
    for mut state in states.rows_mut() {
        state /= state.dot(&state).sqrt();
    }
    Ok(states.dot(&states.t()))
}

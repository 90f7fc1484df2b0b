//! Texts and labels to a head. After `make setup`, `cargo run --release --example fit` learns from six sentences what a
//! text is about, and prints the probabilities of each class for two others.

#![expect(clippy::print_stdout, reason = "an example prints")]

use frostbert::{Embedder, EmbedderOptions, FitOptions, Pooling, Result, fit};

const TEXTS: [&str; 6] = [
    "The battery lasts two days.",
    "The actors are wonderful.",
    "The screen broke after a week.",
    "I left before the end of the film.",
    "It charges quickly.",
    "The plot makes no sense.",
];
const LABELS: [&str; 6] = ["product", "film", "product", "film", "product", "film"];

fn main() -> Result<()> {
    let new = ["A boring movie.", "The keyboard feels cheap."];
    let options = EmbedderOptions::default();
    let lines = classify("models/minilm", &options, (&TEXTS, &LABELS), &new)?;
    lines.iter().for_each(|line| println!("{line}"));
    Ok(())
}

pub(crate) fn classify(
    model: &str,
    options: &EmbedderOptions,
    (texts, labels): (&[&str], &[&str]),
    new: &[&str],
) -> Result<Vec<String>> {
    let mut embedder = Embedder::open(model, options)?;
    let states = embedder.embed(texts, Pooling::Mean)?; // [texts, hidden]
    let head = fit(states.view(), labels, &FitOptions::default())?;
    let states = embedder.embed(new, Pooling::Mean)?;
    let probabilities = head.predict_proba(states.view())?; // [new, classes]
    let rows = new.iter().zip(probabilities.rows());
    Ok(rows.map(|(text, row)| format!("{text} {:?} {row:.2}", head.labels())).collect())
}

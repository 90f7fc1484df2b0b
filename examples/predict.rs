//! A saved run on new texts.
//!
//! ```text
//! make demo
//! target/release/frostbert run pipelines/entities.toml
//! cargo run --release --example predict
//! ```
//!
//! prints the entities that the newest run in runs/entities finds in two sentences, with their places in characters.

#![expect(clippy::print_stdout, reason = "an example prints")]

use std::path::Path;

use frostbert::{EntitySpan, Machine, Prediction, Predictor, Result};

fn main() -> Result<()> {
    let texts = ["Maria Velden flew from Oslo to Quito on Friday.", "Nothing happened."];
    for line in entities(Path::new("runs/entities"), &texts)? {
        println!("{line}");
    }
    Ok(())
}

pub(crate) fn entities(run: &Path, texts: &[&str]) -> Result<Vec<String>> {
    let mut predictor = Predictor::open_run(run, &Machine::default())?; // loads the model once
    let mut lines = Vec::new();
    for prediction in predictor.predict_texts(texts)? {
        // What a prediction holds depends on the run's task: here tags of words.
        if let Prediction::Tags { text, entities, .. } = prediction {
            lines.push(text);
            lines.extend(entities.iter().map(line_of));
        }
    }
    Ok(lines)
}

fn line_of(EntitySpan { label, start, end, text }: &EntitySpan) -> String {
    format!("  {start}..{end} {label}: {text}")
}

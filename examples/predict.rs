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

use frostbert::{
    data::Record,
    error::Result,
    extraction::machine::Machine,
    prediction::{
        predictor::{Prediction, Predictor},
        saved_run::SavedRun,
    },
};

fn main() -> Result<()> {
    let texts = ["Maria Velden flew from Oslo to Quito on Friday.", "Nothing happened."];
    for line in entities(Path::new("runs/entities"), &texts)? {
        println!("{line}");
    }
    Ok(())
}

pub(crate) fn entities(run: &Path, texts: &[&str]) -> Result<Vec<String>> {
    let machine = Machine::new("runtime/libonnxruntime.so", 2);
    let mut predictor = Predictor::open(SavedRun::open(run)?, &machine)?; // loads the model once
    let examples = texts.iter().map(|text| Record { text: text.to_string(), ..Record::default() });
    let predictions = predictor.predict(&examples.collect::<Vec<_>>())?;
    let mut lines = Vec::new();
    for prediction in predictions {
        // What a prediction holds depends on the run's task: here tags of words.
        let Prediction::Tags { text, entities, .. } = prediction else {
            continue;
        };
        lines.push(text);
        for entity in entities {
            lines.push(format!(
                "  {}..{} {}: {}",
                entity.start, entity.end, entity.label, entity.text
            ));
        }
    }
    Ok(lines)
}

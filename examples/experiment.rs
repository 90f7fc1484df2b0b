//! A pipeline file, read and run. After `make setup`, `cargo run --release --example experiment` trains the head of
//! pipelines/sentiment.toml and prints where the run is, and its accuracy on test rows with the 95 % interval.

#![expect(clippy::print_stdout, reason = "an example prints")]

use std::path::Path;

use frostbert::{Experiment, Machine, Metric, Result, Score};

fn main() -> Result<()> {
    let score = test_accuracy(Path::new("pipelines/sentiment.toml"), &[])?;
    if let Some(Score { value, interval: Some([low, high]), .. }) = score {
        println!("accuracy {value:.3}, 95 % interval {low:.3} to {high:.3}");
    }
    Ok(())
}

pub(crate) fn test_accuracy(pipeline: &Path, overrides: &[&str]) -> Result<Option<Score>> {
    let experiment = Experiment::open_with(pipeline, overrides)?;
    let report = experiment.run(&Machine::default(), &())?;
    println!("{}", report.folder().display());
    let test = report.metrics(None).and_then(|metrics| metrics.test.as_ref());
    Ok(test.and_then(|test| test.scores().get(Metric::Accuracy)).copied())
}

//! `frostbert predict`: labels for new texts.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;
use clap::{ArgGroup, Args};
use frostbert::{
    data::{self, Column, Examples, Format, Source, Want},
    pipeline::apply::{Prediction, Predictor, SavedRun},
    progress::Progress,
};

use super::{Context, output};

/// Texts that are labelled and printed at a time.
const CHUNK_TEXTS: usize = 512;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("texts").required(true).multiple(true).args(["text", "file"]))]
pub(super) struct PredictArguments {
    /// A run folder, or a folder of runs (then its newest)
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// A text to label; may be given more than once
    #[arg(long, value_name = "TEXT")]
    text: Vec<String>,
    /// A file of texts, read with the settings of the run's train source; - for lines on stdin
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

pub(super) fn run(arguments: &PredictArguments, context: &Context) -> Result<ExitCode> {
    let saved = SavedRun::open(&arguments.run)?;
    let examples = arguments
        .file
        .as_deref()
        .map(|file| read(&saved, file))
        .transpose()?;
    let mut predictor = Predictor::open(saved, &context.machine)?;
    let given = arguments.text.iter().cloned().map(Ok);
    let read = examples
        .into_iter()
        .flatten()
        .map(|example| example.map(|example| example.text));
    let mut chunk = Vec::new();
    for text in given.chain(read) {
        chunk.push(text?);
        if chunk.len() == CHUNK_TEXTS {
            print_predictions(
                &predictor.predict(std::mem::take(&mut chunk))?,
                context.json,
            )?;
        }
    }
    if !chunk.is_empty() {
        print_predictions(&predictor.predict(chunk)?, context.json)?;
    }
    if predictor.truncated > 0 {
        context.progress.warn(&format!(
            "the ends of {} texts were cut off: they are longer than the run's max_length",
            predictor.truncated
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn read(saved: &SavedRun, file: &Path) -> Result<Examples> {
    let want = Want {
        label: false,
        text_pair: false,
    };
    if file != Path::new("-") {
        return Ok(data::read(&saved.source(file), want)?);
    }
    let lines = Source {
        format: Some(Format::Lines),
        text: Column::from("text"),
        ..Source::new("standard input")
    };
    Ok(data::read_from(std::io::stdin(), &lines, want)?)
}

fn print_predictions(predictions: &[Prediction], json: bool) -> Result<()> {
    let mut text = String::new();
    for prediction in predictions {
        if json {
            text.push_str(&serde_json::to_string(prediction)?);
            text.push('\n');
            continue;
        }
        let one_line = prediction
            .text
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ");
        text.push_str(&format!(
            "{}  {:.3}  {one_line}\n",
            prediction.label, prediction.confidence
        ));
        let all = prediction
            .probabilities
            .iter()
            .map(|(label, probability)| format!("{label} {probability:.3}"));
        text.push_str(&format!("    {}\n", all.collect::<Vec<_>>().join("  ")));
    }
    output::print(&text)
}

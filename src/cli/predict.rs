//! `frostbert predict`: labels for new texts.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;
use clap::{ArgGroup, Args};
use frostbert::{
    cache::{
        progress::Progress,
        wording::{counted, printable},
    },
    internals::{
        data::{self, ColumnName, Format, Record, Records, Source, SwallowedLines, WantedFields},
        prediction::{predictor::Predictor, saved_run::SavedRun},
        tasks::prediction::{EntitySpan, Prediction},
    },
};

use super::{
    Context, FormatArgument,
    output::{self, Reader},
};

/// Texts that are labelled and printed at a time.
const CHUNK_TEXTS: usize = 512;

/// Probabilities that are printed at a time, about: of many labels fewer texts.
const CHUNK_PROBABILITIES: usize = CHUNK_TEXTS * 1000;

/// More labels than this are not listed with their probabilities on a terminal, but for the most probable.
const LISTED_LABELS: usize = 30;

/// Labels that are listed where there are more.
const MOST_PROBABLE: usize = 10;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("texts").required(true).multiple(true).args(["text", "file"]))]
pub(super) struct PredictArguments {
    /// A run folder, or a folder of runs (then its newest)
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// A text (or a question); may be given more than once
    #[arg(long, value_name = "TEXT")]
    text: Vec<String>,
    /// The second text of a pair, or the context of a question; one for each --text
    #[arg(long, value_name = "TEXT", requires = "text")]
    text_pair: Vec<String>,
    /// A file of texts, read with the settings of the run's train source; - for stdin (lines, unless --format says)
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    format: FormatArgument,
}

pub(super) fn run(arguments: &PredictArguments, context: &Context) -> Result<ExitCode> {
    let saved = super::open_run(&arguments.run, context)?;
    let examples = arguments
        .file
        .as_deref()
        .map(|file| read(&saved, file, arguments.format.format))
        .transpose()?;
    let n_pairs = arguments.text_pair.len();
    if n_pairs > 0 && n_pairs != arguments.text.len() {
        return Err(super::wrong_usage(format!(
            "--text stands there {} times and --text-pair {n_pairs}: give a --text-pair for each --text",
            arguments.text.len()
        )));
    }
    let mut predictor = Predictor::open(saved, &context.machine)?;
    let given = arguments.text.iter().enumerate().map(|(number, text)| {
        Ok(Record {
            text: text.clone(),
            text_pair: arguments.text_pair.get(number).cloned(),
            ..Record::default()
        })
    });
    let chunk_texts = (CHUNK_PROBABILITIES / predictor.n_labels().max(1)).clamp(1, CHUNK_TEXTS);
    let mut chunk = Vec::new();
    let mut swallowed = SwallowedLines::default();
    for example in given.chain(examples.into_iter().flatten()) {
        let example = example?;
        swallowed.count(&example);
        chunk.push(example);
        if chunk.len() == chunk_texts {
            let predictions = predictor.predict(&chunk)?;
            // Nothing is left to do for a reader that has gone.
            if print_predictions(&predictions, context.json)? == Reader::Gone {
                return Ok(ExitCode::SUCCESS);
            }
            chunk.clear();
        }
    }
    if !chunk.is_empty() {
        print_predictions(&predictor.predict(&chunk)?, context.json)?;
    }
    if let (Some(words), Some(file)) = (swallowed.in_words(), &arguments.file) {
        context.progress.warn(&format!("{}: {words}", file.display()));
    }
    if predictor.truncated() > 0 {
        context.progress.warn(&format!(
            "the {} cut off: longer than the run's max_length",
            match predictor.truncated() {
                1 => "end of 1 text was".to_owned(),
                n => format!("ends of {} were", counted(n, "text")),
            }
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn read(saved: &SavedRun, file: &Path, format: Option<Format>) -> Result<Records> {
    let want = WantedFields { label: false, text_pair: saved.pipeline.reads_pairs() };
    if file == Path::new("-") {
        let name = Path::new("standard input");
        let source = match format {
            Some(_) => saved.source(name, format),
            None => Source {
                format: Some(Format::Lines),
                text: ColumnName::from("text"),
                ..Source::new(name)
            },
        };
        return Ok(data::read_from(std::io::stdin(), &source, want)?);
    }
    let source = saved.source(file, format);
    Ok(data::read_once(&source, want).map_err(|error| saved.explain_format(file, format, error))?)
}

fn print_predictions(predictions: &[Prediction], json: bool) -> Result<Reader> {
    let mut text = String::new();
    for prediction in predictions {
        if json {
            text.push_str(&serde_json::to_string(prediction)?);
        } else {
            text.push_str(&describe(prediction));
        }
        text.push('\n');
    }
    if json { output::write(&text) } else { output::write(&printable(&text)) }
}

fn describe(prediction: &Prediction) -> String {
    match prediction {
        Prediction::Class { text, text_pair, label, confidence, probabilities: all } => {
            let texts = both(text, text_pair.as_deref());
            format!("{label}  {confidence:.3}  {texts}{}", probabilities(all))
        }
        Prediction::Labels { text, text_pair, labels, probabilities: all } => {
            let labels = if labels.is_empty() { "-".to_string() } else { labels.join(", ") };
            let texts = both(text, text_pair.as_deref());
            format!("{labels}  {texts}{}", probabilities(all))
        }
        Prediction::Value { text, text_pair, value } => {
            format!("{value:.3}  {}", both(text, text_pair.as_deref()))
        }
        Prediction::Tags { words, labels, entities, .. } => {
            let tagged = words.iter().zip(labels);
            let tagged: Vec<String> = tagged
                .map(|(word, label)| match label.as_str() {
                    "O" => word.clone(),
                    label => format!("{word}/{label}"),
                })
                .collect();
            let entities: Vec<String> = entities.iter().map(entity).collect();
            if entities.is_empty() {
                tagged.join(" ")
            } else {
                format!("{}\n    {}", tagged.join(" "), entities.join("  "))
            }
        }
        Prediction::Answer { question, answer, start, end, score } => {
            let answer = match (answer, start, end) {
                (Some(answer), Some(start), Some(end)) => {
                    format!("{}  ({start}..{end})", one_line(answer))
                }
                _ => "no answer".to_string(),
            };
            format!("{answer}  {score:.2}  {}", one_line(question))
        }
    }
}

/// Every label with its probability, in label order; of many the most probable ones, these first.
fn probabilities(all: &[(String, f32)]) -> String {
    let mut listed: Vec<&(String, f32)> = all.iter().collect();
    let mut rest = String::new();
    if all.len() > LISTED_LABELS {
        listed.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        listed.truncate(MOST_PROBABLE);
        rest = format!("  and {} less likely", counted(all.len() - listed.len(), "label"));
    }
    let listed = listed.into_iter();
    let listed = listed.map(|(label, probability)| format!("{label} {probability:.3}"));
    format!("\n    {}{rest}", listed.collect::<Vec<_>>().join("  "))
}

fn entity(entity: &EntitySpan) -> String {
    format!("{} `{}` ({}..{})", entity.label, one_line(&entity.text), entity.start, entity.end)
}

fn both(text: &str, text_pair: Option<&str>) -> String {
    match text_pair {
        None => one_line(text),
        Some(second) => format!("{} | {}", one_line(text), one_line(second)),
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

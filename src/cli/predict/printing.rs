//! Prints predictions: JSON lines for programs, text for people.

use std::{io::IsTerminal, path::Path};

use anyhow::Result;
use frostbert::{
    cache::{progress::Progress, wording::printable},
    internals::{
        data::{Record, StopReading},
        prediction::several::{
            ChunkSize, NamedPredictor, PredictedRecords, predict_all, predict_with_all,
            records_at_a_time,
        },
        tasks::prediction::{EntitySpan, Prediction},
    },
};
use serde_json::{Map, Value};

use super::PredictArguments;
use crate::cli::{
    Context,
    output::{self, Reader},
};

/// The most records predicted at a time where the results go to a terminal, so that the first ones appear soon.
const SHOWN_AT_A_TIME: usize = 256;

/// Labels that are listed with their probabilities, where nothing else is asked for.
const LISTED_LABELS: usize = 3;

/// Prints the predictions for each record, for programs with its id if `with_id`, and returns the number of records without
/// a text.
pub(super) fn print_all(
    predictors: &mut [NamedPredictor],
    records: impl Iterator<Item = frostbert::Result<Record>> + Send,
    stop: &StopReading,
    with_id: bool,
    arguments: &PredictArguments,
    context: &Context,
) -> Result<u64> {
    let is_stdin = arguments.file.as_deref() == Some(Path::new("-"));
    // Who types is answered line by line.
    let most = match (is_stdin, std::io::stdout().is_terminal()) {
        (true, _) => 1,
        (false, true) => SHOWN_AT_A_TIME,
        (false, false) => usize::MAX,
    };
    let at_a_time = records_at_a_time(predictors).min(most);
    let shows_progress = arguments.file.is_some() && !is_stdin && !std::io::stdout().is_terminal();
    if shows_progress {
        context.progress.start("predicting", None, "rows");
    }
    let mut printer = Printer {
        names: names_of_predictors(predictors),
        with_id,
        n_skipped: 0,
        arguments,
        context,
    };
    let printed = if is_stdin {
        print_as_read(predictors, records, at_a_time, &mut printer)
    } else {
        print_stream(predictors, records, stop, at_a_time, &mut printer)
    };
    if shows_progress {
        context.progress.finish();
    }
    printed.map(|()| printer.n_skipped)
}

/// Reads no record before those before it are answered.
fn print_as_read(
    predictors: &mut [NamedPredictor],
    records: impl Iterator<Item = frostbert::Result<Record>>,
    at_a_time: usize,
    printer: &mut Printer<'_>,
) -> Result<()> {
    let mut records = records.peekable();
    while records.peek().is_some() {
        let chunk = records.by_ref().take(at_a_time).collect::<Result<Vec<Record>, _>>()?;
        if printer.print(predict_with_all(predictors, chunk)?)? == Reader::Gone {
            break;
        }
    }
    Ok(())
}

/// Reads and encodes further records while others are printed.
fn print_stream(
    predictors: &mut [NamedPredictor],
    records: impl Iterator<Item = frostbert::Result<Record>> + Send,
    stop: &StopReading,
    at_a_time: usize,
    printer: &mut Printer<'_>,
) -> Result<()> {
    let mut failed = None;
    let size = ChunkSize { records: at_a_time, part: usize::MAX };
    predict_all(predictors, records, stop, size, |predicted| match printer.print(predicted) {
        Ok(reader) => Ok(reader != Reader::Gone),
        Err(error) => {
            failed = Some(error);
            Ok(false)
        }
    })?;
    failed.map_or(Ok(()), Err)
}

/// Prints predictions.
struct Printer<'a> {
    /// The names of the runs.
    names: Vec<String>,
    with_id: bool,
    /// The number of records without a text.
    n_skipped: u64,
    arguments: &'a PredictArguments,
    context: &'a Context,
}

impl Printer<'_> {
    /// Prints the predictions for some records. If the reader has gone, there is nothing left to do.
    fn print(&mut self, predicted: PredictedRecords) -> Result<Reader> {
        let (arguments, context) = (self.arguments, self.context);
        let n_records = predicted.records.len() as u64;
        let mut text = String::new();
        let mut of_runs: Vec<_> = predicted.predictions.into_iter().map(Vec::into_iter).collect();
        for record in &predicted.records {
            let id = record.id.as_deref().filter(|_| self.with_id);
            let mut said = Vec::with_capacity(of_runs.len());
            for predictions in &mut of_runs {
                if let Some(prediction) = predictions.next().flatten() {
                    said.push(shown(id, prediction, arguments, context)?);
                }
            }
            if said.is_empty() {
                self.n_skipped += 1;
            } else {
                text.push_str(&side_by_side(&self.names, said, context.json)?);
            }
        }
        context.progress.advance(n_records, 0);
        if context.json { output::write(&text) } else { output::write(&printable(&text)) }
    }
}

fn names_of_predictors(predictors: &[NamedPredictor]) -> Vec<String> {
    predictors.iter().map(|one| one.name.clone()).collect()
}

/// Joins the predictions of several runs for a record. For programs, they are one object with the keys of each
/// prediction prefixed with the name of its run; for people, they follow one another. A single prediction is returned
/// unchanged.
fn side_by_side(names: &[String], mut said: Vec<String>, json: bool) -> Result<String> {
    if said.len() == 1 {
        return Ok(said.remove(0));
    }
    let named = names.iter().zip(&said);
    if !json {
        return Ok(named.map(|(name, said)| format!("{name}: {said}")).collect());
    }
    let mut all = Map::new();
    for (name, said) in named {
        let own: Map<String, Value> = serde_json::from_str(said)?;
        for (key, value) in own {
            let key =
                if OF_RECORDS.contains(&key.as_str()) { key } else { format!("{name}.{key}") };
            all.insert(key, value);
        }
    }
    Ok(serde_json::to_string(&all)? + "\n")
}

/// The keys of a prediction that belong to its record.
const OF_RECORDS: [&str; 4] = ["id", "text", "text_pair", "question"];

/// Formats a prediction: one line of JSON, with the id of its record if it is given, or one or more lines for people.
fn shown(
    id: Option<&str>,
    mut prediction: Prediction,
    arguments: &PredictArguments,
    context: &Context,
) -> Result<String> {
    prediction.withhold_below(arguments.min_confidence);
    if !context.json {
        return Ok(describe(&prediction, arguments.top.map_or(LISTED_LABELS, usize::from)) + "\n");
    }
    if let Some(n) = arguments.top {
        prediction.keep_most_probable(usize::from(n));
    }
    let mut line = serde_json::to_string(&prediction)? + "\n";
    if let Some(id) = id {
        line.insert_str(1, &format!("\"id\":{},", serde_json::to_string(id)?));
    }
    Ok(line)
}

fn describe(prediction: &Prediction, n_listed: usize) -> String {
    match prediction {
        Prediction::Class { text, text_pair, label, confidence, probabilities: all } => {
            let texts = both(text, text_pair.as_deref());
            let label = if label.is_empty() { "-" } else { label };
            format!("{label}  {confidence:.3}  {texts}{}", probabilities(all, n_listed))
        }
        Prediction::Labels { text, text_pair, labels, probabilities: all } => {
            let labels = if labels.is_empty() { "-".to_string() } else { labels.join(", ") };
            let texts = both(text, text_pair.as_deref());
            format!("{labels}  {texts}{}", probabilities(all, n_listed))
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

/// Formats the most probable labels, in descending order.
fn probabilities(all: &[(String, f32)], n_listed: usize) -> String {
    let mut listed: Vec<&(String, f32)> = all.iter().collect();
    listed.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    listed.truncate(n_listed);
    let listed = listed.into_iter();
    let listed = listed.map(|(label, probability)| format!("{label} {probability:.3}"));
    format!("\n    {}", listed.collect::<Vec<_>>().join("  "))
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

//! Output that commands share: JSON, tables of metrics, and sizes.

use std::{
    borrow::Cow,
    io::{self, Write},
    path::PathBuf,
};

use anyhow::Result;
use frostbert::{
    cache::wording::{counted, printable},
    internals::{
        doctor::process_memory::peak_rss_bytes,
        metrics::{
            ClassScore, ClassificationMetrics,
            metric::Metric,
            scores::{Score, Scores},
        },
        tasks::TaskMetrics,
    },
};
use indicatif::{BinaryBytes, HumanCount};
use serde::Serialize;

use super::{
    log,
    screen::{Screen, write_to_stderr},
};

/// Whether anybody reads stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// There is a reader, as far as is known.
    There,
    /// The reader has gone, as with `| head -1`. This is not an error: there is nothing left to print.
    Gone,
}

/// Prints a value as one JSON object. A reader that has gone is not an error.
pub(super) fn print_json(value: &impl Serialize) -> Result<()> {
    write(&format!("{}\n", serde_json::to_string_pretty(value)?)).map(drop)
}

/// Prints text for people to stdout, without the control characters that data may contain. A reader that has gone is
/// not an error.
pub(super) fn print(text: &str) -> Result<()> {
    write(&printable(text)).map(drop)
}

/// Prints a page for people to stdout. A reader that has gone is not an error.
pub(super) fn show(screen: &Screen) -> Result<()> {
    reader_after(screen.write()).map(drop)
}

/// Prints text unchanged, for programs, such as JSON.
pub(super) fn write(text: &str) -> Result<Reader> {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(text.as_bytes());
    reader_after(written.and_then(|()| stdout.flush()))
}

/// Returns whether anybody reads stdout, from the result of writing to it.
pub(super) fn reader_after(written: io::Result<()>) -> Result<Reader> {
    match written {
        Ok(()) => Ok(Reader::There),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(anyhow::Error::new(error).context("cannot write to standard output")),
    }
}

/// Prints a line to stderr, and to the log if there is one. Failures are ignored, since there is nowhere to report
/// them.
pub(super) fn say(line: &str) {
    log::add(line);
    write_to_stderr(line);
}

/// Converts paths for JSON; what is not UTF-8 becomes U+FFFD.
pub(super) fn shown(paths: &[PathBuf]) -> Vec<Cow<'_, str>> {
    paths.iter().map(|path| path.to_string_lossy()).collect()
}

/// Converts a report of stage 1 to JSON, and adds the peak memory of the process.
pub(super) fn extract_json(
    report: &frostbert::internals::extraction::extract::ExtractReport,
) -> Result<serde_json::Value> {
    let mut value = serde_json::to_value(report)?;
    value["peak_rss_bytes"] = peak_rss_bytes().into();
    Ok(value)
}

/// The duration in seconds from which on it is told what bound the speed of stage 1.
const LONG_SECONDS: f64 = 10.0;

/// What stage 1 did, in a few lines; of several models in so many for each.
pub(super) fn describe_extract(
    report: &frostbert::internals::extraction::extract::ExtractReport,
) -> String {
    if !report.models.is_empty() {
        let models = report.models.iter();
        let models = models
            .map(|(model, report)| format!("model       {model}\n{}", describe_extract(report)));
        return models.collect::<Vec<String>>().join("\n");
    }
    let count = HumanCount;
    let mut text = format!(
        "cache       {}\n            {}, {} distinct: {} computed, {} reused; {} truncated\n",
        report.cache.display(),
        counted(report.documents, "text"),
        count(report.unique),
        count(report.computed),
        count(report.reused),
        count(report.truncated),
    );
    if report.computed > 0 {
        text.push_str(&format!(
            "            {} in {:.1} s on {} ({} tokens/s), {} written\n",
            counted(report.tokens, "token"),
            report.seconds,
            report.device,
            count(report.tokens_per_second as u64),
            bytes(report.bytes_written),
        ));
        if let Some(part) = report.bound_by
            && report.seconds >= LONG_SECONDS
        {
            let shares = report.busy.iter();
            let shares = shares.map(|(name, share)| format!("{name} {:.0} %", 100.0 * share));
            let shares = shares.collect::<Vec<String>>().join(", ");
            text.push_str(&format!("            bound by the {part} (at work: {shares})\n"));
        }
    }
    text
}

/// Formats a number of bytes for people.
pub(super) fn bytes(bytes: u64) -> String {
    BinaryBytes(bytes).to_string()
}

/// The metrics that are shown to people, in this order, if the task has them.
pub(super) const SHOWN: [Metric; 18] = [
    Metric::ExactMatch,
    Metric::F1,
    Metric::EntityF1Strict,
    Metric::EntityF1Conlleval,
    Metric::TokenAccuracy,
    Metric::Accuracy,
    Metric::MicroF1,
    Metric::MacroF1,
    Metric::WeightedF1,
    Metric::Mcc,
    Metric::RocAuc,
    Metric::LogLoss,
    Metric::Brier,
    Metric::Ece,
    Metric::Spearman,
    Metric::Pearson,
    Metric::Mse,
    Metric::Mae,
];

/// Returns a table of the metrics of several parts side by side, with intervals. The micro F1 of single labels is
/// omitted, because it equals their accuracy.
pub(super) fn metrics_table(parts: &[(&str, &TaskMetrics)]) -> Vec<Vec<String>> {
    let mut lines = vec![
        std::iter::once("metric")
            .chain(parts.iter().map(|(name, _)| *name))
            .map(String::from)
            .collect(),
    ];
    let scores: Vec<&Scores> = parts.iter().map(|(_, metrics)| metrics.scores()).collect();
    let is_single =
        parts.iter().any(|(_, metrics)| matches!(metrics, TaskMetrics::Classification(_)));
    for metric in SHOWN {
        let is_known = scores.iter().any(|scores| scores.get(metric).is_some());
        if !is_known || (is_single && metric == Metric::MicroF1) {
            continue;
        }
        let mut line = vec![metric.to_string()];
        line.extend(scores.iter().map(|scores| cell(scores.get(metric))));
        lines.push(line);
    }
    lines
}

fn cell(score: Option<&Score>) -> String {
    score.map_or("-".to_string(), |score| score_cell(score.value, score.interval))
}

/// The value of a metric, with its interval where it has one.
pub(super) fn score_cell(value: f64, interval: Option<[f64; 2]>) -> String {
    let interval = interval.map(|[low, high]| format!(" [{low:.3}, {high:.3}]"));
    format!("{value:.3}{}", interval.unwrap_or_default())
}

/// A value of a pipeline for people: texts without quotes.
pub(super) fn value_cell(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), String::from)
}

/// The name of a class, its precision, recall and F1, and its support.
type ClassRow = (String, [f64; 3], u64);

/// The maximum number of classes that are listed individually.
const LISTED_CLASSES: usize = 30;

/// The maximum number of classes for a confusion matrix; for more, the most frequent confusions are listed.
const MATRIX_CLASSES: usize = 20;

/// The maximum width of a confusion matrix in columns.
const MATRIX_COLUMNS: usize = 80;

/// The maximum number of confusions that are listed.
const LISTED_CONFUSIONS: usize = 10;

/// Returns tables of the precision, recall, F1 and support of every class (or entity type, if there are any), and of
/// the confusions between classes; empty if there is nothing to list.
pub(super) fn class_tables(metrics: &TaskMetrics, labels: &[String]) -> Vec<Vec<Vec<String>>> {
    let (scores, title): (Vec<ClassRow>, &str) = match metrics {
        TaskMetrics::Classification(metrics) => {
            (metrics.per_class.iter().map(|score| class_row(labels, score)).collect(), "class")
        }
        TaskMetrics::Multilabel(metrics) => {
            let scores = metrics.per_class.iter().map(|score| {
                let numbers = [score.precision, score.recall, score.f1];
                (name_of(labels, score.label), numbers, score.support)
            });
            (scores.collect(), "label")
        }
        TaskMetrics::Tokens(metrics) if !metrics.per_type.is_empty() => {
            let scores = metrics.per_type.iter().map(|score| {
                let numbers = [score.precision, score.recall, score.f1];
                (score.kind.clone(), numbers, score.support)
            });
            (scores.collect(), "entity")
        }
        TaskMetrics::Tokens(metrics) => {
            (metrics.per_class.iter().map(|score| class_row(labels, score)).collect(), "tag")
        }
        _ => (Vec::new(), ""),
    };
    let mut tables = Vec::new();
    if (1..=LISTED_CLASSES).contains(&scores.len()) {
        let header = [title, "precision", "recall", "f1", "support"].map(String::from);
        let mut lines = vec![header.to_vec()];
        lines.extend(scores.into_iter().map(|(name, numbers, support)| {
            let numbers = numbers.map(|number| format!("{number:.3}"));
            let cells = std::iter::once(name).chain(numbers);
            cells.chain([support.to_string()]).collect()
        }));
        tables.push(lines);
    }
    if let TaskMetrics::Classification(metrics) = metrics {
        tables.extend(
            matrix(&metrics.confusion, labels).or_else(|| worst_confusions(metrics, labels)),
        );
    }
    tables
}

/// Returns the confusion matrix, if it is small enough to be readable.
fn matrix(confusion: &[Vec<u64>], labels: &[String]) -> Option<Vec<Vec<String>>> {
    let mut header = vec!["true \\ predicted".to_string()];
    header.extend((0..confusion.len()).map(|class| name_of(labels, class)));
    let width: usize = header.iter().map(|name| name.chars().count() + 2).sum();
    if confusion.is_empty() || confusion.len() > MATRIX_CLASSES || width > MATRIX_COLUMNS {
        return None;
    }
    let mut lines = vec![header];
    lines.extend(confusion.iter().enumerate().map(|(class, row)| {
        let counts = row.iter().map(ToString::to_string);
        std::iter::once(name_of(labels, class)).chain(counts).collect()
    }));
    Some(lines)
}

/// Returns the most frequent confusions, in descending order and ties in the order of the labels, or `None` if there
/// are none.
fn worst_confusions(
    metrics: &ClassificationMetrics,
    labels: &[String],
) -> Option<Vec<Vec<String>>> {
    let of_rows = metrics.confusion.iter().enumerate().flat_map(|(truth, row)| {
        row.iter().enumerate().map(move |(predicted, count)| (truth, predicted, *count))
    });
    let cells = metrics.confusion_cells.iter();
    let cells = cells.map(|cell| (cell.truth, cell.predicted, cell.rows));
    let mut wrong: Vec<_> = of_rows
        .chain(cells)
        .filter(|(truth, predicted, count)| truth != predicted && *count > 0)
        .collect();
    wrong.sort_by_key(|(_, _, count)| std::cmp::Reverse(*count));
    let rest = wrong.split_off(wrong.len().min(LISTED_CONFUSIONS));
    let mut lines = vec![["true", "predicted", "count"].map(String::from).to_vec()];
    lines.extend(wrong.iter().map(|(truth, predicted, count)| {
        vec![name_of(labels, *truth), name_of(labels, *predicted), count.to_string()]
    }));
    if !rest.is_empty() {
        let count: u64 = rest.iter().map(|(_, _, count)| count).sum();
        lines.push(vec!["all others".into(), String::new(), count.to_string()]);
    }
    (lines.len() > 1).then_some(lines)
}

fn class_row(labels: &[String], score: &ClassScore) -> ClassRow {
    let numbers = [score.precision, score.recall, score.f1];
    (name_of(labels, score.label), numbers, score.support)
}

fn name_of(labels: &[String], class: usize) -> String {
    labels.get(class).cloned().unwrap_or_default()
}

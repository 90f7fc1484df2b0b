//! `frostbert runs diff`: two runs side by side.

use std::{collections::BTreeMap, path::PathBuf};

use anyhow::Result;
use clap::Args;
use frostbert::{
    cache::wording::{counted, shorten},
    internals::{
        data::example::FileRecord,
        prediction::{
            run_diff::{
                ChangedExample, ChangedExamples, DataDiff, MetricDiff, RunDiff, SideBySide,
                compare_runs,
            },
            run_record::RowsByPart,
        },
    },
};
use indicatif::HumanCount;
use serde_json::Value;

use crate::cli::{Context, open_record, output, screen::Screen};

/// Examples of each kind that people see.
const LISTED_EXAMPLES: usize = 10;

/// Characters of a text at most.
const TEXT_LENGTH: usize = 300;

pub(super) const ABOUT: &str = "\
Compare two runs: settings, data, metrics, and examples that they predict differently

Differences are those of B to A. On the test rows of both (or else the validation rows) every metric has the 95 % interval of \
its difference and a p-value, and examples are listed that B predicts worse, and better. Where the runs were tested on other \
rows, they say so.";

#[derive(Debug, Args)]
pub(in crate::cli) struct DiffArguments {
    /// A run: its folder, a name of runs (then the newest), or a tag
    #[arg(value_name = "A")]
    a: PathBuf,
    /// Another run
    #[arg(value_name = "B")]
    b: PathBuf,
    /// Examples that are listed of those that B predicts worse, and of the others [default: 10; with --json all]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

pub(super) fn run(arguments: &DiffArguments, context: &Context) -> Result<()> {
    let [a, b] = [&arguments.a, &arguments.b].map(|run| open_record(run, context));
    let most = if context.json { usize::MAX } else { LISTED_EXAMPLES };
    let diff = compare_runs(&a?, &b?, arguments.limit.unwrap_or(most), &context.progress)?;
    if context.json {
        return output::print_json(&diff);
    }
    let mut screen = Screen::default();
    describe(&diff, &mut screen);
    output::show(&screen)
}

fn describe(diff: &RunDiff, screen: &mut Screen) {
    screen.as_it_is(&format!("a           {}", diff.a.display()));
    screen.as_it_is(&format!("b           {}", diff.b.display()));
    table_or_same("settings", &value_lines("setting", &diff.settings), screen);
    if diff.data.same {
        screen.text(&format!("data        the same: {}\n", data_in_words(&diff.data)));
    } else {
        screen.table("data", &data_lines(&diff.data));
    }
    table_or_same("versions", &value_lines("version", &diff.versions), screen);
    match (&diff.reason, diff.rows, diff.part) {
        (Some(reason), ..) => {
            screen.text(&format!(
                "rows        not the same, so differences cannot be told: {reason}\n"
            ));
        }
        (None, Some(rows), Some(part)) => {
            screen.text(&format!("rows        {} of {part}, the same\n", HumanCount(rows as u64)));
        }
        _ => {}
    }
    screen.table("metrics", &metric_lines(diff));
    let mut reasons: Vec<String> = Vec::new();
    for metric in diff.metrics.iter().filter(|_| diff.reason.is_none()) {
        reasons.extend(metric.reason.as_ref().map(|reason| format!("{}: {reason}", metric.name)));
    }
    screen.sentences("", &reasons);
    if let (Some(changed), Some(worse), Some(better)) = (diff.changed, &diff.worse, &diff.better) {
        screen.text(&format!(
            "changed     {}: {} worse in b, {} better\n",
            counted(changed, "prediction"),
            HumanCount(worse.count as u64),
            HumanCount(better.count as u64),
        ));
        let has_tags = diff.task == "tokens";
        examples("worse", worse, has_tags, screen);
        examples("better", better, has_tags, screen);
    }
}

fn table_or_same(title: &str, lines: &[Vec<String>], screen: &mut Screen) {
    if lines.len() > 1 {
        screen.table(title, lines);
    } else {
        screen.sentences(title, &["the same".into()]);
    }
}

/// A header, and a line for each value that is not the same.
fn value_lines(title: &str, values: &BTreeMap<String, SideBySide<Value>>) -> Vec<Vec<String>> {
    let mut lines = vec![[title, "a", "b"].map(String::from).to_vec()];
    lines.extend(values.iter().map(|(name, SideBySide { a, b })| {
        let cell = |value: &Option<Value>| match value {
            None | Some(Value::Null) => "-".to_string(),
            Some(value) => output::value_cell(value),
        };
        vec![name.clone(), cell(a), cell(b)]
    }));
    lines
}

fn data_in_words(data: &DataDiff) -> String {
    let files: Vec<String> = data
        .files
        .iter()
        .filter_map(|file| file.a.as_ref())
        .map(|file| format!("{} ({})", file.path.display(), counted(file.rows, "row")))
        .collect();
    files.join(", ")
}

/// The files that differ, and the rows of the parts.
fn data_lines(data: &DataDiff) -> Vec<Vec<String>> {
    let mut lines = vec![["file", "a", "b"].map(String::from).to_vec()];
    let file_cell = |file: &Option<FileRecord>| {
        let facts =
            |file: &FileRecord| format!("{}, {}", counted(file.rows, "row"), file.blake3.short());
        file.as_ref().map_or("-".into(), facts)
    };
    for SideBySide { a, b } in data.files.iter().filter(|file| file.a != file.b) {
        let path = a.as_ref().or(b.as_ref()).map(|file| file.path.display().to_string());
        lines.push(vec![path.unwrap_or_default(), file_cell(a), file_cell(b)]);
    }
    let SideBySide { a, b } = &data.rows;
    type RowsOf = fn(&RowsByPart) -> usize;
    let parts: [(&str, RowsOf); 3] = [
        ("train", |rows| rows.train),
        ("validation", |rows| rows.validation),
        ("test", |rows| rows.test),
    ];
    for (part, of) in parts {
        let cell =
            |rows: &Option<RowsByPart>| rows.as_ref().map_or("-".into(), |rows| shown(of(rows)));
        lines.push(vec![format!("rows of {part}"), cell(a), cell(b)]);
    }
    lines
}

fn shown(count: usize) -> String {
    HumanCount(count as u64).to_string()
}

/// The metrics of both. The micro F1 of single labels is their accuracy, and left out.
fn metric_lines(diff: &RunDiff) -> Vec<Vec<String>> {
    fn cell<T>(value: Option<T>, show: impl Fn(T) -> String) -> String {
        value.map_or("-".into(), show)
    }
    let mut lines = vec![["metric", "a", "b", "b - a", "p"].map(String::from).to_vec()];
    let is_single = diff.task == "classification";
    let shown = diff.metrics.iter().filter(|metric| !is_single || metric.name != "micro_f1");
    lines.extend(shown.map(|metric: &MetricDiff| {
        let three = |value: f64| format!("{value:.3}");
        let difference = cell(metric.difference, |value| format!("{value:+.3}"));
        let interval = metric.ci.map(|[low, high]| format!(" [{low:+.3}, {high:+.3}]"));
        vec![
            metric.name.to_string(),
            cell(metric.a, three),
            cell(metric.b, three),
            difference + &interval.unwrap_or_default(),
            cell(metric.p_value, |p| format!("{p:.4}")),
        ]
    }));
    lines
}

fn examples(title: &str, changed: &ChangedExamples, has_tags: bool, screen: &mut Screen) {
    if changed.examples.is_empty() {
        return;
    }
    let mut lines = vec![["text", "truth", "a", "b"].map(String::from).to_vec()];
    lines.extend(changed.examples.iter().map(|example| {
        let all = [&example.truth, &example.a, &example.b];
        let [truth, a, b] = if has_tags { other_tags(example, all) } else { all.map(answer) };
        vec![text(example), truth, a, b]
    }));
    screen.table(title, &lines);
    let left = changed.count - changed.examples.len();
    if left > 0 {
        screen.sentences("", &[format!("{} more", shown(left))]);
    }
}

fn text(example: &ChangedExample) -> String {
    let text = shorten(&example.text, TEXT_LENGTH);
    match &example.text_pair {
        Some(second) => format!("{text} | {}", shorten(second, TEXT_LENGTH)),
        None => text,
    }
}

/// What is true or predicted of an example.
fn answer(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::Array(values) => joined(values.iter().map(output::value_cell)),
        Value::Number(number) => {
            number.as_f64().map_or_else(|| number.to_string(), |number| format!("{number:.3}"))
        }
        other => shorten(&output::value_cell(other), TEXT_LENGTH),
    }
}

/// The tags of the words for which two runs predict another one: those that are true, and those that they predict.
fn other_tags(example: &ChangedExample, all: [&Value; 3]) -> [String; 3] {
    let words: Vec<&str> = example.text.split(' ').collect();
    let tag = |tags: &Value, word: usize| output::value_cell(&tags[word]);
    let n_tags = example.truth.as_array().map_or(0, Vec::len);
    let differing = || (0..n_tags).filter(|word| example.a[*word] != example.b[*word]);
    all.map(|tags| {
        joined(differing().map(|word| match words.get(word) {
            Some(name) if words.len() == n_tags => format!("{name} {}", tag(tags, word)),
            _ => tag(tags, word),
        }))
    })
}

fn joined(values: impl Iterator<Item = String>) -> String {
    let values: Vec<String> = values.map(|value| shorten(&value, TEXT_LENGTH)).collect();
    if values.is_empty() { "-".into() } else { values.join(", ") }
}

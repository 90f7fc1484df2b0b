//! What the data is: rows and classes by part, how long texts are, and what was found in them.

use frostbert_cache::wording::counted;
use serde::Serialize;

use super::{
    numbers::{grouped, percent},
    run_files::RunFiles,
    shown_task::shown_task,
    states::CachedLengths,
    table::{Bar, TableView, bars},
    texts::TextGate,
};
use crate::{
    data::{
        checks::{FoundText, RecordPlace},
        example::part_name,
    },
    training::checks::{Check, LabelErrors, NearDuplicates, RunChecks},
};

/// Classes that are listed; of more, the largest.
const MOST_CLASSES: usize = 200;

/// Bars of the lengths at most.
const MOST_BARS: u32 = 13;

/// Characters of a text beside a finding.
const MOST_CHARACTERS: usize = 240;

/// The second part of a page.
#[derive(Clone, Debug, Serialize)]
pub(super) struct DataView {
    pub(super) files: TableView,
    /// Rows by part, and what else is counted of each.
    pub(super) parts: TableView,
    /// Rows of each class by part.
    pub(super) classes: Option<TableView>,
    pub(super) lengths: Option<LengthsView>,
    /// What reading and cleaning counted.
    pub(super) cleaning: Option<TableView>,
    /// Repeated and contradictory rows, and rows that stand in two parts.
    pub(super) found: Vec<FoundView>,
    pub(super) near_copies: Option<NearCopiesView>,
    pub(super) doubtful: Option<DoubtfulView>,
    /// Checks that were not made, and why.
    pub(super) skipped: Vec<String>,
}

/// How long texts are, in tokens.
#[derive(Clone, Debug, Serialize)]
pub(super) struct LengthsView {
    pub(super) sentence: String,
    pub(super) bars: Vec<Bar>,
}

/// Rows of a kind, and the first few of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct FoundView {
    pub(super) title: String,
    pub(super) examples: Vec<ExampleView>,
}

/// A text of the data, where it stands, and its labels where they are what was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct ExampleView {
    pub(super) text: Option<String>,
    pub(super) labels: Vec<String>,
    pub(super) places: Vec<String>,
}

/// Texts of validation and test that nearly stand in train.
#[derive(Clone, Debug, Serialize)]
pub(super) struct NearCopiesView {
    pub(super) sentences: Vec<String>,
    pub(super) pairs: Vec<NearPairView>,
}

/// Two texts that are almost the same.
#[derive(Clone, Debug, Serialize)]
pub(super) struct NearPairView {
    pub(super) cosine: String,
    pub(super) part: &'static str,
    pub(super) text: Option<String>,
    pub(super) train_text: Option<String>,
    pub(super) places: Vec<String>,
}

/// Labels that are likely wrong.
#[derive(Clone, Debug, Serialize)]
pub(super) struct DoubtfulView {
    pub(super) sentence: String,
    pub(super) rows: Vec<DoubtfulRow>,
}

/// A label that is likely wrong.
#[derive(Clone, Debug, Serialize)]
pub(super) struct DoubtfulRow {
    pub(super) text: Option<String>,
    pub(super) label: String,
    pub(super) suggested: String,
    pub(super) probability: String,
    pub(super) own_probability: String,
    pub(super) place: String,
}

impl DataView {
    pub(super) fn of(run: &RunFiles, lengths: Option<&CachedLengths>, gate: &TextGate) -> DataView {
        let classes = class_counts(run);
        let checks = run.checks.as_ref();
        let mut skipped = Vec::new();
        let near = checks.and_then(|checks| done(&checks.near_duplicates, &mut skipped));
        let errors = checks.and_then(|checks| done(&checks.label_errors, &mut skipped));
        DataView {
            files: files(run),
            parts: shown_task(run.task()).parts(run),
            classes: classes_table(run, &classes),
            lengths: lengths.map(LengthsView::of),
            cleaning: checks.and_then(cleaning),
            found: checks.map_or(Vec::new(), |checks| found(checks, gate)),
            near_copies: near.map(|near| NearCopiesView::of(near, gate)),
            doubtful: errors.map(|errors| DoubtfulView::of(errors, gate)),
            skipped,
        }
    }
}

/// A check's result; why there is none is noted.
fn done<'c, T>(check: &'c Check<T>, skipped: &mut Vec<String>) -> Option<&'c T> {
    match check {
        Check::Done(done) => Some(done),
        Check::Skipped { skipped: reason } => {
            if !skipped.contains(reason) {
                skipped.push(reason.clone());
            }
            None
        }
    }
}

fn files(run: &RunFiles) -> TableView {
    let mut table = TableView::new(&["file"], &["records"]);
    for file in &run.lock.data {
        table.push([file.path.display().to_string(), grouped(file.rows as u64)]);
    }
    table
}

/// Rows of each class in train, validation and test, in the order of the labels; of tags, words.
pub(super) fn class_counts(run: &RunFiles) -> Vec<(String, [usize; 3])> {
    if !run.task().of_data().has_labels() {
        return Vec::new();
    }
    let labels = run.labels();
    let mut counts = vec![[0; 3]; labels.len()];
    let rows = shown_task(run.task()).labels_of_rows(run).into_iter();
    for (own, part) in rows.zip(&run.parts) {
        for class in own.into_iter().filter_map(|label| run.lock.labels.id(label)) {
            counts[class][*part as usize] += 1;
        }
    }
    labels.iter().cloned().zip(counts).collect()
}

fn classes_table(run: &RunFiles, classes: &[(String, [usize; 3])]) -> Option<TableView> {
    let name = shown_task(run.task()).label_noun();
    let mut table = TableView::new(&[name], &["train", "validation", "test"]);
    let mut shown: Vec<&(String, [usize; 3])> = classes.iter().collect();
    if shown.len() > MOST_CLASSES {
        shown.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.iter().sum::<usize>()));
        shown.truncate(MOST_CLASSES);
        table.note = Some(format!("The largest of {}.", counted(classes.len(), name)));
    }
    for (label, counts) in shown {
        let [train, validation, test] = counts.map(|count| grouped(count as u64));
        table.push([label.clone(), train, validation, test]);
    }
    table.if_any()
}

impl LengthsView {
    fn of(lengths: &CachedLengths) -> LengthsView {
        let n = lengths.tokens.len();
        let mut sorted = lengths.tokens.clone();
        sorted.sort_unstable();
        let at = |share: f64| sorted[((n - 1) as f64 * share) as usize];
        let cut = match lengths.cut {
            0 => "none was cut off".to_string(),
            cut => format!(
                "the ends of {} ({}) were cut off",
                grouped(cut as u64),
                percent(cut as f64 / n as f64)
            ),
        };
        let sentence = format!(
            "{} have {} tokens in the middle, and nine in ten at most {}; {cut}.",
            counted(n, "distinct text"),
            at(0.5),
            at(0.9),
        );
        LengthsView { sentence, bars: length_bars(&sorted) }
    }
}

/// Texts by their number of tokens, in steps that are round and of which there are about twelve.
fn length_bars(sorted: &[u32]) -> Vec<Bar> {
    let ends = [sorted.first(), sorted.last()].map(|end| end.copied().unwrap_or(1).max(1));
    let bin_of = |tokens: u32, step: u32| (tokens - 1) / step;
    let n_bins = |step: u32| bin_of(ends[1], step) - bin_of(ends[0], step) + 1;
    let steps = [1, 2, 4, 5, 8, 10, 16, 20, 25, 32, 40, 50, 64, 100, 128, 256, 512, 1024];
    let step = steps.into_iter().find(|step| n_bins(*step) <= MOST_BARS);
    let step = step.unwrap_or(ends[1].div_ceil(MOST_BARS));
    let counts = (bin_of(ends[0], step)..=bin_of(ends[1], step)).map(|bin| {
        let (low, high) = (bin * step, (bin + 1) * step);
        let n = sorted.iter().filter(|tokens| low < **tokens && **tokens <= high).count();
        (format!("{} to {high}", low + 1), grouped(n as u64), n as f64)
    });
    bars(counts.collect::<Vec<_>>().into_iter())
}

fn cleaning(checks: &RunChecks) -> Option<TableView> {
    let fate = |count: usize, dropped: bool| match (count, dropped) {
        (0, _) => "0".to_string(),
        (n, true) => format!("{}, left out", grouped(n as u64)),
        (n, false) => format!("{}, kept", grouped(n as u64)),
    };
    let mut table = TableView::new(
        &["files of"],
        &["records", "unreadable", "without a text", "repeated", "texts with two labels"],
    );
    for files in &checks.data.files {
        table.push([
            part_name(files.part).into(),
            grouped(files.read as u64),
            grouped(files.bad_lines as u64),
            fate(files.empty, files.empty_dropped),
            fate(files.duplicates.count, files.duplicates_dropped),
            grouped(files.conflicts.count as u64),
        ]);
    }
    table.if_any()
}

fn found(checks: &RunChecks, gate: &TextGate) -> Vec<FoundView> {
    let mut found = Vec::new();
    let mut add = |count: usize, title: String, examples: &[FoundText]| {
        if count > 0 {
            let examples = examples.iter().map(|example| ExampleView::of(example, gate));
            found.push(FoundView { title, examples: examples.collect() });
        }
    };
    for files in &checks.data.files {
        let of = part_name(files.part);
        let title =
            format!("{} in the files of {of}", counted(files.duplicates.count, "repeated row"));
        add(files.duplicates.count, title, &files.duplicates.examples);
        let title = format!(
            "{} with two labels in the files of {of}",
            counted(files.conflicts.count, "text")
        );
        add(files.conflicts.count, title, &files.conflicts.examples);
    }
    for shared in &checks.data.shared {
        let [first, other] = [shared.first, shared.other].map(part_name);
        let title = format!(
            "{} that also {first} has",
            counted(shared.texts.rows, &format!("{other} row"))
        );
        add(shared.texts.rows, title, &shared.texts.examples);
        if let Some(contexts) = &shared.contexts {
            let title = format!(
                "{} about contexts of {first}",
                counted(contexts.rows, &format!("{other} question"))
            );
            add(contexts.rows, title, &contexts.examples);
        }
    }
    if let Some(answers) = &checks.data.misplaced_answers {
        let title = format!("{} not where the data says", counted(answers.count, "answer"));
        add(answers.count, title, &answers.examples);
    }
    found
}

impl ExampleView {
    fn of(found: &FoundText, gate: &TextGate) -> ExampleView {
        ExampleView {
            text: gate.text(&found.text, MOST_CHARACTERS),
            labels: found.labels.clone(),
            places: found.records.iter().map(place_of).collect(),
        }
    }
}

/// Where a record stands: `data/reviews.csv:17`.
fn place_of(record: &RecordPlace) -> String {
    let file = record.file.display();
    match (&record.id, record.line) {
        (Some(id), _) => format!("{file}, {id}"),
        (None, Some(line)) => format!("{file}:{line}"),
        (None, None) => file.to_string(),
    }
}

impl NearCopiesView {
    fn of(near: &NearDuplicates, gate: &TextGate) -> NearCopiesView {
        let sentences = near.parts.iter().map(|part| format!("{}.", part.in_words()));
        let pairs = near.pairs.iter().map(|pair| NearPairView {
            cosine: format!("{:.4}", pair.cosine),
            part: part_name(pair.part),
            text: gate.text(&pair.text, MOST_CHARACTERS),
            train_text: gate.text(&pair.train_text, MOST_CHARACTERS),
            places: pair.records.iter().rev().map(place_of).collect(),
        });
        NearCopiesView { sentences: sentences.collect(), pairs: pairs.collect() }
    }
}

impl DoubtfulView {
    fn of(errors: &LabelErrors, gate: &TextGate) -> DoubtfulView {
        let sentence = format!(
            "{} of {} {} wrong: cross-validated heads, which reproduce {} of the labels, say otherwise.",
            grouped(errors.count as u64),
            counted(errors.judged, "label"),
            if errors.count == 1 { "looks" } else { "look" },
            percent(errors.accuracy)
        );
        let rows = errors.rows.iter().map(|row| DoubtfulRow {
            text: gate.text(&row.text, MOST_CHARACTERS),
            label: row.label.clone(),
            suggested: row.suggested.clone(),
            probability: percent(row.probability),
            own_probability: percent(row.self_confidence),
            place: place_of(&row.record),
        });
        DoubtfulView { sentence, rows: rows.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_fall_into_round_steps_that_hold_all_of_them() {
        let sorted: Vec<u32> = (1..=100).collect();
        let bars = length_bars(&sorted);
        assert_eq!(bars[0].name, "1 to 8");
        let total: u64 = bars.iter().map(|bar| bar.value.parse::<u64>().unwrap()).sum();
        assert_eq!((total, bars.len()), (100, 13));
        let far: Vec<u32> = (129..=160).collect();
        assert_eq!(length_bars(&far)[0].name, "129 to 132", "bars begin where texts do");
    }
}

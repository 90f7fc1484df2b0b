//! How a page shows the rows of each task. There is one type for each kind of target, behind one trait, which the parts of
//! the page ask.

mod answers;
mod classes;
mod label_sets;
mod tags;
mod values;

use frostbert_cache::wording::part_of;
use serde::Serialize;

use self::{
    answers::ShownAnswers, classes::ShownClasses, label_sets::ShownLabelSets, tags::ShownTags,
    values::ShownValues,
};
pub(super) use self::{answers::best_f1, label_sets::apart};
use super::{
    marked_text::{MarkedText, TextPiece},
    numbers::{grouped, percent},
    run_files::RunFiles,
    table::TableView,
    texts::TextGate,
};
use crate::{
    config::names::Task,
    data::{Part, example::part_name},
    metrics::metric::Metric,
};

/// Characters of a text.
const MOST_CHARACTERS: usize = 400;

/// Returns how the rows of a task are shown: the only place of the page where a task becomes a type.
pub(super) fn shown_task(task: Task) -> &'static dyn ShownTask {
    match task {
        Task::Classification => &ShownClasses,
        Task::Multilabel => &ShownLabelSets,
        Task::Regression => &ShownValues { is_on_scale: true },
        Task::Similarity => &ShownValues { is_on_scale: false },
        Task::Tokens => &ShownTags,
        Task::Qa => &ShownAnswers,
    }
}

/// A task as a page shows it, from a run's table of predictions.
pub(super) trait ShownTask {
    /// The metrics, in the order in which they are shown.
    fn metrics(&self) -> Vec<Metric>;

    /// What a label is called.
    fn label_noun(&self) -> &'static str {
        "class"
    }

    /// The labels that each row has; of tags, those of its words.
    fn labels_of_rows<'r>(&self, _run: &'r RunFiles) -> Vec<Vec<&'r str>> {
        Vec::new()
    }

    /// Rows by part, and what else is counted of each.
    fn parts(&self, run: &RunFiles) -> TableView {
        let counted = format!("{}s", run.noun());
        let mut table = TableView::new(&["part"], &[&counted, "share"]);
        for (part, own) in parts_with_rows(run) {
            let share = own.len() as f64 / run.parts.len() as f64;
            table.push([part_name(part).into(), grouped(own.len() as u64), percent(share)]);
        }
        table
    }

    /// Those of some rows on which the head is wrong; `None` where predictions cannot be told right from wrong.
    fn mistakes(&self, run: &RunFiles, rows: &[usize]) -> Option<Vec<WeighedRow>>;

    /// Which mistakes come first.
    fn worst_first(&self) -> &'static str {
        "the most confident first"
    }

    /// Says how many mistakes there are, and how many are shown.
    fn mistakes_in_words(&self, counts: &MistakeCounts) -> String {
        let MistakeCounts { wrong, shown, .. } = *counts;
        let (of_rows, order) = (counts.of_rows(wrong), self.worst_first());
        if shown < wrong {
            format!("{of_rows} are wrong; {} of them, {order}.", grouped(shown))
        } else {
            format!("{of_rows} {} wrong, {order}.", counts.verb())
        }
    }

    /// A row on which the head is wrong. Where it stands is filled in by others.
    fn show_mistake(&self, run: &RunFiles, row: usize, gate: &TextGate) -> Mistake;

    /// The label of each of some rows, and whether the head gets it; `None` where rows are on no map.
    fn judge(&self, run: &RunFiles, rows: &[usize]) -> Option<Vec<JudgedRow>>;

    /// A hue for each row on a map, in degrees.
    fn hues(&self, run: &RunFiles, judged: &[JudgedRow]) -> Vec<Option<u32>> {
        class_hues(run, judged)
    }
}

/// A row, and how bad a mistake it is.
pub(super) struct WeighedRow {
    pub(super) row: usize,
    pub(super) weight: f64,
}

/// How many rows there are, on how many the head is wrong, and how many of these are shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct MistakeCounts {
    pub(super) rows: usize,
    pub(super) wrong: usize,
    pub(super) shown: usize,
    /// What a row is called.
    pub(super) noun: &'static str,
}

impl MistakeCounts {
    fn of_rows(&self, n: usize) -> String {
        part_of(n, self.rows, self.noun)
    }

    fn verb(&self) -> &'static str {
        if self.wrong == 1 { "is" } else { "are" }
    }
}

/// A row on which the head is wrong.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Mistake {
    /// Where the row stands: its id, or its number in the table of predictions.
    pub(super) place: String,
    /// Its text, with marks in it; none on a page without texts.
    pub(super) text: MarkedText,
    pub(super) truth: Option<OutcomeView>,
    pub(super) predicted: Option<OutcomeView>,
    /// What else is to be said.
    pub(super) note: String,
    /// Its classes, true and predicted.
    pub(super) classes: Vec<String>,
}

/// What is true of a row or predicted for it, and how probable the head finds it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct OutcomeView {
    pub(super) name: String,
    pub(super) probability: Option<String>,
}

impl OutcomeView {
    pub(super) fn plain(name: String) -> OutcomeView {
        OutcomeView { name, probability: None }
    }
}

/// What a map says of a row.
pub(super) struct JudgedRow {
    pub(super) label: String,
    pub(super) predicted: String,
    pub(super) is_wrong: bool,
}

/// The parts of a run that have rows, and these.
fn parts_with_rows(run: &RunFiles) -> impl Iterator<Item = (Part, Vec<usize>)> + '_ {
    let parts = Part::ALL.into_iter().map(move |part| (part, run.rows_of(part)));
    parts.filter(|(_, rows)| !rows.is_empty())
}

/// The text of a row, and its second one.
fn text_of(run: &RunFiles, row: usize, gate: &TextGate) -> MarkedText {
    let piece = |text: Option<&str>, kind: &'static str| {
        let text = gate.text(text?, MOST_CHARACTERS)?;
        Some(TextPiece { text, kind, note: None })
    };
    let columns = [("text", "plain"), ("text_pair", "second")].into_iter();
    columns.filter_map(|(name, kind)| piece(run.rows.text_at(name, row), kind)).collect()
}

/// A hue for each row by its class. Neighbours on the wheel are far apart in the list of labels.
fn class_hues(run: &RunFiles, judged: &[JudgedRow]) -> Vec<Option<u32>> {
    let golden = |class: usize| (class as f64 * 137.508 % 360.0) as u32;
    let labels = run.labels();
    let hue = |one: &JudgedRow| {
        let first = labels.iter().position(|label| one.label.starts_with(label.as_str()));
        labels.iter().position(|label| *label == one.label).or(first).map(golden)
    };
    judged.iter().map(hue).collect()
}

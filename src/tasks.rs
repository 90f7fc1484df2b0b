//! What the tasks differ in: what a head reads of a row, what it learns, what its outputs say, and what that is worth.
//!
//! Documents and pairs of them have one row of outputs each (classes, labels, numbers), words a tag each, questions a span
//! of their context.

pub(crate) mod characters;
mod class_table;
pub(crate) mod documents;
mod evaluators;
pub(crate) mod measure;
pub(crate) mod predictions;
pub(crate) mod questions;
pub(crate) mod similarity;
pub(crate) mod weights;
pub(crate) mod windows;
pub(crate) mod words;

use std::collections::HashSet;

use frostbert_cache::{fingerprint::Key, reader::CacheReader, states::StateId};
use ndarray::{Array2, ArrayView2, Axis};
use serde::Serialize;

use crate::{
    config::{names::Task, settings::Pipeline},
    data::{ColumnName, Part, dataset::Dataset},
    error::Result,
    features::FeatureView,
    head::{saved::Head, spec::Objective, targets::TargetTable},
    metrics::{
        ClassificationMetrics, intervals::Bootstrap, metric::Metric, multilabel::MultilabelMetrics,
        regression::RegressionMetrics, scores::Scores, span::QaMetrics, tagging::TaggingMetrics,
    },
    report::tables::Table,
    tasks::{
        measure::RunMetrics,
        predictions::{Calibration, PredictionEvaluator},
    },
};

/// A dataset over a cache, as a head reads it and learns from it.
pub(crate) struct TaskRows<'c> {
    /// What the head reads.
    pub(crate) view: FeatureView<'c>,
    /// What it learns.
    pub(crate) targets: TargetTable,
    /// The samples of train, validation and test that have a target.
    pub(crate) parts: [Vec<u32>; 3],
    /// How outputs are compared with targets.
    pub(crate) objective: Objective,
    /// Number of outputs.
    pub(crate) n_outputs: usize,
    /// The key of each piece that the view reads, in its order.
    pub(crate) keys: Vec<Key>,
    /// What the task alone knows.
    pub(crate) own: TaskExtras,
    /// What a user should know of these rows before a head learns from them.
    pub(crate) warnings: Vec<String>,
}

/// What a task knows of its rows beside what a head needs.
pub(crate) enum TaskExtras {
    Documents(documents::Documents),
    Words(words::Sentences),
    Questions(questions::Questions),
}

/// The predictions of a run's head for every row, and their metrics.
pub(crate) struct TaskResult {
    pub(crate) metrics: RunMetrics,
    pub(crate) predictions: Table,
}

/// The metrics of a part, by task.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
#[expect(missing_docs, reason = "the names are those of the tasks")]
pub enum TaskMetrics {
    Classification(ClassificationMetrics),
    Multilabel(MultilabelMetrics),
    Regression(RegressionMetrics),
    Tokens(TaggingMetrics),
    Qa(QaMetrics),
}

impl TaskMetrics {
    /// The values of the task's metrics.
    pub fn scores(&self) -> &Scores {
        match self {
            TaskMetrics::Classification(metrics) => &metrics.scores,
            TaskMetrics::Multilabel(metrics) => &metrics.scores,
            TaskMetrics::Regression(metrics) => &metrics.scores,
            TaskMetrics::Tokens(metrics) => &metrics.scores,
            TaskMetrics::Qa(metrics) => &metrics.scores,
        }
    }
}

impl<'c> TaskRows<'c> {
    /// Finds the rows of a dataset in a cache.
    ///
    /// # Errors
    /// When the cache lacks rows or is damaged, or the pipeline weighs classes that there are not.
    pub(crate) fn new(
        pipeline: &Pipeline,
        dataset: &Dataset,
        cache: &'c CacheReader,
        states: &[StateId],
    ) -> Result<TaskRows<'c>> {
        match pipeline.data.task {
            Task::Tokens => words::rows(pipeline, dataset, cache, states),
            Task::Qa => questions::rows(pipeline, dataset, cache, states),
            _ => documents::rows(pipeline, dataset, cache, states),
        }
    }

    /// The samples of a part.
    pub(crate) fn part(&self, part: Part) -> &[u32] {
        &self.parts[part as usize]
    }

    /// Who says what outputs on these samples are worth, by the metrics that early stopping may follow and some more.
    pub(crate) fn evaluator<'a>(
        &'a self,
        pipeline: &'a Pipeline,
        dataset: &'a Dataset,
        samples: &[u32],
        followed: &[Metric],
    ) -> Box<dyn PredictionEvaluator + 'a> {
        match &self.own {
            TaskExtras::Documents(documents) => {
                documents.evaluator(pipeline, dataset, samples, followed)
            }
            TaskExtras::Words(sentences) => Box::new(sentences.evaluator(dataset, samples)),
            TaskExtras::Questions(questions) => Box::new(questions.evaluator(dataset, samples)),
        }
    }

    /// The samples of some rows of the dataset; to learn from, only those that teach something.
    pub(crate) fn samples_of(&self, dataset: &Dataset, rows: &[u32], to_learn: bool) -> Vec<u32> {
        match &self.own {
            TaskExtras::Words(_) if to_learn => words::with_words(&self.view, rows),
            TaskExtras::Questions(questions) => questions.windows_of_rows(dataset, rows),
            _ => rows.to_vec(),
        }
    }

    /// Of samples to learn from those that teach a head something that learns from `column`.
    pub(crate) fn taught(
        &self,
        dataset: &Dataset,
        column: Option<&ColumnName>,
        samples: &[u32],
    ) -> Vec<u32> {
        let samples = samples.iter().copied();
        match dataset.label_column(column) {
            // Columns of labels are of documents, of which each row is a sample.
            Some(_) => samples.filter(|row| dataset.target_for(*row, column).is_some()).collect(),
            None => samples.collect(),
        }
    }

    /// What heads learn from `column` that are evaluated on the rows `judged`; where that is none, as all others.
    pub(crate) fn targets_of(
        &self,
        dataset: &Dataset,
        column: Option<&ColumnName>,
        judged: &[u32],
    ) -> TargetTable {
        let judged: HashSet<u32> = judged.iter().copied().collect();
        documents::classes_taught(dataset, column, |row| !judged.contains(&row))
    }

    /// What the pipeline's head is trained to on these rows: its loss, with their class weights.
    ///
    /// # Errors
    /// When the pipeline weighs classes that there are not.
    pub(crate) fn objective(
        &self,
        pipeline: &Pipeline,
        dataset: &Dataset,
        train: &[u32],
    ) -> Result<Objective> {
        match &self.own {
            TaskExtras::Documents(_) => {
                Ok(Objective::Rows(weights::loss(pipeline, dataset, train)?))
            }
            TaskExtras::Words(_) => words::objective(pipeline, dataset, train),
            TaskExtras::Questions(_) => Ok(Objective::Span),
        }
    }

    /// Applies a head to every row: measures every part, and keeps what it says. A head that was just trained is tuned
    /// first (its temperature, its thresholds).
    ///
    /// # Errors
    /// When a file of the cache is damaged.
    pub(crate) fn finish(
        &self,
        pipeline: &Pipeline,
        dataset: &Dataset,
        head: &mut Head,
        tuning: CalibrationRows<'_>,
    ) -> Result<TaskResult> {
        match &self.own {
            TaskExtras::Documents(documents) => {
                documents.finish(self, pipeline, dataset, head, tuning)
            }
            TaskExtras::Words(sentences) => sentences.finish(self, pipeline, dataset, head),
            TaskExtras::Questions(questions) => {
                questions.finish(self, pipeline, dataset, head, tuning)
            }
        }
    }
}

/// What tells the temperature and the thresholds of a head.
#[derive(Clone, Copy)]
pub(crate) enum CalibrationRows<'a> {
    /// The head itself: it was tuned when it was trained.
    Saved,
    /// The validation rows.
    OnValidation,
    /// Rows that other heads of the same settings did not see.
    Given(&'a Calibration),
}

impl CalibrationRows<'_> {
    /// Whether the head was just trained.
    fn is_new(self) -> bool {
        !matches!(self, CalibrationRows::Saved)
    }
}

/// The metrics of each part that has rows, from its rows and the bootstrap of their intervals; train has none.
fn measured(
    pipeline: &Pipeline,
    dataset: &Dataset,
    mut metrics: impl FnMut(&[u32], Option<Bootstrap>) -> TaskMetrics,
) -> [Option<TaskMetrics>; 3] {
    let measured =
        try_measured(pipeline, dataset, |rows, bootstrap, _| Ok(metrics(rows, bootstrap)));
    measured.expect("metrics of what is in memory")
}

/// As [`measured`], where what is measured is read on the way.
fn try_measured(
    pipeline: &Pipeline,
    dataset: &Dataset,
    mut metrics: impl FnMut(&[u32], Option<Bootstrap>, Part) -> Result<TaskMetrics>,
) -> Result<[Option<TaskMetrics>; 3]> {
    let bootstrap = Bootstrap { seed: pipeline.seed, ..Bootstrap::default() };
    let mut all = [None, None, None];
    for part in Part::ALL {
        let rows = dataset.part(part);
        let bootstrap = (part != Part::Train).then_some(bootstrap);
        if !rows.is_empty() {
            all[part as usize] = Some(metrics(&rows, bootstrap, part)?);
        }
    }
    Ok(all)
}

/// Some rows of a matrix.
pub(crate) fn rows_of(matrix: ArrayView2<'_, f32>, rows: &[u32]) -> Array2<f32> {
    let places: Vec<usize> = rows.iter().map(|row| *row as usize).collect();
    matrix.select(Axis(0), &places)
}

/// The columns that tables of predictions of all tasks begin with: the key (of a pair's or question's first document),
/// the id, the part.
pub(crate) fn row_columns(dataset: &Dataset) -> Table {
    let rows = || dataset.rows.iter();
    let mut table = Table::default();
    table.keys("key", rows().map(|row| row.keys[0]));
    table.optional_texts("id", rows().map(|row| row.id.as_deref()));
    table.texts("part", rows().map(|row| crate::data::example::part_name(row.part)));
    table
}

/// The columns of [`row_columns`], and the texts.
fn text_columns(dataset: &Dataset) -> Table {
    let mut table = row_columns(dataset);
    table.texts("text", dataset.rows.iter().map(|row| row.text.as_str()));
    if dataset.rows.iter().any(|row| row.text_pair.is_some()) {
        let second = dataset.rows.iter().map(|row| row.text_pair.as_deref());
        table.optional_texts("text_pair", second);
    }
    table
}

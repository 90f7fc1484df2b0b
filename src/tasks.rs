//! The tasks: what a head reads, what it is trained on, what its outputs mean, and how they are scored.
//!
//! Documents and pairs of documents have one row of outputs each (classes, labels, numbers), words have a tag each, and
//! questions have a span of their context.

pub(crate) mod characters;
mod classes;
pub(crate) mod cosine;
pub(crate) mod documents;
pub(crate) mod encoded;
pub(crate) mod kind;
mod label_sets;
pub(crate) mod measure;
mod numbers;
pub(crate) mod prediction;
pub(crate) mod predictions;
mod questions;
pub(crate) mod saved_predictions;
pub(crate) mod similarity;
pub(crate) mod weights;
mod windows;
mod words;

use std::collections::HashSet;

use frostbert_cache::{fingerprint::Key, reader::CacheReader, states::StateId};
use ndarray::{Array2, ArrayView2, Axis};
use serde::Serialize;

use crate::{
    config::{names::Task, settings::Pipeline},
    data::{ColumnName, Part, Record, dataset::Dataset},
    error::Result,
    features::FeatureView,
    head::{
        saved::{Head, HeadDescription},
        spec::Objective,
        targets::TargetTable,
    },
    metrics::{
        ClassificationMetrics, intervals::Bootstrap, metric::Metric, multilabel::MultilabelMetrics,
        probability_curves::ProbabilityCurves, regression::RegressionMetrics, scores::Scores,
        span::QaMetrics, tag_scheme::TagScheme, tagging::TaggingMetrics,
    },
    report::tables::Table,
    tasks::{
        classes::ClassKind,
        encoded::EncodedRecords,
        kind::TaskKind,
        label_sets::LabelSetKind,
        measure::RunMetrics,
        numbers::NumberKind,
        prediction::Prediction,
        predictions::{Calibration, PredictionEvaluator},
        questions::QuestionKind,
        words::TaggingKind,
    },
};

/// Returns the kind of a task: the only place where a task of a pipeline becomes a type.
pub(crate) fn task_kind(task: Task) -> &'static dyn TaskKind {
    match task {
        Task::Classification => &ClassKind,
        Task::Multilabel => &LabelSetKind,
        Task::Regression | Task::Similarity => &NumberKind,
        Task::Tokens => &TaggingKind,
        Task::Qa => &QuestionKind,
    }
}

/// A task: what its heads are trained on and what their outputs predict. There is one type for each kind of target.
///
/// [`PredictionTask::measure`] and [`PredictionTask::predict`] start from the same predictions, which the type makes
/// from outputs.
pub(crate) trait PredictionTask: Send + Sync {
    /// Returns the evaluator of outputs on these samples, for the metrics that early stopping may follow and some more.
    fn evaluator<'a>(
        &'a self,
        pipeline: &Pipeline,
        dataset: &'a Dataset,
        samples: &[u32],
        followed: &[Metric],
    ) -> Box<dyn PredictionEvaluator + 'a>;

    /// Whether each row of the dataset is a sample with one row of outputs.
    fn has_one_output_row(&self) -> bool {
        true
    }

    /// The samples of some rows of the dataset.
    fn samples_of(
        &self,
        _view: &FeatureView<'_>,
        _dataset: &Dataset,
        rows: &[u32],
        _purpose: SamplePurpose,
    ) -> Vec<u32> {
        rows.to_vec()
    }

    /// The samples of some rows of the dataset that metrics are of: all, also where there is nothing to learn.
    fn measured_samples(&self, rows: &[u32]) -> Vec<u32> {
        rows.to_vec()
    }

    /// What the pipeline's head is trained to on these rows: its loss, with their class weights.
    ///
    /// # Errors
    /// Returns an error if the pipeline gives weights to classes that do not exist.
    fn objective(
        &self,
        pipeline: &Pipeline,
        dataset: &Dataset,
        train: &[u32],
    ) -> Result<Objective> {
        Ok(Objective::Rows(weights::loss(pipeline, dataset, train)?))
    }

    /// Adds to the description of a new head what is needed to interpret its outputs.
    fn describe(&self, _head: &mut HeadDescription) {}

    /// Calibrates a new head on the validation rows.
    ///
    /// # Errors
    /// Returns an error if a file of the cache is damaged.
    fn calibrate(&self, _rows: &MeasuredRows<'_>, _head: &Head) -> Result<Calibration> {
        Ok(Calibration::default())
    }

    /// Returns the predictions of a head for every row of the dataset, as a table, and their metrics.
    ///
    /// # Errors
    /// Returns an error if a file of the cache is damaged.
    fn measure(&self, rows: &MeasuredRows<'_>, head: &Head) -> Result<TaskResult>;

    /// Returns the predictions of a head for some records; the view has one sample for each record (for questions, one
    /// for each window).
    ///
    /// # Errors
    /// Returns an error if an output is not finite.
    fn predict(
        &self,
        records: &[Record],
        view: &FeatureView<'_>,
        head: &Head,
    ) -> Result<Vec<Prediction>>;
}

/// What samples are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SamplePurpose {
    /// Heads learn from them: only those that teach something.
    Training,
    /// Heads are evaluated on them.
    Evaluation,
    /// Heads on the states of several models are compared on them: the same rows for all, whatever the tokenizer of a model
    /// cuts off.
    Comparison,
}

/// Where the rows of a task come from.
#[derive(Clone, Copy)]
pub(crate) struct RowSource<'a, 'c> {
    pipeline: &'a Pipeline,
    dataset: &'a Dataset,
    cache: &'c CacheReader,
    states: &'a [StateId],
}

/// A dataset with its cached states: the features and the targets of a head.
pub(crate) struct TaskRows<'c> {
    /// The features that the head reads.
    pub(crate) view: FeatureView<'c>,
    /// The targets that it is trained on.
    pub(crate) targets: TargetTable,
    /// The samples of train, validation and test that have a target.
    pub(crate) parts: [Vec<u32>; 3],
    /// How outputs are compared with targets.
    pub(crate) objective: Objective,
    /// Number of outputs.
    pub(crate) n_outputs: usize,
    /// The key of each piece of the view, in order.
    pub(crate) keys: Vec<Key>,
    /// The task, with its data about these rows.
    pub(crate) task: Box<dyn PredictionTask>,
    /// Warnings about these rows, which the user should see before a head is trained on them.
    pub(crate) warnings: Vec<String>,
}

/// Rows on which a head is measured.
pub(crate) struct MeasuredRows<'a> {
    pub(crate) rows: &'a TaskRows<'a>,
    pub(crate) pipeline: &'a Pipeline,
    pub(crate) dataset: &'a Dataset,
}

/// The predictions of a run's head for every row, and their metrics.
pub(crate) struct TaskResult {
    pub(crate) metrics: RunMetrics,
    pub(crate) predictions: Table,
    /// What is drawn of probabilities on [`MeasuredRows::drawn`]; empty where a task has none.
    pub(crate) curves: ProbabilityCurves,
}

/// The metrics of a part of the dataset, by task.
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
    /// Returns the values of the task's metrics.
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
    /// Returns an error if the cache lacks rows or is damaged, or if the pipeline gives weights to classes that do not
    /// exist.
    pub(crate) fn new(
        pipeline: &Pipeline,
        dataset: &Dataset,
        cache: &'c CacheReader,
        states: &[StateId],
    ) -> Result<TaskRows<'c>> {
        task_kind(pipeline.data.task).rows(RowSource { pipeline, dataset, cache, states })
    }

    /// Returns the samples of a part.
    pub(crate) fn part(&self, part: Part) -> &[u32] {
        &self.parts[part as usize]
    }

    /// The samples of some rows of the dataset.
    pub(crate) fn samples_of(
        &self,
        dataset: &Dataset,
        rows: &[u32],
        purpose: SamplePurpose,
    ) -> Vec<u32> {
        self.task.samples_of(&self.view, dataset, rows, purpose)
    }

    /// Returns those of the training samples that have a label in `column`; without a column, all of them.
    pub(crate) fn taught(
        &self,
        dataset: &Dataset,
        column: Option<&ColumnName>,
        samples: &[u32],
    ) -> Vec<u32> {
        let samples = samples.iter().copied();
        match dataset.label_column(column) {
            // Label columns are read only for documents, where each row is one sample.
            Some(_) => samples.filter(|row| dataset.target_for(*row, column).is_some()).collect(),
            None => samples.collect(),
        }
    }

    /// Returns the targets of heads that are trained on `column` and evaluated on the rows in `judged`, which keep
    /// their own labels.
    pub(crate) fn targets_of(
        &self,
        dataset: &Dataset,
        column: Option<&ColumnName>,
        judged: &[u32],
    ) -> TargetTable {
        let judged: HashSet<u32> = judged.iter().copied().collect();
        classes::taught(dataset, column, |row| !judged.contains(&row))
    }

    /// Applies a head to every row, measures every part and returns the predictions. A head that was just trained is
    /// calibrated first (its temperature, its thresholds).
    ///
    /// # Errors
    /// Returns an error if a file of the cache is damaged.
    pub(crate) fn finish(
        &self,
        pipeline: &Pipeline,
        dataset: &Dataset,
        head: &mut Head,
        tuning: CalibrationRows<'_>,
    ) -> Result<TaskResult> {
        let rows = MeasuredRows { rows: self, pipeline, dataset };
        let is_new = !matches!(tuning, CalibrationRows::Saved);
        if is_new {
            self.task.describe(&mut head.description);
        }
        match tuning {
            CalibrationRows::Saved => {}
            CalibrationRows::Given(calibration) => calibration.apply(&mut head.description),
            CalibrationRows::OnValidation => {
                self.task.calibrate(&rows, head)?.apply(&mut head.description);
            }
        }
        self.task.measure(&rows, head)
    }
}

/// Returns the task of records that were just encoded and the features that a head reads: one sample for each record,
/// or for each window of a question.
///
/// # Errors
/// Returns an error if a state is not finite.
pub(crate) fn read_encoded(
    encoded: EncodedRecords<'_>,
) -> Result<(Box<dyn PredictionTask>, FeatureView<'static>)> {
    task_kind(encoded.pipeline.data.task).read_encoded(encoded)
}

/// The source of a head's temperature and thresholds.
#[derive(Clone, Copy)]
pub(crate) enum CalibrationRows<'a> {
    /// The head itself: it was calibrated when it was trained.
    Saved,
    /// The validation rows.
    OnValidation,
    /// Rows that other heads with the same settings were not trained on.
    Given(&'a Calibration),
}

impl MeasuredRows<'_> {
    /// The rows that are drawn: those of test, or of validation where there are none.
    fn drawn(&self) -> Vec<u32> {
        let test = self.dataset.part(Part::Test);
        if test.is_empty() { self.dataset.part(Part::Validation) } else { test }
    }

    /// The metrics of each part that has rows, from its rows and the bootstrap of their intervals; train has none.
    fn parts(
        &self,
        mut metrics: impl FnMut(&[u32], Option<Bootstrap>) -> TaskMetrics,
    ) -> [Option<TaskMetrics>; 3] {
        let measured = self.try_parts(|rows, bootstrap, _| Ok(metrics(rows, bootstrap)));
        measured.expect("metrics of what is in memory")
    }

    /// Like [`MeasuredRows::parts`], for metrics whose computation reads rows and may fail.
    fn try_parts(
        &self,
        mut metrics: impl FnMut(&[u32], Option<Bootstrap>, Part) -> Result<TaskMetrics>,
    ) -> Result<[Option<TaskMetrics>; 3]> {
        let bootstrap = Bootstrap { seed: self.pipeline.seed, ..Bootstrap::default() };
        let mut all = [None, None, None];
        for part in Part::ALL {
            let rows = self.dataset.part(part);
            let bootstrap = (part != Part::Train).then_some(bootstrap);
            if !rows.is_empty() {
                all[part as usize] = Some(metrics(&rows, bootstrap, part)?);
            }
        }
        Ok(all)
    }
}

/// Returns the metrics that heads of a task can be compared by, the task's own first. If the tags do not mark entities,
/// metrics of entities are left out.
pub(crate) fn compared_by(task: Task, labels: &[String]) -> &'static [Metric] {
    let known = task.facts().metrics;
    let has_entities = task != Task::Tokens || TagScheme::new(labels).is_some();
    let first = known.iter().position(|metric| has_entities || !metric.measures_entities());
    &known[first.unwrap_or(0)..]
}

/// Returns the metric that heads of a task are selected by if none is named, and that represents a run.
pub(crate) fn own_metric(task: Task, labels: &[String]) -> Metric {
    compared_by(task, labels)[0]
}

/// Whether the heads of the pipeline's sweep are compared by a metric that needs probabilities.
fn selects_by_probabilities(pipeline: &Pipeline) -> bool {
    let sweep = pipeline.sweep.as_ref();
    let metric = sweep.and_then(|sweep| sweep.select.as_deref()).and_then(Metric::named);
    metric.is_some_and(Metric::needs_probabilities)
}

/// Returns the given rows of a matrix.
pub(crate) fn rows_of(matrix: ArrayView2<'_, f32>, rows: &[u32]) -> Array2<f32> {
    let places: Vec<usize> = rows.iter().map(|row| *row as usize).collect();
    matrix.select(Axis(0), &places)
}

/// Returns the columns that every table of predictions starts with: the key (for a pair or a question, that of its
/// first document), the id and the part.
pub(crate) fn row_columns(dataset: &Dataset) -> Table {
    let rows = || dataset.rows.iter();
    let mut table = Table::default();
    table.keys("key", rows().map(|row| row.keys[0]));
    table.optional_texts("id", rows().map(|row| row.id.as_deref()));
    table.texts("part", rows().map(|row| crate::data::example::part_name(row.part)));
    table
}

//! Classification: one of several classes for each text or pair.

mod evaluator;
mod kind;
mod predictions;

use frostbert_cache::wording::quoted;

pub(super) use self::kind::ClassKind;
use crate::{
    config::settings::Pipeline,
    data::{ColumnName, Part, Record, dataset::Dataset},
    error::Result,
    features::FeatureView,
    head::{applied::Applied, saved::Head, targets::TargetTable},
    metrics::{
        baseline, calibration::softmax_rows, intervals::Bootstrap, metric::Metric,
        outputs::OutputRows, scorer::ClassScorer, with_names,
    },
    tasks::{
        MeasuredRows, PredictionTask, RowSource, TaskMetrics, TaskResult, TaskRows,
        classes::{evaluator::ClassEvaluator, predictions::ClassPredictions},
        documents,
        measure::{Baseline, RunMetrics},
        prediction::Prediction,
        predictions::{Calibration, PredictionEvaluator},
        selects_by_probabilities,
    },
};

/// The classification task: the names of the classes, by id.
pub(super) struct ClassTask {
    pub(super) labels: Vec<String>,
}

/// Returns the rows of a classification dataset.
pub(super) fn rows<'c>(source: RowSource<'_, 'c>) -> Result<TaskRows<'c>> {
    let dataset = source.dataset;
    let column = source.pipeline.head.label.as_ref();
    let is_learned = |row: u32| dataset.rows[row as usize].part == Part::Train;
    let targets = taught(dataset, column, is_learned);
    let task = ClassTask { labels: dataset.labels.names().to_vec() };
    documents::rows(source, Box::new(task), targets, dataset.labels.len())
}

/// Returns the targets of heads that are trained on a label column: the column's class for rows that are learned, and a
/// row's own class for the other rows and where the column has none.
pub(super) fn taught(
    dataset: &Dataset,
    column: Option<&ColumnName>,
    is_learned: impl Fn(u32) -> bool,
) -> TargetTable {
    let class = |row: u32| {
        let own = &dataset.rows[row as usize].target;
        let learned = dataset.target_for(row, column).filter(|_| is_learned(row));
        learned.unwrap_or(own).class().expect("rows of classification") as u32
    };
    TargetTable::Classes((0..dataset.rows.len() as u32).map(class).collect())
}

fn classes_of(dataset: &Dataset, rows: &[u32]) -> Vec<usize> {
    let labels = dataset.labels_of(rows);
    labels.into_iter().map(|label| label as usize).collect()
}

impl PredictionTask for ClassTask {
    fn evaluator<'a>(
        &'a self,
        pipeline: &Pipeline,
        dataset: &'a Dataset,
        samples: &[u32],
        followed: &[Metric],
    ) -> Box<dyn PredictionEvaluator + 'a> {
        Box::new(ClassEvaluator {
            rows: samples.to_vec(),
            labels: classes_of(dataset, samples),
            n_classes: dataset.labels.len(),
            followed: followed.to_vec(),
            needs_probabilities: selects_by_probabilities(pipeline),
        })
    }

    fn calibrate(&self, rows: &MeasuredRows<'_>, head: &Head) -> Result<Calibration> {
        documents::calibrate(self, rows, head)
    }

    /// Probabilities of many classes are too many to keep, so they are measured as they are computed.
    fn measure(&self, rows: &MeasuredRows<'_>, head: &Head) -> Result<TaskResult> {
        let dataset = rows.dataset;
        let temperature = head.description.temperature;
        let n_classes = self.labels.len();
        let mut predicted = ClassPredictions::new(dataset.rows.len(), n_classes);
        let mut before_calibration = None;
        let mut measure = |samples: &[u32], bootstrap: Option<Bootstrap>, part: Part| {
            let labels = classes_of(dataset, samples);
            let logits = Applied::new(head, &rows.rows.view, samples)?;
            let mut scorer = ClassScorer::new(labels.clone(), n_classes, bootstrap);
            let mut before =
                (part == Part::Test).then(|| ClassScorer::new(labels, n_classes, None));
            logits.show(&mut |places, logits| {
                let probabilities = softmax_rows(logits, temperature);
                scorer.add(places, probabilities.view());
                let own: Vec<u32> = places.iter().map(|place| samples[*place]).collect();
                predicted.add(&own, probabilities.view());
                if let Some(before) = &mut before {
                    before.add(places, softmax_rows(logits, 1.0).view());
                }
            })?;
            if scorer.wants_ranks() {
                logits
                    .show(&mut |_, logits| scorer.rank(softmax_rows(logits, temperature).view()))?;
            }
            before_calibration =
                before.map(|before| before.finish().scores.only(Metric::measures_probabilities));
            let mut metrics = scorer.finish();
            metrics.per_class = with_names(metrics.per_class, &self.labels);
            Ok(TaskMetrics::Classification(metrics))
        };
        let parts = rows.try_parts(&mut measure)?;
        let majority = baseline::majority_class(
            &classes_of(dataset, rows.rows.part(Part::Train)),
            &classes_of(dataset, rows.rows.part(Part::Test)),
            n_classes,
        );
        let drawn = rows.drawn();
        let curves = predicted.curves(&drawn, &classes_of(dataset, &drawn));
        Ok(TaskResult {
            metrics: RunMetrics {
                before_calibration,
                temperature: Some(temperature),
                ..RunMetrics::of_parts(
                    parts,
                    majority.map(|majority| {
                        let label = dataset.labels.name(majority.label).unwrap_or_default();
                        Baseline::new(format!("always {}", quoted(label)), &majority)
                    }),
                )
            },
            predictions: predicted.table(dataset),
            curves,
        })
    }

    fn predict(
        &self,
        records: &[Record],
        view: &FeatureView<'_>,
        head: &Head,
    ) -> Result<Vec<Prediction>> {
        let all: Vec<u32> = (0..records.len() as u32).collect();
        let mut predicted = ClassPredictions::of_all_classes(records.len(), self.labels.len());
        let temperature = head.description.temperature;
        Applied::new(head, view, &all)?.show(&mut |places, logits| {
            let rows: Vec<u32> = places.iter().map(|place| *place as u32).collect();
            predicted.add(&rows, softmax_rows(logits, temperature).view());
        })?;
        Ok(predicted.of_records(records, &self.labels))
    }
}

//! Regression and similarity: a number for each text or pair.

mod kind;

use ndarray::ArrayView2;
use serde_json::{Value, json};

pub(super) use self::kind::NumberKind;
use crate::{
    config::settings::Pipeline,
    data::{Part, Record, dataset::Dataset},
    error::Result,
    features::FeatureView,
    head::{
        bank::Evaluator,
        outputs::OutputHead,
        saved::{Head, HeadDescription},
        targets::TargetTable,
    },
    metrics::{
        baseline, metric::Metric, probability_curves::ProbabilityCurves, regression, scores::Scores,
    },
    tasks::{
        MeasuredRows, PredictionTask, RowSource, TaskMetrics, TaskResult, TaskRows,
        cosine::cosines_of,
        documents,
        measure::{Baseline, RunMetrics},
        prediction::Prediction,
        predictions::{PredictionEvaluator, Predictions},
    },
};

/// The task of predicting numbers.
pub(super) struct NumberTask {
    /// The mean and the standard deviation by which the targets are standardised in training.
    scale: [f64; 2],
}

impl Default for NumberTask {
    fn default() -> NumberTask {
        NumberTask { scale: [0.0, 1.0] }
    }
}

/// Returns the rows of a dataset of numbers.
pub(super) fn rows<'c>(source: RowSource<'_, 'c>) -> Result<TaskRows<'c>> {
    let RowSource { pipeline, dataset, .. } = source;
    let task = if pipeline.head.standardize {
        let learned = values_of(dataset, &dataset.part(Part::Train));
        NumberTask { scale: mean_and_deviation(&learned) }
    } else {
        NumberTask::default()
    };
    let [mean, deviation] = task.scale;
    let scaled = dataset.rows.iter().map(|row| {
        let value = row.target.value().expect("rows of regression");
        ((value - mean) / deviation) as f32
    });
    let targets = TargetTable::Values(scaled.collect());
    documents::rows(source, Box::new(task), targets, 1)
}

fn mean_and_deviation(values: &[f64]) -> [f64; 2] {
    let n = values.len().max(1) as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
    let deviation = if variance > 0.0 { variance.sqrt() } else { 1.0 };
    [mean, deviation]
}

fn values_of(dataset: &Dataset, rows: &[u32]) -> Vec<f64> {
    let value = |row: &u32| dataset.rows[*row as usize].target.value();
    rows.iter().filter_map(value).collect()
}

impl PredictionTask for NumberTask {
    fn evaluator<'a>(
        &'a self,
        _: &Pipeline,
        dataset: &'a Dataset,
        samples: &[u32],
        _: &[Metric],
    ) -> Box<dyn PredictionEvaluator + 'a> {
        Box::new(ValueEvaluator {
            rows: samples.to_vec(),
            values: values_of(dataset, samples),
            scale: self.scale,
        })
    }

    fn describe(&self, head: &mut HeadDescription) {
        head.output_scale = Some(self.scale);
    }

    fn measure(&self, rows: &MeasuredRows<'_>, head: &Head) -> Result<TaskResult> {
        let mut result = measure(rows, &values(&rows.rows.view, head)?);
        if let Some(baseline) = &mut result.metrics.baseline
            && let Some(scores) = cosine_scores(rows)?
        {
            baseline.metrics.insert("cosine".into(), scores);
        }
        Ok(result)
    }

    fn predict(
        &self,
        records: &[Record],
        view: &FeatureView<'_>,
        head: &Head,
    ) -> Result<Vec<Prediction>> {
        Ok(predictions(records, values(view, head)?))
    }
}

/// Returns the numbers that a head predicts for the samples of a view.
fn values(view: &FeatureView<'_>, head: &Head) -> Result<Vec<f64>> {
    Ok(head.description.numbers(head.logits(view)?.column(0)))
}

/// Scores the cosine of two texts' states on test, without training. Returns `None` unless the head reads the two texts
/// separately and from one layer.
fn cosine_scores(rows: &MeasuredRows<'_>) -> Result<Option<Value>> {
    let view = &rows.rows.view;
    let test = rows.rows.part(Part::Test);
    if !rows.pipeline.has_separate_pairs() || view.n_layers() > 1 || test.is_empty() {
        return Ok(None);
    }
    let truth = values_of(rows.dataset, test);
    let scores = regression::evaluate(&truth, &cosines_of(view, test)?, None).scores;
    // A cosine is not on the scale of the truth: only its ranks and its correlation mean something.
    let known = [Metric::Spearman, Metric::Pearson];
    Ok(Some(json!(Scores::new(known, known.map(|metric| scores.value(metric)), [None; 2]))))
}

/// Returns the metrics and the table for one predicted number per row.
pub(super) fn measure(rows: &MeasuredRows<'_>, predicted: &[f64]) -> TaskResult {
    let dataset = rows.dataset;
    let parts = rows.parts(|samples, bootstrap| {
        let predicted: Vec<f64> = samples.iter().map(|row| predicted[*row as usize]).collect();
        let metrics = regression::evaluate(&values_of(dataset, samples), &predicted, bootstrap);
        TaskMetrics::Regression(metrics)
    });
    let mean = baseline::mean_value(
        &values_of(dataset, rows.rows.part(Part::Train)),
        &values_of(dataset, rows.rows.part(Part::Test)),
    );
    let mut table = documents::text_columns(dataset);
    let truth = dataset.rows.iter().map(|row| row.target.value());
    table.doubles("value", truth.map(|value| value.unwrap_or(f64::NAN)));
    table.doubles("predicted", predicted.iter().copied());
    TaskResult {
        metrics: RunMetrics::of_parts(
            parts,
            mean.map(|mean| {
                Baseline::new(format!("always {:.3}, train's mean", mean.value), &mean)
            }),
        ),
        predictions: table,
        curves: ProbabilityCurves::default(),
    }
}

/// Returns the predicted number of each record.
pub(super) fn predictions(records: &[Record], values: Vec<f64>) -> Vec<Prediction> {
    let rows = records.iter().zip(values);
    rows.map(|(record, value)| Prediction::Value {
        text: record.text.clone(),
        text_pair: record.text_pair.clone(),
        value,
    })
    .collect()
}

/// The evaluator of numbers, scaled back by mean and standard deviation.
struct ValueEvaluator {
    rows: Vec<u32>,
    values: Vec<f64>,
    scale: [f64; 2],
}

impl ValueEvaluator {
    fn predicted(&self, logits: ArrayView2<'_, f32>) -> Vec<f64> {
        let [mean, deviation] = self.scale;
        let scaled = |value: &f32| f64::from(*value) * deviation + mean;
        logits.column(0).iter().map(scaled).collect()
    }
}

impl PredictionEvaluator for ValueEvaluator {
    fn rows(&self) -> Vec<u32> {
        self.rows.clone()
    }

    fn predictions(&self, logits: ArrayView2<'_, f32>, _: &OutputHead) -> Predictions {
        Predictions::Values(self.predicted(logits))
    }
}

impl Evaluator for ValueEvaluator {
    fn scores(&self, logits: ArrayView2<'_, f32>, _: &OutputHead) -> Vec<(Metric, f64)> {
        let metrics = regression::evaluate(&self.values, &self.predicted(logits), None);
        metrics.scores.values(&Metric::OF_NUMBERS)
    }
}

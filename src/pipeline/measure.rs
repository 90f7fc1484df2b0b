//! What a trained head is worth: metrics of every part, beside the baseline, before and after calibration.

use std::path::Path;

use ndarray::{Array2, Axis};
use serde::Serialize;

use crate::{
    data::{
        Part,
        dataset::{Dataset, part_name},
    },
    error::{Error, Result},
    head::bank::TrainedHead,
    metrics::{
        ClassificationMetrics, MajorityBaseline, baseline,
        calibration::{TEMPERATURES, softmax_rows, temperature},
        classification,
        intervals::Bootstrap,
    },
};

/// The file of a run's metrics.
pub const METRICS_FILE: &str = "metrics.json";

/// The metrics of a run, as they stand in metrics.json.
#[derive(Clone, Debug, Serialize)]
pub struct RunMetrics {
    /// On the rows that the head learned from; without intervals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train: Option<ClassificationMetrics>,
    /// On the rows that chose the epoch and the temperature.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<ClassificationMetrics>,
    /// On rows that decided nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<ClassificationMetrics>,
    /// What the most frequent label of train scores on test.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<MajorityBaseline>,
    /// The test's probability metrics with temperature 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before_calibration: Option<ProbabilityMetrics>,
    /// What logits are divided by.
    pub temperature: f64,
    /// The epoch whose weights were kept.
    pub best_epoch: usize,
    /// Epochs that were trained.
    pub epochs: usize,
}

/// The metrics that a temperature changes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ProbabilityMetrics {
    /// See [`ClassificationMetrics`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_loss: Option<f64>,
    /// See [`ClassificationMetrics`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub brier: Option<f64>,
    /// See [`ClassificationMetrics`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ece: Option<f64>,
}

/// The temperature that fits the validation rows best.
///
/// 1 where there are none, and where they tell no temperature: if all of them are right (or wrong), the likelihood only
/// grows towards the end of the range, and a head would claim a certainty that a few easy rows cannot give.
pub(super) fn fit_temperature(dataset: &Dataset, logits: &Array2<f32>) -> f64 {
    let validation = dataset.part(Part::Validation);
    let labels = labels_of(dataset, &validation);
    let fitted = temperature(rows_of(logits, &validation).view(), &labels);
    let [lowest, highest] = TEMPERATURES;
    let inside = fitted > lowest * 1.001 && fitted < highest / 1.001;
    if inside { fitted } else { 1.0 }
}

/// Measures a head by its logits on every row of a dataset.
pub(super) fn measure(
    dataset: &Dataset,
    logits: &Array2<f32>,
    temperature: f64,
    trained: &TrainedHead,
    seed: u64,
) -> RunMetrics {
    let n_classes = dataset.labels.len();
    let evaluate = |part: Part, temperature: f64, bootstrap: Option<Bootstrap>| {
        let rows = dataset.part(part);
        let labels = labels_of(dataset, &rows);
        let probabilities = softmax_rows(rows_of(logits, &rows).view(), temperature);
        (!rows.is_empty())
            .then(|| classification::evaluate(&labels, probabilities.view(), n_classes, bootstrap))
    };
    let bootstrap = Some(Bootstrap {
        seed,
        ..Bootstrap::default()
    });
    let [train_labels, test_labels] =
        [Part::Train, Part::Test].map(|part| labels_of(dataset, &dataset.part(part)));
    RunMetrics {
        train: evaluate(Part::Train, temperature, None),
        validation: evaluate(Part::Validation, temperature, bootstrap),
        test: evaluate(Part::Test, temperature, bootstrap),
        baseline: baseline::majority_class(&train_labels, &test_labels, n_classes),
        before_calibration: evaluate(Part::Test, 1.0, None).map(|metrics| ProbabilityMetrics {
            log_loss: metrics.log_loss,
            brier: metrics.brier,
            ece: metrics.ece,
        }),
        temperature,
        best_epoch: trained.best_epoch,
        epochs: trained.history.len(),
    }
}

fn rows_of(logits: &Array2<f32>, rows: &[u32]) -> Array2<f32> {
    let places: Vec<usize> = rows.iter().map(|row| *row as usize).collect();
    logits.select(Axis(0), &places)
}

fn labels_of(dataset: &Dataset, rows: &[u32]) -> Vec<usize> {
    let labels = dataset.labels_of(rows).into_iter();
    labels.map(|label| label as usize).collect()
}

/// Writes metrics.json.
pub(super) fn write_metrics(run: &Path, metrics: &RunMetrics) -> Result<()> {
    let path = run.join(METRICS_FILE);
    let mut json = serde_json::to_string_pretty(metrics).expect("numbers and names become JSON");
    json.push('\n');
    std::fs::write(&path, json).map_err(Error::io("write", path))
}

/// The parts of a run that have metrics, by name.
pub fn measured_parts(
    metrics: &RunMetrics,
) -> impl Iterator<Item = (&'static str, &ClassificationMetrics)> {
    let parts = [
        (Part::Train, &metrics.train),
        (Part::Validation, &metrics.validation),
        (Part::Test, &metrics.test),
    ];
    parts
        .into_iter()
        .filter_map(|(part, metrics)| Some((part_name(part), metrics.as_ref()?)))
}

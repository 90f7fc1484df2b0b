//! What a trained head is worth: metrics of every part, beside what a trivial answer scores.

use std::path::Path;

use frostbert_cache::durable::write_file;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    data::{Part, example::part_name},
    error::Result,
    metrics::{
        calibration::{TEMPERATURES, temperature_of},
        outputs::OutputRows,
        scores::Scores,
    },
    tasks::TaskMetrics,
};

/// The file of a run's metrics.
pub(crate) const METRICS_FILE: &str = "metrics.json";

/// The metrics of a run, as they stand in metrics.json.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct RunMetrics {
    /// On the rows that the head learned from; without intervals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train: Option<TaskMetrics>,
    /// On the rows that chose the epoch, and what else validation tunes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub validation: Option<TaskMetrics>,
    /// On rows that decided nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<TaskMetrics>,
    /// What a trivial answer scores on test.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Baseline>,
    /// The test's probability metrics with temperature 1, for classification.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before_calibration: Option<Scores>,
    /// What logits are divided by, for classification.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Where no answer becomes the answer, for questions that may have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_answer_threshold: Option<f64>,
    /// The share of each of several layers in the mix, by layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer_profile: Option<Vec<LayerShare>>,
    /// The epoch whose weights were kept.
    pub best_epoch: usize,
    /// Epochs that were trained.
    pub epochs: usize,
}

impl RunMetrics {
    /// The metrics of train, validation and test, as far as they have rows, and those of a trivial answer.
    pub(crate) fn of_parts(
        [train, validation, test]: [Option<TaskMetrics>; 3],
        baseline: Option<Baseline>,
    ) -> RunMetrics {
        RunMetrics { train, validation, test, baseline, ..RunMetrics::default() }
    }
}

/// How much a layer takes part in a learned mix.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LayerShare {
    /// The absolute layer.
    pub layer: usize,
    /// Its share; all add up to 1.
    pub share: f64,
}

/// A trivial answer, and what it scores on test.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Baseline {
    /// What is answered.
    pub description: String,
    /// Its metrics, by their names.
    #[serde(flatten)]
    pub metrics: Map<String, Value>,
}

impl Baseline {
    /// A description and metrics that become a JSON object.
    pub(crate) fn new(description: String, metrics: &impl Serialize) -> Baseline {
        let metrics = match serde_json::to_value(metrics) {
            Ok(Value::Object(metrics)) => metrics,
            _ => Map::new(),
        };
        Baseline { description, metrics }
    }
}

/// The temperature that fits the validation rows best.
///
/// 1 where there are none, and where they tell no temperature: if all of them are right (or wrong), the likelihood only
/// grows towards the end of the range, and a head would claim a certainty that a few easy rows cannot give.
///
/// # Errors
/// When what logits are computed from cannot be read.
pub(crate) fn fit_temperature(labels: &[usize], logits: &dyn OutputRows) -> Result<f64> {
    let fitted = temperature_of(logits, labels)?;
    let [lowest, highest] = TEMPERATURES;
    let inside = fitted > lowest * 1.001 && fitted < highest / 1.001;
    Ok(if inside { fitted } else { 1.0 })
}

/// Writes metrics.json.
pub(crate) fn write_metrics(run: &Path, metrics: &RunMetrics) -> Result<()> {
    let path = run.join(METRICS_FILE);
    let mut json = serde_json::to_string_pretty(metrics).expect("numbers and names become JSON");
    json.push('\n');
    Ok(write_file(&path, json.as_bytes())?)
}

/// The parts of a run that have metrics, by name.
pub fn measured_parts(metrics: &RunMetrics) -> impl Iterator<Item = (&'static str, &TaskMetrics)> {
    let parts = [
        (Part::Train, &metrics.train),
        (Part::Validation, &metrics.validation),
        (Part::Test, &metrics.test),
    ];
    parts.into_iter().filter_map(|(part, metrics)| Some((part_name(part), metrics.as_ref()?)))
}

//! One head's settings, as numbers.

use serde::{Deserialize, Serialize};

use crate::train::{loss::Loss, optimizer::Optimizer, schedule::Schedule};

/// Everything that decides one head, given its data and the order of its batches.
#[derive(Clone, Debug)]
pub struct HeadSpec {
    /// Number of outputs.
    pub n_classes: usize,
    /// Probability that an input feature is dropped in a training step.
    pub dropout: f32,
    /// The optimiser.
    pub optimizer: Optimizer,
    /// The learning rate's course.
    pub schedule: Schedule,
    /// Share of the steps in which the learning rate rises.
    pub warmup: f64,
    /// Largest norm of the gradient of weights and biases together.
    pub clip: Option<f64>,
    /// The loss.
    pub loss: Loss,
    /// Decides the initial weights and the dropout masks.
    pub seed: u64,
    /// When to stop; `None` trains every epoch and keeps the last weights.
    pub stopping: Option<Stopping>,
}

/// When a head stops early.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stopping {
    /// The validation metric that is followed: `loss`, or the name of a classification metric.
    pub metric: StoppingMetric,
    /// Epochs without a better value before training stops.
    pub patience: usize,
}

impl Default for Stopping {
    /// The loss, with a patience of 3 epochs.
    fn default() -> Stopping {
        Stopping {
            metric: StoppingMetric::Loss,
            patience: 3,
        }
    }
}

/// A validation metric that early stopping can follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoppingMetric {
    /// The training loss on validation rows, without dropout and label smoothing.
    Loss,
    /// See [`crate::metrics::ClassificationMetrics`], as all below.
    Accuracy,
    /// Macro F1.
    MacroF1,
    /// Micro F1.
    MicroF1,
    /// Weighted F1.
    WeightedF1,
    /// Matthews correlation.
    Mcc,
    /// Area under the ROC curve.
    RocAuc,
    /// Log loss, without class weights.
    LogLoss,
    /// Brier score.
    Brier,
    /// Expected calibration error.
    Ece,
}

impl StoppingMetric {
    /// Whether a larger value is better.
    pub fn higher_is_better(self) -> bool {
        !matches!(
            self,
            StoppingMetric::Loss
                | StoppingMetric::LogLoss
                | StoppingMetric::Brier
                | StoppingMetric::Ece
        )
    }
}

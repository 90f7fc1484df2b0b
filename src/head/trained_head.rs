//! A head after training, and the record of its epochs.

use std::fmt;

use crate::metrics::metric::Metric;

/// A head after training, on transformed features.
#[derive(Clone, Debug)]
pub struct TrainedHead {
    /// The parameters, in the layout of the head's [`super::network::Network`].
    pub parameters: Vec<f32>,
    /// The record of each epoch.
    pub history: Vec<EpochRecord>,
    /// The epoch whose parameters these are.
    pub best_epoch: usize,
}

/// One epoch of one head.
#[derive(Clone, Debug, PartialEq)]
pub struct EpochRecord {
    /// The epoch, counted from 1.
    pub epoch: usize,
    /// The learning rate at the epoch's last step.
    pub lr: f64,
    /// Mean training loss over the epoch's steps, with dropout and label smoothing.
    pub train_loss: f64,
    /// Mean validation loss, without either; `None` if there are no validation samples.
    pub validation_loss: Option<f64>,
    /// Validation metrics, as the task's evaluator computes them.
    pub scores: Vec<(Metric, f64)>,
}

impl EpochRecord {
    /// Whether a loss is not finite, which ends the training.
    pub fn diverged(&self) -> bool {
        self.bad_loss().is_some()
    }

    pub(super) fn bad_loss(&self) -> Option<f64> {
        let losses = [Some(self.train_loss), self.validation_loss];
        losses.into_iter().flatten().find(|loss| !loss.is_finite())
    }

    /// The value of a metric, if it is defined.
    pub fn score(&self, metric: Metric) -> Option<f64> {
        if metric == Metric::Loss {
            return self.validation_loss;
        }
        let scored = self.scores.iter().find(|(other, _)| *other == metric);
        scored.map(|(_, value)| *value)
    }
}

impl fmt::Display for EpochRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "epoch {}: loss {:.4}", self.epoch, self.train_loss)?;
        if let Some(loss) = self.validation_loss {
            write!(f, ", validation loss {loss:.4}")?;
        }
        match self.scores.first() {
            Some((metric, value)) => write!(f, ", {} {value:.4}", metric.in_words()),
            None => Ok(()),
        }
    }
}

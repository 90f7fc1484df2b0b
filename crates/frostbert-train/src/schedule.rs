//! The learning rate over the steps of a training run.

use serde::{Deserialize, Serialize};

/// The course of the learning rate after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Stays constant.
    #[default]
    Constant,
    /// Falls linearly to 0.
    Linear,
    /// Falls along half a cosine to 0.
    Cosine,
}

impl Schedule {
    /// The factor of the learning rate at `step` (from 0) of `total` steps.
    ///
    /// With `w = round(warmup * total)` warm-up steps: `(step + 1) / w` before step `w`; then, with
    /// `p = (step - w) / (total - w)`, constant `1`, linear `1 - p`, cosine `(1 + cos(pi p)) / 2`.
    ///
    /// ```
    /// use frostbert_train::schedule::Schedule;
    /// let factors: Vec<f64> = (0..4).map(|step| Schedule::Linear.factor(step, 4, 0.5)).collect();
    /// assert_eq!(factors, [0.5, 1.0, 1.0, 0.5]);
    /// ```
    pub fn factor(self, step: usize, total: usize, warmup: f64) -> f64 {
        let warmup_steps = (warmup * total as f64).round() as usize;
        if step < warmup_steps {
            return (step + 1) as f64 / warmup_steps as f64;
        }
        let progress = (step - warmup_steps) as f64 / (total - warmup_steps).max(1) as f64;
        match self {
            Schedule::Constant => 1.0,
            Schedule::Linear => 1.0 - progress,
            Schedule::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        }
    }
}

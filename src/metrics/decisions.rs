//! What the probabilities of labels that are set or not say, decision by decision: how far they are from the truth, and in
//! which order they put the rows.

use ndarray::ArrayView2;

use super::{
    probability::{N_BINS, bin_of, row_log_loss, weighted_mean},
    ranking::ClassRanking,
};

/// What each row adds to log loss, Brier score and ECE over all decisions, as [`multilabel`](super::multilabel) defines
/// them, so that a resample of the rows costs weighted sums.
pub(super) struct DecisionLosses {
    n_labels: usize,
    /// Means over the labels of each row.
    log_loss: Vec<f64>,
    squared_error: Vec<f64>,
    /// Row by row, for each label: the bin of its probability, and how far the truth is above that.
    bin: Vec<u8>,
    gap: Vec<f64>,
}

impl DecisionLosses {
    /// `None` without decisions, or where a probability is not finite.
    pub(super) fn new(truth: ArrayView2<bool>, probabilities: ArrayView2<f32>) -> Option<Self> {
        if truth.is_empty() || probabilities.iter().any(|p| !p.is_finite()) {
            return None;
        }
        let mut losses = Self {
            n_labels: truth.ncols(),
            log_loss: Vec::with_capacity(truth.nrows()),
            squared_error: Vec::with_capacity(truth.nrows()),
            bin: Vec::with_capacity(truth.len()),
            gap: Vec::with_capacity(truth.len()),
        };
        for (truth, probabilities) in truth.rows().into_iter().zip(probabilities.rows()) {
            let [mut log_loss, mut squared_error] = [0.0; 2];
            for (&has, &probability) in truth.iter().zip(probabilities) {
                let probability = f64::from(probability);
                log_loss += row_log_loss(if has { probability } else { 1.0 - probability });
                let gap = f64::from(u8::from(has)) - probability;
                squared_error += gap * gap;
                losses.bin.push(bin_of(probability));
                losses.gap.push(gap);
            }
            let n_labels = truth.len() as f64;
            losses.log_loss.push(log_loss / n_labels);
            losses.squared_error.push(squared_error / n_labels);
        }
        Some(losses)
    }

    pub(super) fn log_loss(&self, weights: &[u32]) -> Option<f64> {
        weighted_mean(self.log_loss.iter().copied(), weights)
    }

    pub(super) fn brier(&self, weights: &[u32]) -> Option<f64> {
        weighted_mean(self.squared_error.iter().copied(), weights)
    }

    pub(super) fn ece(&self, weights: &[u32]) -> Option<f64> {
        let mut gap_in_bin = [0.0; N_BINS];
        let rows = self.bin.chunks(self.n_labels);
        let rows = rows.zip(self.gap.chunks(self.n_labels)).zip(weights);
        for ((bins, gaps), &weight) in rows {
            for (&bin, &gap) in bins.iter().zip(gaps) {
                gap_in_bin[usize::from(bin)] += f64::from(weight) * gap;
            }
        }
        let n: u64 = weights.iter().copied().map(u64::from).sum();
        let gaps: f64 = gap_in_bin.iter().map(|gap| gap.abs()).sum();
        (n > 0).then(|| gaps / (n as f64 * self.n_labels as f64))
    }
}

/// The rankings whose mean AUC is the ROC-AUC of labels: of those that some rows have and some have not. None where a
/// probability is not finite.
pub(super) fn label_rankings(
    truth: ArrayView2<bool>,
    probabilities: ArrayView2<f32>,
) -> Vec<ClassRanking> {
    if probabilities.iter().any(|p| !p.is_finite()) {
        return Vec::new();
    }
    (0..truth.ncols())
        .filter(|&label| truth.column(label).iter().any(|&has| has))
        .filter(|&label| truth.column(label).iter().any(|&has| !has))
        .map(|label| ClassRanking::new(probabilities.column(label), |row| truth[[row, label]]))
        .collect()
}

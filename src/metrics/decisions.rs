//! Metrics from the probabilities of independent labels, decision by decision: how far they are from the truth, and how
//! they rank the rows.

use ndarray::ArrayView2;

use super::{
    probability::{N_BINS, bin_of, row_log_loss},
    ranking::ClassRanking,
};

/// The contribution of each row to log loss, Brier score and ECE over all decisions, as defined in
/// [`multilabel`](super::multilabel), so that a resample of the rows costs weighted sums.
pub(super) struct DecisionLosses {
    n_labels: usize,
    /// Row by row, for each label: its loss, the bin of its probability, and the truth minus the probability.
    log_loss: Vec<f64>,
    bin: Vec<u8>,
    gap: Vec<f64>,
}

impl DecisionLosses {
    /// `None` if there are no decisions, or if a probability is not finite.
    pub(super) fn new(truth: ArrayView2<bool>, probabilities: ArrayView2<f32>) -> Option<Self> {
        if truth.is_empty() || probabilities.iter().any(|p| !p.is_finite()) {
            return None;
        }
        let mut losses = Self {
            n_labels: truth.ncols(),
            log_loss: Vec::with_capacity(truth.len()),
            bin: Vec::with_capacity(truth.len()),
            gap: Vec::with_capacity(truth.len()),
        };
        for (&has, &probability) in truth.iter().zip(probabilities) {
            let probability = f64::from(probability);
            let of_truth = if has { probability } else { 1.0 - probability };
            losses.log_loss.push(row_log_loss(of_truth));
            losses.bin.push(bin_of(probability));
            losses.gap.push(f64::from(u8::from(has)) - probability);
        }
        Some(losses)
    }

    pub(super) fn log_loss(&self, weights: &[u32]) -> Option<f64> {
        self.mean(self.log_loss.iter().copied(), weights)
    }

    pub(super) fn brier(&self, weights: &[u32]) -> Option<f64> {
        self.mean(self.gap.iter().map(|gap| gap * gap), weights)
    }

    pub(super) fn ece(&self, weights: &[u32]) -> Option<f64> {
        let mut gap_in_bin = [0.0; N_BINS];
        let decisions = self.bin.iter().zip(&self.gap);
        for ((&bin, &gap), weight) in decisions.zip(self.of_decisions(weights)) {
            gap_in_bin[usize::from(bin)] += weight * gap;
        }
        self.per_decision(gap_in_bin.iter().map(|gap| gap.abs()).sum(), weights)
    }

    fn mean(&self, values: impl Iterator<Item = f64>, weights: &[u32]) -> Option<f64> {
        let weighted = values.zip(self.of_decisions(weights));
        self.per_decision(weighted.map(|(value, weight)| weight * value).sum(), weights)
    }

    /// The weight of each decision, which is that of its row.
    fn of_decisions(&self, weights: &[u32]) -> impl Iterator<Item = f64> {
        let rows = weights.iter().map(|&weight| f64::from(weight));
        rows.flat_map(|weight| std::iter::repeat_n(weight, self.n_labels))
    }

    fn per_decision(&self, sum: f64, weights: &[u32]) -> Option<f64> {
        let n_rows: u64 = weights.iter().copied().map(u64::from).sum();
        (n_rows > 0).then(|| sum / (n_rows as f64 * self.n_labels as f64))
    }
}

/// The rankings whose mean AUC is the ROC-AUC of label sets: one for each label that some but not all rows have. Empty
/// if a probability is not finite.
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

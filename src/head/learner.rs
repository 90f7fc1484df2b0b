//! What the training loop drives: some heads that take every step together.

use ndarray::ArrayView2;

use super::targets::TargetsView;
use crate::train::loss::LossSum;

/// The rows of a training step.
pub(crate) struct TrainingBatch<'a> {
    /// Transformed features `[rows, n_features]`; for a block with its heads' dropout applied.
    pub rows: ArrayView2<'a, f32>,
    /// First row of each sample, and the number of rows.
    pub starts: &'a [usize],
    /// A number for each row that stands for it in every epoch.
    pub row_ids: &'a [u64],
    /// What comes of the samples.
    pub targets: TargetsView<'a>,
    /// From 1.
    pub epoch: usize,
}

/// Some heads that are trained side by side, each for itself.
///
/// A learner owns all that it changes, so learners run beside each other without a barrier.
pub(crate) trait Learner: Send + Sync {
    /// The numbers of its heads in the bank.
    fn heads(&self) -> Vec<usize>;

    /// Whether any head still trains.
    fn is_active(&self) -> bool;

    /// Ends the training of a head, where it is one of these: its parameters stay as they are.
    fn stop(&mut self, head: usize);

    /// One step of every active head: forward, loss, backward, clip, update.
    fn step(&mut self, batch: &TrainingBatch<'_>);

    /// The losses of the steps since this was last asked, by head number.
    fn take_losses(&mut self) -> Vec<(usize, LossSum)>;

    /// A head's parameters as they are now, laid out as its [`super::network::Network`] lays them out.
    fn parameters(&self, head: usize) -> Vec<f32>;
}

/// Samples in parts of at most `most_rows` rows, a larger sample being a part of its own: `[first, end)` of each.
pub(super) fn parts(starts: &[usize], most_rows: usize) -> Vec<(usize, usize)> {
    let n_samples = starts.len() - 1;
    let mut parts = Vec::new();
    let mut first = 0;
    for sample in 0..n_samples {
        if sample > first && starts[sample + 1] - starts[first] > most_rows {
            parts.push((first, sample));
            first = sample;
        }
    }
    if first < n_samples {
        parts.push((first, n_samples));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_hold_whole_samples_and_no_more_rows_than_asked_for() {
        assert_eq!(parts(&[0, 3, 5, 9, 20, 21], 6), [(0, 2), (2, 3), (3, 4), (4, 5)]);
        assert_eq!(parts(&[0, 1, 2, 3], 6), [(0, 3)]);
        assert!(parts(&[0], 6).is_empty());
    }
}

//! The interface of the training loop to a group of heads that take every step together.

use ndarray::ArrayView2;

use super::targets::TargetsView;
use crate::{features::TokenRole, train::loss::LossSum};

/// The rows of a training step.
pub(crate) struct TrainingBatch<'a> {
    /// Transformed features `[rows, n_features]`; for a block, with the dropout of its heads applied.
    pub rows: ArrayView2<'a, f32>,
    /// First row of each sample, followed by the number of rows.
    pub starts: &'a [usize],
    /// First output of each sample, followed by the number of outputs, for heads that have an output for each row or
    /// for each token that is one.
    pub output_starts: &'a [usize],
    /// An id for each row that identifies it in every epoch.
    pub row_ids: &'a [u64],
    /// What each row is for, if layers of an encoder read them; otherwise empty.
    pub roles: &'a [TokenRole],
    /// The targets of the samples.
    pub targets: TargetsView<'a>,
    /// The epoch, counted from 1.
    pub epoch: usize,
}

/// Some heads that are trained together but independently of one another.
///
/// A learner owns everything that it changes, so learners run in parallel without a barrier.
pub(crate) trait Learner: Send + Sync {
    /// The numbers of its heads in the bank.
    fn heads(&self) -> Vec<usize>;

    /// Whether any of its heads is still training.
    fn is_active(&self) -> bool;

    /// Ends the training of a head, if it belongs to this learner: its parameters no longer change.
    fn stop(&mut self, head: usize);

    /// Runs one step of every active head: forward, loss, backward, clip, update.
    fn step(&mut self, batch: &TrainingBatch<'_>);

    /// Returns the losses of the steps since the last call, by head number.
    fn take_losses(&mut self) -> Vec<(usize, LossSum)>;

    /// A head's current parameters, in the layout of its [`super::network::Network`].
    fn parameters(&self, head: usize) -> Vec<f32>;
}

/// Splits samples into parts of at most `most_rows` rows (a larger sample is a part of its own): `[first, end)` of
/// each.
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

//! Two maps of rows, one after the other.

use ndarray::{Array2, ArrayView2, ArrayViewMut2};

use super::RowMap;

/// Maps the rows of a sample by `first`, and what comes of it by `second`.
pub(super) struct ChainedMaps {
    pub(super) first: Box<dyn RowMap>,
    pub(super) second: Box<dyn RowMap>,
}

impl RowMap for ChainedMaps {
    fn n_rows(&self, sample: u32, n_stored: usize) -> usize {
        self.second.n_rows(sample, self.first.n_rows(sample, n_stored))
    }

    fn n_features(&self, n_stored: usize) -> usize {
        self.second.n_features(self.first.n_features(n_stored))
    }

    fn map(&self, sample: u32, stored: ArrayView2<'_, f32>, out: ArrayViewMut2<'_, f32>) {
        let n_rows = self.first.n_rows(sample, stored.nrows());
        let mut between = Array2::zeros((n_rows, self.first.n_features(stored.ncols())));
        self.first.map(sample, stored, between.view_mut());
        self.second.map(sample, between.view(), out);
    }
}

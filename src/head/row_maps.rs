//! What heads read when it is not the stored rows: pairs of texts as one row, and the rows of a window that are
//! candidates for the start and the end of an answer.

use std::ops::Range;

use ndarray::{ArrayView2, ArrayViewMut2, s};

use super::{matching, pair};
use crate::features::RowMap;

/// Merges the two rows of a pair into one: see [`pair::features`].
pub(crate) struct PairRows {
    /// Number of encoder layers that are concatenated in a row.
    pub n_layers: usize,
}

impl RowMap for PairRows {
    fn n_rows(&self, _: u32, _: usize) -> usize {
        1
    }

    fn n_features(&self, n_stored: usize) -> usize {
        pair::width(n_stored)
    }

    fn map(&self, _: u32, stored: ArrayView2<'_, f32>, mut out: ArrayViewMut2<'_, f32>) {
        pair::features(stored.row(0), stored.row(1), self.n_layers, out.row_mut(0));
    }
}

/// The roles of the rows of a window; its first row is `[CLS]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WindowShape {
    /// The question's tokens.
    pub question: Range<usize>,
    /// The context's tokens.
    pub context: Range<usize>,
}

impl WindowShape {
    /// Number of output rows: one for "no answer", and one for every token of the context.
    pub(crate) fn n_candidates(&self) -> usize {
        1 + self.context.len()
    }
}

/// Turns the rows of windows into candidates: row 0 is `[CLS]` and stands for "no answer", followed by the context
/// tokens.
pub(crate) struct WindowRows {
    /// The shape of each window, by sample.
    pub shapes: Vec<WindowShape>,
    /// Number of encoder layers that are concatenated in a row.
    pub n_layers: usize,
    /// Whether candidates are turned into the features of the matching head: see [`matching::features`].
    pub matching: bool,
}

impl RowMap for WindowRows {
    fn n_rows(&self, sample: u32, _: usize) -> usize {
        self.shapes[sample as usize].n_candidates()
    }

    fn n_features(&self, n_stored: usize) -> usize {
        if self.matching {
            self.n_layers * matching::width(n_stored / self.n_layers, 1)
        } else {
            n_stored
        }
    }

    fn map(&self, sample: u32, stored: ArrayView2<'_, f32>, mut out: ArrayViewMut2<'_, f32>) {
        let shape = &self.shapes[sample as usize];
        let context = stored.slice(s![shape.context.clone(), ..]);
        if !self.matching {
            out.row_mut(0).assign(&stored.row(0));
            out.slice_mut(s![1.., ..]).assign(&context);
            return;
        }
        let mut candidates = ndarray::Array2::zeros((shape.n_candidates(), stored.ncols()));
        candidates.row_mut(0).assign(&stored.row(0));
        candidates.slice_mut(s![1.., ..]).assign(&context);
        let question = stored.slice(s![shape.question.clone(), ..]);
        matching::features(candidates.view(), question, self.n_layers, out);
    }
}

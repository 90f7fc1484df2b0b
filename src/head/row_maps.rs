//! What heads read where it is not the stored rows: pairs as one row, and the candidates of a window for the start and
//! the end of an answer.

use std::ops::Range;

use ndarray::{ArrayView2, ArrayViewMut2, s};

use super::{matching, pair};
use crate::features::RowMap;

/// Pairs of rows that become one: see [`pair::features`].
pub(crate) struct PairRows {
    /// Encoder layers that stand side by side in a row.
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

/// Which rows of a window are what; its first row is `[CLS]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WindowShape {
    /// The question's tokens.
    pub question: Range<usize>,
    /// The context's tokens.
    pub context: Range<usize>,
}

impl WindowShape {
    /// Rows of outputs: no answer, and every token of the context.
    pub(crate) fn n_candidates(&self) -> usize {
        1 + self.context.len()
    }
}

/// Windows whose rows become candidates: row 0 is `[CLS]` and stands for no answer, the tokens of the context follow.
pub(crate) struct WindowRows {
    /// The windows, by sample.
    pub shapes: Vec<WindowShape>,
    /// Encoder layers that stand side by side in a row.
    pub n_layers: usize,
    /// Whether candidates become the features of the matching head: see [`matching::features`].
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

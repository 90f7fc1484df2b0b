//! The rows of several samples in memory, as a head reads them.

use std::{borrow::Cow, ops::Range};

use ndarray::{Array2, ArrayView2, s};

use super::token_roles::{TokenRole, output_starts};

/// The rows of several samples as a head reads them, before scaling.
pub struct Tile {
    /// `[rows, n_features]`.
    pub rows: Array2<f32>,
    /// The first row of each sample, followed by the number of rows.
    pub starts: Vec<usize>,
    /// The id of each row, which is the same in every tile.
    pub row_ids: Vec<u64>,
    /// What each row is for; empty unless the view has roles.
    pub roles: Vec<TokenRole>,
}

impl Tile {
    /// Returns the tile's memory, so that another tile can use it.
    pub fn into_buffer(self) -> Vec<f32> {
        self.rows.into_raw_vec_and_offset().0
    }

    /// Returns the number of samples.
    pub fn n_samples(&self) -> usize {
        self.starts.len() - 1
    }

    /// Returns the first output of each sample, followed by the number of outputs, for a head with an output for each
    /// row or for each token that is one.
    pub fn output_starts(&self) -> Cow<'_, [usize]> {
        output_starts(&self.starts, &self.roles)
    }

    /// Returns the rows of a range of the tile's samples.
    pub fn rows_of(&self, samples: Range<usize>) -> ArrayView2<'_, f32> {
        self.rows.slice(s![self.starts[samples.start]..self.starts[samples.end], ..])
    }
}

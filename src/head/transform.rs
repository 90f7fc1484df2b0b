//! The transform of every row before a head reads it: standardisation, then a projection to principal components.

use ndarray::{Array1, Array2, Axis};
use rayon::prelude::*;

use crate::{
    error::Result,
    features::{FeatureView, LoadedStates, Tile, scaler::Scaler},
    train::{dropout::drop_units, gemm::multiply},
};

/// Standardisation, and optionally a projection.
#[derive(Clone, Debug, PartialEq)]
pub struct Transform {
    /// Applied first.
    pub scaler: Scaler,
    /// Applied to scaled rows.
    pub projection: Option<Projection>,
}

/// `y = (x - mean) P`.
#[derive(Clone, Debug, PartialEq)]
pub struct Projection {
    /// `[n_features]`.
    pub mean: Array1<f32>,
    /// `P [n_features, n_components]`.
    pub components: Array2<f32>,
}

impl Transform {
    /// The transform that changes nothing.
    pub fn identity(n_features: usize) -> Transform {
        Transform { scaler: Scaler::identity(n_features), projection: None }
    }

    /// Fits standardisation alone on the rows of some samples: see [`Scaler::fit`].
    ///
    /// # Errors
    /// Returns an error if a file of the cache does not match the manifest.
    pub fn standardize(view: &FeatureView<'_>, samples: &[u32]) -> Result<Transform> {
        Ok(Transform { scaler: Scaler::fit(view, samples)?, projection: None })
    }

    /// Number of values in a row after the transform.
    pub fn n_features(&self) -> usize {
        let projected = self.projection.as_ref();
        projected.map_or(self.scaler.mean.len(), |projection| projection.components.ncols())
    }

    /// Whether the transform leaves rows unchanged.
    pub fn is_identity(&self) -> bool {
        *self == Transform::identity(self.scaler.mean.len())
    }

    /// Builds a tile of loaded samples as a head reads them, in the memory of an earlier tile.
    ///
    /// Rows are scaled, projected, and have units dropped if there is a mask; without a projection, this is done row by
    /// row while the row is in the processor's cache.
    pub fn tile(
        &self,
        view: &FeatureView<'_>,
        loaded: &LoadedStates,
        samples: &[u32],
        buffer: Vec<f32>,
        mask: Option<Mask>,
    ) -> Tile {
        if self.projection.is_some() {
            let mut tile = view.tile_in(buffer, loaded, samples, |_, _| {});
            tile.rows = self.apply(tile.rows);
            if let Some(mask) = mask {
                tile.rows = mask.dropped(&tile);
            }
            return tile;
        }
        let scaler = self.scaler.of_rows();
        view.tile_in(buffer, loaded, samples, |row, id| {
            scaler.apply(row);
            if let Some(mask) = mask {
                mask.apply(row, id);
            }
        })
    }

    /// Transforms rows `[n, n_features]`. Works in tiles of fixed height, so that the bits of a row depend on nothing
    /// but the row.
    pub fn apply(&self, mut rows: Array2<f32>) -> Array2<f32> {
        self.scaler.apply(rows.view_mut());
        let Some(projection) = &self.projection else {
            return rows;
        };
        rows -= &projection.mean;
        let mut projected = Array2::zeros((rows.nrows(), projection.components.ncols()));
        let tiles = projected.axis_chunks_iter_mut(Axis(0), TILE_ROWS);
        for (mut out, tile) in tiles.zip(rows.axis_chunks_iter(Axis(0), TILE_ROWS)) {
            if tile.nrows() == TILE_ROWS {
                multiply(tile, projection.components.view(), out);
                continue;
            }
            let mut padded = Array2::zeros((TILE_ROWS, tile.ncols()));
            padded.slice_mut(ndarray::s![..tile.nrows(), ..]).assign(&tile);
            let mut product = Array2::zeros((TILE_ROWS, out.ncols()));
            multiply(padded.view(), projection.components.view(), product.view_mut());
            out.assign(&product.slice(ndarray::s![..tile.nrows(), ..]));
        }
        projected
    }

    /// Returns the weights and biases that give on original rows what `weights [n_components, outputs]` and `bias` give
    /// on transformed ones: `W' = P W`, `b' = b - mean P W`, then [`Scaler::fold`].
    pub fn fold(&self, weights: &Array2<f32>, bias: &Array1<f32>) -> (Array2<f32>, Array1<f32>) {
        let Some(projection) = &self.projection else {
            return self.scaler.fold(weights, bias);
        };
        let mut unprojected = Array2::zeros((projection.components.nrows(), weights.ncols()));
        multiply(projection.components.view(), weights.view(), unprojected.view_mut());
        let shift = projection.mean.dot(&unprojected);
        self.scaler.fold(&unprojected, &(bias - &shift))
    }
}

const TILE_ROWS: usize = 64;

/// Dropout of input rows in an epoch: see [`drop_units`].
#[derive(Clone, Copy, Debug)]
pub struct Mask {
    /// Share of the units that are dropped.
    pub rate: f32,
    /// Determines, with `epoch`, which units are dropped.
    pub seed: u64,
    /// Determines, with `seed`, which units are dropped.
    pub epoch: u64,
}

impl Mask {
    /// Drops units of a row, given its id.
    pub fn apply(&self, row: &mut [f32], id: u64) {
        drop_units(row, self.rate, self.seed, self.epoch, id);
    }

    /// Returns the rows of a tile with units dropped.
    pub fn dropped(&self, tile: &Tile) -> Array2<f32> {
        let mut rows = tile.rows.clone();
        rows.axis_iter_mut(Axis(0))
            .into_par_iter()
            .zip(&tile.row_ids)
            .with_min_len(TILE_ROWS)
            .for_each(|(mut row, id)| {
                let row = row.as_slice_mut();
                self.apply(row.expect("a row of a standard array is contiguous"), *id);
            });
        rows
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn a_folded_head_gives_on_raw_rows_what_it_gives_on_transformed_ones() {
        let transform = Transform {
            scaler: Scaler { mean: array![1.0, -2.0, 0.5], deviation: array![2.0, 0.5, 1.0] },
            projection: Some(Projection {
                mean: array![0.1, 0.0, -0.3],
                components: array![[0.6, 0.0], [0.8, 0.6], [0.0, -0.8]],
            }),
        };
        let rows = array![[3.0f32, 1.0, 2.0], [0.0, -2.5, 4.0]];
        let (weights, bias) = (array![[1.5f32], [-0.5]], array![0.25f32]);
        let expected = transform.apply(rows.clone()).dot(&weights) + &bias;
        let (folded, folded_bias) = transform.fold(&weights, &bias);
        let difference = rows.dot(&folded) + &folded_bias - &expected;
        assert!(difference.iter().all(|value| value.abs() < 1e-5), "{difference}");
    }
}

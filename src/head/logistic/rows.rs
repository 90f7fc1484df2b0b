//! The rows of all problems in one matrix, rotated so that their features are uncorrelated.

use ndarray::{Array1, Array2, ArrayView2, Axis, s};
use rayon::prelude::*;

use crate::{
    error::Result,
    features::FeatureView,
    head::{
        gram::{add_square, mirror},
        row_groups::RowGroups,
        transform::Transform,
    },
    train::{eigen::symmetric_eigen, gemm::multiply},
};

/// Number of rows that are processed at a time.
const TILE_ROWS: usize = 512;

/// `U = (X - m) V`: the rows along the principal axes of their scatter.
///
/// A head `z = x w + b` equals `z = u v + c` with `w = V v` and `b = c - m w`. Since `V` is orthonormal, `|w| = |v|`,
/// so the penalty of the weights is the same in both and the change of variables is exact. In terms of `u` the Hessian
/// of a logistic regression is nearly diagonal, however strongly the features are correlated.
pub(crate) struct TurnedRows {
    /// `U [samples, n_features]`, in the order of the row groups.
    pub rows: Array2<f32>,
    /// `m`, the mean of all rows.
    pub mean: Array1<f64>,
    /// `V [n_features, n_features]`.
    pub axes: Array2<f64>,
    /// Mean square of each column of `U`.
    pub variances: Array1<f64>,
}

impl TurnedRows {
    /// Decodes, transforms and rotates all rows of some groups.
    ///
    /// The scatter is summed in f32, which is precise enough to choose axes; the axes are orthonormal in f64.
    ///
    /// # Errors
    /// Returns an error if the cache is damaged or the features are not finite.
    pub(crate) fn new(
        view: &FeatureView<'_>,
        transform: &Transform,
        groups: &RowGroups,
    ) -> Result<TurnedRows> {
        let n_features = transform.n_features();
        let mut rows = Array2::zeros((groups.samples.len(), n_features));
        let mut sums: Array1<f64> = Array1::zeros(n_features);
        groups.for_each_part(view, transform, |first, part| {
            for row in part.rows() {
                sums.zip_mut_with(&row, |sum, value| *sum += f64::from(*value));
            }
            let places = first..first + part.nrows();
            rows.slice_mut(s![places, ..]).assign(&part);
        })?;
        // Rounded once, so that the same value is subtracted from every row and accounted for in the bias.
        let n = (rows.nrows() as f64).max(1.0);
        let mean = sums.mapv(|sum| (sum / n) as f32);
        rows.axis_chunks_iter_mut(Axis(0), TILE_ROWS)
            .into_par_iter()
            .for_each(|mut tile| tile -= &mean);
        let mut scatter = Array2::<f32>::zeros((n_features, n_features));
        for tile in rows.axis_chunks_iter(Axis(0), TILE_ROWS) {
            add_square(tile, &mut scatter);
        }
        mirror(&mut scatter);
        let (values, axes) = symmetric_eigen(&scatter.mapv(f64::from))?;
        // In f64: along axes with little scatter, large features cancel, and in f32 only rounding would be left.
        rows.axis_chunks_iter_mut(Axis(0), TILE_ROWS).into_par_iter().for_each(|mut tile| {
            let mut turned = Array2::zeros(tile.dim());
            multiply(tile.mapv(f64::from).view(), axes.view(), turned.view_mut());
            tile.zip_mut_with(&turned, |out, value| *out = *value as f32);
        });
        Ok(TurnedRows {
            rows,
            mean: mean.mapv(f64::from),
            variances: values.mapv(|value| value.max(0.0) / n),
            axes,
        })
    }

    /// Converts weights `[n_features, columns]` and biases along the axes to those of the original features.
    pub(crate) fn turn_back(
        &self,
        weights: ArrayView2<'_, f64>,
        bias: &Array1<f64>,
    ) -> (Array2<f64>, Array1<f64>) {
        let mut given = Array2::zeros(weights.dim());
        multiply(self.axes.view(), weights, given.view_mut());
        let shift = self.mean.dot(&given);
        (given, bias - &shift)
    }

    /// Converts a gradient along the axes to the original features and returns its largest entry. If that is larger
    /// than `enough`, the result may be any number between `enough` and the largest entry.
    ///
    /// `dL/dW = V dL/dW_turned + m dL/db`.
    pub(crate) fn gradient_norm(
        &self,
        weights: ArrayView2<'_, f64>,
        bias: &Array1<f64>,
        enough: f64,
    ) -> f64 {
        let of_bias = bias.iter().fold(0.0f64, |most, g| most.max(g.abs()));
        // A root mean square is no larger than the largest entry, and a rotation preserves it.
        let length =
            |values: &mut dyn Iterator<Item = &f64>| values.map(|g| g * g).sum::<f64>().sqrt();
        let shift = length(&mut self.mean.iter()) * length(&mut bias.iter());
        let rest = length(&mut weights.iter()) - shift;
        let least = of_bias.max(rest / (weights.len() as f64).sqrt());
        if least > enough {
            return least;
        }
        let mut given = Array2::zeros(weights.dim());
        multiply(self.axes.view(), weights, given.view_mut());
        for (mut row, mean) in given.rows_mut().into_iter().zip(&self.mean) {
            row.scaled_add(*mean, bias);
        }
        given.iter().fold(of_bias, |most, g| most.max(g.abs()))
    }
}

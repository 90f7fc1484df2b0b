//! Standardisation: scales every feature to mean 0 and variance 1, using the rows but not their labels.

use multiversion::multiversion;
use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, Axis};
use rayon::prelude::*;

use super::FeatureView;
use crate::error::Result;

/// Means and standard deviations of the features, as scikit-learn's `StandardScaler` computes them.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaler {
    /// Mean of each feature.
    pub mean: Array1<f32>,
    /// Population standard deviation of each feature. It is set to 1 for an almost constant feature (below 1e-6), as
    /// some dimensions of trained encoders are, because dividing by it would amplify rounding noise.
    pub deviation: Array1<f32>,
}

impl Scaler {
    /// Fits `mean_j = sum_i x_ij / n` and `deviation_j = sqrt(sum_i (x_ij - mean_j)^2 / n)` over the rows of `samples`.
    ///
    /// Computed in f64 and in one pass: the means and squared deviations of fixed tiles of samples are merged in order
    /// (Chan, Golub and LeVeque 1979), so the bits do not depend on the number of threads.
    ///
    /// # Errors
    /// Returns an error if a file of the cache does not match the manifest.
    pub fn fit(view: &FeatureView<'_>, samples: &[u32]) -> Result<Scaler> {
        let mut total = Moments::default();
        view.for_each_tile(samples, PASS_SAMPLES, |_, tile| {
            let rows = tile.rows.view();
            let tiles: Vec<Moments> = rows
                .axis_chunks_iter(Axis(0), TILE_ROWS)
                .into_par_iter()
                .map(Moments::of)
                .collect();
            for tile in &tiles {
                total.merge(tile);
            }
        })?;
        let width = view.n_features();
        if total.n == 0.0 {
            return Ok(Scaler::identity(width));
        }
        let deviation = total.squares.iter().map(|squares| {
            let deviation = (squares / total.n).sqrt();
            if deviation < ALMOST_CONSTANT { 1.0 } else { deviation as f32 }
        });
        Ok(Scaler {
            mean: total.mean.iter().map(|mean| *mean as f32).collect(),
            deviation: deviation.collect(),
        })
    }

    /// Returns the scaler that changes nothing.
    pub fn identity(n_features: usize) -> Scaler {
        Scaler { mean: Array1::zeros(n_features), deviation: Array1::ones(n_features) }
    }

    /// Computes `x = (x - mean) / deviation` in place, on all threads.
    pub fn apply(&self, mut rows: ArrayViewMut2<'_, f32>) {
        let of_rows = self.of_rows();
        rows.axis_chunks_iter_mut(Axis(0), 64).into_par_iter().for_each(|mut rows| {
            for mut row in rows.rows_mut() {
                let row = row.as_slice_mut();
                of_rows.apply(row.expect("a row of a standard array is contiguous"));
            }
        });
    }

    /// Returns a scaler that does the same as [`Scaler::apply`] one row at a time.
    pub fn of_rows(&self) -> RowScaler {
        RowScaler {
            mean: self.mean.to_vec(),
            inverse: self.deviation.iter().map(|d| 1.0 / d).collect(),
        }
    }

    /// Returns weights and biases that give the same result on raw rows as `weights [features, classes]` and `bias` do
    /// on scaled rows.
    ///
    /// `W'_jc = W_jc / deviation_j`, `b'_c = b_c - sum_j mean_j W'_jc`; sums in f64.
    pub fn fold(&self, weights: &Array2<f32>, bias: &Array1<f32>) -> (Array2<f32>, Array1<f32>) {
        let folded = weights / &self.deviation.view().insert_axis(Axis(1));
        let shift = folded.axis_iter(Axis(1)).map(|column| {
            column
                .iter()
                .zip(&self.mean)
                .map(|(weight, mean)| f64::from(*weight) * f64::from(*mean))
                .sum::<f64>()
        });
        let bias =
            bias.iter().zip(shift).map(|(bias, shift)| (f64::from(*bias) - shift) as f32).collect();
        (folded, bias)
    }
}

/// Scales one row at a time, multiplying by the inverse of the deviation.
#[derive(Clone, Debug)]
pub struct RowScaler {
    mean: Vec<f32>,
    inverse: Vec<f32>,
}

impl RowScaler {
    /// Computes `x = (x - mean) (1 / deviation)` in place.
    pub fn apply(&self, row: &mut [f32]) {
        scale(row, &self.mean, &self.inverse);
    }
}

#[multiversion(targets = "simd")]
fn scale(row: &mut [f32], mean: &[f32], inverse: &[f32]) {
    for ((value, mean), inverse) in row.iter_mut().zip(mean).zip(inverse) {
        *value = (*value - mean) * inverse;
    }
}

/// A deviation below this is considered rounding noise.
const ALMOST_CONSTANT: f64 = 1e-6;

/// The number of samples decoded at a time.
const PASS_SAMPLES: usize = 1024;

/// The number of rows whose moments are computed at a time.
const TILE_ROWS: usize = 512;

/// The number, means and sums of squared deviations of a set of rows.
#[derive(Default)]
struct Moments {
    n: f64,
    mean: Vec<f64>,
    squares: Vec<f64>,
}

impl Moments {
    fn of(rows: ArrayView2<'_, f32>) -> Moments {
        let n = rows.nrows() as f64;
        let mut mean = vec![0.0; rows.ncols()];
        for row in rows.rows() {
            for (sum, value) in mean.iter_mut().zip(row) {
                *sum += f64::from(*value);
            }
        }
        mean.iter_mut().for_each(|sum| *sum /= n);
        let mut squares = vec![0.0; rows.ncols()];
        for row in rows.rows() {
            for ((sum, value), mean) in squares.iter_mut().zip(row).zip(&mean) {
                *sum += (f64::from(*value) - mean).powi(2);
            }
        }
        Moments { n, mean, squares }
    }

    fn merge(&mut self, other: &Moments) {
        if self.n == 0.0 {
            self.mean = vec![0.0; other.mean.len()];
            self.squares = vec![0.0; other.mean.len()];
        }
        let n = self.n + other.n;
        let share = other.n / n;
        let both = self.mean.iter_mut().zip(&mut self.squares);
        for ((mean, squares), (other_mean, other_squares)) in
            both.zip(other.mean.iter().zip(&other.squares))
        {
            let difference = other_mean - *mean;
            *squares += other_squares + difference * difference * self.n * share;
            *mean += difference * share;
        }
        self.n = n;
    }
}

#[cfg(test)]
mod tests {
    use frostbert_cache::states::{Dtype, Pooling, StateId};
    use ndarray::array;

    use super::*;

    fn view(values: &[f32], n_features: usize) -> FeatureView<'static> {
        let mut bytes = Vec::new();
        Dtype::F32.encode(values, &mut bytes).unwrap();
        let state = StateId::pooled(Pooling::Mean, 1);
        FeatureView::from_bytes(state, n_features, Dtype::F32, bytes)
    }

    #[test]
    fn scaled_rows_have_mean_zero_and_variance_one_and_a_constant_stays() {
        let view = view(&[1.0, 5.0, 3.0, 5.0, 8.0, 5.0], 2);
        let scaler = Scaler::fit(&view, &[0, 1, 2]).unwrap();
        assert_eq!(scaler.mean, array![4.0, 5.0]);
        // numpy: np.std([1, 3, 8]) = 2.9439202887759492
        assert!((scaler.deviation[0] - 2.943_920_4).abs() < 1e-6);
        assert_eq!(scaler.deviation[1], 1.0);
        let mut rows = view.decode_all(&[0, 1, 2]);
        scaler.apply(rows.view_mut());
        assert!(rows.sum_axis(Axis(0)).iter().all(|sum| sum.abs() < 1e-6));
    }

    #[test]
    fn a_folded_head_gives_the_same_logits_on_raw_rows() {
        let view = view(&[1.0, 5.0, 3.0, 7.0, 8.0, 5.5], 2);
        let scaler = Scaler::fit(&view, &[0, 1, 2]).unwrap();
        let (weights, bias) = (array![[0.5f32, -1.0], [2.0, 0.25]], array![0.1f32, -0.2]);
        let raw = view.decode_all(&[0, 1, 2]);
        let mut scaled = raw.clone();
        scaler.apply(scaled.view_mut());
        let (folded, folded_bias) = scaler.fold(&weights, &bias);
        let difference = (scaled.dot(&weights) + &bias) - (raw.dot(&folded) + &folded_bias);
        assert!(difference.iter().all(|value| value.abs() < 1e-5), "{difference}");
    }
}

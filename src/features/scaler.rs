//! Standardisation: every feature to mean 0 and variance 1, from rows without their labels.

use ndarray::{Array1, Array2, ArrayViewMut2, Axis};
use rayon::prelude::*;

use super::FeatureView;

/// Means and standard deviations of the features, as scikit-learn's `StandardScaler` computes them.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaler {
    /// Mean of each feature.
    pub mean: Array1<f32>,
    /// Population standard deviation of each feature; 1 where a feature is all but constant (below 1e-6), as some
    /// dimensions of trained encoders are: dividing by it would blow up rounding noise.
    pub deviation: Array1<f32>,
}

impl Scaler {
    /// Fits `mean_j = sum_i x_ij / n` and `deviation_j = sqrt(sum_i (x_ij - mean_j)^2 / n)` in f64 over `samples`.
    ///
    /// Sums run over fixed tiles of rows that are added up in their order, so the bits depend on no thread count.
    pub fn fit(view: &FeatureView, samples: &[u32]) -> Scaler {
        let n = samples.len().max(1) as f64;
        let mean = sum_rows(view, samples, |sum, row| {
            for (sum, value) in sum.iter_mut().zip(row) {
                *sum += f64::from(*value);
            }
        }) / n;
        let variance = sum_rows(view, samples, |sum, row| {
            for ((sum, value), mean) in sum.iter_mut().zip(row).zip(&mean) {
                *sum += (f64::from(*value) - mean).powi(2);
            }
        }) / n;
        let deviation = variance.mapv(|variance| {
            if variance.sqrt() < ALMOST_CONSTANT {
                1.0
            } else {
                variance.sqrt() as f32
            }
        });
        Scaler {
            mean: mean.mapv(|mean| mean as f32),
            deviation,
        }
    }

    /// The scaler that changes nothing.
    pub fn identity(n_features: usize) -> Scaler {
        Scaler {
            mean: Array1::zeros(n_features),
            deviation: Array1::ones(n_features),
        }
    }

    /// `x = (x - mean) / deviation`, in place, on all threads.
    pub fn apply(&self, mut rows: ArrayViewMut2<'_, f32>) {
        rows.axis_iter_mut(Axis(0))
            .into_par_iter()
            .for_each(|mut row| {
                for ((value, mean), deviation) in
                    row.iter_mut().zip(&self.mean).zip(&self.deviation)
                {
                    *value = (*value - mean) / deviation;
                }
            });
    }

    /// Weights and biases that give on raw rows what `weights [features, classes]` and `bias` give on scaled ones.
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
        let bias = bias
            .iter()
            .zip(shift)
            .map(|(bias, shift)| (f64::from(*bias) - shift) as f32)
            .collect();
        (folded, bias)
    }
}

/// A deviation below this is rounding noise.
const ALMOST_CONSTANT: f64 = 1e-6;

/// Rows that one sum runs over before it is added to the others.
const TILE: usize = 512;

fn sum_rows(
    view: &FeatureView,
    samples: &[u32],
    add: impl Fn(&mut Array1<f64>, &[f32]) + Sync,
) -> Array1<f64> {
    let tiles: Vec<Array1<f64>> = samples
        .par_chunks(TILE)
        .map(|tile| {
            let mut sum = Array1::zeros(view.n_features());
            for row in view.decode(tile).rows() {
                add(
                    &mut sum,
                    row.as_slice().expect("a decoded row is contiguous"),
                );
            }
            sum
        })
        .collect();
    tiles
        .into_iter()
        .fold(Array1::zeros(view.n_features()), |total, tile| total + tile)
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;
    use crate::states::{Dtype, Pooling, StateId};

    fn view(values: &[f32], n_features: usize) -> FeatureView {
        let mut bytes = Vec::new();
        Dtype::F32.encode(values, &mut bytes).unwrap();
        let state = StateId::pooled(Pooling::Mean, 1);
        FeatureView::from_bytes(state, n_features, Dtype::F32, bytes)
    }

    #[test]
    fn scaled_rows_have_mean_zero_and_variance_one_and_a_constant_stays() {
        let view = view(&[1.0, 5.0, 3.0, 5.0, 8.0, 5.0], 2);
        let scaler = Scaler::fit(&view, &[0, 1, 2]);
        assert_eq!(scaler.mean, array![4.0, 5.0]);
        // numpy: np.std([1, 3, 8]) = 2.9439202887759492
        assert!((scaler.deviation[0] - 2.943_920_4).abs() < 1e-6);
        assert_eq!(scaler.deviation[1], 1.0);
        let mut rows = view.decode(&[0, 1, 2]);
        scaler.apply(rows.view_mut());
        assert!(rows.sum_axis(Axis(0)).iter().all(|sum| sum.abs() < 1e-6));
    }

    #[test]
    fn a_folded_head_gives_the_same_logits_on_raw_rows() {
        let view = view(&[1.0, 5.0, 3.0, 7.0, 8.0, 5.5], 2);
        let scaler = Scaler::fit(&view, &[0, 1, 2]);
        let (weights, bias) = (array![[0.5f32, -1.0], [2.0, 0.25]], array![0.1f32, -0.2]);
        let raw = view.decode(&[0, 1, 2]);
        let mut scaled = raw.clone();
        scaler.apply(scaled.view_mut());
        let (folded, folded_bias) = scaler.fold(&weights, &bias);
        let difference = (scaled.dot(&weights) + &bias) - (raw.dot(&folded) + &folded_bias);
        assert!(
            difference.iter().all(|value| value.abs() < 1e-5),
            "{difference}"
        );
    }
}

//! A weighted mean of the encoder's layers: ELMo's scalar mix (Peters et al. 2018) without its overall factor.

use ndarray::ArrayView2;

use super::attention::softmax;
use crate::train::{
    real::Real,
    vector::{add_scaled, dot},
};

/// `y = sum_l softmax(s)_l x_l`, where a row of `rows` holds the `L` blocks `x_l` one after the other.
///
/// Writes `softmax(s)` to `shares [L]`; `y` is `[rows, n_features]`.
///
/// # Panics
/// Panics if lengths do not fit, or rows are not contiguous.
pub(crate) fn forward<F: Real>(
    scores: &[F],
    rows: ArrayView2<'_, F>,
    shares: &mut [F],
    y: &mut [F],
) {
    shares.copy_from_slice(scores);
    softmax(shares);
    let n_features = rows.ncols() / scores.len();
    for (row, y) in rows.rows().into_iter().zip(y.chunks_exact_mut(n_features)) {
        y.fill(F::zero());
        let row = row.to_slice().expect("contiguous rows");
        for (block, share) in row.chunks_exact(n_features).zip(&*shares) {
            add_scaled(y, *share, block);
        }
    }
}

/// Adds the gradient of the scores: with `g_l = sum over rows of x_l . dL/dy`, it is
/// `dL/ds_l = a_l (g_l - sum_k a_k g_k)` for shares `a`.
///
/// `sums [L]` is scratch space for the `g_l`.
///
/// # Panics
/// Panics if [`forward`] would.
pub(crate) fn backward<F: Real>(
    shares: &[F],
    rows: ArrayView2<'_, F>,
    d_y: &[F],
    sums: &mut [F],
    d_scores: &mut [F],
) {
    let n_features = rows.ncols() / shares.len();
    sums.fill(F::zero());
    for (row, d_y) in rows.rows().into_iter().zip(d_y.chunks_exact(n_features)) {
        let row = row.to_slice().expect("contiguous rows");
        for (block, sum) in row.chunks_exact(n_features).zip(&mut *sums) {
            *sum += dot(block, d_y);
        }
    }
    let mean = dot(shares, sums);
    for ((d_score, share), sum) in d_scores.iter_mut().zip(shares).zip(sums) {
        *d_score += *share * (*sum - mean);
    }
}

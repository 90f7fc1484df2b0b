//! Attention pooling: a learned query determines the weight of each row of a sample (Yang et al. 2016, without their
//! hidden layer).

use ndarray::{ArrayView2, Axis};

use crate::train::{
    real::Real,
    vector::{add_scaled, dot},
};

/// Rows of samples of different lengths.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Samples<'a, F> {
    /// `[rows, n_features]`, sample after sample.
    pub rows: ArrayView2<'a, F>,
    /// Sample `i` holds the rows `starts[i]..starts[i + 1]`, so there is one entry more than there are samples.
    pub starts: &'a [usize],
}

/// `y = sum_t a_t x_t` for every sample, with `a = softmax(x q)` over the sample's own rows.
///
/// Writes the `a_t`, one per row, to `shares`; `y` is `[samples, n_features]`. A sample without rows gives zeros.
///
/// # Panics
/// Panics if lengths do not fit, or rows are not contiguous.
pub(crate) fn forward<F: Real>(
    query: &[F],
    samples: Samples<'_, F>,
    shares: &mut [F],
    y: &mut [F],
) {
    for (sample, y) in samples.starts.windows(2).zip(y.chunks_exact_mut(query.len())) {
        let range = sample[0]..sample[1];
        for row in range.clone() {
            shares[row] = dot(query, slice(samples.rows, row));
        }
        softmax(&mut shares[range.clone()]);
        y.fill(F::zero());
        for row in range {
            add_scaled(y, shares[row], slice(samples.rows, row));
        }
    }
}

/// Adds the gradient of the query: with `g_t = x_t . dL/dy`, the gradient of the scores is
/// `dL/ds_t = a_t (g_t - sum_u a_u g_u)` and that of the query `sum_t dL/ds_t x_t`.
///
/// If `d_rows` is not empty, writes `dL/dx_t = a_t dL/dy + dL/ds_t q` to it. `d_scores` is scratch space for one number
/// per row.
///
/// # Panics
/// Panics if [`forward`] would.
pub(crate) fn backward<F: Real>(
    query: &[F],
    samples: Samples<'_, F>,
    shares: &[F],
    d_y: &[F],
    d_scores: &mut [F],
    d_query: &mut [F],
    d_rows: &mut [F],
) {
    let width = query.len();
    for (sample, d_y) in samples.starts.windows(2).zip(d_y.chunks_exact(width)) {
        let range = sample[0]..sample[1];
        for row in range.clone() {
            d_scores[row] = dot(slice(samples.rows, row), d_y);
        }
        let mean = dot(&shares[range.clone()], &d_scores[range.clone()]);
        for row in range {
            d_scores[row] = shares[row] * (d_scores[row] - mean);
            add_scaled(d_query, d_scores[row], slice(samples.rows, row));
            if !d_rows.is_empty() {
                let d_row = &mut d_rows[row * width..(row + 1) * width];
                d_row.fill(F::zero());
                add_scaled(d_row, shares[row], d_y);
                add_scaled(d_row, d_scores[row], query);
            }
        }
    }
}

/// Turns scores into shares that sum to 1; an empty slice stays empty.
///
/// ```
/// use frostbert::internals::head::layers::attention::softmax;
/// let mut scores = [1e9, 1e9];
/// softmax(&mut scores);
/// assert_eq!(scores, [0.5, 0.5]);
/// ```
pub fn softmax<F: Real>(scores: &mut [F]) {
    let maximum = scores.iter().fold(F::neg_infinity(), |max, score| max.max(*score));
    let mut total = F::zero();
    for score in &mut *scores {
        *score = (*score - maximum).fast_exp();
        total += *score;
    }
    for score in scores {
        *score /= total;
    }
}

fn slice<'a, F>(rows: ArrayView2<'a, F>, row: usize) -> &'a [F] {
    rows.index_axis_move(Axis(0), row).to_slice().expect("contiguous rows")
}

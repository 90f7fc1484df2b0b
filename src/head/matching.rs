//! Features that show the question to a linear head: how the rows of a window match the question's tokens.
//!
//! A linear span head that sees only context states cannot know what is asked. These features are products and
//! similarities of context and question, modelled on the aligned question embedding of Chen et al., "Reading Wikipedia
//! to Answer Open-Domain Questions", 2017.

use std::ops::Range;

use ndarray::{Array2, ArrayView1, ArrayView2, ArrayViewMut1, ArrayViewMut2, Axis, s};

use crate::train::{
    gemm::{multiply, multiply_add},
    real::Real,
};

/// Similarities are multiplied by this before the softmax that aligns the question.
pub(crate) const SHARPNESS: f32 = 15.0;

/// Numbers of rows, centred on the row itself, over which the best similarity is averaged.
pub(crate) const MEAN_ROWS: [usize; 3] = [3, 9, 21];

/// Number of rows, centred on the row itself, over which the maximum of the best similarity is taken.
pub(crate) const MAX_ROWS: usize = 11;

/// Number of features in a row: `3 hidden + 5` for each layer.
///
/// ```
/// assert_eq!(frostbert::internals::head::matching::width(384, 1), 3 * 384 + 5);
/// ```
pub fn width(hidden: usize, n_layers: usize) -> usize {
    n_layers * (3 * hidden + 2 + MEAN_ROWS.len())
}

/// Writes the features of one window's rows, `context [n, H]`, given the question's tokens, `question [m, H]`, to
/// `out [n, 3 H + 5]`.
///
/// Row 0 of the context is `[CLS]` and the others are its tokens in order; the question contains no special tokens. For
/// a row `h` and question tokens `q_j`:
///
/// ```text
/// s_j = cos(h, q_j)                        0 where either is zero
/// a   = sum_j softmax(15 s)_j q_j
/// m   = max_j s_j
/// out = [h, h * a, h * mean_j q_j, m, mean of m over 3, over 9, over 21 rows, max of m over 11 rows]
/// ```
///
/// with element-wise products. A mean or maximum is taken over the context tokens around `h`, fewer at the ends; row 0
/// has its own `m` in all five places. If there are no question tokens, everything but `h` is 0.
///
/// With states of several layers, a row consists of `n_layers` blocks of `H` values, or of `3 H + 5` in `out`, and each
/// block is computed independently.
///
/// ```
/// use frostbert::internals::head::matching::features;
/// use ndarray::{Array2, array};
/// let context = array![[0.0, 2.0], [3.0, 0.0], [0.0, 0.0]];
/// let mut out = Array2::zeros((3, 11));
/// features(context.view(), array![[1.0, 0.0]].view(), 1, out.view_mut());
/// // One question token is the aligned question, and the mean, of every row.
/// assert_eq!(out.row(0).to_vec(), [0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
/// assert_eq!(out.row(1).to_vec(), [3.0, 0.0, 3.0, 0.0, 3.0, 0.0, 1.0, 0.5, 0.5, 0.5, 1.0]);
/// assert_eq!(out.row(2).to_vec(), [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 0.5, 0.5, 1.0]);
/// ```
///
/// # Panics
/// Panics if shapes do not match.
pub fn features<F: Real>(
    context: ArrayView2<'_, F>,
    question: ArrayView2<'_, F>,
    n_layers: usize,
    mut out: ArrayViewMut2<'_, F>,
) {
    assert_eq!(context.ncols(), question.ncols(), "values per token");
    assert!(
        n_layers > 0 && context.ncols().is_multiple_of(n_layers),
        "{n_layers} layers of equal width"
    );
    let hidden = context.ncols() / n_layers;
    let out_shape = (context.nrows(), width(hidden, n_layers));
    assert_eq!(out.dim(), out_shape, "shape of the features");
    for layer in 0..n_layers {
        let states = s![.., layer * hidden..(layer + 1) * hidden];
        let own = s![.., layer * width(hidden, 1)..(layer + 1) * width(hidden, 1)];
        layer_features(context.slice(states), question.slice(states), out.slice_mut(own));
    }
}

fn layer_features<F: Real>(
    context: ArrayView2<'_, F>,
    question: ArrayView2<'_, F>,
    mut out: ArrayViewMut2<'_, F>,
) {
    let (n_rows, hidden) = context.dim();
    out.slice_mut(s![.., ..hidden]).assign(&context);
    if question.is_empty() {
        out.slice_mut(s![.., hidden..]).fill(F::zero());
        return;
    }
    let mean = question.sum_axis(Axis(0)) / F::of(question.nrows() as f64);
    let mut weights = Array2::zeros((n_rows, question.nrows()));
    multiply(context, question.t(), weights.view_mut());
    let inverse_lengths: Vec<F> = question.rows().into_iter().map(inverse_length).collect();
    let mut best = Vec::with_capacity(n_rows);
    for (state, weights) in context.rows().into_iter().zip(weights.rows_mut()) {
        best.push(align(weights, inverse_length(state), &inverse_lengths));
    }
    multiply(weights.view(), question, out.slice_mut(s![.., hidden..2 * hidden]));
    let mut aligned = out.slice_mut(s![.., hidden..2 * hidden]);
    aligned *= &context;
    let mut of_mean = out.slice_mut(s![.., 2 * hidden..3 * hidden]);
    of_mean.assign(&context);
    of_mean *= &mean;
    for (row, mut out) in out.rows_mut().into_iter().enumerate() {
        write_similarities(&best, row, out.slice_mut(s![3 * hidden..]));
    }
}

/// 1 / Euclidean length; 0 for a zero vector, so that its cosines are 0.
fn inverse_length<F: Real>(vector: ArrayView1<'_, F>) -> F {
    let length = vector.dot(&vector).sqrt();
    if length == F::zero() { F::zero() } else { F::one() / length }
}

/// Replaces a row's dot products by the softmax of its scaled cosines; returns the highest cosine.
fn align<F: Real>(mut products: ArrayViewMut1<'_, F>, inverse_length: F, of_question: &[F]) -> F {
    let mut best = F::neg_infinity();
    for (product, inverse) in products.iter_mut().zip(of_question) {
        *product *= inverse_length * *inverse;
        best = best.max(*product);
    }
    let sharpness = F::of(f64::from(SHARPNESS));
    products.mapv_inplace(|cosine| (sharpness * (cosine - best)).exp());
    let total = products.sum();
    products /= total;
    best
}

/// Writes the five similarity features of a row: its best similarity and those of its neighbours.
fn write_similarities<F: Real>(best: &[F], row: usize, mut out: ArrayViewMut1<'_, F>) {
    if row == 0 {
        out.fill(best[0]);
        return;
    }
    out[0] = best[row];
    for (out, n_rows) in out.iter_mut().skip(1).zip(MEAN_ROWS) {
        let near = &best[rows_near(row, n_rows, best.len())];
        // As `Iterator::sum` begins.
        let sum = near.iter().fold(F::neg_zero(), |sum, value| sum + *value);
        *out = sum / F::of(near.len() as f64);
    }
    let near = &best[rows_near(row, MAX_ROWS, best.len())];
    out[1 + MEAN_ROWS.len()] = near.iter().fold(best[row], |most, value| most.max(*value));
}

/// The context tokens around one of them, with itself.
fn rows_near(row: usize, n_near: usize, n_rows: usize) -> Range<usize> {
    let reach = n_near / 2;
    row.saturating_sub(reach).max(1)..(row + reach + 1).min(n_rows)
}

/// Adds `dL/dcontext` and `dL/dquestion`, given `dL/dout` of [`features`] of one layer; but for that of `h` itself, the
/// first of the features, which is as it is.
///
/// Of equal best similarities, the first one counts.
///
/// # Panics
/// Panics if shapes do not match.
pub(crate) fn add_gradient<F: Real>(
    [context, question]: [ArrayView2<'_, F>; 2],
    d_out: ArrayView2<'_, F>,
    [mut d_context, mut d_question]: [ArrayViewMut2<'_, F>; 2],
) {
    let ((n_rows, hidden), n_question) = (context.dim(), question.nrows());
    if n_question == 0 {
        return;
    }
    let count = F::of(n_question as f64);
    let of_context: Vec<F> = context.rows().into_iter().map(inverse_length).collect();
    let of_question: Vec<F> = question.rows().into_iter().map(inverse_length).collect();
    let mut cosines = Array2::zeros((n_rows, n_question));
    multiply(context, question.t(), cosines.view_mut());
    let mut shares = cosines.clone();
    let mut best = Vec::with_capacity(n_rows);
    for (row, of_row) in shares.rows_mut().into_iter().zip(&of_context) {
        best.push(align(row, *of_row, &of_question));
    }
    let scale = |(row, column): (usize, usize)| of_context[row] * of_question[column];
    for (place, product) in cosines.indexed_iter_mut() {
        *product *= scale(place);
    }
    let mut aligned = Array2::zeros((n_rows, hidden));
    multiply(shares.view(), question, aligned.view_mut());

    // h * a and h * mean
    let d_products = d_out.slice(s![.., hidden..2 * hidden]);
    let d_of_mean = d_out.slice(s![.., 2 * hidden..3 * hidden]);
    d_context += &(&d_products * &aligned);
    d_context += &(&d_of_mean * &(question.sum_axis(Axis(0)) / count));
    d_question += &((&d_of_mean * &context).sum_axis(Axis(0)) / count);
    let d_aligned = &d_products * &context;
    multiply_add(shares.t(), d_aligned.view(), d_question.view_mut());

    // The cosines, through the softmax and as the best of a row.
    let mut d_cosines = Array2::zeros((n_rows, n_question));
    multiply(d_aligned.view(), question.t(), d_cosines.view_mut());
    let d_best = gradient_of_best(&best, d_out.slice(s![.., 3 * hidden..]));
    let sharpness = F::of(f64::from(SHARPNESS));
    for (row, mut d_row) in d_cosines.rows_mut().into_iter().enumerate() {
        let mean = shares.row(row).dot(&d_row);
        for (d_cosine, share) in d_row.iter_mut().zip(shares.row(row)) {
            *d_cosine = sharpness * *share * (*d_cosine - mean);
        }
        let place = cosines.row(row).iter().position(|cosine| *cosine == best[row]);
        // None is equal if they are not numbers.
        if let Some(place) = place {
            d_row[place] += d_best[row];
        }
    }
    // cos = h q / (|h| |q|): along the other vector, less what changes the own length.
    let along = &d_cosines * &cosines;
    for (row, of_row) in of_context.iter().enumerate() {
        let own = -along.row(row).sum() * *of_row * *of_row;
        d_context.row_mut(row).scaled_add(own, &context.row(row));
    }
    for (column, of_column) in of_question.iter().enumerate() {
        let own = -along.column(column).sum() * *of_column * *of_column;
        d_question.row_mut(column).scaled_add(own, &question.row(column));
    }
    for (place, d_cosine) in d_cosines.indexed_iter_mut() {
        *d_cosine *= scale(place);
    }
    multiply_add(d_cosines.view(), question, d_context);
    multiply_add(d_cosines.t(), context, d_question);
}

/// `dL/d` of each row's best similarity, given that of the features that [`write_similarities`] makes of them.
fn gradient_of_best<F: Real>(best: &[F], d_out: ArrayView2<'_, F>) -> Vec<F> {
    let n_rows = best.len();
    let mut gradient = vec![F::zero(); n_rows];
    for (row, d_out) in d_out.rows().into_iter().enumerate() {
        if row == 0 {
            gradient[0] += d_out.sum();
            continue;
        }
        gradient[row] += d_out[0];
        for (d_mean, n_near) in d_out.iter().skip(1).zip(MEAN_ROWS) {
            let near = rows_near(row, n_near, n_rows);
            let share = *d_mean / F::of(near.len() as f64);
            gradient[near].iter_mut().for_each(|value| *value += share);
        }
        let largest = rows_near(row, MAX_ROWS, n_rows)
            .fold(row, |largest, other| if best[other] > best[largest] { other } else { largest });
        gradient[largest] += d_out[1 + MEAN_ROWS.len()];
    }
    gradient
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    /// Features by numpy in f64, straight from the definition (scripts/fixtures/matching.py).
    const NUMPY: &str = include_str!("../../tests/fixtures/matching.json");

    #[derive(Deserialize)]
    struct Fixture {
        hidden: usize,
        cases: BTreeMap<String, Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        layers: usize,
        context: Vec<Vec<f64>>,
        question: Vec<Vec<f64>>,
        features: Vec<Vec<f64>>,
    }

    fn matrix(rows: &[Vec<f64>], n_columns: usize) -> Array2<f32> {
        Array2::from_shape_fn((rows.len(), n_columns), |(i, j)| rows[i][j] as f32)
    }

    #[test]
    fn features_are_numpys() {
        let fixture: Fixture = serde_json::from_str(NUMPY).unwrap();
        assert_eq!(fixture.cases.len(), 6);
        for (name, case) in fixture.cases {
            let values = case.layers * fixture.hidden;
            let context = matrix(&case.context, values);
            let question = matrix(&case.question, values);
            let width = width(fixture.hidden, case.layers);
            let mut out = Array2::from_elem((context.nrows(), width), f32::NAN);
            features(context.view(), question.view(), case.layers, out.view_mut());
            for ((row, column), value) in out.indexed_iter() {
                let difference = (f64::from(*value) - case.features[row][column]).abs();
                assert!(
                    difference < 1e-5,
                    "{name}, row {row}, column {column}: {value} is not {}",
                    case.features[row][column]
                );
            }
            assert_eq!(case.features[0].len(), width, "{name}");
        }
    }

    #[test]
    fn gradients_are_slopes_of_the_features_where_neighbourhoods_are_cut_and_where_not() {
        // In a window of 1 and 29 tokens, the middle ones have 9, 11 and 21 rows around them, and the others fewer.
        let (n_rows, n_question, hidden) = (30, 4, 5);
        let numbers = |n: usize, factor: f64| {
            Array2::from_shape_fn((n, hidden), |(i, j)| {
                ((i * hidden + j + 1) as f64 * factor).sin()
            })
        };
        let (context, question) = (numbers(n_rows, 0.9), numbers(n_question, 2.3));
        let weights = Array2::from_shape_fn((n_rows, width(hidden, 1)), |(i, j)| {
            ((i * 31 + j * 7) as f64 * 1.7).sin()
        });
        let loss = |context: &Array2<f64>, question: &Array2<f64>| {
            let mut out = Array2::zeros(weights.dim());
            features(context.view(), question.view(), 1, out.view_mut());
            (&out * &weights).sum()
        };
        // The first features are the row itself.
        let mut d_context = weights.slice(s![.., ..hidden]).to_owned();
        let mut d_question = Array2::zeros(question.dim());
        add_gradient(
            [context.view(), question.view()],
            weights.view(),
            [d_context.view_mut(), d_question.view_mut()],
        );
        let step = 1e-6;
        for (matrix, gradients) in [d_context, d_question].iter().enumerate() {
            for (place, gradient) in gradients.indexed_iter() {
                let [above, below] = [step, -step].map(|step| {
                    let mut moved = [context.clone(), question.clone()];
                    moved[matrix][place] += step;
                    loss(&moved[0], &moved[1])
                });
                let slope = (above - below) / (2.0 * step);
                assert!(
                    (gradient - slope).abs() < 1e-6,
                    "{place:?}: {gradient} instead of {slope}"
                );
            }
        }
    }

    #[test]
    fn states_within_a_larger_matrix_give_the_same_features() {
        let whole = Array2::from_shape_fn((9, 10), |(i, j)| ((i * 7 + j * 3) % 11) as f32 - 5.0);
        let (context, question) = (whole.slice(s![..6, 2..8]), whole.slice(s![6.., 2..8]));
        let mut strided = Array2::zeros((6, 30));
        features(context, question, 2, strided.slice_mut(s![.., 1..29]));
        let mut plain = Array2::zeros((6, 28));
        features(context.to_owned().view(), question.to_owned().view(), 2, plain.view_mut());
        let difference = &strided.slice(s![.., 1..29]) - &plain;
        assert!(difference.iter().all(|difference| difference.abs() < 1e-6));
        assert_eq!(strided.column(0).sum() + strided.column(29).sum(), 0.0);
    }
}

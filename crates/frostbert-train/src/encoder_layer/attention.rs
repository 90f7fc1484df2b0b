//! Self-attention of texts of different lengths, each over its own rows.

use ndarray::s;

use super::{
    DropoutPlace, LayerInput, LayerShape, LayerTrace,
    linear::{matrix, matrix_mut},
    room, rows,
};
use crate::{gemm::multiply, real::Real};

/// `context = dropout(softmax(q k^T / sqrt(width) + bias)) v` of every text and head. Shares are kept for the backward
/// pass, as they are before dropout.
pub(super) fn forward<F: Real>(
    shape: &LayerShape,
    input: &LayerInput<'_, F>,
    projected: &[F],
    all_shares: &mut Vec<F>,
    dropped: &mut Vec<F>,
    context: &mut [F],
) {
    let (hidden, n_heads) = (shape.hidden, shape.attention_heads);
    let width = hidden / n_heads;
    let scale: F = scale(width);
    let projected = matrix(projected, 3 * hidden);
    let mut context = matrix_mut(context, hidden);
    let n_shares: usize =
        input.starts.windows(2).map(|text| n_heads * (text[1] - text[0]).pow(2)).sum();
    let mut rest = room(all_shares, n_shares);
    for text in input.starts.windows(2) {
        let (first, end) = (text[0], text[1]);
        let n = end - first;
        if n == 0 {
            continue;
        }
        for head in 0..n_heads {
            let part = |number: usize| {
                let column = number * hidden + head * width;
                projected.slice(s![first..end, column..column + width])
            };
            let (shares, others) = std::mem::take(&mut rest).split_at_mut(n * n);
            rest = others;
            multiply(part(0), part(1).t(), matrix_mut(shares, n));
            for (query, scores) in shares.chunks_exact_mut(n).enumerate() {
                for score in &mut *scores {
                    *score *= scale;
                }
                if let Some(bias) = &input.distance_bias {
                    for (key, score) in scores.iter_mut().enumerate() {
                        *score += bias.of(n_heads, head, query, key);
                    }
                }
                rows::softmax(scores);
            }
            let used = after_dropout(input, head, first, n, shares, dropped);
            let column = head * width;
            let own = context.slice_mut(s![first..end, column..column + width]);
            multiply(matrix(used, n), part(2), own);
        }
    }
}

/// Writes `dL/dprojected` of query, key and value, given `dL/dcontext`.
pub(super) fn backward<F: Real>(
    shape: &LayerShape,
    input: &LayerInput<'_, F>,
    trace: &LayerTrace<F>,
    d_context: &[F],
    [d_scores, dropped]: [&mut Vec<F>; 2],
    d_projected: &mut [F],
) {
    let (hidden, n_heads) = (shape.hidden, shape.attention_heads);
    let width = hidden / n_heads;
    let scale: F = scale(width);
    let projected = matrix(&trace.projected, 3 * hidden);
    let d_context = matrix(d_context, hidden);
    let mut d_projected = matrix_mut(d_projected, 3 * hidden);
    let mut start = 0;
    for text in input.starts.windows(2) {
        let (first, end) = (text[0], text[1]);
        let n = end - first;
        if n == 0 {
            continue;
        }
        for head in 0..n_heads {
            let columns = |number: usize| {
                let column = number * hidden + head * width;
                s![first..end, column..column + width]
            };
            let shares = &trace.shares[start..start + n * n];
            start += n * n;
            let d_own = d_context.slice(columns(0));
            let used = after_dropout(input, head, first, n, shares, dropped);
            multiply(matrix(used, n).t(), d_own, d_projected.slice_mut(columns(2)));
            let d_scores = room(d_scores, n * n);
            multiply(d_own, projected.slice(columns(2)).t(), matrix_mut(d_scores, n));
            for (query, d_scores) in d_scores.chunks_exact_mut(n).enumerate() {
                if let Some(dropout) = &input.dropout {
                    dropout.drop_row(DropoutPlace::Shares { head }, first + query, d_scores);
                }
                rows::softmax_backward(&shares[query * n..(query + 1) * n], scale, d_scores);
            }
            let d_scores = matrix(d_scores, n);
            multiply(d_scores, projected.slice(columns(1)), d_projected.slice_mut(columns(0)));
            multiply(d_scores.t(), projected.slice(columns(0)), d_projected.slice_mut(columns(1)));
        }
    }
}

fn scale<F: Real>(width: usize) -> F {
    F::of(1.0 / (width as f64).sqrt())
}

/// The shares of a text and a head, some of them dropped in training.
fn after_dropout<'a, F: Real>(
    input: &LayerInput<'_, F>,
    head: usize,
    first: usize,
    n: usize,
    shares: &'a [F],
    dropped: &'a mut Vec<F>,
) -> &'a [F] {
    let Some(dropout) = input.dropout.as_ref().filter(|dropout| dropout.attention > 0.0) else {
        return shares;
    };
    let own = room(dropped, n * n);
    own.copy_from_slice(shares);
    for (query, shares) in own.chunks_exact_mut(n).enumerate() {
        dropout.drop_row(DropoutPlace::Shares { head }, first + query, shares);
    }
    own
}

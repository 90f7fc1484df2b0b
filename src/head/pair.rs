//! Features of a pair of texts that were encoded separately.

use ndarray::{ArrayView1, ArrayViewMut1};

/// Number of features in a row for states of `n_values`, all layers together: 4 for each value.
///
/// ```
/// assert_eq!(frostbert::internals::head::pair::width(384), 1536);
/// ```
pub fn width(n_values: usize) -> usize {
    4 * n_values
}

/// Writes `[u, v, |u - v|, u * v]`, element-wise, of two states `u [H]` and `v [H]` to `out [4 H]`.
///
/// With states of several layers, `u` and `v` consist of `n_layers` blocks of `H` values each, and `out` of the same
/// number of blocks of `4 H`. Conneau et al., "Supervised Learning of Universal Sentence Representations", 2017
/// (InferSent).
///
/// ```
/// use frostbert::internals::head::pair::features;
/// use ndarray::{Array1, array};
/// let (u, v) = (array![1.0, -2.0], array![3.0, 0.5]);
/// let mut out = Array1::zeros(8);
/// features(u.view(), v.view(), 1, out.view_mut());
/// assert_eq!(out, array![1.0, -2.0, 3.0, 0.5, 2.0, 2.5, 3.0, -1.0]);
/// features(u.view(), v.view(), 2, out.view_mut());
/// assert_eq!(out, array![1.0, 3.0, 2.0, 3.0, -2.0, 0.5, 2.5, -1.0]);
/// ```
///
/// # Panics
/// Panics if shapes do not match.
pub fn features(
    u: ArrayView1<'_, f32>,
    v: ArrayView1<'_, f32>,
    n_layers: usize,
    mut out: ArrayViewMut1<'_, f32>,
) {
    assert_eq!(u.len(), v.len(), "values per state");
    assert_eq!(out.len(), width(u.len()), "length of the features");
    assert!(n_layers > 0 && u.len().is_multiple_of(n_layers), "{n_layers} layers of equal width");
    let hidden = u.len() / n_layers;
    for (index, (u, v)) in u.iter().zip(v).enumerate() {
        let (layer, unit) = (index / hidden, index % hidden);
        let first = layer * 4 * hidden + unit;
        for (part, value) in [*u, *v, (u - v).abs(), u * v].into_iter().enumerate() {
            out[first + part * hidden] = value;
        }
    }
}

//! Features of a pair of texts that were encoded separately.

use ndarray::{ArrayView1, ArrayViewMut1};

use crate::train::real::Real;

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

/// Writes `[u, v, |u - v|, u * v]` of two states, like [`features`] of one layer.
pub(crate) fn forward<F: Real>(u: &[F], v: &[F], out: &mut [F]) {
    let hidden = u.len();
    for (unit, (u, v)) in u.iter().zip(v).enumerate() {
        for (part, value) in [*u, *v, (*u - *v).abs(), *u * *v].into_iter().enumerate() {
            out[part * hidden + unit] = value;
        }
    }
}

/// Writes `dL/du` and `dL/dv` of [`forward`], given `dL/dout`. Where `u = v`, the distance has no slope.
pub(crate) fn backward<F: Real>(u: &[F], v: &[F], d_out: &[F], d_u: &mut [F], d_v: &mut [F]) {
    let hidden = u.len();
    for unit in 0..hidden {
        let [of_u, of_v, of_distance, of_product] =
            [0, 1, 2, 3].map(|part| d_out[part * hidden + unit]);
        let (u, v) = (u[unit], v[unit]);
        let slope = if u > v {
            of_distance
        } else if u < v {
            -of_distance
        } else {
            F::zero()
        };
        d_u[unit] = of_u + slope + of_product * v;
        d_v[unit] = of_v - slope + of_product * u;
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, aview1};

    use super::*;

    #[test]
    fn slices_give_the_features_of_arrays_and_their_slopes() {
        let (u, v) = ([1.0f32, -2.0, 0.5], [3.0f32, 0.5, 0.5]);
        let mut expected = Array1::zeros(12);
        features(aview1(&u), aview1(&v), 1, expected.view_mut());
        let mut out = [0.0; 12];
        forward(&u, &v, &mut out);
        assert_eq!(out[..], expected.to_vec());
        let d_out: Vec<f32> = (1..=12).map(|number| number as f32).collect();
        let (mut d_u, mut d_v) = ([0.0; 3], [0.0; 3]);
        backward(&u, &v, &d_out, &mut d_u, &mut d_v);
        // 1 - 7 + 10 x 3, 2 - 8 + 11 x 0.5, 3 + 12 x 0.5; 4 + 7 + 10 x 1, 5 + 8 - 11 x 2, 6 + 12 x 0.5.
        assert_eq!((d_u, d_v), ([24.0, -0.5, 9.0], [21.0, -9.0, 12.0]));
    }
}

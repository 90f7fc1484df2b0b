//! One shape-checked wrapper around the `gemm` crate: the only general matrix product in this program.

use gemm::Parallelism;
use ndarray::{ArrayView2, ArrayViewMut2};

use crate::real::Real;

/// `out = left right`, with `left [m, k]`, `right [k, n]`, `out [m, n]`, of any strides.
///
/// Runs on the calling thread alone, so its bits depend on the shapes and on the machine's instruction set and caches,
/// but never on the number of threads.
///
/// ```
/// use frostbert_train::gemm::multiply;
/// use ndarray::{Array2, array};
/// let mut out = Array2::zeros((1, 2));
/// multiply(array![[1.0, 2.0]].view(), array![[3.0, 4.0], [5.0, 6.0]].view(), out.view_mut());
/// assert_eq!(out, array![[13.0, 16.0]]);
/// ```
///
/// # Panics
/// Panics if the shapes do not match.
pub fn multiply<F: Real>(
    left: ArrayView2<'_, F>,
    right: ArrayView2<'_, F>,
    out: ArrayViewMut2<'_, F>,
) {
    product(left, right, out, false);
}

/// `out += left right`, otherwise like [`multiply`].
///
/// # Panics
/// Panics if the shapes do not match.
pub fn multiply_add<F: Real>(
    left: ArrayView2<'_, F>,
    right: ArrayView2<'_, F>,
    out: ArrayViewMut2<'_, F>,
) {
    product(left, right, out, true);
}

fn product<F: Real>(
    left: ArrayView2<'_, F>,
    right: ArrayView2<'_, F>,
    mut out: ArrayViewMut2<'_, F>,
    add: bool,
) {
    let ((m, k), (k_right, n)) = (left.dim(), right.dim());
    assert_eq!(k, k_right, "columns of the left and rows of the right factor");
    assert_eq!(out.dim(), (m, n), "shape of the product");
    let strides = |strides: &[isize]| (strides[1], strides[0]);
    let (left_cs, left_rs) = strides(left.strides());
    let (right_cs, right_rs) = strides(right.strides());
    let (out_cs, out_rs) = strides(out.strides());
    // SAFETY: pointers and strides come from live views whose shapes were checked above, so every element that gemm
    // touches lies inside them; `out` is borrowed mutably, so it overlaps neither factor, and with `read_dst = false`
    // gemm writes it without reading. `Real` is sealed to f32 and f64, which gemm knows.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            out_cs,
            out_rs,
            add,
            left.as_ptr(),
            left_cs,
            left_rs,
            right.as_ptr(),
            right_cs,
            right_rs,
            if add { F::one() } else { F::zero() },
            F::one(),
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;

    #[test]
    fn a_product_of_transposed_views_equals_ndarrays() {
        let left = Array2::from_shape_fn((7, 5), |(i, j)| (i * 5 + j) as f32 * 0.25 - 3.0);
        let right = Array2::from_shape_fn((7, 3), |(i, j)| (i as f32 - j as f32) * 0.5);
        let mut out = Array2::from_elem((5, 3), f32::NAN);
        multiply(left.t(), right.view(), out.view_mut());
        assert_eq!(out, left.t().dot(&right));
    }

    #[test]
    fn a_product_is_added_to_what_is_there() {
        let left = Array2::from_shape_fn((3, 4), |(i, j)| (i * 4 + j) as f64);
        let mut out = Array2::from_elem((3, 3), 0.5);
        multiply_add(left.view(), left.t(), out.view_mut());
        assert_eq!(out, left.dot(&left.t()) + 0.5);
    }

    #[test]
    #[should_panic(expected = "columns of the left")]
    fn factors_that_do_not_fit_are_a_bug() {
        let a = Array2::<f32>::zeros((2, 3));
        multiply(a.view(), a.view(), Array2::zeros((2, 3)).view_mut());
    }
}

//! A linear map with an optional bias.

use ndarray::{ArrayView2, ArrayViewMut2};

use crate::train::{
    gemm::{multiply, multiply_add},
    real::Real,
    vector::{add_rows, add_to_rows, dot},
};

/// Up to this many outputs are computed as dot products, which are faster than a matrix product padded to its tile
/// size.
const NARROW: usize = 4;

/// `y = x W^T + b` with `x [rows, inputs]`, `W [outputs, inputs]`, `b [outputs]`, `y [rows, outputs]`, in one product.
///
/// ```
/// use frostbert::internals::head::layers::dense;
/// use ndarray::{Array2, array};
/// let (x, weight) = (array![[1.0, 2.0]], array![[3.0, 4.0], [5.0, 6.0]]);
/// let mut y = Array2::<f64>::zeros((1, 2));
/// dense::forward(x.view(), weight.view(), &[0.5, -0.5], y.view_mut());
/// assert_eq!(y, array![[11.5, 16.5]]);
/// ```
///
/// # Panics
/// Panics if shapes do not fit, or `W` or `y` is not in row-major order.
pub fn forward<F: Real>(
    x: ArrayView2<'_, F>,
    weight: ArrayView2<'_, F>,
    bias: &[F],
    mut y: ArrayViewMut2<'_, F>,
) {
    assert_eq!(bias.len(), y.ncols(), "one bias per output");
    if weight.nrows() <= NARROW && x.strides()[1] == 1 {
        dot_rows(x, weight, y.view_mut());
    } else {
        multiply(x, weight.t(), y.view_mut());
    }
    add_to_rows(y.as_slice_mut().expect("a row-major matrix"), bias);
}

fn dot_rows<F: Real>(x: ArrayView2<'_, F>, weight: ArrayView2<'_, F>, mut y: ArrayViewMut2<'_, F>) {
    for (x, mut y) in x.rows().into_iter().zip(y.rows_mut()) {
        let x = x.to_slice().expect("columns side by side");
        for (y, weight) in y.iter_mut().zip(weight.rows()) {
            *y = dot(x, weight.to_slice().expect("a row-major matrix"));
        }
    }
}

/// Adds `dL/dW = d_y^T x` and `dL/db = sum of d_y's rows` to the gradients, in one product.
///
/// # Panics
/// Panics if [`forward`] would.
pub(crate) fn backward<F: Real>(
    x: ArrayView2<'_, F>,
    d_y: ArrayView2<'_, F>,
    d_weight: ArrayViewMut2<'_, F>,
    d_bias: &mut [F],
) {
    assert_eq!(d_bias.len(), d_y.ncols(), "one bias per output");
    multiply_add(d_y.t(), x, d_weight);
    add_rows(d_bias, d_y.as_slice().expect("a row-major matrix"));
}

/// Writes `dL/dx = d_y W`.
///
/// # Panics
/// Panics if shapes do not fit.
pub(crate) fn backward_input<F: Real>(
    d_y: ArrayView2<'_, F>,
    weight: ArrayView2<'_, F>,
    d_x: ArrayViewMut2<'_, F>,
) {
    multiply(d_y, weight, d_x);
}

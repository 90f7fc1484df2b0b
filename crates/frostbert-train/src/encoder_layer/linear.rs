//! `y = x W^T + b` on row-major slices, and its gradients.

use ndarray::{ArrayView2, ArrayViewMut2};

use crate::{
    gemm::{multiply, multiply_add},
    real::Real,
    vector::{add_rows, add_to_rows},
};

/// `y = x W^T + b`, with `W [outputs, inputs]`.
pub(super) fn forward<F: Real>(x: &[F], weight: &[F], bias: &[F], y: &mut [F]) {
    let (outputs, inputs) = (bias.len(), weight.len() / bias.len());
    multiply(matrix(x, inputs), matrix(weight, inputs).t(), matrix_mut(y, outputs));
    add_to_rows(y, bias);
}

/// Adds the gradients of weight and bias.
pub(super) fn backward<F: Real>(x: &[F], d_y: &[F], d_weight: &mut [F], d_bias: &mut [F]) {
    let (outputs, inputs) = (d_bias.len(), d_weight.len() / d_bias.len());
    multiply_add(matrix(d_y, outputs).t(), matrix(x, inputs), matrix_mut(d_weight, inputs));
    add_rows(d_bias, d_y);
}

/// `dL/dx = dL/dy W`, with as many `outputs` as `W` has rows.
pub(super) fn input_gradient<F: Real>(d_y: &[F], outputs: usize, weight: &[F], d_x: &mut [F]) {
    let inputs = weight.len() / outputs;
    multiply(matrix(d_y, outputs), matrix(weight, inputs), matrix_mut(d_x, inputs));
}

/// `dL/dx += dL/dy W`, with as many `outputs` as `W` has rows.
pub(super) fn add_input_gradient<F: Real>(d_y: &[F], outputs: usize, weight: &[F], d_x: &mut [F]) {
    let inputs = weight.len() / outputs;
    multiply_add(matrix(d_y, outputs), matrix(weight, inputs), matrix_mut(d_x, inputs));
}

pub(super) fn matrix<F>(values: &[F], columns: usize) -> ArrayView2<'_, F> {
    ArrayView2::from_shape((values.len() / columns, columns), values).expect("whole rows")
}

pub(super) fn matrix_mut<F>(values: &mut [F], columns: usize) -> ArrayViewMut2<'_, F> {
    ArrayViewMut2::from_shape((values.len() / columns, columns), values).expect("whole rows")
}

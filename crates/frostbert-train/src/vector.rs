//! Loops over slices, compiled for several instruction sets, of which the best is chosen at run time.
//!
//! Every result depends on the numbers alone: sums run in a fixed order and no multiply-add is fused.

use multiversion::multiversion;

use crate::real::Real;

/// Number of partial sums of a dot product.
const LANES: usize = 16;

/// `out += factor * values`.
///
/// # Panics
/// Panics if the lengths differ.
#[multiversion(targets = "simd")]
pub fn add_scaled<F: Real>(out: &mut [F], factor: F, values: &[F]) {
    assert_eq!(out.len(), values.len(), "vectors of one length");
    for (out, value) in out.iter_mut().zip(values) {
        *out += factor * *value;
    }
}

/// Adds the rows of a row-major matrix to `out`, first row first: the gradient of a bias.
///
/// # Panics
/// Panics if the length of `values` is not a multiple of that of `out`.
#[multiversion(targets = "simd")]
pub fn add_rows<F: Real>(out: &mut [F], values: &[F]) {
    let columns = out.len();
    assert!(values.len().is_multiple_of(columns), "whole rows");
    let (lanes, rest) = out.as_chunks_mut::<LANES>();
    for (number, sums) in lanes.iter_mut().enumerate() {
        // Local sums stay in registers; in memory each addition would wait for the previous one's store.
        let mut own = *sums;
        for row in values.chunks_exact(columns) {
            let row = &row[number * LANES..(number + 1) * LANES];
            own.iter_mut().zip(row).for_each(|(sum, value)| *sum += *value);
        }
        *sums = own;
    }
    let first = columns - rest.len();
    for row in values.chunks_exact(columns) {
        rest.iter_mut().zip(&row[first..]).for_each(|(sum, value)| *sum += *value);
    }
}

/// Adds `row` to every row of a row-major matrix, such as a bias. Values after the last whole row are left unchanged.
///
/// # Panics
/// Panics if `row` is empty.
#[multiversion(targets = "simd")]
pub fn add_to_rows<F: Real>(matrix: &mut [F], row: &[F]) {
    let rows = matrix.chunks_exact_mut(row.len());
    for values in rows {
        for (value, add) in values.iter_mut().zip(row) {
            *value += *add;
        }
    }
}

/// `sum_i left_i right_i`, in 16 partial sums that are added at the end.
///
/// ```
/// use frostbert_train::vector::dot;
/// assert_eq!(dot(&[1.0, 2.0, 3.0], &[4.0, 5.0, 6.0]), 32.0);
/// ```
///
/// # Panics
/// Panics if the lengths differ.
#[multiversion(targets = "simd")]
pub fn dot<F: Real>(left: &[F], right: &[F]) -> F {
    assert_eq!(left.len(), right.len(), "vectors of one length");
    let mut sums = [F::zero(); LANES];
    let (left, right) = (left.chunks_exact(LANES), right.chunks_exact(LANES));
    let rest = left.remainder().iter().zip(right.remainder());
    for (left, right) in left.zip(right) {
        for lane in 0..LANES {
            sums[lane] += left[lane] * right[lane];
        }
    }
    for (lane, (left, right)) in rest.enumerate() {
        sums[lane] += *left * *right;
    }
    sums.into_iter().fold(F::zero(), |total, sum| total + sum)
}

/// The sum of values, in 16 partial sums that are added at the end. It is compiled as part of the loop that calls it.
#[inline(always)]
pub(crate) fn sum<F: Real>(values: &[F]) -> F {
    let mut sums = [F::zero(); LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += *value;
        }
    }
    for (sum, value) in sums.iter_mut().zip(rest) {
        *sum += *value;
    }
    sums.into_iter().fold(F::zero(), |total, sum| total + sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dot_product_of_any_length_is_the_sum_of_products() {
        for length in [0, 1, 15, 16, 17, 40] {
            let left: Vec<f64> = (0..length).map(|i| i as f64 - 3.0).collect();
            let right: Vec<f64> = (0..length).map(|i| 0.5 * i as f64).collect();
            let expected: f64 = left.iter().zip(&right).map(|(a, b)| a * b).sum();
            assert_eq!(dot(&left, &right), expected);
        }
    }

    #[test]
    fn rows_are_added_to_a_row_and_a_row_to_rows() {
        let mut matrix = [1.0f32, 2.0, 3.0, 4.0];
        add_to_rows(&mut matrix, &[10.0, 20.0]);
        assert_eq!(matrix, [11.0, 22.0, 13.0, 24.0]);
        let mut sum = [1.0, 1.0];
        add_rows(&mut sum, &matrix);
        assert_eq!(sum, [25.0, 47.0]);
        add_scaled(&mut sum, 2.0, &[1.0, -1.0]);
        assert_eq!(sum, [27.0, 45.0]);
    }
}

//! The only wrapper around the `faer` crate: the eigendecomposition of a symmetric matrix.
//!
//! `faer` takes long to compile, but computes wide matrices several times as fast as the alternatives
//! (docs/performance.md).

use faer::{MatRef, Side};
use ndarray::{Array1, Array2};

use crate::error::{Error, Result};

/// Returns the eigenvalues in ascending order and the orthonormal eigenvectors, as columns, of a symmetric matrix:
/// `A = V diag(values) V^T`.
///
/// Only the lower triangle is read, apart from the search for numbers that are not finite. Runs on the calling thread
/// alone, so the bits never depend on the number of threads.
///
/// ```
/// use frostbert_train::eigen::symmetric_eigen;
/// use ndarray::array;
/// let (values, vectors) = symmetric_eigen(&array![[2.0, 1.0], [1.0, 2.0]])?;
/// assert!((values[0] - 1.0).abs() < 1e-12 && (values[1] - 3.0).abs() < 1e-12);
/// assert!((vectors[[0, 1]] - vectors[[1, 1]]).abs() < 1e-12);
/// # Ok::<(), frostbert_train::Error>(())
/// ```
///
/// # Errors
/// Returns [`Error::NotFinite`] if the matrix holds a number that is not finite, or one so large that there are no
/// finite eigenvalues.
///
/// # Panics
/// Panics if the matrix is not square.
pub fn symmetric_eigen(matrix: &Array2<f64>) -> Result<(Array1<f64>, Array2<f64>)> {
    let n = matrix.nrows();
    assert_eq!(n, matrix.ncols(), "a square matrix");
    if !matrix.iter().all(|value| value.is_finite()) {
        return Err(Error::NotFinite);
    }
    if n == 0 {
        return Ok((Array1::zeros(0), Array2::zeros((0, 0))));
    }
    let standard = matrix.as_standard_layout();
    let numbers = standard.as_slice().expect("a standard layout");
    let eigen = MatRef::from_row_major_slice(numbers, n, n)
        .self_adjoint_eigen(Side::Lower)
        .map_err(|_| Error::NotFinite)?;
    let vectors = Array2::from_shape_fn((n, n), |(row, column)| eigen.U()[(row, column)]);
    let values: Array1<f64> = (0..n).map(|place| eigen.S()[place]).collect();
    if !values.iter().chain(vectors.iter()).all(|value| value.is_finite()) {
        return Err(Error::NotFinite);
    }
    Ok((values, vectors))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks the values and vectors of `root root^T` against what they are to be.
    fn assert_made_again(root: &Array2<f64>) -> Array1<f64> {
        let (n, matrix) = (root.nrows(), root.dot(&root.t()));
        let (values, vectors) = symmetric_eigen(&matrix).unwrap();
        assert!(values.as_slice().unwrap().is_sorted());
        let again = (&vectors * &values).dot(&vectors.t());
        let worst = (again - &matrix).iter().fold(0.0f64, |most, d| most.max(d.abs()));
        assert!(worst < 1e-11 * values[n - 1], "{worst}");
        let ones = vectors.t().dot(&vectors) - Array2::<f64>::eye(n);
        assert!(ones.iter().all(|value| value.abs() < 1e-12));
        values
    }

    #[test]
    fn a_matrix_is_made_again_from_its_axes() {
        let n = 70;
        assert_made_again(&Array2::from_shape_fn((n, 2 * n), |(i, j)| {
            ((i * 31 + j * 17) % 23) as f64 - 11.0
        }));
    }

    #[test]
    fn fewer_rows_than_features_leave_values_of_zero() {
        let values = assert_made_again(&Array2::from_shape_fn((70, 5), |(i, j)| {
            ((i * j * 7 + i * i) % 29) as f64 - 14.0
        }));
        let none = values.iter().filter(|value| value.abs() < 1e-12 * values[69]).count();
        assert_eq!(none, 65);
    }

    #[test]
    fn the_upper_triangle_is_not_read() {
        let lower = ndarray::array![[2.0, 1e9], [1.0, 2.0]];
        let both = ndarray::array![[2.0, 1.0], [1.0, 2.0]];
        assert_eq!(symmetric_eigen(&lower).unwrap(), symmetric_eigen(&both).unwrap());
    }

    #[test]
    fn rows_that_are_all_the_same_have_one_axis() {
        let values = assert_made_again(&Array2::from_elem((70, 1), 3.0));
        assert!(values[68].abs() < 1e-12 * values[69]);
    }

    #[test]
    fn a_matrix_of_zeros_one_row_or_none_has_axes() {
        for n in 0..3 {
            let (values, vectors) = symmetric_eigen(&Array2::zeros((n, n))).unwrap();
            assert_eq!(values, Array1::<f64>::zeros(n));
            assert!((vectors.mapv(f64::abs).sum() - n as f64).abs() < 1e-12);
        }
    }

    #[test]
    fn a_matrix_with_nan_is_refused() {
        let matrix = Array2::from_elem((3, 3), f64::NAN);
        assert_eq!(symmetric_eigen(&matrix).unwrap_err(), Error::NotFinite);
    }
}

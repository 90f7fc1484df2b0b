//! The only wrapper around the `faer` crate: the eigendecomposition of a symmetric matrix.

use faer::{MatRef, Side};
use ndarray::{Array1, Array2};

use crate::error::{Error, Result};

/// Returns the eigenvalues in ascending order and the orthonormal eigenvectors, as columns, of a symmetric matrix:
/// `A = V diag(values) V^T`.
///
/// Only the lower triangle is read. Runs on the calling thread alone, so the bits never depend on the number of
/// threads.
///
/// ```
/// use frostbert::internals::train::eigen::symmetric_eigen;
/// use ndarray::array;
/// let (values, vectors) = symmetric_eigen(&array![[2.0, 1.0], [1.0, 2.0]])?;
/// assert!((values[0] - 1.0).abs() < 1e-12 && (values[1] - 3.0).abs() < 1e-12);
/// assert!((vectors[[0, 1]] - vectors[[1, 1]]).abs() < 1e-12);
/// # Ok::<(), frostbert::internals::error::Error>(())
/// ```
///
/// # Errors
/// Returns [`Error::Diverged`] if the matrix holds a number that is not finite.
///
/// # Panics
/// Panics if the matrix is not square.
pub fn symmetric_eigen(matrix: &Array2<f64>) -> Result<(Array1<f64>, Array2<f64>)> {
    let n = matrix.nrows();
    let not_finite = || Error::Diverged {
        problem: "the products of the features are not finite".into(),
        hint: "look for huge or missing values among the states: frostbert cache verify".into(),
    };
    if !matrix.iter().all(|value| value.is_finite()) {
        return Err(not_finite());
    }
    let standard = matrix.as_standard_layout();
    let values = standard.as_slice().expect("a standard layout");
    let eigen = MatRef::from_row_major_slice(values, n, matrix.ncols())
        .self_adjoint_eigen(Side::Lower)
        .map_err(|_| not_finite())?;
    let vectors = Array2::from_shape_fn((n, n), |(row, column)| eigen.U()[(row, column)]);
    Ok(((0..n).map(|place| eigen.S()[place]).collect(), vectors))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_is_made_again_from_its_axes() {
        let n = 70;
        let root =
            Array2::from_shape_fn((n, 2 * n), |(i, j)| ((i * 31 + j * 17) % 23) as f64 - 11.0);
        let matrix = root.dot(&root.t());
        let (values, vectors) = symmetric_eigen(&matrix).unwrap();
        let again = (&vectors * &values).dot(&vectors.t());
        let worst = (again - &matrix).iter().fold(0.0f64, |most, d| most.max(d.abs()));
        assert!(worst < 1e-11 * values[n - 1], "{worst}");
        let ones = vectors.t().dot(&vectors) - Array2::<f64>::eye(n);
        assert!(ones.iter().all(|value| value.abs() < 1e-12));
    }

    #[test]
    fn a_matrix_with_nan_is_refused() {
        let matrix = Array2::from_elem((3, 3), f64::NAN);
        assert!(symmetric_eigen(&matrix).is_err());
    }
}

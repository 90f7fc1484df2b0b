//! Linear discriminant analysis: every lambda of every fold from one pass over the rows.

use ndarray::{Array1, Array2, Axis};

use crate::{
    error::Result,
    head::{
        gram::{Gram, GramSums, GramTargets},
        ridge::{fit_sets, head, product},
        trained_head::TrainedHead,
    },
};

/// One head's settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LdaSpec {
    /// How strongly the covariance is shrunk towards a sphere, as a number of rows; above 0.
    pub lambda: f64,
    /// The index of the set of rows that it learns from.
    pub rows: usize,
}

/// Fits linear discriminants for every spec, in order: each class is a normal distribution with its own mean, and all
/// classes share one covariance (Fisher 1936; Friedman 1989).
///
/// ```text
/// S     = sum_i (x_i - m_(y_i)) (x_i - m_(y_i))^T        scatter within the classes
/// mu    = trace(S) / (n D)                              mean variance within the classes
/// Sigma = (S + lambda mu I) / (n + lambda)
/// w_c   = Sigma^-1 (m_c - m)        b_c = log(n_c / n) - (m_c + m) w_c / 2
/// ```
///
/// This is as if `lambda` more rows had been seen, drawn from a sphere with the same mean variance. On standardised
/// features `lambda` means nearly the same as in a ridge regression, so one grid serves both. The covariance is that of
/// scikit-learn's `LinearDiscriminantAnalysis(solver="lsqr", shrinkage=lambda / (n + lambda))`, whose scores have `m_c`
/// in place of `m_c - m`: a shift that is the same for every class and does not affect the probabilities
/// `softmax(x W + b)`.
///
/// Computed in f64. A class without any rows gets a bias so low that it is never predicted.
///
/// # Errors
/// Returns [`crate::error::Error::Diverged`] if the features are not finite.
///
/// # Panics
/// Panics if the targets are not classes.
pub(crate) fn fit(gram: &Gram, specs: &[LdaSpec]) -> Result<Vec<TrainedHead>> {
    assert_eq!(gram.targets, GramTargets::Classes, "discriminants tell classes apart");
    let scatter = |sums: &mut GramSums| {
        let counts = sums.y.mapv(|count| count.max(1.0));
        let scaled = &sums.xy / &counts.insert_axis(Axis(0));
        std::mem::take(&mut sums.xx) - product(sums.xy.view(), scaled.t())
    };
    fit_sets(
        gram,
        specs,
        |spec| spec.rows,
        scatter,
        |spec, sums, axes| {
            let (mean, means) = means(sums);
            let variance = axes.trace() / sums.n / mean.len() as f64;
            // If no class varies, any sphere will do.
            let variance = if variance > 0.0 { variance } else { 1.0 };
            let difference = &means - &mean.view().insert_axis(Axis(1));
            let weights = axes.solve(&difference, spec.lambda * variance) * (sums.n + spec.lambda);
            let halfway = (&means + &mean.insert_axis(Axis(1))) / 2.0
                + gram.origin.view().insert_axis(Axis(1));
            let bias = (&sums.y / sums.n).mapv(f64::ln) - (&halfway * &weights).sum_axis(Axis(0));
            head(gram, sums, weights, bias)
        },
    )
}

/// The mean of all rows `[n_features]` and of each class `[n_features, n_classes]`, with the origin subtracted.
fn means(sums: &GramSums) -> (Array1<f64>, Array2<f64>) {
    let counts = sums.y.mapv(|count| count.max(1.0));
    (&sums.x / sums.n, &sums.xy / &counts.insert_axis(Axis(0)))
}

#[cfg(test)]
mod tests;

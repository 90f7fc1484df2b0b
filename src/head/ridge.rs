//! Least squares with a penalty: every lambda of every fold from one pass over the rows.

use ndarray::{Array1, Array2, ArrayView2, Axis};
use rayon::prelude::*;

use super::{
    bank::TrainedHead,
    gram::{Gram, GramSums, GramTargets},
    linfa_logistic::NEVER,
    network::{Network, NetworkSpec},
};
use crate::{
    error::Result,
    train::{eigen::symmetric_eigen, gemm::multiply},
};

/// One head's settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RidgeSpec {
    /// How strongly weights are pulled to 0; above 0.
    pub lambda: f64,
    /// The set of rows that it learns from.
    pub rows: usize,
}

/// Minimises `sum_i |x_i W + b - t_i|^2 + lambda |W|^2`, the biases free, for every spec; in their order.
///
/// A target `t` is 1 for the row's own class or a label that is set and -1 elsewhere, as of scikit-learn's
/// `RidgeClassifier` (with two classes its decision value is the second output, and the first is its negative); a number
/// is its own target (`Ridge`). With means taken off, `X^T X = V diag(v) V^T` once for each set of rows, and
///
/// ```text
/// W = V diag(1 / (v + lambda)) V^T X^T T        b = mean(t) - mean(x) W
/// ```
///
/// In f64. A class without a row gets a bias so low that it is never predicted.
///
/// # Errors
/// [`crate::error::Error::Diverged`] when the features are not finite.
pub fn fit(gram: &Gram, specs: &[RidgeSpec]) -> Result<Vec<TrainedHead>> {
    let axes = axes_of_sets(gram, specs.iter().map(|spec| spec.rows), |sums| {
        let mean = &sums.x / sums.n;
        let mut scatter = sums.xx.clone();
        subtract_outer(&mut scatter, &mean, &mean, sums.n);
        scatter
    })?;
    let heads = specs.par_iter().map(|spec| {
        let (sums, axes) = axes[spec.rows].as_ref().expect("made for every set");
        let (x_mean, y_mean) = (&sums.x / sums.n, &sums.y / sums.n);
        let mut products = sums.xy.clone();
        subtract_outer(&mut products, &x_mean, &y_mean, sums.n);
        // t = 2 y - 1 of classes and labels.
        let (factor, shift) = match gram.targets {
            GramTargets::Classes | GramTargets::Labels => (2.0, 1.0),
            GramTargets::Values => (1.0, 0.0),
        };
        let weights = axes.solve(&products, spec.lambda) * factor;
        let bias = y_mean * factor - shift - (x_mean + &gram.origin).dot(&weights);
        head(gram, sums, weights, bias)
    });
    Ok(heads.collect())
}

/// `V` and `v` of a symmetric matrix.
pub(super) struct Axes {
    values: Array1<f64>,
    vectors: Array2<f64>,
}

impl Axes {
    /// The sum of the eigenvalues.
    pub(super) fn trace(&self) -> f64 {
        self.values.sum()
    }

    /// `(A + lambda I)^-1 right`. What rounding made of an eigenvalue of 0 counts as 0.
    pub(super) fn solve(&self, right: &Array2<f64>, lambda: f64) -> Array2<f64> {
        let inverse = self.values.mapv(|value| 1.0 / (value.max(0.0) + lambda));
        let rotated = product(self.vectors.t(), right.view()) * &inverse.insert_axis(Axis(1));
        product(self.vectors.view(), rotated.view())
    }
}

/// `left right`.
pub(super) fn product(left: ArrayView2<'_, f64>, right: ArrayView2<'_, f64>) -> Array2<f64> {
    let mut out = Array2::zeros((left.nrows(), right.ncols()));
    multiply(left, right, out.view_mut());
    out
}

/// The sums of every set that is named, with the axes of a matrix made of them.
pub(super) fn axes_of_sets(
    gram: &Gram,
    named: impl Iterator<Item = usize>,
    matrix: impl Fn(&GramSums) -> Array2<f64> + Sync,
) -> Result<Vec<Option<(GramSums, Axes)>>> {
    let mut is_named = vec![false; gram.row_groups.sets.len()];
    named.for_each(|set| is_named[set] = true);
    let sets = is_named.into_par_iter().enumerate().map(|(set, is_named)| {
        if !is_named {
            return Ok(None);
        }
        let sums = gram.of_set(set);
        let (values, vectors) = symmetric_eigen(&matrix(&sums))?;
        Ok(Some((sums, Axes { values, vectors })))
    });
    sets.collect()
}

/// `matrix -= n left right^T`.
pub(super) fn subtract_outer(
    matrix: &mut Array2<f64>,
    left: &Array1<f64>,
    right: &Array1<f64>,
    n: f64,
) {
    for (mut row, left) in matrix.rows_mut().into_iter().zip(left) {
        row.scaled_add(-n * left, right);
    }
}

/// Weights and biases as a head; classes that the rows do not have are never predicted.
pub(super) fn head(
    gram: &Gram,
    sums: &GramSums,
    mut weights: Array2<f64>,
    mut bias: Array1<f64>,
) -> TrainedHead {
    if gram.targets == GramTargets::Classes {
        for (class, _) in sums.y.iter().enumerate().filter(|(_, n)| **n == 0.0) {
            weights.column_mut(class).fill(0.0);
            bias[class] = f64::from(NEVER);
        }
    }
    let network = Network::new(NetworkSpec::linear(weights.nrows(), weights.ncols()));
    let (weights, bias) = (weights.mapv(|w| w as f32), bias.mapv(|b| b as f32));
    TrainedHead {
        parameters: network.with_output_layer(network.zeros(), weights.view(), bias.view()),
        history: Vec::new(),
        best_epoch: 0,
    }
}

#[cfg(test)]
mod tests;

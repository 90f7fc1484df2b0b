//! Ridge regression: every lambda of every fold from one pass over the rows.

use ndarray::{Array1, Array2, ArrayView2, Axis};
use rayon::prelude::*;

use crate::{
    error::Result,
    head::{
        gram::{Gram, GramSums, GramTargets},
        linfa_logistic::NEVER,
        network::{Network, NetworkSpec},
        trained_head::TrainedHead,
    },
    train::{eigen::symmetric_eigen, gemm::multiply},
};

/// One head's settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RidgeSpec {
    /// How strongly weights are shrunk towards 0; above 0.
    pub lambda: f64,
    /// The index of the set of rows that it learns from.
    pub rows: usize,
}

/// Minimises `sum_i |x_i W + b - t_i|^2 + lambda |W|^2`, without a penalty on the biases, for every spec in order.
///
/// A target `t` is 1 for the row's own class or for a label that is set, and -1 otherwise, as in scikit-learn's
/// `RidgeClassifier` (with two classes its decision value is the second output, and the first is its negative); a
/// number is its own target (`Ridge`). After the means are subtracted, `X^T X = V diag(v) V^T` is computed once for
/// each set of rows, and
///
/// ```text
/// W = V diag(1 / (v + lambda)) V^T X^T T        b = mean(t) - mean(x) W
/// ```
///
/// Computed in f64. A class without any rows gets a bias so low that it is never predicted.
///
/// # Errors
/// Returns [`crate::error::Error::Diverged`] if the features are not finite.
pub(crate) fn fit(gram: &Gram, specs: &[RidgeSpec]) -> Result<Vec<TrainedHead>> {
    let scatter = |sums: &mut GramSums| {
        let mean = &sums.x / sums.n;
        let mut scatter = std::mem::take(&mut sums.xx);
        subtract_outer(&mut scatter, &mean, &mean, sums.n);
        scatter
    };
    fit_sets(
        gram,
        specs,
        |spec| spec.rows,
        scatter,
        |spec, sums, axes| {
            let (x_mean, y_mean) = (&sums.x / sums.n, &sums.y / sums.n);
            let mut products = sums.xy.clone();
            subtract_outer(&mut products, &x_mean, &y_mean, sums.n);
            // t = 2 y - 1 for classes and labels.
            let (factor, shift) = match gram.targets {
                GramTargets::Classes | GramTargets::Labels => (2.0, 1.0),
                GramTargets::Values => (1.0, 0.0),
            };
            let weights = axes.solve(&products, spec.lambda) * factor;
            let bias = y_mean * factor - shift - (x_mean + &gram.origin).dot(&weights);
            head(gram, sums, weights, bias)
        },
    )
}

/// `V` and `v` of a symmetric matrix.
pub(super) struct Eigenvectors {
    values: Array1<f64>,
    vectors: Array2<f64>,
}

impl Eigenvectors {
    /// The sum of the eigenvalues.
    pub(super) fn trace(&self) -> f64 {
        self.values.sum()
    }

    /// `(A + lambda I)^-1 right`. Eigenvalues that rounding made negative count as 0.
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

/// Fits a head for each spec, in order, from the sums of its set of rows and the eigenvectors of a matrix made of them;
/// the matrix may take over the memory of [`GramSums::xx`]. Sets are processed one at a time on each thread, so that
/// only those in progress are in memory: with 3072 features a matrix takes 75 MB.
pub(super) fn fit_sets<S: Sync>(
    gram: &Gram,
    specs: &[S],
    set_of: impl Fn(&S) -> usize,
    matrix: impl Fn(&mut GramSums) -> Array2<f64> + Sync,
    head: impl Fn(&S, &GramSums, &Eigenvectors) -> TrainedHead + Sync,
) -> Result<Vec<TrainedHead>> {
    let mut specs_of_set: Vec<Vec<usize>> = vec![Vec::new(); gram.row_groups.sets.len()];
    for (number, spec) in specs.iter().enumerate() {
        specs_of_set[set_of(spec)].push(number);
    }
    let sets = specs_of_set.par_iter().enumerate();
    let fitted = sets.filter(|(_, own)| !own.is_empty()).map(|(set, own)| {
        let mut sums = gram.of_set(set);
        let (values, vectors) = symmetric_eigen(&matrix(&mut sums))?;
        let axes = Eigenvectors { values, vectors };
        let heads = own.iter().map(|number| (*number, head(&specs[*number], &sums, &axes)));
        Ok(heads.collect::<Vec<_>>())
    });
    let mut heads: Vec<(usize, TrainedHead)> =
        fitted.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    heads.sort_by_key(|(number, _)| *number);
    Ok(heads.into_iter().map(|(_, head)| head).collect())
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

/// Turns weights and biases into a head; classes that do not occur in the rows are never predicted.
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

//! The Hessian of a logistic regression at its starting point, which is a good approximation everywhere.

use super::{objective::LogisticProblem, rows::TurnedRows};

/// Curvature assumed for a common shift of all biases: the loss has none there, but the solver divides by it.
const SHIFT: f64 = 1e-4;

/// For each feature `j`, a matrix over the columns of the problem, where `pi` are the frequencies of its classes:
///
/// ```text
/// A_j = variance_j (diag(pi) - pi pi^T) + I / (C sum_i s_i)
/// ```
///
/// and for two classes `variance_j pi_0 pi_1 + 1 / (C sum_i s_i)`. It is the Hessian of `F` at zero weights and biases
/// that give the frequencies, on uncorrelated features; for the biases the variance is 1. Only the penalty constrains
/// the sum of a feature's weights over the classes, as in the Hessian itself.
#[derive(Clone, Debug)]
pub(crate) struct Curvature {
    rates: Vec<f64>,
    /// `variance_j pi_c + 1 / (C sum_i s_i)`, `[n_features + 1, columns]`.
    diagonal: Vec<f64>,
    /// The coupling between the columns of each feature (Sherman and Morrison 1950); empty for two classes.
    coupling: Vec<f64>,
}

impl Curvature {
    /// The curvature of a problem over its rotated rows.
    pub(crate) fn new(problem: &LogisticProblem, data: &TurnedRows) -> Curvature {
        let n = problem.total_weight;
        let rates: Vec<f64> = problem.row_weights.iter().map(|weight| weight / n).collect();
        let penalty = 1.0 / (problem.c * n);
        let of_weights = data.variances.iter().map(|variance| (*variance, penalty));
        let shift = SHIFT / rates.len() as f64;
        let rows = of_weights.chain([(1.0, shift)]);
        let mut curvature = Curvature { diagonal: Vec::new(), coupling: Vec::new(), rates };
        for (variance, penalty) in rows {
            if let [first, second] = curvature.rates[..] {
                curvature.diagonal.push(variance * first * second + penalty);
                continue;
            }
            let own = curvature.rates.iter().map(|rate| variance * rate + penalty);
            curvature.diagonal.extend(own);
            let rest = curvature.rates.iter();
            let rest = rest.map(|rate| rate * penalty / (variance * rate + penalty));
            curvature.coupling.push(variance / rest.sum::<f64>());
        }
        curvature
    }

    /// Computes `A^-1 v` in place, for `v [n_features + 1, columns]`.
    pub(crate) fn solve(&self, values: &mut [f64]) {
        for (value, diagonal) in values.iter_mut().zip(&self.diagonal) {
            *value /= diagonal;
        }
        let n_columns = self.rates.len();
        let rows = values.chunks_exact_mut(n_columns);
        let diagonals = self.diagonal.chunks_exact(n_columns);
        for ((row, diagonal), coupling) in rows.zip(diagonals).zip(&self.coupling) {
            let along: f64 = row.iter().zip(&self.rates).map(|(v, rate)| v * rate).sum();
            for ((value, rate), diagonal) in row.iter_mut().zip(&self.rates).zip(diagonal) {
                *value += coupling * along * rate / diagonal;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_divided_by_a_curvature_gives_it_back_when_multiplied() {
        let rates = [0.5, 0.3, 0.2];
        let (variance, penalty) = (2.0, 0.01);
        let rest: f64 = rates.iter().map(|p| p * penalty / (variance * p + penalty)).sum();
        let curvature = Curvature {
            rates: rates.to_vec(),
            diagonal: rates.iter().map(|p| variance * p + penalty).collect(),
            coupling: vec![variance / rest],
        };
        let given = [1.0, -3.0, 0.5];
        let mut solved = given;
        curvature.solve(&mut solved);
        let mean: f64 = rates.iter().zip(&solved).map(|(p, v)| p * v).sum();
        for ((rate, value), given) in rates.iter().zip(&solved).zip(&given) {
            let product = variance * rate * (value - mean) + penalty * value;
            assert!((product - given).abs() < 1e-12, "{product} {given}");
        }
    }
}

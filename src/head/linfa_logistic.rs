//! Multinomial logistic regression from the `linfa` project, fitted in full batch: a convex baseline for the bank.

use linfa::{Dataset, traits::Fit};
use linfa_logistic::MultiLogisticRegression;
use ndarray::{Array1, Array2, s};

use crate::{
    error::{Error, Result},
    head::{
        network::{Network, NetworkSpec},
        trained_head::TrainedHead,
    },
};

/// The solver stops when the norm of the gradient of the summed loss falls below this.
const GRADIENT_TOLERANCE: f64 = 1e-4;

/// Maximum number of iterations of the solver.
const MAX_ITERATIONS: u64 = 500;

/// Fits `sum_i -log softmax(x_i W + b)_{y_i} + 1 / (2 C) |W|^2` on scaled features, by L-BFGS in f64.
///
/// The biases are not penalised. A class without any rows gets a bias so low that it is never predicted.
///
/// # Errors
/// Returns [`Error::Diverged`] with linfa's message: its solver fails on some well-posed problems with hundreds of
/// features.
///
/// # Panics
/// Panics if there is not one label per row, or the network is not linear.
pub(crate) fn fit(
    features: Array2<f32>,
    labels: &[u32],
    network: &NetworkSpec,
    c: f64,
) -> Result<TrainedHead> {
    assert_eq!(features.nrows(), labels.len(), "one label per row");
    let targets: Array1<usize> = labels.iter().map(|label| *label as usize).collect();
    let records = Dataset::new(features.mapv(f64::from), targets);
    let fitted = MultiLogisticRegression::default()
        .alpha(1.0 / c)
        .gradient_tolerance(GRADIENT_TOLERANCE)
        .max_iterations(MAX_ITERATIONS)
        .fit(&records)
        .map_err(|error| Error::Diverged {
            problem: format!("linfa-logistic says: {error}"),
            hint: "lower head.C, keep head.standardize = true, or use head.kind = \"linear\""
                .into(),
        })?;
    let n_classes = network.n_outputs;
    let mut weights = Array2::zeros((features.ncols(), n_classes));
    let mut bias = Array1::from_elem(n_classes, NEVER);
    for (place, class) in fitted.classes().iter().enumerate() {
        let column = fitted.params().column(place).mapv(|weight| weight as f32);
        weights.slice_mut(s![.., *class]).assign(&column);
        bias[*class] = fitted.intercept()[place] as f32;
    }
    let network = Network::new(network.clone());
    Ok(TrainedHead {
        parameters: network.with_output_layer(network.zeros(), weights.view(), bias.view()),
        history: Vec::new(),
        best_epoch: 0,
    })
}

/// The logit of a class that never occurred: its `exp` is 0, and sums with it stay finite.
pub(super) const NEVER: f32 = -1e4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fit_equals_scikit_learns() {
        // LogisticRegression(C=0.5, tol=1e-10).fit([[0, 1], [1, 0], [2, 2], [3, 1], [0, 0], [2, 3]], [0, 0, 1, 1, 2, 2])
        // of scikit-learn 1.9 (scripts/fixtures/logistic.py): coef_ centred over the classes, as both are free up to a
        // shift.
        let expected = [[-0.3295, 0.551_06, -0.221_56], [-0.241_61, 0.0306, 0.211_01]];
        let rows = [0.0, 1.0, 1.0, 0.0, 2.0, 2.0, 3.0, 1.0, 0.0, 0.0, 2.0, 3.0];
        let rows = Array2::from_shape_vec((6, 2), rows.to_vec()).unwrap();
        let spec = NetworkSpec::linear(2, 4);
        let head = fit(rows, &[0, 0, 1, 1, 2, 2], &spec, 0.5).unwrap();
        let (weights, bias) = Network::new(spec).output_layer(&head.parameters);
        let seen = weights.slice(s![.., ..3]);
        let centred =
            &seen - &seen.mean_axis(ndarray::Axis(1)).unwrap().insert_axis(ndarray::Axis(1));
        for (feature, row) in expected.iter().enumerate() {
            for (class, value) in row.iter().enumerate() {
                let got = centred[[feature, class]];
                assert!((got - value).abs() < 1e-3, "{feature}, {class}: {got}");
            }
        }
        assert_eq!(bias[3], NEVER, "a class without rows is never predicted");
    }
}

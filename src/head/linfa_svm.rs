//! Linear support vector machines from the `linfa` project, one class against the others, fitted in full batch.

use linfa::{DatasetBase, traits::Fit};
use linfa_svm::Svm;
use ndarray::{Array1, Array2};

use crate::{
    error::{Error, Result},
    head::{
        network::{Network, NetworkSpec},
        trained_head::TrainedHead,
    },
};

/// Maximum number of rows: the solver holds the products of all pairs of rows, 8 bytes each.
pub(crate) const MOST_ROWS: usize = 12_000;

/// Fits, for every class, the `w` and `b` that minimise `|w|^2 / 2 + C sum_i max(0, 1 - y_i (x_i w + b))` with `y_i` 1
/// for the rows of the class and -1 for the others (Cortes and Vapnik 1995), by sequential minimal optimisation in f64.
///
/// The outputs are the decision values `x w + b`, which a temperature turns into probabilities. For two classes there
/// is one machine, and the outputs of the first class are its negated values.
///
/// # Errors
/// Returns [`Error::Diverged`] with linfa's message, or if there are too many rows for it.
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
    if labels.len() > MOST_ROWS {
        return Err(Error::Diverged {
            problem: format!(
                "linfa-svm holds the products of all pairs of rows, and {} training rows are too many for it",
                labels.len()
            ),
            hint: format!("use head.kind = \"linear\", or train on at most {MOST_ROWS} rows"),
        });
    }
    let features = features.mapv(f64::from);
    let n_classes = network.n_outputs;
    let positive: Vec<u32> = match n_classes {
        2 => vec![1],
        _ => (0..n_classes as u32).collect(),
    };
    let machines: Vec<(u32, Array1<f64>, f64)> = positive
        .into_iter()
        .filter(|class| labels.contains(class))
        .map(|class| {
            let targets: Array1<bool> = labels.iter().map(|label| *label == class).collect();
            let rows = DatasetBase::new(features.view(), targets.view());
            let machine = Svm::<f64, bool>::params()
                .pos_neg_weights(c, c)
                .linear_kernel()
                .fit(&rows)
                .map_err(|error| Error::Diverged {
                    problem: format!("linfa-svm says: {error}"),
                    hint: "lower head.C, or use head.kind = \"linear\"".into(),
                })?;
            let weights = (0..features.ncols()).map(|feature| {
                let mut unit = Array1::zeros(features.ncols());
                unit[feature] = 1.0;
                machine.weighted_sum(&unit)
            });
            Ok((class, weights.collect(), -machine.rho))
        })
        .collect::<Result<_>>()?;
    let mut weights = Array2::zeros((features.ncols(), n_classes));
    let mut bias = Array1::from_elem(n_classes, super::linfa_logistic::NEVER);
    for (class, own, own_bias) in &machines {
        let own = own.mapv(|weight| weight as f32);
        weights.column_mut(*class as usize).assign(&own);
        bias[*class as usize] = *own_bias as f32;
        if n_classes == 2 {
            weights.column_mut(0).assign(&own.mapv(|weight| -weight));
            bias[0] = -*own_bias as f32;
        }
    }
    let network = Network::new(network.clone());
    Ok(TrainedHead {
        parameters: network.with_output_layer(network.zeros(), weights.view(), bias.view()),
        history: Vec::new(),
        best_epoch: 0,
    })
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn the_machine_equals_scikit_learns() {
        // SVC(kernel="linear", C=1.0, tol=1e-10).fit(rows, [0, 0, 1, 1, 1, 0]) of scikit-learn 1.9
        // (scripts/fixtures/logistic.py): coef_ and intercept_.
        let rows =
            array![[0.0f32, 1.0], [1.0, 0.0], [2.0, 2.0], [3.0, 1.0], [2.5, 3.0], [0.0, 0.0]];
        let head = fit(rows, &[0, 0, 1, 1, 1, 0], &NetworkSpec::linear(2, 2), 1.0).unwrap();
        let (weights, bias) =
            Network::new(NetworkSpec::linear(2, 2)).output_layer(&head.parameters);
        let expected = [0.666_667f32, 0.666_667, -1.666_667];
        for (got, expected) in [weights[[0, 1]], weights[[1, 1]], bias[1]].iter().zip(expected) {
            assert!((got - expected).abs() < 1e-3, "{got}, expected {expected}");
        }
        assert_eq!(weights[[0, 0]], -weights[[0, 1]]);
    }

    #[test]
    fn too_many_rows_are_refused_before_memory_is_taken() {
        let rows = Array2::zeros((MOST_ROWS + 1, 2));
        let error =
            fit(rows, &vec![0; MOST_ROWS + 1], &NetworkSpec::linear(2, 2), 1.0).unwrap_err();
        assert!(error.to_string().contains("too many"), "{error}");
    }
}

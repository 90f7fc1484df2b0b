//! Two classes by one logit, for many heads side by side.
//!
//! With `z = z_1 - z_0` a softmax over two classes is a sigmoid: `p_1 = 1 / (1 + e^-z)`. The gradient of a loss over a
//! softmax sums to zero over the classes, so that of `z_0` is the negative of that of `z_1`, and one column does for two.

use multiversion::multiversion;

use super::{IGNORED, LossSum};
use crate::train::{
    exp::{exp, ln_1p},
    panel::LANES,
};

/// Cross-entropies of heads of two classes, a column of logits each.
///
/// `L = -t_1 log p_1 - t_0 log p_0`, with `t` as of [`super::Loss::CrossEntropy`].
#[derive(Clone, Debug)]
pub struct OneLogitLoss {
    /// `t_0` and `t_1` of a row of class 0, and of class 1: `[class][target][column]`.
    targets: [[Vec<f32>; 2]; 2],
    /// What a row of each class weighs in a column's mean.
    weights: [Vec<f64>; 2],
}

impl OneLogitLoss {
    /// Losses of `columns` columns, a whole number of lanes, of which none counts anything yet.
    pub fn new(columns: usize) -> OneLogitLoss {
        let zeros = || vec![0.0; columns];
        OneLogitLoss {
            targets: [[zeros(), zeros()], [zeros(), zeros()]],
            weights: [vec![0.0; columns], vec![0.0; columns]],
        }
    }

    /// Sets the loss of a column: weights of the two classes, and the mass that is spread over both.
    pub fn set(&mut self, column: usize, class_weights: [f32; 2], label_smoothing: f32) {
        for class in 0..2 {
            for (target, weight) in class_weights.iter().enumerate() {
                let own = if target == class {
                    1.0 - label_smoothing
                } else {
                    0.0
                };
                self.targets[class][target][column] = weight * (own + label_smoothing / 2.0);
            }
            self.weights[class][column] = f64::from(class_weights[class]);
        }
    }

    /// Writes the gradient of each column's mean loss in `logits [rows, columns]` to `errors`, and adds the losses to
    /// `sums`, one for each column. `classes` holds 0, 1 or [`IGNORED`] for each row.
    ///
    /// ```
    /// use frostbert::train::loss::{LossSum, one_logit::OneLogitLoss};
    /// let mut loss = OneLogitLoss::new(16);
    /// loss.set(0, [1.0, 1.0], 0.0);
    /// let (mut errors, mut sums) = ([0.0; 16], [LossSum::default(); 16]);
    /// loss.gradient(&[0.0; 16], &[1], &mut errors, &mut sums);
    /// assert_eq!(errors[0], -0.5);
    /// assert!((sums[0].mean() - 2.0f64.ln()).abs() < 1e-7);
    /// ```
    ///
    /// # Panics
    /// When the lengths do not fit together, or a class is neither 0 nor 1 nor ignored.
    pub fn gradient(
        &self,
        logits: &[f32],
        classes: &[u32],
        errors: &mut [f32],
        sums: &mut [LossSum],
    ) {
        let columns = sums.len();
        assert_eq!(columns, self.weights[0].len(), "a sum for each column");
        assert_eq!(
            logits.len(),
            classes.len() * columns,
            "a class for each row"
        );
        assert_eq!(errors.len(), logits.len(), "an error for each logit");
        let mut counts = [0usize; 2];
        for class in classes.iter().filter(|class| **class != IGNORED) {
            counts[*class as usize] += 1;
        }
        let weight = |column: usize| {
            counts[0] as f64 * self.weights[0][column] + counts[1] as f64 * self.weights[1][column]
        };
        let scales: Vec<f32> = (0..columns)
            .map(|column| match weight(column) {
                0.0 => 0.0,
                weight => (1.0 / weight) as f32,
            })
            .collect();
        let mut losses = vec![0.0f32; columns];
        self.rows(logits, classes, &scales, errors, &mut losses);
        for (column, (sum, loss)) in sums.iter_mut().zip(losses).enumerate() {
            *sum += LossSum {
                sum: f64::from(loss),
                weight: weight(column),
            };
        }
    }

    fn rows(
        &self,
        logits: &[f32],
        classes: &[u32],
        scales: &[f32],
        errors: &mut [f32],
        losses: &mut [f32],
    ) {
        let columns = scales.len();
        let rows = logits
            .chunks_exact(columns)
            .zip(errors.chunks_exact_mut(columns));
        for ((logits, errors), class) in rows.zip(classes) {
            match *class {
                IGNORED => errors.fill(0.0),
                class => {
                    let [t0, t1] = &self.targets[class as usize];
                    row(logits, [t0, t1], scales, errors, losses);
                }
            }
        }
    }
}

#[multiversion(targets = "simd")]
fn row(
    logits: &[f32],
    targets: [&[f32]; 2],
    scales: &[f32],
    errors: &mut [f32],
    losses: &mut [f32],
) {
    for start in (0..logits.len()).step_by(LANES) {
        let lanes = start..start + LANES;
        let (z, scale) = (&logits[lanes.clone()], &scales[lanes.clone()]);
        let (t0, t1) = (&targets[0][lanes.clone()], &targets[1][lanes.clone()]);
        let (error, loss) = (&mut errors[lanes.clone()], &mut losses[lanes]);
        for lane in 0..LANES {
            let is_positive = z[lane] > 0.0;
            let size = if is_positive { z[lane] } else { -z[lane] };
            let exponential = exp(-size);
            let rest = ln_1p(exponential);
            let larger = 1.0 / (1.0 + exponential);
            let p = if is_positive {
                larger
            } else {
                exponential * larger
            };
            let (above, below) = if is_positive {
                (size, 0.0)
            } else {
                (0.0, size)
            };
            loss[lane] += t1[lane] * (below + rest) + t0[lane] * (above + rest);
            error[lane] = scale[lane] * (p * (t0[lane] + t1[lane]) - t1[lane]);
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::train::loss::{Loss, Targets};

    #[test]
    fn one_logit_gives_the_losses_and_gradients_of_a_softmax_over_two_classes() {
        let weights = [0.5, 3.0];
        let classes = [1, 0, IGNORED, 1, 0];
        let differences = [0.3f32, -4.0, 2.0, 90.0, -0.001];
        let softmax = Loss::CrossEntropy {
            class_weights: Some(weights.to_vec()),
            label_smoothing: 0.1,
        };
        let mut loss = OneLogitLoss::new(LANES);
        loss.set(5, weights, 0.1);
        let mut logits = vec![0.0; 5 * LANES];
        let mut pairs = Array2::zeros((5, 2));
        for (row, difference) in differences.iter().enumerate() {
            logits[row * LANES + 5] = *difference;
            pairs[[row, 1]] = *difference;
        }
        let (mut errors, mut sums) = (vec![f32::NAN; 5 * LANES], vec![LossSum::default(); LANES]);
        loss.gradient(&logits, &classes, &mut errors, &mut sums);
        let targets = Targets::Classes(&classes);
        let mut expected = Array2::zeros((5, 2));
        let scale = softmax.scale(targets);
        let sum = softmax.gradient(pairs.view(), targets, scale, expected.view_mut());
        assert!(
            (sums[5].sum - sum.sum).abs() < 1e-5 * sum.sum,
            "{sum:?} {:?}",
            sums[5]
        );
        assert_eq!(sums[5].weight, sum.weight);
        for row in 0..5 {
            let (got, [low, high]) = (
                errors[row * LANES + 5],
                [expected[[row, 0]], expected[[row, 1]]],
            );
            assert!(
                (got - high).abs() < 1e-6 && (got + low).abs() < 1e-6,
                "row {row}: {got}"
            );
        }
        assert!(
            errors
                .iter()
                .enumerate()
                .all(|(place, error)| place % LANES == 5 || *error == 0.0)
        );
        assert_eq!(
            sums[0],
            LossSum::default(),
            "a column that was not set counts nothing"
        );
    }

    #[test]
    fn a_logit_that_is_no_number_does_not_go_unseen() {
        let mut loss = OneLogitLoss::new(LANES);
        loss.set(0, [1.0, 1.0], 0.0);
        let mut logits = vec![0.0; LANES];
        logits[0] = f32::NAN;
        let (mut errors, mut sums) = (vec![0.0; LANES], vec![LossSum::default(); LANES]);
        loss.gradient(&logits, &[0], &mut errors, &mut sums);
        assert!(sums[0].sum.is_nan() && errors[0].is_nan());
    }
}

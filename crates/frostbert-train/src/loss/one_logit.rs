//! Two classes with a single logit, for many heads side by side.
//!
//! With `z = z_1 - z_0`, a softmax over two classes is a sigmoid: `p_1 = 1 / (1 + e^-z)`. The gradient of a loss over a
//! softmax sums to zero over the classes, so that of `z_0` is the negative of that of `z_1`, and one column can replace
//! two.

use multiversion::multiversion;

use super::{IGNORED, LossSum};
use crate::{
    exp::{exp_of_negative, ln},
    panel::LANES,
};

/// Cross-entropies of two-class heads with one column of logits each.
///
/// `L = -t_1 log p_1 - t_0 log p_0`, with `t` as in [`super::Loss::CrossEntropy`].
#[derive(Clone, Debug)]
pub struct OneLogitLoss {
    /// `t_0` and `t_1` of a row of class 0 and of a row of class 1: `[class][target][column]`.
    targets: [[Vec<f32>; 2]; 2],
    /// The weight of a row of each class in a column's mean.
    weights: [Vec<f64>; 2],
}

impl OneLogitLoss {
    /// Creates the losses of `columns` columns, a multiple of the number of lanes; none counts anything yet.
    pub fn new(columns: usize) -> OneLogitLoss {
        let zeros = || vec![0.0; columns];
        OneLogitLoss {
            targets: [[zeros(), zeros()], [zeros(), zeros()]],
            weights: [vec![0.0; columns], vec![0.0; columns]],
        }
    }

    /// Sets the loss of a column: the weights of the two classes, and the label smoothing over both.
    pub fn set(&mut self, column: usize, class_weights: [f32; 2], label_smoothing: f32) {
        for class in 0..2 {
            for (target, weight) in class_weights.iter().enumerate() {
                let own = if target == class { 1.0 - label_smoothing } else { 0.0 };
                self.targets[class][target][column] = weight * (own + label_smoothing / 2.0);
            }
            self.weights[class][column] = f64::from(class_weights[class]);
        }
    }

    /// Writes the gradient of each column's mean loss in `logits [rows, columns]` to `errors`, and adds the losses to
    /// `sums`, one for each column. `classes` holds 0, 1 or [`IGNORED`] for each row.
    ///
    /// ```
    /// use frostbert_train::loss::LossSum;
    /// use frostbert_train::loss::one_logit::OneLogitLoss;
    /// let mut loss = OneLogitLoss::new(16);
    /// loss.set(0, [1.0, 1.0], 0.0);
    /// let (mut errors, mut sums) = ([0.0; 16], [LossSum::default(); 16]);
    /// loss.gradient(&[0.0; 16], &[1], &mut errors, &mut sums);
    /// assert_eq!(errors[0], -0.5);
    /// assert!((sums[0].mean() - 2.0f64.ln()).abs() < 1e-7);
    /// ```
    ///
    /// # Panics
    /// Panics if the lengths do not match, or a class is neither 0 nor 1 nor ignored.
    pub fn gradient(
        &self,
        logits: &[f32],
        classes: &[u32],
        errors: &mut [f32],
        sums: &mut [LossSum],
    ) {
        let columns = sums.len();
        assert_eq!(columns, self.weights[0].len(), "a sum for each column");
        assert_eq!(logits.len(), classes.len() * columns, "a class for each row");
        assert_eq!(errors.len(), logits.len(), "an error for each logit");
        let [zeros, ones] = &rows_of_classes(classes, columns);
        let weight = |column: usize| {
            zeros.len() as f64 * self.weights[0][column]
                + ones.len() as f64 * self.weights[1][column]
        };
        let scales: Vec<f32> = (0..columns)
            .map(|column| match weight(column) {
                0.0 => 0.0,
                weight => (1.0 / weight) as f32,
            })
            .collect();
        if zeros.len() + ones.len() < classes.len() {
            let ignored = errors.chunks_exact_mut(columns).zip(classes);
            let ignored = ignored.filter(|(_, class)| **class == IGNORED);
            ignored.for_each(|(errors, _)| errors.fill(0.0));
        }
        let mut losses = vec![0.0f32; columns];
        for (rows, [t0, t1]) in [zeros, ones].into_iter().zip(&self.targets) {
            let scaled = |targets: &[f32]| -> Vec<f32> {
                let both = targets.iter().zip(&scales);
                both.map(|(target, scale)| target * scale).collect()
            };
            let (low, high) = (scaled(t0), scaled(t1));
            for start in (0..columns).step_by(LANES) {
                let lanes = start..start + LANES;
                let sums = add_rows(rows, start, logits, [&low, &high], errors);
                for (lane, loss) in losses[lanes].iter_mut().enumerate() {
                    let column = start + lane;
                    *loss += (t0[column] + t1[column]) * sums.rest[lane]
                        + t1[column] * sums.below[lane]
                        + t0[column] * sums.above[lane];
                }
            }
        }
        for (column, (sum, loss)) in sums.iter_mut().zip(losses).enumerate() {
            *sum += LossSum { sum: f64::from(loss), weight: weight(column) };
        }
    }
}

/// The positions at which the rows of class 0 and those of class 1 begin.
///
/// Each position is written to both lists but counted only in the right one, because a branch on a random class would
/// be mispredicted half the time.
fn rows_of_classes(classes: &[u32], columns: usize) -> [Vec<usize>; 2] {
    let mut rows = [vec![0; classes.len()], vec![0; classes.len()]];
    let mut counts = [0; 2];
    for (row, class) in classes.iter().enumerate() {
        assert!(*class < 2 || *class == IGNORED, "one of two classes");
        for own in 0..2 {
            rows[own][counts[own]] = row * columns;
            counts[own] += usize::from(*class == own as u32);
        }
    }
    for (rows, count) in rows.iter_mut().zip(counts) {
        rows.truncate(count);
    }
    rows
}

/// The terms of the loss of some rows of one class, for several columns in parallel.
struct Sums {
    /// `sum max(z, 0)`.
    above: [f32; LANES],
    /// `sum max(-z, 0)`.
    below: [f32; LANES],
    /// `sum ln(1 + e^-|z|)`.
    rest: [f32; LANES],
}

/// Number of factors that are multiplied before a logarithm is taken; each is at most 2, so the product fits into an
/// f32.
const FACTORS: usize = 100;

/// Processes the rows that begin at `rows`, all of one class, in the columns from `start` on; `targets` are already
/// multiplied by the scale of a row's gradient. Sums of logarithms are taken as the logarithm of a product, in chunks.
#[multiversion(targets("x86_64+avx512f+avx512vl+avx512bw+avx512dq+avx2+fma", "x86_64+avx2+fma"))]
fn add_rows(
    rows: &[usize],
    start: usize,
    logits: &[f32],
    targets: [&[f32]; 2],
    errors: &mut [f32],
) -> Sums {
    let [low, high] = targets.map(|targets| {
        let lanes: &[f32; LANES] = targets[start..].first_chunk().expect("whole lanes");
        *lanes
    });
    let both: [f32; LANES] = std::array::from_fn(|lane| low[lane] + high[lane]);
    let mut sums = Sums { above: [0.0; LANES], below: [0.0; LANES], rest: [0.0; LANES] };
    for rows in rows.chunks(FACTORS) {
        let mut product = [1.0f32; LANES];
        for row in rows {
            let place = row + start;
            let z: &[f32; LANES] = logits[place..].first_chunk().expect("whole lanes");
            let error: &mut [f32; LANES] = errors[place..].first_chunk_mut().expect("whole lanes");
            for lane in 0..LANES {
                let z = z[lane];
                let exponential = exp_of_negative(-z.abs());
                let denominator = 1.0 + exponential;
                let p = if z > 0.0 { 1.0 } else { exponential } / denominator;
                product[lane] *= denominator;
                sums.above[lane] += if z > 0.0 { z } else { 0.0 };
                sums.below[lane] += if z > 0.0 { 0.0 } else { -z };
                error[lane] = p.mul_add(both[lane], -high[lane]);
            }
        }
        for (rest, product) in sums.rest.iter_mut().zip(product) {
            *rest += ln(product);
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::loss::{Loss, Targets};

    #[test]
    fn one_logit_gives_the_losses_and_gradients_of_a_softmax_over_two_classes() {
        let weights = [0.5, 3.0];
        let classes = [1, 0, IGNORED, 1, 0];
        let differences = [0.3f32, -4.0, 2.0, 90.0, -0.001];
        let softmax =
            Loss::CrossEntropy { class_weights: Some(weights.to_vec()), label_smoothing: 0.1 };
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
        assert!((sums[5].sum - sum.sum).abs() < 1e-5 * sum.sum, "{sum:?} {:?}", sums[5]);
        assert_eq!(sums[5].weight, sum.weight);
        for row in 0..5 {
            let (got, [low, high]) =
                (errors[row * LANES + 5], [expected[[row, 0]], expected[[row, 1]]]);
            assert!((got - high).abs() < 1e-6 && (got + low).abs() < 1e-6, "row {row}: {got}");
        }
        assert!(
            errors.iter().enumerate().all(|(place, error)| place % LANES == 5 || *error == 0.0)
        );
        assert_eq!(sums[0], LossSum::default(), "a column that was not set counts nothing");
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

//! Cross-entropy with class weights and label smoothing, and its gradient, for one head's columns of a batch.

use ndarray::{ArrayView2, ArrayViewMut2};

/// The settings of a cross-entropy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CrossEntropy {
    /// A weight per class; `None` for 1 each.
    pub class_weights: Option<Vec<f32>>,
    /// Probability mass that is spread evenly over all classes, from 0 to 1.
    pub label_smoothing: f32,
}

/// A loss before it is divided by its weight, so that batches can be added up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossSum {
    /// Sum of weighted losses.
    pub sum: f64,
    /// Sum of the weights.
    pub weight: f64,
}

impl LossSum {
    /// `sum / weight`; 0 where nothing was counted.
    pub fn mean(self) -> f64 {
        if self.weight == 0.0 {
            0.0
        } else {
            self.sum / self.weight
        }
    }
}

impl std::ops::AddAssign for LossSum {
    fn add_assign(&mut self, other: LossSum) {
        self.sum += other.sum;
        self.weight += other.weight;
    }
}

impl CrossEntropy {
    /// Loss of `logits [rows, classes]` against `labels [rows]`; writes `dL/dlogits` into `gradient`.
    ///
    /// With targets `t_c = w_c ((1 - s) [c = y] + s / C)`, smoothing `s`, class weights `w`:
    /// `L = sum_rows sum_c -t_c log softmax(z)_c / sum_rows w_y` and
    /// `dL/dz_c = (softmax(z)_c sum_k t_k - t_c) / sum_rows w_y`, as in PyTorch's `cross_entropy` with its default mean.
    /// Logits are shifted by their row's maximum, so large ones do not overflow.
    ///
    /// ```
    /// use frostbert::train::loss::CrossEntropy;
    /// use ndarray::{Array2, array};
    /// let mut gradient = Array2::zeros((1, 2));
    /// let loss = CrossEntropy::default().gradient(array![[0.0, 0.0]].view(), &[1], gradient.view_mut());
    /// assert_eq!(loss.mean(), f64::from(2.0f32.ln()));
    /// assert_eq!(gradient, array![[0.5, -0.5]]);
    /// ```
    ///
    /// # Panics
    /// When shapes differ or a label is no class: the caller checks labels when it reads them.
    pub fn gradient(
        &self,
        logits: ArrayView2<'_, f32>,
        labels: &[u32],
        mut gradient: ArrayViewMut2<'_, f32>,
    ) -> LossSum {
        assert_eq!(logits.dim(), gradient.dim(), "one gradient per logit");
        assert_eq!(logits.nrows(), labels.len(), "one label per row");
        let n_classes = logits.ncols();
        let weight_of = |class: usize| {
            self.class_weights
                .as_ref()
                .map_or(1.0, |weights| weights[class])
        };
        let total_weight: f64 = labels
            .iter()
            .map(|label| f64::from(weight_of(*label as usize)))
            .sum();
        let scale = if total_weight == 0.0 {
            0.0
        } else {
            (1.0 / total_weight) as f32
        };
        let spread = self.label_smoothing / n_classes as f32;
        let all_weights: f32 = (0..n_classes).map(weight_of).sum();

        let mut sum = 0.0f64;
        for ((row, mut out), label) in logits
            .rows()
            .into_iter()
            .zip(gradient.rows_mut())
            .zip(labels)
        {
            let label = *label as usize;
            let (maximum, log_total) = log_sum_exp(row.iter().copied());
            let own = (1.0 - self.label_smoothing) * weight_of(label);
            let target_total = own + spread * all_weights;
            for class in 0..n_classes {
                let log_probability = row[class] - maximum - log_total;
                let mut target = spread * weight_of(class);
                if class == label {
                    target += own;
                }
                sum -= f64::from(target * log_probability);
                out[class] = (log_probability.exp() * target_total - target) * scale;
            }
        }
        LossSum {
            sum,
            weight: total_weight,
        }
    }

    /// The loss alone, without smoothing: what validation compares.
    ///
    /// # Panics
    /// When shapes differ or a label is no class.
    pub fn loss(&self, logits: ArrayView2<'_, f32>, labels: &[u32]) -> LossSum {
        assert_eq!(logits.nrows(), labels.len(), "one label per row");
        let mut total = LossSum::default();
        for (row, label) in logits.rows().into_iter().zip(labels) {
            let label = *label as usize;
            let weight = f64::from(
                self.class_weights
                    .as_ref()
                    .map_or(1.0, |weights| weights[label]),
            );
            let (maximum, log_total) = log_sum_exp(row.iter().copied());
            let log_probability = row[label] - maximum - log_total;
            total += LossSum {
                sum: -weight * f64::from(log_probability),
                weight,
            };
        }
        total
    }
}

/// The maximum of a row and the logarithm of `sum exp(z - maximum)`.
fn log_sum_exp(row: impl Iterator<Item = f32> + Clone) -> (f32, f32) {
    let maximum = row.clone().fold(f32::NEG_INFINITY, f32::max);
    let total: f32 = row.map(|logit| (logit - maximum).exp()).sum();
    (maximum, total.ln())
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

    use super::*;

    #[test]
    fn the_gradient_agrees_with_finite_differences() {
        let loss = CrossEntropy {
            class_weights: Some(vec![0.5, 2.0, 1.5]),
            label_smoothing: 0.1,
        };
        let logits = array![[0.3f32, -1.2, 2.0], [1.0, 0.0, -0.5]];
        let labels = [2, 1];
        let mut gradient = Array2::zeros((2, 3));
        loss.gradient(logits.view(), &labels, gradient.view_mut());
        // In f64, written out once more, so that differences are not lost in rounding.
        let mean = |logits: &Array2<f64>| {
            let weights = [0.5, 2.0, 1.5];
            let mut sum = 0.0;
            for (row, label) in logits.rows().into_iter().zip(labels) {
                let total: f64 = row.iter().map(|z| z.exp()).sum();
                for class in 0..3 {
                    let target = 0.1 / 3.0 + if class == label as usize { 0.9 } else { 0.0 };
                    sum -= weights[class] * target * (row[class] - total.ln());
                }
            }
            sum / labels
                .iter()
                .map(|label| weights[*label as usize])
                .sum::<f64>()
        };
        let step = 1e-6;
        for index in ndarray::indices((2, 3)) {
            let (mut up, mut down) = (logits.mapv(f64::from), logits.mapv(f64::from));
            up[index] += step;
            down[index] -= step;
            let numeric = (mean(&up) - mean(&down)) / (2.0 * step);
            assert!(
                (numeric - f64::from(gradient[index])).abs() < 1e-6,
                "{index:?}"
            );
        }
    }

    #[test]
    fn logits_of_any_size_give_a_finite_loss() {
        let loss = CrossEntropy::default();
        let logits = array![[1e30f32, -1e30], [300.0, 200.0]];
        let mut gradient = Array2::zeros((2, 2));
        let sum = loss.gradient(logits.view(), &[0, 0], gradient.view_mut());
        assert_eq!(sum.mean(), 0.0);
        assert!(gradient.iter().all(|value| value.is_finite()));
    }
}

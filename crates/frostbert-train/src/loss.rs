//! Losses and their gradients: cross-entropy and focal loss over classes, their binary versions over labels, squared
//! error.
//!
//! All follow PyTorch where it has them: `cross_entropy`, `binary_cross_entropy_with_logits`, `mse_loss` with their
//! default mean. Sums and their weights are kept separate, so that a batch may be split into parts.

pub mod one_logit;
mod sigmoid;
mod softmax;

use std::ops::Range;

use ndarray::{ArrayView2, ArrayViewMut2, Axis, s};

use self::{sigmoid::Sigmoid, softmax::Softmax};
use crate::real::Real;

/// The class of a row that is ignored: it has no loss, no weight and no gradient.
pub const IGNORED: u32 = u32::MAX;

/// The loss that is minimised.
#[derive(Clone, Debug, PartialEq)]
pub enum Loss {
    /// `L = sum_c -t_c log p_c` with `p = softmax(z)` and `t_c = w_c ((1 - s) [c = y] + s / C)`.
    CrossEntropy {
        /// A weight `w` for each class; `None` for 1 each.
        class_weights: Option<Vec<f32>>,
        /// Probability mass `s` that is spread evenly over all `C` classes, from 0 to 1.
        label_smoothing: f32,
    },
    /// `L = sum_c -t_c (1 - p_c)^gamma log p_c`, with `t` as in the cross-entropy, which it equals at `gamma` 0 (Lin et
    /// al. 2017).
    Focal {
        /// How strongly well-classified rows are down-weighted, from 0.
        gamma: f32,
        /// As in the cross-entropy.
        class_weights: Option<Vec<f32>>,
        /// As in the cross-entropy.
        label_smoothing: f32,
    },
    /// `L = sum_c -w_c t_c log p_c - (1 - t_c) log(1 - p_c)` with `p_c = 1 / (1 + e^-z_c)`, independently for each
    /// label.
    Bce {
        /// A weight for each label that applies where it is set (PyTorch's `pos_weight`); `None` for 1 each.
        class_weights: Option<Vec<f32>>,
    },
    /// `L = sum_c -w_c t_c (1 - p_c)^gamma log p_c - (1 - t_c) p_c^gamma log(1 - p_c)`, with `p` as in [`Loss::Bce`].
    BinaryFocal {
        /// How strongly well-classified labels are down-weighted, from 0.
        gamma: f32,
        /// As in [`Loss::Bce`].
        class_weights: Option<Vec<f32>>,
    },
    /// `L = (z - y)^2` for the only output.
    Mse,
}

impl Default for Loss {
    /// A plain cross-entropy.
    fn default() -> Loss {
        Loss::CrossEntropy { class_weights: None, label_smoothing: 0.0 }
    }
}

/// The targets of the rows of a batch.
#[derive(Clone, Copy, Debug)]
pub enum Targets<'a> {
    /// A class for each row, or [`IGNORED`].
    Classes(&'a [u32]),
    /// `[rows, labels]`: 1 where a label is set, 0 elsewhere.
    Labels(ArrayView2<'a, f32>),
    /// A number for each row.
    Values(&'a [f32]),
}

impl<'a> Targets<'a> {
    /// Number of rows.
    pub fn len(&self) -> usize {
        match self {
            Targets::Classes(classes) => classes.len(),
            Targets::Labels(labels) => labels.nrows(),
            Targets::Values(values) => values.len(),
        }
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns some of the rows.
    ///
    /// # Panics
    /// Panics if the range is out of bounds.
    pub fn slice(self, rows: Range<usize>) -> Targets<'a> {
        match self {
            Targets::Classes(classes) => Targets::Classes(&classes[rows]),
            Targets::Labels(labels) => {
                Targets::Labels(labels.slice_move(s![rows.start..rows.end, ..]))
            }
            Targets::Values(values) => Targets::Values(&values[rows]),
        }
    }
}

/// A loss before it is divided by its weight, so that the losses of batches can be added up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossSum {
    /// Sum of weighted losses.
    pub sum: f64,
    /// Sum of the weights.
    pub weight: f64,
}

impl LossSum {
    /// `sum / weight`; 0 if nothing was counted.
    pub fn mean(self) -> f64 {
        if self.weight == 0.0 { 0.0 } else { self.sum / self.weight }
    }
}

impl std::ops::AddAssign for LossSum {
    fn add_assign(&mut self, other: LossSum) {
        self.sum += other.sum;
        self.weight += other.weight;
    }
}

impl Loss {
    /// The divisor that turns the sum of the rows' losses into their mean.
    ///
    /// This is the sum of the rows' class weights `w_y` for cross-entropy and focal loss (ignored rows have none), rows
    /// times labels for their binary versions, and the number of rows for the squared error.
    ///
    /// # Panics
    /// Panics if the targets are not of this loss's kind, or if a class has no weight.
    pub fn weight(&self, targets: Targets<'_>) -> f64 {
        match (self, targets) {
            (
                Loss::CrossEntropy { class_weights, .. } | Loss::Focal { class_weights, .. },
                Targets::Classes(classes),
            ) => {
                let counted = classes.iter().filter(|class| **class != IGNORED);
                match class_weights {
                    None => counted.count() as f64,
                    Some(weights) => counted.map(|class| f64::from(weights[*class as usize])).sum(),
                }
            }
            (Loss::Bce { .. } | Loss::BinaryFocal { .. }, Targets::Labels(labels)) => {
                labels.len() as f64
            }
            (Loss::Mse, Targets::Values(values)) => values.len() as f64,
            _ => panic!("{WRONG_TARGETS}"),
        }
    }

    /// `1 / weight` of a whole batch; 0 if nothing counts.
    ///
    /// # Panics
    /// Panics if [`Loss::weight`] would.
    pub fn scale<F: Real>(&self, targets: Targets<'_>) -> F {
        match self.weight(targets) {
            0.0 => F::zero(),
            weight => F::of(1.0 / weight),
        }
    }

    /// Returns the loss of `logits [rows, outputs]`, and writes `scale * dL/dlogits` of the rows' summed losses to
    /// `out`.
    ///
    /// To get the gradient of a batch's mean, pass [`Loss::scale`] of the whole batch as `scale`, whichever part of the
    /// batch these rows are. Logits of any finite size give finite numbers.
    ///
    /// ```
    /// use frostbert_train::loss::{Loss, Targets};
    /// use ndarray::{Array2, array};
    /// let mut gradient = Array2::<f32>::zeros((1, 2));
    /// let logits = array![[0.0, 0.0]];
    /// let loss = Loss::default().gradient(logits.view(), Targets::Classes(&[1]), 1.0, gradient.view_mut());
    /// assert!((loss.mean() - 2.0f64.ln()).abs() < 1e-7);
    /// assert_eq!(gradient, array![[0.5, -0.5]]);
    /// ```
    ///
    /// # Panics
    /// Panics if shapes differ, the targets are not of this loss's kind, or a class is neither an output nor
    /// [`IGNORED`]; the caller checks labels when it reads them.
    pub fn gradient<F: Real>(
        &self,
        logits: ArrayView2<'_, F>,
        targets: Targets<'_>,
        scale: F,
        out: ArrayViewMut2<'_, F>,
    ) -> LossSum {
        assert_eq!(logits.dim(), out.dim(), "one gradient per logit");
        self.sum(logits, targets, scale, Some(out), true)
    }

    /// Returns the loss alone, without smoothing, for validation.
    ///
    /// # Panics
    /// Panics if [`Loss::gradient`] would.
    pub fn loss<F: Real>(&self, logits: ArrayView2<'_, F>, targets: Targets<'_>) -> LossSum {
        self.sum(logits, targets, F::one(), None, false)
    }

    fn sum<F: Real>(
        &self,
        logits: ArrayView2<'_, F>,
        targets: Targets<'_>,
        scale: F,
        out: Option<ArrayViewMut2<'_, F>>,
        smoothing: bool,
    ) -> LossSum {
        assert_eq!(logits.nrows(), targets.len(), "one target per row");
        let weight = self.weight(targets);
        let smoothed = |share: f32| if smoothing { share } else { 0.0 };
        let sum = match (self, targets) {
            (Loss::CrossEntropy { class_weights, label_smoothing }, Targets::Classes(classes)) => {
                Softmax {
                    gamma: None,
                    class_weights: class_weights.as_deref(),
                    label_smoothing: smoothed(*label_smoothing),
                }
                .sum(logits, classes, scale, out)
            }
            (Loss::Focal { gamma, class_weights, label_smoothing }, Targets::Classes(classes)) => {
                Softmax {
                    gamma: Some(*gamma),
                    class_weights: class_weights.as_deref(),
                    label_smoothing: smoothed(*label_smoothing),
                }
                .sum(logits, classes, scale, out)
            }
            (Loss::Bce { class_weights }, Targets::Labels(labels)) => {
                Sigmoid { gamma: 0.0, class_weights: class_weights.as_deref() }
                    .sum(logits, labels, scale, out)
            }
            (Loss::BinaryFocal { gamma, class_weights }, Targets::Labels(labels)) => {
                Sigmoid { gamma: *gamma, class_weights: class_weights.as_deref() }
                    .sum(logits, labels, scale, out)
            }
            (Loss::Mse, Targets::Values(values)) => squared_error(logits, values, scale, out),
            _ => panic!("{WRONG_TARGETS}"),
        };
        LossSum { sum, weight }
    }
}

const WRONG_TARGETS: &str = "targets of the loss's kind";

fn squared_error<F: Real>(
    logits: ArrayView2<'_, F>,
    values: &[f32],
    scale: F,
    out: Option<ArrayViewMut2<'_, F>>,
) -> f64 {
    assert_eq!(logits.ncols(), 1, "one output per value");
    let error = |row: usize| logits[[row, 0]] - F::of(f64::from(values[row]));
    if let Some(mut out) = out {
        for (row, out) in out.index_axis_mut(Axis(1), 0).iter_mut().enumerate() {
            *out = scale * F::of(2.0) * error(row);
        }
    }
    (0..values.len()).map(|row| Into::<f64>::into(error(row)).powi(2)).sum()
}

#[cfg(test)]
mod tests;

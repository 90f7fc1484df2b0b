//! Binary cross-entropy and binary focal loss: every output is an independent label.

use multiversion::multiversion;
use ndarray::{ArrayView2, ArrayViewMut2};

use crate::real::Real;

/// Number of labels that are processed in parallel.
const LANES: usize = 16;

/// The settings of a loss over sigmoids; with a `gamma` of 0 it is the binary cross-entropy.
pub(super) struct Sigmoid<'a> {
    pub(super) gamma: f32,
    pub(super) class_weights: Option<&'a [f32]>,
}

impl Sigmoid<'_> {
    /// Returns the summed loss of all rows, and writes its gradient times `scale` to `out` if there is one.
    pub(super) fn sum<F: Real>(
        &self,
        logits: ArrayView2<'_, F>,
        labels: ArrayView2<'_, f32>,
        scale: F,
        mut out: Option<ArrayViewMut2<'_, F>>,
    ) -> f64 {
        assert_eq!(logits.dim(), labels.dim(), "one label per logit");
        let n_labels = logits.ncols();
        let weights: Vec<F> = match self.class_weights {
            Some(weights) => weights.iter().map(|w| F::of(f64::from(*w))).collect(),
            None => vec![F::one(); n_labels],
        };
        assert_eq!(weights.len(), n_labels, "one weight per label");
        let gamma = F::of(f64::from(self.gamma));
        let mut lanes = LabelLanes {
            logits: [F::zero(); LANES],
            set: [F::zero(); LANES],
            unset: [F::zero(); LANES],
            losses: [F::zero(); LANES],
            slopes: [F::zero(); LANES],
        };
        let mut sum = 0.0;
        for (index, (logits, labels)) in logits.rows().into_iter().zip(labels.rows()).enumerate() {
            for start in (0..n_labels).step_by(LANES) {
                let part = start..(start + LANES).min(n_labels);
                let width = part.len();
                for (lane, label) in part.clone().enumerate() {
                    let set = F::of(f64::from(labels[label]));
                    lanes.logits[lane] = logits[label];
                    lanes.set[lane] = set * weights[label];
                    lanes.unset[lane] = F::one() - set;
                }
                if gamma == F::zero() {
                    cross_entropies(&mut lanes)
                } else {
                    focal(&mut lanes, gamma)
                }
                for loss in &lanes.losses[..width] {
                    sum += Into::<f64>::into(*loss);
                }
                if let Some(out) = &mut out {
                    let mut out = out.row_mut(index);
                    for (lane, label) in part.enumerate() {
                        out[label] = scale * lanes.slopes[lane];
                    }
                }
            }
        }
        sum
    }
}

/// Some labels of a row: their logits, the weights of both outcomes, and the results.
struct LabelLanes<F> {
    logits: [F; LANES],
    /// The label's weight if it is set, otherwise 0.
    set: [F; LANES],
    /// 1 if the label is not set, otherwise 0.
    unset: [F; LANES],
    losses: [F; LANES],
    /// Derivatives of the losses by the logits.
    slopes: [F; LANES],
}

/// With `l = ln(1 + e^-|z|)`: `-log p = max(-z, 0) + l`, `-log(1 - p) = max(z, 0) + l`.
#[multiversion(targets = "simd")]
fn cross_entropies<F: Real>(lanes: &mut LabelLanes<F>) {
    for lane in 0..LANES {
        let (z, set, unset) = (lanes.logits[lane], lanes.set[lane], lanes.unset[lane]);
        let is_positive = z > F::zero();
        let size = if is_positive { z } else { -z };
        let exponential = (-size).fast_exp();
        let rest = exponential.fast_ln_1p();
        let larger = F::one() / (F::one() + exponential);
        let p = if is_positive { larger } else { exponential * larger };
        let (above, below) = if is_positive { (z, F::zero()) } else { (F::zero(), size) };
        lanes.losses[lane] = set * (below + rest) + unset * (above + rest);
        lanes.slopes[lane] = p * (set + unset) - set;
    }
}

fn focal<F: Real>(lanes: &mut LabelLanes<F>, gamma: F) {
    for lane in 0..LANES {
        let (loss_set, slope_set) = focal_term(lanes.logits[lane], gamma);
        let (loss_unset, slope_unset) = focal_term(-lanes.logits[lane], gamma);
        let (set, unset) = (lanes.set[lane], lanes.unset[lane]);
        lanes.losses[lane] = set * loss_set + unset * loss_unset;
        lanes.slopes[lane] = set * slope_set - unset * slope_unset;
    }
}

/// `-(1 - p)^gamma log p` for `p = 1 / (1 + e^-z)`, and its derivative by `z`:
/// `(1 - p)^gamma (gamma p log p - (1 - p))`.
fn focal_term<F: Real>(z: F, gamma: F) -> (F, F) {
    let exponential = (-z.abs()).fast_exp();
    let larger = F::one() / (F::one() + exponential);
    let smaller = exponential * larger;
    let (p, rest) = if z > F::zero() { (larger, smaller) } else { (smaller, larger) };
    let positive = if z > F::zero() { F::zero() } else { -z };
    let loss = positive + exponential.ln_1p();
    let power = rest.powf(gamma);
    (power * loss, -power * (gamma * p * loss + rest))
}

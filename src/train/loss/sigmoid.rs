//! Binary cross-entropy and binary focal loss: every output is a label for itself.

use ndarray::{ArrayView2, ArrayViewMut2, Zip};

use crate::train::real::Real;

/// The settings of a loss over sigmoids; a `gamma` of 0 is the binary cross-entropy.
pub(super) struct Sigmoid<'a> {
    pub(super) gamma: f32,
    pub(super) class_weights: Option<&'a [f32]>,
}

impl Sigmoid<'_> {
    /// The summed loss of all rows; writes its gradient times `scale` where it is wanted.
    pub(super) fn sum<F: Real>(
        &self,
        logits: ArrayView2<'_, F>,
        labels: ArrayView2<'_, f32>,
        scale: F,
        mut out: Option<ArrayViewMut2<'_, F>>,
    ) -> f64 {
        assert_eq!(logits.dim(), labels.dim(), "one label per logit");
        let weights = self.class_weights;
        assert!(
            weights.is_none_or(|weights| weights.len() == logits.ncols()),
            "one weight per label"
        );
        let gamma = F::of(f64::from(self.gamma));
        let mut sum = 0.0;
        for (index, (logits, labels)) in logits.rows().into_iter().zip(labels.rows()).enumerate() {
            let weight = |label: usize| weights.map_or(F::one(), |w| F::of(f64::from(w[label])));
            let terms = |label: usize, logit: F, set: f32| {
                let set = F::of(f64::from(set));
                let (loss_set, slope_set) = term(logit, gamma);
                let (loss_unset, slope_unset) = term(-logit, gamma);
                let (set, unset) = (set * weight(label), F::one() - set);
                (
                    set * loss_set + unset * loss_unset,
                    set * slope_set - unset * slope_unset,
                )
            };
            match &mut out {
                Some(out) => {
                    Zip::indexed(out.row_mut(index))
                        .and(logits)
                        .and(labels)
                        .for_each(|label, out, logit, set| {
                            let (loss, slope) = terms(label, *logit, *set);
                            sum += Into::<f64>::into(loss);
                            *out = scale * slope;
                        });
                }
                None => {
                    for (label, (logit, set)) in logits.iter().zip(labels).enumerate() {
                        sum += Into::<f64>::into(terms(label, *logit, *set).0);
                    }
                }
            }
        }
        sum
    }
}

/// `-(1 - p)^gamma log p` of `p = 1 / (1 + e^-z)`, and its derivative in `z`:
/// `(1 - p)^gamma (gamma p log p - (1 - p))`.
#[inline(always)]
fn term<F: Real>(z: F, gamma: F) -> (F, F) {
    let exponential = (-z.abs()).fast_exp();
    let larger = F::one() / (F::one() + exponential);
    let smaller = exponential * larger;
    let (p, rest) = if z > F::zero() {
        (larger, smaller)
    } else {
        (smaller, larger)
    };
    let positive = if z > F::zero() { F::zero() } else { -z };
    let loss = positive + exponential.ln_1p();
    if gamma == F::zero() {
        return (loss, -rest);
    }
    let power = rest.powf(gamma);
    (power * loss, -power * (gamma * p * loss + rest))
}

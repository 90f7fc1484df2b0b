//! Cross-entropy and focal loss over mutually exclusive classes.

use std::array;

use multiversion::multiversion;
use ndarray::{ArrayView2, ArrayViewMut2, s};

use super::IGNORED;
use crate::real::Real;

/// Number of rows that are processed in parallel.
const LANES: usize = 16;

/// The settings of a loss over a softmax.
pub(super) struct Softmax<'a> {
    /// `None` for a cross-entropy.
    pub(super) gamma: Option<f32>,
    pub(super) class_weights: Option<&'a [f32]>,
    pub(super) label_smoothing: f32,
}

impl Softmax<'_> {
    /// Returns the summed loss of all rows, and writes its gradient times `scale` to `out` if there is one.
    pub(super) fn sum<F: Real>(
        &self,
        logits: ArrayView2<'_, F>,
        classes: &[u32],
        scale: F,
        mut out: Option<ArrayViewMut2<'_, F>>,
    ) -> f64 {
        let n_classes = logits.ncols();
        let weights: Vec<F> = match self.class_weights {
            Some(weights) => weights.iter().map(|w| F::of(f64::from(*w))).collect(),
            None => vec![F::one(); n_classes],
        };
        assert_eq!(weights.len(), n_classes, "one weight per class");
        let smoothing = F::of(f64::from(self.label_smoothing));
        let mut tile = ClassTile {
            shifted: vec![[F::zero(); LANES]; n_classes],
            exponentials: vec![[F::zero(); LANES]; n_classes],
            total: [F::zero(); LANES],
            own: [F::zero(); LANES],
            spread: [F::zero(); LANES],
            classes: [0; LANES],
        };
        let mut sum = 0.0;
        for (number, part) in classes.chunks(LANES).enumerate() {
            let rows = number * LANES..number * LANES + part.len();
            let logits = logits.slice(s![rows.start..rows.end, ..]);
            for (lane, row) in logits.rows().into_iter().enumerate() {
                for (column, logit) in tile.shifted.iter_mut().zip(row) {
                    column[lane] = *logit;
                }
            }
            for (lane, class) in part.iter().enumerate() {
                let counted = *class != IGNORED;
                let class = if counted { *class as usize } else { 0 };
                let share = if counted { F::one() } else { F::zero() };
                tile.classes[lane] = class;
                tile.own[lane] = share * (F::one() - smoothing) * weights[class];
                tile.spread[lane] = share * smoothing / F::of(n_classes as f64);
            }
            let losses = match self.gamma {
                None => cross_entropy(&mut tile, &weights),
                Some(gamma) => focal(&mut tile, &weights, F::of(f64::from(gamma))),
            };
            for (loss, class) in losses.into_iter().zip(part) {
                if *class != IGNORED {
                    sum += Into::<f64>::into(loss);
                }
            }
            let Some(out) = &mut out else { continue };
            let mut out = out.slice_mut(s![rows.start..rows.end, ..]);
            for (lane, mut row) in out.rows_mut().into_iter().enumerate() {
                if part[lane] == IGNORED {
                    row.fill(F::zero());
                    continue;
                }
                for (out, column) in row.iter_mut().zip(&tile.exponentials) {
                    *out = scale * column[lane];
                }
            }
        }
        sum
    }
}

/// Some rows in class-major order, so that every operation runs over all of them at once.
struct ClassTile<F> {
    /// The logits, later with their row's maximum subtracted; `[classes][rows]`.
    shifted: Vec<[F; LANES]>,
    /// `e^shifted`, then the gradient; `[classes][rows]`.
    exponentials: Vec<[F; LANES]>,
    /// The sum of a row's exponentials.
    total: [F; LANES],
    /// The share of the target that goes to the row's own class, with its weight but without the smoothing.
    own: [F; LANES],
    /// The share of the target that goes to every class, before its class weight.
    spread: [F; LANES],
    classes: [usize; LANES],
}

/// Shifts the logits and fills in their exponentials and totals.
///
/// A row with NaN has a total of NaN, so that it does not go unnoticed.
#[inline(always)]
fn exponentials<F: Real>(tile: &mut ClassTile<F>) {
    let mut maximum = tile.shifted[0];
    for column in &tile.shifted {
        for lane in 0..LANES {
            if column[lane] > maximum[lane] {
                maximum[lane] = column[lane];
            }
        }
    }
    let mut total = [F::zero(); LANES];
    for (shifted, exponentials) in tile.shifted.iter_mut().zip(&mut tile.exponentials) {
        for lane in 0..LANES {
            shifted[lane] -= maximum[lane];
            exponentials[lane] = shifted[lane].fast_exp();
            total[lane] += exponentials[lane];
        }
    }
    tile.total = total;
}

/// Returns the rows' losses; the tile's exponentials become gradients, `p_c sum_k t_k - t_c`.
#[multiversion(targets = "simd")]
fn cross_entropy<F: Real>(tile: &mut ClassTile<F>, weights: &[F]) -> [F; LANES] {
    exponentials(tile);
    let all_weights = weights.iter().fold(F::zero(), |sum, weight| sum + *weight);
    let targets: [F; LANES] =
        array::from_fn(|lane| tile.own[lane] + tile.spread[lane] * all_weights);
    let factor: [F; LANES] = array::from_fn(|lane| targets[lane] / tile.total[lane]);
    let mut spread_loss = [F::zero(); LANES];
    let columns = tile.shifted.iter().zip(&mut tile.exponentials);
    for ((shifted, gradient), weight) in columns.zip(weights) {
        for lane in 0..LANES {
            let target = tile.spread[lane] * *weight;
            spread_loss[lane] -= target * shifted[lane];
            gradient[lane] = gradient[lane] * factor[lane] - target;
        }
    }
    array::from_fn(|lane| {
        let (own, class) = (tile.own[lane], tile.classes[lane]);
        tile.exponentials[class][lane] -= own;
        // -sum_c t_c (shifted_c - log total): no term is negative, so nothing cancels.
        targets[lane] * tile.total[lane].ln() + spread_loss[lane] - own * tile.shifted[class][lane]
    })
}

/// Like [`cross_entropy`], with every term multiplied by `(1 - p_c)^gamma`.
///
/// With `f(l) = -(1 - e^l)^gamma l` and `l_c = log p_c`: `dL/dz_k = t_k f'(l_k) - p_k sum_c t_c f'(l_c)`.
#[multiversion(targets = "simd")]
fn focal<F: Real>(tile: &mut ClassTile<F>, weights: &[F], gamma: F) -> [F; LANES] {
    exponentials(tile);
    array::from_fn(|lane| {
        let mut loss = F::zero();
        let (total, log_total) = (tile.total[lane], tile.total[lane].ln());
        let mut slopes = F::zero();
        for (class, weight) in weights.iter().enumerate() {
            let log_p = tile.shifted[class][lane] - log_total;
            let own = class == tile.classes[lane];
            let target = tile.spread[lane] * *weight + if own { tile.own[lane] } else { F::zero() };
            let mut slope = F::zero();
            if target != F::zero() {
                let rest = -log_p.exp_m1();
                let power = rest.powf(gamma);
                loss -= target * power * log_p;
                // log p / (1 - p) tends to -1 as p tends to 1.
                let ratio = if rest == F::zero() { -F::one() } else { log_p / rest };
                slope = target * power * (gamma * log_p.exp() * ratio - F::one());
            }
            tile.shifted[class][lane] = slope;
            slopes += slope;
        }
        for class in 0..weights.len() {
            let p = tile.exponentials[class][lane] / total;
            tile.exponentials[class][lane] = tile.shifted[class][lane] - p * slopes;
        }
        loss
    })
}

//! SGD, Adam and AdamW, element by element, with settings per column: every column may belong to another head.

mod alike;

use std::ops::Range;

use multiversion::multiversion;
use serde::{Deserialize, Serialize};

use crate::{aligned::Aligned, panel::LANES};

/// The kind of optimiser.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// `v = momentum v + g + decay w; w -= lr v` (PyTorch's SGD).
    Sgd,
    /// Adam (Kingma and Ba 2015) with the decay added to the gradient (PyTorch's Adam).
    Adam,
    /// Adam with decoupled decay, `w -= lr decay w` (Loshchilov and Hutter 2019; PyTorch's AdamW).
    #[default]
    AdamW,
}

/// The settings of an optimiser.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Optimizer {
    /// The kind.
    pub kind: OptimizerKind,
    /// Learning rate before the schedule.
    pub lr: f64,
    /// Weight decay, applied to weights and biases alike, as in PyTorch with a single parameter group.
    pub weight_decay: f64,
    /// Momentum of SGD.
    pub momentum: f64,
    /// Betas of Adam and AdamW.
    pub betas: [f64; 2],
}

impl Default for Optimizer {
    /// AdamW with a learning rate of 1e-3 and a decay of 0.01, as in a pipeline file that specifies none.
    fn default() -> Optimizer {
        Optimizer {
            kind: OptimizerKind::AdamW,
            lr: 1e-3,
            weight_decay: 0.01,
            momentum: 0.9,
            betas: [0.9, 0.999],
        }
    }
}

impl Optimizer {
    /// The optimiser that moves the difference `d` of two columns as this one moves both, if their gradients are each
    /// other's negatives: `d` moves twice as fast, and decays at the same rate. Not valid for Adam with a decay, which
    /// mixes the decay with the gradient.
    pub fn of_difference(&self) -> Optimizer {
        Optimizer { lr: 2.0 * self.lr, weight_decay: self.weight_decay / 2.0, ..*self }
    }
}

/// Added to the square root of Adam's second moment.
pub const EPSILON: f32 = 1e-8;

/// Corrects the bias of Adam's moments, which are zero at the start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Corrections {
    /// `1 / (1 - beta_1^t)`
    rate: f64,
    /// `1 / sqrt(1 - beta_2^t)`
    root: f64,
}

impl Corrections {
    /// The corrections of step `step` (from 0): `t = step + 1`.
    pub fn new([beta1, beta2]: [f64; 2], step: usize) -> Corrections {
        let t = step as i32 + 1;
        Corrections { rate: 1.0 / (1.0 - beta1.powi(t)), root: 1.0 / (1.0 - beta2.powi(t)).sqrt() }
    }
}

/// The factors of one step in one column, ready to be used element by element.
///
/// One formula serves all kinds of optimiser, which differ only in the values of these factors:
/// `g' = scale g + coupled w`, `m = decay_m m + gain_m g'`, `v = decay_v v + gain_v g'^2`,
/// `w = keep w - rate m / (root sqrt(v) + offset)`.
#[derive(Clone, Copy, Debug, Default)]
struct Factors {
    scale: f32,
    coupled: f32,
    decay_m: f32,
    gain_m: f32,
    decay_v: f32,
    gain_v: f32,
    keep: f32,
    rate: f32,
    root: f32,
    offset: f32,
}

impl Factors {
    fn new(
        optimizer: &Optimizer,
        corrections: Corrections,
        lr_factor: f64,
        gradient_scale: f32,
    ) -> Factors {
        let lr = optimizer.lr * lr_factor;
        let common = Factors { scale: gradient_scale, keep: 1.0, ..Factors::default() };
        if optimizer.kind == OptimizerKind::Sgd {
            return Factors {
                coupled: optimizer.weight_decay as f32,
                decay_m: optimizer.momentum as f32,
                gain_m: 1.0,
                rate: lr as f32,
                offset: 1.0,
                ..common
            };
        }
        let [beta1, beta2] = optimizer.betas;
        let decoupled = optimizer.kind == OptimizerKind::AdamW;
        let decay = optimizer.weight_decay;
        Factors {
            coupled: if decoupled { 0.0 } else { decay as f32 },
            decay_m: beta1 as f32,
            gain_m: (1.0 - beta1) as f32,
            decay_v: beta2 as f32,
            gain_v: (1.0 - beta2) as f32,
            keep: if decoupled { (1.0 - lr * decay) as f32 } else { 1.0 },
            rate: (lr * corrections.rate) as f32,
            root: corrections.root as f32,
            offset: EPSILON,
            ..common
        }
    }

    #[inline(always)]
    fn apply(&self, weight: &mut f32, gradient: f32, first: &mut f32, second: &mut f32) {
        let g = self.scale * gradient + self.coupled * *weight;
        *first = self.decay_m * *first + self.gain_m * g;
        *second = self.decay_v * *second + self.gain_v * g * g;
        let denominator = second.sqrt() * self.root + self.offset;
        *weight = self.keep * *weight - self.rate * *first / denominator;
    }
}

/// The moments of some columns' parameters, and the step that updates the parameters.
#[derive(Clone, Debug)]
pub struct OptimizerState {
    first: Aligned,
    second: Aligned,
    factors: Vec<FactorLanes>,
}

impl OptimizerState {
    /// Creates zero moments for `rows x columns` parameters.
    ///
    /// # Panics
    /// Panics if `columns` is not a multiple of [`LANES`].
    pub fn new(rows: usize, columns: usize) -> OptimizerState {
        assert!(columns.is_multiple_of(LANES), "whole lanes of columns");
        OptimizerState {
            first: Aligned::zeros(rows * columns),
            second: Aligned::zeros(rows * columns),
            factors: vec![FactorLanes::default(); columns / LANES],
        }
    }

    /// Sets what the next step does to the columns `range`; columns that are never set do not move.
    ///
    /// `corrections` belong to the step and the optimiser's betas; `gradient_scale` is the factor that clips the
    /// gradient, 1 for no clipping.
    pub fn set_columns(
        &mut self,
        range: Range<usize>,
        optimizer: &Optimizer,
        corrections: Corrections,
        lr_factor: f64,
        gradient_scale: f32,
    ) {
        let factors = Factors::new(optimizer, corrections, lr_factor, gradient_scale);
        self.fill(range, factors);
    }

    /// First and second moments, `[rows, columns]` each.
    pub fn moments(&self) -> [&[f32]; 2] {
        [&self.first, &self.second]
    }

    /// Like [`OptimizerState::moments`], but mutable.
    pub fn moments_mut(&mut self) -> [&mut [f32]; 2] {
        [&mut self.first, &mut self.second]
    }

    /// Keeps the parameters of the columns `range` unchanged from now on.
    pub fn freeze_columns(&mut self, range: Range<usize>) {
        let still = Factors { keep: 1.0, offset: 1.0, ..Factors::default() };
        self.fill(range, still);
    }

    fn fill(&mut self, range: Range<usize>, factors: Factors) {
        for column in range {
            self.factors[column / LANES].set(column % LANES, factors);
        }
    }

    /// Updates `parameters [rows, columns]` with `gradients` of the same shape, both row-major.
    ///
    /// # Panics
    /// Panics if the lengths differ from those that the state was created for.
    pub fn step(&mut self, parameters: &mut [f32], gradients: &[f32]) {
        let (n_parameters, n_gradients) = (parameters.len(), gradients.len());
        assert_eq!(n_parameters, self.first.len(), "parameters of its shape");
        assert_eq!(n_gradients, self.first.len(), "gradients of its shape");
        let (first, second) = (&mut self.first, &mut self.second);
        apply_to_lanes(&self.factors, parameters, gradients, first, second);
    }
}

/// The factors of some columns, with one array for each kind of factor, so that they can be used as vectors.
#[derive(Clone, Debug, Default)]
struct FactorLanes {
    scale: [f32; LANES],
    coupled: [f32; LANES],
    decay_m: [f32; LANES],
    gain_m: [f32; LANES],
    decay_v: [f32; LANES],
    gain_v: [f32; LANES],
    keep: [f32; LANES],
    rate: [f32; LANES],
    root: [f32; LANES],
    offset: [f32; LANES],
}

impl FactorLanes {
    fn set(&mut self, lane: usize, factors: Factors) {
        self.scale[lane] = factors.scale;
        self.coupled[lane] = factors.coupled;
        self.decay_m[lane] = factors.decay_m;
        self.gain_m[lane] = factors.gain_m;
        self.decay_v[lane] = factors.decay_v;
        self.gain_v[lane] = factors.gain_v;
        self.keep[lane] = factors.keep;
        self.rate[lane] = factors.rate;
        self.root[lane] = factors.root;
        self.offset[lane] = factors.offset;
    }

    #[inline(always)]
    fn of(&self, lane: usize) -> Factors {
        Factors {
            scale: self.scale[lane],
            coupled: self.coupled[lane],
            decay_m: self.decay_m[lane],
            gain_m: self.gain_m[lane],
            decay_v: self.decay_v[lane],
            gain_v: self.gain_v[lane],
            keep: self.keep[lane],
            rate: self.rate[lane],
            root: self.root[lane],
            offset: self.offset[lane],
        }
    }

    /// [`Factors::apply`] on all lanes.
    #[inline(always)]
    fn apply(
        &self,
        weights: &mut [f32; LANES],
        gradients: &[f32; LANES],
        first: &mut [f32; LANES],
        second: &mut [f32; LANES],
    ) {
        for lane in 0..LANES {
            let factors = self.of(lane);
            factors.apply(&mut weights[lane], gradients[lane], &mut first[lane], &mut second[lane]);
        }
    }
}

/// Updates all rows, [`LANES`] columns at a time; their factors are copied, so that they stay in registers.
#[multiversion(targets = "simd")]
fn apply_to_lanes(
    factors: &[FactorLanes],
    weights: &mut [f32],
    gradients: &[f32],
    first: &mut [f32],
    second: &mut [f32],
) {
    let (weights, _) = weights.as_chunks_mut();
    let (gradients, _) = gradients.as_chunks();
    let (first, _) = first.as_chunks_mut();
    let (second, _) = second.as_chunks_mut();
    let width = factors.len();
    for (group, factors) in factors.iter().cloned().enumerate() {
        let values = weights[group..]
            .iter_mut()
            .step_by(width)
            .zip(gradients[group..].iter().step_by(width));
        let moments =
            first[group..].iter_mut().step_by(width).zip(second[group..].iter_mut().step_by(width));
        for ((weights, gradients), (first, second)) in values.zip(moments) {
            factors.apply(weights, gradients, first, second);
        }
    }
}

/// The moments of one head's parameters, all of which have the same settings.
///
/// Gives the same bits as an [`OptimizerState`] whose columns all have these settings, several times as fast.
#[derive(Clone, Debug)]
pub struct FlatOptimizer {
    first: Vec<f32>,
    second: Vec<f32>,
}

impl FlatOptimizer {
    /// Creates zero moments.
    pub fn new(n_parameters: usize) -> FlatOptimizer {
        FlatOptimizer { first: vec![0.0; n_parameters], second: vec![0.0; n_parameters] }
    }

    /// Runs step `step` (from 0): updates `parameters` with `gradients`.
    ///
    /// `gradient_scale` is the factor that clips the gradient ([`clip_scale`]), 1 for no clipping.
    ///
    /// ```
    /// use frostbert_train::optimizer::{FlatOptimizer, Optimizer, OptimizerKind};
    /// let sgd = Optimizer {
    ///     kind: OptimizerKind::Sgd, lr: 0.5, weight_decay: 0.0, momentum: 0.0, betas: [0.9, 0.999],
    /// };
    /// let mut parameters = [1.0, 2.0];
    /// FlatOptimizer::new(2).step(&mut parameters, &[2.0, -2.0], &sgd, 0, 1.0, 1.0);
    /// assert_eq!(parameters, [0.0, 3.0]);
    /// ```
    ///
    /// # Panics
    /// Panics if the lengths differ from the one that the state was created for.
    pub fn step(
        &mut self,
        parameters: &mut [f32],
        gradients: &[f32],
        optimizer: &Optimizer,
        step: usize,
        lr_factor: f64,
        gradient_scale: f32,
    ) {
        let n = self.first.len();
        assert_eq!(parameters.len(), n, "parameters of the optimiser's number");
        assert_eq!(gradients.len(), n, "gradients of the optimiser's number");
        let corrections = Corrections::new(optimizer.betas, step);
        let factors = Factors::new(optimizer, corrections, lr_factor, gradient_scale);
        apply_to_all(factors, parameters, gradients, &mut self.first, &mut self.second);
    }
}

/// The factor that limits the norm of gradients to `clip`: `min(1, clip / (norm + 1e-6))`, as in PyTorch's
/// `clip_grad_norm_`.
///
/// ```
/// use frostbert_train::optimizer::clip_scale;
/// assert_eq!(clip_scale(&[3.0, 4.0], 10.0), 1.0);
/// assert!((clip_scale(&[3.0, 4.0], 1.0) - 0.2).abs() < 1e-6);
/// ```
pub fn clip_scale(gradients: &[f32], clip: f64) -> f32 {
    clip_scale_of(sum_of_squares(gradients).sqrt(), clip)
}

/// [`clip_scale`] for gradients whose norm is known.
pub fn clip_scale_of(norm: f64, clip: f64) -> f32 {
    (clip / (norm + 1e-6)).min(1.0) as f32
}

#[multiversion(targets = "simd")]
fn sum_of_squares(values: &[f32]) -> f64 {
    let mut sums = [0.0f64; 16];
    let chunks = values.chunks_exact(16);
    let rest = chunks.remainder();
    for chunk in chunks {
        for lane in 0..16 {
            sums[lane] += f64::from(chunk[lane]) * f64::from(chunk[lane]);
        }
    }
    let rest: f64 = rest.iter().map(|value| f64::from(*value).powi(2)).sum();
    sums.iter().sum::<f64>() + rest
}

#[multiversion(targets = "simd")]
fn apply_to_all(
    factors: Factors,
    parameters: &mut [f32],
    gradients: &[f32],
    first: &mut [f32],
    second: &mut [f32],
) {
    let moments = first.iter_mut().zip(second);
    for ((weight, gradient), (first, second)) in parameters.iter_mut().zip(gradients).zip(moments) {
        factors.apply(weight, *gradient, first, second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Several groups of lanes.
    const N_COLUMNS: usize = 3 * LANES;

    #[test]
    fn one_heads_parameters_move_as_columns_that_are_all_set_alike() {
        for kind in [OptimizerKind::Sgd, OptimizerKind::Adam, OptimizerKind::AdamW] {
            let optimizer =
                Optimizer { kind, lr: 0.01, weight_decay: 0.1, momentum: 0.9, betas: [0.9, 0.999] };
            let mut flat: Vec<f32> = (0..37 * N_COLUMNS).map(|i| (i as f32).sin()).collect();
            let mut columns = flat.clone();
            let mut flat_state = FlatOptimizer::new(flat.len());
            let mut column_state = OptimizerState::new(37, N_COLUMNS);
            for step in 0..5 {
                let gradients: Vec<f32> =
                    (0..flat.len()).map(|i| ((i * (step + 2)) as f32).cos()).collect();
                let before = flat.clone();
                flat_state.step(&mut flat, &gradients, &optimizer, step, 0.7, 0.5);
                let corrections = Corrections::new(optimizer.betas, step);
                column_state.set_columns(0..N_COLUMNS, &optimizer, corrections, 0.7, 0.5);
                column_state.step(&mut columns, &gradients);
                assert_eq!(flat, columns, "{kind:?}, step {step}");
                assert!(flat != before);
            }
        }
    }

    #[test]
    fn a_norm_of_any_length_clips_as_pytorch_does() {
        for length in [0, 1, 16, 37] {
            let gradients: Vec<f32> = (0..length).map(|i| i as f32).collect();
            let norm = gradients.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>();
            let expected = (2.0 / (norm.sqrt() + 1e-6)).min(1.0) as f32;
            assert_eq!(clip_scale(&gradients, 2.0), expected);
        }
    }
}

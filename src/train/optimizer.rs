//! SGD, Adam and AdamW, element by element, with their settings per column: every column may belong to another head.

use serde::{Deserialize, Serialize};

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

/// An optimiser's settings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Optimizer {
    /// The kind.
    pub kind: OptimizerKind,
    /// Learning rate before the schedule.
    pub lr: f64,
    /// Weight decay, of weights and biases alike as in PyTorch's one parameter group.
    pub weight_decay: f64,
    /// Of SGD.
    pub momentum: f64,
    /// Of Adam and AdamW.
    pub betas: [f64; 2],
}

/// Added to the root of Adam's second moment.
pub const EPSILON: f32 = 1e-8;

/// The factors of one step in one column, ready to be used element by element.
///
/// One formula serves all kinds, because a kind is no more than values of these factors:
/// `g' = scale g + coupled w`, `m = decay_m m + gain_m g'`, `v = decay_v v + gain_v g'^2`,
/// `w = keep w - rate m / (adaptive sqrt(v) / correction + offset)`.
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
    fn new(optimizer: &Optimizer, step: usize, lr_factor: f64, gradient_scale: f32) -> Factors {
        let lr = optimizer.lr * lr_factor;
        let common = Factors {
            scale: gradient_scale,
            keep: 1.0,
            ..Factors::default()
        };
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
        let exponent = step as i32 + 1;
        let decoupled = optimizer.kind == OptimizerKind::AdamW;
        let decay = optimizer.weight_decay;
        Factors {
            coupled: if decoupled { 0.0 } else { decay as f32 },
            decay_m: beta1 as f32,
            gain_m: (1.0 - beta1) as f32,
            decay_v: beta2 as f32,
            gain_v: (1.0 - beta2) as f32,
            keep: if decoupled {
                (1.0 - lr * decay) as f32
            } else {
                1.0
            },
            rate: (lr / (1.0 - beta1.powi(exponent))) as f32,
            root: (1.0 / (1.0 - beta2.powi(exponent)).sqrt()) as f32,
            offset: EPSILON,
            ..common
        }
    }
}

/// The moments of some columns' parameters, and the step that changes them.
#[derive(Clone, Debug)]
pub struct OptimizerState {
    first: Vec<f32>,
    second: Vec<f32>,
    factors: Vec<Factors>,
}

impl OptimizerState {
    /// Zero moments for `rows x columns` parameters.
    pub fn new(rows: usize, columns: usize) -> OptimizerState {
        OptimizerState {
            first: vec![0.0; rows * columns],
            second: vec![0.0; rows * columns],
            factors: vec![Factors::default(); columns],
        }
    }

    /// Sets what step `step` (from 0) does to the columns `range`; columns that are never set do not move.
    ///
    /// `gradient_scale` is what clipping leaves of the gradient: 1 for all of it.
    pub fn set_columns(
        &mut self,
        range: std::ops::Range<usize>,
        optimizer: &Optimizer,
        step: usize,
        lr_factor: f64,
        gradient_scale: f32,
    ) {
        self.factors[range].fill(Factors::new(optimizer, step, lr_factor, gradient_scale));
    }

    /// Holds the columns `range` where they are.
    pub fn freeze_columns(&mut self, range: std::ops::Range<usize>) {
        self.factors[range].fill(Factors {
            keep: 1.0,
            offset: 1.0,
            ..Factors::default()
        });
    }

    /// Moves `parameters [rows, columns]` along `gradients` of the same shape, both row-major.
    ///
    /// # Panics
    /// When the lengths differ from those that the state was made for.
    pub fn step(&mut self, parameters: &mut [f32], gradients: &[f32]) {
        assert_eq!(
            parameters.len(),
            self.first.len(),
            "parameters of the optimiser's shape"
        );
        assert_eq!(
            gradients.len(),
            self.first.len(),
            "gradients of the optimiser's shape"
        );
        let columns = self.factors.len();
        let rows = parameters
            .chunks_exact_mut(columns)
            .zip(gradients.chunks_exact(columns))
            .zip(
                self.first
                    .chunks_exact_mut(columns)
                    .zip(self.second.chunks_exact_mut(columns)),
            );
        for ((weights, gradient), (first, second)) in rows {
            for column in 0..columns {
                let f = &self.factors[column];
                let g = f.scale * gradient[column] + f.coupled * weights[column];
                first[column] = f.decay_m * first[column] + f.gain_m * g;
                second[column] = f.decay_v * second[column] + f.gain_v * g * g;
                let denominator = second[column].sqrt() * f.root + f.offset;
                weights[column] = f.keep * weights[column] - f.rate * first[column] / denominator;
            }
        }
    }
}

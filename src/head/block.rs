//! A block of the bank: some heads' columns side by side, their optimiser, and one training step.
//!
//! A block owns all that it changes, so blocks run side by side without a barrier. Its width depends on nothing but its
//! own heads' number of classes, so a head gives the same bits alone and among others, on one thread and on many.

use std::ops::Range;

use ndarray::{Array1, Array2, ArrayView2, s};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};

use super::spec::HeadSpec;
use crate::train::{
    dropout::drop_units,
    gemm::multiply,
    loss::{LossSum, Targets},
    optimizer::OptimizerState,
};

/// Columns of a block of narrow heads.
pub const BLOCK_COLUMNS: usize = 32;

/// A wider head is a block of its own, of a multiple of this many columns.
const WIDE_COLUMNS: usize = 16;

/// Standard deviation of the initial weights, BERT's own.
const INITIAL_DEVIATION: f32 = 0.02;

/// Heads that share a block: their inputs are dropped alike.
pub struct Block {
    heads: Vec<BlockHead>,
    n_features: usize,
    columns: usize,
    /// `[n_features + 1, columns]`, the biases in the last row.
    parameters: Array2<f32>,
    gradients: Array2<f32>,
    optimizer: OptimizerState,
    steps_done: usize,
    total_steps: usize,
    inputs: Array2<f32>,
    logits: Array2<f32>,
    errors: Array2<f32>,
}

/// One head in a block.
struct BlockHead {
    /// Its number in the bank.
    index: usize,
    spec: HeadSpec,
    columns: Range<usize>,
    active: bool,
    epoch_loss: LossSum,
}

/// Which rows a training step sees.
#[derive(Clone, Copy)]
pub struct BatchView<'a> {
    /// Standardised features, `[rows, n_features]`.
    pub features: ArrayView2<'a, f32>,
    /// A class for each row.
    pub labels: &'a [u32],
    /// A number for each row that dropout knows it by.
    pub row_ids: &'a [u32],
    /// From 1.
    pub epoch: usize,
}

/// Cuts heads into blocks: the numbers of the heads in each, in order.
///
/// Narrow heads that drop the same inputs (equal rate; equal seed unless nothing is dropped) share blocks of 32
/// columns; a head of more than 32 classes has a block of its own.
pub fn assign(specs: &[HeadSpec]) -> Vec<Vec<usize>> {
    let mut blocks: Vec<Assigned> = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        let mask_seed = if spec.dropout == 0.0 { 0 } else { spec.seed };
        let narrow = spec.n_classes <= BLOCK_COLUMNS;
        let dropped_inputs = narrow.then_some((spec.dropout.to_bits(), mask_seed));
        let open = blocks.iter_mut().rev().find(|block| {
            narrow
                && block.dropped_inputs == dropped_inputs
                && block.columns + spec.n_classes <= BLOCK_COLUMNS
        });
        match open {
            Some(block) => {
                block.columns += spec.n_classes;
                block.heads.push(index);
            }
            None => blocks.push(Assigned {
                dropped_inputs,
                columns: spec.n_classes,
                heads: vec![index],
            }),
        }
    }
    blocks.into_iter().map(|block| block.heads).collect()
}

/// A block while heads are assigned to it.
struct Assigned {
    /// Rate (its bits) and seed of the dropout that all its heads share; `None` for a wide head.
    dropped_inputs: Option<(u32, u64)>,
    columns: usize,
    heads: Vec<usize>,
}

impl Block {
    /// A block of these heads (number in the bank, settings), with initial weights.
    ///
    /// Weights are drawn from `normal(0, 0.02)` by a generator seeded with the head's seed alone; biases are 0.
    pub fn new(heads: Vec<(usize, HeadSpec)>, n_features: usize, total_steps: usize) -> Block {
        let used: usize = heads.iter().map(|(_, spec)| spec.n_classes).sum();
        let columns = if used <= BLOCK_COLUMNS {
            BLOCK_COLUMNS
        } else {
            used.next_multiple_of(WIDE_COLUMNS)
        };
        let mut parameters = Array2::zeros((n_features + 1, columns));
        let mut start = 0;
        let heads = heads
            .into_iter()
            .map(|(index, spec)| {
                let range = start..start + spec.n_classes;
                start = range.end;
                let weights = initial_weights(n_features, &spec);
                parameters
                    .slice_mut(s![..n_features, range.clone()])
                    .assign(&weights);
                BlockHead {
                    index,
                    spec,
                    columns: range,
                    active: true,
                    epoch_loss: LossSum::default(),
                }
            })
            .collect();
        Block {
            heads,
            n_features,
            columns,
            gradients: Array2::zeros(parameters.dim()),
            optimizer: OptimizerState::new(n_features + 1, columns),
            parameters,
            steps_done: 0,
            total_steps,
            inputs: Array2::zeros((0, n_features)),
            logits: Array2::zeros((0, columns)),
            errors: Array2::zeros((0, columns)),
        }
    }

    /// The numbers of this block's heads in the bank.
    pub fn head_indices(&self) -> impl Iterator<Item = usize> {
        self.heads.iter().map(|head| head.index)
    }

    /// Whether any head still trains.
    pub fn is_active(&self) -> bool {
        self.heads.iter().any(|head| head.active)
    }

    /// Ends the training of a head: its columns stay as they are.
    pub fn stop(&mut self, index: usize) {
        for head in self.heads.iter_mut().filter(|head| head.index == index) {
            head.active = false;
            self.optimizer.freeze_columns(head.columns.clone());
        }
    }

    /// One step of every active head: forward, loss, backward, clip, update.
    ///
    /// ```text
    /// Z = dropout(X) W + b      E = dL/dZ      G = dropout(X)^T E,  sum of E's rows for b
    /// ```
    pub fn step(&mut self, batch: &BatchView<'_>) {
        let rows = batch.labels.len();
        if self.logits.nrows() != rows {
            self.logits = Array2::zeros((rows, self.columns));
            self.errors = Array2::zeros((rows, self.columns));
        }
        let inputs = dropped(batch, &self.heads[0].spec, &mut self.inputs);
        forward(inputs, &self.parameters, &mut self.logits);
        for head in self.heads.iter_mut().filter(|head| head.active) {
            let columns = s![.., head.columns.clone()];
            let (logits, errors) = (self.logits.slice(columns), self.errors.slice_mut(columns));
            let (loss, targets) = (&head.spec.loss, Targets::Classes(batch.labels));
            head.epoch_loss += loss.gradient(logits, targets, loss.scale(targets), errors);
        }
        let (mut weights, mut bias) = self
            .gradients
            .view_mut()
            .split_at(ndarray::Axis(0), self.n_features);
        multiply(inputs.t(), self.errors.view(), weights.view_mut());
        bias.row_mut(0).fill(0.0);
        for row in self.errors.rows() {
            bias.row_mut(0)
                .zip_mut_with(&row, |sum, error| *sum += error);
        }
        self.update();
    }

    fn update(&mut self) {
        for head in self.heads.iter().filter(|head| head.active) {
            let spec = &head.spec;
            let scale = spec.clip.map_or(1.0, |clip| {
                let gradients = self.gradients.slice(s![.., head.columns.clone()]);
                let norm = gradients
                    .iter()
                    .map(|g| f64::from(*g).powi(2))
                    .sum::<f64>()
                    .sqrt();
                // PyTorch's clip_grad_norm_ adds the same 1e-6.
                (clip / (norm + 1e-6)).min(1.0) as f32
            });
            let factor = spec
                .schedule
                .factor(self.steps_done, self.total_steps, spec.warmup);
            self.optimizer.set_columns(
                head.columns.clone(),
                &spec.optimizer,
                self.steps_done,
                factor,
                scale,
            );
        }
        let parameters = self
            .parameters
            .as_slice_mut()
            .expect("parameters are contiguous");
        let gradients = self.gradients.as_slice().expect("gradients are contiguous");
        self.optimizer.step(parameters, gradients);
        self.steps_done += 1;
    }

    /// The losses of the steps since this was last asked, by head number.
    pub fn take_losses(&mut self) -> impl Iterator<Item = (usize, LossSum)> {
        self.heads
            .iter_mut()
            .filter(|head| head.active)
            .map(|head| (head.index, std::mem::take(&mut head.epoch_loss)))
    }

    /// Logits of every active head on `features [rows, n_features]`, by head number; nothing is dropped.
    pub fn logits(&self, features: ArrayView2<'_, f32>) -> Vec<(usize, Array2<f32>)> {
        let mut logits = Array2::zeros((features.nrows(), self.columns));
        forward(features, &self.parameters, &mut logits);
        let active = self.heads.iter().filter(|head| head.active);
        active
            .map(|head| {
                (
                    head.index,
                    logits.slice(s![.., head.columns.clone()]).to_owned(),
                )
            })
            .collect()
    }

    /// Weights `[n_features, classes]` and biases `[classes]` of a head, as they are now.
    ///
    /// # Panics
    /// When the head is not in this block.
    pub fn parameters(&self, index: usize) -> (Array2<f32>, Array1<f32>) {
        let head = self
            .heads
            .iter()
            .find(|head| head.index == index)
            .expect("a head of this block");
        let columns = self.parameters.slice(s![.., head.columns.clone()]);
        (
            columns.slice(s![..self.n_features, ..]).to_owned(),
            columns.row(self.n_features).to_owned(),
        )
    }
}

fn initial_weights(n_features: usize, spec: &HeadSpec) -> Array2<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(spec.seed);
    let normal = Normal::new(0.0, INITIAL_DEVIATION).expect("a finite deviation");
    Array2::from_shape_simple_fn((n_features, spec.n_classes), || normal.sample(&mut rng))
}

/// The batch's features with this block's dropout applied, copied to `buffer` only where something is dropped.
fn dropped<'a>(
    batch: &'a BatchView<'_>,
    spec: &HeadSpec,
    buffer: &'a mut Array2<f32>,
) -> ArrayView2<'a, f32> {
    if spec.dropout == 0.0 {
        return batch.features.view();
    }
    if buffer.dim() != batch.features.dim() {
        *buffer = Array2::zeros(batch.features.dim());
    }
    buffer.assign(&batch.features);
    for (mut row, id) in buffer.rows_mut().into_iter().zip(batch.row_ids) {
        let row = row
            .as_slice_mut()
            .expect("a row of a standard array is contiguous");
        drop_units(
            row,
            spec.dropout,
            spec.seed,
            batch.epoch as u64,
            u64::from(*id),
        );
    }
    buffer.view()
}

/// `out = features W + b`.
fn forward(features: ArrayView2<'_, f32>, parameters: &Array2<f32>, out: &mut Array2<f32>) {
    let (weights, bias) = parameters
        .view()
        .split_at(ndarray::Axis(0), features.ncols());
    multiply(features, weights, out.view_mut());
    *out += &bias.row(0);
}

#[cfg(test)]
impl Block {
    /// Sets the parameters of the block's only head, for tests against other programs.
    fn set_parameters(&mut self, weights: &Array2<f32>, bias: &Array1<f32>) {
        let columns = self.heads[0].columns.clone();
        self.parameters
            .slice_mut(s![..self.n_features, columns.clone()])
            .assign(weights);
        self.parameters
            .slice_mut(s![self.n_features, columns])
            .assign(bias);
    }
}

#[cfg(test)]
mod tests;

//! A block of the bank: some heads' columns side by side, their optimiser, and one training step.
//!
//! A block owns all that it changes, so blocks run side by side without a barrier. Its width depends on nothing but its
//! own heads' number of classes, so a head gives the same bits alone and among others, on one thread and on many.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, Axis, s};
use rayon::prelude::*;

use super::{
    learner::{Batch, Learner},
    network::Network,
    spec::{HeadSpec, Objective},
    targets::TargetsView,
};
use crate::train::{
    dropout::drop_units,
    gemm::multiply,
    loss::{Loss, LossSum, Targets},
    optimizer::{OptimizerState, clip_scale_of},
};

/// Columns of a block of narrow heads.
pub const BLOCK_COLUMNS: usize = 32;

/// A wider head is a block of its own, of a multiple of this many columns.
const WIDE_COLUMNS: usize = 16;

/// Rows whose outputs one thread computes at a time when a block is scored.
const SCORED_ROWS: usize = 256;

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
    network: Network,
    spec: HeadSpec,
    columns: Range<usize>,
    active: bool,
    epoch_loss: LossSum,
}

/// Cuts linear heads into blocks: the numbers of the heads in each, in order.
///
/// Narrow heads that drop the same inputs (equal rate; equal seed unless nothing is dropped) share blocks of 32
/// columns; a head of more than 32 classes has a block of its own.
pub fn assign(specs: &[HeadSpec], linear: &[usize]) -> Vec<Vec<usize>> {
    let mut blocks: Vec<Assigned> = Vec::new();
    for index in linear.iter().copied() {
        let spec = &specs[index];
        let n_outputs = spec.network.n_outputs;
        let mask_seed = if spec.dropout == 0.0 { 0 } else { spec.seed };
        let narrow = n_outputs <= BLOCK_COLUMNS;
        let dropped_inputs = narrow.then_some((spec.dropout.to_bits(), mask_seed));
        let open = blocks.iter_mut().rev().find(|block| {
            narrow
                && block.dropped_inputs == dropped_inputs
                && block.columns + n_outputs <= BLOCK_COLUMNS
        });
        match open {
            Some(block) => {
                block.columns += n_outputs;
                block.heads.push(index);
            }
            None => blocks.push(Assigned {
                dropped_inputs,
                columns: n_outputs,
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
    /// A block of these heads (number in the bank, settings), with the initial weights of their networks.
    pub fn new(heads: Vec<(usize, HeadSpec)>, n_features: usize, total_steps: usize) -> Block {
        let used: usize = heads.iter().map(|(_, spec)| spec.network.n_outputs).sum();
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
                let network = Network::new(spec.network.clone());
                let range = start..start + spec.network.n_outputs;
                start = range.end;
                let initial = network.initial(spec.seed);
                let (weights, bias) = network.output_layer(&initial);
                let mut own = parameters.slice_mut(s![.., range.clone()]);
                own.slice_mut(s![..n_features, ..]).assign(&weights);
                own.row_mut(n_features).assign(&bias);
                BlockHead {
                    index,
                    network,
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

    fn update(&mut self) {
        for head in self.heads.iter().filter(|head| head.active) {
            let spec = &head.spec;
            let scale = spec.clip.map_or(1.0, |clip| {
                let gradients = self.gradients.slice(s![.., head.columns.clone()]);
                let squares = gradients.iter().map(|g| f64::from(*g).powi(2));
                clip_scale_of(squares.sum::<f64>().sqrt(), clip)
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

    fn head(&self, index: usize) -> &BlockHead {
        let head = self.heads.iter().find(|head| head.index == index);
        head.expect("a head of this block")
    }
}

impl Learner for Block {
    fn heads(&self) -> Vec<usize> {
        self.heads.iter().map(|head| head.index).collect()
    }

    fn is_active(&self) -> bool {
        self.heads.iter().any(|head| head.active)
    }

    fn stop(&mut self, index: usize) {
        for head in self.heads.iter_mut().filter(|head| head.index == index) {
            head.active = false;
            self.optimizer.freeze_columns(head.columns.clone());
        }
    }

    /// ```text
    /// Z = dropout(X) W + b      E = dL/dZ      G = dropout(X)^T E,  sum of E's rows for b
    /// ```
    fn step(&mut self, batch: &Batch<'_>) {
        let rows = batch.rows.nrows();
        if self.logits.nrows() != rows {
            self.logits = Array2::zeros((rows, self.columns));
            self.errors = Array2::zeros((rows, self.columns));
        }
        let inputs = dropped(batch, &self.heads[0].spec, &mut self.inputs);
        forward(inputs, &self.parameters, &mut self.logits);
        let targets = row_targets(batch.targets);
        for head in self.heads.iter_mut().filter(|head| head.active) {
            let columns = s![.., head.columns.clone()];
            let (logits, errors) = (self.logits.slice(columns), self.errors.slice_mut(columns));
            let loss = row_loss(&head.spec);
            head.epoch_loss += loss.gradient(logits, targets, loss.scale(targets), errors);
        }
        let (mut weights, mut bias) = self.gradients.view_mut().split_at(Axis(0), self.n_features);
        multiply(inputs.t(), self.errors.view(), weights.view_mut());
        bias.row_mut(0).fill(0.0);
        for row in self.errors.rows() {
            bias.row_mut(0)
                .zip_mut_with(&row, |sum, error| *sum += error);
        }
        self.update();
    }

    fn take_losses(&mut self) -> Vec<(usize, LossSum)> {
        let active = self.heads.iter_mut().filter(|head| head.active);
        active
            .map(|head| (head.index, std::mem::take(&mut head.epoch_loss)))
            .collect()
    }

    fn logits(&self, rows: ArrayView2<'_, f32>, _: &[usize]) -> Vec<(usize, Array2<f32>)> {
        let mut logits = Array2::zeros((rows.nrows(), self.columns));
        logits
            .axis_chunks_iter_mut(Axis(0), SCORED_ROWS)
            .into_par_iter()
            .zip(rows.axis_chunks_iter(Axis(0), SCORED_ROWS))
            .for_each(|(mut out, rows)| {
                let mut part = Array2::zeros(out.dim());
                forward(rows, &self.parameters, &mut part);
                out.assign(&part);
            });
        let active = self.heads.iter().filter(|head| head.active);
        active
            .map(|head| {
                let columns = logits.slice(s![.., head.columns.clone()]);
                (head.index, columns.to_owned())
            })
            .collect()
    }

    fn loss(
        &self,
        index: usize,
        logits: ArrayView2<'_, f32>,
        _: &[usize],
        targets: TargetsView<'_>,
    ) -> LossSum {
        row_loss(&self.head(index).spec).loss(logits, row_targets(targets))
    }

    fn parameters(&self, index: usize) -> Vec<f32> {
        let head = self.head(index);
        let columns = self.parameters.slice(s![.., head.columns.clone()]);
        let weights = columns.slice(s![..self.n_features, ..]);
        let bias = columns.row(self.n_features);
        head.network
            .with_output_layer(head.network.zeros(), weights, bias)
    }
}

fn row_loss(spec: &HeadSpec) -> &Loss {
    match &spec.objective {
        Objective::Rows(loss) => loss,
        _ => unreachable!("a linear head has a loss of each row"),
    }
}

fn row_targets(targets: TargetsView<'_>) -> Targets<'_> {
    match targets {
        TargetsView::Rows(targets) => targets,
        TargetsView::Spans(_) => unreachable!("a linear head has a target of each row"),
    }
}

/// The batch's features with this block's dropout applied, copied to `buffer` only where something is dropped.
fn dropped<'a>(
    batch: &'a Batch<'_>,
    spec: &HeadSpec,
    buffer: &'a mut Array2<f32>,
) -> ArrayView2<'a, f32> {
    if spec.dropout == 0.0 {
        return batch.rows.view();
    }
    if buffer.dim() != batch.rows.dim() {
        *buffer = Array2::zeros(batch.rows.dim());
    }
    buffer.assign(&batch.rows);
    for (mut row, id) in buffer.rows_mut().into_iter().zip(batch.row_ids) {
        let row = row
            .as_slice_mut()
            .expect("a row of a standard array is contiguous");
        drop_units(row, spec.dropout, spec.seed, batch.epoch as u64, *id);
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
    fn set_parameters(&mut self, weights: &Array2<f32>, bias: &[f32]) {
        let columns = self.heads[0].columns.clone();
        let mut own = self.parameters.slice_mut(s![.., columns]);
        own.slice_mut(s![..self.n_features, ..]).assign(weights);
        own.row_mut(self.n_features)
            .assign(&ndarray::ArrayView1::from(bias));
    }
}

#[cfg(test)]
mod tests;

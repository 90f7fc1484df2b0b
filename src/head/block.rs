//! A block of the bank: the columns of some heads side by side, their optimiser state, and one training step.
//!
//! A block owns everything that it changes, so blocks run in parallel without a barrier. Every number in a column
//! depends on that column alone ([`crate::train::panel`]), so a head gives the same bits alone and among others,
//! whatever the position of its columns, and the columns of finished heads can make room for others.

use std::ops::Range;

use multiversion::multiversion;
use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, s};
use rayon::prelude::*;

use super::{
    learner::{Learner, TrainingBatch},
    network::Network,
    spec::{HeadSpec, Objective},
    targets::TargetsView,
};
use crate::train::{
    aligned::Aligned,
    loss::{Loss, LossSum, Targets, one_logit::OneLogitLoss},
    optimizer::{Corrections, Optimizer, OptimizerState, clip_scale_of},
    panel::{LANES, gradients, gradients_from, outputs},
    vector::add_rows,
};

/// Maximum number of columns of a block, except for a single head that has more: with 384 features, the weights,
/// gradients and moments then fit into a processor's second-level cache.
pub(crate) const BLOCK_COLUMNS: usize = 64;

/// A head with more columns than this is spread over all threads.
const WIDE_COLUMNS: usize = 512;

/// Number of rows of a wide head whose loss one thread computes at a time.
const LOSS_ROWS: usize = 16;

/// Linear heads that share the same dropout on their inputs.
pub(crate) struct Block {
    heads: Vec<HeadSlot>,
    n_features: usize,
    columns: usize,
    /// `[n_features + 1, columns]`, with the biases in the last row; row-major, like all matrices below.
    parameters: Aligned,
    gradients: Aligned,
    optimizer: OptimizerState,
    /// The loss of heads that have one logit for their two classes, if the block holds such heads.
    one_logit: Option<OneLogitLoss>,
    /// The losses of the columns of `one_logit` since they were last taken.
    column_losses: Vec<LossSum>,
    logits: Aligned,
    errors: Aligned,
}

/// One head in a block.
struct HeadSlot {
    head: LinearHead,
    columns: Range<usize>,
    active: bool,
    epoch_loss: LossSum,
}

/// A linear head in training, with everything that a block needs to continue it.
#[derive(Clone, Debug)]
pub(crate) struct LinearHead {
    /// Its number in the bank.
    pub index: usize,
    /// Its settings.
    pub spec: HeadSpec,
    network: Network,
    steps_done: usize,
    total_steps: usize,
    /// Parameters and the optimiser's two moments: `[n_features + 1, columns]` each.
    values: [Vec<f32>; 3],
}

impl LinearHead {
    /// A head with its network's initial weights, to be trained for `total_steps` steps.
    pub(crate) fn new(index: usize, spec: HeadSpec, total_steps: usize) -> LinearHead {
        let network = Network::new(spec.network.clone());
        let initial = network.initial(spec.seed);
        let (weights, bias) = network.output_layer(&initial);
        let parameters = columns_for(&spec, &weights, &bias);
        let zeros = vec![0.0; parameters.len()];
        LinearHead {
            index,
            network,
            spec,
            steps_done: 0,
            total_steps,
            values: [parameters, zeros.clone(), zeros],
        }
    }

    /// Number of columns of the block that the head needs.
    pub(crate) fn n_columns(&self) -> usize {
        if self.spec.is_one_logit() { 1 } else { self.spec.network.n_outputs }
    }

    /// The optimiser of its columns.
    fn optimizer(&self) -> Optimizer {
        if self.spec.is_one_logit() {
            self.spec.optimizer.of_difference()
        } else {
            self.spec.optimizer
        }
    }

    /// The factor that clips a gradient with this sum of squares.
    fn gradient_scale(&self, squares: f64) -> f32 {
        // Two columns with gradients g and -g have twice the squares of one.
        let squares = squares * if self.spec.is_one_logit() { 2.0 } else { 1.0 };
        let clip = self.spec.clip;
        clip.map_or(1.0, |clip| clip_scale_of(squares.sqrt(), clip))
    }

    /// Returns the network's parameters, given the columns `[n_features + 1, n_columns]`.
    fn parameters(&self, columns: &[f32]) -> Vec<f32> {
        let n_outputs = self.spec.network.n_outputs;
        let all: Vec<f32> = if self.spec.is_one_logit() {
            columns.iter().flat_map(|d| [-0.5 * d, 0.5 * d]).collect()
        } else {
            columns.to_vec()
        };
        let all = ArrayView2::from_shape((all.len() / n_outputs, n_outputs), &all);
        let all = all.expect("a row for each feature, and one of biases");
        let (weights, bias) = all.split_at(ndarray::Axis(0), all.nrows() - 1);
        let zeros = self.network.zeros();
        self.network.with_output_layer(zeros, weights, bias.row(0))
    }

    fn loss(&self) -> &Loss {
        match &self.spec.objective {
            Objective::Rows(loss) => loss,
            _ => unreachable!("a linear head has a loss of each row"),
        }
    }
}

/// The columns of weights and biases: as they are, or their difference if that is what is trained.
fn columns_for(spec: &HeadSpec, weights: &Array2<f32>, bias: &Array1<f32>) -> Vec<f32> {
    let rows = weights.rows().into_iter().chain([bias.view()]);
    if spec.is_one_logit() {
        rows.map(|row| row[1] - row[0]).collect()
    } else {
        rows.flat_map(|row| row.to_vec()).collect()
    }
}

/// Distributes heads over blocks of at most `most_columns` columns, in order; a wider head gets a block of its own, and
/// heads with one logit get separate blocks.
pub(crate) fn fill_blocks(
    heads: Vec<LinearHead>,
    n_features: usize,
    most_columns: usize,
) -> Vec<Block> {
    let (one_logit, others): (Vec<LinearHead>, Vec<LinearHead>) =
        heads.into_iter().partition(|head| head.spec.is_one_logit());
    let mut blocks = Vec::new();
    for heads in [one_logit, others] {
        let mut open: Vec<LinearHead> = Vec::new();
        let mut used = 0;
        for head in heads {
            if !open.is_empty() && used + head.n_columns() > most_columns {
                blocks.push(Block::new(std::mem::take(&mut open), n_features));
                used = 0;
            }
            used += head.n_columns();
            open.push(head);
        }
        if !open.is_empty() {
            blocks.push(Block::new(open, n_features));
        }
    }
    blocks
}

impl Block {
    /// Creates a block of these heads; either all of them have one logit or none has.
    ///
    /// # Panics
    /// Panics if a head does not have `n_features` features.
    pub(crate) fn new(heads: Vec<LinearHead>, n_features: usize) -> Block {
        let used: usize = heads.iter().map(LinearHead::n_columns).sum();
        let columns = used.next_multiple_of(LANES);
        let length = (n_features + 1) * columns;
        let mut block = Block {
            one_logit: None,
            column_losses: vec![LossSum::default(); columns],
            heads: Vec::with_capacity(heads.len()),
            n_features,
            columns,
            parameters: Aligned::zeros(length),
            gradients: Aligned::zeros(length),
            optimizer: OptimizerState::new(n_features + 1, columns),
            logits: Aligned::zeros(0),
            errors: Aligned::zeros(0),
        };
        let mut start = 0;
        for head in heads {
            let range = start..start + head.n_columns();
            start = range.end;
            let [first, second] = block.optimizer.moments_mut();
            let matrices = [&mut block.parameters[..], first, second];
            for (matrix, own) in matrices.into_iter().zip(&head.values) {
                assert_eq!(own.len(), (n_features + 1) * range.len());
                for (row, own) in
                    matrix.chunks_exact_mut(columns).zip(own.chunks_exact(range.len()))
                {
                    row[range.clone()].copy_from_slice(own);
                }
            }
            if head.spec.is_one_logit() {
                let loss = block.one_logit.get_or_insert_with(|| OneLogitLoss::new(columns));
                let Loss::CrossEntropy { class_weights, label_smoothing } = head.loss() else {
                    unreachable!("the loss of a head of one logit")
                };
                let weights = class_weights.as_deref().unwrap_or(&[1.0, 1.0]);
                loss.set(range.start, [weights[0], weights[1]], *label_smoothing);
            }
            block.heads.push(HeadSlot {
                head: LinearHead { values: Default::default(), ..head },
                columns: range,
                active: true,
                epoch_loss: LossSum::default(),
            });
        }
        block
    }

    /// Returns the heads that are still training, to be put into other blocks.
    pub(crate) fn into_heads(self) -> Vec<LinearHead> {
        let (columns, optimizer) = (self.columns, self.optimizer);
        let [first, second] = optimizer.moments();
        let matrices = [&self.parameters[..], first, second];
        let active = self.heads.into_iter().filter(|place| place.active);
        active
            .map(|place| LinearHead {
                values: matrices.map(|matrix| columns_of(matrix, columns, &place.columns)),
                ..place.head
            })
            .collect()
    }

    fn update(&mut self) {
        let squares = if self.heads.iter().any(|place| place.head.spec.clip.is_some()) {
            sums_of_squares(&self.gradients, self.columns)
        } else {
            vec![0.0; self.columns]
        };
        if self.is_wide() {
            let place = &mut self.heads[0];
            let (spec, step) = (&place.head.spec, place.head.steps_done);
            let factor = spec.schedule.factor(step, place.head.total_steps, spec.warmup);
            self.optimizer.step_alike(
                &mut self.parameters,
                &self.gradients,
                &place.head.optimizer(),
                Corrections::new(spec.optimizer.betas, step),
                factor,
                place.head.gradient_scale(squares.iter().sum()),
            );
            place.head.steps_done += 1;
            return;
        }
        let mut last: Option<([f64; 2], usize, Corrections)> = None;
        for place in self.heads.iter_mut().filter(|place| place.active) {
            let (spec, step) = (&place.head.spec, place.head.steps_done);
            let betas = spec.optimizer.betas;
            // Most heads share their betas, so the two powers are computed once per step rather than once per head.
            let corrections = match last {
                Some((of, at, corrections)) if of == betas && at == step => corrections,
                _ => Corrections::new(betas, step),
            };
            last = Some((betas, step, corrections));
            let factor = spec.schedule.factor(step, place.head.total_steps, spec.warmup);
            let squares: f64 = squares[place.columns.clone()].iter().sum();
            self.optimizer.set_columns(
                place.columns.clone(),
                &place.head.optimizer(),
                corrections,
                factor,
                place.head.gradient_scale(squares),
            );
            place.head.steps_done += 1;
        }
        self.optimizer.step(&mut self.parameters, &self.gradients);
    }

    /// Whether the block is a single head wide enough to be spread over all threads.
    fn is_wide(&self) -> bool {
        self.columns > WIDE_COLUMNS && self.heads.len() == 1
    }

    /// Computes the losses of the rows in parts that do not depend on the number of threads, and adds them up in order.
    fn wide_losses(&mut self, targets: Targets<'_>) {
        let columns = self.columns;
        let place = &mut self.heads[0];
        let (loss, own) = (place.head.loss(), s![.., place.columns.clone()]);
        let scale = loss.scale(targets);
        let logits = self.logits.par_chunks(LOSS_ROWS * columns);
        let errors = self.errors.par_chunks_mut(LOSS_ROWS * columns);
        let parts = logits.zip(errors).enumerate().map(|(part, (logits, errors))| {
            let shape = (logits.len() / columns, columns);
            let first = part * LOSS_ROWS;
            let logits = ArrayView2::from_shape(shape, logits).expect("whole rows");
            let mut errors = ArrayViewMut2::from_shape(shape, errors).expect("whole rows");
            let targets = targets.slice(first..first + shape.0);
            loss.gradient(logits.slice(own), targets, scale, errors.slice_mut(own))
        });
        let parts: Vec<LossSum> = parts.collect();
        for part in parts {
            place.epoch_loss += part;
        }
    }

    /// `Z = X W + b` for a batch.
    fn forward(&mut self, rows: &[f32]) {
        let (columns, n_features) = (self.columns, self.n_features);
        let (weights, bias) = self.parameters.split_at(n_features * columns);
        if !self.is_wide() || n_features == 0 {
            return outputs(rows, weights, bias, &mut self.logits);
        }
        let n_rows = self.logits.len() / columns;
        let own = n_rows.div_ceil(rayon::current_num_threads()).max(1);
        let parts = self.logits.par_chunks_mut(own * columns);
        let parts = parts.zip(rows.par_chunks(own * n_features));
        parts.for_each(|(out, rows)| outputs(rows, weights, bias, out));
    }

    /// `G = X^T E` for a batch.
    fn backward(&mut self, rows: &[f32]) {
        let (columns, n_features) = (self.columns, self.n_features);
        let is_wide = self.is_wide();
        let (weights, bias) = self.gradients.split_at_mut(n_features * columns);
        let errors = &self.errors[..];
        if !is_wide {
            gradients(rows, columns, errors, weights)
        } else {
            let own = n_features.div_ceil(rayon::current_num_threads()).max(1);
            let parts = weights.par_chunks_mut(own * columns).enumerate();
            parts.for_each(|(part, out)| {
                gradients_from(rows, n_features, part * own, columns, errors, out);
            });
        }
        bias.fill(0.0);
        add_rows(bias, errors);
    }

    fn losses(&mut self, targets: Targets<'_>) {
        if let (Some(loss), Targets::Classes(classes)) = (&self.one_logit, targets) {
            loss.gradient(&self.logits, classes, &mut self.errors, &mut self.column_losses);
            return;
        }
        if self.is_wide() {
            return self.wide_losses(targets);
        }
        let shape = (self.logits.len() / self.columns, self.columns);
        let logits = ArrayView2::from_shape(shape, &self.logits).expect("whole rows");
        let mut errors = ArrayViewMut2::from_shape(shape, &mut self.errors).expect("whole rows");
        for place in self.heads.iter_mut().filter(|place| place.active) {
            let columns = s![.., place.columns.clone()];
            let loss = place.head.loss();
            let errors = errors.slice_mut(columns);
            place.epoch_loss +=
                loss.gradient(logits.slice(columns), targets, loss.scale(targets), errors);
        }
    }
}

impl Learner for Block {
    fn heads(&self) -> Vec<usize> {
        self.heads.iter().map(|place| place.head.index).collect()
    }

    fn is_active(&self) -> bool {
        self.heads.iter().any(|place| place.active)
    }

    fn stop(&mut self, index: usize) {
        for place in self.heads.iter_mut().filter(|place| place.head.index == index) {
            place.active = false;
            self.optimizer.freeze_columns(place.columns.clone());
        }
    }

    /// ```text
    /// Z = X W + b      E = dL/dZ      G = X^T E,  sum of E's rows for b
    /// ```
    fn step(&mut self, batch: &TrainingBatch<'_>) {
        let rows = batch.rows.as_slice().expect("rows of a tile are contiguous");
        let n_values = batch.rows.nrows() * self.columns;
        self.logits.resize(n_values);
        self.errors.resize(n_values);
        self.forward(rows);
        let TargetsView::Rows(targets) = batch.targets else {
            unreachable!("a linear head has a target of each row")
        };
        self.losses(targets);
        self.backward(rows);
        self.update();
    }

    fn take_losses(&mut self) -> Vec<(usize, LossSum)> {
        let is_one_logit = self.one_logit.is_some();
        let active = self.heads.iter_mut().filter(|place| place.active);
        active
            .map(|place| {
                let loss = if is_one_logit {
                    &mut self.column_losses[place.columns.start]
                } else {
                    &mut place.epoch_loss
                };
                (place.head.index, std::mem::take(loss))
            })
            .collect()
    }

    fn parameters(&self, index: usize) -> Vec<f32> {
        let place = self.heads.iter().find(|place| place.head.index == index);
        let place = place.expect("a head of this block");
        let columns = columns_of(&self.parameters, self.columns, &place.columns);
        place.head.parameters(&columns)
    }
}

/// Copies a range of columns of a row-major matrix into a row-major matrix.
fn columns_of(matrix: &[f32], columns: usize, range: &Range<usize>) -> Vec<f32> {
    matrix.chunks_exact(columns).flat_map(|row| row[range.clone()].iter().copied()).collect()
}

/// The sum of the squares of each column.
#[multiversion(targets = "simd")]
fn sums_of_squares(matrix: &[f32], columns: usize) -> Vec<f64> {
    let mut sums = vec![0.0f64; columns];
    for row in matrix.chunks_exact(columns) {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += f64::from(*value) * f64::from(*value);
        }
    }
    sums
}

#[cfg(test)]
impl LinearHead {
    /// Sets the parameters, for comparisons with other programs in tests.
    fn set_parameters(&mut self, weights: &Array2<f32>, bias: &[f32]) {
        self.values[0] = columns_for(&self.spec, weights, &Array1::from(bias.to_vec()));
    }
}

#[cfg(test)]
mod tests;

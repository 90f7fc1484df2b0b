//! Low-rank updates of weights of the encoder's layers: `W + alpha / rank B A`, with `A [rank, inputs]` and
//! `B [outputs, rank]` (LoRA, Hu et al. 2021, without their dropout).
//!
//! Only `A` and `B` are trained. `A` is uniform in `+-1 / sqrt(inputs)` and `B` is 0 at the start, as in the library
//! peft, so a network begins as its checkpoint left it. Its parameters are always the merged weights: what is evaluated
//! and saved knows nothing of their parts.

use std::ops::Range;

use ndarray::{ArrayView2, ArrayViewMut2};
use rand::{
    SeedableRng,
    distributions::{Distribution, Uniform},
};
use rand_chacha::ChaCha8Rng;

use super::{
    network::Network,
    spec::{LayerTraining, LoraSpec, LoraTarget},
};
use crate::train::{
    encoder_layer::N_TENSORS,
    gemm::{multiply, multiply_add},
    optimizer::{FlatOptimizer, Optimizer},
};

/// The number of a weight among the tensors of a layer.
fn tensor_of(target: LoraTarget) -> usize {
    match target {
        LoraTarget::Query => 0,
        LoraTarget::Key => 1,
        LoraTarget::Value => 2,
        LoraTarget::Dense => 6,
        LoraTarget::Intermediate => 10,
        LoraTarget::Output => 12,
    }
}

/// The updates of all layers of a network in training.
pub(super) struct LoraUpdates {
    /// `alpha / rank`.
    scale: f32,
    rank: usize,
    /// The updated weights as they are in the checkpoint, one after the other.
    base: Vec<f32>,
    /// `A` and `B` of each update, one after the other.
    factors: Vec<f32>,
    gradients: Vec<f32>,
    updates: Vec<LoraUpdate>,
}

struct LoraUpdate {
    /// The place of the weight among the network's parameters, and in `base`.
    weight: Range<usize>,
    base: Range<usize>,
    inputs: usize,
    /// The places of `A` and `B` among the factors.
    a: Range<usize>,
    b: Range<usize>,
    settings: Optimizer,
    state: FlatOptimizer,
}

impl LoraUpdates {
    /// Creates the updates of a network with the parameters of its checkpoint.
    pub(super) fn new(
        spec: &LoraSpec,
        training: &LayerTraining,
        network: &Network,
        parameters: &[f32],
        optimizer: &Optimizer,
        seed: u64,
    ) -> LoraUpdates {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        // The first stream draws the head.
        rng.set_stream(1);
        let (mut base, mut factors, mut updates) = (Vec::new(), Vec::new(), Vec::new());
        let mut lr = training.lr;
        for layer in (0..network.encoder_places().len()).rev() {
            for target in &spec.targets {
                let tensor = &network.tensors()[layer * N_TENSORS + tensor_of(*target)];
                let (outputs, inputs) = (tensor.shape[0], tensor.shape[1]);
                let start = base.len();
                base.extend_from_slice(&parameters[tensor.range.clone()]);
                let bound = 1.0 / (inputs as f32).sqrt();
                let uniform = Uniform::new(-bound, bound);
                let a = factors.len()..factors.len() + spec.rank * inputs;
                let b = a.end..a.end + outputs * spec.rank;
                factors.extend(a.clone().map(|_| uniform.sample(&mut rng)));
                factors.resize(b.end, 0.0);
                updates.push(LoraUpdate {
                    weight: tensor.range.clone(),
                    base: start..base.len(),
                    inputs,
                    settings: Optimizer { lr, ..*optimizer },
                    state: FlatOptimizer::new(b.end - a.start),
                    a,
                    b,
                });
            }
            lr *= training.decay;
        }
        LoraUpdates {
            scale: (spec.alpha / spec.rank as f64) as f32,
            rank: spec.rank,
            base,
            gradients: vec![0.0; factors.len()],
            factors,
            updates,
        }
    }

    /// Returns `dL/dA` and `dL/dB` of all updates, given `dL/dparameters` of the network:
    /// `dL/dA = alpha / rank B^T dL/dW` and `dL/dB = alpha / rank dL/dW A^T`.
    pub(super) fn gradients_of(&mut self, gradients: &[f32]) -> &[f32] {
        for LoraUpdate { weight, inputs, a, b, .. } in &self.updates {
            let d_weight = matrix(&gradients[weight.clone()], *inputs);
            let (own_a, own_b) = (&self.factors[a.clone()], &self.factors[b.clone()]);
            let (d_a, d_b) = self.gradients[a.start..b.end].split_at_mut(a.len());
            multiply(matrix(own_b, self.rank).t(), d_weight, matrix_mut(d_a, *inputs));
            multiply(d_weight, matrix(own_a, *inputs).t(), matrix_mut(d_b, self.rank));
        }
        self.gradients.iter_mut().for_each(|gradient| *gradient *= self.scale);
        &self.gradients
    }

    /// Runs a step of the optimiser with the last gradients, and merges the updates into the network's parameters.
    pub(super) fn step(
        &mut self,
        step: usize,
        lr_factor: f64,
        gradient_scale: f32,
        parameters: &mut [f32],
    ) {
        for LoraUpdate { weight, base, inputs, a, b, settings, state } in &mut self.updates {
            let own = a.start..b.end;
            state.step(
                &mut self.factors[own.clone()],
                &self.gradients[own],
                settings,
                step,
                lr_factor,
                gradient_scale,
            );
            let scaled: Vec<f32> =
                self.factors[b.clone()].iter().map(|value| value * self.scale).collect();
            let merged = &mut parameters[weight.clone()];
            merged.copy_from_slice(&self.base[base.clone()]);
            let own_a = matrix(&self.factors[a.clone()], *inputs);
            multiply_add(matrix(&scaled, self.rank), own_a, matrix_mut(merged, *inputs));
        }
    }
}

fn matrix(values: &[f32], columns: usize) -> ArrayView2<'_, f32> {
    ArrayView2::from_shape((values.len() / columns, columns), values).expect("whole rows")
}

fn matrix_mut(values: &mut [f32], columns: usize) -> ArrayViewMut2<'_, f32> {
    ArrayViewMut2::from_shape((values.len() / columns, columns), values).expect("whole rows")
}

#[cfg(test)]
mod tests;

//! The training of a head that is not linear: the parts of each batch are computed in parallel.

use std::ops::Range;

use ndarray::{Array2, ArrayViewMut1, ArrayViewMut2, s};
use rayon::prelude::*;

use super::{
    crf::{self, CrfGradients, CrfScratch},
    learner::{Learner, TrainingBatch, parts},
    lora::LoraUpdates,
    network::{Dropout, Network, NetworkInput, Trace},
    span,
    spec::{HeadSpec, Objective},
    targets::TargetsView,
};
use crate::train::{
    loss::{LossSum, Targets},
    optimizer::{FlatOptimizer, Optimizer, clip_scale},
};

/// Number of rows in a part of a batch. The parts depend only on the data and their gradients are added up in order, so
/// that the bits of a step do not depend on the number of threads.
const PART_ROWS: usize = 256;

/// Approximate size in bytes of the gradients of the parts of a batch, if the network has layers of an encoder. There
/// are then fewer gradients than parts.
const GRADIENT_BYTES: usize = 1 << 29;

/// The training of one network.
pub(crate) struct NetworkLearner {
    head: usize,
    spec: HeadSpec,
    network: Network,
    parameters: Vec<f32>,
    gradients: Vec<f32>,
    groups: Vec<ParameterGroup>,
    lora: Option<LoraUpdates>,
    steps_done: usize,
    total_steps: usize,
    active: bool,
    epoch_loss: LossSum,
    workspaces: Vec<Workspace>,
}

/// Parameters with a learning rate of their own.
struct ParameterGroup {
    range: Range<usize>,
    settings: Optimizer,
    state: FlatOptimizer,
}

/// The buffers for a part of a batch, or for several one after the other, kept from step to step.
#[derive(Default)]
struct Workspace {
    trace: Trace<f32>,
    errors: Array2<f32>,
    gradients: Vec<f32>,
    crf: CrfScratch<f32>,
    loss: LossSum,
}

impl NetworkLearner {
    /// Creates a learner of one head (its number in the bank, its settings), with the network's initial parameters.
    pub(crate) fn new(head: usize, spec: HeadSpec, total_steps: usize) -> NetworkLearner {
        let network = Network::new(spec.network.clone());
        let mut parameters = network.initial(spec.seed);
        let n_layers = network.encoder_places().len();
        assert!(
            n_layers == 0 || spec.encoder_layers.is_some(),
            "the start of the encoder's layers"
        );
        if let Some(layers) = &spec.encoder_layers {
            parameters[..network.n_encoder_parameters()].copy_from_slice(&layers.parameters);
        }
        NetworkLearner {
            head,
            gradients: vec![0.0; parameters.len()],
            groups: groups(&network, &spec),
            lora: spec.encoder_layers.as_ref().and_then(|training| {
                let lora = training.lora.as_ref()?;
                let optimizer = &spec.optimizer;
                Some(LoraUpdates::new(lora, training, &network, &parameters, optimizer, spec.seed))
            }),
            parameters,
            network,
            spec,
            steps_done: 0,
            total_steps,
            active: true,
            epoch_loss: LossSum::default(),
            workspaces: Vec::new(),
        }
    }

    /// Goes on from these parameters.
    #[cfg(test)]
    pub(crate) fn start_from(&mut self, parameters: Vec<f32>) {
        assert_eq!(parameters.len(), self.parameters.len());
        self.parameters = parameters;
    }

    /// The factor that turns the sum of a batch's losses into their mean; 0 if nothing counts.
    fn scale(&self, batch: &TrainingBatch<'_>) -> f32 {
        let counted = match (&self.spec.objective, batch.targets) {
            (Objective::Rows(loss), TargetsView::Rows(targets)) => return loss.scale(targets),
            (Objective::Rows(_), TargetsView::Spans(_)) => unreachable!("{WRONG_TARGETS}"),
            (Objective::Crf, _) => batch.output_starts.last().copied().unwrap_or(0),
            (Objective::Span, _) => batch.starts.len() - 1,
        };
        1.0 / counted.max(1) as f32
    }

    fn update(&mut self) {
        let spec = &self.spec;
        let updates = self.lora.as_mut().map(|lora| lora.gradients_of(&self.gradients));
        let scale = match (spec.clip, updates) {
            (None, _) => 1.0,
            (Some(clip), None) => clip_scale(&self.gradients, clip),
            (Some(clip), Some(updates)) => {
                let above = &self.gradients[self.network.n_encoder_parameters()..];
                clip_scale(&[updates, above].concat(), clip)
            }
        };
        let factor = spec.schedule.factor(self.steps_done, self.total_steps, spec.warmup);
        for ParameterGroup { range, settings, state } in &mut self.groups {
            state.step(
                &mut self.parameters[range.clone()],
                &self.gradients[range.clone()],
                settings,
                self.steps_done,
                factor,
                scale,
            );
        }
        if let Some(lora) = &mut self.lora {
            lora.step(self.steps_done, factor, scale, &mut self.parameters);
        }
        self.steps_done += 1;
    }

    /// Number of gradients that the parts of a batch are added to: one for each part, so that the bits do not depend on
    /// the threads, but with layers of an encoder only so many that they fit, which depends on the network alone.
    fn n_lanes(&self, n_parts: usize) -> usize {
        if self.network.n_encoder_parameters() == 0 {
            return n_parts;
        }
        gradient_lanes(self.parameters.len()).min(n_parts)
    }
}

/// The most gradients that a network of so many parameters with layers of an encoder has at a time.
pub(crate) fn gradient_lanes(n_parameters: usize) -> usize {
    (GRADIENT_BYTES / (4 * n_parameters.max(1))).clamp(2, 16)
}

/// The parameters of a head by their learning rates: each of the encoder's layers, and all that is above them. A table
/// of biases is in no group, and nor are layers with low-rank updates.
fn groups(network: &Network, spec: &HeadSpec) -> Vec<ParameterGroup> {
    let group = |range: Range<usize>, lr: f64| ParameterGroup {
        settings: Optimizer { lr, ..spec.optimizer },
        state: FlatOptimizer::new(range.len()),
        range,
    };
    let layers = network.encoder_places();
    let mut groups = Vec::with_capacity(layers.len() + 1);
    if let Some(training) = spec.encoder_layers.as_ref().filter(|own| own.lora.is_none()) {
        let mut lr = training.lr;
        for layer in layers.iter().rev() {
            groups.push(group(layer.clone(), lr));
            lr *= training.decay;
        }
    }
    let above = network.n_encoder_parameters()..network.n_parameters();
    groups.push(group(above, spec.optimizer.lr));
    groups
}

impl Learner for NetworkLearner {
    fn heads(&self) -> Vec<usize> {
        vec![self.head]
    }

    fn is_active(&self) -> bool {
        self.active
    }

    fn stop(&mut self, head: usize) {
        self.active &= head != self.head;
    }

    fn step(&mut self, batch: &TrainingBatch<'_>) {
        let scale = self.scale(batch);
        let parts = parts(batch.starts, PART_ROWS);
        let n_lanes = self.n_lanes(parts.len());
        while self.workspaces.len() < n_lanes {
            self.workspaces.push(Workspace {
                gradients: vec![0.0; self.parameters.len()],
                ..Workspace::default()
            });
        }
        let (network, spec, parameters) = (&self.network, &self.spec, &self.parameters);
        let compute = |workspace: &mut Workspace, lane: usize| {
            workspace.gradients.fill(0.0);
            workspace.loss = LossSum::default();
            for (first, end) in parts[lane..].iter().step_by(n_lanes) {
                workspace.compute(network, spec, parameters, batch, *first..*end, scale);
            }
        };
        match n_lanes {
            1 => compute(&mut self.workspaces[0], 0),
            _ => self.workspaces[..n_lanes]
                .par_iter_mut()
                .enumerate()
                .for_each(|(lane, workspace)| compute(workspace, lane)),
        }
        self.gradients.copy_from_slice(&self.workspaces[0].gradients);
        for workspace in &self.workspaces[1..n_lanes] {
            for (sum, gradient) in self.gradients.iter_mut().zip(&workspace.gradients) {
                *sum += gradient;
            }
        }
        for workspace in &self.workspaces[..n_lanes] {
            self.epoch_loss += workspace.loss;
        }
        self.update();
    }

    fn take_losses(&mut self) -> Vec<(usize, LossSum)> {
        if self.active {
            vec![(self.head, std::mem::take(&mut self.epoch_loss))]
        } else {
            Vec::new()
        }
    }

    fn parameters(&self, _: usize) -> Vec<f32> {
        self.parameters.clone()
    }
}

const WRONG_TARGETS: &str = "targets of the objective's kind";

impl Workspace {
    /// Adds loss and gradient of some samples of a batch.
    fn compute(
        &mut self,
        network: &Network,
        spec: &HeadSpec,
        parameters: &[f32],
        batch: &TrainingBatch<'_>,
        samples: Range<usize>,
        scale: f32,
    ) {
        let rows = batch.starts[samples.start]..batch.starts[samples.end];
        let own = |starts: &[usize]| -> Vec<usize> {
            let first = starts[samples.start];
            starts[samples.start..=samples.end].iter().map(|row| row - first).collect()
        };
        let (starts, output_starts) = (own(batch.starts), own(batch.output_starts));
        let outputs = batch.output_starts[samples.start]..batch.output_starts[samples.end];
        let input = NetworkInput {
            rows: batch.rows.slice(s![rows.clone(), ..]),
            starts: &starts,
            roles: batch.roles.get(rows.clone()).unwrap_or_default(),
        };
        let drops = spec.dropout > 0.0 || network.spec().encoder_layers.is_some();
        let dropout = drops.then(|| Dropout {
            rate: spec.dropout,
            seed: spec.seed,
            epoch: batch.epoch as u64,
            row_ids: &batch.row_ids[rows],
        });
        network.forward(parameters, &input, dropout, &mut self.trace);
        let logits = self.trace.logits();
        if self.errors.dim() != logits.dim() {
            self.errors = Array2::zeros(logits.dim());
        }
        let errors = self.errors.view_mut();
        self.loss += match (&spec.objective, batch.targets) {
            (Objective::Rows(loss), TargetsView::Rows(targets)) => {
                let counted = if network.spec().pools() {
                    samples
                } else {
                    let n_outputs = batch.output_starts.last();
                    assert_eq!(n_outputs, Some(&targets.len()), "a target for each output");
                    outputs
                };
                loss.gradient(logits, targets.slice(counted), scale, errors)
            }
            (Objective::Span, TargetsView::Spans(spans)) => {
                span::gradient(logits, &output_starts, &spans[samples], scale, errors)
            }
            (Objective::Crf, TargetsView::Rows(Targets::Classes(tags))) => {
                let ranges = network.crf_ranges().expect("a network with a CRF");
                let n = spec.network.n_outputs;
                let own = &mut self.gradients[ranges.transitions.start..ranges.end.end];
                let (transitions, ends) = own.split_at_mut(n * n);
                let (start, end) = ends.split_at_mut(n);
                let mut gradients = CrfGradients {
                    emissions: errors,
                    transitions: ArrayViewMut2::from_shape((n, n), transitions).expect("a square"),
                    start: ArrayViewMut1::from(start),
                    end: ArrayViewMut1::from(end),
                };
                let scores = network.crf_scores(parameters);
                crf::gradient(
                    logits,
                    &output_starts,
                    &tags[outputs],
                    &scores,
                    scale,
                    &mut gradients,
                    &mut self.crf,
                )
            }
            _ => unreachable!("{WRONG_TARGETS}"),
        };
        network.backward(
            parameters,
            &input,
            dropout,
            &mut self.trace,
            self.errors.view(),
            &mut self.gradients,
        );
    }
}

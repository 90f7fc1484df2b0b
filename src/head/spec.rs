//! One head's settings, as numbers.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::network::NetworkSpec;
use crate::{
    metrics::metric::Metric,
    train::{
        loss::Loss,
        optimizer::{Optimizer, OptimizerKind},
        schedule::Schedule,
    },
};

/// Everything that decides one head, given its data and the order of its batches.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadSpec {
    /// What it computes.
    pub network: NetworkSpec,
    /// What its outputs are compared with.
    pub objective: Objective,
    /// Probability that an input feature, or a hidden unit, is dropped in a training step.
    pub dropout: f32,
    /// The optimiser.
    pub optimizer: Optimizer,
    /// The learning rate's course.
    pub schedule: Schedule,
    /// Share of the steps in which the learning rate rises.
    pub warmup: f64,
    /// Largest norm of the gradient of all parameters together.
    pub clip: Option<f64>,
    /// Decides the initial weights and the dropout masks.
    pub seed: u64,
    /// When to stop; `None` trains every epoch and keeps the last weights.
    pub stopping: Option<Stopping>,
    /// Most passes over the training samples.
    pub epochs: usize,
    /// Ends the training after so many of the epochs, with the schedule of all of them.
    pub stop_after: Option<usize>,
    /// Samples of one step.
    pub batch_size: usize,
    /// Which of the bank's sets of samples it learns from.
    pub set: usize,
    /// How the encoder's layers of its network are trained; only with a network that has some.
    pub encoder_layers: Option<LayerTraining>,
}

/// The start and the learning rates of the encoder's layers of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerTraining {
    /// Their parameters in the checkpoint, in the order of the network's.
    pub parameters: Arc<[f32]>,
    /// The learning rate of the last layer, before the schedule.
    pub lr: f64,
    /// The factor of the learning rate from each layer to the one below it.
    pub decay: f64,
    /// Low-rank updates of some weights, which are trained in place of the layers themselves.
    pub lora: Option<LoraSpec>,
}

/// Low-rank updates of weights (LoRA): see [`super::lora`].
#[derive(Clone, Debug, PartialEq)]
pub struct LoraSpec {
    /// The rank of an update.
    pub rank: usize,
    /// An update counts with `alpha / rank`.
    pub alpha: f64,
    /// The weights of each layer that are updated.
    pub targets: Vec<LoraTarget>,
}

/// A weight of a layer of the encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LoraTarget {
    /// The query of attention.
    Query,
    /// The key of attention.
    Key,
    /// The value of attention.
    Value,
    /// The dense layer after attention.
    Dense,
    /// The first half of the feed-forward part.
    Intermediate,
    /// The second half of the feed-forward part.
    Output,
}

impl HeadSpec {
    /// Most epochs where nothing is said: early stopping ends a training long before.
    pub const EPOCHS: usize = 100;

    /// A network that is trained to tell classes apart, as by a pipeline file that says nothing of `[head]` and `[train]`:
    /// cross-entropy, dropout 0.1, AdamW, up to 100 epochs of batches of 32 with early stopping by macro F1 on the
    /// validation samples, seed 42.
    pub fn new(network: NetworkSpec) -> HeadSpec {
        HeadSpec {
            network,
            objective: Objective::Rows(Loss::default()),
            dropout: 0.1,
            optimizer: Optimizer::default(),
            schedule: Schedule::default(),
            warmup: 0.0,
            clip: None,
            seed: 42,
            stopping: Some(Stopping::by(Metric::MacroF1)),
            epochs: HeadSpec::EPOCHS,
            stop_after: None,
            batch_size: 32,
            set: 0,
            encoder_layers: None,
        }
    }

    /// Whether the head is one product and a loss of each row, so that it can share a block with others.
    pub fn is_linear(&self) -> bool {
        matches!(self.objective, Objective::Rows(_)) && self.network.is_linear()
    }

    /// Whether one column of logits does for the head's two: see [`crate::train::loss::one_logit`]. Not with Adam and a
    /// decay, where the two columns are no mirror images.
    pub fn is_one_logit(&self) -> bool {
        let cross_entropy = matches!(self.objective, Objective::Rows(Loss::CrossEntropy { .. }));
        let optimizer = &self.optimizer;
        let mirrored = optimizer.kind != OptimizerKind::Adam || optimizer.weight_decay == 0.0;
        self.is_linear() && self.network.n_outputs == 2 && cross_entropy && mirrored
    }
}

/// What a head's outputs are compared with.
#[derive(Clone, Debug, PartialEq)]
pub enum Objective {
    /// Every output row for itself.
    Rows(Loss),
    /// A start and an end among the rows of each sample: see [`super::span`].
    Span,
    /// The sequence of tags of each sample: see [`super::crf`].
    Crf,
}

/// When a head stops early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopping {
    /// The validation metric that is followed; of equal values, that of the lower loss is better.
    pub metric: Metric,
    /// Epochs without a better value before training stops.
    pub patience: usize,
}

impl Stopping {
    /// Epochs without a better value where nothing is said: see "Defaults" in docs/training.md.
    pub const PATIENCE: usize = 10;

    /// Follows a metric with the patience of a pipeline that says nothing.
    pub fn by(metric: Metric) -> Stopping {
        Stopping { metric, patience: Stopping::PATIENCE }
    }
}

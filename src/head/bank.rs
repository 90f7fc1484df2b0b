//! The bank: many heads over one view, trained together. A single head is a bank of one.
//!
//! Heads may differ in the data they learn from ([`SampleSet`]: another fold, another share of the samples, other
//! targets) and in everything that a [`HeadSpec`] holds. Heads with the same set and the same batch size share a pass
//! over the samples (`pass`), in which each tile of rows is decoded once for all of them.

mod pass;
mod validation;

use std::collections::HashMap;

use frostbert_cache::progress::Progress;
use ndarray::ArrayView2;
use rayon::prelude::*;

use self::{pass::Pass, validation::Validation};
use crate::{
    error::{Error, Result},
    features::FeatureView,
    head::{
        history::TrainingHistory,
        outputs::OutputHead,
        spec::HeadSpec,
        targets::TargetTable,
        trained_head::{EpochRecord, TrainedHead},
        transform::Transform,
    },
    metrics::{
        metric::Metric,
        outputs::{OutputRows, gathered},
    },
    train::loss::LossSum,
};

/// What all heads of a bank share.
pub struct BankData<'a> {
    /// The features.
    pub view: &'a FeatureView<'a>,
    /// The transform that is applied to the features first.
    pub transform: &'a Transform,
    /// The sets of samples to learn from; each head refers to its set by its index here.
    pub sets: &'a [SampleSet<'a>],
}

/// The samples that some heads learn from and are evaluated on.
pub struct SampleSet<'a> {
    /// The target of every sample of the view.
    pub targets: &'a TargetTable,
    /// The training samples; a sample may occur more than once.
    pub train: &'a [u32],
    /// The validation samples, used for early stopping; may be empty.
    pub validation: &'a [u32],
    /// Computes the metrics of outputs on the validation samples.
    pub evaluator: &'a dyn Evaluator,
}

/// Computes the metrics of a head's outputs on the validation samples, for the training history.
pub trait Evaluator: Sync {
    /// Returns the values of the metrics. `logits` holds the head's output rows of all validation samples, in order.
    fn scores(&self, logits: ArrayView2<'_, f32>, head: &OutputHead) -> Vec<(Metric, f64)>;

    /// Like [`Evaluator::scores`], for outputs that may not fit into memory. The default implementation gathers them.
    ///
    /// # Errors
    /// Returns an error if the data that they are computed from cannot be read.
    fn scores_of(&self, logits: &dyn OutputRows, head: &OutputHead) -> Result<Vec<(Metric, f64)>> {
        Ok(self.scores(gathered(logits)?.view(), head))
    }
}

/// An evaluator without metrics: only the loss is tracked.
impl Evaluator for () {
    fn scores(&self, _: ArrayView2<'_, f32>, _: &OutputHead) -> Vec<(Metric, f64)> {
        Vec::new()
    }
}

/// How a bank iterates over its samples.
#[derive(Clone, Copy, Debug)]
pub struct BankSettings {
    /// Determines the order of the samples in each epoch.
    pub seed: u64,
    /// Whether the samples are shuffled anew in every epoch; otherwise they keep their given order, as in some of the
    /// programs that this one is compared with.
    pub shuffles: bool,
    /// Whether every head is evaluated after every epoch, or only the heads that are stopped by a metric other than the
    /// loss.
    pub evaluates_all: bool,
    /// Whether a head that diverges is dropped with its best parameters so far while the others go on. If it has none
    /// yet, its parameters are all 0, so its outputs carry no information.
    pub gives_up: bool,
}

impl Default for BankSettings {
    /// Seed 42, as in a pipeline file without a seed; shuffling, and metrics for every epoch.
    fn default() -> BankSettings {
        BankSettings { seed: 42, shuffles: true, evaluates_all: true, gives_up: false }
    }
}

/// Trains all heads together and returns them in the order of `specs`.
///
/// # Errors
/// Returns [`crate::error::Error::Diverged`] if a loss is no longer finite, and an error if a file of the cache does
/// not match the manifest.
///
/// # Panics
/// Panics if [`Bank::new`] would.
pub fn train(
    specs: &[HeadSpec],
    data: &BankData<'_>,
    settings: BankSettings,
    progress: &dyn Progress,
) -> Result<Vec<TrainedHead>> {
    let mut bank = Bank::new(specs, data, settings);
    let most = specs.iter().map(|spec| spec.epochs).max().unwrap_or(0);
    progress.start("training", Some(most as u64), "epochs");
    while bank.is_training() {
        bank.epoch()?;
        if let [history] = &bank.histories[..] {
            progress.detail(&history.last().to_string());
            if bank.epoch == 1
                && !data.sets[specs[0].set].validation.is_empty()
                && history.is_blind()
            {
                progress.warn("early stopping's metric is undefined on the validation rows: every epoch is trained");
            }
        }
        progress.advance(1, 0);
    }
    progress.finish();
    Ok(bank.finish())
}

/// Heads in training.
///
/// Every epoch goes over the samples of each set in the view's [`FeatureView::epoch_order`]. The result for a head
/// depends neither on the other heads nor on the number of threads.
pub(crate) struct Bank<'a> {
    data: &'a BankData<'a>,
    settings: BankSettings,
    specs: &'a [HeadSpec],
    passes: Vec<Pass>,
    histories: Vec<TrainingHistory>,
    epoch: usize,
}

impl<'a> Bank<'a> {
    /// Creates the heads with their initial weights. The caller must have checked its data.
    ///
    /// # Panics
    /// Panics if there are no specs, or if a spec names a set that does not exist or has no training samples, or has a
    /// batch size or a number of epochs of 0.
    pub(crate) fn new(
        specs: &'a [HeadSpec],
        data: &'a BankData<'a>,
        settings: BankSettings,
    ) -> Bank<'a> {
        assert!(!specs.is_empty(), "heads to train");
        let mut heads_of: Vec<((usize, usize), Vec<usize>)> = Vec::new();
        let mut place_of: HashMap<(usize, usize), usize> = HashMap::new();
        for (head, spec) in specs.iter().enumerate() {
            assert!(!data.sets[spec.set].train.is_empty(), "samples to train on");
            assert!(spec.batch_size > 0 && spec.epochs > 0, "batches and epochs");
            let key = (spec.set, spec.batch_size);
            let place = *place_of.entry(key).or_insert_with(|| {
                heads_of.push((key, Vec::new()));
                heads_of.len() - 1
            });
            heads_of[place].1.push(head);
        }
        let passes = heads_of
            .into_iter()
            .map(|((set, batch_size), heads)| Pass::new(set, batch_size, &heads, specs, data))
            .collect();
        Bank {
            data,
            settings,
            specs,
            passes,
            histories: specs.iter().map(TrainingHistory::new).collect(),
            epoch: 0,
        }
    }

    /// Whether any head is still training.
    pub(crate) fn is_training(&self) -> bool {
        self.passes.iter().any(Pass::is_active)
    }

    /// Number of epochs that have been run.
    pub(crate) fn epochs_done(&self) -> usize {
        self.epoch
    }

    /// The numbers of the heads that are still training.
    pub(crate) fn active(&self) -> Vec<usize> {
        let mut heads: Vec<usize> = self.passes.iter().flat_map(Pass::active).collect();
        heads.sort_unstable();
        heads
    }

    /// The record of a head's last epoch.
    ///
    /// # Panics
    /// Panics before the first epoch.
    pub(crate) fn last(&self, head: usize) -> &EpochRecord {
        self.histories[head].last()
    }

    /// Runs one epoch of every head that is still training, and evaluates it on its validation samples.
    ///
    /// # Errors
    /// Returns [`crate::error::Error::Diverged`] if a loss is no longer finite, and an error if a file of the cache
    /// does not match the manifest.
    pub(crate) fn epoch(&mut self) -> Result<()> {
        self.epoch += 1;
        let (data, settings, epoch) = (self.data, self.settings, self.epoch);
        let run = |pass: &mut Pass| pass.run(data, settings, epoch);
        let passes = &mut self.passes;
        // Run this on one of rayon's own threads: it takes part in the work, where a thread outside the pool would
        // block and be woken once per tile.
        rayon::scope(|_| {
            if data.view.is_resident() {
                passes.par_iter_mut().try_for_each(run)
            } else {
                passes.iter_mut().try_for_each(run)
            }
        })?;
        for place in 0..self.passes.len() {
            self.evaluate(place)?;
        }
        Ok(())
    }

    /// Ends the training of some heads.
    pub(crate) fn stop(&mut self, heads: &[usize]) {
        for pass in &mut self.passes {
            for head in heads.iter().filter(|head| pass.active().contains(head)) {
                self.histories[*head].finish(|| pass.parameters(*head));
            }
            pass.stop(heads);
        }
    }

    /// Returns a head as it would be if its training ended now.
    pub(crate) fn best(&self, head: usize) -> TrainedHead {
        let mut history = self.histories[head].clone();
        let mut passes = self.passes.iter();
        if let Some(pass) = passes.find(|pass| pass.active().contains(&head)) {
            history.finish(|| pass.parameters(head));
        }
        history.into_head()
    }

    /// Returns every head with its best parameters, in the order of the specs; heads still in training keep their last.
    pub(crate) fn finish(mut self) -> Vec<TrainedHead> {
        let active = self.active();
        self.stop(&active);
        self.histories.into_iter().map(TrainingHistory::into_head).collect()
    }

    /// Evaluates the heads of a pass and stops those that are done.
    fn evaluate(&mut self, place: usize) -> Result<()> {
        let (pass, specs, epoch) = (&mut self.passes[place], self.specs, self.epoch);
        let losses: HashMap<usize, LossSum> = pass.take_losses().into_iter().collect();
        let heads = pass.active();
        let set = &self.data.sets[pass.set];
        let validation = if set.validation.is_empty() || heads.is_empty() {
            None
        } else {
            Some(Validation::new(self.data, set))
        };
        let mut scores = HashMap::new();
        if let Some(validation) = &validation {
            let parameters = |head: usize| pass.parameters(head);
            scores = validation.scores(&heads, specs, &parameters, self.settings.evaluates_all)?;
        }
        let mut done = Vec::new();
        for head in heads {
            let spec = &specs[head];
            let n_steps = set.train.len().div_ceil(spec.batch_size);
            let (step, all) = (epoch * n_steps - 1, spec.epochs * n_steps);
            let (validation_loss, scores) = scores.remove(&head).unwrap_or_default();
            let record = EpochRecord {
                epoch,
                lr: spec.optimizer.lr * spec.schedule.factor(step, all, spec.warmup),
                train_loss: losses[&head].mean(),
                validation_loss,
                scores,
            };
            let stops = match self.histories[head].record(record, || pass.parameters(head)) {
                Err(Error::Diverged { .. }) if self.settings.gives_up => {
                    let n_parameters = pass.parameters(head).len();
                    self.histories[head].finish(|| vec![0.0; n_parameters]);
                    true
                }
                stops => stops?,
            };
            if stops || epoch == spec.stop_after.unwrap_or(spec.epochs) {
                done.push(head);
            }
        }
        for head in &done {
            self.histories[*head].finish(|| pass.parameters(*head));
        }
        pass.stop(&done);
        Ok(())
    }
}

#[cfg(test)]
mod tests;

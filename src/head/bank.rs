//! The bank: many heads over one view, trained together in one pass over the rows. One head is a bank of one.

use std::collections::HashMap;

use ndarray::{Array2, ArrayView2, s};
use rayon::prelude::*;

use super::{
    block::{self, Block},
    course::{Course, EpochRecord},
    learner::{Batch, Learner},
    network_learner::NetworkLearner,
    spec::HeadSpec,
    targets::TargetTable,
    transform::Transform,
};
use crate::{error::Result, features::FeatureView, progress::Progress, train::loss::LossSum};

/// Rows that are decoded at a time, or those of a batch where it has more; shared, read-only, by all learners.
const SUPER_TILE_ROWS: usize = 4096;

/// Samples that are scored at a time: fixed, so that the bits of a score depend on no number of threads.
const SCORED_SAMPLES: usize = 512;

/// What all heads of a bank share.
pub struct BankData<'a> {
    /// The features.
    pub view: &'a FeatureView<'a>,
    /// What is done to them first.
    pub transform: &'a Transform,
    /// What every sample is to be.
    pub targets: &'a TargetTable,
    /// What the heads learn from.
    pub train: &'a [u32],
    /// What early stopping looks at; may be empty.
    pub validation: &'a [u32],
    /// Says what outputs on the validation samples are worth.
    pub judge: &'a dyn Judge,
}

/// Metrics of a head's outputs on the validation samples, for the course of a training.
pub trait Judge: Sync {
    /// Values by the names of the metrics. `logits` holds the output rows of all validation samples, in their order;
    /// `parameters` are the head's.
    fn scores(&self, logits: ArrayView2<'_, f32>, parameters: &[f32]) -> Vec<(&'static str, f64)>;
}

/// A judge without metrics: only the loss is followed.
impl Judge for () {
    fn scores(&self, _: ArrayView2<'_, f32>, _: &[f32]) -> Vec<(&'static str, f64)> {
        Vec::new()
    }
}

/// How a bank runs over its samples.
#[derive(Clone, Copy, Debug)]
pub struct BankSettings {
    /// Most passes over the training samples.
    pub epochs: usize,
    /// Samples of one step.
    pub batch_size: usize,
    /// Decides the order of the samples in each epoch.
    pub seed: u64,
}

impl Default for BankSettings {
    /// 10 epochs of batches of 32, seed 42: as a pipeline file that names none.
    fn default() -> BankSettings {
        BankSettings {
            epochs: 10,
            batch_size: 32,
            seed: 42,
        }
    }
}

/// A head after training, on transformed features.
#[derive(Clone, Debug)]
pub struct TrainedHead {
    /// Laid out as the head's [`super::network::Network`] lays them out.
    pub parameters: Vec<f32>,
    /// What happened, epoch by epoch.
    pub history: Vec<EpochRecord>,
    /// The epoch whose parameters these are.
    pub best_epoch: usize,
}

/// Trains all heads together and returns them in the order of `specs`.
///
/// Every epoch runs over the training samples in the view's [`FeatureView::epoch_order`]. Super-tiles are decoded and
/// transformed once; learners run all batches of a tile side by side, each for itself. The result of a head depends
/// neither on its neighbours nor on the number of threads.
///
/// # Errors
/// [`crate::error::Error::Diverged`] when a loss is no longer finite; when a file of the cache is not what it should be.
///
/// # Panics
/// When there are no specs or no training samples, or a target is no class: the caller checks its data.
pub fn train(
    specs: &[HeadSpec],
    data: &BankData<'_>,
    settings: BankSettings,
    progress: &dyn Progress,
) -> Result<Vec<TrainedHead>> {
    assert!(
        !specs.is_empty() && !data.train.is_empty(),
        "heads and samples to train on"
    );
    let n_steps = data.train.len().div_ceil(settings.batch_size);
    let total_steps = n_steps * settings.epochs;
    let mut learners = learners(specs, data.transform.n_features(), total_steps);
    let mut courses: Vec<Course> = specs.iter().map(Course::new).collect();
    let validation = Validation::new(data);

    progress.start("training", Some(settings.epochs as u64), "epochs");
    for epoch in 1..=settings.epochs {
        train_epoch(&mut learners, data, settings, epoch)?;
        let mut losses: Vec<(usize, LossSum)> = learners
            .iter_mut()
            .flat_map(|learner| learner.take_losses())
            .collect();
        losses.sort_by_key(|(head, _)| *head);
        let scored = validation.score(&learners, data, specs)?;
        for (head, loss) in losses {
            let spec = &specs[head];
            let factor = spec
                .schedule
                .factor(epoch * n_steps - 1, total_steps, spec.warmup);
            let learner = learners
                .iter_mut()
                .find(|learner| learner.heads().contains(&head))
                .expect("every head has a learner");
            let (validation_loss, scores) = match &scored[head] {
                Some(logits) if !data.validation.is_empty() => {
                    let all = 0..data.validation.len();
                    let targets = validation.targets.slice(all, &validation.starts);
                    let loss = learner.loss(head, logits.view(), &validation.starts, targets);
                    let scores = data.judge.scores(logits.view(), &learner.parameters(head));
                    ((loss.weight > 0.0).then(|| loss.mean()), scores)
                }
                _ => (None, Vec::new()),
            };
            let record = EpochRecord {
                epoch,
                lr: spec.optimizer.lr * factor,
                train_loss: loss.mean(),
                validation_loss,
                scores,
            };
            if specs.len() == 1 {
                progress.detail(&record.to_string());
            }
            let stop = courses[head].judge(record, || learner.parameters(head))?;
            if epoch == 1 && !data.validation.is_empty() && courses[head].is_blind() {
                progress.warn("early stopping's metric is undefined on the validation rows: every epoch is trained");
            }
            if stop {
                learner.stop(head);
            }
        }
        progress.advance(1, 0);
        if !learners.iter().any(|learner| learner.is_active()) {
            break;
        }
    }
    progress.finish();

    for learner in &learners {
        for head in learner.heads() {
            courses[head].finish(|| learner.parameters(head));
        }
    }
    Ok(courses.into_iter().map(Course::into_head).collect())
}

/// Linear heads share blocks; every other head is a learner of its own.
fn learners(specs: &[HeadSpec], n_features: usize, total_steps: usize) -> Vec<Box<dyn Learner>> {
    let mut learners: Vec<Box<dyn Learner>> = Vec::new();
    let (linear, other): (Vec<usize>, Vec<usize>) =
        (0..specs.len()).partition(|head| specs[*head].is_linear());
    for heads in block::assign(specs, &linear) {
        let heads = heads
            .into_iter()
            .map(|head| (head, specs[head].clone()))
            .collect();
        learners.push(Box::new(Block::new(heads, n_features, total_steps)));
    }
    for head in other {
        let learner = NetworkLearner::new(head, specs[head].clone(), total_steps);
        learners.push(Box::new(learner));
    }
    learners
}

fn train_epoch(
    learners: &mut [Box<dyn Learner>],
    data: &BankData<'_>,
    settings: BankSettings,
    epoch: usize,
) -> Result<()> {
    let (view, batch_size) = (data.view, settings.batch_size);
    let order = view.epoch_order(data.train, settings.seed, epoch, batch_size);
    for window in view.loads(&order, batch_size) {
        let (window, loaded) = window?;
        for samples in window.chunks(tile_samples(view, window, batch_size)) {
            let mut tile = view.tile(&loaded, samples);
            tile.rows = data.transform.apply(tile.rows);
            let targets = data.targets.gather(view, samples);
            learners
                .par_iter_mut()
                .filter(|learner| learner.is_active())
                .for_each(|learner| {
                    for start in (0..samples.len()).step_by(batch_size) {
                        let end = (start + batch_size).min(samples.len());
                        let rows = tile.starts[start]..tile.starts[end];
                        let starts: Vec<usize> = tile.starts[start..=end]
                            .iter()
                            .map(|row| row - rows.start)
                            .collect();
                        learner.step(&Batch {
                            rows: tile.rows.slice(s![rows.clone(), ..]),
                            starts: &starts,
                            row_ids: &tile.row_ids[rows],
                            targets: targets.slice(start..end, &tile.starts),
                            epoch,
                        });
                    }
                });
        }
    }
    Ok(())
}

/// Samples of a super-tile: whole batches of about [`SUPER_TILE_ROWS`] rows.
fn tile_samples(view: &FeatureView<'_>, samples: &[u32], batch_size: usize) -> usize {
    let n_rows: usize = samples
        .iter()
        .map(|sample| view.rows_of(*sample).len())
        .sum();
    let rows_of_batch = (n_rows * batch_size).div_ceil(samples.len().max(1)).max(1);
    (SUPER_TILE_ROWS / rows_of_batch).max(1) * batch_size
}

/// The validation samples: their targets, and where the output of each lies.
struct Validation {
    targets: TargetTable,
    /// First row of each sample among those of all, and the number of rows.
    starts: Vec<usize>,
    place_of: HashMap<u32, usize>,
}

impl Validation {
    fn new(data: &BankData<'_>) -> Validation {
        let mut starts = vec![0];
        let mut total = 0;
        for sample in data.validation {
            total += data.view.rows_of(*sample).len();
            starts.push(total);
        }
        let places = data.validation.iter().enumerate();
        Validation {
            targets: data.targets.gather(data.view, data.validation),
            starts,
            place_of: places.map(|(place, sample)| (*sample, place)).collect(),
        }
    }

    /// Outputs of every head that is still training, on all validation samples in their order.
    fn score(
        &self,
        learners: &[Box<dyn Learner>],
        data: &BankData<'_>,
        specs: &[HeadSpec],
    ) -> Result<Vec<Option<Array2<f32>>>> {
        let n_samples = data.validation.len();
        let mut scored: Vec<Option<Array2<f32>>> = specs.iter().map(|_| None).collect();
        for learner in learners.iter().filter(|learner| learner.is_active()) {
            for head in learner.heads() {
                let network = &specs[head].network;
                let n_rows = match network.attention {
                    true => n_samples,
                    false => self.starts[n_samples],
                };
                scored[head] = Some(Array2::zeros((n_rows, network.n_outputs)));
            }
        }
        data.view
            .for_each_tile(data.validation, SCORED_SAMPLES, |samples, tile| {
                let rows = data.transform.apply(tile.rows);
                let parts: Vec<(usize, Array2<f32>)> = learners
                    .par_iter()
                    .filter(|learner| learner.is_active())
                    .flat_map_iter(|learner| learner.logits(rows.view(), &tile.starts))
                    .collect();
                for (head, part) in parts {
                    let Some(all) = &mut scored[head] else {
                        continue;
                    };
                    for (number, sample) in samples.iter().enumerate() {
                        let place = self.place_of[sample];
                        let (from, to) = match specs[head].network.attention {
                            true => (number..number + 1, place..place + 1),
                            false => (
                                tile.starts[number]..tile.starts[number + 1],
                                self.starts[place]..self.starts[place + 1],
                            ),
                        };
                        all.slice_mut(s![to, ..]).assign(&part.slice(s![from, ..]));
                    }
                }
            })?;
        Ok(scored)
    }
}

#[cfg(test)]
mod tests;

//! The bank: many heads over one view, trained together in one pass over the rows. One head is a bank of one.

use ndarray::{Array1, Array2, s};
use rand::{SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::{
    block::{self, BatchView, Block},
    spec::{HeadSpec, StoppingMetric},
};
use crate::{
    error::{Error, Result},
    features::{FeatureView, scaler::Scaler},
    metrics::{calibration::softmax_rows, classification},
    progress::Progress,
    train::{
        early_stopping::{EarlyStopping, Verdict},
        loss::{LossSum, Targets},
    },
};

/// Rows that are decoded at a time and then shared, read-only, by all blocks.
const SUPER_TILE_ROWS: usize = 4096;

/// Some rows of a view with their classes.
#[derive(Clone, Copy)]
pub struct LabelledRows<'a> {
    /// Rows of the view.
    pub samples: &'a [u32],
    /// The class of each.
    pub labels: &'a [u32],
}

/// What all heads of a bank share.
pub struct BankData<'a> {
    /// The features.
    pub view: &'a FeatureView,
    /// How they are standardised.
    pub scaler: &'a Scaler,
    /// What the heads learn from.
    pub train: LabelledRows<'a>,
    /// What early stopping looks at; may be empty.
    pub validation: LabelledRows<'a>,
}

/// How a bank runs over its rows.
#[derive(Clone, Copy, Debug)]
pub struct BankSettings {
    /// Most passes over the training rows.
    pub epochs: usize,
    /// Rows of one step.
    pub batch_size: usize,
    /// Decides the order of the rows in each epoch.
    pub seed: u64,
}

/// One epoch of one head.
#[derive(Clone, Debug, PartialEq)]
pub struct EpochRecord {
    /// From 1.
    pub epoch: usize,
    /// The learning rate at the epoch's last step.
    pub lr: f64,
    /// Mean training loss over the epoch's steps, dropout and smoothing included.
    pub train_loss: f64,
    /// Mean validation loss, without either; `None` without validation rows.
    pub validation_loss: Option<f64>,
    /// Validation accuracy.
    pub validation_accuracy: Option<f64>,
    /// Validation macro F1.
    pub validation_macro_f1: Option<f64>,
}

/// A head after training, on standardised features.
#[derive(Clone, Debug)]
pub struct TrainedHead {
    /// `[n_features, classes]`.
    pub weights: Array2<f32>,
    /// `[classes]`.
    pub bias: Array1<f32>,
    /// What happened, epoch by epoch.
    pub history: Vec<EpochRecord>,
    /// The epoch whose weights these are.
    pub best_epoch: usize,
}

/// Trains all heads together and returns them in the order of `specs`.
///
/// Every epoch runs over the training rows in an order that is a function of the seed and the epoch. Super-tiles of rows
/// are decoded once; blocks of heads run all batches of a tile side by side, each for itself. The result of a head
/// depends neither on its neighbours nor on the number of threads.
///
/// # Errors
/// [`Error::Diverged`] when a loss is no longer finite.
///
/// # Panics
/// When there are no specs or no training rows, or a label is no class: the caller checks its data.
pub fn train(
    specs: &[HeadSpec],
    data: &BankData<'_>,
    settings: BankSettings,
    progress: &dyn Progress,
) -> Result<Vec<TrainedHead>> {
    assert!(
        !specs.is_empty() && !data.train.samples.is_empty(),
        "heads and rows to train on"
    );
    let n_steps = data.train.samples.len().div_ceil(settings.batch_size);
    let total_steps = n_steps * settings.epochs;
    let mut blocks: Vec<Block> = block::assign(specs)
        .into_iter()
        .map(|heads| {
            let heads = heads
                .into_iter()
                .map(|index| (index, specs[index].clone()))
                .collect();
            Block::new(heads, data.view.n_features(), total_steps)
        })
        .collect();
    let mut records: Vec<HeadRecord> = specs.iter().map(HeadRecord::new).collect();

    progress.start("training", Some(settings.epochs as u64), "epochs");
    for epoch in 1..=settings.epochs {
        train_epoch(&mut blocks, data, settings, epoch);
        let mut losses: Vec<(usize, LossSum)> =
            blocks.iter_mut().flat_map(Block::take_losses).collect();
        losses.sort_by_key(|(index, _)| *index);
        let logits = validation_logits(&blocks, data, specs);
        for (index, loss) in losses {
            let spec = &specs[index];
            let last_step = epoch * n_steps - 1;
            let lr = spec.optimizer.lr * spec.schedule.factor(last_step, total_steps, spec.warmup);
            let record = EpochRecord {
                epoch,
                lr,
                train_loss: loss.mean(),
                validation_loss: None,
                validation_accuracy: None,
                validation_macro_f1: None,
            };
            let block = blocks
                .iter_mut()
                .find(|block| block.head_indices().any(|other| other == index))
                .expect("every head is in a block");
            let stop = records[index].judge(
                spec,
                record,
                &logits[index],
                data.validation.labels,
                || block.parameters(index),
            )?;
            if specs.len() == 1 {
                progress.detail(&describe(
                    records[index].history.last().expect("just recorded"),
                ));
            }
            if epoch == 1 && records[index].is_blind(data) {
                progress.warn("early stopping's metric is undefined on the validation rows: every epoch is trained");
            }
            if stop {
                block.stop(index);
            }
        }
        progress.advance(1, 0);
        if !blocks.iter().any(Block::is_active) {
            break;
        }
    }
    progress.finish();

    for block in &blocks {
        for index in block.head_indices() {
            records[index].finish(|| block.parameters(index));
        }
    }
    Ok(records.into_iter().map(HeadRecord::into_head).collect())
}

/// The order of the training rows in an epoch: a function of the seed and the epoch alone.
pub fn epoch_order(n_rows: usize, seed: u64, epoch: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..n_rows as u32).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(epoch as u64);
    order.shuffle(&mut rng);
    order
}

fn train_epoch(blocks: &mut [Block], data: &BankData<'_>, settings: BankSettings, epoch: usize) {
    let order = epoch_order(data.train.samples.len(), settings.seed, epoch);
    let batches_per_tile = (SUPER_TILE_ROWS / settings.batch_size).max(1);
    for tile in order.chunks(batches_per_tile * settings.batch_size) {
        let samples: Vec<u32> = tile
            .iter()
            .map(|row| data.train.samples[*row as usize])
            .collect();
        let labels: Vec<u32> = tile
            .iter()
            .map(|row| data.train.labels[*row as usize])
            .collect();
        let mut features = data.view.decode(&samples);
        data.scaler.apply(features.view_mut());
        blocks
            .par_iter_mut()
            .filter(|block| block.is_active())
            .for_each(|block| {
                for start in (0..samples.len()).step_by(settings.batch_size) {
                    let end = (start + settings.batch_size).min(samples.len());
                    block.step(&BatchView {
                        features: features.slice(s![start..end, ..]),
                        labels: &labels[start..end],
                        row_ids: &samples[start..end],
                        epoch,
                    });
                }
            });
    }
}

/// Validation logits of every head that is still training; an empty array for the others.
fn validation_logits(
    blocks: &[Block],
    data: &BankData<'_>,
    specs: &[HeadSpec],
) -> Vec<Array2<f32>> {
    let n_rows = data.validation.samples.len();
    let mut logits: Vec<Array2<f32>> = specs
        .iter()
        .map(|spec| Array2::zeros((n_rows, spec.n_classes)))
        .collect();
    for (number, tile) in data.validation.samples.chunks(SUPER_TILE_ROWS).enumerate() {
        let mut features = data.view.decode(tile);
        data.scaler.apply(features.view_mut());
        let start = number * SUPER_TILE_ROWS;
        let parts: Vec<(usize, Array2<f32>)> = blocks
            .par_iter()
            .flat_map_iter(|block| block.logits(features.view()))
            .collect();
        for (index, part) in parts {
            logits[index]
                .slice_mut(s![start..start + tile.len(), ..])
                .assign(&part);
        }
    }
    logits
}

/// One head's course and its best weights.
struct HeadRecord {
    stopping: Option<EarlyStopping>,
    history: Vec<EpochRecord>,
    best: Option<(usize, Array2<f32>, Array1<f32>)>,
}

impl HeadRecord {
    fn new(spec: &HeadSpec) -> HeadRecord {
        let stopping = spec.stopping.as_ref().map(|stopping| {
            EarlyStopping::new(stopping.patience, stopping.metric.higher_is_better())
        });
        HeadRecord {
            stopping,
            history: Vec::new(),
            best: None,
        }
    }

    /// Records an epoch, keeps the weights if it was the best, and says whether to stop.
    fn judge(
        &mut self,
        spec: &HeadSpec,
        mut record: EpochRecord,
        logits: &Array2<f32>,
        labels: &[u32],
        weights: impl FnOnce() -> (Array2<f32>, Array1<f32>),
    ) -> Result<bool> {
        let mut value = None;
        if !labels.is_empty() {
            let labels_usize: Vec<usize> = labels.iter().map(|label| *label as usize).collect();
            let probabilities = softmax_rows(logits.view(), 1.0);
            let metrics =
                classification::evaluate(&labels_usize, probabilities.view(), spec.n_classes, None);
            record.validation_loss = Some(
                spec.loss
                    .loss(logits.view(), Targets::Classes(labels))
                    .mean(),
            );
            record.validation_accuracy = metrics.accuracy;
            record.validation_macro_f1 = metrics.macro_f1;
            value = spec
                .stopping
                .as_ref()
                .and_then(|stopping| match stopping.metric {
                    StoppingMetric::Loss => record.validation_loss,
                    StoppingMetric::Accuracy => metrics.accuracy,
                    StoppingMetric::MacroF1 => metrics.macro_f1,
                    StoppingMetric::MicroF1 => metrics.micro_f1,
                    StoppingMetric::WeightedF1 => metrics.weighted_f1,
                    StoppingMetric::Mcc => metrics.mcc,
                    StoppingMetric::RocAuc => metrics.roc_auc,
                    StoppingMetric::LogLoss => metrics.log_loss,
                    StoppingMetric::Brier => metrics.brier,
                    StoppingMetric::Ece => metrics.ece,
                });
        }
        let losses = [Some(record.train_loss), record.validation_loss];
        if let Some(loss) = losses.into_iter().flatten().find(|loss| !loss.is_finite()) {
            return Err(Error::Diverged {
                problem: format!("the loss of epoch {} is {loss}", record.epoch),
                hint: "lower train.lr, raise train.warmup, or set train.clip".into(),
            });
        }
        let epoch = record.epoch;
        self.history.push(record);
        let (Some(stopping), Some(value)) = (&mut self.stopping, value) else {
            return Ok(false);
        };
        match stopping.judge(epoch, value) {
            Verdict::Best => {
                let (weights, bias) = weights();
                self.best = Some((epoch, weights, bias));
                Ok(false)
            }
            Verdict::GoOn => Ok(false),
            Verdict::Stop => Ok(true),
        }
    }

    /// Whether there are validation rows, but no value of the metric to stop by.
    fn is_blind(&self, data: &BankData<'_>) -> bool {
        let stopping = self.stopping.as_ref();
        !data.validation.samples.is_empty()
            && stopping.is_some_and(|stopping| stopping.best_epoch().is_none())
    }

    /// Takes the last weights where no best ones were kept.
    fn finish(&mut self, last: impl FnOnce() -> (Array2<f32>, Array1<f32>)) {
        if self.best.is_none() {
            let (weights, bias) = last();
            self.best = Some((self.history.len(), weights, bias));
        }
    }

    fn into_head(self) -> TrainedHead {
        let (best_epoch, weights, bias) = self.best.expect("finished records hold weights");
        TrainedHead {
            weights,
            bias,
            history: self.history,
            best_epoch,
        }
    }
}

fn describe(record: &EpochRecord) -> String {
    let mut text = format!("epoch {}: loss {:.4}", record.epoch, record.train_loss);
    if let (Some(loss), Some(accuracy)) = (record.validation_loss, record.validation_accuracy) {
        text.push_str(&format!(
            ", validation loss {loss:.4}, accuracy {accuracy:.4}"
        ));
    }
    text
}

#[cfg(test)]
mod tests;

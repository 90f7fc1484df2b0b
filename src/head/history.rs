//! The epochs of a head in training: their records, its best parameters, and when it stops.

use crate::{
    error::{Error, Result},
    head::{
        spec::HeadSpec,
        trained_head::{EpochRecord, TrainedHead},
    },
    metrics::metric::Metric,
    train::early_stopping::{EarlyStopping, Verdict},
};

/// The epochs of one head so far, and its best parameters.
#[derive(Clone)]
pub(super) struct TrainingHistory {
    stopping: Option<(Metric, EarlyStopping)>,
    history: Vec<EpochRecord>,
    best: Option<(usize, Vec<f32>)>,
}

impl TrainingHistory {
    pub(super) fn new(spec: &HeadSpec) -> TrainingHistory {
        let stopping = spec.stopping.as_ref().map(|stopping| {
            let higher_is_better = stopping.metric.higher_is_better();
            let early = EarlyStopping::new(stopping.patience, higher_is_better);
            (stopping.metric, early)
        });
        TrainingHistory { stopping, history: Vec::new(), best: None }
    }

    /// Records an epoch, keeps the parameters if it was the best, and says whether to stop.
    ///
    /// # Errors
    /// [`Error::Diverged`] when a loss is no number.
    pub(super) fn record(
        &mut self,
        record: EpochRecord,
        parameters: impl FnOnce() -> Vec<f32>,
    ) -> Result<bool> {
        if let Some(loss) = record.bad_loss() {
            let epoch = record.epoch;
            self.history.push(record);
            return Err(Error::Diverged {
                problem: format!("the loss of epoch {epoch} is {loss}"),
                hint: "lower train.lr, raise train.warmup, or set train.clip".into(),
            });
        }
        let verdict = self.stopping.as_mut().and_then(|(metric, stopping)| {
            let value = record.score(*metric)?;
            let loss = record.validation_loss.unwrap_or(f64::INFINITY);
            Some(stopping.observe(record.epoch, value, loss))
        });
        let epoch = record.epoch;
        self.history.push(record);
        if verdict == Some(Verdict::Best) {
            self.best = Some((epoch, parameters()));
        }
        Ok(verdict == Some(Verdict::Stop))
    }

    /// The last epoch.
    ///
    /// # Panics
    /// Before the first.
    pub(super) fn last(&self) -> &EpochRecord {
        self.history.last().expect("an epoch was run")
    }

    /// Whether there is no value of the metric to stop by.
    pub(super) fn is_blind(&self) -> bool {
        let stopping = self.stopping.as_ref();
        stopping.is_some_and(|(_, stopping)| stopping.best_epoch().is_none())
    }

    /// Takes the last parameters where no best ones were kept.
    pub(super) fn finish(&mut self, last: impl FnOnce() -> Vec<f32>) {
        if self.best.is_none() {
            self.best = Some((self.history.len(), last()));
        }
    }

    pub(super) fn into_head(self) -> TrainedHead {
        let (best_epoch, parameters) = self.best.expect("a finished course holds parameters");
        TrainedHead { parameters, history: self.history, best_epoch }
    }
}

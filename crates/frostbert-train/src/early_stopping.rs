//! When to stop, and which epoch was the best.

/// Follows one head's validation metric over the epochs.
#[derive(Clone, Debug)]
pub struct EarlyStopping {
    patience: usize,
    higher_is_better: bool,
    best: Option<BestEpoch>,
}

/// An epoch that no other was better than.
#[derive(Clone, Copy, Debug)]
struct BestEpoch {
    epoch: usize,
    value: f64,
    loss: f64,
}

/// What an epoch's value means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The best so far: keep these weights.
    Best,
    /// Not better, but it may come.
    GoOn,
    /// No better value for `patience` epochs.
    Stop,
}

impl EarlyStopping {
    /// Stops after `patience` epochs in a row without a better value.
    pub fn new(patience: usize, higher_is_better: bool) -> EarlyStopping {
        EarlyStopping { patience, higher_is_better, best: None }
    }

    /// Observes the value of an epoch (from 1), and its loss on the same rows.
    ///
    /// Of equal values, that with the lower loss is better: on few rows a metric has few values, and the loss still falls.
    /// NaN is never better.
    ///
    /// ```
    /// use frostbert_train::early_stopping::{EarlyStopping, Verdict};
    /// let mut stopping = EarlyStopping::new(2, false);
    /// let verdicts: Vec<Verdict> =
    ///     [0.9, 0.7, 0.8, 0.7].into_iter().enumerate().map(|(i, v)| stopping.observe(i + 1, v, v)).collect();
    /// assert_eq!(verdicts, [Verdict::Best, Verdict::Best, Verdict::GoOn, Verdict::Stop]);
    /// assert_eq!(stopping.best_epoch(), Some(2));
    ///
    /// let mut by_accuracy = EarlyStopping::new(2, true);
    /// assert_eq!(by_accuracy.observe(1, 1.0, 0.4), Verdict::Best);
    /// assert_eq!(by_accuracy.observe(2, 1.0, 0.3), Verdict::Best);
    /// assert_eq!(by_accuracy.observe(3, 0.9, 0.2), Verdict::GoOn);
    /// ```
    pub fn observe(&mut self, epoch: usize, value: f64, loss: f64) -> Verdict {
        let better = match self.best {
            None => !value.is_nan(),
            Some(best) if value == best.value => loss < best.loss,
            Some(best) if self.higher_is_better => value > best.value,
            Some(best) => value < best.value,
        };
        if better {
            self.best = Some(BestEpoch { epoch, value, loss });
            return Verdict::Best;
        }
        let since = epoch - self.best_epoch().unwrap_or(0);
        if since >= self.patience { Verdict::Stop } else { Verdict::GoOn }
    }

    /// The epoch of the best value so far.
    pub fn best_epoch(&self) -> Option<usize> {
        self.best.map(|best| best.epoch)
    }
}

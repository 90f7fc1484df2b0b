//! Everything that a sweep has trained so far, and the scores of its trials.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex},
};

use crate::{
    data::dataset::Dataset,
    error::Result,
    metrics::{metric::Metric, row_statistics::RowStatistics},
    report::sheet::Sheet,
    sweep::{Sweep, heads::HeadResult, journal::UnitRecord},
    tasks::predictions::{Calibration, Gold, Predictions},
};

/// The file with the time that each unit took.
const TIMINGS_FILE: &str = "timings.csv";

/// Everything that was trained.
pub(super) struct SearchOutcome {
    results: HashMap<(usize, u64, usize), HeadResult>,
    calibrations: HashMap<usize, Calibration>,
    /// The rows of the dataset that are evaluated, for each split.
    pub(super) judged: Vec<Vec<u32>>,
    /// The rung that each trial reached, in successive halving.
    pub(super) rungs: Vec<Option<usize>>,
    pub(super) heads: usize,
    /// Sums over heads: the training samples, the epochs, and their products.
    pub(super) rows: f64,
    pub(super) epochs: f64,
    pub(super) head_samples: f64,
    pub(super) seconds: f64,
    units: Vec<(usize, u64, f64)>,
    gold: Mutex<HashMap<Vec<usize>, Arc<Gold>>>,
}

impl SearchOutcome {
    pub(super) fn new(sweep: &Sweep<'_>) -> SearchOutcome {
        SearchOutcome {
            results: HashMap::new(),
            calibrations: HashMap::new(),
            judged: vec![Vec::new(); sweep.splits.len()],
            rungs: vec![None; sweep.trials.len()],
            heads: 0,
            rows: 0.0,
            epochs: 0.0,
            head_samples: 0.0,
            seconds: 0.0,
            units: Vec::new(),
            gold: Mutex::new(HashMap::new()),
        }
    }

    pub(super) fn add(&mut self, unit: UnitRecord) {
        self.heads += unit.heads.len();
        self.rows += unit.rows as f64;
        self.head_samples += unit.head_samples as f64;
        self.seconds += unit.seconds;
        self.units.push((unit.heads.len(), unit.head_samples, unit.seconds));
        self.judged = unit.judged;
        if let (Some(calibration), Some((plan, _))) = (unit.calibration, unit.heads.first()) {
            self.calibrations.insert(plan.trial, calibration);
        }
        for (plan, result) in unit.heads {
            self.epochs += result.epochs as f64;
            self.results.insert((plan.trial, plan.seed, plan.split), result);
        }
    }

    /// Returns the number of heads that diverged, including those that are not part of any setting's score.
    pub(super) fn n_diverged(&self) -> usize {
        self.results.values().filter(|result| result.diverged).count()
    }

    /// Returns the result of a head.
    pub(super) fn result(&self, trial: usize, seed: u64, split: usize) -> &HeadResult {
        &self.results[&(trial, seed, split)]
    }

    /// Returns what a trial is calibrated to, if its heads told it as they were trained.
    pub(super) fn calibration(&self, trial: usize) -> Option<&Calibration> {
        self.calibrations.get(&trial)
    }

    /// Returns the truth of the rows of some splits, one split after the other.
    pub(super) fn gold(&self, dataset: &Dataset, splits: &[usize]) -> Arc<Gold> {
        let mut known = self.gold.lock().expect("no panic while rows are gathered");
        let gold = known.entry(splits.to_vec()).or_insert_with(|| {
            let rows = splits.iter().flat_map(|split| self.judged[*split].iter().copied());
            Arc::new(Gold::new(dataset, rows.collect()))
        });
        gold.clone()
    }

    /// Writes timings.csv, with a line for each unit.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub(super) fn write_timings(&self, run: &Path) -> Result<()> {
        let units = || self.units.iter();
        let mut sheet = Sheet::default();
        sheet.integers("unit", (1..=self.units.len()).map(Some));
        sheet.integers("heads", units().map(|(heads, ..)| Some(*heads)));
        sheet.integers("head_samples", units().map(|(_, samples, _)| Some(*samples as usize)));
        sheet.numbers("seconds", units().map(|(.., seconds)| Some(*seconds)));
        sheet.write_csv(&run.join(TIMINGS_FILE))
    }
}

/// Combines the predictions for the rows of several splits with the truth.
pub(super) fn pooled(
    splits: &[usize],
    predictions: &[&Predictions],
    done: &SearchOutcome,
    sweep: &Sweep<'_>,
    metric: Metric,
) -> RowStatistics {
    let mut all = predictions[0].clone();
    for more in &predictions[1..] {
        all.append((*more).clone());
    }
    let gold = done.gold(sweep.dataset, splits);
    all.statistics(sweep.dataset, &gold, metric)
}

/// Returns a trial's score: the mean over its seeds of the score on the rows of all folds, for the heads that were
/// trained on all training rows.
pub(super) fn score(
    sweep: &Sweep<'_>,
    done: &SearchOutcome,
    metric: Metric,
    trial: usize,
) -> Option<f64> {
    score_on(sweep, done, metric, trial, &whole_splits(sweep))
}

/// Returns the splits whose heads can win.
pub(super) fn whole_splits(sweep: &Sweep<'_>) -> Vec<usize> {
    (0..sweep.splits.len()).filter(|split| sweep.is_whole(&sweep.splits[*split])).collect()
}

/// Returns the mean over a trial's seeds of its score on the rows of some splits together.
pub(super) fn score_on(
    sweep: &Sweep<'_>,
    done: &SearchOutcome,
    metric: Metric,
    trial: usize,
    splits: &[usize],
) -> Option<f64> {
    let result = |seed: u64, split: usize| done.result(trial, seed, split);
    score_of(sweep, done, metric, splits, result)
}

/// Returns the mean over seeds of the score of heads on the rows of some splits together; `None` if one of them
/// diverged, or if the metric has no value.
pub(super) fn score_of<'a>(
    sweep: &Sweep<'_>,
    done: &SearchOutcome,
    metric: Metric,
    splits: &[usize],
    result: impl Fn(u64, usize) -> &'a HeadResult,
) -> Option<f64> {
    let mut total = 0.0;
    for seed in 0..sweep.section.seeds as u64 {
        let results: Vec<&HeadResult> = splits.iter().map(|split| result(seed, *split)).collect();
        if results.iter().any(|result| result.diverged) {
            return None;
        }
        let all: Vec<&Predictions> = results.iter().map(|result| &result.predictions).collect();
        total += pooled(splits, &all, done, sweep, metric).score(metric, None)?;
    }
    Some(total / sweep.section.seeds as f64)
}

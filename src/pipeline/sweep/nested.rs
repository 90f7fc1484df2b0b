//! Nested folds: what choosing a setting, and training it, is worth on rows that had no part in either.
//!
//! The best of many scores is too good, because chance helped to make it the best. So for each fold the setting is chosen
//! on folds of the other rows alone, trained on all of these for as many epochs as it was best after there, and judged on
//! the fold (Varma and Simon 2006). The score of all folds together is that of the procedure, not of one setting.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    DRAWS, Sweep,
    candidates::{Metric, pooled},
    heads::HeadPlan,
    search::{Done, score_on},
};
use crate::{
    error::Result,
    metrics::intervals::{Bootstrap, bootstrap},
    pipeline::tasks::said::Said,
    progress::Progress,
    report::sheet::Sheet,
    sweep::show,
};

/// The settings that each fold chose, and what they came to.
const FILE: &str = "nested.csv";

/// What the choice is worth, by nested folds.
#[derive(Clone, Debug, Serialize)]
pub struct NestedScore {
    /// The metric's name.
    pub metric: String,
    /// Of the rows of all folds together, each by the setting that was chosen without its fold.
    pub score: Option<f64>,
    /// The score's bootstrap interval over rows.
    pub interval: Option<[f64; 2]>,
    /// Fold after fold.
    pub folds: Vec<NestedFold>,
}

/// What was chosen without a fold.
#[derive(Clone, Debug, Serialize)]
pub struct NestedFold {
    /// The chosen settings.
    pub settings: Map<String, Value>,
    /// The score that chose them, on folds of the other rows.
    pub inner: Option<f64>,
    /// Epochs that it was trained for; 0 for a fit in full batch.
    pub epochs: usize,
    /// On the fold itself.
    pub score: Option<f64>,
}

/// Chooses without each fold and trains what was chosen; `None` without nested folds.
///
/// # Errors
/// When the cache is at fault.
pub(super) fn score(
    sweep: &Sweep<'_>,
    done: &Done,
    metric: &Metric,
    progress: &dyn Progress,
) -> Result<Option<NestedScore>> {
    if sweep.section.nested.is_none() {
        return Ok(None);
    }
    let outer = sweep.section.folds.unwrap_or(0);
    progress.start("choosing without each fold", Some(outer as u64), "folds");
    let mut folds = Vec::with_capacity(outer);
    let mut said: Vec<Said> = Vec::with_capacity(outer);
    // Without shares and resamples the first cuts are the folds, in their order.
    for fold in 0..outer {
        let cuts: Vec<usize> = (0..sweep.cuts.len())
            .filter(|cut| sweep.cuts[*cut].without == Some(fold))
            .collect();
        let (trial, inner) = best(sweep, done, metric, &cuts);
        let epochs = best_epoch(sweep, done, trial, &cuts);
        let plan = HeadPlan {
            trial,
            seed: 0,
            cut: fold,
        };
        let own = sweep.fields(trial)?.after(plan, epochs, sweep)?;
        let evidence = pooled(&[fold], &[&own], done, sweep, metric);
        let pairs = sweep.trials[trial].settings.iter();
        folds.push(NestedFold {
            settings: pairs
                .map(|(key, value)| (key.clone(), json!(value)))
                .collect(),
            inner,
            epochs,
            score: evidence.score(metric.name, None),
        });
        said.push(own);
        progress.advance(1, 0);
    }
    progress.finish();
    let all: Vec<&Said> = said.iter().collect();
    let evidence = pooled(&(0..outer).collect::<Vec<_>>(), &all, done, sweep, metric);
    let draws = Bootstrap {
        resamples: DRAWS,
        seed: sweep.pipeline.file.seed,
    };
    let [interval] = bootstrap(evidence.n_rows(), draws, |weights| {
        [evidence.score(metric.name, Some(weights))]
    });
    Ok(Some(NestedScore {
        metric: metric.name.into(),
        score: evidence.score(metric.name, None),
        interval,
        folds,
    }))
}

/// The trial with the best score on the rows of some cuts, the first of equals.
fn best(sweep: &Sweep<'_>, done: &Done, metric: &Metric, cuts: &[usize]) -> (usize, Option<f64>) {
    let mut best: (usize, Option<f64>) = (0, None);
    for trial in 0..sweep.trials.len() {
        let score = score_on(sweep, done, metric, trial, cuts);
        let is_better = match (score, best.1) {
            (Some(score), Some(best)) => metric.is_better(score, best),
            (score, best) => score.is_some() && best.is_none(),
        };
        if is_better {
            best = (trial, score);
        }
    }
    best
}

/// The mean of the epochs that a trial's heads were best after.
fn best_epoch(sweep: &Sweep<'_>, done: &Done, trial: usize, cuts: &[usize]) -> usize {
    let seeds = 0..sweep.section.seeds as u64;
    let epochs = seeds.flat_map(|seed| {
        let own = cuts.iter();
        own.map(move |cut| done.result(trial, seed, *cut).best_epoch)
    });
    let n_heads = (cuts.len() * sweep.section.seeds).max(1);
    (epochs.sum::<usize>() as f64 / n_heads as f64).round() as usize
}

impl NestedScore {
    /// nested.csv: a line for each fold.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) fn write(&self, run: &Path) -> Result<()> {
        let folds = || self.folds.iter();
        let mut sheet = Sheet::default();
        sheet.integers("fold", (0..self.folds.len()).map(Some));
        let keys = self.folds.first().map(|fold| &fold.settings);
        for key in keys.into_iter().flat_map(Map::keys) {
            let value = |fold: &NestedFold| fold.settings.get(key).map_or(String::new(), text);
            sheet.texts(key, folds().map(value));
        }
        sheet.numbers("inner", folds().map(|fold| fold.inner));
        sheet.integers("epochs", folds().map(|fold| Some(fold.epochs)));
        sheet.numbers(&self.metric, folds().map(|fold| fold.score));
        sheet.write_csv(&run.join(FILE))
    }
}

/// A setting as the other files show it.
fn text(value: &Value) -> String {
    serde_json::from_value(value.clone())
        .map_or(value.to_string(), |value: toml::Value| show(&value))
}

//! Nested folds: the score of choosing a setting and training it, on rows that played no part in either.
//!
//! The best of many scores is too good, because chance helped to make it the best. So for each fold, the setting is
//! chosen on folds of the other rows alone, trained on all of these for the number of epochs after which it was best
//! there, and evaluated on the fold (Varma and Simon 2006). The score of all folds together is that of the procedure,
//! not of one setting.

use std::{collections::BTreeSet, path::Path};

use frostbert_cache::{
    progress::{Progress, WithinStage},
    wording::part_of,
};
use serde::Serialize;
use toml::Table;

use crate::{
    config::settings::show,
    error::Result,
    metrics::{
        intervals::{Bootstrap, bootstrap},
        metric::Metric,
    },
    report::sheet::Sheet,
    sweep::{
        DRAWS, Sweep,
        candidates::better_of,
        heads::{HeadPlan, HeadResult},
        outcome::{SearchOutcome, pooled, score_on},
        units::groups,
    },
    tasks::predictions::Predictions,
};

/// The file with the settings that each fold chose, and their scores.
const FILE: &str = "nested.csv";

/// The score of the choice, by nested folds.
#[derive(Clone, Debug, Serialize)]
pub struct NestedScore {
    /// The metric of the scores.
    pub metric: Metric,
    /// The score on the rows of all folds together, each predicted with the setting that was chosen without its fold.
    pub score: Option<f64>,
    /// The score's bootstrap interval over rows.
    pub interval: Option<[f64; 2]>,
    /// The results, fold by fold.
    pub folds: Vec<NestedFold>,
}

/// The choice that was made without a fold.
#[derive(Clone, Debug, Serialize)]
pub struct NestedFold {
    /// The chosen settings.
    pub settings: Table,
    /// The score that chose them, on folds of the other rows.
    pub inner: Option<f64>,
    /// Number of epochs of the training; 0 for a fit in full batch.
    pub epochs: usize,
    /// The score on the fold itself.
    pub score: Option<f64>,
}

/// Chooses a setting without each fold and trains it; `None` without nested folds.
///
/// # Errors
/// Returns an error if the cache cannot be read.
pub(super) fn score(
    sweep: &Sweep<'_>,
    done: &SearchOutcome,
    metric: Metric,
    progress: &dyn Progress,
) -> Result<Option<NestedScore>> {
    if sweep.section.nested.is_none() {
        return Ok(None);
    }
    // Without shares and resamples, the first splits are the folds, in order.
    let outer: Vec<usize> = (0..sweep.section.folds.unwrap_or(0)).collect();
    let chosen: Vec<FoldChoice> =
        outer.iter().map(|fold| choose(sweep, done, metric, *fold)).collect();
    let n_folds = outer.len() as u64;
    progress.start("training what each fold chose", Some(n_folds), "folds");
    let mut results: Vec<Option<HeadResult>> = outer.iter().map(|_| None).collect();
    for group in groups(sweep)? {
        let own = outer.iter().copied();
        let own: Vec<usize> =
            own.filter(|fold| group.trials.contains(&chosen[*fold].trial)).collect();
        let Some(first) = own.first() else {
            continue;
        };
        let plans =
            own.iter().map(|fold| HeadPlan { trial: chosen[*fold].trial, seed: 0, split: *fold });
        let epochs = own.iter().map(|fold| chosen[*fold].epochs);
        let shared = sweep.shared(chosen[*first].trial)?;
        let within = WithinStage::new(progress);
        let own_results = shared.after(&plans.collect::<Vec<_>>(), epochs, sweep, &within)?;
        progress.advance((own.len() as u64).saturating_sub(within.advanced()), 0);
        for (fold, result) in own.into_iter().zip(own_results) {
            results[fold] = Some(result);
        }
    }
    progress.finish();
    let results = results.into_iter();
    let results: Vec<HeadResult> =
        results.map(|result| result.expect("every trial is in a group")).collect();
    let n_diverged = results.iter().filter(|result| result.diverged).count();
    if n_diverged > 0 {
        progress.warn(&format!(
            "{} chose a head that diverged there, so nested cross-validation has no score",
            part_of(n_diverged, outer.len(), "fold")
        ));
    }
    let folds = chosen.iter().zip(&results).enumerate();
    let folds = folds.map(|(fold, (chosen, result))| NestedFold {
        settings: sweep.trials[chosen.trial].settings.iter().cloned().collect(),
        inner: chosen.score,
        epochs: chosen.epochs,
        score: if result.diverged {
            None
        } else {
            pooled(&[fold], &[&result.predictions], done, sweep, metric).score(metric, None)
        },
    });
    let folds = folds.collect();
    let all: Vec<&Predictions> = results.iter().map(|result| &result.predictions).collect();
    let statistics = pooled(&outer, &all, done, sweep, metric);
    let draws = Bootstrap { resamples: DRAWS, seed: sweep.pipeline.seed };
    if n_diverged > 0 {
        return Ok(Some(NestedScore { metric, score: None, interval: None, folds }));
    }
    let [interval] =
        bootstrap(statistics.n_rows(), draws, |weights| [statistics.score(metric, Some(weights))]);
    Ok(Some(NestedScore { metric, score: statistics.score(metric, None), interval, folds }))
}

/// A trial that was chosen without a fold, and the number of epochs to train it for.
struct FoldChoice {
    trial: usize,
    score: Option<f64>,
    epochs: usize,
}

/// Returns the trial with the best score on the folds of the rows outside `fold`; the first trial if none has a score.
fn choose(sweep: &Sweep<'_>, done: &SearchOutcome, metric: Metric, fold: usize) -> FoldChoice {
    let splits: Vec<usize> = (0..sweep.splits.len())
        .filter(|split| sweep.splits[*split].without == Some(fold))
        .collect();
    let scored = (0..sweep.trials.len()).map(|trial| {
        let score = score_on(sweep, done, metric, trial, &splits);
        score.map(|score| (score, trial))
    });
    let best = scored.fold(None, |best, next| better_of(metric, best, next));
    let trial = best.map_or(0, |(_, trial)| trial);
    FoldChoice {
        trial,
        score: best.map(|(score, _)| score),
        epochs: best_epoch(sweep, done, trial, &splits),
    }
}

/// The mean of the epochs that a trial's heads were best after.
pub(super) fn best_epoch(
    sweep: &Sweep<'_>,
    done: &SearchOutcome,
    trial: usize,
    splits: &[usize],
) -> usize {
    let seeds = 0..sweep.section.seeds as u64;
    let epochs = seeds.flat_map(|seed| {
        let own = splits.iter();
        own.map(move |split| done.result(trial, seed, *split).best_epoch)
    });
    let n_heads = (splits.len() * sweep.section.seeds).max(1);
    (epochs.sum::<usize>() as f64 / n_heads as f64).round() as usize
}

impl NestedScore {
    /// Writes nested.csv, with a line for each fold.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub(super) fn write(&self, run: &Path) -> Result<()> {
        let folds = || self.folds.iter();
        let mut sheet = Sheet::default();
        sheet.integers("fold", (0..self.folds.len()).map(Some));
        // Kinds of heads differ in their settings.
        let keys: BTreeSet<&String> = folds().flat_map(|fold| fold.settings.keys()).collect();
        for key in keys {
            let value = |fold: &NestedFold| fold.settings.get(key).map_or(String::new(), show);
            sheet.texts(key, folds().map(value));
        }
        sheet.numbers("inner", folds().map(|fold| fold.inner));
        sheet.integers("epochs", folds().map(|fold| Some(fold.epochs)));
        sheet.numbers(self.metric.name(), folds().map(|fold| fold.score));
        sheet.write_csv(&run.join(FILE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_of_every_fold_has_a_column() {
        let fold = |settings: &str| NestedFold {
            settings: settings.parse().unwrap(),
            inner: Some(0.5),
            epochs: 3,
            score: None,
        };
        let nested = NestedScore {
            metric: Metric::Accuracy,
            score: Some(0.5),
            interval: None,
            folds: vec![
                fold("kind = \"linear\"\nlr = 0.001"),
                fold("kind = \"ridge\"\nlambda = 10.0"),
            ],
        };
        let folder = tempfile::tempdir().unwrap();
        nested.write(folder.path()).unwrap();
        let csv = std::fs::read_to_string(folder.path().join(FILE)).unwrap();
        assert_eq!(
            csv,
            "fold,kind,lambda,lr,inner,epochs,accuracy\n0,linear,,0.001,0.5,3,\n1,ridge,10.0,,0.5,3,\n"
        );
    }
}

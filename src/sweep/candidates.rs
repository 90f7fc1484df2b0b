//! The candidates of a sweep's leaderboard: the predictions of its heads beside the truth.

use std::{collections::HashMap, path::Path};

use frostbert_cache::wording::nearest;
use serde_json::{Map, Value, json};

use crate::{
    config::{
        file::sweep::SweepSection,
        names::HeadKind,
        settings::{Pipeline, show},
    },
    data::{ColumnName, dataset::Dataset},
    error::Result,
    metrics::{intervals::RowClusters, metric::Metric},
    report::sheet::Sheet,
    selection::{
        SweepFindings,
        leaderboard::{Candidate, Leaderboard, LeaderboardRow, SeedResult, chosen_from},
    },
    sweep::{
        Sweep,
        outcome::{SearchOutcome, pooled},
        splits::Split,
        trials::Trial,
    },
    tasks::{
        compared_by,
        predictions::{Gold, Predictions},
    },
};

/// The name of the file that shows how the score of a setting varies with its training rows.
pub(super) const RESAMPLES_FILE: &str = "bootstrap.csv";

/// The test scores of a row of the leaderboard in JSON.
const TEST_FIELD: &str = "test_not_for_selection";

/// The metric that orders the heads: what `sweep.select` names, or the task's own.
///
/// # Errors
/// Returns an error if the task has no such metric.
pub(super) fn metric(
    pipeline: &Pipeline,
    section: &SweepSection,
    dataset: &Dataset,
) -> Result<Metric> {
    let known = compared_by(pipeline.data.task, dataset.labels.names());
    let asked = section.select.as_deref().unwrap_or(known[0].name());
    Metric::named(asked).filter(|metric| known.contains(metric)).ok_or_else(|| {
        let names: Vec<&str> = known.iter().map(|metric| metric.name()).collect();
        pipeline.refuse(
            format!("sweep.select is `{asked}`, which does not compare heads of this task"),
            match nearest(asked, names.iter().copied()) {
                Some(meant) => {
                    format!("did you mean `{meant}`? the metrics are {}", names.join(", "))
                }
                None => format!("set sweep.select to one of {}", names.join(", ")),
            },
        )
    })
}

/// Checks that the heads of some trials have a value of a metric.
///
/// # Errors
/// Returns an error if the metric measures probabilities and a head has none before a temperature is fitted.
pub(super) fn check_metric(metric: Metric, pipeline: &Pipeline, trials: &[Trial]) -> Result<()> {
    if !metric.measures_probabilities() {
        return Ok(());
    }
    let mut kinds = trials.iter().map(|trial| trial.pipeline.head.kind.name());
    match kinds.find(|kind| matches!(kind, HeadKind::Ridge | HeadKind::LinfaSvm)) {
        Some(kind) => Err(pipeline.refuse(
            format!(
                "sweep.select is `{metric}`, which measures probabilities, but the outputs of a head of kind {kind} \
                 are not probabilities"
            ),
            "select by roc_auc or by a metric of predicted labels, or leave this kind out".into(),
        )),
        None => Ok(()),
    }
}

/// Returns the pair of score and trial with the better score; the first on a tie.
pub(super) fn better_of(
    metric: Metric,
    first: Option<(f64, usize)>,
    second: Option<(f64, usize)>,
) -> Option<(f64, usize)> {
    match (first, second) {
        (Some(one), Some(other)) if metric.is_better(other.0, one.0) => second,
        (Some(_), _) => first,
        (None, _) => second,
    }
}

/// The heads of a sweep as candidates: one for each trial and share of the training rows.
pub(super) struct SweepCandidates {
    pub(super) candidates: Vec<Candidate>,
    /// Trial and share of each.
    pub(super) places: Vec<(usize, Option<usize>)>,
    /// The scores of each one's heads on resampled rows.
    resampled: Vec<Vec<f64>>,
}

/// A head that can win.
pub(super) struct Winner {
    pub(super) trial: usize,
    /// Its row in the leaderboard.
    pub(super) row: usize,
}

impl SweepCandidates {
    pub(super) fn new(sweep: &Sweep<'_>, done: &SearchOutcome, metric: Metric) -> SweepCandidates {
        let mut judged =
            SweepCandidates { candidates: Vec::new(), places: Vec::new(), resampled: Vec::new() };
        let shares = sweep.section.fraction.as_ref().map_or(&[][..], |shares| shares.values());
        // Most trials learn from the same column.
        let mut counts: HashMap<(Option<&ColumnName>, Option<usize>), usize> = HashMap::new();
        let numbers: Vec<Option<usize>> =
            if shares.is_empty() { vec![None] } else { (0..shares.len()).map(Some).collect() };
        for (number, trial) in sweep.trials.iter().enumerate() {
            let column = trial.pipeline.head.label.as_ref();
            for share in &numbers {
                let mut settings = trial.settings.clone();
                if let Some(share) = share {
                    settings.push(("fraction".into(), shares[*share].into()));
                }
                let seeds = 0..sweep.section.seeds as u64;
                let outcomes =
                    seeds.map(|seed| outcome(sweep, done, metric, number, *share, seed, None));
                judged.candidates.push(Candidate {
                    settings,
                    kind: trial.pipeline.head.kind.name().to_string(),
                    train_rows: *counts
                        .entry((column, *share))
                        .or_insert_with(|| train_rows(sweep, column, *share)),
                    outcomes: outcomes.collect(),
                    rung: done.rungs[number],
                });
                let resamples = (0..sweep.section.bootstrap.unwrap_or(0)).flat_map(|resample| {
                    let seeds = 0..sweep.section.seeds as u64;
                    seeds.filter_map(move |seed| {
                        let outcome =
                            outcome(sweep, done, metric, number, *share, seed, Some(resample));
                        let score = outcome.statistics.score(metric, None);
                        score.filter(|_| outcome.diverged == 0)
                    })
                });
                judged.resampled.push(resamples.collect());
                judged.places.push((number, *share));
            }
        }
        judged
    }

    /// The rows that they are judged on, each drawn by itself.
    pub(super) fn each_row(&self) -> RowClusters {
        let first = self.candidates.first();
        RowClusters::each_row(first.map_or(0, |first| first.outcomes[0].statistics.n_rows()))
    }

    /// The trial of a candidate.
    pub(super) fn trial(&self, candidate: usize) -> usize {
        self.places[candidate].0
    }

    /// The candidates that the one in a row of the leaderboard was chosen from, itself among them, in the order of
    /// trials: those that learned from the same share of the rows and reached the same rung, without those that were
    /// passed over.
    pub(super) fn rivals(&self, board: &Leaderboard, winner: usize) -> Vec<usize> {
        let rows = board.rows.iter();
        let learned: Vec<(Option<usize>, Option<usize>)> =
            rows.clone().map(|row| (self.places[row.trial].1, row.rung)).collect();
        let diverged: Vec<bool> = rows.map(|row| row.diverged > 0).collect();
        let rivals = chosen_from(&learned, &diverged, winner).into_iter();
        let mut rivals: Vec<usize> = rivals.map(|row| board.rows[row].trial).collect();
        rivals.sort_unstable();
        rivals
    }

    /// The heads that learned from all training rows, the best first; those that diverged are none of them.
    pub(super) fn ranked(&self, sweep: &Sweep<'_>, board: &Leaderboard) -> Vec<Winner> {
        let whole = sweep.largest_share();
        let rows = board.rows.iter().enumerate();
        let chosen = rows.filter_map(|(place, row)| {
            let (trial, share) = self.places[row.trial];
            (share == whole && row.diverged == 0).then_some(Winner { trial, row: place })
        });
        chosen.collect()
    }

    /// Writes bootstrap.csv, the scores of heads that were trained on resampled rows, if there are any.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub(super) fn write_resamples(&self, run: &Path, board: &Leaderboard) -> Result<()> {
        if self.resampled.iter().all(Vec::is_empty) {
            return Ok(());
        }
        let scores = |row: &LeaderboardRow| {
            let mut scores = self.resampled[row.trial].clone();
            scores.sort_unstable_by(f64::total_cmp);
            scores
        };
        let rows = || board.rows.iter();
        let quantile = |share: f64| {
            rows().map(move |row| {
                let scores = scores(row);
                let last = scores.len().checked_sub(1)?;
                Some(scores[(share * last as f64).round() as usize])
            })
        };
        let mut sheet = Sheet::default();
        sheet.integers("rank", rows().map(|row| Some(row.rank)));
        for key in &board.keys {
            sheet.texts(key, rows().map(|row| row.setting(key).map_or(String::new(), show)));
        }
        sheet.integers("resamples", rows().map(|row| Some(scores(row).len())));
        sheet.numbers("low", quantile(0.025));
        sheet.numbers("median", quantile(0.5));
        sheet.numbers("high", quantile(0.975));
        sheet.write_csv(&run.join(RESAMPLES_FILE))
    }
}

/// How many rows have a label in a column that heads learn from, of a share of all; the mean over the folds.
fn train_rows(sweep: &Sweep<'_>, column: Option<&ColumnName>, share: Option<usize>) -> usize {
    let own = |split: &&Split| split.is_ranked() && split.share == share;
    let is_taught = |row: &&u32| sweep.dataset.target_for(**row, column).is_some();
    let n_taught = |split: &Split| split.train.iter().filter(is_taught).count();
    let counts: Vec<usize> = sweep.splits.iter().filter(own).map(n_taught).collect();
    (counts.iter().sum::<usize>() as f64 / counts.len().max(1) as f64).round() as usize
}

/// What one seed of a trial came to, on all folds of a share of the rows.
fn outcome(
    sweep: &Sweep<'_>,
    done: &SearchOutcome,
    metric: Metric,
    trial: usize,
    share: Option<usize>,
    seed: u64,
    resample: Option<usize>,
) -> SeedResult {
    let own = |split: &usize| {
        let split = &sweep.splits[*split];
        split.share == share && split.resample == resample && split.without.is_none()
    };
    let splits: Vec<usize> = (0..sweep.splits.len()).filter(own).collect();
    let results: Vec<_> = splits.iter().map(|split| done.result(trial, seed, *split)).collect();
    let statistics = |predictions: &Predictions, rows: &[u32]| {
        let gold = Gold::new(sweep.dataset, rows.to_vec());
        predictions.statistics(sweep.dataset, &gold, metric)
    };
    let fold_scores = match splits.len() {
        1 => Vec::new(),
        _ => splits
            .iter()
            .zip(&results)
            .map(|(split, result)| {
                statistics(&result.predictions, &done.judged[*split]).score(metric, None)
            })
            // A spread over only some of the folds could not be compared between heads.
            .collect::<Option<_>>()
            .unwrap_or_default(),
    };
    SeedResult {
        statistics: pooled(
            &splits,
            &results.iter().map(|result| &result.predictions).collect::<Vec<_>>(),
            done,
            sweep,
            metric,
        ),
        fold_scores,
        best_epochs: results.iter().map(|result| result.best_epoch).collect(),
        epochs: results.iter().map(|result| result.epochs).collect(),
        diverged: results.iter().filter(|result| result.diverged).count(),
    }
}

/// Returns a row's settings as JSON.
pub(super) fn settings(row: &LeaderboardRow) -> Map<String, Value> {
    let pairs = row.settings.iter();
    pairs.map(|(key, value)| (key.clone(), json!(value))).collect()
}

/// The rows of the leaderboard as JSON.
pub(super) fn lines(findings: &SweepFindings) -> Vec<Map<String, Value>> {
    let rows = findings.leaderboard.rows.iter().enumerate();
    let lines = rows.map(|(place, row)| {
        let mut line = match json!(row) {
            Value::Object(line) => line,
            _ => Map::new(),
        };
        line.insert("settings".into(), Value::Object(settings(row)));
        if let Some(test) = &findings.test {
            line.insert(TEST_FIELD.into(), json!(test[place]));
        }
        line
    });
    lines.collect()
}

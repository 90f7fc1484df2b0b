//! Heads in order of their validation score, with the uncertainty of that score.

pub(crate) mod pairs;

use std::cmp::Ordering;

use rayon::prelude::*;
use serde::Serialize;
use toml::Value;

use self::pairs::{PairComparison, compare_pairs};
use crate::{
    metrics::{
        comparison::{holm, mcnemar_of_rows, paired_bootstrap, standard_deviation},
        intervals::{Bootstrap, RowClusters, interval, resample},
        metric::Metric,
        row_statistics::RowStatistics,
    },
    selection::setting::distinct,
};

/// A head is significantly worse than the best if its adjusted p-value is at most this.
pub(crate) const SIGNIFICANCE: f64 = 0.05;

/// One combination of settings in a sweep, and its results.
pub(crate) struct Candidate {
    /// The settings that the sweep varies, with the values of this candidate.
    pub settings: Vec<(String, Value)>,
    /// The kind of its heads, also where the sweep does not vary it.
    pub kind: String,
    /// Number of rows that its heads are trained on; the mean over the folds, rounded.
    pub train_rows: usize,
    /// The results, one for each seed, all on the same rows in the same order.
    pub outcomes: Vec<SeedResult>,
    /// The last rung that was reached, from 0, if halving stops most heads early.
    pub rung: Option<usize>,
}

/// The result of one seed of a candidate.
pub(crate) struct SeedResult {
    /// The predictions for each validation row, with the truth; for the rows of all folds, if there are folds.
    pub statistics: RowStatistics,
    /// The metric on the validation rows of each fold.
    pub fold_scores: Vec<f64>,
    /// The epoch that was kept, for each fold.
    pub best_epochs: Vec<usize>,
    /// Number of epochs that were trained, for each fold.
    pub epochs: Vec<usize>,
    /// Number of folds whose head was dropped because a loss was not finite.
    pub diverged: usize,
}

/// Heads in order.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Leaderboard {
    /// The metric that orders them.
    pub metric: Metric,
    /// The test that the p-values come from.
    pub test: Test,
    /// The settings that the sweep varies.
    pub keys: Vec<String>,
    /// Best first.
    pub rows: Vec<LeaderboardRow>,
    /// The first of them, each compared with each.
    pub pairs: Vec<PairComparison>,
}

/// A test of whether a head is worse than the best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    /// McNemar's exact test: see [`mcnemar`](crate::metrics::comparison::mcnemar).
    Mcnemar,
    /// The paired bootstrap: see [`paired_bootstrap`].
    PairedBootstrap,
}

impl Test {
    /// The test's name in prose.
    pub fn name(self) -> &'static str {
        match self {
            Test::Mcnemar => "McNemar",
            Test::PairedBootstrap => "paired bootstrap",
        }
    }
}

/// The rank of a candidate, and its scores.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LeaderboardRow {
    /// The rank, from 1; among equal scores the earlier trial comes first.
    pub rank: usize,
    /// Its index among the trials, from 0.
    pub trial: usize,
    /// See [`Candidate::settings`].
    pub settings: Vec<(String, Value)>,
    /// See [`Candidate::kind`].
    #[serde(skip)]
    pub kind: String,
    /// See [`Candidate::train_rows`].
    #[serde(skip)]
    pub train_rows: usize,
    /// See [`Candidate::rung`].
    pub rung: Option<usize>,
    /// The metric on all validation rows, as the mean over the seeds; `None` if it is undefined for one of them, or if
    /// one of the heads diverged.
    pub score: Option<f64>,
    /// 95 % percentile interval `[low, high]` of the score, over rows.
    pub interval: Option<[f64; 2]>,
    /// Number of seeds.
    pub seeds: usize,
    /// The spread of the scores over seeds.
    pub seed_spread: Option<Spread>,
    /// Number of folds.
    pub folds: usize,
    /// The spread of the scores over folds, each the mean over the seeds.
    pub fold_spread: Option<Spread>,
    /// Mean of the epochs that were kept, over seeds and folds.
    pub best_epoch: Option<f64>,
    /// Mean of the epochs that were trained, over seeds and folds.
    pub epochs: Option<f64>,
    /// Number of heads that were dropped because a loss was not finite, over all seeds and folds.
    pub diverged: usize,
    /// The probability of a difference to the best like this one between equally good heads; `None` for the best
    /// itself.
    pub p_value: Option<f64>,
    /// The p-value, adjusted by Holm for the number of heads that are compared with the best.
    pub p_adjusted: Option<f64>,
    /// Whether the head is the best or not significantly worse.
    pub not_worse_than_best: bool,
}

impl LeaderboardRow {
    /// The value of a setting.
    pub fn setting(&self, key: &str) -> Option<&Value> {
        let found = self.settings.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value)
    }
}

/// The spread of some numbers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Standard deviation (ddof 1).
    pub std: f64,
    /// The lowest.
    pub min: f64,
    /// The highest.
    pub max: f64,
}

impl Spread {
    /// The spread of two or more values; otherwise `None`.
    pub fn of(values: &[f64]) -> Option<Spread> {
        Some(Spread {
            std: standard_deviation(values)?,
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        })
    }
}

impl Leaderboard {
    /// The settings that have more than one value.
    pub fn varied(&self) -> Vec<&str> {
        let keys = self.keys.iter().map(String::as_str);
        keys.filter(|key| {
            let values: Vec<_> = self.rows.iter().map(|row| row.setting(key)).collect();
            let is_missing = values.iter().any(Option::is_none);
            distinct(values.into_iter().flatten()).len() + usize::from(is_missing) > 1
        })
        .collect()
    }

    /// The best of some scores.
    pub(super) fn best(&self, scores: impl Iterator<Item = f64>) -> Option<f64> {
        scores.reduce(|best, score| if self.metric.is_better(score, best) { score } else { best })
    }
}

/// The scores of all candidates, in their order, on each draw of the bootstrap, as the mean over the seeds.
///
/// Every draw scores all candidates, so that intervals and comparisons are based on the same rows: 500 heads x 1,000
/// draws x 9,000 rows of classes take a few seconds. The result does not depend on the number of threads.
///
/// # Panics
///
/// Panics if candidates differ in the number of rows, or if one has no outcome.
pub(crate) fn drawn_scores(
    candidates: &[Candidate],
    metric: Metric,
    clusters: &RowClusters,
    bootstrap: Bootstrap,
) -> Vec<Vec<Option<f64>>> {
    assert!(
        candidates.iter().all(|one| !one.outcomes.is_empty()),
        "every candidate has an outcome"
    );
    let n_rows = candidates.first().map_or(0, |first| first.outcomes[0].statistics.n_rows());
    let mut outcomes = candidates.iter().flat_map(|candidate| &candidate.outcomes);
    assert!(
        outcomes.all(|outcome| outcome.statistics.n_rows() == n_rows),
        "all heads are measured on the same {n_rows} rows"
    );
    resample(clusters.n_clusters(), bootstrap, |drawn| {
        let weights = clusters.weights(drawn);
        let score = |candidate| mean_score(candidate, metric, Some(&weights));
        candidates.iter().map(score).collect()
    })
}

/// Ranks the candidates, given in the order of their trials, by a metric of [`RowStatistics::metrics`].
///
/// Returns the rows of a leaderboard that the one in row `winner` was chosen from, itself among them: those from it on that
/// learned from as much for as long (`learned` is the same) and did not diverge.
pub(crate) fn chosen_from<T: PartialEq>(
    learned: &[T],
    diverged: &[bool],
    winner: usize,
) -> Vec<usize> {
    let rows = winner..learned.len();
    rows.filter(|row| learned[*row] == learned[winner] && !diverged[*row]).collect()
}

/// Candidates that reached a later rung come first (the others were trained less), then those with a better score, then
/// earlier trials; candidates without a score come last.
///
/// `drawn` are their [`drawn_scores`]. Each head is compared with the first: by McNemar's exact test if the metric is
/// the share of right rows and there is one seed, otherwise by the paired bootstrap. Both are two-sided, since the rows
/// that compare the heads also chose the best. The p-values are adjusted by Holm. Choosing the best of many heads makes
/// its score look better than it is, which is why the mark means "not significantly worse" rather than "as good", why
/// test rows are kept separate, and what [`bias_corrected`](super::bias_corrected) corrects.
pub(crate) fn rank(
    candidates: &[Candidate],
    metric: Metric,
    drawn: &[Vec<Option<f64>>],
) -> Leaderboard {
    let scores: Vec<Option<f64>> =
        candidates.par_iter().map(|candidate| mean_score(candidate, metric, None)).collect();

    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by(|&a, &b| {
        let rung = |trial: usize| candidates[trial].rung;
        let both = |a, b| {
            if metric.is_better(a, b) {
                Ordering::Less
            } else if a == b {
                Ordering::Equal
            } else {
                Ordering::Greater
            }
        };
        match (scores[a], scores[b]) {
            (Some(a_score), Some(b_score)) => rung(b).cmp(&rung(a)).then(both(a_score, b_score)),
            (a, b) => b.is_some().cmp(&a.is_some()),
        }
        .then(a.cmp(&b))
    });

    let (test, p_values) = compare(candidates, &scores, drawn, &order, metric);
    let adjusted = holm(&p_values.iter().flatten().copied().collect::<Vec<_>>());
    let mut adjusted = adjusted.into_iter();
    let rows = order.iter().zip(&p_values).enumerate();
    let rows = rows.map(|(place, (&trial, p_value))| {
        let p_adjusted = p_value.and_then(|_| adjusted.next());
        LeaderboardRow {
            rank: place + 1,
            trial,
            score: scores[trial],
            interval: scores[trial].and_then(|_| interval(drawn.iter().map(|draw| draw[trial]))),
            p_value: *p_value,
            p_adjusted,
            not_worse_than_best: scores[trial].is_some()
                && p_adjusted.is_none_or(|p| p > SIGNIFICANCE),
            ..row(&candidates[trial], metric)
        }
    });
    Leaderboard {
        metric,
        test,
        keys: keys(candidates),
        rows: rows.collect(),
        pairs: compare_pairs(candidates, &scores, drawn, &order, metric, test),
    }
}

/// The mean score over the seeds, where row `i` counts as `weights[i]` rows; `None` if one of them is undefined, or if
/// a head diverged: the parameters that were kept for it are not a result of its settings.
fn mean_score(candidate: &Candidate, metric: Metric, weights: Option<&[u32]>) -> Option<f64> {
    if candidate.outcomes.iter().any(|outcome| outcome.diverged > 0) {
        return None;
    }
    let mut sum = 0.0;
    for outcome in &candidate.outcomes {
        sum += outcome.statistics.score(metric, weights)?;
    }
    Some(sum / candidate.outcomes.len() as f64)
}

/// The p-value of each candidate, in `order`, against the first; `None` for the first, and if there is nothing to
/// compare.
fn compare(
    candidates: &[Candidate],
    scores: &[Option<f64>],
    resampled: &[Vec<Option<f64>>],
    order: &[usize],
    metric: Metric,
) -> (Test, Vec<Option<f64>>) {
    let Some((&best, others)) = order.split_first() else {
        return (Test::PairedBootstrap, Vec::new());
    };
    let right = |trial: usize| match &candidates[trial].outcomes[..] {
        [only] => only.statistics.right(metric),
        _ => None,
    };
    let best_right =
        if candidates.iter().all(|one| one.outcomes.len() == 1) { right(best) } else { None };
    let test = match best_right {
        Some(_) => Test::Mcnemar,
        None => Test::PairedBootstrap,
    };
    let p_value = |&other: &usize| {
        let [of_best, of_other] = [scores[best]?, scores[other]?];
        // A head that was stopped on an earlier rung can have a better score than the first.
        if !metric.is_better(of_best, of_other) {
            return Some(1.0);
        }
        if let (Some(best), Some(other)) = (&best_right, right(other)) {
            return Some(mcnemar_of_rows(best, &other));
        }
        let differences = resampled.iter().map(|draw| Some(draw[best]? - draw[other]?));
        paired_bootstrap(of_best - of_other, differences)
    };
    let others: Vec<Option<f64>> = others.par_iter().map(p_value).collect();
    (test, std::iter::once(None).chain(others).collect())
}

/// The parts of a row that depend on no other candidate; the caller fills in the rest.
fn row(candidate: &Candidate, metric: Metric) -> LeaderboardRow {
    let outcomes = &candidate.outcomes;
    let of_seeds = outcomes.iter().map(|outcome| outcome.statistics.score(metric, None));
    let of_seeds: Option<Vec<f64>> = of_seeds.collect();
    let n_folds = outcomes.iter().map(|outcome| outcome.fold_scores.len()).min().unwrap_or(0);
    let of_fold = |fold: usize| {
        let sum: f64 = outcomes.iter().map(|outcome| outcome.fold_scores[fold]).sum();
        sum / outcomes.len() as f64
    };
    let of_folds: Vec<f64> = (0..n_folds).map(of_fold).collect();
    LeaderboardRow {
        rank: 0,
        trial: 0,
        settings: candidate.settings.clone(),
        kind: candidate.kind.clone(),
        train_rows: candidate.train_rows,
        rung: candidate.rung,
        score: None,
        interval: None,
        seeds: outcomes.len(),
        seed_spread: of_seeds.and_then(|scores| Spread::of(&scores)),
        folds: n_folds,
        fold_spread: Spread::of(&of_folds),
        best_epoch: mean(outcomes.iter().flat_map(|outcome| &outcome.best_epochs)),
        epochs: mean(outcomes.iter().flat_map(|outcome| &outcome.epochs)),
        diverged: outcomes.iter().map(|outcome| outcome.diverged).sum(),
        p_value: None,
        p_adjusted: None,
        not_worse_than_best: false,
    }
}

fn mean<'a>(counts: impl Iterator<Item = &'a usize>) -> Option<f64> {
    let (sum, n) = counts.fold((0, 0u64), |(sum, n), count| (sum + count, n + 1));
    (n > 0).then(|| sum as f64 / n as f64)
}

/// The names of all settings of all candidates, in order of first occurrence.
fn keys(candidates: &[Candidate]) -> Vec<String> {
    let mut keys: Vec<String> = Vec::new();
    for (key, _) in candidates.iter().flat_map(|candidate| &candidate.settings) {
        if !keys.contains(key) {
            keys.push(key.clone());
        }
    }
    keys
}

#[cfg(test)]
pub(crate) mod tests;

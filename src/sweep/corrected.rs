//! The winner's score without what its choice added: the choice among the settings, and on folds that of the epoch.
//!
//! The choice among the settings is made again on draws of the rows ([`RepeatedChoice`]). With folds, the rows that
//! judge a head chose its epoch too, and where settings differ little that flatters as much. So each head that a draw
//! chose is trained once more, for the mean of the epochs that were best on the other folds, which are among its
//! training rows; the winner as a run of its own is trained for such a mean as well. The draws choose by what chose the
//! winner, and judge by these heads.

use std::collections::{BTreeSet, HashMap};

use frostbert_cache::progress::Progress;
use serde::Serialize;

use crate::{
    data::{Part, dataset::Dataset},
    error::Result,
    metrics::{
        intervals::{Bootstrap, RowClusters},
        metric::Metric,
        row_statistics::RowStatistics,
    },
    selection::{
        bias_corrected::{CorrectedScore, RepeatedChoice, chosen},
        leaderboard::{Leaderboard, drawn_scores},
    },
    sweep::{
        DRAWS, Sweep,
        candidates::SweepCandidates,
        heads::{HeadPlan, HeadResult},
        nested::best_epoch,
        outcome::{SearchOutcome, pooled, whole_splits},
        search::at_a_time,
        units::groups,
    },
};

/// Rows that can be drawn, or groups of them, below which draws say nothing.
const LEAST_CLUSTERS: usize = 10;

/// The winner's score, corrected for its choice, with intervals.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct BiasCorrected {
    /// What is measured.
    pub metric: Metric,
    /// The score and its intervals.
    #[serde(flatten)]
    pub corrected: CorrectedScore,
    /// Rows of the new test set that `prediction_interval` is for: as many as the test part has, or where there is none
    /// as the rows that chose.
    pub test_rows: usize,
    /// Draws of the rows.
    pub draws: usize,
    /// Settings that the winner was chosen from.
    pub candidates: usize,
    /// Whether the choice of the epoch still flatters the score: without folds the rows that judge a head have chosen
    /// it.
    pub epoch_in_score: bool,
}

/// Corrects the score of the winner, which stands in a row of the leaderboard; `draws` are the scores of all candidates
/// on draws of the rows, each by itself. `None` if it has no score, or there are too few rows.
///
/// # Errors
/// When the cache is at fault.
pub(super) fn correct(
    sweep: &Sweep<'_>,
    done: &SearchOutcome,
    judged: &SweepCandidates,
    draws: &[Vec<Option<f64>>],
    board: &Leaderboard,
    winner: usize,
    progress: &dyn Progress,
) -> Result<Option<BiasCorrected>> {
    let (metric, splits) = (board.metric, whole_splits(sweep));
    let rows = splits.iter().flat_map(|split| done.judged[*split].iter().copied());
    let rows: Vec<u32> = rows.collect();
    let clusters = clusters(sweep.dataset, &rows);
    if board.rows[winner].score.is_none() || clusters.n_clusters() < LEAST_CLUSTERS {
        return Ok(None);
    }
    let rivals = judged.rivals(board, winner);
    let bootstrap = Bootstrap { resamples: DRAWS, seed: sweep.pipeline.seed };
    let chosen = if clusters.is_each_row() {
        chosen(draws, &rivals, metric)
    } else {
        let draws = drawn_scores(&judged.candidates, metric, &clusters, bootstrap);
        chosen(&draws, &rivals, metric)
    };
    let winner = board.rows[winner].trial;
    let kept: BTreeSet<usize> = chosen.iter().flatten().copied().chain([winner]).collect();
    let trials: BTreeSet<usize> = kept.iter().map(|candidate| judged.trial(*candidate)).collect();
    let anew = train_for_other_folds(sweep, done, &splits, &trials, progress)?;
    let statistics = |trial: usize, seed: u64| {
        let predictions = splits.iter().map(|split| {
            let own = anew.get(&(trial, seed, *split)).filter(|result| !result.diverged);
            &own.unwrap_or_else(|| done.result(trial, seed, *split)).predictions
        });
        pooled(&splits, &predictions.collect::<Vec<_>>(), done, sweep, metric)
    };
    let of_candidate = |candidate: &usize| -> (usize, Vec<RowStatistics>) {
        let seeds = 0..sweep.section.seeds as u64;
        let trial = judged.trial(*candidate);
        (*candidate, seeds.map(|seed| statistics(trial, seed)).collect())
    };
    let test = sweep.dataset.part(Part::Test);
    let test = if test.is_empty() { rows } else { test };
    let choice = RepeatedChoice {
        metric,
        chosen: &chosen,
        winner,
        judged: &kept.iter().map(of_candidate).collect(),
        clusters: &clusters,
        test_clusters: self::clusters(sweep.dataset, &test).n_clusters(),
        bootstrap,
    };
    let own_metric = sweep.own_metric();
    let stops_early = |candidate: &usize| {
        let steps = sweep.trials[judged.trial(*candidate)].pipeline.head.kind.steps();
        steps.is_some_and(|steps| steps.stopping(own_metric).is_some())
    };
    Ok(choice.corrected().map(|corrected| BiasCorrected {
        metric,
        corrected,
        test_rows: test.len(),
        draws: DRAWS,
        candidates: rivals.len(),
        epoch_in_score: splits.len() < 2 && rivals.iter().any(stops_early),
    }))
}

/// Questions of one context, and sentences of one document, are drawn together.
fn clusters(dataset: &Dataset, rows: &[u32]) -> RowClusters {
    RowClusters::of_groups(rows.iter().map(|row| dataset.rows[*row as usize].group))
}

/// What the heads of some trials say of their folds if these have no say in their epoch, by trial, seed and split; only
/// those that it makes a difference to.
///
/// # Errors
/// When the cache is at fault.
fn train_for_other_folds(
    sweep: &Sweep<'_>,
    done: &SearchOutcome,
    splits: &[usize],
    trials: &BTreeSet<usize>,
    progress: &dyn Progress,
) -> Result<HashMap<(usize, u64, usize), HeadResult>> {
    let mut anew = HashMap::new();
    if splits.len() < 2 {
        return Ok(anew);
    }
    let groups = groups(sweep)?;
    let at_a_time = at_a_time(sweep, &groups)?;
    let units = groups.iter().zip(at_a_time).filter(|(group, _)| group.has_epochs);
    let units = units.map(|(group, at_a_time)| {
        let own = group.trials.iter().filter(|trial| trials.contains(*trial));
        let heads = own.flat_map(|trial| heads_for_other_folds(sweep, done, splits, *trial));
        (at_a_time, heads.collect())
    });
    let units: Vec<(usize, Vec<(HeadPlan, usize)>)> = units.collect();
    let n_heads: usize = units.iter().map(|(_, heads)| heads.len()).sum();
    if n_heads == 0 {
        return Ok(anew);
    }
    progress.start("training for the epochs of other folds", Some(n_heads as u64), "heads");
    for (at_a_time, heads) in &units {
        let Some((first, _)) = heads.first() else {
            continue;
        };
        let shared = sweep.shared(first.trial)?;
        for heads in heads.chunks((*at_a_time).max(1)) {
            let (plans, epochs): (Vec<HeadPlan>, Vec<usize>) = heads.iter().cloned().unzip();
            let results = shared.after(&plans, epochs.into_iter(), sweep, progress)?;
            let keys = plans.iter().map(|plan| (plan.trial, plan.seed, plan.split));
            anew.extend(keys.zip(results));
            progress.advance(plans.len() as u64, 0);
        }
    }
    progress.finish();
    Ok(anew)
}

/// The heads of a trial whose epoch, by its own fold, is not the mean of those by the other folds; each with that mean.
fn heads_for_other_folds(
    sweep: &Sweep<'_>,
    done: &SearchOutcome,
    splits: &[usize],
    trial: usize,
) -> Vec<(HeadPlan, usize)> {
    let mut heads = Vec::new();
    for split in splits {
        let others: Vec<usize> = splits.iter().copied().filter(|other| other != split).collect();
        let epochs = best_epoch(sweep, done, trial, &others).max(1);
        for seed in 0..sweep.section.seeds as u64 {
            if done.result(trial, seed, *split).best_epoch != epochs {
                heads.push((HeadPlan { trial, seed, split: *split }, epochs));
            }
        }
    }
    heads
}

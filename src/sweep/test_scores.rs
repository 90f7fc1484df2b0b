//! What the heads of every setting score on the test rows, where `sweep.test` asks for it. Nothing is chosen by it.
//!
//! A head is tested as the run that `train` would make of it: with what is fitted to its outputs on the rows that judge
//! it.

use std::collections::HashMap;

use crate::{
    config::{
        file::sweep::{SweepSection, TestedHeads},
        settings::Pipeline,
    },
    data::{Part, dataset::Dataset},
    error::Result,
    metrics::{
        intervals::{Bootstrap, interval, resample},
        metric::Metric,
        row_statistics::RowStatistics,
        scores::Scores,
    },
    selection::leaderboard::{Leaderboard, LeaderboardRow},
    sweep::{
        Sweep,
        candidates::SweepCandidates,
        heads::{FittedParameters, HeadPlan, HeadResult, SharedFeatures},
        outcome::SearchOutcome,
    },
    tasks::{
        cosine::cosines_of,
        predictions::{Calibration, Gold, Predictions},
    },
};

/// Rows of the leaderboard whose statistics are in memory at a time.
const ROWS_AT_A_TIME: usize = 64;

/// Checks that there is something to test on.
///
/// # Errors
/// When there are no test rows.
pub(super) fn check(pipeline: &Pipeline, section: &SweepSection, dataset: &Dataset) -> Result<()> {
    if section.test == TestedHeads::Winner || !dataset.part(Part::Test).is_empty() {
        return Ok(());
    }
    Err(pipeline.refuse(
        "sweep.test is \"all\", which scores every setting on test rows, but there are none with labels".into(),
        "name a file in data.test, give data.split.test a share, or leave sweep.test out".into(),
    ))
}

/// Adds what heads predict for the test rows to their results, where all are tested: those that diverged, and those that
/// no row of the leaderboard is of, predict nothing.
///
/// # Errors
/// When the cache is damaged.
pub(super) fn add_predictions(
    sweep: &Sweep<'_>,
    shared: &SharedFeatures<'_>,
    plans: &[HeadPlan],
    fits: &[FittedParameters],
    results: &mut [HeadResult],
) -> Result<()> {
    if sweep.section.test == TestedHeads::Winner {
        return Ok(());
    }
    let is_tested =
        |head: &usize| sweep.splits[plans[*head].split].is_ranked() && !results[*head].diverged;
    let tested: Vec<usize> = (0..plans.len()).filter(is_tested).collect();
    let rows = sweep.dataset.part(Part::Test);
    if shared.learns_nothing {
        let cosines = cosines_of(&shared.rows.view, &rows)?;
        for head in tested {
            results[head].test = Some(Predictions::Values(cosines.clone()));
        }
        return Ok(());
    }
    let calibrations = calibrations(sweep, shared, plans, fits, &tested)?;
    let samples = shared.rows.task.measured_samples(&rows);
    let evaluator = shared.rows.task.evaluator(sweep.pipeline, sweep.dataset, &samples, &[]);
    let evaluator = &*evaluator;
    let untuned = Calibration::default();
    let predictions = shared.read_outputs(&samples, &tested, fits, |head, logits| {
        let calibration = calibrations.get(&head.number).unwrap_or(&untuned);
        evaluator.tuned_predictions(logits, head, calibration)
    })?;
    for (head, predictions) in predictions {
        results[head].test = Some(predictions);
    }
    Ok(())
}

/// What is fitted to the outputs of some heads on the rows that judge them, by the number of the head; of those whose
/// predictions depend on it.
fn calibrations(
    sweep: &Sweep<'_>,
    shared: &SharedFeatures<'_>,
    plans: &[HeadPlan],
    fits: &[FittedParameters],
    heads: &[usize],
) -> Result<HashMap<usize, Calibration>> {
    let mut calibrations = HashMap::new();
    for (place, split) in sweep.splits.iter().enumerate() {
        let own = heads.iter().copied().filter(|head| plans[*head].split == place);
        let own: Vec<usize> = own.collect();
        if own.is_empty() {
            continue;
        }
        let samples = shared.rows.task.measured_samples(&split.validation);
        let evaluator = shared.rows.task.evaluator(sweep.pipeline, sweep.dataset, &samples, &[]);
        if !evaluator.is_tuned() {
            continue;
        }
        let evaluator = &*evaluator;
        let of_split =
            shared.read_outputs(&samples, &own, fits, |_, logits| evaluator.calibration(logits))?;
        calibrations.extend(of_split);
    }
    Ok(calibrations)
}

/// The scores of every row of a leaderboard on the test rows, where all heads are tested: the mean over its seeds and
/// folds of the scores of their heads, with its interval over rows. A row of which a head says nothing has none.
pub(super) fn scores(
    sweep: &Sweep<'_>,
    done: &SearchOutcome,
    judged: &SweepCandidates,
    board: &Leaderboard,
    draws: Bootstrap,
) -> Option<Vec<Scores>> {
    if sweep.section.test == TestedHeads::Winner {
        return None;
    }
    let metric = board.metric;
    let rows = sweep.dataset.part(Part::Test);
    let n_rows = rows.len();
    let gold = Gold::new(sweep.dataset, rows);
    let mut all = Vec::with_capacity(board.rows.len());
    for rows in board.rows.chunks(ROWS_AT_A_TIME) {
        let heads: Vec<Option<Vec<RowStatistics>>> =
            rows.iter().map(|row| heads_of(sweep, done, judged, row, &gold, metric)).collect();
        let resampled: Vec<Vec<Option<f64>>> = resample(n_rows, draws, |weights| {
            let score = |heads: &Option<Vec<RowStatistics>>| mean(heads, metric, Some(weights));
            heads.iter().map(score).collect()
        });
        for (place, heads) in heads.iter().enumerate() {
            let score = mean(heads, metric, None);
            let interval = score.and_then(|_| interval(resampled.iter().map(|draw| draw[place])));
            all.push(Scores::new([metric], [score], [interval]));
        }
    }
    Some(all)
}

/// What the heads of a row predict for the test rows, beside the truth; none where one of them says nothing.
fn heads_of(
    sweep: &Sweep<'_>,
    done: &SearchOutcome,
    judged: &SweepCandidates,
    row: &LeaderboardRow,
    gold: &Gold,
    metric: Metric,
) -> Option<Vec<RowStatistics>> {
    let (trial, share) = judged.places[row.trial];
    let splits = (0..sweep.splits.len()).filter(|split| {
        let split = &sweep.splits[*split];
        split.is_ranked() && split.share == share
    });
    let heads = splits.flat_map(|split| {
        (0..sweep.section.seeds as u64).map(move |seed| done.result(trial, seed, split))
    });
    let statistics = heads.map(|head| {
        let predictions = head.test.as_ref()?;
        Some(predictions.statistics(sweep.dataset, gold, metric))
    });
    statistics.collect()
}

/// The mean of the scores of some heads, where row `i` counts as `weights[i]` rows; none where one has none.
pub(super) fn mean(
    heads: &Option<Vec<RowStatistics>>,
    metric: Metric,
    weights: Option<&[u32]>,
) -> Option<f64> {
    let heads = heads.as_ref()?;
    let mut sum = 0.0;
    for head in heads {
        sum += head.score(metric, weights)?;
    }
    Some(sum / heads.len() as f64)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_score_of_a_row_is_the_mean_of_its_heads_and_none_where_one_has_none() {
        let head = |right: usize| {
            let predicted = (0..4).map(|row| u32::from(row >= right)).collect();
            RowStatistics::classes(Arc::new(vec![0; 4]), predicted, 2)
        };
        let two = Some(vec![head(4), head(2)]);
        assert_eq!(mean(&two, Metric::Accuracy, None), Some(0.75));
        assert_eq!(mean(&two, Metric::Accuracy, Some(&[0, 0, 1, 3])), Some(0.5));
        assert_eq!(mean(&two, Metric::Spearman, None), None);
        assert_eq!(mean(&None, Metric::Accuracy, None), None);
    }
}

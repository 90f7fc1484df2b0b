//! Trains the pipeline's head on the states of several precisions, and evaluates the heads on the same rows.

use frostbert_cache::{progress::Progress, reader::CacheReader};

use crate::{
    config::settings::Pipeline,
    data::dataset::Dataset,
    encoder::checkpoint::Checkpoint,
    error::Result,
    metrics::{
        intervals::{Bootstrap, interval, resample},
        metric::Metric,
    },
    sweep::{OutOfFold, out_of_fold},
};

/// The number of folds; each is predicted by a head that is trained on the others.
const N_FOLDS: usize = 5;

/// The number of bootstrap resamples for an interval.
const DRAWS: usize = 1000;

/// The results of heads on the states of several precisions.
pub(super) struct PrecisionHeads {
    pub(super) metric: Metric,
    /// The number of rows that were evaluated.
    pub(super) n_rows: usize,
    /// One head for each precision.
    pub(super) judged: Vec<ComparedHead>,
}

/// A head compared with that of the first precision.
pub(super) struct ComparedHead {
    pub(super) value: Option<f64>,
    pub(super) difference: Option<f64>,
    pub(super) interval: Option<[f64; 2]>,
    /// Whether the whole interval is worse than no difference.
    pub(super) is_worse: bool,
}

/// Trains the head of each pipeline on its cache, and compares the predictions for rows that the heads were not trained
/// on.
pub(super) fn evaluator(
    checkpoint: &Checkpoint,
    pipelines: &[&Pipeline],
    dataset: &Dataset,
    caches: &[CacheReader],
    progress: &dyn Progress,
) -> Result<PrecisionHeads> {
    let n_heads = (pipelines.len() * N_FOLDS) as u64;
    progress.start("training heads", Some(n_heads), "heads");
    let mut heads: Vec<OutOfFold> = Vec::new();
    for (pipeline, cache) in pipelines.iter().zip(caches) {
        heads.push(out_of_fold(checkpoint, pipeline, dataset, cache, N_FOLDS, progress)?);
        progress.advance(N_FOLDS as u64, 0);
    }
    progress.finish();
    let first = &heads[0];
    let bootstrap = Bootstrap { resamples: DRAWS, seed: pipelines[0].seed };
    let judged = heads.iter().enumerate();
    Ok(PrecisionHeads {
        metric: first.metric,
        n_rows: first.statistics.n_rows(),
        judged: judged
            .map(|(number, head)| match number {
                0 => ComparedHead {
                    value: head.statistics.score(head.metric, None),
                    difference: None,
                    interval: None,
                    is_worse: false,
                },
                _ => compare(first, head, bootstrap),
            })
            .collect(),
    })
}

/// Compares a head with the first one on the same rows, resampling both together.
fn compare(first: &OutOfFold, head: &OutOfFold, bootstrap: Bootstrap) -> ComparedHead {
    let difference = |weights: Option<&[u32]>| {
        let score = |of: &OutOfFold| of.statistics.score(first.metric, weights);
        Some(score(head)? - score(first)?)
    };
    let drawn = resample(first.statistics.n_rows(), bootstrap, |weights| difference(Some(weights)));
    let interval = interval(drawn.into_iter());
    ComparedHead {
        value: head.statistics.score(first.metric, None),
        difference: difference(None),
        interval,
        is_worse: interval.is_some_and(|[low, high]| {
            if first.metric.higher_is_better() { high < 0.0 } else { low > 0.0 }
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::metrics::row_statistics::RowStatistics;

    /// A head that is wrong on the first `n_wrong` of 200 rows.
    fn head(n_wrong: usize) -> OutOfFold {
        let gold: Vec<u32> = (0..200).map(|row| row % 2).collect();
        let predictions = gold.iter().enumerate();
        let predictions =
            predictions.map(|(row, class)| if row < n_wrong { 1 - class } else { *class });
        OutOfFold {
            metric: Metric::Accuracy,
            statistics: RowStatistics::classes(Arc::new(gold.clone()), predictions.collect(), 2),
        }
    }

    #[test]
    fn a_loss_is_told_from_luck_by_the_interval_of_the_difference() {
        let bootstrap = Bootstrap { resamples: 200, seed: 1 };
        let better = compare(&head(40), &head(10), bootstrap);
        assert!((better.difference.unwrap() - 0.15).abs() < 1e-12 && !better.is_worse);
        let worse = compare(&head(10), &head(40), bootstrap);
        let [low, high] = worse.interval.unwrap();
        assert!(worse.is_worse && low < -0.15 && -0.15 < high && high < 0.0);
        // They differ in one row of 200; in a resample without that row, there is no difference.
        let luck = compare(&head(10), &head(11), bootstrap);
        assert!(!luck.is_worse && (luck.difference.unwrap() + 0.005).abs() < 1e-12);
        assert_eq!(luck.interval.unwrap()[1], 0.0);
        assert!((luck.value.unwrap() - 189.0 / 200.0).abs() < 1e-12);
        // For an error, lower is better.
        let errors = |n_wrong: usize| {
            let of_rows = (0..200).map(|row| if row < n_wrong { 1.0 } else { 0.0 });
            OutOfFold {
                metric: Metric::Mae,
                statistics: RowStatistics::means(vec![(Metric::Mae, of_rows.collect())]),
            }
        };
        let worse = compare(&errors(10), &errors(40), bootstrap);
        assert!(worse.is_worse && worse.interval.unwrap()[0] > 0.0);
        assert!(!compare(&errors(40), &errors(10), bootstrap).is_worse);
    }
}

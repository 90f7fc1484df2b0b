//! What the winner of a sweep is worth without the luck of being the best of many: bootstrap bias-corrected
//! cross-validation.
//!
//! Tsamardinos, Greasidou and Borboudakis, "Bootstrapping the out-of-sample predictions for efficient and accurate
//! cross-validation", Machine Learning 107, 2018: in each draw of the rows the best candidate on the drawn rows is
//! chosen, as the sweep chose on all of them, and scored on the rows that were not drawn, which had no say in it.

use std::collections::HashMap;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::metrics::{
    intervals::{Bootstrap, RowClusters, interval, resample_numbered},
    metric::Metric,
    row_statistics::RowStatistics,
};

/// New test sets of each draw and each seed.
const TEST_SETS: usize = 5;

/// The first of the generator's streams for new test sets; those of the draws themselves are far below.
const TEST_STREAMS: u64 = 1 << 32;

/// The winner's score, corrected for its choice.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct CorrectedScore {
    /// The score to expect on new rows.
    pub score: f64,
    /// 95 % interval `[low, high]` of what the winner is worth: of its score on very many new rows.
    pub ci: Option<[f64; 2]>,
    /// 95 % interval `[low, high]` of its score on a new test set of a given size.
    pub prediction_interval: Option<[f64; 2]>,
}

/// The candidate that is chosen in each draw, if any has a score there: of the `eligible`, given in the order of their
/// trials, the best, and the first of equals. `draws` has the scores of all candidates on each draw.
///
/// ```
/// use frostbert::internals::{metrics::metric::Metric, selection::bias_corrected::chosen};
///
/// let draws = [vec![Some(0.5), Some(0.7), Some(0.7)], vec![None, Some(0.2), None]];
/// assert_eq!(chosen(&draws, &[0, 1, 2], Metric::Accuracy), [Some(1), Some(1)]);
/// assert_eq!(chosen(&draws, &[0, 2], Metric::Mse), [Some(0), None]);
/// ```
pub fn chosen(
    draws: &[Vec<Option<f64>>],
    eligible: &[usize],
    metric: Metric,
) -> Vec<Option<usize>> {
    let best = |scores: &Vec<Option<f64>>| {
        let scored =
            eligible.iter().filter_map(|candidate| Some((scores[*candidate]?, *candidate)));
        let better = |best: (f64, usize), next: (f64, usize)| {
            if metric.is_better(next.0, best.0) { next } else { best }
        };
        scored.reduce(better).map(|(_, candidate)| candidate)
    };
    draws.iter().map(best).collect()
}

/// A choice that was made again on draws of the rows.
pub struct RepeatedChoice<'a> {
    /// What is chosen by, and measured.
    pub metric: Metric,
    /// What each draw chose: see [`chosen`].
    pub chosen: &'a [Option<usize>],
    /// What all rows chose.
    pub winner: usize,
    /// The predictions of these candidates, those of each seed, all for the same rows. They may be others than those
    /// that chose: of heads whose epoch was not chosen on these rows.
    pub judged: &'a HashMap<usize, Vec<RowStatistics>>,
    /// Which of the rows are drawn together.
    pub clusters: &'a RowClusters,
    /// The size of a new test set, in clusters.
    pub test_clusters: usize,
    /// The draws that `chosen` is of.
    pub bootstrap: Bootstrap,
}

/// What a draw says of the rows that were not drawn.
struct LeftOut {
    /// The score of the candidate that the draw chose, of each seed.
    of_chosen: Vec<f64>,
    /// The mean score of the winner.
    of_winner: f64,
    /// The scores of the chosen candidate on new test sets, drawn from these rows.
    of_tests: Vec<Option<f64>>,
}

impl RepeatedChoice<'_> {
    /// The winner's score, corrected.
    ///
    /// With `out` the rows that a draw leaves out, about 0.37 of all, `h` its choice and `w` the winner, all as means
    /// over draws and seeds: `score = mean of h(out) + shift`, where `shift = w(all rows) - mean of w(out)`. The shift
    /// is next to nothing for a metric that is a mean over rows. Others, such as the macro F1 of many classes, are
    /// lower on fewer rows, and the shift makes up for it.
    ///
    /// The interval has the 2.5th and the 97.5th percentile of `h(out) + shift` over draws and seeds. These vary
    /// `sqrt(0.63 / 0.37) = 1.3` times as much as the score on all rows does, which leaves room for what else varies:
    /// the winner is trained on other rows than the heads of its folds. The interval for a new test set has the same
    /// percentiles of `h(test) + shift`, each `test` drawn with replacement from the rows that the draw left out.
    ///
    /// None of them lies outside the range of the metric. `None` if fewer than half of the draws have a choice and a score
    /// of it.
    ///
    /// # Panics
    /// If there is no `chosen` of a draw, or `judged` lacks the winner or a candidate that is chosen.
    pub fn corrected(&self) -> Option<CorrectedScore> {
        let draws = resample_numbered(self.clusters.n_clusters(), self.bootstrap, |draw, drawn| {
            self.left_out(draw, drawn)
        });
        let n_draws = draws.len();
        let draws: Vec<LeftOut> = draws.into_iter().flatten().collect();
        if draws.is_empty() || 2 * draws.len() < n_draws {
            return None;
        }
        let on_all = mean(&self.scores(self.winner, None)?);
        let of_winner: Vec<f64> = draws.iter().map(|draw| draw.of_winner).collect();
        let shift = on_all - mean(&of_winner);
        let best = self.metric.best_value();
        let worst = self.metric.worst_value();
        let shifted = |score: f64| {
            let score = score + shift;
            let score = if self.metric.is_better(score, best) { best } else { score };
            if self.metric.is_better(worst, score) { worst } else { score }
        };
        let of_chosen: Vec<f64> =
            draws.iter().flat_map(|draw| draw.of_chosen.iter().copied()).collect();
        let of_tests: Vec<Option<f64>> =
            draws.iter().flat_map(|draw| draw.of_tests.iter().copied()).collect();
        Some(CorrectedScore {
            score: shifted(mean(&of_chosen)),
            ci: interval(of_chosen.iter().map(|score| Some(shifted(*score)))),
            prediction_interval: interval(of_tests.iter().map(|score| score.map(shifted))),
        })
    }

    /// What a draw says, that drew each cluster so often; `None` if it chose nothing, or left no rows out that have a
    /// score.
    fn left_out(&self, draw: usize, drawn: &[u32]) -> Option<LeftOut> {
        let candidate = self.chosen[draw]?;
        let out: Vec<u32> = drawn.iter().map(|times| u32::from(*times == 0)).collect();
        let places: Vec<usize> = (0..out.len()).filter(|place| out[*place] == 1).collect();
        if places.is_empty() {
            return None;
        }
        let rows = self.clusters.weights(&out);
        let of_chosen = self.scores(candidate, Some(&rows))?;
        let of_winner = mean(&self.scores(self.winner, Some(&rows))?);
        let mut random = ChaCha8Rng::seed_from_u64(self.bootstrap.seed);
        random.set_stream(TEST_STREAMS + draw as u64);
        let mut of_tests = Vec::with_capacity(TEST_SETS * of_chosen.len());
        for _ in 0..TEST_SETS {
            let mut test = vec![0; out.len()];
            for _ in 0..self.test_clusters {
                test[places[random.gen_range(0..places.len())]] += 1;
            }
            let rows = self.clusters.weights(&test);
            let heads = self.judged[&candidate].iter();
            of_tests.extend(heads.map(|head| head.score(self.metric, Some(&rows))));
        }
        Some(LeftOut { of_chosen, of_winner, of_tests })
    }

    /// The score of each seed of a candidate; `None` if one is undefined.
    fn scores(&self, candidate: usize, rows: Option<&[u32]>) -> Option<Vec<f64>> {
        let heads = self.judged[&candidate].iter();
        let scores = heads.map(|head| head.score(self.metric, rows));
        scores.map(|score| score.filter(|score| score.is_finite())).collect()
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests;

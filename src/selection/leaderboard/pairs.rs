//! Any two of the first heads of a leaderboard, compared as each is with the best.

use rayon::prelude::*;
use serde::Serialize;

use super::{Candidate, Test};
use crate::metrics::{
    comparison::{mcnemar_of_rows, paired_bootstrap},
    intervals::interval,
    metric::Metric,
};

/// Number of heads, from the first, that are compared with one another.
pub(crate) const MOST_PAIRED: usize = 50;

/// Two heads of a leaderboard, by their ranks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PairComparison {
    /// The rank of the first.
    pub a: usize,
    /// The rank of the second, which is the higher one.
    pub b: usize,
    /// The score of `b` minus that of `a`.
    pub difference: f64,
    /// 95 % percentile interval `[low, high]` of the difference, over rows.
    pub interval: Option<[f64; 2]>,
    /// The probability of a difference like this one between equally good heads, not adjusted.
    pub p_value: Option<f64>,
}

/// Compares the first [`MOST_PAIRED`] of the candidates in `order` that have a score, each with each: by `test`, and on the
/// resamples that the leaderboard was made with.
pub(super) fn compare_pairs(
    candidates: &[Candidate],
    scores: &[Option<f64>],
    resampled: &[Vec<Option<f64>>],
    order: &[usize],
    metric: Metric,
    test: Test,
) -> Vec<PairComparison> {
    let scored = order.iter().copied().filter(|trial| scores[*trial].is_some());
    let trials: Vec<usize> = scored.take(MOST_PAIRED).collect();
    let right = |trial: &usize| match test {
        Test::Mcnemar => candidates[*trial].outcomes[0].statistics.right(metric),
        Test::PairedBootstrap => None,
    };
    let right: Vec<Option<Vec<bool>>> = trials.par_iter().map(right).collect();
    let pairs = (0..trials.len()).flat_map(|a| (a + 1..trials.len()).map(move |b| [a, b]));
    let pairs: Vec<[usize; 2]> = pairs.collect();
    let compare = |places: [usize; 2]| {
        let [a, b] = places.map(|place| trials[place]);
        let difference = scores[b]? - scores[a]?;
        let differences = || resampled.iter().map(|draw| Some(draw[b]? - draw[a]?));
        let p_value = match places.map(|place| right[place].as_deref()) {
            [Some(a), Some(b)] => Some(mcnemar_of_rows(a, b)),
            _ => paired_bootstrap(difference, differences()),
        };
        let [a, b] = places.map(|place| place + 1);
        Some(PairComparison { a, b, difference, interval: interval(differences()), p_value })
    };
    pairs.into_par_iter().filter_map(compare).collect()
}

//! How much a metric depends on which rows happen to be in the split: percentile bootstrap intervals.
//!
//! As many rows as there are get drawn with replacement, and the metric is computed on the resample; the interval runs
//! from the 2.5th to the 97.5th percentile of many such values. Efron and Tibshirani, "An Introduction to the
//! Bootstrap", 1993, chapter 13. It covers the choice of rows only, not that of another training run, and a statistic
//! that resampling biases (ECE most of all) can lie outside its own interval.

use std::{borrow::Cow, collections::HashMap};

use rand::{
    SeedableRng,
    distributions::{Distribution, Uniform},
};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

/// Fraction of the resampled values that lie within an interval.
pub(crate) const CONFIDENCE: f64 = 0.95;

/// The settings of the bootstrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bootstrap {
    /// Number of resamples.
    pub resamples: usize,
    /// Determines every resample, for any number of threads.
    pub seed: u64,
}

impl Default for Bootstrap {
    /// 1,000 resamples, seed 42.
    fn default() -> Self {
        Self { resamples: 1_000, seed: 42 }
    }
}

/// The 95 % percentile intervals `[low, high]` of `M` statistics of `n_rows` rows.
///
/// `statistics` receives how often each row was drawn, `[n_rows]` with sum `n_rows`, and returns the values on that
/// resample; with a difference of two heads' accuracies this is a paired bootstrap. Percentiles are interpolated
/// linearly, as by default in numpy. Resamples on which a statistic is undefined or not finite are ignored for that
/// statistic, and there is no interval if fewer than half of the resamples remain, or without rows or resamples.
///
/// Resample `b` comes from stream `b` of a ChaCha8 generator, and the resamples are spread over rayon's current
/// threads, so the result does not depend on their number. Memory is `4 n_rows` bytes per thread and `16 M` bytes per
/// resample.
///
/// ```
/// use frostbert::internals::metrics::intervals::{Bootstrap, bootstrap};
///
/// let right = [1, 1, 1, 0, 1, 1, 1, 0, 1, 1];
/// let [accuracy] = bootstrap(10, Bootstrap::default(), |weights| {
///     let sum: u32 = right.iter().zip(weights).map(|(r, w)| r * w).sum();
///     [Some(f64::from(sum) / 10.0)]
/// });
/// assert_eq!(accuracy, Some([0.5, 1.0]));
/// ```
///
/// # Panics
///
/// Panics if there are more than `u32::MAX` rows.
pub fn bootstrap<const M: usize>(
    n_rows: usize,
    settings: Bootstrap,
    statistics: impl Fn(&[u32]) -> [Option<f64>; M] + Sync,
) -> [Option<[f64; 2]>; M] {
    let resampled = resample(n_rows, settings, statistics);
    std::array::from_fn(|statistic| interval(resampled.iter().map(|values| values[statistic])))
}

/// Returns the value of `statistic` on each resample, in order; nothing if there are no rows. The resamples are those
/// of [`bootstrap`]: equal settings and numbers of rows give equal resamples, so the values of different heads can be
/// compared one by one.
///
/// # Panics
///
/// Panics if there are more than `u32::MAX` rows.
pub fn resample<T: Send>(
    n_rows: usize,
    settings: Bootstrap,
    statistic: impl Fn(&[u32]) -> T + Sync,
) -> Vec<T> {
    resample_numbered(n_rows, settings, |_, weights| statistic(weights))
}

/// As [`resample`]; `statistic` receives the number of the resample too, from 0.
pub(crate) fn resample_numbered<T: Send>(
    n_rows: usize,
    settings: Bootstrap,
    statistic: impl Fn(usize, &[u32]) -> T + Sync,
) -> Vec<T> {
    if n_rows == 0 {
        return Vec::new();
    }
    let row = Uniform::new(
        0,
        u32::try_from(n_rows).unwrap_or_else(|_| panic!("at most u32::MAX rows, got {n_rows}")),
    );
    (0..settings.resamples)
        .into_par_iter()
        .map_init(
            || vec![0; n_rows],
            |weights, resample| {
                draw(weights, row, settings.seed, resample as u64);
                statistic(resample, weights)
            },
        )
        .collect()
}

/// The rows that are drawn together: each by itself, or all of a group, because rows of one group are alike and say
/// less than as many rows of different groups (the cluster bootstrap).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowClusters {
    /// The cluster of each row; `None` if every row is one.
    of_rows: Option<Vec<u32>>,
    n_clusters: usize,
}

impl RowClusters {
    /// Every row by itself.
    pub fn each_row(n_rows: usize) -> RowClusters {
        RowClusters { of_rows: None, n_clusters: n_rows }
    }

    /// The rows of each group together, in the order of the groups' first rows; a row without a group by itself.
    ///
    /// ```
    /// use frostbert::internals::metrics::intervals::RowClusters;
    ///
    /// let clusters = RowClusters::of_groups([Some(7), None, Some(3), Some(7)].into_iter());
    /// assert_eq!(clusters.n_clusters(), 3);
    /// assert_eq!(*clusters.weights(&[2, 0, 1]), [2, 0, 1, 2]);
    /// ```
    pub fn of_groups(groups: impl Iterator<Item = Option<u64>>) -> RowClusters {
        let mut numbers: HashMap<u64, u32> = HashMap::new();
        let mut next = 0;
        let mut of_rows = Vec::new();
        for group in groups {
            let number = group.map_or(next, |group| *numbers.entry(group).or_insert(next));
            next += u32::from(number == next);
            of_rows.push(number);
        }
        let n_clusters = next as usize;
        if n_clusters == of_rows.len() {
            return RowClusters::each_row(n_clusters);
        }
        RowClusters { of_rows: Some(of_rows), n_clusters }
    }

    /// What is drawn from: as many as there are clusters.
    pub fn n_clusters(&self) -> usize {
        self.n_clusters
    }

    /// Whether every row is drawn by itself.
    pub fn is_each_row(&self) -> bool {
        self.of_rows.is_none()
    }

    /// How often each row is drawn if each cluster is drawn as often as `drawn` says.
    pub fn weights<'a>(&self, drawn: &'a [u32]) -> Cow<'a, [u32]> {
        match &self.of_rows {
            None => Cow::Borrowed(drawn),
            Some(of_rows) => of_rows.iter().map(|cluster| drawn[*cluster as usize]).collect(),
        }
    }
}

/// Fills `weights` with the number of times that each row is drawn in one resample.
fn draw(weights: &mut [u32], row: Uniform<u32>, seed: u64, resample: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(resample);
    weights.fill(0);
    for _ in 0..weights.len() {
        weights[row.sample(&mut rng) as usize] += 1;
    }
}

/// The 95 % percentile interval `[low, high]` of the values of a statistic on resamples: see [`bootstrap`].
pub(crate) fn interval(resampled: impl ExactSizeIterator<Item = Option<f64>>) -> Option<[f64; 2]> {
    let mut defined = mostly_defined(resampled)?;
    defined.sort_unstable_by(f64::total_cmp);
    let tail = (1.0 - CONFIDENCE) / 2.0;
    Some([quantile(&defined, tail), quantile(&defined, 1.0 - tail)])
}

/// The values that are defined and finite; `None` if they are fewer than half of all, or if there are none.
pub(super) fn mostly_defined(
    resampled: impl ExactSizeIterator<Item = Option<f64>>,
) -> Option<Vec<f64>> {
    let n_resamples = resampled.len();
    let defined: Vec<f64> = resampled.flatten().filter(|value| value.is_finite()).collect();
    (!defined.is_empty() && 2 * defined.len() >= n_resamples).then_some(defined)
}

/// Linear interpolation between the order statistics around `q (n - 1)`: numpy's default, Hyndman and Fan's type 7.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let position = q * (sorted.len() - 1) as f64;
    let below = sorted[position.floor() as usize];
    let above = sorted[position.ceil() as usize];
    below + (above - below) * position.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Bootstrap = Bootstrap { resamples: 200, seed: 1 };

    #[test]
    fn quantiles_are_those_of_numpy() {
        // np.quantile([1, 2, 4, 8], [0, 0.025, 0.5, 0.9, 1])
        let sorted = [1.0, 2.0, 4.0, 8.0];
        let got = [0.0, 0.025, 0.5, 0.9, 1.0].map(|q| quantile(&sorted, q));
        let expected = [1.0, 1.075, 3.0, 6.8, 8.0];
        assert!(got.iter().zip(expected).all(|(g, e)| (g - e).abs() < 1e-12), "{got:?}");
    }

    #[test]
    fn every_resample_draws_as_many_rows_as_there_are_and_differs_from_the_next() {
        let row = Uniform::new(0, 50);
        let [mut first, mut second] = [vec![0; 50], vec![7; 50]];
        draw(&mut first, row, 3, 0);
        draw(&mut second, row, 3, 1);
        assert_eq!([first.iter().sum::<u32>(), second.iter().sum()], [50, 50]);
        assert_ne!(first, second);
    }

    #[test]
    fn a_statistic_that_is_rarely_defined_has_no_interval() {
        let drawn_first = |weights: &[u32], times| (weights[0] == times).then_some(1.0);
        let [often, rarely, never, nan] = bootstrap(10, SETTINGS, |weights| {
            [Some(f64::from(weights[0])), drawn_first(weights, 3), None, Some(f64::NAN)]
        });
        assert!(often.is_some());
        assert_eq!([rarely, never, nan], [None; 3]);
    }

    #[test]
    fn without_rows_or_resamples_there_is_no_interval() {
        assert_eq!(bootstrap(0, SETTINGS, |_| [Some(1.0)]), [None]);
        assert_eq!(bootstrap(3, Bootstrap { resamples: 0, seed: 1 }, |_| [Some(1.0)]), [None]);
    }

    #[test]
    fn groups_of_one_row_each_are_drawn_as_rows_are() {
        let groups = |groups: &[Option<u64>]| RowClusters::of_groups(groups.iter().copied());
        assert_eq!(groups(&[Some(4), None, Some(2)]), RowClusters::each_row(3));
        assert!(groups(&[]).is_each_row());
        let two = groups(&[None, Some(1), Some(1), None]);
        assert!(!two.is_each_row());
        assert_eq!((two.n_clusters(), &*two.weights(&[0, 2, 1])), (3, &[0, 2, 2, 1][..]));
    }

    #[test]
    fn another_seed_gives_another_interval() {
        let first_row = |weights: &[u32]| [Some(f64::from(weights[..40].iter().sum::<u32>()))];
        let one = bootstrap(100, SETTINGS, first_row);
        assert_eq!(one, bootstrap(100, SETTINGS, first_row));
        assert_ne!(one, bootstrap(100, Bootstrap { seed: 2, ..SETTINGS }, first_row));
    }
}

//! Two heads on the same rows: how far they are apart in a metric, and whether that is more than chance.

use super::{
    comparison::mcnemar_of_rows,
    intervals::{Bootstrap, interval, resample},
    metric::Metric,
    permutation::{Permutations, permutation_test},
    row_statistics::RowStatistics,
};

/// How far a second head is from a first one in a metric, on the same rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairedDifference {
    /// The metric of the second head minus that of the first.
    pub difference: f64,
    /// The 95 % percentile interval of the difference over resampled rows, with both heads on the same rows each time.
    pub interval: Option<[f64; 2]>,
    /// The probability of a difference at least as far from 0 between equally good heads: McNemar's exact test if the
    /// metric is the share of right rows, otherwise the permutation test.
    pub p_value: Option<f64>,
}

/// Compares two heads by a metric of [`RowStatistics::metrics`]. `stacked` holds the rows of the first head, followed by
/// the same rows of the second one; `groups` has the group of each row, numbered from 0. The permutation test swaps whole
/// groups, for rows that are not independent of one another.
///
/// `None` if the metric is undefined for one of the heads.
///
/// ```
/// use std::sync::Arc;
/// use frostbert::internals::metrics::{
///     intervals::Bootstrap, metric::Metric, paired::paired_difference, permutation::Permutations,
///     row_statistics::RowStatistics,
/// };
///
/// let gold = [0, 0, 1, 1];
/// let first = [0, 1, 0, 0];
/// let second = [0, 0, 1, 1];
/// let stacked = RowStatistics::classes(
///     Arc::new([gold, gold].concat()),
///     [first, second].concat(),
///     2,
/// );
/// let (bootstrap, permutations) = (Bootstrap::default(), Permutations::default());
/// let compared =
///     paired_difference(&stacked, Metric::Accuracy, &[0, 1, 2, 3], bootstrap, permutations).unwrap();
/// assert_eq!(compared.difference, 0.75);
/// assert!((compared.p_value.unwrap() - 2.0 / 8.0).abs() < 1e-12);
/// ```
///
/// # Panics
///
/// Panics if there is not one group for each row of a head.
pub fn paired_difference(
    stacked: &RowStatistics,
    metric: Metric,
    groups: &[u32],
    bootstrap: Bootstrap,
    permutations: Permutations,
) -> Option<PairedDifference> {
    let n_rows = groups.len();
    assert_eq!(stacked.n_rows(), 2 * n_rows, "the rows of two heads");
    // Rows that count 0 times are not there: weights choose which head makes the predictions.
    let score =
        |first: &[u32], second: &[u32]| stacked.score(metric, Some(&[first, second].concat()));
    let (all, none) = (vec![1; n_rows], vec![0; n_rows]);
    let difference = score(&none, &all)? - score(&all, &none)?;
    let resampled = resample(n_rows, bootstrap, |weights| {
        Some(score(&none, weights)? - score(weights, &none)?)
    });
    let p_value = match stacked.right(metric) {
        Some(right) => {
            let (first, second) = right.split_at(n_rows);
            Some(mcnemar_of_rows(first, second))
        }
        None => {
            let n_groups = groups.iter().max().map_or(0, |last| *last as usize + 1);
            permutation_test(difference, n_groups, permutations, |swapped| {
                let is_swapped = groups.iter().map(|group| u32::from(swapped[*group as usize]));
                let swapped: Vec<u32> = is_swapped.collect();
                let own: Vec<u32> = swapped.iter().map(|swapped| 1 - swapped).collect();
                Some(score(&swapped, &own)? - score(&own, &swapped)?)
            })
        }
    };
    Some(PairedDifference { difference, interval: interval(resampled.into_iter()), p_value })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const DRAWS: (Bootstrap, Permutations) =
        (Bootstrap { resamples: 300, seed: 2 }, Permutations { draws: 999, seed: 2 });

    /// Two heads on the same binary labels.
    fn stacked(gold: &[u32], first: &[u32], second: &[u32]) -> RowStatistics {
        RowStatistics::classes(Arc::new([gold, gold].concat()), [first, second].concat(), 2)
    }

    fn compare(statistics: &RowStatistics, metric: Metric, groups: &[u32]) -> PairedDifference {
        paired_difference(statistics, metric, groups, DRAWS.0, DRAWS.1).unwrap()
    }

    #[test]
    fn a_head_does_not_differ_from_itself() {
        let (gold, predicted) = ([0, 1, 0, 1, 1], [0, 1, 1, 1, 0]);
        let statistics = stacked(&gold, &predicted, &predicted);
        for metric in [Metric::Accuracy, Metric::MacroF1, Metric::Mcc] {
            let compared = compare(&statistics, metric, &[0, 1, 2, 3, 4]);
            let none =
                PairedDifference { difference: 0.0, interval: Some([0.0; 2]), p_value: Some(1.0) };
            assert_eq!(compared, none, "{metric}");
        }
    }

    #[test]
    fn swapping_the_heads_turns_the_sign_and_keeps_the_p_value() {
        let gold: Vec<u32> = (0..60).map(|row| row % 2).collect();
        let wrong_at = |every: u32| -> Vec<u32> {
            let rows = gold.iter().zip(0..);
            rows.map(|(gold, row): (&u32, u32)| gold ^ u32::from(row % every == 1)).collect()
        };
        let (first, second) = (wrong_at(3), wrong_at(9));
        let groups: Vec<u32> = (0..60).collect();
        for metric in [Metric::Accuracy, Metric::MacroF1] {
            let one = compare(&stacked(&gold, &first, &second), metric, &groups);
            let other = compare(&stacked(&gold, &second, &first), metric, &groups);
            assert!(one.difference > 0.0, "{metric}");
            assert!((one.difference + other.difference).abs() < 1e-12, "{metric}");
            assert_eq!(one.p_value, other.p_value, "{metric}");
            let ([low, high], [other_low, other_high]) =
                (one.interval.unwrap(), other.interval.unwrap());
            assert!((low + other_high).abs() < 1e-12 && (high + other_low).abs() < 1e-12);
        }
    }

    #[test]
    fn rows_of_a_group_are_swapped_together() {
        // Twelve rows in one group can only be swapped all or none: every draw is as far as the observed difference.
        let gold = [0; 12];
        let statistics = RowStatistics::values(
            &[gold.map(f64::from), gold.map(f64::from)].concat(),
            &[[1.0; 12], [3.0; 12]].concat(),
        );
        let apart: Vec<u32> = (0..12).collect();
        assert_eq!(compare(&statistics, Metric::Mae, &[0; 12]).p_value, Some(1.0));
        assert!(compare(&statistics, Metric::Mae, &apart).p_value.unwrap() < 0.01);
        assert_eq!(compare(&statistics, Metric::Mae, &apart).difference, 2.0);
    }

    #[test]
    fn an_undefined_metric_is_not_compared() {
        let constant = RowStatistics::values(&[1.0, 2.0, 1.0, 2.0], &[1.0, 1.0, 1.0, 2.0]);
        let (bootstrap, permutations) = DRAWS;
        let compared =
            paired_difference(&constant, Metric::Pearson, &[0, 1], bootstrap, permutations);
        assert_eq!(compared, None);
    }
}

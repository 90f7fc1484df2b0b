//! Metrics of predicted numbers: correlations and errors.

use serde::{Deserialize, Serialize};

use super::{
    intervals::{self, Bootstrap},
    metric::Metric,
    probability::weighted_mean,
    scores::Scores,
};

/// Metrics of predicted numbers on one split, in the order in which they are written as JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RegressionMetrics {
    /// The metrics of [`Metric::OF_NUMBERS`].
    #[serde(flatten)]
    pub scores: Scores,
    /// Number of rows.
    pub n: usize,
}

/// Scores n predicted numbers against the true ones.
///
/// - Pearson: `sum (t - mean t)(p - mean p) / sqrt(sum (t - mean t)^2 sum (p - mean p)^2)`;
/// - Spearman: the same of the ranks, with equal values sharing their mean rank, as in `scipy.stats.spearmanr`;
/// - MSE and MAE: the mean of `(p - t)^2` and of `|p - t|`.
///
/// A correlation is undefined if all true values or all predictions are equal. If a number is not finite (a head that
/// diverged), or if there are no rows, only `n` is set.
///
/// `bootstrap` takes O(resamples x n) time: values are sorted once, and a resample counts along that order.
///
/// ```
/// use frostbert::internals::metrics::metric::Metric;
/// use frostbert::internals::metrics::regression::evaluate;
///
/// let scores = evaluate(&[1.0, 2.0, 4.0], &[0.0, 3.0, 5.0], None).scores;
/// assert!((scores.value(Metric::Spearman).unwrap() - 1.0).abs() < 1e-12);
/// assert!((scores.value(Metric::Pearson).unwrap() - 0.953_820_966).abs() < 1e-9);
/// assert_eq!(scores.values(&[Metric::Mse, Metric::Mae]), [(Metric::Mse, 1.0), (Metric::Mae, 1.0)]);
/// ```
///
/// # Panics
///
/// Panics if there is not one prediction for each true number, or there are more than `u32::MAX` of them.
pub fn evaluate(
    truth: &[f64],
    predicted: &[f64],
    bootstrap: Option<Bootstrap>,
) -> RegressionMetrics {
    assert_eq!(truth.len(), predicted.len(), "one prediction for each true number");
    let n = truth.len();
    assert!(u32::try_from(n).is_ok(), "at most u32::MAX rows");
    if truth.iter().chain(predicted).any(|x| !x.is_finite()) {
        return RegressionMetrics { n, ..RegressionMetrics::default() };
    }
    let rows = OrderedRows::new(truth, predicted);
    let intervals = bootstrap.map_or([None; 4], |settings| {
        intervals::bootstrap(n, settings, |weights| rows.scores(weights))
    });
    RegressionMetrics {
        scores: Scores::new(Metric::OF_NUMBERS, rows.scores(&vec![1; n]), intervals),
        n,
    }
}

/// Finite predictions with the truth, sorted once so that a resample needs no sort.
pub(super) struct OrderedRows {
    truth: Ordered,
    predicted: Ordered,
}

impl OrderedRows {
    pub(super) fn new(truth: &[f64], predicted: &[f64]) -> Self {
        Self { truth: Ordered::new(truth), predicted: Ordered::new(predicted) }
    }

    /// The scores in the order of [`Metric::OF_NUMBERS`], where row `i` counts as `weights[i]` equal rows.
    fn scores(&self, weights: &[u32]) -> [Option<f64>; 4] {
        [self.spearman(weights), self.pearson(weights), self.mse(weights), self.mae(weights)]
    }

    pub(super) fn spearman(&self, weights: &[u32]) -> Option<f64> {
        let [truth, predicted] = [&self.truth, &self.predicted].map(|side| side.ranks(weights));
        correlation(&truth, &predicted, weights)
    }

    pub(super) fn pearson(&self, weights: &[u32]) -> Option<f64> {
        correlation(&self.truth.values, &self.predicted.values, weights)
    }

    pub(super) fn mse(&self, weights: &[u32]) -> Option<f64> {
        weighted_mean(self.errors().map(|error| error * error), weights)
    }

    pub(super) fn mae(&self, weights: &[u32]) -> Option<f64> {
        weighted_mean(self.errors().map(f64::abs), weights)
    }

    fn errors(&self) -> impl Iterator<Item = f64> {
        let pairs = self.truth.values.iter().zip(&self.predicted.values);
        pairs.map(|(truth, predicted)| predicted - truth)
    }
}

/// Numbers, and their rows in ascending order.
struct Ordered {
    values: Vec<f64>,
    order: Vec<u32>,
    /// The position in `order` at which each run of equal values ends.
    ends_of_ties: Vec<u32>,
}

impl Ordered {
    fn new(values: &[f64]) -> Self {
        let mut order: Vec<u32> = (0..values.len() as u32).collect();
        let value = |row: u32| values[row as usize];
        order.sort_unstable_by(|&a, &b| value(a).total_cmp(&value(b)));
        let mut end = 0;
        let ties = order.chunk_by(|&a, &b| value(a) == value(b));
        let ends_of_ties = ties.map(|rows| {
            end += rows.len() as u32;
            end
        });
        Self { values: values.to_vec(), ends_of_ties: ends_of_ties.collect(), order }
    }

    /// The rank of each row, from 1; the ranks of rows that are not drawn are never used.
    fn ranks(&self, weights: &[u32]) -> Vec<f64> {
        let mut ranks = vec![0.0; weights.len()];
        let mut n_below = 0.0;
        let mut start = 0;
        for &end in &self.ends_of_ties {
            let tied = &self.order[start..end as usize];
            let n_tied: f64 = tied.iter().map(|&row| f64::from(weights[row as usize])).sum();
            for &row in tied {
                ranks[row as usize] = n_below + (n_tied + 1.0) / 2.0;
            }
            n_below += n_tied;
            start = end as usize;
        }
        ranks
    }
}

/// `None` if one side is constant; computed in two passes, so that a large mean does not cost precision.
fn correlation(left: &[f64], right: &[f64], weights: &[u32]) -> Option<f64> {
    if is_constant(left, weights) || is_constant(right, weights) {
        return None;
    }
    let (left_mean, right_mean) = (
        weighted_mean(left.iter().copied(), weights)?,
        weighted_mean(right.iter().copied(), weights)?,
    );
    let [mut covariance, mut left_variance, mut right_variance] = [0.0; 3];
    for ((l, r), &weight) in left.iter().zip(right).zip(weights) {
        let (l, r, weight) = (l - left_mean, r - right_mean, f64::from(weight));
        covariance += weight * l * r;
        left_variance += weight * l * l;
        right_variance += weight * r * r;
    }
    let correlation = covariance / (left_variance.sqrt() * right_variance.sqrt());
    correlation.is_finite().then(|| correlation.clamp(-1.0, 1.0))
}

/// Compares the values themselves, because the computed variance of equal numbers may not be exactly 0.
fn is_constant(values: &[f64], weights: &[u32]) -> bool {
    let mut drawn =
        values.iter().zip(weights).filter(|(_, weight)| **weight > 0).map(|(value, _)| value);
    let first = drawn.next();
    drawn.all(|value| Some(value) == first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_have_no_correlation_but_errors() {
        for equal in [0.1, 0.7, 1e9 + 0.1] {
            let metrics = evaluate(&[1.0, 2.0, 3.0], &[equal; 3], Some(Bootstrap::default()));
            for metric in [Metric::Pearson, Metric::Spearman] {
                assert_eq!(metrics.scores.get(metric), None, "{metric}");
            }
            for metric in [Metric::Mse, Metric::Mae] {
                assert!(metrics.scores.interval(metric).is_some(), "{metric}");
            }
        }
    }

    #[test]
    fn what_is_not_finite_and_what_is_not_there_leaves_the_number_of_rows() {
        for (truth, predicted) in [
            (vec![], vec![]),
            (vec![1.0, 2.0], vec![f64::NAN, 1.0]),
            (vec![f64::INFINITY, 2.0], vec![1.0, 1.0]),
        ] {
            let metrics = evaluate(&truth, &predicted, Some(Bootstrap::default()));
            let json = serde_json::to_string(&metrics).unwrap();
            assert_eq!(json, format!(r#"{{"n":{}}}"#, truth.len()));
        }
    }

    #[test]
    fn weighted_scores_equal_the_scores_of_repeated_rows() {
        let rows = OrderedRows::new(&[3.0, 1.0, 2.0, 2.0, 5.0], &[0.5, 0.1, 0.5, 0.2, 9.0]);
        let repeated =
            OrderedRows::new(&[3.0, 3.0, 2.0, 2.0, 2.0, 1.0], &[0.5, 0.5, 0.5, 0.2, 0.2, 0.1]);
        let weighted = rows.scores(&[2, 1, 1, 2, 0]);
        for (got, expected) in weighted.into_iter().zip(repeated.scores(&[1; 6])) {
            assert!((got.unwrap() - expected.unwrap()).abs() < 1e-12);
        }
    }

    #[test]
    fn positive_and_negative_zero_share_a_rank() {
        let metrics = evaluate(&[0.0, -0.0, 1.0], &[1.0, 1.0, 2.0], None);
        assert_eq!(metrics.scores.value(Metric::Spearman), Some(1.0));
    }

    #[test]
    #[should_panic(expected = "one prediction for each true number")]
    fn a_missing_prediction_is_refused() {
        evaluate(&[1.0], &[], None);
    }
}

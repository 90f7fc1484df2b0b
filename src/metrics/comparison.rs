//! Tests whether one head is better than another on the same rows, or only luckier.

use super::intervals::mostly_defined;

/// McNemar's exact test of two heads that are right on different rows: the two-sided p-value of the counts under equal
/// chances, `min(1, 2 P(X <= min(b, c)))` with `X ~ Binomial(b + c, 1/2)`, where b and c are the numbers of rows that
/// only the first and only the second head got right.
///
/// McNemar, "Note on the sampling error of the difference between correlated proportions or percentages", 1947;
/// Dietterich, "Approximate statistical tests for comparing supervised classification learning algorithms", 1998. Rows
/// on which both are right or both are wrong carry no information. Returns 1 if there are no others.
///
/// ```
/// use frostbert::internals::metrics::comparison::mcnemar;
///
/// // 2 (1 + 10 + 45) / 2^10
/// assert!((mcnemar(2, 8) - 0.109_375).abs() < 1e-12);
/// assert_eq!(mcnemar(5, 5), 1.0);
/// ```
pub fn mcnemar(only_first_right: u64, only_second_right: u64) -> f64 {
    let n = only_first_right + only_second_right;
    let fewer = only_first_right.min(only_second_right);
    if n == 2 * fewer {
        return 1.0;
    }
    let log_factorial = |count: u64| libm::lgamma(count as f64 + 1.0);
    let log_chosen = log_factorial(n) - log_factorial(fewer) - log_factorial(n - fewer);
    let mut term = (log_chosen - n as f64 * std::f64::consts::LN_2).exp();
    let mut tail = 0.0;
    // P(X = k - 1) = P(X = k) k / (n - k + 1); each is less than the one before.
    for k in (0..=fewer).rev() {
        tail += term;
        term *= k as f64 / (n - k + 1) as f64;
        if term < tail * f64::EPSILON / 16.0 {
            break;
        }
    }
    (2.0 * tail).min(1.0)
}

/// [`mcnemar`] of two heads, of which it is known on which rows they are right.
///
/// ```
/// use frostbert::internals::metrics::comparison::mcnemar_of_rows;
///
/// let p = mcnemar_of_rows(&[true, false, false, false, true], &[false, true, true, true, true]);
/// assert!((p - 0.625).abs() < 1e-12, "2 (1 + 4) / 2^4");
/// ```
///
/// # Panics
///
/// Panics if there are not as many rows of one head as of the other.
pub fn mcnemar_of_rows(first: &[bool], second: &[bool]) -> f64 {
    assert_eq!(first.len(), second.len(), "the same rows");
    let only = |one: &[bool], other: &[bool]| {
        one.iter().zip(other).filter(|(one, other)| **one && !**other).count() as u64
    };
    mcnemar(only(first, second), only(second, first))
}

/// Holm's step-down adjustment of p-values, in the given order: if those that are at most `alpha` are rejected, the
/// probability of any false rejection is at most `alpha`.
///
/// With `p_(1) <= ... <= p_(m)`: `max over j <= i of min(1, (m - j + 1) p_(j))`. Holm, "A simple sequentially rejective
/// multiple test procedure", 1979; `multipletests(method="holm")` of statsmodels.
///
/// ```
/// use frostbert::internals::metrics::comparison::holm;
///
/// assert_eq!(holm(&[0.25, 0.0625, 0.125]), [0.25, 0.1875, 0.25]);
/// ```
pub fn holm(p_values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p_values.len()).collect();
    order.sort_by(|&a, &b| p_values[a].total_cmp(&p_values[b]));
    let mut adjusted = vec![0.0; p_values.len()];
    let mut highest: f64 = 0.0;
    for (place, &index) in order.iter().enumerate() {
        let n_left = (p_values.len() - place) as f64;
        highest = highest.max((n_left * p_values[index]).min(1.0));
        adjusted[index] = highest;
    }
    adjusted
}

/// The paired bootstrap test: the probability of a difference between two heads' metrics at least as far from 0 as this
/// one if they are equally good. `resampled` are the differences on resamples, with both heads on the same rows each
/// time.
///
/// `2 (1 - Phi(|difference| / s))`, with `s` the standard deviation of the resampled differences (ddof 1): the
/// bootstrap's standard error under a normal distribution. A share of the resamples themselves is never below 1 /
/// resamples, and could not survive [`holm`] over hundreds of heads. The test is two-sided because the same rows
/// decided which head comes first. Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 6 and 16.
///
/// Resamples on which the difference is undefined are ignored. `None` if fewer than half, or fewer than two, remain. If
/// all resamples agree, returns 1 if the difference is 0, and 0 otherwise.
///
/// ```
/// use frostbert::internals::metrics::comparison::paired_bootstrap;
///
/// let resampled = [0.125, 0.375, 0.25, 0.125, 0.375].map(Some);
/// let p = paired_bootstrap(0.25, resampled.into_iter()).unwrap();
/// assert!((p - 0.045_500_263_896_358_4).abs() < 1e-12, "two standard errors");
/// ```
pub fn paired_bootstrap(
    difference: f64,
    resampled: impl ExactSizeIterator<Item = Option<f64>>,
) -> Option<f64> {
    let resampled = mostly_defined(resampled)?;
    let standard_error = standard_deviation(&resampled)?;
    Some(if standard_error > 0.0 {
        libm::erfc(difference.abs() / standard_error / std::f64::consts::SQRT_2)
    } else {
        f64::from(u8::from(difference == 0.0))
    })
}

/// `sqrt(sum (x - mean x)^2 / (n - 1))`; `None` for fewer than two values.
///
/// ```
/// use frostbert::internals::metrics::comparison::standard_deviation;
///
/// assert_eq!(standard_deviation(&[1.0, 3.0, 5.0]), Some(2.0));
/// assert_eq!(standard_deviation(&[1.0]), None);
/// ```
pub fn standard_deviation(values: &[f64]) -> Option<f64> {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt())
}

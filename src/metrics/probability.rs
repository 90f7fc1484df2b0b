//! Metrics that depend on the predicted probabilities, row by row, computed in f64.
//!
//! Probabilities are `[n, C]`, each row non-negative with sum 1. If one of them is not finite, none of these metrics is
//! defined.

use ndarray::{ArrayView1, ArrayView2, Axis};
use rayon::prelude::*;

/// Number of equal-width confidence bins of [`ece`].
pub(crate) const N_BINS: usize = 15;

/// Returns the class with the highest probability in each row; the lowest class on a tie.
///
/// NaN never wins; a row of NaN gives class 0.
///
/// ```
/// use frostbert::internals::metrics::probability::predictions;
/// use ndarray::array;
///
/// assert_eq!(predictions(array![[0.1, 0.8, 0.1], [0.4, 0.2, 0.4]].view()), [1, 0]);
/// ```
pub fn predictions(probabilities: ArrayView2<f32>) -> Vec<usize> {
    let rows = probabilities.axis_iter(Axis(0)).into_par_iter();
    rows.map(argmax).collect()
}

/// Mean negative log-likelihood of the true class in nats, `-1/n sum_i ln p_i[y_i]`.
///
/// Probabilities are first clipped to `[eps, 1 - eps]` with the `eps` of f32, their type, so the loss of one row is at
/// most 15.94: scikit-learn's `log_loss` of an f32 array. `None` if there are no rows or if a probability is not
/// finite.
///
/// ```
/// use frostbert::internals::metrics::probability::log_loss;
/// use ndarray::array;
///
/// let loss = log_loss(&[0, 1], array![[0.5, 0.5], [0.75, 0.25]].view()).unwrap();
/// assert!((loss - 1.5 * 2f64.ln()).abs() < 1e-9);
/// ```
///
/// # Panics
///
/// Panics if there is not one row for each label, or a label is not below C.
pub fn log_loss(labels: &[usize], probabilities: ArrayView2<f32>) -> Option<f64> {
    RowLosses::new(labels, probabilities)?.log_loss(&vec![1; labels.len()])
}

/// Brier score: for two classes `1/n sum_i (p_i[1] - y_i)^2`, from 0 to 1; for any other number of classes
/// `1/n sum_i sum_c (p_i[c] - [y_i = c])^2`, from 0 to 2.
///
/// The two differ by a factor of 2 on the same two-class rows; this is the convention of scikit-learn's
/// `brier_score_loss(scale_by_half="auto")`. Brier, "Verification of forecasts expressed in terms of probability",
/// 1950. `None` if there are no rows or if a probability is not finite.
///
/// ```
/// use frostbert::internals::metrics::probability::brier;
/// use ndarray::array;
///
/// let two = brier(&[1, 0], array![[0.5, 0.5], [1.0, 0.0]].view()).unwrap();
/// assert!((two - 0.125).abs() < 1e-9);
/// let three = brier(&[0], array![[0.5, 0.25, 0.25]].view()).unwrap();
/// assert!((three - 0.375).abs() < 1e-9);
/// ```
///
/// # Panics
///
/// Panics if there is not one row for each label, or a label is not below C.
pub fn brier(labels: &[usize], probabilities: ArrayView2<f32>) -> Option<f64> {
    RowLosses::new(labels, probabilities)?.brier(&vec![1; labels.len()])
}

/// Expected calibration error: `sum_b n_b/n |accuracy_b - confidence_b|` over 15 bins `((b-1)/15, b/15]` of the
/// confidence, which is the highest probability of a row.
///
/// Guo et al., "On Calibration of Modern Neural Networks", 2017, equation 3. It is biased upwards on few rows: a
/// perfectly calibrated classifier does not score 0. `None` if there are no rows or if a probability is not finite.
///
/// ```
/// use frostbert::internals::metrics::probability::ece;
/// use ndarray::array;
///
/// let probabilities = array![[0.75, 0.25], [0.75, 0.25]];
/// assert!((ece(&[0, 1], probabilities.view()).unwrap() - 0.25).abs() < 1e-9);
/// ```
///
/// # Panics
///
/// Panics if there is not one row for each label, or a label is not below C.
pub fn ece(labels: &[usize], probabilities: ArrayView2<f32>) -> Option<f64> {
    RowLosses::new(labels, probabilities)?.ece(&vec![1; labels.len()])
}

/// The contribution of each row to the metrics, so that a resample of the rows costs three weighted sums.
pub(super) struct RowLosses {
    log_loss: Vec<f64>,
    squared_error: Vec<f64>,
    bin: Vec<u8>,
    /// 1 for a right and 0 for a wrong prediction, minus the confidence.
    gap: Vec<f64>,
}

/// The statistics of a row's probabilities, given its label.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RowScore {
    /// The most probable class.
    pub(super) prediction: u32,
    /// The probability of the true class.
    pub(super) own: f32,
    /// Whether all probabilities are finite; if not, the other fields are meaningless.
    pub(super) is_finite: bool,
    log_loss: f64,
    squared_error: f64,
    bin: u8,
    gap: f64,
}

impl RowScore {
    pub(super) fn new(label: usize, row: ArrayView1<f32>) -> Self {
        assert!(label < row.len(), "label {label} is below {}", row.len());
        let prediction = argmax(row);
        let confidence = f64::from(row[prediction]);
        Self {
            prediction: prediction as u32,
            own: row[label],
            is_finite: row.iter().all(|p| p.is_finite()),
            log_loss: row_log_loss(f64::from(row[label])),
            squared_error: row_squared_error(label, row),
            bin: bin_of(confidence),
            gap: f64::from(u8::from(prediction == label)) - confidence,
        }
    }
}

impl RowLosses {
    /// `None` if a probability is not finite.
    pub(super) fn new(labels: &[usize], probabilities: ArrayView2<f32>) -> Option<Self> {
        assert_eq!(labels.len(), probabilities.nrows(), "one row of probabilities for each label");
        let rows = labels.iter().zip(probabilities.rows());
        let scores: Vec<RowScore> = rows.map(|(label, row)| RowScore::new(*label, row)).collect();
        Self::of(&scores)
    }

    /// `None` if a probability is not finite.
    pub(super) fn of(rows: &[RowScore]) -> Option<Self> {
        rows.iter().all(|row| row.is_finite).then(|| Self {
            log_loss: rows.iter().map(|row| row.log_loss).collect(),
            squared_error: rows.iter().map(|row| row.squared_error).collect(),
            bin: rows.iter().map(|row| row.bin).collect(),
            gap: rows.iter().map(|row| row.gap).collect(),
        })
    }

    pub(super) fn log_loss(&self, weights: &[u32]) -> Option<f64> {
        weighted_mean(self.log_loss.iter().copied(), weights)
    }

    pub(super) fn brier(&self, weights: &[u32]) -> Option<f64> {
        weighted_mean(self.squared_error.iter().copied(), weights)
    }

    pub(super) fn ece(&self, weights: &[u32]) -> Option<f64> {
        let mut gap_in_bin = [0.0; N_BINS];
        for ((&bin, &gap), &weight) in self.bin.iter().zip(&self.gap).zip(weights) {
            gap_in_bin[usize::from(bin)] += f64::from(weight) * gap;
        }
        let n = total(weights);
        (n > 0).then(|| gap_in_bin.iter().map(|gap| gap.abs()).sum::<f64>() / n as f64)
    }
}

fn argmax(row: ArrayView1<f32>) -> usize {
    let mut best = (0, f32::NEG_INFINITY);
    for (class, &probability) in row.iter().enumerate() {
        if probability > best.1 {
            best = (class, probability);
        }
    }
    best.0
}

pub(super) fn row_log_loss(probability_of_truth: f64) -> f64 {
    let epsilon = f64::from(f32::EPSILON);
    -probability_of_truth.clamp(epsilon, 1.0 - epsilon).ln()
}

fn row_squared_error(label: usize, row: ArrayView1<f32>) -> f64 {
    let squared =
        |(class, p): (usize, &f32)| (f64::from(*p) - f64::from(u8::from(class == label))).powi(2);
    match row.len() {
        2 => squared((1, &row[1])),
        _ => row.iter().enumerate().map(squared).sum(),
    }
}

pub(super) fn bin_of(confidence: f64) -> u8 {
    ((confidence * N_BINS as f64).ceil() - 1.0).clamp(0.0, (N_BINS - 1) as f64) as u8
}

pub(super) fn weighted_mean(values: impl Iterator<Item = f64>, weights: &[u32]) -> Option<f64> {
    let sum: f64 = values.zip(weights).map(|(value, &weight)| f64::from(weight) * value).sum();
    let n = total(weights);
    (n > 0).then(|| sum / n as f64)
}

fn total(weights: &[u32]) -> u64 {
    weights.iter().copied().map(u64::from).sum()
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

    use super::*;

    #[test]
    fn a_certain_and_wrong_prediction_has_a_finite_loss() {
        let loss = log_loss(&[1], array![[1.0, 0.0]].view()).unwrap();
        assert!((loss - 15.942385).abs() < 1e-6);
    }

    #[test]
    fn bins_are_open_below_and_closed_above() {
        assert_eq!(
            [bin_of(0.0), bin_of(1.0 / 15.0), bin_of(0.2), bin_of(0.201), bin_of(1.0)],
            [0, 0, 2, 3, 14]
        );
    }

    #[test]
    fn nan_makes_every_probability_metric_undefined_and_never_wins_a_prediction() {
        let probabilities = array![[f32::NAN, 1.0], [f32::NAN, f32::NAN]];
        assert_eq!(log_loss(&[0, 1], probabilities.view()), None);
        assert_eq!(brier(&[0, 1], probabilities.view()), None);
        assert_eq!(ece(&[0, 1], probabilities.view()), None);
        assert_eq!(predictions(probabilities.view()), [1, 0]);
    }

    #[test]
    fn without_rows_every_probability_metric_is_undefined() {
        let none = Array2::zeros((0, 3));
        assert_eq!(log_loss(&[], none.view()), None);
        assert_eq!(brier(&[], none.view()), None);
        assert_eq!(ece(&[], none.view()), None);
    }

    #[test]
    fn weighted_losses_equal_the_losses_of_repeated_rows() {
        let rows = array![[0.2, 0.5, 0.3], [0.6, 0.1, 0.3], [0.1, 0.1, 0.8]];
        let repeated = array![[0.2, 0.5, 0.3], [0.1, 0.1, 0.8], [0.1, 0.1, 0.8]];
        let weighted = RowLosses::new(&[1, 1, 0], rows.view()).unwrap();
        let weights = [1, 0, 2];
        let close = |a: Option<f64>, b: Option<f64>| (a.unwrap() - b.unwrap()).abs() < 1e-12;
        assert!(close(weighted.log_loss(&weights), log_loss(&[1, 0, 0], repeated.view())));
        assert!(close(weighted.brier(&weights), brier(&[1, 0, 0], repeated.view())));
        assert!(close(weighted.ece(&weights), ece(&[1, 0, 0], repeated.view())));
    }
}

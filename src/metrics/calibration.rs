//! Temperature scaling: a single number that calibrates a head's confidence.

use ndarray::{Array2, ArrayView1, ArrayView2, Axis};
use rayon::prelude::*;

use super::outputs::OutputRows;
use crate::error::Result;

/// The range of temperatures that [`temperature`] searches.
pub(crate) const TEMPERATURES: [f64; 2] = [0.05, 20.0];

const MAX_STEPS: usize = 100;
const RELATIVE_TOLERANCE: f64 = 1e-12;

/// Finds the temperature `T` in `[0.05, 20]` that minimises the mean of `-ln softmax(logits / T)[label]` over the rows
/// of `logits [n, C]`.
///
/// Guo et al., "On Calibration of Modern Neural Networks", 2017, section 4.2: `T > 1` softens an overconfident head,
/// `T < 1` sharpens an underconfident one, and no prediction changes. Fit it on rows that the head was not trained on.
/// The loss is convex in `1/T`, so Newton's method within shrinking bounds, in f64, finds its only minimum.
///
/// If every row is classified correctly, the loss keeps falling as `T` falls, and 0.05 is returned; if the logits are
/// worse than none at all, 20. `T` stays 1 if that is a minimum already, which includes the cases in which nothing
/// depends on it (no rows, equal logits). Rows with a logit that is not finite are ignored.
///
/// ```
/// use frostbert::internals::metrics::calibration::temperature;
/// use ndarray::array;
///
/// // three of four right: the best confidence is 3/4, so 4 / T = ln 3
/// let logits = array![[4.0, 0.0], [4.0, 0.0], [4.0, 0.0], [4.0, 0.0]];
/// assert!((temperature(logits.view(), &[0, 0, 0, 1]) - 4.0 / 3f64.ln()).abs() < 1e-9);
/// ```
///
/// # Panics
///
/// Panics if there is not one row for each label, or a label is not below C.
pub fn temperature(logits: ArrayView2<f32>, labels: &[usize]) -> f64 {
    temperature_of(&logits, labels).expect("logits in memory are shown without an error")
}

/// Like [`temperature`], for logits that may not fit into memory: every step reads all of them, about ten times in
/// total.
///
/// # Errors
///
/// Returns the errors of [`OutputRows::show`].
///
/// # Panics
///
/// Panics if [`temperature`] would.
pub(crate) fn temperature_of(logits: &dyn OutputRows, labels: &[usize]) -> Result<f64> {
    let (n_rows, n_classes) = logits.shape();
    assert_eq!(n_rows, labels.len(), "one row of logits for each label");
    assert!(labels.iter().all(|&label| label < n_classes), "labels are below {n_classes}");
    let loss_at = |inverse| slope_and_curvature(logits, labels, inverse);

    let [mut low, mut high] = [1.0 / TEMPERATURES[1], 1.0 / TEMPERATURES[0]];
    let (slope_at_one, _) = loss_at(1.0)?;
    if slope_at_one == 0.0 {
        return Ok(1.0);
    }
    if loss_at(high)?.0 <= 0.0 {
        return Ok(TEMPERATURES[0]);
    }
    if loss_at(low)?.0 >= 0.0 {
        return Ok(TEMPERATURES[1]);
    }
    let mut inverse = 1.0;
    for _ in 0..MAX_STEPS {
        let (slope, curvature) = loss_at(inverse)?;
        if slope > 0.0 {
            high = inverse;
        } else {
            low = inverse;
        }
        let step = slope / curvature;
        if step.abs() <= RELATIVE_TOLERANCE * inverse {
            break;
        }
        let newton = inverse - step;
        // Also false for the NaN of a flat loss; bisecting the range on a log scale needs no slope.
        inverse = if newton > low && newton < high { newton } else { (low * high).sqrt() };
    }
    Ok(1.0 / inverse)
}

/// Computes `softmax(logits / temperature)` for each row of `logits [n, C]`: non-negative, with sum 1.
///
/// `p_c = exp((z_c - max z) / T) / sum_k exp((z_k - max z) / T)`, computed in f64 and rounded once. A row that contains
/// NaN or positive infinity, or only negative infinity, becomes NaN.
///
/// ```
/// use frostbert::internals::metrics::calibration::softmax_rows;
/// use ndarray::array;
///
/// let logits = array![[2f32 * 3f32.ln(), 0.0]];
/// assert!((softmax_rows(logits.view(), 2.0)[[0, 0]] - 0.75).abs() < 1e-6);
/// ```
///
/// # Panics
///
/// Panics if the temperature is not positive and finite.
pub fn softmax_rows(logits: ArrayView2<f32>, temperature: f64) -> Array2<f32> {
    assert!(
        temperature > 0.0 && temperature.is_finite(),
        "the temperature {temperature} is positive and finite"
    );
    let mut probabilities = Array2::zeros(logits.dim());
    let rows = logits.axis_iter(Axis(0)).into_par_iter();
    let rows = rows.zip(probabilities.axis_iter_mut(Axis(0)));
    rows.for_each_init(Vec::new, |exponentials, (row, mut out)| {
        let highest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        exponentials.clear();
        let mut sum = 0.0;
        for &logit in row {
            let exponential = ((f64::from(logit) - f64::from(highest)) / temperature).exp();
            exponentials.push(exponential);
            sum += exponential;
        }
        for (probability, exponential) in out.iter_mut().zip(&*exponentials) {
            *probability = (exponential / sum) as f32;
        }
    });
    probabilities
}

/// Computes the probabilities of independent labels: `1 / (1 + e^-z)`, in f64.
///
/// ```
/// use frostbert::internals::metrics::calibration::sigmoid_rows;
/// use ndarray::array;
///
/// assert!((sigmoid_rows(array![[3f32.ln(), 0.0]].view())[[0, 0]] - 0.75).abs() < 1e-6);
/// ```
pub fn sigmoid_rows(logits: ArrayView2<f32>) -> Array2<f32> {
    logits.mapv(|logit| (1.0 / (1.0 + (-f64::from(logit)).exp())) as f32)
}

/// First and second derivative of the summed loss by `1/T`: the sums of the mean and of the variance, under each row's
/// softmax, of its logits minus that of its true class. Rows are summed in order, whatever the order of their arrival.
fn slope_and_curvature(
    logits: &dyn OutputRows,
    labels: &[usize],
    inverse: f64,
) -> Result<(f64, f64)> {
    let mut of_rows = vec![None; labels.len()];
    logits.show(&mut |places, rows| {
        let derived: Vec<Option<(f64, f64)>> = (0..places.len())
            .into_par_iter()
            .map(|row| slope_of_row(rows.row(row), labels[places[row]], inverse))
            .collect();
        for (place, derived) in places.iter().zip(derived) {
            of_rows[*place] = derived;
        }
    })?;
    let mut sums = (0.0, 0.0);
    for (slope, curvature) in of_rows.into_iter().flatten() {
        sums.0 += slope;
        sums.1 += curvature;
    }
    Ok(sums)
}

/// The contribution of a row to both derivatives; `None` if a logit is not finite.
fn slope_of_row(logits: ArrayView1<f32>, label: usize, inverse: f64) -> Option<(f64, f64)> {
    let own = f64::from(logits[label]);
    let mut highest = f64::NEG_INFINITY;
    for &logit in logits {
        if !logit.is_finite() {
            return None;
        }
        highest = highest.max(f64::from(logit) - own);
    }
    let [mut sum, mut first, mut second] = [0.0; 3];
    for &logit in logits {
        let below = f64::from(logit) - own - highest;
        let weight = (below * inverse).exp();
        sum += weight;
        first += weight * below;
        second += weight * below * below;
    }
    let mean_below = first / sum;
    Some((mean_below + highest, second / sum - mean_below * mean_below))
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    fn mean_loss(logits: &Array2<f32>, labels: &[usize], temperature: f64) -> f64 {
        let row_loss = |(row, label): (ArrayView1<f64>, &usize)| {
            let centred = row.iter().map(|z| ((z - row[*label]) / temperature).exp());
            centred.sum::<f64>().ln()
        };
        let logits = logits.mapv(f64::from);
        logits.rows().into_iter().zip(labels).map(row_loss).sum::<f64>() / labels.len() as f64
    }

    #[test]
    fn the_loss_is_higher_on_both_sides_of_the_temperature() {
        let logits = array![[3.0, 0.5, -1.0], [0.2, 2.5, 1.0], [4.0, 3.0, 0.0], [0.0, 0.1, 5.0]];
        let labels = [0, 1, 1, 2];
        let best = temperature(logits.view(), &labels);
        let at_best = mean_loss(&logits, &labels, best);
        assert!(mean_loss(&logits, &labels, best * 1.001) > at_best);
        assert!(mean_loss(&logits, &labels, best / 1.001) > at_best);
    }

    #[test]
    fn separable_data_gets_the_lowest_temperature_and_hopeless_data_the_highest() {
        let logits = array![[2.0, 0.0], [0.0, 1.0]];
        assert_eq!(temperature(logits.view(), &[0, 1]), TEMPERATURES[0]);
        assert_eq!(temperature(logits.view(), &[1, 0]), TEMPERATURES[1]);
    }

    #[test]
    fn logits_that_leave_no_loss_at_all_keep_temperature_one() {
        let logits = array![[2e30, 0.0], [0.0, 1e30]];
        assert_eq!(temperature(logits.view(), &[0, 1]), 1.0);
        assert_eq!(temperature(logits.view(), &[1, 0]), TEMPERATURES[1]);
    }

    #[test]
    fn where_nothing_depends_on_the_temperature_it_is_one() {
        assert_eq!(temperature(Array2::zeros((0, 3)).view(), &[]), 1.0);
        assert_eq!(temperature(Array2::from_elem((4, 3), 0.7).view(), &[0, 1, 2, 0]), 1.0);
        assert_eq!(temperature(Array2::zeros((2, 1)).view(), &[0, 0]), 1.0);
    }

    #[test]
    fn rows_that_are_not_finite_are_left_out() {
        let logits = array![
            [4.0, 0.0],
            [f32::NAN, 0.0],
            [4.0, 0.0],
            [4.0, 0.0],
            [f32::NEG_INFINITY, 1.0],
            [4.0, 0.0]
        ];
        let got = temperature(logits.view(), &[0, 1, 0, 0, 1, 1]);
        assert!((got - 4.0 / 3f64.ln()).abs() < 1e-9);
    }

    #[test]
    fn scaling_the_logits_scales_the_temperature() {
        let logits = array![[3.0, 0.5, -1.0], [0.2, 2.5, 1.0], [4.0, 3.0, 0.0], [0.0, 0.1, 5.0]];
        let labels = [0, 1, 1, 2];
        let once = temperature(logits.view(), &labels);
        for factor in [0.25f32, 0.5, 2.0, 16.0] {
            let scaled = temperature((&logits * factor).view(), &labels);
            assert!(
                (scaled / once / f64::from(factor) - 1.0).abs() < 1e-9,
                "{once} times {factor} is not {scaled}"
            );
        }
    }

    #[test]
    fn softmax_rows_sum_to_one_for_logits_of_any_size() {
        let probabilities = softmax_rows(
            array![[1e30, -1e30, 0.0], [1.0, 1.0, 1.0], [-500.0, -500.5, -900.0]].view(),
            0.7,
        );
        for row in probabilities.rows() {
            assert!((row.sum() - 1.0).abs() < 1e-6, "{row}");
        }
        assert_eq!(probabilities.row(0).to_vec(), [1.0, 0.0, 0.0]);
    }
}

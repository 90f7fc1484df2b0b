//! Labels that are likely wrong: confident learning from out-of-sample probabilities.
//!
//! Northcutt, Jiang and Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels", 2021, equations
//! 1 and 2. Probabilities are `[n, C]`, each row from a model that was not fitted on that row.

use ndarray::ArrayView2;
use serde::Serialize;

use super::probability::predictions;

/// How far below its threshold a probability still counts as reaching it, so that rounding does not decide.
const TOLERANCE: f64 = 1e-6;

/// A row whose label is likely wrong.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LabelError {
    /// The row.
    pub row: usize,
    /// The class that the row likely has.
    pub suggested: usize,
    /// The probability of that class.
    pub probability: f64,
    /// The probability of the row's label.
    pub self_confidence: f64,
    /// `self_confidence` minus the highest probability of another class, from -1 to 0.
    pub margin: f64,
}

/// How confident a model is in each class on its own rows: `t_j = mean of p_ij over the rows i labelled j`, `[C]`, in
/// f64.
///
/// Infinite for a class without rows, so that no probability reaches it.
///
/// ```
/// use frostbert::internals::metrics::label_errors::thresholds;
/// use ndarray::array;
///
/// let p = array![[0.75, 0.25, 0.0], [0.25, 0.75, 0.0], [0.5, 0.5, 0.0]];
/// assert_eq!(thresholds(&[0, 1, 1], p.view()), [0.75, 0.625, f64::INFINITY]);
/// ```
///
/// # Panics
///
/// Panics if there is not one row for each label, or a label is not below C.
pub fn thresholds(labels: &[usize], probabilities: ArrayView2<f32>) -> Vec<f64> {
    assert_eq!(labels.len(), probabilities.nrows(), "a row for each label");
    let mut sums = vec![(0.0, 0usize); probabilities.ncols()];
    for (row, label) in labels.iter().enumerate() {
        let (sum, n) = &mut sums[*label];
        *sum += f64::from(probabilities[[row, *label]]);
        *n += 1;
    }
    sums.into_iter()
        .map(|(sum, n)| match n {
            0 => f64::INFINITY,
            n => sum / n as f64,
        })
        .collect()
}

/// Returns the rows whose label is likely wrong, least plausible labels first: by `margin`, then by row.
///
/// With the [`thresholds`] `t`, a row labelled `i` is returned if some class reaches its threshold, `p_j >= t_j`, the
/// most probable one that does is not `i`, and `i` is not the most probable of all classes. Equal to cleanlab's
/// `find_label_issues(filter_by="confident_learning", return_indices_ranked_by="normalized_margin")`, except for rows
/// on which several classes reach their thresholds and yet another class, which does not, is more probable than they
/// are: cleanlab takes that class, the paper and this function do not.
///
/// ```
/// use frostbert::internals::metrics::label_errors::likely_errors;
/// use ndarray::array;
///
/// let p = array![[0.75, 0.25], [0.875, 0.125], [0.125, 0.875], [0.25, 0.75], [0.875, 0.125]];
/// let found = likely_errors(&[0, 0, 1, 1, 1], p.view());
/// assert_eq!((found.len(), found[0].row, found[0].suggested), (1, 4, 0));
/// assert_eq!((found[0].probability, found[0].margin), (0.875, -0.75));
/// ```
///
/// # Panics
///
/// Panics if there is not one row for each label, or a label is not below C.
pub fn likely_errors(labels: &[usize], probabilities: ArrayView2<f32>) -> Vec<LabelError> {
    let thresholds = thresholds(labels, probabilities);
    let predicted = predictions(probabilities);
    let mut found = Vec::new();
    for (row, label) in labels.iter().copied().enumerate() {
        let p = |class: usize| f64::from(probabilities[[row, class]]);
        let confident =
            (0..thresholds.len()).filter(|class| p(*class) >= thresholds[*class] - TOLERANCE);
        // The lowest class on a tie, as everywhere.
        let guess = confident.reduce(|best, class| if p(class) > p(best) { class } else { best });
        let Some(suggested) = guess.filter(|guess| *guess != label && predicted[row] != label)
        else {
            continue;
        };
        let others = (0..thresholds.len()).filter(|class| *class != label);
        let margin = p(label) - others.map(p).fold(f64::NEG_INFINITY, f64::max);
        found.push(LabelError {
            row,
            suggested,
            probability: p(suggested),
            self_confidence: p(label),
            margin,
        });
    }
    found.sort_by(|one, other| one.margin.total_cmp(&other.margin));
    found
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

    use super::*;

    #[test]
    fn a_row_that_no_class_is_sure_of_is_no_error() {
        let p = array![[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.6, 0.4]];
        assert_eq!(likely_errors(&[0, 0, 1, 1, 1], p.view()), []);
    }

    #[test]
    fn the_most_probable_label_is_never_an_error_although_only_another_class_reaches_its_threshold()
    {
        // Class 1 is reached from 0.3 on, class 0 from 0.9 on.
        let p = array![[0.95, 0.05], [0.95, 0.05], [0.6, 0.4], [0.7, 0.3]];
        assert_eq!(likely_errors(&[0, 0, 0, 1], p.view()), []);
    }

    #[test]
    fn a_class_without_rows_is_suggested_to_nobody_and_nothing_comes_of_no_rows() {
        let p = array![[0.1f32, 0.2, 0.7], [0.2, 0.1, 0.7]];
        assert!(likely_errors(&[0, 1], p.view()).iter().all(|error| error.suggested != 2));
        assert_eq!(likely_errors(&[], Array2::zeros((0, 3)).view()), []);
    }

    #[test]
    fn probabilities_that_are_no_numbers_accuse_nobody() {
        let p = array![[f32::NAN, f32::NAN], [0.2, 0.8]];
        assert_eq!(likely_errors(&[0, 1], p.view()), []);
    }
}

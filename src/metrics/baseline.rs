//! What a trivial classifier gets: the number that a trained head has to beat.

use super::MajorityBaseline;
use super::counts::ClassCounts;

/// What always answering with the most frequent class of `train_labels` scores on `labels`; the lowest class on a tie.
///
/// scikit-learn's `DummyClassifier(strategy="most_frequent")`. `None` where there are no training labels or no rows to
/// score.
///
/// ```
/// use frostbert::metrics::baseline::majority_class;
///
/// let baseline = majority_class(&[0, 2, 2, 1], &[2, 2, 2, 0], 3).unwrap();
/// assert_eq!((baseline.label, baseline.accuracy), (2, 0.75));
/// assert!((baseline.macro_f1 - 3.0 / 7.0).abs() < 1e-12);
/// ```
///
/// # Panics
///
/// If a label is not below `n_classes`.
pub fn majority_class(
    train_labels: &[usize],
    labels: &[usize],
    n_classes: usize,
) -> Option<MajorityBaseline> {
    let mut n_rows_of = vec![0u64; n_classes];
    for &label in train_labels {
        assert!(label < n_classes, "label {label} is below {n_classes}");
        n_rows_of[label] += 1;
    }
    let highest = n_rows_of.iter().copied().max().filter(|&n| n > 0)?;
    let label = n_rows_of.iter().position(|&n| n == highest)?;
    let counts = ClassCounts::new(labels, &vec![label; labels.len()], n_classes);
    Some(MajorityBaseline {
        label,
        accuracy: counts.accuracy()?,
        macro_f1: counts.macro_f1()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tie_goes_to_the_lowest_class() {
        assert_eq!(majority_class(&[2, 1, 1, 2], &[1], 3).unwrap().label, 1);
    }

    #[test]
    fn there_is_no_baseline_without_training_labels_or_rows() {
        assert_eq!(majority_class(&[], &[0], 2), None);
        assert_eq!(majority_class(&[0], &[], 2), None);
    }
}

//! The scores of trivial predictors, which a trained head has to beat.

use ndarray::ArrayView2;

use super::{
    MajorityBaseline, MajorityLabelsBaseline, MeanBaseline,
    counts::ClassCounts,
    metric::Metric,
    multilabel::RowDecisions,
    regression,
    tagging::{TaggedSentence, TaggingMetrics, evaluate},
};

/// Scores the most frequent class of `train_labels` (the lowest one on a tie) as the prediction for all of `labels`.
///
/// Same as scikit-learn's `DummyClassifier(strategy="most_frequent")`. `None` if there are no training labels or no
/// rows to score.
///
/// ```
/// use frostbert::internals::metrics::baseline::majority_class;
///
/// let baseline = majority_class(&[0, 2, 2, 1], &[2, 2, 2, 0], 3).unwrap();
/// assert_eq!((baseline.label, baseline.accuracy), (2, 0.75));
/// assert!((baseline.macro_f1 - 3.0 / 7.0).abs() < 1e-12);
/// ```
///
/// # Panics
///
/// Panics if a label is not below `n_classes`.
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
    Some(MajorityBaseline { label, accuracy: counts.accuracy()?, macro_f1: counts.macro_f1()? })
}

/// Scores the tag `tag` as the prediction for every word of `sentences`, given as the true tags of their words. Pass
/// the most frequent tag of the training words.
///
/// With entities this is usually `O`, which gives a high accuracy and an entity F1 of 0.
///
/// # Panics
///
/// Panics if a tag is not below the number of labels.
pub(crate) fn most_frequent_tag(
    tag: usize,
    sentences: &[&[usize]],
    labels: &[String],
) -> TaggingMetrics {
    let longest = sentences.iter().map(|words| words.len()).max().unwrap_or(0);
    let always = vec![Some(tag); longest];
    let tagged: Vec<TaggedSentence> = sentences
        .iter()
        .map(|truth| TaggedSentence { truth, predicted: &always[..truth.len()] })
        .collect();
    evaluate(&tagged, labels, None)
}

/// Scores the mean of `train` as the prediction for all of `truth`. A head whose squared error is no lower explains
/// none of the variance.
///
/// Same as scikit-learn's `DummyRegressor(strategy="mean")`. `None` if there are no training values or no rows to
/// score, or if one of them is not finite.
///
/// ```
/// use frostbert::internals::metrics::baseline::mean_value;
///
/// let baseline = mean_value(&[1.0, 2.0, 6.0], &[1.0, 7.0]).unwrap();
/// assert_eq!((baseline.value, baseline.mse, baseline.mae), (3.0, 10.0, 3.0));
/// ```
pub fn mean_value(train: &[f64], truth: &[f64]) -> Option<MeanBaseline> {
    let value = train.iter().sum::<f64>() / train.len() as f64;
    let scores = regression::evaluate(truth, &vec![value; truth.len()], None).scores;
    Some(MeanBaseline { value, mse: scores.value(Metric::Mse)?, mae: scores.value(Metric::Mae)? })
}

/// Scores the same set of labels as the prediction for every row of `truth [n, C]`: the labels that at least half of
/// the rows of `train [m, C]` have, or, if there are none, the most frequent label (the lowest on a tie).
///
/// `None` if there are no labels, no training rows or no rows to score.
///
/// ```
/// use frostbert::internals::metrics::baseline::majority_labels;
/// use ndarray::array;
///
/// let train = array![[true, true, false], [true, false, false]];
/// let truth = array![[true, true, false], [false, true, true]];
/// let baseline = majority_labels(train.view(), truth.view()).unwrap();
/// assert_eq!((baseline.labels, baseline.accuracy), (vec![0, 1], 0.5));
/// assert_eq!(baseline.micro_f1, 0.75);
/// ```
///
/// # Panics
///
/// Panics if train and truth differ in the number of labels.
pub fn majority_labels(
    train: ArrayView2<bool>,
    truth: ArrayView2<bool>,
) -> Option<MajorityLabelsBaseline> {
    assert_eq!(train.ncols(), truth.ncols(), "the same labels in both");
    let n_rows_of: Vec<usize> =
        train.columns().into_iter().map(|has| has.iter().filter(|&&has| has).count()).collect();
    let highest = *n_rows_of.iter().max().filter(|_| !train.is_empty())?;
    let mut labels: Vec<usize> =
        (0..n_rows_of.len()).filter(|&label| 2 * n_rows_of[label] >= train.nrows()).collect();
    if labels.is_empty() {
        labels.extend(n_rows_of.iter().position(|&n| n == highest));
    }
    let decided = RowDecisions::from_decisions(truth, |_, label| labels.contains(&label));
    let [accuracy, macro_f1, micro_f1, ..] = decided.scores(&vec![1; truth.nrows()], None);
    Some(MajorityLabelsBaseline {
        labels,
        accuracy: accuracy?,
        macro_f1: macro_f1?,
        micro_f1: micro_f1?,
    })
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

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

    #[test]
    fn one_tag_for_all_words_is_right_where_it_is() {
        let labels = ["B-x", "O"].map(String::from);
        let metrics = most_frequent_tag(1, &[&[1, 0, 1], &[], &[1]], &labels);
        assert_eq!((metrics.n, metrics.n_words), (3, 4));
        assert_eq!(metrics.scores.value(Metric::TokenAccuracy), Some(0.75));
        assert_eq!(metrics.scores.value(Metric::EntityF1Strict), Some(0.0));
        assert_eq!(metrics.scores.interval(Metric::TokenAccuracy), None);
    }

    #[test]
    fn there_is_no_mean_of_nothing() {
        assert_eq!(mean_value(&[], &[1.0]), None);
        assert_eq!(mean_value(&[1.0], &[]), None);
        assert_eq!(mean_value(&[f64::NAN], &[1.0]), None);
    }

    #[test]
    fn where_no_label_has_half_of_the_rows_the_most_frequent_one_is_said() {
        let train = array![[false, true, false], [false, false, true], [false, false, false]];
        let truth = array![[false, true, false], [true, false, false]];
        let baseline = majority_labels(train.view(), truth.view()).unwrap();
        assert_eq!(baseline.labels, [1]);
        assert_eq!((baseline.accuracy, baseline.micro_f1), (0.5, 0.5));
        assert!((baseline.macro_f1 - 2.0 / 9.0).abs() < 1e-12);
    }

    #[test]
    fn there_are_no_majority_labels_without_rows_or_labels() {
        let rows = |shape| Array2::from_elem(shape, true);
        for (train, truth) in [((0, 2), (1, 2)), ((1, 2), (0, 2)), ((1, 0), (1, 0))] {
            assert_eq!(majority_labels(rows(train).view(), rows(truth).view()), None);
        }
    }
}

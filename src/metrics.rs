//! How good predictions are, and with how much certainty.
//!
//! Everything here is a function of integer labels and arrays of numbers, and in [`span`] of short answers; nothing
//! knows about documents, files or models.
//!
//! - [`metric`], [`scores`]: the metrics by name, and their values on some rows;
//! - [`classification`]: one call for all metrics of a classifier on one split;
//! - [`tagging`]: one call for all metrics of a tagger, by words and by the entities of a [`tag_scheme`];
//! - [`span`]: answers to questions, by the rules of SQuAD;
//! - [`outputs`]: outputs for rows that may not fit into memory all at once;
//! - [`regression`]: correlations and errors of predicted numbers;
//! - [`multilabel`]: one call for all metrics when a row has any number of labels, and a threshold for each label;
//! - [`counts`]: metrics that depend only on right and wrong answers (accuracy, F1, MCC, the confusion matrix);
//! - [`confusion`]: the cells of a confusion matrix that would be too large to write out;
//! - [`scorer`]: the same metrics of a classifier, for rows that arrive a few at a time;
//! - [`probability`]: metrics that depend on the probabilities (log loss, Brier score, ECE);
//! - [`probability_curves`]: what is drawn of them (reliability, precision and recall, ROC);
//! - [`ranking`]: metrics that depend on their order (ROC-AUC);
//! - [`baseline`]: the scores of trivial predictors;
//! - [`intervals`]: the bootstrap behind every `<name>_ci`;
//! - [`row_statistics`]: the predictions of heads for each row, so that a metric can be recomputed on any resample of
//!   the rows;
//! - [`comparison`]: whether one head is better than another: McNemar, paired bootstrap, Holm;
//! - [`permutation`]: the same by swapping the predictions of two heads;
//! - [`paired`]: the difference of two heads on the same rows, with its interval and its p-value;
//! - [`calibration`]: temperature scaling;
//! - [`label_errors`]: labels that are likely wrong, by confident learning.
//!
//! A metric that is undefined on the data (no rows, one class only, NaN among the probabilities) is `None` in Rust and
//! absent in JSON, never NaN or null.

mod auc;
pub(crate) mod baseline;
pub(crate) mod calibration;
pub(crate) mod classification;
pub(crate) mod comparison;
pub(crate) mod confusion;
pub(crate) mod counts;
mod decisions;
pub(crate) mod intervals;
pub(crate) mod label_errors;
pub(crate) mod metric;
pub(crate) mod multilabel;
pub(crate) mod outputs;
pub(crate) mod paired;
pub(crate) mod permutation;
pub(crate) mod probability;
pub(crate) mod probability_curves;
pub(crate) mod ranking;
pub(crate) mod regression;
pub(crate) mod row_statistics;
pub(crate) mod scorer;
pub(crate) mod scores;
pub(crate) mod span;
pub(crate) mod tag_scheme;
pub(crate) mod tagging;

use serde::{Deserialize, Serialize};

use self::{confusion::ConfusionCell, scores::Scores};

/// With more classes than this, data that grow with their square, or with rows times classes, are not kept in full: the
/// confusion matrix becomes a list of cells, a table of predictions keeps the most probable classes, and outputs are
/// read a few rows at a time. A matrix of this many classes takes 33 MB of `metrics.json`.
pub(crate) const MANY_CLASSES: usize = 1_000;

/// All metrics of a classifier on one split, in the order in which they are written as JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClassificationMetrics {
    /// The metrics of [`Metric::OF_CLASSES`](metric::Metric::OF_CLASSES).
    #[serde(flatten)]
    pub scores: Scores,
    /// Number of rows.
    pub n: usize,
    /// One entry for each class of the label map, in label order.
    pub per_class: Vec<ClassScore>,
    /// `confusion[truth][prediction]`: number of rows. Empty above [`MANY_CLASSES`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub confusion: Vec<Vec<u64>>,
    /// Above [`MANY_CLASSES`], the non-zero cells of the confusion matrix, sorted by true and then by predicted class.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub confusion_cells: Vec<ConfusionCell>,
}

/// The scores of one class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassScore {
    /// Index of the class in the label map.
    pub label: usize,
    /// Name of the class; empty if only the indices are known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Of the rows predicted as this class, the fraction that are; 0 if there are none.
    pub precision: f64,
    /// Of the rows of this class, the fraction predicted as such; 0 if there are none.
    pub recall: f64,
    /// Harmonic mean of precision and recall; 0 if the class occurs in neither truth nor predictions.
    pub f1: f64,
    /// Number of rows of this class.
    pub support: u64,
}

/// Names the classes of scores that are in label order.
pub(crate) fn with_names(mut scores: Vec<ClassScore>, names: &[String]) -> Vec<ClassScore> {
    for (score, name) in scores.iter_mut().zip(names) {
        score.name.clone_from(name);
    }
    scores
}

/// The score on a split of always predicting the same class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MajorityBaseline {
    /// The predicted class: the most frequent one in the training labels.
    pub label: usize,
    /// Its accuracy on the split.
    pub accuracy: f64,
    /// Its macro F1 on the split.
    pub macro_f1: f64,
}

/// The score on a split of always predicting the same number.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeanBaseline {
    /// The predicted number: the mean of the training values.
    pub value: f64,
    /// Its mean squared error on the split.
    pub mse: f64,
    /// Its mean absolute error on the split.
    pub mae: f64,
}

/// The score on a split of always predicting the same set of labels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MajorityLabelsBaseline {
    /// The predicted labels.
    pub labels: Vec<usize>,
    /// Fraction of rows of the split that have exactly these labels.
    pub accuracy: f64,
    /// Their macro F1 on the split, over all labels.
    pub macro_f1: f64,
    /// Their micro F1 on the split.
    pub micro_f1: f64,
}

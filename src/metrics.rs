//! How good predictions are, with how much certainty.
//!
//! Everything here is a function of integer labels and arrays of numbers, [`span`] of short answers; nothing knows of
//! documents, files or models.
//!
//! - [`metric`], [`scores`]: the metrics by name; their values on some rows;
//! - [`classification`]: one call for all metrics of a classifier on one split;
//! - [`tagging`]: one call for all metrics of a tagger, by words and by the entities of a [`tag_scheme`];
//! - [`span`]: answers to questions by the rules of SQuAD;
//! - [`outputs`]: outputs of rows that may be too many to be in memory at a time;
//! - [`regression`]: correlations and errors of predicted numbers;
//! - [`multilabel`]: one call for all metrics where a row has any number of labels, and a threshold for each label;
//! - [`counts`]: what depends on right and wrong answers only (accuracy, F1, MCC, the confusion matrix);
//! - [`confusion`]: the cells of a confusion matrix that would be too large;
//! - [`scorer`]: the same metrics of a classifier, of rows that come a few at a time;
//! - [`probability`]: what depends on the probabilities (log loss, Brier score, ECE);
//! - [`ranking`]: what depends on their order (ROC-AUC);
//! - [`baseline`]: what trivial predictors would have scored;
//! - [`intervals`]: the bootstrap behind every `<name>_ci`;
//! - [`row_statistics`]: the predictions of heads for each row, so that a metric can be taken again on any draw of the rows;
//! - [`comparison`]: whether one head is better than another: McNemar, paired bootstrap, Holm;
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
pub(crate) mod probability;
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

/// Above so many classes what grows with their square, or with rows times classes, is not kept whole: the confusion becomes
/// a list of cells, a table of predictions keeps the most probable classes, outputs are read a few rows at a time. A
/// matrix of so many classes takes 33 MB of `metrics.json`.
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
    /// Above [`MANY_CLASSES`] the cells of the confusion matrix that are not 0, by true and then by predicted class.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub confusion_cells: Vec<ConfusionCell>,
}

/// How well one class is found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassScore {
    /// Index of the class in the label map.
    pub label: usize,
    /// Of the rows predicted as this class, the fraction that are; 0 if there are none.
    pub precision: f64,
    /// Of the rows of this class, the fraction predicted as such; 0 if there are none.
    pub recall: f64,
    /// Harmonic mean of precision and recall; 0 if the class occurs in neither truth nor predictions.
    pub f1: f64,
    /// Number of rows of this class.
    pub support: u64,
}

/// What always answering with one class scores on a split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MajorityBaseline {
    /// The class: the most frequent one of the training labels.
    pub label: usize,
    /// Its accuracy on the split.
    pub accuracy: f64,
    /// Its macro F1 on the split.
    pub macro_f1: f64,
}

/// What always answering with one number scores on a split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeanBaseline {
    /// The number: the mean of the training values.
    pub value: f64,
    /// Its mean squared error on the split.
    pub mse: f64,
    /// Its mean absolute error on the split.
    pub mae: f64,
}

/// What always answering with the same set of labels scores on a split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MajorityLabelsBaseline {
    /// The labels.
    pub labels: Vec<usize>,
    /// Fraction of rows of the split that have exactly these labels.
    pub accuracy: f64,
    /// Their macro F1 on the split, over all labels.
    pub macro_f1: f64,
    /// Their micro F1 on the split.
    pub micro_f1: f64,
}

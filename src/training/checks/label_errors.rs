//! Labels that are likely wrong, by confident learning with heads that were not trained on them.

use frostbert_cache::wording::counted;
use serde::{Deserialize, Serialize};

use crate::{
    config::{names::Task, settings::Pipeline},
    data::{Part, checks::RecordPlace, dataset::Dataset},
    error::Result,
    features::FeatureView,
    head::out_of_fold,
    metrics::{MANY_CLASSES, label_errors::likely_errors, probability::predictions},
    training::checks::{Check, N_LISTED, datalab::JudgedRows, four_places, skipped, text_of},
};

/// Maximum number of multiply-adds to train the heads that check labels: a few seconds on two cores.
const MOST_TRAINING: u64 = 100_000_000_000;

/// Why rows that are read from disk in every pass are not looked at.
pub(super) const NOT_RESIDENT: &str = "the states do not fit into train.memory_mb";

/// Rows of train and validation whose label is likely wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct LabelErrors {
    /// The state that the linear heads read.
    pub state: String,
    /// Number of rows that were checked, each by a head that was not trained on it.
    pub judged: usize,
    /// The share of them that these heads predict as labelled: the lower it is, the less reliable are the findings.
    pub accuracy: f64,
    /// Classes that were left out because they have too few rows to be checked.
    pub left_out: Vec<String>,
    /// Number of rows whose label is likely wrong.
    pub count: usize,
    /// The least plausible of them, worst first.
    pub rows: Vec<DoubtfulLabel>,
}

/// A row whose label is likely wrong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct DoubtfulLabel {
    /// Its part.
    pub part: Part,
    /// Its text, shortened.
    pub text: String,
    /// Its label.
    pub label: String,
    /// The label that it likely should have.
    pub suggested: String,
    /// The probability of the suggested label, to four places.
    pub probability: f64,
    /// The probability of its own label, to four places.
    pub self_confidence: f64,
    /// Its place in the data files.
    pub record: RecordPlace,
}

/// Checks the labels, and returns what they were checked by; if that `is_wanted`, also where it takes longer than a check
/// should.
pub(super) fn label_errors(
    pipeline: &Pipeline,
    dataset: &Dataset,
    view: &FeatureView<'_>,
    is_wanted: bool,
) -> Result<(Check<LabelErrors>, Option<JudgedRows>)> {
    let unchecked = |reason: &str| Ok((skipped(reason), None));
    if pipeline.data.task != Task::Classification {
        return unchecked("only tasks with one class per row are checked");
    }
    if !view.is_resident() {
        return unchecked(NOT_RESIDENT);
    }
    if dataset.labels.len() > MANY_CLASSES {
        return unchecked(&format!(
            "there are more than {}: heads for so many would take longer than the check is worth",
            counted(MANY_CLASSES, "class")
        ));
    }
    let mut rows = dataset.part(Part::Train);
    rows.extend(dataset.part(Part::Validation));
    let mut rows_of_class = vec![0; dataset.labels.len()];
    for label in dataset.labels_of(&rows) {
        rows_of_class[label as usize] += 1;
    }
    let is_judged = |class: usize| rows_of_class[class] >= out_of_fold::N_FOLDS;
    rows.retain(|row| is_judged(dataset.labels_of(&[*row])[0] as usize));
    let classes = 0..rows_of_class.len();
    let left_out: Vec<usize> = classes.clone().filter(|class| !is_judged(*class)).collect();
    if classes.len() - left_out.len() < 2 {
        return unchecked("fewer than two classes have five rows in train and validation");
    }
    let work = out_of_fold::multiply_adds(rows.len(), view.n_features(), classes.len());
    if work > MOST_TRAINING && !is_wanted {
        return unchecked("there are too many rows and classes for a check that takes seconds");
    }

    let labels = dataset.labels_of(&rows);
    let probabilities =
        out_of_fold::probabilities(view, &rows, &labels, classes.len(), pipeline.seed)?;
    let labels: Vec<usize> = labels.into_iter().map(|label| label as usize).collect();
    let predicted = predictions(probabilities.view());
    let n_right =
        labels.iter().zip(&predicted).filter(|(label, predicted)| label == predicted).count();
    let errors = likely_errors(&labels, probabilities.view());
    let name = |class: usize| dataset.labels.names()[class].clone();
    let doubtful = errors.iter().take(N_LISTED).map(|error| {
        let row = &dataset.rows[rows[error.row] as usize];
        DoubtfulLabel {
            part: row.part,
            text: text_of(row),
            label: name(labels[error.row]),
            suggested: name(error.suggested),
            probability: four_places(error.probability),
            self_confidence: four_places(error.self_confidence),
            record: RecordPlace::of(row, &dataset.files),
        }
    });
    let found = LabelErrors {
        state: view.states[0].to_string(),
        judged: rows.len(),
        accuracy: four_places(n_right as f64 / rows.len() as f64),
        left_out: left_out.into_iter().map(name).collect(),
        count: errors.len(),
        rows: doubtful.collect(),
    };
    Ok((Check::Done(found), Some(JudgedRows { rows, labels, probabilities })))
}

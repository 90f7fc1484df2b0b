//! The predictions of heads, as small as metrics need them: kept for every head of a sweep.

use std::{collections::BTreeSet, sync::Arc};

use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

use crate::{
    data::{dataset::Dataset, example::Example},
    error::Result,
    head::{bank::Evaluator, outputs::OutputHead, saved::HeadDescription},
    metrics::{
        metric::Metric,
        outputs::{OutputRows, gathered},
        row_statistics::RowStatistics,
        span::AnsweredQuestion,
        tagging::TaggedSentence,
    },
};

/// An evaluator that also returns the predictions of a head.
pub(crate) trait PredictionEvaluator: Evaluator {
    /// The rows of the dataset that are evaluated, in their order.
    fn rows(&self) -> Vec<u32>;

    /// The predictions for those rows, from a head's outputs on the samples.
    fn predictions(&self, logits: ArrayView2<'_, f32>, head: &OutputHead) -> Predictions;

    /// The same of outputs that may be too many to be in memory.
    ///
    /// # Errors
    /// When what they are computed from cannot be read.
    fn predictions_of(&self, logits: &dyn OutputRows, head: &OutputHead) -> Result<Predictions> {
        Ok(self.predictions(gathered(logits)?.view(), head))
    }

    /// What is fitted to such outputs.
    ///
    /// # Errors
    /// When what they are computed from cannot be read.
    fn calibration(&self, _: &dyn OutputRows) -> Result<Calibration> {
        Ok(Calibration::default())
    }

    /// Whether the predictions of a head depend on what was fitted to its outputs.
    fn is_tuned(&self) -> bool {
        false
    }

    /// The predictions of a head with what was fitted to its outputs on other rows, as those of a run.
    ///
    /// # Errors
    /// When what outputs are computed from cannot be read.
    fn tuned_predictions(
        &self,
        logits: &dyn OutputRows,
        head: &OutputHead,
        _: &Calibration,
    ) -> Result<Predictions> {
        self.predictions_of(logits, head)
    }
}

/// What is fitted to outputs on rows that a head did not learn from.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Calibration {
    /// Of classes.
    pub(crate) temperature: Option<f64>,
    /// Of labels that are set or not.
    pub(crate) thresholds: Option<Vec<f64>>,
    /// Of questions some of which have no answer.
    pub(crate) no_answer_threshold: Option<f64>,
}

impl Calibration {
    /// Sets what was fitted.
    pub(crate) fn apply(&self, head: &mut HeadDescription) {
        if let Some(temperature) = self.temperature {
            head.temperature = temperature;
        }
        if let Some(thresholds) = &self.thresholds {
            head.thresholds = Some(thresholds.clone());
        }
        if let Some(threshold) = self.no_answer_threshold {
            head.no_answer_threshold = Some(threshold);
        }
    }
}

/// The predictions of a head for some rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Predictions {
    /// A class of each.
    Classes(Vec<u32>),
    /// The labels of each.
    Labels(Vec<BTreeSet<u32>>),
    /// The probability of every class or label of each, row by row, where the metric asks for them.
    Probabilities(Vec<f32>),
    /// A number for each.
    Values(Vec<f64>),
    /// The tag of each word of each; none where a word has no state.
    Tags(Vec<Vec<Option<u32>>>),
    /// The answer to each, if there is one.
    Answers(Vec<Option<String>>),
}

impl Predictions {
    /// Adds the predictions for further rows.
    ///
    /// # Panics
    /// When it is of another task.
    pub(crate) fn append(&mut self, other: Predictions) {
        match (self, other) {
            (Predictions::Classes(all), Predictions::Classes(more)) => all.extend(more),
            (Predictions::Labels(all), Predictions::Labels(more)) => all.extend(more),
            (Predictions::Probabilities(all), Predictions::Probabilities(more)) => all.extend(more),
            (Predictions::Values(all), Predictions::Values(more)) => all.extend(more),
            (Predictions::Tags(all), Predictions::Tags(more)) => all.extend(more),
            (Predictions::Answers(all), Predictions::Answers(more)) => all.extend(more),
            _ => panic!("rows of one task"),
        }
    }

    /// Beside what is true of these rows, in their order, as far as a metric needs it.
    pub(crate) fn statistics(
        &self,
        dataset: &Dataset,
        rows: &Gold,
        metric: Metric,
    ) -> RowStatistics {
        let target = |row: &u32| &dataset.rows[*row as usize].target;
        match self {
            Predictions::Classes(predicted) => {
                let n_classes = dataset.labels.len();
                RowStatistics::classes(rows.classes.clone(), predicted.clone(), n_classes)
            }
            Predictions::Labels(predicted) => {
                let decided = Array2::from_shape_fn(
                    (rows.rows.len(), dataset.labels.len()),
                    |(row, label)| predicted[row].contains(&(label as u32)),
                );
                RowStatistics::labels(labels_of(dataset, &rows.rows).view(), decided.view())
            }
            Predictions::Probabilities(all) => {
                let shape = (rows.rows.len(), dataset.labels.len());
                let all = ArrayView2::from_shape(shape, all).expect("a probability of each label");
                if rows.classes.len() == rows.rows.len() {
                    RowStatistics::class_probabilities(metric, &rows.classes, all)
                } else {
                    let gold = labels_of(dataset, &rows.rows);
                    RowStatistics::label_probabilities(metric, gold.view(), all)
                }
            }
            Predictions::Values(predicted) => {
                let gold = rows.rows.iter().filter_map(|row| target(row).value());
                RowStatistics::values(&gold.collect::<Vec<f64>>(), predicted)
            }
            Predictions::Tags(predicted) => {
                let wide = |tag: &Option<u32>| tag.map(|tag| tag as usize);
                let predicted: Vec<Vec<Option<usize>>> =
                    predicted.iter().map(|tags| tags.iter().map(wide).collect()).collect();
                let sentences = rows.rows.iter().zip(&predicted);
                let sentences: Vec<TaggedSentence<'_>> = sentences
                    .map(|(row, predicted)| TaggedSentence {
                        truth: target(row).label_ids(),
                        predicted,
                    })
                    .collect();
                match metric {
                    Metric::MacroF1 | Metric::WeightedF1 => {
                        RowStatistics::tags(&sentences, dataset.labels.names())
                    }
                    _ => RowStatistics::sentences(&sentences, dataset.labels.names()),
                }
            }
            Predictions::Answers(predicted) => {
                let questions = rows.rows.iter().zip(predicted);
                let questions: Vec<_> = questions
                    .map(|(row, answer)| answered(&dataset.rows[*row as usize], answer.clone()))
                    .collect();
                RowStatistics::answers(&questions)
            }
        }
    }
}

/// The rows that heads are evaluated on, and the truth of them.
pub(crate) struct Gold {
    rows: Vec<u32>,
    /// Of rows that have one, shared by all heads.
    classes: Arc<Vec<u32>>,
}

impl Gold {
    pub(crate) fn new(dataset: &Dataset, rows: Vec<u32>) -> Gold {
        let class = |row: &u32| dataset.rows[*row as usize].target.class();
        let classes = rows.iter().filter_map(class).map(|class| class as u32);
        Gold { classes: Arc::new(classes.collect()), rows }
    }
}

/// Which labels some rows have, `[rows, labels]`.
pub(super) fn labels_of(dataset: &Dataset, rows: &[u32]) -> Array2<bool> {
    let mut labels = Array2::from_elem((rows.len(), dataset.labels.len()), false);
    for (place, row) in rows.iter().enumerate() {
        for label in dataset.rows[*row as usize].target.label_ids() {
            labels[[place, *label]] = true;
        }
    }
    labels
}

/// A question with its gold answers and the predicted one.
pub(super) fn answered(row: &Example, predicted: Option<String>) -> AnsweredQuestion {
    let gold = row.target.answers().iter();
    AnsweredQuestion { gold: gold.map(|answer| answer.text.clone()).collect(), predicted }
}

//! The predictions of heads, in the smallest form that the metrics allow: they are kept for every head of a sweep.

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
    /// Returns the rows of the dataset that are evaluated, in order.
    fn rows(&self) -> Vec<u32>;

    /// Returns the predictions for those rows, from a head's outputs on the samples.
    fn predictions(&self, logits: ArrayView2<'_, f32>, head: &OutputHead) -> Predictions;

    /// Like [`PredictionEvaluator::predictions`], for outputs that may not fit in memory.
    ///
    /// # Errors
    /// Returns an error if the data that they are computed from cannot be read.
    fn predictions_of(&self, logits: &dyn OutputRows, head: &OutputHead) -> Result<Predictions> {
        Ok(self.predictions(gathered(logits)?.view(), head))
    }

    /// Whether [`PredictionEvaluator::calibration`] fits anything.
    fn is_calibrated(&self) -> bool {
        false
    }

    /// Fits the calibration to such outputs.
    ///
    /// # Errors
    /// Returns an error if the data that they are computed from cannot be read.
    fn calibration(&self, _: &dyn OutputRows) -> Result<Calibration> {
        Ok(Calibration::default())
    }

    /// Whether the predictions of a head depend on what was fitted to its outputs.
    fn is_tuned(&self) -> bool {
        false
    }

    /// The predictions of outputs in memory with what was fitted to those on other rows; `None` where that is nothing.
    fn tuned(&self, _: ArrayView2<'_, f32>, _: &Calibration) -> Option<Predictions> {
        None
    }

    /// The predictions of a head with what was fitted to its outputs on other rows, as those of a run.
    ///
    /// # Errors
    /// When what outputs are computed from cannot be read.
    fn tuned_predictions(
        &self,
        logits: &dyn OutputRows,
        head: &OutputHead,
        calibration: &Calibration,
    ) -> Result<Predictions> {
        if !self.is_tuned() {
            return self.predictions_of(logits, head);
        }
        let logits = gathered(logits)?;
        let tuned = self.tuned(logits.view(), calibration);
        Ok(tuned.unwrap_or_else(|| self.predictions(logits.view(), head)))
    }
}

/// Values that are fitted to outputs on rows that a head was not trained on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Calibration {
    /// For classes.
    pub(crate) temperature: Option<f64>,
    /// For label sets: one for each label.
    pub(crate) thresholds: Option<Vec<f64>>,
    /// For questions, if some have no answer.
    pub(crate) no_answer_threshold: Option<f64>,
}

impl Calibration {
    /// Sets the fitted values in the description of a head.
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
    /// The class of each row.
    Classes(Vec<u32>),
    /// The labels of each row.
    Labels(Vec<BTreeSet<u32>>),
    /// The probability of every class or label for each row, row by row, if the metric needs them.
    Probabilities(Vec<f32>),
    /// The number for each row.
    Values(Vec<f64>),
    /// The tag of each word of each row; `None` for words without a state.
    Tags(Vec<Vec<Option<u32>>>),
    /// The answer for each row, if there is one.
    Answers(Vec<Option<String>>),
}

impl Predictions {
    /// Appends the predictions for further rows.
    ///
    /// # Panics
    /// Panics if they are of another task.
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

    /// Combines the predictions with the truth of these rows, in the same order, into the statistics that the metric
    /// needs.
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

/// The rows that heads are evaluated on, with their truth.
pub(crate) struct Gold {
    rows: Vec<u32>,
    /// The classes of the rows that have one, shared by all heads.
    classes: Arc<Vec<u32>>,
}

impl Gold {
    pub(crate) fn new(dataset: &Dataset, rows: Vec<u32>) -> Gold {
        let class = |row: &u32| dataset.rows[*row as usize].target.class();
        let classes = rows.iter().filter_map(class).map(|class| class as u32);
        Gold { classes: Arc::new(classes.collect()), rows }
    }
}

/// Returns which labels some rows have, `[rows, labels]`.
pub(super) fn labels_of(dataset: &Dataset, rows: &[u32]) -> Array2<bool> {
    let mut labels = Array2::from_elem((rows.len(), dataset.labels.len()), false);
    for (place, row) in rows.iter().enumerate() {
        for label in dataset.rows[*row as usize].target.label_ids() {
            labels[[place, *label]] = true;
        }
    }
    labels
}

/// Returns a question with its gold answers and the predicted answer.
pub(super) fn answered(row: &Example, predicted: Option<String>) -> AnsweredQuestion {
    let gold = row.target.answers().iter();
    AnsweredQuestion { gold: gold.map(|answer| answer.text.clone()).collect(), predicted }
}

//! What heads say of rows, as small as metrics need it: kept for every head of a sweep.

use std::{collections::BTreeSet, sync::Arc};

use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

use super::{documents::labels_of, questions::answered};
use crate::{
    data::dataset::Dataset,
    error::Result,
    head::{bank::Judge, outputs::OutputHead, saved::HeadDescription},
    metrics::{
        evidence::Evidence,
        outputs::{OutputRows, gathered},
        tagging::TaggedSentence,
    },
};

/// A judge that also tells what a head said.
pub(crate) trait Listener: Judge {
    /// The rows of the dataset that are judged, in their order.
    fn rows(&self) -> Vec<u32>;

    /// What a head's outputs on the samples say of those rows.
    fn said(&self, logits: ArrayView2<'_, f32>, head: &OutputHead) -> Said;

    /// The same of outputs that may be too many to be in memory.
    ///
    /// # Errors
    /// When what they are computed from cannot be read.
    fn said_of(&self, logits: &dyn OutputRows, head: &OutputHead) -> Result<Said> {
        Ok(self.said(gathered(logits)?.view(), head))
    }

    /// What is fitted to such outputs.
    ///
    /// # Errors
    /// When what they are computed from cannot be read.
    fn tuned(&self, _: &dyn OutputRows) -> Result<Tuned> {
        Ok(Tuned::default())
    }
}

/// What is fitted to outputs on rows that a head did not learn from.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tuned {
    /// Of classes.
    pub(crate) temperature: Option<f64>,
    /// Of labels that are set or not.
    pub(crate) thresholds: Option<Vec<f64>>,
    /// Of questions some of which have no answer.
    pub(crate) no_answer_threshold: Option<f64>,
}

impl Tuned {
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

/// What a head said of some rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Said {
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

impl Said {
    /// Adds what was said of further rows.
    ///
    /// # Panics
    /// When it is of another task.
    pub(crate) fn append(&mut self, other: Said) {
        match (self, other) {
            (Said::Classes(all), Said::Classes(more)) => all.extend(more),
            (Said::Labels(all), Said::Labels(more)) => all.extend(more),
            (Said::Probabilities(all), Said::Probabilities(more)) => all.extend(more),
            (Said::Values(all), Said::Values(more)) => all.extend(more),
            (Said::Tags(all), Said::Tags(more)) => all.extend(more),
            (Said::Answers(all), Said::Answers(more)) => all.extend(more),
            _ => panic!("rows of one task"),
        }
    }

    /// Beside what is true of these rows, in their order, as far as a metric needs it.
    pub(crate) fn evidence(&self, dataset: &Dataset, rows: &Gold, metric: &str) -> Evidence {
        let target = |row: &u32| &dataset.rows[*row as usize].target;
        match self {
            Said::Classes(predicted) => {
                let n_classes = dataset.labels.len();
                Evidence::classes(rows.classes.clone(), predicted.clone(), n_classes)
            }
            Said::Labels(predicted) => {
                let decided = Array2::from_shape_fn(
                    (rows.rows.len(), dataset.labels.len()),
                    |(row, label)| predicted[row].contains(&(label as u32)),
                );
                Evidence::labels(labels_of(dataset, &rows.rows).view(), decided.view())
            }
            Said::Probabilities(all) => {
                let shape = (rows.rows.len(), dataset.labels.len());
                let all = ArrayView2::from_shape(shape, all).expect("a probability of each label");
                if rows.classes.len() == rows.rows.len() {
                    Evidence::class_probabilities(metric, &rows.classes, all)
                } else {
                    let gold = labels_of(dataset, &rows.rows);
                    Evidence::label_probabilities(metric, gold.view(), all)
                }
            }
            Said::Values(predicted) => {
                let gold = rows.rows.iter().filter_map(|row| target(row).value());
                Evidence::values(&gold.collect::<Vec<f64>>(), predicted)
            }
            Said::Tags(predicted) => {
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
                    "macro_f1" | "weighted_f1" => {
                        Evidence::tags(&sentences, dataset.labels.names())
                    }
                    _ => Evidence::sentences(&sentences, dataset.labels.names()),
                }
            }
            Said::Answers(predicted) => {
                let questions = rows.rows.iter().zip(predicted);
                let questions: Vec<_> = questions
                    .map(|(row, answer)| answered(&dataset.rows[*row as usize], answer.clone()))
                    .collect();
                Evidence::answers(&questions)
            }
        }
    }
}

/// The rows that heads are judged on, and what is true of them.
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

//! The prediction for one record, as `predict` writes it.

use serde::{Serialize, Serializer};

/// The prediction of a head for one text, one pair, one sentence or one question.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Prediction {
    /// A class.
    Class {
        /// The text.
        text: String,
        /// The second text of a pair.
        #[serde(skip_serializing_if = "Option::is_none")]
        text_pair: Option<String>,
        /// The most probable label.
        label: String,
        /// Its probability.
        confidence: f32,
        /// The probability of each label, in label order; a JSON object.
        #[serde(serialize_with = "as_object")]
        probabilities: Vec<(String, f32)>,
    },
    /// Any number of labels.
    Labels {
        /// The text.
        text: String,
        /// The second text of a pair.
        #[serde(skip_serializing_if = "Option::is_none")]
        text_pair: Option<String>,
        /// The labels whose probability reaches their threshold.
        labels: Vec<String>,
        /// The probability of each label, in label order; a JSON object.
        #[serde(serialize_with = "as_object")]
        probabilities: Vec<(String, f32)>,
    },
    /// A number.
    Value {
        /// The text.
        text: String,
        /// The second text of a pair.
        #[serde(skip_serializing_if = "Option::is_none")]
        text_pair: Option<String>,
        /// The number.
        value: f64,
    },
    /// Tags of words.
    Tags {
        /// The text.
        text: String,
        /// Its words.
        words: Vec<String>,
        /// The tag of each word.
        labels: Vec<String>,
        /// The entities that the tags mark; empty if the tags do not follow the IOB2 scheme.
        entities: Vec<EntitySpan>,
    },
    /// An answer.
    Answer {
        /// The question.
        question: String,
        /// The answer; `None` if the context does not answer the question.
        answer: Option<String>,
        /// Its first character in the context.
        start: Option<usize>,
        /// The character after its last one.
        end: Option<usize>,
        /// The score of the span, or of "no answer": start logit plus end logit.
        score: f64,
    },
}

impl Prediction {
    /// Returns the probability of each label if the head predicts labels of texts; otherwise nothing.
    pub(crate) fn probabilities(&self) -> &[(String, f32)] {
        match self {
            Prediction::Class { probabilities, .. } | Prediction::Labels { probabilities, .. } => {
                probabilities
            }
            _ => &[],
        }
    }

    /// Clears the label of a class whose confidence is below `min_confidence`.
    pub fn withhold_below(&mut self, min_confidence: f32) {
        if let Prediction::Class { label, confidence, .. } = self
            && *confidence < min_confidence
        {
            label.clear();
        }
    }

    /// Keeps the `n` most probable labels, in descending order of probability.
    pub fn keep_most_probable(&mut self, n: usize) {
        if let Prediction::Class { probabilities, .. } | Prediction::Labels { probabilities, .. } =
            self
        {
            probabilities.sort_by(|(_, one), (_, other)| other.total_cmp(one));
            probabilities.truncate(n);
        }
    }
}

/// A column of a file of predictions.
pub(crate) struct PredictionColumn {
    pub(crate) name: &'static str,
    pub(crate) values: ColumnValues,
}

/// How a column gets its value from a prediction; `None` where that has none.
#[derive(Clone, Copy)]
pub(crate) enum ColumnValues {
    Text(fn(&Prediction) -> Option<String>),
    Texts(fn(&Prediction) -> Option<&Vec<String>>),
    /// The place of a character.
    Place(fn(&Prediction) -> Option<usize>),
    /// Single precision.
    Float(fn(&Prediction) -> Option<f32>),
    /// Double precision.
    Double(fn(&Prediction) -> Option<f64>),
}

/// An entity in a text; positions count characters (Unicode code points).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EntitySpan {
    /// Its type.
    pub label: String,
    /// Its first character.
    pub start: usize,
    /// The character after its last one.
    pub end: usize,
    /// Its text.
    pub text: String,
}

fn as_object<S: Serializer>(pairs: &[(String, f32)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(label, probability)| (label, probability)))
}

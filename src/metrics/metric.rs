//! The metrics by name: what each measures, and in which direction it is better.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! metrics {
    ($($(#[$item:meta])* $variant:ident $name:literal),+ $(,)?) => {
        /// A metric, by its name in `metrics.json`.
        ///
        /// It is deserialised where early stopping follows it, so only a metric that can be followed is accepted;
        /// [`Metric::named`] knows all of them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Metric { $($(#[$item])* #[serde(rename = $name)] $variant),+ }

        impl Metric {
            /// All metrics.
            pub const ALL: &'static [Metric] = &[$(Metric::$variant),+];

            /// The name, as in `metrics.json`.
            pub fn name(self) -> &'static str {
                match self { $(Metric::$variant => $name),+ }
            }
        }
    };
}

metrics! {
    /// The validation loss that the head is trained on; followed by early stopping, and no part of `metrics.json`.
    Loss "loss",
    /// Fraction of rows whose predicted class, or whose set of labels, is the true one.
    Accuracy "accuracy",
    /// Mean F1: over the classes or, in words, the tags that occur in truth or predictions; over all labels of label sets,
    /// 0 for a label that is in neither.
    MacroF1 "macro_f1",
    /// F1 of the counts pooled over classes or labels; equal to the accuracy where every row has one class.
    MicroF1 "micro_f1",
    /// Mean F1 over classes, labels or, in words, tags, weighted by support.
    WeightedF1 "weighted_f1",
    /// Matthews correlation coefficient, from -1 to 1.
    Mcc "mcc",
    /// Area under the ROC curve: of two classes; of more, the mean of one against the rest; of label sets, the mean over the
    /// labels that some rows have and some have not.
    RocAuc "roc_auc",
    /// Mean negative log-likelihood of the true class, or of the decision for each label, in nats.
    LogLoss "log_loss",
    /// Mean squared error of the probabilities: from 0 to 1 for two classes and for labels, from 0 to 2 for more classes.
    Brier "brier",
    /// Expected calibration error in 15 bins.
    Ece "ece",
    /// Fraction of words whose predicted tag is the true one.
    TokenAccuracy "token_accuracy",
    /// F1 over the entities of all types, read strictly as IOB2.
    EntityF1Strict "entity_f1_strict",
    /// F1 over the entities of all types, read with the leniency of `conlleval`.
    EntityF1Conlleval "entity_f1_conlleval",
    /// Fraction of questions whose answer is a gold answer, both normalised.
    ExactMatch "exact_match",
    /// Mean over the questions of the highest F1, in tokens, with a gold answer.
    F1 "f1",
    /// Spearman's rank correlation, from -1 to 1.
    Spearman "spearman",
    /// Pearson's correlation, from -1 to 1.
    Pearson "pearson",
    /// Mean squared error, in squared units of the truth.
    Mse "mse",
    /// Mean absolute error, in units of the truth.
    Mae "mae",
    /// Mean over the rows of the F1 of a row's labels; 0 for a row without any, true or predicted.
    SamplesF1 "samples_f1",
    /// Fraction of the predicted entities that are true ones, read strictly; 0 where none is predicted.
    #[serde(skip_deserializing)]
    EntityPrecisionStrict "entity_precision_strict",
    /// Fraction of the true entities that are predicted, read strictly; 0 where there are none.
    #[serde(skip_deserializing)]
    EntityRecallStrict "entity_recall_strict",
}

impl Metric {
    /// The metrics of a class for each row, in the order in which they are written.
    pub const OF_CLASSES: [Metric; 9] = {
        use Metric::*;
        [Accuracy, MacroF1, MicroF1, WeightedF1, Mcc, RocAuc, LogLoss, Brier, Ece]
    };

    /// The metrics of a set of labels for each row, in the order in which they are written.
    pub const OF_LABEL_SETS: [Metric; 9] = {
        use Metric::*;
        [Accuracy, MacroF1, MicroF1, WeightedF1, SamplesF1, RocAuc, LogLoss, Brier, Ece]
    };

    /// The metrics of a number for each row, in the order in which they are written.
    pub const OF_NUMBERS: [Metric; 4] =
        [Metric::Spearman, Metric::Pearson, Metric::Mse, Metric::Mae];

    /// The metrics of a tag for each word, in the order in which they are written.
    pub const OF_TAGS: [Metric; 7] = [
        Metric::TokenAccuracy,
        Metric::EntityF1Strict,
        Metric::EntityPrecisionStrict,
        Metric::EntityRecallStrict,
        Metric::EntityF1Conlleval,
        Metric::MacroF1,
        Metric::WeightedF1,
    ];

    /// The metrics of an answer to each question, in the order in which they are written.
    pub const OF_ANSWERS: [Metric; 2] = [Metric::ExactMatch, Metric::F1];

    /// The metric of a name.
    ///
    /// ```
    /// use frostbert::internals::metrics::metric::Metric;
    ///
    /// assert_eq!(Metric::named("macro_f1"), Some(Metric::MacroF1));
    /// assert_eq!(Metric::named("macro F1"), None);
    /// ```
    pub fn named(name: &str) -> Option<Metric> {
        Metric::ALL.iter().copied().find(|metric| metric.name() == name)
    }

    /// The name in prose: `macro f1`.
    pub fn in_words(self) -> String {
        self.name().replace('_', " ")
    }

    /// Whether a larger value is better.
    pub fn higher_is_better(self) -> bool {
        use Metric::*;
        !matches!(self, Loss | LogLoss | Brier | Ece | Mse | Mae)
    }

    /// The best value that it can have.
    pub(crate) fn best_value(self) -> f64 {
        if self.higher_is_better() { 1.0 } else { 0.0 }
    }

    /// The worst value that it can have; infinite for losses and errors.
    pub(crate) fn worst_value(self) -> f64 {
        match self {
            Metric::Mcc | Metric::Spearman | Metric::Pearson => -1.0,
            _ if self.higher_is_better() => 0.0,
            _ => f64::INFINITY,
        }
    }

    /// Whether one value is better than another.
    pub fn is_better(self, one: f64, other: f64) -> bool {
        if self.higher_is_better() { one > other } else { one < other }
    }

    /// Whether it is of entities, which only tags in a scheme mark.
    pub fn measures_entities(self) -> bool {
        use Metric::*;
        matches!(
            self,
            EntityF1Strict | EntityPrecisionStrict | EntityRecallStrict | EntityF1Conlleval
        )
    }

    /// Whether it measures the probabilities themselves, so that a temperature changes it.
    pub fn measures_probabilities(self) -> bool {
        matches!(self, Metric::LogLoss | Metric::Brier | Metric::Ece)
    }

    /// Whether it is computed from the probability of every class or label, not only from the predicted ones. Their order
    /// is enough for [`Metric::RocAuc`].
    pub fn needs_probabilities(self) -> bool {
        self == Metric::RocAuc || self.measures_probabilities()
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_written_by_its_name_and_read_where_it_can_be_followed() {
        for metric in Metric::ALL {
            let json = serde_json::to_string(metric).unwrap();
            assert_eq!(json, format!("\"{metric}\""));
            assert_eq!(Metric::named(metric.name()), Some(*metric));
            let unfollowed = [Metric::EntityPrecisionStrict, Metric::EntityRecallStrict];
            let read = serde_json::from_str::<Metric>(&json).ok();
            assert_eq!(read, (!unfollowed.contains(metric)).then_some(*metric));
        }
    }
}

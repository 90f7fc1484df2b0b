//! What is true of some rows and what a head predicts, by task.

use std::sync::Arc;

use ndarray::{Array2, Axis, concatenate};
use serde_json::{Value, json};

use crate::{
    error::Result,
    metrics::{
        metric::Metric,
        row_statistics::RowStatistics,
        span::{self, AnsweredQuestion},
        tagging::TaggedSentence,
    },
    report::saved_table::SavedTable,
    tasks::saved_predictions::label_names::LabelNames,
};

/// What is true of some rows and what is predicted, row by row. Labels are ids.
pub(crate) enum Outcomes {
    /// One class each.
    Classes {
        gold: Vec<u32>,
        predicted: Vec<u32>,
        /// `[rows, labels]`, where the table has them all.
        probabilities: Option<Array2<f32>>,
    },
    /// Any number of labels each, `[rows, labels]`.
    LabelSets {
        gold: Array2<bool>,
        predicted: Array2<bool>,
        /// Where the table has them all.
        probabilities: Option<Array2<f32>>,
        /// Whether the true labels of a row could be others, as a label holds what stands between two.
        unclear: Vec<bool>,
    },
    /// A number each.
    Values { gold: Vec<f64>, predicted: Vec<f64> },
    /// A tag for each word; none where it has no state and there is no tag `O`.
    Tags { gold: Vec<Vec<usize>>, predicted: Vec<Vec<Option<usize>>> },
    /// An answer each, if there is one.
    Answers { gold: Vec<Vec<String>>, predicted: Vec<Option<String>> },
}

impl Outcomes {
    /// Reads the classes of all rows of a table of predictions.
    ///
    /// # Errors
    /// When the table is not that of a run of this task, or holds other labels.
    pub(crate) fn of_classes(table: &SavedTable, labels: &[String]) -> Result<Outcomes> {
        let names = LabelNames::of(table, labels);
        Ok(Outcomes::Classes {
            gold: names.classes("label")?,
            predicted: names.classes("predicted")?,
            probabilities: names.probabilities(labels)?,
        })
    }

    /// Reads the label sets of all rows.
    ///
    /// # Errors
    /// As [`Outcomes::of_classes`].
    pub(crate) fn of_label_sets(table: &SavedTable, labels: &[String]) -> Result<Outcomes> {
        let names = LabelNames::of(table, labels);
        let (gold, unclear) = names.joined_sets("labels")?;
        Ok(Outcomes::LabelSets {
            gold,
            predicted: names.sets(&table.lists("predicted")?)?,
            probabilities: names.probabilities(labels)?,
            unclear,
        })
    }

    /// Reads the numbers of all rows.
    ///
    /// # Errors
    /// When the table is not that of a run of this task.
    pub(crate) fn of_values(table: &SavedTable) -> Result<Outcomes> {
        Ok(Outcomes::Values {
            gold: table.doubles("value")?,
            predicted: table.doubles("predicted")?,
        })
    }

    /// Reads the tags of the words of all rows.
    ///
    /// # Errors
    /// As [`Outcomes::of_classes`].
    pub(crate) fn of_tags(table: &SavedTable, labels: &[String]) -> Result<Outcomes> {
        let names = LabelNames::of(table, labels);
        Ok(Outcomes::Tags {
            gold: names.tags("labels", |tag| names.id(tag))?,
            predicted: names.tags("predicted", |tag| match tag {
                "" => Ok(None),
                tag => names.id(tag).map(Some),
            })?,
        })
    }

    /// Reads the answers of all rows.
    ///
    /// # Errors
    /// As [`Outcomes::of_values`].
    pub(crate) fn of_answers(table: &SavedTable) -> Result<Outcomes> {
        Ok(Outcomes::Answers {
            gold: table.lists("answers")?,
            predicted: table.texts("predicted")?,
        })
    }

    /// Some of the rows, in this order.
    pub(super) fn select(&self, rows: &[usize]) -> Outcomes {
        fn of<T: Clone>(column: &[T], rows: &[usize]) -> Vec<T> {
            rows.iter().map(|row| column[*row].clone()).collect()
        }
        match self {
            Outcomes::Classes { gold, predicted, probabilities } => Outcomes::Classes {
                gold: of(gold, rows),
                predicted: of(predicted, rows),
                probabilities: probabilities.as_ref().map(|all| all.select(Axis(0), rows)),
            },
            Outcomes::LabelSets { gold, predicted, probabilities, unclear } => {
                Outcomes::LabelSets {
                    gold: gold.select(Axis(0), rows),
                    predicted: predicted.select(Axis(0), rows),
                    probabilities: probabilities.as_ref().map(|all| all.select(Axis(0), rows)),
                    unclear: of(unclear, rows),
                }
            }
            Outcomes::Values { gold, predicted } => {
                Outcomes::Values { gold: of(gold, rows), predicted: of(predicted, rows) }
            }
            Outcomes::Tags { gold, predicted } => {
                Outcomes::Tags { gold: of(gold, rows), predicted: of(predicted, rows) }
            }
            Outcomes::Answers { gold, predicted } => {
                Outcomes::Answers { gold: of(gold, rows), predicted: of(predicted, rows) }
            }
        }
    }

    /// On how many rows the truth cannot be told, as the table joins labels by what one of them holds too.
    pub(super) fn unclear_truths(&self) -> usize {
        match self {
            Outcomes::LabelSets { unclear, .. } => {
                unclear.iter().filter(|unclear| **unclear).count()
            }
            _ => 0,
        }
    }

    /// On how many rows the truth is not that of the same rows elsewhere.
    pub(super) fn other_truths(&self, other: &Outcomes) -> usize {
        fn differing<T: PartialEq>(one: &[T], other: &[T]) -> usize {
            one.iter().zip(other).filter(|(one, other)| one != other).count()
        }
        match (self, other) {
            (Outcomes::Classes { gold, .. }, Outcomes::Classes { gold: other, .. }) => {
                differing(gold, other)
            }
            (Outcomes::LabelSets { gold, .. }, Outcomes::LabelSets { gold: other, .. }) => gold
                .rows()
                .into_iter()
                .zip(other.rows())
                .filter(|(one, other)| one != other)
                .count(),
            (Outcomes::Values { gold, .. }, Outcomes::Values { gold: other, .. }) => {
                differing(gold, other)
            }
            (Outcomes::Tags { gold, .. }, Outcomes::Tags { gold: other, .. }) => {
                differing(gold, other)
            }
            (Outcomes::Answers { gold, .. }, Outcomes::Answers { gold: other, .. }) => {
                differing(gold, other)
            }
            _ => self.n_rows(),
        }
    }

    /// The rows of this run followed by those of another one, as a metric needs them; none where the tables do not hold
    /// what it is computed from.
    pub(crate) fn stacked(
        &self,
        other: &Outcomes,
        metric: Metric,
        labels: &[String],
    ) -> Option<RowStatistics> {
        Some(match (self, other) {
            (
                Outcomes::Classes { gold, predicted, probabilities },
                Outcomes::Classes { gold: _, predicted: others, probabilities: other },
            ) => {
                let gold = [&gold[..], gold].concat();
                if metric.needs_probabilities() {
                    let both = both(probabilities.as_ref()?, other.as_ref()?)?;
                    RowStatistics::class_probabilities(metric, &gold, both.view())
                } else {
                    let predicted = [&predicted[..], others].concat();
                    RowStatistics::classes(Arc::new(gold), predicted, labels.len())
                }
            }
            (
                Outcomes::LabelSets { gold, predicted, probabilities, .. },
                Outcomes::LabelSets { predicted: others, probabilities: other, .. },
            ) => {
                let gold = both(gold, gold)?;
                if metric.needs_probabilities() {
                    let both = both(probabilities.as_ref()?, other.as_ref()?)?;
                    RowStatistics::label_probabilities(metric, gold.view(), both.view())
                } else {
                    RowStatistics::labels(gold.view(), both(predicted, others)?.view())
                }
            }
            (
                Outcomes::Values { gold, predicted },
                Outcomes::Values { gold: _, predicted: others },
            ) => {
                let gold = [&gold[..], gold].concat();
                RowStatistics::values(&gold, &[&predicted[..], others].concat())
            }
            (Outcomes::Tags { gold, predicted }, Outcomes::Tags { gold: _, predicted: others }) => {
                let truths = gold.iter().chain(gold);
                let sentences = truths.zip(predicted.iter().chain(others));
                let sentences: Vec<TaggedSentence<'_>> = sentences
                    .map(|(truth, predicted)| TaggedSentence { truth, predicted })
                    .collect();
                match metric {
                    Metric::MacroF1 | Metric::WeightedF1 => RowStatistics::tags(&sentences, labels),
                    _ => RowStatistics::sentences(&sentences, labels),
                }
            }
            (Outcomes::Answers { .. }, Outcomes::Answers { .. }) => {
                RowStatistics::answers(&[self.answered(), other.answered()].concat())
            }
            _ => return None,
        })
    }

    /// On which rows another run predicts something else.
    pub(crate) fn changed(&self, other: &Outcomes) -> Vec<bool> {
        fn differing<T: PartialEq>(one: &[T], other: &[T]) -> Vec<bool> {
            one.iter().zip(other).map(|(one, other)| one != other).collect()
        }
        match (self, other) {
            (Outcomes::Classes { predicted, .. }, Outcomes::Classes { predicted: other, .. }) => {
                differing(predicted, other)
            }
            (
                Outcomes::LabelSets { predicted, .. },
                Outcomes::LabelSets { predicted: other, .. },
            ) => {
                let pairs = predicted.rows().into_iter().zip(other.rows());
                pairs.map(|(one, other)| one != other).collect()
            }
            (Outcomes::Values { predicted, .. }, Outcomes::Values { predicted: other, .. }) => {
                differing(predicted, other)
            }
            (Outcomes::Tags { predicted, .. }, Outcomes::Tags { predicted: other, .. }) => {
                differing(predicted, other)
            }
            (Outcomes::Answers { predicted, .. }, Outcomes::Answers { predicted: other, .. }) => {
                differing(predicted, other)
            }
            _ => vec![true; self.n_rows()],
        }
    }

    /// How good each prediction is, more being better: 1 for a right class or a right set of labels and 0 for a wrong one,
    /// the error of a number with a minus sign, the share of right tags, the F1 of an answer.
    pub(crate) fn quality(&self) -> Vec<f64> {
        let of = |is_right: bool| f64::from(u8::from(is_right));
        match self {
            Outcomes::Classes { gold, predicted, .. } => {
                gold.iter().zip(predicted).map(|(gold, predicted)| of(gold == predicted)).collect()
            }
            Outcomes::LabelSets { gold, predicted, .. } => {
                let rows = gold.rows().into_iter().zip(predicted.rows());
                rows.map(|(gold, predicted)| of(gold == predicted)).collect()
            }
            Outcomes::Values { gold, predicted } => {
                gold.iter().zip(predicted).map(|(gold, own)| -(own - gold).abs()).collect()
            }
            Outcomes::Tags { gold, predicted } => {
                let share = |(gold, own): (&Vec<usize>, &Vec<Option<usize>>)| {
                    let right = gold.iter().zip(own).filter(|(gold, own)| **own == Some(**gold));
                    right.count() as f64 / gold.len().max(1) as f64
                };
                gold.iter().zip(predicted).map(share).collect()
            }
            Outcomes::Answers { .. } => {
                let f1 = |question: AnsweredQuestion| {
                    span::evaluate(&[question], None).scores.value(Metric::F1).unwrap_or(0.0)
                };
                self.answered().into_iter().map(f1).collect()
            }
        }
    }

    /// What is true of a row, and what is predicted.
    pub(crate) fn shown(&self, row: usize, labels: &[String]) -> [Value; 2] {
        let name = |id: usize| labels.get(id).map_or("", String::as_str);
        let set = |has: &Array2<bool>| {
            let own = has.row(row).into_iter().enumerate().filter(|(_, has)| **has);
            json!(own.map(|(id, _)| name(id)).collect::<Vec<_>>())
        };
        match self {
            Outcomes::Classes { gold, predicted, .. } => {
                [gold, predicted].map(|ids| json!(name(ids[row] as usize)))
            }
            Outcomes::LabelSets { gold, predicted, .. } => [gold, predicted].map(set),
            Outcomes::Values { gold, predicted } => {
                [gold, predicted].map(|values| json!(values[row]))
            }
            Outcomes::Tags { gold, predicted } => {
                let gold: Vec<&str> = gold[row].iter().map(|tag| name(*tag)).collect();
                let predicted = predicted[row].iter().map(|tag| tag.map_or("", name));
                [json!(gold), json!(predicted.collect::<Vec<_>>())]
            }
            Outcomes::Answers { gold, predicted } => [json!(gold[row]), json!(predicted[row])],
        }
    }

    fn n_rows(&self) -> usize {
        match self {
            Outcomes::Classes { gold, .. } => gold.len(),
            Outcomes::LabelSets { gold, .. } => gold.nrows(),
            Outcomes::Values { gold, .. } => gold.len(),
            Outcomes::Tags { gold, .. } => gold.len(),
            Outcomes::Answers { gold, .. } => gold.len(),
        }
    }

    /// The questions; none of another task.
    fn answered(&self) -> Vec<AnsweredQuestion> {
        let Outcomes::Answers { gold, predicted } = self else {
            return Vec::new();
        };
        let questions = gold.iter().cloned().zip(predicted.iter().cloned());
        questions.map(|(gold, predicted)| AnsweredQuestion { gold, predicted }).collect()
    }
}

/// Rows of one matrix above those of another; none where they have other columns.
fn both<T: Clone>(one: &Array2<T>, other: &Array2<T>) -> Option<Array2<T>> {
    concatenate(Axis(0), &[one.view(), other.view()]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(gold: &[f64], predicted: &[f64]) -> Outcomes {
        Outcomes::Values { gold: gold.to_vec(), predicted: predicted.to_vec() }
    }

    #[test]
    fn a_change_is_told_with_what_is_better() {
        let labels = ["x", "y"].map(String::from);
        let classes = |predicted: &[u32]| Outcomes::Classes {
            gold: vec![0, 1, 1],
            predicted: predicted.to_vec(),
            probabilities: None,
        };
        let (first, second) = (classes(&[0, 0, 1]), classes(&[1, 1, 1]));
        assert_eq!(first.changed(&second), [true, true, false]);
        assert_eq!((first.quality(), second.quality()), (vec![1.0, 0.0, 1.0], vec![0.0, 1.0, 1.0]));
        assert_eq!(first.shown(1, &labels), [json!("y"), json!("x")]);
        let statistics = first.stacked(&second, Metric::Accuracy, &labels).unwrap();
        assert_eq!(statistics.n_rows(), 6);
        assert_eq!(statistics.score(Metric::Accuracy, None), Some(4.0 / 6.0));
        assert!(first.stacked(&second, Metric::LogLoss, &labels).is_none());

        let (first, second) =
            (numbers(&[1.0, 2.0], &[1.5, 2.0]), numbers(&[1.0, 2.0], &[0.75, 2.0]));
        assert_eq!(first.changed(&second), [true, false]);
        assert_eq!((first.quality()[0], second.quality()[0]), (-0.5, -0.25));

        let tags = |predicted: [Option<usize>; 2]| Outcomes::Tags {
            gold: vec![vec![0, 1]],
            predicted: vec![predicted.to_vec()],
        };
        let (first, second) = (tags([Some(0), None]), tags([Some(0), Some(1)]));
        assert_eq!((first.quality(), second.quality()), (vec![0.5], vec![1.0]));
        assert_eq!(first.shown(0, &labels), [json!(["x", "y"]), json!(["x", ""])]);

        let answers = |predicted: Option<&str>| Outcomes::Answers {
            gold: vec![vec!["the cold snow".into()]],
            predicted: vec![predicted.map(String::from)],
        };
        let (first, second) = (answers(None), answers(Some("cold snow")));
        assert_eq!((first.quality(), second.quality()), (vec![0.0], vec![1.0]));
        assert_eq!(first.shown(0, &labels)[1], Value::Null);

        let sets = |predicted: [bool; 2]| Outcomes::LabelSets {
            gold: ndarray::array![[true, false]],
            predicted: ndarray::arr2(&[predicted]),
            probabilities: None,
            unclear: vec![false],
        };
        let (first, second) = (sets([true, true]), sets([true, false]));
        assert_eq!((first.quality(), second.quality()), (vec![0.0], vec![1.0]));
        assert_eq!(first.shown(0, &labels), [json!(["x"]), json!(["x", "y"])]);
    }
}

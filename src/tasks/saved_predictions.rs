//! The predictions of a run as its table holds them, beside the truth: what a comparison of two runs starts from.

mod label_names;
mod outcomes;

use std::collections::{HashMap, HashSet, VecDeque};

use frostbert_cache::{
    fingerprint::{Key, Mode},
    wording::{counted, grouped, part_of},
};

pub(crate) use self::outcomes::Outcomes;
use crate::{
    config::names::Task, error::Result, report::saved_table::SavedTable, tasks::task_kind,
};

/// What makes runs comparable whose data grows.
const FIXED_ROWS: &str = "name a fixed file in data.test to compare runs over time";

/// The rows of one part of a run.
pub(crate) struct SavedPredictions {
    /// What tells a row from others, whatever run it is in.
    pub(crate) keys: Vec<Key>,
    /// The names that the data gives the rows.
    pub(crate) ids: Vec<Option<String>>,
    /// The texts; of words all of them, of questions the question.
    pub(crate) texts: Vec<String>,
    /// The second texts; of questions the context.
    pub(crate) second_texts: Vec<Option<String>>,
    /// What is true of the rows, and what is predicted.
    pub(crate) outcomes: Outcomes,
}

/// The texts of all rows of a table of predictions.
pub(crate) struct SavedTexts {
    texts: Vec<String>,
    second_texts: Vec<Option<String>>,
    /// Whether a text is the document of its row, and not only its words side by side.
    are_documents: bool,
}

impl SavedTexts {
    /// Of texts or pairs.
    pub(super) fn of_documents(table: &SavedTable) -> Result<SavedTexts> {
        let texts = plain(table.texts("text")?);
        let second_texts = if table.has("text_pair") {
            table.texts("text_pair")?
        } else {
            vec![None; texts.len()]
        };
        Ok(SavedTexts { texts, second_texts, are_documents: true })
    }

    /// Of sentences.
    pub(super) fn of_words(table: &SavedTable) -> Result<SavedTexts> {
        let sentences = table.lists("words")?.into_iter();
        let texts: Vec<String> = sentences.map(|words| words.join(" ")).collect();
        Ok(SavedTexts { second_texts: vec![None; texts.len()], texts, are_documents: false })
    }

    /// Of questions with their contexts.
    pub(super) fn of_questions(table: &SavedTable) -> Result<SavedTexts> {
        let texts = plain(table.texts("question")?);
        Ok(SavedTexts { texts, second_texts: table.texts("context")?, are_documents: true })
    }
}

impl SavedPredictions {
    /// Reads the rows of a part from a run's table of predictions; `labels` are names that stand in it, by id.
    ///
    /// # Errors
    /// When the table is not that of a run of this task.
    pub(crate) fn read(
        table: &SavedTable,
        task: Task,
        labels: &[String],
        part: &str,
    ) -> Result<SavedPredictions> {
        let parts = table.texts("part")?;
        let rows: Vec<usize> =
            (0..parts.len()).filter(|row| parts[*row].as_deref() == Some(part)).collect();
        let kind = task_kind(task);
        let SavedTexts { texts, second_texts, are_documents } = kind.saved_texts(table)?;
        let keys = table.keys()?.into_iter().zip(texts.iter().zip(&second_texts));
        // A pair has one key or two, by how it was encoded: here it is one document. Nor does the prompt matter that a
        // run puts before texts.
        let keys = keys.map(|(key, (text, second))| match second {
            Some(second) => Key::of(Mode::Pair, &[text, second]),
            None if are_documents => Key::of(Mode::Text, &[text]),
            None => key,
        });
        let keys: Vec<Key> = keys.collect();
        let ids = table.texts("id")?;
        let outcomes = kind.saved_outcomes(table, labels)?;
        let all = SavedPredictions { keys, ids, texts, second_texts, outcomes };
        Ok(all.select(&rows))
    }

    /// Some of the rows, in this order.
    pub(crate) fn select(&self, rows: &[usize]) -> SavedPredictions {
        fn of<T: Clone>(column: &[T], rows: &[usize]) -> Vec<T> {
            rows.iter().map(|row| column[*row].clone()).collect()
        }
        SavedPredictions {
            keys: of(&self.keys, rows),
            ids: of(&self.ids, rows),
            texts: of(&self.texts, rows),
            second_texts: of(&self.second_texts, rows),
            outcomes: self.outcomes.select(rows),
        }
    }

    /// The rows of another run in the order of this one's, where both have the same rows and the same truth; else why not.
    pub(crate) fn matched(&self, other: &SavedPredictions) -> Result<SavedPredictions, String> {
        let mut places: HashMap<Key, VecDeque<usize>> = HashMap::new();
        for (place, key) in other.keys.iter().enumerate() {
            places.entry(*key).or_default().push_back(place);
        }
        // Of rows that are the same the first stands for the first.
        let order = self.keys.iter().filter_map(|key| places.get_mut(key)?.pop_front());
        let order: Vec<usize> = order.collect();
        if order.len() < self.keys.len() || order.len() < other.keys.len() {
            return Err(format!(
                "other rows: {} are among the {} of the other run; {FIXED_ROWS}",
                part_of(order.len(), self.keys.len(), "row"),
                grouped(other.keys.len())
            ));
        }
        let matched = other.select(&order);
        let unclear = self.outcomes.unclear_truths().max(matched.outcomes.unclear_truths());
        if unclear > 0 {
            return Err(format!(
                "the true labels of {} cannot be told apart: a label holds `, `, which joins labels",
                counted(unclear, "row")
            ));
        }
        match self.outcomes.other_truths(&matched.outcomes) {
            0 => Ok(matched),
            n => Err(format!("the truth of {} is another one", counted(n, "row"))),
        }
    }

    /// The group of each row, numbered from 0: of questions those of one context, else each row by itself. Rows of a group
    /// are not independent of one another.
    pub(crate) fn groups(&self) -> Vec<u32> {
        if !matches!(self.outcomes, Outcomes::Answers { .. }) {
            return (0..self.keys.len() as u32).collect();
        }
        let mut known: HashMap<&Option<String>, u32> = HashMap::new();
        let contexts = self.second_texts.iter();
        contexts
            .map(|context| {
                let next = known.len() as u32;
                *known.entry(context).or_insert(next)
            })
            .collect()
    }
}

/// The labels of two runs: those of the first by their ids, then those that only the second has.
pub(crate) fn labels_of_both(first: &[String], second: &[String]) -> Vec<String> {
    let known: HashSet<&String> = first.iter().collect();
    let new = second.iter().filter(|label| !known.contains(label));
    first.iter().chain(new).cloned().collect()
}

fn plain(texts: Vec<Option<String>>) -> Vec<String> {
    texts.into_iter().map(Option::unwrap_or_default).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of these texts with these numbers, true and predicted.
    fn rows(rows: &[(&str, f64, f64)]) -> SavedPredictions {
        let texts: Vec<String> = rows.iter().map(|(text, ..)| text.to_string()).collect();
        SavedPredictions {
            keys: texts.iter().map(|text| Key::of(Mode::Text, &[text])).collect(),
            ids: vec![None; rows.len()],
            second_texts: vec![None; rows.len()],
            texts,
            outcomes: Outcomes::Values {
                gold: rows.iter().map(|(_, gold, _)| *gold).collect(),
                predicted: rows.iter().map(|(.., predicted)| *predicted).collect(),
            },
        }
    }

    #[test]
    fn rows_are_matched_by_their_keys_and_equal_ones_in_their_order() {
        let first = rows(&[("a", 1.0, 0.0), ("b", 2.0, 0.0), ("a", 3.0, 0.0)]);
        let second = rows(&[("a", 1.0, 7.0), ("a", 3.0, 8.0), ("b", 2.0, 9.0)]);
        let matched = first.matched(&second).unwrap();
        assert_eq!(matched.texts, ["a", "b", "a"]);
        let Outcomes::Values { predicted, .. } = &matched.outcomes else { panic!("of numbers") };
        assert_eq!(predicted, &[7.0, 9.0, 8.0]);
    }

    #[test]
    fn other_rows_and_another_truth_are_told() {
        let first = rows(&[("a", 1.0, 0.0), ("b", 2.0, 0.0)]);
        let why = |other: &[(&str, f64, f64)]| first.matched(&rows(other)).map(drop).unwrap_err();
        let other_rows =
            |which: &str| format!("other rows: {which} of the other run; {FIXED_ROWS}");
        assert_eq!(why(&[("b", 2.0, 0.0)]), other_rows("1 of 2 rows are among the 1"));
        let others = [("a", 1.0, 0.0), ("b", 2.0, 0.0), ("c", 2.0, 0.0)];
        assert_eq!(why(&others), other_rows("2 of 2 rows are among the 3"));
        let changed = [("a", 1.5, 0.0), ("b", 2.0, 0.0)];
        assert_eq!(why(&changed), "the truth of 1 row is another one");
    }

    #[test]
    fn a_truth_that_cannot_be_told_is_not_compared() {
        let of = |unclear: bool| SavedPredictions {
            outcomes: Outcomes::LabelSets {
                gold: ndarray::array![[true, false]],
                predicted: ndarray::array![[true, true]],
                probabilities: None,
                unclear: vec![unclear],
            },
            ..rows(&[("a", 1.0, 0.0)])
        };
        assert!(of(false).matched(&of(false)).is_ok());
        let why = of(false).matched(&of(true)).map(drop).unwrap_err();
        assert!(why.starts_with("the true labels of 1 row cannot be told apart"), "{why}");
    }

    #[test]
    fn questions_of_one_context_are_one_group() {
        let mut questions = rows(&[("a", 1.0, 0.0), ("b", 2.0, 0.0), ("c", 3.0, 0.0)]);
        assert_eq!(questions.groups(), [0, 1, 2]);
        questions.second_texts = ["x", "y", "x"].map(|context| Some(context.to_string())).to_vec();
        assert_eq!(questions.groups(), [0, 1, 2], "pairs are independent");
        questions.outcomes = Outcomes::Answers {
            gold: vec![vec![]; 3],
            predicted: vec![None, None, Some("d".into())],
        };
        assert_eq!(questions.groups(), [0, 1, 0]);
    }

    #[test]
    fn the_labels_of_both_keep_the_ids_of_the_first() {
        let names =
            |names: &[&str]| -> Vec<String> { names.iter().map(|n| n.to_string()).collect() };
        let both = labels_of_both(&names(&["b", "a"]), &names(&["a", "c", "b"]));
        assert_eq!(both, ["b", "a", "c"]);
    }
}

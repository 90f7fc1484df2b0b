//! The contents of the splits: rows of each class, the range of values, questions and their contexts.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::data::{example::Example, labels::LabelMap, split::Part};

/// The number of rows of each class in each split, in id order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassDistribution {
    /// One entry for each label of the map, including those without rows.
    pub classes: Vec<ClassCount>,
}

/// The number of rows of one class.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassCount {
    /// The name of the label.
    pub label: String,
    /// Number of its rows in [`Part::Train`].
    pub train: usize,
    /// Number of its rows in [`Part::Validation`].
    pub validation: usize,
    /// Number of its rows in [`Part::Test`].
    pub test: usize,
}

impl ClassCount {
    /// Returns the number of rows of the class in all splits.
    pub fn total(&self) -> usize {
        self.train + self.validation + self.test
    }
}

/// Counts `rows`, each given as the id of a label and a split; a row with several labels occurs once for each.
///
/// Ids that are not in `labels` are ignored.
///
/// ```
/// use frostbert::internals::data::{LabelMap, Part, class_distribution};
///
/// let labels = LabelMap::from_train(["ham", "spam"]);
/// let distribution = class_distribution(&labels, [(0, Part::Train), (0, Part::Test), (1, Part::Train)]);
/// assert_eq!((distribution.classes[0].train, distribution.classes[0].test), (1, 1));
/// assert_eq!(distribution.classes[1].total(), 1);
/// ```
pub fn class_distribution(
    labels: &LabelMap,
    rows: impl IntoIterator<Item = (usize, Part)>,
) -> ClassDistribution {
    let mut classes: Vec<ClassCount> = labels
        .names()
        .iter()
        .map(|label| ClassCount { label: label.clone(), ..ClassCount::default() })
        .collect();
    for (id, part) in rows {
        let Some(class) = classes.get_mut(id) else {
            continue;
        };
        match part {
            Part::Train => class.train += 1,
            Part::Validation => class.validation += 1,
            Part::Test => class.test += 1,
        }
    }
    ClassDistribution { classes }
}

/// How balanced the classes are in train.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassBalance {
    /// Number of classes.
    pub classes: usize,
    /// The classes without a row (for tags, a word) in train.
    pub absent: Vec<String>,
    /// The class with the fewest rows, apart from these.
    pub rarest: String,
    /// Number of its rows.
    pub rarest_rows: usize,
    /// The class with the most rows.
    pub most_frequent: String,
    /// Number of its rows.
    pub most_frequent_rows: usize,
}

impl ClassDistribution {
    /// Returns how balanced the classes are in train; `None` if no class has a row there.
    ///
    /// ```
    /// use frostbert::internals::data::{LabelMap, Part, class_distribution};
    ///
    /// let labels = LabelMap::from_train(["a", "b", "c"]);
    /// let rows = [(0, Part::Train), (1, Part::Train), (1, Part::Train), (2, Part::Test)];
    /// let balance = class_distribution(&labels, rows).balance().expect("rows in train");
    /// assert_eq!((balance.rarest.as_str(), balance.most_frequent_rows), ("a", 2));
    /// assert_eq!(balance.absent, ["c"]);
    /// ```
    pub fn balance(&self) -> Option<ClassBalance> {
        let present = || self.classes.iter().filter(|class| class.train > 0);
        let rarest = present().min_by_key(|class| class.train)?;
        // The first one on a tie, as for the rarest class.
        let most_frequent = present().rev().max_by_key(|class| class.train)?;
        let absent = self.classes.iter().filter(|class| class.train == 0);
        Some(ClassBalance {
            classes: self.classes.len(),
            absent: absent.map(|class| class.label.clone()).collect(),
            rarest: rarest.label.clone(),
            rarest_rows: rarest.train,
            most_frequent: most_frequent.label.clone(),
            most_frequent_rows: most_frequent.train,
        })
    }
}

/// The values in one split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ValueSummary {
    /// The split.
    pub part: Part,
    /// Number of its rows.
    pub rows: usize,
    /// The smallest value.
    pub min: f64,
    /// The mean value.
    pub mean: f64,
    /// The largest value.
    pub max: f64,
}

/// The questions in one split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuestionSummary {
    /// The split.
    pub part: Part,
    /// Number of its questions.
    pub questions: usize,
    /// Number of questions that their context does not answer.
    pub impossible: usize,
    /// Number of distinct contexts.
    pub contexts: usize,
}

/// Summarises the values of each split that has rows; empty if rows have no values.
pub(super) fn value_summaries(rows: &[Example]) -> Vec<ValueSummary> {
    let summary = |part| {
        let values = || values_of(rows, part);
        let n_rows = values().count();
        (n_rows > 0).then(|| ValueSummary {
            part,
            rows: n_rows,
            min: values().fold(f64::INFINITY, f64::min),
            mean: values().sum::<f64>() / n_rows as f64,
            max: values().fold(f64::NEG_INFINITY, f64::max),
        })
    };
    Part::ALL.into_iter().filter_map(summary).collect()
}

fn values_of(rows: &[Example], part: Part) -> impl Iterator<Item = f64> {
    let of_part = rows.iter().filter(move |row| row.part == part);
    of_part.filter_map(|row| row.target.value())
}

/// Summarises the questions of each split that has rows; all rows must be questions.
pub(super) fn question_summaries(rows: &[Example]) -> Vec<QuestionSummary> {
    let summary = |part| {
        let questions = || rows.iter().filter(move |row| row.part == part);
        let n_questions = questions().count();
        (n_questions > 0).then(|| QuestionSummary {
            part,
            questions: n_questions,
            impossible: questions().filter(|row| row.target.answers().is_empty()).count(),
            contexts: questions().map(|row| &row.text_pair).collect::<HashSet<_>>().len(),
        })
    };
    Part::ALL.into_iter().filter_map(summary).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_counted_by_part_in_id_order_even_without_rows() {
        let labels = LabelMap::from_train(["b", "a", "c"]);
        let rows = [(1, Part::Train), (0, Part::Validation), (1, Part::Test), (1, Part::Train)];
        assert_eq!(
            serde_json::to_string(&class_distribution(&labels, rows)).unwrap(),
            r#"{"classes":[{"label":"a","train":0,"validation":1,"test":0},"#.to_owned()
                + r#"{"label":"b","train":2,"validation":0,"test":1},"#
                + r#"{"label":"c","train":0,"validation":0,"test":0}]}"#
        );
    }
}

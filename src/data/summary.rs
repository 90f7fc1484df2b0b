//! How the classes are spread over the parts.

use serde::{Deserialize, Serialize};

use super::{labels::LabelMap, split::Part};

/// The rows of each class in each part, in id order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassDistribution {
    /// One entry for each label of the map, also for one without rows.
    pub classes: Vec<ClassCount>,
}

/// The rows of one class.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassCount {
    /// The label's name.
    pub label: String,
    /// Its rows in [`Part::Train`].
    pub train: usize,
    /// Its rows in [`Part::Validation`].
    pub validation: usize,
    /// Its rows in [`Part::Test`].
    pub test: usize,
}

impl ClassCount {
    /// The rows of the class in all parts.
    pub fn total(&self) -> usize {
        self.train + self.validation + self.test
    }
}

/// Counts `rows`, each the id of a label and a part; a row with several labels comes once for each.
///
/// Ids that `labels` does not have are not counted.
///
/// ```
/// use frostbert::data::{LabelMap, Part, class_distribution};
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
        .map(|label| ClassCount {
            label: label.clone(),
            ..ClassCount::default()
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_counted_by_part_in_id_order_even_without_rows() {
        let labels = LabelMap::from_train(["b", "a", "c"]);
        let rows = [
            (1, Part::Train),
            (0, Part::Validation),
            (1, Part::Test),
            (1, Part::Train),
        ];
        assert_eq!(
            serde_json::to_string(&class_distribution(&labels, rows)).unwrap(),
            r#"{"classes":[{"label":"a","train":0,"validation":1,"test":0},"#.to_owned()
                + r#"{"label":"b","train":2,"validation":0,"test":1},"#
                + r#"{"label":"c","train":0,"validation":0,"test":0}]}"#
        );
    }
}

//! The names of labels as they stand in a table of predictions.

use std::collections::HashMap;

use ndarray::Array2;

use crate::{error::Result, report::saved_table::SavedTable};

/// The labels in a table.
pub(super) struct LabelNames<'a> {
    table: &'a SavedTable,
    ids: HashMap<&'a str, usize>,
    /// The bytes of the longest.
    longest: usize,
    n_labels: usize,
}

impl<'a> LabelNames<'a> {
    /// The names of a table, by id.
    pub(super) fn of(table: &'a SavedTable, labels: &'a [String]) -> LabelNames<'a> {
        LabelNames {
            table,
            ids: ids_of(labels),
            longest: longest_of(labels),
            n_labels: labels.len(),
        }
    }

    pub(super) fn id(&self, label: &str) -> Result<usize> {
        self.ids.get(label).copied().ok_or_else(|| self.unknown(label))
    }

    fn unknown(&self, label: &str) -> crate::error::Error {
        self.table.damaged(&format!("the label `{label}`, which the run does not know"))
    }

    pub(super) fn classes(&self, column: &str) -> Result<Vec<u32>> {
        let names = self.table.texts(column)?.into_iter();
        names.map(|name| Ok(self.id(&name.unwrap_or_default())? as u32)).collect()
    }

    pub(super) fn tags<T>(
        &self,
        column: &str,
        of: impl Fn(&str) -> Result<T>,
    ) -> Result<Vec<Vec<T>>> {
        let rows = self.table.lists(column)?;
        rows.iter().map(|tags| tags.iter().map(|tag| of(tag)).collect()).collect()
    }

    pub(super) fn sets(&self, rows: &[Vec<String>]) -> Result<Array2<bool>> {
        let mut sets = Array2::from_elem((rows.len(), self.n_labels), false);
        for (row, labels) in rows.iter().enumerate() {
            for label in labels {
                sets[[row, self.id(label)?]] = true;
            }
        }
        Ok(sets)
    }

    /// Sets whose labels stand in one text, and whether they could be others.
    pub(super) fn joined_sets(&self, column: &str) -> Result<(Array2<bool>, Vec<bool>)> {
        let (mut sets, mut unclear): (Vec<Vec<String>>, Vec<bool>) = (Vec::new(), Vec::new());
        for text in self.table.texts(column)? {
            let text = text.unwrap_or_default();
            let told = if text.is_empty() {
                Some((Vec::new(), false))
            } else {
                split(&text, &self.ids, self.longest)
            };
            let (labels, is_unclear) = told.ok_or_else(|| self.unknown(&text))?;
            sets.push(labels.into_iter().map(String::from).collect());
            unclear.push(is_unclear);
        }
        Ok((self.sets(&sets)?, unclear))
    }

    /// The probabilities of all labels; none where the table lacks one.
    pub(super) fn probabilities(&self, labels: &[String]) -> Result<Option<Array2<f32>>> {
        let columns: Vec<String> = labels.iter().map(|label| format!("p_{label}")).collect();
        if !columns.iter().all(|column| self.table.has(column)) {
            return Ok(None);
        }
        let columns = columns.iter().map(|column| self.table.floats(column));
        let columns = columns.collect::<Result<Vec<Vec<f32>>>>()?;
        let n_rows = columns.first().map_or(0, Vec::len);
        let shape = (n_rows, columns.len());
        Ok(Some(Array2::from_shape_fn(shape, |(row, label)| columns[label][row])))
    }
}

/// The bytes of the longest label.
fn longest_of(labels: &[String]) -> usize {
    labels.iter().map(String::len).max().unwrap_or(0)
}

fn ids_of(labels: &[String]) -> HashMap<&str, usize> {
    labels.iter().enumerate().map(|(id, label)| (label.as_str(), id)).collect()
}

/// The labels that a text joins with `, `, which may stand in a label too, and whether they could be others. `longest` are
/// the bytes of the longest label: no longer part of the text is looked up.
fn split<'t>(
    text: &'t str,
    ids: &HashMap<&str, usize>,
    longest: usize,
) -> Option<(Vec<&'t str>, bool)> {
    let mut ends: Vec<usize> = text.match_indices(SEPARATOR).map(|(end, _)| end).collect();
    ends.push(text.len());
    let starts: Vec<usize> =
        [0].into_iter().chain(ends.iter().map(|end| end + SEPARATOR.len())).collect();
    // From each start on: in how many ways labels follow, 2 for any more than one, and with which end the first does.
    let mut ways = vec![(0u8, 0usize); ends.len()];
    ways.push((1, 0));
    for start in (0..ends.len()).rev() {
        let from = starts[start];
        for (end, to) in ends.iter().copied().enumerate().skip(start) {
            if to - from > longest {
                break;
            }
            let (following, _) = ways[end + 1];
            if following > 0 && ids.contains_key(&text[from..to]) {
                let (own, first) = ways[start];
                ways[start] = ((own + following).min(2), if own == 0 { end } else { first });
            }
        }
    }
    let (found, _) = ways[0];
    let mut labels = Vec::new();
    let mut start = 0;
    while found > 0 && start < ends.len() {
        let (_, end) = ways[start];
        labels.push(&text[starts[start]..ends[end]]);
        start = end + 1;
    }
    (found > 0).then_some((labels, found > 1))
}

/// What stands between the labels of a row in a table.
const SEPARATOR: &str = ", ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_hold_the_separator_are_told_apart() {
        let labels = ["a", "b", "a, b and c", "d"].map(String::from);
        let ids = ids_of(&labels);
        let told = |text: &str| {
            let (labels, is_unclear) = split(text, &ids, longest_of(&labels))?;
            assert!(!is_unclear, "{text}");
            Some(labels.join("|"))
        };
        assert_eq!(told("a"), Some("a".into()));
        assert_eq!(told("a, b, d"), Some("a|b|d".into()));
        assert_eq!(told("a, b and c, d"), Some("a, b and c|d".into()));
        for wrong in ["c", "a, ", "a, c", ", a", "a,b"] {
            assert_eq!(told(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn labels_that_could_be_others_are_told_in_little_time() {
        let labels = ["a", "b", "a, b", "a, a"].map(String::from);
        let ids = ids_of(&labels);
        let is_unclear =
            |text: &str| split(text, &ids, longest_of(&labels)).map(|(_, unclear)| unclear);
        assert_eq!(is_unclear("b, a"), Some(false));
        assert_eq!(is_unclear("a, b"), Some(true));
        // In more ways than could be tried one after the other, and in none.
        assert_eq!(is_unclear(&["a"; 200].join(", ")), Some(true));
        assert_eq!(is_unclear(&(["a"; 200].join(", ") + ", c")), None);
    }
}

//! Which classes are confused with which: a matrix for few classes, a list of non-zero cells for many.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::MANY_CLASSES;

/// A non-zero cell of a confusion matrix.
///
/// ```
/// use frostbert::internals::metrics::confusion::{ConfusionCell, confusion_cells};
///
/// let cells = confusion_cells([(0, 0), (7, 3), (7, 3)]);
/// assert_eq!(cells[1], ConfusionCell { truth: 7, predicted: 3, rows: 2 });
/// assert_eq!(serde_json::to_string(&cells[1]).unwrap(), r#"{"true":7,"predicted":3,"rows":2}"#);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfusionCell {
    /// The true class; `true` in JSON.
    #[serde(rename = "true")]
    pub truth: usize,
    /// The predicted class.
    pub predicted: usize,
    /// Number of rows, or of words for a tagger.
    pub rows: u64,
}

/// Counts pairs of a true and a predicted class; the cells are sorted by true and then by predicted class.
pub fn confusion_cells(pairs: impl IntoIterator<Item = (usize, usize)>) -> Vec<ConfusionCell> {
    let mut cells = BTreeMap::new();
    for pair in pairs {
        *cells.entry(pair).or_insert(0) += 1;
    }
    let cells = cells.into_iter();
    cells.map(|((truth, predicted), rows)| ConfusionCell { truth, predicted, rows }).collect()
}

/// The confusion of two lists of classes as metrics store it: a matrix and no cells, or above [`MANY_CLASSES`] cells
/// and no matrix.
pub(super) fn confusion_of(
    pairs: impl Iterator<Item = (usize, usize)>,
    n_classes: usize,
) -> (Vec<Vec<u64>>, Vec<ConfusionCell>) {
    if n_classes > MANY_CLASSES {
        return (Vec::new(), confusion_cells(pairs));
    }
    let mut matrix = vec![vec![0; n_classes]; n_classes];
    for (truth, predicted) in pairs {
        matrix[truth][predicted] += 1;
    }
    (matrix, Vec::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(n: usize, n_classes: usize) -> Vec<(usize, usize)> {
        let class = |number: usize| number * number % n_classes;
        (0..n).map(|row| (class(row), class(7 * row + 3))).collect()
    }

    #[test]
    fn cells_hold_what_the_matrix_holds() {
        let pairs = pairs(500, 23);
        let (matrix, none) = confusion_of(pairs.iter().copied(), 23);
        assert_eq!(none, []);
        let mut filled = vec![vec![0; 23]; 23];
        for cell in confusion_cells(pairs) {
            assert!(cell.rows > 0, "{cell:?}");
            filled[cell.truth][cell.predicted] = cell.rows;
        }
        assert_eq!(filled, matrix);
    }

    #[test]
    fn there_is_a_matrix_up_to_a_thousand_classes_and_cells_above() {
        let pairs = pairs(50, 20);
        let of = |n_classes| confusion_of(pairs.iter().copied(), n_classes);
        let (matrix, cells) = of(1000);
        assert_eq!((matrix.len(), cells.len()), (1000, 0));
        let (matrix, cells) = of(1001);
        assert_eq!((matrix.len(), cells), (0, confusion_cells(pairs.clone())));
    }
}

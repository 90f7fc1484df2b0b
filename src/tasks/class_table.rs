//! The table of predictions of classes, filled a few rows at a time.

use ndarray::{ArrayView1, ArrayView2};
use rayon::prelude::*;

use crate::{
    data::dataset::Dataset,
    metrics::{MANY_CLASSES, probability::predictions},
    report::tables::Table,
    tasks::text_columns,
};

/// Of many classes the table keeps so many of each row.
pub(super) const KEPT_CLASSES: usize = 20;

/// What is predicted for every row of a dataset.
pub(super) struct ClassTable<'d> {
    dataset: &'d Dataset,
    predicted: Vec<u32>,
    confidence: Vec<f32>,
    probabilities: ClassProbabilities,
}

enum ClassProbabilities {
    /// A column for each class.
    All(Vec<Vec<f32>>),
    /// The most probable classes of each row, with their probabilities.
    Most(Vec<Vec<(u32, f32)>>),
}

impl<'d> ClassTable<'d> {
    pub(super) fn new(dataset: &'d Dataset) -> ClassTable<'d> {
        let (n_rows, n_classes) = (dataset.rows.len(), dataset.labels.len());
        ClassTable {
            dataset,
            predicted: vec![0; n_rows],
            confidence: vec![0.0; n_rows],
            probabilities: if n_classes > MANY_CLASSES {
                ClassProbabilities::Most(vec![Vec::new(); n_rows])
            } else {
                ClassProbabilities::All(vec![vec![0.0; n_rows]; n_classes])
            },
        }
    }

    /// Takes the probabilities of some rows of the dataset.
    pub(super) fn add(&mut self, rows: &[u32], probabilities: ArrayView2<'_, f32>) {
        let predicted = predictions(probabilities);
        for ((row, class), own) in rows.iter().zip(predicted).zip(probabilities.rows()) {
            self.predicted[*row as usize] = class as u32;
            self.confidence[*row as usize] = own[class];
        }
        match &mut self.probabilities {
            ClassProbabilities::All(columns) => {
                for (column, own) in columns.iter_mut().zip(probabilities.columns()) {
                    for (row, probability) in rows.iter().zip(own) {
                        column[*row as usize] = *probability;
                    }
                }
            }
            ClassProbabilities::Most(most) => {
                let kept: Vec<Vec<(u32, f32)>> = (0..rows.len())
                    .into_par_iter()
                    .map(|row| most_probable(probabilities.row(row)))
                    .collect();
                for (row, kept) in rows.iter().zip(kept) {
                    most[*row as usize] = kept;
                }
            }
        }
    }

    pub(super) fn finish(self) -> Table {
        let labels = &self.dataset.labels;
        let label = |id: usize| labels.name(id).unwrap_or_default();
        let mut table = text_columns(self.dataset);
        let classes = self.dataset.rows.iter().map(|row| row.target.class());
        table.texts("label", classes.map(|class| class.map_or("", label)));
        let predicted = self.predicted.iter();
        table.texts("predicted", predicted.map(|class| label(*class as usize)));
        table.floats("confidence", self.confidence.into_iter());
        match self.probabilities {
            ClassProbabilities::All(columns) => {
                for (name, column) in labels.names().iter().zip(columns) {
                    table.floats(&format!("p_{name}"), column.into_iter());
                }
            }
            ClassProbabilities::Most(most) => {
                let names = |row: &Vec<(u32, f32)>| {
                    let classes = row.iter().map(|(class, _)| label(*class as usize));
                    classes.collect()
                };
                table.lists("top_labels", most.iter().map(names));
                let probabilities = most.iter().map(|row| row.iter().map(|(_, p)| *p));
                table.float_lists("top_probabilities", probabilities);
            }
        }
        table
    }
}

/// The most probable classes of a row, from the most probable one on; of equal ones the lower class first. Classes whose
/// probability is no number are none of them.
fn most_probable(row: ArrayView1<'_, f32>) -> Vec<(u32, f32)> {
    let mut kept: Vec<(u32, f32)> = Vec::with_capacity(KEPT_CLASSES + 1);
    for (class, &p) in row.iter().enumerate() {
        let is_full = kept.len() == KEPT_CLASSES;
        if p.is_nan() || (is_full && kept.last().is_some_and(|(_, least)| p <= *least)) {
            continue;
        }
        let place = kept.partition_point(|(_, other)| *other >= p);
        kept.insert(place, (class as u32, p));
        kept.truncate(KEPT_CLASSES);
    }
    kept
}

#[cfg(test)]
mod tests {
    use ndarray::Array1;

    use super::*;

    #[test]
    fn the_twenty_most_probable_classes_come_in_order_and_equal_ones_by_their_number() {
        let row = Array1::from_shape_fn(3000, |class| (class * 7919 % 100) as f32 / 1e5);
        let kept = most_probable(row.view());
        let mut all: Vec<(u32, f32)> = (0..).zip(row.iter().copied()).collect();
        all.sort_by(|one, other| other.1.total_cmp(&one.1).then(one.0.cmp(&other.0)));
        assert_eq!(kept, all[..20]);
    }

    #[test]
    fn what_is_no_number_is_no_probable_class() {
        let row = ndarray::array![f32::NAN, 0.25, f32::NAN, 0.75];
        assert_eq!(most_probable(row.view()), [(3, 0.75), (1, 0.25)]);
    }
}

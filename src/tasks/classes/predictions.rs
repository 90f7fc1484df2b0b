//! Predicted classes, added a few rows at a time: the table and `predict` both start from them.

use ndarray::{Array2, ArrayView1, ArrayView2};
use rayon::prelude::*;

use crate::{
    data::{Record, dataset::Dataset},
    metrics::{
        MANY_CLASSES,
        probability::predictions,
        probability_curves::{ProbabilityCurves, precision_recall, reliability, roc},
    },
    report::tables::Table,
    tasks::{documents::text_columns, prediction::Prediction},
};

/// Number of classes per row that are kept for the table if there are many.
const KEPT_CLASSES: usize = 20;

/// The most probable class of every row, with probabilities.
pub(super) struct ClassPredictions {
    predicted: Vec<u32>,
    confidence: Vec<f32>,
    probabilities: ClassProbabilities,
}

enum ClassProbabilities {
    /// `[rows, classes]`.
    All(Array2<f32>),
    /// The most probable classes of each row, with their probabilities.
    Most(Vec<Vec<(u32, f32)>>),
}

impl ClassPredictions {
    /// Keeps the probabilities of all classes or, if there are many, of the most probable ones.
    pub(super) fn new(n_rows: usize, n_classes: usize) -> ClassPredictions {
        let all = ClassPredictions::of_all_classes;
        if n_classes <= MANY_CLASSES {
            return all(n_rows, n_classes);
        }
        let most = ClassProbabilities::Most(vec![Vec::new(); n_rows]);
        ClassPredictions { probabilities: most, ..all(n_rows, 0) }
    }

    /// Keeps the probabilities of all classes, however many there are.
    pub(super) fn of_all_classes(n_rows: usize, n_classes: usize) -> ClassPredictions {
        ClassPredictions {
            predicted: vec![0; n_rows],
            confidence: vec![0.0; n_rows],
            probabilities: ClassProbabilities::All(Array2::zeros((n_rows, n_classes))),
        }
    }

    /// Adds the probabilities of some rows, `[rows, classes]`.
    pub(super) fn add(&mut self, rows: &[u32], probabilities: ArrayView2<'_, f32>) {
        let predicted = predictions(probabilities);
        for ((row, class), own) in rows.iter().zip(predicted).zip(probabilities.rows()) {
            self.predicted[*row as usize] = class as u32;
            self.confidence[*row as usize] = own[class];
        }
        match &mut self.probabilities {
            ClassProbabilities::All(all) => {
                for (row, own) in rows.iter().zip(probabilities.rows()) {
                    all.row_mut(*row as usize).assign(&own);
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

    /// What is drawn of some rows, whose true classes are these.
    pub(super) fn curves(&self, rows: &[u32], labels: &[usize]) -> ProbabilityCurves {
        let confident = rows.iter().zip(labels).map(|(row, label)| {
            let row = *row as usize;
            (self.confidence[row], self.predicted[row] as usize == *label)
        });
        ProbabilityCurves {
            reliability: reliability(confident),
            precision_recall: match &self.probabilities {
                ClassProbabilities::All(all) => {
                    precision_recall((rows.len(), all.ncols()), |row, class| {
                        (all[[rows[row] as usize, class]], labels[row] == class)
                    })
                }
                ClassProbabilities::Most(_) => Vec::new(),
            },
            roc: match &self.probabilities {
                ClassProbabilities::All(all) if all.ncols() == 2 => {
                    let own = rows.iter().zip(labels);
                    roc(own.map(|(row, label)| (all[[*row as usize, 1]], *label == 1)).collect())
                }
                _ => None,
            },
        }
    }

    /// The table of predictions of a dataset, of each of whose rows there are predictions.
    pub(super) fn table(self, dataset: &Dataset) -> Table {
        let labels = &dataset.labels;
        let label = |id: usize| labels.name(id).unwrap_or_default();
        let mut table = text_columns(dataset);
        let classes = dataset.rows.iter().map(|row| row.target.class());
        table.texts("label", classes.map(|class| class.map_or("", label)));
        let predicted = self.predicted.iter();
        table.texts("predicted", predicted.map(|class| label(*class as usize)));
        table.floats("confidence", self.confidence.into_iter());
        match self.probabilities {
            ClassProbabilities::All(all) => {
                for (name, column) in labels.names().iter().zip(all.columns()) {
                    table.floats(&format!("p_{name}"), column.iter().copied());
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

    /// Returns the prediction for each record, with the probabilities that were kept.
    pub(super) fn of_records(self, records: &[Record], labels: &[String]) -> Vec<Prediction> {
        let probabilities = |row: usize| match &self.probabilities {
            ClassProbabilities::All(all) => {
                labels.iter().cloned().zip(all.row(row).iter().copied()).collect()
            }
            ClassProbabilities::Most(most) => {
                most[row].iter().map(|(class, p)| (labels[*class as usize].clone(), *p)).collect()
            }
        };
        let rows = records.iter().enumerate().map(|(row, record)| Prediction::Class {
            text: record.text.clone(),
            text_pair: record.text_pair.clone(),
            label: labels[self.predicted[row] as usize].clone(),
            confidence: self.confidence[row],
            probabilities: probabilities(row),
        });
        rows.collect()
    }
}

/// Returns the most probable classes of a row in descending order of probability; of equal ones the lower class comes
/// first. Classes with a NaN probability are skipped.
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

//! Classification on a page.

use super::{JudgedRow, Mistake, OutcomeView, ShownTask, WeighedRow, text_of};
use crate::{
    metrics::metric::Metric,
    page::{numbers::percent, run_files::RunFiles, texts::TextGate},
};

/// One class of several for each row.
pub(super) struct ShownClasses;

impl ShownTask for ShownClasses {
    /// The micro F1 of single labels is their accuracy.
    fn metrics(&self) -> Vec<Metric> {
        let all = Metric::OF_CLASSES.into_iter();
        all.filter(|metric| *metric != Metric::MicroF1).collect()
    }

    fn labels_of_rows<'r>(&self, run: &'r RunFiles) -> Vec<Vec<&'r str>> {
        let column = run.rows.texts("label").unwrap_or_default();
        column.into_iter().map(|label| vec![label.unwrap_or_default()]).collect()
    }

    fn mistakes(&self, run: &RunFiles, rows: &[usize]) -> Option<Vec<WeighedRow>> {
        let truth = run.rows.texts("label").unwrap_or_default();
        let predicted = run.rows.texts("predicted").unwrap_or_default();
        let confidence = run.rows.numbers("confidence").unwrap_or_default();
        let wrong = rows.iter().copied().filter(|row| truth[*row] != predicted[*row]);
        Some(wrong.map(|row| WeighedRow { row, weight: confidence[row] }).collect())
    }

    fn show_mistake(&self, run: &RunFiles, row: usize, gate: &TextGate) -> Mistake {
        let rows = &run.rows;
        let name = |column: &str| rows.text_at(column, row).unwrap_or_default().to_string();
        let (truth, predicted) = (name("label"), name("predicted"));
        let confidence = rows.number_at("confidence", row).unwrap_or(f64::NAN);
        let own = rows.number_at(&format!("p_{truth}"), row);
        Mistake {
            text: text_of(run, row, gate),
            classes: vec![truth.clone(), predicted.clone()],
            truth: Some(OutcomeView { name: truth, probability: own.map(percent) }),
            predicted: Some(OutcomeView {
                name: predicted,
                probability: Some(percent(confidence)),
            }),
            ..Mistake::default()
        }
    }

    fn judge(&self, run: &RunFiles, rows: &[usize]) -> Option<Vec<JudgedRow>> {
        let (truth, predicted) = (run.rows.texts("label")?, run.rows.texts("predicted")?);
        let judge = |row: &usize| {
            let [label, predicted] =
                [&truth, &predicted].map(|column| column[*row].unwrap_or("none"));
            JudgedRow {
                label: label.into(),
                predicted: predicted.into(),
                is_wrong: label != predicted,
            }
        };
        Some(rows.iter().map(judge).collect())
    }
}

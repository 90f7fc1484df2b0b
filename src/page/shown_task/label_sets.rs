//! Multi-label classification on a page.

use super::{JudgedRow, Mistake, OutcomeView, ShownTask, WeighedRow, text_of};
use crate::{
    metrics::metric::Metric,
    page::{numbers::percent, run_files::RunFiles, texts::TextGate},
};

/// Labels whose probabilities are shown of a set.
const MOST_LABELS: usize = 4;

/// Any number of labels for each row.
pub(super) struct ShownLabelSets;

impl ShownTask for ShownLabelSets {
    fn metrics(&self) -> Vec<Metric> {
        Metric::OF_LABEL_SETS.to_vec()
    }

    fn labels_of_rows<'r>(&self, run: &'r RunFiles) -> Vec<Vec<&'r str>> {
        let column = run.rows.texts("labels").unwrap_or_default();
        column.into_iter().map(|joined| apart(joined.unwrap_or_default(), run.labels())).collect()
    }

    /// Weighed by the decision of a label that is wrong by most.
    fn mistakes(&self, run: &RunFiles, rows: &[usize]) -> Option<Vec<WeighedRow>> {
        let labels = run.labels();
        let joined = run.rows.texts("labels").unwrap_or_default();
        let predicted = run.rows.text_lists("predicted").unwrap_or_default();
        let truth: Vec<Vec<&str>> =
            rows.iter().map(|row| apart(joined[*row].unwrap_or_default(), labels)).collect();
        let mut weights = vec![f64::NEG_INFINITY; joined.len()];
        for label in labels {
            let probability = run.rows.numbers(&format!("p_{label}")).unwrap_or_default();
            for (row, truth) in rows.iter().zip(&truth) {
                let is_true = truth.contains(&label.as_str());
                let is_predicted = predicted[*row].contains(&label.as_str());
                if is_true != is_predicted {
                    let p = probability.get(*row).copied().unwrap_or(0.5);
                    let wrong_by = if is_true { 1.0 - p } else { p };
                    weights[*row] = weights[*row].max(wrong_by);
                }
            }
        }
        let wrong = rows.iter().copied().filter(|row| weights[*row].is_finite());
        Some(wrong.map(|row| WeighedRow { row, weight: weights[row] }).collect())
    }

    fn show_mistake(&self, run: &RunFiles, row: usize, gate: &TextGate) -> Mistake {
        let labels = run.labels();
        let rows = &run.rows;
        let joined = rows.text_at("labels", row).unwrap_or_default();
        let truth = apart(joined, labels);
        let predicted = rows.list_at("predicted", row);
        let wrong = labels
            .iter()
            .filter(|label| truth.contains(&label.as_str()) != predicted.contains(&label.as_str()));
        let probabilities = wrong.clone().take(MOST_LABELS).map(|label| {
            let p = rows.number_at(&format!("p_{label}"), row).unwrap_or(f64::NAN);
            format!("{label} {}", percent(p))
        });
        let note = probabilities.collect::<Vec<_>>().join(", ");
        let or_none = |names: &str| if names.is_empty() { "none" } else { names }.to_string();
        Mistake {
            text: text_of(run, row, gate),
            classes: wrong.cloned().collect(),
            truth: Some(OutcomeView::plain(or_none(joined))),
            predicted: Some(OutcomeView::plain(or_none(&predicted.join(", ")))),
            note,
            ..Mistake::default()
        }
    }

    fn judge(&self, run: &RunFiles, rows: &[usize]) -> Option<Vec<JudgedRow>> {
        let (truth, predicted) = (run.rows.texts("labels")?, run.rows.text_lists("predicted")?);
        let judge = |row: &usize| {
            let (label, predicted) = (truth[*row].unwrap_or_default(), predicted[*row].join(", "));
            JudgedRow { label: label.into(), is_wrong: label != predicted, predicted }
        };
        Some(rows.iter().map(judge).collect())
    }
}

/// The labels that were joined by commas: names may hold some, so the longest that fits is taken each time.
pub(in crate::page) fn apart<'l>(joined: &str, labels: &'l [String]) -> Vec<&'l str> {
    const COMMA: &str = ", ";
    let mut found = Vec::new();
    let mut rest = joined;
    while !rest.is_empty() {
        let fits = |label: &&String| {
            let after = rest.strip_prefix(label.as_str());
            after.is_some_and(|after| after.is_empty() || after.starts_with(COMMA))
        };
        let Some(label) = labels.iter().filter(fits).max_by_key(|label| label.len()) else {
            break;
        };
        found.push(label.as_str());
        rest = &rest[label.len()..];
        rest = rest.strip_prefix(COMMA).unwrap_or(rest);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_labels_come_apart_even_where_a_name_holds_a_comma() {
        let labels = ["a", "a, b", "c"].map(String::from);
        assert_eq!(apart("a, c", &labels), ["a", "c"]);
        assert_eq!(apart("a, b, c", &labels), ["a, b", "c"]);
        assert_eq!(apart("", &labels), [""; 0]);
        assert_eq!(apart("unknown", &labels), [""; 0]);
    }
}

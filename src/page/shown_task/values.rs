//! Regression and similarity on a page.

use super::{
    JudgedRow, Mistake, MistakeCounts, OutcomeView, ShownTask, WeighedRow, class_hues,
    parts_with_rows, text_of,
};
use crate::{
    data::example::part_name,
    metrics::metric::Metric,
    page::{
        numbers::{decimal, grouped},
        run_files::RunFiles,
        table::TableView,
        texts::TextGate,
    },
};

/// A number for each row.
pub(super) struct ShownValues {
    /// Whether predictions are on the scale of the truth: a cosine has another one.
    pub(super) is_on_scale: bool,
}

impl ShownTask for ShownValues {
    fn metrics(&self) -> Vec<Metric> {
        Metric::OF_NUMBERS.to_vec()
    }

    fn parts(&self, run: &RunFiles) -> TableView {
        let values = run.rows.numbers("value").unwrap_or_default();
        let counted = format!("{}s", run.noun());
        let mut table = TableView::new(&["part"], &[&counted, "least", "mean", "greatest"]);
        for (part, rows) in parts_with_rows(run) {
            let own: Vec<f64> = rows.into_iter().map(|row| values[row]).collect();
            let least = own.iter().copied().fold(f64::INFINITY, f64::min);
            let greatest = own.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let mean = own.iter().sum::<f64>() / own.len() as f64;
            let [least, mean, greatest] = [least, mean, greatest].map(decimal);
            table.push([part_name(part).into(), grouped(own.len() as u64), least, mean, greatest]);
        }
        table
    }

    fn mistakes(&self, run: &RunFiles, rows: &[usize]) -> Option<Vec<WeighedRow>> {
        if !self.is_on_scale {
            return None;
        }
        let truth = run.rows.numbers("value").unwrap_or_default();
        let predicted = run.rows.numbers("predicted").unwrap_or_default();
        let error = |row: usize| (truth[row] - predicted[row]).abs();
        let all = rows.iter().map(|row| WeighedRow { row: *row, weight: error(*row) });
        Some(all.filter(|one| one.weight.is_finite() && one.weight > 0.0).collect())
    }

    fn worst_first(&self) -> &'static str {
        "the largest errors first"
    }

    fn mistakes_in_words(&self, counts: &MistakeCounts) -> String {
        format!("{}, {}.", counts.of_rows(counts.shown), self.worst_first())
    }

    fn show_mistake(&self, run: &RunFiles, row: usize, gate: &TextGate) -> Mistake {
        let number = |name: &str| run.rows.number_at(name, row).unwrap_or(f64::NAN);
        let (truth, predicted) = (number("value"), number("predicted"));
        Mistake {
            text: text_of(run, row, gate),
            truth: Some(OutcomeView::plain(decimal(truth))),
            predicted: Some(OutcomeView::plain(decimal(predicted))),
            note: format!("off by {}", decimal((truth - predicted).abs())),
            ..Mistake::default()
        }
    }

    fn judge(&self, run: &RunFiles, rows: &[usize]) -> Option<Vec<JudgedRow>> {
        let (truth, predicted) = (run.rows.numbers("value")?, run.rows.numbers("predicted")?);
        let judge = |row: &usize| JudgedRow {
            label: decimal(truth[*row]),
            predicted: decimal(predicted[*row]),
            is_wrong: false,
        };
        Some(rows.iter().map(judge).collect())
    }

    /// From blue to red by the number of each row, where all have one.
    fn hues(&self, run: &RunFiles, judged: &[JudgedRow]) -> Vec<Option<u32>> {
        let numbers: Vec<f64> = judged.iter().filter_map(|one| one.label.parse().ok()).collect();
        if numbers.len() < judged.len() {
            return class_hues(run, judged);
        }
        let low = numbers.iter().copied().fold(f64::INFINITY, f64::min);
        let high = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let hue =
            |number: &f64| 230.0 - 230.0 * (number - low) / (high - low).max(f64::MIN_POSITIVE);
        numbers.iter().map(|number| Some(hue(number) as u32)).collect()
    }
}

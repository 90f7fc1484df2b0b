//! One class of several: classes one by one, what is confused with what, and how far confidences can be trusted.

use frostbert_cache::wording::counted;

use super::{MatrixCell, MatrixRow, MatrixView, WorthView, curves};
use crate::{
    metrics::{ClassScore, ClassificationMetrics},
    page::{
        numbers::{decimal, grouped, percent},
        run_files::RunFiles,
        table::TableView,
    },
};

/// More classes than this have no matrix, but the commonest confusions.
const MATRIX_CLASSES: usize = 25;

/// Classes that are listed; of more, those with the lowest F1.
const LISTED_CLASSES: usize = 200;

/// Confusions that are listed.
const LISTED_CONFUSIONS: usize = 20;

/// Decisions at most for a curve over all of them.
const MOST_DECISIONS: usize = 3_000_000;

pub(super) fn add(run: &RunFiles, metrics: &ClassificationMetrics, view: &mut WorthView) {
    let labels = run.labels();
    let name = |class: usize| labels.get(class).cloned().unwrap_or_default();
    let mut table = TableView::new(&["class"], &["precision", "recall", "f1", "rows"]);
    let mut shown: Vec<&ClassScore> = metrics.per_class.iter().collect();
    if shown.len() > LISTED_CLASSES {
        shown.retain(|score| score.support > 0);
        shown.sort_by(|one, other| one.f1.total_cmp(&other.f1));
        shown.truncate(LISTED_CLASSES);
        table.note = Some(format!("The worst of {}.", counted(metrics.per_class.len(), "class")));
    }
    for score in shown {
        let [precision, recall, f1] = [score.precision, score.recall, score.f1].map(decimal);
        table.push([name(score.label), precision, recall, f1, grouped(score.support)]);
    }
    view.add_table("Class by class", table);
    if (1..=MATRIX_CLASSES).contains(&metrics.confusion.len()) {
        view.matrix = Some(matrix(labels, &metrics.confusion));
    } else {
        view.add_table("The commonest confusions", commonest(confusions(metrics), labels, "rows"));
    }
    let rows = run.judged_rows();
    let confidence = run.rows.numbers("confidence").unwrap_or_default();
    let truth = run.rows.texts("label").unwrap_or_default();
    let predicted = run.rows.texts("predicted").unwrap_or_default();
    let judged: Vec<curves::Judgement> = rows
        .iter()
        .filter_map(|row| Some((*confidence.get(*row)?, truth.get(*row)? == predicted.get(*row)?)))
        .collect();
    view.figures.extend(curves::reliability(&judged, "confidence", "share right"));
    if let [_, second] = labels {
        let of_rows = run.rows.numbers(&format!("p_{second}")).unwrap_or_default();
        let decisions: Vec<curves::Judgement> = rows
            .iter()
            .filter_map(|row| Some((*of_rows.get(*row)?, truth[*row] == Some(second.as_str()))))
            .collect();
        let of = format!("`{second}`");
        view.figures.extend(curves::precision_recall(&decisions, "Precision and recall", &of));
        view.figures.extend(curves::roc(&decisions, &of));
    } else if rows.len().saturating_mul(labels.len()) <= MOST_DECISIONS {
        let decisions = labels.iter().flat_map(|label| {
            let of_rows = run.rows.numbers(&format!("p_{label}")).unwrap_or_default();
            let truth = &truth;
            let decided = rows.iter().filter_map(move |row| {
                Some((*of_rows.get(*row)?, truth[*row] == Some(label.as_str())))
            });
            decided.collect::<Vec<_>>()
        });
        let decisions: Vec<curves::Judgement> = decisions.collect();
        let of = "all classes together";
        view.figures.extend(curves::precision_recall(&decisions, "Precision and recall", of));
    }
    if !judged.is_empty() {
        view.add_table("Only confident predictions", curves::coverage(&judged));
    }
}

/// The counts of a confusion matrix, each with its share of the row.
fn matrix(labels: &[String], counts: &[Vec<u64>]) -> MatrixView {
    let rows = counts.iter().enumerate().map(|(truth, row)| {
        let total = row.iter().sum::<u64>().max(1) as f64;
        let cells = row.iter().enumerate().map(|(predicted, count)| MatrixCell {
            count: grouped(*count),
            share: *count as f64 / total,
            is_right: truth == predicted,
        });
        MatrixRow { label: labels.get(truth).cloned().unwrap_or_default(), cells: cells.collect() }
    });
    MatrixView { labels: labels.to_vec(), rows: rows.collect() }
}

/// True class, predicted class and rows of every cell.
fn confusions(metrics: &ClassificationMetrics) -> Vec<(usize, usize, u64)> {
    let dense = metrics.confusion.iter().enumerate().flat_map(|(truth, row)| {
        row.iter().enumerate().map(move |(predicted, count)| (truth, predicted, *count))
    });
    let sparse = metrics.confusion_cells.iter();
    dense.chain(sparse.map(|cell| (cell.truth, cell.predicted, cell.rows))).collect()
}

/// The cells of a confusion matrix off its diagonal, the fullest first; of equal ones in the order of the labels.
pub(super) fn commonest(
    cells: Vec<(usize, usize, u64)>,
    labels: &[String],
    unit: &str,
) -> TableView {
    let mut totals = vec![0u64; labels.len()];
    for (truth, _, count) in &cells {
        if let Some(total) = totals.get_mut(*truth) {
            *total += count;
        }
    }
    let mut wrong: Vec<_> = cells
        .into_iter()
        .filter(|(truth, predicted, count)| truth != predicted && *count > 0)
        .collect();
    wrong.sort_by_key(|(.., count)| std::cmp::Reverse(*count));
    let rest = wrong.split_off(wrong.len().min(LISTED_CONFUSIONS));
    let name = |class: usize| labels.get(class).cloned().unwrap_or_default();
    let mut table = TableView::new(&["true", "predicted"], &[unit, "share of the true class"]);
    for (truth, predicted, count) in wrong {
        let total = totals.get(truth).copied().unwrap_or(0).max(1);
        let share = percent(count as f64 / total as f64);
        table.push([name(truth), name(predicted), grouped(count), share]);
    }
    if !rest.is_empty() {
        let count: u64 = rest.iter().map(|(.., count)| count).sum();
        table.note = Some(format!("{} {unit} more are confused in other ways.", grouped(count)));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_a_matrix_adds_up_to_its_class() {
        let labels = ["a", "b"].map(String::from);
        let matrix = matrix(&labels, &[vec![3, 1], vec![0, 0]]);
        let shares: Vec<f64> = matrix.rows[0].cells.iter().map(|cell| cell.share).collect();
        assert_eq!(shares, [0.75, 0.25]);
        assert!(matrix.rows[0].cells[0].is_right && !matrix.rows[0].cells[1].is_right);
        assert_eq!(matrix.rows[1].cells[1].share, 0.0);
    }

    #[test]
    fn the_commonest_confusions_come_first_and_the_rest_is_counted() {
        let labels: Vec<String> = (0..30).map(|class| class.to_string()).collect();
        let cells = (0..30).map(|class| (class, (class + 1) % 30, class as u64));
        let table = commonest(cells.chain([(2, 2, 98)]).collect(), &labels, "rows");
        assert_eq!(table.rows.len(), 20);
        assert_eq!(table.rows[0].cells, ["29", "0", "29", "100.0 %"]);
        assert_eq!(table.note.unwrap(), "45 rows more are confused in other ways.");
    }
}

//! Any number of labels: each with its threshold, and what thresholds do.

use super::{WorthView, curves};
use crate::{
    metrics::multilabel::MultilabelMetrics,
    page::{
        numbers::{decimal, grouped},
        run_files::RunFiles,
        shown_task::apart,
        table::TableView,
    },
};

pub(super) fn add(run: &RunFiles, metrics: &MultilabelMetrics, view: &mut WorthView) {
    let labels = run.labels();
    let numbers = ["threshold", "precision", "recall", "f1", "rows"];
    let mut table = TableView::new(&["label"], &numbers);
    for score in &metrics.per_class {
        let name = labels.get(score.label).cloned().unwrap_or_default();
        let [threshold, precision, recall, f1] =
            [score.threshold, score.precision, score.recall, score.f1].map(decimal);
        table.push([name, threshold, precision, recall, f1, grouped(score.support)]);
    }
    table.note = Some(
        "A text gets a label from its threshold on; thresholds are fitted on the validation rows."
            .into(),
    );
    view.add_table("Label by label", table);
    let joined = run.rows.texts("labels").unwrap_or_default();
    let rows = run.judged_rows();
    let truth: Vec<Vec<&str>> =
        rows.iter().map(|row| apart(joined[*row].unwrap_or_default(), labels)).collect();
    let mut judged: Vec<curves::Judgement> = Vec::new();
    for label in labels {
        let of_rows = run.rows.numbers(&format!("p_{label}")).unwrap_or_default();
        let decided = rows.iter().zip(&truth).filter_map(|(row, truth)| {
            Some((*of_rows.get(*row)?, truth.contains(&label.as_str())))
        });
        judged.extend(decided);
    }
    view.figures.extend(curves::reliability(&judged, "probability", "share that has the label"));
    let of = "all labels together";
    view.figures.extend(curves::precision_recall(&judged, "Precision and recall", of));
}

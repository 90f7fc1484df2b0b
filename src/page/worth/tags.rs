//! A tag for each word: entities by type, tags one by one, and what is confused with what.

use super::{WorthView, classes::commonest};
use crate::{
    metrics::tagging::TaggingMetrics,
    page::{
        numbers::{decimal, grouped},
        run_files::RunFiles,
        table::TableView,
    },
};

pub(super) fn add(run: &RunFiles, metrics: &TaggingMetrics, view: &mut WorthView) {
    let labels = run.labels();
    let numbers = ["precision", "recall", "f1"];
    let mut entities = TableView::new(&["entity"], &[&numbers[..], &["entities"]].concat());
    for score in &metrics.per_type {
        let [precision, recall, f1] = [score.precision, score.recall, score.f1].map(decimal);
        entities.push([score.kind.clone(), precision, recall, f1, grouped(score.support)]);
    }
    view.add_table("Entities", entities);
    let mut tags = TableView::new(&["tag"], &[&numbers[..], &["words"]].concat());
    for score in &metrics.per_class {
        let name = labels.get(score.label).cloned().unwrap_or_default();
        let [precision, recall, f1] = [score.precision, score.recall, score.f1].map(decimal);
        tags.push([name, precision, recall, f1, grouped(score.support)]);
    }
    view.add_table("Tag by tag", tags);
    let dense = metrics.confusion.iter().enumerate().flat_map(|(truth, row)| {
        row.iter().enumerate().map(move |(predicted, count)| (truth, predicted, *count))
    });
    let sparse = metrics.confusion_cells.iter();
    let cells = dense.chain(sparse.map(|cell| (cell.truth, cell.predicted, cell.rows)));
    view.add_table("The commonest confusions", commonest(cells.collect(), labels, "words"));
}

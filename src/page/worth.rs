//! What the head is worth: its metrics with their intervals, and what the task adds to them.

mod answers;
mod classes;
mod curves;
mod label_sets;
mod tags;
mod values;

use serde::Serialize;

use super::{
    marked_text::MarkedText,
    numbers::with_interval,
    run_files::RunFiles,
    shown_task::shown_task,
    table::{Figure, TableView},
    texts::TextGate,
};
use crate::{
    data::{Part, example::part_name},
    tasks::TaskMetrics,
};

/// The fourth part of a page.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct WorthView {
    pub(super) metrics: Option<TableView>,
    /// Tables under their titles.
    pub(super) tables: Vec<TitledTable>,
    pub(super) matrix: Option<MatrixView>,
    pub(super) figures: Vec<Figure>,
    pub(super) answers: Vec<AnswerView>,
}

/// A table under a title.
#[derive(Clone, Debug, Serialize)]
pub(super) struct TitledTable {
    pub(super) title: String,
    pub(super) table: TableView,
}

/// A confusion matrix: rows are what is true, columns what is predicted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct MatrixView {
    pub(super) labels: Vec<String>,
    pub(super) rows: Vec<MatrixRow>,
}

/// The rows of a class, by what they were predicted as.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct MatrixRow {
    pub(super) label: String,
    pub(super) cells: Vec<MatrixCell>,
}

/// How often a class is predicted as another, and as a share of the class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct MatrixCell {
    pub(super) count: String,
    pub(super) share: f64,
    pub(super) is_right: bool,
}

/// A question with what was answered.
#[derive(Clone, Debug, Serialize)]
pub(super) struct AnswerView {
    pub(super) is_right: bool,
    pub(super) question: Option<String>,
    pub(super) context: Option<MarkedText>,
    pub(super) truth: Option<String>,
    pub(super) predicted: Option<String>,
}

impl WorthView {
    pub(super) fn of(run: &RunFiles, gate: &TextGate) -> WorthView {
        let mut view = WorthView { metrics: metrics_table(run), ..WorthView::default() };
        let Some((_, judged)) = run.judged() else {
            return view;
        };
        match judged {
            TaskMetrics::Classification(metrics) => classes::add(run, metrics, &mut view),
            TaskMetrics::Multilabel(metrics) => label_sets::add(run, metrics, &mut view),
            TaskMetrics::Regression(_) => values::add(run, &mut view),
            TaskMetrics::Tokens(metrics) => tags::add(run, metrics, &mut view),
            TaskMetrics::Qa(metrics) => answers::add(run, metrics, gate, &mut view),
        }
        view
    }

    fn add_table(&mut self, title: impl Into<String>, table: TableView) {
        self.tables.extend(table.if_any().map(|table| TitledTable { title: title.into(), table }));
    }
}

fn metrics_table(run: &RunFiles) -> Option<TableView> {
    let parts: Vec<(Part, &TaskMetrics)> =
        Part::ALL.into_iter().filter_map(|part| Some((part, run.metrics_of(part)?))).collect();
    let baseline = run.metrics.baseline.as_ref();
    let mut titles: Vec<&str> = parts.iter().rev().map(|(part, _)| part_name(*part)).collect();
    titles.extend(baseline.map(|_| "trivial"));
    let mut table = TableView::new(&["metric"], &titles);
    for metric in shown_task(run.task()).metrics() {
        let known = parts.iter().any(|(_, metrics)| metrics.scores().get(metric).is_some());
        if !known {
            continue;
        }
        let mut cells = vec![metric.in_words()];
        cells.extend(parts.iter().rev().map(|(_, metrics)| {
            let scores = metrics.scores();
            with_interval(scores.value(metric), scores.interval(metric))
        }));
        cells.extend(baseline.map(|baseline| {
            with_interval(
                baseline.metrics.get(metric.name()).and_then(serde_json::Value::as_f64),
                None,
            )
        }));
        table.push_row(cells, false);
    }
    table.note = Some(match baseline {
        Some(baseline) => {
            format!("In brackets: 95 % intervals. Trivial, on test: {}.", baseline.description)
        }
        None => "In brackets: 95 % intervals.".into(),
    });
    table.if_any()
}

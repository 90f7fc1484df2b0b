//! Answers to questions: with and without one, and examples with the span marked in its context.

use super::{AnswerView, WorthView};
use crate::{
    metrics::{metric::Metric, span::QaMetrics},
    page::{
        marked_text::excerpt,
        numbers::{decimal, evenly, grouped},
        run_files::RunFiles,
        shown_task::best_f1,
        table::TableView,
        texts::TextGate,
    },
};

/// Questions that are shown.
const N_EXAMPLES: usize = 6;

/// Characters of a question.
const QUESTION: usize = 300;

pub(super) fn add(run: &RunFiles, metrics: &QaMetrics, gate: &TextGate, view: &mut WorthView) {
    let mut table = TableView::new(&["questions"], &["exact match", "f1", "number"]);
    for (name, scores) in
        [("with an answer", &metrics.has_answer), ("without one", &metrics.no_answer)]
    {
        if let Some(own) = scores {
            let value = |metric: Metric| decimal(own.scores.value(metric).unwrap_or(f64::NAN));
            let [exact, f1] = [Metric::ExactMatch, Metric::F1].map(value);
            table.push([name.into(), exact, f1, grouped(own.n as u64)]);
        }
    }
    view.add_table("With and without an answer", table);
    view.answers = examples(run, gate);
}

fn examples(run: &RunFiles, gate: &TextGate) -> Vec<AnswerView> {
    if !gate.is_open() {
        return Vec::new();
    }
    let columns = &run.rows;
    let (Some(questions), Some(contexts), Some(answers), Some(predicted)) = (
        columns.texts("question"),
        columns.texts("context"),
        columns.text_lists("answers"),
        columns.texts("predicted"),
    ) else {
        return Vec::new();
    };
    let rows = run.judged_rows();
    let example = |place: usize| {
        let row = rows[place];
        let (gold, said) = (answers[row].first().copied(), predicted[row]);
        AnswerView {
            is_right: best_f1(&answers[row], said) == 1.0,
            question: gate.text(questions[row].unwrap_or_default(), QUESTION),
            context: Some(excerpt(contexts[row].unwrap_or_default(), gold, said, gate)),
            truth: gold.and_then(|gold| gate.text(gold, QUESTION)),
            predicted: said.and_then(|said| gate.text(said, QUESTION)),
        }
    };
    evenly(rows.len(), N_EXAMPLES).into_iter().map(example).collect()
}

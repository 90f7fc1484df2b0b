//! Question answering on a page.

use std::collections::HashSet;

use super::{
    JudgedRow, MOST_CHARACTERS, Mistake, MistakeCounts, OutcomeView, ShownTask, WeighedRow,
    parts_with_rows,
};
use crate::{
    data::example::part_name,
    metrics::{metric::Metric, span::f1},
    page::{
        marked_text::{MarkedText, TextPiece, excerpt},
        numbers::{decimal, grouped},
        run_files::RunFiles,
        table::TableView,
        texts::TextGate,
    },
};

/// An answer to each question, or none.
pub(super) struct ShownAnswers;

impl ShownTask for ShownAnswers {
    fn metrics(&self) -> Vec<Metric> {
        Metric::OF_ANSWERS.to_vec()
    }

    fn parts(&self, run: &RunFiles) -> TableView {
        let answers = run.rows.text_lists("answers").unwrap_or_default();
        let contexts = run.rows.texts("context").unwrap_or_default();
        let mut table = TableView::new(&["part"], &["questions", "without an answer", "contexts"]);
        for (part, own) in parts_with_rows(run) {
            let unanswered = own.iter().filter(|row| answers[**row].is_empty()).count();
            let distinct: HashSet<_> = own.iter().map(|row| contexts[*row]).collect();
            let counts = [own.len(), unanswered, distinct.len()];
            let [all, unanswered, distinct] = counts.map(|n| grouped(n as u64));
            table.push([part_name(part).into(), all, unanswered, distinct]);
        }
        table
    }

    /// Answers that share no word with a true one, and those that are missing or should be; weighed by how far the answer
    /// is ahead of no answer, or behind it.
    fn mistakes(&self, run: &RunFiles, rows: &[usize]) -> Option<Vec<WeighedRow>> {
        let gold = run.rows.text_lists("answers").unwrap_or_default();
        let predicted = run.rows.texts("predicted").unwrap_or_default();
        let number = |name: &str| run.rows.numbers(name).unwrap_or_default();
        let (score, null_score) = (number("score"), number("null_score"));
        let wrong = rows.iter().copied().filter(|row| best_f1(&gold[*row], predicted[*row]) == 0.0);
        let weight = |row: usize| {
            let margin = score[row] - null_score[row];
            let margin = if predicted[row].is_some() { margin } else { -margin };
            if margin.is_finite() { margin } else { f64::MIN }
        };
        Some(wrong.map(|row| WeighedRow { row, weight: weight(row) }).collect())
    }

    fn mistakes_in_words(&self, counts: &MistakeCounts) -> String {
        format!(
            "{} {} answered without a word of a true answer, {}.",
            counts.of_rows(counts.wrong),
            counts.verb(),
            self.worst_first()
        )
    }

    fn show_mistake(&self, run: &RunFiles, row: usize, gate: &TextGate) -> Mistake {
        let rows = &run.rows;
        let gold = rows.list_at("answers", row).first().copied();
        let said = rows.text_at("predicted", row);
        let number = |name: &str| rows.number_at(name, row).unwrap_or(f64::NAN);
        let (score, null_score) = (number("score"), number("null_score"));
        let mut text = MarkedText::new();
        let question = rows.text_at("question", row).unwrap_or_default();
        if let Some(question) = gate.text(question, MOST_CHARACTERS) {
            text.push(TextPiece { text: question, kind: "question", note: None });
            let context = rows.text_at("context", row).unwrap_or_default();
            text.extend(excerpt(context, gold, said, gate));
        }
        let answer = |answer: Option<&str>| match answer {
            Some(answer) => gate.text(answer, MOST_CHARACTERS).map(OutcomeView::plain),
            None => Some(OutcomeView::plain("no answer".into())),
        };
        Mistake {
            text,
            truth: answer(gold),
            predicted: answer(said),
            note: format!("score {}, of no answer {}", decimal(score), decimal(null_score)),
            ..Mistake::default()
        }
    }

    /// A question's state is mostly that of its context.
    fn judge(&self, _: &RunFiles, _: &[usize]) -> Option<Vec<JudgedRow>> {
        None
    }
}

/// The highest F1 with a gold answer; where there is none, 1 for no answer.
pub(in crate::page) fn best_f1(gold: &[&str], predicted: Option<&str>) -> f64 {
    match predicted {
        None => f64::from(u8::from(gold.is_empty())),
        Some(predicted) => gold.iter().map(|gold| f1(predicted, gold)).fold(0.0, f64::max),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_answer_is_right_only_where_there_is_none() {
        assert_eq!(best_f1(&[], None), 1.0);
        assert_eq!(best_f1(&["a"], None), 0.0);
        assert_eq!(best_f1(&["the Seine", "Seine"], Some("Seine")), 1.0);
    }
}

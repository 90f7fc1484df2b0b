//! Questions in an export.

use std::iter;

use ndarray::ArrayView2;

use super::{ComparedRow, ExportedTask};
use crate::{
    export::comparison::Comparison, head::saved::HeadDescription,
    metrics::calibration::softmax_rows,
};

/// A span of the context for each question.
pub(super) struct ExportedAnswers;

impl ExportedTask for ExportedAnswers {
    fn class_name(&self) -> &'static str {
        "ForQuestionAnswering"
    }

    fn token_module(&self) -> Option<&'static str> {
        Some("qa_outputs")
    }

    fn labels(&self, _description: &HeadDescription) -> Option<Vec<String>> {
        None
    }

    fn onnx_outputs(&self, _is_crf: bool) -> &'static [&'static str] {
        &["start_logits", "end_logits"]
    }

    fn compared(&self) -> &'static str {
        "start and end probabilities"
    }

    /// Compares the scores of the tokens that an answer may start or end at: the context's, and the first, which stands
    /// for "no answer".
    fn compare_row(
        &self,
        comparison: &mut Comparison<'_>,
        row: &ComparedRow<'_>,
        found: &[Vec<f32>],
    ) {
        let ours = row.outputs();
        let sequences = row.window.alignment.sequences.iter().enumerate();
        let context = sequences.filter(|(_, sequence)| **sequence == 1).map(|(place, _)| place);
        let candidates: Vec<usize> = iter::once(0).chain(context).collect();
        for (column, scores) in found.iter().enumerate() {
            let theirs: Vec<f32> = candidates.iter().map(|place| scores[*place]).collect();
            comparison.scores(&ours.column(column).to_vec(), &theirs);
        }
    }

    /// Compares the probabilities of the tokens of a window to be the start and the end of an answer.
    fn compare_outputs(
        &self,
        comparison: &mut Comparison<'_>,
        _description: &HeadDescription,
        ours: ArrayView2<'_, f32>,
        found: ArrayView2<'_, f32>,
    ) {
        comparison.rows_of_classes(&softmax_rows(ours.t(), 1.0), &softmax_rows(found.t(), 1.0));
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn positions_of_a_window_share_their_probability() {
        let description = HeadDescription::default();
        let mut comparison = Comparison::new(&description, true);
        let ours = array![[0.0, 1.0], [0.0, 1.0]];
        // Only what differs between the positions of a side matters.
        let found = array![[7.0, 3.0], [7.0, 4.0]];
        ExportedAnswers.compare_outputs(&mut comparison, &description, ours.view(), found.view());
        let check = comparison.finish(ExportedAnswers.compared(), "test", 1, false);
        // The end has the probabilities 1/2 and 1/2, and there 1/(1+e) and e/(1+e).
        let expected = 1f64.exp() / (1.0 + 1f64.exp()) - 0.5;
        assert!((check.largest_difference - expected).abs() < 1e-6, "{check:?}");
        // Equally probable positions are both on the boundary.
        assert_eq!(check.other_labels, 0);
    }
}

//! Multi-label classification in an export.

use ndarray::{Array2, ArrayView2};

use super::{ComparedRow, ExportedTask};
use crate::{
    error::Result,
    export::{comparison::Comparison, graph_ops::GraphOps},
    head::saved::HeadDescription,
    metrics::calibration::sigmoid_rows,
};

/// Any number of labels for each text.
pub(super) struct ExportedLabelSets;

impl ExportedTask for ExportedLabelSets {
    fn problem_type(&self) -> Option<&'static str> {
        Some("multi_label_classification")
    }

    fn onnx_outputs(&self, _is_crf: bool) -> &'static [&'static str] {
        &["logits", "probabilities"]
    }

    fn add_probabilities(
        &self,
        ops: &mut GraphOps,
        _description: &HeadDescription,
        logits: &str,
    ) -> Result<Option<String>> {
        ops.apply("Sigmoid", &[logits]).map(Some)
    }

    fn probabilities_of(
        &self,
        _description: &HeadDescription,
        logits: ArrayView2<'_, f32>,
    ) -> Array2<f32> {
        sigmoid_rows(logits)
    }

    fn compare_row(
        &self,
        comparison: &mut Comparison<'_>,
        row: &ComparedRow<'_>,
        found: &[Vec<f32>],
    ) {
        comparison.labels(&row.probabilities(), &found[1]);
    }

    fn compare_outputs(
        &self,
        comparison: &mut Comparison<'_>,
        _description: &HeadDescription,
        ours: ArrayView2<'_, f32>,
        found: ArrayView2<'_, f32>,
    ) {
        let (ours, found) = (sigmoid_rows(ours), sigmoid_rows(found));
        for (ours, found) in ours.rows().into_iter().zip(found.rows()) {
            comparison.labels(&ours.to_vec(), &found.to_vec());
        }
    }
}

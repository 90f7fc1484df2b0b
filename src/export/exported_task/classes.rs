//! Classification in an export.

use ndarray::ArrayView2;

use super::{ComparedRow, ExportedTask, class_probabilities};
use crate::{
    error::Result,
    export::{comparison::Comparison, graph_ops::GraphOps},
    head::saved::HeadDescription,
    metrics::calibration::softmax_rows,
};

/// One class of several for each text.
pub(super) struct ExportedClasses;

impl ExportedTask for ExportedClasses {
    fn problem_type(&self) -> Option<&'static str> {
        Some("single_label_classification")
    }

    fn onnx_outputs(&self, _is_crf: bool) -> &'static [&'static str] {
        &["logits", "probabilities"]
    }

    fn add_probabilities(
        &self,
        ops: &mut GraphOps,
        description: &HeadDescription,
        logits: &str,
    ) -> Result<Option<String>> {
        class_probabilities(ops, description, logits).map(Some)
    }

    fn compare_row(
        &self,
        comparison: &mut Comparison<'_>,
        row: &ComparedRow<'_>,
        found: &[Vec<f32>],
    ) {
        comparison.classes(&row.probabilities(), &found[1]);
    }

    fn compare_outputs(
        &self,
        comparison: &mut Comparison<'_>,
        description: &HeadDescription,
        ours: ArrayView2<'_, f32>,
        found: ArrayView2<'_, f32>,
    ) {
        let ours = softmax_rows(ours, description.temperature);
        comparison.rows_of_classes(&ours, &softmax_rows(found, 1.0));
    }
}

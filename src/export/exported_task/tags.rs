//! Tagging in an export.

use ndarray::ArrayView2;

use super::{ComparedRow, ExportedTask, class_probabilities};
use crate::{
    error::Result,
    export::{comparison::Comparison, graph_ops::GraphOps},
    head::saved::HeadDescription,
    metrics::calibration::softmax_rows,
};

/// A tag for each word.
pub(super) struct ExportedTags;

impl ExportedTask for ExportedTags {
    fn class_name(&self) -> &'static str {
        "ForTokenClassification"
    }

    fn token_module(&self) -> Option<&'static str> {
        Some("classifier")
    }

    /// A CRF has no probability of a tag alone.
    fn onnx_outputs(&self, is_crf: bool) -> &'static [&'static str] {
        if is_crf { &["logits"] } else { &["logits", "probabilities"] }
    }

    fn add_probabilities(
        &self,
        ops: &mut GraphOps,
        description: &HeadDescription,
        logits: &str,
    ) -> Result<Option<String>> {
        if description.network.as_ref().is_some_and(|network| network.crf) {
            return Ok(None);
        }
        class_probabilities(ops, description, logits).map(Some)
    }

    fn compare_row(
        &self,
        comparison: &mut Comparison<'_>,
        row: &ComparedRow<'_>,
        found: &[Vec<f32>],
    ) {
        let ours = row.outputs();
        let n_labels = ours.ncols();
        let probabilities = self.probabilities_of(row.description, ours);
        let ours = ours.rows().into_iter().zip(probabilities.rows());
        for ((ours, probabilities), word) in ours.zip(&row.documents[0].words) {
            let start = usize::from(word.position) * n_labels;
            let own = start..start + n_labels;
            comparison.scores(&ours.to_vec(), &found[0][own.clone()]);
            // The file of a CRF has none.
            if let Some(theirs) = found.get(1) {
                comparison.probabilities(&probabilities.to_vec(), &theirs[own]);
            }
        }
    }

    fn compare_outputs(
        &self,
        comparison: &mut Comparison<'_>,
        _description: &HeadDescription,
        ours: ArrayView2<'_, f32>,
        found: ArrayView2<'_, f32>,
    ) {
        comparison.rows_of_classes(&softmax_rows(ours, 1.0), &softmax_rows(found, 1.0));
    }
}

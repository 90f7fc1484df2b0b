//! Regression and similarity in an export.

use ndarray::ArrayView2;

use super::{ComparedRow, ExportedTask};
use crate::{
    export::comparison::Comparison, head::saved::HeadDescription, tasks::prediction::Prediction,
};

/// A number for each text or pair.
pub(super) struct ExportedValues;

impl ExportedTask for ExportedValues {
    fn problem_type(&self) -> Option<&'static str> {
        Some("regression")
    }

    fn labels(&self, _description: &HeadDescription) -> Option<Vec<String>> {
        Some(vec!["value".into()])
    }

    fn onnx_outputs(&self, _is_crf: bool) -> &'static [&'static str] {
        &["value"]
    }

    fn compared(&self) -> &'static str {
        "numbers"
    }

    fn has_numbers(&self) -> bool {
        true
    }

    fn compare_row(
        &self,
        comparison: &mut Comparison<'_>,
        row: &ComparedRow<'_>,
        found: &[Vec<f32>],
    ) {
        let ours = match &row.rows.predictions[row.record] {
            Prediction::Value { value, .. } => *value,
            _ => f64::NAN,
        };
        comparison.numbers(&[ours], &found[0]);
    }

    fn compare_outputs(
        &self,
        comparison: &mut Comparison<'_>,
        description: &HeadDescription,
        ours: ArrayView2<'_, f32>,
        found: ArrayView2<'_, f32>,
    ) {
        for (ours, found) in ours.rows().into_iter().zip(found.rows()) {
            comparison.numbers(&description.numbers(ours), &found.to_vec());
        }
    }
}

//! Regression and similarity before there is data.

use crate::{
    data::dataset::Dataset,
    error::Result,
    features::FeatureView,
    metrics::metric::Metric,
    report::saved_table::SavedTable,
    tasks::{
        PredictionTask, RowSource, TaskMetrics, TaskRows, documents,
        encoded::EncodedRecords,
        kind::{RequiredColumns, TaskKind},
        measure::{RunMetrics, read_as},
        numbers::{self, NumberTask},
        prediction::{ColumnValues, Prediction, PredictionColumn},
        saved_predictions::Outcomes,
    },
};

/// Regression, and the similarity of two texts.
pub(in crate::tasks) struct NumberKind;

const COLUMNS: &[PredictionColumn] = &[PredictionColumn {
    name: "value",
    values: ColumnValues::Double(|prediction| match prediction {
        Prediction::Value { value, .. } => Some(*value),
        _ => None,
    }),
}];

impl TaskKind for NumberKind {
    fn rows<'c>(&self, source: RowSource<'_, 'c>) -> Result<TaskRows<'c>> {
        numbers::rows(source)
    }

    fn read_encoded(
        &self,
        encoded: EncodedRecords<'_>,
    ) -> Result<(Box<dyn PredictionTask>, FeatureView<'static>)> {
        Ok((Box::new(NumberTask::default()), documents::view_of_encoded(encoded)?))
    }

    fn read_metrics(&self, bytes: &[u8]) -> serde_json::Result<RunMetrics> {
        read_as(bytes, TaskMetrics::Regression)
    }

    fn required_columns(&self) -> RequiredColumns {
        RequiredColumns { texts: &["text"], lists: &[], numbers: &["value", "predicted"] }
    }

    fn saved_outcomes(&self, table: &SavedTable, _: &[String]) -> Result<Outcomes> {
        Outcomes::of_values(table)
    }

    fn prediction_columns(&self) -> &'static [PredictionColumn] {
        COLUMNS
    }

    fn prediction_bytes(&self, _: &Dataset, _: u32, _: Metric) -> u64 {
        8
    }
}

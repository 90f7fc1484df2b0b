//! Classification before there is data.

use crate::{
    data::dataset::Dataset,
    error::Result,
    features::FeatureView,
    metrics::metric::Metric,
    report::saved_table::SavedTable,
    tasks::{
        PredictionTask, RowSource, TaskMetrics, TaskRows,
        classes::{self, ClassTask},
        documents,
        encoded::EncodedRecords,
        kind::{RequiredColumns, TaskKind},
        measure::{RunMetrics, read_as},
        prediction::{ColumnValues, Prediction, PredictionColumn},
        saved_predictions::Outcomes,
    },
};

/// Classification.
pub(in crate::tasks) struct ClassKind;

const COLUMNS: &[PredictionColumn] = &[
    PredictionColumn {
        name: "label",
        values: ColumnValues::Text(|prediction| match prediction {
            // An empty label means that the label was withheld.
            Prediction::Class { label, .. } if !label.is_empty() => Some(label.clone()),
            _ => None,
        }),
    },
    PredictionColumn {
        name: "confidence",
        values: ColumnValues::Float(|prediction| match prediction {
            Prediction::Class { confidence, .. } => Some(*confidence),
            _ => None,
        }),
    },
];

impl TaskKind for ClassKind {
    fn rows<'c>(&self, source: RowSource<'_, 'c>) -> Result<TaskRows<'c>> {
        classes::rows(source)
    }

    fn read_encoded(
        &self,
        encoded: EncodedRecords<'_>,
    ) -> Result<(Box<dyn PredictionTask>, FeatureView<'static>)> {
        let labels = encoded.description.labels.clone();
        Ok((Box::new(ClassTask { labels }), documents::view_of_encoded(encoded)?))
    }

    fn read_metrics(&self, bytes: &[u8]) -> serde_json::Result<RunMetrics> {
        read_as(bytes, TaskMetrics::Classification)
    }

    fn required_columns(&self) -> RequiredColumns {
        RequiredColumns {
            texts: &["text", "label", "predicted"],
            lists: &[],
            numbers: &["confidence"],
        }
    }

    fn saved_outcomes(&self, table: &SavedTable, labels: &[String]) -> Result<Outcomes> {
        Outcomes::of_classes(table, labels)
    }

    fn prediction_columns(&self) -> &'static [PredictionColumn] {
        COLUMNS
    }

    fn predicts_probabilities(&self) -> bool {
        true
    }

    fn prediction_bytes(&self, dataset: &Dataset, _: u32, metric: Metric) -> u64 {
        if metric.needs_probabilities() { 4 * dataset.labels.len() as u64 } else { 4 }
    }
}

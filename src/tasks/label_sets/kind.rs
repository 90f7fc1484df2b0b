//! Multi-label classification before there is data.

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
        label_sets::{self, LabelSetTask},
        measure::{RunMetrics, read_as},
        prediction::{ColumnValues, Prediction, PredictionColumn},
        saved_predictions::Outcomes,
    },
};

/// Multi-label classification.
pub(in crate::tasks) struct LabelSetKind;

/// Number of bytes for the labels of a row, about: a set with one node.
const BYTES_OF_LABELS: u64 = 96;

const COLUMNS: &[PredictionColumn] = &[PredictionColumn {
    name: "labels",
    values: ColumnValues::Texts(|prediction| match prediction {
        Prediction::Labels { labels, .. } => Some(labels),
        _ => None,
    }),
}];

impl TaskKind for LabelSetKind {
    fn rows<'c>(&self, source: RowSource<'_, 'c>) -> Result<TaskRows<'c>> {
        label_sets::rows(source)
    }

    fn read_encoded(
        &self,
        encoded: EncodedRecords<'_>,
    ) -> Result<(Box<dyn PredictionTask>, FeatureView<'static>)> {
        let labels = encoded.description.labels.clone();
        Ok((Box::new(LabelSetTask { labels }), documents::view_of_encoded(encoded)?))
    }

    fn read_metrics(&self, bytes: &[u8]) -> serde_json::Result<RunMetrics> {
        read_as(bytes, TaskMetrics::Multilabel)
    }

    fn required_columns(&self) -> RequiredColumns {
        RequiredColumns { texts: &["text", "labels"], lists: &["predicted"], numbers: &[] }
    }

    fn saved_outcomes(&self, table: &SavedTable, labels: &[String]) -> Result<Outcomes> {
        Outcomes::of_label_sets(table, labels)
    }

    fn prediction_columns(&self) -> &'static [PredictionColumn] {
        COLUMNS
    }

    fn predicts_probabilities(&self) -> bool {
        true
    }

    fn prediction_bytes(&self, dataset: &Dataset, _: u32, metric: Metric) -> u64 {
        if metric.needs_probabilities() { 4 * dataset.labels.len() as u64 } else { BYTES_OF_LABELS }
    }

    fn n_decisions(&self, n_rows: u64, n_labels: u64) -> u64 {
        n_rows.saturating_mul(n_labels)
    }
}

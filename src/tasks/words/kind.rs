//! Tagging before there is data.

use crate::{
    data::dataset::Dataset,
    error::Result,
    features::FeatureView,
    metrics::metric::Metric,
    report::saved_table::SavedTable,
    tasks::{
        PredictionTask, RowSource, TaskMetrics, TaskRows,
        encoded::EncodedRecords,
        kind::{RequiredColumns, TaskKind},
        measure::{RunMetrics, read_as},
        prediction::{ColumnValues, Prediction, PredictionColumn},
        saved_predictions::{Outcomes, SavedTexts},
        words,
    },
};

/// Tagging.
pub(in crate::tasks) struct TaggingKind;

const COLUMNS: &[PredictionColumn] = &[
    PredictionColumn {
        name: "words",
        values: ColumnValues::Texts(|prediction| match prediction {
            Prediction::Tags { words, .. } => Some(words),
            _ => None,
        }),
    },
    PredictionColumn {
        name: "labels",
        values: ColumnValues::Texts(|prediction| match prediction {
            Prediction::Tags { labels, .. } => Some(labels),
            _ => None,
        }),
    },
    PredictionColumn {
        name: "entities",
        values: ColumnValues::Text(|prediction| match prediction {
            Prediction::Tags { entities, .. } => {
                Some(serde_json::to_string(entities).expect("entities become JSON"))
            }
            _ => None,
        }),
    },
];

impl TaskKind for TaggingKind {
    fn rows<'c>(&self, source: RowSource<'_, 'c>) -> Result<TaskRows<'c>> {
        words::rows(source)
    }

    fn read_encoded(
        &self,
        encoded: EncodedRecords<'_>,
    ) -> Result<(Box<dyn PredictionTask>, FeatureView<'static>)> {
        words::read_encoded(encoded)
    }

    fn read_metrics(&self, bytes: &[u8]) -> serde_json::Result<RunMetrics> {
        read_as(bytes, TaskMetrics::Tokens)
    }

    fn required_columns(&self) -> RequiredColumns {
        RequiredColumns { texts: &[], lists: &["words", "labels", "predicted"], numbers: &[] }
    }

    fn saved_texts(&self, table: &SavedTable) -> Result<SavedTexts> {
        SavedTexts::of_words(table)
    }

    fn saved_outcomes(&self, table: &SavedTable, labels: &[String]) -> Result<Outcomes> {
        Outcomes::of_tags(table, labels)
    }

    fn prediction_columns(&self) -> &'static [PredictionColumn] {
        COLUMNS
    }

    fn prediction_bytes(&self, dataset: &Dataset, row: u32, _: Metric) -> u64 {
        24 + 8 * dataset.rows[row as usize].target.label_ids().len() as u64
    }
}

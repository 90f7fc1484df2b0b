//! Question answering before there is data.

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
        questions,
        saved_predictions::{Outcomes, SavedTexts},
    },
};

/// Question answering.
pub(in crate::tasks) struct QuestionKind;

/// Number of bytes for the answer to a question, about.
const BYTES_OF_ANSWER: u64 = 64;

const COLUMNS: &[PredictionColumn] = &[
    PredictionColumn {
        name: "answer",
        values: ColumnValues::Text(|prediction| match prediction {
            Prediction::Answer { answer, .. } => answer.clone(),
            _ => None,
        }),
    },
    PredictionColumn {
        name: "start",
        values: ColumnValues::Place(|prediction| match prediction {
            Prediction::Answer { start, .. } => *start,
            _ => None,
        }),
    },
    PredictionColumn {
        name: "end",
        values: ColumnValues::Place(|prediction| match prediction {
            Prediction::Answer { end, .. } => *end,
            _ => None,
        }),
    },
    PredictionColumn {
        name: "score",
        values: ColumnValues::Double(|prediction| match prediction {
            Prediction::Answer { score, .. } => Some(*score),
            _ => None,
        }),
    },
];

impl TaskKind for QuestionKind {
    fn rows<'c>(&self, source: RowSource<'_, 'c>) -> Result<TaskRows<'c>> {
        questions::rows(source)
    }

    fn read_encoded(
        &self,
        encoded: EncodedRecords<'_>,
    ) -> Result<(Box<dyn PredictionTask>, FeatureView<'static>)> {
        questions::read_encoded(encoded)
    }

    fn read_metrics(&self, bytes: &[u8]) -> serde_json::Result<RunMetrics> {
        read_as(bytes, TaskMetrics::Qa)
    }

    fn required_columns(&self) -> RequiredColumns {
        RequiredColumns {
            texts: &["question", "context", "predicted"],
            lists: &["answers"],
            numbers: &["score", "null_score"],
        }
    }

    fn saved_texts(&self, table: &SavedTable) -> Result<SavedTexts> {
        SavedTexts::of_questions(table)
    }

    fn saved_outcomes(&self, table: &SavedTable, _: &[String]) -> Result<Outcomes> {
        Outcomes::of_answers(table)
    }

    fn prediction_columns(&self) -> &'static [PredictionColumn] {
        COLUMNS
    }

    fn prediction_bytes(&self, _: &Dataset, _: u32, _: Metric) -> u64 {
        BYTES_OF_ANSWER
    }
}

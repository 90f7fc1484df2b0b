//! A task before there is data: where its rows come from, and what its runs write.

use crate::{
    data::dataset::Dataset,
    error::Result,
    features::FeatureView,
    metrics::metric::Metric,
    report::saved_table::SavedTable,
    tasks::{
        PredictionTask, RowSource, TaskRows,
        encoded::EncodedRecords,
        measure::RunMetrics,
        prediction::PredictionColumn,
        saved_predictions::{Outcomes, SavedTexts},
    },
};

/// A kind of task. There is one type for each kind of target, beside the [`PredictionTask`] that it makes of rows.
pub(crate) trait TaskKind: Sync {
    /// Finds the rows of a dataset in a cache.
    ///
    /// # Errors
    /// Returns an error if the cache lacks rows or is damaged, or if the pipeline gives weights to classes that do not
    /// exist.
    fn rows<'c>(&self, source: RowSource<'_, 'c>) -> Result<TaskRows<'c>>;

    /// Returns the task of records that were just encoded and the features that a head reads.
    ///
    /// # Errors
    /// Returns an error if a state is not finite.
    fn read_encoded(
        &self,
        encoded: EncodedRecords<'_>,
    ) -> Result<(Box<dyn PredictionTask>, FeatureView<'static>)>;

    /// Reads the metrics of a run from the bytes of its metrics.json.
    ///
    /// # Errors
    /// Returns an error if they are not those of this task.
    fn read_metrics(&self, bytes: &[u8]) -> serde_json::Result<RunMetrics>;

    /// Returns the columns that a run's table of predictions has at least, besides those of every table.
    fn required_columns(&self) -> RequiredColumns;

    /// Reads the texts of a run's table of predictions.
    ///
    /// # Errors
    /// Returns an error if the table is not that of a run of this task.
    fn saved_texts(&self, table: &SavedTable) -> Result<SavedTexts> {
        SavedTexts::of_documents(table)
    }

    /// Reads what is true and what is predicted from a run's table of predictions; `labels` are names that stand in it, by
    /// id.
    ///
    /// # Errors
    /// Returns an error if the table is not that of a run of this task, or holds other labels.
    fn saved_outcomes(&self, table: &SavedTable, labels: &[String]) -> Result<Outcomes>;

    /// Returns the columns of a file that `predict` writes.
    fn prediction_columns(&self) -> &'static [PredictionColumn];

    /// Whether predictions have a probability of each label.
    fn predicts_probabilities(&self) -> bool {
        false
    }

    /// Returns the number of bytes that a prediction for a row takes in the memory of a sweep, about.
    fn prediction_bytes(&self, dataset: &Dataset, row: u32, metric: Metric) -> u64;

    /// Returns how many labels are set or not, one by one, on some rows; 0 if each row has one label or none.
    fn n_decisions(&self, _n_rows: u64, _n_labels: u64) -> u64 {
        0
    }
}

/// The names of columns, by what they hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequiredColumns {
    pub(crate) texts: &'static [&'static str],
    pub(crate) lists: &'static [&'static str],
    pub(crate) numbers: &'static [&'static str],
}

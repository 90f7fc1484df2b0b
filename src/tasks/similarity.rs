//! Similarity of two texts without training: the cosine of their states.

use crate::{
    config::settings::Pipeline,
    data::{Record, dataset::Dataset},
    error::Result,
    features::FeatureView,
    tasks::{MeasuredRows, TaskResult, TaskRows, cosine::cosines, numbers, prediction::Prediction},
};

/// Returns the metrics and the table for the cosine of every row.
pub(crate) fn measure(
    rows: &TaskRows<'_>,
    pipeline: &Pipeline,
    dataset: &Dataset,
) -> Result<TaskResult> {
    let cosines = cosines(&rows.view)?;
    Ok(numbers::measure(&MeasuredRows { rows, pipeline, dataset }, &cosines))
}

/// Returns the cosine of each record's two texts.
pub(crate) fn predict(records: &[Record], view: &FeatureView<'_>) -> Result<Vec<Prediction>> {
    Ok(numbers::predictions(records, cosines(view)?))
}

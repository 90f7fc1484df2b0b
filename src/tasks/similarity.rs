//! How alike two texts are: the cosine of their states, without training.

use crate::{
    config::settings::Pipeline,
    data::{Record, dataset::Dataset},
    error::Result,
    features::FeatureView,
    tasks::{MeasuredRows, TaskResult, TaskRows, cosine::cosines, numbers, prediction::Prediction},
};

/// The metrics of the cosine of every row, and their table.
pub(crate) fn measure(
    rows: &TaskRows<'_>,
    pipeline: &Pipeline,
    dataset: &Dataset,
) -> Result<TaskResult> {
    let cosines = cosines(&rows.view)?;
    Ok(numbers::measure(&MeasuredRows { rows, pipeline, dataset }, &cosines))
}

/// The cosine of each record's two texts.
pub(crate) fn predict(records: &[Record], view: &FeatureView<'_>) -> Result<Vec<Prediction>> {
    Ok(numbers::predictions(records, cosines(view)?))
}

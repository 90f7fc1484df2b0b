//! How alike two texts are: the cosine of their states, without training.

use ndarray::{ArrayView1, s};

use crate::{
    config::settings::Pipeline,
    data::{Record, dataset::Dataset},
    error::Result,
    features::FeatureView,
    tasks::{MeasuredRows, TaskResult, TaskRows, numbers, prediction::Prediction},
};

/// The cosine of two states, `u v / (|u| |v|)`, in f64; 0 where one of them is 0.
pub(crate) fn cosine(u: ArrayView1<'_, f32>, v: ArrayView1<'_, f32>) -> f64 {
    let (mut product, mut of_u, mut of_v) = (0.0f64, 0.0f64, 0.0f64);
    for (u, v) in u.iter().zip(v) {
        let (u, v) = (f64::from(*u), f64::from(*v));
        product += u * v;
        of_u += u * u;
        of_v += v * v;
    }
    let norms = (of_u * of_v).sqrt();
    if norms > 0.0 { product / norms } else { 0.0 }
}

/// The cosine of the two rows of every sample: states `[u, |u - v|...]` are never made for it.
pub(crate) fn cosines(view: &FeatureView<'_>) -> Result<Vec<f64>> {
    let n_features = view.n_features() / 4;
    let mut cosines = vec![0.0; view.n_samples()];
    let all: Vec<u32> = (0..view.n_samples() as u32).collect();
    view.for_each_tile(&all, 1024, |samples, tile| {
        for (sample, row) in samples.iter().zip(tile.rows.rows()) {
            let u = row.slice(s![..n_features]);
            let v = row.slice(s![n_features..2 * n_features]);
            cosines[*sample as usize] = cosine(u, v);
        }
    })?;
    Ok(cosines)
}

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

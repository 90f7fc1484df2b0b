//! Converts cached states for the `linfa` project: datasets for any of its algorithms, and principal components.

use linfa::{Dataset, DatasetBase, traits::Fit};
use linfa_reduction::Pca;
use ndarray::{Array1, Array2, Ix1};

use super::{FeatureView, scaler::Scaler};
use crate::error::{Error, Result};

/// The maximum number of rows that principal components are fitted on, evenly spread over all; a covariance needs no
/// more.
const MOST_ROWS: usize = 20_000;

/// The number of samples decoded at a time.
const TILE_SAMPLES: usize = 1024;

/// Returns the rows of samples in their order, as unscaled `[rows, n_features]`.
///
/// # Errors
/// Returns an error if a file of the cache does not match the manifest.
pub(crate) fn records(view: &FeatureView<'_>, samples: &[u32]) -> Result<Array2<f32>> {
    let mut rows = Array2::zeros((0, view.n_features()));
    for window in view.loads(samples, samples.len().max(1)) {
        let (samples, loaded) = window?;
        let tile = view.tile(&loaded, samples);
        rows.append(ndarray::Axis(0), tile.rows.view()).expect("rows of equal width");
    }
    Ok(rows)
}

/// Returns the scaled rows of samples as linfa records `[rows, n_features]`, with a class index as the target of each
/// row, for use with any linfa algorithm.
///
/// # Errors
/// Returns an error if a file of the cache does not match the manifest.
///
/// # Panics
/// Panics if there is not exactly one label per row.
pub fn dataset(
    view: &FeatureView<'_>,
    scaler: &Scaler,
    samples: &[u32],
    labels: &[u32],
) -> Result<Dataset<f64, usize, Ix1>> {
    let mut rows = records(view, samples)?;
    assert_eq!(rows.nrows(), labels.len(), "one label per row");
    scaler.apply(rows.view_mut());
    let targets: Array1<usize> = labels.iter().map(|label| *label as usize).collect();
    Ok(Dataset::new(rows.mapv(f64::from), targets))
}

/// Returns the mean `[n_features]` and the first principal components `[n_features, n_components]` of scaled rows,
/// computed by `linfa-reduction`. The sign of each component is chosen so that its largest entry is positive.
///
/// # Errors
/// Returns an error if the cache is damaged or linfa cannot decompose the rows.
pub(crate) fn principal_components(
    view: &FeatureView<'_>,
    scaler: &Scaler,
    samples: &[u32],
    n_components: usize,
) -> Result<(Array1<f32>, Array2<f32>)> {
    let n_rows: usize = samples.iter().map(|sample| view.rows_of(*sample).len()).sum();
    let stride = n_rows.div_ceil(MOST_ROWS).max(1);
    let mut rows = Array2::zeros((n_rows.div_ceil(stride), view.n_features()));
    let mut number = 0;
    view.for_each_tile(samples, TILE_SAMPLES, |_, tile| {
        for row in tile.rows.rows() {
            if number % stride == 0 {
                rows.row_mut(number / stride).assign(&row);
            }
            number += 1;
        }
    })?;
    scaler.apply(rows.view_mut());
    let rows = DatasetBase::from(rows.mapv(f64::from));
    let pca = Pca::params(n_components).fit(&rows).map_err(|error| Error::Diverged {
        problem: format!("linfa-reduction finds no principal components: {error}"),
        hint: "lower head.pca, or leave it out".into(),
    })?;
    let mut components = pca.components().t().mapv(|value| value as f32);
    for mut component in components.columns_mut() {
        let largest =
            component.iter().copied().max_by(|one, other| one.abs().total_cmp(&other.abs()));
        if largest.is_some_and(|value| value < 0.0) {
            component.mapv_inplace(|value| -value);
        }
    }
    let components = components.as_standard_layout().into_owned();
    Ok((pca.mean().mapv(|value| value as f32), components))
}

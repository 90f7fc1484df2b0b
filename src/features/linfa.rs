//! From a cached state to a [`linfa::Dataset`], so that any linfa algorithm can be fitted on it.

use linfa::Dataset;
use ndarray::{Array1, Ix1};

use super::{FeatureView, scaler::Scaler};

/// The rows `samples`, scaled, as linfa records, with a class index as target each.
///
/// # Panics
/// When a sample is out of range or there is not one label per sample.
pub fn dataset(
    view: &FeatureView,
    scaler: &Scaler,
    samples: &[u32],
    labels: &[u32],
) -> Dataset<f64, usize, Ix1> {
    assert_eq!(samples.len(), labels.len(), "one label per sample");
    let mut rows = view.decode(samples);
    scaler.apply(rows.view_mut());
    let targets: Array1<usize> = labels.iter().map(|label| *label as usize).collect();
    Dataset::new(rows.mapv(f64::from), targets)
}

//! The cosine of two states.

use std::collections::HashMap;

use ndarray::{ArrayView1, s};

use crate::{error::Result, features::FeatureView};

/// Computes the cosine of two states, `u v / (|u| |v|)`, in f64; 0 if one of them is 0.
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

/// Computes the cosine of the two rows of every sample, for a view of one layer.
///
/// # Errors
/// Returns an error if a state cannot be read.
pub(crate) fn cosines(view: &FeatureView<'_>) -> Result<Vec<f64>> {
    let all: Vec<u32> = (0..view.n_samples() as u32).collect();
    cosines_of(view, &all)
}

/// [`cosines`] of some samples, in their order.
pub(crate) fn cosines_of(view: &FeatureView<'_>, samples: &[u32]) -> Result<Vec<f64>> {
    let n_features = view.n_features() / 4;
    let places = samples.iter().enumerate();
    let place_of: HashMap<u32, usize> = places.map(|(place, sample)| (*sample, place)).collect();
    let mut cosines = vec![0.0; samples.len()];
    // Tiles come in the order in which samples lie on disk.
    view.for_each_tile(samples, 1024, |samples, tile| {
        for (sample, row) in samples.iter().zip(tile.rows.rows()) {
            let u = row.slice(s![..n_features]);
            let v = row.slice(s![n_features..2 * n_features]);
            cosines[place_of[sample]] = cosine(u, v);
        }
    })?;
    Ok(cosines)
}

//! Finds for each sample the most similar one among other samples: near-duplicates across the splits of a data set.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;

use crate::{
    error::Result,
    features::{FeatureView, scaler::Scaler},
    train::gemm::multiply,
};

/// Number of samples that are compared with [`OTHERS_TILE`] others in one product.
const TILE: usize = 256;

/// Number of other samples that are decoded at a time.
const OTHERS_TILE: usize = 1024;

/// The nearest neighbour of a sample.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Neighbour {
    /// The neighbour; the first of equally similar ones.
    pub sample: u32,
    /// The cosine similarity, from -1 to 1.
    pub cosine: f32,
}

/// Returns, for each sample of `of` in order, the most similar sample of `among`.
///
/// The similarity is the cosine of standardised rows: the mean over `among` is subtracted from each feature, and the
/// result divided by its standard deviation there. The states of unrelated texts point in nearly the same direction,
/// and a few features of large magnitude dominate the rest (Timkey and van Schijndel, "All Bark and No Bite: Rogue
/// Dimensions in Transformer Language Models Obscure Representational Quality", 2021), so without standardisation the
/// cosine of any two texts is high. For samples of several rows (all of them equally many), the similarity is the mean
/// of the cosines of their first rows, of their second rows and so on. A row that equals the mean is similar to
/// nothing: its cosine is 0.
///
/// Costs `of.len() * among.len() * width` multiply-adds, in products of fixed shapes, so the result does not depend on
/// the number of threads. The rows of `of` are held in memory, those of `among` are read tile by tile.
///
/// # Errors
/// Returns an error if a file of the cache does not match the manifest.
///
/// # Panics
/// Panics if `among` is empty, or if samples differ in their number of rows.
pub(crate) fn nearest(view: &FeatureView<'_>, among: &[u32], of: &[u32]) -> Result<Vec<Neighbour>> {
    let scaler = Scaler::fit(view, among)?;
    let first = among.first().expect("samples to compare with");
    let width = view.rows_of(*first).len() * view.n_features();
    let mut rows = Array2::zeros((of.len(), width));
    let mut filled = 0;
    for window in view.loads(of, OTHERS_TILE) {
        let (window, loaded) = window?;
        for part in window.chunks(OTHERS_TILE) {
            let unit = unit_rows(view.tile(&loaded, part).rows, &scaler, part.len());
            rows.slice_mut(s![filled..filled + part.len(), ..]).assign(&unit);
            filled += part.len();
        }
    }
    let mut nearest = vec![Neighbour { sample: u32::MAX, cosine: f32::NEG_INFINITY }; of.len()];
    view.for_each_tile(among, OTHERS_TILE, |samples, tile| {
        let others = unit_rows(tile.rows, &scaler, samples.len());
        nearest
            .par_chunks_mut(TILE)
            .zip(rows.axis_chunks_iter(Axis(0), TILE))
            .for_each(|(nearest, rows)| compare(rows, others.view(), samples, nearest));
    })?;
    Ok(nearest)
}

/// Updates the nearest neighbour of each of `rows` with those of `others` that are nearer.
fn compare(
    rows: ArrayView2<'_, f32>,
    others: ArrayView2<'_, f32>,
    samples: &[u32],
    nearest: &mut [Neighbour],
) {
    let mut cosines = Array2::zeros((rows.nrows(), others.nrows()));
    multiply(rows, others.t(), cosines.view_mut());
    for (nearest, cosines) in nearest.iter_mut().zip(cosines.rows()) {
        for (sample, cosine) in samples.iter().zip(cosines) {
            if *cosine > nearest.cosine || (*cosine == nearest.cosine && *sample < nearest.sample) {
                *nearest = Neighbour { sample: *sample, cosine: *cosine };
            }
        }
    }
}

/// Scales rows so that those of a sample, concatenated, have length 1: `[n_samples, rows x features]`.
fn unit_rows(mut rows: Array2<f32>, scaler: &Scaler, n_samples: usize) -> Array2<f32> {
    let (n_rows, n_features) = rows.dim();
    scaler.apply(rows.view_mut());
    let rows_of_sample = n_rows / n_samples;
    normalise(rows.view_mut(), 1.0 / (rows_of_sample as f64).sqrt());
    rows.into_shape_with_order((n_samples, rows_of_sample * n_features))
        .expect("samples of equally many rows")
}

fn normalise(mut rows: ArrayViewMut2<'_, f32>, length: f64) {
    for mut row in rows.rows_mut() {
        let norm = row.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        if norm > 0.0 {
            row.mapv_inplace(|value| (f64::from(value) * length / norm) as f32);
        }
    }
}

#[cfg(test)]
mod tests;

//! The outputs of a saved head on some samples of a view, held in memory or recomputed each time they are iterated
//! over.

use std::collections::HashMap;

use ndarray::{Array2, ArrayView2};

use super::{
    outputs::WAVE_BYTES,
    saved::{Head, TILE_SAMPLES},
};
use crate::{error::Result, features::FeatureView, metrics::outputs::OutputRows};

/// Least number of samples in a tile: outputs are always computed for this many rows, so a smaller tile is not cheaper.
const LEAST_SAMPLES: usize = 256;

/// Approximate size in bytes of a tile's outputs.
const TILE_BYTES: usize = 32 << 20;

/// Outputs of a head on samples that have one output row each, in the order of the samples.
pub(crate) struct Applied<'a> {
    head: &'a Head,
    view: &'a FeatureView<'a>,
    samples: &'a [u32],
    place_of: HashMap<u32, usize>,
    /// All outputs, if they take at most [`WAVE_BYTES`].
    held: Option<Array2<f32>>,
}

impl<'a> Applied<'a> {
    /// Applies `head` to `samples`, each of which must occur only once.
    ///
    /// # Errors
    /// Returns an error if a file of the cache does not match the manifest.
    pub(crate) fn new(
        head: &'a Head,
        view: &'a FeatureView<'a>,
        samples: &'a [u32],
    ) -> Result<Applied<'a>> {
        let places = samples.iter().enumerate();
        let mut applied = Applied {
            head,
            view,
            samples,
            place_of: places.map(|(place, sample)| (*sample, place)).collect(),
            held: None,
        };
        let (n_rows, n_outputs) = applied.shape();
        if n_rows.saturating_mul(4 * n_outputs) <= WAVE_BYTES {
            let mut held = Array2::zeros((n_rows, n_outputs));
            applied.show(&mut |places, outputs| {
                for (place, row) in places.iter().zip(outputs.rows()) {
                    held.row_mut(*place).assign(&row);
                }
            })?;
            applied.held = Some(held);
        }
        Ok(applied)
    }
}

impl OutputRows for Applied<'_> {
    fn shape(&self) -> (usize, usize) {
        let network = self.head.description.network.as_ref();
        let n_outputs = network.map_or(1, |spec| spec.n_outputs);
        (self.samples.len(), n_outputs)
    }

    fn whole(&self) -> Option<ArrayView2<'_, f32>> {
        self.held.as_ref().map(Array2::view)
    }

    fn show(&self, visit: &mut dyn FnMut(&[usize], ArrayView2<'_, f32>)) -> Result<()> {
        if let Some(held) = self.whole() {
            return held.show(visit);
        }
        let (_, n_outputs) = self.shape();
        let at_a_time = (TILE_BYTES / (4 * n_outputs)).clamp(LEAST_SAMPLES, TILE_SAMPLES);
        let show = |samples: &[u32], _: &[usize], outputs: Array2<f32>| {
            assert_eq!(samples.len(), outputs.nrows(), "a row of outputs a sample");
            let places = samples.iter().map(|sample| self.place_of[sample]);
            visit(&places.collect::<Vec<_>>(), outputs.view());
        };
        self.head.for_each_output_of(self.view, self.samples, at_a_time, show)
    }
}

#[cfg(test)]
mod tests {
    use frostbert_cache::states::{Dtype, Pooling, StateId};

    use super::*;
    use crate::{
        head::{network::NetworkSpec, trained_head::TrainedHead, transform::Transform},
        metrics::outputs::gathered,
    };

    #[test]
    fn outputs_that_are_computed_when_they_are_shown_have_the_bits_of_all_at_once() {
        let (n_samples, n_features, n_outputs) = (700, 8, 2_000);
        let numbers = |n: usize| (0..n).map(|i| (i as f32 * 0.37).sin());
        let bytes = numbers(n_samples * n_features).flat_map(f32::to_le_bytes);
        let state = StateId::pooled(Pooling::Mean, 1);
        let view = FeatureView::from_bytes(state, n_features, Dtype::F32, bytes.collect());
        let spec = NetworkSpec::linear(n_features, n_outputs);
        let trained = TrainedHead {
            parameters: numbers((n_features + 1) * n_outputs).collect(),
            history: Vec::new(),
            best_epoch: 1,
        };
        let head = Head::of(spec, trained, Transform::identity(n_features));
        let all = head.logits(&view).unwrap();
        let samples: Vec<u32> = (100..n_samples as u32).rev().collect();
        let applied = Applied::new(&head, &view, &samples).unwrap();
        assert!(applied.whole().is_some(), "a few megabytes are held");
        let computed = Applied { held: None, ..applied };
        let gathered = gathered(&computed).unwrap();
        for (sample, row) in samples.iter().zip(gathered.rows()) {
            assert_eq!(row, all.row(*sample as usize), "sample {sample}");
        }
    }
}

//! The only door between the two stages: rows of one stored state, as matrices that heads can be trained on.

pub mod linfa;
pub mod scaler;

use ndarray::{Array2, ArrayViewMut2};
use rayon::prelude::*;

use crate::{
    cache::reader::CacheReader,
    error::{Error, Result},
    fingerprint::Key,
    states::{Dtype, StateId},
};

/// One state of some documents, in the order of the examples: `[n_samples, n_features]`, in its storage type.
#[derive(Clone, Debug)]
pub struct FeatureView {
    /// Which state.
    pub state: StateId,
    n_samples: usize,
    n_features: usize,
    dtype: Dtype,
    bytes: Vec<u8>,
}

impl FeatureView {
    /// Reads a state of these documents from a cache; a key may stand there more than once.
    ///
    /// # Errors
    /// [`Error::CacheMiss`] when the cache lacks rows (it says how many); [`Error::CacheDamage`] when a file is damaged.
    pub fn read(cache: &CacheReader, state: StateId, keys: &[Key]) -> Result<FeatureView> {
        let (n_features, dtype) = (cache.manifest().hidden, cache.manifest().dtype);
        let row_bytes = n_features * dtype.size_bytes();
        let locations: Vec<_> = keys
            .iter()
            .filter_map(|key| cache.locate(key, state))
            .collect();
        if locations.len() < keys.len() {
            return Err(Error::CacheMiss {
                cache: cache.folder().to_path_buf(),
                lacks: format!(
                    "the {state} state of {} of {} texts",
                    keys.len() - locations.len(),
                    keys.len()
                ),
                hint: "run `frostbert extract` with this pipeline (or `run`, which extracts what is missing)".into(),
            });
        }
        let mut bytes = vec![0u8; keys.len() * row_bytes];
        cache.read_rows(state, &locations, |place, row| {
            bytes[place * row_bytes..(place + 1) * row_bytes].copy_from_slice(row);
        })?;
        Ok(FeatureView {
            state,
            n_samples: keys.len(),
            n_features,
            dtype,
            bytes,
        })
    }

    /// A view over states that are already in memory, `n_features` values a row; used where nothing is cached.
    ///
    /// # Panics
    /// When `bytes` is no whole number of rows.
    pub fn from_bytes(
        state: StateId,
        n_features: usize,
        dtype: Dtype,
        bytes: Vec<u8>,
    ) -> FeatureView {
        let row_bytes = n_features * dtype.size_bytes();
        assert!(
            bytes.len().is_multiple_of(row_bytes),
            "states are whole rows"
        );
        FeatureView {
            state,
            n_samples: bytes.len() / row_bytes,
            n_features,
            dtype,
            bytes,
        }
    }

    /// blake3 over each row's key and state bytes, in order, as 64 hexadecimal digits: `keys` are those of the rows.
    pub fn digest<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> String {
        let row_bytes = self.n_features * self.dtype.size_bytes();
        let mut hasher = blake3::Hasher::new();
        for (key, row) in keys.zip(self.bytes.chunks_exact(row_bytes)) {
            hasher.update(&key.0);
            hasher.update(row);
        }
        hasher.finalize().to_hex().to_string()
    }

    /// Number of rows.
    pub fn n_samples(&self) -> usize {
        self.n_samples
    }

    /// Number of columns: the encoder's hidden size.
    pub fn n_features(&self) -> usize {
        self.n_features
    }

    /// Decodes the rows `samples` into `out [samples.len(), n_features]`, on all threads.
    ///
    /// # Panics
    /// When a sample is out of range or `out` has another shape.
    pub fn decode_into(&self, samples: &[u32], mut out: ArrayViewMut2<'_, f32>) {
        assert_eq!(
            out.dim(),
            (samples.len(), self.n_features),
            "one row per sample"
        );
        let row_bytes = self.n_features * self.dtype.size_bytes();
        let out = out.as_slice_mut().expect("a tile is contiguous");
        out.par_chunks_exact_mut(self.n_features)
            .zip(samples)
            .for_each(|(row, sample)| {
                let start = *sample as usize * row_bytes;
                self.dtype
                    .decode(&self.bytes[start..start + row_bytes], row);
            });
    }

    /// Decodes the rows `samples` to a new matrix.
    ///
    /// # Panics
    /// When a sample is out of range.
    pub fn decode(&self, samples: &[u32]) -> Array2<f32> {
        let mut out = Array2::zeros((samples.len(), self.n_features));
        self.decode_into(samples, out.view_mut());
        out
    }
}

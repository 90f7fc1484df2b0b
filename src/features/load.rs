//! Loads the stored bytes of samples into memory, all at once if they fit and window by window otherwise, and computes
//! their digest.

use std::borrow::Cow;

use frostbert_cache::{
    fingerprint::{Digest, Key},
    reader::by_shard,
};
use rayon::prelude::*;

use super::{FeatureView, StateSource};
use crate::error::Result;

/// The number of bytes of a sample that are prefetched before decoding; the bytes after them are read sequentially.
const FETCHED_BYTES: usize = 2048;

/// The number of bytes that are fetched from memory together.
const CACHE_LINE: usize = 64;

/// The stored bytes of several samples, concatenated in ascending order of the samples.
#[derive(Clone)]
pub struct LoadedStates {
    pub(super) samples: Vec<u32>,
    /// The first stored row of each sample, followed by the number of rows.
    pub(super) row_start: Vec<usize>,
    pub(super) bytes: Vec<u8>,
}

impl FeatureView<'_> {
    /// Loads the samples of `order` window by window, each with its part of the order. If all samples are in memory,
    /// there is a single window. Every window except the last is a whole number of batches.
    pub fn loads<'v>(
        &'v self,
        order: &'v [u32],
        batch: usize,
    ) -> impl Iterator<Item = Result<(&'v [u32], Cow<'v, LoadedStates>)>> {
        let window = match &self.resident {
            Some(_) => order.len().max(1),
            None => self.samples_at_a_time(order, batch),
        };
        order.chunks(window).map(move |samples| match &self.resident {
            Some(loaded) => Ok((samples, Cow::Borrowed(loaded))),
            None => {
                let mut sorted = samples.to_vec();
                sorted.sort_unstable();
                sorted.dedup();
                Ok((samples, Cow::Owned(self.load(sorted)?)))
            }
        })
    }

    /// Reads the stored bytes of samples, sorted; every file is opened once.
    pub(super) fn load(&self, samples: Vec<u32>) -> Result<LoadedStates> {
        let (row_bytes, state_bytes) = (self.row_bytes(), self.hidden * self.dtype.size_bytes());
        let mut row_start = Vec::with_capacity(samples.len() + 1);
        row_start.push(0);
        let mut wanted: Vec<(usize, usize)> = Vec::new();
        let mut total = 0;
        for sample in &samples {
            for piece in self.pieces_of(*sample) {
                wanted.push((piece, total));
                total += self.pieces.n_rows(piece);
            }
            row_start.push(total);
        }
        let mut bytes = vec![0u8; total * row_bytes];
        for (number, state) in self.states.iter().enumerate() {
            let mut put = |first: usize, rows: &mut dyn Iterator<Item = &[u8]>| {
                let mut place = first * row_bytes + number * state_bytes;
                for slice in rows {
                    for row in slice.chunks_exact(state_bytes) {
                        bytes[place..place + state_bytes].copy_from_slice(row);
                        place += row_bytes;
                    }
                }
            };
            match &self.source {
                StateSource::Shard(states) => {
                    for (piece, first) in &wanted {
                        let start = self.pieces.place(*piece, 0).1 as usize;
                        let end = start + self.pieces.n_rows(*piece);
                        let rows = &states[number].bytes[start * state_bytes..end * state_bytes];
                        put(*first, &mut std::iter::once(rows));
                    }
                }
                StateSource::Cache(cache) => {
                    let locations: Vec<_> =
                        wanted.iter().map(|(piece, _)| self.pieces.place(*piece, number)).collect();
                    for (shard, places) in by_shard(&locations) {
                        let file = cache.open_state(shard, *state)?;
                        for place in places {
                            let (piece, first) = wanted[place];
                            let start = locations[place].1 as usize;
                            let rows = start..start + self.pieces.n_rows(piece);
                            put(first, &mut file.rows(rows));
                        }
                    }
                }
            }
        }
        Ok(LoadedStates { samples, row_start, bytes })
    }

    /// Prefetches the stored bytes of samples into the processor's cache. Samples come shuffled, and a row is decoded
    /// faster than memory responds: requested one by one, every row would be waited for, whereas requested together the
    /// waits overlap. Such waits were a third of the time of a bank of 64 heads.
    pub(super) fn fetch(&self, loaded: &LoadedStates, samples: impl Iterator<Item = u32>) {
        let mut sum = 0;
        for sample in samples {
            let bytes = self.stored(loaded, sample);
            let beginning = &bytes[..bytes.len().min(FETCHED_BYTES)];
            sum ^= beginning.iter().step_by(CACHE_LINE).fold(0, |sum, byte| sum ^ byte);
        }
        std::hint::black_box(sum);
    }

    /// Returns the stored bytes of a sample's rows.
    pub(super) fn stored<'l>(&self, loaded: &'l LoadedStates, sample: u32) -> &'l [u8] {
        let place = if loaded.samples.len() == self.n_samples() {
            sample as usize
        } else {
            loaded.samples.binary_search(&sample).expect("a sample of a tile is loaded")
        };
        let row_bytes = self.row_bytes();
        let rows = loaded.row_start[place]..loaded.row_start[place + 1];
        &loaded.bytes[rows.start * row_bytes..rows.end * row_bytes]
    }

    /// Returns a digest of the data: for every sample the blake3 of its number, its key and its stored bytes, summed as
    /// 256-bit numbers, so that the digest does not depend on the order of reading.
    ///
    /// # Errors
    /// Returns an error if a file of the cache does not match the manifest.
    pub fn digest(&self, keys: &[Key]) -> Result<Digest> {
        let all: Vec<u32> = (0..self.n_samples() as u32).collect();
        let order = self.storage_order(&all);
        let row_bytes = self.row_bytes();
        let mut total = [0u64; 4];
        for window in self.loads(&order, 1) {
            let (_, loaded) = window?;
            let sums = loaded.samples.par_iter().enumerate().map(|(place, sample)| {
                let rows = loaded.row_start[place]..loaded.row_start[place + 1];
                let mut hasher = blake3::Hasher::new();
                hasher.update(&sample.to_le_bytes());
                for key in self.pieces_of(*sample).filter_map(|piece| keys.get(piece)) {
                    hasher.update(&key.0);
                }
                hasher.update(&loaded.bytes[rows.start * row_bytes..rows.end * row_bytes]);
                words(hasher.finalize().as_bytes())
            });
            total = add(total, sums.reduce(|| [0; 4], add));
        }
        let mut bytes = [0; 32];
        for (eight, word) in bytes.chunks_exact_mut(8).zip(total) {
            eight.copy_from_slice(&word.to_le_bytes());
        }
        Ok(Digest::from_bytes(bytes))
    }
}

fn words(bytes: &[u8; 32]) -> [u64; 4] {
    std::array::from_fn(|word| {
        let eight: [u8; 8] = std::array::from_fn(|byte| bytes[word * 8 + byte]);
        u64::from_le_bytes(eight)
    })
}

/// Adds two 256-bit numbers modulo 2^256.
fn add(left: [u64; 4], right: [u64; 4]) -> [u64; 4] {
    let mut carry = 0u128;
    std::array::from_fn(|word| {
        let sum = u128::from(left[word]) + u128::from(right[word]) + carry;
        carry = sum >> 64;
        sum as u64
    })
}

//! The only interface between the two stages: provides stored states as rows of numbers to train heads on.
//!
//! A *sample* is the unit that a head predicts for: a document, a pair of documents, a sentence of words, or a window
//! of a question and its context. It has one or more rows. A [`FeatureView`] knows where the rows of every sample are
//! ([`pieces`]) and returns them as [`Tile`]s of f32, from memory or shard by shard from disk ([`FeatureView::loads`]).

mod chained;
pub(crate) mod linfa;
mod load;
pub(crate) mod order;
pub(crate) mod pieces;
pub(crate) mod scaler;
mod tile;
mod token_roles;

use std::ops::Range;

use chained::ChainedMaps;
use frostbert_cache::{
    fingerprint::Key,
    reader::{CacheReader, by_shard},
    shard::{ShardLayout, StateRows},
    states::{Dtype, StateId},
};
pub(crate) use load::LoadedStates;
use ndarray::{Array2, ArrayView2, ArrayViewMut2};
use pieces::Pieces;
use rayon::prelude::*;
pub(crate) use tile::Tile;
use token_roles::RowRoles;
pub(crate) use token_roles::{TokenRole, output_starts};

use crate::error::Result;

/// The default maximum size in bytes of the states that a view keeps in memory; larger views are read again in every
/// pass.
pub(crate) const MEMORY_BYTES: u64 = 2 << 30;

/// The maximum number of rows in a tile: some tens of megabytes for the widest features, those of the matching head
/// over several layers.
const TILE_ROWS: usize = 4096;

/// The number of samples that one thread decodes at a time.
const SAMPLES_AT_A_TIME: usize = 32;

/// The id of a row is its sample times this number, plus the row's index in the sample.
const ROWS_OF_SAMPLE: u64 = 1 << 24;

/// Maps the stored rows of a sample to the rows that a head reads.
pub trait RowMap: Send + Sync {
    /// Returns the number of rows of a sample after mapping.
    fn n_rows(&self, sample: u32, n_stored: usize) -> usize;

    /// Returns the number of values in a row after mapping, for stored rows of `n_stored` values.
    fn n_features(&self, n_stored: usize) -> usize;

    /// Writes the mapped rows of a sample to `out`.
    fn map(&self, sample: u32, stored: ArrayView2<'_, f32>, out: ArrayViewMut2<'_, f32>);
}

/// Where the stored bytes are read from when they are needed.
enum StateSource<'c> {
    Cache(&'c CacheReader),
    /// The states of one shard in memory, one buffer for each state of the view.
    Shard(Vec<StateRows>),
}

/// The states of samples as a head reads them, `[rows, n_features]`. Several states (of several layers) are
/// concatenated in a row. With pooled states, a sample is one row.
pub struct FeatureView<'c> {
    /// The states of the view.
    pub states: Vec<StateId>,
    hidden: usize,
    dtype: Dtype,
    pieces: Pieces,
    /// The first piece of each sample, followed by the number of pieces.
    sample_start: Vec<u32>,
    source: StateSource<'c>,
    map: Option<Box<dyn RowMap>>,
    /// What each row is for, if layers of an encoder are trained on them.
    roles: Option<RowRoles>,
    /// The number of layers that a head mixes: one block of values in a row for each.
    n_layers: usize,
    /// The first mapped row of each sample, followed by the number of rows.
    row_start: Vec<usize>,
    memory_bytes: u64,
    /// The states of all samples, if they fit into `memory_bytes`.
    resident: Option<LoadedStates>,
}

impl<'c> FeatureView<'c> {
    /// Creates a view over a cache; sample `i` consists of the pieces `sample_start[i]..sample_start[i + 1]`.
    ///
    /// States of at most `memory_bytes` in total are read immediately and stay in memory.
    ///
    /// # Errors
    /// Returns [`frostbert_cache::Error::Damage`] if a file does not match the manifest.
    pub fn new(
        cache: &'c CacheReader,
        states: &[StateId],
        pieces: Pieces,
        sample_start: Vec<u32>,
        memory_bytes: u64,
    ) -> Result<FeatureView<'c>> {
        let (hidden, dtype) = (cache.manifest().hidden, cache.manifest().dtype);
        let source = StateSource::Cache(cache);
        FeatureView::of(states, hidden, dtype, pieces, sample_start, source, memory_bytes)
    }

    /// Creates a view over one state of documents with one row each; a key may occur more than once.
    ///
    /// # Errors
    /// Returns [`frostbert_cache::Error::Miss`] if the cache lacks rows (it says how many), and
    /// [`frostbert_cache::Error::Damage`] if a file is damaged.
    pub fn read(cache: &'c CacheReader, state: StateId, keys: &[Key]) -> Result<FeatureView<'c>> {
        FeatureView::read_all(cache, &[state], keys)
    }

    /// Does the same as [`FeatureView::read`] with several pooled states, which are concatenated.
    pub(crate) fn read_all(
        cache: &'c CacheReader,
        states: &[StateId],
        keys: &[Key],
    ) -> Result<FeatureView<'c>> {
        let pieces = pieces::locate(cache, states, keys, |_, _, _| {})?;
        let sample_start = (0..=keys.len() as u32).collect();
        FeatureView::new(cache, states, pieces, sample_start, MEMORY_BYTES)
    }

    /// Creates a view over states that were just computed and are in no cache, in the order of `layout`'s documents. A
    /// row of each state has `hidden` values of type `dtype`. Reading from memory cannot fail.
    pub fn from_shard(
        layout: &ShardLayout,
        states: Vec<StateRows>,
        hidden: usize,
        dtype: Dtype,
        pieces: Pieces,
        sample_start: Vec<u32>,
    ) -> Result<FeatureView<'static>> {
        debug_assert!(
            states.iter().all(|rows| rows.bytes.len()
                == layout.rows(rows.state.kind) * hidden * dtype.size_bytes())
        );
        let ids: Vec<StateId> = states.iter().map(|rows| rows.state).collect();
        let source = StateSource::Shard(states);
        FeatureView::of(&ids, hidden, dtype, pieces, sample_start, source, u64::MAX)
    }

    /// Creates a view over rows in memory, with one row of `n_features` values per sample.
    ///
    /// # Panics
    /// Panics if `bytes` is not a whole number of rows.
    pub fn from_bytes(
        state: StateId,
        n_features: usize,
        dtype: Dtype,
        bytes: Vec<u8>,
    ) -> FeatureView<'static> {
        let row_bytes = n_features * dtype.size_bytes();
        assert!(bytes.len().is_multiple_of(row_bytes), "states are whole rows");
        let n_samples = bytes.len() / row_bytes;
        let pieces = Pieces::rows_of_one_shard(n_samples);
        let sample_start = (0..=n_samples as u32).collect();
        let source = StateSource::Shard(vec![StateRows { state, bytes }]);
        FeatureView::of(&[state], n_features, dtype, pieces, sample_start, source, u64::MAX)
            .expect("rows in memory are read without an error")
    }

    fn of(
        states: &[StateId],
        hidden: usize,
        dtype: Dtype,
        pieces: Pieces,
        sample_start: Vec<u32>,
        source: StateSource<'c>,
        memory_bytes: u64,
    ) -> Result<FeatureView<'c>> {
        let mut view = FeatureView {
            states: states.to_vec(),
            hidden,
            dtype,
            pieces,
            sample_start,
            source,
            map: None,
            roles: None,
            n_layers: states.len(),
            row_start: Vec::new(),
            memory_bytes,
            resident: None,
        };
        view.count_rows();
        let all: Vec<u32> = (0..view.n_samples() as u32).collect();
        if view.stored_bytes(&all) <= memory_bytes {
            view.resident = Some(view.load(all)?);
        }
        Ok(view)
    }

    /// Groups the same rows into samples of `rows_of_sample` rows.
    #[cfg(test)]
    pub(crate) fn grouped(mut self, rows_of_sample: u32) -> FeatureView<'c> {
        let n_samples = self.n_rows() as u32 / rows_of_sample;
        self.sample_start = (0..=n_samples).map(|sample| sample * rows_of_sample).collect();
        self.count_rows();
        let all = (0..n_samples).collect();
        self.resident = Some(self.load(all).expect("rows in memory"));
        self
    }

    /// Returns the same samples with their rows mapped by `map`, after any map that they have.
    pub fn mapped(mut self, map: Box<dyn RowMap>) -> FeatureView<'c> {
        self.map = Some(match self.map.take() {
            None => map,
            Some(first) => Box::new(ChainedMaps { first, second: map }),
        });
        self.count_rows();
        self
    }

    /// Returns the same samples with their rows mapped by `map`, which makes one vector of all their states.
    pub(crate) fn mapped_to_one(self, map: Box<dyn RowMap>) -> FeatureView<'c> {
        FeatureView { n_layers: 1, ..self.mapped(map) }
    }

    fn count_rows(&mut self) {
        let mut total = 0;
        let mut row_start = Vec::with_capacity(self.n_samples() + 1);
        row_start.push(0);
        for sample in 0..self.n_samples() as u32 {
            let n_stored = self.n_stored(sample);
            let map = self.map.as_ref();
            total += map.map_or(n_stored, |map| map.n_rows(sample, n_stored));
            row_start.push(total);
        }
        self.row_start = row_start;
    }

    /// Returns the number of samples.
    pub fn n_samples(&self) -> usize {
        self.sample_start.len() - 1
    }

    /// Returns the number of rows of all samples.
    pub fn n_rows(&self) -> usize {
        *self.row_start.last().expect("a start for every sample")
    }

    /// Returns the range of a sample's rows among all rows of the view.
    pub fn rows_of(&self, sample: u32) -> Range<usize> {
        self.row_start[sample as usize]..self.row_start[sample as usize + 1]
    }

    /// Returns the number of values in a row.
    pub fn n_features(&self) -> usize {
        let n_stored = self.states.len() * self.hidden;
        let map = self.map.as_ref();
        map.map_or(n_stored, |map| map.n_features(n_stored))
    }

    /// Returns the number of layers that a head mixes.
    pub(crate) fn n_layers(&self) -> usize {
        self.n_layers
    }

    /// Returns whether all states are in memory.
    pub fn is_resident(&self) -> bool {
        self.resident.is_some()
    }

    fn n_stored(&self, sample: u32) -> usize {
        let pieces = self.pieces_of(sample);
        pieces.map(|piece| self.pieces.n_rows(piece)).sum()
    }

    fn pieces_of(&self, sample: u32) -> Range<usize> {
        let sample = sample as usize;
        self.sample_start[sample] as usize..self.sample_start[sample + 1] as usize
    }

    fn row_bytes(&self) -> usize {
        self.states.len() * self.hidden * self.dtype.size_bytes()
    }

    fn stored_bytes(&self, samples: &[u32]) -> u64 {
        let rows: usize = samples.iter().map(|sample| self.n_stored(*sample)).sum();
        rows as u64 * self.row_bytes() as u64
    }

    /// Returns the order of samples in an epoch (counted from 1), for batches of `batch` samples.
    ///
    /// In memory, this is a shuffle that depends only on the seed and the epoch. If the states are streamed, it also
    /// depends on which samples share a shard, see [`order`].
    pub fn epoch_order(&self, samples: &[u32], seed: u64, epoch: usize, batch: usize) -> Vec<u32> {
        if self.is_resident() {
            return order::shuffled(samples, seed, epoch);
        }
        let shards = self.by_shard(samples);
        let window = self.samples_at_a_time(samples, batch);
        order::by_shard(&shards, window, seed, epoch)
    }

    /// Returns samples in the order in which they are stored on disk, or unchanged if all are in memory.
    pub fn storage_order(&self, samples: &[u32]) -> Vec<u32> {
        if self.is_resident() {
            return samples.to_vec();
        }
        self.by_shard(samples).into_iter().flat_map(|shard| shard.samples).collect()
    }

    fn by_shard(&self, samples: &[u32]) -> Vec<order::ShardSamples> {
        let locations: Vec<_> = samples
            .iter()
            .map(|sample| self.pieces.place(self.pieces_of(*sample).start, 0))
            .collect();
        let groups = by_shard(&locations).into_iter();
        groups
            .map(|(_, places)| order::ShardSamples {
                samples: places.into_iter().map(|place| samples[place]).collect(),
            })
            .collect()
    }

    /// Returns the number of samples whose states are in memory at a time while an epoch is streamed: a whole number of
    /// batches, at least one, that take on average at most a quarter of `memory_bytes`.
    fn samples_at_a_time(&self, samples: &[u32], batch: usize) -> usize {
        let mean_bytes = self.stored_bytes(samples) / samples.len().max(1) as u64;
        let most = (self.memory_bytes / 4 / mean_bytes.max(1)) as usize;
        (most / batch * batch).max(batch)
    }

    /// Decodes the rows of loaded samples to f32 and maps them, on all threads: `[rows, n_features]`, sample by sample.
    ///
    /// # Panics
    /// Panics if a sample is not loaded.
    pub fn tile(&self, loaded: &LoadedStates, samples: &[u32]) -> Tile {
        self.tile_in(Vec::new(), loaded, samples, |_, _| {})
    }

    /// Does the same as [`FeatureView::tile`] in the memory of an earlier tile ([`Tile::into_buffer`]), and calls
    /// `each` with every row and its id while the row is in the processor's cache.
    ///
    /// # Panics
    /// Panics if a sample is not loaded.
    pub fn tile_in(
        &self,
        buffer: Vec<f32>,
        loaded: &LoadedStates,
        samples: &[u32],
        each: impl Fn(&mut [f32], u64) + Sync,
    ) -> Tile {
        // The other threads wait while one does this, so it is kept short.
        let mut starts = Vec::with_capacity(samples.len() + 1);
        let mut row_ids = Vec::with_capacity(samples.len());
        starts.push(0);
        for sample in samples {
            let first = u64::from(*sample) * ROWS_OF_SAMPLE;
            match self.rows_of(*sample).len() {
                1 => row_ids.push(first),
                n_rows => row_ids.extend(first..first + n_rows as u64),
            }
            starts.push(row_ids.len());
        }
        let n_features = self.n_features();
        let mut values = buffer;
        values.resize(row_ids.len() * n_features, 0.0);
        let mut parts = Vec::with_capacity(samples.len().div_ceil(SAMPLES_AT_A_TIME));
        let mut rest = &mut values[..];
        for first in (0..samples.len()).step_by(SAMPLES_AT_A_TIME) {
            let end = (first + SAMPLES_AT_A_TIME).min(samples.len());
            let length = (starts[end] - starts[first]) * n_features;
            let (part, others) = rest.split_at_mut(length);
            parts.push((first..end, part));
            rest = others;
        }
        parts.into_par_iter().for_each(|(places, mut out)| {
            let part = places.clone().map(|place| samples[place]);
            self.fetch(loaded, part);
            for place in places {
                let rows = starts[place]..starts[place + 1];
                let (own, others) = out.split_at_mut(rows.len() * n_features);
                self.decode(loaded, samples[place], own);
                for (row, id) in own.chunks_exact_mut(n_features).zip(&row_ids[rows]) {
                    each(row, *id);
                }
                out = others;
            }
        });
        let rows = Array2::from_shape_vec((row_ids.len(), n_features), values);
        Tile {
            rows: rows.expect("a value for each row and feature"),
            starts,
            row_ids,
            roles: self.roles_of(samples),
        }
    }

    /// Writes the mapped rows of a sample to `out`.
    fn decode(&self, loaded: &LoadedStates, sample: u32, out: &mut [f32]) {
        let bytes = self.stored(loaded, sample);
        match &self.map {
            None => self.dtype.decode(bytes, out),
            Some(map) => {
                let width = self.states.len() * self.hidden;
                let mut stored = Array2::zeros((bytes.len() / self.row_bytes(), width));
                let values = stored.as_slice_mut();
                let values = values.expect("a new array is contiguous");
                self.dtype.decode(bytes, values);
                let n_rows = self.rows_of(sample).len();
                let out = ArrayViewMut2::from_shape((n_rows, self.n_features()), out);
                map.map(sample, stored.view(), out.expect("the sample's rows"));
            }
        }
    }

    /// Visits samples in storage order, in tiles of at most `n_samples` samples and 4096 rows each (or of a single
    /// sample that has more rows).
    ///
    /// # Errors
    /// Returns an error if a file of the cache does not match the manifest.
    pub fn for_each_tile(
        &self,
        samples: &[u32],
        n_samples: usize,
        mut visit: impl FnMut(&[u32], Tile),
    ) -> Result<()> {
        self.for_each_part(samples, n_samples, |part, loaded| {
            visit(part, self.tile(loaded, part));
        })
    }

    /// Visits the samples of one tile of [`FeatureView::for_each_tile`] after another, loaded but not decoded.
    ///
    /// # Errors
    /// Returns an error if a file of the cache does not match the manifest.
    pub fn for_each_part(
        &self,
        samples: &[u32],
        n_samples: usize,
        mut visit: impl FnMut(&[u32], &LoadedStates),
    ) -> Result<()> {
        let order = self.storage_order(samples);
        for window in self.loads(&order, n_samples) {
            let (window, loaded) = window?;
            let mut rest = window;
            while !rest.is_empty() {
                let (part, others) = rest.split_at(self.n_in_tile(rest, n_samples));
                visit(part, &loaded);
                rest = others;
            }
        }
        Ok(())
    }

    /// Returns how many of the samples fit into one tile, at least 1.
    fn n_in_tile(&self, samples: &[u32], most: usize) -> usize {
        let mut n_rows = 0;
        let fitting = samples.iter().take(most).take_while(|sample| {
            n_rows += self.rows_of(**sample).len();
            n_rows <= TILE_ROWS
        });
        fitting.count().max(1)
    }

    /// Returns the rows of samples, `[rows, n_features]`, in order. The view must be in memory.
    ///
    /// # Panics
    /// Panics if the view is not in memory or a sample is out of range.
    pub fn decode_all(&self, samples: &[u32]) -> Array2<f32> {
        let loaded = self.resident.as_ref().expect("a view in memory");
        self.tile(loaded, samples).rows
    }
}

#[cfg(test)]
mod tests;

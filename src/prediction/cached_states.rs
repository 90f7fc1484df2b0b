//! Reads states that are already in a run's cache, so that they need not be computed for a prediction.

use std::collections::{HashMap, hash_map::Entry};

use frostbert_cache::{
    about::note_use,
    fingerprint::{FingerprintInputs, Key},
    index::Location,
    manifest::Manifest,
    reader::{CacheReader, rows_of},
    shard::{ShardLayout, StateRows},
    state_file::StateFile,
    states::{Alignment, StateId, StateKind},
};

use crate::{error::Result, extraction::embedder::EncodedTexts, prediction::saved_run::SavedRun};

/// The maximum number of documents in a cache that is read: loading its index takes 40 bytes and about 100 ns for each.
const MOST_DOCUMENTS: u64 = 10_000_000;

/// The maximum number of shards for states that have one row per word or token: the layouts of these shards are kept in
/// memory, at a few megabytes each.
const MOST_ALIGNED_SHARDS: usize = 64;

/// The states in a run's cache that its head reads.
pub(crate) struct CachedStates {
    cache: CacheReader,
    states: Vec<StateId>,
    /// The open files, by shard and state.
    files: HashMap<(u32, StateId), StateFile>,
    /// The positions of words and tokens in the shards that were read.
    layouts: HashMap<u32, ShardLayout>,
    /// The number of documents read so far.
    pub(crate) reused: u64,
    /// The number of those that were truncated.
    pub(crate) truncated: u64,
}

/// The location of each state of a document.
type StatePlaces = Vec<Location>;

impl CachedStates {
    /// Opens the cache of a run. Returns `None` if it no longer exists or is too large to be worth reading.
    ///
    /// # Errors
    /// Returns an error if the cache is damaged or was not made from these inputs.
    pub(crate) fn open(run: &SavedRun, inputs: &FingerprintInputs) -> Result<Option<CachedStates>> {
        let folder = run.pipeline.extraction.cache_dir.join(inputs.fingerprint());
        let states = run.description.states.clone();
        let Some(manifest) = Manifest::read(&folder)? else {
            return Ok(None);
        };
        let is_aligned = states.iter().any(|state| !matches!(state.kind, StateKind::Pooled(_)));
        if manifest.documents > MOST_DOCUMENTS
            || is_aligned && manifest.shards.len() > MOST_ALIGNED_SHARDS
        {
            return Ok(None);
        }
        let Some(cache) = CacheReader::open(&folder)? else {
            return Ok(None);
        };
        cache.manifest().require(&folder, inputs)?;
        note_use(&folder);
        Ok(Some(CachedStates {
            cache,
            states,
            files: HashMap::new(),
            layouts: HashMap::new(),
            reused: 0,
            truncated: 0,
        }))
    }

    /// Returns the locations of a document's states, or `None` if the cache lacks one of them.
    pub(crate) fn locate(&self, key: &Key) -> Option<StatePlaces> {
        self.states.iter().map(|state| self.cache.locate(key, *state)).collect()
    }

    /// Returns the states of documents in order. Documents with a place are read from the cache; the others are taken,
    /// one after another, from what was just encoded.
    ///
    /// # Errors
    /// Returns an error if a file of the cache does not match the manifest.
    pub(crate) fn join(
        &mut self,
        keys: &[Key],
        places: &[Option<StatePlaces>],
        encoded: &EncodedTexts,
    ) -> Result<EncodedTexts> {
        self.open_files(places)?;
        let mut layout = ShardLayout::default();
        let rows = self.states.iter().map(|state| StateRows { state: *state, bytes: Vec::new() });
        let mut states: Vec<StateRows> = rows.collect();
        let manifest = self.cache.manifest();
        let (hidden, row_bytes) = (manifest.hidden, manifest.hidden * manifest.dtype.size_bytes());
        let mut n_encoded = 0;
        for (key, places) in keys.iter().zip(places) {
            if let Some(places) = places {
                let truncated = self.cache.index().truncated(key) == Some(true);
                self.reused += 1;
                self.truncated += u64::from(truncated);
                self.push_cached(*key, truncated, places, &mut layout, &mut states);
                continue;
            }
            push(&mut layout, &encoded.layout, n_encoded, &self.states);
            for (own, encoded_rows) in states.iter_mut().zip(&encoded.states) {
                let rows = rows_of(&encoded.layout, own.state.kind, n_encoded);
                let bytes = rows.start * row_bytes..rows.end * row_bytes;
                own.bytes.extend_from_slice(&encoded_rows.bytes[bytes]);
            }
            n_encoded += 1;
        }
        Ok(EncodedTexts { layout, states, hidden })
    }

    /// Opens the files that documents are read from, each only once for all predictions.
    fn open_files(&mut self, places: &[Option<StatePlaces>]) -> Result<()> {
        let is_aligned = self.is_aligned();
        for places in places.iter().flatten() {
            for (state, (shard, _)) in self.states.iter().zip(places) {
                if let Entry::Vacant(file) = self.files.entry((*shard, *state)) {
                    file.insert(self.cache.open_state(*shard, *state)?);
                }
                if is_aligned && let Entry::Vacant(layout) = self.layouts.entry(*shard) {
                    layout.insert(self.cache.read_layout(*shard)?);
                }
            }
        }
        Ok(())
    }

    /// Returns whether the states have one row per word or token.
    fn is_aligned(&self) -> bool {
        self.states.iter().any(|state| !matches!(state.kind, StateKind::Pooled(_)))
    }

    fn push_cached(
        &self,
        key: Key,
        truncated: bool,
        places: &[Location],
        layout: &mut ShardLayout,
        states: &mut [StateRows],
    ) {
        let (shard, document) = places[0];
        match self.layouts.get(&shard) {
            Some(stored) => push(layout, stored, document as usize, &self.states),
            // A pooled state is a single row, however many windows the document had.
            None => layout.push(key, truncated, &[0], std::iter::empty(), &[]),
        }
        for (own, (shard, document)) in states.iter_mut().zip(places) {
            let file = &self.files[&(*shard, own.state)];
            let rows = match self.layouts.get(shard) {
                Some(stored) => rows_of(stored, own.state.kind, *document as usize),
                None => *document as usize..*document as usize + 1,
            };
            for row in file.rows(rows) {
                own.bytes.extend_from_slice(row);
            }
        }
    }
}

/// Appends a document of another layout, with as much of its alignment and words as these states need.
fn push(layout: &mut ShardLayout, other: &ShardLayout, document: usize, states: &[StateId]) {
    let needs = |kind: StateKind| states.iter().any(|state| state.kind == kind);
    let lengths: Vec<u32> = other.documents.lengths(document).collect();
    let alignment: Option<Alignment> =
        needs(StateKind::Tokens).then(|| other.alignment.part(other.documents.tokens(document)));
    let words = if needs(StateKind::Words) { &other.words[other.words_of(document)] } else { &[] };
    let (key, truncated) = (other.documents.key(document), other.documents.truncated(document));
    layout.push(key, truncated, &lengths, alignment.iter(), words);
}

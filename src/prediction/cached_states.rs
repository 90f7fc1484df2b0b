//! States that a run's cache has already, so that they need not be computed for a prediction.

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

/// Documents of a cache at most: reading where they all lie takes 40 bytes and some 100 ns for each of them.
const MOST_DOCUMENTS: u64 = 10_000_000;

/// Shards at most, of states that have a row for each word or token: where these lie is kept in memory, a few megabytes for
/// a shard.
const MOST_ALIGNED_SHARDS: usize = 64;

/// The states of a run's cache that its head reads.
pub(crate) struct CachedStates {
    cache: CacheReader,
    states: Vec<StateId>,
    /// The files that were opened, by shard and state.
    files: HashMap<(u32, StateId), StateFile>,
    /// Where words and tokens lie in the shards that were read.
    layouts: HashMap<u32, ShardLayout>,
    /// Documents so far that were read.
    pub(crate) reused: u64,
    /// Those of which the end was cut off.
    pub(crate) truncated: u64,
}

/// Where each of the states of a document lies.
type StatePlaces = Vec<Location>;

impl CachedStates {
    /// Opens the cache of a run; `None` where it is not there any more, or too large to be worth it.
    ///
    /// # Errors
    /// When it is damaged, or not of these inputs.
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

    /// Where the states of a document lie; `None` where the cache lacks one of them.
    pub(crate) fn locate(&self, key: &Key) -> Option<StatePlaces> {
        self.states.iter().map(|state| self.cache.locate(key, *state)).collect()
    }

    /// The states of documents in their order: of those that have a place those of the cache, of the others the next of
    /// what was just encoded.
    ///
    /// # Errors
    /// When a file of the cache is not what its manifest says.
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

    /// Opens what is read of some documents: each file once, for all that is predicted.
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

    /// Whether the states have a row for each word or token.
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
            // A pooled state is one row, whatever its windows were.
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

/// Adds a document of another layout, with what these states need of its alignment and its words.
fn push(layout: &mut ShardLayout, other: &ShardLayout, document: usize, states: &[StateId]) {
    let needs = |kind: StateKind| states.iter().any(|state| state.kind == kind);
    let lengths: Vec<u32> = other.documents.lengths(document).collect();
    let alignment: Option<Alignment> =
        needs(StateKind::Tokens).then(|| other.alignment.part(other.documents.tokens(document)));
    let words = if needs(StateKind::Words) { &other.words[other.words_of(document)] } else { &[] };
    let (key, truncated) = (other.documents.key(document), other.documents.truncated(document));
    layout.push(key, truncated, &lengths, alignment.iter(), words);
}

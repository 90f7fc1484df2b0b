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
    states::{Alignment, Dtype, StateId, StateKind},
};

use crate::{
    data::document::Document,
    error::{Error, Result},
    extraction::embedder::EncodedTexts,
    prediction::saved_run::SavedRun,
};

/// The maximum number of documents in a cache that is read: loading its index takes 40 bytes and about 100 ns for each.
const MOST_DOCUMENTS: u64 = 10_000_000;

/// The maximum number of shards for states that have one row per word or token: the layouts of these shards are kept in
/// memory, at a few megabytes each.
const MOST_ALIGNED_SHARDS: usize = 64;

/// The cache of a run, as far as it is used.
#[derive(Default)]
pub(crate) struct RunCache {
    states: Option<CachedStates>,
    /// Why it is not used, if it is damaged.
    problem: Option<String>,
}

impl RunCache {
    /// Opens the cache of a run. One that does not exist, is too large or is damaged is not used.
    pub(crate) fn open(run: &SavedRun, inputs: &FingerprintInputs) -> RunCache {
        match CachedStates::open(run, inputs) {
            Ok(states) => RunCache { states, problem: None },
            Err(error) => RunCache::damaged(&error),
        }
    }

    fn damaged(error: &Error) -> RunCache {
        RunCache { states: None, problem: Some(format!("{error}: texts are encoded again")) }
    }

    /// Returns the states of those documents that have all of theirs in the cache. A damaged cache is not used again:
    /// predictions do not need it.
    pub(crate) fn read(&mut self, documents: &[Document<'_>]) -> CachedPart {
        let Some(states) = &mut self.states else {
            return CachedPart::default();
        };
        let keys: Vec<Key> = documents.iter().map(|document| document.key()).collect();
        states.read(&keys).unwrap_or_else(|error| {
            *self = RunCache::damaged(&error);
            CachedPart::default()
        })
    }

    /// Why the cache is not used, if it is damaged.
    pub(crate) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Returns the number of documents that were read so far.
    pub(crate) fn reused(&self) -> u64 {
        self.states.as_ref().map_or(0, |states| states.reused)
    }

    /// Returns the number of those that were truncated.
    pub(crate) fn truncated(&self) -> u64 {
        self.states.as_ref().map_or(0, |states| states.truncated)
    }
}

/// The states in a run's cache that its head reads.
struct CachedStates {
    cache: CacheReader,
    states: Vec<StateId>,
    /// The open files, by shard and state.
    files: HashMap<(u32, StateId), StateFile>,
    /// The positions of words and tokens in the shards that were read.
    layouts: HashMap<u32, ShardLayout>,
    /// The number of documents read so far.
    reused: u64,
    /// The number of those that were truncated.
    truncated: u64,
}

/// The states of some documents, as far as a cache has them.
#[derive(Default)]
pub(crate) struct CachedPart {
    /// Which of the documents the cache has; empty if it has none.
    is_cached: Vec<bool>,
    /// These documents, in order.
    texts: EncodedTexts,
}

impl CachedPart {
    /// Whether the cache has none of the documents.
    pub(crate) fn is_empty(&self) -> bool {
        !self.is_cached.contains(&true)
    }

    /// Whether the cache has a document.
    pub(crate) fn has(&self, document: usize) -> bool {
        self.is_cached.get(document).copied().unwrap_or_default()
    }

    /// Returns the states of all documents, in order. `encoded` has those of the documents in `is_encoded`, among them
    /// all that the cache lacks; of its states, only the given ones are returned.
    pub(crate) fn join(
        self,
        states: &[StateId],
        encoded: &EncodedTexts,
        is_encoded: &[bool],
        dtype: Dtype,
    ) -> EncodedTexts {
        if self.is_cached.len() == is_encoded.len() && self.is_cached.iter().all(|has| *has) {
            return self.texts;
        }
        let hidden = encoded.hidden;
        let row_bytes = hidden * dtype.size_bytes();
        let mut joined = EncodedTexts {
            layout: ShardLayout::default(),
            states: states
                .iter()
                .map(|state| StateRows { state: *state, bytes: Vec::new() })
                .collect(),
            hidden,
        };
        let (mut n_cached, mut n_encoded) = (0, 0);
        for (document, is_encoded) in is_encoded.iter().enumerate() {
            let (texts, place) =
                if self.has(document) { (&self.texts, n_cached) } else { (encoded, n_encoded) };
            n_cached += usize::from(self.has(document));
            n_encoded += usize::from(*is_encoded);
            push(&mut joined.layout, &texts.layout, place, states);
            for own in &mut joined.states {
                let of_state = texts.states.iter().find(|rows| rows.state == own.state);
                let bytes = &of_state.expect("texts are encoded with every state").bytes;
                let rows = rows_of(&texts.layout, own.state.kind, place);
                own.bytes.extend_from_slice(&bytes[rows.start * row_bytes..rows.end * row_bytes]);
            }
        }
        joined
    }
}

/// The location of each state of a document.
type StatePlaces = Vec<Location>;

impl CachedStates {
    /// Opens the cache of a run. Returns `None` if it no longer exists or is too large to be worth reading.
    ///
    /// # Errors
    /// Returns an error if the cache is damaged or was not made from these inputs.
    fn open(run: &SavedRun, inputs: &FingerprintInputs) -> Result<Option<CachedStates>> {
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

    /// Returns the states of those documents that have all of theirs in the cache.
    ///
    /// # Errors
    /// Returns an error if a file of the cache does not match the manifest.
    fn read(&mut self, keys: &[Key]) -> Result<CachedPart> {
        let places: Vec<Option<StatePlaces>> = keys.iter().map(|key| self.locate(key)).collect();
        self.open_files(&places)?;
        let rows = self.states.iter().map(|state| StateRows { state: *state, bytes: Vec::new() });
        let mut texts = EncodedTexts {
            layout: ShardLayout::default(),
            states: rows.collect(),
            hidden: self.cache.manifest().hidden,
        };
        for (key, places) in keys.iter().zip(&places) {
            let Some(places) = places else { continue };
            let truncated = self.cache.index().truncated(key) == Some(true);
            self.reused += 1;
            self.truncated += u64::from(truncated);
            self.push_cached(*key, truncated, places, &mut texts.layout, &mut texts.states);
        }
        Ok(CachedPart { is_cached: places.iter().map(Option::is_some).collect(), texts })
    }

    /// Returns the locations of a document's states, or `None` if the cache lacks one of them.
    fn locate(&self, key: &Key) -> Option<StatePlaces> {
        self.states.iter().map(|state| self.cache.locate(key, *state)).collect()
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

//! What the cache still holds of a run's rows: how long they are, and their pooled states.

use std::collections::{BTreeMap, HashSet};

use frostbert_cache::{
    Cache,
    fingerprint::Key,
    manifest::Manifest,
    states::{Pooling, StateId, StateKind},
};
use ndarray::Array2;

use super::run_files::RunFiles;
use crate::{config::settings::prompts::train_prompts, data::document::Document};

/// Documents of a cache at most, so that a page takes no time.
const MOST_DOCUMENTS: u64 = 1_000_000;

/// Shards at most whose tables are read.
const MOST_SHARDS: usize = 500;

/// The cache of a run, with the keys of its rows.
pub(super) struct RunStates {
    cache: Cache,
    /// Of each row its document, or the first of its two.
    keys: Vec<Key>,
    /// Of each row its second document, where two are read apart.
    second: Option<Vec<Key>>,
    layers: Vec<usize>,
    own: Option<StateId>,
}

/// How long the distinct documents of a run are.
#[derive(Clone, Debug)]
pub(super) struct CachedLengths {
    /// Tokens of each, windows together.
    pub(super) tokens: Vec<u32>,
    /// Of how many the end was cut off.
    pub(super) cut: usize,
}

impl RunStates {
    /// Opens the cache of a run; `None` where it is gone, too large or damaged. A page can do without it.
    pub(super) fn open(run: &RunFiles) -> Option<RunStates> {
        // Vectors that the data brought with them are in no cache.
        run.lock.model.as_ref()?;
        let own = &run.lock.pipeline.cache.dir;
        let fingerprint = &run.lock.cache.fingerprint;
        let moved = run.places().of_cache(own, fingerprint);
        let folder = moved.as_ref().unwrap_or(own).join(fingerprint);
        let manifest = Manifest::read(&folder).ok()??;
        if manifest.documents > MOST_DOCUMENTS || manifest.shards.len() > MOST_SHARDS {
            return None;
        }
        let mut layers = run.head.layers.clone();
        layers.sort_unstable_by(|one, other| other.cmp(one));
        let own = run.head.states.iter().max_by_key(|state| state.layer).copied();
        let prompts = train_prompts(run.file());
        let prompt = prompts.text_pair.as_deref();
        let second = run.rows.texts("text_pair").filter(|_| run.head.pair);
        let second = second.map(|texts| {
            let texts = texts.into_iter().map(Option::unwrap_or_default);
            texts.map(|text| Document::of_text(prompt, text).key()).collect()
        });
        Some(RunStates {
            second,
            cache: Cache::open(&folder).ok()?,
            keys: run.rows.keys()?,
            layers,
            own: own.filter(|state| matches!(state.kind, StateKind::Pooled(_))),
        })
    }

    /// How long the documents are; `None` where the cache lacks one of them, or a file of it is damaged.
    pub(super) fn lengths(&self) -> Option<CachedLengths> {
        let reader = self.cache.reader();
        let mut seen = HashSet::new();
        let mut by_shard: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        let mut cut = 0;
        let keys = self.keys.iter().chain(self.second.iter().flatten());
        for key in keys.filter(|key| seen.insert(**key)) {
            let (shard, document) = reader.index().locations(key).next()?;
            by_shard.entry(shard).or_default().push(document);
            cut += usize::from(reader.index().truncated(key)?);
        }
        let mut tokens = Vec::new();
        for (shard, documents) in by_shard {
            let table = reader.read_documents(shard).ok()?;
            let length = |document: &u32| table.n_tokens_of(*document as usize) as u32;
            tokens.extend(documents.iter().map(length));
        }
        (!tokens.is_empty()).then_some(CachedLengths { tokens, cut })
    }

    /// A pooled state of some rows: the head's own, or one of its layers that the cache holds of all of them. Of two texts
    /// it is how far their states are apart, value by value.
    pub(super) fn pooled(&self, rows: &[usize]) -> Option<(StateId, Array2<f32>)> {
        let of_rows = |keys: &[Key]| rows.iter().map(|row| keys[*row]).collect::<Vec<Key>>();
        let first = of_rows(&self.keys);
        let second = self.second.as_deref().map(of_rows);
        let poolings = [Pooling::Mean, Pooling::Cls, Pooling::Max];
        let others = self
            .layers
            .iter()
            .flat_map(|layer| poolings.into_iter().map(|pooling| StateId::pooled(pooling, *layer)));
        let holds = |state: &StateId| {
            let mut keys = first.iter().chain(second.iter().flatten());
            keys.all(|key| self.cache.contains(key, *state))
        };
        let state = self.own.into_iter().chain(others).find(holds)?;
        let mut states = self.cache.rows(&first, state).ok()?;
        if let Some(second) = &second {
            states -= &self.cache.rows(second, state).ok()?;
            states.mapv_inplace(f32::abs);
        }
        Some((state, states))
    }
}

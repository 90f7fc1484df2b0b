//! The documents of a cache that some pipelines still need.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

use frostbert_cache::{
    fingerprint::Key,
    gc::{self, Collected},
    manifest::Manifest,
    progress::Progress,
};

use crate::{
    config::{file::CacheSection, settings::Pipeline},
    data::dataset::read_all,
    error::Result,
    extraction::extract::inputs_for,
};

/// The documents that pipelines need, by the fingerprints of the caches that hold them.
pub struct NeededDocuments {
    keys: HashMap<String, HashSet<Key>>,
    /// Whether everything is needed, because there is no pipeline.
    everything: bool,
    /// The size in tokens up to which small shards are merged: the largest `cache.shard_tokens` of the pipelines.
    shard_tokens: usize,
}

impl NeededDocuments {
    /// Reads the texts of every pipeline.
    ///
    /// # Errors
    /// Returns an error if a model or a data file is missing: nothing is dropped because something else is missing.
    pub fn by(pipelines: &[Pipeline], progress: &dyn Progress) -> Result<NeededDocuments> {
        let mut keys: HashMap<String, HashSet<Key>> = HashMap::new();
        for pipeline in pipelines.iter().flat_map(Pipeline::by_model) {
            let checkpoint = pipeline.extraction.checkpoint();
            let checkpoint = checkpoint.map_err(|error| pipeline.naming_model(error))?;
            progress.start("reading", None, "texts");
            let mut needed: HashSet<Key> = HashSet::new();
            for example in read_all(&pipeline.extraction.sources) {
                let example = example?;
                needed.extend(pipeline.extraction.documents(&example).map(|input| input.key()));
                progress.advance(1, 0);
            }
            progress.finish();
            for provider in ["cpu", "cuda"] {
                let fingerprint = inputs_for(&pipeline, &checkpoint, provider).fingerprint();
                keys.entry(fingerprint).or_default().extend(&needed);
            }
        }
        Ok(NeededDocuments {
            keys,
            everything: pipelines.is_empty(),
            shard_tokens: pipelines
                .iter()
                .map(|pipeline| pipeline.extraction.shard_tokens)
                .max()
                .unwrap_or(CacheSection::default().shard_tokens),
        })
    }

    fn keeps(&self, fingerprint: &str) -> impl Fn(&Key) -> bool {
        let keys = self.keys.get(fingerprint);
        move |key| self.everything || keys.is_some_and(|keys| keys.contains(key))
    }

    /// Returns what [`NeededDocuments::collect`] would drop from a cache.
    ///
    /// # Errors
    /// Returns an error if the cache is damaged.
    pub fn count(&self, cache: &Path, manifest: &Manifest) -> Result<Collected> {
        Ok(gc::count(cache, self.keeps(&manifest.fingerprint))?)
    }

    /// Drops from caches what is not needed, and merges small shards.
    ///
    /// # Errors
    /// Returns an error if another process writes to a cache, a cache is damaged, or a file cannot be written.
    pub fn collect(
        &self,
        caches: &[(PathBuf, Manifest)],
        progress: &dyn Progress,
    ) -> Result<Vec<Collected>> {
        let collect = |(path, manifest): &(PathBuf, Manifest)| {
            let keep = self.keeps(&manifest.fingerprint);
            Ok(gc::collect(path, keep, self.shard_tokens, progress)?)
        };
        caches.iter().map(collect).collect()
    }
}

//! Readers of a cache: they wait for no writer, see only what the manifest names, and check every file that they open.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use crate::{
    error::Result,
    fingerprint::Key,
    in_use::Reading,
    index::{DocumentIndex, Location},
    manifest::{Manifest, ShardEntry, no_cache},
    names,
    shard::{DocumentTable, ShardLayout},
    state_file::StateFile,
    states::{Alignment, StateId, StateKind},
    tables,
};

/// A cache that is open for reading.
pub struct CacheReader {
    folder: PathBuf,
    manifest: Manifest,
    index: DocumentIndex,
    /// None where the caller sees to it that nothing is replaced.
    _reading: Option<Reading>,
}

impl CacheReader {
    /// Opens a cache folder and reads which documents it holds; `None` where there is no cache.
    ///
    /// # Errors
    /// When the manifest or a table of documents is damaged.
    pub fn open(folder: &Path) -> Result<Option<CacheReader>> {
        // Before the manifest is read: what it names stays from then on.
        let reading = Reading::begin(folder);
        let Some(manifest) = Manifest::read(folder)? else {
            return Ok(None);
        };
        Ok(Some(CacheReader {
            _reading: Some(reading),
            folder: folder.to_path_buf(),
            index: DocumentIndex::read(folder, &manifest)?,
            manifest,
        }))
    }

    /// Opens a folder that must be a cache.
    ///
    /// # Errors
    /// [`crate::error::Error::Miss`] where it is none; else as [`CacheReader::open`].
    pub fn existing(folder: &Path) -> Result<CacheReader> {
        CacheReader::open(folder)?.ok_or_else(|| no_cache(folder))
    }

    /// Reads shards of a manifest that is in memory, without looking documents up.
    pub(crate) fn of(folder: &Path, manifest: &Manifest) -> CacheReader {
        CacheReader {
            folder: folder.to_path_buf(),
            manifest: manifest.clone(),
            index: DocumentIndex::default(),
            _reading: None,
        }
    }

    /// The cache folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the cache is.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where its documents lie.
    pub fn index(&self) -> &DocumentIndex {
        &self.index
    }

    /// Where this state of a document lies, if the cache has it: its shard, and the document's row there.
    pub fn locate(&self, key: &Key, state: StateId) -> Option<Location> {
        self.index
            .locations(key)
            .find(|(shard, _)| self.manifest.shards[*shard as usize].holds(state))
    }

    /// The manifest's entry of a shard.
    pub fn shard(&self, shard: u32) -> &ShardEntry {
        &self.manifest.shards[shard as usize]
    }

    /// Opens one state of a shard: rows as slices of the mapped file.
    ///
    /// # Errors
    /// [`crate::error::Error::Damage`] when the shard has no such state, or its file is not what the manifest says.
    pub fn open_state(&self, shard: u32, state: StateId) -> Result<StateFile> {
        let entry = self.shard(shard);
        let file = StateFile::open(&self.folder, &self.manifest, entry, state)?;
        if state.kind == StateKind::Words {
            tables::require_words(&self.folder, entry, file.n_rows())?;
        }
        Ok(file)
    }

    /// Reads the documents of a shard, and the words and the alignment of tokens where it has them.
    ///
    /// # Errors
    /// [`crate::error::Error::Damage`] when a file is not what the manifest says.
    pub fn read_layout(&self, shard: u32) -> Result<ShardLayout> {
        let entry = self.shard(shard);
        let has = |name: &str| entry.files.iter().any(|file| file.name == name);
        let documents = self.read_documents(shard)?;
        let alignment = if has(names::TOKENS_FILE) {
            tables::read_tokens(&self.folder, entry, &documents)?
        } else {
            Alignment::default()
        };
        let (words, word_start) = if has(names::WORDS_FILE) {
            tables::read_words(&self.folder, entry, &documents)?
        } else {
            (Vec::new(), Vec::new())
        };
        Ok(ShardLayout { documents, alignment, words, word_start })
    }

    /// Reads the documents of a shard.
    ///
    /// # Errors
    /// [`crate::error::Error::Damage`] when the table is not what the manifest says.
    pub fn read_documents(&self, shard: u32) -> Result<DocumentTable> {
        tables::read_documents(&self.folder, self.shard(shard))
    }

    /// Reads rows of one pooled state and shows each to `visit` with its place in `locations`, shard by shard.
    ///
    /// A shard's file is mapped, checked against its checksum, and read once.
    ///
    /// # Errors
    /// [`crate::error::Error::Damage`] when a file is not what the manifest says.
    pub fn read_rows(
        &self,
        state: StateId,
        locations: &[Location],
        mut visit: impl FnMut(usize, &[u8]),
    ) -> Result<()> {
        debug_assert!(matches!(state.kind, StateKind::Pooled(_)), "{state} has a row per document");
        for (shard, places) in by_shard(locations) {
            let file = self.open_state(shard, state)?;
            for place in places {
                visit(place, file.row(locations[place].1 as usize));
            }
        }
        Ok(())
    }
}

/// The places of `locations`, grouped by shard and sorted by row: files are opened once and read forward.
pub fn by_shard(locations: &[Location]) -> Vec<(u32, Vec<usize>)> {
    let mut order: Vec<usize> = (0..locations.len()).collect();
    order.sort_by_key(|place| locations[*place]);
    order
        .chunk_by(|a, b| locations[*a].0 == locations[*b].0)
        .map(|places| (locations[places[0]].0, places.to_vec()))
        .collect()
}

/// The rows of a document in the file of a state.
pub fn rows_of(layout: &ShardLayout, kind: StateKind, document: usize) -> Range<usize> {
    match kind {
        StateKind::Pooled(_) => document..document + 1,
        StateKind::Words => layout.words_of(document),
        StateKind::Tokens => {
            let tokens = layout.documents.tokens(document);
            tokens.start as usize..tokens.end as usize
        }
    }
}

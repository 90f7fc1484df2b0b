//! Readers of a cache: they never wait for a writer, see only what the manifest lists, and verify every file they open.

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
    /// `None` if the caller ensures that nothing is replaced.
    _reading: Option<Reading>,
}

impl CacheReader {
    /// Opens a cache folder and reads which documents it contains; returns `None` if it is not a cache.
    ///
    /// # Errors
    /// Returns an error if the manifest or a table of documents is damaged.
    pub fn open(folder: &Path) -> Result<Option<CacheReader>> {
        // Taken before the manifest is read, so that the files it lists stay from then on.
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
    /// Returns [`crate::error::Error::Miss`] if it is not one, and otherwise the errors of [`CacheReader::open`].
    pub fn existing(folder: &Path) -> Result<CacheReader> {
        CacheReader::open(folder)?.ok_or_else(|| no_cache(folder))
    }

    /// Creates a reader for the shards of a manifest in memory, which cannot look up documents.
    pub(crate) fn of(folder: &Path, manifest: &Manifest) -> CacheReader {
        CacheReader {
            folder: folder.to_path_buf(),
            manifest: manifest.clone(),
            index: DocumentIndex::default(),
            _reading: None,
        }
    }

    /// Creates a reader for the shards of a manifest in memory, whose folder no other process knows.
    ///
    /// # Errors
    /// Returns an error if a table of documents cannot be read.
    pub(crate) fn unshared(folder: &Path, manifest: Manifest) -> Result<CacheReader> {
        Ok(CacheReader {
            folder: folder.to_path_buf(),
            index: DocumentIndex::read(folder, &manifest)?,
            manifest,
            _reading: None,
        })
    }

    /// Returns the cache folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the manifest of the cache.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns the index of the documents' locations.
    pub fn index(&self) -> &DocumentIndex {
        &self.index
    }

    /// Returns the location of a document's state, if the cache has it: the shard, and the document's row there.
    pub fn locate(&self, key: &Key, state: StateId) -> Option<Location> {
        self.index
            .locations(key)
            .find(|(shard, _)| self.manifest.shards[*shard as usize].holds(state))
    }

    /// Returns the manifest's entry for a shard.
    pub fn shard(&self, shard: u32) -> &ShardEntry {
        &self.manifest.shards[shard as usize]
    }

    /// Opens one state of a shard, whose rows are slices of the memory-mapped file.
    ///
    /// # Errors
    /// Returns [`crate::error::Error::Damage`] if the shard has no such state, or if its file does not match the
    /// manifest.
    pub fn open_state(&self, shard: u32, state: StateId) -> Result<StateFile> {
        let entry = self.shard(shard);
        let file = StateFile::open(&self.folder, &self.manifest, entry, state)?;
        if state.kind == StateKind::Words {
            tables::require_words(&self.folder, entry, file.n_rows())?;
        }
        Ok(file)
    }

    /// Reads the documents of a shard and, if it has them, its words and the alignment of its tokens.
    ///
    /// # Errors
    /// Returns [`crate::error::Error::Damage`] if a file does not match the manifest.
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
    /// Returns [`crate::error::Error::Damage`] if the table does not match the manifest.
    pub fn read_documents(&self, shard: u32) -> Result<DocumentTable> {
        tables::read_documents(&self.folder, self.shard(shard))
    }

    /// Reads rows of one pooled state and passes each to `visit` with its index in `locations`, shard by shard.
    ///
    /// A shard's file is mapped, checked against its checksum, and read once.
    ///
    /// # Errors
    /// Returns [`crate::error::Error::Damage`] if a file does not match the manifest.
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

/// Returns the indices of `locations`, grouped by shard and sorted by row, so that files are opened once and read
/// forward.
pub fn by_shard(locations: &[Location]) -> Vec<(u32, Vec<usize>)> {
    let mut order: Vec<usize> = (0..locations.len()).collect();
    order.sort_by_key(|place| locations[*place]);
    order
        .chunk_by(|a, b| locations[*a].0 == locations[*b].0)
        .map(|places| (locations[places[0]].0, places.to_vec()))
        .collect()
}

/// Returns the rows of a document in the file of a state.
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

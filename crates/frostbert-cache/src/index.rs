//! The index of a cache's documents: 40 bytes per document, searched by bisection.

use std::path::Path;

use crate::{
    error::Result,
    file::damage,
    fingerprint::Key,
    manifest::{MANIFEST, Manifest},
    tables,
    wording::counted,
};

/// The location of a document: the number of its shard in the manifest, and its row there.
pub type Location = (u32, u32);

/// Every document of a cache, sorted by key. A document occurs more than once if states that were added later could not
/// go to its own shard.
#[derive(Default)]
pub struct DocumentIndex {
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    key: Key,
    shard: u32,
    /// The row, with the highest bit set if the document was truncated.
    row: u32,
}

const TRUNCATED: u32 = 1 << 31;

impl DocumentIndex {
    /// Reads the tables of documents of all shards.
    ///
    /// # Errors
    /// Returns an error if one of them is damaged, or if their total number of documents differs from the manifest's.
    pub fn read(folder: &Path, manifest: &Manifest) -> Result<DocumentIndex> {
        let index = DocumentIndex::read_uncounted(folder, manifest)?;
        let got = (manifest.documents, manifest.truncated);
        let expected = (index.n_documents(), index.n_truncated());
        if got == expected {
            Ok(index)
        } else {
            Err(damage(
                &folder.join(MANIFEST),
                &format!(
                    "{}, {} of them truncated, as in its shards",
                    counted(expected.0, "document"),
                    expected.1
                ),
                format!("{}, {}", got.0, got.1),
            ))
        }
    }

    /// Does the same as [`DocumentIndex::read`], but ignores the manifest's number of documents.
    ///
    /// # Errors
    /// Returns an error if a table is damaged.
    pub(crate) fn read_uncounted(folder: &Path, manifest: &Manifest) -> Result<DocumentIndex> {
        let mut entries = Vec::new();
        for (shard, entry) in manifest.shards.iter().enumerate() {
            let table = tables::read_documents(folder, entry)?;
            entries.extend((0..table.len()).map(|row| Entry {
                key: table.key(row),
                shard: shard as u32,
                row: row as u32 | if table.truncated(row) { TRUNCATED } else { 0 },
            }));
        }
        entries.sort_unstable();
        Ok(DocumentIndex { entries })
    }

    /// Builds an index of documents that are in no file.
    #[cfg(test)]
    pub(crate) fn with(documents: impl Iterator<Item = (Key, Location)>) -> DocumentIndex {
        let entries = documents.map(|(key, (shard, row))| Entry { key, shard, row });
        let mut entries: Vec<Entry> = entries.collect();
        entries.sort_unstable();
        DocumentIndex { entries }
    }

    /// Returns all locations of a document, sorted by shard.
    pub fn locations(&self, key: &Key) -> impl Iterator<Item = Location> + '_ {
        self.of(key).iter().map(|entry| (entry.shard, entry.row & !TRUNCATED))
    }

    /// Returns whether a document was truncated; `None` if the cache does not contain it.
    pub fn truncated(&self, key: &Key) -> Option<bool> {
        self.of(key).first().map(|entry| entry.row & TRUNCATED != 0)
    }

    /// Returns the number of distinct documents.
    pub fn n_documents(&self) -> u64 {
        self.entries.chunk_by(|a, b| a.key == b.key).count() as u64
    }

    fn n_truncated(&self) -> u64 {
        let documents = self.entries.chunk_by(|a, b| a.key == b.key);
        documents.filter(|same| same[0].row & TRUNCATED != 0).count() as u64
    }

    /// Returns every document once, sorted by key, with its first location.
    pub fn documents(&self) -> impl Iterator<Item = (Key, Location)> + '_ {
        self.entries
            .chunk_by(|a, b| a.key == b.key)
            .map(|same| (same[0].key, (same[0].shard, same[0].row & !TRUNCATED)))
    }

    fn of(&self, key: &Key) -> &[Entry] {
        let start = self.entries.partition_point(|entry| entry.key < *key);
        let same = self.entries[start..].iter().take_while(|entry| entry.key == *key);
        &self.entries[start..start + same.count()]
    }
}

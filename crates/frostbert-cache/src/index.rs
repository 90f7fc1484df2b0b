//! Where each document of a cache lies: 40 bytes a document, found by binary search.

use std::path::Path;

use crate::{
    error::Result,
    file::damage,
    fingerprint::Key,
    manifest::{MANIFEST, Manifest},
    tables,
    wording::counted,
};

/// Where a document lies: the number of its shard in the manifest, and its row there.
pub type Location = (u32, u32);

/// Every document of a cache, sorted by key. A document stands in it more than once where states that were added later
/// could not go to its own shard.
#[derive(Default)]
pub struct DocumentIndex {
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    key: Key,
    shard: u32,
    /// The row, and in the highest bit whether the document's end was cut off.
    row: u32,
}

const TRUNCATED: u32 = 1 << 31;

impl DocumentIndex {
    /// Reads the tables of documents of every shard.
    ///
    /// # Errors
    /// When one of them is damaged, or together they hold another number of documents than the manifest says.
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
                    "{}, {} of them truncated, as its shards hold",
                    counted(expected.0, "document"),
                    expected.1
                ),
                format!("{}, {}", got.0, got.1),
            ))
        }
    }

    /// As [`DocumentIndex::read`], whatever the manifest says of how many documents there are.
    ///
    /// # Errors
    /// When a table is damaged.
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

    /// The index of documents that lie in no file.
    #[cfg(test)]
    pub(crate) fn with(documents: impl Iterator<Item = (Key, Location)>) -> DocumentIndex {
        let entries = documents.map(|(key, (shard, row))| Entry { key, shard, row });
        let mut entries: Vec<Entry> = entries.collect();
        entries.sort_unstable();
        DocumentIndex { entries }
    }

    /// Everywhere that a document lies, by shard.
    pub fn locations(&self, key: &Key) -> impl Iterator<Item = Location> + '_ {
        self.of(key).iter().map(|entry| (entry.shard, entry.row & !TRUNCATED))
    }

    /// Whether the end of a document was cut off; `None` where the cache does not have it.
    pub fn truncated(&self, key: &Key) -> Option<bool> {
        self.of(key).first().map(|entry| entry.row & TRUNCATED != 0)
    }

    /// Distinct documents.
    pub fn n_documents(&self) -> u64 {
        self.entries.chunk_by(|a, b| a.key == b.key).count() as u64
    }

    fn n_truncated(&self) -> u64 {
        let documents = self.entries.chunk_by(|a, b| a.key == b.key);
        documents.filter(|same| same[0].row & TRUNCATED != 0).count() as u64
    }

    /// Every document once, by key, with the first place where it lies.
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

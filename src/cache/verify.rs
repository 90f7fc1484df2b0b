//! Whether a cache is whole, and what to do where it is not.

use std::path::{Path, PathBuf};

use super::{
    file::checked_bytes,
    index::DocumentIndex,
    manifest::{Manifest, ShardEntry},
    tables,
    writer::{remove_leftovers, take_lock},
};
use crate::error::Result;

/// Checks every file of a cache and returns the names of those that are damaged or missing, as `shard/file`.
pub fn damaged_files(folder: &Path, manifest: &Manifest) -> Vec<PathBuf> {
    let files = manifest
        .shards
        .iter()
        .flat_map(|entry| entry.files.iter().map(move |file| (entry, file)));
    files
        .filter(|(entry, file)| checked_bytes(folder, entry, &file.name).is_err())
        .map(|(entry, file)| Path::new(&entry.name).join(&file.name))
        .collect()
}

/// Drops every shard with one of the files that [`damaged_files`] found, so that the next extraction computes its
/// documents again. Returns the names of what was dropped.
///
/// # Errors
/// When another process writes to the cache, or the disk refuses.
pub fn repair(folder: &Path, damaged: &[PathBuf]) -> Result<Vec<String>> {
    let _lock = take_lock(folder)?;
    let Some(mut manifest) = Manifest::read(folder)? else {
        return Ok(Vec::new());
    };
    // A writer may have come before the lock: only what is damaged still, and still of the cache, counts.
    let is_damaged = |entry: &ShardEntry| {
        let mut files = entry.files.iter();
        files.any(|file| {
            damaged.contains(&Path::new(&entry.name).join(&file.name))
                && checked_bytes(folder, entry, &file.name).is_err()
        })
    };
    let (dropped, kept): (Vec<ShardEntry>, Vec<ShardEntry>) =
        manifest.shards.into_iter().partition(is_damaged);
    manifest.shards = kept;
    if !dropped.is_empty() {
        recount(folder, &mut manifest)?;
        manifest.write(folder)?;
        remove_leftovers(folder, &manifest)?;
    }
    Ok(dropped.into_iter().map(|entry| entry.name).collect())
}

/// Counts the documents, tokens and truncated documents of the shards that a manifest names, each document once.
///
/// # Errors
/// When a table of documents is damaged.
fn recount(folder: &Path, manifest: &mut Manifest) -> Result<()> {
    let index = DocumentIndex::read(folder, manifest)?;
    let (mut documents, mut tokens, mut truncated) = (0, 0, 0);
    let mut places: Vec<_> = index.documents().map(|(_, place)| place).collect();
    places.sort_unstable();
    for same in places.chunk_by(|a, b| a.0 == b.0) {
        let entry = &manifest.shards[same[0].0 as usize];
        let table = tables::read_documents(folder, entry)?;
        for (_, row) in same {
            documents += 1;
            tokens += table.n_tokens_of(*row as usize);
            truncated += u64::from(table.truncated(*row as usize));
        }
    }
    (manifest.documents, manifest.tokens, manifest.truncated) = (documents, tokens, truncated);
    Ok(())
}

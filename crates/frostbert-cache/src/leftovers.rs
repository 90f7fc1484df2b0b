//! Finds and removes what killed writers leave in a cache folder, recognised by names that only this program gives.
//! Links are never followed, and other files that somebody put into the folder are kept.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    about::{ABOUT_FILE, TOKENIZER_FILE},
    durable::remove_file,
    error::{Error, Result},
    manifest::{MANIFEST, Manifest, shard_number},
    names::{self, LOCK_FILE, is_batch_log, is_plan},
    states::StateId,
};

/// The name prefix of files and folders that are being written.
const ASIDE: &str = "tmp-";

/// Removes what a killed writer left: temporary files, and shards and files of shards that are not in the manifest.
///
/// # Errors
/// Returns an error if a shard is a link or a file cannot be removed.
pub(crate) fn remove_leftovers(folder: &Path, manifest: &Manifest) -> Result<()> {
    refuse_linked_shards(folder, manifest)?;
    for path in list(folder)? {
        let name = file_name(&path);
        if let Some(entry) = manifest.shards.iter().find(|shard| shard.name == name) {
            for file in list(&path)? {
                let name = file_name(&file);
                let is_named = entry.files.iter().any(|known| known.name == name);
                if !is_named && is_of_a_shard(&name) {
                    remove_file(&file)?;
                }
            }
        } else if is_leftover(&name) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Removes the logs of every extraction from a cache folder.
///
/// # Errors
/// Returns an error if the folder cannot be listed or a file cannot be removed.
pub(crate) fn remove_batch_logs(folder: &Path) -> Result<()> {
    for path in list(folder)? {
        if is_batch_log(&file_name(&path)) && (path.is_symlink() || !path.is_dir()) {
            remove_file(&path)?;
        }
    }
    Ok(())
}

/// Removes a cache that has no content left: its files and, unless it contains anything else, its folder.
///
/// # Errors
/// Returns an error if a file cannot be removed.
pub(crate) fn remove_cache(folder: &Path) -> Result<()> {
    // The lock last: it is held until then.
    for name in [MANIFEST, ABOUT_FILE, TOKENIZER_FILE, LOCK_FILE] {
        remove_file(&folder.join(name))?;
    }
    remove_folder(folder)
}

/// Returns an error if a shard in the manifest is a link, because writing to it or removing it would affect another
/// place.
///
/// # Errors
/// Returns [`Error::Damage`].
fn refuse_linked_shards(folder: &Path, manifest: &Manifest) -> Result<()> {
    let mut paths = manifest.shards.iter().map(|entry| folder.join(&entry.name));
    match paths.find(|path| path.is_symlink()) {
        None => Ok(()),
        Some(path) => Err(Error::Damage {
            expected: "a folder".into(),
            got: "a link".into(),
            hint: "put the shard's own folder in its place, or remove the link and run `frostbert cache verify --repair`, which \
                   drops the shard"
                .into(),
            path,
        }),
    }
}

/// Returns whether this program gives the name to something unfinished or to a shard, which is a leftover if no
/// manifest lists it.
fn is_leftover(name: &str) -> bool {
    match name.strip_prefix(ASIDE) {
        Some(name) => {
            let files = [MANIFEST, ABOUT_FILE, TOKENIZER_FILE];
            shard_number(name).is_some() || files.contains(&name) || is_plan(name)
        }
        None => shard_number(name).is_some(),
    }
}

/// Returns whether this program gives the name to a file of a shard.
fn is_of_a_shard(name: &str) -> bool {
    let name = name.strip_prefix(ASIDE).unwrap_or(name);
    let is_state = |state: StateId| names::state_file_name(state) == name;
    [names::DOCUMENTS_FILE, names::TOKENS_FILE, names::WORDS_FILE].contains(&name)
        || name.strip_suffix(".parquet").and_then(|state| state.parse().ok()).is_some_and(is_state)
}

/// Removes a leftover: a file, a link, or a folder with the files of a shard.
fn remove(path: &Path) -> Result<()> {
    if path.is_symlink() || !path.is_dir() {
        return remove_file(path);
    }
    for file in list(path)? {
        if is_of_a_shard(&file_name(&file)) {
            remove_file(&file)?;
        }
    }
    remove_folder(path)
}

/// Removes a folder, unless it contains files that are not ours or is a link to another folder.
fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir(path) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(())
        }
        other => other.map_err(Error::io("remove", path)),
    }
}

fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(Error::io("list", folder))
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

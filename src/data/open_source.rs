//! Opens what a source names: a file, or a folder of files.

use std::path::Path;

use frostbert_cache::fingerprint::{self, Digest};

use super::{
    open_file::OpenFile,
    source::{Format, Source},
    text_folder::TextFolder,
};
use crate::error::Result;

/// An open source.
pub(super) enum OpenSource {
    File(OpenFile),
    Folder(TextFolder),
}

impl OpenSource {
    pub(super) fn open(source: &Source) -> Result<OpenSource> {
        match source.resolve_format()? {
            Format::Folder => Ok(OpenSource::Folder(TextFolder::list(&source.path)?)),
            _ => Ok(OpenSource::File(OpenFile::open(&source.path)?)),
        }
    }

    /// Computes the BLAKE3 hash of all that is read.
    pub(super) fn blake3(&mut self) -> Result<Digest> {
        match self {
            OpenSource::File(file) => file.blake3(),
            OpenSource::Folder(folder) => folder.blake3(),
        }
    }
}

/// Returns the digest of a data file or folder as it is now; `None` if it does not exist.
///
/// # Errors
/// Returns an error if it cannot be read.
pub(crate) fn hash_of_path(path: &Path) -> Result<Option<Digest>> {
    if path.is_dir() {
        TextFolder::list(path)?.blake3().map(Some)
    } else if path.is_file() {
        Ok(Some(fingerprint::hash_file(path)?))
    } else {
        Ok(None)
    }
}

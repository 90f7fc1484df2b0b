//! Vectors that the rows of a dataset bring with them, laid out for stage 2 like the states of a cache.

use std::{collections::HashSet, path::Path};

use frostbert_cache::{
    fingerprint::Key, reader::CacheReader, states::StateId, vectors::VectorWriter,
};

use crate::{
    data::{Source, dataset::read_all},
    error::{Error, Result},
};

/// The vectors of a dataset's rows, in files of a temporary folder that goes with this value. They are read like the
/// states of a cache: all at once if they fit into memory, else shard by shard.
pub(crate) struct GivenVectors {
    /// Dropped before its folder.
    cache: CacheReader,
    _folder: tempfile::TempDir,
}

impl GivenVectors {
    /// Reads the vectors of documents from the sources that the dataset was read from.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read or has changed since, or if the folder cannot be written.
    pub(crate) fn read(sources: &[Source], state: StateId, keys: &[Key]) -> Result<GivenVectors> {
        let folder = tempfile::Builder::new().prefix("frostbert-vectors-").tempdir();
        let folder = folder.map_err(Error::io("create a folder in", std::env::temp_dir()))?;
        let mut wanted: HashSet<Key> = keys.iter().copied().collect();
        let mut writer: Option<VectorWriter> = None;
        for record in read_all(sources) {
            let Some(vector) = record?.vector else { continue };
            if wanted.remove(&vector.key) {
                let new = || VectorWriter::new(folder.path(), state, vector.width());
                writer.get_or_insert_with(new).push(vector.key, &vector.bytes)?;
            }
        }
        match writer {
            Some(writer) if wanted.is_empty() => {
                Ok(GivenVectors { cache: writer.finish()?, _folder: folder })
            }
            _ => Err(changed(&sources[0].path)),
        }
    }

    /// Returns the reader of the vectors.
    pub(crate) fn cache(&self) -> &CacheReader {
        &self.cache
    }
}

/// The error for a file that does not hold the vectors any more whose labels were read.
fn changed(path: &Path) -> Error {
    Error::Record {
        path: path.to_path_buf(),
        line: None,
        expected: "the vectors that were there when the labels were read".to_owned(),
        got: "a file that has changed since".to_owned(),
        hint: "run the command again when whatever writes the file has finished".to_owned(),
    }
}

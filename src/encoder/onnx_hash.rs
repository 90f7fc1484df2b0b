//! The files of a model.onnx: where its external data is, and their hash.

use std::path::{Component, Path, PathBuf};

use frostbert_cache::fingerprint::{self, Digest, Stamp};

use super::onnx_file::{self, OnnxFile, refuse};
use crate::error::Result;

/// Returns the files that hold a model.onnx's external data, sorted by path, whether or not they exist.
///
/// # Errors
/// Returns an error if a path points outside the folder.
pub(super) fn data_files(path: &Path, file: &OnnxFile) -> Result<Vec<PathBuf>> {
    let data_file = |name: &String| {
        let inside = Path::new(name)
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !inside {
            return Err(refuse(
                path,
                "external data next to the model".into(),
                format!("the path `{name}`"),
                "export the model again, with its data in the same folder",
            ));
        }
        Ok(path.with_file_name(name))
    };
    file.external.iter().map(data_file).collect()
}

/// The files of a model.onnx as they were when hashed.
pub(super) struct HashedFiles {
    /// The blake3 of model.onnx; if there is external data, the blake3 of the hashes of model.onnx and of each such
    /// file, sorted by path.
    pub(super) blake3: Digest,
    stamps: Vec<(PathBuf, Stamp)>,
}

impl HashedFiles {
    /// Returns an error if one of the files was modified or replaced since it was hashed, because ONNX Runtime reads
    /// them itself.
    pub(super) fn require_unchanged(&self) -> Result<()> {
        for (path, stamp) in &self.stamps {
            if Stamp::of(path)? != *stamp {
                return Err(refuse(
                    path,
                    "a file that does not change while the model is loaded".into(),
                    "one that has changed or was replaced meanwhile".into(),
                    "run the command again when whatever writes the model has finished",
                ));
            }
        }
        Ok(())
    }
}

/// Reads the declarations of a model.onnx and hashes it with its external data.
///
/// # Errors
/// Returns an error if a file is missing or is not an ONNX model.
pub(super) fn read_and_hash(path: &Path) -> Result<(OnnxFile, HashedFiles)> {
    // Taken before parsing, so that the parsed, hashed and loaded files are known to be the same.
    let mut stamps = vec![(path.to_path_buf(), Stamp::of(path)?)];
    let file = onnx_file::read(path)?;
    let model = fingerprint::hash_file(path)?;
    let mut hashes = model.to_string();
    for data in data_files(path, &file)? {
        if !data.is_file() {
            return Err(refuse(
                &data,
                "a file, because model.onnx keeps weights in it".into(),
                "no such file".into(),
                "put the external data next to model.onnx, under the name that it had when the model was exported",
            ));
        }
        stamps.push((data.clone(), Stamp::of(&data)?));
        hashes.push_str(&fingerprint::hash_file(&data)?.to_string());
    }
    let blake3 = match stamps.len() {
        1 => model,
        _ => fingerprint::hash_bytes(hashes.as_bytes()),
    };
    Ok((file, HashedFiles { blake3, stamps }))
}

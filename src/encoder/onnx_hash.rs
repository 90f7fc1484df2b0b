//! The files of a model.onnx: where its external data lies, and what they hash to.

use std::path::{Component, Path, PathBuf};

use frostbert_cache::fingerprint::{self, Digest, Stamp};

use super::onnx_file::{self, OnnxFile, refuse};
use crate::error::Result;

/// The files that hold a model.onnx's external data, in order of their paths, there or not.
///
/// # Errors
/// When one is said to lie outside the folder.
pub(super) fn data_files(path: &Path, file: &OnnxFile) -> Result<Vec<PathBuf>> {
    let data_file = |name: &String| {
        let inside = Path::new(name)
            .components()
            .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
        if !inside {
            return Err(refuse(
                path,
                "external data beside the model".into(),
                format!("the path `{name}`"),
                "export the model again, with its data in the same folder",
            ));
        }
        Ok(path.with_file_name(name))
    };
    file.external.iter().map(data_file).collect()
}

/// The files of a model.onnx as they were hashed.
pub(super) struct HashedFiles {
    /// The blake3 of model.onnx; with external data, of the hashes of model.onnx and of each such file, in order of their
    /// paths.
    pub(super) blake3: Digest,
    stamps: Vec<(PathBuf, Stamp)>,
}

impl HashedFiles {
    /// Fails where one of the files was written to, or replaced, since it was hashed: ONNX Runtime reads them itself.
    pub(super) fn require_unchanged(&self) -> Result<()> {
        for (path, stamp) in &self.stamps {
            if Stamp::of(path)? != *stamp {
                return Err(refuse(
                    path,
                    "a file that stays as it is while the model is loaded".into(),
                    "one that was written to, or replaced, meanwhile".into(),
                    "run the command again when whatever writes the model has finished",
                ));
            }
        }
        Ok(())
    }
}

/// Reads what model.onnx says of itself, and hashes it and its external data.
///
/// # Errors
/// When a file is missing, or is no ONNX model.
pub(super) fn read_and_hash(path: &Path) -> Result<(OnnxFile, HashedFiles)> {
    // Before it is parsed: what is parsed, hashed and loaded has to be one file.
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
                "put the external data beside model.onnx, under the name that it had when the model was exported",
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

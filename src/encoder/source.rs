//! Where a checkpoint folder came from (`source.json`), and whether its files are still those that were fetched.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
};

use frostbert_cache::{fingerprint, mmap};
use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    checkpoint::{WeightsFile, find_weights},
    onnx_file, onnx_hash, onnx_model,
    sentence_files::{MODEL_SETTINGS, MODULES},
    sentence_folder::{SentenceFolder, encoder_folder},
    tokenizer::TextTokenizer,
    tokenizer_parts,
    torch_file::TorchFile,
    weights,
    windows::Overflow,
};
use crate::error::{Error, Result};

/// The file in a pulled folder that records where it came from.
pub(crate) const SOURCE: &str = "source.json";

/// The record that `frostbert model pull` writes next to the files that it fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelSource {
    /// The repository on the hub, as `owner/name`.
    pub repository: String,
    /// The commit that the revision resolved to, as 40 hexadecimal digits.
    pub revision: String,
    /// The files by name in the folder.
    pub files: BTreeMap<String, SourceFile>,
}

/// A fetched file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// The length in bytes.
    pub size: u64,
    /// The SHA-256 as 64 hexadecimal digits.
    pub sha256: String,
}

impl ModelSource {
    /// Reads a folder's `source.json`; returns `None` if there is none.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or is not what a pull writes.
    pub fn read(folder: &Path) -> Result<Option<ModelSource>> {
        let path = folder.join(SOURCE);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        let refuse = |got: String| Error::Checkpoint {
            path: path.clone(),
            expected: "what `frostbert model pull` writes".into(),
            got,
            hint: "remove the folder and pull the model again".into(),
        };
        let source: ModelSource = serde_json::from_slice(&bytes)
            .map_err(|error| refuse(format!("a file that cannot be parsed: {error}")))?;
        // Files of these names are read, and a later pull removes them.
        let inside = |name: &String| {
            let mut parts = Path::new(name).components();
            !name.is_empty() && parts.all(|part| matches!(part, Component::Normal(_)))
        };
        if let Some(name) = source.files.keys().find(|name| !inside(name)) {
            let got = format!("the file `{name}`, which is outside the folder");
            return Err(refuse(got));
        }
        Ok(Some(source))
    }
}

/// Returns the SHA-256 of a file as 64 hexadecimal digits.
///
/// # Errors
/// Returns an error if the file cannot be read.
pub(crate) fn sha256_of_file(path: &Path) -> Result<String> {
    Ok(hex(&Sha256::digest(mmap::map(path)?)))
}

/// Formats bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The result of [`verify`] for a folder.
#[derive(Clone, Debug)]
pub struct Verified {
    /// The record that the files were compared with; `None` if their hashes were not recorded.
    pub source: Option<ModelSource>,
    /// All files that were checked, sorted by name.
    pub files: Vec<VerifiedFile>,
}

/// A file of a checkpoint folder.
#[derive(Clone, Debug)]
pub struct VerifiedFile {
    /// The path at which the file is expected.
    pub path: PathBuf,
    /// The blake3 of the file, if there is no recorded hash to compare with.
    pub blake3: Option<fingerprint::Digest>,
    /// What is wrong with the file, if anything.
    pub damage: Option<String>,
}

/// Files that accompany a tokenizer; fetched and checked if they exist.
pub(super) const COMPANIONS: [&str; 3] =
    ["tokenizer_config.json", "special_tokens_map.json", "vocab.txt"];

/// Checks every file of a checkpoint folder: those of its pull and those that an extraction would read.
///
/// With a `source.json`, sizes and SHA-256 sums are compared. In any case, config.json must be JSON, tokenizer.json (or
/// the vocabulary in its place) must open, and the weights that
/// [`Checkpoint::open`](super::checkpoint::Checkpoint::open) would use must exist and be complete: every shard of an
/// index, a safetensors file of the length that its header gives, a pytorch_model.bin whose tensors are inside the file,
/// a model.onnx with its external data. Only a folder without a model.onnx needs a config.json. In a
/// sentence-transformers folder, all of these lie in the folder of the first module, and its list of modules, its
/// settings, and the settings and weights of the other modules are checked too.
///
/// # Errors
/// Returns an error if the folder cannot be listed. Damage is not an error but part of the result.
pub fn verify(folder: &Path) -> Result<Verified> {
    fs::read_dir(folder).map_err(Error::io("list", folder))?;
    let encoder = encoder_folder(folder).unwrap_or_else(|_| folder.to_path_buf());
    let prefix = encoder.strip_prefix(folder).unwrap_or(Path::new(""));
    let inside = |name: &str| prefix.join(name).to_string_lossy().into_owned();
    let plain = |name: &str| {
        let plain = Path::new(name).strip_prefix(prefix).unwrap_or(Path::new(name));
        plain.to_string_lossy().into_owned()
    };
    let there = |name: &&str| encoder.join(name).exists();
    let mut names: BTreeSet<String> = BTreeSet::new();
    if there(&"tokenizer.json") || !tokenizer_parts::exist(&encoder) {
        names.insert(inside("tokenizer.json"));
    } else {
        let vocabularies = tokenizer_parts::VOCABULARIES.into_iter().chain(tokenizer_parts::BESIDE);
        names.extend(vocabularies.filter(there).map(inside));
    }
    names.extend(COMPANIONS.into_iter().filter(there).map(inside));
    if there(&"config.json") || onnx_model::find(&encoder).is_none() {
        names.insert(inside("config.json"));
    }
    let of_folder = [MODULES, MODEL_SETTINGS].into_iter();
    names.extend(of_folder.filter(|name| folder.join(name).exists()).map(String::from));
    // A list that cannot be read is itself reported as damaged.
    if let Ok(Some(sentence)) = SentenceFolder::read(folder) {
        names.extend(sentence.files_of_modules().iter().map(|path| name_in(folder, path)));
    }
    let mut damaged_source = None;
    let source = ModelSource::read(folder).unwrap_or_else(|error| {
        damaged_source = Some(error.to_string());
        None
    });
    if let Some(source) = &source {
        names.extend(source.files.keys().cloned());
    }
    match find_weights(&encoder) {
        Some(found) => names.extend(weight_files(folder, found)),
        // A file that was pulled and then removed is already listed.
        None if names.iter().any(|name| stands_for_weights(&plain(name))) => {}
        None => {
            names.insert(inside(weights::SINGLE_FILE));
        }
    }
    let mut files: Vec<VerifiedFile> = names
        .iter()
        .map(|name| {
            let recorded = source.as_ref().and_then(|source| source.files.get(name));
            look_at(folder.join(name), &plain(name), recorded)
        })
        .collect();
    files.extend(damaged_source.map(|damage| VerifiedFile {
        path: folder.join(SOURCE),
        blake3: None,
        damage: Some(damage),
    }));
    Ok(Verified { source, files })
}

/// Returns the names in the folder of all files that hold the weights.
fn weight_files(folder: &Path, found: WeightsFile) -> Vec<String> {
    // An unreadable index or model.onnx is itself reported as damaged.
    let (path, further) = match found {
        WeightsFile::Fused(path) => {
            let shards = if weights::is_index(&path) {
                weights::shards(&path).unwrap_or_default()
            } else {
                BTreeSet::new()
            };
            let shards = shards.iter().map(|name| path.with_file_name(name));
            let shards = shards.collect();
            (path, shards)
        }
        WeightsFile::Onnx(path) => {
            let data = onnx_data(&path).unwrap_or_default();
            (path, data)
        }
    };
    [path].iter().chain(&further).map(|path| name_in(folder, path)).collect()
}

/// Returns the name of a file in the folder, as source.json has it: `data` for `./data`.
fn name_in(folder: &Path, path: &Path) -> String {
    let inside = path.strip_prefix(folder).unwrap_or(path);
    let parts = inside.components().filter(|part| *part != Component::CurDir);
    parts.collect::<PathBuf>().to_string_lossy().into_owned()
}

fn onnx_data(path: &Path) -> Result<Vec<PathBuf>> {
    onnx_hash::data_files(path, &onnx_file::read(path)?)
}

fn stands_for_weights(name: &str) -> bool {
    weights::PLACES.contains(&name) || onnx_model::PLACES.contains(&name)
}

fn look_at(path: PathBuf, name: &str, recorded: Option<&SourceFile>) -> VerifiedFile {
    let damage = damage(&path, name, recorded);
    let unknown = damage.is_none() && recorded.is_none();
    VerifiedFile {
        blake3: unknown.then(|| fingerprint::hash_file(&path).ok()).flatten(),
        damage,
        path,
    }
}

fn damage(path: &Path, name: &str, recorded: Option<&SourceFile>) -> Option<String> {
    let size = match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata.len(),
        _ => return Some("expected a file, got none".into()),
    };
    if let Some(recorded) = recorded {
        if size != recorded.size {
            return Some(format!("expected {} bytes, got {size}", recorded.size));
        }
        match sha256_of_file(path) {
            Ok(sha256) if sha256 == recorded.sha256 => {}
            Ok(sha256) => {
                return Some(format!("expected sha256 {}, got {sha256}", recorded.sha256));
            }
            Err(error) => return Some(error.to_string()),
        }
    }
    let readable = match name {
        "config.json" | MODEL_SETTINGS => json_object(path),
        // That of a module.
        name if name.ends_with("/config.json") => json_object(path),
        MODULES => {
            let folder = path.parent().unwrap_or(Path::new(""));
            SentenceFolder::read(folder).map(|_| ()).map_err(without_path)
        }
        "tokenizer.json" => whole_tokenizer(path),
        name if tokenizer_parts::VOCABULARIES.contains(&name) => {
            let tokenizer = path.with_file_name("tokenizer.json");
            // Next to a tokenizer.json, nothing is read from a vocabulary.
            if tokenizer.is_file() { Ok(()) } else { whole_tokenizer(&tokenizer) }
        }
        weights::INDEX_FILE | weights::PYTORCH_INDEX => {
            weights::shards(path).map(|_| ()).map_err(without_path)
        }
        name if name.ends_with(".safetensors") => whole_safetensors(path),
        name if weights::is_of_torch(Path::new(name)) => whole_torch_file(path),
        name if onnx_model::PLACES.contains(&name) => {
            onnx_data(path).map(|_| ()).map_err(without_path)
        }
        _ => Ok(()),
    };
    readable.err()
}

/// Describes what is wrong with a file, without repeating its path.
fn without_path(error: Error) -> String {
    match error {
        Error::Checkpoint { expected, got, .. } => format!("expected {expected}, got {got}"),
        other => other.to_string(),
    }
}

fn json_object(path: &Path) -> Result<(), String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&bytes)
        .map(|_| ())
        .map_err(|error| {
            format!("expected a JSON object, got a file that cannot be parsed: {error}")
        })
}

fn whole_tokenizer(path: &Path) -> Result<(), String> {
    TextTokenizer::open(path, 128, Overflow::Truncate).map(|_| ()).map_err(without_path)
}

fn whole_safetensors(path: &Path) -> Result<(), String> {
    let bytes = mmap::map(path).map_err(|error| error.to_string())?;
    SafeTensors::deserialize(&bytes).map(|_| ()).map_err(|error| {
        format!(
            "expected a whole safetensors file, got {} bytes of a damaged one ({error})",
            bytes.len()
        )
    })
}

fn whole_torch_file(path: &Path) -> Result<(), String> {
    let bytes = mmap::map(path).map_err(|error| error.to_string())?;
    TorchFile::open(path, bytes).map(|_| ()).map_err(without_path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_names_files_outside_the_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (name, is_inside) in [
            ("model.onnx", true),
            ("onnx/model.onnx", true),
            ("../x", false),
            ("/x", false),
            ("", false),
            ("a/../../x", false),
        ] {
            let source = format!(
                r#"{{"repository": "a/b", "revision": "c", "files": {{"{name}": {{"size": 1, "sha256": "d"}}}}}}"#
            );
            fs::write(folder.path().join(SOURCE), source).unwrap();
            assert_eq!(ModelSource::read(folder.path()).is_ok(), is_inside, "{name}");
        }
    }
}

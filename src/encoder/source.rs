//! Where a checkpoint folder came from (`source.json`), and whether its files are still what was fetched.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use safetensors::SafeTensors;
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use super::{tokenizer::TextTokenizer, windows::Overflow};
use crate::{
    error::{Error, Result},
    fingerprint, mmap,
};

/// The file in a pulled folder that says where it came from.
pub const SOURCE: &str = "source.json";

/// The file that lists the shards of weights which are cut into several files.
pub const INDEX: &str = "model.safetensors.index.json";

/// What `frostbert model pull` writes beside the files that it fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// `owner/name` on the hub.
    pub repository: String,
    /// The commit, as 40 hexadecimal digits, that the revision stood for.
    pub revision: String,
    /// Each file by its name in the folder.
    pub files: BTreeMap<String, SourceFile>,
}

/// One fetched file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceFile {
    /// Its length in bytes.
    pub size: u64,
    /// Its SHA-256, as 64 hexadecimal digits.
    pub sha256: String,
}

impl Source {
    /// Reads a folder's `source.json`; `None` where there is none.
    ///
    /// # Errors
    /// When the file cannot be read, or is not what a pull writes.
    pub fn read(folder: &Path) -> Result<Option<Source>> {
        let path = folder.join(SOURCE);
        if !path.exists() {
            return Ok(None);
        }
        let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        match serde_json::from_slice(&bytes) {
            Ok(source) => Ok(Some(source)),
            Err(error) => Err(Error::Checkpoint {
                path,
                expected: "what `frostbert model pull` writes".into(),
                got: format!("what JSON calls: {error}"),
                hint: "remove the folder and pull the model again".into(),
            }),
        }
    }

    /// Writes `source.json`, aside first; a pull removes the `.part` that a kill may leave.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let aside = folder.join(format!("{SOURCE}.part"));
        // A struct of strings and numbers always becomes JSON.
        let json = serde_json::to_string_pretty(self).expect("plain fields become JSON");
        fs::write(&aside, json + "\n").map_err(Error::io("write", &aside))?;
        fs::rename(&aside, folder.join(SOURCE)).map_err(Error::io("rename", &aside))
    }
}

/// A hash that the hub gives for a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Sum {
    /// Of large files.
    Sha256(String),
    /// Of small ones: the SHA-1 of `blob `, the length in decimal digits, a zero byte, and the content.
    GitBlob(String),
}

impl Sum {
    /// What kind of hash it is, in words.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Sum::Sha256(_) => "sha256",
            Sum::GitBlob(_) => "git blob sha1",
        }
    }

    /// The hexadecimal digits.
    pub(super) fn digits(&self) -> &str {
        match self {
            Sum::Sha256(digits) | Sum::GitBlob(digits) => digits,
        }
    }

    /// The same kind of hash of the file at `path`.
    pub(super) fn of_file(&self, path: &Path) -> Result<String> {
        let bytes = mmap::map(path)?;
        Ok(match self {
            Sum::Sha256(_) => hex(&Sha256::digest(&bytes)),
            Sum::GitBlob(_) => {
                let mut hasher = Sha1::new_with_prefix(format!("blob {}\0", bytes.len()));
                hasher.update(&bytes);
                hex(&hasher.finalize())
            }
        })
    }
}

/// The SHA-256 of a file, as 64 hexadecimal digits.
///
/// # Errors
/// When the file cannot be read.
pub fn sha256_of_file(path: &Path) -> Result<String> {
    Ok(hex(&Sha256::digest(mmap::map(path)?)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What [`verify`] found in a folder.
#[derive(Clone, Debug)]
pub struct Verified {
    /// What the files were compared with; `None` where nobody wrote down their hashes.
    pub source: Option<Source>,
    /// Every file that was looked at, in the order of their names.
    pub files: Vec<VerifiedFile>,
}

/// One file of a checkpoint folder.
#[derive(Clone, Debug)]
pub struct VerifiedFile {
    /// Where it is, or should be.
    pub path: PathBuf,
    /// Its blake3, where there is no recorded hash to compare with.
    pub blake3: Option<String>,
    /// What is wrong with it.
    pub damage: Option<String>,
}

/// Looks at every file of a checkpoint folder.
///
/// With a `source.json`, sizes and SHA-256 sums are compared. Always: config.json and the index of shards must be JSON,
/// every safetensors file must be as long as its header says, tokenizer.json must open, and there must be weights.
///
/// # Errors
/// When the folder cannot be listed. Damage is no error: it stands in the result.
pub fn verify(folder: &Path) -> Result<Verified> {
    let mut names = BTreeSet::from(["config.json".to_string(), "tokenizer.json".to_string()]);
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let entry = entry.map_err(Error::io("list", folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_model_file(&name) {
            names.insert(name);
        }
    }
    let mut damaged_source = None;
    let source = Source::read(folder).unwrap_or_else(|error| {
        damaged_source = Some(error.to_string());
        None
    });
    if let Some(source) = &source {
        names.extend(source.files.keys().cloned());
    }
    names.extend(shards(&folder.join(INDEX)).unwrap_or_default());
    if !names.iter().any(|name| is_weights(name)) {
        names.insert("model.safetensors".into());
    }
    let mut files: Vec<VerifiedFile> = names
        .iter()
        .map(|name| {
            let recorded = source.as_ref().and_then(|source| source.files.get(name));
            look_at(folder.join(name), name, recorded)
        })
        .collect();
    files.extend(damaged_source.map(|damage| VerifiedFile {
        path: folder.join(SOURCE),
        blake3: None,
        damage: Some(damage),
    }));
    Ok(Verified { source, files })
}

/// The shards that an index of weights names.
pub(super) fn shards(index: &Path) -> Result<BTreeSet<String>, String> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let bytes = fs::read(index).map_err(|error| error.to_string())?;
    let index: Index = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    Ok(index.weight_map.into_values().collect())
}

fn is_weights(name: &str) -> bool {
    name.ends_with(".safetensors") || name.ends_with(".onnx")
}

fn is_model_file(name: &str) -> bool {
    let others = [
        INDEX,
        "tokenizer_config.json",
        "special_tokens_map.json",
        "vocab.txt",
    ];
    is_weights(name) || name.ends_with(".onnx_data") || others.contains(&name)
}

fn look_at(path: PathBuf, name: &str, recorded: Option<&SourceFile>) -> VerifiedFile {
    let damage = damage(&path, name, recorded);
    let unknown = damage.is_none() && recorded.is_none();
    VerifiedFile {
        blake3: unknown
            .then(|| fingerprint::hash_file(&path).ok())
            .flatten(),
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
        "config.json" => json_object(path),
        "tokenizer.json" => TextTokenizer::open(path, 128, Overflow::Truncate)
            .map(|_| ())
            .map_err(|error| match error {
                Error::Checkpoint { expected, got, .. } => {
                    format!("expected {expected}, got {got}")
                }
                other => other.to_string(),
            }),
        INDEX => shards(path).map(|_| ()),
        name if name.ends_with(".safetensors") => whole_safetensors(path),
        name if is_weights(name) && size == 0 => Err("it is empty".into()),
        _ => Ok(()),
    };
    readable.err()
}

fn json_object(path: &Path) -> Result<(), String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&bytes)
        .map(|_| ())
        .map_err(|error| format!("expected a JSON object, got what JSON calls: {error}"))
}

fn whole_safetensors(path: &Path) -> Result<(), String> {
    let bytes = mmap::map(path).map_err(|error| error.to_string())?;
    SafeTensors::deserialize(&bytes)
        .map(|_| ())
        .map_err(|error| {
            format!(
                "expected a whole safetensors file, got {} bytes of a damaged one ({error})",
                bytes.len()
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_sha256sum_and_of_git_hash_object() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "frost\n").unwrap();
        assert_eq!(
            Sum::GitBlob(String::new()).of_file(&path).unwrap(),
            "1ee0a8235204462ad576eb20280852587555686c"
        );
        assert_eq!(
            Sum::Sha256(String::new()).of_file(&path).unwrap(),
            "dd8f754d502a187e76e87042c26e51270eb776d33146aaaeabec436e27b993f3"
        );
        assert_eq!(
            sha256_of_file(&path).unwrap(),
            "dd8f754d502a187e76e87042c26e51270eb776d33146aaaeabec436e27b993f3"
        );
        // git's well-known empty blob.
        fs::write(&path, "").unwrap();
        assert_eq!(
            Sum::GitBlob(String::new()).of_file(&path).unwrap(),
            "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
        );
    }
}

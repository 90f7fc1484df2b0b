//! manifest.json: what a cache is and which files belong to it. What it does not name is not in the cache.
//!
//! It holds no time, host, process or count of a run, so that a resumed extraction ends in the same bytes.

mod check;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use self::check::ManifestProblem;
use crate::{
    durable::write_file,
    error::{Error, Result},
    fingerprint::{Digest, FingerprintInputs},
    states::{Dtype, Placement, StateId},
    wording::counted,
};

/// The file name in the cache folder.
pub const MANIFEST: &str = "manifest.json";

/// What a cache is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The name of the cache folder.
    pub fingerprint: String,
    /// Everything that decides a state, in clear.
    pub inputs: FingerprintInputs,
    /// Layers of the encoder.
    pub model_layers: usize,
    /// Width of a state.
    pub hidden: usize,
    /// Type of a stored value.
    pub dtype: Dtype,
    /// Distinct documents.
    pub documents: u64,
    /// Real tokens of these documents' windows.
    pub tokens: u64,
    /// Documents of which the end was cut off.
    pub truncated: u64,
    /// The committed shards, in order.
    pub shards: Vec<ShardEntry>,
}

/// One committed shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardEntry {
    /// The folder's name.
    pub name: String,
    /// Rows of every pooled state.
    pub documents: u64,
    /// Rows of docs.parquet: the windows of these documents.
    pub windows: u64,
    /// Real tokens of these windows: rows of every `tokens` state.
    pub tokens: u64,
    /// What computed which of its states: first those that it was made with, then those that were added.
    pub origins: Vec<Origin>,
    /// Its files.
    pub files: Vec<FileEntry>,
}

impl ShardEntry {
    /// The states that it holds.
    pub fn states(&self) -> impl Iterator<Item = StateId> + '_ {
        self.origins.iter().flat_map(|origin| origin.states.iter().copied())
    }

    /// Whether it holds a state.
    pub fn holds(&self, state: StateId) -> bool {
        self.states().any(|held| held == state)
    }

    /// Bytes of its files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// What computed some states of a shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The states.
    pub states: Vec<StateId>,
    /// The device, as `cpu` or `cuda:0`; `cuda:0,1` where batches went to several GPUs.
    pub device: String,
    /// Where on it the graph ran; none on a CPU, and in caches made before it was noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// The version of ONNX Runtime.
    pub onnxruntime: String,
    /// Token budget of the batches.
    pub batch_tokens: usize,
    /// Some documents of the shard computed once more, alone and in f32, beside what is stored.
    pub parity: Parity,
}

/// How far stored states are from the same states computed alone in f32: absolute differences over every value of the
/// sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Parity {
    /// Documents in the sample.
    pub documents: u64,
    /// Their tokens.
    pub tokens: u64,
    /// The largest difference.
    pub max_error: f64,
    /// The median difference.
    pub median_error: f64,
    /// The largest difference that rounding to the storage type makes by itself.
    pub max_rounding: f64,
    /// The median difference that rounding makes by itself.
    pub median_rounding: f64,
}

/// One file of a shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileEntry {
    /// The name in the shard's folder.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its blake3.
    pub blake3: Digest,
}

impl Manifest {
    /// The manifest of a cache that holds nothing yet.
    pub fn empty(
        inputs: &FingerprintInputs,
        model_layers: usize,
        hidden: usize,
        dtype: Dtype,
    ) -> Manifest {
        Manifest {
            fingerprint: inputs.fingerprint(),
            inputs: inputs.clone(),
            model_layers,
            hidden,
            dtype,
            documents: 0,
            tokens: 0,
            truncated: 0,
            shards: Vec::new(),
        }
    }

    /// Reads the manifest of a cache folder; `None` where there is none.
    ///
    /// # Errors
    /// [`Error::Damage`] when the file is no manifest of this format, its checksum does not hold, its fingerprint is
    /// not that of its inputs, or what it names cannot be a cache; [`Error::Io`] when it cannot be read.
    pub fn read(folder: &Path) -> Result<Option<Manifest>> {
        let Some(text) = read_text(folder)? else {
            return Ok(None);
        };
        let manifest = parse(folder, &text)?;
        check::checksum(&text)
            .and_then(|()| check::check(&manifest))
            .map_err(|wrong| damaged(folder, wrong, REPAIR))?;
        Ok(Some(manifest))
    }

    /// Reads a manifest whose checksum need not hold, for a repair that compares it with the files; `None` where there is
    /// none. Shards that cannot be are left out.
    ///
    /// # Errors
    /// When the file cannot be read, or is no manifest of this format, or its fingerprint is not that of its inputs.
    pub(crate) fn salvage(folder: &Path) -> Result<Option<Manifest>> {
        let Some(text) = read_text(folder)? else {
            return Ok(None);
        };
        let mut manifest = parse(folder, &text)?;
        check::fingerprint(&manifest).map_err(|wrong| damaged(folder, wrong, BEYOND_REPAIR))?;
        if let Some(dtype) = Dtype::named(&manifest.inputs.dtype) {
            manifest.dtype = dtype;
        }
        let mut names = BTreeSet::new();
        manifest
            .shards
            .retain(|entry| check::shard(entry).is_ok() && names.insert(entry.name.clone()));
        Ok(Some(manifest))
    }

    /// Whether a model can have so many layers.
    pub(crate) fn has_sound_layers(&self) -> bool {
        self.model_layers <= check::MOST_LAYERS
    }

    /// Checks all that [`Manifest::read`] checks, but for the checksum.
    ///
    /// # Errors
    /// [`Error::Damage`]: a manifest that cannot be repaired.
    pub(crate) fn require_sound(&self, folder: &Path) -> Result<()> {
        check::check(self).map_err(|wrong| damaged(folder, wrong, BEYOND_REPAIR))
    }

    /// Reads the manifest of a folder that must be a cache.
    ///
    /// # Errors
    /// [`Error::Miss`] where there is none; else as [`Manifest::read`].
    pub fn open(folder: &Path) -> Result<Manifest> {
        Manifest::read(folder)?.ok_or_else(|| no_cache(folder))
    }

    /// Checks that this is the manifest of these inputs: a folder that was renamed is never taken for another.
    ///
    /// # Errors
    /// [`Error::Damage`] with the inputs that differ.
    pub fn require(&self, folder: &Path, inputs: &FingerprintInputs) -> Result<()> {
        if self.inputs == *inputs {
            return Ok(());
        }
        Err(Error::Damage {
            path: folder.join(MANIFEST),
            expected: format!("the cache {}", inputs.fingerprint()),
            got: format!(
                "{}, which differs in {}",
                self.fingerprint,
                inputs.differences(&self.inputs).join(", ")
            ),
            hint: "this folder was renamed: give it the name of its own fingerprint again".into(),
        })
    }

    /// Replaces the manifest of a cache folder, with its checksum as its last key: written aside, synced, renamed.
    ///
    /// # Errors
    /// When the folder cannot be written; the old manifest then stands.
    pub fn write(&self, folder: &Path) -> Result<()> {
        write_file(&folder.join(MANIFEST), self.to_json().as_bytes())
    }

    /// The content of its file: JSON with a checksum as the last key.
    pub fn to_json(&self) -> String {
        let json = serde_json::to_string_pretty(self).expect("plain fields become JSON");
        check::with_checksum(&json)
    }

    /// Bytes of all shards' files.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(ShardEntry::bytes).sum()
    }

    /// The versions of ONNX Runtime that computed its states.
    pub fn onnxruntime_versions(&self) -> BTreeSet<&str> {
        self.origins().map(|origin| origin.onnxruntime.as_str()).collect()
    }

    /// The devices that computed its states.
    pub fn devices(&self) -> BTreeSet<&str> {
        self.origins().map(|origin| origin.device.as_str()).collect()
    }

    /// What computed its states, shard by shard.
    pub fn origins(&self) -> impl Iterator<Item = &Origin> {
        self.shards.iter().flat_map(|shard| &shard.origins)
    }

    /// The number of the next new shard: above all that the manifest names.
    pub fn next_shard(&self) -> usize {
        let numbers = self.shards.iter().filter_map(|shard| shard_number(&shard.name));
        numbers.max().map_or(0, |number| number + 1)
    }

    /// Every state that at least one shard holds.
    pub fn states(&self) -> BTreeSet<StateId> {
        self.shards.iter().flat_map(ShardEntry::states).collect()
    }
}

/// What to say where a folder should be a cache and is none.
pub(crate) fn no_cache(folder: &Path) -> Error {
    Error::Miss {
        cache: folder.to_path_buf(),
        lacks: "a manifest.json: it is no cache".into(),
        hint: "name a cache folder, <cache.dir>/<fingerprint>, as `frostbert cache ls` lists them"
            .into(),
    }
}

/// The folder name of a shard.
pub(crate) fn shard_name(number: usize) -> String {
    format!("shard-{number:06}")
}

/// The number of the shard that a folder of this name holds; `None` where it is no shard's name.
pub(crate) fn shard_number(name: &str) -> Option<usize> {
    let digits = name.strip_prefix("shard-")?;
    let number = digits.parse().ok().filter(|number| *number <= MOST_SHARDS)?;
    (shard_name(number) == name).then_some(number)
}

/// The largest number of a shard: at 256 MB each, more than any disk holds.
const MOST_SHARDS: usize = 999_999_999;

fn read_text(folder: &Path) -> Result<Option<String>> {
    let path = folder.join(MANIFEST);
    match std::fs::read(&path) {
        Ok(bytes) => String::from_utf8(bytes).map(Some).map_err(|error| {
            let wrong = ManifestProblem {
                expected: "a manifest of this format".into(),
                got: error.to_string(),
            };
            damaged(folder, wrong, BEYOND_REPAIR)
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}

fn parse(folder: &Path, text: &str) -> Result<Manifest> {
    serde_json::from_str(text).map_err(|error| {
        let wrong = ManifestProblem {
            expected: "a manifest of this format".into(),
            got: error.to_string(),
        };
        damaged(folder, wrong, BEYOND_REPAIR)
    })
}

fn damaged(folder: &Path, wrong: ManifestProblem, hint: &str) -> Error {
    Error::Damage {
        path: folder.join(MANIFEST),
        expected: wrong.expected,
        got: wrong.got,
        hint: hint.into(),
    }
}

const REPAIR: &str = "run `frostbert cache verify --repair` on this cache: it keeps the shards whose files are whole, counts them \
                      anew, and writes the manifest again";

const BEYOND_REPAIR: &str = "this manifest cannot be repaired: put it back where there is a copy of it; else delete this cache folder \
                             and run `frostbert extract` again";

/// Fails where shards lie in a folder without a manifest: one may be what a killed first commit left, more are a cache
/// that lost its manifest.
///
/// # Errors
/// [`Error::Damage`]; when the folder cannot be listed.
pub(crate) fn refuse_orphans(folder: &Path) -> Result<()> {
    let mut n_shards = 0;
    for entry in std::fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let name = entry.map_err(Error::io("list", folder))?.file_name();
        n_shards += usize::from(shard_number(&name.to_string_lossy()).is_some());
    }
    if n_shards <= 1 {
        return Ok(());
    }
    Err(Error::Damage {
        path: folder.join(MANIFEST),
        expected: format!("the manifest of {}", counted(n_shards, "shard")),
        got: "no such file".into(),
        hint: "put the manifest back where there is a copy of it; else delete this cache folder and run `frostbert \
               extract` again"
            .into(),
    })
}

/// The folders in a `cache.dir` that hold a manifest, or have lost it, by name, each with its manifest or what is wrong with it.
///
/// # Errors
/// When the folder cannot be listed. That a manifest is damaged is for the caller to say: it is no reason to pass over
/// the others.
pub fn caches_in(cache_dir: &Path) -> Result<Vec<(PathBuf, Result<Manifest>)>> {
    let entries = match std::fs::read_dir(cache_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list", cache_dir)(error)),
    };
    let mut folders = Vec::new();
    for entry in entries {
        folders.push(entry.map_err(Error::io("list", cache_dir))?.path());
    }
    folders.sort();
    let caches = folders.into_iter().filter(|folder| folder.is_dir()).filter_map(|folder| {
        match Manifest::read(&folder).transpose() {
            Some(manifest) => Some((folder, manifest)),
            None => refuse_orphans(&folder).err().map(|error| (folder, Err(error))),
        }
    });
    Ok(caches.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_graph_ran_is_kept_and_an_origin_without_it_keeps_its_bytes() {
        let old = r#"{"states":["mean-L05"],"device":"cpu","onnxruntime":"1.31.1","batch_tokens":512,"parity":{"documents":1,"tokens":2,"max_error":0.5,"median_error":0.25,"max_rounding":0.0,"median_rounding":0.0}}"#;
        let mut origin: Origin = serde_json::from_str(old).unwrap();
        assert_eq!(origin.placement, None);
        assert_eq!(serde_json::to_string(&origin).unwrap(), old);
        origin.device = "cuda:0,1".into();
        origin.placement = Some(Placement {
            gpu: Some("NVIDIA T4".into()),
            cpu_nodes: [("Shape".to_string(), 3)].into(),
        });
        let new = serde_json::to_string(&origin).unwrap();
        let expected = r#""placement":{"gpu":"NVIDIA T4","cpu_nodes":{"Shape":3}}"#;
        assert!(new.contains(expected), "{new}");
        assert_eq!(serde_json::from_str::<Origin>(&new).unwrap(), origin);
    }
}

//! manifest.json: describes a cache and lists its files. A file that it does not list is not part of the cache.
//!
//! It contains no times, hosts, processes or counts of runs, so that a resumed extraction ends with the same bytes.

mod check;
mod seal;

use std::{
    collections::BTreeSet,
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer, Serialize};

use self::{check::ManifestProblem, seal::SealingWriter};
use crate::{
    durable::write_file_with,
    error::{Error, Result},
    fingerprint::{Digest, FingerprintInputs},
    states::{Dtype, Placement, StateId},
    wording::counted,
};

/// The file name in the cache folder.
pub const MANIFEST: &str = "manifest.json";

/// The description of a cache.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The name of the cache folder.
    pub fingerprint: String,
    /// The fingerprint's inputs, which determine the states, in readable form.
    pub inputs: FingerprintInputs,
    /// The number of layers of the encoder.
    pub model_layers: usize,
    /// Width of a state.
    pub hidden: usize,
    /// The type of the stored values.
    pub dtype: Dtype,
    /// The number of distinct documents.
    pub documents: u64,
    /// The number of real tokens in these documents' windows.
    pub tokens: u64,
    /// The number of truncated documents.
    pub truncated: u64,
    /// The committed shards, in order.
    pub shards: Vec<ShardEntry>,
}

/// A committed shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardEntry {
    /// The name of its folder.
    pub name: String,
    /// The number of documents: the rows of every pooled state.
    pub documents: u64,
    /// The number of windows of these documents: the rows of docs.parquet.
    pub windows: u64,
    /// The number of real tokens in these windows: the rows of every `tokens` state.
    pub tokens: u64,
    /// What computed its states: first those that it was created with, then those added later.
    #[serde(deserialize_with = "list_of_its_size")]
    pub origins: Vec<Origin>,
    /// The files of the shard.
    #[serde(deserialize_with = "list_of_its_size")]
    pub files: Vec<FileEntry>,
}

impl ShardEntry {
    /// Returns the states that it holds.
    pub fn states(&self) -> impl Iterator<Item = StateId> + '_ {
        self.origins.iter().flat_map(|origin| origin.states.iter().copied())
    }

    /// Returns whether it holds a state.
    pub fn holds(&self, state: StateId) -> bool {
        self.states().any(|held| held == state)
    }

    /// Returns the total size of its files in bytes.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// What computed a group of states of a shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The states.
    #[serde(deserialize_with = "list_of_its_size")]
    pub states: Vec<StateId>,
    /// The device, such as `cpu` or `cuda:0`; `cuda:0,1` if batches were distributed over several GPUs.
    pub device: String,
    /// Where on the device the graph ran; `None` on a CPU, and in caches created before this was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
    /// The version of ONNX Runtime.
    pub onnxruntime: String,
    /// The token budget of the batches.
    pub batch_tokens: usize,
    /// The comparison of a sample of the shard's documents with the same states computed alone and in f32.
    pub parity: Parity,
}

/// How far stored states differ from the same states computed alone in f32: absolute differences over all values of a
/// sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Parity {
    /// The number of documents in the sample.
    pub documents: u64,
    /// The number of their tokens.
    pub tokens: u64,
    /// The largest difference.
    pub max_error: f64,
    /// The median difference.
    pub median_error: f64,
    /// The largest difference that is due to rounding to the storage type alone.
    pub max_rounding: f64,
    /// The median difference that is due to rounding alone.
    pub median_rounding: f64,
}

/// A file of a shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileEntry {
    /// The name in the shard's folder.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// The blake3 of its content.
    pub blake3: Digest,
}

/// Reads a list and gives the memory back that it has no use for. A list that grows begins with room for four, but most
/// shards have one origin, and there can be a million shards.
fn list_of_its_size<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let mut list = Vec::deserialize(deserializer)?;
    list.shrink_to_fit();
    Ok(list)
}

impl Manifest {
    /// Creates the manifest of an empty cache.
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

    /// Reads the manifest of a cache folder; returns `None` if there is none.
    ///
    /// # Errors
    /// Returns [`Error::Damage`] if the file is not a manifest of this format, its checksum or fingerprint does not
    /// match, or its content cannot be that of a cache, and [`Error::Io`] if it cannot be read.
    pub fn read(folder: &Path) -> Result<Option<Manifest>> {
        let Some(text) = read_text(folder)? else {
            return Ok(None);
        };
        Manifest::from_json(folder, text.as_bytes()).map(Some)
    }

    /// Reads the content of the manifest of a cache folder, which need not be on this machine.
    ///
    /// # Errors
    /// Returns [`Error::Damage`] as [`Manifest::read`].
    pub fn from_json(folder: &Path, json: &[u8]) -> Result<Manifest> {
        let text = String::from_utf8_lossy(json);
        let manifest = parse(folder, &text)?;
        check::checksum(&text)
            .and_then(|()| check::check(&manifest))
            .map_err(|wrong| damaged(folder, wrong, REPAIR))?;
        Ok(manifest)
    }

    /// Reads a manifest even if its checksum does not match, for a repair that compares it with the files; returns
    /// `None` if there is none. Impossible shards are left out.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, is not a manifest of this format, or has a fingerprint that does
    /// not match its inputs.
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

    /// Returns whether the number of layers is plausible for a model.
    pub(crate) fn has_sound_layers(&self) -> bool {
        self.model_layers <= check::MOST_LAYERS
    }

    /// Does all checks of [`Manifest::read`] except for the checksum.
    ///
    /// # Errors
    /// Returns [`Error::Damage`] for a manifest that cannot be repaired.
    pub fn require_sound(&self, folder: &Path) -> Result<()> {
        check::check(self).map_err(|wrong| damaged(folder, wrong, BEYOND_REPAIR))
    }

    /// Reads the manifest of a folder that must be a cache.
    ///
    /// # Errors
    /// Returns [`Error::Miss`] if there is none, and otherwise the errors of [`Manifest::read`].
    pub fn open(folder: &Path) -> Result<Manifest> {
        Manifest::read(folder)?.ok_or_else(|| no_cache(folder))
    }

    /// Checks that the manifest has these inputs, so that a renamed folder is never mistaken for another cache.
    ///
    /// # Errors
    /// Returns [`Error::Damage`] with the inputs that differ.
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

    /// Replaces the manifest of a cache folder, with its checksum as the last key: writes a temporary file, syncs it
    /// and renames it.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be written; the old manifest is then unchanged.
    pub fn write(&self, folder: &Path) -> Result<()> {
        write_file_with(&folder.join(MANIFEST), |file| self.write_json(file))
    }

    /// Returns the content of the file: JSON with a checksum as the last key.
    pub fn to_json(&self) -> String {
        let mut json = Vec::new();
        self.write_json(&mut json).expect("plain fields become JSON");
        String::from_utf8(json).expect("JSON is UTF-8")
    }

    /// Writes the content of the file piece by piece: that of a million shards has almost a gigabyte.
    fn write_json(&self, to: impl Write) -> io::Result<()> {
        let mut sealing = SealingWriter::new(to);
        serde_json::to_writer_pretty(&mut sealing, self)?;
        sealing.seal()
    }

    /// Returns the total size of all shards' files in bytes.
    pub fn bytes(&self) -> u64 {
        self.shards.iter().map(ShardEntry::bytes).sum()
    }

    /// Returns the versions of ONNX Runtime that computed the states.
    pub fn onnxruntime_versions(&self) -> BTreeSet<&str> {
        self.origins().map(|origin| origin.onnxruntime.as_str()).collect()
    }

    /// Returns the devices that computed the states.
    pub fn devices(&self) -> BTreeSet<&str> {
        self.origins().map(|origin| origin.device.as_str()).collect()
    }

    /// Returns what computed the states, shard by shard.
    pub fn origins(&self) -> impl Iterator<Item = &Origin> {
        self.shards.iter().flat_map(|shard| &shard.origins)
    }

    /// Returns the number of the next new shard, which is higher than all in the manifest.
    pub fn next_shard(&self) -> usize {
        let numbers = self.shards.iter().filter_map(|shard| shard_number(&shard.name));
        numbers.max().map_or(0, |number| number + 1)
    }

    /// Returns every state that at least one shard holds.
    pub fn states(&self) -> BTreeSet<StateId> {
        self.shards.iter().flat_map(ShardEntry::states).collect()
    }
}

/// Builds the error for a folder that should be a cache but is not.
pub(crate) fn no_cache(folder: &Path) -> Error {
    Error::Miss {
        cache: folder.to_path_buf(),
        lacks: "a manifest.json: it is not a cache".into(),
        hint: "name a cache folder, <cache.dir>/<fingerprint>, as `frostbert cache ls` lists them"
            .into(),
    }
}

/// Returns the folder name of a shard.
pub fn shard_name(number: usize) -> String {
    format!("shard-{number:06}")
}

/// Returns the number of the shard in a folder of this name; `None` if it is not the name of a shard.
pub(crate) fn shard_number(name: &str) -> Option<usize> {
    let digits = name.strip_prefix("shard-")?;
    let number = digits.parse().ok().filter(|number| *number <= MOST_SHARDS)?;
    (shard_name(number) == name).then_some(number)
}

/// The highest shard number: at 256 MB per shard, more than any disk can hold.
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
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
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

const REPAIR: &str = "run `frostbert cache verify --repair` on this cache: it keeps the shards whose files are \
                      intact, counts their contents again, and rewrites the manifest";

const BEYOND_REPAIR: &str = "this manifest cannot be repaired: restore it if you have a copy of it; otherwise delete \
                             this cache folder and run `frostbert extract` again";

/// Returns an error if a folder without a manifest contains several shards: one may be left by a killed first commit,
/// but more belong to a cache that has lost its manifest.
///
/// # Errors
/// Returns [`Error::Damage`], or another error if the folder cannot be listed.
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
        hint: "restore the manifest if you have a copy of it; otherwise delete this cache folder and run `frostbert \
               extract` again"
            .into(),
    })
}

/// Returns the folders in a `cache.dir` that contain a manifest or have lost it, sorted by name, each with its manifest
/// or what is wrong with it.
///
/// # Errors
/// Returns an error if the folder cannot be listed. A damaged manifest is left for the caller to report, because it is
/// no reason to skip the other caches.
pub fn caches_in(cache_dir: &Path) -> Result<Vec<(PathBuf, Result<Manifest>)>> {
    let entries = match std::fs::read_dir(cache_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
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

    /// As it was written before it was recorded where a graph ran.
    const OLD_ORIGIN: &str = r#"{"states":["mean-L05"],"device":"cpu","onnxruntime":"1.31.1","batch_tokens":512,"parity":{"documents":1,"tokens":2,"max_error":0.5,"median_error":0.25,"max_rounding":0.0,"median_rounding":0.0}}"#;

    #[test]
    fn the_lists_of_a_shard_have_no_room_for_more() {
        let file =
            |name: &str| format!(r#"{{"name":"{name}","bytes":64,"blake3":"{}"}}"#, "0".repeat(64));
        let files = format!("{},{}", file("docs.parquet"), file("mean-L05.parquet"));
        let json = format!(
            r#"{{"name":"shard-000000","documents":1,"windows":1,"tokens":2,"origins":[{OLD_ORIGIN}],"files":[{files}]}}"#
        );
        let shard: ShardEntry = serde_json::from_str(&json).unwrap();
        let room =
            (shard.origins.capacity(), shard.origins[0].states.capacity(), shard.files.capacity());
        assert_eq!(room, (1, 1, 2));
        assert_eq!(serde_json::to_string(&shard).unwrap(), json);
    }

    #[test]
    fn where_a_graph_ran_is_kept_and_an_origin_without_it_keeps_its_bytes() {
        let mut origin: Origin = serde_json::from_str(OLD_ORIGIN).unwrap();
        assert_eq!(origin.placement, None);
        assert_eq!(serde_json::to_string(&origin).unwrap(), OLD_ORIGIN);
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

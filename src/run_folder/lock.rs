//! lock.json: records everything that determined a run's result and the result itself, and checks a replay against it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::SystemTime,
};

use chrono::{DateTime, SecondsFormat, Utc};
use frostbert_cache::{
    durable::write_file,
    fingerprint::{self, Digest},
    states::StateId,
};
use serde::{Deserialize, Serialize};

use crate::{
    config::{file::PipelineFile, text_file},
    data::{LabelMap, Part, dataset::Dataset, example::FileRecord, hash_of_path},
    encoder::{
        checkpoint::{self, CheckpointHashes},
        source::ModelSource,
    },
    error::{Error, Result},
    run_folder::program,
};

/// The maximum size of a lock file in MiB: room for millions of labels.
const MAX_MIB: u64 = 256;

/// The name of the lock file in a run folder.
pub const LOCK_FILE: &str = "lock.json";

/// What [`Lock::changed_inputs`] says about an input that does not exist.
pub(crate) const NO_FILE: &str = "no such file";

/// The files of a run that a replay must reproduce byte for byte.
pub(crate) const REPRODUCED: [&str; 4] =
    ["head.safetensors", "head.json", "metrics.json", "predictions.parquet"];

/// The files that a replay must also reproduce where a run has them: the leaderboard of a sweep, and the layers of the
/// encoder that were trained with the head.
const REPRODUCED_OF_SOME: [&str; 2] = ["leaderboard.csv", "layers.safetensors"];

/// Everything that determined a run's result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lock {
    /// The program's version.
    pub frostbert: String,
    /// Where and when the run was made; none of it affects the result.
    #[serde(flatten)]
    pub made: Provenance,
    /// The pipeline after defaults and overrides.
    pub pipeline: PipelineFile,
    /// For a sweep, the pipeline of the winning head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub winner: Option<PipelineFile>,
    /// The data files, in the order in which they were read.
    pub data: Vec<FileRecord>,
    /// The model's files; absent if the rows bring their states with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<CheckpointHashes>,
    /// For a sweep that compared models, all of them; `model` and `cache` are then those of the winning head.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<LockedModel>,
    /// The hash of the modules after the encoder, if the head or another one of the sweep reads the sentence vectors that
    /// they make. Locks of earlier versions do not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modules: Option<Digest>,
    /// Where the states came from.
    pub cache: LockedCache,
    /// The states that the head reads.
    pub states: Vec<StateId>,
    /// The labels, by id.
    pub labels: LabelMap,
    /// The split.
    pub split: LockedSplit,
    /// The seed of the pipeline.
    pub seed: u64,
    /// The device that computed the states.
    pub device: String,
    /// The instruction sets that determine the last bits of a matrix product.
    pub cpu: Vec<String>,
    /// The blake3 of the files that a replay must reproduce.
    pub outputs: BTreeMap<String, Digest>,
}

/// Where and when a run was made. It is filled in when the run is finished; runs that differ only in this are
/// considered the same. Locks of earlier versions do not have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The commit that the program was built from; absent if it was built without git.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The time at which the run was finished, in UTC, such as `2026-11-30T05:08:15Z`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The kind of machine, such as `linux x86_64, 2 cores`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The name of the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_model: Option<BaseModel>,
}

/// The name by which people know a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseModel {
    /// `owner/name` on the hub if it was pulled from there, otherwise the name of its folder.
    pub name: String,
    /// The commit on the hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

impl Provenance {
    /// Describes a run that is made now from the model in a folder.
    fn now(model: BaseModel) -> Provenance {
        let time = DateTime::<Utc>::from(SystemTime::now());
        Provenance {
            commit: program::COMMIT.map(String::from),
            created: Some(time.to_rfc3339_opts(SecondsFormat::Secs, true)),
            host: Some(program::host()),
            base_model: Some(model),
        }
    }
}

impl BaseModel {
    /// The model in a folder.
    pub(crate) fn of(folder: &Path) -> BaseModel {
        // A source.json that cannot be read is no reason to lose a run.
        match ModelSource::read(folder) {
            Ok(Some(source)) => {
                BaseModel { name: source.repository, revision: Some(source.revision) }
            }
            _ => BaseModel::named_by(folder),
        }
    }

    /// Names a model by its folder.
    fn named_by(folder: &Path) -> BaseModel {
        let name = folder.file_name().unwrap_or(folder.as_os_str());
        BaseModel { name: name.to_string_lossy().into_owned(), revision: None }
    }
}

impl std::fmt::Display for BaseModel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        match &self.revision {
            Some(revision) => write!(f, "@{}", revision.get(..12).unwrap_or(revision)),
            None => Ok(()),
        }
    }
}

/// A model that a sweep compared with others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LockedModel {
    /// Its folder, as the sweep names it.
    pub path: PathBuf,
    /// Where the folder was, if it was elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved_to: Option<PathBuf>,
    /// Its files.
    pub model: CheckpointHashes,
    /// The fingerprint of the cache of its states.
    pub fingerprint: String,
}

impl LockedModel {
    /// Where its folder is.
    pub(crate) fn folder(&self) -> &Path {
        self.moved_to.as_ref().unwrap_or(&self.path)
    }
}

/// Where the states came from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LockedCache {
    /// The cache folder.
    pub path: PathBuf,
    /// Its fingerprint.
    pub fingerprint: String,
    /// The versions of ONNX Runtime that computed its shards.
    pub onnxruntime: Vec<String>,
    /// The blake3 over key and state of every row that was read, in example order, because the cache itself may grow.
    pub rows: Digest,
}

impl LockedCache {
    /// Returns what is recorded where the rows bring their states with them.
    pub(crate) fn none() -> LockedCache {
        LockedCache {
            path: PathBuf::new(),
            fingerprint: String::new(),
            onnxruntime: Vec::new(),
            rows: Digest::from_bytes([0; 32]),
        }
    }
}

/// A split: the number of rows in each part, and a hash of their assignment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LockedSplit {
    /// The number of training rows.
    pub train: usize,
    /// The number of validation rows.
    pub validation: usize,
    /// The number of test rows.
    pub test: usize,
    /// The blake3 over every row's part and target, and over its targets in any further label columns.
    pub rows: Digest,
}

impl LockedSplit {
    /// Describes the split of a dataset.
    pub fn of(dataset: &Dataset) -> LockedSplit {
        let mut hasher = blake3::Hasher::new();
        for row in &dataset.rows {
            hasher.update(&[row.part as u8]);
            hasher.update(&row.target.to_bytes());
        }
        for target in dataset.label_columns.iter().flat_map(|one| &one.targets) {
            let bytes = target.as_ref().map(|target| target.to_bytes());
            hasher.update(&[u8::from(bytes.is_some())]);
            hasher.update(&bytes.unwrap_or_default());
        }
        let count = |part| dataset.part(part).len();
        LockedSplit {
            train: count(Part::Train),
            validation: count(Part::Validation),
            test: count(Part::Test),
            rows: hasher.finalize().into(),
        }
    }
}

impl Lock {
    /// Reads a lock file.
    ///
    /// # Errors
    /// Returns an error if it cannot be read or is not a lock file of this version's format.
    pub fn read(path: &Path) -> Result<Lock> {
        let text = text_file::read(path, MAX_MIB)?;
        serde_json::from_str(&text).map_err(|error| Error::Run {
            path: path.to_path_buf(),
            expected: "a lock file of this program".into(),
            got: error.to_string(),
            hint: "name the lock.json of a run folder".into(),
        })
    }

    /// Returns the content of a file in this run's folder that a replay must reproduce.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or is not what the run wrote.
    pub(crate) fn read_output(&self, folder: &Path, name: &str) -> Result<Vec<u8>> {
        let path = folder.join(name);
        let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
        let (got, expected) = (fingerprint::hash_bytes(&bytes), self.outputs.get(name));
        if expected == Some(&got) {
            Ok(bytes)
        } else {
            Err(Error::Run {
            path,
            expected: match expected {
                Some(expected) => format!("blake3 {}, as {LOCK_FILE} says", expected.short()),
                None => format!("its blake3 in {LOCK_FILE}"),
            },
            got: got.short(),
            hint: "the file or the lock was changed after the run: copy the run folder again, or make the run again with \
                   `frostbert run --locked`"
                .into(),
        })
        }
    }

    /// Writes the lock file of a run folder, with the digests of the folder's files. It is written last: a folder with
    /// a complete lock file is a finished run.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be read or written.
    pub fn write(mut self, folder: &Path) -> Result<()> {
        self.outputs = output_digests(folder)?;
        self.made = Provenance::now(self.current_model());
        let mut json = serde_json::to_string_pretty(&self).expect("plain fields become JSON");
        json.push('\n');
        let path = folder.join(LOCK_FILE);
        Ok(write_file(&path, json.as_bytes())?)
    }

    /// Returns one line for each data or model file that has changed since the run.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read for any reason other than that it is missing.
    pub fn changed_inputs(&self) -> Result<Vec<String>> {
        let mut models: Vec<(&Path, &CheckpointHashes)> =
            self.models.iter().map(|one| (one.folder(), &one.model)).collect();
        if models.is_empty() {
            models.extend(self.model.iter().map(|model| (&*self.pipeline.model.path, model)));
        }
        let mut files: Vec<(PathBuf, &Digest, Option<Digest>)> = Vec::new();
        for (folder, model) in models {
            let expected = [&model.weights, &model.config, &model.tokenizer];
            let hashed = checkpoint::hash_files(folder, self.pipeline.model.lowercase)?;
            let hashed = hashed.into_iter().zip(expected);
            files.extend(hashed.map(|((path, got), expected)| (path, expected, got)));
        }
        for file in &self.data {
            files.push((file.path.clone(), &file.blake3, hash_of_path(&file.path)?));
        }
        let mut changed = Vec::new();
        for (path, expected, got) in files {
            if got.as_ref() != Some(expected) {
                let got = got.map_or(NO_FILE.into(), |hash| hash.short());
                changed.push(format!(
                    "{}: expected {}, got {got}",
                    path.display(),
                    expected.short()
                ));
            }
        }
        if self.frostbert != program::VERSION {
            changed.push(format!(
                "frostbert: expected {}, got {}",
                self.frostbert,
                program::VERSION
            ));
        }
        Ok(changed)
    }

    /// Returns a note if a run of another commit of the same version is replayed, which may still reproduce the same
    /// bytes.
    pub(crate) fn other_commit(&self) -> Option<String> {
        let of_run = self.made.commit.as_deref()?;
        match program::COMMIT {
            Some(own) if own == of_run => None,
            own => Some(format!(
                "the run was made by commit {of_run} of frostbert {}, but is replayed by {}",
                self.frostbert,
                own.map_or("a build without git".into(), |own| format!("commit {own}"))
            )),
        }
    }

    /// Returns the model's name, with its revision on the hub if that is known.
    pub fn base_model(&self) -> BaseModel {
        let known = self.made.base_model.clone();
        known.unwrap_or_else(|| BaseModel::named_by(&self.head_pipeline().model.path))
    }

    /// Returns the name of the model where it is now, or of the vectors where there is none.
    fn current_model(&self) -> BaseModel {
        if self.model.is_some() {
            return BaseModel::of(&self.head_pipeline().model.path);
        }
        let columns: Vec<String> = self.states.iter().map(StateId::to_string).collect();
        BaseModel {
            name: format!("none: vectors of the column {}", columns.join(", ")),
            revision: None,
        }
    }

    /// The pipeline of the head: of a sweep that of the winning one.
    pub(crate) fn head_pipeline(&self) -> &PipelineFile {
        self.winner.as_ref().unwrap_or(&self.pipeline)
    }

    /// Returns when the run was finished. For a lock without a time, this is when its file was written.
    pub(crate) fn created(&self, folder: &Path) -> Option<DateTime<Utc>> {
        let said = self.made.created.as_deref();
        let said = said.and_then(|time| DateTime::parse_from_rfc3339(time).ok());
        said.map(|time| time.to_utc()).or_else(|| {
            let written = std::fs::metadata(folder.join(LOCK_FILE)).ok()?.modified().ok()?;
            Some(DateTime::<Utc>::from(written))
        })
    }

    /// Returns one line for each difference between this lock and a replay's: rows, split, labels, and the bytes of the
    /// outputs.
    ///
    /// Instruction sets are mentioned only if outputs differ, because by themselves they change nothing.
    pub fn differences(&self, replay: &Lock) -> Vec<String> {
        let names = |lock: &Lock| lock.labels.names().join(", ");
        let fingerprint = |lock: &Lock| lock.cache.fingerprint.clone();
        let rows = (self.cache.rows.short(), replay.cache.rows.short());
        let split = (self.split.rows.short(), replay.split.rows.short());
        let mut pairs = vec![
            ("cache fingerprint", fingerprint(self), fingerprint(replay)),
            ("rows of the cache", rows.0, rows.1),
            ("split", split.0, split.1),
            ("labels", names(self), names(replay)),
        ];
        for (name, expected) in &self.outputs {
            let got = replay.outputs.get(name);
            let got = got.map_or("none".into(), Digest::short);
            pairs.push((name, expected.short(), got));
        }
        let mut lines: Vec<String> = pairs
            .into_iter()
            .filter(|(_, expected, got)| expected != got)
            .map(|(what, expected, got)| format!("{what}: expected {expected}, got {got}"))
            .collect();
        if !lines.is_empty() {
            let onnxruntime = |lock: &Lock| lock.cache.onnxruntime.join(", ");
            let context = [
                ("ONNX Runtime", onnxruntime(self), onnxruntime(replay)),
                ("CPU", self.cpu.join(" "), replay.cpu.join(" ")),
                ("device", self.device.clone(), replay.device.clone()),
            ];
            for (what, expected, got) in context {
                if expected != got {
                    lines.push(format!("{what}: expected {expected}, got {got}"));
                }
            }
        }
        lines
    }
}

/// Returns whether a run folder has a complete lock file, which means that the run is finished.
pub(crate) fn is_finished(folder: &Path) -> bool {
    Lock::read(&folder.join(LOCK_FILE)).is_ok()
}

/// Returns the blake3 of the files in a run folder that a replay must reproduce.
fn output_digests(folder: &Path) -> Result<BTreeMap<String, Digest>> {
    let of_some = REPRODUCED_OF_SOME.into_iter();
    let there = of_some.filter(|name| folder.join(name).is_file());
    REPRODUCED
        .into_iter()
        .chain(there)
        .map(|name| Ok((name.to_string(), fingerprint::hash_file(&folder.join(name))?)))
        .collect()
}

/// Returns the instruction sets of this CPU that determine how products are computed.
pub(crate) fn cpu_features() -> Vec<String> {
    let mut features = vec![std::env::consts::ARCH.to_string()];
    #[cfg(target_arch = "x86_64")]
    for (name, there) in [
        ("avx2", is_x86_feature_detected!("avx2")),
        ("fma", is_x86_feature_detected!("fma")),
        ("avx512f", is_x86_feature_detected!("avx512f")),
    ] {
        if there {
            features.push(name.into());
        }
    }
    features
}

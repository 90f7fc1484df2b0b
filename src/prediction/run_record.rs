//! A run by its files, without its head: what runs are described and compared by.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    config::file::PipelineFile,
    data::example::FileRecord,
    error::{Error, Result},
    metrics::scores::Scores,
    prediction::{run_list::ListedRun, saved_run::measured_part},
    run_folder::{
        find::find,
        lock::{LOCK_FILE, Lock, LockedSplit},
        tags::{Tags, place_of},
    },
    tasks::measure::METRICS_FILE,
};

/// A finished run: its lock and its metrics.
pub struct RunRecord {
    /// The folder.
    pub folder: PathBuf,
    /// Newer runs of the same name that cannot be used: their locks are not whole, or of another version.
    pub passed_over: Vec<PathBuf>,
    /// How it was chosen among others.
    pub notes: Vec<String>,
    /// In what it is another run than may be expected.
    pub warnings: Vec<String>,
    pub(crate) lock: Lock,
    pub(crate) metrics: Value,
}

/// What a run is.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct RunDescription {
    /// What it is listed with.
    #[serde(flatten)]
    pub listed: ListedRun,
    /// Whether it is the best head of a sweep.
    pub sweep: bool,
    /// The labels that it knows.
    pub labels: Vec<String>,
    /// The files that it was made of.
    pub data: Vec<FileRecord>,
    /// Rows of each part.
    pub rows: RowsByPart,
    /// All metrics of the part that stands for it, with their intervals.
    pub metrics: Scores,
    /// What made it.
    pub versions: Map<String, Value>,
    /// What makes it again.
    pub command: String,
}

/// Rows of each part of a split.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RowsByPart {
    /// That the head learned from.
    pub train: usize,
    /// That chose its epoch, and what else validation decides.
    pub validation: usize,
    /// That decided nothing.
    pub test: usize,
}

impl RowsByPart {
    pub(crate) fn of(split: &LockedSplit) -> RowsByPart {
        RowsByPart { train: split.train, validation: split.validation, test: split.test }
    }
}

impl RunRecord {
    /// Opens a run: by its folder, by a folder of runs (then the newest in it), by the name of runs in the folder `runs`, or
    /// by a tag.
    ///
    /// # Errors
    /// When there is no finished run, or its lock or its metrics are damaged.
    pub fn open(path: &Path) -> Result<RunRecord> {
        let found = find(path)?;
        let lock = Lock::read(&found.folder.join(LOCK_FILE))?;
        let bytes = lock.read_output(&found.folder, METRICS_FILE)?;
        let metrics = serde_json::from_slice(&bytes).map_err(|error| Error::Run {
            path: found.folder.join(METRICS_FILE),
            expected: "the metrics of a run".into(),
            got: error.to_string(),
            hint: "copy the run folder again, or run its pipeline again".into(),
        })?;
        Ok(RunRecord {
            folder: found.folder,
            passed_over: found.passed_over,
            notes: found.notes,
            warnings: found.warnings,
            lock,
            metrics,
        })
    }

    /// What the run is.
    ///
    /// # Errors
    /// When its pipeline, or the file of tags beside it, is damaged.
    pub fn describe(&self) -> Result<RunDescription> {
        let metrics = self.measured().map(|(_, scores)| scores);
        Ok(RunDescription {
            listed: self.listed()?,
            sweep: self.lock.winner.is_some(),
            labels: self.lock.labels.names().to_vec(),
            data: self.lock.data.clone(),
            rows: RowsByPart::of(&self.lock.split),
            metrics: metrics.unwrap_or_default(),
            versions: self.versions(),
            command: format!("frostbert run --locked {}", self.locked_word()),
        })
    }

    /// The pipeline of its head.
    pub(crate) fn pipeline(&self) -> &PipelineFile {
        self.lock.winner.as_ref().unwrap_or(&self.lock.pipeline)
    }

    /// The part that stands for it, with the metrics there.
    pub(crate) fn measured(&self) -> Option<(&'static str, Scores)> {
        let (part, _) = measured_part(&self.metrics)?;
        Some((part, self.scores(part)))
    }

    /// The metrics of a part; none where it has no rows.
    pub(crate) fn scores(&self, part: &str) -> Scores {
        serde_json::from_value(self.metrics[part].clone()).unwrap_or_default()
    }

    /// The run as it is listed among others.
    fn listed(&self) -> Result<ListedRun> {
        let (name, number, tags) = match place_of(&self.folder) {
            Ok((runs, place)) => {
                let tags = Tags::read(&runs)?.of(&place).map(String::from).collect();
                let mut folders = place.split('/').map(String::from);
                let name = folders.next().unwrap_or_default();
                (name, folders.next().and_then(|number| number.parse().ok()), tags)
            }
            // A run that was copied somewhere else has no number and no tag.
            Err(_) => (self.lock.pipeline.name.clone().unwrap_or_default(), None, Vec::new()),
        };
        let listed = ListedRun::of(&self.lock, self.folder.clone(), &name, None)?;
        Ok(ListedRun { number, tags, ..listed })
    }

    /// What made the run: the program, ONNX Runtime, the device, the machine, the weights of the model.
    pub(crate) fn versions(&self) -> Map<String, Value> {
        let Lock { frostbert, made, model, cache, device, cpu, .. } = &self.lock;
        let versions = [
            ("frostbert", Some(frostbert.clone())),
            ("commit", made.commit.clone()),
            ("onnxruntime", Some(cache.onnxruntime.join(", "))),
            ("device", Some(device.clone())),
            ("cpu", Some(cpu.join(" "))),
            ("host", made.host.clone()),
            ("model", Some(self.lock.base_model().to_string())),
            ("weights", model.as_ref().map(|model| model.weights.short())),
        ];
        let versions = versions.into_iter();
        versions.map(|(name, version)| (name.to_string(), Value::from(version))).collect()
    }

    /// The lock file as a word of a command line.
    fn locked_word(&self) -> String {
        let path = self.folder.join(LOCK_FILE).display().to_string();
        let is_plain = |c: char| c.is_alphanumeric() || "/._-".contains(c);
        if path.chars().all(is_plain) {
            return path;
        }
        format!("'{}'", path.replace('\'', "'\\''"))
    }
}

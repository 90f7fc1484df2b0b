//! A saved run: its head, its pipeline, and the settings for reading other data files.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use frostbert_cache::{
    fingerprint::{Digest, FingerprintInputs},
    wording::counted,
};

use crate::{
    config::{names::Task, parse::apply_override, settings::Pipeline},
    data::{ColumnName, Format, Prompts, Source, inspect::has_column},
    encoder::checkpoint::Checkpoint,
    error::{Error, Result},
    extraction::{extract::inputs_for, sentence::SentenceState},
    head::saved::{
        DESCRIPTION_FILE, Head, HeadDescription, LAYERS_FILE, WEIGHTS_FILE, read_description,
    },
    metrics::metric::Metric,
    run_folder::{
        find::find,
        lock::{LOCK_FILE, Lock},
        program::VERSION,
        relocation::{Relocation, RunPlaces},
    },
    tasks::{measure::METRICS_FILE, own_metric},
};

/// A saved run: a head, and the pipeline that it was trained with.
pub struct SavedRun {
    /// The run folder.
    pub folder: PathBuf,
    /// The description of its head.
    pub description: HeadDescription,
    /// The head; `None` for a cosine.
    pub head: Option<Head>,
    /// The pipeline from its lock file.
    pub pipeline: Pipeline,
    /// Newer runs in the same folder that cannot be used because their locks are incomplete or from another version.
    pub passed_over: Vec<PathBuf>,
    /// Notes on how the run was chosen among others.
    pub notes: Vec<String>,
    /// Warnings about ways in which it may not be the expected run.
    pub warnings: Vec<String>,
    lock: Lock,
    places: RunPlaces,
}

impl SavedRun {
    /// Opens a run by its folder, by a folder of runs (the newest run in it), by the name of runs in the folder `runs`,
    /// or by a tag.
    ///
    /// # Errors
    /// Returns an error if there is no finished run, or if one of its files is damaged.
    pub fn open(path: &Path) -> Result<SavedRun> {
        SavedRun::open_moved(path, &Relocation::default())
    }

    /// Opens a run like [`SavedRun::open`], if its files have been moved since it was made.
    ///
    /// # Errors
    /// Returns the errors of [`SavedRun::open`].
    #[doc(hidden)]
    pub fn open_moved(path: &Path, relocation: &Relocation) -> Result<SavedRun> {
        let found = find(path)?;
        let folder = found.folder;
        let lock_path = folder.join(LOCK_FILE);
        let lock = Lock::read(&lock_path)?;
        let mut file = lock.head_pipeline().clone();
        let places = RunPlaces::of(&folder, &file.run.dir);
        relocation.apply(&mut file);
        let mut notes = found.notes;
        if let Some(hashes) = &lock.model {
            let model = &mut file.model;
            if relocation.model.is_none() {
                notes.extend(places.find_model(&mut model.path, model.lowercase, hashes));
            }
            if let Some(cache) = places.of_cache(&file.cache.dir, &lock.cache.fingerprint) {
                file.cache.dir = cache;
            }
        }
        let pipeline = Pipeline::check(&lock_path, file)?;
        let bytes = lock.read_output(&folder, DESCRIPTION_FILE)?;
        let description = read_description(&folder.join(DESCRIPTION_FILE), &bytes)?;
        let bytes = lock.read_output(&folder, WEIGHTS_FILE)?;
        let head = match description.network {
            Some(_) => {
                let path = folder.join(WEIGHTS_FILE);
                let layers_path = folder.join(LAYERS_FILE);
                let layers = if description.has_encoder_layers() {
                    Some(lock.read_output(&folder, LAYERS_FILE)?)
                } else {
                    None
                };
                let layers = layers.as_ref().map(|bytes| (&*layers_path, &bytes[..]));
                Some(Head::from_files(&path, &bytes, layers, description.clone())?)
            }
            None => None,
        };
        let run = SavedRun {
            passed_over: found.passed_over,
            notes,
            warnings: found.warnings,
            folder,
            description,
            head,
            pipeline,
            lock,
            places,
        };
        run.require_one_task()?;
        Ok(run)
    }

    /// Returns the settings for reading a data file: its own if the pipeline names the file, and otherwise those of the
    /// first train source. Columns of ids and of parts are not read.
    ///
    /// The format is `format` if it is given. Otherwise it is that of the train source if the file has the same
    /// extension as the train source's file, or an extension that implies no format, and else the one that the
    /// extension implies. The constant label of a train source of lines is not applied to other files.
    pub fn source(&self, path: &Path, format: Option<Format>) -> Source {
        if let Some(own) = self.own_source(path) {
            let format = format.or(own.format);
            return Source { id: None, split_column: None, format, ..own.clone() };
        }
        let train = &self.pipeline.data.train[0];
        let by_extension = Source {
            path: path.to_path_buf(),
            format: None,
            id: None,
            split_column: None,
            label_path: None,
            ..train.clone()
        };
        let train_format = train.resolve_format().ok();
        // If the format is inferred from the name, the contents may refine it: a .json file may hold an array.
        let told = if by_extension.extension() == train.extension() {
            train.format
        } else if by_extension.resolve_format().is_ok() {
            None
        } else {
            train_format
        };
        let format = format.or(told);
        let constant_label = train_format == Some(Format::Lines) && train.pattern.is_none();
        let label = train.label.clone().filter(|_| !constant_label);
        let mut source = Source { format, label, ..by_extension };
        if source.resolve_format().is_ok_and(|format| format == Format::Folder) {
            // The labels are the names of the subfolders.
            source.label = None;
        }
        // The delimiter is only valid for the train source's format.
        let is_same_format = source.resolve_format().ok() == train_format;
        let is_array = source.resolve_format().is_ok_and(|format| format == Format::Npy);
        let source = Source {
            delimiter: source.delimiter.filter(|_| is_same_format),
            // An array has no columns.
            state: source.state.filter(|_| !is_array),
            ..source
        };
        if self.pipeline.data.task == Task::Qa {
            return Source { holds_questions: false, ..source }.as_questions();
        }
        source
    }

    /// Returns the settings of a data file that the pipeline names.
    fn own_source(&self, path: &Path) -> Option<&Source> {
        let same = |source: &&Source| matches!((source.path.canonicalize(), path.canonicalize()), (Ok(a), Ok(b)) if a == b);
        self.pipeline.extraction.sources.iter().find(same)
    }

    /// Returns the column of ids of a file that is read as `source`: the pipeline's own if it names the file, and otherwise
    /// that of the first train source if the file has it.
    pub fn id_column(&self, source: &Source) -> Option<ColumnName> {
        match self.own_source(&source.path) {
            Some(own) => own.id.clone(),
            None => {
                let of_train = self.pipeline.data.train[0].id.clone();
                of_train.filter(|column| has_column(source, column))
            }
        }
    }

    /// Returns [`SavedRun::source`] with some keys of the source table overridden, as in `delimiter=";"`.
    ///
    /// # Errors
    /// Returns an error if a key is unknown or a value has the wrong type.
    pub fn source_with(
        &self,
        path: &Path,
        format: Option<Format>,
        overrides: &[String],
    ) -> Result<Source> {
        let source = self.source(path, format);
        if overrides.is_empty() {
            return Ok(source);
        }
        let failed = |problem: String| {
            Error::Argument {
            action: "read the file",
            expected: "keys of a source table, as in --set delimiter=;".into(),
            got: problem,
            hint: "the keys are in docs/pipeline.md: text, text_pair, id, header, delimiter, encoding and others".into(),
        }
        };
        let is_prompt = |setting: &&String| {
            let key = setting.split('=').next().unwrap_or_default().trim();
            ["prompt", "pair_prompt"].contains(&key)
        };
        if let Some(setting) = overrides.iter().find(is_prompt) {
            return Err(failed(format!(
                "`{setting}`, but the head reads states of texts with the run's own prompt"
            )));
        }
        let table = toml::Table::try_from(&source);
        let mut table = table.map_err(|error| failed(error.to_string()))?;
        for setting in overrides {
            apply_override(&mut table, setting)?;
        }
        table.try_into().map_err(|error: toml::de::Error| failed(error.message().to_string()))
    }

    /// Returns the prompts of new texts: those of the first train source.
    pub(crate) fn prompts(&self) -> Prompts {
        self.pipeline.data.train[0].prompts()
    }

    /// Describes the run in one line: its folder, task, labels, head, score, and the day on which it was finished.
    pub fn summary(&self) -> String {
        let labels = match &self.description.labels[..] {
            [] => String::new(),
            labels => {
                let shown: Vec<&str> = labels.iter().take(5).map(String::as_str).collect();
                let more = if labels.len() > shown.len() { ", ..." } else { "" };
                format!(" of {} ({}{more})", counted(labels.len(), "label"), shown.join(", "))
            }
        };
        let score = self.score().map_or(String::new(), |score| format!(", {score}"));
        let created = self.lock.created(&self.folder);
        let day = created.map_or(String::new(), |time| format!(", {}", time.date_naive()));
        let kind = &self.description.kind;
        format!(
            "{}: {}{labels}, head {kind}{score}{day}",
            self.folder.display(),
            self.description.task
        )
    }

    /// Returns the main metric of the run's task on the test set, or else on the validation set.
    fn score(&self) -> Option<String> {
        let bytes = self.read_output(METRICS_FILE).ok()?;
        let score = main_score(
            self.pipeline.data.task,
            &self.description.labels,
            &serde_json::from_slice(&bytes).ok()?,
        )?;
        Some(format!("{} {:.3} on {}", score.metric, score.value, score.part))
    }

    /// Adds the format that a file was read in to an error, if it is the train source's and the file's name implies
    /// another format or none. `format` is the requested format.
    pub fn explain_format(&self, path: &Path, format: Option<Format>, mut error: Error) -> Error {
        let by_name = Source::new(path).resolve_format().ok();
        let used = self.source(path, format).format;
        if let (Error::Record { hint, .. }, Some(used), None) = (&mut error, used, format)
            && by_name != Some(used)
        {
            let other = by_name.map_or_else(String::new, |told| format!(" {told}"));
            hint.push_str(&format!(
                "; the file is read as {used}, like the run's train source: --format{other} changes that"
            ));
        }
        error
    }

    /// Returns the content of a file that a replay of this run must reproduce.
    pub(crate) fn read_output(&self, name: &str) -> Result<Vec<u8>> {
        self.lock.read_output(&self.folder, name)
    }

    /// Returns the digests of the files that a replay of this run must reproduce.
    pub(crate) fn output_digests(&self) -> &BTreeMap<String, Digest> {
        &self.lock.outputs
    }

    /// Returns an error if the pipeline in the lock does not match the head.
    fn require_one_task(&self) -> Result<()> {
        let (task, head) = (self.pipeline.data.task, &self.description);
        let of_lock = (task.to_string(), self.pipeline.has_separate_pairs());
        if of_lock == (head.task.clone(), head.pair) {
            Ok(())
        } else {
            Err(self.damaged_lock(
                format!("a pipeline for the task {}, like the head", head.task),
                format!("one for {task}, or with other pairs"),
            ))
        }
    }

    fn damaged_lock(&self, expected: String, got: String) -> Error {
        Error::Run {
            path: self.folder.join(LOCK_FILE),
            expected,
            got,
            hint: "the lock was changed after the run, or the encoder's graph has changed since: copy the run folder \
                   again, or train again"
                .into(),
        }
    }

    /// Whether an encoder computes what the head reads; if not, its rows bring vectors of another model with them.
    pub fn has_encoder(&self) -> bool {
        self.pipeline.given_state().is_none()
    }

    /// Returns an error if the vectors of a file are wider or narrower than those that the head was trained on.
    pub(crate) fn require_width(&self, width: usize, path: &Path) -> Result<()> {
        match self.head.as_ref().map(Head::width) {
            Some(expected) if expected != width => Err(Error::Record {
                path: path.to_path_buf(),
                line: None,
                expected: format!(
                    "vectors of {}, as the head was trained on",
                    counted(expected, "value")
                ),
                got: width.to_string(),
                hint: "compute the vectors with the model that made those of the training data"
                    .into(),
            }),
            _ => Ok(()),
        }
    }

    /// Returns an error if the run has no encoder; `action` is what needs one, as in `serve the run`.
    ///
    /// # Errors
    /// Returns [`Error::Argument`], which says what such a run can do.
    pub fn require_encoder(&self, action: &'static str) -> Result<()> {
        self.pipeline.extraction.require_encoder(action)
    }

    /// Returns the inputs that determine the states that the head was trained on.
    pub(crate) fn inputs(&self, checkpoint: &Checkpoint) -> FingerprintInputs {
        let provider = if self.lock.device.starts_with("cuda") { "cuda" } else { "cpu" };
        inputs_for(&self.pipeline, checkpoint, provider)
    }

    /// Returns an error if the settings in the lock produce other states than those that the head was trained on.
    fn require_same_states(&self, checkpoint: &Checkpoint) -> Result<()> {
        let inputs = self.inputs(checkpoint);
        let (expected, got) = (&self.lock.cache.fingerprint, inputs.fingerprint());
        // Another version may compute a different fingerprint for the same states.
        let is_of_this_version = self.lock.frostbert == VERSION;
        if *expected == got || !is_of_this_version {
            Ok(())
        } else {
            Err(self.damaged_lock(
                format!(
                    "settings that give the states of {expected}, which the head was trained on"
                ),
                format!("those of {got}"),
            ))
        }
    }

    /// Fails if the head reads sentence vectors that other modules make now.
    fn require_same_modules(&self, checkpoint: &Checkpoint) -> Result<()> {
        let Some(expected) = &self.description.sentence else {
            return Ok(());
        };
        let got = SentenceState::required(checkpoint)?.digest();
        if got == *expected {
            return Ok(());
        }
        Err(Error::Run {
            path: self.folder.join(LOCK_FILE),
            expected: format!(
                "the modules {} after the encoder in `{}`",
                expected.short(),
                checkpoint.folder.display()
            ),
            got: got.short(),
            hint: "put the folder back that this head was trained on, or train again".into(),
        })
    }

    /// Returns the name of the model, with its revision on the hub if that is known.
    pub fn model_name(&self) -> String {
        self.lock.base_model().to_string()
    }

    /// Creates the error that names the places where the model was looked for, and how to give its folder.
    fn no_model(&self, folder: &Path) -> Error {
        let places = self.places.of_model(folder);
        let looked: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
        Error::Checkpoint {
            path: folder.to_path_buf(),
            expected: format!("the model of the run, {}", self.model_name()),
            got: "no such folder".into(),
            hint: format!(
                "name the folder where it is now with --model DIR, or fetch it with `frostbert model pull` (looked in {})",
                looked.join(", ")
            ),
        }
    }

    /// Returns the checkpoint, or an error if it is not the one that the head was trained on.
    pub(crate) fn checkpoint(&self) -> Result<Checkpoint> {
        self.require_encoder("encode texts")?;
        let folder = &self.pipeline.extraction.model;
        if !folder.exists() {
            return Err(self.no_model(folder));
        }
        let checkpoint = self.pipeline.extraction.checkpoint()?;
        if let Some(model) = self.lock.model.as_ref().filter(|model| checkpoint.hashes != **model) {
            return Err(Error::Run {
                path: self.folder.join(LOCK_FILE),
                expected: format!(
                    "the model {} in `{}`",
                    model.weights.short(),
                    checkpoint.folder.display()
                ),
                got: format!(
                    "{}, or another config.json or tokenizer.json",
                    checkpoint.hashes.weights.short()
                ),
                hint: "put the checkpoint back that this head was trained on, or train again"
                    .into(),
            });
        }
        self.require_same_states(&checkpoint)?;
        self.require_same_modules(&checkpoint)?;
        Ok(checkpoint)
    }
}

/// A metric of a run, as it is in its metrics.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MainScore {
    pub(crate) metric: &'static str,
    pub(crate) part: &'static str,
    pub(crate) value: f64,
    pub(crate) ci: Option<[f64; 2]>,
}

/// Returns the main metric of a task from the metrics of a run, on the test set or else on the validation set.
pub(crate) fn main_score(
    task: Task,
    labels: &[String],
    metrics: &serde_json::Value,
) -> Option<MainScore> {
    score_of(own_metric(task, labels), metrics)
}

/// A metric among the metrics of a run: on test, or else on validation.
pub(crate) fn score_of(metric: Metric, metrics: &serde_json::Value) -> Option<MainScore> {
    let (part, scores) = measured_part(metrics)?;
    let metric = metric.name();
    let ci = |end: usize| scores[&format!("{metric}_ci")][end].as_f64();
    Some(MainScore {
        metric,
        part,
        value: scores[metric].as_f64()?,
        ci: ci(0).zip(ci(1)).map(|(low, high)| [low, high]),
    })
}

/// The part that stands for a run, with its metrics: test, or else validation.
pub(crate) fn measured_part(
    metrics: &serde_json::Value,
) -> Option<(&'static str, &serde_json::Value)> {
    let mut parts = ["test", "validation"].into_iter().map(|part| (part, &metrics[part]));
    parts.find(|(_, scores)| scores.is_object())
}

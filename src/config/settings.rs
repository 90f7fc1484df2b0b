//! The checked settings of a pipeline, which extraction and training work with.

mod changed;
mod extraction;
mod given_states;
mod head;
mod layers;
mod model_folder;
mod models;
mod numbers;
pub(crate) mod prompts;
mod reading;
mod sources;
pub(crate) mod training;
mod unfreezing;
mod variant;

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

pub(crate) use changed::{all_settings, changed_settings};
pub(crate) use extraction::ExtractionSettings;
use frostbert_cache::{plan::MAX_STATES, states::StateId};
pub(crate) use head::{
    HeadSettings, HiddenLayers, KindSettings, LossSettings, StepSettings, UNCHOSEN,
};
pub(crate) use layers::{LayerChoice, layer_from_bottom};
use model_folder::ReadVector;
use models::SweptModel;
use sources::FilesAsRead;
use toml::Value;
pub(crate) use training::MOST_UNITS;
pub use variant::show;
pub(crate) use variant::{Settings, described};

use crate::{
    config::{
        file::{Labels, PipelineFile, sweep::SweepSection},
        names::{Pair, Store, Task},
    },
    data::{CleanOptions, ColumnName, Source, SplitFractions},
    encoder::{checkpoint::Checkpoint, device::Precision},
    error::{Error, Result},
};

/// A checked pipeline.
///
/// The settings of the extraction are checked when the file is read, those of the training by
/// [`Pipeline::check_training`].
#[derive(Clone, Debug)]
pub struct Pipeline {
    /// The path of the pipeline file.
    pub(crate) path: PathBuf,
    /// Name of its runs.
    pub name: String,
    /// Determines the split, the initial weights, the order of rows and every resample.
    pub(crate) seed: u64,
    /// Run folders are written to `<run_dir>/<name>/<number>`.
    pub(crate) run_dir: PathBuf,
    /// The labelled data.
    pub(crate) data: DataSettings,
    /// The settings of the extraction.
    pub(crate) extraction: ExtractionSettings,
    /// The head; in a sweep over kinds, each trial has its own.
    pub(crate) head: HeadSettings,
    /// Maximum number of bytes of states that stay in memory: `train.memory_mb`.
    pub(crate) memory_bytes: u64,
    /// The section `[sweep]`.
    pub(crate) sweep: Option<SweepSection>,
    /// The metric that `sweep.select` names; of a trial, that of its sweep.
    pub(crate) selected_by: Option<String>,
    /// The models that the sweep compares; none where it compares no models.
    pub(crate) models: Vec<SweptModel>,
    /// The states that a sentence vector is made of, where the head or the sweep reads one.
    sentence: Vec<Store>,
    /// How sentence vectors are made, once it was read.
    read_vector: OnceLock<ReadVector>,
    /// Whether the file leaves `head.pooling` to the model's folder.
    pub(crate) pooling_is_auto: bool,
    /// Whether `model.prompt` is the default prompt of the model's folder, which the file leaves open.
    pub(crate) prompt_is_default: bool,
    /// What was found out that the file leaves open, to be said once.
    pub notes: Vec<String>,
    /// What the user should know about it, to be said once.
    pub warnings: Vec<String>,
    file: PipelineFile,
}

/// One task of a pipeline file.
#[derive(Clone, Debug)]
pub struct NamedTask {
    /// The name in `[tasks.NAME]`; `None` if the file has a single task.
    pub name: Option<String>,
    /// Its checked pipeline.
    pub pipeline: Pipeline,
}

/// The labelled data: its sources, and how they are read, cleaned and split.
#[derive(Clone, Debug)]
pub(crate) struct DataSettings {
    /// The task.
    pub task: Task,
    /// The sources of train, which are split if validation or test is not given.
    pub train: Vec<Source>,
    /// The sources of validation, if given.
    pub validation: Option<Vec<Source>>,
    /// The sources of test, if given.
    pub test: Option<Vec<Source>>,
    /// The labels in id order, or a file of them, if given.
    pub labels: Option<Labels>,
    /// The shares into which train is split.
    pub split: SplitFractions,
    /// Which examples are dropped.
    pub clean: CleanOptions,
    /// How the two texts of a pair are encoded.
    pub pair: Pair,
}

impl Pipeline {
    /// Reads and checks a pipeline file of one task, with overrides such as `train.lr=1e-3`.
    ///
    /// # Errors
    /// Returns an error with a hint if a key or a value is unknown or not supported, or if the file has several tasks.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Pipeline> {
        let mut tasks = Pipeline::read_tasks(path, overrides)?;
        match tasks.len() {
            1 => Ok(tasks.remove(0).pipeline),
            n => Err(refusal(path)(
                format!("the file has {n} tasks, but this command works on one"),
                "name a pipeline file with one task".into(),
            )),
        }
    }

    /// Checks the settings of a pipeline file; `path` is used in messages, and its stem is the default name of the
    /// runs.
    ///
    /// # Errors
    /// Returns an error with a hint if a value is not supported.
    pub fn check(path: &Path, mut file: PipelineFile) -> Result<Pipeline> {
        let refuse = refusal(path);
        let stem = || {
            path.file_stem().map_or("pipeline".into(), |stem| stem.to_string_lossy().into_owned())
        };
        let name = file.name.get_or_insert_with(stem).clone();
        if !is_folder_name(&name) {
            return Err(refuse(
                format!("`name` is `{name}`, which cannot be the name of a folder"),
                "use letters, digits, - and _".into(),
            ));
        }
        given_states::require_model(&file, &refuse)?;
        // The lock records which column was read, so that a replay does not have to infer it.
        for source in file.data.sources_mut().filter(|source| !source.has_vectors()) {
            let text = source.text_column();
            source.text.get_or_insert(text);
        }
        let FilesAsRead { train, validation, test } = FilesAsRead::of(&file);
        let given = [Some(&train), validation.as_ref(), test.as_ref()].into_iter().flatten();
        let sources: Vec<Source> = given.flatten().cloned().collect();
        require_utf_8(&file, &sources, &refuse)?;
        numbers::require_finite(&file, &refuse)?;
        // Repeated sentences are kept by default: benchmarks of taggers count all of them.
        let drops_duplicates = file.data.task != Task::Tokens;
        file.data.clean.drop_duplicates.get_or_insert(drops_duplicates);
        file.head.kind.get_or_insert(file.data.task.facts().kinds[0]);
        let defaults = model_folder::fill_in(&mut file, &refuse)?;
        unfreezing::check_swept(&file, &refuse)?;
        let extraction = extraction::check(&mut file, sources, &defaults, &refuse)?;
        prompts::check(&file, &refuse)?;
        let models = models::swept_models(&file, &refuse)?;
        let data = file.data.clone();
        Ok(Pipeline {
            path: path.to_path_buf(),
            name,
            seed: file.seed,
            run_dir: file.run.dir.clone(),
            data: DataSettings {
                task: data.task,
                train,
                validation,
                test,
                labels: data.labels,
                split: data.split,
                clean: CleanOptions {
                    drop_empty: data.clean.drop_empty,
                    drop_duplicates: data.clean.drop_duplicates.unwrap_or(drops_duplicates),
                    drop_unlabelled: data.clean.drop_unlabelled,
                },
                pair: data.pair.unwrap_or_default(),
            },
            extraction,
            head: HeadSettings::new(&file),
            memory_bytes: file.train.memory_mb.saturating_mul(1 << 20),
            sweep: file.sweep.clone(),
            selected_by: file.sweep.as_ref().and_then(|sweep| sweep.select.clone()),
            models,
            sentence: defaults.sentence,
            read_vector: OnceLock::new(),
            pooling_is_auto: defaults.is_auto,
            prompt_is_default: false,
            notes: defaults.note.into_iter().collect(),
            warnings: defaults.warning.into_iter().collect(),
            file,
        })
    }

    /// Returns the pipeline file after defaults and overrides, as the lock file stores it.
    pub fn file(&self) -> &PipelineFile {
        &self.file
    }

    /// Returns the states to extract from a model of `model_layers` layers, sorted and without duplicates.
    ///
    /// # Errors
    /// Returns an error if the model does not have one of the layers, or if there are more than [`MAX_STATES`] states.
    pub fn stored_states(&self, model_layers: usize) -> Result<Vec<StateId>> {
        let refuse = refusal(&self.path);
        self.check_unfreezings(model_layers)?;
        let mut states = Vec::new();
        for layer in self.extraction.layers.numbers(model_layers, "cache.layers", &refuse)? {
            let kinds = self.extraction.kinds.iter();
            states.extend(kinds.map(|kind| StateId { kind: *kind, layer }));
        }
        states.sort_unstable();
        states.dedup();
        if states.len() > MAX_STATES {
            return Err(refuse(
                format!("cache.store and cache.layers ask for {} states at once", states.len()),
                format!("ask for at most {MAX_STATES}; others can be added by another extraction"),
            ));
        }
        Ok(states)
    }

    /// Checks that `max_length` fits the checkpoint.
    ///
    /// # Errors
    /// Returns an error if it exceeds the number of positions of the model.
    pub fn check_length(&self, checkpoint: &Checkpoint) -> Result<()> {
        let asked = self.extraction.max_length;
        if let Some(most) = checkpoint.config.max_tokens.filter(|most| asked > *most) {
            return Err(refusal(&self.path)(
                format!("cache.max_length is {asked}, but the model has {most} positions"),
                format!("set cache.max_length to {most} or less"),
            ));
        }
        Ok(())
    }

    /// Checks what only training needs: that the head, the loss and the numbers are valid for the task.
    ///
    /// # Errors
    /// Returns an error if a combination is not supported, or a number is out of its range.
    pub fn check_training(&self) -> Result<()> {
        let refuse = refusal(&self.path);
        let mut sources = self.extraction.sources.iter();
        let has_pairs = self.has_pairs();
        let is_qa = self.data.task == Task::Qa;
        if let Some(other) = sources.find(|source| source.text_pair.is_some() != has_pairs)
            && !is_qa
        {
            return Err(refuse(
                format!(
                    "only some sources have a text_pair: see `{}`",
                    other.path.display()
                ),
                "set text_pair in all sources or in none: a head reads either one text of every row or two".into(),
            ));
        }
        self.check_label_columns()?;
        let swept = self.sweep.as_ref();
        if swept.is_some_and(|section| section.values("kind").next().is_some()) {
            // The other settings of `[head]` apply to the kinds that have them, so each trial is checked instead.
            return Ok(());
        }
        training::check(&self.file, has_pairs, &refuse)
    }

    /// Checks that columns of labels are only used for classes, and are not given as a distribution.
    fn check_label_columns(&self) -> Result<()> {
        let swept = self.sweep.as_ref();
        let mut swept = swept.into_iter().flat_map(|section| section.values("label"));
        let swept = swept.next();
        if swept.is_some_and(Value::is_table) {
            return Err(self.refuse(
                "sweep.label is a distribution, but columns cannot be drawn".into(),
                "list the columns, as in label = [\"label\", \"annotator_1\"]".into(),
            ));
        }
        let task = self.data.task;
        if task == Task::Classification || (swept.is_none() && self.head.label.is_none()) {
            return Ok(());
        }
        let key = match swept {
            Some(_) => "sweep.label",
            None => "train.label",
        };
        Err(self.refuse(
            format!("{key} names columns with one label per row, but the task is `{task}`"),
            format!(
                "leave {key} out; to learn something else, give it a task of its own: [tasks.NAME]"
            ),
        ))
    }

    /// Whether each row is a pair of texts.
    pub fn has_pairs(&self) -> bool {
        self.data.train[0].text_pair.is_some() && self.data.task != Task::Qa
    }

    /// Whether the head reads two texts: a pair, or a question and its context.
    pub fn reads_pairs(&self) -> bool {
        self.has_pairs() || self.data.task == Task::Qa
    }

    /// Whether two texts are encoded as two inputs, so that a row has two documents.
    pub fn has_separate_pairs(&self) -> bool {
        self.has_pairs() && self.data.pair == Pair::Separate && self.data.task != Task::Qa
    }

    /// Whether the head itself pools the tokens of a text.
    pub(crate) fn pools_by_attention(&self) -> bool {
        self.head.pools_by_attention(self.data.task)
    }

    /// Returns the same pipeline with another precision of the encoder.
    ///
    /// # Errors
    /// Returns the errors of [`Pipeline::check`].
    pub(crate) fn with_precision(&self, precision: Precision) -> Result<Pipeline> {
        let mut file = self.file.clone();
        file.model.precision = precision;
        Pipeline::check(&self.path, file)
    }

    /// Returns the columns of labels that heads learn from in place of the source's own: `train.label`, and those that
    /// a sweep compares.
    pub fn label_columns(&self) -> Vec<ColumnName> {
        sources::label_columns(&self.file)
    }

    /// Whether some heads learn from the validation rows: with folds, or if the winner is retrained.
    pub fn teaches_validation(&self) -> bool {
        let sweep = self.sweep.as_ref();
        sweep.is_some_and(|section| section.folds.is_some() || section.refit == Some(true))
    }

    /// Returns the section `[sweep]`.
    ///
    /// # Errors
    /// Returns an error if there is none.
    pub fn sweep(&self) -> Result<&SweepSection> {
        self.sweep.as_ref().ok_or_else(|| {
            self.refuse(
                "the pipeline has no section [sweep]".into(),
                "add one, as in [sweep] lr = [1e-3, 1e-2], or use `frostbert train`".into(),
            )
        })
    }

    /// Returns an error about this pipeline.
    pub(crate) fn refuse(&self, problem: String, hint: String) -> Error {
        refusal(&self.path)(problem, hint)
    }
}

fn is_folder_name(name: &str) -> bool {
    !(name.is_empty() || name.contains(['/', '\\']) || name.starts_with('.'))
}

/// Checks that the paths of a pipeline are UTF-8, because the lock file could not hold others. Paths from TOML always
/// are; those of a pipeline that was built in code may not be.
fn require_utf_8(
    file: &PipelineFile,
    sources: &[Source],
    refuse: &impl Fn(String, String) -> Error,
) -> Result<()> {
    let labels = match &file.data.labels {
        Some(Labels::File(path)) => Some(path),
        _ => None,
    };
    let own = [&file.model.path, &file.run.dir, &file.cache.dir];
    let paths = own.into_iter().chain(labels);
    let mut paths = paths.chain(sources.iter().map(|source| &source.path));
    match paths.find(|path| path.to_str().is_none()) {
        None => Ok(()),
        Some(path) => Err(refuse(
            format!("the path `{}` is not valid UTF-8, which a pipeline needs", path.display()),
            "rename the file or folder, or name it by a relative path".into(),
        )),
    }
}

fn refusal(path: &Path) -> impl Fn(String, String) -> Error + use<> {
    let file = path.to_path_buf();
    move |problem, hint| Error::Pipeline {
        file: file.clone(),
        line: None,
        column: None,
        problem,
        hint,
    }
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

    use super::*;

    #[test]
    fn a_pipeline_made_in_code_has_paths_that_its_lock_file_can_hold() {
        let toml = "[model]\npath = \"m\"\n[data]\ntrain = { path = \"a.csv\" }\nlabels = \"l\"";
        let strange = PathBuf::from(OsStr::from_bytes(b"a\xFF.csv"));
        type PathOf = fn(&mut PipelineFile) -> &mut PathBuf;
        let places: [PathOf; 4] = [
            |file| &mut file.model.path,
            |file| &mut file.cache.dir,
            |file| &mut file.run.dir,
            |file| &mut file.data.train.0[0].path,
        ];
        let file: PipelineFile = toml::from_str(toml).unwrap();
        Pipeline::check(Path::new("p.toml"), file.clone()).unwrap();
        let refused = |file: PipelineFile| {
            let error = Pipeline::check(Path::new("p.toml"), file).unwrap_err();
            let expected = "p.toml: the path `a\u{FFFD}.csv` is not valid UTF-8";
            assert!(error.to_string().starts_with(expected), "{error}");
        };
        for place in places {
            let mut file = file.clone();
            *place(&mut file) = strange.clone();
            refused(file);
        }
        let mut file = file;
        file.data.labels = Some(Labels::File(strange));
        refused(file);
    }

    #[test]
    fn repeated_sentences_of_words_stay_unless_the_file_says_otherwise() {
        let drops = |task: &str, clean: &str| {
            let toml = format!(
                "[model]\npath = \"m\"\n[data]\ntask = \"{task}\"\ntrain = {{ path = \"a.conll\" }}\n{clean}"
            );
            let file: PipelineFile = toml::from_str(&toml).unwrap();
            let pipeline = Pipeline::check(Path::new("p.toml"), file).unwrap();
            // The lock records what was done.
            let kept = pipeline.file().data.clean.drop_duplicates;
            assert_eq!(kept, Some(pipeline.data.clean.drop_duplicates));
            assert!(pipeline.data.clean.drop_empty && !pipeline.data.clean.drop_unlabelled);
            pipeline.data.clean.drop_duplicates
        };
        assert!(drops("classification", "") && !drops("tokens", ""));
        assert!(drops("tokens", "clean = { drop_duplicates = true }"));
        assert!(!drops("classification", "clean = { drop_duplicates = false }"));
        let unknown =
            "[model]\npath = \"m\"\n[data]\ntrain = { path = \"a\" }\nclean = { drop_dups = true }";
        assert!(toml::from_str::<PipelineFile>(unknown).is_err());
    }
}

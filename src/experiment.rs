//! An experiment: a pipeline file with one task or several. Stage 1 encodes the texts of all of them into one cache (into
//! one for each model, where a sweep compares some), stage 2 trains a head or sweeps many for each. A lock file replays it.

mod dry_run;
mod heads;
pub(crate) mod methods;
pub(crate) mod precision;
mod replay;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

pub use dry_run::{DryRun, Stages, TaskForecast};
use frostbert_cache::{fingerprint::FingerprintInputs, progress::Progress};
pub use heads::{HeadsReport, TaskReport, TasksReport};
pub use replay::{Replayed, replay};
use serde::Serialize;

use crate::{
    config::settings::{NamedTask, Pipeline},
    encoder::checkpoint::Checkpoint,
    error::Result,
    experiment::heads::{TaskData, train_heads},
    extraction::{
        extract::{ExtractReport, extract_with},
        machine::Machine,
    },
    sweep,
    tasks::measure::RunMetrics,
    training::{extras::RunExtras, inputs::caches_tried, train::refuse_sweep},
};

/// The tasks of a pipeline file: one without a name, or those of its `[tasks]`. They share a model and a cache, unless a
/// sweep compares models.
///
/// ```no_run
/// use frostbert::{Experiment, Machine, Metric};
///
/// let report = Experiment::open("pipelines/sentiment.toml")?.run(&Machine::default(), &())?;
/// println!("{}", report.folder().display());
/// let test = report.metrics(None).and_then(|metrics| metrics.test.as_ref());
/// println!("accuracy {:?}", test.and_then(|test| test.scores().value(Metric::Accuracy)));
/// # Ok::<(), frostbert::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Experiment {
    tasks: Vec<NamedTask>,
    extras: RunExtras,
}

/// The report of a run.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct RunReport {
    /// The report of stage 1, for all tasks together; none if their rows brought their states with them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extract: Option<ExtractReport>,
    /// The report of stage 2.
    pub heads: HeadsReport,
}

/// Opens an experiment of which only stage 2 is to be run. If the pipeline's `cache.dir` is an address, it is returned
/// too: of the caches there, those that [`caches_to_read`] names are to be fetched to `folder`, from which they will be
/// read.
///
/// # Errors
/// Returns the errors of [`Experiment::open_with`].
pub fn open_to_read(
    path: &Path,
    overrides: &[String],
    folder: &Path,
) -> Result<(Experiment, Option<PathBuf>)> {
    let (tasks, address) = Pipeline::read_tasks_of_any_cache(path, overrides, folder)?;
    Ok((Experiment { tasks, extras: RunExtras::default() }, address))
}

/// Returns what determines the caches that stage 2 reads: for each model of a task those that it tries, in order, of
/// which it reads one. There are none where the rows bring their states with them.
///
/// # Errors
/// Returns an error if a model cannot be read.
pub fn caches_to_read(experiment: &Experiment) -> Result<Vec<Vec<FingerprintInputs>>> {
    let checkpoints = experiment.checkpoints()?;
    let mut wanted = Vec::new();
    for task in &experiment.tasks {
        for (own, checkpoint) in by_model(&task.pipeline, &checkpoints) {
            let tried = caches_tried(&own, checkpoint);
            if !wanted.contains(&tried) {
                wanted.push(tried);
            }
        }
    }
    Ok(wanted)
}

impl Experiment {
    /// Reads and checks a pipeline file. Relative paths in it are relative to the current folder.
    ///
    /// # Errors
    /// Returns [`Error::Pipeline`](crate::Error::Pipeline) for an unknown key or an invalid value, with its line and a
    /// hint.
    pub fn open(path: impl AsRef<Path>) -> Result<Experiment> {
        Experiment::open_with(path, &[""; 0])
    }

    /// Reads a pipeline file like [`Experiment::open`], with some of its values overridden, each in the form
    /// `train.lr=1e-3`, as with the program's flag `--set`.
    ///
    /// # Errors
    /// Returns the errors of [`Experiment::open`], also for an override of an unknown key or with a value of the wrong
    /// type.
    pub fn open_with(path: impl AsRef<Path>, overrides: &[impl AsRef<str>]) -> Result<Experiment> {
        let overrides: Vec<String> =
            overrides.iter().map(|setting| setting.as_ref().to_string()).collect();
        let tasks = Pipeline::read_tasks(path.as_ref(), &overrides)?;
        Ok(Experiment { tasks, extras: RunExtras::default() })
    }

    /// The same, writing event files for TensorBoard too: for each run a folder in this one, `NAME/NUMBER`, and in it one
    /// for each trial of a sweep.
    pub fn with_tensorboard(mut self, folder: impl Into<PathBuf>) -> Experiment {
        self.extras.tensorboard = Some(folder.into());
        self
    }

    /// The same, writing what cleanlab's Datalab reads to each run folder too: probabilities by heads that did not see the
    /// rows, labels, features, and which rows they are of.
    pub fn with_datalab(mut self) -> Experiment {
        self.extras.datalab = true;
        self
    }

    /// Creates an experiment of a single task.
    pub(crate) fn of(pipeline: Pipeline) -> Experiment {
        let tasks = vec![NamedTask { name: None, pipeline }];
        Experiment { tasks, extras: RunExtras::default() }
    }

    /// Encodes the texts of all tasks. A text that occurs in several tasks is encoded once, with the states that any of
    /// them needs. Labels are not read.
    ///
    /// # Errors
    /// Returns an error if the data, the model or the device cannot be used, the disk is too small, or the cache is
    /// damaged or in use by another process. What was encoded before the error stays in the cache.
    pub fn extract(&self, machine: &Machine, progress: &dyn Progress) -> Result<ExtractReport> {
        self.tell_notes(progress);
        self.require_encoder()?;
        self.extract_with(&self.checkpoints()?, machine, progress)
    }

    /// Trains a head for each task on cached states, and writes a run folder. With several tasks, it contains a folder
    /// for each task, which is itself a run folder: it can be evaluated, predicted with and replayed.
    ///
    /// # Errors
    /// Returns an error before anything is trained if the data or the pipeline of any task is invalid or asks for a
    /// sweep. Also fails if the cache lacks rows ([`frostbert_cache::Error::Miss`]) or is damaged, or if a training
    /// diverges.
    pub fn train(&self, progress: &dyn Progress) -> Result<HeadsReport> {
        for task in &self.tasks {
            refuse_sweep(&task.pipeline)?;
        }
        let data = self.data(progress)?;
        train_heads(&self.checkpoints()?, &data, None, &self.extras, progress)
    }

    /// Runs the sweep of every task on cached states, and trains one head for each task without a sweep.
    ///
    /// # Errors
    /// Returns the errors of [`Experiment::train`], and an error if no task asks for a sweep.
    pub fn sweep(&self, progress: &dyn Progress) -> Result<HeadsReport> {
        self.require_sweep()?;
        let data = self.data(progress)?;
        train_heads(&self.checkpoints()?, &data, None, &self.extras, progress)
    }

    /// Runs both stages: checks everything that can be checked in advance, extracts what is missing, trains, and writes
    /// a run folder.
    ///
    /// # Errors
    /// Returns the errors of [`Experiment::extract`] and [`Experiment::train`].
    pub fn run(&self, machine: &Machine, progress: &dyn Progress) -> Result<RunReport> {
        let data = self.data(progress)?;
        let checkpoints = self.checkpoints()?;
        for task in &self.tasks {
            check_heads_are_stored(&task.pipeline, &checkpoints)?;
        }
        let extract = || self.extract_with(&checkpoints, machine, progress);
        let extract = self.has_encoder().then(extract).transpose()?;
        let heads = train_heads(&checkpoints, &data, extract.as_ref(), &self.extras, progress)?;
        Ok(RunReport { extract, heads })
    }

    /// Whether an encoder computes the states: of all tasks, which share their model, or of none.
    fn has_encoder(&self) -> bool {
        self.tasks.iter().all(|task| task.pipeline.given_state().is_none())
    }

    /// Returns an error if the rows of a task bring their states with them.
    fn require_encoder(&self) -> Result<()> {
        let mut tasks = self.tasks.iter();
        tasks.try_for_each(|task| task.pipeline.extraction.require_encoder("extract states"))
    }

    /// Returns an error if no task asks for a sweep.
    fn require_sweep(&self) -> Result<()> {
        if self.tasks.iter().all(|task| task.pipeline.sweep.is_none()) {
            self.tasks[0].pipeline.sweep()?;
        }
        Ok(())
    }

    /// The models of all tasks, each once: one, unless a sweep compares some.
    fn checkpoints(&self) -> Result<Vec<Checkpoint>> {
        let mut checkpoints: Vec<Checkpoint> = Vec::new();
        let pipelines = self.tasks.iter().flat_map(|task| task.pipeline.by_model());
        for own in pipelines.filter(|own| own.given_state().is_none()) {
            let folder = &own.extraction.model;
            if checkpoints.iter().any(|open| open.folder == *folder) {
                continue;
            }
            let checkpoint =
                own.extraction.checkpoint().map_err(|error| own.naming_model(error))?;
            if let Some(same) = checkpoints.iter().find(|open| open.hashes == checkpoint.hashes) {
                return Err(own.refuse(
                    format!(
                        "`{}` and `{}` are the same model: their files have the same bytes",
                        same.folder.display(),
                        folder.display()
                    ),
                    "name every model once, by a single path".into(),
                ));
            }
            checkpoints.push(checkpoint);
        }
        Ok(checkpoints)
    }

    /// Reports the notes and warnings from reading the pipeline.
    fn tell_notes(&self, progress: &dyn Progress) {
        let pipelines = || self.tasks.iter().map(|task| &task.pipeline);
        for warning in each_once(pipelines().flat_map(|pipeline| &pipeline.warnings)) {
            progress.warn(warning);
        }
        for note in each_once(pipelines().flat_map(|pipeline| &pipeline.notes)) {
            progress.note(note);
        }
    }

    /// Reads and checks the labelled rows of every task.
    fn data(&self, progress: &dyn Progress) -> Result<Vec<TaskData<'_>>> {
        self.tell_notes(progress);
        let tasks = self.tasks.iter();
        let data = tasks.map(|task| {
            let dataset = sweep::checked_dataset(&task.pipeline, progress)?;
            Ok(TaskData { task, dataset })
        });
        data.collect()
    }

    fn extract_with(
        &self,
        checkpoints: &[Checkpoint],
        machine: &Machine,
        progress: &dyn Progress,
    ) -> Result<ExtractReport> {
        let extract = |checkpoint: &Checkpoint, pipeline: &Pipeline| {
            extract_with(checkpoint, pipeline, machine, progress)
        };
        let (mut total, models) =
            self.sum_extractions(checkpoints, extract, ExtractReport::add, progress)?;
        total.models = models;
        Ok(total)
    }

    /// What every extraction comes to, added up; and of several models what the extractions of each come to.
    fn sum_extractions<T: Clone>(
        &self,
        checkpoints: &[Checkpoint],
        extract: impl Fn(&Checkpoint, &Pipeline) -> Result<T>,
        add: impl Fn(&mut T, &T),
        progress: &dyn Progress,
    ) -> Result<(T, BTreeMap<String, T>)> {
        let sum = |total: &mut Option<T>, one: &T| match total {
            None => *total = Some(one.clone()),
            Some(total) => add(total, one),
        };
        let extractions = checkpoints.iter().map(|model| (model, self.extractions(&model.folder)));
        let extractions: Vec<(&Checkpoint, Vec<Pipeline>)> = extractions.collect();
        // What one of them cannot do is said before another is done.
        for (checkpoint, pipelines) in &extractions {
            for pipeline in pipelines {
                let checked = pipeline.check_model(checkpoint);
                checked.map_err(|error| pipeline.naming_model(error))?;
            }
        }
        let mut total = None;
        let mut models = BTreeMap::new();
        for (checkpoint, pipelines) in extractions {
            let model = checkpoint.folder.display().to_string();
            if checkpoints.len() > 1 {
                progress.note(&format!("model {model}"));
            }
            let mut of_model = None;
            for pipeline in &pipelines {
                let done = extract(checkpoint, pipeline);
                let done = done.map_err(|error| pipeline.naming_model(error))?;
                sum(&mut total, &done);
                sum(&mut of_model, &done);
            }
            models.extend(of_model.filter(|_| checkpoints.len() > 1).map(|own| (model, own)));
        }
        Ok((total.expect("an experiment has a task"), models))
    }

    /// The extractions that encode all texts for a model: tasks that share a file, or need the same states, are extracted
    /// together.
    fn extractions(&self, model: &Path) -> Vec<Pipeline> {
        let mut groups: Vec<Pipeline> = Vec::new();
        let pipelines = self.tasks.iter().flat_map(|task| task.pipeline.by_model());
        for pipeline in pipelines.filter(|own| own.extraction.model == model) {
            let own = &pipeline.extraction;
            let together = groups.iter_mut().find(|group| {
                let group = &group.extraction;
                let shares = own.sources.iter().any(|source| {
                    let mut others = group.sources.iter();
                    others.any(|other| other.path == source.path)
                });
                // Whether there are prompts may decide the cache.
                group.has_prompts() == own.has_prompts()
                    && (shares || (group.kinds == own.kinds && group.layers == own.layers))
            });
            match together {
                Some(group) => group.extraction.merge(own),
                None => groups.push(pipeline),
            }
        }
        groups
    }
}

impl RunReport {
    /// Returns the run folder.
    pub fn folder(&self) -> &Path {
        self.heads.folder()
    }

    /// Returns the metrics of a task's head, or of the best head of its sweep. Without a name, the task is the only one
    /// of the pipeline.
    pub fn metrics(&self, task: Option<&str>) -> Option<&RunMetrics> {
        self.heads.task(task).map(TaskReport::metrics)
    }
}

/// Returns messages in their order, each once: several tasks may say the same of their model.
fn each_once<'m>(messages: impl Iterator<Item = &'m String>) -> Vec<&'m String> {
    let mut different = Vec::new();
    for message in messages {
        if !different.contains(&message) {
            different.push(message);
        }
    }
    different
}

/// The pipeline of a task as stage 1 is to do it for each of its models, with the model; none where the rows bring their
/// states with them.
fn by_model<'c>(
    pipeline: &Pipeline,
    checkpoints: &'c [Checkpoint],
) -> Vec<(Pipeline, &'c Checkpoint)> {
    let pipelines = pipeline.by_model().into_iter().filter(|own| own.given_state().is_none());
    let pipelines = pipelines.map(|own| {
        let checkpoint = checkpoints.iter().find(|open| open.folder == own.extraction.model);
        (own, checkpoint.expect("the models of all tasks are open"))
    });
    pipelines.collect()
}

/// Fails before any work where a cache would not hold what the heads read.
fn check_heads_are_stored(pipeline: &Pipeline, checkpoints: &[Checkpoint]) -> Result<()> {
    by_model(pipeline, checkpoints).iter().try_for_each(|(own, checkpoint)| {
        check_head_is_stored(own, checkpoint).map_err(|error| own.naming_model(error))
    })
}

fn check_head_is_stored(pipeline: &Pipeline, checkpoint: &Checkpoint) -> Result<()> {
    let stored = pipeline.stored_states(checkpoint.config.layers)?;
    let read = sweep::states(pipeline, checkpoint)?;
    let missing = read.into_iter().find(|state| !stored.contains(state));
    match missing {
        None => Ok(()),
        Some(state) => Err(pipeline.refuse(
            format!("the head reads {state}, which cache.store and cache.layers leave out"),
            format!(
                "add \"{}\" to cache.store and {} to cache.layers, or leave both out",
                state.kind.name(),
                state.layer
            ),
        )),
    }
}

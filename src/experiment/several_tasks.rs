//! Pipelines of several tasks: one model, one cache, one run of the base, and a head for each task.

use std::{
    cell::OnceCell,
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Instant,
};

use frostbert_cache::progress::Progress;
use serde::Serialize;

use crate::{
    config::settings::{NamedTask, Pipeline},
    data::dataset::Dataset,
    encoder::checkpoint::Checkpoint,
    error::{Error, Result},
    experiment::{StageTwo, check_head_is_stored, stage_two},
    extraction::{
        extract::{ExtractReport, extract_with},
        machine::Machine,
    },
    run_folder::{self, lock::Lock},
    sweep::{self, Journal, RunTarget, checked_dataset},
    training::train::{cache_of, lock, refuse_sweep},
};

/// What a training of several tasks did.
#[derive(Clone, Debug, Serialize)]
pub struct TasksReport {
    /// The new run folder; each task has a folder in it, which is a run folder of its own.
    #[serde(serialize_with = "frostbert_cache::wording::path_shown")]
    pub run: PathBuf,
    /// Wall time of the stage.
    pub seconds: f64,
    /// What was done for each task.
    pub tasks: BTreeMap<String, StageTwo>,
}

impl TasksReport {
    /// What the report stands under in the JSON of a run: `sweep` where every task sweeps, else `train`.
    pub fn name(&self) -> &'static str {
        let mut tasks = self.tasks.values();
        if tasks.all(|task| matches!(task, StageTwo::Sweep(_))) { "sweep" } else { "train" }
    }
}

/// What a whole run of several tasks did.
#[derive(Clone, Debug, Serialize)]
pub struct TasksRunReport {
    /// Stage 1, for all tasks together.
    pub extract: ExtractReport,
    /// Stage 2.
    pub heads: TasksReport,
}

/// Encodes the texts of all tasks: a text that several of them name is encoded once, with the states that all of those
/// need.
///
/// # Errors
/// As [`crate::extraction::extract::extract`].
pub fn extract(
    tasks: &[NamedTask],
    machine: &Machine,
    progress: &dyn Progress,
) -> Result<ExtractReport> {
    let checkpoint = Checkpoint::open(&tasks[0].pipeline.extraction.model)?;
    extract_all(&checkpoint, tasks, machine, progress)
}

fn extract_all(
    checkpoint: &Checkpoint,
    tasks: &[NamedTask],
    machine: &Machine,
    progress: &dyn Progress,
) -> Result<ExtractReport> {
    let mut total: Option<ExtractReport> = None;
    for pipeline in groups(tasks) {
        let report = extract_with(checkpoint, &pipeline, machine, progress)?;
        match &mut total {
            None => total = Some(report),
            Some(total) => total.add(&report),
        }
    }
    Ok(total.expect("a file of tasks names one"))
}

/// Tasks that share a file, or need the same states, are extracted together.
fn groups(tasks: &[NamedTask]) -> Vec<Pipeline> {
    let mut groups: Vec<Pipeline> = Vec::new();
    for task in tasks {
        let own = &task.pipeline.extraction;
        let together = groups.iter_mut().find(|group| {
            let group = &group.extraction;
            let shares = own.sources.iter().any(|source| {
                let mut others = group.sources.iter();
                others.any(|other| other.path == source.path)
            });
            shares || (group.kinds == own.kinds && group.layers == own.layers)
        });
        match together {
            Some(group) => group.extraction.merge(own),
            None => groups.push(task.pipeline.clone()),
        }
    }
    groups
}

/// Trains a head for each task on cached states. Each task's folder in the run folder is a run of its own: it can be
/// evaluated, used and replayed.
///
/// # Errors
/// As [`crate::training::train::train`]; nothing is trained where the pipeline or the data of any task is at fault.
pub fn train(tasks: &[NamedTask], progress: &dyn Progress) -> Result<TasksReport> {
    for task in tasks {
        refuse_sweep(&task.pipeline)?;
    }
    stage_two_of_all(tasks, progress)
}

/// Trains the heads of every task on cached states: a sweep for those that ask for one, else one head.
///
/// # Errors
/// As [`train()`]; when no task asks for a sweep.
pub fn sweep(tasks: &[NamedTask], progress: &dyn Progress) -> Result<TasksReport> {
    if !tasks.iter().any(|task| task.pipeline.sweep.is_some()) {
        tasks[0].pipeline.sweep()?;
    }
    stage_two_of_all(tasks, progress)
}

fn stage_two_of_all(tasks: &[NamedTask], progress: &dyn Progress) -> Result<TasksReport> {
    let datasets = datasets(tasks, progress)?;
    let checkpoint = Checkpoint::open(&tasks[0].pipeline.extraction.model)?;
    train_all(&checkpoint, tasks, &datasets, None, progress)
}

/// Runs all tasks: checks everything first, extracts what is missing, trains every head.
///
/// # Errors
/// As [`extract()`] and [`train()`].
pub fn run(
    tasks: &[NamedTask],
    machine: &Machine,
    progress: &dyn Progress,
) -> Result<TasksRunReport> {
    let datasets = datasets(tasks, progress)?;
    let checkpoint = Checkpoint::open(&tasks[0].pipeline.extraction.model)?;
    for task in tasks {
        check_head_is_stored(&task.pipeline, checkpoint.config.layers)?;
    }
    let extract = extract_all(&checkpoint, tasks, machine, progress)?;
    let cache = Some(extract.cache.as_path());
    let heads = train_all(&checkpoint, tasks, &datasets, cache, progress)?;
    Ok(TasksRunReport { extract, heads })
}

fn datasets(tasks: &[NamedTask], progress: &dyn Progress) -> Result<Vec<Dataset>> {
    let datasets = tasks.iter().map(|task| checked_dataset(&task.pipeline, progress));
    datasets.collect()
}

fn train_all(
    checkpoint: &Checkpoint,
    tasks: &[NamedTask],
    datasets: &[Dataset],
    cache: Option<&Path>,
    progress: &dyn Progress,
) -> Result<TasksReport> {
    let start = Instant::now();
    let plans = plans(checkpoint, tasks, datasets, cache)?;
    // Opened when the first task has something to write.
    let run: OnceCell<(PathBuf, Option<Journal>)> = OnceCell::new();
    let mut reports = BTreeMap::new();
    for (task, dataset) in tasks.iter().zip(datasets) {
        let name = task.name.clone().unwrap_or_default();
        progress.note(&format!("task {name}"));
        let folder = || {
            if run.get().is_none() {
                let opened = run_of(tasks, &plans, progress)?;
                run.get_or_init(|| opened);
            }
            let (run, _) = run.get().expect("just opened");
            let folder = run.join(&name);
            std::fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
            Ok(folder)
        };
        let place = RunTarget::In(&folder);
        let report = stage_two(checkpoint, &task.pipeline, dataset, cache, place, progress)?;
        reports.insert(name, report);
    }
    let (run, journal) = run.into_inner().unwrap_or_default();
    if let Some(journal) = journal {
        // First the run's own: without it nothing goes on here, whatever a kill leaves of the tasks'.
        journal.finish()?;
        for (name, plan) in &plans {
            if let Some(own) = Journal::resume(&run.join(name), plan)? {
                own.finish()?;
            }
        }
    }
    Ok(TasksReport { run, seconds: start.elapsed().as_secs_f64(), tasks: reports })
}

/// What decides the result of each task, but for the states.
fn plans(
    checkpoint: &Checkpoint,
    tasks: &[NamedTask],
    datasets: &[Dataset],
    cache: Option<&Path>,
) -> Result<Vec<(String, Lock)>> {
    let plan = |(task, dataset): (&NamedTask, &Dataset)| {
        let pipeline = &task.pipeline;
        let n_layers = checkpoint.config.layers;
        let states = match &pipeline.sweep {
            Some(section) => sweep::states(pipeline, section, n_layers)?,
            None => pipeline.head_states(n_layers)?,
        };
        let cache = cache_of(cache, pipeline, checkpoint, dataset, &states)?;
        let plan = lock(pipeline, dataset, checkpoint, &cache, &states);
        Ok((task.name.clone().unwrap_or_default(), plan))
    };
    tasks.iter().zip(datasets).map(plan).collect()
}

/// The next run folder; with sweeps that of an unfinished run of equal plans, where there is one, and what it has done.
fn run_of(
    tasks: &[NamedTask],
    plans: &[(String, Lock)],
    progress: &dyn Progress,
) -> Result<(PathBuf, Option<Journal>)> {
    let first = &tasks[0].pipeline;
    let (run_dir, name) = (&first.run_dir, &first.name);
    if tasks.iter().all(|task| task.pipeline.sweep.is_none()) {
        return Ok((run_folder::create(run_dir, name)?, None));
    }
    if let Some((run, journal)) = Journal::find(run_dir, name, &plans)? {
        progress.note(&format!("going on with the unfinished run in {}", run.display()));
        return Ok((run, Some(journal)));
    }
    let run = run_folder::create(run_dir, name)?;
    let journal = Journal::begin(&run, &plans)?;
    Ok((run, Some(journal)))
}

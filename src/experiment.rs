//! An experiment: one TOML file. Stage 1 encodes, stage 2 trains one head or a sweep of many, a lock file replays it.

pub mod precision;
pub mod several_tasks;

use std::path::Path;

use frostbert_cache::progress::Progress;
use serde::Serialize;

use crate::{
    config::settings::Pipeline,
    data::dataset::Dataset,
    encoder::checkpoint::Checkpoint,
    error::{Error, Result},
    extraction::{
        extract::{ExtractReport, extract_with},
        machine::Machine,
    },
    run_folder::{
        self,
        lock::{LOCK_FILE, Lock},
    },
    sweep::{self, RunTarget, SweepReport, checked_dataset, sweep_on},
    training::train::{Overrides, TrainReport, train_on},
};

/// What a whole run did.
#[derive(Clone, Debug, Serialize)]
pub struct RunReport {
    /// Stage 1.
    pub extract: ExtractReport,
    /// Stage 2.
    pub heads: StageTwo,
}

/// What stage 2 did: one head, or a sweep of many.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum StageTwo {
    /// One head.
    Train(Box<TrainReport>),
    /// Many.
    Sweep(Box<SweepReport>),
}

impl StageTwo {
    /// The run folder.
    pub fn run(&self) -> &Path {
        match self {
            StageTwo::Train(report) => &report.run,
            StageTwo::Sweep(report) => &report.run,
        }
    }

    /// What the report stands under in the JSON of a run: `train` or `sweep`.
    pub fn name(&self) -> &'static str {
        match self {
            StageTwo::Train(_) => "train",
            StageTwo::Sweep(_) => "sweep",
        }
    }
}

/// Runs a pipeline: checks everything that can be checked first, extracts what is missing, trains, writes a run folder.
///
/// # Errors
/// As [`crate::extraction::extract::extract`] and [`crate::training::train::train`].
pub fn run(pipeline: &Pipeline, machine: &Machine, progress: &dyn Progress) -> Result<RunReport> {
    let dataset = checked_dataset(pipeline, progress)?;
    let checkpoint = Checkpoint::open(&pipeline.extraction.model)?;
    check_head_is_stored(pipeline, checkpoint.config.layers)?;
    let extract = extract_with(&checkpoint, pipeline, machine, progress)?;
    let cache = Some(extract.cache.as_path());
    let heads = stage_two(&checkpoint, pipeline, &dataset, cache, RunTarget::Next, progress)?;
    Ok(RunReport { extract, heads })
}

/// One head or a sweep, as the pipeline says.
fn stage_two(
    checkpoint: &Checkpoint,
    pipeline: &Pipeline,
    dataset: &Dataset,
    cache: Option<&Path>,
    place: RunTarget<'_>,
    progress: &dyn Progress,
) -> Result<StageTwo> {
    if pipeline.sweep.is_some() {
        let report = sweep_on(checkpoint, pipeline, dataset, cache, place, progress)?;
        return Ok(StageTwo::Sweep(Box::new(report)));
    }
    let run = || match place {
        RunTarget::Next => run_folder::create(&pipeline.run_dir, &pipeline.name),
        RunTarget::In(folder) => folder(),
    };
    let overrides = Overrides::default();
    let report = train_on(checkpoint, pipeline, dataset, cache, &run, overrides, progress)?;
    Ok(StageTwo::Train(Box::new(report)))
}

/// Replays a run from its lock file: checks every input, runs, and compares the bytes of what comes out.
///
/// # Errors
/// [`Error::Replay`] with a line for every input or output that differs; else as [`run`].
pub fn replay(lock_path: &Path, machine: &Machine, progress: &dyn Progress) -> Result<RunReport> {
    let lock = Lock::read(lock_path)?;
    let differs = |differences: Vec<String>, hint: &str| Error::Replay {
        lock: lock_path.to_path_buf(),
        differences,
        hint: hint.into(),
    };
    let changed = lock.changed_inputs()?;
    if !changed.is_empty() {
        return Err(differs(
            changed,
            "put these inputs back as they were, or run the pipeline itself for a new result",
        ));
    }
    let pipeline = Pipeline::check(lock_path, lock.pipeline.clone())?;
    let report = run(&pipeline, machine, progress)?;
    let replayed = Lock::read(&report.heads.run().join(LOCK_FILE))?;
    let differences = lock.differences(&replayed);
    if !differences.is_empty() {
        return Err(differs(
            differences,
            &format!(
                "the replay itself is whole, in {}; same bits need the same states (keep the cache), \
                 program and CPU",
                report.heads.run().display()
            ),
        ));
    }
    progress.note(&format!(
        "the same bytes as {}: {}",
        lock_path.display(),
        lock.outputs.keys().cloned().collect::<Vec<String>>().join(", ")
    ));
    Ok(report)
}

/// Fails before any work where the cache would not hold what the head reads.
fn check_head_is_stored(pipeline: &Pipeline, layers: usize) -> Result<()> {
    let stored = pipeline.stored_states(layers)?;
    let read = match &pipeline.sweep {
        None => pipeline.head_states(layers)?,
        Some(section) => sweep::states(pipeline, section, layers)?,
    };
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

//! Finds out what an experiment would do, without doing it.

use frostbert_cache::progress::Progress;
use serde::Serialize;

use super::{Experiment, by_model, check_heads_are_stored, heads::TaskData};
use crate::{
    config::settings::{NamedTask, Pipeline},
    data::Part,
    encoder::checkpoint::Checkpoint,
    error::Result,
    extraction::{
        dry_run::{ExtractForecast, forecast},
        machine::Machine,
    },
    features::pieces::require_rows,
    sweep,
    training::{inputs::open_cache, train::refuse_sweep},
};

/// The stages of an experiment to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stages {
    /// Both stages, as in [`Experiment::run`].
    All,
    /// Stage 1, as in [`Experiment::extract`].
    Extract,
    /// Stage 2, as in [`Experiment::train`].
    Train,
    /// Stage 2, as in [`Experiment::sweep`].
    Sweep,
}

/// What an experiment would do.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct DryRun {
    /// Stage 1, for all tasks together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extract: Option<ExtractForecast>,
    /// Stage 2, task by task.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskForecast>,
}

/// What stage 2 would do for a task.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct TaskForecast {
    /// Its name, if the pipeline has several tasks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The number of rows to train on.
    pub train: usize,
    /// The number of rows for early stopping and model selection.
    pub validation: usize,
    /// The number of rows to evaluate on.
    pub test: usize,
    /// The number of heads that would be trained; with successive halving, most of them only for some epochs.
    pub heads: usize,
}

impl Experiment {
    /// Reads and checks everything that the stages need, and returns what they would do. Nothing is written.
    ///
    /// # Errors
    /// Returns the errors that the stages themselves return before they encode or train anything.
    pub fn dry_run(
        &self,
        stages: Stages,
        machine: &Machine,
        progress: &dyn Progress,
    ) -> Result<DryRun> {
        match stages {
            Stages::Train => {
                self.tasks.iter().try_for_each(|task| refuse_sweep(&task.pipeline))?;
            }
            Stages::Sweep => self.require_sweep()?,
            Stages::All | Stages::Extract => {}
        }
        if stages == Stages::Extract {
            self.require_encoder()?;
        }
        let data = if stages == Stages::Extract { Vec::new() } else { self.data(progress)? };
        let checkpoints = self.checkpoints()?;
        let extract = if !self.has_encoder() {
            None
        } else if matches!(stages, Stages::All | Stages::Extract) {
            for TaskData { task, .. } in &data {
                check_heads_are_stored(&task.pipeline, &checkpoints)?;
            }
            Some(self.forecast(&checkpoints, machine, progress)?)
        } else {
            data.iter().try_for_each(|data| require_states(data, &checkpoints))?;
            None
        };
        let tasks = data.iter().map(TaskForecast::of);
        Ok(DryRun { extract, tasks: tasks.collect::<Result<_>>()? })
    }

    fn forecast(
        &self,
        checkpoints: &[Checkpoint],
        machine: &Machine,
        progress: &dyn Progress,
    ) -> Result<ExtractForecast> {
        let forecast = |checkpoint: &Checkpoint, pipeline: &Pipeline| {
            forecast(checkpoint, pipeline, machine, progress)
        };
        let (mut total, models) =
            self.sum_extractions(checkpoints, forecast, ExtractForecast::add, progress)?;
        total.models = models;
        Ok(total)
    }
}

/// Checks that the caches hold what the heads of a task read.
fn require_states(data: &TaskData<'_>, checkpoints: &[Checkpoint]) -> Result<()> {
    let TaskData { task: NamedTask { pipeline, .. }, dataset } = data;
    by_model(pipeline, checkpoints).iter().try_for_each(|(own, checkpoint)| {
        let states = sweep::states(own, checkpoint).map_err(|error| own.naming_model(error))?;
        let cache = open_cache(None, own, checkpoint, dataset, &states)?;
        require_rows(&cache, &states, &dataset.document_keys())
    })
}

impl TaskForecast {
    fn of(data: &TaskData<'_>) -> Result<TaskForecast> {
        let TaskData { task, dataset } = data;
        let heads = match &task.pipeline.sweep {
            None => 1,
            Some(section) => sweep::n_heads(&task.pipeline, section, dataset)?,
        };
        let rows = |part: Part| dataset.part(part).len();
        Ok(TaskForecast {
            name: task.name.clone(),
            train: rows(Part::Train),
            validation: rows(Part::Validation),
            test: rows(Part::Test),
            heads,
        })
    }
}

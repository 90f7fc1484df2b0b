//! `frostbert train` and `frostbert sweep`: stage 2 alone, for one task or several.

use std::process::ExitCode;

use anyhow::Result;
use frostbert::{
    config::settings::{NamedTask, Pipeline},
    experiment::{
        StageTwo,
        several_tasks::{self, TasksReport},
    },
    progress::Progress,
    sweep::sweep,
    training::train::train,
};

use super::{
    Context, PipelineArguments, output, sweep_report::describe_sweep, train_report::describe_train,
};

/// `frostbert train`: one head.
pub(super) fn run_train(arguments: &PipelineArguments, context: &Context) -> Result<ExitCode> {
    let one = |pipeline: &Pipeline, progress: &dyn Progress| {
        Ok(StageTwo::Train(Box::new(train(pipeline, progress)?)))
    };
    stage_two(arguments, context, one, several_tasks::train)
}

/// `frostbert sweep`: the heads of a `[sweep]`.
pub(super) fn run_sweep(arguments: &PipelineArguments, context: &Context) -> Result<ExitCode> {
    let one = |pipeline: &Pipeline, progress: &dyn Progress| {
        Ok(StageTwo::Sweep(Box::new(sweep(pipeline, progress)?)))
    };
    stage_two(arguments, context, one, several_tasks::sweep)
}

/// Runs stage 2 of a file of one task or of several, and shows what it did.
fn stage_two(
    arguments: &PipelineArguments,
    context: &Context,
    one: impl Fn(&Pipeline, &dyn Progress) -> frostbert::error::Result<StageTwo>,
    several: impl Fn(&[NamedTask], &dyn Progress) -> frostbert::error::Result<TasksReport>,
) -> Result<ExitCode> {
    let tasks = Pipeline::read_tasks(&arguments.pipeline, &arguments.overrides.set)?;
    match &tasks[..] {
        [task] if task.name.is_none() => {
            let report = one(&task.pipeline, &context.progress)?;
            if context.json {
                output::print_json(&report)?
            } else {
                output::print(&describe_stage_two(&report))?
            }
        }
        tasks => {
            let report = several(tasks, &context.progress)?;
            if context.json {
                output::print_json(&report)?
            } else {
                output::print(&describe_tasks(&report))?
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What stage 2 did for every task.
pub(super) fn describe_tasks(report: &TasksReport) -> String {
    let tasks = report.tasks.iter();
    let described =
        tasks.map(|(name, report)| format!("\ntask        {name}\n{}", describe_stage_two(report)));
    described.collect::<String>().trim_start().to_string()
}

/// What stage 2 did, for one head or many.
pub(super) fn describe_stage_two(report: &StageTwo) -> String {
    match report {
        StageTwo::Train(report) => describe_train(report),
        StageTwo::Sweep(report) => describe_sweep(report),
    }
}

//! `frostbert run`: both stages, or a replay.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;
use frostbert::{
    config::settings::{NamedTask, Pipeline},
    experiment::{
        self, RunReport,
        several_tasks::{self, TasksRunReport},
    },
};
use serde_json::json;

use super::{
    Context, OverrideArguments, output,
    stage_two::{describe_stage_two, describe_tasks},
};

#[derive(Debug, Args)]
pub(super) struct RunArguments {
    /// The pipeline file
    #[arg(value_name = "PIPELINE.toml", required_unless_present = "locked")]
    pipeline: Option<PathBuf>,
    #[command(flatten)]
    overrides: OverrideArguments,
    /// Replay a run from its lock file: the same inputs are checked first, then the bytes of the results
    #[arg(long, value_name = "LOCK.json", conflicts_with_all = ["pipeline", "set"])]
    locked: Option<PathBuf>,
}

pub(super) fn run(arguments: &RunArguments, context: &Context) -> Result<ExitCode> {
    let (machine, progress) = (&context.machine, &context.progress);
    let report = match (&arguments.locked, &arguments.pipeline) {
        (Some(lock), _) => experiment::replay(lock, machine, progress)?,
        (None, Some(path)) => {
            let tasks = Pipeline::read_tasks(path, &arguments.overrides.set)?;
            match &tasks[..] {
                [task] if task.name.is_none() => {
                    experiment::run(&task.pipeline, machine, progress)?
                }
                tasks => return run_tasks(tasks, context),
            }
        }
        (None, None) => unreachable!("clap asks for one of the two"),
    };
    let RunReport { extract, heads } = report;
    if context.json {
        let extract = output::extract_json(&extract)?;
        output::print_json(&json!({ "extract": extract, heads.name(): heads }))?;
    } else {
        output::print(&(output::describe_extract(&extract) + &describe_stage_two(&heads)))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn run_tasks(tasks: &[NamedTask], context: &Context) -> Result<ExitCode> {
    let TasksRunReport { extract, heads } =
        several_tasks::run(tasks, &context.machine, &context.progress)?;
    if context.json {
        let extract = output::extract_json(&extract)?;
        output::print_json(&json!({ "extract": extract, heads.name(): heads }))?;
    } else {
        output::print(&(output::describe_extract(&extract) + &describe_tasks(&heads)))?;
    }
    Ok(ExitCode::SUCCESS)
}

//! `frostbert extract`: stage 1 alone.

use std::process::ExitCode;

use anyhow::Result;
use frostbert::{
    config::settings::Pipeline, experiment::several_tasks, extraction::extract::extract,
};

use super::{Context, PipelineArguments, output};

pub(super) fn run(arguments: &PipelineArguments, context: &Context) -> Result<ExitCode> {
    let tasks = Pipeline::read_tasks(&arguments.pipeline, &arguments.overrides.set)?;
    let report = match &tasks[..] {
        [task] => extract(&task.pipeline, &context.machine, &context.progress)?,
        tasks => several_tasks::extract(tasks, &context.machine, &context.progress)?,
    };
    if context.json {
        output::print_json(&output::extract_json(&report)?)?;
    } else {
        output::print(&output::describe_extract(&report))?;
    }
    Ok(ExitCode::SUCCESS)
}

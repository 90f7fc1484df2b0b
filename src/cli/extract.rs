//! `frostbert extract`: stage 1 alone.

use std::process::ExitCode;

use anyhow::Result;
use frostbert::internals::experiment::Experiment;

use super::{Context, PipelineArguments, output};

pub(super) fn run(arguments: &PipelineArguments, context: &Context) -> Result<ExitCode> {
    let experiment = Experiment::open_with(&arguments.pipeline, &arguments.overrides.set)?;
    let report = experiment.extract(&context.machine, &context.progress)?;
    if context.json {
        output::print_json(&output::extract_json(&report)?)?;
    } else {
        output::print(&output::describe_extract(&report))?;
    }
    Ok(ExitCode::SUCCESS)
}

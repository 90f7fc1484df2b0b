//! `frostbert extract`: runs stage 1 alone.

use std::process::ExitCode;

use anyhow::Result;
use frostbert::internals::experiment::Stages;

use super::{Context, StageArguments, dry_run::dry_run, output};

pub(super) fn run(arguments: &StageArguments, context: &Context) -> Result<ExitCode> {
    let experiment = arguments.experiment()?;
    if arguments.dry.dry_run {
        return dry_run(&experiment, Stages::Extract, context);
    }
    let report = experiment.extract(&context.machine, &context.progress)?;
    if context.json {
        output::print_json(&output::extract_json(&report)?)?;
    } else {
        output::print(&output::describe_extract(&report))?;
    }
    Ok(ExitCode::SUCCESS)
}

//! `frostbert extract`: runs stage 1 alone, or a part of it.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;
use frostbert::internals::experiment::Stages;

use super::{
    Context, StageArguments,
    distributed::{ScratchArgument, extract_part},
    dry_run::dry_run,
    output,
};

#[derive(Debug, Args)]
pub(super) struct ExtractArguments {
    #[command(flatten)]
    stage: StageArguments,
    /// Do one part of the work, and share it through this folder, which all machines see, or through
    /// s3://BUCKET/PREFIX; `frostbert commit` then makes a cache of all parts
    #[arg(long, value_name = "DIR", conflicts_with = "dry_run")]
    out: Option<PathBuf>,
    /// The part, as in 3/16: K from 1 to N [default: from the variables of an array job of Slurm; with /N, K is the
    /// index of the job in Kubernetes]
    #[arg(long, value_name = "K/N", requires = "out")]
    part: Option<String>,
    #[command(flatten)]
    scratch: ScratchArgument,
}

pub(super) fn run(arguments: &ExtractArguments, context: &Context) -> Result<ExitCode> {
    let ExtractArguments { stage, out, part, scratch } = arguments;
    scratch.require_out(out.as_deref())?;
    if let Some(out) = out {
        let pipeline = stage.pipeline.read(context)?;
        return extract_part(&pipeline, out, part.as_deref(), scratch, context);
    }
    let experiment = stage.experiment()?;
    if stage.dry.dry_run {
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

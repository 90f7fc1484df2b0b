//! `frostbert run`: both stages, or a replay.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;
use frostbert::pipeline::{self, RunReport, settings::Pipeline};
use serde_json::json;

use super::{Context, Overrides, output, train::describe_train};

#[derive(Debug, Args)]
pub(super) struct RunArguments {
    /// The pipeline file
    #[arg(value_name = "PIPELINE.toml", required_unless_present = "locked")]
    pipeline: Option<PathBuf>,
    #[command(flatten)]
    overrides: Overrides,
    /// Replay a run from its lock file: the same inputs are checked first, then the bytes of the results
    #[arg(long, value_name = "LOCK.json", conflicts_with_all = ["pipeline", "set"])]
    locked: Option<PathBuf>,
}

pub(super) fn run(arguments: &RunArguments, context: &Context) -> Result<ExitCode> {
    let RunReport { extract, train } = match (&arguments.locked, &arguments.pipeline) {
        (Some(lock), _) => pipeline::replay(lock, &context.machine, &context.progress)?,
        (None, Some(path)) => {
            let pipeline = Pipeline::read(path, &arguments.overrides.set)?;
            pipeline::run(&pipeline, &context.machine, &context.progress)?
        }
        (None, None) => unreachable!("clap asks for one of the two"),
    };
    if context.json {
        output::print_json(&json!({ "extract": output::extract_json(&extract)?, "train": train }))?;
    } else {
        output::print(&(output::describe_extract(&extract) + &describe_train(&train)))?;
    }
    Ok(ExitCode::SUCCESS)
}

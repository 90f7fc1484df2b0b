//! `frostbert run`: both stages, or a replay.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;
use frostbert::internals::experiment::{Experiment, RunReport, Stages, replay};
use serde_json::json;

use super::{
    Context, DryRunArgument, OverrideArguments, dry_run::dry_run, output, screen::Screen,
    stage_two::describe_heads,
};

#[derive(Debug, Args)]
pub(super) struct RunArguments {
    /// The pipeline file
    #[arg(value_name = "PIPELINE.toml", required_unless_present = "locked")]
    pipeline: Option<PathBuf>,
    #[command(flatten)]
    overrides: OverrideArguments,
    /// Replay a run from its lock file: the same inputs are checked first, then the bytes of the results
    #[arg(long, value_name = "LOCK.json", conflicts_with_all = ["pipeline", "set", "dry_run"])]
    locked: Option<PathBuf>,
    #[command(flatten)]
    dry: DryRunArgument,
}

pub(super) fn run(arguments: &RunArguments, context: &Context) -> Result<ExitCode> {
    let (machine, progress) = (&context.machine, &context.progress);
    let report = match (&arguments.locked, &arguments.pipeline) {
        (Some(lock), _) => replay(lock, machine, progress)?,
        (None, Some(path)) => {
            let experiment = Experiment::open_with(path, &arguments.overrides.set)?;
            if arguments.dry.dry_run {
                return dry_run(&experiment, Stages::All, context);
            }
            experiment.run(machine, progress)?
        }
        (None, None) => unreachable!("clap asks for one of the two"),
    };
    let RunReport { extract, heads, .. } = report;
    if context.json {
        let extract = output::extract_json(&extract)?;
        output::print_json(&json!({ "extract": extract, heads.name(): heads }))?;
    } else {
        let mut screen = Screen::default();
        screen.text(&output::describe_extract(&extract));
        describe_heads(&heads, &mut screen);
        output::show(&screen)?;
    }
    Ok(ExitCode::SUCCESS)
}

//! `frostbert run`: runs both stages, or replays a run.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;
use frostbert::internals::experiment::{Experiment, Replayed, RunReport, Stages, replay};
use serde_json::json;

use super::{
    Context, DryRunArgument, ExtrasArguments, OverrideArguments, dry_run::dry_run,
    moved::MovedArguments, output, screen::Screen, stage_two::describe_heads, wrong_usage,
};

#[derive(Debug, Args)]
pub(super) struct RunArguments {
    /// The pipeline file
    #[arg(value_name = "PIPELINE.toml", required_unless_present = "locked")]
    pipeline: Option<PathBuf>,
    #[command(flatten)]
    overrides: OverrideArguments,
    /// Replay a run, given by its lock file, folder, name or tag: checks that the inputs are the same, then compares the
    /// bytes of the results
    #[arg(long, value_name = "LOCK.json", conflicts_with_all = ["pipeline", "set", "dry_run", "tensorboard", "datalab"])]
    locked: Option<PathBuf>,
    #[command(flatten)]
    extras: ExtrasArguments,
    #[command(flatten)]
    moved: MovedArguments,
    #[command(flatten)]
    dry: DryRunArgument,
}

pub(super) fn run(arguments: &RunArguments, context: &Context) -> Result<ExitCode> {
    let (machine, progress) = (&context.machine, &context.progress);
    let relocation = arguments.moved.relocation();
    let (report, replayed) = match (&arguments.locked, &arguments.pipeline) {
        (Some(lock), _) => {
            let Replayed { run, lock, same, .. } = replay(lock, &relocation, machine, progress)?;
            (run, Some((lock, same)))
        }
        (None, Some(_)) if !relocation.is_empty() => {
            return Err(wrong_usage(
                "--model, --moved and --root say where the files of a run lie: give them with --locked, or change the pipeline \
                 with --set"
                    .into(),
            ));
        }
        (None, Some(path)) => {
            let experiment = Experiment::open_with(path, &arguments.overrides.set)?;
            let experiment = arguments.extras.of(experiment);
            if arguments.dry.dry_run {
                return dry_run(&experiment, Stages::All, context);
            }
            (experiment.run(machine, progress)?, None)
        }
        (None, None) => unreachable!("clap asks for one of the two"),
    };
    let RunReport { extract, heads, .. } = report;
    if context.json {
        let mut report = json!({});
        if let Some(extract) = &extract {
            report["extract"] = output::extract_json(extract)?;
        }
        report[heads.name()] = json!(heads);
        if let Some((lock, same)) = replayed {
            report["replay"] = json!({ "lock": lock.to_string_lossy(), "same": same });
        }
        output::print_json(&report)?;
    } else {
        let mut screen = Screen::default();
        if let Some(extract) = &extract {
            screen.text(&output::describe_extract(extract));
        }
        describe_heads(&heads, &mut screen);
        if let Some((lock, same)) = replayed {
            let (lock, same) = (lock.display(), same.join(", "));
            // This line is never wrapped, because scripts read it.
            screen.as_it_is(&format!("replay      the same bytes as {lock}: {same}"));
        }
        output::show(&screen)?;
    }
    Ok(ExitCode::SUCCESS)
}

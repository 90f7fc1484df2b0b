//! `frostbert train` and `frostbert sweep`: runs stage 2 alone.

use std::process::ExitCode;

use anyhow::Result;
use frostbert::internals::experiment::{Experiment, HeadsReport, Stages, TaskReport};

use super::{
    Context, HeadArguments, PipelineArguments, StageArguments, cache_pull::open_and_fetch,
    dry_run::dry_run, output, screen::Screen, sweep_report::describe_sweep,
    train_report::describe_train,
};

/// `frostbert train`: one head for each task.
pub(super) fn run_train(arguments: &HeadArguments, context: &Context) -> Result<ExitCode> {
    let StageArguments { pipeline, dry } = &arguments.stage;
    let PipelineArguments { pipeline, overrides } = pipeline;
    let experiment = open_and_fetch(pipeline, overrides, dry, context)?;
    let experiment = arguments.extras.of(experiment);
    if dry.dry_run {
        return dry_run(&experiment, Stages::Train, context);
    }
    print(&experiment.train(&context.progress)?, context)
}

/// `frostbert sweep`: the heads of a `[sweep]`.
pub(super) fn run_sweep(
    experiment: &Experiment,
    only_look: bool,
    context: &Context,
) -> Result<ExitCode> {
    if only_look {
        return dry_run(experiment, Stages::Sweep, context);
    }
    print(&experiment.sweep(&context.progress)?, context)
}

fn print(report: &HeadsReport, context: &Context) -> Result<ExitCode> {
    if context.json {
        output::print_json(report)?;
    } else {
        let mut screen = Screen::default();
        describe_heads(report, &mut screen);
        output::show(&screen)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Describes what stage 2 did for every task.
pub(super) fn describe_heads(report: &HeadsReport, screen: &mut Screen) {
    let report = match report {
        HeadsReport::One(task) => return describe_task(task, screen),
        HeadsReport::Several(report) => report,
    };
    for (number, (name, report)) in report.tasks.iter().enumerate() {
        let space = if number == 0 { "" } else { "\n" };
        screen.text(&format!("{space}task        {name}"));
        describe_task(report, screen);
    }
}

/// Describes what stage 2 did for a task: one head or a sweep.
fn describe_task(report: &TaskReport, screen: &mut Screen) {
    match report {
        TaskReport::Train(report) => describe_train(report, screen),
        TaskReport::Sweep(report) => describe_sweep(report, screen),
    }
}

//! `frostbert evaluate`: evaluates a trained head on other data.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;
use frostbert::{cache::progress::Progress, internals::prediction::evaluation::evaluate};
use serde_json::json;

use super::{Context, FormatArgument, moved::MovedArguments, output, screen::align};

#[derive(Debug, Args)]
pub(super) struct EvaluateArguments {
    /// A run: its folder, a name or folder of runs (the newest is used), or a tag
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// A labelled file, read with the settings of the run's train source
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    #[command(flatten)]
    format: FormatArgument,
    #[command(flatten)]
    moved: MovedArguments,
}

pub(super) fn run(arguments: &EvaluateArguments, context: &Context) -> Result<ExitCode> {
    let saved = super::open_run(&arguments.run, &arguments.moved.relocation(), context)?;
    let metrics = evaluate(
        &saved,
        &arguments.data,
        arguments.format.format,
        &context.machine,
        &context.progress,
    )?;
    context.progress.note(&saved.summary());
    if context.json {
        output::print_json(&json!({ "run": saved.folder.to_string_lossy(), "metrics": metrics }))?;
    } else {
        let name = arguments.data.display().to_string();
        let mut tables = vec![output::metrics_table(&[(&name, &metrics)])];
        tables.extend(output::class_tables(&metrics, &saved.description.labels));
        output::print(&tables.iter().map(|table| align(table)).collect::<String>())?;
    }
    Ok(ExitCode::SUCCESS)
}

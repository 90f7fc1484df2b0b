//! `frostbert runs rm`: runs that are named, removed.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use frostbert::{
    cache::{progress::Progress, wording::counted},
    internals::{error::Error, run_folder::remove::Removal},
};

use crate::cli::{Context, output};

pub(super) const ABOUT: &str = "\
Remove runs

Asks before it removes anything; where there is no terminal to ask on, it needs --yes. A folder without lock.json is no run \
and stays, and so does a run that another process is writing. A run with a tag stays unless --force is given.";

#[derive(Debug, Args)]
pub(in crate::cli) struct RemoveArguments {
    /// A run's own folder, or a tag; several
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Remove runs that have a tag too, and their tags
    #[arg(long)]
    force: bool,
}

pub(super) fn run(arguments: &RemoveArguments, context: &Context) -> Result<()> {
    let removal = Removal::of(&arguments.runs, arguments.force)?;
    agree(&removal.folders, removal.bytes, context)?;
    let done = removal.carry_out()?;
    if context.json {
        return output::print_json(&done);
    }
    let mut text = String::new();
    for run in &done.removed {
        text.push_str(&format!("removed {}\n", run.display()));
    }
    if !done.tags.is_empty() {
        text.push_str(&format!("tags removed: {}\n", done.tags.join(", ")));
    }
    let n = counted(done.removed.len(), "run");
    text.push_str(&format!("removed {n}, {}\n", output::bytes(done.bytes)));
    output::print(&text)
}

/// Asks whether runs may be removed.
///
/// # Errors
/// When the answer is no, or nobody is there to ask and `--yes` is not given.
pub(super) fn agree(runs: &[PathBuf], bytes: u64, context: &Context) -> Result<()> {
    let what = format!(
        "this removes {}, {}: {}",
        counted(runs.len(), "run"),
        output::bytes(bytes),
        output::shown(runs).join(", ")
    );
    if !context.machine.go_on && !context.progress.ask(&format!("{what}. Go on?")) {
        return Err(Error::Consent { what }.into());
    }
    Ok(())
}

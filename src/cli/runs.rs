//! `frostbert runs`: what runs there are and how they compare, names for them, and runs removed.

mod diff;
mod list;
mod remove;
mod show;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{ArgGroup, Args, Subcommand};
use frostbert::{
    cache::wording::counted,
    internals::run_folder::{
        names::RunsOf,
        prune::{PruneRule, prunable, prune},
        relocation::Relocation,
        tags::{TagChange, tag, untag},
    },
};
use serde_json::json;

use super::{Context, examples, output, quantities::duration};

#[derive(Debug, Subcommand)]
pub(super) enum RunsCommand {
    /// List the runs in a folder: what they predict, how well, with which settings and tags
    #[command(after_help = examples::RUNS_LS)]
    Ls(list::ListArguments),
    /// Show what a run is: its settings, its data, what it is worth, and how to get it again
    #[command(after_help = examples::RUNS_SHOW)]
    Show(show::ShowArguments),
    #[command(about = "Compare two runs: settings, data, metrics, and examples that they predict differently", long_about = diff::ABOUT, after_help = examples::RUNS_DIFF)]
    Diff(diff::DiffArguments),
    #[command(about = "Give a run a tag, by which it can be named from then on", long_about = TAG_ABOUT, after_help = examples::RUNS_TAG)]
    Tag(TagArguments),
    #[command(about = "Remove runs", long_about = remove::ABOUT, after_help = examples::RUNS_RM)]
    Rm(remove::RemoveArguments),
    #[command(about = "Remove old runs", long_about = PRUNE_ABOUT, after_help = examples::RUNS_PRUNE)]
    Prune(PruneRunsArguments),
}

const TAG_ABOUT: &str = "\
Give a run a tag, by which it can be named from then on

A tag can be used wherever a run is expected. A run can have several tags; a tag refers to one run, and giving it to \
another moves it. Tags are stored in tags.json in the folder of runs.";

const PRUNE_ABOUT: &str = "\
Remove old runs

The newest finished runs of each name are kept; of the others, those that are older than --older-than are removed \
(all of them if it is not given). A run is also kept if it has a tag, is not finished, or is being written by another \
process. Asks before it removes anything; where there is no terminal to ask on, it needs --yes. Caches are not touched: \
see `frostbert cache gc`.";

#[derive(Debug, Args)]
pub(super) struct TagArguments {
    /// A run: its folder, a name or folder of runs (the newest is used), or a tag
    #[arg(value_name = "RUN", required_unless_present = "remove", requires = "tag")]
    run: Option<PathBuf>,
    /// A name of letters, digits, dots, - and _
    #[arg(value_name = "TAG")]
    tag: Option<String>,
    /// Remove a tag
    #[arg(long, value_name = "TAG", conflicts_with_all = ["run", "tag"])]
    remove: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("rule").required(true).multiple(true).args(["keep", "older_than"]))]
pub(super) struct PruneRunsArguments {
    /// A folder of runs (run.dir), or a name, whose runs alone are looked at
    #[arg(value_name = "DIR|NAME", default_value = "runs")]
    runs: PathBuf,
    /// Number of newest finished runs of each name to keep [default: 1]
    #[arg(long, value_name = "N")]
    keep: Option<usize>,
    /// Remove only runs that are older than this, such as 30d, 12h or 2w
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    older_than: Option<Duration>,
    /// Only print what would be removed
    #[arg(long)]
    dry_run: bool,
}

pub(super) fn run(command: &RunsCommand, context: &Context) -> Result<ExitCode> {
    match command {
        RunsCommand::Ls(arguments) => list::run(arguments, context)?,
        RunsCommand::Show(arguments) => show::run(arguments, context)?,
        RunsCommand::Diff(arguments) => diff::run(arguments, context)?,
        RunsCommand::Tag(arguments) => change_tag(arguments, context)?,
        RunsCommand::Rm(arguments) => remove::run(arguments, context)?,
        RunsCommand::Prune(arguments) => remove_old(arguments, context)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn change_tag(arguments: &TagArguments, context: &Context) -> Result<()> {
    let change = match (&arguments.run, &arguments.tag, &arguments.remove) {
        (Some(run), Some(name), None) => {
            tag(&super::open_run(run, &Relocation::default(), context)?.folder, name)?
        }
        (_, _, Some(name)) => untag(name)?,
        _ => unreachable!("clap asks for a run and a tag, or for one to remove"),
    };
    if context.json {
        return output::print_json(&change);
    }
    let TagChange { tag, run, before, .. } = &change;
    let shown = |path: &PathBuf| path.display().to_string();
    output::print(&match (run.as_ref().map(shown), before.as_ref().map(shown)) {
        (Some(run), Some(before)) if run != before => {
            format!("{tag} moved from {before} to {run}\n")
        }
        (Some(run), _) => format!("{tag} is {run}\n"),
        (None, before) => format!("{tag} removed from {}\n", before.unwrap_or_default()),
    })
}

fn remove_old(arguments: &PruneRunsArguments, context: &Context) -> Result<()> {
    let rule = PruneRule {
        keep: arguments.keep.unwrap_or(1),
        older_than: arguments.older_than.unwrap_or_default(),
    };
    let runs = RunsOf::find(&arguments.runs)?;
    let mut pruned = prunable(&runs, rule)?;
    if !arguments.dry_run && !pruned.removed.is_empty() {
        remove::agree(&pruned.removed, pruned.bytes, context)?;
        pruned = prune(&runs, rule, &pruned.removed)?;
    }
    if context.json {
        let mut report = json!(pruned);
        report["dry_run"] = arguments.dry_run.into();
        return output::print_json(&report);
    }
    let mut text = String::new();
    let verb = if arguments.dry_run { "would remove" } else { "removed" };
    for run in &pruned.removed {
        text.push_str(&format!("{verb} {}\n", run.display()));
    }
    for kept in &pruned.kept {
        text.push_str(&format!("kept {}: {}\n", kept.run.display(), kept.why));
    }
    let n = counted(pruned.removed.len(), "run");
    text.push_str(&format!("{verb} {n}, {}\n", output::bytes(pruned.bytes)));
    output::print(&text)
}

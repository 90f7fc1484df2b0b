//! Options for the files of a run that have been moved.

use std::path::PathBuf;

use clap::Args;
use frostbert::internals::run_folder::relocation::Relocation;

/// Files of a run that have been moved since it was made. A file that is not at its path, and for which no new path is
/// given, is looked for by its hash.
#[derive(Debug, Args)]
#[command(next_help_heading = "Files of the run that have been moved")]
pub(super) struct MovedArguments {
    /// The folder of the run's model
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// A file, or a folder with everything in it, that has been moved; may be repeated
    #[arg(long, value_name = "OLD=NEW", value_parser = old_and_new)]
    moved: Vec<(PathBuf, PathBuf)>,
    /// The folder that the run's relative paths are relative to [default: the current one]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
}

/// The error is reported by clap as wrong usage.
fn old_and_new(text: &str) -> Result<(PathBuf, PathBuf), String> {
    match text.split_once('=') {
        Some((old, new)) if !old.is_empty() && !new.is_empty() => Ok((old.into(), new.into())),
        _ => Err("expected OLD=NEW, as in data/train.csv=/mnt/train.csv".into()),
    }
}

impl MovedArguments {
    pub(super) fn relocation(&self) -> Relocation {
        Relocation { model: self.model.clone(), moved: self.moved.clone(), root: self.root.clone() }
    }
}

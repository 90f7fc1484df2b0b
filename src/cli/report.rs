//! `frostbert report`: the page of a run, or one that compares several.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;
use frostbert::internals::page::{PageOptions, WrittenPage, report};

use super::{Context, output};

pub(super) const ABOUT: &str = "\
Write the page of a run, or one that compares several

The page is one HTML file that needs no network: what the head is worth, what the data is, where the head fails, what a sweep \
found, and how to get it all again. Every run writes its own when it is whole; this command writes it again, from the files of \
the run folder. Several runs are put side by side.";

#[derive(Debug, Args)]
pub(super) struct ReportArguments {
    /// Runs: each a folder, a name of runs (then the newest), or a tag
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Where the page goes [default: report.html in the run's folder; of several runs comparison.html]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Leave the texts of the data out; names of labels, files and ids stay
    #[arg(long)]
    no_texts: bool,
}

pub(super) fn run(arguments: &ReportArguments, context: &Context) -> Result<ExitCode> {
    let options = PageOptions { texts: !arguments.no_texts, out: arguments.out.clone() };
    let written = report(&arguments.runs, &options, &context.progress)?;
    if context.json {
        output::print_json(&written)?;
    } else {
        let WrittenPage { report, bytes } = &written;
        output::print(&format!("{} ({})\n", report.display(), output::bytes(*bytes)))?;
    }
    Ok(ExitCode::SUCCESS)
}

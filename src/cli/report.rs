//! `frostbert report`: the page of a run.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::Args;
use frostbert::internals::page::{PageOptions, WrittenPage, report};

use super::{Context, output};

pub(super) const ABOUT: &str = "\
Write the page of a run

The page is one HTML file that needs no network: what the head is worth, what the data is, where the head fails, what a sweep \
found, and how to get it all again. It is written from the files of the run folder.";

#[derive(Debug, Args)]
pub(super) struct ReportArguments {
    /// A run: its folder, a name of runs (then the newest), or a tag
    #[arg(value_name = "RUN")]
    run: PathBuf,
    /// Where the page goes [default: report.html in the run's folder]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Leave the texts of the data out; names of labels, files and ids stay
    #[arg(long)]
    no_texts: bool,
}

pub(super) fn run(arguments: &ReportArguments, context: &Context) -> Result<ExitCode> {
    let options = PageOptions { texts: !arguments.no_texts, out: arguments.out.clone() };
    let written = report(&arguments.run, &options, &context.progress)?;
    if context.json {
        output::print_json(&written)?;
    } else {
        let WrittenPage { report, bytes } = &written;
        output::print(&format!("{} ({})\n", report.display(), output::bytes(*bytes)))?;
    }
    Ok(ExitCode::SUCCESS)
}

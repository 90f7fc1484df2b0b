//! `frostbert completions` and `frostbert man`: generates shell completions and manual pages from the command line.

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use frostbert::{cache::wording::counted, internals::error::Error};
use serde_json::json;

use super::{Arguments, Context, output};

#[derive(Debug, Args)]
pub(super) struct CompletionsArguments {
    /// The shell
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct ManArguments {
    /// A folder for the pages of all commands (frostbert.1, frostbert-run.1 and so on); it is created if it does not
    /// exist
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn run_completions(arguments: &CompletionsArguments) -> Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), NAME, &mut script);
    output::write(&String::from_utf8(script)?)?;
    Ok(ExitCode::SUCCESS)
}

/// The program's name.
const NAME: &str = "frostbert";

pub(super) fn run_man(arguments: &ManArguments, context: &Context) -> Result<ExitCode> {
    let Some(folder) = &arguments.out else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Arguments::command()).render(&mut page)?;
        output::write(&String::from_utf8(page)?)?;
        return Ok(ExitCode::SUCCESS);
    };
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    let failed = || Error::io("write the pages to", folder);
    clap_mangen::generate_to(Arguments::command(), folder).map_err(failed())?;
    let names = fs::read_dir(folder).and_then(|files| {
        files.map(|file| Ok(file?.file_name().to_string_lossy().into_owned())).collect()
    });
    let mut names: Vec<String> = names.map_err(failed())?;
    names.retain(|name| name.starts_with(NAME) && name.ends_with(".1"));
    names.sort();
    if context.json {
        output::print_json(&json!({ "out": folder.to_string_lossy(), "pages": names }))?;
    } else {
        let pages = counted(names.len(), "page");
        output::print(&format!("{pages} in {}\n", folder.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

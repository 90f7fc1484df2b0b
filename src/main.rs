//! The `frostbert` program: reads the command line, calls one command, prints its error.

#![expect(clippy::print_stderr, reason = "errors and progress go to stderr")]

mod cli;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    match cli::run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            cli::print_error(&error);
            match error.is::<cli::WrongUsage>() {
                true => ExitCode::from(2),
                false => ExitCode::FAILURE,
            }
        }
    }
}

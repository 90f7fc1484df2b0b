//! The `frostbert` program: parses the command line, runs one command, and prints its error.

mod cli;

use std::{panic, process::ExitCode};

use clap::Parser;
use frostbert::cache::fence::is_fenced;

fn main() -> ExitCode {
    // Panics of fenced foreign code become errors, so they are not printed here as well.
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if !is_fenced() {
            usual(panic);
        }
    }));
    let typed = cli::typed(std::env::args_os());
    cli::choose_colors(&typed);
    let arguments = match cli::Arguments::try_parse_from(typed) {
        Ok(arguments) => arguments,
        Err(usage) => return cli::print_usage(&usage),
    };
    match cli::run(&arguments) {
        Ok(code) => code,
        Err(error) => {
            cli::print_error(&error, arguments.json());
            cli::exit_code(&error)
        }
    }
}

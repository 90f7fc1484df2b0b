//! How failures are told: on stderr for people, on stdout as JSON for programs, and by the exit code.

use std::{
    io::Write,
    process::{self, ExitCode},
    time::Duration,
};

use frostbert::{
    cache::wording::printable,
    internals::error::{Error, ErrorKind},
};
use serde_json::json;

use super::output::{self, say};

/// What was typed cannot be meant: exit code 2, as for everything that clap refuses.
#[derive(Debug)]
pub(crate) struct WrongUsage(String);

impl std::fmt::Display for WrongUsage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongUsage {}

pub(super) fn wrong_usage(problem: String) -> anyhow::Error {
    WrongUsage(problem).into()
}

/// What is known of an error.
struct FailureReport {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    file: Option<String>,
    line: Option<u64>,
}

impl FailureReport {
    fn of(error: &anyhow::Error) -> FailureReport {
        if let Some(known) = error.downcast_ref::<Error>() {
            let (file, line) = known.place();
            return FailureReport {
                kind: known.kind(),
                message: known.to_string(),
                hint: known.hint().map(String::from),
                file: file.map(|file| file.display().to_string()),
                line,
            };
        }
        if let Some(known) = error.downcast_ref::<frostbert::cache::Error>() {
            return FailureReport {
                kind: ErrorKind::of_cache(known),
                message: known.to_string(),
                hint: known.hint().map(String::from),
                file: known.path().map(|file| file.display().to_string()),
                line: None,
            };
        }
        let is_usage = error.is::<WrongUsage>();
        FailureReport {
            kind: if is_usage { ErrorKind::Usage } else { ErrorKind::Failed },
            message: format!("{error:#}"),
            hint: None,
            file: None,
            line: None,
        }
    }

    /// Prints it as one line of JSON. Where stdout cannot be written, stderr has said it.
    fn print_json(&self) {
        let error = json!({ "error": {
            "kind": self.kind.name(),
            "message": self.message,
            "hint": self.hint,
            "file": self.file,
            "line": self.line,
        } });
        let _ = output::write(&format!("{error}\n"));
    }
}

/// The exit code of an error.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(FailureReport::of(error).kind.exit_code())
}

/// Prints an error and, where there is one, the cure; for programs one JSON object on stdout, too.
pub(crate) fn print_error(error: &anyhow::Error, json: bool) {
    let failure = FailureReport::of(error);
    say(&format!("error: {}", printable(&failure.message)));
    if let Some(hint) = &failure.hint {
        say(&format!("hint: {}", printable(hint)));
    }
    if json {
        failure.print_json();
    }
}

/// Prints what clap has to say in place of arguments: what is wrong with them, or a help text.
pub(crate) fn print_usage(usage: &clap::Error) -> ExitCode {
    let printed = usage.print();
    if usage.use_stderr() {
        // Nothing was parsed, but what was typed may have asked for JSON.
        if std::env::args_os().any(|argument| argument == "--json") {
            let text = usage.to_string();
            let mut paragraphs = text.split("\n\n");
            let message = paragraphs.next().unwrap_or_default();
            let words: Vec<&str> = message.split_whitespace().collect();
            let rest = paragraphs.find(|paragraph| paragraph.trim_start().starts_with("tip:"));
            let failure = FailureReport {
                kind: ErrorKind::Usage,
                message: words.join(" ").trim_start_matches("error: ").to_string(),
                hint: rest.map(|tip| tip.trim().trim_start_matches("tip: ").to_string()),
                file: None,
                line: None,
            };
            failure.print_json();
        }
        return ExitCode::from(ErrorKind::Usage.exit_code());
    }
    match output::reader_after(printed.and_then(|()| std::io::stdout().flush())) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&error, false);
            ExitCode::FAILURE
        }
    }
}

/// On Ctrl-C says in one line what is kept, and ends. What is in a cache or in a run folder is whole or not there; a file
/// that was being written aside may stay.
pub(super) fn catch_interrupts(what_is_kept: &'static str, json: bool) {
    let handler = move || {
        // Whoever reads may have stopped reading: that must not keep the process.
        let (told, is_told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            // A line of its own, below the progress.
            say(&format!("\ninterrupted: {what_is_kept}"));
            if json {
                let interrupted = FailureReport {
                    kind: ErrorKind::Interrupted,
                    message: "interrupted".into(),
                    hint: Some(what_is_kept.into()),
                    file: None,
                    line: None,
                };
                interrupted.print_json();
            }
            let _ = told.send(());
        });
        let _ = is_told.recv_timeout(Duration::from_secs(1));
        process::exit(ErrorKind::Interrupted.exit_code().into());
    };
    // Where interrupts are ignored (a job in the background of a script), they stay so.
    let _ = ctrlc::try_set_handler(handler);
}

//! Reports failures: on stderr for people, on stdout as JSON for programs, and by the exit code.

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

/// Invalid arguments that clap accepted: exit code 2, as for everything that clap rejects.
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

/// A failure that is none of the library's errors, with its cure.
#[derive(Debug)]
pub(super) struct HintedFailure {
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl std::fmt::Display for HintedFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for HintedFailure {}

/// What is known about an error.
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
            hint: error.downcast_ref::<HintedFailure>().and_then(|failure| failure.hint.clone()),
            file: None,
            line: None,
        }
    }

    /// Prints the failure as one line of JSON. If stdout cannot be written, the message is still on stderr.
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

/// Returns the exit code of an error.
pub(crate) fn exit_code(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(FailureReport::of(error).kind.exit_code())
}

/// Prints an error and its hint, if it has one. With `json`, also prints one JSON object on stdout.
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

/// Prints what clap returned instead of arguments: an error in the usage, or a help text.
pub(crate) fn print_usage(usage: &clap::Error) -> ExitCode {
    let printed = usage.print();
    if usage.use_stderr() {
        // The arguments were not parsed, but they may ask for JSON.
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

/// On Ctrl-C, prints one line about what is kept, and exits. Files of a cache or a run folder are either complete or
/// absent; only a temporary file may remain.
pub(super) fn catch_interrupts(what_is_kept: &'static str, json: bool) {
    let handler = move || {
        // The reader may have stopped reading, which must not keep the process alive.
        let (told, is_told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            // Starts on a new line, below the progress.
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
    // If interrupts are ignored (in a background job of a script), they remain so.
    let _ = ctrlc::try_set_handler(handler);
}

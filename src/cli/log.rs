//! `--log`: what goes to stderr goes to a file too, each line with its time. Progress bars do not.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::Path,
    sync::{Mutex, OnceLock},
    time::SystemTime,
};

use anyhow::Result;
use frostbert::{cache::wording::printable, internals::error::Error};

/// The file, where there is one.
static LOG: OnceLock<Mutex<File>> = OnceLock::new();

/// Opens the file, to go on at its end.
///
/// # Errors
/// When it cannot be written.
pub(super) fn open(path: &Path) -> Result<()> {
    let file = OpenOptions::new().append(true).create(true).open(path);
    let file = file.map_err(Error::io("write to the log", path))?;
    // A process has one command line, and so one log.
    let _ = LOG.set(Mutex::new(file));
    Ok(())
}

/// Adds lines, each after the time in UTC. A log that cannot be written any more stops no work.
pub(super) fn add(text: &str) {
    let Some(log) = LOG.get() else { return };
    let now = chrono::DateTime::<chrono::Utc>::from(SystemTime::now());
    let time = now.format("%Y-%m-%dT%H:%M:%SZ");
    let lines = text.lines().filter(|line| !line.is_empty());
    let lines: String = lines.map(|line| format!("{time} {}\n", printable(line))).collect();
    let mut file = log.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let _ = file.write_all(lines.as_bytes());
}

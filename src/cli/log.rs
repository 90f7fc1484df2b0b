//! `--log`: copies what is printed to stderr to a file, each line with its time, but without progress bars.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::Path,
    sync::{Mutex, OnceLock},
    time::SystemTime,
};

use anyhow::Result;
use frostbert::{cache::wording::printable, internals::error::Error};

/// The log file, if there is one.
static LOG: OnceLock<Mutex<File>> = OnceLock::new();

/// Opens the file for appending.
///
/// # Errors
/// Returns an error if it cannot be written.
pub(super) fn open(path: &Path) -> Result<()> {
    let file = OpenOptions::new().append(true).create(true).open(path);
    let file = file.map_err(Error::io("write to the log", path))?;
    // A process has only one command line, and therefore only one log.
    let _ = LOG.set(Mutex::new(file));
    Ok(())
}

/// Appends lines, each preceded by the time in UTC. A failure to write the log is ignored.
pub(super) fn add(text: &str) {
    let Some(log) = LOG.get() else { return };
    let now = chrono::DateTime::<chrono::Utc>::from(SystemTime::now());
    let time = now.format("%Y-%m-%dT%H:%M:%SZ");
    let lines = text.lines().filter(|line| !line.is_empty());
    let lines: String = lines.map(|line| format!("{time} {}\n", printable(line))).collect();
    let mut file = log.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let _ = file.write_all(lines.as_bytes());
}

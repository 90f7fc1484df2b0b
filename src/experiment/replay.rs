//! A run again, from its lock file.

use std::path::Path;

use frostbert_cache::progress::Progress;

use crate::{
    config::settings::Pipeline,
    error::{Error, Result},
    experiment::{Experiment, RunReport},
    extraction::machine::Machine,
    run_folder::lock::{LOCK_FILE, Lock},
};

/// Replays a run from its lock file: checks every input, runs, and compares the bytes of what comes out.
///
/// # Errors
/// [`Error::Replay`] with a line for every input or output that differs; else as [`Experiment::run`].
pub fn replay(lock_path: &Path, machine: &Machine, progress: &dyn Progress) -> Result<RunReport> {
    let lock = Lock::read(lock_path)?;
    let differs = |differences: Vec<String>, hint: &str| Error::Replay {
        lock: lock_path.to_path_buf(),
        differences,
        hint: hint.into(),
    };
    let changed = lock.changed_inputs()?;
    if !changed.is_empty() {
        return Err(differs(
            changed,
            "put these inputs back as they were, or run the pipeline itself for a new result",
        ));
    }
    if let Some(note) = lock.other_commit() {
        progress.note(&note);
    }
    let pipeline = Pipeline::check(lock_path, lock.pipeline.clone())?;
    let report = Experiment::of(pipeline).run(machine, progress)?;
    let folder = report.heads.folder();
    let replayed = Lock::read(&folder.join(LOCK_FILE))?;
    let differences = lock.differences(&replayed);
    if !differences.is_empty() {
        return Err(differs(
            differences,
            &format!(
                "the replay itself is whole, in {}; same bits need the same states (keep the cache), \
                 program and CPU",
                folder.display()
            ),
        ));
    }
    progress.note(&format!(
        "the same bytes as {}: {}",
        lock_path.display(),
        lock.outputs.keys().cloned().collect::<Vec<String>>().join(", ")
    ));
    Ok(report)
}

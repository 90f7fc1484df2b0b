//! A run again, from its lock file.

use std::path::{Path, PathBuf};

use frostbert_cache::progress::Progress;

use crate::{
    config::settings::Pipeline,
    error::{Error, Result},
    experiment::{Experiment, RunReport},
    extraction::machine::Machine,
    run_folder::{
        find::find,
        lock::{LOCK_FILE, Lock, NO_FILE},
        relocation::Relocation,
    },
};

/// A run that was made again.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Replayed {
    /// What was done.
    pub run: RunReport,
    /// The lock that it was made from.
    pub lock: PathBuf,
    /// The files that have the same bytes: all that a replay must reproduce.
    pub same: Vec<String>,
}

/// Replays a run from its lock file: checks every input, runs, and compares the bytes of what comes out. The lock may be
/// named by its file, or by its run, as [`SavedRun::open`](crate::SavedRun::open) takes it.
///
/// # Errors
/// [`Error::Replay`] with a line for every input or output that differs; else as [`Experiment::run`].
pub fn replay(
    lock: &Path,
    relocation: &Relocation,
    machine: &Machine,
    progress: &dyn Progress,
) -> Result<Replayed> {
    let lock_path = lock_of(lock, progress)?;
    let mut lock = Lock::read(&lock_path)?;
    let differs = |differences: Vec<String>, hint: String| Error::Replay {
        lock: lock_path.clone(),
        differences,
        hint,
    };
    let folder = lock_path.parent().unwrap_or(Path::new(""));
    for note in lock.relocate(folder, relocation)? {
        progress.note(&note);
    }
    let changed = lock.changed_inputs()?;
    if !changed.is_empty() {
        let mut hint =
            "restore these inputs, or run the pipeline itself for a new result".to_string();
        if changed.iter().any(|line| line.ends_with(NO_FILE)) {
            hint.push_str(
                "; if a file has moved, say so with --moved OLD=NEW, --root DIR or --model DIR",
            );
        }
        return Err(differs(changed, hint));
    }
    if let Some(note) = lock.other_commit() {
        progress.note(&note);
    }
    let models = lock.models.iter().map(|model| (&*model.path, model.folder()));
    let pipeline = Pipeline::check(&lock_path, lock.pipeline.clone())?.with_models_at(models);
    let report = Experiment::of(pipeline).run(machine, progress)?;
    let folder = report.heads.folder();
    let replayed = Lock::read(&folder.join(LOCK_FILE))?;
    let differences = lock.differences(&replayed);
    if !differences.is_empty() {
        let files = lock
            .outputs
            .iter()
            .filter(|(name, digest)| replayed.outputs.get(name.as_str()) != Some(*digest));
        let files: Vec<&str> = files.map(|(name, _)| name.as_str()).collect();
        let named = if files.is_empty() { "no file".into() } else { files.join(", ") };
        let hint = format!(
            "the replay itself is complete, in {}; the same bytes need the same states (keep the cache), program and \
             CPU; different files: {named}",
            folder.display(),
        );
        return Err(differs(differences, hint));
    }
    Ok(Replayed { run: report, same: lock.outputs.into_keys().collect(), lock: lock_path })
}

/// The lock file that is meant: itself, or that of a run.
fn lock_of(path: &Path, progress: &dyn Progress) -> Result<PathBuf> {
    // Names of runs and tags can have dots in them.
    let is_file = path.exists() && !path.is_dir();
    if is_file || path.extension().is_some_and(|extension| extension == "json") {
        return Ok(path.to_path_buf());
    }
    let found = find(path)?;
    for note in &found.notes {
        progress.note(note);
    }
    for warning in &found.warnings {
        progress.warn(warning);
    }
    Ok(found.folder.join(LOCK_FILE))
}

//! Replays a run from its lock file.

use std::path::{Path, PathBuf};

use frostbert_cache::progress::Progress;

use crate::{
    config::settings::Pipeline,
    encoder::checkpoint::Checkpoint,
    error::{Error, Result},
    experiment::{Experiment, RunReport},
    extraction::{machine::Machine, sentence::SentenceState},
    head::saved::{DESCRIPTION_FILE, read_description},
    run_folder::{
        find::find,
        lock::{LOCK_FILE, Lock, NO_FILE},
        relocation::Relocation,
    },
};

/// A run that was replayed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Replayed {
    /// The report of the new run.
    pub run: RunReport,
    /// The lock file that was replayed.
    pub lock: PathBuf,
    /// The files that were reproduced byte for byte: all that a replay must reproduce.
    pub same: Vec<String>,
}

/// Replays a run from its lock file: checks every input, runs both stages, and compares the bytes of the outputs.
/// `lock` is the lock file, or its run in any form that [`SavedRun::open`](crate::SavedRun::open) accepts.
///
/// # Errors
/// Returns [`Error::Replay`] with one line for every input or output that differs, and otherwise the errors of
/// [`Experiment::run`].
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
    let mut changed = lock.changed_inputs()?;
    if changed.is_empty() {
        changed.extend(changed_modules(&lock, folder)?);
    }
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

/// Returns a line if a head of the run reads sentence vectors that other modules after the encoder make now. In locks of
/// earlier versions, only the description of the head in the run folder has their hash.
fn changed_modules(lock: &Lock, folder: &Path) -> Result<Option<String>> {
    let of_head = || {
        let bytes = lock.read_output(folder, DESCRIPTION_FILE);
        let description =
            bytes.and_then(|bytes| read_description(&folder.join(DESCRIPTION_FILE), &bytes));
        // A description that cannot be read is no input of the replay, which writes its own.
        description.ok()?.sentence
    };
    let Some(expected) = lock.modules.or_else(of_head) else {
        return Ok(None);
    };
    if lock.model.is_none() {
        return Ok(None);
    }
    let of_head = &lock.head_pipeline().model.path;
    let compared = lock.models.iter().find(|model| model.path == *of_head);
    let model = compared.map_or(&*lock.pipeline.model.path, |model| model.folder());
    let checkpoint = Checkpoint::open_with_lowercase(model, lock.pipeline.model.lowercase)?;
    let got = SentenceState::required(&checkpoint)?.digest();
    Ok((got != expected).then(|| {
        format!(
            "the modules after the encoder in {}: expected {}, got {}",
            model.display(),
            expected.short(),
            got.short()
        )
    }))
}

/// Returns the path of the lock file: `path` itself, or the lock file of the run that it names.
fn lock_of(path: &Path, progress: &dyn Progress) -> Result<PathBuf> {
    // Names of runs and tags may contain dots.
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

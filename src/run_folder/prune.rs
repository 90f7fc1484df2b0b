//! Removes old runs.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::{
    error::{Error, Result},
    run_folder::{
        finished_in, is_being_written, is_unfinished,
        lock::{LOCK_FILE, Lock},
        names::RunsOf,
        remember_number,
        tags::{Changing, Tags},
    },
};

/// The rule that decides which runs are old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PruneRule {
    /// The number of newest finished runs of each name to keep.
    pub keep: usize,
    /// The age from which the other runs are removed.
    pub older_than: Duration,
}

/// The result of pruning.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Pruned {
    /// The folders that were removed, or would be.
    #[serde(serialize_with = "frostbert_cache::wording::paths_shown")]
    pub removed: Vec<PathBuf>,
    /// The runs that were kept although they are not among the newest: tagged, unfinished, in use, or links.
    pub kept: Vec<KeptRun>,
    /// The size of the files that were removed, or would be.
    pub bytes: u64,
}

/// A run that is kept whatever the rule says.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct KeptRun {
    /// Its folder.
    #[serde(serialize_with = "frostbert_cache::wording::path_shown")]
    pub run: PathBuf,
    /// Why it is kept.
    pub why: String,
}

/// Returns the old runs of those, without removing any. A run is kept if it has a tag, is not finished, or is being written
/// by another process.
///
/// # Errors
/// Returns an error if a folder cannot be read.
pub fn prunable(runs: &RunsOf, rule: PruneRule) -> Result<Pruned> {
    look(runs, rule, |_| true, |_| Ok(()))
}

/// Removes those of the old runs that are among `agreed`, which are those that [`prunable`] returned.
///
/// # Errors
/// Returns an error if a folder cannot be read or removed. Runs that were removed before that stay removed.
pub fn prune(runs: &RunsOf, rule: PruneRule, agreed: &[PathBuf]) -> Result<Pruned> {
    look(runs, rule, |folder| agreed.iter().any(|run| run == folder), remove)
}

/// Passes the old runs that are `wanted` to `remove`, one after the other.
fn look(
    runs: &RunsOf,
    rule: PruneRule,
    wanted: impl Fn(&Path) -> bool,
    remove: impl Fn(&Path) -> Result<()>,
) -> Result<Pruned> {
    let _changing = Changing::begin(&runs.runs);
    let tags = Tags::read(&runs.runs)?;
    let tagged = tags.folders(&runs.runs);
    let now = DateTime::<Utc>::from(SystemTime::now());
    let mut pruned = Pruned::default();
    for (name, folders) in runs.by_name()? {
        // A link is a second name of runs that are examined under their own name.
        if runs.runs.join(&name).is_symlink() {
            continue;
        }
        let mut n_finished = 0;
        for folder in folders {
            let finished = finished_in(&folder);
            // The lock of a run of one task says that it is whole; those of several say so together.
            let is_whole = finished.first().is_some_and(|run| *run == folder)
                || !finished.is_empty() && !is_unfinished(&folder);
            n_finished += usize::from(is_whole);
            if is_whole && n_finished <= rule.keep {
                continue;
            }
            let why = match () {
                () if is_being_written(&folder) => Some("another process is writing it".into()),
                () if finished.is_empty() || is_unfinished(&folder) => {
                    Some("it is not finished".into())
                }
                () if folder.is_symlink() => Some("it is a link".into()),
                () => folder.canonicalize().ok().and_then(|folder| {
                    // In a run of several tasks, each task has a folder and may have a tag.
                    let tag = tagged.iter().find(|(run, _)| run.starts_with(&folder));
                    tag.map(|(_, tag)| format!("it has the tag {tag}"))
                }),
            };
            if let Some(why) = why {
                pruned.kept.push(KeptRun { run: folder, why });
                continue;
            }
            if !is_older(&finished, rule.older_than, now)? {
                continue;
            }
            if !wanted(&folder) {
                continue;
            }
            pruned.bytes += bytes_in(&folder)?;
            remove(&folder)?;
            pruned.removed.push(folder);
        }
    }
    Ok(pruned)
}

/// Returns whether all of these runs were finished at least that long ago.
fn is_older(runs: &[PathBuf], age: Duration, now: DateTime<Utc>) -> Result<bool> {
    for run in runs {
        let created = Lock::read(&run.join(LOCK_FILE))?.created(run);
        // A run from the future is not old: the clock was set back.
        let is_old =
            created.is_some_and(|time| (now - time).to_std().is_ok_and(|passed| passed >= age));
        if !is_old {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes a run folder: first its name, so that no half of a run is ever found under it.
///
/// # Errors
/// When the disk refuses.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    let number = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let aside = folder.with_file_name(format!(".removed-{number}"));
    if aside.exists() {
        // A killed process has left parts of another run with this number.
        fs::remove_dir_all(&aside).map_err(Error::io("delete", &aside))?;
    }
    remember_number(folder)?;
    fs::rename(folder, &aside).map_err(Error::io("rename", folder))?;
    fs::remove_dir_all(&aside).map_err(Error::io("delete", aside))
}

/// Bytes of all files below a folder; links are not followed.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn bytes_in(folder: &Path) -> Result<u64> {
    let mut total = 0;
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let entry = entry.map_err(Error::io("list", folder))?;
        let path = entry.path();
        let metadata = entry.metadata().map_err(Error::io("look at", &path))?;
        total += if metadata.is_dir() { bytes_in(&path)? } else { metadata.len() };
    }
    Ok(total)
}

//! Finds the run that the user refers to by its folder, by the name of runs, or by a tag.

use std::path::{Path, PathBuf};

use crate::{
    error::{Error, Result},
    run_folder::{
        default_dir, finished_in,
        lock::{LOCK_FILE, Lock, is_finished},
        names::{Known, meant},
        newest_first, passed_over, resolve,
        tags::{TAGS_FILE, Tags, folder_and_tag},
    },
};

/// A run that was found, with notes and warnings for the user.
#[derive(Debug, Default)]
pub(crate) struct FoundRun {
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// Notes on how it was chosen among others.
    pub(crate) notes: Vec<String>,
    /// Warnings about ways in which it may not be the expected run.
    pub(crate) warnings: Vec<String>,
    /// Newer runs of the same name that cannot be used because their locks are incomplete or from another version.
    pub(crate) passed_over: Vec<PathBuf>,
}

/// Finds a run: `path` is its folder, a folder of runs, or a tag. The last two are also looked for in the default
/// folder of runs. A tag takes precedence over a name.
///
/// # Errors
/// Returns an error if there is no finished run, or if a tag refers to a run that does not exist.
pub(crate) fn find(path: &Path) -> Result<FoundRun> {
    if path.join(LOCK_FILE).is_file() {
        return Ok(FoundRun { folder: path.to_path_buf(), ..FoundRun::default() });
    }
    if let Some(tagged) = tagged(path)? {
        return Ok(tagged);
    }
    let runs = folder_of(path);
    let folder = resolve(&runs).map_err(|error| with_meant(error, path))?;
    let passed_over = passed_over(&runs, &folder);
    let mut found = FoundRun { passed_over, ..FoundRun::default() };
    let older = newest_first(&runs)?.into_iter().skip_while(|run| *run != folder).skip(1);
    if let Some(before) = { older }.find(|run| is_finished(run)) {
        found.notes.push(format!("the newest run of {} is used", runs.display()));
        found.warnings.extend(what_changed(&before, &folder)?);
    }
    found.folder = folder;
    Ok(found)
}

/// Finds a run of several tasks, with the runs of its tasks: `path` is its folder, or a folder of runs whose newest finished
/// run it is. `None` where a run of one task is meant, or none is there.
///
/// # Errors
/// When a folder cannot be read.
pub(crate) fn find_tasks(path: &Path) -> Result<Option<(PathBuf, Vec<PathBuf>)>> {
    if path.join(LOCK_FILE).is_file() || tagged(path)?.is_some() {
        return Ok(None);
    }
    let runs = folder_of(path);
    let mut folders = newest_first(&runs)?;
    if folders.is_empty() {
        folders.push(runs);
    }
    let mut finished = folders.into_iter().map(|folder| (finished_in(&folder), folder));
    let newest = finished.find(|(tasks, _)| !tasks.is_empty());
    Ok(newest.filter(|(tasks, folder)| tasks[0] != *folder).map(|(tasks, folder)| (folder, tasks)))
}

/// Returns the tagged run if `path` is a tag.
fn tagged(path: &Path) -> Result<Option<FoundRun>> {
    let Some((runs, tag)) = folder_and_tag(path) else {
        return Ok(None);
    };
    let tags = Tags::read(&runs)?;
    let Some(place) = tags.get(tag) else {
        return Ok(None);
    };
    let folder = runs.join(place);
    if !folder.join(LOCK_FILE).is_file() {
        return Err(Error::Run {
            path: runs.join(TAGS_FILE),
            expected: format!("a run that has the tag `{tag}`"),
            got: format!("no run in {}", folder.display()),
            hint: format!(
                "give the tag to another run with `frostbert runs tag RUN {tag}`, or remove it with --remove"
            ),
        });
    }
    let mut found = FoundRun::default();
    found.notes.push(format!("the run with the tag {tag} is used"));
    if runs.join(tag).is_dir() {
        found.warnings.push(format!(
            "{tag} is both a tag and a name of runs: the run with the tag is used, {}",
            folder.display()
        ));
    }
    found.folder = folder;
    Ok(Some(found))
}

/// Returns the folder that a path refers to: a name that is not a folder of runs itself is looked up in the default
/// folder of runs.
fn folder_of(path: &Path) -> PathBuf {
    let below = default_dir().join(path);
    let is_own = !path.is_relative() || newest_first(path).is_ok_and(|runs| !runs.is_empty());
    if is_own || !below.is_dir() { path.to_path_buf() } else { below }
}

/// Adds the run that may have been meant by `path` to the error that there is none.
fn with_meant(error: Error, path: &Path) -> Error {
    match (error, meant(path, Known::NamesAndTags)) {
        (Error::Run { path: folder, expected, got, .. }, Some(meant)) if !folder.exists() => {
            let hint = format!("{meant} `frostbert runs ls` lists the runs");
            Error::Run { path: folder, expected, got, hint }
        }
        (error, _) => error,
    }
}

/// Returns a warning if a run differs from the one before it in its task, its labels or its data.
fn what_changed(before: &Path, newest: &Path) -> Result<Option<String>> {
    let [one, other] = [before, newest].map(|run| Lock::read(&run.join(LOCK_FILE)));
    let (one, other) = (one?, other?);
    let hashes = |lock: &Lock| lock.data.iter().map(|file| file.blake3).collect::<Vec<_>>();
    let differing = [
        ("another task", one.pipeline.data.task != other.pipeline.data.task),
        ("other labels", one.labels != other.labels),
        ("other data", hashes(&one) != hashes(&other)),
    ];
    let named = differing.into_iter().filter(|(_, differs)| *differs).map(|(what, _)| what);
    let named: Vec<&str> = named.collect();
    Ok((!named.is_empty()).then(|| {
        format!(
            "{} has {} than {} before it: name a run's folder, or a tag, to use another",
            newest.display(),
            named.join(" and "),
            before.display()
        )
    }))
}

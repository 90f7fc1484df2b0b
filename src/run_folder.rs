//! Run folders: each run has its own, `<run.dir>/<name>/<number>`, which no other run ever writes to.

pub(crate) mod find;
pub(crate) mod lock;
pub(crate) mod names;
pub(crate) mod program;
pub(crate) mod prune;
pub(crate) mod relocation;
pub(crate) mod remove;
pub(crate) mod tags;

use std::{
    ffi::OsStr,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use frostbert_cache::durable::write_file;

use crate::{
    config::file::RunSection,
    error::{Error, Result},
    run_folder::lock::{LOCK_FILE, Lock, is_finished},
};

/// The file in the folder of a name that holds the highest number of the runs that were removed.
const LAST_REMOVED: &str = ".last-removed";

/// Creates the next run folder of this name, numbered from `001`. The number of a run that was removed is not given again.
///
/// # Errors
/// Returns an error if the folder cannot be created.
pub(crate) fn create(run_dir: &Path, name: &str) -> Result<PathBuf> {
    let parent = run_dir.join(name);
    fs::create_dir_all(&parent).map_err(Error::io("create", &parent))?;
    let highest = numbers_in(&parent)?.into_iter().max().unwrap_or(0);
    let mut number = highest.max(last_removed(&parent)) + 1;
    loop {
        let folder = parent.join(format!("{number:03}"));
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            // Another run has taken this number in the meantime.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(Error::io("create", folder)(error)),
        }
    }
}

/// Returns the highest number of the runs of a name that were removed, or 0.
fn last_removed(parent: &Path) -> u64 {
    let number = fs::read_to_string(parent.join(LAST_REMOVED)).ok();
    let number = number.and_then(|number| number.trim().parse().ok());
    number.filter(|number| *number < MOST_RUNS).unwrap_or(0)
}

/// Remembers the number of a run that is about to be removed, if no run of its name has a higher one.
///
/// # Errors
/// When the number cannot be written.
pub(crate) fn remember_number(folder: &Path) -> Result<()> {
    let Some((number, parent)) = folder.file_name().and_then(number_of).zip(folder.parent()) else {
        return Ok(());
    };
    let highest = numbers_in(parent)?.into_iter().max().unwrap_or(0);
    if number < highest || number <= last_removed(parent) {
        return Ok(());
    }
    Ok(write_file(&parent.join(LAST_REMOVED), format!("{number}\n").as_bytes())?)
}

/// Returns the default folder of runs: where runs are written unless the pipeline names another folder, and where they
/// are looked for by name.
pub(crate) fn default_dir() -> PathBuf {
    RunSection::default().dir
}

/// Marks a run folder as being written by this process, until it is dropped.
pub(crate) struct Writing {
    _folder: Option<File>,
}

impl Writing {
    /// Marks a run folder, after waiting for the moment in which another process checks it. On a file system without
    /// locks, nothing is marked.
    pub(crate) fn begin(folder: &Path) -> Writing {
        let file = File::open(folder).ok();
        Writing { _folder: file.filter(|file| file.lock_shared().is_ok()) }
    }
}

/// Returns whether a process is writing a run folder.
pub(crate) fn is_being_written(folder: &Path) -> bool {
    let locked = |file: File| matches!(file.try_lock(), Err(TryLockError::WouldBlock));
    File::open(folder).is_ok_and(locked)
}

/// Returns the names of the runs in a folder of runs, sorted, each with its numbered folders, newest first.
///
/// # Errors
/// Returns an error if a folder cannot be read.
pub(crate) fn by_name(runs: &Path) -> Result<Vec<(String, Vec<PathBuf>)>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(runs).map_err(Error::io("list", runs))? {
        let path = entry.map_err(Error::io("list", runs))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue;
        }
        let numbered = newest_first(&path)?;
        if !numbered.is_empty() {
            names.push((name, numbered));
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Returns the finished runs in a numbered folder: the run itself, or those of its tasks.
pub(crate) fn finished_in(folder: &Path) -> Vec<PathBuf> {
    if folder.join(LOCK_FILE).is_file() {
        return if is_finished(folder) { vec![folder.to_path_buf()] } else { Vec::new() };
    }
    finished_below(folder)
}

/// Returns whether a run folder belongs to a run that was interrupted, or is being written.
pub(crate) fn is_unfinished(folder: &Path) -> bool {
    folder.join(UNFINISHED).is_dir()
}

/// Marks the folder of a run of several tasks as unfinished, and returns the mark, an empty folder that is to be removed once
/// all tasks are done: the lock of one task says nothing of the others.
///
/// # Errors
/// When the folder cannot be created.
pub(crate) fn mark_unfinished(folder: &Path) -> Result<PathBuf> {
    let mark = folder.join(UNFINISHED);
    fs::create_dir(&mark).map_err(Error::io("create", &mark))?;
    Ok(mark)
}

/// Returns the run folders of one name, newest first.
///
/// # Errors
/// Returns an error if the folder cannot be read.
pub(crate) fn newest_first(parent: &Path) -> Result<Vec<PathBuf>> {
    if !parent.is_dir() {
        return Ok(Vec::new());
    }
    let mut numbers = numbers_in(parent)?;
    numbers.sort_unstable();
    let runs = numbers.into_iter().rev();
    Ok(runs.map(|number| parent.join(format!("{number:03}"))).collect())
}

/// The subfolder that holds the work of a sweep until its run is finished; of a run of several tasks without a sweep it is
/// empty.
pub(crate) const UNFINISHED: &str = "unfinished";

/// Returns the folder of a run: `path` itself if it contains a lock file, otherwise the newest run in it with a
/// complete lock file.
///
/// # Errors
/// Returns an error if there is no finished run in either.
pub(crate) fn resolve(path: &Path) -> Result<PathBuf> {
    // A folder with a lock file is always taken itself; errors in the lock are reported when it is read.
    if path.join(LOCK_FILE).is_file() {
        return Ok(path.to_path_buf());
    }
    let runs = newest_first(path)?;
    if let Some(finished) = runs.iter().find(|folder| is_finished(folder)) {
        return Ok(finished.clone());
    }
    // If no lock is complete, the error of the newest one says more than that there is no finished run.
    let mut locks = runs.iter().map(|folder| folder.join(LOCK_FILE));
    if let Some(torn) = locks.find(|lock| lock.is_file()) {
        Lock::read(&torn)?;
    }
    Err(Error::Run {
            path: path.to_path_buf(),
            expected: "a run folder with lock.json".into(),
            got: if path.is_dir() {
                "a folder without one"
            } else {
                "no such folder"
            }
            .into(),
            hint: match tasks_in(path).next() {
                None if is_of_unfinished_sweep(path) => {
                    "its sweep is not finished: start it again with the same pipeline, and it resumes here".into()
                }
                Some(task) => format!(
                    "it holds the runs of several tasks: name one, such as {}",
                    task.display()
                ),
                None => {
                    "name a run folder as `frostbert run` prints it, such as runs/sentiment/001"
                        .into()
                }
            },
    })
}

/// Returns the runs of a name that are newer than the one that [`resolve`] found but have an incomplete lock file.
pub(crate) fn passed_over(path: &Path, found: &Path) -> Vec<PathBuf> {
    let newer = newest_first(path).unwrap_or_default().into_iter();
    newer
        .take_while(|run| run != found)
        .filter(|run| found != path && run.join(LOCK_FILE).is_file())
        .collect()
}

/// Returns whether a run folder, or the newest run in a folder of runs, belongs to an interrupted sweep.
fn is_of_unfinished_sweep(path: &Path) -> bool {
    let newest = newest_first(path).unwrap_or_default().into_iter().take(1);
    let mut folders = newest.chain([path.to_path_buf()]);
    let holds_work = |folder: PathBuf| !folders_in(&folder.join(UNFINISHED)).is_empty();
    folders.any(holds_work)
}

/// Returns the runs of the tasks in a run folder with several tasks, or in the newest run in a folder of runs.
fn tasks_in(path: &Path) -> impl Iterator<Item = PathBuf> {
    let newest = folders_in(path).pop();
    let below = newest.into_iter().flat_map(|run| finished_below(&run));
    finished_below(path).into_iter().chain(below)
}

/// Returns the finished runs directly below a folder.
fn finished_below(path: &Path) -> Vec<PathBuf> {
    let finished = |folder: &PathBuf| is_finished(folder) && !folder.ends_with(UNFINISHED);
    folders_in(path).into_iter().filter(finished).collect()
}

fn folders_in(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten();
    let mut folders: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    folders.sort_unstable();
    folders
}

/// The highest number that a run can have.
const MOST_RUNS: u64 = 999_999_999;

fn numbers_in(parent: &Path) -> Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(parent).map_err(Error::io("list", parent))? {
        let name = entry.map_err(Error::io("list", parent))?.file_name();
        numbers.extend(number_of(&name));
    }
    Ok(numbers)
}

/// Returns the number of the run with this folder name, or `None` for a name that this program does not give to runs,
/// such as +1 or 99999999999999999999.
pub(crate) fn number_of(name: &OsStr) -> Option<u64> {
    let name = name.to_str()?;
    let number = name.parse::<u64>().ok()?;
    (number <= MOST_RUNS && name == format!("{number:03}")).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_a_run_that_was_removed_is_not_given_again() {
        let folder = tempfile::tempdir().unwrap();
        let created = || create(folder.path(), "a").unwrap();
        let number = |run: &Path| run.file_name().unwrap().to_string_lossy().into_owned();
        let runs = [created(), created(), created()];
        prune::remove(&runs[1]).unwrap();
        let left: Vec<_> = folders_in(&folder.path().join("a")).iter().map(|p| number(p)).collect();
        assert_eq!(left, ["001", "003"], "a higher number is there");
        prune::remove(&runs[2]).unwrap();
        prune::remove(&runs[0]).unwrap();
        assert_eq!(number(&created()), "004");
        assert!(newest_first(&folder.path().join("a")).unwrap().len() == 1);
        // A damaged file, or a number that no run has, is no number.
        for torn in ["three", "999999999999", ""] {
            fs::write(folder.path().join("a").join(LAST_REMOVED), torn).unwrap();
            assert_eq!(last_removed(&folder.path().join("a")), 0, "{torn}");
        }
    }

    #[test]
    fn runs_are_numbered_and_one_that_is_not_finished_is_not_found() {
        let folder = tempfile::tempdir().unwrap();
        let first = create(folder.path(), "a").unwrap();
        let second = create(folder.path(), "a").unwrap();
        assert!(first.ends_with("a/001") && second.ends_with("a/002"));
        let unfinished = second.join(UNFINISHED);
        fs::create_dir(&unfinished).unwrap();
        fs::write(unfinished.join(LOCK_FILE), "{}").unwrap();
        for path in [&second, &folder.path().join("a")] {
            let error = format!("{:?}", resolve(path).unwrap_err());
            assert!(error.contains("its sweep is not finished"), "{error}");
        }
        // A run with an incomplete lock is not finished, and is only found by its own folder.
        fs::write(first.join(LOCK_FILE), "{}").unwrap();
        assert!(resolve(&folder.path().join("a")).is_err());
        assert_eq!(resolve(&first).unwrap(), first);
    }
}

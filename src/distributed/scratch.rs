//! The folder in which a worker puts shards together on its machine. It is locked while the worker runs, so that the
//! next one can tell what a killed worker left, and removes that.

use std::{
    fs::{self, File, TryLockError},
    io,
    path::Path,
};

use frostbert_cache::{durable::is_at, progress::Progress, wording::counted};
use tempfile::{Builder, TempDir};

use crate::error::{Error, Result};

/// The name prefix of the folders of workers.
const WORKER_PREFIX: &str = "frostbert-worker-";

/// The name prefix of such a folder where locks cannot be relied on. These are never taken for left.
const UNLOCKED_PREFIX: &str = "frostbert-unlocked-";

/// What tells machines apart, as long as they run: a disk that several of them see may have locks that only one sees.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A folder for one worker, which is removed when this is dropped.
#[derive(Debug)]
pub struct WorkerScratch {
    folder: TempDir,
    /// Dropped after the folder, which is locked until it is gone.
    _lock: Option<File>,
}

impl WorkerScratch {
    /// Removes what killed workers left in a folder of this machine, and makes a folder in it for another worker.
    ///
    /// # Errors
    /// Returns an error if it cannot be made. What cannot be removed stays.
    pub fn begin(parent: &Path, progress: &dyn Progress) -> Result<WorkerScratch> {
        let make = |prefix: &str| {
            let made = Builder::new().prefix(prefix).tempdir_in(parent);
            made.map_err(Error::io("create a folder in", parent))
        };
        let Some(own) = prefix_of_this_machine() else {
            return Ok(WorkerScratch { folder: make(UNLOCKED_PREFIX)?, _lock: None });
        };
        let n_removed = remove_left(parent, &own);
        if n_removed > 0 {
            progress.note(&format!(
                "removed what {} left in {}",
                counted(n_removed, "killed worker"),
                parent.display()
            ));
        }
        loop {
            let folder = make(&own)?;
            match lock(folder.path()) {
                Ok(Some(lock)) => return Ok(WorkerScratch { folder, _lock: Some(lock) }),
                // Before it was locked, another worker took it for left.
                Ok(None) => {}
                Err(_) => return Ok(WorkerScratch { folder: make(UNLOCKED_PREFIX)?, _lock: None }),
            }
        }
    }

    /// Returns the folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Returns the name prefix of the folders of workers on this machine, unless the system does not tell it.
fn prefix_of_this_machine() -> Option<String> {
    let id = fs::read_to_string(BOOT_ID).ok()?;
    let id: String = id.chars().filter(char::is_ascii_hexdigit).take(12).collect();
    (!id.is_empty()).then(|| format!("{WORKER_PREFIX}{id}-"))
}

/// Removes the folders with this name prefix of workers that do not run any more; returns their number.
fn remove_left(parent: &Path, prefix: &str) -> usize {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let is_left = |entry: &fs::DirEntry| {
        entry.file_name().to_string_lossy().starts_with(prefix)
            // A link is none.
            && entry.file_type().is_ok_and(|kind| kind.is_dir())
    };
    let removed = entries.filter(is_left).filter(|entry| {
        let folder = entry.path();
        match lock(&folder) {
            Ok(Some(_lock)) => fs::remove_dir_all(&folder).is_ok(),
            _ => false,
        }
    });
    removed.count()
}

/// Locks a folder until the returned file is dropped; `None` if another process has locked it, or has removed it.
fn lock(folder: &Path) -> io::Result<Option<File>> {
    let file = match File::open(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    match file.try_lock() {
        Ok(()) => Ok(is_at(&file, folder).unwrap_or(false).then_some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, thread};

    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn what_killed_workers_left_is_removed_and_everything_else_stays() {
        let parent = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let path = |name: &str| parent.path().join(name);
        let of_this_machine = |name: &str| path(&(prefix_of_this_machine().unwrap() + name));
        // No process has locked it.
        let left = of_this_machine("killed");
        fs::create_dir_all(left.join("task-1/shard-000000")).unwrap();
        fs::write(left.join("task-1/shard-000000/docs.parquet"), "half").unwrap();
        fs::create_dir(path("frostbert-mine")).unwrap();
        fs::create_dir(path("frostbert-worker-0-of-another-machine")).unwrap();
        fs::write(of_this_machine("notes"), "of a user").unwrap();
        fs::write(elsewhere.path().join("precious"), "of a user").unwrap();
        symlink(elsewhere.path(), of_this_machine("link")).unwrap();

        let live = WorkerScratch::begin(parent.path(), &()).unwrap();
        assert!(!left.exists());
        let states = live.path().join("states");
        fs::write(&states, "in use").unwrap();
        let second = WorkerScratch::begin(parent.path(), &()).unwrap();
        assert!(states.exists() && second.path().exists() && second.path() != live.path());
        let folder = live.path().to_path_buf();
        drop(live);
        assert!(!folder.exists());
        let kept = [
            path("frostbert-mine"),
            path("frostbert-worker-0-of-another-machine"),
            of_this_machine("notes"),
            of_this_machine("link").join("precious"),
        ];
        for kept in kept {
            assert!(kept.exists(), "{} is gone", kept.display());
        }
    }

    #[test]
    fn workers_that_start_and_end_at_once_take_nothing_from_each_other() {
        let parent = tempfile::tempdir().unwrap();
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let scratch = WorkerScratch::begin(parent.path(), &()).unwrap();
                        let states = scratch.path().join("states");
                        fs::write(&states, "in use").unwrap();
                        thread::yield_now();
                        assert_eq!(fs::read_to_string(&states).unwrap(), "in use");
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}

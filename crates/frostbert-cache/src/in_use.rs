//! Tracks who reads a cache: readers hold a shared lock on its folder, and nothing that they may still open is removed
//! meanwhile.
//!
//! Writers only add files and need not know about readers. A collection replaces shards, and takes the lock exclusively
//! for the moment in which it does so.

use std::{
    fs::{File, TryLockError},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Result},
    progress::Progress,
};

/// How long a collection waits for readers: most finish sooner, and a training run takes longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The interval at which it checks whether they have finished.
const LOOK: Duration = Duration::from_millis(50);

/// Marks the cache as being read by this process until it is dropped.
pub(crate) struct Reading {
    _folder: Option<File>,
}

impl Reading {
    /// Waits while shards are being replaced. If the file system does not support locks, the cache is not marked.
    pub(crate) fn begin(folder: &Path) -> Reading {
        let file = File::open(folder).ok();
        Reading { _folder: file.filter(|file| file.lock_shared().is_ok()) }
    }
}

/// Exclusive access while shards are replaced and nobody reads, until it is dropped.
pub(crate) struct Replacing {
    _folder: Option<File>,
}

impl Replacing {
    /// Waits some seconds for those who read the cache, or as long as the progress has patience.
    ///
    /// # Errors
    /// [`Error::InUse`] when somebody still reads it then; when the folder cannot be opened.
    pub(crate) fn begin(folder: &Path, progress: &dyn Progress) -> Result<Replacing> {
        Replacing::within(folder, PATIENCE.max(progress.patience()), || {
            if progress.patience() > PATIENCE {
                progress.note(&format!("cache `{}` is being read: waiting", folder.display()));
            }
        })
    }

    /// Waits for nobody.
    ///
    /// # Errors
    /// As [`Replacing::begin`].
    pub(crate) fn at_once(folder: &Path) -> Result<Replacing> {
        Replacing::within(folder, Duration::ZERO, || ())
    }

    fn within(folder: &Path, patience: Duration, waiting: impl FnOnce()) -> Result<Replacing> {
        let file = File::open(folder).map_err(Error::io("open", folder))?;
        match lock_within(&file, patience, waiting) {
            Ok(()) => Ok(Replacing { _folder: Some(file) }),
            Err(TryLockError::WouldBlock) => Err(Error::InUse { cache: folder.to_path_buf() }),
            // Where the file system knows no locks, nobody can be waited for.
            Err(TryLockError::Error(_)) => Ok(Replacing { _folder: None }),
        }
    }
}

/// Tries to lock a file until that is done or `patience` is over. `waiting` is called once, where it has to wait.
///
/// # Errors
/// [`TryLockError::WouldBlock`] where somebody else still holds it; when the file system knows no locks.
pub(crate) fn lock_within(
    file: &File,
    patience: Duration,
    waiting: impl FnOnce(),
) -> std::result::Result<(), TryLockError> {
    let start = Instant::now();
    let mut waiting = Some(waiting);
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if start.elapsed() < patience => {
                if let Some(waiting) = waiting.take() {
                    waiting();
                }
                thread::sleep(LOOK);
            }
            done => return done,
        }
    }
}

/// Whether another process holds a lock on a file or a folder. Nothing is written to find out.
pub(crate) fn is_locked(path: &Path) -> bool {
    let file = File::open(path);
    file.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_replaced_while_somebody_reads_and_readers_do_not_wait_for_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (Reading::begin(folder.path()), Reading::begin(folder.path()));
        assert!(one._folder.is_some() && two._folder.is_some());
        let refused = Replacing::at_once(folder.path()).err().unwrap();
        assert!(matches!(refused, Error::InUse { .. }));
        assert!(is_locked(folder.path()));
        drop(one);
        assert!(Replacing::at_once(folder.path()).is_err());
        drop(two);
        assert!(Replacing::at_once(folder.path()).is_ok());
        assert!(!is_locked(folder.path()));
    }
}

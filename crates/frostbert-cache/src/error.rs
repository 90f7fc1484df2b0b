//! The errors of the cache and of the files below it.
//!
//! Every variant says what was expected, what was found and where; [`Error::hint`] says what to do about it.

use std::{
    error, io,
    path::{Path, PathBuf},
};

/// The result of everything in the cache that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, where, and (through [`Error::hint`]) the cure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something.
    #[error(transparent)]
    Io(#[from] IoError),

    /// A cache lacks something that was asked of it.
    #[error("cache `{}` lacks {lacks}", cache.display())]
    Miss {
        /// The cache folder.
        cache: PathBuf,
        /// What is not there.
        lacks: String,
        /// The cure.
        hint: String,
    },

    /// A file of a cache is not what its manifest says.
    #[error("cache file `{}` is damaged: expected {expected}, got {got}", path.display())]
    Damage {
        /// The damaged file.
        path: PathBuf,
        /// What the manifest says.
        expected: String,
        /// What was read.
        got: String,
        /// The cure.
        hint: String,
    },

    /// Another process writes to the cache.
    #[error("cache `{}` is being written by {holder}", cache.display())]
    Busy {
        /// The cache folder.
        cache: PathBuf,
        /// Who holds the lock.
        holder: String,
    },

    /// Another process reads a cache of which something is to be removed.
    #[error("cache `{}` is being read", cache.display())]
    InUse {
        /// The cache folder.
        cache: PathBuf,
    },

    /// An export that cannot be made where it is to be.
    #[error("cannot export to `{}`: {problem}", folder.display())]
    Export {
        /// The folder that was to be.
        folder: PathBuf,
        /// Why not.
        problem: String,
        /// The cure.
        hint: String,
    },

    /// A name that no state has.
    #[error("`{name}` is no state: expected what is stored and of which layer, such as `mean-L06`")]
    StateName {
        /// The name.
        name: String,
    },

    /// The caller's rows for an export could not be read: the caller's own error, from
    /// [`RowSource::rows`](crate::export::RowSource::rows).
    #[error(transparent)]
    Rows(Box<dyn error::Error + Send + Sync>),
}

impl Error {
    /// What the user can do about it, as one or two sentences without a full stop; `None` where the message says it all.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Error::Miss { hint, .. } | Error::Damage { hint, .. } | Error::Export { hint, .. } => {
                Some(hint)
            }
            Error::Io(error) => error.hint(),
            Error::Busy { .. } => Some(
                "wait until it has finished (--wait does), or give this pipeline its own cache.dir",
            ),
            Error::InUse { .. } => Some(
                "run this again when it has finished: nothing is removed from under a training, and what was done so far stands",
            ),
            Error::StateName { .. } | Error::Rows(_) => None,
        }
    }

    /// The file or folder at fault, where one is known.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Error::Io(error) => Some(&error.path),
            Error::Miss { cache, .. } | Error::Busy { cache, .. } | Error::InUse { cache } => {
                Some(cache)
            }
            Error::Damage { path, .. } => Some(path),
            Error::Export { folder, .. } => Some(folder),
            Error::StateName { .. } | Error::Rows(_) => None,
        }
    }

    /// Wraps an I/O error: `.map_err(Error::io("read", path))`.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| IoError { action, path, source }.into()
    }
}

/// What the operating system refused, and of which file.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{}`: {source}", path.display())]
pub struct IoError {
    /// What was tried, as a verb: `read`, `write`, `rename`.
    pub action: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl IoError {
    /// What the user can do about it; `None` where the message says it all.
    pub fn hint(&self) -> Option<&'static str> {
        match self.source.kind() {
            io::ErrorKind::StorageFull => {
                Some("free some space and run the same command again: what was committed is kept")
            }
            io::ErrorKind::PermissionDenied => {
                Some("give this user the right to it, or name another folder")
            }
            io::ErrorKind::NotFound => {
                Some("check the path: relative paths start at the folder that frostbert runs in")
            }
            _ => None,
        }
    }
}

//! The errors of the cache and its files.
//!
//! Every variant says what was expected, what was found and where; [`Error::hint`] says what to do about it.

use std::{
    error, io,
    path::{Path, PathBuf},
};

/// The result type of all fallible operations on the cache.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, where, and (through [`Error::hint`]) how to fix it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system reported an error.
    #[error(transparent)]
    Io(#[from] IoError),

    /// A cache lacks something that was requested from it.
    #[error("cache `{}` lacks {lacks}", cache.display())]
    Miss {
        /// The cache folder.
        cache: PathBuf,
        /// What is missing.
        lacks: String,
        /// How to fix it.
        hint: String,
    },

    /// A file of a cache does not match its manifest.
    #[error("cache file `{}` is damaged: expected {expected}, got {got}", path.display())]
    Damage {
        /// The damaged file.
        path: PathBuf,
        /// The value according to the manifest.
        expected: String,
        /// The value that was found.
        got: String,
        /// How to fix it.
        hint: String,
    },

    /// Another process is writing to the cache.
    #[error("cache `{}` is being written by {holder}", cache.display())]
    Busy {
        /// The cache folder.
        cache: PathBuf,
        /// The process that holds the lock.
        holder: String,
    },

    /// Another process is reading a cache from which something should be removed.
    #[error("cache `{}` is being read", cache.display())]
    InUse {
        /// The cache folder.
        cache: PathBuf,
    },

    /// An export cannot be written to the requested folder.
    #[error("cannot export to `{}`: {problem}", folder.display())]
    Export {
        /// The folder of the export.
        folder: PathBuf,
        /// The reason.
        problem: String,
        /// How to fix it.
        hint: String,
    },

    /// A name is not the name of a state.
    #[error("`{name}` is not the name of a state: expected a kind and a layer, such as `mean-L06`")]
    StateName {
        /// The name.
        name: String,
    },

    /// The caller's rows for an export could not be read; holds the caller's own error, from
    /// [`RowSource::rows`](crate::export::RowSource::rows).
    #[error(transparent)]
    Rows(Box<dyn error::Error + Send + Sync>),
}

impl Error {
    /// Returns what the user can do about the error, as one or two sentences without a full stop; `None` if the message
    /// says it all.
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
                "run the command again when the other process has finished: nothing is removed while it is being \
                 read, and what has been done so far is kept",
            ),
            Error::StateName { .. } | Error::Rows(_) => None,
        }
    }

    /// Returns the file or folder that caused the error, if known.
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

/// An operation that the operating system rejected, with the file it was for.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{}`: {source}", path.display())]
pub struct IoError {
    /// The operation, as a verb: `read`, `write`, `rename`.
    pub action: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// The error of the system.
    pub source: io::Error,
}

impl IoError {
    /// Returns what the user can do about the error; `None` if the message says it all.
    pub fn hint(&self) -> Option<&'static str> {
        match self.source.kind() {
            io::ErrorKind::StorageFull => {
                Some("free some space and run the same command again: what was committed is kept")
            }
            io::ErrorKind::PermissionDenied => {
                Some("grant this user access to it, or use another folder")
            }
            io::ErrorKind::NotFound => Some(
                "check the path: relative paths are relative to the folder that frostbert runs in",
            ),
            _ => None,
        }
    }
}

//! The library's only error type.
//!
//! Every variant says what was expected, what was found, and where; [`Error::hint`] says what to do about it.

use std::{
    io,
    path::{Path, PathBuf},
};

use frostbert_cache::IoError;

/// The result of the fallible functions of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, where, and (through [`Error::hint`]) how to fix it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operation that the operating system refused.
    #[error(transparent)]
    Io(#[from] IoError),

    /// The cache lacks something, is damaged or in use, or cannot be exported. What the operating system refused is
    /// [`Error::Io`] in this case too.
    #[error(transparent)]
    Cache(frostbert_cache::Error),

    /// A pipeline file, or an override of one of its values, is invalid.
    #[error("{}: {problem}", place(file, *line, *column))]
    Pipeline {
        /// The pipeline file, or `--set`.
        file: PathBuf,
        /// The line, counted from 1, if known.
        line: Option<u64>,
        /// The column, counted from 1, if known.
        column: Option<u64>,
        /// What is wrong.
        problem: String,
        /// How to fix it.
        hint: String,
    },

    /// A record of a data file, or every record, does not match the pipeline.
    #[error("{}: expected {expected}, got {got}", place(path, *line, None))]
    Record {
        /// The data file.
        path: PathBuf,
        /// The line on which the record starts, counted from 1, if the file has lines.
        line: Option<u64>,
        /// What was expected.
        expected: String,
        /// What was found.
        got: String,
        /// How to fix it.
        hint: String,
    },

    /// A model folder is not a checkpoint that this program can run.
    #[error("cannot use the model file `{}`: expected {expected}, got {got}", path.display())]
    Checkpoint {
        /// The file in the model folder.
        path: PathBuf,
        /// What was expected.
        expected: String,
        /// What was found.
        got: String,
        /// How to fix it.
        hint: String,
    },

    /// A model cannot be fetched from the hub.
    #[error("cannot pull `{repository}`: expected {expected}, got {got}")]
    Hub {
        /// `owner/name` on the hub.
        repository: String,
        /// What was expected.
        expected: String,
        /// What was received.
        got: String,
        /// How to fix it.
        hint: String,
    },

    /// An object store that refused a request, or could not be reached.
    #[error("cannot {action} `{address}`: {reason}")]
    Store {
        /// The request, as a verb.
        action: &'static str,
        /// The address of the file or folder.
        address: String,
        /// What the store answered, or why there was no answer.
        reason: String,
        /// How to fix it.
        hint: String,
    },

    /// ONNX Runtime itself is missing or unsuitable.
    #[error("cannot use ONNX Runtime: expected {expected}, got {got}")]
    Runtime {
        /// What is needed.
        expected: String,
        /// What was found, and where.
        got: String,
        /// How to fix it.
        hint: String,
    },

    /// The requested device is not available.
    #[error("cannot run on device `{device}`: {reason}")]
    Device {
        /// The device as written in the pipeline.
        device: String,
        /// The missing file, driver or feature.
        reason: String,
        /// How to fix it.
        hint: String,
    },

    /// ONNX Runtime failed while building or running the encoder.
    #[error("the encoder failed to {action}: {reason}")]
    Encoder {
        /// The action that failed.
        action: &'static str,
        /// The message of ONNX Runtime.
        reason: String,
    },

    /// A state has a value that the cache cannot store.
    #[error("the {state} of {text} holds {value}, which {dtype} cannot store")]
    State {
        /// The state, such as `mean state of layer 6`.
        state: String,
        /// The text, shortened.
        text: String,
        /// `NaN`, `infinity` or the number.
        value: String,
        /// The storage type.
        dtype: &'static str,
        /// How to fix it.
        hint: String,
    },

    /// The disk is too small for what is to be written.
    #[error(
        "{:.1} MB are to be written to `{}`, which has {:.1} MB left",
        *needed_bytes as f64 / 1e6,
        folder.display(),
        *free_bytes as f64 / 1e6
    )]
    NoSpace {
        /// The cache folder.
        folder: PathBuf,
        /// The number of bytes to write.
        needed_bytes: u64,
        /// The free space on the disk.
        free_bytes: u64,
    },

    /// An action needs the user's consent, which was not given.
    #[error("{what}")]
    Consent {
        /// The action.
        what: String,
    },

    /// A saved run cannot be used.
    #[error("cannot use the run file `{}`: expected {expected}, got {got}", path.display())]
    Run {
        /// The file in the run folder.
        path: PathBuf,
        /// What was expected.
        expected: String,
        /// What was found.
        got: String,
        /// How to fix it.
        hint: String,
    },

    /// A run that another process is writing.
    #[error("the run `{}` is being written by another process", run.display())]
    RunInUse {
        /// The run folder.
        run: PathBuf,
    },

    /// An argument of a call into the library that cannot be used: an array, labels, an option.
    #[error("cannot {action}: expected {expected}, got {got}")]
    Argument {
        /// The requested action, such as `fit a head`.
        action: &'static str,
        /// What the argument was expected to be.
        expected: String,
        /// What it is.
        got: String,
        /// How to fix it.
        hint: String,
    },

    /// Training diverged and cannot continue.
    #[error("training diverged: {problem}")]
    Diverged {
        /// The head, the epoch and the value.
        problem: String,
        /// How to fix it.
        hint: String,
    },

    /// A replay had other inputs, or produced other bytes, than its lock file says.
    #[error("the replay of `{}` differs from its lock file:\n{}", lock.display(), differences.join("\n"))]
    Replay {
        /// The lock file.
        lock: PathBuf,
        /// One line for each difference, with the expected and the actual value.
        differences: Vec<String>,
        /// How to fix it.
        hint: String,
    },
}

impl Error {
    /// Returns what the user can do about it, in one or two sentences without a full stop, or `None` if the message is
    /// sufficient.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Error::Pipeline { hint, .. }
            | Error::Record { hint, .. }
            | Error::Checkpoint { hint, .. }
            | Error::Hub { hint, .. }
            | Error::Store { hint, .. }
            | Error::Runtime { hint, .. }
            | Error::Device { hint, .. }
            | Error::State { hint, .. }
            | Error::Run { hint, .. }
            | Error::Argument { hint, .. }
            | Error::Diverged { hint, .. }
            | Error::Replay { hint, .. } => Some(hint),
            Error::Io(error) => error.hint(),
            Error::Cache(error) => error.hint(),
            Error::NoSpace { .. } => Some(
                "free some space, name another cache.dir, store less (cache.store, cache.layers), or continue with \
                 --yes: what is committed before the disk is full is kept",
            ),
            Error::Consent { .. } => Some("run it again with --yes to proceed"),
            Error::RunInUse { .. } => {
                Some("wait until it has finished, or stop that process first")
            }
            Error::Encoder { .. } => None,
        }
    }

    /// Returns the kind of the failure, for programs that handle failures by kind.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Pipeline { .. } | Error::Argument { .. } => ErrorKind::Usage,
            Error::Record { .. } => ErrorKind::Data,
            // The folder exists, but the run that was requested does not.
            Error::Run { path, .. } if path.is_dir() => ErrorKind::Missing,
            Error::Checkpoint { path, .. } | Error::Run { path, .. } => of_file(path),
            Error::Runtime { .. } | Error::Device { .. } => ErrorKind::Missing,
            Error::NoSpace { .. } => ErrorKind::NoSpace,
            Error::RunInUse { .. } => ErrorKind::Busy,
            Error::Io(error) => of_io(error),
            Error::Cache(error) => ErrorKind::of_cache(error),
            Error::Hub { .. }
            | Error::Store { .. }
            | Error::Encoder { .. }
            | Error::State { .. }
            | Error::Consent { .. }
            | Error::Diverged { .. }
            | Error::Replay { .. } => ErrorKind::Failed,
        }
    }

    /// Returns the file or folder that caused the error, and the line counted from 1, if known.
    pub fn place(&self) -> (Option<&Path>, Option<u64>) {
        match self {
            Error::Pipeline { file, line, .. } => (Some(file), *line),
            Error::Record { path, line, .. } => (Some(path), *line),
            Error::Checkpoint { path, .. }
            | Error::Run { path, .. }
            | Error::Replay { lock: path, .. }
            | Error::RunInUse { run: path }
            | Error::NoSpace { folder: path, .. } => (Some(path), None),
            Error::Io(error) => (Some(&error.path), None),
            Error::Cache(error) => (error.path(), None),
            _ => (None, None),
        }
    }

    /// Wraps an I/O error: `.map_err(Error::io("read", path))`.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| IoError { action, path, source }.into()
    }
}

/// The kind of a failure, which determines the exit code of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Any other failure; exit code 1.
    Failed,
    /// An invalid pipeline file or argument; exit code 2.
    Usage,
    /// A malformed record, or a damaged model, head or cache; exit code 3.
    Data,
    /// A missing file, model, library or cached row; exit code 4.
    Missing,
    /// A resource in use by another process; exit code 5.
    Busy,
    /// A full disk, or one that is too small; exit code 6.
    NoSpace,
    /// Work that the user interrupted; exit code 130.
    Interrupted,
}

impl ErrorKind {
    /// Returns the kind of an error of the cache.
    pub fn of_cache(error: &frostbert_cache::Error) -> ErrorKind {
        match error {
            frostbert_cache::Error::Io(error) => of_io(error),
            frostbert_cache::Error::Miss { .. } => ErrorKind::Missing,
            frostbert_cache::Error::Damage { path, .. } => of_file(path),
            frostbert_cache::Error::Busy { .. } | frostbert_cache::Error::InUse { .. } => {
                ErrorKind::Busy
            }
            frostbert_cache::Error::StateName { .. } => ErrorKind::Usage,
            _ => ErrorKind::Failed,
        }
    }

    /// Returns its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            ErrorKind::Failed => "failed",
            ErrorKind::Usage => "usage",
            ErrorKind::Data => "data",
            ErrorKind::Missing => "missing",
            ErrorKind::Busy => "busy",
            ErrorKind::NoSpace => "no_space",
            ErrorKind::Interrupted => "interrupted",
        }
    }

    /// Returns the exit code of the program.
    pub fn exit_code(self) -> u8 {
        match self {
            ErrorKind::Failed => 1,
            ErrorKind::Usage => 2,
            ErrorKind::Data => 3,
            ErrorKind::Missing => 4,
            ErrorKind::Busy => 5,
            ErrorKind::NoSpace => 6,
            ErrorKind::Interrupted => 130,
        }
    }
}

/// Returns the kind of an error about a file that is not as expected; the file may not exist at all.
fn of_file(path: &Path) -> ErrorKind {
    if path.exists() { ErrorKind::Data } else { ErrorKind::Missing }
}

fn of_io(error: &IoError) -> ErrorKind {
    match error.source.kind() {
        io::ErrorKind::NotFound => ErrorKind::Missing,
        io::ErrorKind::StorageFull => ErrorKind::NoSpace,
        io::ErrorKind::AddrInUse => ErrorKind::Busy,
        _ => ErrorKind::Failed,
    }
}

impl From<frostbert_train::Error> for Error {
    fn from(error: frostbert_train::Error) -> Error {
        Error::Diverged {
            problem: error.to_string(),
            hint: "look for huge or missing values among the states: frostbert cache verify".into(),
        }
    }
}

impl From<frostbert_cache::Error> for Error {
    fn from(error: frostbert_cache::Error) -> Error {
        match error {
            frostbert_cache::Error::Io(error) => Error::Io(error),
            frostbert_cache::Error::Rows(error) => match error.downcast() {
                Ok(own) => *own,
                Err(foreign) => Error::Cache(frostbert_cache::Error::Rows(foreign)),
            },
            other => Error::Cache(other),
        }
    }
}

fn place(file: &std::path::Path, line: Option<u64>, column: Option<u64>) -> String {
    let mut place = file.display().to_string();
    for number in [line, column].into_iter().flatten() {
        place.push_str(&format!(":{number}"));
    }
    place
}

//! The library's one error type.
//!
//! Every variant says what was expected, what was found and where; [`Error::hint`] says what to do about it.

use std::{
    io,
    path::{Path, PathBuf},
};

use frostbert_cache::IoError;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, where, and (through [`Error::hint`]) the cure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused something.
    #[error(transparent)]
    Io(#[from] IoError),

    /// The cache lacks something, is damaged or in use, or cannot be exported. What the operating system refused is
    /// [`Error::Io`] here too.
    #[error(transparent)]
    Cache(frostbert_cache::Error),

    /// A pipeline file, or an override of one of its values, that cannot be used.
    #[error("{}: {problem}", place(file, *line, *column))]
    Pipeline {
        /// The pipeline file, or `--set`.
        file: PathBuf,
        /// Line from 1, where one is known.
        line: Option<u64>,
        /// Column from 1, where one is known.
        column: Option<u64>,
        /// What is wrong with it.
        problem: String,
        /// The cure.
        hint: String,
    },

    /// A record of a data file that is not what the pipeline says it is, or a whole file of such records.
    #[error("{}: expected {expected}, got {got}", place(path, *line, None))]
    Record {
        /// The data file.
        path: PathBuf,
        /// Line from 1 on which the record starts, where there are lines.
        line: Option<u64>,
        /// What should be there.
        expected: String,
        /// What is there.
        got: String,
        /// The cure.
        hint: String,
    },

    /// A model folder that is no checkpoint this program can run.
    #[error("cannot use the model file `{}`: expected {expected}, got {got}", path.display())]
    Checkpoint {
        /// The file in the model folder.
        path: PathBuf,
        /// What should be there.
        expected: String,
        /// What is there.
        got: String,
        /// The cure.
        hint: String,
    },

    /// A model that cannot be fetched from the hub.
    #[error("cannot pull `{repository}`: expected {expected}, got {got}")]
    Hub {
        /// `owner/name` on the hub.
        repository: String,
        /// What should come.
        expected: String,
        /// What came.
        got: String,
        /// The cure.
        hint: String,
    },

    /// ONNX Runtime itself is missing, or not the right one.
    #[error("cannot use ONNX Runtime: expected {expected}, got {got}")]
    Runtime {
        /// What is needed.
        expected: String,
        /// What was found, and where.
        got: String,
        /// The cure.
        hint: String,
    },

    /// The device that was asked for cannot be had.
    #[error("cannot run on device `{device}`: {reason}")]
    Device {
        /// As written in the pipeline.
        device: String,
        /// The missing file, driver or feature.
        reason: String,
        /// The cure.
        hint: String,
    },

    /// ONNX Runtime failed while it built or ran the encoder.
    #[error("the encoder failed to {action}: {reason}")]
    Encoder {
        /// What it was doing.
        action: &'static str,
        /// What ONNX Runtime said.
        reason: String,
    },

    /// A state that no honest cache can hold.
    #[error("the {state} of {text} holds {value}, which {dtype} cannot store")]
    State {
        /// Which state, as `mean state of layer 6`.
        state: String,
        /// The text, shortened.
        text: String,
        /// `NaN`, `infinity` or the number.
        value: String,
        /// The storage type.
        dtype: &'static str,
        /// The cure.
        hint: String,
    },

    /// A disk that is too small for what is to be written.
    #[error(
        "{:.1} MB are to be written to `{}`, which has {:.1} MB left",
        *needed_bytes as f64 / 1e6,
        folder.display(),
        *free_bytes as f64 / 1e6
    )]
    NoSpace {
        /// The cache folder.
        folder: PathBuf,
        /// What is to be written.
        needed_bytes: u64,
        /// What the disk has left.
        free_bytes: u64,
    },

    /// Something that needs a yes, and nobody said it.
    #[error("{what}")]
    Consent {
        /// What would be done.
        what: String,
    },

    /// A saved run that cannot be used.
    #[error("cannot use the run file `{}`: expected {expected}, got {got}", path.display())]
    Run {
        /// The file in the run folder.
        path: PathBuf,
        /// What should be there.
        expected: String,
        /// What is there.
        got: String,
        /// The cure.
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
        /// What was asked for, such as `fit a head`.
        action: &'static str,
        /// What the argument should be.
        expected: String,
        /// What it is.
        got: String,
        /// The cure.
        hint: String,
    },

    /// Training reached a state from which it cannot go on.
    #[error("training diverged: {problem}")]
    Diverged {
        /// Which head, epoch and value.
        problem: String,
        /// The cure.
        hint: String,
    },

    /// A replay met other inputs, or gave other bytes, than its lock file says.
    #[error("the replay of `{}` differs from its lock file:\n{}", lock.display(), differences.join("\n"))]
    Replay {
        /// The lock file.
        lock: PathBuf,
        /// One line for each thing that differs: expected and got.
        differences: Vec<String>,
        /// The cure.
        hint: String,
    },
}

impl Error {
    /// What the user can do about it, as one or two sentences without a full stop; `None` where the message says it all.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Error::Pipeline { hint, .. }
            | Error::Record { hint, .. }
            | Error::Checkpoint { hint, .. }
            | Error::Hub { hint, .. }
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

    /// What kind of failure this is, for programs that tell failures apart.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Pipeline { .. } | Error::Argument { .. } => ErrorKind::Usage,
            Error::Record { .. } => ErrorKind::Data,
            // A folder without a run in it is there, and what was asked for is not.
            Error::Run { path, .. } if path.is_dir() => ErrorKind::Missing,
            Error::Checkpoint { path, .. } | Error::Run { path, .. } => of_file(path),
            Error::Runtime { .. } | Error::Device { .. } => ErrorKind::Missing,
            Error::NoSpace { .. } => ErrorKind::NoSpace,
            Error::RunInUse { .. } => ErrorKind::Busy,
            Error::Io(error) => of_io(error),
            Error::Cache(error) => ErrorKind::of_cache(error),
            Error::Hub { .. }
            | Error::Encoder { .. }
            | Error::State { .. }
            | Error::Consent { .. }
            | Error::Diverged { .. }
            | Error::Replay { .. } => ErrorKind::Failed,
        }
    }

    /// The file or folder at fault, and its line from 1, where they are known.
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

/// What kind of failure an error is. The program's exit code follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// Anything that is none of the others; exit code 1.
    Failed,
    /// A pipeline file or an argument that cannot be used; exit code 2.
    Usage,
    /// A malformed record, or damage in a model, a head or a cache; exit code 3.
    Data,
    /// A file, a model, a library or cached rows that are not there; exit code 4.
    Missing,
    /// Something that another process is using; exit code 5.
    Busy,
    /// A disk that is full, or too small; exit code 6.
    NoSpace,
    /// Work that the user stopped; exit code 130.
    Interrupted,
}

impl ErrorKind {
    /// The kind of an error of the cache.
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

    /// Its name in JSON.
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

    /// The exit code of the program.
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

/// Of a file that is not what it should be: it may not be there at all.
fn of_file(path: &Path) -> ErrorKind {
    if path.exists() { ErrorKind::Data } else { ErrorKind::Missing }
}

fn of_io(error: &IoError) -> ErrorKind {
    match error.source.kind() {
        io::ErrorKind::NotFound => ErrorKind::Missing,
        io::ErrorKind::StorageFull => ErrorKind::NoSpace,
        _ => ErrorKind::Failed,
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

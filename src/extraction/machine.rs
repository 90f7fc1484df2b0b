//! The resources of the machine for an extraction.

use std::{num::NonZero, path::PathBuf, thread};

/// The resources of this machine: a library file and a number of threads.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Machine {
    /// The file of ONNX Runtime; loaded only if something has to be encoded.
    pub onnxruntime: PathBuf,
    /// Number of CPU threads.
    pub threads: usize,
    /// Whether to go on where a question would otherwise be asked.
    pub go_on: bool,
}

impl Machine {
    /// Creates a machine that does not go on by itself where a question would be asked.
    pub fn new(onnxruntime: impl Into<PathBuf>, threads: usize) -> Machine {
        Machine { onnxruntime: onnxruntime.into(), threads, go_on: false }
    }

    /// Sets whether to go on where a question would be asked: whether to start an extraction that does not fit on the
    /// disk according to the forecast.
    #[must_use]
    pub fn go_on(mut self, go_on: bool) -> Machine {
        self.go_on = go_on;
        self
    }
}

impl Default for Machine {
    /// Takes ONNX Runtime from `runtime/libonnxruntime.so` under the current folder, where `make setup` puts it, and
    /// all CPU threads that this process may use.
    fn default() -> Machine {
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        Machine::new("runtime/libonnxruntime.so", threads)
    }
}

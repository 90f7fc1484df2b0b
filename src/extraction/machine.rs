//! What the machine offers to an extraction.

use std::{num::NonZero, path::PathBuf, thread};

/// What this machine offers: a library file and a number of threads.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Machine {
    /// The file of ONNX Runtime; loaded only where something is to be encoded.
    pub onnxruntime: PathBuf,
    /// CPU threads.
    pub threads: usize,
    /// Whether to go on where a question would be asked.
    pub go_on: bool,
}

impl Machine {
    /// A machine that asks nothing and does not go on where a question would be asked.
    pub fn new(onnxruntime: impl Into<PathBuf>, threads: usize) -> Machine {
        Machine { onnxruntime: onnxruntime.into(), threads, go_on: false }
    }

    /// Goes on where a question would be asked: whether to start what the forecast says will not fit on the disk.
    #[must_use]
    pub fn go_on(mut self, go_on: bool) -> Machine {
        self.go_on = go_on;
        self
    }
}

impl Default for Machine {
    /// ONNX Runtime from `runtime/libonnxruntime.so` under the current folder, where `make setup` puts it; all CPU
    /// threads that this process may use.
    fn default() -> Machine {
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        Machine::new("runtime/libonnxruntime.so", threads)
    }
}

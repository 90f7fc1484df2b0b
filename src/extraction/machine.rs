//! What the machine offers to an extraction.

use std::path::PathBuf;

/// What this machine offers: a library file and a number of threads.
#[derive(Clone, Debug)]
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
}

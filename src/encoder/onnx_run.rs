//! Runs an exported ONNX file as another program would.

use std::path::Path;

use ort::{
    session::{Session, SessionInputValue},
    value::{DynValue, Tensor},
};

use super::{ort_error::encoder_error, runtime::Runtime, session::session_builder};
use crate::error::{Error, Result};

/// The values of an input, in row-major order.
#[derive(Clone, Debug)]
pub(crate) enum InputValues {
    I64(Vec<i64>),
    F32(Vec<f32>),
}

/// A session of an exported file on a CPU.
pub(crate) struct ExportedSession {
    session: Session,
}

impl ExportedSession {
    /// Loads the file at `path` with ONNX Runtime's library.
    ///
    /// # Errors
    /// Returns an error if ONNX Runtime rejects the file.
    pub(crate) fn open(library: &Path, path: &Path, threads: usize) -> Result<ExportedSession> {
        let runtime = Runtime::load(library)?;
        let mut builder = session_builder(&runtime, threads.max(1))?;
        let session =
            builder.commit_from_file(path).map_err(encoder_error("load the exported file"))?;
        Ok(ExportedSession { session })
    }

    /// Runs the file and returns the values of some of its outputs, in row-major order.
    ///
    /// # Errors
    /// Returns an error if ONNX Runtime fails or an output is not one of f32.
    pub(crate) fn run(
        &mut self,
        inputs: Vec<(String, Vec<usize>, InputValues)>,
        outputs: &[&str],
    ) -> Result<Vec<Vec<f32>>> {
        let action = "run the exported file";
        let mut fed: Vec<(String, SessionInputValue<'_>)> = Vec::with_capacity(inputs.len());
        for (name, shape, values) in inputs {
            let value: DynValue = match values {
                InputValues::I64(values) => {
                    Tensor::from_array((shape, values)).map_err(encoder_error(action))?.into_dyn()
                }
                InputValues::F32(values) => {
                    Tensor::from_array((shape, values)).map_err(encoder_error(action))?.into_dyn()
                }
            };
            fed.push((name, value.into()));
        }
        let ran = self.session.run(fed).map_err(encoder_error(action))?;
        let read = outputs.iter().map(|name| {
            let value = ran.get(*name).ok_or_else(|| Error::Encoder {
                action,
                reason: format!("it has no output `{name}`"),
            })?;
            let tensor = value.try_extract_tensor::<f32>().map_err(encoder_error(action))?;
            Ok(tensor.1.to_vec())
        });
        read.collect()
    }
}

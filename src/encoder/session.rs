//! One ONNX Runtime session on one worker thread: batches of token ids in, hidden states out.

use std::fmt::Display;

use half::f16;
use ort::{
    session::{
        Session, SessionOutputs,
        builder::{GraphOptimizationLevel, SessionBuilder},
    },
    value::TensorRef,
};

use super::{
    checkpoint::Checkpoint,
    device::{self, Precision, Provider},
    graph,
    runtime::Runtime,
};
use crate::error::{Error, Result};

/// Token ids of some windows (a short document is one window), padded to the longest.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Real tokens of each window.
    pub lengths: Vec<u32>,
    /// Padded length, S.
    pub width: usize,
    ids: Vec<i32>,
    type_ids: Vec<i32>,
    mask: Vec<i32>,
}

impl Batch {
    /// Pads windows, each its token ids and token type ids (none: all 0), to the longest of them.
    ///
    /// # Panics
    /// When there is no window, or an empty one: an encoding always holds its special tokens.
    pub fn new<'a>(windows: impl Iterator<Item = (&'a [u32], &'a [u8])> + Clone) -> Batch {
        let lengths: Vec<u32> = windows.clone().map(|(ids, _)| ids.len() as u32).collect();
        let width = lengths
            .iter()
            .copied()
            .max()
            .expect("a batch holds windows") as usize;
        assert!(
            lengths.iter().all(|length| *length > 0),
            "an encoding holds at least its special tokens"
        );
        let mut ids = vec![0i32; width * lengths.len()];
        let mut type_ids = vec![0i32; width * lengths.len()];
        let mut mask = vec![0i32; width * lengths.len()];
        for (row, (window, types)) in windows.enumerate() {
            let real = row * width..row * width + window.len();
            for (target, id) in ids[real.clone()].iter_mut().zip(window) {
                *target = *id as i32;
            }
            for (target, type_id) in type_ids[real.clone()].iter_mut().zip(types) {
                *target = i32::from(*type_id);
            }
            mask[real].fill(1);
        }
        Batch {
            lengths,
            width,
            ids,
            type_ids,
            mask,
        }
    }

    /// Number of windows, B.
    pub fn windows(&self) -> usize {
        self.lengths.len()
    }

    /// Number of real tokens.
    pub fn tokens(&self) -> u64 {
        self.lengths.iter().map(|length| u64::from(*length)).sum()
    }
}

/// A session that runs the encoder graph; one per worker thread, because a run needs it alone.
pub struct EncoderSession {
    session: Session,
    layers: Vec<usize>,
    hidden: usize,
    half: bool,
    states: Vec<f32>,
}

/// What a session is made from, beside the checkpoint.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Where it runs.
    pub provider: Provider,
    /// What it computes in.
    pub precision: Precision,
    /// Absolute layers to put out.
    pub layers: Vec<usize>,
    /// Threads inside one operator.
    pub intra_threads: usize,
}

impl EncoderSession {
    /// Builds the graph and hands it to ONNX Runtime.
    ///
    /// # Errors
    /// When the checkpoint does not fit, the device cannot be had, or ONNX Runtime refuses.
    pub fn open(
        runtime: &Runtime,
        checkpoint: &Checkpoint,
        options: &SessionOptions,
    ) -> Result<EncoderSession> {
        let half = options.precision == Precision::F16;
        let mut builder = session_builder(runtime, options.intra_threads)?;
        if let Provider::Cuda(number) = options.provider {
            builder = device::register_cuda(builder, runtime, number)?;
        }
        let model = graph::build(checkpoint, &options.layers, half)?;
        let session = model
            .into_session(&builder)
            .map_err(encoder_error("load the model"))?;
        Ok(EncoderSession {
            session,
            layers: options.layers.clone(),
            hidden: checkpoint.config.hidden,
            half,
            states: Vec::new(),
        })
    }

    /// Runs a batch and shows each layer's states, `[windows, width, hidden]` with padding in place, to `visit`.
    ///
    /// # Errors
    /// When ONNX Runtime fails, or `visit` does.
    pub fn run(
        &mut self,
        batch: &Batch,
        mut visit: impl FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let shape = [batch.windows(), batch.width];
        let tensor = |values| {
            TensorRef::from_array_view((shape, values)).map_err(encoder_error("pass the batch"))
        };
        let inputs = ort::inputs![
            graph::INPUTS[0] => tensor(&batch.ids[..])?,
            graph::INPUTS[1] => tensor(&batch.type_ids[..])?,
            graph::INPUTS[2] => tensor(&batch.mask[..])?,
        ];
        let outputs = self
            .session
            .run(inputs)
            .map_err(encoder_error("run a batch"))?;
        for layer in &self.layers {
            let states = layer_states(&outputs, *layer, self.half, &mut self.states)?;
            debug_assert_eq!(states.len(), batch.windows() * batch.width * self.hidden);
            visit(*layer, states)?;
        }
        Ok(())
    }

    /// Runs a batch and looks at nothing: the ceiling that benchmarks compare with.
    ///
    /// # Errors
    /// When ONNX Runtime fails.
    pub fn run_bare(&mut self, batch: &Batch) -> Result<()> {
        self.run(batch, |_, _| Ok(()))
    }
}

fn layer_states<'a>(
    outputs: &'a SessionOutputs<'_>,
    layer: usize,
    half: bool,
    converted: &'a mut Vec<f32>,
) -> Result<&'a [f32]> {
    let action = "read the states";
    let value = &outputs[graph::output_name(layer).as_str()];
    if !half {
        return Ok(value
            .try_extract_tensor::<f32>()
            .map_err(encoder_error(action))?
            .1);
    }
    let (_, states) = value
        .try_extract_tensor::<f16>()
        .map_err(encoder_error(action))?;
    converted.clear();
    converted.extend(states.iter().map(|state| state.to_f32()));
    Ok(converted)
}

fn session_builder(runtime: &Runtime, intra_threads: usize) -> Result<SessionBuilder> {
    let action = "configure a session";
    Session::builder(&runtime.environment)
        .map_err(encoder_error("create a session"))?
        .with_optimization_level(GraphOptimizationLevel::All)
        .map_err(encoder_error(action))?
        .with_intra_threads(intra_threads)
        .map_err(encoder_error(action))?
        .with_inter_threads(1)
        .map_err(encoder_error(action))?
        // Several one-thread sessions share the cores: a spinning thread would take another's.
        .with_intra_op_spinning(false)
        .map_err(encoder_error(action))?
        // Shapes change with every batch: a pattern per shape would grow without bound.
        .with_memory_pattern(false)
        .map_err(encoder_error(action))
}

/// Wraps an error of ONNX Runtime.
pub(super) fn encoder_error<E: Display>(action: &'static str) -> impl FnOnce(E) -> Error {
    move |error| Error::Encoder {
        action,
        reason: plain_reason(&error),
    }
}

/// What ONNX Runtime says, without the place in its own source code that goes before.
pub(super) fn plain_reason(error: &impl Display) -> String {
    let text = error.to_string();
    let after_marker = text
        .split_once("[ONNXRuntimeError] : ")
        .map(|(_, rest)| rest);
    // `1 : FAIL : the reason`
    let reason = after_marker
        .and_then(|rest| rest.splitn(3, " : ").nth(2))
        .unwrap_or(&text);
    reason.trim().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_loses_the_place_in_foreign_source_code() {
        let text = "/src/provider_bridge_ort.cc:2043 Get() [ONNXRuntimeError] : 1 : FAIL : no libcublasLt.so.13 : x\n";
        assert_eq!(plain_reason(&text), "no libcublasLt.so.13 : x");
        assert_eq!(plain_reason(&"something else"), "something else");
    }
}

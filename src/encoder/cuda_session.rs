//! A session for the graph without padding: its inputs, the memory its states are copied to, and how it reports a full
//! GPU.

use ort::{
    memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType},
    session::{IoBinding, Session},
    value::Tensor,
};

use crate::{
    encoder::{
        checkpoint::FusedModel,
        device::{self, Precision},
        graph::{self, attention_bias, packed},
        layer_states::LayerStates,
        ort_error::encoder_error,
        provider::Provider,
        relative_bias::RelativeBias,
        runtime::Runtime,
        session::{SessionOptions, TokenBatch, session_builder, taken_values},
        token_positions::TokenPositions,
    },
    error::{Error, Result},
};

/// A session that runs the packed graph with its inputs and outputs bound to memory.
pub(super) struct CudaSession {
    session: Session,
    binding: IoBinding,
    /// Absolute layers to output.
    layers: Vec<usize>,
    hidden: usize,
    one_token_type: bool,
    positions: TokenPositions,
    relative_bias: Option<&'static RelativeBias>,
    /// The CPU memory that receives the states; the device writes to it directly.
    output_memory: MemoryInfo<'static>,
    provider: Provider,
}

impl CudaSession {
    /// Builds the packed graph and loads it into ONNX Runtime on the CUDA device of this number.
    ///
    /// # Errors
    /// Returns an error if the checkpoint does not match its config, the device is unavailable, or ONNX Runtime rejects
    /// the graph.
    pub(super) fn open(
        runtime: &Runtime,
        source: &FusedModel,
        options: &SessionOptions,
        number: u32,
    ) -> Result<CudaSession> {
        let builder = session_builder(runtime, options.intra_threads)?;
        let builder = device::register_cuda(builder, runtime, number, true)?;
        let half = options.precision == Precision::F16;
        let model = packed::build(source, &options.layers, half)?;
        let session = model.into_session(&builder).map_err(encoder_error("load the model"))?;
        let pinned = MemoryInfo::new(
            AllocationDevice::CUDA_PINNED,
            number as i32,
            AllocatorType::Device,
            MemoryType::CPUOutput,
        );
        let pinned = pinned.map_err(encoder_error("name the pinned memory"))?;
        let provider = Provider::Cuda(number);
        CudaSession::new(session, source, &options.layers, pinned, provider)
    }

    /// Creates a session for a packed graph whose outputs go to `output_memory`.
    fn new(
        session: Session,
        source: &FusedModel,
        layers: &[usize],
        output_memory: MemoryInfo<'static>,
        provider: Provider,
    ) -> Result<CudaSession> {
        Ok(CudaSession {
            binding: session.create_binding().map_err(encoder_error("bind inputs and outputs"))?,
            session,
            layers: layers.to_vec(),
            hidden: source.shape.hidden,
            one_token_type: source.shape.token_types <= 1,
            positions: graph::token_positions(&source.shape),
            relative_bias: source.shape.family.relative_bias,
            output_memory,
            provider,
        })
    }

    /// Runs a batch and returns each layer's states in buffers of their own, which the next batch does not overwrite.
    ///
    /// # Errors
    /// Returns an error if ONNX Runtime fails; if the device ran out of memory, the error names a token budget that
    /// fits.
    pub(super) fn compute(&mut self, batch: &TokenBatch) -> Result<Vec<LayerStates>> {
        self.run(batch).map_err(|error| match error {
            Error::Encoder { reason, .. } if is_out_of_memory(&reason) => {
                let device = self.provider.to_string();
                out_of_memory(device, batch, |smaller| self.run(smaller).is_ok())
            }
            other => other,
        })
    }

    fn run(&mut self, batch: &TokenBatch) -> Result<Vec<LayerStates>> {
        let action = "pass the batch";
        let longest = match self.relative_bias {
            Some(_) => batch.width.next_multiple_of(packed::BIAS_ALIGNMENT),
            None => batch.width,
        };
        let packed = PackedBatch::of(batch, self.one_token_type, self.positions, longest);
        let n_tokens = packed.ids.len();
        let row = [1, n_tokens];
        let [ids, type_ids, positions] = packed::TOKENS;
        let mut inputs = vec![
            (ids, row.to_vec(), packed.ids),
            (type_ids, row.to_vec(), packed.type_ids),
            (positions, row.to_vec(), packed.positions),
            (packed::TOKEN_OFFSET, vec![batch.windows(), longest], packed.token_offset),
            (packed::CU_SEQLENS, vec![batch.windows() + 1], packed.cu_seqlens.clone()),
        ];
        if let Some(bias) = self.relative_bias {
            inputs.push((attention_bias::DISTANCES, vec![longest; 2], bias.indices(longest)));
        }
        for (name, shape, values) in inputs {
            let tensor = Tensor::from_array((shape, values));
            let tensor = tensor.map_err(encoder_error(action))?;
            let bound = self.binding.bind_input(name, &tensor);
            bound.map_err(encoder_error(action))?;
        }
        // Bind the outputs anew, or the buffers of the last batch would be overwritten.
        self.binding.clear_outputs();
        let names: Vec<String> =
            self.layers.iter().map(|layer| graph::output_name(*layer)).collect();
        for name in &names {
            let bound = self.binding.bind_output_to_device(name, &self.output_memory);
            bound.map_err(encoder_error(action))?;
        }
        let mut outputs =
            self.session.run_binding(&self.binding).map_err(encoder_error("run a batch"))?;
        let starts = packed.cu_seqlens.windows(2);
        let rows = starts.map(|pair| pair[0] as usize..pair[1] as usize);
        let rows: Vec<_> = rows.collect();
        let layers = self.layers.iter().zip(&names).map(|(layer, name)| {
            Ok(LayerStates {
                layer: *layer,
                hidden: self.hidden,
                values: taken_values(&mut outputs, name, &[n_tokens, self.hidden])?,
                rows: rows.clone(),
            })
        });
        layers.collect()
    }
}

/// The inputs of the packed graph; see [`packed`].
struct PackedBatch {
    ids: Vec<i32>,
    type_ids: Vec<i32>,
    positions: Vec<i32>,
    token_offset: Vec<i32>,
    cu_seqlens: Vec<i32>,
}

impl PackedBatch {
    /// Packs a batch; for the operator, its padded windows are `longest` tokens long, at least its own width.
    fn of(
        batch: &TokenBatch,
        one_token_type: bool,
        rows: TokenPositions,
        longest: usize,
    ) -> PackedBatch {
        let n_tokens = batch.tokens() as usize;
        let (mut ids, mut type_ids) = (Vec::with_capacity(n_tokens), Vec::with_capacity(n_tokens));
        let (mut real, mut padding) = (Vec::with_capacity(n_tokens), Vec::new());
        let mut positions = Vec::with_capacity(n_tokens);
        let mut cu_seqlens = vec![0i32];
        for (window, length) in batch.lengths.iter().enumerate() {
            let start = window * batch.width;
            let tokens = start..start + *length as usize;
            positions.extend(rows.of(&batch.ids[tokens.clone()]));
            ids.extend_from_slice(&batch.ids[tokens.clone()]);
            type_ids.extend_from_slice(&batch.type_ids[tokens]);

            let start = (window * longest) as i32;
            let (stop, end) = (start + *length as i32, start + longest as i32);
            real.extend(start..stop);
            padding.extend(stop..end);
            cu_seqlens.push(real.len() as i32);
        }
        if one_token_type {
            type_ids.fill(0);
        }
        let token_offset = [real, padding].concat();
        PackedBatch { ids, type_ids, positions, token_offset, cu_seqlens }
    }
}

/// Returns whether ONNX Runtime, CUDA, cuBLAS or cuDNN reports that memory ran out.
fn is_out_of_memory(reason: &str) -> bool {
    [
        "Failed to allocate memory",
        "out of memory",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "CUDNN_STATUS_ALLOC_FAILED",
    ]
    .iter()
    .any(|sign| reason.contains(sign))
}

/// Builds the error for a batch that does not fit into the memory of a device. The hint names the largest part of the
/// batch for which `runs` succeeds, found by repeated halving.
fn out_of_memory(
    device: String,
    batch: &TokenBatch,
    mut runs: impl FnMut(&TokenBatch) -> bool,
) -> Error {
    let mut windows = batch.windows() / 2;
    while windows > 0 && !runs(&batch.first(windows)) {
        windows /= 2;
    }
    Error::Device {
        device,
        reason: format!(
            "its memory is full: a batch of {} tokens does not fit",
            batch.windows() * batch.width
        ),
        hint: match windows {
            0 => format!(
                "not even one text of {} tokens fits: stop what else uses this GPU, lower cache.max_length, or set \
                 model.device = \"cpu\"",
                batch.width
            ),
            _ => format!(
                "set model.batch_tokens = {}, which fits: what was committed is kept, the rest is planned again",
                windows * batch.width
            ),
        },
    }
}

#[cfg(test)]
mod tests;

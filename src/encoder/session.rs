//! An ONNX Runtime session for one worker thread: takes batches of token ids and returns hidden states.

use std::{borrow::Cow, ops::Range};

use ort::{
    session::{
        Session, SessionOutputs,
        builder::{GraphOptimizationLevel, SessionBuilder},
    },
    value::{DynValue, Tensor, TensorElementType},
};

use crate::{
    encoder::{
        attention_positions::{WindowBlocks, outside_window, token_distances},
        checkpoint::{Checkpoint, Model},
        device::{self, Precision},
        graph::{self, int8::WeightForm},
        layer_states::{LayerStates, LayerValues},
        onnx_model::{Role, SessionInput},
        ort_error::encoder_error,
        provider::Provider,
        runtime::Runtime,
        shared_session::SharedSession,
        token_positions::TokenPositions,
    },
    error::{Error, Result},
};

/// The token ids of several windows (a short document is a single window), padded to the longest.
#[derive(Clone, Debug)]
pub struct TokenBatch {
    /// The number of real tokens in each window.
    pub lengths: Vec<u32>,
    /// The padded length, S.
    pub width: usize,
    pub(super) ids: Vec<i32>,
    pub(super) type_ids: Vec<i32>,
    mask: Vec<i32>,
}

impl TokenBatch {
    /// Pads windows to the longest of them; each is given as its token ids and token type ids (empty: all 0).
    ///
    /// # Panics
    /// Panics if there is no window or an empty one: an encoding always holds its special tokens.
    pub fn new<'a>(windows: impl Iterator<Item = (&'a [u32], &'a [u8])> + Clone) -> TokenBatch {
        let lengths: Vec<u32> = windows.clone().map(|(ids, _)| ids.len() as u32).collect();
        let width = lengths.iter().copied().max().expect("a batch holds windows") as usize;
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
        TokenBatch { lengths, width, ids, type_ids, mask }
    }

    /// Hides the last `n` tokens of a batch of one window from attention: no token attends to them, and they attend to
    /// the others. They have states like other tokens, but only in sessions with padding.
    ///
    /// # Panics
    /// Panics if there are several windows, or no more than `n` tokens.
    pub(crate) fn with_last_unattended(mut self, n: usize) -> TokenBatch {
        assert!(
            self.lengths.len() == 1 && n < self.width,
            "other tokens of the only window are left"
        );
        self.mask[self.width - n..].fill(0);
        self
    }

    /// Returns the first windows of the batch, at least one, with unchanged padding.
    pub(super) fn first(&self, windows: usize) -> TokenBatch {
        let places = windows * self.width;
        TokenBatch {
            lengths: self.lengths[..windows].to_vec(),
            width: self.width,
            ids: self.ids[..places].to_vec(),
            type_ids: self.type_ids[..places].to_vec(),
            mask: self.mask[..places].to_vec(),
        }
    }

    /// Returns one window as a batch of its own.
    fn window(&self, row: usize) -> TokenBatch {
        let length = self.lengths[row] as usize;
        let real = row * self.width..row * self.width + length;
        TokenBatch {
            lengths: vec![self.lengths[row]],
            width: length,
            ids: self.ids[real.clone()].to_vec(),
            type_ids: self.type_ids[real.clone()].to_vec(),
            mask: self.mask[real].to_vec(),
        }
    }

    /// Returns the number of windows, B.
    pub fn windows(&self) -> usize {
        self.lengths.len()
    }

    /// Returns the number of real tokens.
    pub fn tokens(&self) -> u64 {
        self.lengths.iter().map(|length| u64::from(*length)).sum()
    }
}

/// A session that runs the encoder graph. Each worker has a handle of its own; on a CPU, those of our
/// own graphs share the weights.
pub struct EncoderSession {
    session: SharedSession,
    inputs: Vec<SessionInput>,
    /// Absolute layers and the names of the outputs that hold their states.
    outputs: Vec<(usize, String)>,
    hidden: usize,
    positions: TokenPositions,
    one_token_type: bool,
    alone: bool,
    /// Whether it runs a graph of our own on a CPU, so that several threads may run it.
    is_shareable: bool,
}

/// Settings of a session, apart from the checkpoint.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// The provider to run on.
    pub provider: Provider,
    /// The numerical format to compute in.
    pub precision: Precision,
    /// Absolute layers to output.
    pub layers: Vec<usize>,
    /// The number of threads within one operator.
    pub intra_threads: usize,
}

impl EncoderSession {
    /// Builds the graph, or takes the one in model.onnx, and loads it into ONNX Runtime.
    ///
    /// # Errors
    /// Returns an error if the checkpoint does not match its config or lacks a layer, the device is unavailable, or
    /// ONNX Runtime rejects the graph.
    pub fn open(
        runtime: &Runtime,
        checkpoint: &Checkpoint,
        options: &SessionOptions,
    ) -> Result<EncoderSession> {
        checkpoint.check_layers(&options.layers)?;
        checkpoint.check_precision(options.precision)?;
        let mut builder = session_builder(runtime, options.intra_threads)?;
        if let Provider::Cuda(number) = options.provider {
            // Distances are taken for each text and head, whose number is a shape.
            let whole_graph = matches!(
                &checkpoint.model,
                Model::Fused(source) if source.shape.disentangled.is_none()
            );
            builder = device::register_cuda(builder, runtime, number, whole_graph)?;
        }
        let hidden = checkpoint.config.hidden;
        match &checkpoint.model {
            Model::Fused(source) => {
                if options.precision == Precision::F32 {
                    builder = builder
                        .with_disabled_optimizers(graph::JOINS_NORMS)
                        .map_err(encoder_error("configure a session"))?;
                }
                // Such graphs compute sizes, which is done on a CPU.
                let for_cpu = options.provider == Provider::Cpu;
                let model = match options.precision {
                    Precision::F32 => graph::build(source, &options.layers, false, for_cpu)?,
                    Precision::F16 => graph::build(source, &options.layers, true, for_cpu)?,
                    Precision::Int8 => {
                        graph::int8::build(source, &options.layers, WeightForm::of_this_cpu())?
                    }
                };
                let session =
                    model.into_session(&builder).map_err(encoder_error("load the model"))?;
                let output = |layer: &usize| (*layer, graph::output_name(*layer));
                Ok(EncoderSession {
                    session: SharedSession::new(session),
                    inputs: graph::inputs(&source.shape, for_cpu),
                    outputs: options.layers.iter().map(output).collect(),
                    hidden,
                    positions: graph::token_positions(&source.shape),
                    one_token_type: source.shape.token_types <= 1,
                    alone: false,
                    is_shareable: options.provider == Provider::Cpu,
                })
            }
            Model::Onnx(model) => {
                let session = builder
                    .commit_from_file(&model.path)
                    .map_err(encoder_error("load model.onnx"))?;
                model.hashed.require_unchanged()?;
                Ok(EncoderSession {
                    session: SharedSession::new(session),
                    inputs: model.inputs.clone(),
                    outputs: model.outputs_of(&options.layers)?,
                    hidden,
                    positions: model.positions,
                    one_token_type: model.one_token_type,
                    alone: model.alone,
                    is_shareable: false,
                })
            }
        }
    }

    /// Returns another handle of this session, which a thread may run while others run theirs.
    ///
    /// # Panics
    /// Panics if the session runs a model.onnx, or is not on a CPU.
    pub(super) fn share(&self) -> EncoderSession {
        assert!(self.is_shareable, "only sessions of our own graphs on a CPU are shared");
        EncoderSession {
            session: self.session.share(),
            inputs: self.inputs.clone(),
            outputs: self.outputs.clone(),
            ..*self
        }
    }

    /// Runs a batch and passes each layer's states, `[windows, width, hidden]` with padding in place, to `visit`.
    ///
    /// # Errors
    /// Returns an error if ONNX Runtime or `visit` fails.
    pub fn run(
        &mut self,
        batch: &TokenBatch,
        mut visit: impl FnMut(usize, &[f32]) -> Result<()>,
    ) -> Result<()> {
        let layers = self.compute(batch)?;
        layers.iter().try_for_each(|states| visit(states.layer, &states.all().to_f32()))
    }

    /// Runs a batch and returns each layer's states.
    ///
    /// A model whose states would depend on the rest of the batch is run window by window.
    ///
    /// # Errors
    /// Returns an error if ONNX Runtime fails.
    pub fn compute(&mut self, batch: &TokenBatch) -> Result<Vec<LayerStates>> {
        if !self.alone || batch.windows() == 1 {
            return self.run_together(batch);
        }
        let stride = batch.width * self.hidden;
        let mut joined = vec![vec![0.0f32; batch.windows() * stride]; self.outputs.len()];
        for window in 0..batch.windows() {
            let layers = self.run_together(&batch.window(window))?;
            for (target, states) in joined.iter_mut().zip(&layers) {
                let states = states.all().to_f32();
                target[window * stride..][..states.len()].copy_from_slice(&states);
            }
        }
        let layers = self.outputs.iter().zip(joined);
        let layers = layers.map(|((layer, _), values)| LayerStates {
            layer: *layer,
            hidden: self.hidden,
            values: LayerValues::Joined(values),
            rows: padded_rows(batch),
        });
        Ok(layers.collect())
    }

    fn run_together(&mut self, batch: &TokenBatch) -> Result<Vec<LayerStates>> {
        let inputs: Vec<(&str, DynValue)> = self
            .inputs
            .iter()
            .map(|input| Ok((&input.name[..], self.feed(input, batch)?)))
            .collect::<Result<_>>()?;
        let mut outputs = self.session.run(inputs).map_err(encoder_error("run a batch"))?;
        let shape = [batch.windows(), batch.width, self.hidden];
        let layers = self.outputs.iter().map(|(layer, name)| {
            Ok(LayerStates {
                layer: *layer,
                hidden: self.hidden,
                values: taken_values(&mut outputs, name, &shape)?,
                rows: padded_rows(batch),
            })
        });
        layers.collect()
    }

    /// Builds the tensor for an input.
    fn feed(&self, input: &SessionInput, batch: &TokenBatch) -> Result<DynValue> {
        let n_tokens = batch.windows() * batch.width;
        let mut shape = if input.role.is_by_distance() {
            [batch.width; 2]
        } else {
            [batch.windows(), batch.width]
        };
        let values: Cow<'_, [i32]> = match input.role {
            Role::TokenIds => Cow::Borrowed(&batch.ids),
            Role::Mask => Cow::Borrowed(&batch.mask),
            Role::TokenTypes if self.one_token_type => Cow::Owned(vec![0; n_tokens]),
            Role::TokenTypes => Cow::Borrowed(&batch.type_ids),
            Role::Positions => {
                let windows = batch.ids.chunks(batch.width);
                let positions = windows.flat_map(|ids| self.positions.of(ids));
                Cow::Owned(positions.collect())
            }
            Role::Distances(bias) => Cow::Owned(bias.indices(batch.width)),
            Role::Window(window) => Cow::Owned(outside_window(window, batch.width)),
            Role::Buckets(distances) => Cow::Owned(distances.indices(batch.width)),
            Role::Lengths => Cow::Owned(token_distances(batch.width)),
            Role::Blocks(part, window) => {
                let (own, values) = WindowBlocks::of(window, batch.width).input(part);
                shape = own;
                Cow::Owned(values)
            }
        };
        let action = "pass the batch";
        if input.wide {
            let wide: Vec<i64> = values.iter().map(|value| i64::from(*value)).collect();
            return Ok(Tensor::from_array((shape, wide))
                .map_err(encoder_error(action))?
                .into_dyn());
        }
        let tensor = Tensor::from_array((shape, values.into_owned()));
        Ok(tensor.map_err(encoder_error(action))?.into_dyn())
    }

    /// Runs a batch and ignores its states: the upper bound that benchmarks compare with.
    ///
    /// # Errors
    /// Returns an error if ONNX Runtime fails.
    pub fn run_bare(&mut self, batch: &TokenBatch) -> Result<()> {
        self.run(batch, |_, _| Ok(()))
    }
}

/// Returns the rows of each window's real tokens in a padded batch.
pub(super) fn padded_rows(batch: &TokenBatch) -> Vec<Range<usize>> {
    let windows = batch.lengths.iter().enumerate();
    windows
        .map(|(window, length)| {
            let start = window * batch.width;
            start..start + *length as usize
        })
        .collect()
}

/// Takes the states out of an output and checks that they have `shape`.
pub(super) fn taken_values(
    outputs: &mut SessionOutputs<'_>,
    name: &str,
    shape: &[usize],
) -> Result<LayerValues> {
    let action = "read the states";
    let refuse = |got: String| Error::Encoder {
        action,
        reason: format!("expected `{name}` of shape {shape:?}, got {got}"),
    };
    let Some(value) = outputs.remove(name) else {
        return Err(refuse("no such output".into()));
    };
    let sizes = shape.iter().map(|size| *size as i64);
    if !value.shape().iter().copied().eq(sizes) {
        return Err(refuse(format!("{:?}", &value.shape()[..])));
    }
    if value.data_type() == &TensorElementType::Float16 {
        let tensor = value.downcast().map_err(encoder_error(action))?;
        return Ok(LayerValues::Half(tensor));
    }
    let tensor = value.downcast().map_err(encoder_error(action))?;
    Ok(LayerValues::Single(tensor))
}

pub(super) fn session_builder(runtime: &Runtime, intra_threads: usize) -> Result<SessionBuilder> {
    let action = "configure a session";
    Session::builder(&runtime.environment)
        .map_err(encoder_error("create a session"))?
        .with_optimization_level(GraphOptimizationLevel::All)
        .map_err(encoder_error(action))?
        .with_intra_threads(intra_threads)
        .map_err(encoder_error(action))?
        .with_inter_threads(1)
        .map_err(encoder_error(action))?
        // Several workers share the cores, and a spinning thread would block another worker's.
        .with_intra_op_spinning(false)
        .map_err(encoder_error(action))?
        // Shapes change with every batch, so the patterns kept for each shape would grow without bound.
        .with_memory_pattern(false)
        .map_err(encoder_error(action))
}

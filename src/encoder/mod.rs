//! Stage 1's engine: a checkpoint folder becomes sessions, texts become token ids, token ids become states.
//!
//! `checkpoint -> graph -> session` and `tokenizer -> windows -> plan -> session -> pooling`; [`Encoder`] composes them.

pub mod checkpoint;
pub mod config;
pub mod device;
mod family;
mod graph;
pub mod hub;
mod onnx_file;
mod onnx_model;
pub mod plan;
pub mod pooling;
pub mod quantize;
pub mod runtime;
pub mod session;
pub mod source;
pub mod tokenizer;
mod weights;
pub mod windows;

use checkpoint::Checkpoint;
use device::{Device, Precision, Provider};
use runtime::Runtime;
use session::{Batch, EncoderSession, SessionOptions};
use windows::Overflow;

use crate::{
    error::{Error, Result},
    fingerprint::{FORMAT_VERSION, FingerprintInputs},
    states::{BatchStates, Dtype, StateId, StateKind, StateValues},
};

/// What an encoder is asked to do, beside the checkpoint it runs.
#[derive(Clone, Debug)]
pub struct EncoderSettings {
    /// Where it runs.
    pub device: Device,
    /// What it computes in.
    pub precision: Precision,
    /// The absolute layers to put out.
    pub layers: Vec<usize>,
    /// CPU threads for all workers together.
    pub threads: usize,
}

/// An encoder that is ready to run: one worker per CPU thread, or one for a GPU.
pub struct Encoder {
    /// The device that was chosen.
    pub provider: Provider,
    /// Where `device = "auto"` found a CUDA provider that could not be used: why.
    pub provider_reason: Option<String>,
    workers: Vec<Worker>,
    reference: Option<Worker>,
}

impl Encoder {
    /// Loads the checkpoint into one session per worker, and proves a GPU's states against the CPU's.
    ///
    /// On a CPU every session has one thread: batches run side by side, and the states do not depend on how many
    /// threads there are.
    ///
    /// # Errors
    /// When the checkpoint does not fit its config, or the device cannot be had; never a quiet run on another device.
    pub fn open(
        runtime: &Runtime,
        checkpoint: &Checkpoint,
        settings: &EncoderSettings,
    ) -> Result<Encoder> {
        match settings.device {
            Device::Cpu => Encoder::open_on(Provider::Cpu, runtime, checkpoint, settings),
            Device::Cuda(number) => {
                Encoder::open_on(Provider::Cuda(number), runtime, checkpoint, settings)
            }
            Device::Auto if !device::may_take_cuda(settings.precision, &runtime.library) => {
                Encoder::open_on(Provider::Cpu, runtime, checkpoint, settings)
            }
            Device::Auto => {
                match Encoder::open_on(Provider::Cuda(0), runtime, checkpoint, settings) {
                    Err(Error::Device { reason, .. }) => {
                        let encoder =
                            Encoder::open_on(Provider::Cpu, runtime, checkpoint, settings)?;
                        Ok(Encoder {
                            provider_reason: Some(reason),
                            ..encoder
                        })
                    }
                    other => other,
                }
            }
        }
    }

    fn open_on(
        provider: Provider,
        runtime: &Runtime,
        checkpoint: &Checkpoint,
        settings: &EncoderSettings,
    ) -> Result<Encoder> {
        device::check_precision(provider, settings.precision)?;
        let mut layers = settings.layers.clone();
        layers.sort_unstable();
        layers.dedup();
        let n_workers = match provider {
            Provider::Cpu => settings.threads.max(1),
            Provider::Cuda(_) => 1,
        };
        let options = SessionOptions {
            provider,
            precision: settings.precision,
            layers,
            intra_threads: 1,
        };
        let open_worker = || -> Result<Worker> {
            Ok(Worker {
                session: EncoderSession::open(runtime, checkpoint, &options)?,
                hidden: checkpoint.config.hidden,
                precision: options.precision,
            })
        };
        let workers = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..n_workers).map(|_| scope.spawn(open_worker)).collect();
            let opened = threads.into_iter().map(|thread| thread.join());
            let opened = opened.map(|result| result.expect("opening a session does not panic"));
            opened.collect::<Result<Vec<Worker>>>()
        })?;
        let mut encoder = Encoder {
            provider,
            provider_reason: None,
            workers,
            reference: None,
        };
        if (provider, settings.precision) != (Provider::Cpu, Precision::F32) {
            let options = SessionOptions {
                provider: Provider::Cpu,
                precision: Precision::F32,
                ..options.clone()
            };
            encoder.reference = Some(Worker {
                session: EncoderSession::open(runtime, checkpoint, &options)?,
                hidden: checkpoint.config.hidden,
                precision: options.precision,
            });
        }
        if let Provider::Cuda(_) = provider {
            encoder.prove_against_cpu(checkpoint, settings.precision)?;
        }
        Ok(encoder)
    }

    /// The workers, each with a session of its own; and the one that computes f32 on a CPU for comparison, where the
    /// others do something else.
    pub fn workers(&mut self) -> (&mut [Worker], Option<&mut Worker>) {
        (&mut self.workers, self.reference.as_mut())
    }

    /// Runs one small batch on the GPU and on the CPU and compares every state.
    fn prove_against_cpu(&mut self, checkpoint: &Checkpoint, precision: Precision) -> Result<()> {
        let Some(cpu) = self.reference.as_mut() else {
            return Ok(());
        };
        let vocabulary = checkpoint.config.vocabulary as u32;
        let documents: Vec<Vec<u32>> = [5usize, 12, 9]
            .into_iter()
            .map(|length| {
                (0..length as u32)
                    .map(|position| (position * 37 + 11) % vocabulary)
                    .collect()
            })
            .collect();
        let batch = Batch::new(documents.iter().map(|ids| (&ids[..], &[][..])));
        let hidden = checkpoint.config.hidden;
        let expected = real_states(&mut cpu.session, &batch, hidden)?;
        let got = real_states(&mut self.workers[0].session, &batch, hidden)?;
        let least = match precision {
            Precision::F16 => 0.999,
            _ => 0.999_99,
        };
        let cosine = least_cosine(&expected, &got, hidden);
        // NaN is not proven either.
        let proven = cosine >= least;
        if !proven {
            return Err(Error::Device {
                device: self.provider.to_string(),
                reason: format!(
                    "its states differ from the CPU's on a test batch (least cosine {cosine:.5}, needed {least})"
                ),
                hint: "this ONNX Runtime or its CUDA libraries give wrong results on this GPU: use others, or the CPU"
                    .into(),
            });
        }
        Ok(())
    }
}

/// The least cosine of two lists of states, row by row; NaN where one is NaN, as that of a state of zeros is.
fn least_cosine(a: &[f32], b: &[f32], hidden: usize) -> f64 {
    let rows = a.chunks_exact(hidden).zip(b.chunks_exact(hidden));
    rows.map(|(a, b)| cosine(a, b))
        .fold(f64::INFINITY, |least, next| {
            match least.is_nan() || next >= least {
                true => least,
                false => next,
            }
        })
}

fn real_states(session: &mut EncoderSession, batch: &Batch, hidden: usize) -> Result<Vec<f32>> {
    let mut real = Vec::new();
    session.run(batch, |_, states| {
        for (row, length) in batch.lengths.iter().enumerate() {
            let start = row * batch.width * hidden;
            real.extend_from_slice(&states[start..start + *length as usize * hidden]);
        }
        Ok(())
    })?;
    Ok(real)
}

/// The cosine of two states; NaN where one is of zeros.
pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| {
        a.iter()
            .zip(b)
            .map(|(x, y)| f64::from(*x) * f64::from(*y))
            .sum::<f64>()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// One session and what it makes of a batch.
pub struct Worker {
    session: EncoderSession,
    hidden: usize,
    precision: Precision,
}

/// What a batch is encoded for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The states, of layers that the encoder was opened for.
    pub states: &'a [StateId],
    /// The type in which rows of tokens and words are returned.
    pub dtype: Dtype,
    /// The type in which the cache stores states: every value must fit into it.
    pub stored: Dtype,
    /// For each window the positions of its words; only looked at where word states are asked for.
    pub words: &'a [Vec<u16>],
}

impl Worker {
    /// Runs a batch and returns every state that was asked for.
    ///
    /// `name_of` tells what to call the document in this row of the batch, should its state be unfit to store.
    ///
    /// # Errors
    /// When ONNX Runtime fails; [`Error::State`] for a value that is not finite or that the storage type cannot hold.
    pub fn run(
        &mut self,
        batch: &Batch,
        request: Request<'_>,
        name_of: impl Fn(usize) -> String,
    ) -> Result<Vec<BatchStates>> {
        let (hidden, precision) = (self.hidden, self.precision);
        let mut made: Vec<BatchStates> = Vec::with_capacity(request.states.len());
        self.session.run(batch, |layer, states| {
            let real = |row: usize| {
                let start = row * batch.width * hidden;
                &states[start..start + batch.lengths[row] as usize * hidden]
            };
            let check = |state: StateId, row: usize, values: &[f32]| {
                let fits = request.stored.check(values);
                fits.map_err(|value| unfit(state, value, name_of(row), request.stored, precision))
            };
            for state in request.states.iter().filter(|state| state.layer == layer) {
                let values = match state.kind {
                    StateKind::Pooled(pooling) => {
                        let mut pooled = vec![0.0f32; batch.windows() * hidden];
                        for (row, out) in pooled.chunks_exact_mut(hidden).enumerate() {
                            pooling::pool(pooling, real(row), out);
                            check(*state, row, out)?;
                        }
                        StateValues::Pooled(pooled)
                    }
                    StateKind::Words | StateKind::Tokens => {
                        let mut bytes = Vec::new();
                        let mut put = |row: usize, values: &[f32]| {
                            check(*state, row, values)?;
                            request.dtype.put(values, &mut bytes);
                            Ok(())
                        };
                        for row in 0..batch.windows() {
                            if state.kind == StateKind::Tokens {
                                put(row, real(row))?;
                                continue;
                            }
                            for position in &request.words[row] {
                                let start = usize::from(*position) * hidden;
                                put(row, &real(row)[start..start + hidden])?;
                            }
                        }
                        StateValues::Rows(bytes)
                    }
                };
                made.push(BatchStates {
                    state: *state,
                    values,
                });
            }
            Ok(())
        })?;
        Ok(made)
    }

    /// The session alone, for benchmarks.
    pub fn session(&mut self) -> &mut EncoderSession {
        &mut self.session
    }
}

fn unfit(state: StateId, value: f32, text: String, dtype: Dtype, precision: Precision) -> Error {
    let value = if value.is_nan() {
        "NaN".into()
    } else if value.is_infinite() {
        "infinity".into()
    } else {
        value.to_string()
    };
    Error::State {
        state: format!("{} state of layer {}", state.kind.name(), state.layer),
        text,
        hint: match dtype {
            _ if precision == Precision::F16 => {
                "set model.precision = \"f32\": half precision overflows on this text".into()
            }
            Dtype::F16 if value != "NaN" => {
                "set cache.dtype = \"f32\"; if it still fails, the model is broken".into()
            }
            _ => {
                "the model is broken on this text: check its weights, or leave the text out".into()
            }
        },
        value,
        dtype: dtype.name(),
    }
}

/// The fingerprint's inputs for a checkpoint on a provider.
pub fn fingerprint_inputs(
    checkpoint: &Checkpoint,
    provider: &str,
    precision: Precision,
    dtype: Dtype,
    max_length: usize,
    overflow: Overflow,
) -> FingerprintInputs {
    let (overflow, stride) = match overflow {
        Overflow::Truncate => ("truncate", None),
        Overflow::Windows { stride } => ("windows", Some(stride)),
    };
    FingerprintInputs {
        weights: checkpoint.hashes.weights.clone(),
        config: checkpoint.hashes.config.clone(),
        tokenizer: checkpoint.hashes.tokenizer.clone(),
        graph: checkpoint.graph_profile(precision).into(),
        provider: provider.into(),
        precision: precision.name().into(),
        dtype: dtype.name().into(),
        max_length,
        overflow: overflow.into(),
        stride,
        format_version: FORMAT_VERSION,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_and_nan_are_never_near() {
        let good = [1.0, 2.0, 3.0, 4.0];
        assert!((least_cosine(&good, &good, 2) - 1.0).abs() < 1e-12);
        for bad in [
            [0.0, 0.0, 3.0, 4.0],
            [f32::NAN, 2.0, 3.0, 4.0],
            [1.0, 2.0, 0.0, 0.0],
        ] {
            assert!(least_cosine(&good, &bad, 2).is_nan(), "{bad:?}");
        }
    }
}

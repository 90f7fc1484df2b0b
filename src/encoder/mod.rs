//! Stage 1's engine: a checkpoint folder becomes sessions, texts become token ids, token ids become states.
//!
//! `checkpoint -> graph -> session` and `tokenizer -> windows -> plan -> session -> pooling`; [`Encoder`] composes them.

pub mod checkpoint;
pub mod config;
pub mod cuda_failure;
pub mod cuda_libraries;
mod cuda_session;
pub mod device;
mod family;
pub mod gpus;
mod graph;
pub mod hub;
pub mod layer_states;
mod onnx_file;
mod onnx_model;
mod placement;
pub mod plan;
pub mod pooling;
pub mod quantize;
pub mod runtime;
pub mod session;
pub mod source;
pub mod tokenizer;
mod weights;
pub mod windows;
pub mod worker;

pub use worker::{Request, Worker};

use checkpoint::{Checkpoint, Model};
use device::{Device, Devices, Precision, Provider};
use gpus::Gpus;
use runtime::Runtime;
use session::{Batch, SessionOptions};
use windows::Overflow;

use crate::{
    error::{Error, Result},
    fingerprint::{FORMAT_VERSION, FingerprintInputs},
    states::{Dtype, Placement},
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

/// An encoder that is ready to run: one worker per CPU thread, or one per GPU.
pub struct Encoder {
    /// The devices that were chosen.
    pub devices: Devices,
    /// Why `device = "auto"` took the CPU, where it did.
    pub auto_reason: Option<String>,
    /// Where the graph runs, where that is a GPU.
    pub placement: Option<Placement>,
    workers: Vec<Worker>,
    reference: Option<Worker>,
}

impl Encoder {
    /// Loads the checkpoint into one session per worker, and proves every GPU's states against the CPU's.
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
        let open_on = |devices| Encoder::open_on(devices, runtime, checkpoint, settings);
        match &settings.device {
            Device::Cpu => open_on(Devices::Cpu),
            Device::Cuda(numbers) => open_on(Devices::Cuda(numbers.clone())),
            Device::AllCuda => open_on(Devices::Cuda(device::all_cuda(runtime)?)),
            Device::Auto => {
                let reason = match device::why_no_cuda(settings.precision, &runtime.library) {
                    Some(reason) => reason.into(),
                    None => match open_on(Devices::Cuda(vec![0])) {
                        // No CPU stands in for a GPU here: why there is none is what has to be known.
                        Err(error) if settings.precision == Precision::F16 => return Err(error),
                        Err(Error::Device { reason, .. }) => reason,
                        other => return other,
                    },
                };
                Ok(Encoder {
                    auto_reason: Some(reason),
                    ..open_on(Devices::Cpu)?
                })
            }
        }
    }

    fn open_on(
        devices: Devices,
        runtime: &Runtime,
        checkpoint: &Checkpoint,
        settings: &EncoderSettings,
    ) -> Result<Encoder> {
        let providers: Vec<Provider> = match &devices {
            Devices::Cpu => {
                device::check_precision(&Device::Cpu, settings.precision)?;
                vec![Provider::Cpu; settings.threads.max(1)]
            }
            Devices::Cuda(numbers) => {
                device::check_precision(&Device::Cuda(numbers.clone()), settings.precision)?;
                numbers.iter().copied().map(Provider::Cuda).collect()
            }
        };
        let mut layers = settings.layers.clone();
        layers.sort_unstable();
        layers.dedup();
        let options = |provider, precision| SessionOptions {
            provider,
            precision,
            layers: layers.clone(),
            intra_threads: 1,
        };
        let open_worker = |provider: Provider, precision| {
            Worker::open(runtime, checkpoint, &options(provider, precision))
        };
        let workers = std::thread::scope(|scope| {
            let open = |provider| {
                let worker = open_worker(provider, settings.precision);
                worker.map_err(|error| of_device(error, provider, runtime))
            };
            let threads: Vec<_> = providers
                .iter()
                .map(|provider| scope.spawn(move || open(*provider)))
                .collect();
            let opened = threads.into_iter().map(|thread| thread.join());
            let opened = opened.map(|result| result.expect("opening a session does not panic"));
            opened.collect::<Result<Vec<Worker>>>()
        })?;
        let reference = match (&devices, settings.precision) {
            (Devices::Cpu, Precision::F32) => None,
            (Devices::Cpu, _) => Some(open_worker(Provider::Cpu, Precision::F32)?),
            // Beside a GPU the CPU's threads have nothing else to do, and no shard is committed before its sample is compared.
            (Devices::Cuda(_), _) => {
                let options = SessionOptions {
                    intra_threads: settings.threads.max(1),
                    ..options(Provider::Cpu, Precision::F32)
                };
                Some(Worker::open(runtime, checkpoint, &options)?)
            }
        };
        let mut encoder = Encoder {
            placement: placement_of(&devices, runtime, checkpoint)?,
            devices,
            auto_reason: None,
            workers,
            reference,
        };
        if let Devices::Cuda(_) = encoder.devices {
            encoder.prove_against_cpu(&providers, runtime, checkpoint, settings.precision)?;
        }
        Ok(encoder)
    }

    /// The workers, each with a session of its own; and the one that computes f32 on a CPU for comparison, where the
    /// others do something else.
    pub fn workers(&mut self) -> (&mut [Worker], Option<&mut Worker>) {
        (&mut self.workers, self.reference.as_mut())
    }

    /// Runs one small batch on every GPU and on the CPU and compares every state.
    fn prove_against_cpu(
        &mut self,
        providers: &[Provider],
        runtime: &Runtime,
        checkpoint: &Checkpoint,
        precision: Precision,
    ) -> Result<()> {
        let Some(cpu) = self.reference.as_mut() else {
            return Ok(());
        };
        let batch = small_batch(checkpoint.config.vocabulary as u32);
        let hidden = checkpoint.config.hidden;
        let expected = real_states(cpu, &batch)?;
        for (worker, provider) in self.workers.iter_mut().zip(providers) {
            let got = real_states(worker, &batch)
                .map_err(|error| of_device(error, *provider, runtime))?;
            check_proof(&expected, &got, hidden, precision, *provider)?;
        }
        Ok(())
    }
}

/// Three texts of different lengths.
fn small_batch(vocabulary: u32) -> Batch {
    let ids = |length: u32| -> Vec<u32> {
        (0..length)
            .map(|position| (position * 37 + 11) % vocabulary)
            .collect()
    };
    let documents = [5, 12, 9].map(ids);
    Batch::new(documents.iter().map(|ids| (&ids[..], &[][..])))
}

/// Fails where a GPU's states of a test batch are not the CPU's.
fn check_proof(
    expected: &[f32],
    got: &[f32],
    hidden: usize,
    precision: Precision,
    provider: Provider,
) -> Result<()> {
    let least = match precision {
        Precision::F16 => 0.999,
        _ => 0.999_99,
    };
    let cosine = least_cosine(expected, got, hidden);
    // NaN is not proven either.
    let proven = cosine >= least && expected.len() == got.len();
    if proven {
        return Ok(());
    }
    Err(Error::Device {
        device: provider.to_string(),
        reason: format!(
            "its states differ from the CPU's on a test batch (least cosine {cosine:.5}, needed {least})"
        ),
        hint: "this ONNX Runtime or its CUDA libraries give wrong results on this GPU: use others, or the CPU"
            .into(),
    })
}

/// What fails while a GPU is tried is a failure of that device, with a reason and a cure.
fn of_device(error: Error, provider: Provider, runtime: &Runtime) -> Error {
    match (error, provider) {
        (Error::Encoder { reason, .. }, Provider::Cuda(number)) => {
            cuda_failure::explain(&reason, runtime, number)
        }
        (error, _) => error,
    }
}

/// Where the graph runs: our own wholly on the GPU, or no session would have been made of it.
fn placement_of(
    devices: &Devices,
    runtime: &Runtime,
    checkpoint: &Checkpoint,
) -> Result<Option<Placement>> {
    let Devices::Cuda(numbers) = devices else {
        return Ok(None);
    };
    let cpu_nodes = match (&checkpoint.model, numbers.first()) {
        (Model::Onnx(model), Some(number)) => placement::cpu_nodes(runtime, &model.path, *number)?,
        _ => Default::default(),
    };
    Ok(Some(Placement {
        gpu: Gpus::look().name(),
        cpu_nodes,
    }))
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

fn real_states(worker: &mut Worker, batch: &Batch) -> Result<Vec<f32>> {
    let mut real = Vec::new();
    for states in worker.compute(batch)?.layers {
        for window in 0..batch.windows() {
            real.extend_from_slice(&states.row(window).to_f32());
        }
    }
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
        graph: checkpoint.graph_profile(provider, precision).into(),
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
    fn a_gpu_whose_states_differ_is_refused_with_the_cosine() {
        let cpu = [1.0, 2.0, 3.0, 4.0];
        let check =
            |got: &[f32], precision| check_proof(&cpu, got, 2, precision, Provider::Cuda(1));
        assert!(check(&cpu, Precision::F32).is_ok());
        let near = [1.0, 2.03, 3.0, 4.0];
        assert!(check(&near, Precision::F16).is_ok());
        let Err(Error::Device { device, reason, .. }) = check(&near, Precision::F32) else {
            panic!("a cosine of 0.99996 is not that of f32");
        };
        assert_eq!(device, "cuda:1");
        assert!(reason.contains("least cosine 0.9999"), "{reason}");
        // Of a worker that returns too few states, those that it returns do not count.
        assert!(check(&cpu[..2], Precision::F16).is_err());
        assert!(check(&[f32::NAN, 2.0, 3.0, 4.0], Precision::F16).is_err());
    }

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

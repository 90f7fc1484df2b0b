//! The encoder of stage 1: loads a checkpoint folder into sessions and turns texts into token ids, then hidden states.
//!
//! The parts are `checkpoint -> graph -> session` and `tokenizer -> windows -> plan -> session -> pooling`; [`Encoder`]
//! composes them.

mod attention_positions;
pub(crate) mod checkpoint;
pub(crate) mod config;
pub(crate) mod cuda_failure;
pub(crate) mod cuda_libraries;
mod cuda_session;
pub(crate) mod device;
mod family;
pub(crate) mod gpus;
pub(crate) mod graph;
pub(crate) mod graph_target;
#[cfg(feature = "hub")]
pub(crate) mod hub;
pub(crate) mod hub_model;
pub(crate) mod layer_states;
mod onnx_file;
mod onnx_hash;
mod onnx_model;
pub(crate) mod onnx_run;
pub(crate) mod onnx_writer;
mod ort_error;
mod placement;
pub(crate) mod plan;
pub(crate) mod pooling;
pub(crate) mod portable;
mod prefix;
pub(crate) mod prompts;
pub(crate) mod proof;
mod protobuf;
pub(crate) mod provider;
pub(crate) mod quantize;
mod relative_bias;
pub(crate) mod runtime;
mod sentence_files;
pub(crate) mod sentence_folder;
pub(crate) mod session;
mod shared_session;
pub(crate) mod source;
#[cfg(test)]
mod tests_stub;
mod token_positions;
pub(crate) mod tokenizer;
pub(crate) mod tokenizer_file;
mod tokenizer_parts;
pub(crate) mod top_layers;
mod torch_file;
mod unsupported;
mod weights;
pub(crate) mod windows;
pub(crate) mod worker;

use attention_positions::HeldScores;
use checkpoint::{Checkpoint, Model};
use device::{Device, Devices, Precision};
use frostbert_cache::{
    fingerprint::{FORMAT_VERSION, FingerprintInputs},
    states::{Dtype, Placement},
};
use gpus::Gpus;
use proof::Proof;
use provider::Provider;
use runtime::Runtime;
use session::{SessionOptions, TokenBatch};
use windows::Overflow;
pub use worker::Request;
pub(crate) use worker::Worker;
use worker::{Computed, run_batches};

use crate::error::{Error, Result};

/// Settings of an encoder, apart from the checkpoint it runs.
#[derive(Clone, Debug)]
pub struct EncoderSettings {
    /// The device to run on.
    pub device: Device,
    /// The numerical format to compute in.
    pub precision: Precision,
    /// Absolute layers to output.
    pub layers: Vec<usize>,
    /// CPU threads, shared by all workers.
    pub threads: usize,
}

/// An encoder that is ready to run, with one worker per CPU thread or per GPU.
pub struct Encoder {
    /// The devices in use.
    pub devices: Devices,
    /// Why `device = "auto"` fell back to the CPU, if it did.
    pub auto_reason: Option<String>,
    /// Where the graph's operators run, if the device is a GPU.
    pub placement: Option<Placement>,
    workers: Vec<Worker>,
    reference: Option<Worker>,
    /// What attention holds at once.
    scores: HeldScores,
}

impl Encoder {
    /// Loads the checkpoint and checks the states of every GPU against the CPU's.
    ///
    /// On a CPU, all workers share one session of our own graph, and so the weights; each worker of a model.onnx has a
    /// session of its own. A run has one thread: batches run side by side, and the states do not depend on the number of
    /// threads. A GPU has a session and a worker of its own.
    ///
    /// # Errors
    /// Returns an error if the checkpoint does not match its config or the device is unavailable; it never silently
    /// runs on another device.
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
                        // The CPU cannot replace a GPU here, so report why there is none.
                        Err(error) if settings.precision == Precision::F16 => return Err(error),
                        Err(Error::Device { reason, .. }) => reason,
                        other => return other,
                    },
                };
                Ok(Encoder { auto_reason: Some(reason), ..open_on(Devices::Cpu)? })
            }
        }
    }

    fn open_on(
        devices: Devices,
        runtime: &Runtime,
        checkpoint: &Checkpoint,
        settings: &EncoderSettings,
    ) -> Result<Encoder> {
        device::check_precision(&devices, devices == Devices::Cpu, settings.precision)?;
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
        let (n_sessions, n_workers) = match (&devices, &checkpoint.model) {
            (Devices::Cpu, Model::Fused(_)) => (1, settings.threads.max(1)),
            (Devices::Cpu, Model::Onnx(_)) => (settings.threads.max(1), 1),
            (Devices::Cuda(numbers), _) => (numbers.len(), 1),
        };
        let providers: Vec<Provider> = match &devices {
            Devices::Cpu => vec![Provider::Cpu; n_sessions],
            Devices::Cuda(numbers) => numbers.iter().copied().map(Provider::Cuda).collect(),
        };
        let opened = std::thread::scope(|scope| {
            let open = |provider| {
                let worker = open_worker(provider, settings.precision);
                worker.map_err(|error| of_device(error, provider, runtime))
            };
            let threads: Vec<_> =
                providers.iter().map(|provider| scope.spawn(move || open(*provider))).collect();
            let opened = threads.into_iter().map(|thread| thread.join());
            let opened = opened.map(|result| result.expect("opening a session does not panic"));
            opened.collect::<Result<Vec<Worker>>>()
        })?;
        let workers: Vec<Worker> =
            opened.into_iter().flat_map(|worker| worker.and_others(n_workers)).collect();
        let reference = match (&devices, settings.precision) {
            (Devices::Cpu, Precision::F32) => None,
            (Devices::Cpu, _) => Some(open_worker(Provider::Cpu, Precision::F32)?),
            // With a GPU, the CPU threads are otherwise idle, and no shard is committed before its sample has been
            // compared.
            (Devices::Cuda(_), _) => {
                let options = SessionOptions {
                    intra_threads: settings.threads.max(1),
                    ..options(Provider::Cpu, Precision::F32)
                };
                Some(Worker::open(runtime, checkpoint, &options)?)
            }
        };
        let scores = checkpoint.held_scores(devices == Devices::Cpu);
        let mut encoder = Encoder {
            placement: placement_of(&devices, runtime, checkpoint)?,
            devices,
            auto_reason: None,
            workers,
            reference,
            scores,
        };
        if let Devices::Cuda(_) = encoder.devices {
            encoder.prove(&providers, runtime, checkpoint, settings.precision)?;
        }
        Ok(encoder)
    }

    /// Returns the bytes of the attention scores of texts of this many tokens, one text in each worker: what a layer
    /// holds at once in f32.
    pub(crate) fn attention_bytes(&self, tokens: usize) -> u64 {
        self.scores.bytes(self.workers.len(), tokens)
    }

    /// Returns the workers, and the reference worker that computes f32 on a CPU for
    /// comparison, if the other workers compute anything else.
    pub fn workers(&mut self) -> (&mut [Worker], Option<&mut Worker>) {
        (&mut self.workers, self.reference.as_mut())
    }

    /// Runs the batches of `jobs` on all workers. Each worker takes the next job as soon as it is free and passes its
    /// results to `finish`. After a failure, no further job is started.
    ///
    /// # Errors
    /// Returns the error of the first job, in job order, that failed.
    pub fn run_batches<J: Send>(
        &mut self,
        jobs: impl Iterator<Item = Result<J>> + Send,
        batch_of: impl Fn(&J) -> &TokenBatch + Sync,
        finish: impl Fn(J, Computed) -> Result<()> + Sync,
    ) -> Result<()> {
        run_batches(&mut self.workers, jobs, batch_of, finish, || ())
    }

    /// Runs a batch on every worker at the same time, because the first run of a session allocates memory.
    ///
    /// # Errors
    /// Returns an error if ONNX Runtime fails.
    pub fn warm_up(&mut self, batch: &TokenBatch) -> Result<()> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = self
                .workers
                .iter_mut()
                .map(|worker| scope.spawn(|| worker.compute(batch).map(drop)))
                .collect();
            let mut joined = threads.into_iter().map(|thread| thread.join());
            joined.try_for_each(|result| result.expect("a worker that panics is a bug"))
        })
    }

    /// Compares the states of every GPU with those of the CPU.
    fn prove(
        &mut self,
        providers: &[Provider],
        runtime: &Runtime,
        checkpoint: &Checkpoint,
        precision: Precision,
    ) -> Result<()> {
        let Some(cpu) = self.reference.as_mut() else {
            return Ok(());
        };
        let proof = Proof::of(cpu, checkpoint, precision)?;
        for (worker, provider) in self.workers.iter_mut().zip(providers) {
            proof.check(worker, *provider).map_err(|error| of_device(error, *provider, runtime))?;
        }
        Ok(())
    }
}

/// Returns the bytes of attention scores that a layer holds at once in f32, with texts of `tokens` tokens.
pub(crate) fn attention_bytes(
    checkpoint: &Checkpoint,
    devices: &Devices,
    threads: usize,
    tokens: usize,
) -> u64 {
    let n_workers = match devices {
        Devices::Cpu => threads.max(1),
        Devices::Cuda(numbers) => numbers.len(),
    };
    checkpoint.held_scores(*devices == Devices::Cpu).bytes(n_workers, tokens)
}

/// Turns an encoder error that occurs while a GPU is being tried into a device error with a reason and a hint.
fn of_device(error: Error, provider: Provider, runtime: &Runtime) -> Error {
    match (error, provider) {
        (Error::Encoder { reason, .. }, Provider::Cuda(number)) => {
            cuda_failure::explain(&reason, runtime, number)
        }
        (error, _) => error,
    }
}

/// Returns where the graph runs. Our own graph runs entirely on the GPU, or its session would not have been created.
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
    Ok(Some(Placement { gpu: Gpus::look().name(), cpu_nodes }))
}

/// Returns the fingerprint inputs for a checkpoint on a provider.
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
        weights: checkpoint.hashes.weights,
        config: checkpoint.hashes.config,
        tokenizer: checkpoint.hashes.tokenizer,
        graph: checkpoint.graph_profile(provider, precision),
        provider: provider.into(),
        precision: precision.name().into(),
        dtype: dtype.name().into(),
        max_length,
        overflow: overflow.into(),
        stride,
        include_prompt: None,
        format_version: FORMAT_VERSION,
    }
}

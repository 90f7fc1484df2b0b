//! A worker: runs batches in its session, then pools the states and converts them to the stored type.

use std::{
    iter,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::bounded;
use frostbert_cache::states::{BatchStates, Dtype, Pooling, StateId, StateKind, StateValues};

use crate::{
    encoder::{
        checkpoint::{Checkpoint, Model},
        cuda_session::CudaSession,
        device::Precision,
        layer_states::{Floats, LayerStates},
        pooling,
        provider::Provider,
        runtime::Runtime,
        session::{EncoderSession, SessionOptions, TokenBatch},
    },
    error::{Error, Result},
};

/// The number of threads that convert the output of a GPU. Including the batch being computed, one more batch than this
/// is in memory at a time, which forms a ring of buffers for the returned states.
const CONVERTERS: usize = 2;

/// A session together with the conversion of its states.
pub struct Worker {
    pub(super) session: WorkerSession,
    pub(super) precision: Precision,
}

/// The graph that a worker runs.
pub(super) enum WorkerSession {
    /// The graph with padding: on a CPU, for every model.onnx, and for families that the other does not know.
    Padded(EncoderSession),
    /// The graph without padding, on CUDA.
    Packed(Box<dyn PackedSession>),
}

/// Runs batches next to the threads that convert its states.
pub(super) trait PackedSession: Send {
    /// Runs a batch and returns each layer's states in buffers of their own.
    ///
    /// # Errors
    /// Returns an error if the batch could not be run.
    fn compute(&mut self, batch: &TokenBatch) -> Result<Vec<LayerStates>>;
}

impl PackedSession for CudaSession {
    fn compute(&mut self, batch: &TokenBatch) -> Result<Vec<LayerStates>> {
        CudaSession::compute(self, batch)
    }
}

/// What to compute for a batch.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The states to return, of layers that the encoder was opened for.
    pub states: &'a [StateId],
    /// The type of the returned rows of tokens and words.
    pub dtype: Dtype,
    /// The type in which the cache stores states; every value must fit into it.
    pub stored: Dtype,
    /// The positions of the words of each window; only used if word states are requested.
    pub words: &'a [Vec<u16>],
    /// Number of tokens at the beginning of each window that pooling leaves out; empty if it leaves out none.
    pub left_out: &'a [u32],
}

impl Worker {
    /// Opens the session that suits the device and the checkpoint.
    ///
    /// # Errors
    /// Returns an error if the checkpoint does not match its config or lacks a layer, the device is unavailable, or
    /// ONNX Runtime rejects the graph.
    pub fn open(
        runtime: &Runtime,
        checkpoint: &Checkpoint,
        options: &SessionOptions,
    ) -> Result<Worker> {
        let session = match (options.provider, &checkpoint.model) {
            (Provider::Cuda(number), Model::Fused(source))
                if source.shape.family.has_plain_attention() =>
            {
                checkpoint.check_layers(&options.layers)?;
                let session = CudaSession::open(runtime, source, options, number)?;
                WorkerSession::Packed(Box::new(session))
            }
            _ => WorkerSession::Padded(EncoderSession::open(runtime, checkpoint, options)?),
        };
        Ok(Worker { session, precision: options.precision })
    }

    /// Returns this worker and others of the same session, `n` in all and at least one, that share its weights.
    ///
    /// # Panics
    /// Panics if `n` is above one and the worker does not run a graph of our own on a CPU.
    pub(super) fn and_others(self, n: usize) -> Vec<Worker> {
        let other = || match &self.session {
            WorkerSession::Padded(session) => Worker {
                session: WorkerSession::Padded(session.share()),
                precision: self.precision,
            },
            WorkerSession::Packed(_) => panic!("a session on a GPU has one worker"),
        };
        let mut workers: Vec<Worker> = (1..n).map(|_| other()).collect();
        workers.push(self);
        workers
    }

    /// Runs a batch on the device; [`Computed::finish`] turns the output into states.
    ///
    /// # Errors
    /// Returns an error if ONNX Runtime fails; if a GPU has too little memory, the error names a token budget that
    /// fits.
    pub fn compute(&mut self, batch: &TokenBatch) -> Result<Computed> {
        let start = Instant::now();
        let layers = match &mut self.session {
            WorkerSession::Padded(session) => session.compute(batch)?,
            WorkerSession::Packed(session) => session.compute(batch)?,
        };
        Ok(Computed { layers, precision: self.precision, took: start.elapsed() })
    }

    /// Computes the batches of `jobs` one after the other and passes each to `finish` until that returns `false`.
    ///
    /// On a CPU, everything happens on this thread. A GPU meanwhile continues with the next batch: `finish` then runs
    /// on other threads, and batches may finish in another order.
    pub fn run_all<J: Send>(
        &mut self,
        jobs: impl Iterator<Item = J>,
        batch_of: impl Fn(&J) -> &TokenBatch,
        finish: impl Fn(J, Result<Computed>) -> bool + Sync,
    ) {
        if let WorkerSession::Padded(_) = self.session {
            for job in jobs {
                let computed = self.compute(batch_of(&job));
                if !finish(job, computed) {
                    return;
                }
            }
            return;
        }
        // The channel has no capacity: a batch is handed over when a thread is free to take it.
        let (sender, computed) = bounded::<(J, Result<Computed>)>(0);
        thread::scope(|scope| {
            for _ in 0..CONVERTERS {
                let (computed, finish) = (computed.clone(), &finish);
                scope.spawn(move || computed.into_iter().all(|(job, made)| finish(job, made)));
            }
            drop(computed);
            for job in jobs {
                let made = self.compute(batch_of(&job));
                // No receiver is left, because all were told to stop.
                if sender.send((job, made)).is_err() {
                    return;
                }
            }
            drop(sender);
        });
    }
}

/// Runs the batches of `jobs` on several workers. Each worker takes the next job as soon as it is free and passes its
/// results to `finish`. Jobs are taken in order, under a lock, but may finish in another order. After a failure, no
/// further job is started; `on_failure` is called at once, as another worker may be waiting for a job.
///
/// # Errors
/// Returns the error of the first job, in job order, that failed: that of `jobs` itself, of ONNX Runtime, or of
/// `finish`.
pub(crate) fn run_batches<J: Send>(
    workers: &mut [Worker],
    jobs: impl Iterator<Item = Result<J>> + Send,
    batch_of: impl Fn(&J) -> &TokenBatch + Sync,
    finish: impl Fn(J, Computed) -> Result<()> + Sync,
    on_failure: impl Fn() + Sync,
) -> Result<()> {
    let jobs = Mutex::new(jobs.enumerate());
    let failure: Mutex<Option<(usize, Error)>> = Mutex::new(None);
    let fail = |number: usize, error: Error| {
        let mut failure = locked(&failure);
        if failure.as_ref().is_none_or(|(first, _)| number < *first) {
            *failure = Some((number, error));
        }
        drop(failure);
        on_failure();
    };
    let next = || {
        let mut jobs = locked(&jobs);
        if locked(&failure).is_some() {
            return None;
        }
        let (number, job) = jobs.next()?;
        // Another worker may have failed while this one waited for a job.
        if locked(&failure).is_some() {
            return None;
        }
        job.map_err(|error| fail(number, error)).ok().map(|job| (number, job))
    };
    let work = |worker: &mut Worker| {
        worker.run_all(
            iter::from_fn(next),
            |(_, job)| batch_of(job),
            |(number, job), computed| {
                let finished = computed.and_then(|computed| finish(job, computed));
                finished.map_err(|error| fail(number, error)).is_ok()
            },
        );
    };
    thread::scope(|scope| {
        for worker in workers {
            scope.spawn(|| work(worker));
        }
    });
    let failure = failure.into_inner().unwrap_or_else(PoisonError::into_inner);
    failure.map_or(Ok(()), |(_, error)| Err(error))
}

/// Locks a mutex even if another thread panicked while holding it; the panic is reported elsewhere.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The output of a session for a batch, still in the session's type. Any thread can finish it.
pub struct Computed {
    /// The layers that the session was opened for.
    pub layers: Vec<LayerStates>,
    /// The time that the model took.
    pub took: Duration,
    precision: Precision,
}

impl Computed {
    /// Pools and converts every requested state.
    ///
    /// `name_of` names the document in a row of the batch, for an error about a state that is unfit to store.
    ///
    /// # Errors
    /// Returns [`Error::State`] for a value that is not finite or does not fit into the storage type.
    pub fn finish(
        self,
        request: Request<'_>,
        name_of: impl Fn(usize) -> String,
    ) -> Result<Vec<BatchStates>> {
        let check = |state: StateId, window: usize, values: Floats<'_>| {
            let fits = values.check(request.stored);
            fits.map_err(|value| {
                let name = name_of(window);
                unfit(state, value, name, request.stored, self.precision)
            })
        };
        let mut made: Vec<BatchStates> = Vec::with_capacity(request.states.len());
        for states in &self.layers {
            let asked = request.states.iter();
            for state in asked.filter(|state| state.layer == states.layer) {
                let values = match state.kind {
                    StateKind::Pooled(pooling) => {
                        let pooled = pool(states, pooling, request.left_out, |window, pooled| {
                            check(*state, window, Floats::Single(pooled))
                        })?;
                        StateValues::Pooled(pooled)
                    }
                    StateKind::Words | StateKind::Tokens => {
                        let mut bytes = Vec::new();
                        let mut put = |window: usize, values: Floats<'_>| -> Result<()> {
                            check(*state, window, values)?;
                            values.put(request.dtype, &mut bytes);
                            Ok(())
                        };
                        for window in 0..states.rows.len() {
                            let row = states.row(window);
                            if state.kind == StateKind::Tokens {
                                put(window, row)?;
                                continue;
                            }
                            for position in &request.words[window] {
                                let start = usize::from(*position) * states.hidden;
                                put(window, row.part(start..start + states.hidden))?;
                            }
                        }
                        StateValues::Rows(bytes)
                    }
                };
                made.push(BatchStates { state: *state, values });
            }
        }
        Ok(made)
    }
}

/// Pools each window without the tokens that are left out at its beginning; the result is `windows x hidden`.
fn pool(
    states: &LayerStates,
    pooling: Pooling,
    left_out: &[u32],
    check: impl Fn(usize, &[f32]) -> Result<()>,
) -> Result<Vec<f32>> {
    let mut pooled = vec![0.0f32; states.rows.len() * states.hidden];
    for (window, out) in pooled.chunks_exact_mut(states.hidden).enumerate() {
        let start = left_out.get(window).map_or(0, |n_tokens| *n_tokens as usize) * states.hidden;
        let row = match pooling {
            // The other states need not be converted.
            Pooling::Cls | Pooling::Given(_) => {
                states.row(window).part(start..start + states.hidden)
            }
            Pooling::Mean | Pooling::Max => {
                states.row(window).part(start..states.rows[window].len() * states.hidden)
            }
        };
        pooling::pool(pooling, &row.to_f32(), out);
        check(window, out)?;
    }
    Ok(pooled)
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

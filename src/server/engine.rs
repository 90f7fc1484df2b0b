//! The engine of a server: the models of some runs, each loaded once, and the queues of the texts that wait for them.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    thread::{self, JoinHandle},
};

use frostbert_cache::{progress::Progress, states::StateId};

use super::{
    answers::{Answers, Ticket, places},
    embedding::{EmbeddedText, PromptedText, TextVectors, batch_tokens},
    model_thread::{HeadOnModel, ModelThread, TextJob, WorkDone},
    queue::{BatchQueue, QueueLimits, Refusal},
};
use crate::{
    config::names::Task,
    data::Record,
    encoder::{
        Encoder, EncoderSettings,
        checkpoint::CheckpointHashes,
        device::{Device, Precision},
        runtime::Runtime,
    },
    error::{Error, Result},
    extraction::machine::Machine,
    prediction::{predictor::Predictor, saved_run::SavedRun, several::names_of},
    tasks::prediction::Prediction,
};

/// The most bytes of texts that wait for a model.
const QUEUE_BYTES: usize = 64 << 20;

/// About how many bytes of a text a token takes.
const BYTES_PER_TOKEN: usize = 4;

/// About how many batches each worker gets when texts are encoded together: enough that none waits for another, few
/// enough that a short text does not wait long.
const BATCHES_PER_WORKER: usize = 4;

/// How an engine works.
#[derive(Clone, Copy, Debug)]
pub struct EngineOptions {
    /// The most texts that are encoded together. With 1, each text is encoded alone, and its answer does not depend on
    /// what else is asked at the time.
    pub max_batch: usize,
    /// The most texts that wait for a model.
    pub max_queue: usize,
    /// The most windows of a text, for runs that cut long texts into windows.
    pub max_windows: usize,
    /// Whether texts can be embedded. If so, every model is run to its last layer.
    pub embeds: bool,
}

/// A run that is served.
#[derive(Clone, Debug)]
pub struct ServedRun {
    /// The name that requests call it by.
    pub name: String,
    /// Its folder.
    pub folder: PathBuf,
    /// The name of its model.
    pub model: String,
    /// Its task.
    pub task: Task,
    /// The labels of its head, by id; empty for numbers and answers.
    pub labels: Vec<String>,
    /// Whether it reads two texts.
    pub needs_pairs: bool,
    /// The most tokens of an input.
    pub max_length: usize,
    /// The number of its model: runs with the same number share an encoder.
    pub model_number: usize,
    /// Its number among the runs on the model.
    place: usize,
}

/// What an engine has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineTotals {
    /// Number of texts (or pairs, or questions) that were encoded.
    pub texts: u64,
    /// Number of their tokens.
    pub tokens: u64,
    /// Number of texts whose end was cut off.
    pub truncated: u64,
    /// Number of times that texts were encoded together.
    pub batches: u64,
    /// Number of texts that could not be encoded.
    pub failed: u64,
}

/// A model with its queue.
struct ServedModel {
    vectors: Option<Arc<TextVectors>>,
    queue: Arc<BatchQueue<TextJob>>,
    done: Arc<WorkDone>,
}

/// The models of some runs, ready to answer.
pub struct Engine {
    runs: Vec<ServedRun>,
    models: Vec<ServedModel>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What makes the encoder of a run that of another run too.
#[derive(PartialEq)]
struct SameEncoder {
    hashes: CheckpointHashes,
    device: Device,
    precision: Precision,
}

/// The runs on one model, before it is loaded.
struct RunsOnModel {
    same: SameEncoder,
    predictors: Vec<Predictor>,
}

/// Runs that were checked, and whose models have not been loaded yet.
pub struct UnloadedEngine {
    runs: Vec<ServedRun>,
    models: Vec<RunsOnModel>,
}

impl UnloadedEngine {
    /// Checks that the models of some runs are those that their heads were trained on.
    ///
    /// # Errors
    /// Returns an error if a run has no head that can predict, or its model is missing or another one.
    pub fn check(runs: Vec<SavedRun>, machine: &Machine) -> Result<UnloadedEngine> {
        let names = names_of(&runs);
        let mut models: Vec<RunsOnModel> = Vec::new();
        let mut served = Vec::new();
        for (run, name) in runs.into_iter().zip(names) {
            if run.head.is_none() && run.pipeline.data.task != Task::Similarity {
                return Err(Error::Run {
                    path: run.folder,
                    expected: "a trained head".into(),
                    got: format!("head.kind = \"{}\"", run.description.kind),
                    hint: "name a run of a trained head".into(),
                });
            }
            run.require_encoder("serve the run")?;
            let predictor = Predictor::without_encoder(run, machine)?;
            let run = predictor.run();
            let settings = &run.pipeline.extraction;
            let same = SameEncoder {
                hashes: predictor.checkpoint()?.hashes.clone(),
                device: settings.device.clone(),
                precision: settings.precision,
            };
            let model_number = match models.iter().position(|model| model.same == same) {
                Some(number) => number,
                None => {
                    models.push(RunsOnModel { same, predictors: Vec::new() });
                    models.len() - 1
                }
            };
            served.push(ServedRun {
                name,
                folder: run.folder.clone(),
                model: run.model_name(),
                task: run.pipeline.data.task,
                labels: run.description.labels.clone(),
                needs_pairs: run.pipeline.reads_pairs(),
                max_length: settings.max_length,
                model_number,
                place: models[model_number].predictors.len(),
            });
            models[model_number].predictors.push(predictor);
        }
        Ok(UnloadedEngine { runs: served, models })
    }

    /// The runs, in the order in which they were given.
    pub fn runs(&self) -> &[ServedRun] {
        &self.runs
    }

    /// Loads each model and starts its thread.
    ///
    /// # Errors
    /// Returns an error if a model cannot run on the device of its run.
    pub fn load(
        self,
        options: &EngineOptions,
        machine: &Machine,
        progress: &dyn Progress,
    ) -> Result<Engine> {
        let mut models = Vec::new();
        let mut threads = Vec::new();
        for RunsOnModel { predictors, .. } in self.models {
            let (thread, model) = load(predictors, options, machine, progress)?;
            let thread = thread::Builder::new().name("model".into()).spawn(move || thread.work());
            threads.push(thread.map_err(Error::io("start", "a thread"))?);
            models.push(model);
        }
        Ok(Engine { runs: self.runs, models, threads: Mutex::new(threads) })
    }
}

/// Loads the encoder that some runs share.
fn load(
    predictors: Vec<Predictor>,
    options: &EngineOptions,
    machine: &Machine,
    progress: &dyn Progress,
) -> Result<(ModelThread, ServedModel)> {
    let first = &predictors[0];
    let checkpoint = first.checkpoint()?;
    let vectors = options.embeds.then(|| TextVectors::of(checkpoint)).transpose();
    let vectors = vectors.unwrap_or_else(|error| {
        // Heads do not need it.
        progress.warn(&format!("texts cannot be embedded: {error}"));
        None
    });
    let states = predictors.iter().flat_map(|one| &one.run().description.states);
    let layers = states.map(|state: &StateId| state.layer);
    let layers = layers.chain(vectors.iter().map(TextVectors::layer)).collect();
    let settings = &first.run().pipeline.extraction;
    progress.start("loading the model", None, "");
    let encoder = Encoder::open(
        &Runtime::load(&machine.onnxruntime)?,
        checkpoint,
        &EncoderSettings {
            device: settings.device.clone(),
            precision: settings.precision,
            layers,
            threads: machine.threads,
        },
    );
    progress.finish();
    let mut encoder = encoder?;
    let hidden = checkpoint.config.hidden;
    let worker_tokens = settings.batch_tokens.unwrap_or(encoder.devices.default_batch_tokens());
    let tokens = worker_tokens * encoder.workers().0.len() * BATCHES_PER_WORKER;
    let records = predictors.iter().map(Predictor::records_at_a_time).min().unwrap_or(1);
    let is_alone = options.max_batch == 1;
    let heads = predictors.into_iter().map(|predictor| -> Result<HeadOnModel> {
        let settings = &predictor.run().pipeline.extraction;
        let tokenizer = settings.tokenizer(predictor.checkpoint()?)?;
        let tokenizer = tokenizer.with_most_windows(options.max_windows);
        let batch_tokens = batch_tokens(settings, is_alone);
        Ok(HeadOnModel { predictor, tokenizer, batch_tokens })
    });
    let heads = heads.collect::<Result<Vec<HeadOnModel>>>()?;
    let limits = QueueLimits { jobs: options.max_queue, bytes: QUEUE_BYTES };
    let queue = Arc::new(BatchQueue::new(limits));
    let vectors = vectors.map(Arc::new);
    let done = Arc::new(WorkDone::default());
    let model = ServedModel {
        vectors: vectors.clone(),
        queue: Arc::clone(&queue),
        done: Arc::clone(&done),
    };
    let most = (options.max_batch.min(records), tokens * BYTES_PER_TOKEN);
    Ok((ModelThread { encoder, hidden, heads, vectors, queue, most, done }, model))
}

impl Engine {
    /// The runs, in the order in which they were given.
    pub fn runs(&self) -> &[ServedRun] {
        &self.runs
    }

    /// Puts records into the queue of a run's model; `on_done` is called with the predictions, on the model's thread.
    ///
    /// # Errors
    /// Returns why there is no room for them.
    pub fn predict(
        &self,
        run: &ServedRun,
        records: Vec<Record>,
        on_done: impl FnOnce(Answers<Prediction>) + Send + 'static,
    ) -> Result<Ticket, Refusal> {
        let (ticket, slots) = places(records.len(), on_done);
        let jobs = records.into_iter().zip(slots).map(|(record, slot)| {
            let words = record.words.iter().flatten().map(String::len).sum::<usize>();
            let bytes = record.text.len() + record.text_pair.as_ref().map_or(0, String::len);
            (TextJob::Predict { run: run.place, record: Box::new(record), slot }, bytes.max(words))
        });
        self.models[run.model_number].queue.push_all(jobs.collect())?;
        Ok(ticket)
    }

    /// Whether the texts of a run's model can be embedded.
    pub fn embeds(&self, run: &ServedRun) -> bool {
        self.models[run.model_number].vectors.is_some()
    }

    /// Returns a prompt of a run's model by its name, or the one that it puts before texts by default; empty if there
    /// is none.
    ///
    /// # Errors
    /// Returns what is wrong with the name, and which names there are.
    pub fn prompt(&self, run: &ServedRun, name: Option<&str>) -> Result<Arc<str>, String> {
        match &self.models[run.model_number].vectors {
            Some(vectors) => vectors.prompt(name),
            None => Ok("".into()),
        }
    }

    /// Puts texts into the queue of a run's model, with a prompt before each; `on_done` is called with their vectors,
    /// on the model's thread.
    ///
    /// # Errors
    /// Returns why there is no room for them.
    pub fn embed(
        &self,
        run: &ServedRun,
        prompt: &Arc<str>,
        texts: Vec<String>,
        on_done: impl FnOnce(Answers<EmbeddedText>) + Send + 'static,
    ) -> Result<Ticket, Refusal> {
        let (ticket, slots) = places(texts.len(), on_done);
        let jobs = texts.into_iter().zip(slots).map(|(text, slot)| {
            let bytes = text.len();
            let text = PromptedText { prompt: Arc::clone(prompt), text };
            (TextJob::Embed { run: run.place, text, slot }, bytes)
        });
        self.models[run.model_number].queue.push_all(jobs.collect())?;
        Ok(ticket)
    }

    /// Number of texts that wait.
    pub fn waiting(&self) -> usize {
        self.models.iter().map(|model| model.queue.len()).sum()
    }

    /// Whether every model answers.
    pub fn is_alive(&self) -> bool {
        self.models.iter().all(|model| !model.queue.is_closed())
    }

    /// What was done so far.
    pub fn totals(&self) -> EngineTotals {
        let mut totals = EngineTotals::default();
        for ServedModel { done, .. } in &self.models {
            let read = |count: &std::sync::atomic::AtomicU64| count.load(Ordering::Relaxed);
            totals.texts += read(&done.texts);
            totals.tokens += read(&done.tokens);
            totals.truncated += read(&done.truncated);
            totals.batches += read(&done.batches);
            totals.failed += read(&done.failed);
        }
        totals
    }

    /// Answers what still waits, takes nothing more on, and ends the threads.
    pub fn stop(&self) {
        self.models.iter().for_each(|model| model.queue.close());
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            // A panic of the thread was printed, and those who waited were answered.
            let _ = thread.join();
        }
    }
}

//! A trained head on other texts: predictions for new ones, metrics on labelled ones.

use std::{
    iter,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde::{Serialize, Serializer};

use super::{
    extract::{Machine, extract_with},
    file::Pair,
    lock::{LOCK_FILE, Lock},
    run_folder,
    settings::Pipeline,
};
use crate::{
    cache::{
        reader::CacheReader,
        shard::{OpenShard, ShardLayout, WindowPlace},
    },
    data::{
        Example, Format, LabelMap, Source,
        dataset::{example_keys, read_all},
        require_records, shorten,
    },
    encoder::{
        Encoder, EncoderSettings, Request, Worker,
        checkpoint::Checkpoint,
        plan::plan_batches,
        runtime::Runtime,
        session::Batch,
        tokenizer::{Input, TextTokenizer},
    },
    error::{Error, Result},
    features::FeatureView,
    fingerprint::Key,
    head::linear::LinearHead,
    metrics::{ClassificationMetrics, classification, intervals::Bootstrap},
    progress::Progress,
};

/// What a head says of one text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Prediction {
    /// The text.
    pub text: String,
    /// The most probable label.
    pub label: String,
    /// Its probability.
    pub confidence: f32,
    /// The probability of each label, in label order; a JSON object.
    #[serde(serialize_with = "as_object")]
    pub probabilities: Vec<(String, f32)>,
}

/// A run: its head, and the pipeline that made it.
pub struct SavedRun {
    /// The folder.
    pub folder: PathBuf,
    /// The head.
    pub head: LinearHead,
    /// The pipeline, as its lock file holds it.
    pub pipeline: Pipeline,
    lock: Lock,
}

impl SavedRun {
    /// Opens a run folder, or the newest run in a folder of runs.
    ///
    /// # Errors
    /// When there is no finished run, or one of its files is damaged.
    pub fn open(path: &Path) -> Result<SavedRun> {
        let folder = run_folder::resolve(path)?;
        let lock_path = folder.join(LOCK_FILE);
        let lock = Lock::read(&lock_path)?;
        let pipeline = Pipeline::check(&lock_path, lock.pipeline.clone())?;
        let head = LinearHead::load(&folder)?;
        Ok(SavedRun {
            folder,
            head,
            pipeline,
            lock,
        })
    }

    /// The settings to read a data file with: its own where the pipeline names it, else those of the first train
    /// source with the format by the file's extension where that tells one. Ids are not looked for.
    ///
    /// A constant label of a train source of lines holds for no other file.
    pub fn source(&self, path: &Path) -> Source {
        let same = |source: &&Source| matches!((source.path.canonicalize(), path.canonicalize()), (Ok(a), Ok(b)) if a == b);
        if let Some(own) = self.pipeline.extraction.sources.iter().find(same) {
            return Source {
                id: None,
                ..own.clone()
            };
        }
        let train = &self.pipeline.file.data.train.0[0];
        let by_extension = Source {
            path: path.to_path_buf(),
            format: None,
            id: None,
            ..train.clone()
        };
        let train_format = train.resolve_format().ok();
        let format = by_extension.resolve_format().ok().or(train_format);
        let constant_label = train_format == Some(Format::Lines) && train.pattern.is_none();
        let label = train.label.clone().filter(|_| !constant_label);
        Source {
            format,
            label,
            ..by_extension
        }
    }

    /// The checkpoint, if it is still the one that the head was trained on.
    fn checkpoint(&self) -> Result<Checkpoint> {
        let checkpoint = Checkpoint::open(&self.pipeline.extraction.model)?;
        if checkpoint.hashes != self.lock.model {
            return Err(Error::Run {
                path: self.folder.join(LOCK_FILE),
                expected: format!(
                    "the model {} in `{}`",
                    &self.lock.model.weights[..16],
                    checkpoint.folder.display()
                ),
                got: format!(
                    "{}, or another config.json or tokenizer.json",
                    &checkpoint.hashes.weights[..16]
                ),
                hint: "put the checkpoint back that this head was trained on, or train again"
                    .into(),
            });
        }
        Ok(checkpoint)
    }
}

/// A head with its encoder, ready for new texts.
pub struct Predictor {
    run: SavedRun,
    encoder: Encoder,
    tokenizer: TextTokenizer,
    /// Texts so far of which the end was cut off.
    pub truncated: u64,
}

impl Predictor {
    /// Loads a run's encoder, on the device of its pipeline.
    ///
    /// # Errors
    /// When the model is not the one that the head was trained on, or cannot run.
    pub fn open(run: SavedRun, machine: &Machine) -> Result<Predictor> {
        let checkpoint = run.checkpoint()?;
        let settings = &run.pipeline.extraction;
        let runtime = Runtime::load(&machine.onnxruntime)?;
        let encoder = Encoder::open(
            &runtime,
            &checkpoint,
            &EncoderSettings {
                device: settings.device,
                precision: settings.precision,
                layers: vec![run.head.description.state.layer],
                threads: machine.threads,
            },
        )?;
        let tokenizer = TextTokenizer::open(
            &checkpoint.tokenizer_path(),
            settings.max_length,
            settings.overflow,
        )?;
        Ok(Predictor {
            run,
            encoder,
            tokenizer,
            truncated: 0,
        })
    }

    /// Labels, confidences and all probabilities of some texts, in their order.
    ///
    /// States are rounded to the cache's storage type first, so that a text gets the same answer as in the run.
    ///
    /// # Errors
    /// When the encoder fails or a state is no number.
    pub fn predict(&mut self, texts: Vec<String>) -> Result<Vec<Prediction>> {
        let view = self.encode(&texts)?;
        let head = &self.run.head;
        let samples: Vec<u32> = (0..texts.len() as u32).collect();
        let probabilities = head.probabilities(&view, &samples);
        let best = crate::metrics::probability::predictions(probabilities.view());
        let labels = &head.description.labels;
        let predictions = texts.into_iter().zip(probabilities.rows()).zip(best);
        Ok(predictions
            .map(|((text, row), best)| Prediction {
                text,
                label: labels[best].clone(),
                confidence: row[best],
                probabilities: labels.iter().cloned().zip(row.iter().copied()).collect(),
            })
            .collect())
    }

    /// The states of some texts, in their order, rounded as in the cache; all workers share the batches.
    fn encode(&mut self, texts: &[String]) -> Result<FeatureView> {
        let settings = &self.run.pipeline.extraction;
        let description = &self.run.head.description;
        let inputs: Vec<Input<'_>> = texts.iter().map(|text| Input::Text(text)).collect();
        let encodings = self.tokenizer.encode(&inputs, false)?;
        let mut layout = ShardLayout::default();
        let mut windows: Vec<WindowPlace> = Vec::new();
        let mut lengths: Vec<u32> = Vec::new();
        for (number, (input, encoding)) in inputs.iter().zip(&encodings).enumerate() {
            self.truncated += u64::from(encoding.truncated);
            if encoding.has_empty_window() {
                return Err(Error::Encoder {
                    action: "tokenise a text",
                    reason: format!("`{}` has no token", shorten(&texts[number], 40)),
                });
            }
            let own: Vec<u32> = encoding.lengths().collect();
            layout.push(input.key(), encoding.truncated, &own, iter::empty(), &[]);
            windows.extend((0..own.len()).map(|window| (number as u32, window as u16)));
            lengths.extend(own);
        }
        let default_tokens = self.encoder.provider.default_batch_tokens();
        let batches = plan_batches(&lengths, settings.batch_tokens.unwrap_or(default_tokens));
        let states = [description.state];
        let request = Request {
            states: &states,
            dtype: settings.dtype,
            stored: settings.dtype,
            words: &[],
        };
        let shard = OpenShard::new(layout, &states, description.hidden, settings.dtype);
        let shard = Mutex::new(shard);
        let next = AtomicUsize::new(0);
        let encode_some = |worker: &mut Worker| -> Result<()> {
            while let Some(rows) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                let places: Vec<WindowPlace> =
                    rows.iter().map(|row| windows[*row as usize]).collect();
                let batch = Batch::new(places.iter().map(|(text, window)| {
                    let window = &encodings[*text as usize].windows[usize::from(*window)];
                    (&window.ids[..], &window.type_ids[..])
                }));
                let name_of = |row: usize| {
                    let text = &texts[places[row].0 as usize];
                    format!("the text `{}`", shorten(text, 40))
                };
                let states = worker.run(&batch, request, name_of)?;
                let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
                shard.place(&places, &states);
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let workers = self.encoder.workers().0.iter_mut();
            let threads: Vec<_> = workers
                .map(|worker| scope.spawn(|| encode_some(worker)))
                .collect();
            let joined = threads.into_iter().map(|thread| thread.join());
            joined
                .map(|result| result.expect("a worker that panics is a bug"))
                .try_for_each(|result| result)
        })?;
        let shard = shard.into_inner().unwrap_or_else(PoisonError::into_inner);
        let bytes = shard.into_states().swap_remove(0).bytes;
        Ok(FeatureView::from_bytes(
            description.state,
            description.hidden,
            settings.dtype,
            bytes,
        ))
    }
}

/// Metrics of a run's head on a labelled file, read with the train source's settings. States go through the cache.
///
/// # Errors
/// When the file is not what the source's settings say, holds a label that the head does not know, or stage 1 fails.
pub fn evaluate(
    run: &SavedRun,
    data: &Path,
    machine: &Machine,
    progress: &dyn Progress,
) -> Result<ClassificationMetrics> {
    let checkpoint = run.checkpoint()?;
    let sources = vec![run.source(data)];
    let labels = LabelMap::from_list(run.head.description.labels.clone(), &run.folder)?;
    let mut n_records = 0;
    let (mut keys, mut ids): (Vec<Key>, Vec<usize>) = (Vec::new(), Vec::new());
    for example in read_all(&sources, true) {
        let example: Example = example?;
        n_records += 1;
        ids.push(labels.id_at(example.label.as_deref().unwrap_or(""), data, example.line)?);
        let is_joint = run.pipeline.extraction.pair == Pair::Joint;
        keys.extend(example_keys(&example, is_joint));
    }
    require_records(data, n_records)?;

    let state = run.head.description.state;
    let mut pipeline = run.pipeline.clone();
    pipeline.extraction.sources = sources;
    pipeline.extraction.n_thinned_sources = 0;
    pipeline.extraction.kinds = vec![state.kind];
    pipeline.extraction.layers = vec![state.layer as i64];
    let report = extract_with(&checkpoint, &pipeline, machine, progress)?;
    let cache = CacheReader::open(&report.cache)?.ok_or_else(|| Error::CacheMiss {
        cache: report.cache.clone(),
        lacks: "its manifest".into(),
        hint: "run the same command again".into(),
    })?;
    let view = FeatureView::read(&cache, state, &keys)?;
    let samples: Vec<u32> = (0..keys.len() as u32).collect();
    let probabilities = run.head.probabilities(&view, &samples);
    let bootstrap = Bootstrap {
        seed: run.pipeline.file.seed,
        ..Bootstrap::default()
    };
    Ok(classification::evaluate(
        &ids,
        probabilities.view(),
        labels.len(),
        Some(bootstrap),
    ))
}

fn as_object<S: Serializer>(pairs: &[(String, f32)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(
        pairs
            .iter()
            .map(|(label, probability)| (label, probability)),
    )
}

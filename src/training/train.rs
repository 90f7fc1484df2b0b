//! Stage 2: cached states + labels -> a trained head -> metrics -> a run folder. The encoder is never loaded.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    time::Instant,
};

use frostbert_cache::{
    fingerprint::{Digest, Key},
    progress::Progress,
    reader::CacheReader,
    states::StateId,
};
use serde::Serialize;

use crate::{
    config::{
        file::{Labels, PipelineFile},
        names::{Pair, Task},
        settings::{KindSettings, Pipeline},
    },
    data::{
        ClassDistribution, ColumnName, LabelMap, Part, QuestionSummary, Target, ValueSummary,
        dataset::{Dataset, DatasetSettings},
        example::FileRecord,
    },
    encoder::{checkpoint::Checkpoint, device::Device},
    error::{Error, Result},
    extraction::extract::{explain_miss, inputs_for},
    head::{
        network::NetworkSpec,
        saved::{self, Head, HeadDescription},
    },
    report::tables,
    run_folder::{
        self,
        lock::{Lock, LockedCache, LockedSplit, cpu_features},
    },
    tasks::{
        CalibrationRows, TaskResult, TaskRows,
        measure::{LayerShare, RunMetrics, write_metrics},
        predictions::Calibration,
        similarity, weights,
    },
    training::{
        checks,
        class_memory::ClassMemory,
        fit::{FittedHead, fit},
    },
};

/// What a training did.
#[derive(Clone, Debug, Serialize)]
pub struct TrainReport {
    /// The new run folder.
    #[serde(serialize_with = "frostbert_cache::wording::path_shown")]
    pub run: PathBuf,
    /// What was learned.
    pub task: String,
    /// Wall time of the stage.
    pub seconds: f64,
    /// Where most of it went.
    pub timings: Timings,
    /// What the head is worth.
    pub metrics: RunMetrics,
    /// Rows of each class in each part; for words those of each tag.
    pub classes: ClassDistribution,
    /// The values of each part, for numbers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<ValueSummary>,
    /// The questions of each part.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub questions: Vec<QuestionSummary>,
    /// What was found in the data, in words; all of it is in checks.json.
    pub checks: Vec<String>,
    /// The cache that was read.
    #[serde(serialize_with = "frostbert_cache::wording::path_shown")]
    pub cache: PathBuf,
    /// Whether the head reads two texts: pairs, or questions and their contexts.
    #[serde(skip)]
    pub reads_pairs: bool,
}

/// Wall time of the parts of a training, in seconds. What is left of the stage are the checks of the data, the digest of
/// what was read and the files of the run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Timings {
    /// Finding the rows in the cache, reading those that stay in memory, fitting what is done to features first.
    pub read_seconds: f64,
    /// The training itself: the epochs, each with the validation after it.
    pub fit_seconds: f64,
    /// The head on every row, what is tuned on validation, metrics and their intervals.
    pub measure_seconds: f64,
}

/// Reads, cleans and splits a pipeline's labelled rows.
///
/// # Errors
/// When the data is not what the pipeline says.
pub fn load_dataset(pipeline: &Pipeline) -> Result<Dataset> {
    let data = &pipeline.data;
    let (labels, label_file) = match &pipeline.data.labels {
        None => (None, None),
        Some(Labels::Names(names)) => {
            let labels = LabelMap::from_list(names.clone(), &pipeline.path)?;
            (Some(labels), None)
        }
        Some(Labels::File(path)) => {
            let (labels, blake3) = LabelMap::from_file(path)?;
            let file = FileRecord { path: path.clone(), blake3, rows: labels.len() };
            (Some(labels), Some(file))
        }
    };
    let mut dataset = Dataset::load(&DatasetSettings {
        task: pipeline.data.task.of_data(),
        joint_pairs: data.pair == Pair::Joint,
        train: &data.train,
        validation: data.validation.as_deref(),
        test: data.test.as_deref(),
        labels,
        split: data.split,
        clean: data.clean,
        seed: pipeline.seed,
        label_columns: pipeline.label_columns(),
        teaches_validation: pipeline.teaches_validation(),
    })?;
    dataset.files.extend(label_file);
    Ok(dataset)
}

/// Trains the pipeline's head on cached states and writes a run folder.
///
/// # Errors
/// When the data or the pipeline is at fault, the cache lacks rows ([`frostbert_cache::Error::Miss`]) or is
/// damaged, or the training diverges.
pub fn train(pipeline: &Pipeline, progress: &dyn Progress) -> Result<TrainReport> {
    refuse_sweep(pipeline)?;
    let dataset = checked_dataset(pipeline, progress)?;
    let checkpoint = Checkpoint::open(&pipeline.extraction.model)?;
    let run = || run_folder::create(&pipeline.run_dir, &pipeline.name);
    train_on(&checkpoint, pipeline, &dataset, None, &run, Overrides::default(), progress)
}

/// A command that trains one head does not do what a sweep asks for.
pub(crate) fn refuse_sweep(pipeline: &Pipeline) -> Result<()> {
    if pipeline.sweep.is_none() {
        return Ok(());
    }
    Err(pipeline.refuse(
        "the pipeline has a section [sweep], and `train` trains one head".into(),
        "use `frostbert sweep`, or `frostbert run`, which does what the pipeline says".into(),
    ))
}

/// The rows of a pipeline that can be trained on; their warnings are shown.
///
/// # Errors
/// When the pipeline or its data is at fault.
pub(crate) fn checked_dataset(pipeline: &Pipeline, progress: &dyn Progress) -> Result<Dataset> {
    pipeline.check_training()?;
    let dataset = load_dataset(pipeline)?;
    for warning in &dataset.warnings {
        progress.warn(warning);
    }
    let train = dataset.part(Part::Train);
    require_training_rows(pipeline, &dataset, &train)?;
    weights::class_weights(pipeline, &dataset, &train)?;
    Ok(dataset)
}

/// As [`train`], on rows that are already loaded and whose warnings were shown; from the cache `folder` where one is
/// named, else from the one that holds the rows. `run` makes the run folder when there is something to write.
pub(crate) fn train_on(
    checkpoint: &Checkpoint,
    pipeline: &Pipeline,
    dataset: &Dataset,
    folder: Option<&Path>,
    run: &dyn Fn() -> Result<PathBuf>,
    overrides: Overrides<'_>,
    progress: &dyn Progress,
) -> Result<TrainReport> {
    let start = Instant::now();
    if let Some(memory) = ClassMemory::of(pipeline, dataset, &checkpoint.config)? {
        memory.settle(pipeline, progress)?;
    }
    let states = pipeline.head_states(checkpoint.config.layers)?;
    let cache = cache_of(folder, pipeline, checkpoint, dataset, &states)?;
    let rows = TaskRows::new(pipeline, dataset, &cache, &states)?;
    if folder.is_none() {
        note_cache(&cache, progress);
    }
    for warning in &rows.warnings {
        progress.warn(warning);
    }
    if rows.part(Part::Train).is_empty() {
        let mut error = nothing_to_train_on(pipeline, dataset);
        if let (Error::Record { hint, .. }, Some(warning)) = (&mut error, rows.warnings.first()) {
            *hint = format!("{warning}: name data that the model can read");
        }
        return Err(error);
    }

    let mut fit_seconds = 0.0;
    let mut measure_start = Instant::now();
    let (head, history, mut outcome) = match pipeline.head.kind {
        KindSettings::Cosine => (None, Vec::new(), similarity::measure(&rows, pipeline, dataset)?),
        _ => {
            let FittedHead { network, trained, transform, seconds } =
                fit(pipeline, dataset, &rows, overrides.stop_after, progress)?;
            fit_seconds = seconds;
            measure_start = Instant::now();
            let mut description = describe(pipeline, dataset, &states, Some(network));
            description.best_epoch = trained.best_epoch;
            let mut head = Head::new(description, trained.parameters, transform);
            let tuning = overrides
                .calibration
                .as_ref()
                .map_or(CalibrationRows::OnValidation, CalibrationRows::Given);
            let mut outcome = rows.finish(pipeline, dataset, &mut head, tuning)?;
            outcome.metrics.best_epoch = trained.best_epoch;
            outcome.metrics.epochs = trained.history.len();
            (Some(head), trained.history, outcome)
        }
    };
    let measure_seconds = measure_start.elapsed().as_secs_f64();
    let profile = head.as_ref().and_then(|head| head.description.layer_profile.clone());
    outcome.metrics.layer_profile = profile.map(|shares| {
        let layers = states.iter().zip(shares);
        layers
            .map(|(state, share)| LayerShare { layer: state.layer, share: f64::from(share) })
            .collect()
    });
    let checks = checks::check(pipeline, dataset, &cache, &rows, progress)?;
    for warning in checks.warnings() {
        progress.warn(&warning);
    }
    let mut lock = lock(pipeline, dataset, checkpoint, &cache, &states);
    lock.cache.rows = rows.view.digest(&rows.keys)?;
    if let Some((file, dataset)) = overrides.sweep {
        lock.winner = Some(std::mem::replace(&mut lock.pipeline, file.clone()));
        lock.split = LockedSplit::of(dataset);
    }

    let TaskResult { metrics, predictions } = outcome;
    let run = run()?;
    match &head {
        Some(head) => head.save(&run)?,
        None => saved::save(&run, &describe(pipeline, dataset, &states, None), &[])?,
    }
    write_metrics(&run, &metrics)?;
    // A head that is fitted in full batch has no epochs to tell of.
    if !history.is_empty() {
        tables::write_history(&run, &history)?;
    }
    predictions.write(&run.join(tables::PREDICTIONS_FILE))?;
    checks.write(&run)?;
    if let Some(files) = overrides.files {
        files(&run, &metrics)?;
    }
    lock.write(&run)?;
    Ok(TrainReport {
        run,
        task: pipeline.data.task.to_string(),
        seconds: start.elapsed().as_secs_f64(),
        timings: Timings {
            read_seconds: (measure_start - start).as_secs_f64() - fit_seconds,
            fit_seconds,
            measure_seconds,
        },
        metrics,
        classes: dataset.distribution.clone(),
        values: dataset.values.clone(),
        questions: dataset.questions.clone(),
        checks: checks.summary(),
        cache: cache.folder().to_path_buf(),
        reads_pairs: pipeline.reads_pairs(),
    })
}

/// Writes files to a run folder, knowing what its head is worth.
pub(crate) type RunFiles<'a> = dyn Fn(&Path, &RunMetrics) -> Result<()> + 'a;

/// What of a training comes from elsewhere than its pipeline.
#[derive(Default)]
pub(crate) struct Overrides<'a> {
    /// The sweep that the head won: its pipeline and its rows as they were read, for the lock.
    pub(crate) sweep: Option<(&'a PipelineFile, &'a Dataset)>,
    /// How many epochs are best, where that is known.
    pub(crate) stop_after: Option<usize>,
    /// Writes more files to the run folder, before the lock.
    pub(crate) files: Option<&'a RunFiles<'a>>,
    /// What is tuned to rows that other heads of the same settings did not see, in place of the validation rows.
    pub(crate) calibration: Option<Calibration>,
}

/// The cache in `folder` where one is named, else the one that holds the states of the rows.
///
/// # Errors
/// When there is none.
pub(crate) fn cache_of(
    folder: Option<&Path>,
    pipeline: &Pipeline,
    checkpoint: &Checkpoint,
    dataset: &Dataset,
    states: &[StateId],
) -> Result<CacheReader> {
    match folder.map(CacheReader::open).transpose()?.flatten() {
        Some(cache) => Ok(cache),
        None => open_cache(pipeline, checkpoint, states, &dataset.document_keys()),
    }
}

/// Says which cache was found.
pub(crate) fn note_cache(cache: &CacheReader, progress: &dyn Progress) {
    let provider = &cache.manifest().inputs.provider;
    progress.note(&format!("states from {}, made on {provider}", cache.folder().display()));
}

/// The cache that holds the states of these documents: of the device that the pipeline names; with `auto` of CUDA if it
/// has every row, else of the CPU.
fn open_cache(
    pipeline: &Pipeline,
    checkpoint: &Checkpoint,
    states: &[StateId],
    keys: &[Key],
) -> Result<CacheReader> {
    let providers: &[&str] = match &pipeline.extraction.device {
        Device::Auto => &["cuda", "cpu"],
        Device::Cuda(_) | Device::AllCuda => &["cuda"],
        Device::Cpu => &["cpu"],
    };
    let cache_dir = &pipeline.extraction.cache_dir;
    let mut incomplete = None;
    for provider in providers {
        let inputs = inputs_for(pipeline, checkpoint, provider);
        let folder = cache_dir.join(inputs.fingerprint());
        let Some(cache) = CacheReader::open(&folder)? else {
            continue;
        };
        cache.manifest().require(&folder, &inputs)?;
        let has = |key: &Key| states.iter().all(|state| cache.locate(key, *state).is_some());
        if keys.iter().all(has) {
            return Ok(cache);
        }
        incomplete = Some(cache);
    }
    if let Some(cache) = incomplete {
        // Reading it says which rows are missing.
        return Ok(cache);
    }
    let inputs = inputs_for(pipeline, checkpoint, providers[providers.len() - 1]);
    let mut hint =
        "run `frostbert extract` with this pipeline first, or `frostbert run`, which does both"
            .to_string();
    if let Some(explanation) = explain_miss(cache_dir, &inputs)? {
        hint.push_str(&format!(" ({explanation})"));
    }
    Err(frostbert_cache::Error::Miss {
        cache: cache_dir.join(inputs.fingerprint()),
        lacks: "everything: nothing was extracted with these settings".into(),
        hint,
    }
    .into())
}

/// Classes need two of them to learn a difference; other tasks were checked when their rows were read.
fn require_training_rows(pipeline: &Pipeline, dataset: &Dataset, train: &[u32]) -> Result<()> {
    if pipeline.data.task != Task::Classification {
        return if train.is_empty() { Err(nothing_to_train_on(pipeline, dataset)) } else { Ok(()) };
    }
    let column = pipeline.head.label.as_ref();
    let targets = train.iter().filter_map(|row| dataset.target_for(*row, column));
    let labels: HashSet<usize> = targets.filter_map(Target::class).collect();
    if labels.len() < 2 {
        return Err(Error::Record {
            path: pipeline.data.train[0].path.clone(),
            line: None,
            expected: "training rows of at least two labels after the split".into(),
            got: format!("{} rows of {}", train.len(), labels.len()),
            hint: "add rows, or give data.split.train a larger share".into(),
        });
    }
    Ok(())
}

fn nothing_to_train_on(pipeline: &Pipeline, dataset: &Dataset) -> Error {
    Error::Record {
        path: pipeline.data.train[0].path.clone(),
        line: None,
        expected: "training rows that something can be learned from".into(),
        got: format!("none among {}", dataset.part(Part::Train).len()),
        hint: "add rows, or give data.split.train a larger share".into(),
    }
}

fn describe(
    pipeline: &Pipeline,
    dataset: &Dataset,
    states: &[StateId],
    network: Option<NetworkSpec>,
) -> HeadDescription {
    let head = &pipeline.head;
    let pooling = if pipeline.pools_by_attention() { "attention" } else { states[0].kind.name() };
    HeadDescription {
        task: pipeline.data.task.to_string(),
        kind: head.kind.name().to_string(),
        labels: dataset.labels.names().to_vec(),
        first_label_id: dataset.first_id,
        label_column: match &head.label {
            Some(ColumnName::Number(number)) => Some(number.to_string()),
            Some(ColumnName::Name(name)) => Some(name.clone()),
            None => None,
        },
        pooling: pooling.into(),
        layers: states.iter().map(|state| state.layer).collect(),
        pair: pipeline.has_separate_pairs(),
        standardize: head.standardize,
        states: states.to_vec(),
        network,
        ..HeadDescription::default()
    }
}

/// What decides a result, but for the states that were read and what came out.
pub(crate) fn lock(
    pipeline: &Pipeline,
    dataset: &Dataset,
    checkpoint: &Checkpoint,
    cache: &CacheReader,
    states: &[StateId],
) -> Lock {
    let manifest = cache.manifest();
    let versions = manifest.onnxruntime_versions().into_iter();
    let device = manifest.devices().into_iter().next().map(String::from);
    Lock {
        frostbert: env!("CARGO_PKG_VERSION").into(),
        pipeline: pipeline.file().clone(),
        winner: None,
        data: dataset.files.clone(),
        model: checkpoint.hashes.clone(),
        cache: LockedCache {
            path: cache.folder().to_path_buf(),
            fingerprint: manifest.fingerprint.clone(),
            onnxruntime: versions.map(String::from).collect(),
            rows: Digest::from_bytes([0; 32]),
        },
        states: states.to_vec(),
        labels: dataset.labels.clone(),
        split: LockedSplit::of(dataset),
        seed: pipeline.seed,
        device: device.unwrap_or_default(),
        cpu: cpu_features(),
        outputs: Default::default(),
    }
}

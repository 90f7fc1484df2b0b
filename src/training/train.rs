//! Stage 2: cached states + labels -> a trained head -> metrics -> a run folder. The encoder is never loaded.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    time::Instant,
};

use frostbert_cache::{progress::Progress, states::StateId};
use serde::Serialize;

use crate::{
    config::{
        file::Labels,
        names::{Pair, Task},
        settings::Pipeline,
    },
    data::{
        ClassDistribution, ColumnName, LabelMap, Part, QuestionSummary, Target, ValueSummary,
        dataset::{Dataset, DatasetSettings},
        example::FileRecord,
    },
    error::{Error, Result},
    extraction::sentence::{SENTENCE, SentenceState},
    head::{
        saved::{self, Head, HeadDescription},
        trained_head::EpochRecord,
    },
    metrics::metric::Metric,
    report::{
        tables,
        tensorboard::{self, RunEvents},
    },
    run_folder::lock::Lock,
    tasks::{
        CalibrationRows, TaskResult, TaskRows,
        measure::{LayerShare, RunMetrics, measured_parts, write_metrics},
        predictions::Calibration,
        similarity, weights,
    },
    training::{
        card::{CardSource, TextLengths},
        checks::{self, RunChecks, datalab::Datalab},
        class_memory::ClassMemory,
        extras::RunExtras,
        fit::{FittedHead, fit},
        inputs::{Inputs, ModelCache},
        pictures::{Pictures, followed},
    },
};

/// The report of a training.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct TrainReport {
    /// The new run folder.
    #[serde(serialize_with = "frostbert_cache::wording::path_shown")]
    pub run: PathBuf,
    /// The page that shows it; none where it could not be written.
    #[serde(
        serialize_with = "frostbert_cache::wording::path_shown_if_any",
        skip_serializing_if = "Option::is_none"
    )]
    pub report: Option<PathBuf>,
    /// The name of the task.
    pub task: String,
    /// Wall time of the stage, from the open cache to the run folder.
    pub seconds: f64,
    /// How most of that time was spent.
    pub timings: Timings,
    /// The metrics of the head.
    pub metrics: RunMetrics,
    /// Number of rows of each class in each part; for words, of each tag.
    pub classes: ClassDistribution,
    /// The values of each part, for numbers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<ValueSummary>,
    /// The questions of each part.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub questions: Vec<QuestionSummary>,
    /// The findings in the data, in words; checks.json has all of them.
    pub checks: Vec<String>,
    /// The cache that was read; none if the rows brought their states with them.
    #[serde(
        serialize_with = "frostbert_cache::wording::path_shown_if_any",
        skip_serializing_if = "Option::is_none"
    )]
    pub cache: Option<PathBuf>,
    /// Whether the head reads two texts: pairs, or questions and their contexts.
    #[serde(skip)]
    pub reads_pairs: bool,
    /// Whether the head is the cosine of two texts, which has nothing to learn.
    #[serde(skip)]
    pub is_cosine: bool,
}

/// Wall time of the parts of a training, in seconds. The rest of the stage goes to the checks of the data, the digest
/// of the rows that were read, and the files of the run.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Timings {
    /// Finding the rows in the cache, reading those that stay in memory, and fitting the transform of the features.
    pub read_seconds: f64,
    /// The training itself: the epochs, each followed by the validation.
    pub fit_seconds: f64,
    /// Applying the head to every row, calibrating it on validation, and computing the metrics and their intervals.
    pub measure_seconds: f64,
}

/// Reads, cleans and splits a pipeline's labelled rows.
///
/// # Errors
/// Returns an error if the data does not match the pipeline.
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

/// Returns an error if the pipeline asks for a sweep, for commands that train a single head.
pub(crate) fn refuse_sweep(pipeline: &Pipeline) -> Result<()> {
    if pipeline.sweep.is_none() {
        return Ok(());
    }
    Err(pipeline.refuse(
        "the pipeline has a section [sweep], but `train` trains one head".into(),
        "use `frostbert sweep`, or `frostbert run`, which does what the pipeline says".into(),
    ))
}

/// Returns the rows of a pipeline that can be trained on, and shows their warnings.
///
/// # Errors
/// Returns an error if the pipeline or its data is invalid.
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

/// How the winner of a sweep is trained again, on rows that include those that selected it.
pub(crate) struct Refit {
    /// The number of epochs after which its heads were best, if it is trained in epochs.
    pub(crate) epochs: Option<usize>,
    /// The values that were calibrated on the rows that its heads were not trained on, in place of the validation rows.
    pub(crate) calibration: Calibration,
    /// The part of each row before those of validation were moved to train.
    pub(crate) parts: Vec<Part>,
}

/// A head that was trained and measured, and everything that its run folder will hold.
pub(crate) struct TrainedRun {
    /// Everything that determined the result.
    pub(crate) lock: Lock,
    description: HeadDescription,
    head: Option<Head>,
    history: Vec<EpochRecord>,
    /// The metric that the training followed.
    followed: Metric,
    outcome: TaskResult,
    checks: RunChecks,
    datalab: Option<Datalab>,
    texts: TextLengths,
    extras: RunExtras,
    start: Instant,
    timings: Timings,
    classes: ClassDistribution,
    values: Vec<ValueSummary>,
    questions: Vec<QuestionSummary>,
    cache: Option<PathBuf>,
    reads_pairs: bool,
    is_cosine: bool,
}

/// Trains the pipeline's head on cached states and measures it. Nothing is written.
///
/// # Errors
/// Returns an error if the data or the pipeline is invalid, the cache lacks rows ([`frostbert_cache::Error::Miss`]) or
/// is damaged, or the training diverges.
pub(crate) fn train_on(
    inputs: Inputs<'_>,
    refit: Option<&Refit>,
    progress: &dyn Progress,
) -> Result<TrainedRun> {
    let start = Instant::now();
    let Inputs { checkpoint, pipeline, dataset, cache, extras } = inputs;
    let model = ModelCache { checkpoint, cache };
    let shape = [model.layers(), model.hidden()];
    if let Some(memory) = ClassMemory::of(pipeline, dataset, shape)? {
        memory.settle(pipeline, progress)?;
    }
    let states = pipeline.head_states(model.layers())?;
    let rows = TaskRows::new(pipeline, dataset, cache, &states)?;
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

    let mut description = describe(pipeline, dataset, &states);
    if let Some(checkpoint) = checkpoint.filter(|_| pipeline.reads_sentence()) {
        description.sentence = Some(SentenceState::required(checkpoint)?.digest());
    }
    if pipeline.file().unfreeze().is_some() {
        description.base = checkpoint.map(|checkpoint| checkpoint.hashes.weights);
    }
    let mut fit_seconds = 0.0;
    let mut measure_start = Instant::now();
    let (head, history, mut outcome) = if pipeline.head.kind.is_cosine() {
        (None, Vec::new(), similarity::measure(&rows, pipeline, dataset)?)
    } else {
        let epochs = refit.and_then(|refit| refit.epochs);
        let FittedHead { network, trained, transform, chosen, seconds } =
            fit(pipeline, dataset, checkpoint, &rows, epochs, progress)?;
        fit_seconds = seconds;
        measure_start = Instant::now();
        description.network = Some(network);
        description.best_epoch = trained.best_epoch;
        let number = |key: &str| chosen.as_ref().filter(|chosen| chosen.key == key);
        description.c = number("C").map(|chosen| chosen.value);
        description.lambda = number("lambda").map(|chosen| chosen.value);
        let mut head = Head::new(description.clone(), trained.parameters, transform);
        let tuning = refit.map_or(CalibrationRows::OnValidation, |refit| {
            CalibrationRows::Given(&refit.calibration)
        });
        let mut outcome = rows.finish(pipeline, dataset, &mut head, tuning)?;
        outcome.metrics.best_epoch = trained.best_epoch;
        outcome.metrics.epochs = trained.history.len();
        let deviation = head.description.output_scale.map_or(1.0, |[_, deviation]| deviation);
        outcome.metrics.chosen = chosen.map(|chosen| chosen.in_units_of_data(deviation));
        (Some(head), trained.history, outcome)
    };
    let measure_seconds = measure_start.elapsed().as_secs_f64();
    let profile = head.as_ref().and_then(|head| head.description.layer_profile.clone());
    outcome.metrics.layer_profile = profile.map(|shares| {
        let layers = states.iter().zip(shares);
        layers
            .map(|(state, share)| LayerShare { layer: state.layer, share: f64::from(share) })
            .collect()
    });
    let parts: Vec<Part> = match refit {
        Some(refit) => refit.parts.clone(),
        None => dataset.rows.iter().map(|row| row.part).collect(),
    };
    let parts = extras.datalab.then_some(&parts[..]);
    let (checks, datalab) = checks::check(pipeline, dataset, cache, &rows, parts, progress)?;
    for warning in checks.warnings() {
        progress.warn(&warning);
    }
    let mut lock = inputs.lock(&states);
    lock.cache.rows = rows.view.digest(&rows.keys)?;
    Ok(TrainedRun {
        lock,
        description,
        head,
        history,
        followed: followed(pipeline, dataset),
        start,
        timings: Timings {
            read_seconds: (measure_start - start).as_secs_f64() - fit_seconds,
            fit_seconds,
            measure_seconds,
        },
        classes: dataset.distribution.clone(),
        values: dataset.values.clone(),
        questions: dataset.questions.clone(),
        cache: checkpoint.map(|_| cache.folder().to_path_buf()),
        reads_pairs: pipeline.reads_pairs(),
        is_cosine: pipeline.head.kind.is_cosine(),
        texts: TextLengths::of(pipeline, dataset, cache),
        extras: extras.clone(),
        outcome,
        checks,
        datalab,
    })
}

impl TrainedRun {
    /// Returns the metrics of the head.
    pub(crate) fn metrics(&self) -> &RunMetrics {
        &self.outcome.metrics
    }

    /// Writes the files of a run, the lock last.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written.
    pub(crate) fn write(self, run: &Path) -> Result<TrainReport> {
        let TaskResult { metrics, predictions, curves } = self.outcome;
        match &self.head {
            Some(head) => head.save(run)?,
            None => saved::save(run, &self.description, &[])?,
        }
        write_metrics(run, &metrics)?;
        // A head that is fitted in full batch has no history of epochs.
        if !self.history.is_empty() {
            tables::write_history(run, &self.history)?;
        }
        predictions.write(&run.join(tables::PREDICTIONS_FILE))?;
        let pictures = Pictures {
            history: &self.history,
            followed: self.followed,
            metrics: &metrics,
            curves: &curves,
            labels: &self.description.labels,
        };
        pictures.write(run)?;
        let card = CardSource {
            lock: &self.lock,
            description: &self.description,
            head: self.head.as_ref(),
            metrics: &metrics,
            checks: &self.checks,
            classes: &self.classes,
            values: &self.values,
            questions: &self.questions,
            texts: self.texts,
            reads_pairs: self.reads_pairs,
        };
        card.card().write(run)?;
        let folder = self.extras.tensorboard_of(run, &self.lock.pipeline.run.dir);
        let tensorboard = folder.map(|folder| (folder, card.compared_settings()));
        self.checks.write(run)?;
        if let Some(datalab) = &self.datalab {
            datalab.write(run)?;
        }
        self.lock.write(run)?;
        // The run is whole, whatever becomes of the files of other programs.
        if let Some((folder, settings)) = tensorboard {
            let parts = measured_parts(&metrics).map(|(part, metrics)| (part, metrics.scores()));
            let events = RunEvents {
                history: &self.history,
                best_epoch: metrics.best_epoch,
                parts: parts.collect(),
                settings: &settings,
            };
            tensorboard::write_run(&folder, &events)?;
        }
        Ok(TrainReport {
            run: run.to_path_buf(),
            report: None,
            task: self.description.task,
            seconds: self.start.elapsed().as_secs_f64(),
            timings: self.timings,
            metrics,
            classes: self.classes,
            values: self.values,
            questions: self.questions,
            checks: self.checks.summary(),
            cache: self.cache,
            reads_pairs: self.reads_pairs,
            is_cosine: self.is_cosine,
        })
    }
}

/// Checks that there are training rows: for classification, of at least two classes.
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

fn describe(pipeline: &Pipeline, dataset: &Dataset, states: &[StateId]) -> HeadDescription {
    let head = &pipeline.head;
    let pooling = if pipeline.pools_by_attention() {
        "attention"
    } else if pipeline.reads_sentence() {
        SENTENCE
    } else if states[0].column().is_some() {
        "given"
    } else {
        states[0].kind.name()
    };
    let mut layers: Vec<usize> = states.iter().map(|state| state.layer).collect();
    layers.dedup();
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
        layers,
        pair: pipeline.has_separate_pairs(),
        standardize: head.standardize && pipeline.file().unfreeze().is_none(),
        states: states.to_vec(),
        ..HeadDescription::default()
    }
}

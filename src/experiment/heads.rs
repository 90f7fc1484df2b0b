//! Stage 2 of an experiment: trains a head or runs a sweep for each task, and writes them to a run folder.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Instant,
};

use frostbert_cache::{
    about::note_use, fence::fenced_or, progress::Progress, reader::CacheReader, states::StateId,
};
use serde::Serialize;

use crate::{
    config::settings::{NamedTask, Pipeline},
    data::dataset::Dataset,
    encoder::checkpoint::Checkpoint,
    error::{Error, Result},
    experiment::by_model,
    extraction::{extract::ExtractReport, given::GivenVectors},
    page::{self, PageOptions, REPORT_FILE, WrittenPage},
    run_folder::{self, Writing, lock::Lock},
    sweep::{self, Journal, SweepReport, sweep_on},
    tasks::measure::RunMetrics,
    training::{
        extras::RunExtras,
        inputs::{Inputs, ModelCache, SweepInputs, note_cache, open_cache},
        train::{TrainReport, train_on},
    },
};

/// The report of stage 2.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum HeadsReport {
    /// The report of a pipeline with one task.
    One(TaskReport),
    /// The report of a pipeline with several tasks.
    Several(TasksReport),
}

/// The report of stage 2 for a task: of a single head, or of a sweep.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum TaskReport {
    /// A single head.
    Train(Box<TrainReport>),
    /// A sweep.
    Sweep(Box<SweepReport>),
}

/// The report of stage 2 for several tasks.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct TasksReport {
    /// The new run folder. It contains a folder for each task, which is itself a run folder.
    #[serde(serialize_with = "frostbert_cache::wording::path_shown")]
    pub run: PathBuf,
    /// The page that leads to those of the tasks; none where it could not be written.
    #[serde(
        serialize_with = "frostbert_cache::wording::path_shown_if_any",
        skip_serializing_if = "Option::is_none"
    )]
    pub report: Option<PathBuf>,
    /// Wall time of the stage in seconds.
    pub seconds: f64,
    /// The report of each task.
    pub tasks: BTreeMap<String, TaskReport>,
}

impl HeadsReport {
    /// Returns the run folder.
    pub fn folder(&self) -> &Path {
        match self {
            HeadsReport::One(task) => task.folder(),
            HeadsReport::Several(report) => &report.run,
        }
    }

    /// Returns the report of a task. Without a name, the task is the only one of the pipeline.
    pub fn task(&self, name: Option<&str>) -> Option<&TaskReport> {
        match (self, name) {
            (HeadsReport::One(task), None) => Some(task),
            (HeadsReport::Several(report), Some(name)) => report.tasks.get(name),
            _ => None,
        }
    }

    /// Returns the key of this report in the JSON of a run: `sweep` if every task has a sweep, otherwise `train`.
    pub fn name(&self) -> &'static str {
        let is_sweep = |task: &TaskReport| matches!(task, TaskReport::Sweep(_));
        let is_sweep = match self {
            HeadsReport::One(task) => is_sweep(task),
            HeadsReport::Several(report) => report.tasks.values().all(is_sweep),
        };
        if is_sweep { "sweep" } else { "train" }
    }
}

impl TaskReport {
    /// Returns the run folder.
    pub fn folder(&self) -> &Path {
        match self {
            TaskReport::Train(report) => &report.run,
            TaskReport::Sweep(report) => &report.run,
        }
    }

    /// Adds the page that was written into the run folder.
    fn add_page(&mut self) {
        let page = self.folder().join(REPORT_FILE);
        match self {
            TaskReport::Train(report) => report.report = Some(page),
            TaskReport::Sweep(report) => {
                report.winner.report = Some(page.clone());
                report.report = Some(page);
            }
        }
    }

    /// Returns the metrics of the head, or of the best head of the sweep, on training, validation and test rows.
    pub fn metrics(&self) -> &RunMetrics {
        match self {
            TaskReport::Train(report) => &report.metrics,
            TaskReport::Sweep(report) => &report.winner.metrics,
        }
    }
}

/// A task and its labelled rows.
pub(super) struct TaskData<'a> {
    pub(super) task: &'a NamedTask,
    pub(super) dataset: Dataset,
}

/// A task over the caches that hold the states of its rows.
struct TaskOverCaches<'a> {
    name: Option<&'a str>,
    pipeline: &'a Pipeline,
    dataset: &'a Dataset,
    /// Its model, or those that its sweep compares.
    models: Vec<ModelOfTask<'a>>,
    extras: &'a RunExtras,
}

/// A model of a task, with the cache of its states.
struct ModelOfTask<'a> {
    /// None where the rows bring their states with them.
    checkpoint: Option<&'a Checkpoint>,
    /// The states that the task's head reads, or the heads of its sweep.
    states: Vec<StateId>,
    cache: StatesOfRows,
}

/// Where the states of rows are read from.
enum StatesOfRows {
    Cached(CacheReader),
    Given(GivenVectors),
}

impl<'a> ModelOfTask<'a> {
    /// The vectors that the rows of a task bring with them, in place of a model.
    fn given(pipeline: &Pipeline, dataset: &Dataset, state: StateId) -> Result<ModelOfTask<'a>> {
        let keys = dataset.document_keys();
        let vectors = GivenVectors::read(&pipeline.extraction.sources, state, &keys)?;
        let cache = StatesOfRows::Given(vectors);
        Ok(ModelOfTask { checkpoint: None, states: vec![state], cache })
    }

    fn cache(&self) -> ModelCache<'_> {
        let cache = match &self.cache {
            StatesOfRows::Cached(cache) => cache,
            StatesOfRows::Given(vectors) => vectors.cache(),
        };
        ModelCache { checkpoint: self.checkpoint, cache }
    }
}

impl<'a> TaskOverCaches<'a> {
    /// Opens the caches of a task: those of an extraction where it was just done, else those that hold its rows.
    fn open(
        data: &'a TaskData<'a>,
        checkpoints: &'a [Checkpoint],
        extracted: Option<&ExtractReport>,
        extras: &'a RunExtras,
    ) -> Result<TaskOverCaches<'a>> {
        let TaskData { task: NamedTask { name, pipeline }, dataset } = data;
        let models = by_model(pipeline, checkpoints).into_iter().map(|(own, checkpoint)| {
            let states =
                sweep::states(&own, checkpoint).map_err(|error| own.naming_model(error))?;
            let folder = extracted.map(|report| report.cache_of(&checkpoint.folder));
            let cache = open_cache(folder, &own, checkpoint, dataset, &states)?;
            note_use(cache.folder());
            let cache = StatesOfRows::Cached(cache);
            Ok(ModelOfTask { checkpoint: Some(checkpoint), states, cache })
        });
        let models = match pipeline.given_state() {
            Some(state) => vec![ModelOfTask::given(pipeline, dataset, state)?],
            None => models.collect::<Result<_>>()?,
        };
        Ok(TaskOverCaches { name: name.as_deref(), pipeline, dataset, models, extras })
    }

    /// The rows over the cache of the only model, or of the first.
    fn inputs(&self) -> Inputs<'_> {
        let TaskOverCaches { pipeline, dataset, extras, .. } = *self;
        let ModelCache { checkpoint, cache } = self.models[0].cache();
        Inputs { checkpoint, pipeline, dataset, cache, extras }
    }

    /// What decides the result, but for the states.
    fn plan(&self) -> Lock {
        let TaskOverCaches { pipeline, dataset, extras, .. } = *self;
        let mut plan = self.inputs().lock(&self.models[0].states);
        let inputs = SweepInputs { pipeline, dataset, models: &self.caches(), extras };
        plan.models = inputs.locked_models();
        plan
    }

    fn caches(&self) -> Vec<ModelCache<'_>> {
        self.models.iter().map(ModelOfTask::cache).collect()
    }
}

/// Trains the heads of all tasks, from the caches that were `extracted`, else from those that hold their rows. Nothing is
/// trained where the layers or the cache of any task are at fault.
pub(super) fn train_heads(
    checkpoints: &[Checkpoint],
    tasks: &[TaskData<'_>],
    extracted: Option<&ExtractReport>,
    extras: &RunExtras,
    progress: &dyn Progress,
) -> Result<HeadsReport> {
    let start = Instant::now();
    let tasks = tasks.iter().map(|data| TaskOverCaches::open(data, checkpoints, extracted, extras));
    let tasks: Vec<TaskOverCaches<'_>> = tasks.collect::<Result<_>>()?;
    let mut run = RunFolder::new(&tasks);
    let mut reports = BTreeMap::new();
    for task in &tasks {
        if let Some(name) = task.name {
            progress.note(&format!("task {name}"));
        }
        if extracted.is_none() {
            let caches = task.caches().into_iter().filter(|model| model.checkpoint.is_some());
            caches.for_each(|model| note_cache(model.cache, progress));
        }
        let report = match &task.pipeline.sweep {
            None => {
                let trained = train_on(task.inputs(), None, progress)?;
                TaskReport::Train(Box::new(trained.write(&run.folder(task.name, progress)?)?))
            }
            Some(section) => {
                let (folder, journal) = run.journal(task.name, &task.plan(), progress)?;
                let TaskOverCaches { pipeline, dataset, extras, .. } = *task;
                let inputs = SweepInputs { pipeline, dataset, models: &task.caches(), extras };
                let report = sweep_on(inputs, section, &folder, journal, progress)?;
                TaskReport::Sweep(Box::new(report))
            }
        };
        reports.insert(task.name, report);
    }
    let run = run.finish()?;
    if let Some(mut report) = reports.remove(&None) {
        let write = || page::write_run(&run, &PageOptions::default());
        if is_written(write, &run, progress) {
            report.add_page();
        }
        return Ok(HeadsReport::One(report));
    }
    let folders: Vec<PathBuf> = reports.values().map(|task| task.folder().to_path_buf()).collect();
    let write = || page::write_tasks(&run, &folders, &PageOptions::default());
    let has_page = is_written(write, &run, progress);
    if has_page {
        reports.values_mut().for_each(TaskReport::add_page);
    }
    let tasks =
        reports.into_iter().map(|(name, report)| (name.unwrap_or_default().to_string(), report));
    Ok(HeadsReport::Several(TasksReport {
        report: has_page.then(|| run.join(REPORT_FILE)),
        run,
        seconds: start.elapsed().as_secs_f64(),
        tasks: tasks.collect(),
    }))
}

/// Whether the page of a run was written. The run is whole without it: nothing that a page trips over may fail it.
fn is_written(
    write: impl FnOnce() -> Result<WrittenPage>,
    run: &Path,
    progress: &dyn Progress,
) -> bool {
    let page = run.join(REPORT_FILE);
    let written = fenced_or(write, |panic| Error::io("write", page)(io::Error::other(panic)));
    if let Err(error) = &written {
        progress.warn(&format!(
            "the run is whole, but its report could not be written ({error}): `frostbert report {}` writes it",
            run.display()
        ));
    }
    written.is_ok()
}

/// The run folder of an experiment. It is created when the first task has something to write. If a task has a sweep, it
/// may be the folder of an unfinished run with the same plan.
struct RunFolder<'a> {
    run_dir: &'a Path,
    name: &'a str,
    /// If there are several tasks and one of them has a sweep, their names and plans: what determines the result, apart
    /// from the states.
    plans: Option<Vec<(String, Lock)>>,
    run: Option<PathBuf>,
    /// Marks the folder as being written.
    writing: Option<Writing>,
    /// The journal of a single task's sweep, or the one by which an unfinished run of several tasks is resumed.
    journal: Option<Journal>,
    /// The journals of the sweeps of several tasks.
    of_tasks: Vec<Journal>,
    /// What marks the folder of several tasks without a sweep as unfinished.
    mark: Option<PathBuf>,
}

impl<'a> RunFolder<'a> {
    fn new(tasks: &[TaskOverCaches<'a>]) -> RunFolder<'a> {
        let first = &tasks[0];
        let sweeps = tasks.iter().any(|task| task.pipeline.sweep.is_some());
        let plans = (sweeps && first.name.is_some()).then(|| {
            let plan = |task: &TaskOverCaches<'_>| {
                (task.name.unwrap_or_default().to_string(), task.plan())
            };
            tasks.iter().map(plan).collect()
        });
        RunFolder {
            run_dir: &first.pipeline.run_dir,
            name: &first.pipeline.name,
            plans,
            run: None,
            writing: None,
            journal: None,
            of_tasks: Vec::new(),
            mark: None,
        }
    }

    /// Returns the folder of a task, which is the run folder itself for an unnamed task.
    fn folder(&mut self, task: Option<&str>, progress: &dyn Progress) -> Result<PathBuf> {
        let run = match (&self.run, &self.plans) {
            (Some(run), _) => run.clone(),
            (None, None) => {
                let run = run_folder::create(self.run_dir, self.name)?;
                if task.is_some() {
                    self.mark = Some(run_folder::mark_unfinished(&run)?);
                }
                run
            }
            (None, Some(plans)) => {
                let (run, journal) = self.find_or_begin(plans, "run", progress)?;
                self.journal = Some(journal);
                run
            }
        };
        self.hold(&run);
        let Some(task) = task else {
            return Ok(run);
        };
        let folder = run.join(task);
        fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        Ok(folder)
    }

    /// Returns the folder of a task with a sweep, and the journal of what the sweep has done so far.
    fn journal(
        &mut self,
        task: Option<&str>,
        plan: &Lock,
        progress: &dyn Progress,
    ) -> Result<(PathBuf, &Journal)> {
        if task.is_none() {
            let (run, journal) = self.find_or_begin(plan, "sweep", progress)?;
            self.hold(&run);
            return Ok((run, self.journal.insert(journal)));
        }
        let folder = self.folder(task, progress)?;
        let journal = match Journal::resume(&folder, plan, progress)? {
            Some(journal) => {
                progress.note(&format!("resuming the unfinished sweep in {}", folder.display()));
                journal
            }
            None => Journal::begin(&folder, plan)?,
        };
        self.of_tasks.push(journal);
        Ok((folder, &self.of_tasks[self.of_tasks.len() - 1]))
    }

    /// Makes this the run folder.
    fn hold(&mut self, run: &Path) {
        self.run = Some(run.to_path_buf());
        self.writing.get_or_insert_with(|| Writing::begin(run));
    }

    /// Returns the folder of an unfinished run with this plan, or else a new one.
    fn find_or_begin(
        &self,
        plan: &impl Serialize,
        what: &str,
        progress: &dyn Progress,
    ) -> Result<(PathBuf, Journal)> {
        if let Some((run, journal)) = Journal::find(self.run_dir, self.name, plan, progress)? {
            progress.note(&format!("resuming the unfinished {what} in {}", run.display()));
            return Ok((run, journal));
        }
        let run = run_folder::create(self.run_dir, self.name)?;
        let journal = Journal::begin(&run, plan)?;
        Ok((run, journal))
    }

    /// Cleans up after a finished run, and returns its folder.
    fn finish(self) -> Result<PathBuf> {
        // The journal of the run is removed first. Without it the run is not resumed, even if a kill leaves journals of
        // tasks.
        for journal in self.journal.into_iter().chain(self.of_tasks) {
            journal.finish()?;
        }
        if let Some(mark) = self.mark {
            fs::remove_dir(&mark).map_err(Error::io("delete", mark))?;
        }
        Ok(self.run.unwrap_or_default())
    }
}

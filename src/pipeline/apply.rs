//! A run as it was saved, and its head on labelled data.

use std::path::{Path, PathBuf};

use super::{
    extract::{Machine, extract_with},
    file::Pair,
    lock::{LOCK_FILE, Lock},
    run_folder,
    settings::Pipeline,
    tasks::{TaskMetrics, TaskRows, Tuning, similarity},
};
use crate::{
    cache::reader::CacheReader,
    data::{Format, LabelMap, Part, Source, dataset::Dataset},
    encoder::checkpoint::Checkpoint,
    error::{Error, Result},
    head::saved::{Head, HeadDescription, read_description},
    progress::Progress,
};

/// A run: its head, and the pipeline that made it.
pub struct SavedRun {
    /// The folder.
    pub folder: PathBuf,
    /// What its head is.
    pub description: HeadDescription,
    /// The head; none for a cosine.
    pub head: Option<Head>,
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
        let file = lock.winner.as_ref().unwrap_or(&lock.pipeline);
        let pipeline = Pipeline::check(&lock_path, file.clone())?;
        let description = read_description(&folder)?;
        let head = match description.network {
            Some(_) => Some(Head::load(&folder, description.clone())?),
            None => None,
        };
        Ok(SavedRun {
            folder,
            description,
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
    pub(super) fn checkpoint(&self) -> Result<Checkpoint> {
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

/// Metrics of a run's head on a labelled file, read with the train source's settings. States go through the cache.
///
/// # Errors
/// When the file is not what the source's settings say, holds a label that the head does not know, or stage 1 fails.
pub fn evaluate(
    run: &SavedRun,
    data: &Path,
    machine: &Machine,
    progress: &dyn Progress,
) -> Result<TaskMetrics> {
    let checkpoint = run.checkpoint()?;
    let sources = vec![run.source(data)];
    let (file, description) = (&run.pipeline.file, &run.description);
    let labels = match description.labels.is_empty() {
        true => LabelMap::default(),
        false => LabelMap::from_list(description.labels.clone(), &run.folder)?,
    };
    let is_joint = file.data.pair == Some(Pair::Joint);
    let task = file.data.task.of_data();
    let dataset = Dataset::of_part(
        task,
        is_joint,
        &sources,
        labels,
        description.first_label_id,
        Part::Test,
    )?;
    for warning in &dataset.warnings {
        progress.warn(warning);
    }

    let states = &description.states;
    let mut pipeline = run.pipeline.clone();
    pipeline.extraction = pipeline.extraction.of_sources(sources);
    pipeline.extraction.kinds = vec![states[0].kind];
    pipeline.extraction.layers = states.iter().map(|state| state.layer as i64).collect();
    let report = extract_with(&checkpoint, &pipeline, machine, progress)?;
    let cache = CacheReader::existing(&report.cache)?;
    let rows = TaskRows::new(&pipeline, &dataset, &cache, states)?;
    let outcome = match &run.head {
        Some(head) => rows.finish(&pipeline, &dataset, &mut head.clone(), Tuning::Saved)?,
        None => similarity::measure(&rows, &pipeline, &dataset)?,
    };
    outcome.metrics.test.ok_or_else(|| Error::Record {
        path: data.to_path_buf(),
        line: None,
        expected: "rows to measure on".into(),
        got: "none".into(),
        hint: "check that the path is right".into(),
    })
}

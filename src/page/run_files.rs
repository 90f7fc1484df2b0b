//! A run folder as it is read for a page. Neither the model, nor the data, nor the cache need be there any more.

use std::path::{Path, PathBuf};

use super::csv_table::CsvTable;
use crate::{
    config::{file::PipelineFile, names::Task},
    data::{Part, example::part_name},
    error::{Error, Result},
    head::saved::{DESCRIPTION_FILE, HeadDescription, read_description},
    report::{
        predicted_table::PredictedTable,
        tables::{HISTORY_FILE, PREDICTIONS_FILE},
    },
    run_folder::{
        lock::{LOCK_FILE, Lock},
        relocation::RunPlaces,
    },
    tasks::{
        TaskMetrics,
        kind::RequiredColumns,
        measure::{METRICS_FILE, RunMetrics, read_metrics},
        task_kind,
    },
    training::checks::RunChecks,
};

/// The files of a run.
pub(super) struct RunFiles {
    pub(super) folder: PathBuf,
    pub(super) lock: Lock,
    pub(super) head: HeadDescription,
    pub(super) metrics: RunMetrics,
    pub(super) checks: Option<RunChecks>,
    pub(super) history: Option<CsvTable>,
    pub(super) rows: PredictedTable,
    /// The part of each row.
    pub(super) parts: Vec<Part>,
}

impl RunFiles {
    /// Reads a run folder.
    ///
    /// # Errors
    /// When a file that the lock vouches for is missing or another one.
    pub(super) fn open(folder: &Path) -> Result<RunFiles> {
        let lock = Lock::read(&folder.join(LOCK_FILE))?;
        let task = lock.pipeline.data.task;
        let bytes = lock.read_output(folder, METRICS_FILE)?;
        let metrics = read_metrics(task, &bytes)
            .map_err(|error| of_other_kind(&folder.join(METRICS_FILE), error.to_string()))?;
        let bytes = lock.read_output(folder, DESCRIPTION_FILE)?;
        let head = read_description(&folder.join(DESCRIPTION_FILE), &bytes)?;
        let path = folder.join(PREDICTIONS_FILE);
        let rows = PredictedTable::read(&path, lock.read_output(folder, PREDICTIONS_FILE)?)?;
        if let Some(missing) = missing_column(task, &rows) {
            return Err(of_other_kind(&path, format!("a table without {missing}")));
        }
        let parts = rows.texts("part").unwrap_or_default();
        let named =
            |name: &Option<&str>| Part::ALL.into_iter().find(|p| Some(part_name(*p)) == *name);
        let parts: Option<Vec<Part>> = parts.iter().map(named).collect();
        let Some(parts) = parts.filter(|parts| parts.len() == rows.len()) else {
            return Err(of_other_kind(&path, "rows without a part".into()));
        };
        Ok(RunFiles {
            folder: folder.to_path_buf(),
            checks: RunChecks::read(folder),
            history: CsvTable::read(&folder.join(HISTORY_FILE)),
            lock,
            head,
            metrics,
            rows,
            parts,
        })
    }

    /// The pipeline of the run's head: of a sweep that of its winner.
    pub(super) fn file(&self) -> &PipelineFile {
        self.lock.winner.as_ref().unwrap_or(&self.lock.pipeline)
    }

    /// What the head predicts.
    pub(super) fn task(&self) -> Task {
        self.lock.pipeline.data.task
    }

    /// The names of its classes.
    pub(super) fn labels(&self) -> &[String] {
        self.lock.labels.names()
    }

    /// The metrics that stand for the run: of test, or else of validation.
    pub(super) fn judged(&self) -> Option<(Part, &TaskMetrics)> {
        let of_test = self.metrics.test.as_ref().map(|metrics| (Part::Test, metrics));
        let of_validation = self.metrics.validation.as_ref();
        of_test.or(of_validation.map(|metrics| (Part::Validation, metrics)))
    }

    /// The metrics of a part.
    pub(super) fn metrics_of(&self, part: Part) -> Option<&TaskMetrics> {
        let metrics = match part {
            Part::Train => &self.metrics.train,
            Part::Validation => &self.metrics.validation,
            Part::Test => &self.metrics.test,
        };
        metrics.as_ref()
    }

    /// The rows of a part.
    pub(super) fn rows_of(&self, part: Part) -> Vec<usize> {
        (0..self.parts.len()).filter(|row| self.parts[*row] == part).collect()
    }

    /// The rows of the metrics that stand for the run.
    pub(super) fn judged_rows(&self) -> Vec<usize> {
        self.judged().map_or(Vec::new(), |(part, _)| self.rows_of(part))
    }

    /// A table of the folder that the lock does not vouch for.
    pub(super) fn table(&self, name: &str) -> Option<CsvTable> {
        CsvTable::read(&self.folder.join(name))
    }

    /// Where files lie that the run names.
    pub(super) fn places(&self) -> RunPlaces {
        RunPlaces::of(&self.folder, &self.lock.pipeline.run.dir)
    }

    /// What a row is called: `text`, `pair`, `sentence` or `question`.
    pub(super) fn noun(&self) -> &'static str {
        match self.task().of_data().group_nouns() {
            Some([row, _]) => row,
            None if self.rows.texts("text_pair").is_some() => "pair",
            None => "text",
        }
    }

    /// When the run was whole, where that is known.
    pub(super) fn created(&self) -> Option<String> {
        let created = self.lock.created(&self.folder)?;
        Some(created.format("%Y-%m-%d %H:%M UTC").to_string())
    }

    /// The run by its name and its folder: `sentiment 003`.
    pub(super) fn title(&self) -> String {
        let name = self.lock.pipeline.name.as_deref().unwrap_or("run");
        match self.folder.file_name() {
            Some(folder) => format!("{name} {}", folder.to_string_lossy()),
            None => name.into(),
        }
    }
}

/// A column that the predictions of a task should have, and do not.
fn missing_column(task: Task, rows: &PredictedTable) -> Option<&'static str> {
    let RequiredColumns { texts, lists, numbers } = task_kind(task).required_columns();
    let texts = texts.iter().map(|name| (*name, rows.texts(name).is_some()));
    let lists = lists.iter().map(|name| (*name, rows.text_lists(name).is_some()));
    let numbers = numbers.iter().map(|name| (*name, rows.numbers(name).is_some()));
    let mut columns = texts.chain(lists).chain(numbers);
    columns.find(|(_, is_there)| !is_there).map(|(name, _)| name)
}

fn of_other_kind(path: &Path, got: String) -> Error {
    Error::Run {
        path: path.to_path_buf(),
        expected: "what a run of this task writes".into(),
        got,
        hint: "copy the run folder again, or run its pipeline again".into(),
    }
}

//! Two runs side by side: in what they differ, and what that is worth on the same rows.

mod examples;
mod metrics;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use frostbert_cache::progress::Progress;
use serde::Serialize;
use serde_json::Value;

pub use self::{
    examples::{ChangedExample, ChangedExamples},
    metrics::MetricDiff,
};
use crate::{
    config::settings::all_settings,
    data::example::FileRecord,
    error::Result,
    prediction::run_record::{RowsByPart, RunRecord},
    report::{saved_table::SavedTable, tables::PREDICTIONS_FILE},
    tasks::saved_predictions::{SavedPredictions, labels_of_both},
};

/// What two runs have of something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SideBySide<T> {
    /// What the first has.
    pub a: Option<T>,
    /// What the second has.
    pub b: Option<T>,
}

/// Two runs compared.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct RunDiff {
    /// The folder of the first.
    #[serde(serialize_with = "frostbert_cache::wording::path_shown")]
    pub a: PathBuf,
    /// The folder of the second.
    #[serde(serialize_with = "frostbert_cache::wording::path_shown")]
    pub b: PathBuf,
    /// What the first predicts.
    pub task: String,
    /// The settings that are not the same, by their whole keys.
    pub settings: BTreeMap<String, SideBySide<Value>>,
    /// What they were made of.
    pub data: DataDiff,
    /// What of that which made them is not the same.
    pub versions: BTreeMap<String, SideBySide<Value>>,
    /// The part that they are compared on.
    pub part: Option<&'static str>,
    /// The rows of it.
    pub rows: Option<usize>,
    /// Why they cannot be compared row by row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The metrics of both.
    pub metrics: Vec<MetricDiff>,
    /// Rows that they predict something else for.
    pub changed: Option<usize>,
    /// Those of them that the second predicts worse.
    pub worse: Option<ChangedExamples>,
    /// Those of them that the second predicts better.
    pub better: Option<ChangedExamples>,
}

/// The data of two runs.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct DataDiff {
    /// Whether both have the same files, split in the same way.
    pub same: bool,
    /// The files of both, in the order in which they were read; those of one path beside each other.
    pub files: Vec<SideBySide<FileRecord>>,
    /// The rows of each part.
    pub rows: SideBySide<RowsByPart>,
}

/// The same rows, as two runs predict them.
struct SameRows {
    part: &'static str,
    /// The labels of both.
    labels: Vec<String>,
    /// Whether both know the same labels.
    has_same_labels: bool,
    a: SavedPredictions,
    /// In the order of the first.
    b: SavedPredictions,
}

/// Compares two runs: their settings, data and versions, and on the rows that both were tested on (or else validated) their
/// metrics and predictions. Differences are those of the second to the first. `limit` examples are listed of those that are
/// predicted worse, and of those that are predicted better.
///
/// # Errors
/// When a file of one of the runs is damaged or missing.
pub fn compare_runs(
    a: &RunRecord,
    b: &RunRecord,
    limit: usize,
    progress: &dyn Progress,
) -> Result<RunDiff> {
    let rows = same_rows(a, b)?;
    let metrics = metrics::compare(a, b, &rows, progress);
    let mut diff = RunDiff {
        a: a.folder.clone(),
        b: b.folder.clone(),
        task: a.pipeline().data.task.to_string(),
        settings: differing(settings_of(a)?, settings_of(b)?),
        data: DataDiff::between(a, b),
        versions: differing(a.versions(), b.versions()),
        part: None,
        rows: None,
        reason: None,
        metrics,
        changed: None,
        worse: None,
        better: None,
    };
    match rows {
        Ok(rows) => {
            let changed = rows.a.outcomes.changed(&rows.b.outcomes);
            let [worse, better] = examples::changed_examples(&rows, limit);
            diff.part = Some(rows.part);
            diff.rows = Some(changed.len());
            diff.changed = Some(changed.into_iter().filter(|changed| *changed).count());
            (diff.worse, diff.better) = (Some(worse), Some(better));
        }
        Err(reason) => diff.reason = Some(reason),
    }
    Ok(diff)
}

/// The rows that both runs were tested on, or else validated; where there are none, why not.
fn same_rows(a: &RunRecord, b: &RunRecord) -> Result<Result<SameRows, String>> {
    let [task, other] = [a, b].map(|run| run.pipeline().data.task);
    if task.of_data() != other.of_data() {
        return Ok(Err(format!("other tasks: {task} and {other}")));
    }
    let have = |part: &str| [a, b].map(|run| run.metrics[part].is_object());
    let part = match (have("test"), have("validation")) {
        ([true, true], _) => "test",
        ([false, false], [true, true]) => "validation",
        ([false, false], _) => {
            return Ok(Err("no test rows, and not in both validation rows".into()));
        }
        _ => return Ok(Err("only one of them has test rows".into())),
    };
    let [names, others] = [a, b].map(|run| run.lock.labels.names());
    let labels = labels_of_both(names, others);
    let (first, second) = (predictions_of(a, &labels, part)?, predictions_of(b, &labels, part)?);
    let matched = first.matched(&second);
    Ok(matched.map(|second| SameRows {
        part,
        has_same_labels: labels.len() == names.len() && labels.len() == others.len(),
        labels,
        a: first,
        b: second,
    }))
}

fn predictions_of(run: &RunRecord, labels: &[String], part: &str) -> Result<SavedPredictions> {
    let bytes = run.lock.read_output(&run.folder, PREDICTIONS_FILE)?;
    let table = SavedTable::read(&run.folder.join(PREDICTIONS_FILE), bytes)?;
    SavedPredictions::read(&table, run.pipeline().data.task, labels, part)
}

/// The settings of a run's head, and those of the sweep that chose it.
fn settings_of(run: &RunRecord) -> Result<Vec<(String, Value)>> {
    let mut settings = all_settings(run.pipeline())?;
    if run.lock.winner.is_some() {
        let swept = all_settings(&run.lock.pipeline)?.into_iter();
        settings.extend(swept.filter(|(key, _)| key.starts_with("sweep.")));
    }
    // The file says nothing where it is the first of its task.
    if !settings.iter().any(|(key, _)| key == "head.kind") {
        settings.push(("head.kind".into(), run.pipeline().head_kind().to_string().into()));
    }
    let settings = settings.into_iter();
    Ok(settings.map(|(key, value)| (key, serde_json::json!(value))).collect())
}

/// What two runs do not have the same of, by its name.
fn differing(
    a: impl IntoIterator<Item = (String, Value)>,
    b: impl IntoIterator<Item = (String, Value)>,
) -> BTreeMap<String, SideBySide<Value>> {
    let mut a: BTreeMap<String, Value> = a.into_iter().collect();
    let mut b: BTreeMap<String, Value> = b.into_iter().collect();
    let names: BTreeSet<String> = a.keys().chain(b.keys()).cloned().collect();
    let both = names.into_iter().map(|name| {
        let both = SideBySide { a: a.remove(&name), b: b.remove(&name) };
        (name, both)
    });
    both.filter(|(_, both)| both.a != both.b).collect()
}

impl DataDiff {
    fn between(a: &RunRecord, b: &RunRecord) -> DataDiff {
        let [first, second] = [a, b].map(|run| &run.lock);
        let hashes =
            |files: &[FileRecord]| files.iter().map(|file| file.blake3).collect::<Vec<_>>();
        let of_path = |files: &[FileRecord], path: &PathBuf| {
            files.iter().find(|file| file.path == *path).cloned()
        };
        let mut paths: Vec<&PathBuf> = Vec::new();
        for file in first.data.iter().chain(&second.data) {
            if !paths.contains(&&file.path) {
                paths.push(&file.path);
            }
        }
        let files = paths.into_iter().map(|path| SideBySide {
            a: of_path(&first.data, path),
            b: of_path(&second.data, path),
        });
        DataDiff {
            same: hashes(&first.data) == hashes(&second.data)
                && first.split.rows == second.split.rows,
            files: files.collect(),
            rows: SideBySide {
                a: Some(RowsByPart::of(&first.split)),
                b: Some(RowsByPart::of(&second.split)),
            },
        }
    }
}

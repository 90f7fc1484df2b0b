//! Lists the runs in a folder of runs.

use std::path::PathBuf;

use chrono::SecondsFormat;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    config::settings::changed_settings,
    error::Result,
    metrics::metric::Metric,
    prediction::saved_run::{main_score, score_of},
    run_folder::{
        finished_in,
        lock::{LOCK_FILE, Lock},
        names::RunsOf,
        number_of,
        tags::Tags,
    },
    tasks::measure::METRICS_FILE,
};

/// The contents of a folder of runs.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct RunList {
    /// The finished runs, by name and number, or by a metric; of several tasks each task's.
    pub runs: Vec<ListedRun>,
    /// Numbered folders without a finished run.
    #[serde(serialize_with = "frostbert_cache::wording::paths_shown")]
    pub unfinished: Vec<PathBuf>,
}

/// A finished run.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ListedRun {
    /// Its folder.
    #[serde(serialize_with = "frostbert_cache::wording::path_shown")]
    pub run: PathBuf,
    /// Its name, which the runs of a pipeline share.
    pub name: String,
    /// Which of these it is; none of a run that lies in no folder of runs.
    pub number: Option<u64>,
    /// When it was whole, in UTC.
    pub created: Option<String>,
    /// The task of its head.
    pub task: String,
    /// The kind of its head.
    pub head: String,
    /// The main metric of the task, or the one that was asked for.
    pub metric: Option<String>,
    /// The part whose rows it was measured on: `test` or `validation`.
    pub part: Option<String>,
    /// Its value.
    pub value: Option<f64>,
    /// Its 95 % interval.
    pub ci: Option<[f64; 2]>,
    /// The model, with its revision on the hub if that is known.
    pub model: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// The settings of its pipeline that differ from the defaults.
    pub settings: Map<String, Value>,
}

/// Lists runs: with the main metric of each, or with `metric`, the best of it first and runs without it last.
///
/// # Errors
/// When a folder cannot be read, or the file of tags is damaged. A run of which a file is damaged is listed with what is
/// known of it.
pub fn list_runs(runs: &RunsOf, metric: Option<Metric>) -> Result<RunList> {
    let tags = Tags::read(&runs.runs)?;
    let mut list = RunList::default();
    for (name, folders) in runs.by_name()? {
        for folder in folders.into_iter().rev() {
            let number = folder.file_name().and_then(number_of);
            let finished = finished_in(&folder);
            if finished.is_empty() {
                list.unfinished.push(folder);
                continue;
            }
            for run in finished {
                let lock = Lock::read(&run.join(LOCK_FILE))?;
                let place =
                    run.strip_prefix(&runs.runs).unwrap_or(&run).to_string_lossy().into_owned();
                let tags = tags.of(&place).map(String::from).collect();
                let listed =
                    ListedRun { number, tags, ..ListedRun::of(&lock, run, &name, metric)? };
                list.runs.push(listed);
            }
        }
    }
    if let Some(metric) = metric {
        list.runs.sort_by(|a, b| match (a.value, b.value) {
            (Some(a), Some(b)) if metric.higher_is_better() => b.total_cmp(&a),
            (Some(a), Some(b)) => a.total_cmp(&b),
            (a, b) => b.is_some().cmp(&a.is_some()),
        });
    }
    Ok(list)
}

impl ListedRun {
    /// A run by its folder and its lock, without number and tags.
    pub(crate) fn of(
        lock: &Lock,
        run: PathBuf,
        name: &str,
        metric: Option<Metric>,
    ) -> Result<ListedRun> {
        let file = lock.head_pipeline();
        let task = file.data.task;
        let metrics = lock.read_output(&run, METRICS_FILE).ok();
        let metrics = metrics.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let score = metrics.and_then(|metrics| match metric {
            Some(metric) => score_of(metric, &metrics),
            None => main_score(task, lock.labels.names(), &metrics),
        });
        let settings = changed_settings(file)?.into_iter();
        Ok(ListedRun {
            name: name.into(),
            number: None,
            created: lock.created(&run).map(|time| time.to_rfc3339_opts(SecondsFormat::Secs, true)),
            task: task.to_string(),
            head: file.head_kind().to_string(),
            metric: score.as_ref().map(|score| score.metric.into()),
            part: score.as_ref().map(|score| score.part.into()),
            value: score.as_ref().map(|score| score.value),
            ci: score.and_then(|score| score.ci),
            model: lock.base_model().to_string(),
            tags: Vec::new(),
            settings: settings
                .map(|(key, value)| (key, serde_json::to_value(value).unwrap_or_default()))
                .collect(),
            run,
        })
    }
}

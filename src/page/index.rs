//! The page of a run of several tasks, which leads to the page of each.

use serde::Serialize;

use super::{numbers::with_interval, run_files::RunFiles};
use crate::tasks::own_metric;

/// The page of a run of several tasks.
#[derive(Clone, Debug, Serialize)]
pub(super) struct TasksView {
    pub(super) title: String,
    pub(super) tasks: Vec<TaskLine>,
}

/// A task of several.
#[derive(Clone, Debug, Serialize)]
pub(super) struct TaskLine {
    pub(super) name: String,
    /// Where its own page lies, as seen from this one.
    pub(super) link: String,
    pub(super) task: String,
    pub(super) head: String,
    pub(super) metric: String,
    pub(super) score: String,
    pub(super) sentence: String,
}

impl TasksView {
    /// Of the runs of tasks, each with the sentence that says what it is worth.
    pub(super) fn of(title: String, runs: &[(RunFiles, String)], file: &str) -> TasksView {
        let line = |(run, sentence): &(RunFiles, String)| {
            let metric = own_metric(run.task(), run.labels());
            let score = run.judged().and_then(|(_, judged)| judged.scores().get(metric).copied());
            let folder = run.folder.file_name().unwrap_or_default().to_string_lossy();
            TaskLine {
                link: format!("{folder}/{file}"),
                name: folder.into_owned(),
                task: run.task().to_string(),
                head: run.head.kind.clone(),
                metric: metric.in_words(),
                score: with_interval(score.map(|s| s.value), score.and_then(|s| s.interval)),
                sentence: sentence.clone(),
            }
        };
        TasksView { title, tasks: runs.iter().map(line).collect() }
    }
}

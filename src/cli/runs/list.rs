//! `frostbert runs ls`: the runs of a folder in one table.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use frostbert::{
    cache::{progress::Progress, wording::nearest},
    internals::{
        metrics::metric::Metric,
        prediction::run_list::{ListedRun, list_runs},
        run_folder::names::RunsOf,
    },
};
use serde_json::{Map, Value};

use crate::cli::{Context, output, screen::align};

#[derive(Debug, Args)]
pub(in crate::cli) struct ListArguments {
    /// A folder of runs (run.dir), or a name, whose runs alone are listed
    #[arg(value_name = "DIR|NAME", default_value = "runs")]
    runs: PathBuf,
    /// Show this metric in place of each task's main one, the best run first and runs without it last
    #[arg(long, value_name = "METRIC", value_parser = metric_named)]
    sort: Option<Metric>,
}

/// Wrong usage is clap's to report.
fn metric_named(name: &str) -> Result<Metric, String> {
    // The loss of a head is in no metrics.json.
    let known = || Metric::ALL.iter().copied().filter(|metric| *metric != Metric::Loss);
    known().find(|metric| metric.name() == name).ok_or_else(|| {
        let names: Vec<&str> = known().map(Metric::name).collect();
        let meant = nearest(name, names.iter().copied());
        let meant = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
        format!("expected one of {}{meant}", names.join(", "))
    })
}

pub(super) fn run(arguments: &ListArguments, context: &Context) -> Result<()> {
    let runs = RunsOf::find(&arguments.runs)?;
    let list = list_runs(&runs, arguments.sort)?;
    if context.json {
        return output::print_json(&list);
    }
    for folder in &list.unfinished {
        context.progress.note(&format!("{} holds no finished run", folder.display()));
    }
    if list.runs.is_empty() {
        return output::print(&format!("no finished run in {}\n", arguments.runs.display()));
    }
    output::print(&align(&table(&list.runs)))
}

/// Two lines for each run: what it is and what it is worth, and below the settings that are not the defaults.
fn table(runs: &[ListedRun]) -> Vec<Vec<String>> {
    let has_models = runs.iter().any(|run| run.model != runs[0].model);
    let has_tags = runs.iter().any(|run| !run.tags.is_empty());
    let mut header = vec!["run", "when", "task", "head", "metric", "value"];
    header.extend(has_models.then_some("model"));
    header.extend(has_tags.then_some("tags"));
    let mut lines = vec![header.into_iter().map(String::from).collect::<Vec<_>>()];
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    for run in runs {
        let when = run.created.as_ref().map(|time| time.chars().take(10).collect());
        let metric = run.metric.as_ref().map(|metric| match run.part.as_deref() {
            None | Some("test") => metric.clone(),
            Some(part) => format!("{metric} ({part})"),
        });
        let value = run.value.map(|value| output::score_cell(value, run.ci));
        let mut line = vec![
            run.run.display().to_string(),
            or_dash(when),
            run.task.clone(),
            run.head.clone(),
            or_dash(metric),
            or_dash(value),
        ];
        line.extend(has_models.then(|| run.model.clone()));
        line.extend(has_tags.then(|| run.tags.join(", ")));
        lines.push(line);
        let settings = settings_of(run, runs);
        if !settings.is_empty() {
            lines.push(vec![String::new(), settings]);
        }
    }
    lines
}

/// The settings of a run that are not the defaults; first those that some other run has not.
fn settings_of(run: &ListedRun, runs: &[ListedRun]) -> String {
    let is_of_all = |key: &str, value: &Value| {
        runs.iter().all(|other| other.settings.get(key).is_some_and(|own| own == value))
    };
    let (of_all, own): (Map<String, Value>, Map<String, Value>) =
        run.settings.clone().into_iter().partition(|(key, value)| is_of_all(key, value));
    let settings = own.iter().chain(&of_all);
    let settings: Vec<String> =
        settings.map(|(key, value)| format!("{key} = {}", output::value_cell(value))).collect();
    settings.join(", ")
}

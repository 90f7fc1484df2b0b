//! Several runs side by side: what they differ in, what they are worth, and their curves over each other.

use serde::Serialize;

use super::{
    numbers::{NONE, decimal, with_interval},
    run_files::RunFiles,
    shown_task::shown_task,
    table::{Figure, TableView},
    texts::harmless,
};
use crate::{
    config::settings::{changed_settings, show},
    data::example::part_name,
    error::{Error, Result},
    metrics::metric::Metric,
    report::chart::{Axis, Chart, Curve, SERIES},
    tasks::own_metric,
};

/// The page of several runs.
#[derive(Clone, Debug, Serialize)]
pub(super) struct ComparisonView {
    pub(super) title: String,
    pub(super) runs: TableView,
    pub(super) settings: Option<TableView>,
    pub(super) metrics: TableView,
    /// What stands in the way of comparing them.
    pub(super) warnings: Vec<String>,
    pub(super) figures: Vec<Figure>,
}

impl ComparisonView {
    /// # Errors
    /// When the runs are of different tasks, or a lock holds no pipeline.
    pub(super) fn of(runs: &[RunFiles]) -> Result<ComparisonView> {
        let first = &runs[0];
        if let Some(other) = runs.iter().find(|run| run.task() != first.task()) {
            return Err(Error::Argument {
                action: "compare the runs",
                expected: format!(
                    "runs of one task, as {} is of {}",
                    first.folder.display(),
                    first.task()
                ),
                got: format!("{}, which is of {}", other.folder.display(), other.task()),
                hint: "name runs of the same task".into(),
            });
        }
        let names = names(runs);
        Ok(ComparisonView {
            title: format!("{} runs", runs.len()),
            runs: runs_table(runs, &names),
            settings: settings(runs, &names)?,
            metrics: metrics(runs, &names),
            warnings: warnings(runs),
            figures: curves(runs, &names),
        })
    }
}

/// What each run is called: its title, or its folder where two have the same.
fn names(runs: &[RunFiles]) -> Vec<String> {
    let titles: Vec<String> = runs.iter().map(RunFiles::title).collect();
    let is_taken = |title: &String| titles.iter().filter(|other| *other == title).count() > 1;
    let name = |run: &RunFiles| {
        let title = run.title();
        if is_taken(&title) { run.folder.display().to_string() } else { title }
    };
    runs.iter().map(name).collect()
}

fn own(run: &RunFiles) -> Metric {
    own_metric(run.task(), run.labels())
}

fn runs_table(runs: &[RunFiles], names: &[String]) -> TableView {
    let metric = own(&runs[0]).in_words();
    let words = ["run", "head", "model", "made"];
    let mut table = TableView::new(&words, &[&metric, "on"]);
    // The best first.
    let score = |run: &RunFiles| {
        let (_, metrics) = run.judged()?;
        metrics.scores().get(own(run)).copied()
    };
    let mut order: Vec<usize> = (0..runs.len()).collect();
    order.sort_by(|one, other| {
        let sign = if own(&runs[0]).higher_is_better() { -1.0 } else { 1.0 };
        let value = |place: usize| score(&runs[place]).map_or(f64::INFINITY, |s| sign * s.value);
        value(*one).total_cmp(&value(*other))
    });
    for place in order {
        let run = &runs[place];
        let score = score(run);
        let part = run.judged().map(|(part, _)| part_name(part));
        table.push([
            names[place].clone(),
            run.head.kind.clone(),
            run.lock.base_model().to_string(),
            run.created().unwrap_or_else(|| NONE.into()),
            with_interval(score.map(|s| s.value), score.and_then(|s| s.interval)),
            part.unwrap_or(NONE).into(),
        ]);
    }
    table
}

/// The settings in which the runs differ, a column for each run.
fn settings(runs: &[RunFiles], names: &[String]) -> Result<Option<TableView>> {
    let all: Vec<Vec<(String, String)>> = runs
        .iter()
        .map(|run| {
            let changed = changed_settings(run.file())?.into_iter();
            let mut own: Vec<(String, String)> =
                changed.map(|(key, value)| (key, show(&value))).collect();
            own.push(("model".into(), run.lock.base_model().to_string()));
            Ok(own)
        })
        .collect::<Result<_>>()?;
    let mut keys: Vec<&String> = all.iter().flatten().map(|(key, _)| key).collect();
    keys.sort();
    keys.dedup();
    let titles: Vec<&str> =
        std::iter::once("setting").chain(names.iter().map(String::as_str)).collect();
    let mut table = TableView::new(&titles, &[]);
    for key in keys {
        let value = |own: &Vec<(String, String)>| {
            let found = own.iter().find(|(name, _)| name == key);
            found.map_or("default".to_string(), |(_, value)| value.clone())
        };
        let values: Vec<String> = all.iter().map(value).collect();
        if values.iter().any(|value| *value != values[0]) {
            table.push_row(std::iter::once(key.clone()).chain(values).collect(), false);
        }
    }
    Ok(table.if_any())
}

fn metrics(runs: &[RunFiles], names: &[String]) -> TableView {
    let titles: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut table = TableView::new(&["metric"], &titles);
    for metric in shown_task(runs[0].task()).metrics() {
        let score = |run: &RunFiles| run.judged()?.1.scores().get(metric).copied();
        let scores: Vec<_> = runs.iter().map(score).collect();
        if scores.iter().any(Option::is_some) {
            let cells = scores
                .iter()
                .map(|score| with_interval(score.map(|s| s.value), score.and_then(|s| s.interval)));
            table.push_row(std::iter::once(metric.in_words()).chain(cells).collect(), false);
        }
    }
    table.note = Some("In brackets: 95 % intervals.".into());
    table
}

fn warnings(runs: &[RunFiles]) -> Vec<String> {
    let mut warnings = Vec::new();
    let first = &runs[0];
    let judged = |run: &RunFiles| {
        let keys = run.rows.keys().unwrap_or_default();
        let mut keys: Vec<_> = run.judged_rows().into_iter().map(|row| keys[row].0).collect();
        keys.sort_unstable();
        keys
    };
    let of_first = judged(first);
    if runs[1..].iter().any(|run| judged(run) != of_first) {
        warnings.push(
            "The runs were not measured on the same rows: their metrics cannot be compared number by number.".into(),
        );
    }
    if runs.iter().any(|run| run.labels() != first.labels()) {
        warnings.push("The runs have other labels.".into());
    }
    warnings
}

fn curves(runs: &[RunFiles], names: &[String]) -> Vec<Figure> {
    let name = format!("validation_{}", own(&runs[0]));
    let words = own(&runs[0]).in_words();
    [(name.as_str(), words.as_str()), ("validation_loss", "validation loss")]
        .into_iter()
        .filter_map(|(column, label)| curve(runs, names, column, label))
        .collect()
}

fn curve(runs: &[RunFiles], names: &[String], column: &str, label: &str) -> Option<Figure> {
    let points = |run: &RunFiles| -> Option<Vec<(f64, f64)>> {
        let history = run.history.as_ref()?;
        let (epochs, values) = (history.numbers("epoch")?, history.numbers(column)?);
        let both = epochs.into_iter().zip(values);
        Some(both.filter_map(|(epoch, value)| Some((epoch?, value?))).collect())
    };
    let all: Vec<(usize, Vec<(f64, f64)>)> = runs
        .iter()
        .enumerate()
        .take(SERIES.len())
        .filter_map(|(place, run)| Some((place, points(run).filter(|points| points.len() > 1)?)))
        .collect();
    if all.len() < 2 {
        return None;
    }
    let last =
        all.iter().flat_map(|(_, points)| points).map(|(epoch, _)| *epoch).fold(2.0, f64::max);
    let titles: Vec<&str> = std::iter::once("epoch")
        .chain(all.iter().map(|(place, _)| names[*place].as_str()))
        .collect();
    let mut table = TableView::new(&[], &titles);
    for epoch in 1..=last as usize {
        let cell = |points: &Vec<(f64, f64)>| {
            let found = points.iter().find(|(own, _)| *own as usize == epoch);
            found.map_or(NONE.into(), |(_, value)| decimal(*value))
        };
        let cells = all.iter().map(|(_, points)| cell(points));
        table.push_row(std::iter::once(epoch.to_string()).chain(cells).collect(), false);
    }
    let curves = all.into_iter().map(|(place, points)| Curve {
        has_dots: false,
        ..Curve::new(harmless(&names[place]), SERIES[place], points)
    });
    let chart = Chart {
        title: String::new(),
        x_label: "epoch".into(),
        y_label: label.into(),
        x: Axis::over(1.0..last),
        y: None,
        mark: None,
        legend: None,
        curves: curves.collect(),
    };
    let description = format!("{label} of each run by epoch.");
    Some(Figure::new(format!("{label} by epoch"), description, chart, table))
}

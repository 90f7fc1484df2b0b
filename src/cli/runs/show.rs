//! `frostbert runs show`: what a run is.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use frostbert::{
    cache::wording::shorten,
    internals::{
        metrics::{metric::Metric, scores::Score},
        prediction::run_record::RunDescription,
    },
};
use indicatif::HumanCount;

use crate::cli::{Context, open_record, output, screen::Screen};

/// More labels than this are counted and not listed.
const LISTED_LABELS: usize = 12;

#[derive(Debug, Args)]
pub(in crate::cli) struct ShowArguments {
    /// A run: its folder, a name of runs (then the newest), or a tag
    #[arg(value_name = "RUN")]
    run: PathBuf,
}

pub(super) fn run(arguments: &ShowArguments, context: &Context) -> Result<()> {
    let description = open_record(&arguments.run, context)?.describe()?;
    if context.json {
        return output::print_json(&description);
    }
    let mut screen = Screen::default();
    describe(&description, &mut screen);
    output::show(&screen)
}

fn describe(run: &RunDescription, screen: &mut Screen) {
    let listed = &run.listed;
    screen.as_it_is(&format!("run         {}", listed.run.display()));
    let mut facts =
        vec![listed.task.clone(), format!("{} head", listed.head), listed.model.clone()];
    facts.extend(listed.created.clone());
    screen.text(&format!("            {}\n", facts.join(", ")));
    if run.sweep {
        screen.text("            the best head of a sweep: leaderboard.csv has the others\n");
    }
    if !listed.tags.is_empty() {
        screen.text(&format!("tags        {}\n", listed.tags.join(", ")));
    }
    screen.text(&labels(&run.labels));
    if listed.settings.is_empty() {
        screen.text("settings    the defaults\n");
    } else {
        let settings = listed.settings.iter();
        let settings = settings.map(|(key, value)| vec![key.clone(), output::value_cell(value)]);
        screen.table("settings", &settings.collect::<Vec<_>>());
    }
    let mut files = vec![["file", "rows", "blake3"].map(String::from).to_vec()];
    files.extend(run.data.iter().map(|file| {
        let rows = HumanCount(file.rows as u64).to_string();
        vec![file.path.display().to_string(), rows, file.blake3.short()]
    }));
    screen.table("data", &files);
    let [train, validation, test] =
        [run.rows.train, run.rows.validation, run.rows.test].map(|rows| HumanCount(rows as u64));
    screen.text(&format!("rows        {train} train, {validation} validation, {test} test\n"));
    screen.table("metrics", &metrics(run));
    screen.text(&format!("made by     {}\n", versions(run)));
    screen.as_it_is(&format!("again       {}", run.command));
}

fn labels(labels: &[String]) -> String {
    match labels.len() {
        0 => String::new(),
        n if n > LISTED_LABELS => format!("labels      {}\n", HumanCount(n as u64)),
        _ => {
            let labels: Vec<String> = labels.iter().map(|label| shorten(label, 40)).collect();
            format!("labels      {}\n", labels.join(", "))
        }
    }
}

/// The metrics of the part that stands for the run. The micro F1 of single labels is their accuracy, and left out.
fn metrics(run: &RunDescription) -> Vec<Vec<String>> {
    let is_single = run.listed.task == "classification";
    let part = run.listed.part.as_deref().unwrap_or("none");
    let mut lines = vec![vec!["metric".to_string(), part.to_string()]];
    let shown = output::SHOWN.iter().filter(|metric| !is_single || **metric != Metric::MicroF1);
    lines.extend(shown.filter_map(|metric| run.metrics.get(*metric)).map(
        |Score { metric, value, interval }| {
            vec![metric.to_string(), output::score_cell(*value, *interval)]
        },
    ));
    lines
}

/// What made the run, in a line.
fn versions(run: &RunDescription) -> String {
    let version = |name: &str| run.versions.get(name)?.as_str().map(String::from);
    let program = version("frostbert").map(|version| match run.versions["commit"].as_str() {
        Some(commit) => format!("frostbert {version} ({commit})"),
        None => format!("frostbert {version}"),
    });
    let runtime = version("onnxruntime").map(|version| format!("ONNX Runtime {version}"));
    let made = [program, runtime, version("device"), version("host")].into_iter().flatten();
    made.collect::<Vec<_>>().join(", ")
}

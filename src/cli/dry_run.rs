//! `--dry-run`: reports what a command would do, and writes nothing.

use std::process::ExitCode;

use anyhow::Result;
use frostbert::{
    cache::wording::counted,
    internals::{
        experiment::{DryRun, Experiment, Stages},
        extraction::dry_run::ExtractForecast,
    },
};
use indicatif::HumanCount;
use serde_json::json;

use super::{Context, output, screen::Screen};

/// Checks everything without doing the work, and reports what that would be.
pub(super) fn dry_run(
    experiment: &Experiment,
    stages: Stages,
    context: &Context,
) -> Result<ExitCode> {
    let found = experiment.dry_run(stages, &context.machine, &context.progress)?;
    if context.json {
        let mut report = json!({ "dry_run": true });
        if let Some(extract) = &found.extract {
            report["extract"] = json!(extract);
        }
        if !found.tasks.is_empty() {
            report["tasks"] = json!(found.tasks);
        }
        output::print_json(&report)?;
        return Ok(ExitCode::SUCCESS);
    }
    output::show(&describe(&found))?;
    Ok(ExitCode::SUCCESS)
}

fn describe(found: &DryRun) -> Screen {
    let mut screen = Screen::default();
    screen.text("dry run     everything was checked, and nothing was written");
    if let Some(extract) = &found.extract {
        if extract.models.is_empty() {
            describe_extract(extract, &mut screen);
        }
        for (model, extract) in &extract.models {
            screen.as_it_is(&format!("model       {model}"));
            describe_extract(extract, &mut screen);
        }
    }
    if !found.tasks.is_empty() {
        let header = ["rows", "train", "validation", "test", "heads"];
        let mut lines = vec![header.map(String::from).to_vec()];
        lines.extend(found.tasks.iter().map(|task| {
            let counts = [task.train, task.validation, task.test, task.heads];
            let counts = counts.map(|count| HumanCount(count as u64).to_string());
            let name = task.name.clone().unwrap_or_else(|| "all".into());
            std::iter::once(name).chain(counts).collect()
        }));
        screen.table("data", &lines);
    }
    screen
}

/// What stage 1 would do.
fn describe_extract(extract: &ExtractForecast, screen: &mut Screen) {
    let counts = [extract.unique, extract.computed, extract.reused, extract.truncated];
    let [unique, computed, reused, truncated] = counts.map(HumanCount);
    screen.as_it_is(&format!("cache       {}", extract.cache.display()));
    screen.text(&format!(
        "            {}, {unique} distinct: {computed} to encode, {reused} in the cache; {truncated} truncated",
        counted(extract.documents, "text"),
    ));
    if extract.computed > 0 {
        let what = extract.describe();
        screen.text(&format!("            {what}, on {}", extract.device));
    }
}

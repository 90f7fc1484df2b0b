//! `frostbert sweep`: stage 2 alone, for a pipeline with a section `[sweep]`.

use std::process::ExitCode;

use anyhow::Result;
use frostbert::{
    pipeline::{
        multitask,
        settings::Pipeline,
        sweep::{NestedScore, SweepReport, sweep},
    },
    report::summary::summary,
};
use indicatif::HumanCount;

use super::{
    Context, PipelineArguments, output,
    train::{describe_tasks, describe_train, indent},
};

pub(super) fn run(arguments: &PipelineArguments, context: &Context) -> Result<ExitCode> {
    let tasks = Pipeline::read_tasks(&arguments.pipeline, &arguments.overrides.set)?;
    let text = match &tasks[..] {
        [task] if task.name.is_none() => {
            let report = sweep(&task.pipeline, &context.progress)?;
            if context.json {
                output::print_json(&report)?;
            }
            describe_sweep(&report)
        }
        tasks => {
            let report = multitask::sweep(tasks, &context.progress)?;
            if context.json {
                output::print_json(&report)?;
            }
            describe_tasks(&report)
        }
    };
    if !context.json {
        output::print(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What a sweep did: the heads in order, what the settings do, and the best head as a run.
pub(super) fn describe_sweep(report: &SweepReport) -> String {
    let seconds = report.seconds;
    let mut text = format!(
        "sweep       {} heads, {:.1} epochs each, in {seconds:.1} s: {} head-samples/s\n",
        HumanCount(report.heads as u64),
        report.epochs,
        HumanCount(report.head_samples_per_second as u64),
    );
    for block in summary(&report.findings) {
        text.push_str(&indent(&output::align(&block.lines), block.title));
    }
    if let Some(nested) = &report.nested {
        let lines = nested_lines(nested);
        let (first, others) = lines.split_at(1);
        text.push_str(&indent(&output::align(first), "nested"));
        text.push_str(&indent(&output::align(others), ""));
    }
    text.push_str("\nthe best of them, as a run\n");
    text.push_str(&describe_train(&report.winner));
    text
}

/// What choosing and training are worth together, fold after fold.
fn nested_lines(nested: &NestedScore) -> Vec<Vec<String>> {
    let interval = nested
        .interval
        .map(|[low, high]| format!(" [{low:.3}, {high:.3}]"));
    let number = |score: Option<f64>| score.map_or("-".to_string(), |score| format!("{score:.3}"));
    let mut lines = vec![
        vec![format!(
            "{} {}{}: settings chosen anew without each fold, and judged on it",
            nested.metric.replace('_', " "),
            number(nested.score),
            interval.unwrap_or_default()
        )],
        ["fold", "chosen", "inner", "epochs", "on the fold"]
            .map(String::from)
            .to_vec(),
    ];
    lines.extend(nested.folds.iter().enumerate().map(|(fold, own)| {
        let settings = own.settings.iter();
        let settings: Vec<String> = settings
            .map(|(key, value)| format!("{key} = {value}"))
            .collect();
        vec![
            fold.to_string(),
            settings.join(", "),
            number(own.inner),
            own.epochs.to_string(),
            number(own.score),
        ]
    }));
    lines
}

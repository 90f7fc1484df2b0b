//! `frostbert train`: stage 2 alone.

use std::process::ExitCode;

use anyhow::Result;
use frostbert::pipeline::{
    measure::measured_parts,
    train::{TrainReport, train},
};
use indicatif::HumanCount;

use super::{Context, PipelineArguments, output};

/// More classes than this are counted and not listed.
const LISTED_CLASSES: usize = 12;

pub(super) fn run(arguments: &PipelineArguments, context: &Context) -> Result<ExitCode> {
    let report = train(&arguments.read()?, &context.progress)?;
    if context.json {
        output::print_json(&report)?;
    } else {
        output::print(&describe_train(&report))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What stage 2 did: rows, metrics beside the baseline, and where everything lies.
pub(super) fn describe_train(report: &TrainReport) -> String {
    let classes = &report.classes.classes;
    let mut text = String::new();
    let row = |name: &str, counts: [usize; 3]| {
        let counts = counts.map(|count| HumanCount(count as u64).to_string());
        std::iter::once(name.to_string())
            .chain(counts)
            .collect::<Vec<_>>()
    };
    let mut lines = vec![
        ["rows", "train", "validation", "test"]
            .map(String::from)
            .to_vec(),
    ];
    if classes.len() <= LISTED_CLASSES {
        lines.extend(
            classes
                .iter()
                .map(|class| row(&class.label, [class.train, class.validation, class.test])),
        );
    }
    let total = |of: fn(&frostbert::data::ClassCount) -> usize| classes.iter().map(of).sum();
    lines.push(row(
        &format!("all {} labels", classes.len()),
        [
            total(|class| class.train),
            total(|class| class.validation),
            total(|class| class.test),
        ],
    ));
    text.push_str(&indent(&output::align(&lines), "data"));

    let metrics = &report.metrics;
    let fitted = match metrics.epochs {
        0 => "fitted in full batch".to_string(),
        epochs => format!("epoch {} of {epochs} kept", metrics.best_epoch),
    };
    text.push_str(&format!(
        "head        {fitted}, temperature {:.2}, {:.1} s\n",
        metrics.temperature, report.seconds
    ));
    let parts: Vec<_> = measured_parts(metrics).collect();
    text.push_str(&indent(&output::metrics_table(&parts), "metrics"));
    if let Some(baseline) = &metrics.baseline {
        let label = classes.get(baseline.label).map_or("", |class| &class.label);
        text.push_str(&format!(
            "baseline    always `{label}`: accuracy {:.3}, macro_f1 {:.3} on test\n",
            baseline.accuracy, baseline.macro_f1
        ));
    }
    let run = report.run.display();
    text.push_str(&format!("run         {run}\n"));
    text.push_str(&format!(
        "next        frostbert predict {run} --text \"...\"\n"
    ));
    text
}

fn indent(block: &str, title: &str) -> String {
    let lines = block.lines().enumerate().map(|(number, line)| {
        format!("{:<12}{line}", if number == 0 { title } else { "" })
            .trim_end()
            .to_string()
            + "\n"
    });
    lines.collect()
}

//! `frostbert precision-report`: compares f32, f16 and int8.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use frostbert::{
    cache::wording::counted,
    internals::experiment::precision::{LayerError, PrecisionReport, PrecisionRow, report},
};
use indicatif::HumanCount;

use super::{Context, PipelineArguments, output, screen};

#[derive(Debug, Args)]
pub(super) struct PrecisionReportArguments {
    #[command(flatten)]
    pipeline: PipelineArguments,
    /// Number of texts whose states are compared layer by layer; the head is trained on all
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    documents: u32,
}

pub(super) fn run(arguments: &PrecisionReportArguments, context: &Context) -> Result<ExitCode> {
    let pipeline = arguments.pipeline.read(context)?;
    let report =
        report(&pipeline, arguments.documents as usize, &context.machine, &context.progress)?;
    if context.json {
        output::print_json(&report)?
    } else {
        output::print(&describe(&report))?
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns one line for each precision, and then one for each layer of those other than f32.
fn describe(report: &PrecisionReport) -> String {
    let metric = report.precisions.iter().find_map(|row| row.metric);
    let titles = ["precision", "device", "tokens/s", "x f32", "mean cosine", "least"];
    let mut titles: Vec<String> = titles.map(String::from).to_vec();
    if let Some(metric) = metric {
        titles.extend([metric.in_words(), "change".into(), "95 % interval".into()]);
    }
    let mut lines = vec![titles];
    let first = &report.precisions[0];
    let runs = report.precisions.iter().filter(|row| row.reason.is_none());
    lines.extend(runs.map(|row| line(row, first, metric.is_some())));
    let mut text = screen::align(&lines);
    for row in &report.precisions {
        if let Some(reason) = &row.reason {
            text.push_str(&format!("{}: not run, {reason}\n", row.precision));
        }
    }
    text.push_str(&format!(
        "\ncompared with f32, over {} of {}\n",
        counted(report.tokens, "token"),
        counted(report.documents, "text")
    ));
    let titles = ["precision", "layer", "mean cosine", "least", "largest error"];
    let mut lines = vec![titles.map(String::from).to_vec()];
    for row in &report.precisions {
        let layers = row.layers.iter();
        lines.extend(layers.map(|layer| {
            let [mean, least] = cosines(layer);
            let largest = format!("{:.4}", layer.max_error);
            let number = layer.layer.to_string();
            vec![row.precision.into(), number, mean, least, largest]
        }));
    }
    text.push_str(&screen::align(&lines));
    text
}

fn line(row: &PrecisionRow, first: &PrecisionRow, has_metric: bool) -> Vec<String> {
    let or_nothing = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    let speed = row.tokens_per_second;
    let ratio = speed.zip(first.tokens_per_second);
    let [mean, least] = match row.layers.last() {
        Some(last) => cosines(last),
        None => ["-".into(), "-".into()],
    };
    let mut line = vec![
        row.precision.into(),
        or_nothing(row.device.clone()),
        or_nothing(speed.map(|speed| HumanCount(speed as u64).to_string())),
        or_nothing(ratio.map(|(own, first)| format!("{:.2}", own / first))),
        mean,
        least,
    ];
    if has_metric {
        let interval = row.difference_ci;
        let interval = interval.map(|[low, high]| format!("{low:+.4} to {high:+.4}"));
        line.extend([
            or_nothing(row.value.map(|value| format!("{value:.4}"))),
            or_nothing(row.difference.map(|change| format!("{change:+.4}"))),
            or_nothing(interval),
        ]);
    }
    line
}

/// Formats the mean and the lowest cosine similarity of a layer.
fn cosines(layer: &LayerError) -> [String; 2] {
    [layer.mean_cosine, layer.least_cosine].map(|cosine| format!("{cosine:.5}"))
}

//! What commands have in common when they print: JSON, tables of numbers, sizes.

use std::io::Write;

use anyhow::Result;
use frostbert::metrics::ClassificationMetrics;
use indicatif::{BinaryBytes, HumanCount};
use serde::Serialize;

use super::machine::peak_rss_bytes;

/// Prints a value as one JSON object. A reader that went away is no error.
pub(super) fn print_json(value: &impl Serialize) -> Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

/// Prints text to stdout. A reader that went away is no error.
pub(super) fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// A report of stage 1 as JSON, with the memory that the process took.
pub(super) fn extract_json(
    report: &frostbert::pipeline::extract::ExtractReport,
) -> Result<serde_json::Value> {
    let mut value = serde_json::to_value(report)?;
    value["peak_rss_bytes"] = peak_rss_bytes().into();
    Ok(value)
}

/// What stage 1 did, in two lines.
pub(super) fn describe_extract(report: &frostbert::pipeline::extract::ExtractReport) -> String {
    let count = HumanCount;
    let mut text = format!(
        "cache       {}\n            {} texts, {} distinct: {} computed, {} reused; {} truncated\n",
        report.cache.display(),
        count(report.documents),
        count(report.unique),
        count(report.computed),
        count(report.reused),
        count(report.truncated),
    );
    if report.computed > 0 {
        text.push_str(&format!(
            "            {} tokens in {:.1} s on {} ({} tokens/s), {} written\n",
            count(report.tokens),
            report.seconds,
            report.device,
            count(report.tokens_per_second as u64),
            bytes(report.bytes_written),
        ));
    }
    text
}

/// A number of bytes for people.
pub(super) fn bytes(bytes: u64) -> String {
    BinaryBytes(bytes).to_string()
}

/// The metrics that are shown to people, of several parts side by side, with intervals.
pub(super) fn metrics_table(parts: &[(&str, &ClassificationMetrics)]) -> String {
    let mut lines = vec![
        std::iter::once("metric")
            .chain(parts.iter().map(|(name, _)| *name))
            .map(String::from)
            .collect(),
    ];
    let columns: Vec<Vec<(&str, String)>> =
        parts.iter().map(|(_, metrics)| cells(metrics)).collect();
    for (row, (name, _)) in columns.first().into_iter().flatten().enumerate() {
        let mut line = vec![name.to_string()];
        line.extend(columns.iter().map(|column| column[row].1.clone()));
        lines.push(line);
    }
    align(&lines)
}

fn cells(metrics: &ClassificationMetrics) -> Vec<(&'static str, String)> {
    let m = metrics;
    [
        ("accuracy", m.accuracy, m.accuracy_ci),
        ("macro_f1", m.macro_f1, m.macro_f1_ci),
        ("weighted_f1", m.weighted_f1, m.weighted_f1_ci),
        ("mcc", m.mcc, m.mcc_ci),
        ("roc_auc", m.roc_auc, m.roc_auc_ci),
        ("log_loss", m.log_loss, m.log_loss_ci),
        ("brier", m.brier, m.brier_ci),
        ("ece", m.ece, m.ece_ci),
    ]
    .map(|(name, value, interval)| {
        let value = value.map_or("-".to_string(), |value| format!("{value:.3}"));
        let interval = interval.map_or(String::new(), |[low, high]| {
            format!(" [{low:.3}, {high:.3}]")
        });
        (name, value + &interval)
    })
    .to_vec()
}

/// Lines of cells as columns, two spaces between them, without space at the ends of lines.
pub(super) fn align(lines: &[Vec<String>]) -> String {
    let n_columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        lines
            .iter()
            .filter_map(|line| line.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..n_columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let cells = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

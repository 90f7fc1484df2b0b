//! The report of a sweep for people.

use frostbert::{
    cache::wording::counted,
    internals::{
        config::settings::show,
        report::summary::summary,
        sweep::{NestedScore, SweepReport},
    },
};
use indicatif::HumanCount;

use super::{
    output,
    train_report::{describe_train, indent},
};

/// What a sweep did: the heads in order, what the settings do, and the best head as a run.
pub(super) fn describe_sweep(report: &SweepReport) -> String {
    let (seconds, heads) = (report.seconds, counted(report.heads, "head"));
    let mut text = if report.epochs > 0.0 {
        format!(
            "sweep       {heads}, {:.1} epochs each, in {seconds:.1} s: {} head-samples/s\n",
            report.epochs,
            HumanCount(report.head_samples_per_second as u64),
        )
    } else {
        format!("sweep       {heads} without epochs, in {seconds:.1} s\n")
    };
    for block in summary(&report.findings) {
        text.push_str(&indent(&output::align(&block.lines), block.title));
    }
    if let Some(nested) = &report.nested {
        text.push_str(&indent(&nested_sentence(nested), "nested"));
        text.push_str(&indent(&output::align(&nested_lines(nested)), ""));
    }
    text.push_str("\nthe best of them, as a run\n");
    text.push_str(&describe_train(&report.winner));
    text
}

/// What choosing and training are worth together.
fn nested_sentence(nested: &NestedScore) -> String {
    let interval = nested.interval;
    let interval = interval.map(|[low, high]| format!(" [{low:.3}, {high:.3}]"));
    format!(
        "{} {}{}: nested cross-validation: an unbiased estimate of selecting and training\n",
        nested.metric.in_words(),
        score_cell(nested.score),
        interval.unwrap_or_default()
    )
}

/// Fold after fold.
fn nested_lines(nested: &NestedScore) -> Vec<Vec<String>> {
    let titles = ["fold", "chosen", "inner", "epochs", "on the fold"];
    let mut lines = vec![titles.map(String::from).to_vec()];
    lines.extend(nested.folds.iter().enumerate().map(|(fold, own)| {
        let settings = own.settings.iter();
        let settings: Vec<String> =
            settings.map(|(key, value)| format!("{key} = {}", show(value))).collect();
        vec![
            fold.to_string(),
            settings.join(", "),
            score_cell(own.inner),
            own.epochs.to_string(),
            score_cell(own.score),
        ]
    }));
    lines
}

fn score_cell(score: Option<f64>) -> String {
    score.map_or("-".into(), |score| format!("{score:.3}"))
}

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

use super::{screen::Screen, train_report::describe_train};

/// What a sweep did: the heads in order, what the settings do, and the best head as a run.
pub(super) fn describe_sweep(report: &SweepReport, screen: &mut Screen) {
    let (seconds, heads) = (report.seconds, counted(report.heads, "head"));
    screen.text(&if report.epochs > 0.0 {
        format!(
            "sweep       {heads}, {:.1} epochs each, in {seconds:.1} s: {} head-samples/s\n",
            report.epochs,
            HumanCount(report.head_samples_per_second as u64),
        )
    } else {
        format!("sweep       {heads} without epochs, in {seconds:.1} s\n")
    });
    for block in summary(&report.findings) {
        screen.table_with_best(block.title, &block.lines, &block.best);
    }
    if let Some(nested) = &report.nested {
        screen.sentences("nested", &[nested_sentence(nested)]);
        screen.table("", &nested_lines(nested));
    }
    screen.text("\nthe best of them, as a run\n");
    describe_train(&report.winner, screen);
}

/// What choosing and training are worth together.
fn nested_sentence(nested: &NestedScore) -> String {
    let interval = nested.interval;
    let interval = interval.map(|[low, high]| format!(" [{low:.3}, {high:.3}]"));
    format!(
        "{} {}{}: nested cross-validation: an unbiased estimate of selecting and training",
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

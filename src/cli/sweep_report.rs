//! Formats the report of a sweep for people.

use frostbert::{
    Metric, TaskMetrics,
    cache::wording::counted,
    internals::{
        config::settings::show,
        report::summary::summary,
        sweep::{BiasCorrected, NestedScore, SweepReport},
    },
};
use indicatif::HumanCount;

use super::{screen::Screen, train_report::describe_train};

/// Describes a sweep: the heads in order, the effects of the settings, and the best head as a run.
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
    if let Some(corrected) = &report.bias_corrected {
        screen.sentences("winner", &corrected_sentences(report, corrected));
    }
    if let Some(nested) = &report.nested {
        screen.sentences("nested", &[nested_sentence(nested)]);
        screen.table("", &nested_lines(nested));
    }
    screen.text("\nthe best of them, as a run\n");
    describe_train(&report.winner, screen);
}

/// What the winner is worth without the luck of its choice, and what a new test set would score.
fn corrected_sentences(report: &SweepReport, figure: &BiasCorrected) -> Vec<String> {
    let (metric, corrected) = (figure.metric, &figure.corrected);
    let halves = report.findings.leaderboard.rows.iter().any(|row| row.rung.is_some());
    let choice = match (figure.candidates, halves) {
        (1, _) => "without a choice among settings".to_string(),
        (n, false) => format!("corrected for choosing the best of {n}"),
        (n, true) => format!("corrected for choosing the best of the {n} trained to the end"),
    };
    let mut sentences = vec![format!(
        "{} {} on the rows it was chosen by; {choice}: {}{}",
        metric.in_words(),
        score_cell(report.best.validation.value(metric)),
        score_cell(Some(corrected.score)),
        interval_cell(corrected.ci),
    )];
    if figure.epoch_in_score {
        sentences.push(
            "the rows that it is measured on also chose its epoch, which this does not correct"
                .to_string(),
        );
    }
    if let Some([low, high]) = corrected.prediction_interval {
        let test = report.best.test.as_ref().filter(|test| !is_tuned(metric, test));
        let scored = test.and_then(|test| test.scores().value(metric)).map(|score| {
            let lies = if (low..=high).contains(&score) { "inside" } else { "outside" };
            format!("; the test part's {score:.3} lies {lies}")
        });
        sentences.push(format!(
            "a new test set of {} would score {low:.3} to {high:.3} (95 %){}",
            counted(figure.test_rows, "row"),
            scored.unwrap_or_default()
        ));
    }
    sentences
}

/// Whether the winner's metric depends on what is tuned after the choice: heads are compared with temperature 1 and
/// plain thresholds.
fn is_tuned(metric: Metric, test: &TaskMetrics) -> bool {
    let has_thresholds = matches!(test, TaskMetrics::Multilabel(_) | TaskMetrics::Qa(_));
    metric.measures_probabilities() || has_thresholds
}

/// What choosing and training are worth together.
fn nested_sentence(nested: &NestedScore) -> String {
    format!(
        "{} {}{}: nested cross-validation: an unbiased estimate of selecting and training",
        nested.metric.in_words(),
        score_cell(nested.score),
        interval_cell(nested.interval)
    )
}

/// Returns a table of the folds.
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

fn interval_cell(interval: Option<[f64; 2]>) -> String {
    interval.map(|[low, high]| format!(" [{low:.3}, {high:.3}]")).unwrap_or_default()
}

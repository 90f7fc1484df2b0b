//! Formats the report of a single trained head for people.

use frostbert::internals::{
    metrics::metric::Metric,
    tasks::{
        TaskMetrics,
        measure::{ChosenNumber, RunMetrics, measured_parts},
    },
    training::train::TrainReport,
};
use indicatif::HumanCount;

use super::{output, screen::Screen};

/// If there are more classes than this, they are counted instead of listed.
const LISTED_CLASSES: usize = 12;

/// Describes what stage 2 did: the rows, the metrics next to the baseline, and where the results are.
pub(super) fn describe_train(report: &TrainReport, screen: &mut Screen) {
    let metrics = &report.metrics;
    screen.table("data", &rows(report));
    screen.text(&describe_head(report));
    let parts: Vec<_> = measured_parts(metrics).collect();
    screen.table("metrics", &output::metrics_table(&parts));
    screen.text(&describe_baseline(metrics, report.is_cosine));
    if let Some(test) = &metrics.test {
        let names = report.classes.classes.iter();
        let labels: Vec<String> = names.map(|class| class.label.clone()).collect();
        for (number, table) in output::class_tables(test, &labels).iter().enumerate() {
            screen.table(if number == 0 { "test" } else { "" }, table);
        }
    }
    screen.sentences("checks", &report.checks);
    let run = report.run.display();
    let next =
        if report.reads_pairs { "--text \"...\" --text-pair \"...\"" } else { "--text \"...\"" };
    screen.as_it_is(&format!("run         {run}"));
    if let Some(page) = &report.report {
        screen.as_it_is(&format!("report      {}", page.display()));
    }
    screen.as_it_is(&format!("next        frostbert predict {run} {next}"));
}

/// Returns a table of the rows of each part.
fn rows(report: &TrainReport) -> Vec<Vec<String>> {
    let header = ["rows", "train", "validation", "test"].map(String::from);
    let mut lines = vec![header.to_vec()];
    let row = |name: &str, counts: [usize; 3]| {
        let counts = counts.map(|count| HumanCount(count as u64).to_string());
        std::iter::once(name.to_string()).chain(counts).collect()
    };
    let classes = &report.classes.classes;
    if !classes.is_empty() {
        if classes.len() <= LISTED_CLASSES {
            lines.extend(
                classes
                    .iter()
                    .map(|class| row(&class.label, [class.train, class.validation, class.test])),
            );
        }
        let total =
            |of: fn(&frostbert::internals::data::ClassCount) -> usize| classes.iter().map(of).sum();
        let unit = if report.task == "tokens" { "tags" } else { "labels" };
        lines.push(row(
            &format!("all {} {unit}", classes.len()),
            [
                total(|class| class.train),
                total(|class| class.validation),
                total(|class| class.test),
            ],
        ));
    }
    let by_part = |count: &dyn Fn(&str) -> usize| ["train", "validation", "test"].map(count);
    if !report.values.is_empty() {
        let rows_of = |name: &str| {
            let values = report.values.iter();
            let own = values.filter(|value| part(value.part) == name);
            own.map(|value| value.rows).sum()
        };
        lines.push(row("values", by_part(&rows_of)));
    }
    if !report.questions.is_empty() {
        let of = |name: &str, count: fn(&frostbert::internals::data::QuestionSummary) -> usize| {
            let questions = report.questions.iter();
            let own = questions.filter(|summary| part(summary.part) == name);
            own.map(count).sum()
        };
        lines.push(row("questions", by_part(&|name| of(name, |q| q.questions))));
        lines.push(row("without an answer", by_part(&|name| of(name, |q| q.impossible))));
        lines.push(row("contexts", by_part(&|name| of(name, |q| q.contexts))));
    }
    lines
}

fn part(part: frostbert::internals::data::Part) -> &'static str {
    frostbert::internals::data::example::part_name(part)
}

fn describe_head(report: &TrainReport) -> String {
    let metrics = &report.metrics;
    let mut facts = vec![match metrics.epochs {
        0 => "no epochs".to_string(),
        epochs => format!("epoch {} of {epochs} kept", metrics.best_epoch),
    }];
    if let Some(temperature) = metrics.temperature {
        facts.push(format!("temperature {temperature:.2}"));
    }
    if let Some(threshold) = metrics.no_answer_threshold {
        facts.push(format!("no answer above {threshold:.2}"));
    }
    facts.push(format!("{:.1} s", report.seconds));
    let mut text = format!("head        {}\n", facts.join(", "));
    if let Some(chosen) = &metrics.chosen {
        text.push_str(&format!("            {}\n", choice(chosen)));
    }
    // A winner that is trained again, on all rows, has no validation and a number of epochs that was chosen.
    if metrics.validation.is_some() && metrics.epochs > 0 && metrics.best_epoch == metrics.epochs {
        text.push_str(
            "            the last epoch was the best: more epochs may do better (train.epochs)\n",
        );
    }
    if let (Some(before), Some(TaskMetrics::Classification(after))) =
        (&metrics.before_calibration, &metrics.test)
    {
        let change = |(metric, name): (Metric, &str)| {
            let (before, after) = (before.value(metric)?, after.scores.value(metric)?);
            let worse = if after > before { " (worse)" } else { "" };
            Some(format!("{name} {before:.3} -> {after:.3}{worse}"))
        };
        let changes = [(Metric::Ece, "ECE"), (Metric::Brier, "Brier score")].into_iter();
        let changes: Vec<String> = changes.filter_map(change).collect();
        text.push_str(&format!(
            "            temperature scaling, on test: {}\n",
            changes.join(", ")
        ));
    }
    if let Some(profile) = &metrics.layer_profile {
        let shares =
            profile.iter().map(|layer| format!("{} {:.1} %", layer.layer, 100.0 * layer.share));
        text.push_str(&format!("layers      {}\n", shares.collect::<Vec<_>>().join("  ")));
    }
    text
}

/// What folds chose, and whether numbers that they did not try may do better.
fn choice(chosen: &ChosenNumber) -> String {
    let ChosenNumber { key, value, folds, metric, score, .. } = chosen;
    let choice =
        format!("{key} = {value} chosen by {folds} folds over train ({metric} {score:.3})");
    match chosen.beyond() {
        Some(other) => {
            format!(
                "{choice}, at the edge of the values tried: a {other} one may do better (head.{key})"
            )
        }
        None => choice,
    }
}

fn describe_baseline(metrics: &RunMetrics, is_cosine: bool) -> String {
    let Some(baseline) = &metrics.baseline else {
        return String::new();
    };
    let scores: Vec<String> = output::SHOWN
        .iter()
        .filter_map(|metric| {
            let value = baseline.metrics.get(metric.name())?.as_f64()?;
            Some(format!("{metric} {value:.3}"))
        })
        .take(4)
        .collect();
    let mut text = format!("baseline    {}: {} on test\n", baseline.description, scores.join(", "));
    if let Some(f1) = baseline.never_answering(Metric::F1) {
        text.push_str(&format!(
            "            always no answer: exact_match and f1 {f1:.3} on test\n"
        ));
    }
    if let Some(cosine) = baseline.metrics.get("cosine") {
        let scores = [Metric::Spearman, Metric::Pearson].map(|metric| {
            let value = cosine[metric.name()].as_f64().unwrap_or(f64::NAN);
            format!("{metric} {value:.3}")
        });
        text.push_str(&format!(
            "            the cosine of the two texts, without training: {} on test\n",
            scores.join(", ")
        ));
        let of_head = metrics.test.as_ref().and_then(|test| test.scores().value(Metric::Spearman));
        let of_cosine = cosine[Metric::Spearman.name()].as_f64();
        if of_head.zip(of_cosine).is_some_and(|(head, cosine)| head <= cosine) {
            text.push_str("            the head is no better than that\n");
        }
    }
    if metrics.is_no_better_than_trivial(is_cosine) {
        text.push_str("            the head is no better than that\n");
    }
    text
}

//! The sentence that says what a run is worth, and what to do next where something is wrong.

use frostbert_cache::wording::{counted, name_list, part_of};
use serde::Serialize;

use super::{
    numbers::{decimal, percent},
    run_files::RunFiles,
};
use crate::{
    config::names::{HeadKind, Task},
    data::{Part, example::part_name},
    metrics::{metric::Metric, scores::Scores},
    tasks::{
        TaskMetrics,
        measure::{Baseline, NEVER_ANSWERING},
        own_metric,
    },
    training::checks::{Check, NearDuplicatesOfPart},
};

/// Fewer rows of a class than this to learn from are few.
const FEW_ROWS: usize = 10;

/// An interval of a share that is wider than this says little.
const WIDE_INTERVAL: f64 = 0.1;

/// How much better than on unseen rows a head is on its own where it has learned by heart.
const OVERFITTED: f64 = 0.1;

/// From this share of doubtful labels on they are worth a look before anything else.
const MANY_DOUBTFUL: f64 = 0.03;

/// From this share of near copies on the metric means less.
const MANY_COPIES: f64 = 0.01;

/// From this share of texts that were cut off on it is worth to read more of them.
const MANY_CUT: f64 = 0.05;

/// An expected calibration error above this misleads.
const MISCALIBRATED: f64 = 0.1;

/// The first part of a page.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct SummaryView {
    pub(super) sentence: String,
    pub(super) advice: Vec<Advice>,
}

/// Something that is wrong, and what can be done.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Advice {
    pub(super) finding: String,
    pub(super) cure: String,
}

/// What else decides which advice is given.
pub(super) struct Circumstances<'a> {
    /// The rows of each class that the head learned from.
    pub(super) trained_on: &'a [(String, usize)],
    /// The share of texts that were cut off, where it is known.
    pub(super) share_cut: Option<f64>,
}

impl SummaryView {
    pub(super) fn of(run: &RunFiles, circumstances: &Circumstances<'_>) -> SummaryView {
        SummaryView { sentence: sentence(run), advice: advice(run, circumstances) }
    }
}

fn sentence(run: &RunFiles) -> String {
    let Some((part, metrics)) = run.judged() else {
        return "No rows were kept to measure the head on: it has learned from all of them.".into();
    };
    let kind = if part == Part::Test { "unseen" } else { "validation" };
    let noun = format!("{kind} {}", run.noun());
    let n = |rows: usize| counted(rows, &noun);
    let scores = metrics.scores();
    let baseline = run.metrics.baseline.as_ref().filter(|_| part == Part::Test);
    match metrics {
        TaskMetrics::Classification(own) => format!(
            "Of {} the head labels {} right{}{}.",
            n(own.n),
            share(scores, Metric::Accuracy),
            interval(scores, Metric::Accuracy),
            answering(baseline, Metric::Accuracy, percent)
        ),
        TaskMetrics::Multilabel(own) => format!(
            "Of {} the head gets all labels right for {}{}; label by label its micro F1 is {}{}.",
            n(own.n),
            share(scores, Metric::Accuracy),
            interval(scores, Metric::Accuracy),
            value_with_interval(scores, Metric::MicroF1),
            answering(baseline, Metric::MicroF1, decimal)
        ),
        TaskMetrics::Regression(own) => numbers_sentence(run, &n(own.n), scores, baseline),
        TaskMetrics::Tokens(own) if scores.value(Metric::EntityF1Strict).is_some() => format!(
            "In {} the head finds entities with an F1 of {}: {} of the true ones are found, and {} of those that it \
             marks are right.",
            n(own.n),
            value_with_interval(scores, Metric::EntityF1Strict),
            share(scores, Metric::EntityRecallStrict),
            share(scores, Metric::EntityPrecisionStrict),
        ),
        TaskMetrics::Tokens(own) => format!(
            "Of {} in {} the head tags {} right{}{}.",
            counted(own.n_words, "word"),
            n(own.n),
            share(scores, Metric::TokenAccuracy),
            interval(scores, Metric::TokenAccuracy),
            answering(baseline, Metric::TokenAccuracy, percent)
        ),
        TaskMetrics::Qa(own) => format!(
            "Of {} the head answers {} exactly as people did{}, with a mean F1 over words of {}{}.",
            n(own.n),
            share(scores, Metric::ExactMatch),
            interval(scores, Metric::ExactMatch),
            value_with_interval(scores, Metric::F1),
            answering(baseline, Metric::F1, decimal)
        ),
    }
}

fn numbers_sentence(
    run: &RunFiles,
    rows: &str,
    scores: &Scores,
    baseline: Option<&Baseline>,
) -> String {
    let correlation = match scores.value(Metric::Spearman) {
        Some(_) => format!(
            "follow the true ones with a Spearman correlation of {}",
            value_with_interval(scores, Metric::Spearman)
        ),
        None => "do not differ enough for a correlation".to_string(),
    };
    // A cosine has no unit of the truth.
    let error = scores.value(Metric::Mae).filter(|_| run.task() != Task::Similarity);
    let error = error.map_or(String::new(), |mae| {
        let trivial = baseline.and_then(|baseline| {
            let mae = baseline.metrics.get(Metric::Mae.name())?.as_f64()?;
            Some(format!(", where {} is off by {}", baseline.description, decimal(mae)))
        });
        format!(", and are off by {} on average{}", decimal(mae), trivial.unwrap_or_default())
    });
    format!("On {rows} the predicted numbers {correlation}{error}.")
}

/// What a trivial answer would get; nothing where it is not known.
fn answering(baseline: Option<&Baseline>, metric: Metric, show: fn(f64) -> String) -> String {
    let Some((description, value)) = baseline.and_then(|baseline| baseline.best(metric)) else {
        return String::new();
    };
    let subject = match description.strip_prefix("always ") {
        Some(answer) => format!("always answering {answer}"),
        None if description == NEVER_ANSWERING => description.to_string(),
        None if description.starts_with("every word ") => format!("tagging {description}"),
        None => format!("answering {description},"),
    };
    format!("; {subject} would get {}", show(value))
}

fn share(scores: &Scores, metric: Metric) -> String {
    scores.value(metric).map_or_else(|| percent(f64::NAN), percent)
}

/// The interval of a share, in brackets; nothing where it has none.
fn interval(scores: &Scores, metric: Metric) -> String {
    scores.interval(metric).map_or(String::new(), |[low, high]| {
        format!(" (95 % interval {:.1} to {:.1})", 100.0 * low, 100.0 * high)
    })
}

fn value_with_interval(scores: &Scores, metric: Metric) -> String {
    let interval = scores
        .interval(metric)
        .map_or(String::new(), |[low, high]| format!(" (95 % interval {low:.3} to {high:.3})"));
    decimal(scores.value(metric).unwrap_or(f64::NAN)) + &interval
}

fn advice(run: &RunFiles, circumstances: &Circumstances<'_>) -> Vec<Advice> {
    let all = [
        no_test(run),
        no_better(run),
        leaks(run),
        near_copies(run),
        doubtful_labels(run),
        overfitted(run),
        wide_interval(run),
        few_rows(circumstances.trained_on),
        without_support(run),
        cut_off(circumstances.share_cut),
        miscalibrated(run),
        last_epoch(run),
    ];
    all.into_iter().flatten().collect()
}

fn some(finding: String, cure: &str) -> Option<Advice> {
    Some(Advice { finding, cure: cure.into() })
}

fn no_test(run: &RunFiles) -> Option<Advice> {
    match run.judged() {
        Some((Part::Test, _)) => None,
        Some(_) => some(
            "There are no test rows: the metrics are of the validation rows, which also chose the epoch.".into(),
            "Name a test file in data.test, or give data.split.test a share, before you report a number.",
        ),
        None => some(
            "There are neither test nor validation rows.".into(),
            "Name a test file in data.test, or give data.split.test a share.",
        ),
    }
}

fn own_score(run: &RunFiles, part: Part) -> Option<f64> {
    run.metrics_of(part)?.scores().value(own_metric(run.task(), run.labels()))
}

fn no_better(run: &RunFiles) -> Option<Advice> {
    let is_cosine = run.head.kind == HeadKind::Cosine.to_string();
    if !run.metrics.is_no_better_than_trivial(is_cosine) {
        return None;
    }
    let baseline = run.metrics.baseline.as_ref()?;
    let best = baseline.best(own_metric(run.task(), run.labels()));
    let trivial = best.map_or(baseline.description.as_str(), |(description, _)| description);
    some(
        format!("The head is no better than a trivial answer ({trivial})."),
        "Look at the labels first; then try another pooling, more layers, a higher learning rate or more epochs.",
    )
}

fn leaks(run: &RunFiles) -> Option<Advice> {
    let checks = run.checks.as_ref()?;
    let of_train = checks.data.shared.iter().filter(|shared| shared.first == Part::Train);
    let found: Vec<String> = of_train.flat_map(|shared| shared.warnings()).collect();
    (!found.is_empty()).then(|| Advice {
        finding: format!("{}.", found.join("; ")),
        cure: "Remove them from one of the two: what the head has learned from says nothing about new texts.".into(),
    })
}

fn near_copies(run: &RunFiles) -> Option<Advice> {
    let Check::Done(near) = &run.checks.as_ref()?.near_duplicates else {
        return None;
    };
    let many = |part: &&NearDuplicatesOfPart| {
        part.count as f64 > MANY_COPIES * part.compared.max(1) as f64
    };
    let found: Vec<String> =
        near.parts.iter().filter(many).map(NearDuplicatesOfPart::in_words).collect();
    (!found.is_empty()).then(|| Advice {
        finding: format!("{}.", found.join("; ")),
        cure: "On texts that are new in earnest the head will do worse: split by where texts come from, or drop near copies."
            .into(),
    })
}

fn doubtful_labels(run: &RunFiles) -> Option<Advice> {
    let Check::Done(errors) = &run.checks.as_ref()?.label_errors else {
        return None;
    };
    if (errors.count as f64) < MANY_DOUBTFUL * errors.judged as f64 {
        return None;
    }
    some(
        format!("{} look wrong.", part_of(errors.count, errors.judged, "label")),
        "Correct the labels that are listed under Data, and those like them, before you tune anything.",
    )
}

fn overfitted(run: &RunFiles) -> Option<Advice> {
    let metric = own_metric(run.task(), run.labels());
    let (part, _) = run.judged()?;
    let (train, unseen) = (own_score(run, Part::Train)?, own_score(run, part)?);
    if !metric.higher_is_better() || train - unseen < OVERFITTED {
        return None;
    }
    some(
        format!(
            "On the rows that the head learned from, {} is {}, on others {}: it has learned some of them by heart.",
            metric.in_words(),
            decimal(train),
            decimal(unseen)
        ),
        "More rows help most; else more dropout or weight decay, fewer epochs, a smaller head, or head.pca.",
    )
}

fn wide_interval(run: &RunFiles) -> Option<Advice> {
    let (part, metrics) = run.judged()?;
    let metric = own_metric(run.task(), run.labels());
    let [low, high] = metrics.scores().interval(metric)?;
    if high - low <= WIDE_INTERVAL || run.task() == Task::Similarity {
        return None;
    }
    some(
        format!(
            "{} say little: the 95 % interval of {} is {:.2} wide.",
            counted(run.rows_of(part).len(), &format!("{} row", part_name(part))),
            metric.in_words(),
            high - low
        ),
        "Four times the rows halve it. Compare two heads with `frostbert runs diff A B`: their intervals alone do not tell.",
    )
}

fn few_rows(trained_on: &[(String, usize)]) -> Option<Advice> {
    let few: Vec<&str> = trained_on
        .iter()
        .filter(|(_, rows)| *rows < FEW_ROWS)
        .map(|(label, _)| label.as_str())
        .collect();
    (!few.is_empty()).then(|| Advice {
        finding: format!(
            "{} {} fewer than {FEW_ROWS} rows to learn from: {}.",
            counted(few.len(), "class"),
            if few.len() == 1 { "has" } else { "have" },
            name_list(few.iter().copied())
        ),
        cure: "Label more of them, merge classes that mean nearly the same, or try train.class_weights = \"balanced\"."
            .into(),
    })
}

fn without_support(run: &RunFiles) -> Option<Advice> {
    let (part, metrics) = run.judged()?;
    let supports: Vec<u64> = match metrics {
        TaskMetrics::Classification(own) => own.per_class.iter().map(|one| one.support).collect(),
        TaskMetrics::Multilabel(own) => own.per_class.iter().map(|one| one.support).collect(),
        _ => return None,
    };
    let missing: Vec<&str> = run
        .labels()
        .iter()
        .zip(supports)
        .filter(|(_, support)| *support == 0)
        .map(|(label, _)| label.as_str())
        .collect();
    (!missing.is_empty()).then(|| Advice {
        finding: format!(
            "{} {} no {} row: {}.",
            counted(missing.len(), "class"),
            if missing.len() == 1 { "has" } else { "have" },
            part_name(part),
            name_list(missing.iter().copied())
        ),
        cure:
            "Nothing is known of how well they are told apart: add rows of them to the test file."
                .into(),
    })
}

fn cut_off(share_cut: Option<f64>) -> Option<Advice> {
    let share = share_cut.filter(|share| *share > MANY_CUT)?;
    some(
        format!("The ends of {} of the texts were cut off.", percent(share)),
        "Raise cache.max_length, or read them in windows with cache.overflow = \"windows\".",
    )
}

fn miscalibrated(run: &RunFiles) -> Option<Advice> {
    let (_, metrics) = run.judged()?;
    let ece = metrics.scores().value(Metric::Ece)?;
    if ece <= MISCALIBRATED || run.task() != Task::Classification {
        return None;
    }
    some(
        format!("Confidences are off by {} on average.", percent(ece)),
        "Do not read them as probabilities: more validation rows give a better temperature.",
    )
}

fn last_epoch(run: &RunFiles) -> Option<Advice> {
    let metrics = &run.metrics;
    if metrics.validation.is_none() || metrics.epochs == 0 || metrics.best_epoch != metrics.epochs {
        return None;
    }
    some(
        "The last epoch was the best.".into(),
        "More may do better: raise train.epochs, or the learning rate.",
    )
}

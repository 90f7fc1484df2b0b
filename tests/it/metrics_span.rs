//! Answers scored by the rules of SQuAD, compared with those rules in Python: `scripts/fixtures/squad_rules.py`.

use std::collections::BTreeMap;

use frostbert::internals::metrics::{
    intervals::Bootstrap,
    metric::Metric,
    span::{
        AnsweredQuestion, NullScore, best_no_answer_threshold, evaluate, exact_match, f1,
        normalize_answer,
    },
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::metrics_oracle::{assert_equal, assert_intervals};

#[derive(Deserialize)]
struct Fixture {
    normalized: Vec<(String, String)>,
    questions: Vec<Question>,
    totals: Totals,
    thresholds: Vec<ThresholdCase>,
}

#[derive(Deserialize)]
struct Question {
    gold: Vec<String>,
    predicted: String,
    exact_match: f64,
    f1: f64,
}

/// The totals of the random questions, which come last.
#[derive(Deserialize)]
struct Totals {
    intervals: BTreeMap<String, [f64; 2]>,
    #[serde(flatten)]
    metrics: Value,
}

#[derive(Deserialize)]
struct ThresholdCase {
    margins: Vec<f64>,
    f1_if_answered: Vec<f64>,
    f1_if_null: Vec<f64>,
    best_f1: f64,
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("../fixtures/squad_rules.json")).unwrap()
}

fn answered(question: &Question) -> AnsweredQuestion {
    AnsweredQuestion { gold: question.gold.clone(), predicted: Some(question.predicted.clone()) }
}

#[test]
fn answers_are_normalised_as_in_python() {
    for (answer, expected) in fixture().normalized {
        assert_eq!(normalize_answer(&answer), expected, "{answer:?}");
    }
}

#[test]
fn every_question_scores_as_by_the_published_rules() {
    for question in fixture().questions {
        let Question { gold, predicted, .. } = &question;
        let got = evaluate(&[answered(&question)], None);
        let name = format!("{gold:?} answered {predicted:?}");
        assert_eq!(got.scores.value(Metric::ExactMatch), Some(question.exact_match), "{name}");
        assert!((got.scores.value(Metric::F1).unwrap() - question.f1).abs() <= 1e-9, "{name}");
        if let [gold] = gold.as_slice() {
            let is_exact = f64::from(u8::from(exact_match(predicted, gold)));
            assert_eq!(is_exact, question.exact_match, "{name}");
            assert!((f1(predicted, gold) - question.f1).abs() <= 1e-9, "{name}");
        }
    }
}

#[test]
fn questions_are_averaged_together_and_in_two_halves() {
    let fixture = fixture();
    let n_random = fixture.totals.metrics["n"].as_u64().unwrap() as usize;
    let first = fixture.questions.len() - n_random;
    let questions: Vec<_> = fixture.questions[first..].iter().map(answered).collect();
    assert_equal("means", &evaluate(&questions, None), &fixture.totals.metrics);
    assert_ne!(fixture.totals.metrics["no_answer"]["n"], json!(0));
    let with_intervals = evaluate(&questions, Some(Bootstrap::default()));
    assert_intervals(&with_intervals, &fixture.totals.intervals);
}

#[test]
fn the_no_answer_threshold_reaches_the_best_f1_of_any() {
    for case in fixture().thresholds {
        let scores: Vec<NullScore> = (0..case.margins.len())
            .map(|question| NullScore {
                margin: case.margins[question],
                f1_if_answered: case.f1_if_answered[question],
                f1_if_null: case.f1_if_null[question],
            })
            .collect();
        let threshold = best_no_answer_threshold(&scores);
        let f1 = scores.iter().map(|score| {
            if score.margin > threshold { score.f1_if_null } else { score.f1_if_answered }
        });
        let mean_f1 = f1.sum::<f64>() / scores.len() as f64;
        assert!((mean_f1 - case.best_f1).abs() <= 1e-9, "{scores:?}");
    }
}

//! Our metrics compared with scikit-learn, numpy and scipy.
//!
//! `scripts/fixtures/metrics_sklearn.py` makes the cases and the expected values.

use std::collections::BTreeMap;

use frostbert::internals::metrics::{
    ClassificationMetrics,
    baseline::majority_class,
    calibration::{softmax_rows, temperature},
    classification::evaluate,
    intervals::Bootstrap,
    metric::Metric,
};
use ndarray::Array2;
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    unit: u32,
    cases: Vec<Case>,
    bootstrap: Vec<BootstrapCase>,
    temperature: Vec<TemperatureCase>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    n_classes: usize,
    labels: Vec<usize>,
    /// Probabilities in units of `1 / unit`.
    units: Vec<Vec<u32>>,
    expected: Expected,
}

/// The values of scikit-learn are parsed with our own type, so a name that is not in the contract fails.
#[derive(Deserialize)]
struct Expected {
    #[serde(flatten)]
    metrics: ClassificationMetrics,
}

#[derive(Deserialize)]
struct BootstrapCase {
    n_classes: usize,
    labels: Vec<usize>,
    units: Vec<Vec<u32>>,
    intervals: BTreeMap<String, [f64; 2]>,
}

#[derive(Deserialize)]
struct TemperatureCase {
    labels: Vec<usize>,
    logits: Vec<Vec<f32>>,
    temperature: f64,
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("../fixtures/metrics_sklearn.json")).unwrap()
}

fn probabilities(units: &[Vec<u32>], unit: u32) -> Array2<f32> {
    Array2::from_shape_fn((units.len(), units[0].len()), |(row, class)| {
        (f64::from(units[row][class]) / f64::from(unit)) as f32
    })
}

fn is_near_or_undefined(got: Option<f64>, expected: Option<f64>, tolerance: f64) -> bool {
    match (got, expected) {
        (Some(got), Some(expected)) => (got - expected).abs() <= tolerance,
        (got, expected) => got == expected,
    }
}

#[test]
fn every_metric_equals_that_of_scikit_learn() {
    let fixture = fixture();
    for case in &fixture.cases {
        let got = evaluate(
            &case.labels,
            probabilities(&case.units, fixture.unit).view(),
            case.n_classes,
            None,
        );
        let expected = &case.expected.metrics;
        for metric in Metric::OF_CLASSES {
            let [got, expected] = [&got, expected].map(|metrics| metrics.scores.value(metric));
            let tolerance = if metric.needs_probabilities() { 1e-6 } else { 1e-9 };
            assert!(
                is_near_or_undefined(got, expected, tolerance),
                "{}: {metric} is {got:?}, scikit-learn says {expected:?}",
                case.name
            );
        }
    }
}

#[test]
fn every_class_and_the_confusion_matrix_equal_those_of_scikit_learn() {
    let fixture = fixture();
    for case in &fixture.cases {
        let got = evaluate(
            &case.labels,
            probabilities(&case.units, fixture.unit).view(),
            case.n_classes,
            None,
        );
        let expected = &case.expected.metrics;
        assert_eq!(got.n, case.labels.len());
        assert_eq!(got.confusion, expected.confusion, "{}", case.name);
        assert_eq!(got.per_class.len(), expected.per_class.len(), "{}", case.name);
        for (got, expected) in got.per_class.iter().zip(&expected.per_class) {
            assert_eq!(
                (got.label, got.support),
                (expected.label, expected.support),
                "{}",
                case.name
            );
            for (got, expected) in [
                (got.precision, expected.precision),
                (got.recall, expected.recall),
                (got.f1, expected.f1),
            ] {
                assert!((got - expected).abs() <= 1e-9, "{}: {got} is not {expected}", case.name);
            }
        }
    }
}

#[test]
fn the_baseline_equals_a_classifier_that_always_says_the_most_frequent_class() {
    let fixture = fixture();
    for case in &fixture.cases {
        let baseline = majority_class(&case.labels, &case.labels, case.n_classes).unwrap();
        let always = Array2::from_shape_fn((case.labels.len(), case.n_classes), |(_, class)| {
            f32::from(u8::from(class == baseline.label))
        });
        let metrics = evaluate(&case.labels, always.view(), case.n_classes, None);
        let always = [(Metric::Accuracy, baseline.accuracy), (Metric::MacroF1, baseline.macro_f1)];
        assert_eq!(metrics.scores.values(&always.map(|(metric, _)| metric)), always);
    }
}

#[test]
fn intervals_agree_with_a_bootstrap_in_numpy() {
    let fixture = fixture();
    for case in &fixture.bootstrap {
        let probabilities = probabilities(&case.units, fixture.unit);
        let metrics = evaluate(
            &case.labels,
            probabilities.view(),
            case.n_classes,
            Some(Bootstrap::default()),
        );
        let mut n_compared = 0;
        for metric in Metric::OF_CLASSES {
            let Some(expected) = case.intervals.get(metric.name()) else {
                continue;
            };
            let got = metrics.scores.interval(metric).unwrap();
            let close =
                got.iter().zip(expected).all(|(got, expected)| (got - expected).abs() < 0.01);
            assert!(
                close,
                "{} classes: {metric} in {got:?}, numpy says {expected:?}",
                case.n_classes
            );
            n_compared += 1;
        }
        assert_eq!(n_compared, case.intervals.len());
    }
}

#[test]
fn intervals_contain_the_metric() {
    let fixture = fixture();
    for case in &fixture.bootstrap {
        let probabilities = probabilities(&case.units, fixture.unit);
        let metrics = evaluate(
            &case.labels,
            probabilities.view(),
            case.n_classes,
            Some(Bootstrap::default()),
        );
        for metric in Metric::OF_CLASSES {
            let value = metrics.scores.value(metric).unwrap();
            let [low, high] = metrics.scores.interval(metric).unwrap();
            assert!(low < value && value < high, "{metric} {value} is outside {low} to {high}");
        }
    }
}

#[test]
fn intervals_are_the_same_for_any_number_of_threads() {
    let fixture = fixture();
    let case = &fixture.bootstrap[1];
    let probabilities = probabilities(&case.units, fixture.unit);
    let on_threads = |n_threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(n_threads).build().unwrap();
        pool.install(|| {
            evaluate(&case.labels, probabilities.view(), case.n_classes, Some(Bootstrap::default()))
        })
    };
    let one = on_threads(1);
    assert!(one.scores.interval(Metric::Ece).is_some());
    assert_eq!(one, on_threads(2));
    assert_eq!(one, on_threads(4));
}

#[test]
fn the_temperature_equals_that_of_scipy() {
    for case in fixture().temperature {
        let logits =
            Array2::from_shape_fn((case.logits.len(), 4), |(row, class)| case.logits[row][class]);
        let got = temperature(logits.view(), &case.labels);
        assert!((got / case.temperature - 1.0).abs() < 1e-6, "{got} is not {}", case.temperature);
    }
}

#[test]
fn scaling_by_the_temperature_lowers_the_loss_and_changes_no_prediction() {
    for case in fixture().temperature {
        let logits =
            Array2::from_shape_fn((case.logits.len(), 4), |(row, class)| case.logits[row][class]);
        let at = |temperature| {
            evaluate(&case.labels, softmax_rows(logits.view(), temperature).view(), 4, None)
        };
        let before = at(1.0);
        let after = at(temperature(logits.view(), &case.labels));
        let [lower, higher] =
            [&after, &before].map(|metrics| metrics.scores.value(Metric::LogLoss).unwrap());
        assert!(lower < higher);
        assert_eq!(after.confusion, before.confusion);
    }
}

//! Multi-label metrics and thresholds compared with scikit-learn, on cases of `scripts/fixtures/metrics_multilabel.py`.

use std::collections::BTreeMap;

use frostbert::internals::metrics::{
    baseline::majority_labels,
    intervals::Bootstrap,
    metric::Metric,
    multilabel::{evaluate, tune_thresholds},
};
use ndarray::Array2;
use serde::Deserialize;
use serde_json::Value;

use crate::metrics_oracle::{assert_equal, assert_intervals};

#[derive(Deserialize)]
struct Fixture {
    unit: u16,
    cases: Vec<Case>,
    bootstrap: BootstrapCase,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    truth: Vec<Vec<u8>>,
    /// Probabilities in units of `1 / unit`.
    units: Vec<Vec<u16>>,
    thresholds: Vec<f64>,
    tuned: Vec<f64>,
    expected: Value,
}

#[derive(Deserialize)]
struct BootstrapCase {
    truth: Vec<Vec<u8>>,
    units: Vec<Vec<u16>>,
    intervals: BTreeMap<String, [f64; 2]>,
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("../fixtures/metrics_multilabel.json")).unwrap()
}

fn matrix<T: Copy, U>(rows: &[Vec<T>], read: impl Fn(T) -> U) -> Array2<U> {
    Array2::from_shape_fn((rows.len(), rows[0].len()), |(row, label)| read(rows[row][label]))
}

#[test]
fn every_multilabel_metric_equals_that_of_scikit_learn() {
    let fixture = fixture();
    for case in fixture.cases {
        let truth = matrix(&case.truth, |has| has == 1);
        let probabilities = matrix(&case.units, |p| f32::from(p) / f32::from(fixture.unit));
        let got = evaluate(truth.view(), probabilities.view(), &case.thresholds, None);
        assert_equal(&case.name, &got, &case.expected);
    }
}

#[test]
fn tuned_thresholds_equal_the_best_of_all_by_scikit_learn() {
    let fixture = fixture();
    for case in fixture.cases {
        let truth = matrix(&case.truth, |has| has == 1);
        let probabilities = matrix(&case.units, |p| f32::from(p) / f32::from(fixture.unit));
        let got = tune_thresholds(truth.view(), probabilities.view());
        assert_eq!(got, case.tuned, "{}", case.name);
    }
}

#[test]
fn multilabel_intervals_agree_with_a_bootstrap_in_numpy() {
    let fixture = fixture();
    let case = fixture.bootstrap;
    let truth = matrix(&case.truth, |has| has == 1);
    let probabilities = matrix(&case.units, |p| f32::from(p) / f32::from(fixture.unit));
    let got = evaluate(truth.view(), probabilities.view(), &[0.5; 4], Some(Bootstrap::default()));
    assert_intervals(&got, &case.intervals);
}

#[test]
fn the_majority_labels_score_as_a_head_that_always_says_them() {
    for case in fixture().cases {
        let truth = matrix(&case.truth, |has| has == 1);
        let baseline = majority_labels(truth.view(), truth.view()).unwrap();
        let always = Array2::from_shape_fn(truth.dim(), |(_, label)| {
            f32::from(u8::from(baseline.labels.contains(&label)))
        });
        let half = vec![0.5; truth.ncols()];
        let metrics = evaluate(truth.view(), always.view(), &half, None);
        let always = [
            (Metric::Accuracy, baseline.accuracy),
            (Metric::MacroF1, baseline.macro_f1),
            (Metric::MicroF1, baseline.micro_f1),
        ];
        assert_eq!(metrics.scores.values(&always.map(|(metric, _)| metric)), always);
    }
}

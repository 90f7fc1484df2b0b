//! Regression metrics compared with scipy and scikit-learn, on cases of `scripts/fixtures/metrics_regression.py`.

use std::collections::BTreeMap;

use frostbert::internals::metrics::{
    baseline::mean_value, intervals::Bootstrap, metric::Metric, regression::evaluate,
};
use serde::Deserialize;
use serde_json::Value;

use crate::metrics_oracle::{assert_equal, assert_intervals};

#[derive(Deserialize)]
struct Fixture {
    cases: Vec<Case>,
    bootstrap: BootstrapCase,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    truth: Vec<f64>,
    predicted: Vec<f64>,
    expected: Value,
}

#[derive(Deserialize)]
struct BootstrapCase {
    truth: Vec<f64>,
    predicted: Vec<f64>,
    intervals: BTreeMap<String, [f64; 2]>,
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("../fixtures/metrics_regression.json")).unwrap()
}

#[test]
fn every_regression_metric_equals_that_of_scipy_and_scikit_learn() {
    for case in fixture().cases {
        let got = evaluate(&case.truth, &case.predicted, None);
        // Errors may be as large as 1e16, so they are compared relative to their size.
        let scale = case.expected["mse"].as_f64().unwrap().max(1.0);
        let scaled = |metrics: Value| {
            let mut metrics = metrics;
            for name in ["mse", "mae"] {
                metrics[name] = (metrics[name].as_f64().unwrap() / scale).into();
            }
            metrics
        };
        let got = scaled(serde_json::to_value(&got).unwrap());
        assert_equal(&case.name, &got, &scaled(case.expected));
    }
}

#[test]
fn regression_intervals_agree_with_a_bootstrap_in_numpy() {
    let case = fixture().bootstrap;
    let got = evaluate(&case.truth, &case.predicted, Some(Bootstrap::default()));
    assert_intervals(&got, &case.intervals);
}

#[test]
fn the_mean_value_scores_as_a_regressor_that_always_says_it() {
    for case in fixture().cases {
        let baseline = mean_value(&case.predicted, &case.truth).unwrap();
        let always = vec![baseline.value; case.truth.len()];
        let metrics = evaluate(&case.truth, &always, None);
        let always = [(Metric::Mse, baseline.mse), (Metric::Mae, baseline.mae)];
        assert_eq!(metrics.scores.values(&always.map(|(metric, _)| metric)), always);
    }
}

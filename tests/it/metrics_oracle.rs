//! Compares our metrics, as the JSON that users read, with the JSON of an oracle.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

/// The largest allowed difference between two computations of a number in f64.
const TOLERANCE: f64 = 1e-9;

/// Asserts that all names and lengths are the same, and that each number is within 1e-9.
pub(crate) fn assert_equal(name: &str, got: &impl Serialize, expected: &Value) {
    let got = serde_json::to_value(got).unwrap();
    let worst = worst_difference(name, &got, expected);
    assert!(worst <= TOLERANCE, "{name}: off by {worst}\n{got}\n{expected}");
}

fn worst_difference(path: &str, got: &Value, expected: &Value) -> f64 {
    match (got, expected) {
        (Value::Number(got), Value::Number(expected)) => {
            (got.as_f64().unwrap() - expected.as_f64().unwrap()).abs()
        }
        (Value::Array(got), Value::Array(expected)) => {
            assert_eq!(got.len(), expected.len(), "{path}: another length");
            let pairs = got.iter().zip(expected).enumerate();
            pairs
                .map(|(at, (got, expected))| {
                    worst_difference(&format!("{path}[{at}]"), got, expected)
                })
                .fold(0.0, f64::max)
        }
        (Value::Object(got), Value::Object(expected)) => {
            for name in got.keys() {
                assert!(expected.contains_key(name), "{path}: `{name}` is new");
            }
            let inner = |(name, expected)| {
                let got = got.get(name).unwrap_or(&Value::Null);
                worst_difference(&format!("{path}.{name}"), got, expected)
            };
            expected.iter().map(inner).fold(0.0, f64::max)
        }
        _ => {
            assert_eq!(got, expected, "{path}");
            0.0
        }
    }
}

/// Asserts that the ends of each interval are within a tenth of its width of the oracle's interval, which has other
/// resamples, that the metric is between them, and that there are no other intervals.
pub(crate) fn assert_intervals(got: &impl Serialize, expected: &BTreeMap<String, [f64; 2]>) {
    let got = serde_json::to_value(got).unwrap();
    let intervals = got.as_object().unwrap().keys();
    assert_eq!(intervals.filter(|name| name.ends_with("_ci")).count(), expected.len());
    for (name, [low, high]) in expected {
        let value = got[name].as_f64().unwrap();
        let [got_low, got_high] =
            [0, 1].map(|end| got[format!("{name}_ci")][end].as_f64().unwrap());
        let most = (high - low) / 10.0;
        assert!(
            (got_low - low).abs() < most && (got_high - high).abs() < most,
            "{name} in {got_low} to {got_high}, numpy says {low} to {high}"
        );
        assert!(got_low < value && value < got_high, "{name} {value} is outside");
    }
}

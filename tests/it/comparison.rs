//! McNemar's test, Holm's correction and the paired bootstrap, compared with scipy, statsmodels and numpy; the cases
//! are made by `scripts/fixtures/comparison.py`.

use std::sync::Arc;

use frostbert::internals::{
    metrics::{
        comparison::{holm, mcnemar, paired_bootstrap, standard_deviation},
        intervals::{Bootstrap, resample},
        metric::Metric,
        row_statistics::RowStatistics,
    },
    selection::curves::expected_best,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    mcnemar: Vec<(u64, u64, f64)>,
    holm: Vec<(Vec<f64>, Vec<f64>)>,
    macro_f1: Pair,
    spearman: Pair,
    expected_best: Vec<Trials>,
}

#[derive(Deserialize)]
struct Pair {
    gold: Vec<f64>,
    one: Vec<f64>,
    other: Vec<f64>,
    difference: f64,
    standard_error: f64,
    p_value: f64,
}

#[derive(Deserialize)]
struct Trials {
    scores: Vec<f64>,
    highest: Vec<f64>,
    lowest: Vec<f64>,
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("../fixtures/comparison.json")).unwrap()
}

#[test]
fn mcnemar_gives_the_p_values_of_scipy() {
    for (first, second, expected) in fixture().mcnemar {
        let got = mcnemar(first, second);
        assert!(
            (got - expected).abs() <= 1e-9 * expected,
            "{first} and {second}: {got}, not {expected}"
        );
        assert_eq!(got, mcnemar(second, first));
    }
}

#[test]
fn holm_adjusts_as_statsmodels_does() {
    for (p_values, expected) in fixture().holm {
        let got = holm(&p_values);
        assert_eq!(got.len(), expected.len());
        for (got, expected) in got.iter().zip(&expected) {
            assert!((got - expected).abs() < 1e-12, "{p_values:?}: {got} {expected}");
        }
    }
}

/// Compares a paired bootstrap with numpy's. The resamples differ, so the standard errors agree only to 5 %; the
/// p-value that follows from a standard error agrees exactly.
fn holds_beside_numpy(pair: &Pair, metric: Metric, of: impl Fn(&[f64]) -> RowStatistics) {
    let [one, other] = [&pair.one, &pair.other].map(|predicted| of(predicted));
    let settings = Bootstrap { resamples: 2_000, seed: 5 };
    let difference =
        |weights: Option<&[u32]>| Some(one.score(metric, weights)? - other.score(metric, weights)?);
    let resampled = resample(one.n_rows(), settings, |weights| difference(Some(weights)));
    let all = difference(None).unwrap();
    assert!((all - pair.difference).abs() < 1e-9, "{all}");
    let values: Vec<f64> = resampled.iter().copied().flatten().collect();
    let error = standard_deviation(&values).unwrap();
    assert!(
        (error / pair.standard_error - 1.0).abs() < 0.05,
        "{error}, numpy says {}",
        pair.standard_error
    );
    // The resampled differences, scaled to numpy's standard error.
    let stretched =
        resampled.iter().map(|value| value.map(|value| value * pair.standard_error / error));
    let p = paired_bootstrap(pair.difference, stretched).unwrap();
    assert!((p - pair.p_value).abs() < 1e-9, "{p} {}", pair.p_value);
}

#[test]
fn the_paired_bootstrap_agrees_with_numpy() {
    let fixture = fixture();
    let classes =
        |values: &[f64]| -> Vec<u32> { values.iter().map(|&class| class as u32).collect() };
    let gold = Arc::new(classes(&fixture.macro_f1.gold));
    holds_beside_numpy(&fixture.macro_f1, Metric::MacroF1, |predicted| {
        RowStatistics::classes(gold.clone(), classes(predicted), 3)
    });
    holds_beside_numpy(&fixture.spearman, Metric::Spearman, |predicted| {
        RowStatistics::values(&fixture.spearman.gold, predicted)
    });
}

#[test]
fn the_expected_best_of_n_trials_is_the_mean_over_all_ways_to_draw_them() {
    for trials in fixture().expected_best {
        for (higher_is_better, expected) in [(true, &trials.highest), (false, &trials.lowest)] {
            let got = expected_best(&trials.scores, higher_is_better);
            assert_eq!(got.len(), expected.len());
            for (got, expected) in got.iter().zip(expected) {
                assert!((got - expected).abs() < 1e-12, "{got} {expected}");
            }
        }
    }
}

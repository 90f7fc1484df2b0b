//! The difference of two runs on the same rows beside scipy and numpy; `scripts/fixtures/run_comparison.py` made the cases.

use std::sync::Arc;

use frostbert::internals::metrics::{
    comparison::mcnemar_of_rows, intervals::Bootstrap, metric::Metric, paired::paired_difference,
    permutation::Permutations, row_statistics::RowStatistics,
};
use ndarray::Array2;
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    mcnemar: Vec<RightRows>,
    paired: Vec<PairedRows>,
}

#[derive(Deserialize)]
struct RightRows {
    a: Vec<u8>,
    b: Vec<u8>,
    p_value: f64,
}

#[derive(Deserialize)]
struct PairedRows {
    metric: String,
    gold: Vec<f64>,
    a: Vec<f64>,
    b: Vec<f64>,
    groups: Vec<u32>,
    difference: f64,
    interval: [f64; 2],
    p_value: f64,
    /// How many swaps scipy drew; 0 where it went through all of them.
    permutations: u32,
}

impl PairedRows {
    fn metric(&self) -> Metric {
        Metric::named(&self.metric).unwrap()
    }

    /// The rows of both runs, those of the first one first.
    fn stacked(&self) -> RowStatistics {
        let gold = [&self.gold[..], &self.gold].concat();
        let predicted = [&self.a[..], &self.b].concat();
        let classes =
            |values: &[f64]| -> Vec<u32> { values.iter().map(|value| *value as u32).collect() };
        match self.metric() {
            Metric::MacroF1 | Metric::Mcc => {
                RowStatistics::classes(Arc::new(classes(&gold)), classes(&predicted), 3)
            }
            Metric::LogLoss => {
                let probabilities = Array2::from_shape_fn((predicted.len(), 2), |(row, class)| {
                    let positive = predicted[row] as f32;
                    if class == 1 { positive } else { 1.0 - positive }
                });
                let gold = classes(&gold);
                RowStatistics::class_probabilities(Metric::LogLoss, &gold, probabilities.view())
            }
            _ => RowStatistics::values(&gold, &predicted),
        }
    }
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("../fixtures/run_comparison.json")).unwrap()
}

#[test]
fn shares_of_right_rows_have_the_exact_p_value_of_scipy() {
    for case in fixture().mcnemar {
        let [a, b] = [&case.a, &case.b].map(|right| right.iter().map(|right| *right == 1));
        let got = mcnemar_of_rows(&a.collect::<Vec<bool>>(), &b.collect::<Vec<bool>>());
        let n_rows = case.a.len();
        assert!((got - case.p_value).abs() < 1e-12, "{n_rows} rows: {got}, not {}", case.p_value);
    }
}

/// Our draws are others than scipy's and numpy's: p-values agree to three standard errors, the ends of intervals to an
/// eighth of their width.
#[test]
fn other_metrics_have_the_p_value_and_the_interval_of_scipy_and_numpy_within_chance() {
    let (bootstrap, permutations) = (Bootstrap::default(), Permutations::default());
    for case in fixture().paired {
        let name = format!("{} of {} rows", case.metric, case.gold.len());
        let stacked = case.stacked();
        let got = paired_difference(&stacked, case.metric(), &case.groups, bootstrap, permutations);
        let got = got.unwrap();
        assert!((got.difference - case.difference).abs() < 1e-9, "{name}: {}", got.difference);
        let theirs = match case.permutations {
            0 => 0.0,
            draws => 1.0 / f64::from(draws),
        };
        let variance = case.p_value * (1.0 - case.p_value);
        let error = (variance * (1.0 / permutations.draws as f64 + theirs)).sqrt();
        let p_value = got.p_value.unwrap();
        assert!((p_value - case.p_value).abs() < 3.0 * error, "{name}: {p_value}");
        let ([low, high], [their_low, their_high]) = (got.interval.unwrap(), case.interval);
        let most = (their_high - their_low) / 8.0;
        assert!(
            (low - their_low).abs() < most && (high - their_high).abs() < most,
            "{name} in {low} to {high}, numpy says {their_low} to {their_high}"
        );
    }
}

//! Likely label errors, compared with cleanlab and with a plain implementation of the paper's rule.
//!
//! `scripts/fixtures/label_errors.py` makes the cases and the expected values.

use std::collections::BTreeSet;

use frostbert::internals::metrics::label_errors::{likely_errors, thresholds};
use ndarray::Array2;
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    unit: u32,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    labels: Vec<usize>,
    /// Probabilities in units of `1 / unit`.
    units: Vec<Vec<u32>>,
    thresholds: Vec<f64>,
    /// Rows and their suggested classes, sorted by row.
    paper: Vec<[usize; 2]>,
    /// Rows, with the least plausible label first.
    cleanlab: Vec<usize>,
    /// The margins of these rows.
    margins: Vec<f64>,
}

impl Case {
    fn probabilities(&self, unit: u32) -> Array2<f32> {
        let shape = (self.units.len(), self.units[0].len());
        Array2::from_shape_fn(shape, |(row, class)| self.units[row][class] as f32 / unit as f32)
    }
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("../fixtures/label_errors.json")).unwrap()
}

#[test]
fn thresholds_are_cleanlabs() {
    let fixture = fixture();
    for case in &fixture.cases {
        let ours = thresholds(&case.labels, case.probabilities(fixture.unit).view());
        assert_eq!(ours.len(), case.thresholds.len(), "{}", case.name);
        for (ours, theirs) in ours.iter().zip(&case.thresholds) {
            assert!((ours - theirs).abs() < 1e-12, "{}: {ours}, not {theirs}", case.name);
        }
    }
}

#[test]
fn likely_errors_and_what_they_likely_are_follow_the_papers_rule() {
    let fixture = fixture();
    for case in &fixture.cases {
        let found = likely_errors(&case.labels, case.probabilities(fixture.unit).view());
        let ours: BTreeSet<[usize; 2]> =
            found.iter().map(|error| [error.row, error.suggested]).collect();
        assert!(!ours.is_empty(), "{}", case.name);
        assert_eq!(ours, case.paper.iter().copied().collect(), "{}", case.name);
    }
}

/// cleanlab's ranking does not define the order of rows with the same margin, so the margins are compared in order, and
/// the rows as a set.
#[test]
fn likely_errors_are_those_that_cleanlab_finds_in_its_order_but_for_the_case_that_is_described() {
    let fixture = fixture();
    let mut n_equal = 0;
    for case in &fixture.cases {
        let p = case.probabilities(fixture.unit);
        let found = likely_errors(&case.labels, p.view());
        let ours: BTreeSet<usize> = found.iter().map(|error| error.row).collect();
        let theirs: BTreeSet<usize> = case.cleanlab.iter().copied().collect();
        for row in ours.symmetric_difference(&theirs) {
            let p: Vec<f64> = p.row(*row).iter().map(|p| f64::from(*p)).collect();
            let highest = p.iter().copied().fold(0.0, f64::max);
            let confident: Vec<f64> = p
                .iter()
                .copied()
                .zip(&case.thresholds)
                .filter(|(p, threshold)| *p >= **threshold - 1e-6)
                .map(|(p, _)| p)
                .collect();
            assert!(
                confident.len() > 1 && !confident.contains(&highest),
                "{}: row {row}",
                case.name
            );
        }
        if ours == theirs {
            n_equal += 1;
            for (error, margin) in found.iter().zip(&case.margins) {
                assert!((error.margin - margin).abs() < 1e-12, "{}: row {}", case.name, error.row);
            }
        }
    }
    assert_eq!(n_equal, 4, "cases in which the paper and cleanlab agree");
}

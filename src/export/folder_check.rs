//! Compares outputs with those of the run's head: as probabilities where there are some, else as numbers.

use frostbert_cache::states::Dtype;
use ndarray::{Array2, ArrayView1, s};

use crate::{
    config::names::Task,
    encoder::device::Precision,
    export::{
        Exporting,
        request::{ExportCheck, NEAR_BOUNDARY, TOLERANCE, largest_difference},
    },
    metrics::calibration::{sigmoid_rows, softmax_rows},
};

/// The tolerance of states that were rounded to f16, which has steps of 1/1024 of a number.
const ROUNDED_STATES: f64 = 2e-3;

/// The tolerance of numbers that a head makes of rounded states.
const ROUNDED_NUMBERS: f64 = 5e-2;

/// Compares outputs on the checked rows with the run's own. `got` are class logits over the temperature, or numbers in
/// the unit of the targets, one row for each of the run's.
pub(super) fn compare(exporting: &Exporting<'_>, got: &Array2<f32>) -> ExportCheck {
    let run = exporting.predictor.run();
    let description = &run.description;
    let rows = &exporting.rows.head;
    let expected = rows.outputs.clone().unwrap_or_default();
    let mut check = ExportCheck {
        part: exporting.rows.part,
        rows: exporting.rows.records.len(),
        compared: "probabilities",
        largest_difference: f64::INFINITY,
        tolerance: TOLERANCE,
        by_label: is_rounded(exporting),
        ..ExportCheck::default()
    };
    if got.dim() != expected.dim() {
        return check;
    }
    let one_of = |temperature| softmax_rows(expected.view(), temperature);
    let (got, expected) = match run.pipeline.data.task {
        Task::Classification => (softmax_rows(got.view(), 1.0), one_of(description.temperature)),
        Task::Tokens => (softmax_rows(got.view(), 1.0), one_of(1.0)),
        Task::Multilabel => (sigmoid_rows(got.view()), sigmoid_rows(expected.view())),
        Task::Qa => {
            check.compared = "start and end probabilities";
            (over_windows(got, &rows.starts), over_windows(&expected, &rows.starts))
        }
        Task::Regression | Task::Similarity => {
            check.compared = "numbers";
            if check.by_label {
                (check.by_label, check.tolerance) = (false, ROUNDED_NUMBERS);
            }
            let [mean, deviation] = description.output_scale.unwrap_or([0.0, 1.0]);
            let expected = expected.mapv(|value| (mean + deviation * f64::from(value)) as f32);
            // Relative to numbers above 1.
            let unit = expected.mapv(|value| value.abs().max(1.0));
            (got / &unit, &expected / &unit)
        }
    };
    check.largest_difference = largest_difference(&got, &expected);
    let pairs = expected.rows().into_iter().zip(got.rows());
    check.other_labels = match (run.pipeline.data.task, &description.thresholds) {
        (Task::Classification | Task::Tokens, _) => {
            pairs.filter(|(expected, got)| is_other(expected.view(), got.view())).count()
        }
        (Task::Multilabel, thresholds) => {
            let thresholds =
                thresholds.clone().unwrap_or_else(|| vec![0.5; description.labels.len()]);
            let is_other = |expected: ArrayView1<'_, f32>, got: ArrayView1<'_, f32>| {
                expected.iter().zip(got).zip(&thresholds).any(|((expected, got), threshold)| {
                    let [expected, got] = [expected, got].map(|value| f64::from(*value));
                    (expected >= *threshold) != (got >= *threshold)
                        && (expected - threshold).abs() > NEAR_BOUNDARY
                })
            };
            pairs.filter(|(expected, got)| is_other(expected.view(), got.view())).count()
        }
        (Task::Qa, _) => {
            let windows = rows.starts.windows(2).filter(|bounds| {
                let window = s![bounds[0]..bounds[1], ..];
                let (expected, got) = (expected.slice(window), got.slice(window));
                let mut sides = expected.columns().into_iter().zip(got.columns());
                sides.any(|(expected, got)| is_other(expected, got))
            });
            windows.count()
        }
        (Task::Regression | Task::Similarity, _) => 0,
    };
    check
}

/// Whether the run's states were rounded, so that an encoder in f32 computes others.
pub(super) fn is_rounded(exporting: &Exporting<'_>) -> bool {
    let extraction = &exporting.predictor.run().pipeline.extraction;
    extraction.dtype != Dtype::F32 || extraction.precision != Precision::F32
}

/// The probabilities of the rows of each window to be the start and the end of an answer.
fn over_windows(logits: &Array2<f32>, starts: &[usize]) -> Array2<f32> {
    let mut probabilities = Array2::zeros(logits.dim());
    for bounds in starts.windows(2) {
        let window = s![bounds[0]..bounds[1], ..];
        let of_sides = softmax_rows(logits.slice(window).t(), 1.0);
        probabilities.slice_mut(window).assign(&of_sides.t());
    }
    probabilities
}

/// Whether another column has the highest probability, and the two are not close to each other.
fn is_other(expected: ArrayView1<'_, f32>, got: ArrayView1<'_, f32>) -> bool {
    let (own, other) = (highest(expected), highest(got));
    own != other && f64::from(expected[own] - expected[other]) / 2.0 > NEAR_BOUNDARY
}

/// The first of the highest values.
fn highest(values: ArrayView1<'_, f32>) -> usize {
    let mut best = 0;
    for (place, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = place;
        }
    }
    best
}

/// Compares rows of states, relative to values above 1, and only that: states have no labels.
pub(super) fn compare_states(
    exporting: &Exporting<'_>,
    got: &Array2<f32>,
    expected: &Array2<f32>,
) -> ExportCheck {
    let is_rounded = is_rounded(exporting);
    let unit = expected.mapv(|value| value.abs().max(1.0));
    let largest_difference = if got.dim() == expected.dim() {
        largest_difference(&(got / &unit), &(expected / &unit))
    } else {
        f64::INFINITY
    };
    ExportCheck {
        part: exporting.rows.part,
        rows: exporting.rows.records.len(),
        compared: "vectors",
        largest_difference,
        tolerance: if is_rounded { ROUNDED_STATES } else { TOLERANCE },
        ..ExportCheck::default()
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn another_class_counts_unless_two_are_close() {
        let expected = array![0.2, 0.45, 0.35];
        assert!(is_other(expected.view(), array![0.5, 0.3, 0.2].view()));
        assert!(!is_other(expected.view(), array![0.3, 0.4, 0.3].view()));
        let close = array![0.4995, 0.5005];
        assert!(!is_other(close.view(), array![0.6, 0.4].view()));
    }

    #[test]
    fn positions_of_a_window_share_their_probability() {
        let logits = array![[0.0, 1.0], [0.0, 1.0], [5.0, 5.0]];
        let got = over_windows(&logits, &[0, 2, 3]);
        assert_eq!(got, array![[0.5, 0.5], [0.5, 0.5], [1.0, 1.0]]);
    }
}

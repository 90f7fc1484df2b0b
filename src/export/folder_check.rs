//! Compares what an exported folder computes with what the run's head or its encoder does.

use frostbert_cache::states::Dtype;
use ndarray::{Array2, s};

use crate::{
    encoder::device::Precision,
    export::{
        Exporting,
        comparison::Comparison,
        exported_task::exported_task,
        request::{ExportCheck, ROUNDED_TOLERANCE, TOLERANCE, largest_difference},
    },
};

/// The tolerance of states that were rounded to f16, which has steps of 1/1024 of a number.
const ROUNDED_STATES: f64 = 2e-3;

/// Compares outputs on the checked rows with the run's own. `got` are class logits over the temperature, or numbers in
/// the unit of the targets, one row for each of the run's.
pub(super) fn compare(exporting: &Exporting<'_>, got: &Array2<f32>) -> ExportCheck {
    let run = exporting.predictor.run();
    let task = exported_task(run.pipeline.data.task);
    let (rows, is_rounded) = (&exporting.rows.head, is_rounded(exporting));
    let expected = rows.outputs.clone().unwrap_or_default();
    let mut comparison = Comparison::new(&run.description, !is_rounded);
    if got.dim() == expected.dim() {
        for bounds in rows.output_starts.windows(2) {
            let own = s![bounds[0]..bounds[1], ..];
            let (ours, found) = (expected.slice(own), got.slice(own));
            task.compare_outputs(&mut comparison, &run.description, ours, found);
        }
    } else {
        comparison.fail();
    }
    let n_rows = exporting.rows.records.len();
    let is_quantized = run.pipeline.extraction.precision == Precision::Int8;
    let mut check = comparison.finish(task.compared(), exporting.rows.part, n_rows, is_quantized);
    if task.has_numbers() {
        (check.by_label, check.other_labels) = (false, 0);
        check.tolerance = if is_rounded { ROUNDED_TOLERANCE } else { TOLERANCE };
    }
    check
}

/// Whether the run's states were rounded, so that an encoder in f32 computes others.
fn is_rounded(exporting: &Exporting<'_>) -> bool {
    let extraction = &exporting.predictor.run().pipeline.extraction;
    extraction.dtype != Dtype::F32 || extraction.precision != Precision::F32
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

//! A vector that is in no cache and is computed from the pooled states of a document while it is exported.

use std::fmt::Debug;

use arrow::buffer::Buffer;
use serde::Serialize;

use crate::states::StateId;

/// A vector of a document, computed in f32 from its pooled states.
pub trait DerivedState: Debug + Send + Sync {
    /// Its name, which is that of its column or file.
    fn name(&self) -> &str;

    /// The pooled states that it is computed from, whose rows are concatenated in this order.
    fn states(&self) -> &[StateId];

    /// The number of its values.
    fn width(&self) -> usize;

    /// Computes it from the concatenated rows of a document.
    fn compute(&self, states: &[f32], out: &mut [f32]);
}

/// The description of an exported vector that was computed from states.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DerivedReport {
    /// Its name.
    pub name: String,
    /// The states that it was computed from.
    pub states: Vec<StateId>,
    /// The number of its values.
    pub width: usize,
}

impl DerivedReport {
    pub(super) fn of(derived: &dyn DerivedState) -> DerivedReport {
        DerivedReport {
            name: derived.name().into(),
            states: derived.states().to_vec(),
            width: derived.width(),
        }
    }
}

/// Computes the vectors of some documents; of each of the states, `pooled` has their rows as f32.
pub(super) fn compute_all(
    derived: &dyn DerivedState,
    pooled: &[Buffer],
    hidden: usize,
    n_rows: usize,
) -> Vec<f32> {
    let width = derived.width();
    let mut out = vec![0.0; n_rows * width];
    let mut states = vec![0.0; pooled.len() * hidden];
    for (row, out) in out.chunks_exact_mut(width.max(1)).enumerate() {
        for (of_state, rows) in states.chunks_exact_mut(hidden).zip(pooled) {
            let rows: &[f32] = rows.typed_data();
            of_state.copy_from_slice(&rows[row * hidden..(row + 1) * hidden]);
        }
        derived.compute(&states, out);
    }
    out
}

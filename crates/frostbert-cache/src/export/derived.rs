//! Vectors that are in no cache and are computed from states while they are exported: one of a document, from its
//! pooled states, or one of each of its tokens, from the states of these.

use std::fmt::Debug;

use arrow::buffer::Buffer;
use serde::Serialize;

use super::table::{DOCUMENTS, table_of};
use crate::states::StateId;

/// A vector of a document or of a token, computed in f32 from its states.
pub trait DerivedState: Debug + Send + Sync {
    /// Its name, which is that of its column or file.
    fn name(&self) -> &str;

    /// The pooled states that it is computed from, whose rows are concatenated in this order; or the one state of
    /// tokens, if each token has a vector.
    fn states(&self) -> &[StateId];

    /// The number of its values.
    fn width(&self) -> usize;

    /// Computes it from the concatenated rows of a document, or from the row of a token.
    fn compute(&self, states: &[f32], out: &mut [f32]);

    /// Computes those of several tokens.
    fn compute_rows(&self, states: &[f32], out: &mut [f32]) {
        let n_rows = out.len() / self.width().max(1);
        let hidden = states.len() / n_rows.max(1);
        let rows =
            states.chunks_exact(hidden.max(1)).zip(out.chunks_exact_mut(self.width().max(1)));
        rows.for_each(|(states, out)| self.compute(states, out));
    }

    /// Whether a token with this id has a vector, if tokens have.
    fn keeps(&self, _token_id: u32) -> bool {
        true
    }
}

/// Returns the name of the table that contains the rows of a vector.
pub(super) fn table_of_derived(derived: &dyn DerivedState) -> &'static str {
    derived.states().first().map_or(DOCUMENTS, |state| table_of(state.kind))
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

//! From the pooled states of a text to its sentence vector.

use frostbert_cache::{
    fingerprint::{self, Digest},
    states::{Pooling, StateId},
};

use ndarray::Array2;

use super::dense::Dense;

/// A module after the pooling.
#[derive(Clone, Debug)]
pub(crate) enum VectorStep {
    Dense(Dense),
    /// To length 1.
    Normalize,
}

impl VectorStep {
    /// The step in words.
    pub(super) fn describe(&self) -> String {
        match self {
            VectorStep::Dense(dense) => dense.describe(),
            VectorStep::Normalize => "Normalize".into(),
        }
    }

    /// Does the step for each row.
    pub(super) fn apply_to_rows(&self, rows: Array2<f32>) -> Array2<f32> {
        match self {
            VectorStep::Dense(dense) => dense.apply_to_rows(&rows),
            VectorStep::Normalize => {
                let mut rows = rows.as_standard_layout().into_owned();
                for mut row in rows.rows_mut() {
                    normalize(row.as_slice_mut().expect("a row is contiguous"));
                }
                rows
            }
        }
    }
}

/// What sentence-transformers makes of the states of a text's last layer: poolings side by side, then linear layers and
/// normalisation in the order of the folder, of which the first values are kept.
#[derive(Clone, Debug)]
pub(crate) struct SentenceVector {
    pub(super) poolings: Vec<Pooling>,
    /// The width of all poolings together.
    pub(super) n_inputs: usize,
    pub(super) steps: Vec<VectorStep>,
    /// The width before anything is cut off.
    pub(super) width: usize,
    /// The number of values that are kept.
    pub(super) kept: usize,
}

impl SentenceVector {
    /// The states that it is computed from, whose rows are concatenated in this order.
    pub(crate) fn states(&self, last_layer: usize) -> Vec<StateId> {
        self.poolings.iter().map(|pooling| StateId::pooled(*pooling, last_layer)).collect()
    }

    /// The steps after the poolings.
    pub(crate) fn steps(&self) -> &[VectorStep] {
        &self.steps
    }

    /// The number of its values.
    pub(crate) fn n_values(&self) -> usize {
        self.kept
    }

    /// The steps in words: `mean + max, Dense 64 -> 16, tanh, Normalize, first 8 of 16 values`.
    pub(crate) fn describe(&self) -> String {
        let poolings: Vec<&str> = self.poolings.iter().map(|pooling| pooling.name()).collect();
        let mut parts = vec![poolings.join(" + ")];
        parts.extend(self.steps.iter().map(VectorStep::describe));
        if self.kept < self.width {
            parts.push(format!("first {} of {} values", self.kept, self.width));
        }
        parts.join(", ")
    }

    /// The hash of everything that determines the vector of given states.
    pub(crate) fn digest(&self) -> Digest {
        let mut bytes = self.describe().into_bytes();
        for step in &self.steps {
            if let VectorStep::Dense(dense) = step {
                dense.put_bytes(&mut bytes);
            }
        }
        fingerprint::hash_bytes(&bytes)
    }

    /// Computes the vector of a text from its pooled states, concatenated.
    ///
    /// # Panics
    /// Panics if the slices do not have the widths of the states and of the vector.
    pub(crate) fn compute(&self, pooled: &[f32], out: &mut [f32]) {
        assert_eq!(pooled.len(), self.n_inputs, "all poolings of a text");
        let mut values = pooled.to_vec();
        for step in &self.steps {
            match step {
                VectorStep::Dense(dense) => values = dense.apply(&values),
                VectorStep::Normalize => normalize(&mut values),
            }
        }
        out.copy_from_slice(&values[..self.kept]);
    }
}

/// Divides a vector by its length, as `torch.nn.functional.normalize` does: by 1e-12 if it is shorter.
fn normalize(values: &mut [f32]) {
    let squares: f64 = values.iter().map(|value| f64::from(*value).powi(2)).sum();
    let length = (squares.sqrt() as f32).max(1e-12);
    for value in values {
        *value /= length;
    }
}

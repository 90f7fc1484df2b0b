//! The output of a session for a batch: the states of a layer's real tokens by window, in the type and memory in which
//! the session left them.

use std::{borrow::Cow, ops::Range};

use frostbert_cache::states::Dtype;
use half::{f16, slice::HalfFloatSliceExt};
use ort::value::Tensor;

/// The states of one layer for a batch, `[rows, hidden]`, and the rows of each window's real tokens.
///
/// A session with padding leaves a window's rows at its place in the padded batch; one without padding packs them.
pub struct LayerStates {
    /// The absolute layer; 0 is the embedding output.
    pub layer: usize,
    /// Width of a state.
    pub hidden: usize,
    pub(super) values: LayerValues,
    /// One range per window.
    pub(super) rows: Vec<Range<usize>>,
}

/// The memory that holds the states.
pub(super) enum LayerValues {
    Single(Tensor<f32>),
    Half(Tensor<f16>),
    /// States of windows that were run one by one.
    Joined(Vec<f32>),
}

impl LayerStates {
    /// Returns the states of a window's real tokens, `[tokens, hidden]`.
    ///
    /// # Panics
    /// Panics if there is no such window.
    pub fn row(&self, window: usize) -> Floats<'_> {
        let Range { start, end } = self.rows[window];
        self.all().part(start * self.hidden..end * self.hidden)
    }

    /// Returns the states of all real tokens, window by window.
    pub fn real(&self) -> Vec<f32> {
        let windows = 0..self.rows.len();
        windows.flat_map(|window| self.row(window).to_f32().into_owned()).collect()
    }

    /// Returns all rows, including those of padding.
    pub(super) fn all(&self) -> Floats<'_> {
        match &self.values {
            LayerValues::Single(tensor) => Floats::Single(tensor.extract_tensor().1),
            LayerValues::Half(tensor) => Floats::Half(tensor.extract_tensor().1),
            LayerValues::Joined(values) => Floats::Single(values),
        }
    }
}

/// A slice of states in the type in which the session returned them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Floats<'a> {
    /// Single precision.
    Single(&'a [f32]),
    /// Half precision.
    Half(&'a [f16]),
}

impl<'a> Floats<'a> {
    /// Returns a part of the values.
    ///
    /// # Panics
    /// Panics if the range is out of bounds.
    pub fn part(self, values: Range<usize>) -> Floats<'a> {
        match self {
            Floats::Single(all) => Floats::Single(&all[values]),
            Floats::Half(all) => Floats::Half(&all[values]),
        }
    }

    /// Converts the values to f32, which represents every f16 exactly.
    pub fn to_f32(self) -> Cow<'a, [f32]> {
        match self {
            Floats::Single(values) => Cow::Borrowed(values),
            Floats::Half(values) => Cow::Owned(values.to_f32_vec()),
        }
    }

    /// Checks that all values are finite and fit into a type; every finite f16 fits into both.
    ///
    /// # Errors
    /// Returns the first value that does not.
    pub fn check(self, dtype: Dtype) -> Result<(), f32> {
        match self {
            Floats::Single(values) => dtype.check(values),
            Floats::Half(values) => {
                // Check all values at once first, which the compiler vectorises.
                if values.iter().fold(true, |all, value| all & value.is_finite()) {
                    return Ok(());
                }
                let unfit = values.iter().find(|value| !value.is_finite());
                unfit.map_or(Ok(()), |value| Err(value.to_f32()))
            }
        }
    }

    /// Appends the values, already checked, to `out` in a type, little-endian. f16 values are copied without converting
    /// through f32.
    pub fn put(self, dtype: Dtype, out: &mut Vec<u8>) {
        let Floats::Half(values) = self else {
            return dtype.put(&self.to_f32(), out);
        };
        if dtype == Dtype::F32 {
            return dtype.put(&self.to_f32(), out);
        }
        let start = out.len();
        out.resize(start + 2 * values.len(), 0);
        for (pair, value) in out[start..].chunks_exact_mut(2).zip(values) {
            pair.copy_from_slice(&value.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_stored_as_they_are() {
        let values: Vec<f16> = (0..1 << 16)
            .map(|bits| f16::from_bits(bits as u16))
            .filter(|value| value.is_finite())
            .collect();
        let floats = Floats::Half(&values);
        floats.check(Dtype::F16).unwrap();
        let mut stored = vec![7];
        floats.put(Dtype::F16, &mut stored);
        let bytes = values.iter().flat_map(|value| value.to_le_bytes());
        assert!(stored[1..].iter().copied().eq(bytes));

        // Converting through f32 gives the same result.
        let (mut single, mut back) = (Vec::new(), Vec::new());
        floats.put(Dtype::F32, &mut single);
        Dtype::F16.put(&floats.to_f32(), &mut back);
        assert_eq!(back, stored[1..]);
        assert_eq!(single.len(), 4 * values.len());
    }

    #[test]
    fn a_half_that_is_no_number_is_found() {
        let values = [f16::ONE, f16::INFINITY, f16::NAN];
        assert_eq!(Floats::Half(&values).check(Dtype::F16), Err(f32::INFINITY));
        let nan = Floats::Half(&values).part(2..3).check(Dtype::F32);
        assert!(nan.unwrap_err().is_nan());
    }
}

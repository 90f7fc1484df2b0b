//! Vectors as small integers, as `quantize_embeddings` of sentence-transformers defines them.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, Int8Array, UInt8Array},
    buffer::Buffer,
    datatypes::DataType,
};
use serde::Serialize;

use super::npy::header;
use crate::error::{Error, Result};

/// How the values of vectors become small integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantization {
    /// The step of each value between the least and the greatest value of its dimension, from -128 to 127.
    Int8,
    /// The same steps, from 0 to 255.
    Uint8,
    /// One bit for each value, set if it is above 0, eight to a byte, of which 128 is subtracted.
    Binary,
    /// The same bytes as they are.
    Ubinary,
}

impl Quantization {
    /// Returns the name on the command line, which is that of sentence-transformers.
    pub fn name(self) -> &'static str {
        match self {
            Quantization::Int8 => "int8",
            Quantization::Uint8 => "uint8",
            Quantization::Binary => "binary",
            Quantization::Ubinary => "ubinary",
        }
    }

    /// Returns whether the integers depend on the least and the greatest value of each dimension.
    pub(super) fn has_ranges(self) -> bool {
        matches!(self, Quantization::Int8 | Quantization::Uint8)
    }

    /// Returns the number of integers that a vector of this many values becomes.
    pub fn width(self, hidden: usize) -> usize {
        if self.has_ranges() { hidden } else { hidden.div_ceil(8) }
    }

    fn is_signed(self) -> bool {
        matches!(self, Quantization::Int8 | Quantization::Binary)
    }

    /// Returns the type of the integers.
    pub fn data_type(self) -> DataType {
        if self.is_signed() { DataType::Int8 } else { DataType::UInt8 }
    }

    /// Turns rows of values into integers, [`Quantization::width`] for each row.
    pub(super) fn apply(self, values: &[f32], ranges: &ValueRanges) -> ArrayRef {
        let hidden = ranges.least.len();
        let rows = values.chunks_exact(hidden);
        let bytes: Vec<u8> = if self.has_ranges() {
            let steps = ranges.steps();
            let step = |(value, (least, step)): (&f32, (&f32, &f32))| {
                ((value - least) / step).floor().clamp(0.0, 255.0) as u8
            };
            rows.flat_map(|row| row.iter().zip(ranges.least.iter().zip(&steps)).map(step)).collect()
        } else {
            // The first value is the highest bit; bits that no value fills are 0.
            let packed = |eight: &[f32]| {
                let bits = eight
                    .iter()
                    .enumerate()
                    .map(|(place, value)| u8::from(*value > 0.0) << (7 - place));
                bits.fold(0, |byte, bit| byte | bit)
            };
            rows.flat_map(|row| row.chunks(8).map(packed)).collect()
        };
        if self.is_signed() {
            // From 0..=255 to -128..=127.
            let signed = bytes.into_iter().map(|byte| byte.wrapping_sub(128)).collect();
            Arc::new(Int8Array::new(Buffer::from_vec::<u8>(signed).into(), None))
        } else {
            Arc::new(UInt8Array::new(Buffer::from_vec(bytes).into(), None))
        }
    }
}

/// The least and the greatest value of each dimension, over all rows of a state.
#[derive(Clone, Debug)]
pub(super) struct ValueRanges {
    least: Vec<f32>,
    greatest: Vec<f32>,
}

impl ValueRanges {
    /// Returns the ranges of no rows.
    pub(super) fn new(hidden: usize) -> ValueRanges {
        ValueRanges {
            least: vec![f32::INFINITY; hidden],
            greatest: vec![f32::NEG_INFINITY; hidden],
        }
    }

    /// Takes further rows in.
    pub(super) fn widen(&mut self, values: &[f32]) {
        for row in values.chunks_exact(self.least.len()) {
            for (value, (least, greatest)) in
                row.iter().zip(self.least.iter_mut().zip(&mut self.greatest))
            {
                *least = least.min(*value);
                *greatest = greatest.max(*value);
            }
        }
    }

    /// Returns the width of a step of each dimension; a dimension with a single value has one of 1.
    fn steps(&self) -> Vec<f32> {
        let widths = self.least.iter().zip(&self.greatest);
        let steps = widths.map(|(least, greatest)| (greatest - least) / 255.0);
        steps.map(|step| if step == 0.0 { 1.0 } else { step }).collect()
    }

    /// Writes `[2, hidden]` f32: the least values, then the greatest, as `quantize_embeddings` takes them.
    fn write(&self, path: &Path) -> Result<()> {
        let mut bytes = header("<f4", &format!("(2, {})", self.least.len()));
        let values = self.least.iter().chain(&self.greatest);
        bytes.extend(values.flat_map(|value| value.to_le_bytes()));
        fs::write(path, bytes).map_err(Error::io("write", path))
    }
}

/// How the vectors of an export become integers.
pub(super) struct Quantizer {
    pub(super) kind: Quantization,
    /// By the names of the vectors.
    ranges: BTreeMap<String, ValueRanges>,
}

impl Quantizer {
    /// For vectors of these names and widths.
    pub(super) fn new(kind: Quantization, vectors: Vec<(String, usize)>) -> Quantizer {
        let ranges = vectors.into_iter().map(|(name, width)| (name, ValueRanges::new(width)));
        Quantizer { kind, ranges: ranges.collect() }
    }

    /// Takes further rows of a vector into its ranges.
    pub(super) fn widen(&mut self, name: &str, values: &[f32]) {
        if let Some(ranges) = self.ranges.get_mut(name) {
            ranges.widen(values);
        }
    }

    /// Turns rows of a vector into integers.
    pub(super) fn apply(&self, name: &str, values: &[f32]) -> ArrayRef {
        self.kind.apply(values, &self.ranges[name])
    }

    /// Writes the ranges of each vector to `<name>.ranges.npy`, if the integers depend on them.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written.
    pub(super) fn write_ranges(&self, folder: &Path) -> Result<()> {
        if !self.kind.has_ranges() {
            return Ok(());
        }
        self.ranges
            .iter()
            .try_for_each(|(name, ranges)| ranges.write(&folder.join(format!("{name}.ranges.npy"))))
    }
}

#[cfg(test)]
mod tests {
    use arrow::{
        array::AsArray,
        datatypes::{Int8Type, UInt8Type},
    };
    use safetensors::{Dtype as StoredType, SafeTensors};

    use super::*;

    /// Returns the integers of rows of this many values.
    fn integers(kind: Quantization, values: &[f32], hidden: usize) -> Vec<i16> {
        let mut ranges = ValueRanges::new(hidden);
        ranges.widen(values);
        let array = kind.apply(values, &ranges);
        assert_eq!(*array.data_type(), kind.data_type());
        assert_eq!(array.len(), values.len() / hidden * kind.width(hidden));
        match array.data_type() {
            DataType::Int8 => {
                array.as_primitive::<Int8Type>().values().iter().map(|v| i16::from(*v)).collect()
            }
            _ => array.as_primitive::<UInt8Type>().values().iter().map(|v| i16::from(*v)).collect(),
        }
    }

    #[test]
    fn a_value_becomes_its_step_between_the_least_and_the_greatest_of_its_dimension() {
        // The third dimension has a single value.
        let rows = [0.0, -1.0, 5.0, 255.0, 1.0, 5.0, 10.5, 0.0, 5.0];
        // As in numpy, 255 steps of the second dimension are a little more than its range.
        let steps = [0, 0, 0, 255, 254, 0, 10, 127, 0];
        assert_eq!(integers(Quantization::Uint8, &rows, 3), steps);
        assert_eq!(integers(Quantization::Int8, &rows, 3), steps.map(|step| step - 128));
    }

    #[test]
    fn a_bit_is_set_where_a_value_is_above_0_and_what_is_left_of_a_byte_is_0() {
        let row = [1.0, -1.0, 0.0, 0.5, -0.0, 1e-30, f32::NAN, 2.0, -3.0, 3.0];
        let bytes = [0b1001_0101, 0b0100_0000];
        assert_eq!(integers(Quantization::Ubinary, &row, 10), bytes);
        assert_eq!(integers(Quantization::Binary, &row, 10), bytes.map(|byte| byte - 128));
    }

    /// Compares with what `scripts/fixtures/quantized.py` has recorded.
    #[test]
    fn the_integers_are_those_of_sentence_transformers() {
        let path =
            concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/quantized.safetensors");
        let file = fs::read(path).unwrap();
        let tensors = SafeTensors::deserialize(&file).unwrap();
        let vectors = tensors.tensor("vectors").unwrap();
        let hidden = vectors.shape()[1];
        let floats = vectors.data().chunks_exact(4);
        let floats: Vec<f32> =
            floats.map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
        for kind in
            [Quantization::Int8, Quantization::Uint8, Quantization::Binary, Quantization::Ubinary]
        {
            let expected = tensors.tensor(kind.name()).unwrap();
            let signed = expected.dtype() == StoredType::I8;
            assert_eq!(expected.shape(), [vectors.shape()[0], kind.width(hidden)]);
            let number = |byte: &u8| if signed { i16::from(*byte as i8) } else { i16::from(*byte) };
            let expected: Vec<i16> = expected.data().iter().map(number).collect();
            assert!(integers(kind, &floats, hidden) == expected, "{} differs", kind.name());
        }
    }
}

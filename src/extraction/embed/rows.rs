//! The embeddings of an export, as they go into the file.

use std::{io::Write, path::Path, sync::Arc};

use arrow::{
    array::{
        ArrayRef, FixedSizeListArray, Float16Array, Float32Array, Int8Array, ListArray, UInt8Array,
    },
    buffer::{OffsetBuffer, ScalarBuffer},
    datatypes::{DataType, Field, FieldRef},
};
use bytes::Bytes;
use frostbert_cache::export::{npy_header, safetensors_header};
use half::f16;
use safetensors::tensor::TensorInfo;

use crate::{
    error::{Error, Result},
    report::row_writer::write_output,
};

/// The embeddings, as an array in a file.
pub(super) struct EmbeddingRows {
    /// The whole file: a header, then the rows.
    pub(super) bytes: Bytes,
    pub(super) dimensions: usize,
    pub(super) data_type: DataType,
    pub(super) n_rows: usize,
    /// The first row of each record, followed by the number of rows, where a record has a row for each token.
    pub(super) offsets: Option<Vec<i64>>,
}

/// Returns the first row of each record, followed by the number of rows, from an `.npy` file with the record of each of
/// `n_rows` rows, in ascending order.
pub(super) fn offsets_of(records: &[u8], n_rows: usize, n_records: usize) -> Vec<i64> {
    let values = records[records.len() - n_rows * size_of::<i64>()..].as_chunks().0.iter();
    let mut offsets = vec![0i64; n_records + 1];
    for record in values.map(|bytes| i64::from_le_bytes(*bytes)) {
        offsets[record as usize + 1] += 1;
    }
    for record in 0..n_records {
        offsets[record + 1] += offsets[record];
    }
    offsets
}

impl EmbeddingRows {
    /// Returns the bytes of all rows, which end the file.
    fn values(&self) -> &[u8] {
        &self.bytes[self.bytes.len() - self.n_rows * self.row_bytes()..]
    }

    fn row_bytes(&self) -> usize {
        self.dimensions * self.data_type.primitive_width().expect("values are numbers")
    }

    /// The type of a column of the rows of records.
    pub(super) fn column_type(&self) -> DataType {
        match &self.offsets {
            None => self.row_type(),
            Some(_) => DataType::List(self.row_field()),
        }
    }

    fn row_type(&self) -> DataType {
        let item = Arc::new(Field::new("item", self.data_type.clone(), false));
        DataType::FixedSizeList(item, self.dimensions as i32)
    }

    fn row_field(&self) -> FieldRef {
        Arc::new(Field::new("item", self.row_type(), false))
    }

    /// Returns the number of bytes of the rows of a record.
    pub(super) fn n_bytes(&self, record: usize) -> usize {
        let n_rows = self.offsets.as_ref().map_or(1, |offsets| {
            let (first, end) = (offsets.get(record), offsets.get(record + 1));
            first.zip(end).map_or(0, |(first, end)| (end - first) as usize)
        });
        n_rows * self.row_bytes()
    }

    /// Returns the rows of the records `first..end` as lists.
    pub(super) fn lists(&self, first: usize, end: usize) -> ArrayRef {
        let Some(offsets) = &self.offsets else {
            return self.rows(first, end);
        };
        let start = offsets[first];
        let own = offsets[first..=end].iter().map(|offset| (offset - start) as i32);
        let own = OffsetBuffer::new(ScalarBuffer::from(own.collect::<Vec<i32>>()));
        let rows = self.rows(start as usize, offsets[end] as usize);
        Arc::new(ListArray::new(self.row_field(), own, rows, None))
    }

    fn rows(&self, first: usize, end: usize) -> ArrayRef {
        let width = self.row_bytes();
        let bytes = &self.values()[first * width..end * width];
        let values: ArrayRef = match self.data_type {
            DataType::Int8 => Arc::new(Int8Array::from_iter_values(
                bytes.iter().map(|byte| i8::from_le_bytes([*byte])),
            )),
            DataType::UInt8 => Arc::new(UInt8Array::from_iter_values(bytes.iter().copied())),
            DataType::Float32 => Arc::new(Float32Array::from_iter_values(
                bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            )),
            _ => Arc::new(Float16Array::from_iter_values(
                bytes.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]])),
            )),
        };
        let item = Arc::new(Field::new("item", self.data_type.clone(), false));
        Arc::new(FixedSizeListArray::new(item, self.dimensions as i32, values, None))
    }

    /// Writes the first row of each record to an `.npy` file, if a record has several; else removes such a file, which
    /// would be of other rows.
    pub(super) fn write_offsets(&self, path: &Path) -> Result<()> {
        let Some(offsets) = &self.offsets else {
            return Ok(frostbert_cache::durable::remove_file(path)?);
        };
        let header = npy_header("<i8", &format!("({},)", offsets.len()));
        write_output(path, |file| {
            let written = file.write_all(&header).and_then(|()| file.write_all(&bytes_of(offsets)));
            written.map_err(Error::io("write", path))
        })
    }

    /// Writes the tensor `embeddings`, and `offsets` before it where a record has several rows.
    pub(super) fn write_safetensors(&self, out: &Path) -> Result<()> {
        let offsets = self.offsets.as_deref().map(bytes_of).unwrap_or_default();
        let end = offsets.len() + self.values().len();
        let tensor = TensorInfo {
            dtype: match self.data_type {
                DataType::Int8 => safetensors::Dtype::I8,
                DataType::UInt8 => safetensors::Dtype::U8,
                DataType::Float32 => safetensors::Dtype::F32,
                _ => safetensors::Dtype::F16,
            },
            shape: vec![self.n_rows, self.dimensions],
            data_offsets: (offsets.len(), end),
        };
        let mut tensors = vec![("embeddings".to_string(), tensor)];
        if let Some(own) = &self.offsets {
            let dtype = safetensors::Dtype::I64;
            let data_offsets = (0, offsets.len());
            let tensor = TensorInfo { dtype, shape: vec![own.len()], data_offsets };
            tensors.insert(0, ("offsets".into(), tensor));
        }
        let header = safetensors_header([], &tensors);
        // The rows are in a mapped file, and are not copied into memory.
        write_output(out, |file| {
            let parts = [&header[..], &offsets[..], self.values()];
            parts.iter().try_for_each(|part| file.write_all(part)).map_err(Error::io("write", out))
        })
    }
}

fn bytes_of(offsets: &[i64]) -> Vec<u8> {
    offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_count_the_rows_of_each_record_and_a_record_may_have_none() {
        let mut file = npy_header("<i8", "(4,)");
        file.extend(bytes_of(&[0, 0, 2, 3]));
        assert_eq!(offsets_of(&file, 4, 5), [0, 2, 2, 3, 4, 4]);
        assert_eq!(offsets_of(&npy_header("<i8", "(0,)"), 0, 1), [0, 0]);
    }
}

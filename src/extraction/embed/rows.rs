//! The embeddings of an export, as they go into the file.

use std::{io::Write, path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, FixedSizeListArray, Float16Array, Float32Array, Int8Array, UInt8Array},
    datatypes::{DataType, Field},
};
use bytes::Bytes;
use frostbert_cache::export::safetensors_header;
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
}

impl EmbeddingRows {
    /// Returns the bytes of all rows, which end the file.
    fn values(&self) -> &[u8] {
        &self.bytes[self.bytes.len() - self.n_rows * self.row_bytes()..]
    }

    fn row_bytes(&self) -> usize {
        self.dimensions * self.data_type.primitive_width().expect("values are numbers")
    }

    /// Returns the rows `first..end` as lists.
    pub(super) fn lists(&self, first: usize, end: usize) -> ArrayRef {
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

    /// Writes one tensor, `embeddings`.
    pub(super) fn write_safetensors(&self, out: &Path) -> Result<()> {
        let tensor = TensorInfo {
            dtype: match self.data_type {
                DataType::Int8 => safetensors::Dtype::I8,
                DataType::UInt8 => safetensors::Dtype::U8,
                DataType::Float32 => safetensors::Dtype::F32,
                _ => safetensors::Dtype::F16,
            },
            shape: vec![self.n_rows, self.dimensions],
            data_offsets: (0, self.values().len()),
        };
        let header = safetensors_header([], &[("embeddings".into(), tensor)]);
        // The rows are in a mapped file, and are not copied into memory.
        write_output(out, |file| {
            let written = file.write_all(&header).and_then(|()| file.write_all(self.values()));
            written.map_err(Error::io("write", out))
        })
    }
}

//! Writes a `.safetensors` file with a tensor per column; all lengths are known before the first row is written.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use arrow::{
    array::{AsArray, RecordBatch},
    datatypes::{DataType, Field},
};
use safetensors::tensor::{Dtype as TensorType, TensorInfo};
use serde_json::{Map, Value, json};

use super::table::{ExportTable, TableWriter, value_bytes};
use crate::error::{Error, Result};

/// Writes a table to a safetensors file.
pub(super) struct SafetensorsWriter {
    path: PathBuf,
    file: File,
    cursors: Vec<ColumnCursor>,
    /// The number of text bytes written so far.
    text_bytes: i64,
}

/// The file positions at which a column's next rows go.
#[derive(Clone, Copy, Default)]
struct ColumnCursor {
    values: u64,
    /// For a text column, the position of its next offsets.
    offsets: u64,
}

/// A tensor whose position in the file is not known yet.
struct PlannedTensor {
    /// The number of its column.
    column: usize,
    /// Whether it holds the offsets of a text column.
    is_offsets: bool,
    name: String,
    dtype: TensorType,
    shape: Vec<usize>,
}

impl SafetensorsWriter {
    pub(super) fn create(folder: &Path, table: &ExportTable) -> Result<SafetensorsWriter> {
        let path = folder.join(format!("{}.safetensors", table.name));
        let columns = table.schema.fields();
        let planned = columns.iter().enumerate();
        let mut planned: Vec<PlannedTensor> =
            planned.flat_map(|(number, column)| tensors_of(table, number, column)).collect();
        // Put wide types first, as the safetensors library does, so that every tensor is aligned to its type.
        planned.sort_by_key(|tensor| std::cmp::Reverse(tensor.dtype.bitsize()));
        let mut cursors = vec![ColumnCursor::default(); columns.len()];
        let mut infos = Vec::new();
        let mut at = 0;
        for PlannedTensor { column, is_offsets, name, dtype, shape } in planned {
            let end = at + shape.iter().product::<usize>() * dtype.bitsize() / 8;
            let cursor = &mut cursors[column];
            *(if is_offsets { &mut cursor.offsets } else { &mut cursor.values }) = at as u64;
            infos.push((name, TensorInfo { dtype, shape, data_offsets: (at, end) }));
            at = end;
        }
        let header = header(table.schema.metadata(), &infos);
        for cursor in &mut cursors {
            cursor.values += header.len() as u64;
            cursor.offsets += header.len() as u64;
        }
        let file = File::create(&path).map_err(Error::io("create", &path))?;
        let mut writer = SafetensorsWriter { path, file, cursors, text_bytes: 0 };
        let begun = writer.begin(&header, at as u64, table);
        begun.map_err(Error::io("write", &writer.path))?;
        Ok(writer)
    }

    fn begin(&mut self, header: &[u8], n_bytes: u64, table: &ExportTable) -> io::Result<()> {
        self.file.write_all_at(header, 0)?;
        self.file.set_len(header.len() as u64 + n_bytes)?;
        for (column, cursor) in table.schema.fields().iter().zip(&mut self.cursors) {
            if *column.data_type() == DataType::Utf8 {
                put(&self.file, &0i64.to_le_bytes(), &mut cursor.offsets)?;
            }
        }
        Ok(())
    }

    fn write_columns(&mut self, batch: &RecordBatch) -> io::Result<()> {
        for (column, cursor) in batch.columns().iter().zip(&mut self.cursors) {
            put(&self.file, &value_bytes(column), &mut cursor.values)?;
            if let Some(texts) = column.as_string_opt::<i32>() {
                let ends = texts.value_offsets()[1..].iter();
                let ends = ends.map(|end| self.text_bytes + i64::from(*end));
                let bytes: Vec<u8> = ends.flat_map(i64::to_le_bytes).collect();
                put(&self.file, &bytes, &mut cursor.offsets)?;
                self.text_bytes += texts.value_data().len() as i64;
            }
        }
        Ok(())
    }
}

impl TableWriter for SafetensorsWriter {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.write_columns(batch).map_err(Error::io("write", &self.path))
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

fn put(file: &File, bytes: &[u8], at: &mut u64) -> io::Result<()> {
    file.write_all_at(bytes, *at)?;
    *at += bytes.len() as u64;
    Ok(())
}

/// Returns the tensors of a column: one, or for text two, its bytes and the offset of each text in them.
fn tensors_of(table: &ExportTable, number: usize, column: &Field) -> Vec<PlannedTensor> {
    let n_rows = table.n_rows as usize;
    let name = table.array_name(column);
    let tensor = |name: String, dtype, shape| PlannedTensor {
        column: number,
        is_offsets: false,
        name,
        dtype,
        shape,
    };
    let (dtype, shape) = match column.data_type() {
        DataType::Utf8 => {
            let bytes = vec![table.id_bytes as usize];
            let offsets = tensor(format!("{name}.offsets"), TensorType::I64, vec![n_rows + 1]);
            return vec![
                tensor(format!("{name}.utf8"), TensorType::U8, bytes),
                PlannedTensor { is_offsets: true, ..offsets },
            ];
        }
        DataType::FixedSizeBinary(width) => (TensorType::U8, vec![n_rows, *width as usize]),
        DataType::FixedSizeList(element, width) => {
            (tensor_type(element.data_type()), vec![n_rows, *width as usize])
        }
        number => (tensor_type(number), vec![n_rows]),
    };
    vec![tensor(name, dtype, shape)]
}

fn tensor_type(data_type: &DataType) -> TensorType {
    match data_type {
        DataType::Int8 => TensorType::I8,
        DataType::UInt8 => TensorType::U8,
        DataType::UInt16 => TensorType::U16,
        DataType::UInt32 => TensorType::U32,
        DataType::Int32 => TensorType::I32,
        DataType::Int64 => TensorType::I64,
        DataType::Float16 => TensorType::F16,
        DataType::Float32 => TensorType::F32,
        other => unreachable!("no column is of {other}"),
    }
}

/// Returns the header of a file of tensors: its length, and the JSON padded to a multiple of eight bytes. The bytes of the
/// tensors follow it.
///
/// ```
/// use frostbert_cache::export::safetensors_header;
/// use safetensors::tensor::{Dtype, TensorInfo};
///
/// let rows = TensorInfo { dtype: Dtype::F32, shape: vec![1, 2], data_offsets: (0, 8) };
/// let mut file = safetensors_header([], &[("rows".into(), rows)]);
/// assert_eq!(file.len() % 8, 0);
/// file.extend([0.5f32, 2.0].map(f32::to_le_bytes).concat());
/// let read = safetensors::SafeTensors::deserialize(&file).unwrap();
/// assert_eq!(read.tensor("rows").unwrap().shape(), [1, 2]);
/// ```
pub fn header<'m>(
    metadata: impl IntoIterator<Item = (&'m String, &'m String)>,
    tensors: &[(String, TensorInfo)],
) -> Vec<u8> {
    // Sort by name, so that an export has the same bytes every time.
    let metadata: BTreeMap<&String, &String> = metadata.into_iter().collect();
    let has_metadata = !metadata.is_empty();
    let metadata = has_metadata.then(|| ("__metadata__".to_string(), json!(metadata)));
    let tensors = tensors.iter().map(|(name, info)| (name.clone(), json!(info)));
    let header: Map<String, Value> = metadata.into_iter().chain(tensors).collect();
    let mut json = serde_json::to_vec(&header).expect("plain fields become JSON");
    while !json.len().is_multiple_of(8) {
        json.push(b' ');
    }
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.extend(json);
    header
}

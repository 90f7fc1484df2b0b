//! One `.safetensors` file for each table: a tensor a column, all lengths known before the first row is written.

use std::{
    collections::HashMap,
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use safetensors::tensor::{Dtype as TensorType, Metadata, TensorInfo};

use super::{
    npy::array_name,
    table::{Batch, Column, ColumnKind, ExportLayout, ExportTable, TableWriter},
};
use crate::{
    error::{Error, Result},
    states::Dtype,
};

/// Writes a file for each table.
pub(super) struct SafetensorsWriter {
    tables: Vec<SafetensorsTableFile>,
}

struct SafetensorsTableFile {
    path: PathBuf,
    file: File,
    /// Of each column, where its next bytes go; of a column of text, where its next offsets go too.
    cursors: Vec<(u64, u64)>,
    /// Of a column of text, bytes so far.
    text_bytes: i64,
}

/// A tensor before its place is known: its column, and whether it is the offsets of a column of text.
struct PlannedTensor {
    column: usize,
    offsets: bool,
    name: String,
    dtype: TensorType,
    shape: Vec<usize>,
}

impl SafetensorsWriter {
    pub(super) fn create(folder: &Path, layout: &ExportLayout) -> Result<SafetensorsWriter> {
        let tables = layout.tables.iter();
        let tables = tables.map(|table| SafetensorsTableFile::create(folder, layout, table));
        Ok(SafetensorsWriter { tables: tables.collect::<Result<_>>()? })
    }
}

impl TableWriter for SafetensorsWriter {
    fn write(&mut self, table: usize, batch: &Batch) -> Result<()> {
        let table = &mut self.tables[table];
        let written = table.write(batch);
        written.map_err(Error::io("write", &table.path))
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

impl SafetensorsTableFile {
    fn create(
        folder: &Path,
        layout: &ExportLayout,
        table: &ExportTable,
    ) -> Result<SafetensorsTableFile> {
        let path = folder.join(format!("{}.safetensors", table.of.name()));
        let mut planned: Vec<PlannedTensor> = Vec::new();
        for (number, column) in table.columns.iter().enumerate() {
            planned.extend(tensors_of(layout, table, number, *column));
        }
        // Wide types first, as the safetensors library lays them out, so that every tensor is aligned to its type.
        planned.sort_by_key(|tensor| std::cmp::Reverse(tensor.dtype.bitsize()));
        let mut cursors = vec![(0, 0); table.columns.len()];
        let mut infos = Vec::new();
        let mut at = 0;
        for tensor in &planned {
            let bytes = tensor.shape.iter().product::<usize>() * tensor.dtype.bitsize() / 8;
            let cursor = &mut cursors[tensor.column];
            *(if tensor.offsets { &mut cursor.1 } else { &mut cursor.0 }) = at as u64;
            infos.push((
                tensor.name.clone(),
                TensorInfo {
                    dtype: tensor.dtype,
                    shape: tensor.shape.clone(),
                    data_offsets: (at, at + bytes),
                },
            ));
            at += bytes;
        }
        let header = header(layout, infos);
        for cursor in &mut cursors {
            cursor.0 += header.len() as u64;
            cursor.1 += header.len() as u64;
        }
        let file = File::create(&path).map_err(Error::io("create", &path))?;
        let mut table_file = SafetensorsTableFile { path, file, cursors, text_bytes: 0 };
        let begun = table_file.begin(&header, at as u64, &table.columns);
        begun.map_err(Error::io("write", &table_file.path))?;
        Ok(table_file)
    }

    fn begin(&mut self, header: &[u8], n_bytes: u64, columns: &[Column]) -> std::io::Result<()> {
        self.file.write_all_at(header, 0)?;
        self.file.set_len(header.len() as u64 + n_bytes)?;
        for (column, cursor) in columns.iter().zip(&mut self.cursors) {
            if column.kind() == ColumnKind::Text {
                self.file.write_all_at(&0i64.to_le_bytes(), cursor.1)?;
                cursor.1 += 8;
            }
        }
        Ok(())
    }

    fn write(&mut self, batch: &Batch) -> std::io::Result<()> {
        for (values, cursor) in batch.columns.iter().zip(&mut self.cursors) {
            let (mut text, mut offsets) = (Vec::new(), Vec::new());
            for value in values.texts() {
                text.extend(value.as_bytes());
                offsets.extend((self.text_bytes + text.len() as i64).to_le_bytes());
            }
            self.text_bytes += text.len() as i64;
            for bytes in [values.bytes(), &text] {
                self.file.write_all_at(bytes, cursor.0)?;
                cursor.0 += bytes.len() as u64;
            }
            self.file.write_all_at(&offsets, cursor.1)?;
            cursor.1 += offsets.len() as u64;
        }
        Ok(())
    }
}

/// The tensors of a column: one, or for text its bytes and where each text starts in them.
fn tensors_of(
    layout: &ExportLayout,
    table: &ExportTable,
    number: usize,
    column: Column,
) -> Vec<PlannedTensor> {
    let n_rows = table.n_rows as usize;
    let name = array_name(table.of, column);
    let tensor = |name: String, dtype, shape, offsets| PlannedTensor {
        column: number,
        offsets,
        name,
        dtype,
        shape,
    };
    let one = |dtype| vec![tensor(name.clone(), dtype, vec![n_rows], false)];
    match column.kind() {
        ColumnKind::Text => vec![
            tensor(format!("{name}.utf8"), TensorType::U8, vec![layout.id_bytes as usize], false),
            tensor(format!("{name}.offsets"), TensorType::I64, vec![n_rows + 1], true),
        ],
        ColumnKind::Key => vec![tensor(name, TensorType::U8, vec![n_rows, 32], false)],
        ColumnKind::U8 => one(TensorType::U8),
        ColumnKind::U16 => one(TensorType::U16),
        ColumnKind::Source | ColumnKind::U32 => one(TensorType::U32),
        ColumnKind::I32 => one(TensorType::I32),
        ColumnKind::I64 => one(TensorType::I64),
        ColumnKind::State => {
            let dtype = match layout.dtype {
                Dtype::F16 => TensorType::F16,
                Dtype::F32 => TensorType::F32,
            };
            vec![tensor(name, dtype, vec![n_rows, layout.hidden], false)]
        }
    }
}

/// The length, and the JSON padded to eight bytes.
fn header(layout: &ExportLayout, tensors: Vec<(String, TensorInfo)>) -> Vec<u8> {
    let mut metadata: HashMap<String, String> = layout.metadata.iter().cloned().collect();
    if !layout.sources.is_empty() {
        let sources = serde_json::to_string(&layout.sources).expect("strings become JSON");
        metadata.insert("frostbert.sources".into(), sources);
    }
    let metadata = Metadata::new(Some(metadata), tensors).expect("tensors stand side by side");
    let mut json = serde_json::to_vec(&metadata).expect("plain fields become JSON");
    while !json.len().is_multiple_of(8) {
        json.push(b' ');
    }
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.extend(json);
    header
}

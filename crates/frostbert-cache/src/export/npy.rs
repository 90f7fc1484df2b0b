//! One `.npy` file for each column, format 1.0, C order: `numpy.load(FILE, mmap_mode="r")` opens any of them.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use super::table::{
    Batch, Column, ColumnKind, ExportLayout, ExportTable, TableOf, TableWriter, Values,
};
use crate::{
    error::{Error, Result},
    fingerprint::Key,
    states::Dtype,
};

/// The array's name, in this format and in safetensors: columns of tokens and words carry their table's.
pub(super) fn array_name(table: TableOf, column: Column) -> String {
    match (table, column) {
        (_, Column::State(state)) => state.to_string(),
        (TableOf::Documents, Column::Key) => "keys".into(),
        (TableOf::Documents, column) => column.name(),
        (table, column) => format!("{}.{}", table.name(), column.name()),
    }
}

/// Writes a file for each column.
pub(super) struct NpyWriter {
    /// For each table, its columns' files.
    tables: Vec<Vec<ColumnFile>>,
}

struct ColumnFile {
    path: PathBuf,
    kind: ColumnKind,
    /// Characters of a text.
    width: usize,
    file: BufWriter<File>,
}

impl NpyWriter {
    pub(super) fn create(folder: &Path, layout: &ExportLayout) -> Result<NpyWriter> {
        let files_of = |table: &ExportTable| {
            let columns = table.columns.iter();
            columns.map(|column| ColumnFile::create(folder, layout, table, *column)).collect()
        };
        let tables = layout.tables.iter().map(files_of);
        Ok(NpyWriter { tables: tables.collect::<Result<_>>()? })
    }
}

impl TableWriter for NpyWriter {
    fn write(&mut self, table: usize, batch: &Batch) -> Result<()> {
        for (column, values) in self.tables[table].iter_mut().zip(&batch.columns) {
            let written = column.write(values);
            written.map_err(Error::io("write", &column.path))?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        for mut column in self.tables.into_iter().flatten() {
            let flushed = column.file.flush();
            flushed.map_err(Error::io("write", &column.path))?;
        }
        Ok(())
    }
}

impl ColumnFile {
    fn create(
        folder: &Path,
        layout: &ExportLayout,
        table: &ExportTable,
        column: Column,
    ) -> Result<ColumnFile> {
        let path = folder.join(format!("{}.npy", array_name(table.of, column)));
        let kind = column.kind();
        let shape = match kind {
            ColumnKind::State => format!("({}, {})", table.n_rows, layout.hidden),
            _ => format!("({},)", table.n_rows),
        };
        let file = File::create(&path).map_err(Error::io("create", &path))?;
        let mut file = BufWriter::new(file);
        file.write_all(&header(&descr(layout, kind), &shape)).map_err(Error::io("write", &path))?;
        Ok(ColumnFile { path, kind, width: layout.id_chars, file })
    }

    fn write(&mut self, values: &Values) -> io::Result<()> {
        match (self.kind, values) {
            (ColumnKind::Key, Values::Fixed(keys)) => {
                // NumPy cuts zero bytes from the end of a string of bytes: digits have none.
                let mut keys = keys.as_chunks().0.iter();
                keys.try_for_each(|key| self.file.write_all(Key(*key).to_hex().as_bytes()))
            }
            (_, Values::Fixed(bytes)) => self.file.write_all(bytes),
            (_, Values::Text(texts)) => {
                for text in texts {
                    let characters = text.chars().map(u32::from);
                    for character in characters.chain(std::iter::repeat(0)).take(self.width) {
                        self.file.write_all(&character.to_le_bytes())?;
                    }
                }
                Ok(())
            }
        }
    }
}

/// The type as NumPy spells it.
fn descr(layout: &ExportLayout, kind: ColumnKind) -> String {
    match kind {
        ColumnKind::Key => "|S64".into(),
        ColumnKind::Text => format!("<U{}", layout.id_chars),
        ColumnKind::U8 => "|u1".into(),
        ColumnKind::U16 => "<u2".into(),
        ColumnKind::Source | ColumnKind::U32 => "<u4".into(),
        ColumnKind::I32 => "<i4".into(),
        ColumnKind::I64 => "<i8".into(),
        ColumnKind::State => match layout.dtype {
            Dtype::F16 => "<f2".into(),
            Dtype::F32 => "<f4".into(),
        },
    }
}

/// Everything before the data: a multiple of 64 bytes, so that a mapped array is aligned.
fn header(descr: &str, shape: &str) -> Vec<u8> {
    let mut text =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}").into_bytes();
    while !(10 + text.len() + 1).is_multiple_of(64) {
        text.push(b' ');
    }
    text.push(b'\n');
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend((text.len() as u16).to_le_bytes());
    header.extend(text);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_what_numpy_writes() {
        // io.BytesIO of numpy.save(numpy.zeros((3, 4), "<f2")), without the 24 bytes of data.
        let mut expected = b"\x93NUMPY\x01\x00v\x00".to_vec();
        expected.extend(b"{'descr': '<f2', 'fortran_order': False, 'shape': (3, 4), }");
        expected.resize(127, b' ');
        expected.push(b'\n');
        assert_eq!(header("<f2", "(3, 4)"), expected);
    }
}

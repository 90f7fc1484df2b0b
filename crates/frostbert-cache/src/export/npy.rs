//! Writes one `.npy` file per column, in format 1.0 and C order; `numpy.load(FILE, mmap_mode="r")` opens any of them.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{DataType, Field},
};

use super::table::{ExportTable, TableWriter, value_bytes};
use crate::{
    error::{Error, Result},
    fingerprint::Key,
};

/// Writes each column of a table to a file of its own.
pub(super) struct NpyWriter {
    columns: Vec<ColumnFile>,
}

struct ColumnFile {
    path: PathBuf,
    /// Characters per value in a text column, which has a fixed width.
    n_chars: usize,
    file: BufWriter<File>,
}

impl NpyWriter {
    pub(super) fn create(folder: &Path, table: &ExportTable) -> Result<NpyWriter> {
        let columns = table.schema.fields().iter();
        let columns = columns.map(|column| ColumnFile::create(folder, table, column));
        Ok(NpyWriter { columns: columns.collect::<Result<_>>()? })
    }
}

impl TableWriter for NpyWriter {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        for (column, values) in self.columns.iter_mut().zip(batch.columns()) {
            let written = column.write(values);
            written.map_err(Error::io("write", &column.path))?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        for mut column in self.columns {
            let flushed = column.file.flush();
            flushed.map_err(Error::io("write", &column.path))?;
        }
        Ok(())
    }
}

impl ColumnFile {
    fn create(folder: &Path, table: &ExportTable, column: &Field) -> Result<ColumnFile> {
        let path = folder.join(format!("{}.npy", table.array_name(column)));
        let shape = match column.data_type() {
            DataType::FixedSizeList(_, width) => format!("({}, {width})", table.n_rows),
            _ => format!("({},)", table.n_rows),
        };
        let header = header(&descr(column.data_type(), table.id_chars), &shape);
        let file = File::create(&path).map_err(Error::io("create", &path))?;
        let mut file = BufWriter::new(file);
        file.write_all(&header).map_err(Error::io("write", &path))?;
        Ok(ColumnFile { path, n_chars: table.id_chars, file })
    }

    fn write(&mut self, values: &dyn Array) -> io::Result<()> {
        if let Some(keys) = values.as_fixed_size_binary_opt() {
            // NumPy strips trailing zero bytes from byte strings; hexadecimal digits contain none.
            let mut keys = keys.value_data().as_chunks().0.iter();
            return keys.try_for_each(|key| self.file.write_all(Key(*key).to_hex().as_bytes()));
        }
        let Some(texts) = values.as_string_opt::<i32>() else {
            return self.file.write_all(&value_bytes(values));
        };
        for text in texts.iter().flatten() {
            let characters = text.chars().map(u32::from);
            for character in characters.chain(std::iter::repeat(0)).take(self.n_chars) {
                self.file.write_all(&character.to_le_bytes())?;
            }
        }
        Ok(())
    }
}

/// Returns NumPy's name of a type.
fn descr(data_type: &DataType, n_chars: usize) -> String {
    let name = match data_type {
        DataType::FixedSizeList(element, _) => return descr(element.data_type(), n_chars),
        DataType::Utf8 => return format!("<U{n_chars}"),
        DataType::FixedSizeBinary(width) => return format!("|S{}", 2 * width),
        DataType::Int8 => "|i1",
        DataType::UInt8 => "|u1",
        DataType::UInt16 => "<u2",
        DataType::UInt32 => "<u4",
        DataType::Int32 => "<i4",
        DataType::Int64 => "<i8",
        DataType::Float16 => "<f2",
        DataType::Float32 => "<f4",
        other => unreachable!("no column is of {other}"),
    };
    name.into()
}

/// Returns everything before the data of an `.npy` file, from NumPy's name of the type (`<f4`) and the shape as a Python
/// tuple: a multiple of 64 bytes, so that a memory-mapped array is aligned.
pub fn header(descr: &str, shape: &str) -> Vec<u8> {
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

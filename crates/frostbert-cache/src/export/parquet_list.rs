//! Writes a Parquet file with states as list columns, for tools that cannot read the cache's columns of bytes.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use arrow::{
    array::RecordBatch,
    datatypes::{DataType, Field},
};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::{
        metadata::KeyValue,
        properties::{EnabledStatistics, WriterProperties},
    },
    schema::types::ColumnPath,
};

use super::table::{ExportTable, METADATA, SOURCE, TableWriter, is_state};
use crate::{
    error::{Error, Result},
    file::as_io,
};

/// The size of a row group, which is held in memory until it is full.
const ROW_GROUP_BYTES: usize = 64 * 1024 * 1024;

/// The number of a state's values passed to the Parquet writer at a time.
const SLICE_VALUES: usize = 256 * 1024;

/// Writes a table to a Parquet file.
pub(super) struct ParquetListWriter {
    path: PathBuf,
    /// The number of rows passed to the Parquet writer at a time.
    n_at_once: usize,
    writer: ArrowWriter<File>,
}

impl ParquetListWriter {
    pub(super) fn create(folder: &Path, table: &ExportTable) -> Result<ParquetListWriter> {
        let path = folder.join(format!("{}.parquet", table.name));
        let file = File::create(&path).map_err(Error::io("create", &path))?;
        let writer = ArrowWriter::try_new(file, table.schema.clone(), Some(properties(table)))
            .map_err(|error| Error::io("write", &path)(as_io(error)))?;
        let n_at_once = (SLICE_VALUES / table.hidden).max(1);
        Ok(ParquetListWriter { path, n_at_once, writer })
    }
}

impl TableWriter for ParquetListWriter {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        // The writer creates an object for every f16 value that it is given, and two levels for every value.
        for start in (0..batch.num_rows()).step_by(self.n_at_once) {
            let n_rows = self.n_at_once.min(batch.num_rows() - start);
            let written = self.writer.write(&batch.slice(start, n_rows));
            written.map_err(|error| Error::io("write", &self.path)(as_io(error)))?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        let closed = self.writer.close();
        closed.map(drop).map_err(|error| Error::io("write", &self.path)(as_io(error)))
    }
}

/// States are not compressed, because they would hardly shrink; small columns are.
fn properties(table: &ExportTable) -> WriterProperties {
    let columns = table.schema.fields();
    let row_bytes: usize = columns.iter().map(|column| width(column)).sum();
    let pairs =
        METADATA.map(|name| KeyValue::new(name.to_string(), table.schema.metadata()[name].clone()));
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_max_row_group_row_count(Some((ROW_GROUP_BYTES / row_bytes.max(1)).max(1)))
        .set_key_value_metadata(Some(pairs.to_vec()));
    for column in columns {
        let name = column.name().as_str();
        if is_state(column) {
            let path = ColumnPath::new([name, "list", "element"].map(String::from).to_vec());
            properties = properties.set_column_compression(path, Compression::UNCOMPRESSED);
        } else if name == SOURCE {
            properties = properties.set_column_dictionary_enabled(ColumnPath::from(name), true);
        }
    }
    properties.build()
}

/// Returns the bytes per value, as far as they are known beforehand: 0 for an id, and those of its number for a data
/// file.
fn width(column: &Field) -> usize {
    match column.data_type() {
        DataType::FixedSizeList(element, width) => self::width(element) * *width as usize,
        DataType::FixedSizeBinary(width) => *width as usize,
        DataType::Utf8 if column.name() == SOURCE => size_of::<u32>(),
        other => other.primitive_width().unwrap_or(0),
    }
}

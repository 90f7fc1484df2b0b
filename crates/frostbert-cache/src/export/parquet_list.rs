//! One Parquet file for each table: states are list columns, for tools that do not take the cache's columns of bytes.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use arrow::datatypes::SchemaRef;
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::{
        metadata::KeyValue,
        properties::{EnabledStatistics, WriterProperties},
    },
    schema::types::ColumnPath,
};

use super::{
    arrow_file::{record_batch, schema_of},
    table::{Batch, Column, ExportLayout, ExportTable, TableWriter},
};
use crate::{
    as_io,
    error::{Error, Result},
};

/// Size of a row group: it is held in memory until it is full.
const ROW_GROUP_BYTES: usize = 64 * 1024 * 1024;

/// Values of a state handed to the Parquet writer at a time.
const SLICE_VALUES: usize = 256 * 1024;

/// Writes a file for each table.
pub(super) struct ParquetListWriter {
    layout: ExportLayout,
    tables: Vec<ParquetTableFile>,
}

struct ParquetTableFile {
    path: PathBuf,
    schema: SchemaRef,
    writer: ArrowWriter<File>,
}

impl ParquetListWriter {
    pub(super) fn create(folder: &Path, layout: &ExportLayout) -> Result<ParquetListWriter> {
        let mut tables = Vec::new();
        for table in &layout.tables {
            let path = folder.join(format!("{}.parquet", table.of.name()));
            let file = File::create(&path).map_err(Error::io("create", &path))?;
            let schema = schema_of(layout, table);
            let properties = properties(layout, table);
            let writer = ArrowWriter::try_new(file, schema.clone(), Some(properties))
                .map_err(|error| Error::io("write", &path)(as_io(error)))?;
            tables.push(ParquetTableFile { path, schema, writer });
        }
        Ok(ParquetListWriter { layout: layout.clone(), tables })
    }
}

impl TableWriter for ParquetListWriter {
    fn write(&mut self, table: usize, batch: &Batch) -> Result<()> {
        let columns = &self.layout.tables[table];
        let table = &mut self.tables[table];
        let failed = |error| Error::io("write", &table.path)(as_io(error));
        let batch = record_batch(&self.layout, columns, &table.schema, batch)
            .map_err(|error| failed(ParquetError::from(error)))?;
        // The writer makes an object of every f16 of what it is handed, and two levels of every value.
        let n_at_once = (SLICE_VALUES / self.layout.hidden).max(1);
        for start in (0..batch.num_rows()).step_by(n_at_once) {
            let n_rows = n_at_once.min(batch.num_rows() - start);
            let written = table.writer.write(&batch.slice(start, n_rows));
            written.map_err(failed)?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        for table in self.tables {
            let closed = table.writer.close();
            closed.map_err(|error| Error::io("write", &table.path)(as_io(error)))?;
        }
        Ok(())
    }
}

/// States as they are, for they do not shrink; small columns compressed.
fn properties(layout: &ExportLayout, table: &ExportTable) -> WriterProperties {
    let row_bytes: usize = table.columns.iter().map(|column| layout.width(column.kind())).sum();
    let pairs = layout.metadata.iter().cloned();
    let pairs = pairs.map(|(name, value)| KeyValue::new(name, value));
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_max_row_group_row_count(Some((ROW_GROUP_BYTES / row_bytes.max(1)).max(1)))
        .set_key_value_metadata(Some(pairs.collect()));
    for column in &table.columns {
        match column {
            Column::State(state) => {
                let path = [state.to_string(), "list".into(), "element".into()];
                let path = ColumnPath::new(path.to_vec());
                properties = properties.set_column_compression(path, Compression::UNCOMPRESSED);
            }
            Column::Source => {
                let path = ColumnPath::from(column.name());
                properties = properties.set_column_dictionary_enabled(path, true);
            }
            _ => {}
        }
    }
    properties.build()
}

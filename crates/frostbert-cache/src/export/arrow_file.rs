//! One Arrow IPC file for each table: states are `FixedSizeList` columns of float16 or float32.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{
        ArrayRef, FixedSizeBinaryArray, FixedSizeListArray, PrimitiveArray, RecordBatch,
        StringArray,
    },
    buffer::{Buffer, ScalarBuffer},
    datatypes::{
        ArrowPrimitiveType, DataType, Field, Float16Type, Float32Type, Int32Type, Int64Type,
        Schema, SchemaRef, UInt8Type, UInt16Type, UInt32Type,
    },
    error::ArrowError,
    ipc::writer::FileWriter,
};

use super::table::{Batch, ColumnKind, ExportLayout, ExportTable, TableWriter, Values};
use crate::{
    error::{Error, Result},
    states::Dtype,
};

/// Writes a file for each table.
pub(super) struct ArrowWriter {
    layout: ExportLayout,
    tables: Vec<ArrowTableFile>,
}

struct ArrowTableFile {
    path: PathBuf,
    schema: SchemaRef,
    writer: FileWriter<BufWriter<File>>,
}

impl ArrowWriter {
    pub(super) fn create(folder: &Path, layout: &ExportLayout) -> Result<ArrowWriter> {
        let mut tables = Vec::new();
        for table in &layout.tables {
            let path = folder.join(format!("{}.arrow", table.of.name()));
            let file = File::create(&path).map_err(Error::io("create", &path))?;
            let schema = schema_of(layout, table);
            let writer = FileWriter::try_new(BufWriter::new(file), &schema)
                .map_err(|error| Error::io("write", &path)(as_io(error)))?;
            tables.push(ArrowTableFile { path, schema, writer });
        }
        Ok(ArrowWriter { layout: layout.clone(), tables })
    }
}

impl TableWriter for ArrowWriter {
    fn write(&mut self, table: usize, batch: &Batch) -> Result<()> {
        let columns = &self.layout.tables[table];
        let table = &mut self.tables[table];
        let batch = record_batch(&self.layout, columns, &table.schema, batch);
        let written = batch.and_then(|batch| table.writer.write(&batch));
        written.map_err(|error| Error::io("write", &table.path)(as_io(error)))
    }

    fn finish(self: Box<Self>) -> Result<()> {
        for mut table in self.tables {
            let failed = |error| Error::io("write", &table.path)(as_io(error));
            table.writer.finish().map_err(failed)?;
            let flushed = table.writer.get_mut().flush();
            flushed.map_err(Error::io("write", &table.path))?;
        }
        Ok(())
    }
}

/// The columns of a table as Arrow types, none of them nullable.
pub(super) fn schema_of(layout: &ExportLayout, table: &ExportTable) -> SchemaRef {
    let fields = table.columns.iter().map(|column| {
        let kind = column.kind();
        let data_type = match kind {
            ColumnKind::Key => DataType::FixedSizeBinary(32),
            ColumnKind::Source | ColumnKind::Text => DataType::Utf8,
            ColumnKind::U8 => DataType::UInt8,
            ColumnKind::U16 => DataType::UInt16,
            ColumnKind::U32 => DataType::UInt32,
            ColumnKind::I32 => DataType::Int32,
            ColumnKind::I64 => DataType::Int64,
            ColumnKind::State => DataType::FixedSizeList(element(layout), layout.hidden as i32),
        };
        Field::new(column.name(), data_type, false)
    });
    let fields: Vec<Field> = fields.collect();
    let metadata: HashMap<String, String> = layout.metadata.iter().cloned().collect();
    Arc::new(Schema::new_with_metadata(fields, metadata))
}

fn element(layout: &ExportLayout) -> Arc<Field> {
    let data_type = match layout.dtype {
        Dtype::F16 => DataType::Float16,
        Dtype::F32 => DataType::Float32,
    };
    Arc::new(Field::new("element", data_type, false))
}

/// Some rows of a table.
///
/// # Errors
/// When they are not of the schema: a bug of the caller.
pub(super) fn record_batch(
    layout: &ExportLayout,
    table: &ExportTable,
    schema: &SchemaRef,
    batch: &Batch,
) -> std::result::Result<RecordBatch, ArrowError> {
    let columns = table.columns.iter().zip(&batch.columns);
    let columns = columns.map(|(column, values)| array(layout, column.kind(), values));
    RecordBatch::try_new(schema.clone(), columns.collect())
}

fn array(layout: &ExportLayout, kind: ColumnKind, values: &Values) -> ArrayRef {
    let bytes = values.bytes();
    match kind {
        ColumnKind::Key => Arc::new(FixedSizeBinaryArray::new(32, Buffer::from(bytes), None)),
        ColumnKind::Text => Arc::new(StringArray::from_iter_values(values.texts())),
        ColumnKind::Source => {
            let numbers = bytes
                .chunks_exact(4)
                .map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]]));
            let names = numbers.map(|number| layout.sources[number as usize].as_str());
            Arc::new(StringArray::from_iter_values(names))
        }
        ColumnKind::U8 => numbers::<UInt8Type>(bytes),
        ColumnKind::U16 => numbers::<UInt16Type>(bytes),
        ColumnKind::U32 => numbers::<UInt32Type>(bytes),
        ColumnKind::I32 => numbers::<Int32Type>(bytes),
        ColumnKind::I64 => numbers::<Int64Type>(bytes),
        ColumnKind::State => {
            let values = match layout.dtype {
                Dtype::F16 => numbers::<Float16Type>(bytes),
                Dtype::F32 => numbers::<Float32Type>(bytes),
            };
            let width = layout.hidden as i32;
            Arc::new(FixedSizeListArray::new(element(layout), width, values, None))
        }
    }
}

/// Little-endian bytes are what Arrow keeps in memory; its buffers are aligned, so they are copied.
fn numbers<T: ArrowPrimitiveType>(bytes: &[u8]) -> ArrayRef {
    let values = ScalarBuffer::<T::Native>::from(Buffer::from(bytes));
    Arc::new(PrimitiveArray::<T>::new(values, None))
}

/// The I/O error inside an Arrow error, so that a full disk is known as one.
fn as_io(error: ArrowError) -> io::Error {
    match error {
        ArrowError::IoError(_, source) => source,
        other => io::Error::other(other),
    }
}

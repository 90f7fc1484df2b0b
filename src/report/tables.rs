//! Tables of a run folder: Parquet files from columns in memory, and history.csv. They contain no times.

mod read;

use std::{path::Path, sync::Arc};

use arrow::{
    array::{
        Array, ArrayBuilder, ArrayRef, BooleanArray, FixedSizeBinaryArray, Float32Array,
        Float32Builder, Float64Array, Int64Array, ListBuilder, RecordBatch, StringArray,
        StringBuilder, UInt64Array,
    },
    buffer::Buffer,
    datatypes::{DataType, Field, Schema},
};
use bytes::Bytes;
use frostbert_cache::{as_io, durable::write_file, fingerprint::Key};
use parquet::{
    arrow::{ArrowWriter, ProjectionMask, arrow_reader::ParquetRecordBatchReaderBuilder},
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::properties::{WriterProperties, WriterVersion},
};

pub(super) use self::read::{damaged, read_batch};
use crate::{
    error::{Error, Result},
    head::trained_head::EpochRecord,
    metrics::metric::Metric,
};

/// The file name of the predictions.
pub(crate) const PREDICTIONS_FILE: &str = "predictions.parquet";

/// The file name of the training history.
pub(crate) const HISTORY_FILE: &str = "history.csv";

/// A table in memory, column by column.
#[derive(Default)]
pub(crate) struct Table {
    fields: Vec<Field>,
    columns: Vec<ArrayRef>,
}

impl Table {
    /// Adds a column of keys of 32 bytes each.
    pub(crate) fn keys(&mut self, name: &str, keys: impl Iterator<Item = Key>) {
        let bytes: Vec<u8> = keys.flat_map(|key| key.0).collect();
        let column = FixedSizeBinaryArray::new(32, Buffer::from_vec(bytes), None);
        self.push(name, DataType::FixedSizeBinary(32), false, Arc::new(column));
    }

    /// Adds a column of strings.
    pub(crate) fn texts<'a>(&mut self, name: &str, texts: impl Iterator<Item = &'a str>) {
        let column = StringArray::from_iter_values(texts);
        self.push(name, DataType::Utf8, false, Arc::new(column));
    }

    /// Adds a column of strings, some of which are missing.
    pub(crate) fn optional_texts<'a>(
        &mut self,
        name: &str,
        texts: impl Iterator<Item = Option<&'a str>>,
    ) {
        let column = StringArray::from_iter(texts);
        self.push(name, DataType::Utf8, true, Arc::new(column));
    }

    /// Adds a column of numbers in single precision.
    pub(crate) fn floats(&mut self, name: &str, values: impl Iterator<Item = f32>) {
        let column = Float32Array::from_iter_values(values);
        self.push(name, DataType::Float32, false, Arc::new(column));
    }

    /// Adds a column of numbers in double precision.
    pub(crate) fn doubles(&mut self, name: &str, values: impl Iterator<Item = f64>) {
        let column = Float64Array::from_iter_values(values);
        self.push(name, DataType::Float64, false, Arc::new(column));
    }

    /// Adds a column of numbers in double precision, some of which are missing.
    pub(crate) fn optional_doubles(
        &mut self,
        name: &str,
        values: impl Iterator<Item = Option<f64>>,
    ) {
        let column = Float64Array::from_iter(values);
        self.push(name, DataType::Float64, true, Arc::new(column));
    }

    /// Adds a column of booleans, some of which are missing.
    pub(crate) fn flags(&mut self, name: &str, values: impl Iterator<Item = Option<bool>>) {
        let column = BooleanArray::from_iter(values);
        self.push(name, DataType::Boolean, true, Arc::new(column));
    }

    /// Adds a column of signed integers, some of which are missing.
    pub(crate) fn signed_integers(
        &mut self,
        name: &str,
        values: impl Iterator<Item = Option<i64>>,
    ) {
        let column = Int64Array::from_iter(values);
        self.push(name, DataType::Int64, true, Arc::new(column));
    }

    /// Adds a column of unsigned integers, some of which are missing.
    pub(crate) fn optional_integers(
        &mut self,
        name: &str,
        values: impl Iterator<Item = Option<u64>>,
    ) {
        let column = UInt64Array::from_iter(values);
        self.push(name, DataType::UInt64, true, Arc::new(column));
    }

    /// Adds a column of lists of strings.
    pub(crate) fn lists<'a>(&mut self, name: &str, lists: impl Iterator<Item = Vec<&'a str>>) {
        let lists = lists.map(Vec::into_iter);
        self.push_lists(name, DataType::Utf8, StringBuilder::new(), lists);
    }

    /// Adds a column of lists of numbers in single precision.
    pub(crate) fn float_lists(
        &mut self,
        name: &str,
        lists: impl Iterator<Item = impl Iterator<Item = f32>>,
    ) {
        self.push_lists(name, DataType::Float32, Float32Builder::new(), lists);
    }

    fn push_lists<T>(
        &mut self,
        name: &str,
        kind: DataType,
        values: impl ArrayBuilder + Extend<Option<T>>,
        lists: impl Iterator<Item = impl Iterator<Item = T>>,
    ) {
        let item = Arc::new(Field::new("item", kind, false));
        let mut builder = ListBuilder::new(values).with_field(item.clone());
        for list in lists {
            builder.values().extend(list.map(Some));
            builder.append(true);
        }
        self.push(name, DataType::List(item), false, Arc::new(builder.finish()));
    }

    fn push(&mut self, name: &str, kind: DataType, nullable: bool, column: ArrayRef) {
        self.fields.push(Field::new(name, kind, nullable));
        self.columns.push(column);
    }

    /// Writes the table as Parquet.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written, or if columns differ in length.
    pub(crate) fn write(self, path: &Path) -> Result<()> {
        let schema = Arc::new(Schema::new(self.fields));
        let failed = |error: ParquetError| Error::io("write", path)(as_io(error));
        let batch = RecordBatch::try_new(schema.clone(), self.columns)
            .map_err(|error| failed(error.into()))?;
        let properties = WriterProperties::builder()
            .set_writer_version(WriterVersion::PARQUET_1_0)
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .build();
        let mut writer =
            ArrowWriter::try_new(Vec::new(), schema, Some(properties)).map_err(failed)?;
        writer.write(&batch).map_err(failed)?;
        Ok(write_file(path, &writer.into_inner().map_err(failed)?)?)
    }
}

/// The columns of a table of predictions that identify a row's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TextOfRow {
    /// The key of its document, or of the first of two.
    pub key: Key,
    /// The name of its split.
    pub part: String,
    /// Its second text, if it was requested and exists.
    pub second: Option<String>,
}

/// Reads the texts that a table of predictions belongs to from the bytes of `path`; `second` names the column of second
/// texts, if they are needed.
///
/// # Errors
/// Returns an error if the bytes are not such a table.
pub(crate) fn read_texts_of_rows(
    path: &Path,
    bytes: Vec<u8>,
    second: Option<&str>,
) -> Result<Vec<TextOfRow>> {
    let damaged = |got: String| damaged(path, got);
    let failed = |error: ParquetError| damaged(error.to_string());
    let builder = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).map_err(failed)?;
    let wanted = ["key", "part"].into_iter().chain(second);
    let mask = ProjectionMask::columns(builder.parquet_schema(), wanted);
    let batches = builder.with_projection(mask).build().map_err(failed)?;
    let mut rows = Vec::new();
    for batch in batches {
        let batch = batch.map_err(|error| failed(error.into()))?;
        let column = |name: &str| batch.column_by_name(name).map(|column| column.as_any());
        let keys = column("key").and_then(|column| column.downcast_ref::<FixedSizeBinaryArray>());
        let parts = column("part").and_then(|column| column.downcast_ref::<StringArray>());
        let (Some(keys), Some(parts)) = (keys, parts) else {
            return Err(damaged("one without keys and parts".into()));
        };
        let second =
            second.and_then(column).and_then(|column| column.downcast_ref::<StringArray>());
        for row in 0..batch.num_rows() {
            let key =
                keys.value(row).try_into().map_err(|_| damaged("keys of another length".into()))?;
            rows.push(TextOfRow {
                key: Key(key),
                part: parts.value(row).to_string(),
                second: second
                    .filter(|texts| texts.is_valid(row))
                    .map(|texts| texts.value(row).to_string()),
            });
        }
    }
    Ok(rows)
}

/// Writes the history of a training, one line per epoch: the learning rate, the losses, and the validation metrics that
/// the task follows. Cells without a value are empty.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub(crate) fn write_history(folder: &Path, history: &[EpochRecord]) -> Result<()> {
    let path = folder.join(HISTORY_FILE);
    let mut metrics: Vec<Metric> = Vec::new();
    for (metric, _) in history.iter().flat_map(|record| &record.scores) {
        if !metrics.contains(metric) {
            metrics.push(*metric);
        }
    }
    let mut text = String::from("epoch,lr,train_loss,validation_loss");
    for metric in &metrics {
        text.push_str(&format!(",validation_{metric}"));
    }
    text.push('\n');
    let cell = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
    for record in history {
        text.push_str(&format!(
            "{},{},{},{}",
            record.epoch,
            record.lr,
            record.train_loss,
            cell(record.validation_loss),
        ));
        for metric in &metrics {
            text.push_str(&format!(",{}", cell(record.score(*metric))));
        }
        text.push('\n');
    }
    Ok(write_file(&path, text.as_bytes())?)
}

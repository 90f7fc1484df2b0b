//! parquet: columns of strings; labels and ids may also be numbers and booleans, and vectors lists of floats. The only
//! data reader for Parquet.

use std::{fs::File, iter, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, StringViewArray},
    compute::cast,
    datatypes::{DataType, Fields, Schema},
    record_batch::RecordBatch,
};
use frostbert_cache::{fence::fenced_or, wording::name_list};
use parquet::{
    arrow::{
        ProjectionMask,
        arrow_reader::{
            ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
            ParquetRecordBatchReaderBuilder,
        },
    },
    errors::ParquetError,
    file::metadata::ParquetMetaData,
};

use super::{
    bad_rows::FailedRows,
    parquet_pages,
    parquet_vectors::{is_vectors, vector},
    record::{Record, WantedFields},
    record_limit::{MAX_RECORD_BYTES, too_long},
    source::{ColumnName, Source},
    vector_rows::VectorWidth,
};
use crate::error::{Error, Result};

/// Maximum number of rows that are decoded at a time.
const N_BATCH_ROWS: usize = 1024;

/// Approximate number of bytes of the rows that are decoded at a time.
const N_BATCH_BYTES: u64 = 64 << 20;

/// Returns an error if the name says that the file is gzipped.
pub(super) fn check_name(source: &Source) -> Result<()> {
    if !source.is_gzip() {
        Ok(())
    } else {
        Err(source.malformed(
            None,
            "a Parquet file that is not gzipped as a whole",
            "a name that ends in .gz",
            "decompress it: Parquet compresses its own columns, and is read from its end",
        ))
    }
}

/// Streams the rows of a file, batch by batch, and reads only the requested columns.
///
/// A null text is an empty one, which cleaning drops; a null label is none. A value that is too long is an error of its row.
pub(super) fn read(
    file: File,
    source: &Source,
    want: WantedFields,
    failed: FailedRows,
) -> Result<impl Iterator<Item = Result<Record>> + Send + use<>> {
    let pages =
        file.try_clone().map_err(|error| failure(source, ParquetError::External(error.into())))?;
    let builder =
        fenced_or(|| open(file), ParquetError::General).map_err(|error| failure(source, error))?;
    let roots = Columns::find(builder.schema(), source, want)?;
    let vectors = vectors_in(builder.schema(), source)?;
    let mut projected: Vec<usize> = roots.all().copied().chain(vectors).collect();
    projected.sort_unstable();
    projected.dedup();
    let n_batch_rows = n_batch_rows(builder.metadata());
    let mask = ProjectionMask::roots(builder.parquet_schema(), projected.iter().copied());
    let check =
        || parquet_pages::check(&pages, builder.metadata(), |leaf| mask.leaf_included(leaf));
    fenced_or(check, ParquetError::General).map_err(|error| failure(source, error))?;
    let builder = builder.with_projection(mask).with_batch_size(n_batch_rows);
    let batches = fenced_or(|| builder.build(), ParquetError::General)
        .map_err(|error| failure(source, error))?;
    let mut rows = RowReader {
        batches,
        columns: roots.within(&projected),
        batch: None,
        vectors: vectors.map(|root| place_of(root, &projected)),
        vectors_in_batch: None,
        width: VectorWidth::default(),
        n_rows_in_batch: 0,
        row_in_batch: 0,
        row: 0,
        source: source.clone(),
    };
    Ok(iter::from_fn(move || {
        loop {
            match rows.next_example().transpose()? {
                Ok(row) => {
                    if let Some(row) = failed.keep(rows.row..=rows.row, row) {
                        return Some(row);
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }))
}

/// Opens a file so that its strings are views of its pages: a string that occurs in many rows is in memory once.
pub(super) fn open(file: File) -> Result<ParquetRecordBatchReaderBuilder<File>, ParquetError> {
    let found = ArrowReaderMetadata::load(&file, ArrowReaderOptions::new())?;
    let fields = found.schema().fields().iter().map(|field| match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 => {
            Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8View))
        }
        _ => Arc::clone(field),
    });
    let schema =
        Schema::new_with_metadata(fields.collect::<Fields>(), found.schema().metadata().clone());
    let options = ArrowReaderOptions::new().with_schema(Arc::new(schema));
    let metadata = ArrowReaderMetadata::try_new(Arc::clone(found.metadata()), options)?;
    Ok(ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata))
}

/// Returns the number of rows to decode at a time, which depends on the row group with the longest rows on average.
pub(super) fn n_batch_rows(metadata: &ParquetMetaData) -> usize {
    let groups = metadata.row_groups().iter();
    let mean = groups.map(|group| {
        let n_rows = u64::try_from(group.num_rows()).unwrap_or(0).max(1);
        u64::try_from(group.total_byte_size()).unwrap_or(0) / n_rows
    });
    let longest = mean.max().unwrap_or(0).max(1);
    (N_BATCH_BYTES / longest).clamp(1, N_BATCH_ROWS as u64) as usize
}

/// A value for each requested column: its index, or its strings in a batch.
struct Columns<T> {
    /// None where there are vectors in place of texts.
    text: Option<T>,
    text_pair: Option<T>,
    label: Option<T>,
    id: Option<T>,
    label_columns: Vec<T>,
    kept: Vec<T>,
}

impl<T> Columns<T> {
    fn map<U>(&self, change: impl Fn(&T) -> Result<U>) -> Result<Columns<U>> {
        Ok(Columns {
            text: self.text.as_ref().map(&change).transpose()?,
            text_pair: self.text_pair.as_ref().map(&change).transpose()?,
            label: self.label.as_ref().map(&change).transpose()?,
            id: self.id.as_ref().map(&change).transpose()?,
            label_columns: self.label_columns.iter().map(&change).collect::<Result<_>>()?,
            kept: self.kept.iter().map(&change).collect::<Result<_>>()?,
        })
    }

    fn all(&self) -> impl Iterator<Item = &T> {
        let some =
            [self.text.as_ref(), self.text_pair.as_ref(), self.label.as_ref(), self.id.as_ref()];
        some.into_iter().flatten().chain(&self.label_columns).chain(&self.kept)
    }
}

impl Columns<usize> {
    fn find(schema: &Schema, source: &Source, want: WantedFields) -> Result<Self> {
        let text =
            |key: &str, column: &ColumnName| index(schema, source, key, column, is_text, "strings");
        let name = |key: &str, column: &ColumnName| {
            index(schema, source, key, column, is_name, "strings, numbers or booleans")
        };
        // A file of labels has no texts; where one is asked for, it is the label.
        let is_of_labels = source.text.is_some() && source.text == source.label;
        let first = if is_of_labels {
            name(source.key("label"), &source.label_column())
        } else {
            text(source.key("text"), &source.text_column())
        };
        Ok(Columns {
            text: if source.state.is_some() { None } else { Some(first?) },
            text_pair: source
                .wanted_pair(want)?
                .map(|column| text(source.key("text_pair"), column))
                .transpose()?,
            label: want
                .label
                .then(|| name(source.key("label"), &source.label_column()))
                .transpose()?,
            id: source.id.as_ref().map(|column| name("id", column)).transpose()?,
            label_columns: source.find_label_columns(name)?,
            kept: source.find_kept_columns(name)?,
        })
    }

    /// The places among the columns that are read.
    fn within(&self, projected: &[usize]) -> Self {
        let place = |root: usize| place_of(root, projected);
        Columns {
            text: self.text.map(place),
            text_pair: self.text_pair.map(place),
            label: self.label.map(place),
            id: self.id.map(place),
            label_columns: self.label_columns.iter().copied().map(place).collect(),
            kept: self.kept.iter().copied().map(place).collect(),
        }
    }
}

/// The place of a column among those that are read.
fn place_of(root: usize, projected: &[usize]) -> usize {
    projected.partition_point(|&other| other < root)
}

/// The column of vectors, if the source names one.
fn vectors_in(schema: &Schema, source: &Source) -> Result<Option<usize>> {
    let lists = "lists of floats";
    let found = source
        .state
        .as_ref()
        .map(|column| index(schema, source, "state", column, is_vectors, lists));
    found.transpose()
}

struct RowReader {
    batches: ParquetRecordBatchReader,
    columns: Columns<usize>,
    batch: Option<Columns<StringViewArray>>,
    /// The place of the column of vectors.
    vectors: Option<usize>,
    vectors_in_batch: Option<ArrayRef>,
    width: VectorWidth,
    n_rows_in_batch: usize,
    row_in_batch: usize,
    row: u64,
    source: Source,
}

impl RowReader {
    /// The next row, or what is wrong with it; the outer error is of the file.
    fn next_example(&mut self) -> Result<Option<Result<Record>>> {
        while self.row_in_batch == self.n_rows_in_batch {
            let next = || self.batches.next().transpose().map_err(ParquetError::from);
            let batch = fenced_or(next, ParquetError::General)
                .map_err(|error| failure(&self.source, error))?;
            let Some(batch) = batch else {
                return Ok(None);
            };
            let strings = || self.columns.map(|&place| self.strings(&batch, place));
            let strings =
                fenced_or(strings, |panic| failure(&self.source, ParquetError::General(panic)))?;
            self.batch = Some(strings);
            self.vectors_in_batch = self.vectors.map(|place| Arc::clone(batch.column(place)));
            self.n_rows_in_batch = batch.num_rows();
            self.row_in_batch = 0;
        }
        let row = self.row_in_batch;
        self.row_in_batch += 1;
        self.row += 1;
        let record = self.batch.as_ref().map(|batch| self.record(batch, row));
        Ok(record.map(|record| {
            let record = record?;
            self.width.require(&record, &self.source)?;
            Ok(record)
        }))
    }

    /// The record of a row of a batch, the last that was reached.
    fn record(&self, batch: &Columns<StringViewArray>, row: usize) -> Result<Record> {
        if batch
            .all()
            .any(|cells| value(cells, row).is_some_and(|cell| cell.len() > MAX_RECORD_BYTES))
        {
            let hint = "shorten the text, or leave the row out of the file";
            return Err(too_long(&self.source, Some(self.row), "a value", hint));
        }
        let cell = |cells: &StringViewArray| value(cells, row).unwrap_or_default().to_owned();
        let label = batch.label.as_ref().and_then(|labels| value(labels, row));
        let record = Record {
            id: batch.id.as_ref().and_then(|ids| value(ids, row)).map(str::to_owned),
            text: batch.text.as_ref().map(cell).unwrap_or_default(),
            text_pair: batch.text_pair.as_ref().map(cell),
            label: label.map(|label| self.source.label_of(label)),
            label_cells: batch
                .label_columns
                .iter()
                .map(|cells| value(cells, row).unwrap_or_default().trim().to_owned())
                .collect(),
            kept: batch.kept.iter().map(|cells| value(cells, row).map(str::to_owned)).collect(),
            line: Some(self.row),
            ..Record::default()
        };
        match &self.vectors_in_batch {
            Some(column) => self.source.with_vector(self.row, vector(column, row), record),
            None => Ok(record),
        }
    }

    /// Returns the strings of a column as views of what was read; those of a dictionary are not copied row by row.
    fn strings(&self, batch: &RecordBatch, place: usize) -> Result<StringViewArray> {
        let column = batch.column(place);
        let as_type = |array: &dyn Array, data_type: &DataType| {
            cast(array, data_type).map_err(|error| failure(&self.source, error.into()))
        };
        let array = if is_text(column.data_type()) {
            as_type(column, &DataType::Utf8View)?
        } else {
            as_type(&as_type(column, &DataType::LargeUtf8)?, &DataType::Utf8View)?
        };
        Ok(StringViewArray::from(array.to_data()))
    }
}

fn value(array: &StringViewArray, row: usize) -> Option<&str> {
    array.is_valid(row).then(|| array.value(row))
}

fn index(
    schema: &Schema,
    source: &Source,
    key: &str,
    column: &ColumnName,
    accepts: fn(&DataType) -> bool,
    accepted: &str,
) -> Result<usize> {
    let fields = schema.fields();
    let found = match column {
        ColumnName::Number(number) => Some(*number).filter(|&number| number < fields.len()),
        ColumnName::Name(name) => {
            let mut places = (0..fields.len()).filter(|place| fields[*place].name() == name);
            let first = places.next();
            let n_more = places.count();
            if n_more > 0 {
                return Err(source.malformed(
                    None,
                    format!("one column {column} for `{key}`"),
                    format!("{} of that name", n_more + 1),
                    format!("set `{key}` of this source to the column's number, counted from 0"),
                ));
            }
            first
        }
    };
    match found {
        None => Err(source.malformed(
            None,
            format!("a column {column} for `{key}`"),
            format!("the columns {}", name_list(fields.iter().map(|field| field.name().as_str()))),
            format!("set `{key}` of this source to one of these"),
        )),
        Some(place) if !accepts(fields[place].data_type()) => Err(source.malformed(
            None,
            format!("{accepted} in the column {column} for `{key}`"),
            format!("values of type {}", fields[place].data_type()),
            format!(
                "set `{key}` of this source to another column, or write that column as strings"
            ),
        )),
        Some(place) => Ok(place),
    }
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

fn is_name(data_type: &DataType) -> bool {
    match data_type {
        DataType::Boolean => true,
        DataType::Dictionary(_, values) => is_name(values),
        _ => data_type.is_numeric() || is_text(data_type),
    }
}

fn failure(source: &Source, error: ParquetError) -> Error {
    source.malformed(
        None,
        "a Parquet file that is whole and compressed with zstd, snappy, gzip, brotli or nothing",
        error.to_string(),
        "check that the file was written to its end, or write it again with one of these compressions",
    )
}

#[cfg(test)]
mod tests;

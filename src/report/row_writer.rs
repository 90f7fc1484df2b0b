//! Writes files of rows batch by batch: CSV, JSON lines, Parquet, Arrow.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    datatypes::{DataType, Float32Type, Float64Type, SchemaRef, UInt64Type},
    error::ArrowError,
    ipc::writer::FileWriter,
};
use frostbert_cache::as_io;
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};
use serde_json::{Map, Value};
use tempfile::NamedTempFile;

use crate::error::{Error, Result};

/// Number of rows in a row group of Parquet, which are held in memory until they are written.
const GROUP_ROWS: usize = 16_384;

/// Number of bytes of a row group of Parquet that are held in memory at most, where its rows are large.
const GROUP_BYTES: usize = 256 << 20;

/// The beginning and the end of the names of temporary files.
const ASIDE_PREFIX: &str = ".frostbert-";
const ASIDE_SUFFIX: &str = ".tmp";

/// Writes a file that the user has named. It is written to a temporary file that then replaces `path`, so that a
/// previous file stays until the new one is complete.
///
/// # Errors
/// Returns an error if the folder cannot be written, and the errors of `write`.
pub(crate) fn write_output<T>(
    path: &Path,
    write: impl FnOnce(&mut File) -> Result<T>,
) -> Result<T> {
    let mut aside = file_aside(path)?;
    let written = write(aside.as_file_mut())?;
    put_in_place(aside, path)?;
    Ok(written)
}

/// Creates the temporary file that is to replace `path`.
fn file_aside(path: &Path) -> Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(ASIDE_PREFIX).suffix(ASIDE_SUFFIX);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // The permissions of any new file, before the system applies the user's umask.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder_of(path)).map_err(Error::io("write", path))
}

fn put_in_place(aside: NamedTempFile, path: &Path) -> Result<()> {
    aside.as_file().sync_all().map_err(Error::io("sync", path))?;
    aside.persist(path).map_err(|failed| Error::io("replace", path)(failed.error))?;
    Ok(())
}

/// Whether a name is that of a temporary file, which stays if the process is killed.
pub(crate) fn is_aside(name: &str) -> bool {
    name.starts_with(ASIDE_PREFIX) && name.ends_with(ASIDE_SUFFIX)
}

/// Returns the folder of a file that is to be written.
pub(crate) fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Checks that a file that is to be written is not one of those that are read.
///
/// # Errors
/// Returns [`Error::Argument`], which names the file.
pub fn require_other_file<'p>(
    out: &Path,
    inputs: impl IntoIterator<Item = &'p Path>,
) -> Result<()> {
    let is_out = |input: &Path| matches!((input.canonicalize(), out.canonicalize()), (Ok(one), Ok(other)) if one == other);
    if inputs.into_iter().any(is_out) {
        return Err(Error::Argument {
            action: "write the file",
            expected: "a file other than those that are read".into(),
            got: format!("`{}`", out.display()),
            hint: "name another file with --out".into(),
        });
    }
    Ok(())
}

/// The format of a file of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowFormat {
    Csv,
    Jsonl,
    Parquet,
    Arrow,
}

impl RowFormat {
    /// Returns the format that the extension of a file's name stands for.
    pub(crate) fn of(path: &Path) -> Option<RowFormat> {
        let extension = path.extension()?.to_string_lossy().to_lowercase();
        match extension.as_str() {
            "csv" => Some(RowFormat::Csv),
            "jsonl" | "ndjson" => Some(RowFormat::Jsonl),
            "parquet" => Some(RowFormat::Parquet),
            "arrow" | "feather" => Some(RowFormat::Arrow),
            _ => None,
        }
    }
}

/// Writes rows to a file. Columns are strings, numbers, and lists of strings; Parquet and Arrow take any type.
pub(crate) enum RowWriter<W: Write + Send> {
    Csv(Box<csv::Writer<BufWriter<W>>>),
    Jsonl(BufWriter<W>),
    Parquet(Box<ArrowWriter<W>>),
    Arrow(Box<FileWriter<BufWriter<W>>>),
}

impl<W: Write + Send> RowWriter<W> {
    pub(crate) fn new(file: W, schema: &SchemaRef, format: RowFormat) -> io::Result<RowWriter<W>> {
        Ok(match format {
            RowFormat::Csv => {
                let mut writer = csv::Writer::from_writer(BufWriter::new(file));
                let names = schema.fields().iter().map(|field| field.name());
                writer.write_record(names).map_err(io_of_csv)?;
                RowWriter::Csv(Box::new(writer))
            }
            RowFormat::Jsonl => RowWriter::Jsonl(BufWriter::new(file)),
            RowFormat::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::default()))
                    .set_max_row_group_row_count(Some(GROUP_ROWS))
                    .build();
                let writer = ArrowWriter::try_new(file, schema.clone(), Some(properties));
                RowWriter::Parquet(Box::new(writer.map_err(as_io)?))
            }
            RowFormat::Arrow => {
                let writer = FileWriter::try_new(BufWriter::new(file), schema);
                RowWriter::Arrow(Box::new(writer.map_err(io_of_arrow)?))
            }
        })
    }

    /// Writes the rows of a batch with the schema of the file.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> io::Result<()> {
        match self {
            RowWriter::Csv(writer) => {
                for row in 0..batch.num_rows() {
                    let cells = batch.columns().iter().map(|column| cell(column, row));
                    writer.write_record(cells).map_err(io_of_csv)?;
                }
                Ok(())
            }
            RowWriter::Jsonl(writer) => {
                let schema = batch.schema();
                for row in 0..batch.num_rows() {
                    let columns = schema.fields().iter().zip(batch.columns());
                    let object: Map<String, Value> = columns
                        .map(|(field, column)| (field.name().clone(), value(column, row)))
                        .collect();
                    serde_json::to_writer(&mut *writer, &object)?;
                    writer.write_all(b"\n")?;
                }
                Ok(())
            }
            RowWriter::Parquet(writer) => {
                writer.write(batch).map_err(as_io)?;
                if writer.in_progress_size() > GROUP_BYTES {
                    writer.flush().map_err(as_io)?;
                }
                Ok(())
            }
            RowWriter::Arrow(writer) => writer.write(batch).map_err(io_of_arrow),
        }
    }

    /// Completes the file.
    pub(crate) fn finish(self) -> io::Result<()> {
        match self {
            RowWriter::Csv(mut writer) => writer.flush(),
            RowWriter::Jsonl(mut writer) => writer.flush(),
            RowWriter::Parquet(writer) => writer.close().map(drop).map_err(as_io),
            RowWriter::Arrow(mut writer) => writer.finish().map_err(io_of_arrow),
        }
    }
}

/// A file of rows that replaces the one at its path when it is complete; nothing is left of an incomplete one.
pub(crate) struct RowFile {
    path: PathBuf,
    writer: RowWriter<File>,
    aside: NamedTempFile,
}

impl RowFile {
    /// Begins a file.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be written.
    pub(crate) fn create(path: &Path, schema: &SchemaRef, format: RowFormat) -> Result<RowFile> {
        let failed = || Error::io("write", path);
        let aside = file_aside(path)?;
        let file = aside.as_file().try_clone().map_err(failed())?;
        let writer = RowWriter::new(file, schema, format).map_err(failed())?;
        Ok(RowFile { path: path.to_path_buf(), writer, aside })
    }

    /// Writes the rows of a batch with the schema of the file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.writer.write(batch).map_err(Error::io("write", &self.path))
    }

    /// Completes the file and puts it in its place.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub(crate) fn finish(self) -> Result<()> {
        self.writer.finish().map_err(Error::io("write", &self.path))?;
        put_in_place(self.aside, &self.path)
    }
}

/// Converts an error of the csv crate, keeping the error of the system if there is one, such as a full disk.
fn io_of_csv(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}

fn io_of_arrow(error: ArrowError) -> io::Error {
    match error {
        ArrowError::IoError(_, error) => error,
        other => io::Error::other(other),
    }
}

/// Converts a value of a column to JSON; null if it is missing or not a finite number.
fn value(column: &ArrayRef, row: usize) -> Value {
    if column.is_null(row) {
        return Value::Null;
    }
    match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(row).into(),
        DataType::Float32 => {
            let value = column.as_primitive::<Float32Type>().value(row);
            // With the shortest digits that identify the f32, not those of the f64 that it converts to.
            value.to_string().parse::<f64>().map_or(Value::Null, Value::from)
        }
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).into(),
        DataType::UInt64 => column.as_primitive::<UInt64Type>().value(row).into(),
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            (0..items.len()).map(|item| value(&items, item)).collect()
        }
        other => unreachable!("a column of {other} in a file of rows"),
    }
}

/// Formats a value of a column as a cell: empty if it is missing, and a list as JSON.
fn cell(column: &ArrayRef, row: usize) -> String {
    match value(column, row) {
        Value::Null => String::new(),
        Value::String(text) => text,
        Value::Number(_) if *column.data_type() == DataType::Float32 => {
            column.as_primitive::<Float32Type>().value(row).to_string()
        }
        other => other.to_string(),
    }
}

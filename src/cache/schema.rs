//! The Parquet files of a shard: their names, columns and how they are written.
//!
//! A state is one REQUIRED `FixedSizeBinary(hidden x bytes)`: no levels, no dictionary, no statistics, no compression,
//! so that a page is the bytes themselves and a reader over a memory map copies nothing.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::Path,
    sync::Arc,
};

use arrow::{
    array::{
        ArrayRef, BooleanArray, FixedSizeBinaryArray, RecordBatch, UInt16Array, UInt32Array,
        UInt64Array,
    },
    buffer::Buffer,
    datatypes::{DataType, Field, Schema},
};
use parquet::{
    arrow::{ArrowWriter, arrow_writer::ArrowWriterOptions},
    basic::{Compression, Encoding, ZstdLevel},
    file::{
        metadata::KeyValue,
        properties::{EnabledStatistics, WriterProperties, WriterVersion},
    },
};

use super::{manifest::FileEntry, shard::DocumentRow};
use crate::{
    error::{Error, Result},
    states::{Dtype, StateId},
};

/// The table of documents in every shard.
pub(super) const DOCUMENTS: &str = "docs.parquet";

/// Size of a data page of states: small enough to skip to, large enough to scan.
const PAGE_BYTES: usize = 128 * 1024;

/// Size of a row group of states.
const ROW_GROUP_BYTES: usize = 32 * 1024 * 1024;

/// The file of a state, as `mean-L06.parquet`.
pub(super) fn state_file(state: StateId) -> String {
    format!("{state}.parquet")
}

/// Writes docs.parquet, one row per document.
///
/// # Errors
/// When the disk refuses.
pub(super) fn write_documents(folder: &Path, documents: &[DocumentRow]) -> Result<FileEntry> {
    let schema = Schema::new(vec![
        Field::new("key", DataType::FixedSizeBinary(32), false),
        Field::new("window", DataType::UInt16, false),
        Field::new("n_windows", DataType::UInt16, false),
        Field::new("n_tokens", DataType::UInt32, false),
        Field::new("truncated", DataType::Boolean, false),
        Field::new("token_start", DataType::UInt64, false),
    ]);
    let keys: Vec<u8> = documents
        .iter()
        .flat_map(|document| document.key.0)
        .collect();
    let token_starts = documents.iter().scan(0u64, |next, document| {
        let start = *next;
        *next += u64::from(document.n_tokens);
        Some(start)
    });
    let columns: Vec<ArrayRef> = vec![
        Arc::new(FixedSizeBinaryArray::new(32, Buffer::from_vec(keys), None)),
        Arc::new(UInt16Array::from_iter_values(documents.iter().map(|_| 0))),
        Arc::new(UInt16Array::from_iter_values(documents.iter().map(|_| 1))),
        Arc::new(UInt32Array::from_iter_values(
            documents.iter().map(|document| document.n_tokens),
        )),
        Arc::new(BooleanArray::from_iter(
            documents.iter().map(|document| Some(document.truncated)),
        )),
        Arc::new(UInt64Array::from_iter_values(token_starts)),
    ];
    let properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .build();
    write_file(folder, DOCUMENTS, Arc::new(schema), columns, properties)
}

/// What stands in the key-value metadata of a state's file.
#[derive(Clone, Debug)]
pub(super) struct StateMetadata {
    /// The cache's fingerprint.
    pub(super) fingerprint: String,
    /// Width of a state.
    pub(super) hidden: usize,
    /// Type of a value.
    pub(super) dtype: Dtype,
}

/// Writes one state of all documents of a shard: one row per document, little-endian values.
///
/// # Errors
/// When the disk refuses.
///
/// # Panics
/// When `bytes` is no whole number of rows.
pub(super) fn write_state(
    folder: &Path,
    state: StateId,
    bytes: Vec<u8>,
    metadata: &StateMetadata,
) -> Result<FileEntry> {
    let row_bytes = metadata.hidden * metadata.dtype.size_bytes();
    assert!(
        bytes.len().is_multiple_of(row_bytes),
        "states are whole rows"
    );
    let schema = Schema::new(vec![Field::new(
        "state",
        DataType::FixedSizeBinary(row_bytes as i32),
        false,
    )]);
    let column: ArrayRef = Arc::new(FixedSizeBinaryArray::new(
        row_bytes as i32,
        Buffer::from_vec(bytes),
        None,
    ));
    let pairs = [
        ("frostbert.fingerprint", metadata.fingerprint.clone()),
        ("frostbert.dtype", metadata.dtype.name().to_string()),
        ("frostbert.hidden", metadata.hidden.to_string()),
        ("frostbert.pooling", state.pooling.name().to_string()),
        ("frostbert.layer", state.layer.to_string()),
    ];
    let properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_encoding(Encoding::PLAIN)
        .set_compression(Compression::UNCOMPRESSED)
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_data_page_size_limit(PAGE_BYTES)
        .set_write_batch_size((PAGE_BYTES / row_bytes).max(1))
        .set_max_row_group_row_count(Some((ROW_GROUP_BYTES / row_bytes).max(1)))
        .set_key_value_metadata(Some(
            pairs
                .into_iter()
                .map(|(key, value)| KeyValue::new(key.to_string(), value))
                .collect(),
        ))
        .build();
    write_file(
        folder,
        &state_file(state),
        Arc::new(schema),
        vec![column],
        properties,
    )
}

fn write_file(
    folder: &Path,
    name: &str,
    schema: Arc<Schema>,
    columns: Vec<ArrayRef>,
    properties: WriterProperties,
) -> Result<FileEntry> {
    let path = folder.join(name);
    let failed = |error: parquet::errors::ParquetError| Error::io("write", &path)(as_io(error));
    let file = File::create(&path).map_err(Error::io("create", &path))?;
    let mut hashed = Hashed {
        inner: BufWriter::new(file),
        hasher: blake3::Hasher::new(),
        bytes: 0,
    };
    let batch = RecordBatch::try_new(schema.clone(), columns)
        .map_err(|error| Error::io("write", &path)(io::Error::other(error)))?;
    let options = ArrowWriterOptions::new()
        .with_properties(properties)
        .with_skip_arrow_metadata(true);
    let mut writer =
        ArrowWriter::try_new_with_options(&mut hashed, schema, options).map_err(failed)?;
    writer.write(&batch).map_err(failed)?;
    writer.close().map_err(failed)?;
    let Hashed {
        inner,
        hasher,
        bytes,
    } = hashed;
    let file = inner
        .into_inner()
        .map_err(|error| Error::io("write", &path)(error.into_error()))?;
    file.sync_all().map_err(Error::io("sync", &path))?;
    Ok(FileEntry {
        name: name.into(),
        bytes,
        blake3: hasher.finalize().to_hex().to_string(),
    })
}

/// The I/O error inside a Parquet error, so that a full disk is known as one.
pub(crate) fn as_io(error: parquet::errors::ParquetError) -> io::Error {
    match error {
        parquet::errors::ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(source) => *source,
            Err(other) => io::Error::other(other),
        },
        other => io::Error::other(other),
    }
}

/// Hashes and counts what passes through.
struct Hashed<W> {
    inner: W,
    hasher: blake3::Hasher,
    bytes: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

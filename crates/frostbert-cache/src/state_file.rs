//! The file of one state in one shard: contiguous rows of bytes.
//!
//! A state is a single REQUIRED `FixedSizeBinary(hidden x bytes)` column with no levels, dictionary, statistics or
//! compression, so that a page consists of the bytes themselves and a reader of a memory map copies nothing.

use std::{ops::Range, path::Path, sync::Arc};

use bytes::Bytes;
use parquet::{
    basic::{Compression, Encoding, Repetition, Type as PhysicalType},
    column::page::Page,
    data_type::{ByteArray, FixedLenByteArray, FixedLenByteArrayType},
    errors::ParquetError,
    file::{
        metadata::KeyValue,
        properties::{EnabledStatistics, WriterProperties, WriterVersion},
        reader::{FileReader, SerializedFileReader},
        writer::SerializedFileWriter,
    },
    schema::types::Type,
};

use crate::{
    error::Result,
    fence::fenced_or,
    file::{checked_bytes, damage, write_with},
    manifest::{FileEntry, Manifest, ShardEntry},
    names::state_file_name,
    shard::StateRows,
    states::{Dtype, StateId, StateKind},
    wording::{counted, shorten},
};

/// The size of a data page: small enough to skip to, large enough to scan.
const PAGE_BYTES: usize = 128 * 1024;

/// The size of a row group.
const ROW_GROUP_BYTES: usize = 32 * 1024 * 1024;

/// The key-value metadata of a state's file.
#[derive(Clone, Debug)]
pub(crate) struct StateMetadata {
    /// The cache's fingerprint.
    pub(crate) fingerprint: String,
    /// Width of a state.
    pub(crate) hidden: usize,
    /// Type of a value.
    pub(crate) dtype: Dtype,
}

impl StateMetadata {
    /// Returns the metadata shared by all states of a cache.
    pub(crate) fn of(manifest: &Manifest) -> StateMetadata {
        StateMetadata {
            fingerprint: manifest.fingerprint.clone(),
            hidden: manifest.hidden,
            dtype: manifest.dtype,
        }
    }
}

/// Writes one state of a shard, with little-endian values.
///
/// # Errors
/// Returns an error if the file cannot be written.
///
/// # Panics
/// Panics if the bytes are not a whole number of rows.
pub(crate) fn write_state(
    folder: &Path,
    rows: StateRows,
    metadata: &StateMetadata,
) -> Result<FileEntry> {
    let StateRows { state, bytes } = rows;
    let row_bytes = metadata.hidden * metadata.dtype.size_bytes();
    assert!(bytes.len().is_multiple_of(row_bytes), "states are whole rows");
    let bytes = Bytes::from(bytes);
    let rows_of_group = (ROW_GROUP_BYTES / row_bytes).max(1);
    let properties = Arc::new(properties(state, metadata, row_bytes));
    let column = Type::primitive_type_builder("state", PhysicalType::FIXED_LEN_BYTE_ARRAY)
        .with_repetition(Repetition::REQUIRED)
        .with_length(row_bytes as i32);
    let schema = column.build().and_then(|column| {
        let columns = vec![Arc::new(column)];
        Type::group_type_builder("schema").with_fields(columns).build()
    });
    write_with(folder, &state_file_name(state), |sink| {
        let mut writer = SerializedFileWriter::new(sink, Arc::new(schema?), properties)?;
        for rows in bytes.chunks(rows_of_group * row_bytes) {
            let mut group = writer.next_row_group()?;
            if let Some(mut column) = group.next_column()? {
                let values: Vec<FixedLenByteArray> = rows
                    .chunks_exact(row_bytes)
                    .map(|row| ByteArray::from(bytes.slice_ref(row)).into())
                    .collect();
                column.typed::<FixedLenByteArrayType>().write_batch(&values, None, None)?;
                column.close()?;
            }
            group.close()?;
        }
        writer.close().map(drop)
    })
}

/// The metadata key for the width of a state.
const HIDDEN: &str = "frostbert.hidden";

impl StateMetadata {
    /// Returns the key-value metadata for the file of a state.
    fn pairs(&self, state: StateId) -> [(&'static str, String); 5] {
        [
            ("frostbert.fingerprint", self.fingerprint.clone()),
            ("frostbert.dtype", self.dtype.name().to_string()),
            (HIDDEN, self.hidden.to_string()),
            ("frostbert.pooling", state.kind.name().to_string()),
            ("frostbert.layer", state.layer.to_string()),
        ]
    }
}

fn read_footer(path: &Path, bytes: Bytes) -> Result<SerializedFileReader<Bytes>> {
    fenced_or(|| SerializedFileReader::new(bytes), ParquetError::General)
        .map_err(|error| damage(path, "a Parquet file of states", error.to_string()))
}

fn pairs_in(reader: &SerializedFileReader<Bytes>) -> Vec<(&str, String)> {
    let metadata = reader.metadata().file_metadata().key_value_metadata();
    let pairs = metadata.into_iter().flatten();
    pairs.filter_map(|pair| Some((pair.key.as_str(), pair.value.clone()?))).collect()
}

/// Returns the width that is recorded in the file of a state.
///
/// # Errors
/// Returns [`crate::error::Error::Damage`] if the file does not match the manifest or records no width.
pub(crate) fn hidden_of(folder: &Path, entry: &ShardEntry, state: StateId) -> Result<usize> {
    let path = folder.join(&entry.name).join(state_file_name(state));
    let damaged = |got: String| damage(&path, "a Parquet file of states", got);
    let reader = read_footer(&path, checked_bytes(folder, entry, &state_file_name(state))?)?;
    let mut pairs = pairs_in(&reader).into_iter();
    let hidden = pairs.find(|(key, _)| *key == HIDDEN);
    hidden
        .and_then(|(_, value)| value.parse().ok())
        .ok_or_else(|| damaged(format!("one without {HIDDEN}")))
}

fn properties(state: StateId, metadata: &StateMetadata, row_bytes: usize) -> WriterProperties {
    let pairs = metadata.pairs(state);
    WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_encoding(Encoding::PLAIN)
        .set_compression(Compression::UNCOMPRESSED)
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .set_data_page_size_limit(PAGE_BYTES)
        .set_write_batch_size((PAGE_BYTES / row_bytes).max(1))
        .set_key_value_metadata(Some(
            pairs.into_iter().map(|(key, value)| KeyValue::new(key.to_string(), value)).collect(),
        ))
        .build()
}

/// One state of a shard, memory-mapped; its pages are slices of the file.
pub struct StateFile {
    row_bytes: usize,
    pages: Vec<Bytes>,
    /// The first row of each page, followed by the number of rows.
    page_start: Vec<usize>,
}

impl StateFile {
    /// Maps the file, checks its checksum, and finds its pages.
    ///
    /// # Errors
    /// Returns [`crate::error::Error::Damage`] if the file does not match the manifest: it must belong to this cache
    /// and have a row for each document or token of the shard.
    pub fn open(
        folder: &Path,
        manifest: &Manifest,
        entry: &ShardEntry,
        state: StateId,
    ) -> Result<StateFile> {
        let name = state_file_name(state);
        let path = folder.join(&entry.name).join(&name);
        let bytes = checked_bytes(folder, entry, &name)?;
        let row_bytes = manifest.hidden * manifest.dtype.size_bytes();
        let reader = read_footer(&path, bytes)?;
        let metadata = StateMetadata::of(manifest);
        let (expected, got) = (metadata.pairs(state), pairs_in(&reader));
        if let Some((key, value)) = expected.iter().find(|pair| !got.contains(pair)) {
            let other = got.iter().find(|(other, _)| other == key);
            return Err(damage(
                &path,
                &format!("a state file with {key} {value}"),
                other.map_or("none".into(), |(_, value)| shorten(value, 40)),
            ));
        }
        let file = fenced_or(|| StateFile::of(reader, row_bytes), ParquetError::General)
            .map_err(|error| damage(&path, "a Parquet file of states", error.to_string()))?;
        let n_rows = match state.kind {
            StateKind::Pooled(_) => Some(entry.documents),
            StateKind::Tokens => Some(entry.tokens),
            // The number of words is in the shard's table of words.
            StateKind::Words => None,
        };
        match n_rows {
            Some(n_rows) if n_rows != file.n_rows() as u64 => {
                Err(damage(&path, &counted(n_rows, "row"), file.n_rows().to_string()))
            }
            _ => Ok(file),
        }
    }

    fn of(
        reader: SerializedFileReader<Bytes>,
        row_bytes: usize,
    ) -> Result<StateFile, ParquetError> {
        let mut file = StateFile { row_bytes, pages: Vec::new(), page_start: vec![0] };
        for group in 0..reader.num_row_groups() {
            let group = reader.get_row_group(group)?;
            for page in group.get_column_page_reader(0)? {
                let Page::DataPage { buf, num_values, encoding: Encoding::PLAIN, .. } = page?
                else {
                    return Err(ParquetError::General("a page that is not plain".into()));
                };
                if buf.len() != num_values as usize * row_bytes {
                    return Err(ParquetError::General(format!(
                        "a page of {} bytes for {num_values} rows of {row_bytes}",
                        buf.len()
                    )));
                }
                file.page_start.push(file.n_rows() + num_values as usize);
                file.pages.push(buf);
            }
        }
        Ok(file)
    }

    /// Returns the number of rows.
    pub fn n_rows(&self) -> usize {
        self.page_start.last().copied().unwrap_or(0)
    }

    /// Returns the bytes of a row.
    ///
    /// # Panics
    /// Panics if there is no such row.
    pub fn row(&self, row: usize) -> &[u8] {
        let page = self.page_of(row);
        let start = (row - self.page_start[page]) * self.row_bytes;
        &self.pages[page][start..start + self.row_bytes]
    }

    /// Returns the bytes of a range of rows, one slice per page, without copying.
    ///
    /// # Panics
    /// Panics if the rows are out of bounds.
    pub fn rows(&self, rows: Range<usize>) -> impl Iterator<Item = &[u8]> {
        assert!(rows.end <= self.n_rows(), "rows {rows:?} of {}", self.n_rows());
        let first = if rows.is_empty() { self.pages.len() } else { self.page_of(rows.start) };
        let pages = (first..self.pages.len()).take_while({
            let end = rows.end;
            move |page| self.page_start[*page] < end
        });
        pages.map(move |page| {
            let start = rows.start.max(self.page_start[page]) - self.page_start[page];
            let end = rows.end.min(self.page_start[page + 1]) - self.page_start[page];
            &self.pages[page][start * self.row_bytes..end * self.row_bytes]
        })
    }

    fn page_of(&self, row: usize) -> usize {
        self.page_start.partition_point(|start| *start <= row) - 1
    }
}

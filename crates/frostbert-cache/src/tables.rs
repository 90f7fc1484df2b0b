//! The tables of a shard: docs.parquet, and the positions of tokens and words in their documents.

use std::{path::Path, sync::Arc};

use arrow::{
    array::{Array, AsArray, BooleanArray, FixedSizeBinaryArray, PrimitiveArray, RecordBatch},
    buffer::Buffer,
    datatypes::{ArrowPrimitiveType, Int32Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type},
};
use parquet::{
    basic::{Compression, ZstdLevel},
    errors::ParquetError,
    file::{
        properties::{EnabledStatistics, WriterProperties, WriterVersion},
        reader::{FileReader, SerializedFileReader},
    },
};

use crate::{
    error::Result,
    fence::fenced_or,
    file::{NamedColumns, checked_bytes, damage, read_file, write_table},
    fingerprint::Key,
    manifest::{FileEntry, ShardEntry},
    names::{DOCUMENTS_FILE, TOKENS_FILE, WORDS_FILE},
    shard::{DocumentTable, ShardLayout},
    states::{Alignment, WordPlace},
    wording::counted,
};

/// Writes docs.parquet, one row per window.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub(crate) fn write_documents(folder: &Path, table: &DocumentTable) -> Result<FileEntry> {
    let windows = || {
        (0..table.len()).flat_map(|document| {
            let windows = table.windows(document);
            windows.clone().map(move |window| (document, window, windows.clone()))
        })
    };
    let tokens = |window| table.window_tokens(window);
    let keys: Vec<u8> = windows().flat_map(|(document, ..)| table.key(document).0).collect();
    let truncated = windows().map(|(document, ..)| Some(table.truncated(document)));
    let columns: NamedColumns = vec![
        ("key", Arc::new(FixedSizeBinaryArray::new(32, Buffer::from_vec(keys), None))),
        (
            "window",
            column::<UInt16Type>(windows().map(|(_, window, all)| (window - all.start) as u16)),
        ),
        ("n_windows", column::<UInt16Type>(windows().map(|(.., all)| all.len() as u16))),
        (
            "n_tokens",
            column::<UInt32Type>(windows().map(|(_, window, _)| {
                let tokens = tokens(window);
                (tokens.end - tokens.start) as u32
            })),
        ),
        ("truncated", Arc::new(BooleanArray::from_iter(truncated))),
        ("token_start", column::<UInt64Type>(windows().map(|(_, window, _)| tokens(window).start))),
    ];
    write_table(folder, DOCUMENTS_FILE, columns, properties())
}

/// Writes tokens.parquet, one row per token row.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub(crate) fn write_tokens(folder: &Path, layout: &ShardLayout) -> Result<FileEntry> {
    write_table(folder, TOKENS_FILE, token_columns(layout), properties())
}

/// Builds the columns that locate each token row, beginning with the row of its document.
pub(crate) fn token_columns(layout: &ShardLayout) -> NamedColumns {
    let table = &layout.documents;
    let places = || {
        (0..table.len()).flat_map(move |document| {
            let windows = table.windows(document);
            let first = windows.start;
            windows.flat_map(move |window| {
                let tokens = table.window_tokens(window);
                let n_tokens = tokens.end - tokens.start;
                (0..n_tokens).map(move |position| (document, window - first, position))
            })
        })
    };
    let alignment = &layout.alignment;
    vec![
        ("doc", column::<UInt32Type>(places().map(|place| place.0 as u32))),
        ("window", column::<UInt16Type>(places().map(|place| place.1 as u16))),
        ("position", column::<UInt16Type>(places().map(|place| place.2 as u16))),
        ("token_id", column::<UInt32Type>(alignment.token_ids.iter().copied())),
        ("word", column::<Int32Type>(alignment.words.iter().copied())),
        ("char_start", column::<UInt32Type>(alignment.char_starts.iter().copied())),
        ("char_end", column::<UInt32Type>(alignment.char_ends.iter().copied())),
        ("sequence", column::<UInt8Type>(alignment.sequences.iter().copied())),
    ]
}

/// Writes words.parquet, one row per word row.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub(crate) fn write_words(folder: &Path, layout: &ShardLayout) -> Result<FileEntry> {
    write_table(folder, WORDS_FILE, word_columns(layout), properties())
}

/// Builds the columns that locate each word row, beginning with the row of its document.
pub(crate) fn word_columns(layout: &ShardLayout) -> NamedColumns {
    let words = &layout.words;
    let documents = layout
        .word_start
        .windows(2)
        .enumerate()
        .flat_map(|(document, bounds)| (bounds[0]..bounds[1]).map(move |_| document as u32));
    vec![
        ("doc", column::<UInt32Type>(documents)),
        ("sequence", column::<UInt8Type>(words.iter().map(|word| word.sequence))),
        ("word", column::<Int32Type>(words.iter().map(|word| word.word))),
        ("char_start", column::<UInt32Type>(words.iter().map(|word| word.char_start))),
        ("char_end", column::<UInt32Type>(words.iter().map(|word| word.char_end))),
        ("window", column::<UInt16Type>(words.iter().map(|word| word.window))),
        ("position", column::<UInt16Type>(words.iter().map(|word| word.position))),
    ]
}

fn column<T: ArrowPrimitiveType>(values: impl Iterator<Item = T::Native>) -> Arc<dyn Array> {
    Arc::new(PrimitiveArray::<T>::from_iter_values(values))
}

fn properties() -> WriterProperties {
    WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .build()
}

/// Reads the table of documents of a shard.
///
/// # Errors
/// Returns an error if the file is damaged or its counts differ from the manifest's.
pub(crate) fn read_documents(folder: &Path, entry: &ShardEntry) -> Result<DocumentTable> {
    let table = read_documents_uncounted(folder, entry)?;
    let (expected, got) = (DocumentCounts::of_entry(entry), DocumentCounts::of_table(&table));
    if got != expected {
        return Err(damage(
            &folder.join(&entry.name).join(DOCUMENTS_FILE),
            &format!(
                "{} documents, {} windows, {} tokens",
                expected.documents, expected.windows, expected.tokens
            ),
            format!("{}, {}, {}", got.documents, got.windows, got.tokens),
        ));
    }
    Ok(table)
}

/// The manifest's counts for a shard's table of documents.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct DocumentCounts {
    pub(crate) documents: u64,
    pub(crate) windows: u64,
    pub(crate) tokens: u64,
}

impl DocumentCounts {
    pub(crate) fn of_entry(entry: &ShardEntry) -> DocumentCounts {
        DocumentCounts { documents: entry.documents, windows: entry.windows, tokens: entry.tokens }
    }

    pub(crate) fn of_table(table: &DocumentTable) -> DocumentCounts {
        DocumentCounts {
            documents: table.len() as u64,
            windows: table.n_windows() as u64,
            tokens: table.n_tokens(),
        }
    }
}

/// Does the same as [`read_documents`], but ignores the manifest's counts.
///
/// # Errors
/// Returns an error if the file is damaged.
pub(crate) fn read_documents_uncounted(folder: &Path, entry: &ShardEntry) -> Result<DocumentTable> {
    let mut table = DocumentTable::default();
    let mut windows: Vec<u32> = Vec::new();
    each_batch(folder, entry, DOCUMENTS_FILE, |batch| {
        let keys = batch.column_by_name("key")?.as_fixed_size_binary_opt()?;
        let truncated = batch.column_by_name("truncated")?.as_boolean_opt()?;
        let n_tokens = values::<UInt32Type>(batch, "n_tokens")?;
        let n_windows = values::<UInt16Type>(batch, "n_windows")?;
        for row in 0..batch.num_rows() {
            windows.push(n_tokens[row]);
            if windows.len() == usize::from(n_windows[row]) {
                let key = Key(keys.value(row).try_into().ok()?);
                table.push(key, truncated.value(row), windows.drain(..));
            }
        }
        Some(())
    })?;
    if !windows.is_empty() {
        return Err(damage(
            &folder.join(&entry.name).join(DOCUMENTS_FILE),
            "the rows of all windows of the last document",
            counted(windows.len(), "row"),
        ));
    }
    Ok(table)
}

/// Reads the positions of a shard's token rows.
///
/// # Errors
/// Returns an error if the shard has no such table, or if it is damaged or does not have one row for each token of
/// `documents`.
pub(crate) fn read_tokens(
    folder: &Path,
    entry: &ShardEntry,
    documents: &DocumentTable,
) -> Result<Alignment> {
    let mut alignment = Alignment::default();
    each_batch(folder, entry, TOKENS_FILE, |batch| {
        alignment.token_ids.extend(values::<UInt32Type>(batch, "token_id")?);
        alignment.words.extend(values::<Int32Type>(batch, "word")?);
        alignment.char_starts.extend(values::<UInt32Type>(batch, "char_start")?);
        alignment.char_ends.extend(values::<UInt32Type>(batch, "char_end")?);
        alignment.sequences.extend(values::<UInt8Type>(batch, "sequence")?);
        Some(())
    })?;
    let n_rows = alignment.token_ids.len() as u64;
    if n_rows != documents.n_tokens() {
        return Err(damage(
            &folder.join(&entry.name).join(TOKENS_FILE),
            &counted(documents.n_tokens(), "row"),
            n_rows.to_string(),
        ));
    }
    Ok(alignment)
}

/// Reads the words of a shard, and the index of the first word of each document.
///
/// # Errors
/// Returns an error if the shard has no such table, or if it is damaged or lists words that `documents` cannot have.
pub(crate) fn read_words(
    folder: &Path,
    entry: &ShardEntry,
    documents: &DocumentTable,
) -> Result<(Vec<WordPlace>, Vec<u32>)> {
    let mut words = Vec::new();
    let mut word_start = vec![0; documents.len() + 1];
    let mut last = 0;
    let mut stranger = None;
    each_batch(folder, entry, WORDS_FILE, |batch| {
        let document = values::<UInt32Type>(batch, "doc")?;
        let sequence = values::<UInt8Type>(batch, "sequence")?;
        let word = values::<Int32Type>(batch, "word")?;
        let char_start = values::<UInt32Type>(batch, "char_start")?;
        let char_end = values::<UInt32Type>(batch, "char_end")?;
        let window = values::<UInt16Type>(batch, "window")?;
        let position = values::<UInt16Type>(batch, "position")?;
        for row in 0..batch.num_rows() {
            let document = document[row] as usize;
            let (window, position) = (window[row], position[row]);
            if document < last || !has_token(documents, document, window, position) {
                stranger.get_or_insert((document, window, position));
                return Some(());
            }
            last = document;
            word_start[document + 1] += 1;
            words.push(WordPlace {
                sequence: sequence[row],
                word: word[row],
                char_start: char_start[row],
                char_end: char_end[row],
                window,
                position,
            });
        }
        Some(())
    })?;
    if let Some((document, window, position)) = stranger {
        return Err(damage(
            &folder.join(&entry.name).join(WORDS_FILE),
            "words in the order of the shard's documents, each at one of their tokens",
            format!("token {position} of window {window} of document {document}"),
        ));
    }
    for document in 1..word_start.len() {
        word_start[document] += word_start[document - 1];
    }
    Ok((words, word_start))
}

/// Checks that a shard's table of words has as many rows as a file of word states.
///
/// # Errors
/// Returns an error if it does not, or if the table is damaged.
pub(crate) fn require_words(folder: &Path, entry: &ShardEntry, n_rows: usize) -> Result<()> {
    let path = folder.join(&entry.name).join(WORDS_FILE);
    let bytes = checked_bytes(folder, entry, WORDS_FILE)?;
    let reader = fenced_or(|| SerializedFileReader::new(bytes), ParquetError::General)
        .map_err(|error| damage(&path, "a Parquet file", error.to_string()))?;
    let got = reader.metadata().file_metadata().num_rows();
    if usize::try_from(got) == Ok(n_rows) {
        Ok(())
    } else {
        Err(damage(&path, &counted(n_rows, "row"), got.to_string()))
    }
}

fn has_token(documents: &DocumentTable, document: usize, window: u16, position: u16) -> bool {
    if document >= documents.len() {
        return false;
    }
    let windows = documents.windows(document);
    let window = windows.start + usize::from(window);
    window < windows.end && {
        let tokens = documents.window_tokens(window);
        u64::from(position) < tokens.end - tokens.start
    }
}

/// Passes the batches of a table to `visit`, which returns `None` if a column is missing or of another type.
fn each_batch(
    folder: &Path,
    entry: &ShardEntry,
    name: &str,
    mut visit: impl FnMut(&RecordBatch) -> Option<()>,
) -> Result<()> {
    for batch in read_file(folder, entry, name)? {
        visit(&batch?).ok_or_else(|| {
            let path = folder.join(&entry.name).join(name);
            damage(&path, "the columns of this format", "different ones".into())
        })?;
    }
    Ok(())
}

fn values<'a, T: ArrowPrimitiveType>(
    batch: &'a RecordBatch,
    name: &str,
) -> Option<&'a [T::Native]> {
    let column = batch.column_by_name(name)?.as_primitive_opt::<T>()?;
    Some(column.values())
}

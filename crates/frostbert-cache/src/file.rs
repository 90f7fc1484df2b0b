//! A Parquet file of a shard: written with a checksum, and read only if the checksum matches.

use std::{
    fmt::Display,
    fs::File,
    io::{self, BufWriter, Write},
    iter,
    path::Path,
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::{Field, Schema},
};
use bytes::Bytes;
use crossbeam_channel::{Sender, bounded};
use parquet::{
    arrow::{
        ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder,
        arrow_writer::ArrowWriterOptions,
    },
    errors::ParquetError,
    file::properties::WriterProperties,
};

use crate::{
    error::{Error, Result},
    fence::fenced_or,
    fingerprint,
    manifest::{FileEntry, ShardEntry},
};

/// Named columns of a file; all are REQUIRED.
pub(crate) type NamedColumns = Vec<(&'static str, ArrayRef)>;

/// Writes a table to `folder/name`, computing its checksum on the fly, and syncs the file.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub(crate) fn write_table(
    folder: &Path,
    name: &str,
    columns: NamedColumns,
    properties: WriterProperties,
) -> Result<FileEntry> {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, column)| Field::new(*name, column.data_type().clone(), false))
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    write_with(folder, name, |sink| {
        let batch = RecordBatch::try_new(schema.clone(), columns)?;
        let options =
            ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let mut writer = ArrowWriter::try_new_with_options(sink, schema, options)?;
        writer.write(&batch)?;
        writer.close().map(drop)
    })
}

/// Writes `folder/name` through `write`, computing its checksum on the fly, and syncs the file.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub(crate) fn write_with(
    folder: &Path,
    name: &str,
    write: impl FnOnce(&mut Sink) -> Result<(), ParquetError>,
) -> Result<FileEntry> {
    let path = folder.join(name);
    let file = File::create(&path).map_err(Error::io("create", &path))?;
    let syncing = file.try_clone().map_err(Error::io("open", &path))?;
    let (due, dues) = bounded::<()>(1);
    let mut sink = BufWriter::with_capacity(
        BUFFER_BYTES,
        Hashed { inner: file, hasher: blake3::Hasher::new(), bytes: 0, unsynced: 0, due },
    );
    let written = std::thread::scope(|scope| {
        // Start writing to the disk while the rest is still being encoded. The system reports a failed write only once,
        // to whoever syncs first.
        let early = std::thread::Builder::new()
            .spawn_scoped(scope, move || dues.into_iter().try_for_each(|()| syncing.sync_data()))
            .map_err(Error::io("start a thread for", &path))?;
        write(&mut sink).map_err(|error| Error::io("write", &path)(as_io(error)))?;
        let sink =
            sink.into_inner().map_err(|error| Error::io("write", &path)(error.into_error()))?;
        // Dropping the sender ends the thread that waits for it.
        drop(sink.due);
        early.join().expect("a sync does not panic").map_err(Error::io("sync", &path))?;
        Ok::<_, Error>((sink.inner, sink.hasher, sink.bytes))
    });
    let (file, hasher, bytes) = written?;
    file.sync_all().map_err(Error::io("sync", &path))?;
    Ok(FileEntry { name: name.into(), bytes, blake3: hasher.finalize().into() })
}

/// The destination of a file's bytes.
pub(crate) type Sink = BufWriter<Hashed>;

/// Pages of states are larger and bypass the buffer.
const BUFFER_BYTES: usize = 64 * 1024;

/// The number of bytes after which a sync is started.
const SYNC_BYTES: usize = 8 * 1024 * 1024;

/// Returns the I/O error inside a Parquet error, so that a full disk is recognised as such.
pub fn as_io(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(source) => *source,
            Err(other) => io::Error::other(other),
        },
        other => io::Error::other(other),
    }
}

/// A file that hashes and counts the bytes written to it, and signals when a sync is due.
pub(crate) struct Hashed {
    inner: File,
    hasher: blake3::Hasher,
    bytes: u64,
    unsynced: usize,
    due: Sender<()>,
}

impl Write for Hashed {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..written]);
        self.bytes += written as u64;
        self.unsynced += written;
        if self.unsynced >= SYNC_BYTES {
            self.unsynced = 0;
            // A sync in progress, or the next one, covers these bytes; a failed one is detected when its thread is
            // joined.
            let _ = self.due.try_send(());
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Maps a file of a shard, checks it against the manifest, and reads it as record batches.
///
/// # Errors
/// Returns [`Error::Damage`] if it does not match the manifest.
pub(crate) fn read_file(
    folder: &Path,
    entry: &ShardEntry,
    name: &str,
) -> Result<impl Iterator<Item = Result<RecordBatch>> + use<>> {
    let path = folder.join(&entry.name).join(name);
    let bytes = checked_bytes(folder, entry, name)?;
    let failed = |error: &dyn Display| damage(&path, "a Parquet file", error.to_string());
    let open = || {
        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes)?;
        builder.with_batch_size(READ_ROWS).build()
    };
    let mut reader = fenced_or(open, ParquetError::General).map_err(|error| failed(&error))?;
    let path = path.clone();
    let mut is_damaged = false;
    Ok(iter::from_fn(move || {
        let next = || reader.next().transpose().map_err(ParquetError::from);
        let batch = if is_damaged { Ok(None) } else { fenced_or(next, ParquetError::General) };
        is_damaged = batch.is_err();
        let failed =
            |error: ParquetError| damage(&path, "a readable Parquet file", error.to_string());
        batch.map_err(failed).transpose()
    }))
}

/// The number of rows decoded at a time.
const READ_ROWS: usize = 8192;

/// Maps a file of a shard and checks its size and checksum.
///
/// # Errors
/// Returns [`Error::Damage`] if it does not match the manifest.
pub(crate) fn checked_bytes(folder: &Path, entry: &ShardEntry, name: &str) -> Result<Bytes> {
    let path = folder.join(&entry.name).join(name);
    let Some(file) = entry.files.iter().find(|file| file.name == name) else {
        return Err(damage(
            &path,
            &format!("`{name}` in the manifest's {}", entry.name),
            "none".into(),
        ));
    };
    let (bytes, _, hash) = match fingerprint::map_and_hash(&path) {
        Ok(mapped) => mapped,
        Err(Error::Io(error)) if error.source.kind() == io::ErrorKind::NotFound => {
            return Err(damage(&path, &format!("{} bytes", file.bytes), "no such file".into()));
        }
        Err(other) => return Err(other),
    };
    if bytes.len() as u64 != file.bytes {
        return Err(damage(
            &path,
            &format!("{} bytes", file.bytes),
            format!("{} bytes", bytes.len()),
        ));
    }
    if hash != file.blake3 {
        return Err(damage(&path, &format!("blake3 {}", file.blake3.short()), hash.short()));
    }
    Ok(bytes)
}

pub(crate) fn damage(path: &Path, expected: &str, got: String) -> Error {
    Error::Damage {
        path: path.to_path_buf(),
        expected: expected.into(),
        got,
        hint: "run `frostbert cache verify --repair` on this cache, which drops what is damaged, and then \
               `frostbert extract`, which computes it again"
            .into(),
    }
}

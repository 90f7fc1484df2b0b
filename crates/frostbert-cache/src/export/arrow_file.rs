//! Writes an Arrow IPC file, with states as `FixedSizeList` columns of float16 or float32.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use arrow::{array::RecordBatch, error::ArrowError, ipc::writer::FileWriter};

use super::table::{ExportTable, TableWriter};
use crate::error::{Error, Result};

/// Writes a table to an Arrow IPC file.
pub(super) struct ArrowWriter {
    path: PathBuf,
    writer: FileWriter<BufWriter<File>>,
}

impl ArrowWriter {
    pub(super) fn create(folder: &Path, table: &ExportTable) -> Result<ArrowWriter> {
        let path = folder.join(format!("{}.arrow", table.name));
        let file = File::create(&path).map_err(Error::io("create", &path))?;
        let writer = FileWriter::try_new(BufWriter::new(file), &table.schema)
            .map_err(|error| Error::io("write", &path)(as_io(error)))?;
        Ok(ArrowWriter { path, writer })
    }
}

impl TableWriter for ArrowWriter {
    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let written = self.writer.write(batch);
        written.map_err(|error| Error::io("write", &self.path)(as_io(error)))
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        let finished = self.writer.finish().map_err(as_io);
        let flushed = finished.and_then(|()| self.writer.get_mut().flush());
        flushed.map_err(Error::io("write", &self.path))
    }
}

/// Returns the I/O error inside an Arrow error, so that a full disk is recognised as such.
fn as_io(error: ArrowError) -> io::Error {
    match error {
        ArrowError::IoError(_, source) => source,
        other => io::Error::other(other),
    }
}

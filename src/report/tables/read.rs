//! Reads a table of predictions of a run folder into memory.

use std::path::Path;

use arrow::array::RecordBatch;
use bytes::Bytes;
use parquet::{arrow::arrow_reader::ParquetRecordBatchReaderBuilder, errors::ParquetError};

use crate::error::{Error, Result};

/// Reads a table of predictions from the bytes of `path`, all rows in one batch.
///
/// # Errors
/// Returns [`Error::Run`] if the bytes are not such a table.
pub(crate) fn read_batch(path: &Path, bytes: Vec<u8>) -> Result<RecordBatch> {
    let failed = |error: ParquetError| damaged(path, error.to_string());
    let builder = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).map_err(failed)?;
    let n_rows = usize::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
    let schema = builder.schema().clone();
    let mut batches = builder.with_batch_size(n_rows.max(1)).build().map_err(failed)?;
    match batches.next() {
        None => Ok(RecordBatch::new_empty(schema)),
        Some(batch) => batch.map_err(|error| failed(error.into())),
    }
}

/// The error for bytes that are no table of predictions.
pub(in crate::report) fn damaged(path: &Path, got: String) -> Error {
    Error::Run {
        path: path.to_path_buf(),
        expected: "the table of predictions that a run writes".into(),
        got,
        hint: "copy the run folder again, or run its pipeline again".into(),
    }
}

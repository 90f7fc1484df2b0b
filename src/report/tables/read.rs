//! Tables of a run folder, read back.

use std::path::{Path, PathBuf};

use arrow::array::{
    Array, AsArray, FixedSizeBinaryArray, Float32Array, Float64Array, ListArray, RecordBatch,
    StringArray,
};
use bytes::Bytes;
use frostbert_cache::fingerprint::Key;
use parquet::{arrow::arrow_reader::ParquetRecordBatchReaderBuilder, errors::ParquetError};

use crate::error::{Error, Result};

/// A table of predictions as it was written, column by column.
pub(crate) struct SavedTable {
    path: PathBuf,
    batch: RecordBatch,
}

impl SavedTable {
    /// Reads a table from the bytes of `path`.
    ///
    /// # Errors
    /// When the bytes are no table.
    pub(crate) fn read(path: &Path, bytes: Vec<u8>) -> Result<SavedTable> {
        Ok(SavedTable { path: path.to_path_buf(), batch: read_batch(path, bytes)? })
    }

    /// Whether there is a column of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.batch.column_by_name(name).is_some()
    }

    /// A column of keys.
    ///
    /// # Errors
    /// When there is none; as below.
    pub(crate) fn keys(&self, name: &str) -> Result<Vec<Key>> {
        let key = |column: &FixedSizeBinaryArray, row: usize| -> Option<[u8; 32]> {
            column.value(row).try_into().ok()
        };
        let keys: Option<Vec<[u8; 32]>> = self.column(name, key)?.into_iter().collect();
        let keys = keys.ok_or_else(|| self.damaged("keys of another length"))?;
        Ok(keys.into_iter().map(Key).collect())
    }

    /// A column of texts; none where one is missing.
    pub(crate) fn texts(&self, name: &str) -> Result<Vec<Option<String>>> {
        self.column(name, |column: &StringArray, row| {
            column.is_valid(row).then(|| column.value(row).to_string())
        })
    }

    /// A column of numbers.
    pub(crate) fn floats(&self, name: &str) -> Result<Vec<f32>> {
        self.column(name, |column: &Float32Array, row| column.value(row))
    }

    /// A column of numbers in double precision.
    pub(crate) fn doubles(&self, name: &str) -> Result<Vec<f64>> {
        self.column(name, |column: &Float64Array, row| column.value(row))
    }

    /// A column of lists of texts.
    pub(crate) fn lists(&self, name: &str) -> Result<Vec<Vec<String>>> {
        let list = |column: &ListArray, row: usize| -> Option<Vec<String>> {
            let items = column.value(row);
            let texts = items.as_string_opt::<i32>()?;
            Some((0..texts.len()).map(|item| texts.value(item).to_string()).collect())
        };
        let lists: Option<Vec<Vec<String>>> = self.column(name, list)?.into_iter().collect();
        lists.ok_or_else(|| self.damaged(&format!("no texts in the column `{name}`")))
    }

    /// The values of a column of one kind.
    fn column<C: Array + 'static, V>(
        &self,
        name: &str,
        value: impl Fn(&C, usize) -> V,
    ) -> Result<Vec<V>> {
        let column = self.batch.column_by_name(name);
        let column = column.and_then(|column| column.as_any().downcast_ref::<C>());
        let column = column.ok_or_else(|| self.damaged(&format!("no such column as `{name}`")))?;
        Ok((0..self.batch.num_rows()).map(|row| value(column, row)).collect())
    }

    /// The error for a table that holds something else than what a run writes.
    pub(crate) fn damaged(&self, got: &str) -> Error {
        damaged(&self.path, got.into())
    }
}

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
pub(super) fn damaged(path: &Path, got: String) -> Error {
    Error::Run {
        path: path.to_path_buf(),
        expected: "the table of predictions that a run writes".into(),
        got,
        hint: "copy the run folder again, or run its pipeline again".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tables::Table;

    #[test]
    fn columns_are_read_as_they_were_written_and_others_are_named() {
        let mut table = Table::default();
        let key = Key([7; 32]);
        table.keys("key", [key, key].into_iter());
        table.optional_texts("id", [Some("a"), None].into_iter());
        table.texts("part", ["test", "train"].into_iter());
        table.floats("p_a", [0.25, 0.75].into_iter());
        table.doubles("value", [1.5, f64::NAN].into_iter());
        table.lists("tags", [vec!["O", "B-x"], vec![]].into_iter());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        table.write(&path).unwrap();
        let read = SavedTable::read(&path, std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(read.keys("key").unwrap(), [key, key]);
        assert_eq!(read.texts("id").unwrap(), [Some("a".to_string()), None]);
        assert_eq!(read.floats("p_a").unwrap(), [0.25, 0.75]);
        assert_eq!(read.doubles("value").unwrap()[0], 1.5);
        assert_eq!(read.lists("tags").unwrap(), [vec!["O".to_string(), "B-x".into()], vec![]]);
        assert!(read.has("part") && !read.has("label"));
        for error in [read.texts("label").unwrap_err(), read.floats("value").unwrap_err()] {
            assert!(error.to_string().contains("got no such column as `"), "{error}");
        }
        assert!(SavedTable::read(&path, b"no table".to_vec()).is_err());
    }
}

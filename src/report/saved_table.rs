//! The table of predictions of a run, of which certain columns must be there.

use std::path::{Path, PathBuf};

use frostbert_cache::fingerprint::Key;

use super::{predicted_table::PredictedTable, tables::damaged};
use crate::error::{Error, Result};

/// A table of predictions; a column that is not there, or is of another kind, is an error that names it.
pub(crate) struct SavedTable {
    path: PathBuf,
    table: PredictedTable,
}

impl SavedTable {
    /// Reads a table from the bytes of `path`.
    ///
    /// # Errors
    /// When the bytes are no table.
    pub(crate) fn read(path: &Path, bytes: Vec<u8>) -> Result<SavedTable> {
        Ok(SavedTable { path: path.to_path_buf(), table: PredictedTable::read(path, bytes)? })
    }

    /// Whether there is a column of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.table.has(name)
    }

    /// The keys of the rows' (first) documents.
    ///
    /// # Errors
    /// When there is no such column; as below.
    pub(crate) fn keys(&self) -> Result<Vec<Key>> {
        self.required("key", self.table.keys())
    }

    /// A column of texts; none where one is missing.
    pub(crate) fn texts(&self, name: &str) -> Result<Vec<Option<String>>> {
        let texts = self.required(name, self.table.texts(name))?.into_iter();
        Ok(texts.map(|text| text.map(String::from)).collect())
    }

    /// A column of numbers.
    pub(crate) fn floats(&self, name: &str) -> Result<Vec<f32>> {
        self.required(name, self.table.floats(name))
    }

    /// A column of numbers in double precision.
    pub(crate) fn doubles(&self, name: &str) -> Result<Vec<f64>> {
        self.required(name, self.table.doubles(name))
    }

    /// A column of lists of texts.
    pub(crate) fn lists(&self, name: &str) -> Result<Vec<Vec<String>>> {
        let lists = self.required(name, self.table.text_lists(name))?.into_iter();
        Ok(lists.map(|list| list.into_iter().map(String::from).collect()).collect())
    }

    fn required<T>(&self, name: &str, column: Option<T>) -> Result<T> {
        column.ok_or_else(|| self.damaged(&format!("no such column as `{name}`")))
    }

    /// The error for a table that holds something else than what a run writes.
    pub(crate) fn damaged(&self, got: &str) -> Error {
        damaged(&self.path, got.into())
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
        assert_eq!(read.keys().unwrap(), [key, key]);
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

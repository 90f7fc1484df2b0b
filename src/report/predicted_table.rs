//! The table of predictions of a run, read back column by column.

use std::path::Path;

use arrow::{
    array::{Array, ArrayRef, AsArray, FixedSizeBinaryArray, PrimitiveArray, RecordBatch},
    datatypes::{ArrowPrimitiveType, DataType, Float32Type, Float64Type, UInt64Type},
};
use frostbert_cache::fingerprint::Key;

use crate::{error::Result, report::tables::read_batch};

/// The columns of predictions.parquet.
#[derive(Debug)]
pub(crate) struct PredictedTable {
    batch: RecordBatch,
}

impl PredictedTable {
    /// Reads the table from the bytes of `path`.
    ///
    /// # Errors
    /// When the bytes are no such table.
    pub(crate) fn read(path: &Path, bytes: Vec<u8>) -> Result<PredictedTable> {
        Ok(PredictedTable { batch: read_batch(path, bytes)? })
    }

    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.batch.num_rows()
    }

    /// Whether there is a column of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.batch.column_by_name(name).is_some()
    }

    /// The keys of the rows' (first) documents.
    pub(crate) fn keys(&self) -> Option<Vec<Key>> {
        let column = self.batch.column_by_name("key")?;
        let column = column.as_any().downcast_ref::<FixedSizeBinaryArray>()?;
        (0..column.len()).map(|row| Some(Key(column.value(row).try_into().ok()?))).collect()
    }

    /// A column of texts, some of which may be missing.
    pub(crate) fn texts(&self, name: &str) -> Option<Vec<Option<&str>>> {
        Some(self.batch.column_by_name(name)?.as_string_opt::<i32>()?.iter().collect())
    }

    /// A column of numbers in single precision; NaN where one is missing.
    pub(crate) fn floats(&self, name: &str) -> Option<Vec<f32>> {
        let column = self.numbers_of::<Float32Type>(name)?;
        Some(column.iter().map(|value| value.unwrap_or(f32::NAN)).collect())
    }

    /// The same in double precision.
    pub(crate) fn doubles(&self, name: &str) -> Option<Vec<f64>> {
        let column = self.numbers_of::<Float64Type>(name)?;
        Some(column.iter().map(|value| value.unwrap_or(f64::NAN)).collect())
    }

    /// A column of numbers of any kind; NaN where one is missing.
    pub(crate) fn numbers(&self, name: &str) -> Option<Vec<f64>> {
        if let Some(floats) = self.floats(name) {
            return Some(floats.into_iter().map(f64::from).collect());
        }
        self.doubles(name).or_else(|| {
            let column = self.numbers_of::<UInt64Type>(name)?;
            Some(column.iter().map(|value| value.map_or(f64::NAN, |value| value as f64)).collect())
        })
    }

    fn numbers_of<T: ArrowPrimitiveType>(&self, name: &str) -> Option<&PrimitiveArray<T>> {
        self.batch.column_by_name(name)?.as_primitive_opt::<T>()
    }

    /// A column of lists of texts.
    pub(crate) fn text_lists(&self, name: &str) -> Option<Vec<Vec<&str>>> {
        let (items, lists) = self.lists(name)?;
        let items = items.as_string_opt::<i32>()?;
        Some(lists.map(|list| list.map(|item| items.value(item)).collect()).collect())
    }

    /// A text of a row; `None` where it is missing, or there is no such column.
    pub(crate) fn text_at(&self, name: &str, row: usize) -> Option<&str> {
        let column = self.batch.column_by_name(name)?.as_string_opt::<i32>()?;
        (row < column.len() && column.is_valid(row)).then(|| column.value(row))
    }

    /// A number of a row.
    pub(crate) fn number_at(&self, name: &str, row: usize) -> Option<f64> {
        let column = self.batch.column_by_name(name)?;
        if row >= column.len() || column.is_null(row) {
            return None;
        }
        match column.data_type() {
            DataType::Float32 => Some(column.as_primitive::<Float32Type>().value(row).into()),
            DataType::Float64 => Some(column.as_primitive::<Float64Type>().value(row)),
            _ => None,
        }
    }

    /// The texts in a list of a row.
    pub(crate) fn list_at(&self, name: &str, row: usize) -> Vec<&str> {
        let column = self.batch.column_by_name(name).and_then(|column| column.as_list_opt::<i32>());
        let Some(column) = column.filter(|column| row < column.len()) else {
            return Vec::new();
        };
        let Some(items) = column.values().as_string_opt::<i32>() else {
            return Vec::new();
        };
        let ends = &column.value_offsets()[row..=row + 1];
        (ends[0]..ends[1]).map(|item| items.value(item as usize)).collect()
    }

    /// The items of all lists of a column, and where those of each stand.
    fn lists(
        &self,
        name: &str,
    ) -> Option<(&ArrayRef, impl Iterator<Item = std::ops::Range<usize>>)> {
        let column = self.batch.column_by_name(name)?.as_list_opt::<i32>()?;
        let ends = column.value_offsets().windows(2);
        Some((column.values(), ends.map(|ends| ends[0] as usize..ends[1] as usize)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tables::Table;

    #[test]
    fn what_a_run_writes_is_read_back_by_column() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("predictions.parquet");
        let mut table = Table::default();
        table.keys("key", [Key([1; 32]), Key([2; 32])].into_iter());
        table.optional_texts("id", [Some("a"), None].into_iter());
        table.floats("p_x", [0.5, 0.25].into_iter());
        table.optional_integers("start", [None, Some(7)].into_iter());
        table.lists("words", [vec![], vec!["b", "c"]].into_iter());
        table.write(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let read = PredictedTable::read(&path, bytes).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(read.keys().unwrap()[1], Key([2; 32]));
        assert_eq!(read.texts("id").unwrap(), [Some("a"), None]);
        assert_eq!(read.numbers("p_x").unwrap(), [0.5, 0.25]);
        assert_eq!(read.numbers("start").unwrap()[1], 7.0);
        assert!(read.numbers("start").unwrap()[0].is_nan());
        assert_eq!(read.text_lists("words").unwrap(), [vec![], vec!["b", "c"]]);
        assert!(read.texts("p_x").is_none() && read.numbers("other").is_none());
        assert_eq!((read.text_at("id", 0), read.text_at("id", 1)), (Some("a"), None));
        assert_eq!((read.number_at("p_x", 1), read.number_at("p_x", 2)), (Some(0.25), None));
        assert_eq!(read.list_at("words", 1), ["b", "c"]);
        assert_eq!(read.list_at("other", 1), [""; 0]);
        assert!(PredictedTable::read(&path, b"no table".to_vec()).is_err());
    }

    #[test]
    fn a_table_without_rows_has_its_columns() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("predictions.parquet");
        let mut table = Table::default();
        table.texts("part", std::iter::empty());
        table.write(&path).unwrap();
        let read = PredictedTable::read(&path, std::fs::read(&path).unwrap()).unwrap();
        assert_eq!((read.len(), read.texts("part").unwrap().len()), (0, 0));
    }
}

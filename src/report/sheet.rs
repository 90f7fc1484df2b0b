//! A table that is written twice: as CSV for people, and as Parquet for programs.

use std::path::Path;

use frostbert_cache::durable::write_file;

use super::tables::Table;
use crate::{
    data::bad_rows::BadRow,
    error::{Error, Result},
};

/// A table of columns of equal length.
#[derive(Debug, Default)]
pub(crate) struct Sheet {
    columns: Vec<(String, SheetColumn)>,
}

/// The cells of one column; missing values are empty in CSV and null in Parquet.
#[derive(Debug)]
pub(crate) enum SheetColumn {
    /// Integers.
    Integers(Vec<Option<i64>>),
    /// Numbers in double precision, written with as many digits as identify them.
    Numbers(Vec<Option<f64>>),
    /// `true` and `false`.
    Flags(Vec<Option<bool>>),
    /// Strings.
    Texts(Vec<Option<String>>),
}

impl Sheet {
    /// Returns the table of records that were left out because they cannot be read.
    pub(crate) fn of_bad_rows(rows: &[BadRow]) -> Sheet {
        let mut sheet = Sheet::default();
        sheet.texts("file", rows.iter().map(|row| row.file.display().to_string()));
        sheet.integers("line", rows.iter().map(|row| row.line.map(|line| line as usize)));
        sheet.texts("reason", rows.iter().map(|row| row.reason.clone()));
        sheet
    }

    /// Adds a column.
    pub(crate) fn push(&mut self, name: impl Into<String>, column: SheetColumn) {
        self.columns.push((name.into(), column));
    }

    /// Adds a column of integers.
    pub(crate) fn integers(&mut self, name: &str, values: impl Iterator<Item = Option<usize>>) {
        let values = values.map(|value| value.map(|value| value as i64));
        self.push(name, SheetColumn::Integers(values.collect()));
    }

    /// Adds a column of numbers.
    pub(crate) fn numbers(&mut self, name: &str, values: impl Iterator<Item = Option<f64>>) {
        self.push(name, SheetColumn::Numbers(values.collect()));
    }

    /// Adds a column of strings.
    pub(crate) fn texts(&mut self, name: &str, values: impl Iterator<Item = String>) {
        self.push(name, SheetColumn::Texts(values.map(Some).collect()));
    }

    /// Writes the table as CSV, with a header line.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub(crate) fn write_csv(&self, path: &Path) -> Result<()> {
        let failed = |error: csv::Error| Error::io("write", path)(error.into());
        let mut writer = csv::Writer::from_writer(Vec::new());
        let names = self.columns.iter().map(|(name, _)| name);
        writer.write_record(names).map_err(failed)?;
        let n_rows = self.columns.first().map_or(0, |(_, column)| column.len());
        for row in 0..n_rows {
            let cells = self.columns.iter().map(|(_, column)| column.cell(row));
            writer.write_record(cells).map_err(failed)?;
        }
        let bytes = writer.into_inner().map_err(|error| failed(error.into_error().into()))?;
        Ok(write_file(path, &bytes)?)
    }

    /// Writes the table as Parquet.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written, or if columns differ in length.
    pub(crate) fn write_parquet(&self, path: &Path) -> Result<()> {
        let mut table = Table::default();
        for (name, column) in &self.columns {
            match column {
                SheetColumn::Integers(values) => {
                    table.signed_integers(name, values.iter().copied())
                }
                SheetColumn::Numbers(values) => {
                    table.optional_doubles(name, values.iter().copied())
                }
                SheetColumn::Flags(values) => table.flags(name, values.iter().copied()),
                SheetColumn::Texts(values) => {
                    table.optional_texts(name, values.iter().map(Option::as_deref));
                }
            }
        }
        table.write(path)
    }
}

impl SheetColumn {
    fn len(&self) -> usize {
        match self {
            SheetColumn::Integers(values) => values.len(),
            SheetColumn::Numbers(values) => values.len(),
            SheetColumn::Flags(values) => values.len(),
            SheetColumn::Texts(values) => values.len(),
        }
    }

    fn cell(&self, row: usize) -> String {
        match self {
            SheetColumn::Integers(values) => values[row].map(|value| value.to_string()),
            SheetColumn::Numbers(values) => values[row].map(|value| value.to_string()),
            SheetColumn::Flags(values) => values[row].map(|value| value.to_string()),
            SheetColumn::Texts(values) => values[row].clone(),
        }
        .unwrap_or_default()
    }
}

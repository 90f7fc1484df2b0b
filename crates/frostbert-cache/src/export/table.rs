//! The parts of an export: up to three tables (documents, tokens, words), written as Arrow record batches.

use arrow::{
    array::{Array, AsArray, RecordBatch},
    buffer::Buffer,
    datatypes::{DataType, Field, SchemaRef},
};

use crate::{
    error::Result,
    states::{StateId, StateKind},
};

/// The table of documents or, in the export of a pipeline, of its records.
pub(super) const DOCUMENTS: &str = "documents";

/// The column with the data file of each record: its path, or its number among the data files.
pub(super) const SOURCE: &str = "source";

/// The metadata about the cache in the schema of every table.
pub(super) const METADATA: [&str; 3] =
    ["frostbert.fingerprint", "frostbert.dtype", "frostbert.hidden"];

/// Returns the name of the table that contains the rows of a state.
pub(super) fn table_of(kind: StateKind) -> &'static str {
    match kind {
        StateKind::Pooled(_) => DOCUMENTS,
        kind => kind.name(),
    }
}

/// A table of an export, with everything that a format needs to know before the first row.
pub(super) struct ExportTable {
    /// The file name without an extension.
    pub(super) name: &'static str,
    /// The states whose rows the table contains.
    pub(super) states: Vec<StateId>,
    /// The columns, none of them nullable; states are fixed-size lists and come last.
    pub(super) schema: SchemaRef,
    /// Width of a state.
    pub(super) hidden: usize,
    /// The number of rows to be written.
    pub(super) n_rows: u64,
    /// The length of the longest id in characters.
    pub(super) id_chars: usize,
    /// The total length of all ids in UTF-8 bytes.
    pub(super) id_bytes: u64,
}

impl ExportTable {
    /// Returns the name of a column as a separate array; for tokens and words it includes the table's name.
    pub(super) fn array_name(&self, column: &Field) -> String {
        match (self.name, column.name().as_str()) {
            (DOCUMENTS, "key") => "keys".into(),
            (table, name) if table != DOCUMENTS && !is_state(column) => format!("{table}.{name}"),
            (_, name) => name.into(),
        }
    }
}

/// Returns whether the values of a column are vectors.
pub(super) fn is_state(column: &Field) -> bool {
    matches!(column.data_type(), DataType::FixedSizeList(..))
}

/// Returns the bytes of all values of a column, little-endian and contiguous; for text, the UTF-8 bytes.
pub(super) fn value_bytes(column: &dyn Array) -> Buffer {
    match column.as_fixed_size_list_opt() {
        Some(vectors) => value_bytes(vectors.values()),
        None => column.to_data().buffers().last().cloned().unwrap_or_default(),
    }
}

/// Writes one table to one or more files, batch by batch.
pub(super) trait TableWriter {
    /// Writes a batch of rows in the table's schema.
    ///
    /// # Errors
    /// Returns an error if writing fails.
    fn write(&mut self, batch: &RecordBatch) -> Result<()>;

    /// Writes whatever comes after the last row.
    ///
    /// # Errors
    /// Returns an error if writing fails.
    fn finish(self: Box<Self>) -> Result<()>;
}

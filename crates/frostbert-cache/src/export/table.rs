//! What an export consists of: up to three tables (documents, tokens, words), written as Arrow record batches.

use arrow::{
    array::{Array, AsArray, RecordBatch},
    buffer::Buffer,
    datatypes::{DataType, Field, SchemaRef},
};

use crate::{
    error::Result,
    states::{StateId, StateKind},
};

/// The table of documents; in an export of a pipeline, of its records.
pub(super) const DOCUMENTS: &str = "documents";

/// The column of the data file that a record stands in: its path, or its number among the data files.
pub(super) const SOURCE: &str = "source";

/// What the schema of every table says of the cache.
pub(super) const METADATA: [&str; 3] =
    ["frostbert.fingerprint", "frostbert.dtype", "frostbert.hidden"];

/// The name of the table that the rows of a state belong to.
pub(super) fn table_of(kind: StateKind) -> &'static str {
    match kind {
        StateKind::Pooled(_) => DOCUMENTS,
        kind => kind.name(),
    }
}

/// One table of an export: everything that a format needs to know before the first row.
pub(super) struct ExportTable {
    /// The name of its file, without an extension.
    pub(super) name: &'static str,
    /// The states of its rows.
    pub(super) states: Vec<StateId>,
    /// Its columns, none of them nullable: states are fixed-size lists, and come last.
    pub(super) schema: SchemaRef,
    /// Width of a state.
    pub(super) hidden: usize,
    /// How many rows it will have.
    pub(super) n_rows: u64,
    /// Characters of the longest id.
    pub(super) id_chars: usize,
    /// UTF-8 bytes of all ids.
    pub(super) id_bytes: u64,
}

impl ExportTable {
    /// The name of a column where columns are arrays without a table: those of tokens and words carry their table's.
    pub(super) fn array_name(&self, column: &Field) -> String {
        match (self.name, column.name().as_str()) {
            (DOCUMENTS, "key") => "keys".into(),
            (table, name) if table != DOCUMENTS && !is_state(column) => format!("{table}.{name}"),
            (_, name) => name.into(),
        }
    }
}

/// Whether the values of a column are vectors.
pub(super) fn is_state(column: &Field) -> bool {
    matches!(column.data_type(), DataType::FixedSizeList(..))
}

/// The bytes of all values of a column, little-endian, one after the other; of texts their UTF-8.
pub(super) fn value_bytes(column: &dyn Array) -> Buffer {
    match column.as_fixed_size_list_opt() {
        Some(vectors) => value_bytes(vectors.values()),
        None => column.to_data().buffers().last().cloned().unwrap_or_default(),
    }
}

/// A file, or some, of one table: takes its rows, batch by batch.
pub(super) trait TableWriter {
    /// Writes some rows, of the table's schema.
    ///
    /// # Errors
    /// When the disk refuses.
    fn write(&mut self, batch: &RecordBatch) -> Result<()>;

    /// Writes what stands after the last row.
    ///
    /// # Errors
    /// When the disk refuses.
    fn finish(self: Box<Self>) -> Result<()>;
}

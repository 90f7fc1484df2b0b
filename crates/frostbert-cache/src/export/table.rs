//! What an export consists of: up to three tables (documents, tokens, words) of named columns, written batch by batch.

use crate::{
    error::Result,
    states::{Dtype, StateId, StateKind},
};

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    /// The document's key.
    Key,
    /// The data file of the record, as its number in [`Layout::sources`].
    Source,
    /// The record's line there, from 1; 0 where the format has no lines.
    Line,
    /// 0 for the first text of a pair, 1 for the second.
    Part,
    /// The record's own name; empty where it has none.
    Id,
    /// The document's row in the table of documents.
    Document,
    /// The window of the document.
    Window,
    /// The place in the window.
    Position,
    /// The row of the word embedding.
    TokenId,
    /// The word of its sequence.
    Word,
    /// The first character.
    CharStart,
    /// The character after the last.
    CharEnd,
    /// The first or the second text.
    Sequence,
    /// A state.
    State(StateId),
}

/// The type of a column's values; all but text are little-endian bytes of one width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ColumnKind {
    /// 32 bytes.
    Key,
    /// A number of a data file.
    Source,
    /// Text of any length.
    Text,
    /// An unsigned byte.
    U8,
    /// An unsigned integer of two bytes.
    U16,
    /// An unsigned integer of four bytes.
    U32,
    /// A signed integer of four bytes.
    I32,
    /// A signed integer of eight bytes.
    I64,
    /// A vector.
    State,
}

impl Column {
    /// Its name in every format.
    pub(super) fn name(self) -> String {
        let name = match self {
            Column::Key => "key",
            Column::Source => "source",
            Column::Line => "line",
            Column::Part => "part",
            Column::Id => "id",
            Column::Document => "doc",
            Column::Window => "window",
            Column::Position => "position",
            Column::TokenId => "token_id",
            Column::Word => "word",
            Column::CharStart => "char_start",
            Column::CharEnd => "char_end",
            Column::Sequence => "sequence",
            Column::State(state) => return state.to_string(),
        };
        name.into()
    }

    /// The type of its values.
    pub(super) fn kind(self) -> ColumnKind {
        match self {
            Column::Key => ColumnKind::Key,
            Column::Source => ColumnKind::Source,
            Column::Id => ColumnKind::Text,
            Column::Part | Column::Sequence => ColumnKind::U8,
            Column::Window | Column::Position => ColumnKind::U16,
            Column::TokenId | Column::CharStart | Column::CharEnd => ColumnKind::U32,
            Column::Word => ColumnKind::I32,
            Column::Line | Column::Document => ColumnKind::I64,
            Column::State(_) => ColumnKind::State,
        }
    }
}

/// One table of an export.
#[derive(Clone, Debug)]
pub(super) struct ExportTable {
    /// What a row is.
    pub(super) of: TableOf,
    /// Its columns.
    pub(super) columns: Vec<Column>,
    /// How many rows it will have.
    pub(super) n_rows: u64,
}

/// What the rows of a table are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TableOf {
    /// Documents; in an export of a pipeline, its records.
    Documents,
    /// Their tokens.
    Tokens,
    /// Their words.
    Words,
}

impl TableOf {
    /// All tables, in the order in which they are written.
    pub(super) const ALL: [TableOf; 3] = [TableOf::Documents, TableOf::Tokens, TableOf::Words];

    /// The table that the rows of a state belong to.
    pub(super) fn of(kind: StateKind) -> TableOf {
        match kind {
            StateKind::Pooled(_) => TableOf::Documents,
            StateKind::Words => TableOf::Words,
            StateKind::Tokens => TableOf::Tokens,
        }
    }

    /// The name of its file, without an extension.
    pub(super) fn name(self) -> &'static str {
        match self {
            TableOf::Documents => "documents",
            TableOf::Tokens => "tokens",
            TableOf::Words => "words",
        }
    }

    /// The columns that say where a row stands.
    pub(super) fn alignment(self) -> &'static [Column] {
        match self {
            TableOf::Documents => &[],
            TableOf::Tokens => &[
                Column::Document,
                Column::Window,
                Column::Position,
                Column::TokenId,
                Column::Word,
                Column::CharStart,
                Column::CharEnd,
                Column::Sequence,
            ],
            TableOf::Words => &[
                Column::Document,
                Column::Sequence,
                Column::Word,
                Column::CharStart,
                Column::CharEnd,
                Column::Window,
                Column::Position,
            ],
        }
    }
}

/// Everything that a format needs to know before the first row.
#[derive(Clone, Debug)]
pub(super) struct ExportLayout {
    /// The tables; the first is that of documents.
    pub(super) tables: Vec<ExportTable>,
    /// Width of a state.
    pub(super) hidden: usize,
    /// Type of a written value.
    pub(super) dtype: Dtype,
    /// The data files that [`Column::Source`] counts.
    pub(super) sources: Vec<String>,
    /// Characters of the longest id.
    pub(super) id_chars: usize,
    /// UTF-8 bytes of all ids.
    pub(super) id_bytes: u64,
    /// What the cache is, in pairs of name and value, for formats that keep such pairs.
    pub(super) metadata: Vec<(String, String)>,
}

impl ExportLayout {
    /// Bytes of a value of this type; of text, none.
    pub(super) fn width(&self, kind: ColumnKind) -> usize {
        match kind {
            ColumnKind::Text => 0,
            ColumnKind::U8 => 1,
            ColumnKind::U16 => 2,
            ColumnKind::Source | ColumnKind::U32 | ColumnKind::I32 => 4,
            ColumnKind::I64 => 8,
            ColumnKind::Key => 32,
            ColumnKind::State => self.hidden * self.dtype.size_bytes(),
        }
    }
}

/// Some rows of a table, column by column.
pub(super) struct Batch {
    /// How many.
    pub(super) n_rows: usize,
    /// Their values, in the order of the table's columns.
    pub(super) columns: Vec<Values>,
}

/// The values of some rows in one column.
pub(super) enum Values {
    /// Little-endian, one after the other.
    Fixed(Vec<u8>),
    /// Text.
    Text(Vec<String>),
}

impl Values {
    /// The bytes of values of one width; none of text.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Values::Fixed(bytes) => bytes,
            Values::Text(_) => &[],
        }
    }

    /// The texts; none where the values are of one width.
    pub(super) fn texts(&self) -> &[String] {
        match self {
            Values::Fixed(_) => &[],
            Values::Text(texts) => texts,
        }
    }
}

/// A format: takes the rows of all tables, batch by batch, each table's in their order.
pub(super) trait TableWriter {
    /// Writes some rows of the table of this number.
    ///
    /// # Errors
    /// When the disk refuses.
    fn write(&mut self, table: usize, batch: &Batch) -> Result<()>;

    /// Writes what stands after the last row.
    ///
    /// # Errors
    /// When the disk refuses.
    fn finish(self: Box<Self>) -> Result<()>;
}

//! The table of an embedding's records: the columns that were asked for, and the embeddings beside them.

use std::{path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray},
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use frostbert_cache::wording::counted;

use super::{EmbedRequest, rows::EmbeddingRows};
use crate::{
    data::{Record, Source, WantedFields, dataset::numbered, read},
    error::{Error, Result},
    report::row_writer::{RowFormat, RowWriter, write_output},
};

/// Number of records that are written at a time.
const CHUNK_RECORDS: usize = 4096;

/// Approximate number of bytes of text and vectors that are written at a time.
const CHUNK_BYTES: usize = 64 << 20;

/// Returns the fields to read from a source besides its texts.
pub(super) fn wanted(source: &Source) -> WantedFields {
    WantedFields { label: source.label.is_some(), text_pair: false }
}

/// The columns of the file, read again from the data files.
#[derive(Clone, Copy)]
pub(super) struct RecordTable<'a> {
    pub(super) request: &'a EmbedRequest,
    /// The embeddings, if a column of the table holds them.
    pub(super) embeddings: Option<&'a EmbeddingRows>,
    /// Number of rows that were embedded.
    pub(super) n_rows: usize,
}

impl RecordTable<'_> {
    fn has_ids(&self) -> bool {
        self.request.sources.iter().any(|source| source.id.is_some())
    }

    fn has_labels(&self) -> bool {
        self.request.sources.iter().any(|source| source.label.is_some())
    }

    /// Whether there is a column besides the embeddings.
    pub(super) fn has_columns(&self) -> bool {
        self.has_ids() || self.has_labels() || self.request.with_text
    }

    fn schema(&self) -> SchemaRef {
        let text = |name: &str| Field::new(name, DataType::Utf8, true);
        let mut fields = Vec::new();
        if self.has_ids() {
            fields.push(text("id"));
        }
        if self.request.with_text {
            fields.push(text("text"));
        }
        if self.has_labels() {
            fields.push(text("label"));
        }
        if let Some(rows) = self.embeddings {
            fields.push(Field::new("embedding", rows.column_type(), false));
        }
        Arc::new(Schema::new(fields))
    }

    fn batch(&self, schema: &SchemaRef, first: usize, records: &[Record]) -> RecordBatch {
        let texts = |text: &dyn Fn(&Record) -> Option<String>| -> ArrayRef {
            Arc::new(records.iter().map(text).collect::<StringArray>())
        };
        let mut columns: Vec<ArrayRef> = Vec::new();
        if self.has_ids() {
            columns.push(texts(&|record| record.id.clone()));
        }
        if self.request.with_text {
            columns.push(texts(&|record| Some(record.text.clone())));
        }
        if self.has_labels() {
            columns.push(texts(&|record| {
                let listed = record.labels.as_ref().map(|labels| labels.join(", "));
                record.label.clone().or(listed)
            }));
        }
        if let Some(rows) = self.embeddings {
            columns.push(rows.lists(first, first + records.len()));
        }
        RecordBatch::try_new(schema.clone(), columns).expect("columns of the schema")
    }

    /// Writes the table, whole or not at all.
    pub(super) fn write(&self, out: &Path, format: RowFormat) -> Result<()> {
        let schema = self.schema();
        let failed = || Error::io("write", out);
        write_output(out, |file| {
            let mut writer = RowWriter::new(file, &schema, format).map_err(failed())?;
            let mut first = 0;
            let mut records = self.records().peekable();
            while records.peek().is_some() {
                let mut chunk: Vec<Record> = Vec::new();
                let mut n_bytes = 0;
                while chunk.len() < CHUNK_RECORDS && n_bytes < CHUNK_BYTES {
                    let Some(record) = records.next().transpose()? else { break };
                    let vectors =
                        self.embeddings.map_or(0, |rows| rows.n_bytes(first + chunk.len()));
                    n_bytes += record.text.len() + vectors;
                    chunk.push(record);
                }
                if first + chunk.len() > self.n_rows {
                    return Err(self.changed());
                }
                writer.write(&self.batch(&schema, first, &chunk)).map_err(failed())?;
                first += chunk.len();
            }
            if first < self.n_rows {
                return Err(self.changed());
            }
            writer.finish().map_err(failed())
        })
    }

    fn changed(&self) -> Error {
        let paths = self.request.sources.iter().map(|source| source.path.display().to_string());
        Error::Argument {
            action: "write embeddings",
            expected: format!(
                "{} in the files, as when they were embedded",
                counted(self.n_rows, "record")
            ),
            got: format!("a different number in {}", paths.collect::<Vec<_>>().join(", ")),
            hint: "the data changed meanwhile: run the same command again".into(),
        }
    }

    fn records(&self) -> impl Iterator<Item = Result<Record>> + '_ {
        self.request
            .sources
            .iter()
            .enumerate()
            .flat_map(|(number, source)| numbered(read(source, wanted(source)), number, source))
    }
}

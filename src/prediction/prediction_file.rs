//! Writes predictions for many records to a file, one row per record.

use std::{path::Path, sync::Arc, time::Instant};

use arrow::{
    array::{
        ArrayRef, Float32Array, Float64Array, ListBuilder, RecordBatch, StringArray, StringBuilder,
        UInt64Array,
    },
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use frostbert_cache::progress::Progress;
use serde::Serialize;

use crate::{
    data::Record,
    error::{Error, Result},
    prediction::several::{NamedPredictor, Row, predict_with_all, records_at_a_time},
    report::row_writer::{RowFormat, RowWriter, write_output},
    tasks::{
        kind::TaskKind,
        prediction::{ColumnValues, PredictionColumn},
        task_kind,
    },
};

/// The columns to write for each record.
#[derive(Clone, Debug, Default)]
pub struct PredictionColumns {
    /// The name of the column of ids, if they are copied to the output.
    pub id: Option<String>,
    /// Whether the ids are left out, rather than refused, if a column of predictions has the name of theirs.
    pub may_lack_id: bool,
    /// Whether the texts are written.
    pub texts: bool,
    /// Whether the probability of each label is written, as `p_<label>`.
    pub probabilities: bool,
    /// The minimum confidence of a class; the label of a less certain prediction is left empty.
    pub min_confidence: f32,
}

/// What was written.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct PredictionReport {
    /// The file, or the folder of parts.
    #[serde(serialize_with = "frostbert_cache::wording::path_shown")]
    pub out: std::path::PathBuf,
    /// The number of rows, one for each record.
    pub rows: u64,
    /// The number of records without a text, which have no prediction.
    pub skipped: u64,
    /// The number of documents whose states were in the run's cache.
    pub reused: u64,
    /// Wall time in seconds, from the first record.
    pub seconds: f64,
}

/// The number of rows in a part, if a folder of parts is written.
const PART_RECORDS: usize = 100_000;

/// Predicts for records and writes one row for each, in order: to a file, which is written completely or not at all,
/// or, if `out` ends in `/`, to the parts of a folder. With several runs, the columns of each run are prefixed with its
/// name and a dot.
///
/// # Errors
/// Returns [`Error::Argument`] if the file name does not imply a format or the folder is not empty, the errors of the
/// records, and those of [`Predictor::predict`](crate::Predictor::predict).
pub fn predict_to_file(
    predictors: &mut [NamedPredictor],
    records: impl Iterator<Item = Result<Record>>,
    columns: &PredictionColumns,
    out: &Path,
    progress: &dyn Progress,
) -> Result<PredictionReport> {
    let start = Instant::now();
    let is_folder = out.as_os_str().as_encoded_bytes().ends_with(b"/");
    let format = if is_folder { RowFormat::Parquet } else { format_of(out)? };
    let mut tables = RunTables::new(predictors, columns);
    let own_id = require_own_id_column(columns, &tables.schema());
    if columns.may_lack_id && own_id.is_err() {
        tables = RunTables::new(predictors, &PredictionColumns { id: None, ..columns.clone() });
    } else {
        own_id?;
    }
    let schema = tables.schema();
    if is_folder {
        make_folder(out)?;
    }
    let mut report =
        PredictionReport { out: out.to_path_buf(), rows: 0, skipped: 0, reused: 0, seconds: 0.0 };
    let chunk_records = records_at_a_time(predictors);
    progress.start("predicting", None, "rows");
    let mut write = |records: &mut dyn Iterator<Item = Result<Record>>, file: &Path| {
        let failed = || Error::io("write", file);
        write_output(file, |opened| {
            let mut writer = RowWriter::new(opened, &schema, format).map_err(failed())?;
            let mut records = records.peekable();
            while records.peek().is_some() {
                let chunk: Vec<Record> =
                    records.by_ref().take(chunk_records).collect::<Result<_>>()?;
                let mut rows = predict_with_all(predictors, chunk)?;
                let predictions = rows.iter_mut().flatten().filter_map(|(_, one)| one.as_mut());
                predictions.for_each(|one| one.withhold_below(columns.min_confidence));
                let without = rows[0].iter().filter(|(_, prediction)| prediction.is_none());
                report.skipped += without.count() as u64;
                report.rows += rows[0].len() as u64;
                progress.advance(rows[0].len() as u64, 0);
                writer.write(&tables.batch(&schema, &rows)).map_err(failed())?;
            }
            writer.finish().map_err(failed())
        })
    };
    let mut records = records.peekable();
    let written = if is_folder {
        let mut number = 0;
        loop {
            let part = out.join(part_name(number));
            let written = write(&mut records.by_ref().take(PART_RECORDS), &part);
            number += 1;
            if written.is_err() || records.peek().is_none() {
                break written;
            }
        }
    } else {
        write(&mut records, out)
    };
    progress.finish();
    if written.is_err() && is_folder {
        // Some of the parts would look like all of them. Errors here are ignored, because the first error is reported.
        let parts = (0..).map(|number| out.join(part_name(number)));
        parts.take_while(|part| part.exists()).for_each(|part| drop(std::fs::remove_file(part)));
    }
    written?;
    report.reused = predictors.iter().map(|one| one.predictor.reused()).sum();
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

fn part_name(number: usize) -> String {
    format!("part-{number:05}.parquet")
}

/// The columns of one or more runs side by side: first those of the record, then the predictions of each run.
struct RunTables {
    tables: Vec<(Option<String>, PredictionTable)>,
}

impl RunTables {
    fn new(predictors: &[NamedPredictor], columns: &PredictionColumns) -> RunTables {
        let several = predictors.len() > 1;
        let tables =
            predictors.iter().enumerate().map(|(number, NamedPredictor { name, predictor })| {
                // The columns of the record are written only once.
                let columns = match number {
                    0 => columns.clone(),
                    _ => PredictionColumns { id: None, texts: false, ..columns.clone() },
                };
                let table = PredictionTable {
                    columns,
                    kind: task_kind(predictor.task()),
                    labels: predictor.labels().to_vec(),
                    reads_pairs: predictor.needs_pairs(),
                };
                (several.then(|| name.clone()), table)
            });
        RunTables { tables: tables.collect() }
    }

    fn schema(&self) -> SchemaRef {
        let mut fields = Vec::new();
        for (name, table) in &self.tables {
            let schema = table.schema();
            let n_of_record = table.n_columns_of_record();
            let named = schema.fields().iter().enumerate().map(|(column, field)| match name {
                Some(name) if column >= n_of_record => {
                    let named = format!("{name}.{}", field.name());
                    Arc::new(field.as_ref().clone().with_name(named))
                }
                _ => field.clone(),
            });
            fields.extend(named);
        }
        Arc::new(Schema::new(fields))
    }

    /// Joins the rows of all runs, which are for the same records.
    fn batch(&self, schema: &SchemaRef, rows: &[Vec<Row>]) -> RecordBatch {
        let tables = self.tables.iter().zip(rows);
        let columns = tables.flat_map(|((_, table), rows)| table.columns(rows));
        RecordBatch::try_new(schema.clone(), columns.collect()).expect("columns of the schema")
    }
}

fn format_of(out: &Path) -> Result<RowFormat> {
    let format = RowFormat::of(out).filter(|format| *format != RowFormat::Arrow);
    format.ok_or_else(|| Error::Argument {
        action: "write predictions",
        expected: "a file that ends in .csv, .jsonl or .parquet, or a folder that ends in /".into(),
        got: format!("`{}`", out.display()),
        hint: "name the file accordingly".into(),
    })
}

/// Creates a folder for parts. A folder that is not empty is refused, because the parts of two calls would look like
/// those of one.
fn make_folder(out: &Path) -> Result<()> {
    std::fs::create_dir_all(out).map_err(Error::io("create", out))?;
    let mut entries = std::fs::read_dir(out).map_err(Error::io("list", out))?;
    if entries.next().is_none() {
        return Ok(());
    }
    Err(Error::Argument {
        action: "write predictions",
        expected: "a folder that is empty, or does not exist yet".into(),
        got: format!("`{}`, which holds files", out.display()),
        hint: "name another folder with --out, or remove what is in this one".into(),
    })
}

/// The columns of a file of predictions.
struct PredictionTable {
    columns: PredictionColumns,
    kind: &'static dyn TaskKind,
    labels: Vec<String>,
    reads_pairs: bool,
}

impl PredictionTable {
    fn schema(&self) -> SchemaRef {
        let text = |name: &str| Field::new(name, DataType::Utf8, true);
        let mut fields = Vec::new();
        fields.extend(self.columns.id.as_deref().map(text));
        if self.columns.texts {
            fields.push(text("text"));
            if self.reads_pairs {
                fields.push(text("text_pair"));
            }
        }
        fields.extend(self.kind.prediction_columns().iter().map(field_of));
        if self.has_probabilities() {
            let names = self.labels.iter().map(|label| format!("p_{label}"));
            fields.extend(names.map(|name| Field::new(name, DataType::Float32, true)));
        }
        Arc::new(Schema::new(fields))
    }

    /// Returns the number of columns that identify the record; they come first.
    fn n_columns_of_record(&self) -> usize {
        let n_texts = if self.columns.texts { 1 + usize::from(self.reads_pairs) } else { 0 };
        usize::from(self.columns.id.is_some()) + n_texts
    }

    fn has_probabilities(&self) -> bool {
        self.columns.probabilities && self.kind.predicts_probabilities()
    }

    fn columns(&self, rows: &[Row]) -> Vec<ArrayRef> {
        let mut columns: Vec<ArrayRef> = Vec::new();
        if self.columns.id.is_some() {
            columns.push(texts(rows, |(record, _)| record.id.clone()));
        }
        if self.columns.texts {
            columns.push(texts(rows, |(record, _)| Some(record.text.clone())));
            if self.reads_pairs {
                columns.push(texts(rows, |(record, _)| record.text_pair.clone()));
            }
        }
        columns.extend(self.kind.prediction_columns().iter().map(|column| column_of(column, rows)));
        if self.has_probabilities() {
            for label in 0..self.labels.len() {
                columns.push(Arc::new(Float32Array::from_iter(rows.iter().map(
                    |(_, prediction)| {
                        let (_, probability) = prediction.as_ref()?.probabilities().get(label)?;
                        Some(*probability)
                    },
                ))));
            }
        }
        columns
    }
}

/// Returns an error if the column of ids has the same name as a column of predictions.
fn require_own_id_column(columns: &PredictionColumns, schema: &SchemaRef) -> Result<()> {
    let Some(id) = &columns.id else { return Ok(()) };
    let n_named = schema.fields().iter().filter(|field| field.name() == id).count();
    if n_named > 1 {
        return Err(Error::Argument {
            action: "write predictions",
            expected: "a column of ids whose name no column of predictions has".into(),
            got: format!("`{id}`"),
            hint: "rename the column in the file".into(),
        });
    }
    Ok(())
}

fn field_of(column: &PredictionColumn) -> Field {
    let kind = match column.values {
        ColumnValues::Text(_) => DataType::Utf8,
        ColumnValues::Texts(_) => {
            DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)))
        }
        ColumnValues::Place(_) => DataType::UInt64,
        ColumnValues::Float(_) => DataType::Float32,
        ColumnValues::Double(_) => DataType::Float64,
    };
    Field::new(column.name, kind, true)
}

fn column_of(column: &PredictionColumn, rows: &[Row]) -> ArrayRef {
    let predictions = rows.iter().map(|(_, prediction)| prediction.as_ref());
    match column.values {
        ColumnValues::Text(text) => {
            Arc::new(predictions.map(|prediction| text(prediction?)).collect::<StringArray>())
        }
        ColumnValues::Texts(list) => {
            let mut builder = ListBuilder::new(StringBuilder::new());
            for prediction in predictions {
                let items = prediction.and_then(list);
                for item in items.into_iter().flatten() {
                    builder.values().append_value(item);
                }
                builder.append(items.is_some());
            }
            Arc::new(builder.finish())
        }
        ColumnValues::Place(place) => {
            let places = predictions.map(|prediction| Some(place(prediction?)? as u64));
            Arc::new(UInt64Array::from_iter(places))
        }
        ColumnValues::Float(number) => {
            Arc::new(Float32Array::from_iter(predictions.map(|prediction| number(prediction?))))
        }
        ColumnValues::Double(number) => {
            Arc::new(Float64Array::from_iter(predictions.map(|prediction| number(prediction?))))
        }
    }
}

fn texts(rows: &[Row], text: impl Fn(&Row) -> Option<String>) -> ArrayRef {
    Arc::new(rows.iter().map(text).collect::<StringArray>())
}

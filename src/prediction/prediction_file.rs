//! Predictions for many records in one file, a row for each.

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
    config::names::Task,
    data::Record,
    error::{Error, Result},
    prediction::predictor::Predictor,
    report::row_writer::{RowFormat, RowWriter, write_output},
    tasks::prediction::Prediction,
};

/// What is written of each record.
#[derive(Clone, Debug, Default)]
pub struct PredictionColumns {
    /// The name of the column of ids, where they are carried along.
    pub id: Option<String>,
    /// Whether the texts are.
    pub texts: bool,
    /// Whether the probability of each label is written, as `p_<label>`.
    pub probabilities: bool,
    /// Predictions that are less certain have no label.
    pub min_confidence: f32,
}

/// What was written.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct PredictionReport {
    /// The file.
    #[serde(serialize_with = "frostbert_cache::wording::path_shown")]
    pub out: std::path::PathBuf,
    /// Its rows: one for each record.
    pub rows: u64,
    /// Records without a text, of which nothing is predicted.
    pub skipped: u64,
    /// Documents whose states were in the run's cache.
    pub reused: u64,
    /// Wall time, from the first record.
    pub seconds: f64,
}

/// A record, and what is predicted for it; nothing where it has no text.
type Row = (Record, Option<Prediction>);

/// Predicts for records and writes a row for each, in their order, whole or not at all.
///
/// # Errors
/// [`Error::Argument`] if the name of the file says no format; those of the records; and as [`Predictor::predict`].
pub fn predict_to_file(
    predictor: &mut Predictor,
    records: impl Iterator<Item = Result<Record>>,
    columns: &PredictionColumns,
    out: &Path,
    progress: &dyn Progress,
) -> Result<PredictionReport> {
    let start = Instant::now();
    let Some(format) = RowFormat::of(out).filter(|format| *format != RowFormat::Arrow) else {
        return Err(Error::Argument {
            action: "write predictions",
            expected: "a file that ends in .csv, .jsonl or .parquet".into(),
            got: format!("`{}`", out.display()),
            hint: "name the file accordingly".into(),
        });
    };
    let table = PredictionTable {
        columns,
        task: predictor.task(),
        labels: predictor.labels().to_vec(),
        reads_pairs: predictor.needs_pairs(),
    };
    let schema = table.schema();
    table.require_own_id_column(&schema)?;
    let failed = || Error::io("write", out);
    let chunk_records = predictor.records_at_a_time();
    progress.start("predicting", None, "rows");
    let (mut n_rows, mut n_skipped) = (0, 0);
    let written = write_output(out, |file| {
        let mut writer = RowWriter::new(file, &schema, format).map_err(failed())?;
        let mut records = records.peekable();
        while records.peek().is_some() {
            let chunk: Vec<Record> = records.by_ref().take(chunk_records).collect::<Result<_>>()?;
            let mut rows = predictor.predict_where_there_is_text(chunk)?;
            for prediction in rows.iter_mut().filter_map(|(_, prediction)| prediction.as_mut()) {
                prediction.withhold_below(columns.min_confidence);
            }
            n_rows += rows.len() as u64;
            n_skipped += rows.iter().filter(|(_, prediction)| prediction.is_none()).count() as u64;
            progress.advance(rows.len() as u64, 0);
            writer.write(&table.batch(&schema, &rows)).map_err(failed())?;
        }
        writer.finish().map_err(failed())
    });
    progress.finish();
    written?;
    Ok(PredictionReport {
        out: out.to_path_buf(),
        rows: n_rows,
        skipped: n_skipped,
        reused: predictor.reused(),
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// The columns of a file of predictions.
struct PredictionTable<'a> {
    columns: &'a PredictionColumns,
    task: Task,
    labels: Vec<String>,
    reads_pairs: bool,
}

impl PredictionTable<'_> {
    fn schema(&self) -> SchemaRef {
        let text = |name: &str| Field::new(name, DataType::Utf8, true);
        let number = |name: &str, kind: DataType| Field::new(name, kind, true);
        let list = |name: &str| {
            let item = Field::new_list_field(DataType::Utf8, true);
            Field::new(name, DataType::List(Arc::new(item)), true)
        };
        let mut fields = Vec::new();
        fields.extend(self.columns.id.as_deref().map(text));
        if self.columns.texts {
            fields.push(text("text"));
            if self.reads_pairs {
                fields.push(text("text_pair"));
            }
        }
        match self.task {
            Task::Classification => {
                fields.extend([text("label"), number("confidence", DataType::Float32)]);
            }
            Task::Multilabel => fields.push(list("labels")),
            Task::Regression | Task::Similarity => {
                fields.push(number("value", DataType::Float64));
            }
            Task::Tokens => fields.extend([list("words"), list("labels"), text("entities")]),
            Task::Qa => fields.extend([
                text("answer"),
                number("start", DataType::UInt64),
                number("end", DataType::UInt64),
                number("score", DataType::Float64),
            ]),
        }
        if self.has_probabilities() {
            let names = self.labels.iter().map(|label| format!("p_{label}"));
            fields.extend(names.map(|name| number(&name, DataType::Float32)));
        }
        Arc::new(Schema::new(fields))
    }

    /// Fails where the column of ids has the name of a column of predictions.
    fn require_own_id_column(&self, schema: &SchemaRef) -> Result<()> {
        let Some(id) = &self.columns.id else { return Ok(()) };
        let n_named = schema.fields().iter().filter(|field| field.name() == id).count();
        if n_named > 1 {
            return Err(Error::Argument {
                action: "write predictions",
                expected: "a column of ids with a name that no column of predictions has".into(),
                got: format!("`{id}`"),
                hint: "rename the column in the file".into(),
            });
        }
        Ok(())
    }

    fn has_probabilities(&self) -> bool {
        self.columns.probabilities && matches!(self.task, Task::Classification | Task::Multilabel)
    }

    fn batch(&self, schema: &SchemaRef, rows: &[Row]) -> RecordBatch {
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
        self.push_predictions(&mut columns, rows);
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
        RecordBatch::try_new(schema.clone(), columns).expect("columns of the schema")
    }

    fn push_predictions(&self, columns: &mut Vec<ArrayRef>, rows: &[Row]) {
        match self.task {
            Task::Classification => {
                columns.push(texts(rows, |(_, prediction)| match prediction {
                    // An empty label is one that is withheld.
                    Some(Prediction::Class { label, .. }) if !label.is_empty() => {
                        Some(label.clone())
                    }
                    _ => None,
                }));
                columns.push(Arc::new(Float32Array::from_iter(rows.iter().map(
                    |(_, prediction)| match prediction {
                        Some(Prediction::Class { confidence, .. }) => Some(*confidence),
                        _ => None,
                    },
                ))));
            }
            Task::Multilabel => columns.push(lists(rows, |prediction| match prediction {
                Prediction::Labels { labels, .. } => Some(labels),
                _ => None,
            })),
            Task::Regression | Task::Similarity => {
                columns.push(numbers(rows, |prediction| match prediction {
                    Prediction::Value { value, .. } => Some(*value),
                    _ => None,
                }));
            }
            Task::Tokens => {
                columns.push(lists(rows, |prediction| match prediction {
                    Prediction::Tags { words, .. } => Some(words),
                    _ => None,
                }));
                columns.push(lists(rows, |prediction| match prediction {
                    Prediction::Tags { labels, .. } => Some(labels),
                    _ => None,
                }));
                columns.push(texts(rows, |(_, prediction)| match prediction {
                    Some(Prediction::Tags { entities, .. }) => {
                        Some(serde_json::to_string(entities).expect("entities become JSON"))
                    }
                    _ => None,
                }));
            }
            Task::Qa => {
                columns.push(texts(rows, |(_, prediction)| match prediction {
                    Some(Prediction::Answer { answer, .. }) => answer.clone(),
                    _ => None,
                }));
                let place = |of: fn(&Prediction) -> Option<usize>| -> ArrayRef {
                    let places = rows.iter().map(|(_, prediction)| of(prediction.as_ref()?));
                    Arc::new(UInt64Array::from_iter(places.map(|place| Some(place? as u64))))
                };
                columns.push(place(|prediction| match prediction {
                    Prediction::Answer { start, .. } => *start,
                    _ => None,
                }));
                columns.push(place(|prediction| match prediction {
                    Prediction::Answer { end, .. } => *end,
                    _ => None,
                }));
                columns.push(numbers(rows, |prediction| match prediction {
                    Prediction::Answer { score, .. } => Some(*score),
                    _ => None,
                }));
            }
        }
    }
}

fn texts(rows: &[Row], text: impl Fn(&Row) -> Option<String>) -> ArrayRef {
    Arc::new(rows.iter().map(text).collect::<StringArray>())
}

fn numbers(rows: &[Row], number: impl Fn(&Prediction) -> Option<f64>) -> ArrayRef {
    let numbers = rows.iter().map(|(_, prediction)| number(prediction.as_ref()?));
    Arc::new(Float64Array::from_iter(numbers))
}

fn lists<'r>(
    rows: &'r [Row],
    list: impl Fn(&'r Prediction) -> Option<&'r Vec<String>>,
) -> ArrayRef {
    let mut builder = ListBuilder::new(StringBuilder::new());
    for (_, prediction) in rows {
        let items = prediction.as_ref().and_then(&list);
        for item in items.into_iter().flatten() {
            builder.values().append_value(item);
        }
        builder.append(items.is_some());
    }
    Arc::new(builder.finish())
}

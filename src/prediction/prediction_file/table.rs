//! The table of predictions: the columns of one or more runs for the same records.

use std::sync::Arc;

use arrow::{
    array::{
        ArrayRef, Float32Array, Float64Array, ListBuilder, RecordBatch, StringArray, StringBuilder,
        UInt64Array,
    },
    datatypes::{DataType, Field, Schema, SchemaRef},
};
use serde::Serialize;

use crate::{
    data::Record,
    error::{Error, Result},
    prediction::several::{NamedPredictor, PredictedRecords},
    tasks::{
        kind::TaskKind,
        prediction::{ColumnValues, Prediction, PredictionColumn},
        task_kind,
    },
};

/// The columns to write for each record.
#[derive(Clone, Debug, Default, Serialize)]
pub struct PredictionColumns {
    /// The name of the column of ids, if they are copied to the output.
    pub id: Option<String>,
    /// Whether the ids are left out, rather than refused, if a column of predictions has the name of theirs.
    pub may_lack_id: bool,
    /// The names of the columns that are copied from the input; a record has a value for each. One that another column of
    /// the output has is prefixed with `input.`.
    pub kept: Vec<String>,
    /// Whether the texts are written.
    pub texts: bool,
    /// Whether the probability of each label is written, as `p_<label>`.
    pub probabilities: bool,
    /// The minimum confidence of a class; the label of a less certain prediction is left empty.
    pub min_confidence: f32,
}

/// The columns of one or more runs side by side: first those of the record, then the predictions of each run.
pub(super) struct RunTables {
    tables: Vec<(Option<String>, PredictionTable)>,
    schema: SchemaRef,
}

impl RunTables {
    /// Returns the tables of some runs.
    ///
    /// # Errors
    /// Returns [`Error::Argument`] if two columns have the same name.
    pub(super) fn new(
        predictors: &[NamedPredictor],
        columns: &PredictionColumns,
    ) -> Result<RunTables> {
        let own = PredictionColumns { kept: Vec::new(), ..columns.clone() };
        let own = RunTables::of_columns(predictors, &own);
        let is_taken = |name: &String| own.schema.fields().iter().any(|own| own.name() == name);
        let kept = columns
            .kept
            .iter()
            .map(|name| if is_taken(name) { format!("input.{name}") } else { name.clone() });
        let columns = &PredictionColumns { kept: kept.collect(), ..columns.clone() };
        let tables = RunTables::of_columns(predictors, columns);
        match require_distinct_columns(columns, &tables.schema) {
            // Nobody asked for these ids.
            Err(_) if columns.may_lack_id => {
                let columns = PredictionColumns { id: None, may_lack_id: false, ..columns.clone() };
                RunTables::new(predictors, &columns)
            }
            distinct => distinct.map(|()| tables),
        }
    }

    fn of_columns(predictors: &[NamedPredictor], columns: &PredictionColumns) -> RunTables {
        let several = predictors.len() > 1;
        let tables =
            predictors.iter().enumerate().map(|(number, NamedPredictor { name, predictor })| {
                // The columns of the record are written only once.
                let columns = match number {
                    0 => columns.clone(),
                    _ => PredictionColumns {
                        id: None,
                        kept: Vec::new(),
                        texts: false,
                        ..columns.clone()
                    },
                };
                let table = PredictionTable {
                    columns,
                    kind: task_kind(predictor.task()),
                    labels: predictor.labels().to_vec(),
                    reads_pairs: predictor.needs_pairs(),
                };
                (several.then(|| name.clone()), table)
            });
        let tables: Vec<_> = tables.collect();
        RunTables { schema: schema_of(&tables), tables }
    }

    /// Returns the columns of all runs.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Joins the rows of all runs, which are for the same records.
    pub(super) fn batch(&self, predicted: &PredictedRecords) -> RecordBatch {
        let columns =
            self.tables.iter().zip(&predicted.predictions).flat_map(|((_, table), own)| {
                let rows: Vec<Row<'_>> =
                    predicted.records.iter().zip(own.iter().map(Option::as_ref)).collect();
                table.columns(&rows)
            });
        RecordBatch::try_new(self.schema.clone(), columns.collect()).expect("columns of the schema")
    }
}

/// A record and its prediction; `None` if it has no text.
type Row<'r> = (&'r Record, Option<&'r Prediction>);

fn schema_of(tables: &[(Option<String>, PredictionTable)]) -> SchemaRef {
    let mut fields = Vec::new();
    for (name, table) in tables {
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
        fields.extend(self.columns.kept.iter().map(|name| text(name)));
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
        usize::from(self.columns.id.is_some()) + self.columns.kept.len() + n_texts
    }

    fn has_probabilities(&self) -> bool {
        self.columns.probabilities && self.kind.predicts_probabilities()
    }

    fn columns(&self, rows: &[Row<'_>]) -> Vec<ArrayRef> {
        let mut columns: Vec<ArrayRef> = Vec::new();
        if self.columns.id.is_some() {
            columns.push(texts(rows, |(record, _)| record.id.clone()));
        }
        for number in 0..self.columns.kept.len() {
            columns.push(texts(rows, |(record, _)| record.kept.get(number).cloned().flatten()));
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
                        let (_, probability) = (*prediction)?.probabilities().get(label)?;
                        Some(*probability)
                    },
                ))));
            }
        }
        columns
    }
}

/// Returns an error if the column of ids, or one that is copied, has the same name as another.
fn require_distinct_columns(columns: &PredictionColumns, schema: &SchemaRef) -> Result<()> {
    let is_double =
        |name: &&String| schema.fields().iter().filter(|field| field.name() == *name).count() > 1;
    let refused = |name: &String, what: &str, hint: &str| Error::Argument {
        action: "write predictions",
        expected: format!("{what} whose name no other column of the output has"),
        got: format!("`{name}`"),
        hint: hint.into(),
    };
    if let Some(id) = columns.id.as_ref().filter(is_double) {
        return Err(refused(id, "a column of ids", "rename the column in the file"));
    }
    match columns.kept.iter().find(is_double) {
        Some(name) => Err(refused(
            name,
            "a column to keep",
            "leave it out of --keep-columns, or rename it in the file; the column of ids is copied in any case",
        )),
        None => Ok(()),
    }
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

fn column_of(column: &PredictionColumn, rows: &[Row<'_>]) -> ArrayRef {
    let predictions = rows.iter().map(|(_, prediction)| *prediction);
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

fn texts(rows: &[Row<'_>], text: impl Fn(&Row<'_>) -> Option<String>) -> ArrayRef {
    Arc::new(rows.iter().map(text).collect::<StringArray>())
}

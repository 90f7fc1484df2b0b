//! The rows of a run's data on which an export is checked, with what `predict` computes for them.

use std::collections::HashMap;

use frostbert_cache::fingerprint::Key;

use crate::{
    data::{
        Part, Record, Source,
        dataset::{Dataset, read_all},
        example::{Example, part_name},
    },
    error::{Error, Result},
    prediction::{
        predictor::{HeadRows, Predictor},
        saved_run::SavedRun,
    },
    tasks::prediction::Prediction,
    training::train::load_dataset,
};

/// The most rows that an export is checked on.
const MOST_ROWS: usize = 256;

/// Rows of a run's data, with what `predict` computes for them.
pub(crate) struct CheckedRows {
    /// The part that the rows are from.
    pub(crate) part: &'static str,
    /// The rows.
    pub(crate) records: Vec<Record>,
    /// Their predictions.
    pub(crate) predictions: Vec<Prediction>,
    /// What the head reads and returns for them.
    pub(crate) head: HeadRows,
}

impl CheckedRows {
    /// Reads the run's data.
    ///
    /// # Errors
    /// Returns an error if a data file is missing or has changed so that it cannot be read.
    pub(crate) fn dataset(run: &SavedRun) -> Result<Dataset> {
        load_dataset(&run.pipeline)
    }

    /// Chooses rows of the test part, or else of validation or train, and predicts for them.
    ///
    /// # Errors
    /// Returns the errors of [`Predictor::predict`], and an error if the data has no rows.
    pub(crate) fn of(predictor: &mut Predictor, dataset: &Dataset) -> Result<CheckedRows> {
        let parts = [Part::Test, Part::Validation, Part::Train];
        let rows = parts.map(|part| (part, dataset.part(part)));
        let found = rows.into_iter().find(|(_, rows)| !rows.is_empty());
        let (part, rows) = found.ok_or_else(no_rows)?;
        // Spread over the part, which may be sorted by label or by length.
        let step = rows.len().div_ceil(MOST_ROWS);
        let records = rows.iter().step_by(step).map(|place| {
            let row = &dataset.rows[*place as usize];
            let record = Record {
                id: row.id.clone(),
                text: row.text.clone(),
                text_pair: row.text_pair.clone(),
                words: row.words.clone(),
                ..Record::default()
            };
            (row, record)
        });
        let (rows, mut records): (Vec<&Example>, Vec<Record>) =
            records.filter(|(_, record)| !record.is_empty()).unzip();
        if records.is_empty() {
            return Err(no_rows());
        }
        if !predictor.run().has_encoder() {
            let keys = rows.iter().map(|row| row.keys[0]);
            add_vectors(&mut records, keys, &predictor.run().pipeline.extraction.sources)?;
        }
        let predictions = predictor.predict(&records)?;
        let head = predictor.head_rows(&records)?;
        Ok(CheckedRows { part: part_name(part), records, predictions, head })
    }
}

/// Reads the vectors of another model that records bring with them; the dataset has only their keys.
fn add_vectors(
    records: &mut [Record],
    keys: impl Iterator<Item = Key>,
    sources: &[Source],
) -> Result<()> {
    let mut places: HashMap<Key, Vec<usize>> = HashMap::new();
    for (place, key) in keys.enumerate() {
        places.entry(key).or_default().push(place);
    }
    for record in read_all(sources) {
        let Some(vector) = record?.vector else { continue };
        for place in places.remove(&vector.key).unwrap_or_default() {
            records[place].vector = Some(vector.clone());
        }
    }
    Ok(())
}

fn no_rows() -> Error {
    Error::Argument {
        action: "export the run",
        expected: "rows of the run's data to check the export on".into(),
        got: "none".into(),
        hint: "say where the run's data is now with --moved OLD=NEW".into(),
    }
}

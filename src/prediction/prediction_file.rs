//! Writes predictions for many records to a file, or to a folder of parts, one row per record.

mod parts;
mod table;

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use frostbert_cache::{progress::Progress, wording::counted};
use serde::Serialize;
use serde_json::{Value, json};

pub use self::table::PredictionColumns;
use self::{
    parts::{PartsFolder, part_name},
    table::RunTables,
};
use crate::{
    data::{BadRows, Record, Source, StopReading, hash_of_path},
    error::{Error, Result},
    prediction::several::{ChunkSize, NamedPredictor, predict_all, records_at_a_time},
    report::{
        row_writer::{RowFile, RowFormat},
        sheet::Sheet,
    },
};

/// Where predictions are written, and how.
#[derive(Clone, Debug)]
pub struct PredictionOutput {
    /// The file, or, if it ends in `/`, the folder of parts.
    pub out: PathBuf,
    /// Its columns.
    pub columns: PredictionColumns,
    /// The number of rows in a part.
    pub part_rows: usize,
    /// The most texts that were encoded together, if that is limited.
    pub most_texts: Option<usize>,
    /// What the predictions are made of: a folder of parts is only continued for the same input. `None` if it can be read
    /// only once, so that its parts cannot be continued.
    pub input: Option<Value>,
}

/// What was written.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct PredictionReport {
    /// The file, or the folder of parts.
    #[serde(serialize_with = "frostbert_cache::wording::path_shown")]
    pub out: PathBuf,
    /// The number of rows, one for each record.
    pub rows: u64,
    /// The number of these rows that an earlier call wrote, in parts.
    pub resumed: u64,
    /// The number of records without a text, which have no prediction.
    pub skipped: u64,
    /// The number of records that could not be read, which have no row.
    pub bad: u64,
    /// The number of documents whose states were in the run's cache.
    pub reused: u64,
    /// The number of documents that were encoded; one that several runs read states of counts once if they share a model.
    pub encoded: u64,
    /// Wall time in seconds, from the first record.
    pub seconds: f64,
}

/// Predicts for records and writes one row for each, in order: to a file, which is written completely or not at all, or
/// to the parts of a folder, each of which is. With several runs, the columns of each run are prefixed with its name and a
/// dot. After an error, `stop` ends the wait for further records.
///
/// # Errors
/// Returns [`Error::Argument`] if the file name does not imply a format or the folder is not empty and cannot be continued,
/// the errors of the records, and those of [`Predictor::predict`](crate::Predictor::predict).
pub fn predict_to_file(
    predictors: &mut [NamedPredictor],
    records: impl Iterator<Item = Result<Record>> + Send,
    stop: &StopReading,
    output: &PredictionOutput,
    progress: &dyn Progress,
) -> Result<PredictionReport> {
    let start = Instant::now();
    let out = &output.out;
    let is_folder = is_folder(out);
    let format = if is_folder { RowFormat::Parquet } else { format_of(out)? };
    let tables = RunTables::new(predictors, &output.columns)?;
    let parts = if is_folder { Some(PartsFolder::open(out, output, predictors)?) } else { None };
    let part_rows = if is_folder { output.part_rows.max(1) } else { usize::MAX };
    let mut report = PredictionReport {
        out: out.clone(),
        rows: 0,
        resumed: 0,
        skipped: 0,
        bad: 0,
        reused: 0,
        encoded: 0,
        seconds: 0.0,
    };
    let mut records = records;
    let mut number = parts.as_ref().map_or(0, |parts| parts.n_complete);
    if number > 0 {
        let parts = counted(number, "part");
        progress.note(&format!("{} holds {parts} of these predictions: going on", out.display()));
        for record in records.by_ref().take(number * part_rows) {
            report.skipped += u64::from(record?.is_empty());
            report.rows += 1;
        }
        report.resumed = report.rows;
    }
    let path_of = |number| if is_folder { out.join(part_name(number)) } else { out.clone() };
    let mut open: Option<RowFile> = None;
    let mut rows_in_part = 0;
    let size = ChunkSize { records: records_at_a_time(predictors), part: part_rows };
    progress.start("predicting", None, "rows");
    let predicted = predict_all(predictors, records, stop, size, |mut predicted| {
        let n_rows = predicted.records.len();
        let predictions = predicted.predictions.iter_mut().flatten().flatten();
        predictions.for_each(|one| one.withhold_below(output.columns.min_confidence));
        let without_text = predicted.predictions.first().into_iter().flatten();
        report.skipped += without_text.filter(|one| one.is_none()).count() as u64;
        report.rows += n_rows as u64;
        let mut file = match open.take() {
            Some(file) => file,
            None => RowFile::create(&path_of(number), tables.schema(), format)?,
        };
        file.write(&tables.batch(&predicted))?;
        progress.advance(n_rows as u64, 0);
        rows_in_part += n_rows;
        if rows_in_part < part_rows {
            open = Some(file);
        } else {
            file.finish()?;
            (number, rows_in_part) = (number + 1, 0);
        }
        Ok(true)
    });
    progress.finish();
    if let Err(error) = predicted {
        drop(open);
        if let Some(parts) = parts {
            parts.stop();
        }
        return Err(error);
    }
    if open.is_none() && number == 0 {
        // A file without records has a header, or a schema.
        open = Some(RowFile::create(&path_of(0), tables.schema(), format)?);
    }
    if let Some(file) = open {
        file.finish()?;
    }
    if let Some(parts) = parts {
        parts.complete()?;
    }
    report.reused = predictors.iter().map(|one| one.predictor.reused()).sum();
    report.encoded = predictors.iter().map(|one| one.predictor.encoded()).sum();
    report.seconds = start.elapsed().as_secs_f64();
    Ok(report)
}

/// Describes what the predictions of a folder of parts are made of: the content of a file, how it is read, and given texts.
/// Returns `None` for another output, and for an input that can be read only once.
///
/// # Errors
/// Returns an error if the file cannot be read.
pub fn describe_input(
    source: Option<&Source>,
    out: &Path,
    texts: &[&String],
) -> Result<Option<Value>> {
    let Some(source) = source.filter(|_| is_folder(out)) else {
        return Ok(None);
    };
    let Some(digest) = hash_of_path(&source.path)? else {
        return Ok(None);
    };
    let mut settings = serde_json::to_value(source).unwrap_or_default();
    if let Some(settings) = settings.as_object_mut() {
        // The same file may have moved.
        settings.remove("path");
    }
    Ok(Some(json!({ "digest": digest, "settings": settings, "texts": texts })))
}

/// Whether an output is a folder of parts.
fn is_folder(out: &Path) -> bool {
    out.as_os_str().as_encoded_bytes().ends_with(b"/")
}

/// Lists the records that were left out because they cannot be read, in a file next to the output: `NAME.bad_rows.csv`, or
/// `_bad_rows.csv` in a folder of parts. Returns their number and that file.
///
/// # Errors
/// Returns an error if the file cannot be written.
pub fn list_bad_rows(log: &BadRows, out: &Path) -> Result<(u64, PathBuf)> {
    let path =
        if is_folder(out) { out.join("_bad_rows.csv") } else { out.with_extension("bad_rows.csv") };
    let rows = log.rows();
    Sheet::of_bad_rows(&rows).write_csv(&path)?;
    Ok((rows.iter().map(|row| row.n_records as u64).sum(), path))
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

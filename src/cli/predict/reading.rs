//! Reads the records to predict for.

use std::path::Path;

use anyhow::Result;
use frostbert::{
    Error,
    internals::{
        data::{
            self, BadRows, ColumnName, Format, Records, Source, StopReading, WantedFields,
            inspect::FileShape,
        },
        prediction::saved_run::SavedRun,
    },
};

use super::PredictArguments;

/// Reads the records of a file, and returns as what it is read: the ids that it names are to be copied. `stop` ends the
/// wait for stdin or a pipe.
pub(super) fn read(
    saved: &SavedRun,
    file: &Path,
    arguments: &PredictArguments,
    log: &BadRows,
    stop: &StopReading,
) -> Result<(Records, Source)> {
    let want = WantedFields { label: false, text_pair: saved.pipeline.reads_pairs() };
    let format = arguments.format.format;
    let with_columns = |source: Source| Source {
        text: arguments.text_column.clone().or(source.text),
        text_pair: arguments.text_pair_column.clone().or(source.text_pair),
        id: arguments.id_column.clone().or(source.id),
        // Every record gets a row, even if the run skipped bad ones.
        skip_bad: arguments.skip_bad.then_some(true),
        ..source
    };
    if file == Path::new("-") {
        let name = Path::new("standard input");
        let source = match format {
            Some(_) => saved.source_with(name, format, &arguments.set)?,
            None => {
                let source = saved.source_with(name, Some(Format::Lines), &arguments.set)?;
                Source { text: None, ..source }
            }
        };
        let source = Source {
            kept_columns: kept_columns(&arguments.keep_columns, None)?,
            ..with_columns(source)
        };
        let input = stop.reader(std::io::stdin())?;
        let records = data::read_from_logged(input, &source, want, log);
        return Ok((records?, source));
    }
    let mut source = with_columns(saved.source_with(file, format, &arguments.set)?);
    source.kept_columns = kept_columns(&arguments.keep_columns, Some(&source))?;
    if source.id.is_none()
        && let Some(id) = saved.id_column(&source)
    {
        let kept_columns = source.kept_columns.iter().filter(|column| **column != id);
        let kept_columns = kept_columns.cloned().collect();
        let with_ids = Source { id: Some(id), may_lack_id: true, kept_columns, ..source.clone() };
        // Nobody asked for these ids: if they cannot be read, the file is read without them.
        if let Ok(records) = data::read_once(&with_ids, want, log, stop) {
            return Ok((records, with_ids));
        }
    }
    let records = data::read_once(&source, want, log, stop);
    let records = records.map_err(|error| saved.explain_format(file, format, error))?;
    Ok((records, source))
}

/// Returns the columns to keep. An asterisk stands for all columns of the file except that of the ids.
fn kept_columns(given: &[ColumnName], source: Option<&Source>) -> Result<Vec<ColumnName>> {
    if !given.contains(&ColumnName::from("*")) {
        return Ok(given.to_vec());
    }
    let Some(source) = source else {
        return Err(crate::cli::wrong_usage(
            "--keep-columns '*' needs a file: name the columns of what is read from stdin".into(),
        ));
    };
    let shape = FileShape::of(source)?;
    let all = shape.columns.into_iter().enumerate().map(|(number, column)| {
        if source.header { ColumnName::Name(column.name) } else { ColumnName::Number(number) }
    });
    Ok(all.filter(|column| source.id.as_ref() != Some(column)).collect())
}

/// Adds to the error for a record how to leave such records out.
pub(super) fn say_how_to_skip(mut error: Error, arguments: &PredictArguments) -> Error {
    // An error without a line is of the file.
    if let Error::Record { hint, line: Some(_), .. } = &mut error
        && !arguments.skip_bad
    {
        hint.push_str("; or leave records that cannot be read out with --skip-bad");
    }
    error
}

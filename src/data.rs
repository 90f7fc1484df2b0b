//! Reads data files into examples, labels and splits: everything about a corpus that needs no model.
//!
//! A [`Source`] says where records are and what they mean. [`read`] turns it into a stream of [`Record`]s, so that
//! memory does not grow with the file; [`clean`] drops empty and repeated records and counts them; a [`LabelMap`] maps
//! label names to ids; [`stratified_split`] and [`grouped_split`] assign rows to train, validation and test;
//! [`class_distribution`] counts the classes in each split. A [`Dataset`](dataset::Dataset) combines all of this, for
//! every [`DataTask`].
//!
//! ```
//! use frostbert::internals::data::{LabelMap, Source, SplitFractions, WantedFields, read, stratified_split};
//!
//! # fn main() -> frostbert::internals::error::Result<()> {
//! # let folder = tempfile::tempdir().expect("a temporary folder");
//! # let path = folder.path().join("reviews.csv");
//! # std::fs::write(&path, "text,label\nsplendid,pos\n\"dull,\nlong\",neg\n").expect("a small file");
//! let source = Source::new(&path);
//! let examples = read(&source, WantedFields { label: true, text_pair: false })?.collect::<Result<Vec<_>, _>>()?;
//! let labels = LabelMap::from_train(examples.iter().filter_map(|example| example.label.as_deref()));
//! let ids: Vec<usize> = examples
//!     .iter()
//!     .map(|example| labels.id_at(example.label.as_deref().unwrap_or_default(), &source.path, example.line))
//!     .collect::<Result<_, _>>()?;
//! assert_eq!(labels.names(), ["neg", "pos"]);
//! assert_eq!(ids, [1, 0]);
//! assert_eq!(stratified_split(&ids, SplitFractions::default(), 42).len(), 2);
//! # Ok(())
//! # }
//! ```

pub(crate) mod bad_rows;
pub(crate) mod checks;
mod clean;
mod conll;
mod conllu;
pub(crate) mod dataset;
mod delimited;
pub(crate) mod document;
pub(crate) mod example;
pub(crate) mod inspect;
mod json_array;
mod json_digits;
mod json_lines;
mod kept_columns;
mod label_columns;
mod label_ids;
mod label_list;
mod labels;
mod lines;
mod loader;
mod npy;
mod odd_labels;
mod open_file;
mod open_source;
mod parquet_file;
mod parquet_pages;
mod parquet_vectors;
mod parts;
mod prompts;
mod question_table;
mod read;
mod record;
mod record_limit;
mod source;
mod split;
pub(crate) mod split_check;
mod squad;
mod stop_reading;
mod strata;
mod summary;
mod swallowed;
mod target;
mod text_folder;
mod vector;
mod vector_rows;

use std::{fs::File, io::Read, iter, path::Path};

pub use clean::CleanOptions;
pub(crate) use clean::{CleanCounts, clean};
pub(crate) use label_columns::LabelColumn;
pub use labels::LabelMap;
pub(crate) use open_source::hash_of_path;
pub use prompts::Prompts;
pub use record::{Answer, Record, WantedFields};
pub use source::{ColumnName, Format, Source};
pub use split::{Part, SplitFractions, split_plan, stratified_split};
pub use stop_reading::StopReading;
pub use strata::grouped_split;
pub(crate) use summary::{ClassBalance, ClassDistribution, ValueSummary};
pub use summary::{ClassCount, QuestionSummary, class_distribution};
pub use swallowed::SwallowedLines;
pub use target::DataTask;
pub(crate) use target::Target;

pub use self::bad_rows::BadRows;
use self::{
    bad_rows::{BadBytes, FailedRows},
    open_source::OpenSource,
};
use crate::error::{Error, Result};

/// A stream of records that ends after its first error.
pub type Records = Box<dyn Iterator<Item = Result<Record>> + Send>;

/// Reads the records of `source` one by one, without ever holding the file in memory. A record of more than 64 MiB is
/// an error.
///
/// Fails immediately if the file cannot be opened or a required column is missing, and with a line number at the first
/// record that does not fit `source`. Which columns are required depends on `want`: with
/// `WantedFields { label: false, .. }` the label column need not exist.
pub fn read(source: &Source, want: WantedFields) -> Result<Records> {
    read_logged(source, want, &BadRows::default())
}

/// Like [`read`], and lists the lines that [`Source::skip_bad`] skips in `log`.
pub(crate) fn read_logged(source: &Source, want: WantedFields, log: &BadRows) -> Result<Records> {
    // An error in the name takes precedence over a missing file.
    if source.resolve_format()? == Format::Parquet {
        parquet_file::check_name(source)?;
    }
    read_open(OpenSource::open(source)?, source, want, log)
}

/// Like `read`, for a file that may also be a pipe or a device, which can only be read once. Lists the records that
/// [`Source::skip_bad`] skips in `log`. `stop` ends the wait for a pipe.
pub fn read_once(
    source: &Source,
    want: WantedFields,
    log: &BadRows,
    stop: &StopReading,
) -> Result<Records> {
    if !open_file::is_stream(&source.path) {
        read_logged(source, want, log)
    } else {
        let input = File::open(&source.path).map_err(Error::io("read", &source.path))?;
        read_from_logged(stop.reader(input)?, source, want, log)
    }
}

/// Like [`read_logged`], for a source that is already open. The last item is an error if the file has been modified
/// since it was opened.
fn read_open(
    open: OpenSource,
    source: &Source,
    want: WantedFields,
    log: &BadRows,
) -> Result<Records> {
    let format = source.resolve_format()?;
    source.check_delimiter(format)?;
    source.check_kept_columns(format)?;
    source.check_vectors(format)?;
    let file = match open {
        OpenSource::Folder(folder) => {
            return parts::with_parts(source, log, |source| {
                let failed = FailedRows::new(source, log, BadBytes::default());
                Ok(until_error(folder.read(source, want, failed)?))
            });
        }
        OpenSource::File(file) => file,
    };
    let examples = question_table::with_answers(source, want, log, |source| {
        parts::with_parts(source, log, |source| match format {
            Format::Parquet => {
                let failed = FailedRows::new(source, log, BadBytes::default());
                Ok(until_error(parquet_file::read(file.try_clone()?, source, want, failed)?))
            }
            Format::Npy => {
                let failed = FailedRows::new(source, log, BadBytes::default());
                let labels = npy::label_source(source, want)?;
                let labels = labels.map(|labels| read_logged(&labels, want, log)).transpose()?;
                Ok(until_error(npy::read(file.try_clone()?, labels, source, failed)?))
            }
            format => read_text(file.text(source)?, format, source, want, log),
        })
    })?;
    let examples =
        if source.moves_answers { question_table::with_moved_answers(examples) } else { examples };
    let end = iter::once_with(move || file.require_unchanged().err().map(Err)).flatten();
    Ok(until_error(examples.chain(end)))
}

/// Reads records from `input` instead of the file that `source` names, for example from standard input.
///
/// `source.path` is used in messages, and its extension determines the format if `source.format` is not set. Parquet
/// files, arrays and folders cannot be read from a stream.
pub fn read_from(
    input: impl Read + Send + 'static,
    source: &Source,
    want: WantedFields,
) -> Result<Records> {
    read_from_logged(input, source, want, &BadRows::default())
}

/// Like [`read_from`], and lists the records that [`Source::skip_bad`] skips in `log`.
pub fn read_from_logged(
    input: impl Read + Send + 'static,
    source: &Source,
    want: WantedFields,
    log: &BadRows,
) -> Result<Records> {
    let format = source.resolve_format()?;
    source.check_delimiter(format)?;
    source.check_kept_columns(format)?;
    source.check_vectors(format)?;
    parts::with_parts(source, log, |source| match format {
        Format::Parquet | Format::Folder | Format::Npy => Err(not_a_stream(source, format)),
        // Lines are returned as they arrive; the other formats first wait for the beginning of the input.
        Format::Lines => {
            let text = read::decode(Box::new(input), source)?;
            read_text(text, Format::Lines, source, want, log)
        }
        format => {
            let text = open_file::text_of(input, source)?;
            read_text(text, format, source, want, log)
        }
    })
}

/// Returns an error if a file that was read to its end has no record.
pub(crate) fn require_records(path: &Path, n_records: usize) -> Result<()> {
    match n_records {
        0 => Err(Error::Record {
            path: path.to_path_buf(),
            line: None,
            expected: "at least one record".to_owned(),
            got: "none".to_owned(),
            hint: "check that the path is right and that whatever wrote the file has finished"
                .to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Returns an error if one of the files, all read to their end, has no record, or if there is no text in any of them.
pub(crate) fn require_texts(
    sources: &[Source],
    n_records: &[usize],
    n_texts: usize,
    n_empty: u64,
) -> Result<()> {
    for (source, n_records) in sources.iter().zip(n_records) {
        require_records(&source.path, *n_records)?;
    }
    match n_texts {
        0 => Err(Error::Record {
            path: sources[0].path.clone(),
            line: None,
            expected: "at least one text".to_owned(),
            got: format!("{n_empty} empty ones"),
            hint: "check which column the source's `text` names".to_owned(),
        }),
        _ => Ok(()),
    }
}

fn read_text(
    mut input: read::Text,
    format: Format,
    source: &Source,
    want: WantedFields,
    log: &BadRows,
) -> Result<Records> {
    // A file that consists of one array is read as an array, even if its name stands for another format.
    let is_array = match format {
        Format::Json | Format::Jsonl => json_array::begins_array(&mut input, source)?,
        Format::Squad if source.format.is_none() => json_array::begins_records(&mut input, source)?,
        _ => false,
    };
    let bytes = BadBytes::default();
    if source.skips_bad() {
        input.list_bad_bytes(&bytes);
    }
    let failed = FailedRows::new(source, log, bytes);
    match format {
        Format::Json => Ok(until_error(json_lines::read_array(input, source, want, failed)?)),
        Format::Jsonl | Format::Squad if is_array => {
            Ok(until_error(json_lines::read_array(input, source, want, failed)?))
        }
        Format::Csv | Format::Tsv => {
            let delimiter = source.delimiter_byte(format)?;
            Ok(until_error(delimited::read(input, delimiter, source, want, failed)?))
        }
        Format::Jsonl => Ok(until_error(json_lines::read(input, source, want, failed)?)),
        Format::Lines => Ok(until_error(lines::read(input, source, want, failed)?)),
        Format::Conll => Ok(until_error(conll::read(input, source, want, failed)?)),
        Format::Conllu => Ok(until_error(conllu::read(input, source, want, failed)?)),
        Format::Squad => Ok(until_error(squad::read(input, source, want, failed)?)),
        Format::Parquet | Format::Folder | Format::Npy => Err(not_a_stream(source, format)),
    }
}

fn not_a_stream(source: &Source, format: Format) -> Error {
    source.malformed(
        None,
        "a text format, as this is read from a stream",
        format.to_string(),
        "write the data to a file or a folder and name that",
    )
}

fn until_error(mut examples: impl Iterator<Item = Result<Record>> + Send + 'static) -> Records {
    let mut failed = false;
    Box::new(iter::from_fn(move || {
        let example = if failed { None } else { examples.next() };
        failed |= matches!(example, Some(Err(_)));
        example
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_read_like_the_file_it_stands_for_but_never_as_parquet() {
        let source = Source { format: Some(Format::Lines), ..Source::new("-") };
        let texts: Vec<String> = read_from(&b"one\ntwo"[..], &source, WantedFields::default())
            .unwrap()
            .map(|example| example.unwrap().text)
            .collect();
        assert_eq!(texts, ["one", "two"]);
        let error = read_from(std::io::empty(), &Source::new("a.parquet"), WantedFields::default())
            .err()
            .unwrap();
        assert!(error.hint().unwrap().contains("data to a file"), "{error}");
    }

    #[test]
    fn a_file_without_records_is_an_error_for_who_needs_one() {
        assert!(require_records(Path::new("a.csv"), 1).is_ok());
        let error = require_records(Path::new("a.csv"), 0).unwrap_err();
        assert_eq!(error.to_string(), "a.csv: expected at least one record, got none");
    }

    #[test]
    fn a_file_that_is_not_there_or_a_folder_cannot_be_read() {
        let error = read(&Source::new("no such file.csv"), WantedFields::default()).err().unwrap();
        assert!(error.to_string().starts_with("cannot read `no such file.csv`: "), "{error}");
        let folder = tempfile::tempdir().unwrap();
        let source = Source { format: Some(Format::Lines), ..Source::new(folder.path()) };
        let error = read(&source, WantedFields::default())
            .and_then(|examples| examples.collect::<Result<Vec<_>>>())
            .unwrap_err();
        assert!(matches!(&error, Error::Io(refused) if refused.action == "read"), "{error}");
    }
}

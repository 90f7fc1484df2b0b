//! csv and tsv: fields between delimiters, with or without a header, with or without quotes.

mod open_quotes;

use std::{
    io::{self, Chain, Read},
    iter,
};

use csv::{ErrorKind, ReaderBuilder, StringRecord, Terminator};
use frostbert_cache::wording::name_list;

use self::open_quotes::WithoutOpenQuotes;
use super::{
    bad_rows::FailedRows,
    read::{self, Text},
    record::{Record, WantedFields},
    record_limit::{Allowance, Limited, is_too_long, too_long},
    source::{ColumnName, Source},
};
use crate::error::{Error, Result};

/// Appended to every file, so that its last record ends with a line end like all others, and lines can be counted.
const TRAILER_PLAIN: &[u8] = b"\n";

/// Appended to every file with quoting: a line end, and a quoted record of one byte that cannot occur in a text. If it
/// is read back unchanged, all quotes were closed; an open quote swallows its line end.
const TRAILER_QUOTED: &[u8] = b"\n\"\xFF";

/// Streams the records of a file whose fields are separated by `delimiter`.
///
/// With a header, every record must have as many fields as the header. Without one, the number of fields is not known,
/// so a record only has to reach the requested columns (STS-B ends some records with two more).
pub(super) fn read(
    input: Text,
    delimiter: u8,
    source: &Source,
    want: WantedFields,
    failed: FailedRows,
) -> Result<impl Iterator<Item = Result<Record>> + Send + use<>> {
    let input: Box<dyn Read + Send> = if source.quoting && source.skips_bad() {
        Box::new(WithoutOpenQuotes::new(input, delimiter, source, failed.clone()))
    } else {
        Box::new(input)
    };
    let mut records = DelimitedRecords::new(input, delimiter, source.clone());
    let columns = match (source.header, if source.header { records.advance()? } else { None }) {
        (true, None) => None,
        (true, Some(_)) => {
            let header = Header { names: records.names(), delimiter };
            Some(ColumnIndices::by_header(&header, source, want)?)
        }
        (false, _) => Some(ColumnIndices::by_number(source, want)?),
    };
    Ok(iter::from_fn(move || {
        let columns = columns.as_ref()?;
        loop {
            let line = match records.advance().transpose()? {
                Ok(line) => line,
                Err(error) => return Some(Err(error)),
            };
            let lines = line..=line + records.n_line_feeds();
            if let Some(record) = failed.keep(lines, records.example(columns, line)) {
                return Some(record);
            }
        }
    }))
}

/// A file followed by its trailer.
type WithTrailer = Chain<Box<dyn Read + Send>, &'static [u8]>;

/// Reads the records one by one.
struct DelimitedRecords {
    reader: csv::Reader<Limited<WithTrailer, Allowance>>,
    record: StringRecord,
    delimiter: u8,
    source: Source,
}

impl DelimitedRecords {
    fn new(input: Box<dyn Read + Send>, delimiter: u8, source: Source) -> Self {
        let input = input.chain(if source.quoting { TRAILER_QUOTED } else { TRAILER_PLAIN });
        let reader = ReaderBuilder::new()
            .delimiter(delimiter)
            .has_headers(false)
            .flexible(true)
            .quoting(source.quoting)
            // With CRLF as terminator, the csv crate would count a line feed only after taking the next record's
            // position.
            .terminator(Terminator::Any(b'\n'))
            .from_reader(Limited::new(input, Allowance::new(), Some(delimiter)));
        DelimitedRecords { reader, record: StringRecord::new(), delimiter, source }
    }

    /// Converts the last record read, which starts on `line`.
    fn example(&self, columns: &ColumnIndices, line: u64) -> Result<Record> {
        columns.check(&self.record, line, self.delimiter, &self.source)?;
        let has_field = |index: &usize| *index < self.record.len();
        Ok(Record {
            id: columns.id.filter(has_field).map(|index| self.field(index).to_owned()),
            text: self.field(columns.text).to_owned(),
            text_pair: columns.text_pair.map(|index| self.field(index).to_owned()),
            label: columns.label.map(|index| self.source.label_of(self.field(index))),
            label_cells: columns
                .label_columns
                .iter()
                .map(|index| self.field(*index).trim().to_owned())
                .collect(),
            kept: columns.kept.iter().map(|index| self.kept(*index)).collect(),
            line: Some(line),
            swallowed_to: self.swallowed_to(line),
            ..Record::default()
        })
    }

    /// Returns the last line of a record of a tsv file if one of its fields has both tabs and line ends: texts have no
    /// tabs, so these lines are probably records of their own, after a quote that is part of a text.
    fn swallowed_to(&self, line: u64) -> Option<u64> {
        let is_suspect = |field: &str| field.contains('\t') && field.contains('\n');
        let is_tsv = self.delimiter == b'\t';
        (is_tsv && self.record.iter().any(is_suspect)).then(|| line + self.n_line_feeds())
    }

    fn n_line_feeds(&self) -> u64 {
        let fields = self.record.iter();
        fields.map(|field| field.matches('\n').count() as u64).sum()
    }

    /// Advances to the next record that is not a blank line, and returns the line on which it starts.
    fn advance(&mut self) -> Result<Option<u64>> {
        loop {
            let first_line = self.reader.position().line();
            self.reader.get_ref().allowance().renew();
            match self.reader.read_record(&mut self.record) {
                Ok(false) => return Ok(None),
                Ok(true) if &self.record == ["\r"].as_slice() => {}
                Ok(true) => {
                    // Every record was read including its line end, the last one including that of the trailer.
                    return Ok(Some(self.reader.position().line() - 1 - self.n_line_feeds()));
                }
                Err(error) => return self.end(error, first_line),
            }
        }
    }

    /// Distinguishes the trailer, which is not UTF-8 and so is read as an error, from real errors.
    fn end(&self, error: csv::Error, first_line: u64) -> Result<Option<u64>> {
        match error.into_kind() {
            ErrorKind::Utf8 { err, .. } if (err.field(), err.valid_up_to()) == (0, 0) => Ok(None),
            ErrorKind::Utf8 { pos, .. } => Err(self.source.malformed(
                pos.map(|pos| pos.line()),
                "a record whose quotes are closed",
                "an open quote that takes in the rest of the file",
                format!(
                    "close the quote; or set `quoting = false` for this source if its quotes are ordinary characters{}",
                    self.source.skip_hint()
                ),
            )),
            ErrorKind::Io(error) if is_too_long(&error) => Err(too_long(
                &self.source,
                Some(first_line),
                "a record",
                if self.source.quoting {
                    "close the quote that takes in the lines after it; or set `quoting = false` for this source if \
                     its quotes are ordinary characters; a field counts 64 bytes in addition to its own"
                } else { "check that the file has line ends; a field counts 64 bytes in addition to its own" },
            )),
            ErrorKind::Io(error) => Err(read::failure(&self.source, error)),
            // The other kinds only occur with seeking, with serde, or with a reader that is not flexible.
            other => Err(Error::io("read", &self.source.path)(io::Error::other(format!(
                "{other:?}"
            )))),
        }
    }

    /// Returns a field that exists, without the carriage return of a CRLF line end.
    fn field(&self, index: usize) -> &str {
        let field = &self.record[index];
        if index + 1 == self.record.len() {
            field.strip_suffix('\r').unwrap_or(field)
        } else {
            field
        }
    }

    /// Returns a value to be copied; without a header, a record may lack it.
    fn kept(&self, index: usize) -> Option<String> {
        (index < self.record.len()).then(|| self.field(index).to_owned())
    }

    fn names(&self) -> Vec<String> {
        (0..self.record.len()).map(|index| self.field(index).to_owned()).collect()
    }
}

/// The indices of the requested columns.
struct ColumnIndices {
    text: usize,
    text_pair: Option<usize>,
    label: Option<usize>,
    id: Option<usize>,
    label_columns: Vec<usize>,
    kept: Vec<usize>,
    /// Number of fields in the header, if there is one.
    n_fields: Option<usize>,
}

impl ColumnIndices {
    fn by_header(header: &Header, source: &Source, want: WantedFields) -> Result<Self> {
        let columns = Self::find(source, want, |key, column| header.index(key, column, source))?;
        Ok(ColumnIndices { n_fields: Some(header.names.len()), ..columns })
    }

    fn by_number(source: &Source, want: WantedFields) -> Result<Self> {
        Self::find(source, want, |key, column| {
            match column {
            ColumnName::Number(number) => Ok(*number),
            ColumnName::Name(name) => Err(source.malformed(
                None,
                format!("a column number for `{key}`, as `header = false` leaves the columns without names"),
                format!("the name `{name}`"),
                format!("set `{key}` of this source to the column's number, counted from 0"),
            )),
        }
        })
    }

    fn find(
        source: &Source,
        want: WantedFields,
        index: impl Fn(&str, &ColumnName) -> Result<usize>,
    ) -> Result<Self> {
        Ok(ColumnIndices {
            text: index(source.key("text"), &source.text_column())?,
            text_pair: source
                .wanted_pair(want)?
                .map(|column| index(source.key("text_pair"), column))
                .transpose()?,
            label: want
                .label
                .then(|| index(source.key("label"), &source.label_column()))
                .transpose()?,
            id: source.id.as_ref().map(|column| index("id", column)).transpose()?,
            label_columns: source.find_label_columns(&index)?,
            kept: source.find_kept_columns(&index)?,
            n_fields: None,
        })
    }

    /// Returns an error if a record has the wrong number of fields.
    fn check(
        &self,
        record: &StringRecord,
        line: u64,
        delimiter: u8,
        source: &Source,
    ) -> Result<()> {
        let n_fields = record.len();
        let quoting = if source.quoting {
            "set `quoting = false` for this source if its quotes are ordinary characters"
        } else {
            "set `quoting = true` for this source if quotes enclose its fields"
        };
        match self.n_fields {
            Some(expected) if n_fields != expected => Err(source.malformed(
                Some(line),
                format!("{}, as in the header", fields(expected)),
                fields(n_fields),
                format!(
                    "correct the line: a text that contains the delimiter or a line end must be in quotes; or \
                     {quoting}"
                ),
            )),
            Some(_) => Ok(()),
            None => {
                let id = self.id.filter(|_| !source.may_lack_id);
                let n_needed = 1 + [Some(self.text), self.text_pair, self.label, id]
                    .into_iter()
                    .flatten()
                    .chain(self.label_columns.iter().copied())
                    .fold(0, usize::max);
                if n_fields >= n_needed {
                    return Ok(());
                }
                Err(source.malformed(
                    Some(line),
                    format!("at least {}, to reach column number {}", fields(n_needed), n_needed - 1),
                    fields(n_fields),
                    match other_delimiter(&record.iter().collect::<Vec<_>>(), delimiter, None) {
                        Some(delimiter) => set_delimiter(delimiter),
                        None => format!(
                            "correct the line, or the column numbers of this source, which count from 0; or {quoting}"
                        ),
                    },
                ))
            }
        }
    }
}

/// The names of the columns, as in the file.
struct Header {
    names: Vec<String>,
    delimiter: u8,
}

impl Header {
    /// Returns the index of a column: of the only one with exactly this name, or else of the only one with this name
    /// but for surrounding blanks.
    fn index(&self, key: &str, column: &ColumnName, source: &Source) -> Result<usize> {
        let places: Vec<usize> = match column {
            ColumnName::Number(number) => (0..self.names.len()).filter(|n| n == number).collect(),
            ColumnName::Name(name) => {
                let places_of = |plain: fn(&str) -> &str| -> Vec<usize> {
                    let is_it = |place: &usize| plain(&self.names[*place]) == plain(name);
                    (0..self.names.len()).filter(is_it).collect()
                };
                let exact = places_of(|name| name);
                if exact.is_empty() { places_of(plain_name) } else { exact }
            }
        };
        let names: Vec<&str> = self.names.iter().map(|name| plain_name(name)).collect();
        let wanted = match column {
            ColumnName::Name(name) => Some(name.as_str()),
            ColumnName::Number(_) => None,
        };
        match places[..] {
            [place] => Ok(place),
            [] => Err(source.malformed(
                Some(1),
                format!("a column {column} for `{key}`"),
                format!("the columns {}", name_list(names.iter().copied())),
                match other_delimiter(&names, self.delimiter, wanted) {
                    Some(delimiter) => set_delimiter(delimiter),
                    None => format!("set `{key}` of this source to one of these; or `header = false` if the file has no header"),
                },
            )),
            _ => Err(source.malformed(
                Some(1),
                format!("one column {column} for `{key}`"),
                format!("{} of that name", places.len()),
                format!("set `{key}` of this source to the column's number, counted from 0"),
            )),
        }
    }
}

/// Strips surrounding blanks and byte order marks from a name of a header.
pub(super) fn plain_name(name: &str) -> &str {
    name.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}')
}

/// Guesses the actual delimiter of fields that were split at `delimiter`: one that would give the wanted column or, if
/// there is only one field, one that this field contains.
fn other_delimiter(fields: &[&str], delimiter: u8, wanted: Option<&str>) -> Option<char> {
    let whole = fields.join(&char::from(delimiter).to_string());
    let others = ['\t', ';', '|', ','].into_iter().filter(|other| *other != char::from(delimiter));
    let gives = |other: &char| {
        let mut names = whole.split(*other).map(|name| plain_name(name).trim_matches('"'));
        whole.contains(*other) && names.any(|name| Some(name) == wanted)
    };
    let is_in_the_only_one = |other: &char| fields.len() == 1 && whole.contains(*other);
    others.clone().find(gives).or_else(|| others.clone().find(is_in_the_only_one))
}

fn set_delimiter(delimiter: char) -> String {
    format!(
        "set `delimiter = \"{}\"` of this source, if that is what separates the columns",
        delimiter.escape_default()
    )
}

fn fields(n: usize) -> String {
    if n == 1 { "1 field".to_owned() } else { format!("{n} fields") }
}

#[cfg(test)]
mod tests;

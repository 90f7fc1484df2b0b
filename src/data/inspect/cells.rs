//! Reads the cells of the first records of a file, within limits, because every command inspects its files first.

use std::io::{self, BufRead, Read};

use arrow::util::display::{ArrayFormatter, FormatOptions};
use frostbert_cache::fence::fenced_or;
use parquet::errors::ParquetError;
use serde_json::{Map, Value};

use crate::{
    data::{
        delimited::plain_name,
        json_array::{Items, begins_records},
        open_file::OpenFile,
        parquet_file, parquet_pages,
        read::{Text, failure},
        source::{Format, Source},
    },
    error::{Error, Result},
};

/// Approximate maximum number of bytes to read, of the file's text or of the values in its cells.
const MOST_BYTES: usize = 8 << 20;

/// Maximum number of columns to read.
const MOST_COLUMNS: usize = 1000;

/// A table of cells, in which null cells are `None`.
pub(super) struct Cells {
    /// The format of the file.
    pub(super) format: Format,
    /// The delimiter between the fields of a csv file.
    pub(super) delimiter: char,
    /// The names of the columns; empty for formats without columns.
    pub(super) names: Vec<String>,
    /// The records.
    pub(super) rows: Vec<Vec<Option<String>>>,
    /// Whether these are all records.
    pub(super) is_whole: bool,
}

/// Whether a file named `.json` holds records rather than SQuAD questions. A file that cannot be read is reported when
/// the data are read.
pub(crate) fn holds_json_records(source: &Source) -> bool {
    let is_told_by_name = source.format.is_none()
        && source.resolve_format().is_ok_and(|format| format == Format::Squad);
    is_told_by_name
        && open(source).and_then(|mut text| begins_records(&mut text, source)).unwrap_or(false)
}

impl Cells {
    /// Reads the first records of a file with the settings of `source`, but no more than `most`.
    pub(super) fn of(source: &Source, most: usize) -> Result<Cells> {
        let mut format = source.resolve_format()?;
        // A .json file may hold questions or records.
        if format == Format::Squad && begins_records(&mut open(source)?, source)? {
            format = Format::Json;
        }
        let usual = if format == Format::Tsv { '\t' } else { ',' };
        let mut cells = Cells {
            format,
            delimiter: source.delimiter.unwrap_or(usual),
            names: Vec::new(),
            rows: Vec::new(),
            is_whole: false,
        };
        let is_cut = match format {
            Format::Csv | Format::Tsv => cells.read_delimited(source, most)?,
            Format::Jsonl => cells.read_json_lines(source, most)?,
            Format::Json => cells.read_json_array(source, most)?,
            Format::Parquet => cells.read_parquet(source, most)?,
            _ => return Ok(cells),
        };
        // One more record than requested is read, to tell whether there are more.
        cells.is_whole = !is_cut && cells.rows.len() <= most;
        cells.rows.truncate(most);
        Ok(cells)
    }

    /// Reads delimited fields. Returns whether reading stopped at the limit of bytes.
    fn read_delimited(&mut self, source: &Source, most: usize) -> Result<bool> {
        let mut reader = csv::ReaderBuilder::new()
            .has_headers(source.header)
            .delimiter(self.delimiter as u8)
            .quoting(source.quoting)
            .flexible(true)
            .from_reader(open(source)?.take(MOST_BYTES as u64));
        let failed = |error: csv::Error| failure(source, io::Error::from(error));
        let text = |cell: &[u8]| String::from_utf8_lossy(cell).into_owned();
        let names = reader.byte_headers().map_err(failed)?.iter().take(MOST_COLUMNS);
        self.names = if source.header {
            names.map(|name| plain_name(&text(name)).to_owned()).collect()
        } else {
            (0..names.count()).map(|number| number.to_string()).collect()
        };
        for record in reader.byte_records().take(most + 1) {
            let record = record.map_err(failed)?;
            self.rows.push(record.iter().take(MOST_COLUMNS).map(|cell| Some(text(cell))).collect());
        }
        Ok(reader.get_ref().limit() == 0)
    }

    /// Like [`Cells::read_delimited`], for one object per line.
    fn read_json_lines(&mut self, source: &Source, most: usize) -> Result<bool> {
        let mut input = open(source)?.take(MOST_BYTES as u64);
        for _ in 0..=most {
            let mut line = Vec::new();
            input.read_until(b'\n', &mut line).map_err(|error| failure(source, error))?;
            if line.is_empty() {
                break;
            }
            if let Ok(Value::Object(object)) = serde_json::from_slice(&line) {
                self.push(object);
            }
        }
        Ok(input.limit() == 0)
    }

    /// Like [`Cells::read_delimited`], for an array of objects or of pairs of text and label.
    fn read_json_array(&mut self, source: &Source, most: usize) -> Result<bool> {
        let mut items = Items::new(open(source)?, source.clone());
        let mut n_bytes = 0;
        while self.rows.len() <= most && n_bytes <= MOST_BYTES {
            let Some((_, item)) = items.next_item()? else { return Ok(false) };
            n_bytes += item.len();
            match serde_json::from_str(&item) {
                Ok(Value::Object(object)) => self.push(object),
                Ok(Value::Array(pair)) if pair.len() == 2 => {
                    let keys = ["text", "label"].map(str::to_owned);
                    self.push(keys.into_iter().zip(pair).collect());
                }
                _ => {}
            }
        }
        Ok(n_bytes > MOST_BYTES)
    }

    /// Adds the values of an object, in the order of all keys so far.
    fn push(&mut self, object: Map<String, Value>) {
        let names = &mut self.names;
        let mut row = vec![None; names.len()];
        for (key, value) in object {
            let place = names.iter().position(|name| *name == key).unwrap_or_else(|| {
                names.push(key);
                row.push(None);
                names.len() - 1
            });
            row[place] = match value {
                Value::Null => None,
                Value::String(text) => Some(text),
                other => Some(other.to_string()),
            };
            if names.len() == MOST_COLUMNS {
                break;
            }
        }
        self.rows.push(row);
    }

    /// Like [`Cells::read_delimited`], for a Parquet file.
    fn read_parquet(&mut self, source: &Source, most: usize) -> Result<bool> {
        let failed = |error: ParquetError| {
            Error::io("read", &source.path)(io::Error::other(error.to_string()))
        };
        let file = OpenFile::open(&source.path)?.try_clone()?;
        let pages = file.try_clone().map_err(Error::io("read", &source.path))?;
        fenced_or(
            || {
                let builder = parquet_file::open(file)?;
                parquet_pages::check(&pages, builder.metadata(), |_| true)?;
                let fields = builder.schema().fields();
                self.names = fields.iter().map(|field| field.name().clone()).collect();
                let n_batch_rows = parquet_file::n_batch_rows(builder.metadata());
                let batches = builder.with_batch_size(n_batch_rows).with_limit(most + 1).build()?;
                let mut n_bytes = 0;
                for batch in batches {
                    let batch = batch?;
                    let options = FormatOptions::default();
                    let columns = batch.columns().iter();
                    let columns: Vec<ArrayFormatter<'_>> = columns
                        .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
                        .collect::<std::result::Result<_, _>>()?;
                    for row in 0..batch.num_rows() {
                        let cells = columns.iter().map(|column| column.value(row).to_string());
                        let cells: Vec<Option<String>> = cells.map(Some).collect();
                        n_bytes += cells.iter().flatten().map(String::len).sum::<usize>();
                        self.rows.push(cells);
                        if n_bytes > MOST_BYTES {
                            return Ok(true);
                        }
                    }
                }
                Ok(false)
            },
            ParquetError::General,
        )
        .map_err(failed)
    }
}

/// Opens the text of a file, in which bytes that do not decode are replaced with U+FFFD.
fn open(source: &Source) -> Result<Text> {
    let mut text = OpenFile::open(&source.path)?.text(source)?;
    text.replace_bad_bytes();
    Ok(text)
}

/// Reads the beginning of a text file; empty for other formats.
pub(super) fn beginning(source: &Source) -> Result<String> {
    if matches!(source.resolve_format()?, Format::Parquet | Format::Folder | Format::Npy) {
        return OpenFile::open(&source.path).map(|_| String::new());
    }
    let mut bytes = Vec::new();
    let failed = |error| failure(source, error);
    open(source)?.take(1 << 16).read_to_end(&mut bytes).map_err(failed)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

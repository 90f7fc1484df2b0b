//! A look at a data file: what its columns hold, and which of them are likely texts, labels and names.

use std::{
    collections::HashSet,
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};

use arrow::util::display::{ArrayFormatter, FormatOptions};
use flate2::read::MultiGzDecoder;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Map, Value};

use super::{
    labels::is_missing,
    source::{Format, Source},
};
use crate::error::{Error, Result};

/// Records that are looked at.
const LOOKED_AT: usize = 5000;

/// Names of columns that hold texts, the likeliest first.
const TEXTS: [&str; 20] = [
    "text",
    "sentence",
    "sentence1",
    "text1",
    "text_a",
    "premise",
    "content",
    "message",
    "review",
    "body",
    "utterance",
    "query",
    "tweet",
    "comment",
    "question",
    "description",
    "document",
    "title",
    "headline",
    "sms",
];

/// Names of columns that hold the second text of a pair.
const SECOND_TEXTS: [&str; 6] =
    ["text_pair", "sentence2", "text2", "text_b", "hypothesis", "sentence_b"];

/// Names of columns that hold labels.
const LABELS: [&str; 16] = [
    "label",
    "labels",
    "category",
    "intent",
    "class",
    "sentiment",
    "target",
    "topic",
    "emotion",
    "tag",
    "score",
    "rating",
    "stars",
    "similarity",
    "y",
    "type",
];

/// Names of columns that hold names of rows.
const IDS: [&str; 7] = ["id", "idx", "guid", "uuid", "index", "row_id", "unnamed: 0"];

/// What a data file holds.
#[derive(Clone, Debug)]
pub struct FileShape {
    /// How it is written.
    pub format: Format,
    /// What stands between the fields of a csv file.
    pub delimiter: char,
    /// Records that were looked at: the first ones.
    pub n_records: usize,
    /// Whether these are all.
    pub is_whole: bool,
    /// Its columns; none of files whose records have no columns.
    pub columns: Vec<ColumnShape>,
    /// The column of texts, of the second texts of pairs, of labels, of names of rows.
    pub text: Option<usize>,
    /// See `text`.
    pub text_pair: Option<usize>,
    /// See `text`.
    pub label: Option<usize>,
    /// See `text`.
    pub id: Option<usize>,
}

/// What a column holds.
#[derive(Clone, Debug, Default)]
pub struct ColumnShape {
    /// Its name.
    pub name: String,
    /// Cells that hold something.
    pub n_filled: usize,
    /// Characters of these on average.
    pub mean_chars: f64,
    /// Distinct values.
    pub n_values: usize,
    /// Whether all are numbers, and whether one of them has decimals.
    pub is_number: bool,
    /// See `is_number`.
    pub has_decimals: bool,
    /// Whether all are lists.
    pub is_list: bool,
}

impl FileShape {
    /// Looks at the first records of a file.
    ///
    /// # Errors
    /// When the file cannot be read, or its name tells no format.
    pub fn of(path: &Path) -> Result<FileShape> {
        let mut format = Source::new(path).resolve_format()?;
        // A .json may hold questions or an array; and a file that is not there is told of, whatever its format.
        let first = beginning(path)?;
        if format == Format::Squad
            && first.trim_start_matches('\u{feff}').trim_start().starts_with('[')
        {
            format = Format::Json;
        }
        let mut delimiter = if format == Format::Tsv { '\t' } else { ',' };
        let (names, rows, is_whole) = match format {
            Format::Csv | Format::Tsv => {
                delimiter = delimiter_of(&first, delimiter);
                delimited(path, delimiter)?
            }
            Format::Jsonl => json_lines(path)?,
            Format::Json => json_array(path)?,
            Format::Parquet => parquet(path)?,
            _ => (Vec::new(), Vec::new(), false),
        };
        let columns: Vec<ColumnShape> =
            (0..names.len()).map(|place| ColumnShape::of(&names, &rows, place)).collect();
        let mut shape = FileShape {
            format,
            delimiter,
            n_records: rows.len(),
            is_whole,
            columns,
            text: None,
            text_pair: None,
            label: None,
            id: None,
        };
        shape.find_roles();
        Ok(shape)
    }

    fn find_roles(&mut self) {
        let named = |columns: &[ColumnShape], known: &[&str], taken: &[Option<usize>]| {
            known.iter().find_map(|name| {
                let is_it = |column: &ColumnShape| column.name.trim().to_lowercase() == *name;
                let place = columns.iter().position(is_it)?;
                (!taken.contains(&Some(place))).then_some(place)
            })
        };
        let columns = &self.columns;
        self.id = named(columns, &IDS, &[]);
        self.text = named(columns, &TEXTS, &[self.id]).or_else(|| {
            // Else the column with the longest values.
            let free = (0..columns.len()).filter(|place| Some(*place) != self.id);
            free.filter(|place| !columns[*place].is_number).max_by(|one, other| {
                columns[*one].mean_chars.total_cmp(&columns[*other].mean_chars)
            })
        });
        self.text_pair = named(columns, &SECOND_TEXTS, &[self.text]);
        let taken = [self.id, self.text, self.text_pair];
        self.label = named(columns, &LABELS, &taken).or_else(|| {
            // Else the column with the fewest values, where these recur.
            let free = (0..columns.len()).filter(|place| !taken.contains(&Some(*place)));
            let recurs = |column: &ColumnShape| {
                column.n_values > 1 && column.n_values * 2 <= column.n_filled.max(1)
            };
            free.filter(|place| recurs(&columns[*place]))
                .min_by_key(|place| columns[*place].n_values)
        });
    }
}

/// The names of columns, rows of cells, and whether these are all rows.
type CellRows = (Vec<String>, Vec<Vec<Option<String>>>, bool);

impl ColumnShape {
    fn of(names: &[String], rows: &[Vec<Option<String>>], place: usize) -> ColumnShape {
        let cells = rows.iter().filter_map(|row| row.get(place)?.as_deref());
        let filled: Vec<&str> = cells.map(str::trim).filter(|cell| !is_missing(cell)).collect();
        let chars: usize = filled.iter().map(|cell| cell.chars().count()).sum();
        let distinct: HashSet<&str> = filled.iter().copied().collect();
        ColumnShape {
            name: names[place].clone(),
            n_filled: filled.len(),
            mean_chars: chars as f64 / filled.len().max(1) as f64,
            n_values: distinct.len(),
            is_number: !filled.is_empty() && filled.iter().all(|cell| cell.parse::<f64>().is_ok()),
            has_decimals: filled.iter().any(|cell| cell.contains('.')),
            is_list: !filled.is_empty()
                && filled.iter().all(|cell| cell.starts_with('[') && cell.ends_with(']')),
        }
    }
}

fn open(path: &Path) -> Result<Box<dyn Read>> {
    let file = File::open(path).map_err(Error::io("open", path))?;
    let is_gzip = path.extension().is_some_and(|name| name.eq_ignore_ascii_case("gz"));
    Ok(if is_gzip { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
}

/// The first lines of a text file; what is no UTF-8 in them shows as U+FFFD.
fn beginning(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    open(path)?.take(1 << 16).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The character that stands most often in the first line, of those that separate fields.
fn delimiter_of(text: &str, usual: char) -> char {
    let first = text.lines().next().unwrap_or_default();
    let count = |delimiter: &char| first.matches(*delimiter).count();
    let best = ['\t', ';', '|', ','].into_iter().max_by_key(count).unwrap_or(usual);
    if count(&best) > count(&usual) { best } else { usual }
}

fn delimited(path: &Path, delimiter: char) -> Result<CellRows> {
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter as u8)
        .flexible(true)
        .from_reader(open(path)?);
    let failed = |error: csv::Error| Error::io("read", path)(std::io::Error::other(error));
    let names = reader.byte_headers().map_err(failed)?;
    let text =
        |cell: &[u8]| String::from_utf8_lossy(cell).trim_start_matches('\u{feff}').to_owned();
    let names: Vec<String> = names.iter().map(text).collect();
    let mut rows = Vec::new();
    for record in reader.byte_records().take(LOOKED_AT + 1) {
        let record = record.map_err(failed)?;
        rows.push(record.iter().map(|cell| Some(text(cell))).collect());
    }
    Ok(cut(names, rows))
}

fn json_lines(path: &Path) -> Result<CellRows> {
    let mut names: Vec<String> = Vec::new();
    let mut rows = Vec::new();
    for line in BufReader::new(open(path)?).lines().take(LOOKED_AT + 1) {
        let line = line.map_err(Error::io("read", path))?;
        let line = line.trim_start_matches('\u{feff}');
        if let Ok(Value::Object(object)) = serde_json::from_str(line) {
            rows.push(row_of(object, &mut names));
        }
    }
    Ok(cut(names, rows))
}

fn json_array(path: &Path) -> Result<CellRows> {
    let failed = |error: serde_json::Error| Error::io("read", path)(error.into());
    let items: Vec<Value> = serde_json::from_reader(BufReader::new(open(path)?)).map_err(failed)?;
    let mut names: Vec<String> = Vec::new();
    let objects = items.into_iter().filter_map(|item| match item {
        Value::Object(object) => Some(object),
        _ => None,
    });
    let rows = objects.take(LOOKED_AT + 1).map(|object| row_of(object, &mut names)).collect();
    Ok(cut(names, rows))
}

/// The values of an object, by the names of all keys so far.
fn row_of(object: Map<String, Value>, names: &mut Vec<String>) -> Vec<Option<String>> {
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
    }
    row
}

fn parquet(path: &Path) -> Result<CellRows> {
    let failed = |error: &dyn std::fmt::Display| {
        Error::io("read", path)(std::io::Error::other(error.to_string()))
    };
    let file = File::open(path).map_err(Error::io("open", path))?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| failed(&error))?;
    let names = builder.schema().fields().iter().map(|field| field.name().clone()).collect();
    let batches = builder.with_limit(LOOKED_AT + 1).build().map_err(|error| failed(&error))?;
    let mut rows = Vec::new();
    for batch in batches {
        let batch = batch.map_err(|error| failed(&error))?;
        let options = FormatOptions::default();
        let columns = batch.columns().iter();
        let columns: Vec<ArrayFormatter<'_>> = columns
            .map(|column| ArrayFormatter::try_new(column.as_ref(), &options))
            .collect::<std::result::Result<_, _>>()
            .map_err(|error| failed(&error))?;
        for row in 0..batch.num_rows() {
            rows.push(columns.iter().map(|column| Some(column.value(row).to_string())).collect());
        }
    }
    Ok(cut(names, rows))
}

/// Leaves the record out that says whether there are more.
fn cut(names: Vec<String>, mut rows: Vec<Vec<Option<String>>>) -> CellRows {
    let is_whole = rows.len() <= LOOKED_AT;
    rows.truncate(LOOKED_AT);
    (names, rows, is_whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape_of(name: &str, content: &str) -> FileShape {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        FileShape::of(&path).unwrap()
    }

    #[test]
    fn columns_are_told_by_their_names_and_else_by_what_they_hold() {
        let named = shape_of("a.csv", "id,sentence,category\n1,It broke.,bad\n2,Fine.,good\n");
        assert_eq!((named.id, named.text, named.label), (Some(0), Some(1), Some(2)));

        let rows: String =
            (0..8).map(|n| format!("{n} is a longer text;{}\n", ["x", "y"][n % 2])).collect();
        let by_content = shape_of("b.csv", &format!("\u{feff}what;kind\n{rows}"));
        assert_eq!(by_content.delimiter, ';');
        assert_eq!((by_content.text, by_content.label), (Some(0), Some(1)));
        assert_eq!(by_content.columns[0].name, "what");
        assert_eq!((by_content.columns[1].n_values, by_content.n_records), (2, 8));
    }

    #[test]
    fn json_lines_have_the_keys_of_all_objects() {
        let shape =
            shape_of("a.jsonl", "{\"text\": \"one\"}\n{\"text\": \"two\", \"label\": null}\n");
        assert_eq!((shape.text, shape.label), (Some(0), Some(1)));
        assert_eq!((shape.columns[1].n_filled, shape.is_whole), (0, true));
    }
}

//! Inspects a data file: what its columns hold, and which of them are likely texts, labels and ids.

mod cells;

use std::collections::HashSet;

pub(crate) use self::cells::holds_json_records;
use self::cells::{Cells, beginning};
use super::{
    delimited::plain_name,
    labels::is_missing,
    source::{ColumnName, Format, Source},
};
use crate::error::Result;

/// Number of records that are inspected.
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

/// Names of columns that hold ids of rows.
const IDS: [&str; 6] = ["id", "idx", "guid", "uuid", "index", "row_id"];

/// The texts of a column are far longer than those of another if they are this many times as long on average.
const FAR_LONGER: f64 = 3.0;

/// Words of a column's name from which it looks like a text.
const LEAST_WORDS: usize = 6;

/// The structure of a data file.
#[derive(Clone, Debug)]
pub struct FileShape {
    /// Its format.
    pub format: Format,
    /// The delimiter between the fields of a csv file.
    pub delimiter: char,
    /// Number of records that were inspected, which are the first ones.
    pub n_records: usize,
    /// Whether these are all records.
    pub is_whole: bool,
    /// Whether the first record was taken as the names of the columns although it looks like values.
    pub may_lack_header: bool,
    /// Its columns; empty for formats without columns.
    pub columns: Vec<ColumnShape>,
    /// The index of the column of texts.
    pub text: Option<usize>,
    /// The index of the column of second texts of pairs.
    pub text_pair: Option<usize>,
    /// The index of the column of labels.
    pub label: Option<usize>,
    /// The index of the column of ids.
    pub id: Option<usize>,
}

/// The values of a column.
#[derive(Clone, Debug, Default)]
pub struct ColumnShape {
    /// Its name; its number in a file without a header.
    pub name: String,
    /// Whether its name is one of these values too.
    pub name_recurs: bool,
    /// Number of cells with a value.
    pub n_filled: usize,
    /// Mean number of characters of these values.
    pub mean_chars: f64,
    /// Number of distinct values.
    pub n_values: usize,
    /// Whether all values are numbers.
    pub is_number: bool,
    /// Whether some values have a decimal point.
    pub has_decimals: bool,
    /// Whether all values are lists.
    pub is_list: bool,
}

impl FileShape {
    /// Inspects the first records of a file with the settings of `source`; a delimiter that it does not give is found.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, or if neither the source nor its name determines a format.
    pub fn of(source: &Source) -> Result<FileShape> {
        let mut source = source.clone();
        let format = source.resolve_format()?;
        // Read for every format, so that a missing file is reported.
        let first = beginning(&source)?;
        if matches!(format, Format::Csv | Format::Tsv) && source.delimiter.is_none() {
            let usual = if format == Format::Tsv { '\t' } else { ',' };
            source.delimiter = Some(delimiter_of(&first, usual));
        }
        FileShape::read(&source, LOOKED_AT)
    }

    /// Inspects the first records of a file that is read with the settings of `source`, but no more than `most`.
    fn read(source: &Source, most: usize) -> Result<FileShape> {
        let Cells { format, delimiter, names, rows, is_whole } = Cells::of(source, most)?;
        let columns: Vec<ColumnShape> =
            (0..names.len()).map(|place| ColumnShape::of(&names, &rows, place)).collect();
        let mut shape = FileShape {
            format,
            delimiter,
            n_records: rows.len(),
            is_whole,
            may_lack_header: source.header
                && matches!(format, Format::Csv | Format::Tsv)
                && are_values(&columns),
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
        let columns = &self.columns;
        self.id = named(columns, &IDS, &[]);
        self.text = named(columns, &TEXTS, &[self.id]).or_else(|| {
            // Otherwise, the column with the longest values.
            let free = (0..columns.len()).filter(|place| Some(*place) != self.id);
            let may_be =
                |place: &usize| !columns[*place].is_number && !is_index(&columns[*place].name);
            free.filter(may_be).max_by(|one, other| {
                columns[*one].mean_chars.total_cmp(&columns[*other].mean_chars)
            })
        });
        self.text_pair = named(columns, &SECOND_TEXTS, &[self.text]);
        let taken = [self.id, self.text, self.text_pair];
        self.label = named(columns, &LABELS, &taken).or_else(|| {
            // Otherwise, the column with the fewest distinct values, provided that these recur.
            let free = (0..columns.len())
                .filter(|place| !taken.contains(&Some(*place)) && !is_index(&columns[*place].name));
            let recurs = |column: &ColumnShape| {
                column.n_values > 1 && column.n_values * 2 <= column.n_filled.max(1)
            };
            free.filter(|place| recurs(&columns[*place]))
                .min_by_key(|place| columns[*place].n_values)
        });
    }
}

/// A column of texts that is not called `text`, but is the only possible one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SureText {
    /// Its name.
    pub(crate) column: String,
    /// Why it is the only possible one, as a phrase that follows its name.
    pub(crate) reason: &'static str,
}

impl SureText {
    /// Finds the column of texts of a source that does not name one. `others` are columns that do not hold texts.
    ///
    /// Returns `None` if the file cannot be read, has no header, has a column `text`, or has no column of labels
    /// (otherwise a first record that is not a header would pass for names), or if the column is ambiguous. Candidates
    /// are all columns but numbers, lists, ids, indexes that pandas wrote, and those that the source names for another
    /// purpose. If there are several, the values of one must be on average three times as long as those of any other.
    pub(crate) fn of(source: &Source, others: &[ColumnName]) -> Option<SureText> {
        let is_text = |column: &ColumnShape| plain_name(&column.name) == "text";
        if !source.header || FileShape::read(source, 1).ok()?.columns.iter().any(is_text) {
            return None;
        }
        let shape = FileShape::read(source, LOOKED_AT).ok()?;
        let columns = &shape.columns;
        let place_of = |column: &ColumnName| match column {
            ColumnName::Number(number) => Some(*number),
            ColumnName::Name(name) => {
                columns.iter().position(|column| plain_name(&column.name) == plain_name(name))
            }
        };
        let label = place_of(&source.label_column()).or(if source.label.is_none() {
            named(columns, &LABELS, &[])
        } else {
            None
        })?;
        let roles = [&source.text_pair, &source.id, &source.split_column].map(Option::as_ref);
        let mut taken: HashSet<usize> =
            roles.into_iter().flatten().chain(others).filter_map(place_of).collect();
        taken.extend([Some(label), shape.id].into_iter().flatten());
        let may_be = |(place, column): &(usize, &ColumnShape)| {
            let holds_texts = column.n_filled > 0 && !column.is_number && !column.is_list;
            holds_texts && !taken.contains(place) && !is_index(&column.name)
        };
        let mut free: Vec<&ColumnShape> =
            columns.iter().enumerate().filter(may_be).map(|(_, column)| column).collect();
        free.sort_by(|one, other| other.mean_chars.total_cmp(&one.mean_chars));
        let reason = match free[..] {
            [_] => "the only column of texts beside the label",
            [first, second, ..] if first.mean_chars >= FAR_LONGER * second.mean_chars => {
                "whose texts are by far the longest"
            }
            _ => return None,
        };
        Some(SureText { column: plain_name(&free[0].name).to_owned(), reason })
    }
}

/// Returns whether a file has a column, as far as its first records tell; `false` if it cannot be read.
pub(crate) fn has_column(source: &Source, column: &ColumnName) -> bool {
    let Ok(shape) = FileShape::read(source, 1) else {
        return false;
    };
    let is_named = |name: &str| {
        source.header
            && shape.columns.iter().any(|column| plain_name(&column.name) == plain_name(name))
    };
    match column {
        ColumnName::Number(number) => *number < shape.columns.len(),
        ColumnName::Name(name) => is_named(name),
    }
}

/// Returns the index of the first column with one of the known names, in their order, that is not taken.
fn named(columns: &[ColumnShape], known: &[&str], taken: &[Option<usize>]) -> Option<usize> {
    known.iter().find_map(|name| {
        let is_it = |column: &ColumnShape| plain_name(&column.name).to_lowercase() == *name;
        let place = columns.iter().position(is_it)?;
        (!taken.contains(&Some(place))).then_some(place)
    })
}

/// Whether the names of columns look like values, all but empty ones.
fn are_values(columns: &[ColumnShape]) -> bool {
    // pandas writes columns without names so.
    let is_counted = columns
        .iter()
        .enumerate()
        .all(|(place, column)| plain_name(&column.name) == place.to_string());
    let named = columns.iter().filter(|column| !plain_name(&column.name).is_empty());
    let named: Vec<&ColumnShape> = named.collect();
    !is_counted && !named.is_empty() && named.into_iter().all(is_named_by_a_value)
}

/// Whether the name of a column looks like one of its values: a number, as long as a sentence, or found among them.
fn is_named_by_a_value(column: &ColumnShape) -> bool {
    let name = plain_name(&column.name);
    let lower = name.to_lowercase();
    let is_usual = |known: &[&str]| known.contains(&lower.as_str());
    if [&TEXTS[..], &SECOND_TEXTS, &LABELS, &IDS].into_iter().any(is_usual) {
        return false;
    }
    let n_words = name.split_whitespace().count();
    let is_sentence = n_words >= LEAST_WORDS || n_words > 1 && name.ends_with(['.', '!', '?']);
    column.name_recurs || is_sentence || name.parse::<f64>().is_ok()
}

/// Whether this is the name of an index that pandas wrote as a column.
fn is_index(name: &str) -> bool {
    let name = plain_name(name);
    let number = name
        .strip_prefix("Unnamed: ")
        .or_else(|| name.strip_prefix("__index_level_").and_then(|rest| rest.strip_suffix("__")));
    name.is_empty() || number.is_some_and(|number| number.parse::<usize>().is_ok())
}

impl ColumnShape {
    fn of(names: &[String], rows: &[Vec<Option<String>>], place: usize) -> ColumnShape {
        let cells = rows.iter().filter_map(|row| row.get(place)?.as_deref());
        let filled: Vec<&str> = cells.map(str::trim).filter(|cell| !is_missing(cell)).collect();
        let chars: usize = filled.iter().map(|cell| cell.chars().count()).sum();
        let distinct: HashSet<&str> = filled.iter().copied().collect();
        ColumnShape {
            name: names[place].clone(),
            name_recurs: distinct.contains(plain_name(&names[place])),
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

/// Returns the delimiter that occurs most often in the first line; `usual` if none occurs more often than that.
fn delimiter_of(text: &str, usual: char) -> char {
    let first = text.lines().next().unwrap_or_default();
    let count = |delimiter: &char| first.matches(*delimiter).count();
    let best = ['\t', ';', '|', ','].into_iter().max_by_key(count).unwrap_or(usual);
    if count(&best) > count(&usual) { best } else { usual }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape_of(name: &str, content: &str) -> FileShape {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        FileShape::of(&Source::new(path)).unwrap()
    }

    #[test]
    fn a_first_record_of_values_is_told_from_names() {
        let may_lack = |name: &str, content: &str| shape_of(name, content).may_lack_header;
        let rows = "It broke on the second day.,1\nI like it very much indeed.,0\nFine.,1\n";
        assert!(may_lack("a.csv", rows));
        assert!(may_lack("a.csv", "It broke.,bad\nFine.,good\nIt broke again.,bad\n"));
        assert!(may_lack("a.tsv", "1\tIt broke.\n0\tFine.\n"));
        assert!(!may_lack("a.csv", &format!("text,label\n{rows}")));
        assert!(!may_lack("a.csv", &format!("what people say,kind\n{rows}")));
        assert!(!may_lack("a.csv", &format!("0,1\n{rows}")), "pandas numbers its columns");
        assert!(!may_lack("a.csv", "It broke.,bad\nFine.,good\n"), "bad may be a name");
        assert!(!may_lack("a.jsonl", "{\"1\": \"It broke.\"}\n"), "keys are names");
    }

    #[test]
    fn the_settings_of_a_source_say_how_its_file_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("said.data");
        std::fs::write(&path, "It is closed.|1\nIt works.|0\nIt broke.|1\nFine.|0\n").unwrap();
        assert!(FileShape::of(&Source::new(&path)).is_err(), "the name says no format");
        let source = Source {
            format: Some(Format::Csv),
            delimiter: Some('|'),
            header: false,
            ..Source::new(&path)
        };
        let shape = FileShape::of(&source).unwrap();
        assert_eq!((shape.n_records, shape.text, shape.label), (4, Some(0), Some(1)));
        assert_eq!(shape.columns[1].name, "1");
        assert!(!shape.may_lack_header);
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
    fn a_column_of_texts_is_sure_where_it_is_the_only_one_or_by_far_the_longest() {
        let folder = tempfile::tempdir().unwrap();
        let sure = |name: &str, content: &str, source: Source| {
            let source = Source { path: folder.path().join(name), ..source };
            std::fs::write(&source.path, content).unwrap();
            SureText::of(&source, &[ColumnName::from("weak")]).map(|sure| sure.column)
        };
        let plain = || Source::new("");
        let only =
            "Unnamed: 0,review ,stars,weak,label\n0,It broke.,3,bad,bad\n1,Fine.,4,good,good\n";
        assert_eq!(sure("a.csv", only, plain()).as_deref(), Some("review"));
        let longest = "title,body,sentiment\nBroke,It broke on the second day.,bad\n";
        assert_eq!(sure("a.csv", longest, plain()).as_deref(), Some("body"));
        let two = "title,body,label\nIt broke.,It is broken.,bad\n";
        assert_eq!(sure("a.csv", two, plain()), None, "either may be meant");
        let pair = Source { text_pair: Some("title".into()), ..plain() };
        assert_eq!(sure("a.csv", two, pair).as_deref(), Some("body"));
        let text = "text,review,label\na,It broke.,bad\n";
        assert_eq!(sure("a.csv", text, plain()), None, "`text` is there");
        assert_eq!(sure("a.csv", "It broke.,bad\nFine.,good\n", plain()), None, "no header");
        assert_eq!(sure("a.csv", "review;label\nFine.;good\n", plain()), None, "one column");
        let other = Source { delimiter: Some(';'), ..plain() };
        assert_eq!(sure("a.csv", "review;label\nFine.;good\n", other).as_deref(), Some("review"));
        let lines = "{\"review\": \"It broke.\", \"label\": \"bad\"}\n";
        assert_eq!(sure("a.jsonl", lines, plain()).as_deref(), Some("review"));
        assert_eq!(sure("a.json", &format!("[{lines}]"), plain()).as_deref(), Some("review"));
        assert_eq!(sure("a.txt", lines, plain()), None);
    }

    #[test]
    fn json_lines_have_the_keys_of_all_objects() {
        let shape =
            shape_of("a.jsonl", "{\"text\": \"one\"}\n{\"text\": \"two\", \"label\": null}\n");
        assert_eq!((shape.text, shape.label), (Some(0), Some(1)));
        assert_eq!((shape.columns[1].n_filled, shape.is_whole), (0, true));
    }
}

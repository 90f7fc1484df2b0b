//! The settings of a source in the `[data]` section of a pipeline.

use std::{
    borrow::Cow,
    fmt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{label_list::list_items, prompts::Prompts, record::WantedFields};
use crate::error::{Error, Result};

/// A data file and how to read it: a source table of the pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// The file or folder. A file whose name ends in `.gz` is decompressed on the fly.
    pub path: PathBuf,
    /// The format; determined by the file's extension if absent, see [`Source::resolve_format`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// The column of the text, `"text"` if absent: see [`Source::text_column`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<ColumnName>,
    /// The column of vectors that another model made, which are read in place of texts; see [`Source::has_vectors`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<ColumnName>,
    /// The column of the second text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text_pair: Option<ColumnName>,
    /// The column of the label, `"label"` if absent; for `lines`, the label of all lines. See [`Source::label_column`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<ColumnName>,
    /// The column of the records' ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<ColumnName>,
    /// Whether the first record of a csv or tsv file names the columns.
    #[serde(default = "yes")]
    pub header: bool,
    /// The delimiter between the fields of a csv or tsv file; a comma or a tab if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delimiter: Option<char>,
    /// Whether quotes in csv and tsv files enclose fields; if not, they are ordinary characters.
    #[serde(default = "yes")]
    pub quoting: bool,
    /// The encoding of a text file: any name of the WHATWG Encoding Standard, in which `latin1` means windows-1252.
    #[serde(default = "default_encoding")]
    pub encoding: String,
    /// For `lines`: a regular expression that must match every whole line, with a group `text` and optionally `label`,
    /// `text_pair` and `id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// The separator between the labels of a multi-label cell.
    #[serde(default = "default_label_separator")]
    pub label_separator: String,
    /// The column of the words, for conll and conllu; see [`Record::words`](super::Record::words).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<ColumnName>,
    /// The column of the words' tags, for conll and conllu; see [`Record::tags`](super::Record::tags).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<ColumnName>,
    /// For `lines` and `npy`: a file of labels, each on the same line as its text, or a table with a row for each vector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_path: Option<PathBuf>,
    /// For questions in a table: the column of the questions, `"question"` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<ColumnName>,
    /// The column of their contexts, `"context"` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<ColumnName>,
    /// The column of their answers, `"answer"` if absent; a cell is empty if the context has no answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<ColumnName>,
    /// The column of the number of characters before the answer in the context, `"answer_start"` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer_start: Option<ColumnName>,
    /// The column that assigns each row of train to a split; see [`Record::part`](super::Record::part).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split_column: Option<ColumnName>,
    /// What is put before its texts when they are encoded: a text, or the name of one of the model's prompts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// The same for its second texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pair_prompt: Option<String>,
    /// Columns of labels besides `label` that heads may learn from. This is not a key of a source, but set if such
    /// columns are requested: see [`LabelColumn`](super::LabelColumn).
    #[serde(skip)]
    pub label_columns: Vec<ColumnName>,
    /// Columns whose values are read unchanged, to be copied to an output. This too is not a key of a source.
    #[serde(skip)]
    pub kept_columns: Vec<ColumnName>,
    /// Whether records that cannot be read are left out and listed. As above, no file says this of a source:
    /// `data.clean.skip_bad` is of all of them. Where it is not there, errors do not name that key.
    #[serde(skip)]
    pub skip_bad: Option<bool>,
    /// Whether records without a label are left out, so that a JSON object may lack its key: `data.clean.drop_unlabelled`.
    #[serde(skip)]
    pub drops_unlabelled: bool,
    /// Whether a record may lack its id, or have one that is no name: `predict` copies ids that nobody asked for.
    #[serde(skip)]
    pub may_lack_id: bool,
    /// Whether its records are questions in a table: see [`Source::as_questions`].
    #[serde(skip)]
    pub holds_questions: bool,
    /// Whether misplaced answers are moved to where they occur: `data.misplaced`.
    #[serde(skip)]
    pub moves_answers: bool,
}

/// A column, given by its name or by its index.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a column's name, or its number from 0")]
pub enum ColumnName {
    /// Its name in the header, the JSON keys or the Parquet schema.
    Name(String),
    /// Its index, from 0.
    Number(usize),
}

/// The format of a data file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Comma-separated values, as described in RFC 4180.
    Csv,
    /// Like csv, with tabs.
    Tsv,
    /// One JSON object per line.
    Jsonl,
    /// One JSON array of objects.
    Json,
    /// Apache Parquet.
    Parquet,
    /// One text per line.
    Lines,
    /// One word per line with its tags, as in the CoNLL shared tasks.
    Conll,
    /// The CoNLL-U format of Universal Dependencies.
    Conllu,
    /// The JSON of the Stanford Question Answering Dataset.
    Squad,
    /// A folder of text files for each label.
    Folder,
    /// An array of vectors, as NumPy saves it.
    Npy,
}

impl std::str::FromStr for ColumnName {
    type Err = std::convert::Infallible;

    /// Parses a number as the column's index, and anything else as its name.
    fn from_str(column: &str) -> Result<ColumnName, Self::Err> {
        Ok(match column.parse() {
            Ok(number) => ColumnName::Number(number),
            Err(_) => ColumnName::Name(column.to_owned()),
        })
    }
}

impl Source {
    /// Creates the source of `path` with defaults for everything else.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Source {
            path: path.into(),
            format: None,
            text: None,
            state: None,
            text_pair: None,
            label: None,
            id: None,
            header: yes(),
            delimiter: None,
            quoting: yes(),
            encoding: default_encoding(),
            pattern: None,
            label_separator: default_label_separator(),
            words: None,
            tags: None,
            label_path: None,
            question: None,
            context: None,
            answer: None,
            answer_start: None,
            split_column: None,
            prompt: None,
            pair_prompt: None,
            label_columns: Vec::new(),
            kept_columns: Vec::new(),
            skip_bad: None,
            drops_unlabelled: false,
            may_lack_id: false,
            holds_questions: false,
            moves_answers: false,
        }
    }

    /// Returns the source as one of questions: in a table, question and context are read as the two texts, and the
    /// answer as the label. A source of another format is returned unchanged.
    pub fn as_questions(&self) -> Source {
        if !self.resolve_format().is_ok_and(Format::has_columns) {
            return self.clone();
        }
        let column = |own: &Option<ColumnName>, name: &str| {
            Some(own.clone().unwrap_or_else(|| ColumnName::from(name)))
        };
        Source {
            text: column(&self.question, "question"),
            text_pair: column(&self.context, "context"),
            label: column(&self.answer, "answer"),
            holds_questions: true,
            ..self.clone()
        }
    }

    /// Returns its prompts as records have them.
    pub fn prompts(&self) -> Prompts {
        Prompts::new(self.prompt.as_deref(), self.pair_prompt.as_deref())
    }

    /// Returns the column of the positions of answers: the one given, or `"answer_start"`.
    pub(super) fn answer_start_column(&self) -> ColumnName {
        self.answer_start.clone().unwrap_or_else(|| ColumnName::from("answer_start"))
    }

    /// Returns the key that names the column of a text, a second text or a label in a pipeline.
    pub(super) fn key(&self, role: &'static str) -> &'static str {
        match role {
            "text" if self.holds_questions => "question",
            "text_pair" if self.holds_questions => "context",
            "label" if self.holds_questions => "answer",
            role => role,
        }
    }

    /// Returns the column of the text: the one given, or `"text"`.
    pub fn text_column(&self) -> ColumnName {
        self.text.clone().unwrap_or_else(|| ColumnName::from("text"))
    }

    /// Returns the column of the label: the one given, or `"label"`.
    pub fn label_column(&self) -> ColumnName {
        self.label.clone().unwrap_or_else(|| ColumnName::Name("label".to_owned()))
    }

    /// Returns the format given, or the one that the extension (before `.gz`) stands for: `.csv`, `.tsv`, `.jsonl`,
    /// `.ndjson`, `.parquet`, `.txt`, `.lines`, `.conll`, `.conllu`, `.npy`, and `.json` for squad (which is read as json if
    /// the file turns out to hold records). A folder is a folder of text files.
    ///
    /// Fails for any other extension.
    pub fn resolve_format(&self) -> Result<Format> {
        if let Some(format) = self.format {
            return Ok(format);
        }
        match self.extension().as_deref() {
            Some("csv") => Ok(Format::Csv),
            Some("tsv") => Ok(Format::Tsv),
            Some("jsonl" | "ndjson") => Ok(Format::Jsonl),
            Some("parquet") => Ok(Format::Parquet),
            Some("txt" | "lines") => Ok(Format::Lines),
            Some("conll") => Ok(Format::Conll),
            Some("conllu") => Ok(Format::Conllu),
            Some("json") => Ok(Format::Squad),
            Some("npy") => Ok(Format::Npy),
            _ if self.path.is_dir() => Ok(Format::Folder),
            other => Err(self.malformed(
                None,
                "a name that ends in .csv, .tsv, .jsonl, .ndjson, .parquet, .txt, .lines, .conll, .conllu or .json",
                other.map_or_else(|| "no extension".to_owned(), |other| format!("`.{other}`")),
                "set `format` of this source to csv, tsv, jsonl, json, parquet, lines, conll, conllu, squad or folder",
            )),
        }
    }

    /// Returns the extension of the file's name, before `.gz`, in lower case.
    pub fn extension(&self) -> Option<String> {
        if self.is_gzip() {
            lower_extension(&self.path.with_extension(""))
        } else {
            lower_extension(&self.path)
        }
    }

    /// Splits a multi-label cell into its labels, in order, without surrounding white space and without empty labels.
    ///
    /// If the cell is a list as written by Python or JSON, the labels are its items; any other cell is split at
    /// `label_separator`. If `label_separator` is empty, the whole cell is one label.
    ///
    /// ```
    /// let source = frostbert::internals::data::Source::new("goemotions.tsv");
    /// assert_eq!(source.split_labels("3, 27"), ["3", "27"]);
    /// assert_eq!(source.split_labels("['joy, mostly', \"love\"]"), ["joy, mostly", "love"]);
    /// assert!(source.split_labels("").is_empty());
    /// ```
    pub fn split_labels<'a>(&self, cell: &'a str) -> Vec<Cow<'a, str>> {
        let labels: Vec<Cow<'a, str>> = match (list_items(cell), self.label_separator.as_str()) {
            (Some(items), _) => items.into_iter().map(Cow::Owned).collect(),
            (None, "") => vec![Cow::Borrowed(cell)],
            (None, separator) => cell.split(separator).map(Cow::Borrowed).collect(),
        };
        let trimmed = labels.into_iter().map(|label| match label {
            Cow::Borrowed(label) => Cow::Borrowed(label.trim()),
            Cow::Owned(label) => Cow::Owned(label.trim().to_owned()),
        });
        trimmed.filter(|label| !label.is_empty()).collect()
    }

    /// A label as it is read from its cell: without the white space around it. That of an answer stays, as its start may
    /// count it.
    pub(super) fn label_of(&self, cell: &str) -> String {
        if self.holds_questions { cell.to_owned() } else { cell.trim().to_owned() }
    }

    /// Whether the file's name says that it is compressed.
    pub(super) fn is_gzip(&self) -> bool {
        lower_extension(&self.path).as_deref() == Some("gz")
    }

    /// The byte between the fields of a csv or tsv file.
    pub(super) fn delimiter_byte(&self, format: Format) -> Result<u8> {
        let usual = if format == Format::Tsv { '\t' } else { ',' };
        let delimiter = self.delimiter.unwrap_or(usual);
        let byte = u8::try_from(delimiter).ok().filter(u8::is_ascii);
        let fits = byte.filter(|byte| !b"\"\r\n".contains(byte));
        fits.ok_or_else(|| {
            self.malformed(
                None,
                "a `delimiter` of one ASCII character that is neither a quote nor a line end",
                format!("`{}`", delimiter.escape_default()),
                "set `delimiter` of this source to what separates the fields, such as \";\" or \"\\t\"",
            )
        })
    }

    /// Returns an error if the source names a delimiter or a file of labels that its format cannot have.
    pub(super) fn check_delimiter(&self, format: Format) -> Result<()> {
        let has_lines = format == Format::Npy
            || format == Format::Lines && self.pattern.is_none() && self.label.is_none();
        if self.label_path.is_some() && !has_lines {
            return Err(self.malformed(
                None,
                "a file with one text per line for `label_path`, without `label` and `pattern`",
                format!("a {format} file, or one of these keys"),
                "leave `label_path` out of this source, or set `format = \"lines\"`",
            ));
        }
        match (self.delimiter, format) {
            (None, _) | (_, Format::Csv | Format::Tsv | Format::Npy) => Ok(()),
            (Some(_), format) => Err(self.malformed(
                None,
                "a format with a `delimiter`, csv or tsv",
                format.to_string(),
                "leave `delimiter` out of this source, or set `format = \"csv\"`",
            )),
        }
    }

    /// Returns the column of the second text if `want` asks for it; fails if the source does not name one.
    pub(super) fn wanted_pair(&self, want: WantedFields) -> Result<Option<&ColumnName>> {
        match (&self.text_pair, want.text_pair) {
            (_, false) => Ok(None),
            (Some(column), true) => Ok(Some(column)),
            (None, true) => Err(self.malformed(
                None,
                "a column for the second text",
                "none in the source",
                "set `text_pair` of this source to the name or number of that column",
            )),
        }
    }

    /// Finds each of the [`Source::label_columns`], with the function `find` of the format.
    pub(super) fn find_label_columns<T>(
        &self,
        find: impl Fn(&str, &ColumnName) -> Result<T>,
    ) -> Result<Vec<T>> {
        let columns = self.label_columns.iter();
        let found = columns.map(|column| {
            if self.split_column.as_ref() == Some(column) {
                return find("split_column", column);
            }
            if self.holds_questions && self.answer_start_column() == *column {
                return find("answer_start", column);
            }
            find("train.label", column).map_err(|mut error| {
                if let Error::Record { hint, .. } = &mut error {
                    *hint = "name columns in train.label and sweep.label that exist in every file that heads learn from"
                        .to_owned();
                }
                error
            })
        });
        found.collect()
    }

    /// Returns the error for a record, or a file of records, that does not fit this source.
    pub(super) fn malformed(
        &self,
        line: Option<u64>,
        expected: impl Into<String>,
        got: impl Into<String>,
        hint: impl Into<String>,
    ) -> Error {
        Error::Record {
            path: self.path.clone(),
            line,
            expected: expected.into(),
            got: got.into(),
            hint: hint.into(),
        }
    }
}

impl Format {
    /// All formats.
    pub const ALL: [Format; 11] = [
        Format::Csv,
        Format::Tsv,
        Format::Jsonl,
        Format::Json,
        Format::Parquet,
        Format::Lines,
        Format::Conll,
        Format::Conllu,
        Format::Squad,
        Format::Folder,
        Format::Npy,
    ];

    /// Whether its records have columns, or keys, that a source can name.
    pub(crate) fn has_columns(self) -> bool {
        matches!(self, Format::Csv | Format::Tsv | Format::Jsonl | Format::Json | Format::Parquet)
    }

    /// The format of this name.
    pub fn named(name: &str) -> Option<Format> {
        Format::ALL.into_iter().find(|format| format.to_string() == name)
    }
}

impl From<&str> for ColumnName {
    fn from(name: &str) -> Self {
        ColumnName::Name(name.to_owned())
    }
}

impl From<usize> for ColumnName {
    fn from(number: usize) -> Self {
        ColumnName::Number(number)
    }
}

impl fmt::Display for ColumnName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ColumnName::Name(name) => write!(formatter, "`{name}`"),
            ColumnName::Number(number) => write!(formatter, "number {number}"),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Format::Csv => "csv",
            Format::Tsv => "tsv",
            Format::Jsonl => "jsonl",
            Format::Json => "json",
            Format::Parquet => "parquet",
            Format::Lines => "lines",
            Format::Conll => "conll",
            Format::Conllu => "conllu",
            Format::Squad => "squad",
            Format::Folder => "folder",
            Format::Npy => "npy",
        })
    }
}

fn lower_extension(path: &Path) -> Option<String> {
    path.extension().map(|extension| extension.to_string_lossy().to_ascii_lowercase())
}

fn default_encoding() -> String {
    "utf-8".to_owned()
}

fn default_label_separator() -> String {
    ",".to_owned()
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests;

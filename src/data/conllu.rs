//! conllu: the treebanks of Universal Dependencies, as defined at <https://universaldependencies.org/format.html>.

use frostbert_cache::wording::{name_list, shorten};

use super::{
    bad_rows::FailedRows,
    conll::{LinesOfSentence, kept_sentences, refuse_columns_of_texts, too_long_sentence},
    read::{Text, next_line},
    record::{Record, WantedFields},
    record_limit::{MAX_RECORD_BYTES, PART_BYTES},
    source::{ColumnName, Format, Source},
};
use crate::error::{Error, Result};

/// The names of the columns, in order.
const COLUMNS: [&str; 10] =
    ["ID", "FORM", "LEMMA", "UPOS", "XPOS", "FEATS", "HEAD", "DEPREL", "DEPS", "MISC"];
const ID: usize = 0;
const FORM: usize = 1;
const UPOS: usize = 3;

/// Streams the sentences of a file.
///
/// The words are the syntactic ones: multi-word tokens (`3-4`) and empty nodes (`5.1`) are skipped, so that words and
/// tags correspond. Of the comments, `sent_id` is the record's id and `newdoc` its group; `text` is not used, because
/// the record's text is the words joined by single spaces. A record's line is that of the sentence's first comment or
/// word.
pub(super) fn read(
    input: Text,
    source: &Source,
    want: WantedFields,
    failed: FailedRows,
) -> Result<impl Iterator<Item = Result<Record>> + Send + use<>> {
    refuse_columns_of_texts(source, want, Format::Conllu)?;
    let tag = number("tags", &source.tags, UPOS, source)?;
    let mut sentences = ConlluSentences {
        input,
        line: 0,
        word: number("words", &source.words, FORM, source)?,
        tag: want.label.then_some(tag),
        document: None,
        n_documents: 0,
        source: source.clone(),
    };
    let next = move || sentences.next_example();
    Ok(kept_sentences(next, failed))
}

/// Returns the number of a column that is given by name or by number.
fn number(
    key: &str,
    column: &Option<ColumnName>,
    default: usize,
    source: &Source,
) -> Result<usize> {
    let found = match column {
        None => Some(default),
        Some(ColumnName::Number(number)) => Some(*number).filter(|number| *number < COLUMNS.len()),
        Some(ColumnName::Name(name)) => {
            COLUMNS.iter().position(|known| known.eq_ignore_ascii_case(name))
        }
    };
    found.ok_or_else(|| {
        source.malformed(
            None,
            format!(
                "a column of conllu for `{key}`, {} (or their numbers, from 0)",
                name_list(COLUMNS.into_iter())
            ),
            column.iter().map(ColumnName::to_string).collect::<String>(),
            format!("set `{key}` of this source to one of these, or leave it out"),
        )
    })
}

/// Reads lines and groups them into sentences.
struct ConlluSentences {
    input: Text,
    /// The number of the last line read, from 1.
    line: u64,
    word: usize,
    tag: Option<usize>,
    /// The document that the next sentence belongs to.
    document: Option<String>,
    n_documents: usize,
    source: Source,
}

/// The part of a sentence that has been read.
#[derive(Default)]
struct ConlluSentence {
    id: Option<String>,
    words: Vec<String>,
    tags: Vec<String>,
    /// The line of its first comment or word.
    line: Option<u64>,
    /// Whether it has lines of words, even if all of them are skipped.
    has_word_lines: bool,
    /// What is wrong with one of its lines.
    failure: Option<Error>,
}

impl ConlluSentences {
    fn next_example(&mut self) -> Result<Option<LinesOfSentence>> {
        loop {
            let sentence = self.next_sentence()?;
            let Some(line) = sentence.line else { return Ok(None) };
            let record = match sentence.failure {
                Some(error) => Err(error),
                None if !sentence.words.is_empty() => Ok(Record {
                    id: sentence.id,
                    group: self.document.clone(),
                    line: Some(line),
                    ..Record::of_words(sentence.words, self.tag.map(|_| sentence.tags))
                }),
                None if sentence.has_word_lines || sentence.id.is_some() => {
                    Err(self.source.malformed(
                        Some(line),
                        "at least one word in the sentence",
                        "none",
                        "add the words of the sentence, or remove it",
                    ))
                }
                // Comments alone may speak of the file.
                None => continue,
            };
            return Ok(Some((line..=self.line, record)));
        }
    }

    /// Reads to the blank line after the next comment or word. A sentence without a line is the end of the file. Of one that
    /// will be left out no more words are kept.
    fn next_sentence(&mut self) -> Result<ConlluSentence> {
        let mut sentence = ConlluSentence::default();
        let mut n_bytes = 0;
        while let Some(content) = next_line(&mut self.input, &self.source, self.line + 1)? {
            self.line += 1;
            if content.trim().is_empty() {
                match sentence.line {
                    Some(_) => break,
                    None => continue,
                }
            }
            sentence.line.get_or_insert(self.line);
            match content.strip_prefix('#') {
                Some(comment) => self.add_comment(comment, &mut sentence),
                None if sentence.failure.is_some() => continue,
                None => sentence.failure = self.add_word(&content, &mut sentence).err(),
            }
            if sentence.failure.is_some() && !self.source.skips_bad() {
                break;
            }
            n_bytes += content.len() + PART_BYTES;
            if n_bytes > MAX_RECORD_BYTES {
                return Err(too_long_sentence(&self.source, sentence.line));
            }
        }
        Ok(sentence)
    }

    fn add_comment(&mut self, comment: &str, sentence: &mut ConlluSentence) {
        let (key, value) = match comment.split_once('=') {
            Some((key, value)) => (key.trim(), value.trim()),
            None => (comment.trim(), ""),
        };
        match (key, value) {
            ("sent_id", id) if !id.is_empty() => sentence.id = Some(id.to_owned()),
            ("newdoc" | "newdoc id", id) => {
                self.n_documents += 1;
                self.document = Some(match id {
                    "" => self.n_documents.to_string(),
                    id => id.to_owned(),
                });
            }
            _ => {}
        }
    }

    fn add_word(&self, content: &str, sentence: &mut ConlluSentence) -> Result<()> {
        sentence.has_word_lines = true;
        let cells: Vec<&str> = content.split('\t').collect();
        if cells.len() != COLUMNS.len() {
            return Err(self.error(
                "10 columns separated by tabs",
                cells.len().to_string(),
                "correct the line; or set `format` of this source to conll, if the file is of another kind",
            ));
        }
        if is_no_word(cells[ID]) {
            return Ok(());
        }
        let n_words = sentence.words.len();
        if cells[ID].parse() != Ok(n_words + 1) {
            return Err(self.error(
                format!("the sentence's word number {}", n_words + 1),
                format!("the ID `{}`", shorten(cells[ID], 40)),
                "number the words of a sentence from 1, and leave a blank line after it",
            ));
        }
        let column = |column: usize| format!("column {} (number {column})", COLUMNS[column]);
        if cells[self.word].is_empty() {
            return Err(self.error(
                format!("a word in {}", column(self.word)),
                "an empty cell",
                "give every word its form, or `_` if it is not known",
            ));
        }
        if let Some(tag) = self.tag {
            // Every treebank has parts of speech, except for test sets whose answers are withheld; in other columns `_`
            // is a value, as in FEATS for a word without features.
            if cells[tag].is_empty() || (tag == UPOS && cells[tag] == "_") {
                return Err(self.error(
                    format!("a tag in {}", column(tag)),
                    format!("`{}`", cells[tag]),
                    "give every word a tag; or set `tags` of this source to another column",
                ));
            }
            sentence.tags.push(cells[tag].to_owned());
        }
        sentence.words.push(cells[self.word].to_owned());
        Ok(())
    }

    fn error(
        &self,
        expected: impl Into<String>,
        got: impl Into<String>,
        hint: impl Into<String>,
    ) -> Error {
        self.source.malformed(Some(self.line), expected, got, hint)
    }
}

/// Whether an ID belongs to a multi-word token (`3-4`) or an empty node (`5.1`).
fn is_no_word(id: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    id.split_once(['-', '.']).is_some_and(|(first, last)| is_number(first) && is_number(last))
}

#[cfg(test)]
mod tests;

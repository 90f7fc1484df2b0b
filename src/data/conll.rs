//! conll: one word per line, with columns separated by tabs or spaces, and a blank line after each sentence.

use std::{iter, ops::RangeInclusive};

use frostbert_cache::wording::shorten;

use super::{
    bad_rows::FailedRows,
    read::{Text, next_line},
    record::{Record, WantedFields},
    record_limit::{MAX_RECORD_BYTES, PART_BYTES, too_long},
    source::{ColumnName, Format, Source},
};
use crate::error::{Error, Result};

/// Streams the sentences of a file.
///
/// The columns of a line are separated by single tabs if it has any, otherwise by runs of spaces. All lines of a
/// sentence have the same number of columns, so that a word with a space in it is not mistaken for two columns;
/// sentences may differ, as in CoNLL-2012. A line of white space (in WNUT17 often a single tab) ends a sentence, and
/// several in a row count as one. `-DOCSTART-` lines are not words: they number the documents, which are the groups of
/// the records.
///
/// Tags in IOB1 are converted to IOB2, sentence by sentence: see [`to_iob2`].
pub(super) fn read(
    input: Text,
    source: &Source,
    want: WantedFields,
    failed: FailedRows,
) -> Result<impl Iterator<Item = Result<Record>> + Send + use<>> {
    refuse_columns_of_texts(source, want, Format::Conll)?;
    if source.id.is_some() {
        return Err(source.malformed(
            None,
            "no `id`, as the sentences of a conll file have no names",
            "an `id`",
            "leave `id` of this source out",
        ));
    }
    let mut sentences = ConllSentences {
        input,
        line: 0,
        n_documents: 0,
        columns: ColumnPlaces::of(source, want)?,
        source: source.clone(),
    };
    let next = move || sentences.next_example();
    Ok(kept_sentences(next, failed))
}

/// A sentence, or what is wrong with it, and its lines.
pub(super) type LinesOfSentence = (RangeInclusive<u64>, Result<Record>);

/// Sentences until an error that is of none of them, without those that are left out.
pub(super) fn kept_sentences(
    mut next: impl FnMut() -> Result<Option<LinesOfSentence>> + Send,
    failed: FailedRows,
) -> impl Iterator<Item = Result<Record>> + Send {
    iter::from_fn(move || {
        loop {
            match next().transpose()? {
                Ok((lines, sentence)) => {
                    if let Some(sentence) = failed.keep(lines, sentence) {
                        return Some(sentence);
                    }
                }
                Err(error) => return Some(Err(error)),
            }
        }
    })
}

/// Returns an error if `source` or `want` names columns that formats of words do not have.
pub(super) fn refuse_columns_of_texts(
    source: &Source,
    want: WantedFields,
    format: Format,
) -> Result<()> {
    if want.text_pair {
        return Err(source.malformed(
            None,
            format!("one text, as a sentence of a {format} file has no second one"),
            "a `text_pair`",
            "leave `text_pair` of this source out, or use another format",
        ));
    }
    if want.label && source.label.is_some() {
        return Err(source.malformed(
            None,
            format!("`tags`, as a sentence of a {format} file has a tag for each word"),
            "a `label`",
            "set `tags` of this source to the column of the tags, instead of `label`",
        ));
    }
    Ok(())
}

/// The error for a sentence that exceeds the size limit of a record.
pub(super) fn too_long_sentence(source: &Source, line: Option<u64>) -> Error {
    too_long(
        source,
        line,
        "a sentence",
        "leave a blank line after each sentence; every word counts 64 bytes in addition to its line",
    )
}

/// The columns of the words and, if requested, of their tags.
struct ColumnPlaces {
    word: usize,
    tag: Option<TagColumn>,
}

#[derive(Clone, Copy)]
enum TagColumn {
    /// The last column, which must come after that of the word.
    Last,
    Number(usize),
}

impl ColumnPlaces {
    fn of(source: &Source, want: WantedFields) -> Result<Self> {
        let number = |key: &str, column: &Option<ColumnName>| match column {
            None => Ok(None),
            Some(ColumnName::Number(number)) => Ok(Some(*number)),
            Some(ColumnName::Name(name)) => Err(source.malformed(
                None,
                format!("a column number for `{key}`, as a conll file does not name its columns"),
                format!("the name `{name}`"),
                format!("set `{key}` of this source to the column's number, counted from 0"),
            )),
        };
        let tag = number("tags", &source.tags)?.map_or(TagColumn::Last, TagColumn::Number);
        Ok(ColumnPlaces {
            word: number("words", &source.words)?.unwrap_or(0),
            tag: want.label.then_some(tag),
        })
    }

    /// Returns the minimum number of columns of a line, and a description of it with the reason.
    fn needed(&self) -> (usize, String) {
        let (n, what) = match self.tag {
            Some(TagColumn::Last) => (self.word + 2, "the last of them the word's tag".to_owned()),
            Some(TagColumn::Number(number)) => {
                let last = number.max(self.word);
                (last + 1, format!("to reach column number {last}"))
            }
            None => (self.word + 1, format!("to reach column number {}", self.word)),
        };
        (n, format!("at least {}, {what}", columns(n)))
    }
}

/// Reads lines and groups them into sentences.
struct ConllSentences {
    input: Text,
    /// The number of the last line read, from 1.
    line: u64,
    n_documents: usize,
    columns: ColumnPlaces,
    source: Source,
}

/// The part of a sentence that has been read.
#[derive(Default)]
struct ConllSentence {
    words: Vec<String>,
    tags: Vec<String>,
    /// Its lines, once it has one.
    lines: Option<(u64, u64)>,
    n_columns: usize,
    group: Option<String>,
    /// What is wrong with one of its lines.
    failure: Option<Error>,
}

impl ConllSentences {
    /// The next sentence. Of one that will be left out the rest is read and not kept.
    fn next_example(&mut self) -> Result<Option<LinesOfSentence>> {
        let mut sentence = ConllSentence::default();
        let mut n_bytes = 0;
        while let Some(content) = next_line(&mut self.input, &self.source, self.line + 1)? {
            self.line += 1;
            let cells = cells(&content);
            let is_document = cells.first().is_some_and(|cell| cell.starts_with("-DOCSTART-"));
            if !cells.is_empty() && !is_document {
                let (first, _) = sentence.lines.unwrap_or((self.line, self.line));
                sentence.lines = Some((first, self.line));
                if sentence.failure.is_some() {
                    continue;
                }
                sentence.failure = self.add_word(&cells, first, &mut sentence).err();
                if sentence.failure.is_some() && !self.source.skips_bad() {
                    break;
                }
                n_bytes += content.len() + PART_BYTES;
                if n_bytes > MAX_RECORD_BYTES {
                    return Err(too_long_sentence(&self.source, Some(first)));
                }
                continue;
            }
            self.n_documents += usize::from(is_document);
            if sentence.lines.is_some() {
                break;
            }
        }
        let Some((first, last)) = sentence.lines else { return Ok(None) };
        let tags = self.columns.tag.map(|_| {
            let mut tags = sentence.tags;
            to_iob2(&mut tags);
            tags
        });
        let record = match sentence.failure {
            Some(error) => Err(error),
            None => Ok(Record {
                group: sentence.group,
                line: Some(first),
                ..Record::of_words(sentence.words, tags)
            }),
        };
        Ok(Some((first..=last, record)))
    }

    /// Adds the word of a line to its sentence, which starts on line `first`.
    fn add_word(&self, cells: &[&str], first: u64, sentence: &mut ConllSentence) -> Result<()> {
        let (n_needed, needed) = self.columns.needed();
        if cells.len() < n_needed {
            return Err(self.misshapen(needed, cells.len()));
        }
        if sentence.words.is_empty() {
            sentence.n_columns = cells.len();
            sentence.group = (self.n_documents > 0).then(|| self.n_documents.to_string());
        } else if cells.len() != sentence.n_columns {
            let expected = format!(
                "{}, as in line {first}, where the sentence starts",
                columns(sentence.n_columns),
            );
            return Err(self.misshapen(expected, cells.len()));
        }
        let tag = match self.columns.tag {
            None => None,
            Some(TagColumn::Last) => Some(cells.len() - 1),
            Some(TagColumn::Number(number)) => Some(number),
        };
        for (what, column) in [("word", Some(self.columns.word)), ("tag", tag)] {
            if let Some(column) = column.filter(|column| cells[*column].is_empty()) {
                return Err(self.source.malformed(
                    Some(self.line),
                    format!("a {what} in column number {column}"),
                    format!("none in `{}`", shorten(&cells.join("\t"), 80)),
                    "give every word a tag and every tag a word, or remove the line; or set `words` and `tags` of \
                     this source to the right columns, counted from 0",
                ));
            }
        }
        sentence.words.push(cells[self.columns.word].to_owned());
        sentence.tags.extend(tag.map(|tag| cells[tag].to_owned()));
        Ok(())
    }

    fn misshapen(&self, expected: String, n_columns: usize) -> Error {
        self.source.malformed(
            Some(self.line),
            expected,
            columns(n_columns),
            "correct the line: columns are separated by tabs or, in a line without tabs, by spaces, and a blank line \
             ends a sentence; or set `words` and `tags` of this source to the right columns, counted from 0",
        )
    }
}

/// Splits a line into its columns; a blank line has none.
fn cells(line: &str) -> Vec<&str> {
    // Words may contain other kinds of white space, such as no-break spaces.
    if line.trim().is_empty() {
        Vec::new()
    } else if line.contains('\t') {
        line.split('\t').map(|cell| cell.trim_matches(' ')).collect()
    } else {
        line.split(' ').filter(|cell| !cell.is_empty()).collect()
    }
}

/// Converts the tags of a sentence to IOB2, in which every entity starts with `B-`.
///
/// In IOB1 an entity starts with `I-`, and with `B-` only if it directly follows an entity of the same type. So an
/// `I-X` that follows neither `B-X` nor `I-X` starts an entity, and becomes `B-X`. IOB2 has no such tag, so tags that
/// are already IOB2 stay unchanged, and neither the scheme nor the other sentences have to be known. (An `I-X` that
/// starts an entity in a file meant as IOB2 is an error of the annotator, and is read in the same way as by conlleval.)
///
/// A sentence with any tag other than `O`, `B-X` and `I-X` stays unchanged: parts of speech, IOBES, or several tags in
/// one cell.
fn to_iob2(tags: &mut [String]) {
    let is_iob = |tag: &String| tag == "O" || entity_type(tag).is_some();
    if !tags.iter().all(is_iob) {
        return;
    }
    for place in 0..tags.len() {
        let before = place.checked_sub(1).and_then(|before| tags.get(before));
        let goes_on = before.and_then(|tag| entity_type(tag)) == entity_type(&tags[place]);
        if tags[place].starts_with("I-") && !goes_on {
            tags[place].replace_range(..1, "B");
        }
    }
}

fn entity_type(tag: &str) -> Option<&str> {
    tag.strip_prefix("B-")
        .or_else(|| tag.strip_prefix("I-"))
        .filter(|name| !name.is_empty() && !name.contains(','))
}

fn columns(n: usize) -> String {
    if n == 1 { "1 column".to_owned() } else { format!("{n} columns") }
}

#[cfg(test)]
mod tests;

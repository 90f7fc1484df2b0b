//! json: a file that holds one array of records, or an object with one such array for each split. The items are
//! extracted one by one, so that the file is never held in memory as a whole.

use std::io::{BufRead, Read};

use frostbert_cache::wording::shorten;

use super::{
    parts,
    read::{self, Text, count_line_feeds},
    record_limit::{MAX_RECORD_BYTES, too_long},
    source::Source,
    split::Part,
};
use crate::error::{Error, Result};

/// Whether the first character other than white space starts an array. Nothing is consumed.
pub(super) fn begins_array(input: &mut Text, source: &Source) -> Result<bool> {
    let buffer = input.fill_buf().map_err(|error| read::failure(source, error))?;
    let first = buffer.iter().find(|byte| !byte.is_ascii_whitespace());
    Ok(first == Some(&b'['))
}

/// Whether the input starts with an array, or with an object of arrays for the splits. Nothing is consumed.
pub(super) fn begins_records(input: &mut Text, source: &Source) -> Result<bool> {
    Ok(begins_array(input, source)? || begins_parts(input, source)?)
}

/// Whether the input starts with an object whose first key names a split and holds an array. Nothing is consumed.
fn begins_parts(input: &mut Text, source: &Source) -> Result<bool> {
    let buffer = input.fill_buf().map_err(|error| read::failure(source, error))?;
    let text = String::from_utf8_lossy(buffer);
    let key_of = || {
        let (key, rest) =
            text.trim_start().strip_prefix('{')?.trim_start().strip_prefix('"')?.split_once('"')?;
        rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('[')?;
        parts::part_of_key(key)
    };
    Ok(key_of().is_some())
}

/// Splits an array, or the arrays of an object, into the texts of their items, each with the line on which it starts.
pub(super) struct Items {
    input: Text,
    source: Source,
    state: ArrayPosition,
    /// The split that the array belongs to; `None` if the file is one array.
    part: Option<Part>,
    /// The current line, from 1.
    line: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ArrayPosition {
    BeforeArray,
    /// Before the first item, where the array may also end.
    First,
    /// After an item.
    After,
    /// After a comma, where an item must follow.
    Next,
    /// Before a key of an object of arrays.
    Key,
    /// Before the array of a key.
    List,
    /// After the array of a key.
    AfterList,
    Done,
}

impl Items {
    pub(super) fn new(input: Text, source: Source) -> Items {
        Items { input, source, state: ArrayPosition::BeforeArray, part: None, line: 1 }
    }

    /// Returns the split that the last item belongs to, if the file says so.
    pub(super) fn part(&self) -> Option<Part> {
        self.part
    }

    /// Returns the current line, from 1.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// Returns the next item and its line; `None` after the last one.
    pub(super) fn next_item(&mut self) -> Result<Option<(u64, String)>> {
        loop {
            let first = self.first_character()?;
            self.state = match (self.state, first) {
                (ArrayPosition::Done, None) => return Ok(None),
                (ArrayPosition::Done, Some(byte)) => {
                    return Err(self.unexpected("the end of the file", Some(byte)));
                }
                (ArrayPosition::BeforeArray, Some(b'[')) => ArrayPosition::First,
                (ArrayPosition::BeforeArray, Some(b'{')) => ArrayPosition::Key,
                (ArrayPosition::BeforeArray, other) => {
                    return Err(self.unexpected("`[`, or `{` and a list for each part", other));
                }
                (ArrayPosition::Key, Some(b'"')) => {
                    self.part = Some(self.key()?);
                    self.state = ArrayPosition::List;
                    continue;
                }
                (ArrayPosition::Key, other) => return Err(self.unexpected("a key", other)),
                (ArrayPosition::List, Some(b'[')) => ArrayPosition::First,
                (ArrayPosition::List, other) => return Err(self.unexpected("`[`", other)),
                (ArrayPosition::First | ArrayPosition::After, Some(b']')) => match self.part {
                    Some(_) => ArrayPosition::AfterList,
                    None => ArrayPosition::Done,
                },
                (ArrayPosition::AfterList, Some(b'}')) => ArrayPosition::Done,
                (ArrayPosition::AfterList, Some(b',')) => ArrayPosition::Key,
                (ArrayPosition::AfterList, other) => {
                    return Err(self.unexpected("`,` or `}`", other));
                }
                (ArrayPosition::After, Some(b',')) => ArrayPosition::Next,
                (ArrayPosition::After, other) => return Err(self.unexpected("`,` or `]`", other)),
                (ArrayPosition::First | ArrayPosition::Next, Some(byte))
                    if !b"],".contains(&byte) =>
                {
                    self.state = ArrayPosition::After;
                    return self.item().map(Some);
                }
                (ArrayPosition::First | ArrayPosition::Next, other) => {
                    return Err(self.unexpected("an item of the array", other));
                }
            };
            self.input.skip(1);
        }
    }

    /// Skips white space and returns the next character without consuming it; `None` at the end.
    fn first_character(&mut self) -> Result<Option<u8>> {
        loop {
            let failed = |error| read::failure(&self.source, error);
            let buffer = self.input.fill_buf().map_err(failed)?;
            let blanks = buffer.iter().take_while(|byte| byte.is_ascii_whitespace());
            let n_blank = blanks.count();
            let (first, is_end) = (buffer.get(n_blank).copied(), buffer.is_empty());
            self.line += count_line_feeds(&buffer[..n_blank]);
            self.input.skip(n_blank);
            if first.is_some() || is_end {
                return Ok(first);
            }
        }
    }

    /// Reads the key that starts here, and the colon after it. Returns the split that the key stands for.
    fn key(&mut self) -> Result<Part> {
        self.input.skip(1);
        let mut key = Vec::new();
        let failed = |error| read::failure(&self.source, error);
        (&mut self.input)
            .take(MAX_RECORD_BYTES as u64)
            .read_until(b'"', &mut key)
            .map_err(failed)?;
        key.pop();
        match self.first_character()? {
            Some(b':') => self.input.skip(1),
            other => return Err(self.unexpected("`:` after a key", other)),
        }
        let key = String::from_utf8_lossy(&key);
        parts::part_of_key(&key).ok_or_else(|| {
            self.source.malformed(
                Some(self.line),
                "a list of records for train, validation (or valid, val, dev) and test",
                format!("the key `{}`", shorten(&key, 40)),
                "remove that list, or name it after its part; or set `format` of this source to what it is",
            )
        })
    }

    /// Reads the text of the item that starts here: a nested value up to its closing bracket, anything else up to the
    /// comma or bracket after it.
    fn item(&mut self) -> Result<(u64, String)> {
        let line = self.line;
        let mut item = Vec::new();
        let mut scan = Scan::default();
        loop {
            let buffer =
                self.input.fill_buf().map_err(|error| read::failure(&self.source, error))?;
            if buffer.is_empty() {
                return Err(self.unexpected("the end of an item that begins here", None));
            }
            let end = buffer.iter().position(|byte| scan.ends_before(*byte));
            let n = end.unwrap_or(buffer.len());
            if item.len() + n > MAX_RECORD_BYTES {
                return Err(too_long(
                    &self.source,
                    Some(line),
                    "an item of the array",
                    "correct the file: every item of its array is one record; or set `format` of this source to what \
                     it is",
                ));
            }
            item.extend_from_slice(&buffer[..n]);
            self.line += count_line_feeds(&buffer[..n]);
            self.input.skip(n);
            if end.is_some() {
                break;
            }
        }
        // Cannot fail: the text was cut at ASCII characters.
        let item = String::from_utf8(item).expect("a part of a text between two ASCII characters");
        Ok((line, item))
    }

    fn unexpected(&self, expected: &str, got: Option<u8>) -> Error {
        self.source.malformed(
            Some(self.line),
            format!("a JSON array of records, here {expected}"),
            match got {
                Some(byte) if byte.is_ascii_graphic() => format!("`{}`", char::from(byte)),
                Some(_) => "another character".to_owned(),
                None => "the end of the file".to_owned(),
            },
            "correct the file; or set `format` of this source to jsonl, if each of its lines is an object",
        )
    }
}

/// The state of reading an item.
#[derive(Default)]
struct Scan {
    depth: usize,
    in_string: bool,
    escaped: bool,
    /// Whether the bracket that it started with is closed.
    is_closed: bool,
}

impl Scan {
    /// Processes a byte, and returns whether the item ended before it.
    fn ends_before(&mut self, byte: u8) -> bool {
        if self.is_closed {
            return true;
        }
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.in_string => self.escaped = true,
            b'"' => self.in_string = !self.in_string,
            _ if self.in_string => {}
            b'{' | b'[' => self.depth += 1,
            b',' | b'}' | b']' if self.depth == 0 => return true,
            b'}' | b']' => {
                self.depth -= 1;
                self.is_closed = self.depth == 0;
            }
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use crate::data::{Format, Record, Source, WantedFields, read};

    fn read_str(
        name: &str,
        format: Option<Format>,
        content: &str,
    ) -> crate::error::Result<Vec<Record>> {
        let folder = tempfile::tempdir().unwrap();
        let source = Source { format, ..Source::new(folder.path().join(name)) };
        std::fs::write(&source.path, content).unwrap();
        let want = WantedFields { label: true, text_pair: false };
        read(&source, want)?.collect()
    }

    fn message(content: &str) -> String {
        let error = read_str("a.json", Some(Format::Json), content).unwrap_err();
        error.to_string().split_once("a.json").unwrap().1.to_owned()
    }

    #[test]
    fn an_array_of_objects_is_read_whatever_its_lines_and_its_name() {
        let content = " [\n {\"text\": \"a ] , } \\\" [\", \"label\": 1},\n\n {\"text\": \"b\u{e9}\",\n \"more\": [{}, \"]\"], \
                       \"label\": \"x\"}]\n";
        for (name, format) in [
            ("a.json", None),
            ("a.jsonl", None),
            ("a.txt", Some(Format::Json)),
            ("a.txt", Some(Format::Jsonl)),
        ] {
            let examples = read_str(name, format, content).unwrap();
            let rows: Vec<_> = examples
                .iter()
                .map(|e| (e.line.unwrap(), e.text.as_str(), e.label.as_deref().unwrap()))
                .collect();
            assert_eq!(rows, [(2, "a ] , } \" [", "1"), (4, "b\u{e9}", "x")], "{name}");
        }
        assert!(read_str("a.json", None, "[]").unwrap().is_empty());
        let long = "x".repeat(100_000);
        let many =
            format!("[{}]", vec![format!("{{\"text\": \"{long}\", \"label\": 0}}"); 3].join(","));
        let examples = read_str("a.json", None, &many).unwrap();
        assert!(examples.len() == 3 && examples.iter().all(|example| example.text == long));
    }

    #[test]
    fn what_is_no_array_of_objects_is_an_error_with_its_line() {
        for (content, expected) in [
            (
                "[{\"text\": \"a\", \"label\": 1}\n{}]",
                ":2: expected a JSON array of records, here `,` or `]`, got `{`",
            ),
            (
                "[{\"text\": \"a\", \"label\": 1},\n]",
                ":2: expected a JSON array of records, here an item of the array, got `]`",
            ),
            (
                "[{\"text\": \"a\", \"label\": 1}]\n1",
                ":2: expected a JSON array of records, here the end of the file, got `1`",
            ),
            (
                "[\n{\"text\": \"a",
                ":2: expected a JSON array of records, here the end of an item that begins here, got the end of the file",
            ),
            (
                "[\n {\n  \"text\": NaN\n }]",
                ":3: expected one JSON object, got NaN (column 11), which is not JSON",
            ),
            ("{}", ":1: expected a JSON array of records, here a key, got `}`"),
            (
                "1",
                ":1: expected a JSON array of records, here `[`, or `{` and a list for each part, got `1`",
            ),
            ("[\n1]", ":2: expected one JSON object, got a number"),
        ] {
            assert_eq!(message(content), expected, "{content}");
        }
    }
}

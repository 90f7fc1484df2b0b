use std::io::{self, Read};

use super::*;
use crate::data::{Format, Record, WantedFields, read_from};

/// Returns `start`, `unit` repeated `times` times, and `end`.
fn text(start: &str, unit: &'static str, times: usize, end: &'static str) -> impl Read + Send {
    let units = Repeated { unit: unit.as_bytes(), left: unit.len() * times };
    io::Cursor::new(start.to_owned()).chain(units).chain(end.as_bytes())
}

struct Repeated {
    unit: &'static [u8],
    left: usize,
}

impl Read for Repeated {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = buffer.len().min(self.left);
        let offset = self.unit.len() - self.left % self.unit.len();
        for (place, byte) in buffer[..n].iter_mut().enumerate() {
            *byte = self.unit[(offset + place) % self.unit.len()];
        }
        self.left -= n;
        Ok(n)
    }
}

fn examples(
    format: Format,
    input: impl Read + Send + 'static,
) -> crate::error::Result<Vec<Record>> {
    let source = Source { format: Some(format), ..Source::new("a") };
    let want =
        WantedFields { label: matches!(format, Format::Conll | Format::Conllu), text_pair: false };
    read_from(input, &source, want)?.collect()
}

#[test]
fn a_record_has_64_mib_and_not_more() {
    let most = MAX_RECORD_BYTES;
    for (format, start, end, allowed, line, unit) in [
        (Format::Lines, "a\n", "\r\na\n", most, 2, "a line"),
        (Format::Jsonl, "{\"text\": \"", "\"}\n", most - 12, 1, "a line"),
        (Format::Json, "[\n{\"text\": \"", "\"}]", most - 12, 2, "an item of the array"),
        (Format::Csv, "text\nb\n\"", "\"\nc\n", most - 100_000, 3, "a record"),
        (Format::Tsv, "text\nb\n", "\nc\n", most - 100_000, 3, "a record"),
        (
            Format::Squad,
            "{\"data\": [{\"paragraphs\": [\n{\"qas\": [{\"question\": \"q\"}],\n\"context\": \"",
            "\"}]}]}",
            most - 1_000,
            3,
            "a paragraph (with what separates it from the next)",
        ),
    ] {
        let read = |n| examples(format, text(start, "x", n, end));
        let longest = read(allowed).unwrap();
        let lengths = longest.iter().flat_map(|example| {
            [Some(&example.text), example.text_pair.as_ref()].into_iter().flatten().map(String::len)
        });
        assert_eq!(lengths.max(), Some(allowed), "{format}");
        // Readers read some kilobytes ahead.
        let error = read(most + 100_000).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("a:{line}: expected {unit} of at most 64 MiB, got a longer one"),
            "{format}"
        );
        assert!(error.hint().is_some());
    }
}

#[test]
fn small_parts_of_a_record_count_for_the_memory_that_they_take() {
    let n_words = MAX_RECORD_BYTES / (PART_BYTES + 3);
    let sentence = |times| examples(Format::Conll, text("b O\n\n", "a O\n", times, "\nb O\n"));
    assert_eq!(sentence(n_words).unwrap().len(), 3);
    let error = sentence(n_words + 1).unwrap_err().to_string();
    assert_eq!(error, "a:3: expected a sentence of at most 64 MiB, got a longer one");
    let fields = |times| examples(Format::Csv, text("text,", "a,", times, "a\n"));
    assert!(fields(MAX_RECORD_BYTES / 100).is_ok());
    let error = fields(MAX_RECORD_BYTES / PART_BYTES).unwrap_err().to_string();
    assert_eq!(error, "a:1: expected a record of at most 64 MiB, got a longer one");
}

#[test]
fn a_squad_file_of_any_size_is_read_paragraph_by_paragraph() {
    const PARAGRAPH: &str =
        "{\"context\": \"c\", \"more\": [1, 2], \"qas\": [{\"question\": \"q\"}]},";
    let times = MAX_RECORD_BYTES / PARAGRAPH.len() / 2;
    let end = "{\"context\": \"c\", \"qas\": [{\"question\": \"last\"}]}], \"title\": \"t\"}]}";
    let large = text("{\"data\": [{\"paragraphs\": [", PARAGRAPH, 3 * times, end);
    let source = Source { format: Some(Format::Squad), ..Source::new("a") };
    let all = read_from(large, &source, WantedFields::default()).unwrap();
    let (mut n, mut last) = (0, String::new());
    for example in all {
        last = example.unwrap().text;
        n += 1;
    }
    assert_eq!((n, last.as_str()), (3 * times + 1, "last"));
    // If the consumer stops early, no thread is left that waits forever.
    let large = text("{\"data\": [{\"paragraphs\": [", PARAGRAPH, usize::MAX / 1000, end);
    let first = read_from(large, &source, WantedFields::default()).unwrap().next();
    assert_eq!(first.unwrap().unwrap().text, "q");
}

#[test]
fn an_error_far_into_a_squad_file_comes_after_what_stands_before_it() {
    let content = "{\"data\": [{\"paragraphs\": [{\"context\": \"c\", \"qas\": [{\"question\": \"q\"}]},\n{\"context\": 1}]}]}";
    let source = Source::new("a.json");
    let mut all = read_from(content.as_bytes(), &source, WantedFields::default()).unwrap();
    assert_eq!(all.next().unwrap().unwrap().text, "q");
    let error = all.next().unwrap().unwrap_err().to_string();
    assert!(error.starts_with("a.json:2: expected one JSON object as in SQuAD"), "{error}");
    assert!(all.next().is_none());
}

//! lines: one text per line, either the whole line or what a pattern matches in it.

use std::{iter, path::Path};

use frostbert_cache::wording::{counted, shorten};
use regex::{Captures, Regex};

use super::{
    bad_rows::FailedRows,
    open_file::OpenFile,
    read::{Text, next_line},
    record::{Record, WantedFields},
    source::{ColumnName, Source},
};
use crate::error::{Error, Result};

/// Streams the lines of a file.
///
/// Without a pattern, the line is the text, and a blank line is an empty text, which cleaning drops. With a pattern,
/// the whole line must match it, its groups `text`, `label`, `text_pair` and `id` are these fields, and blank lines are
/// skipped. A label that the source names is the label of all lines for which the pattern matches none.
pub(super) fn read(
    input: Text,
    source: &Source,
    want: WantedFields,
    failed: FailedRows,
) -> Result<impl Iterator<Item = Result<Record>> + Send + use<>> {
    let pattern = source.pattern.as_deref().map(|pattern| compile(pattern, source)).transpose()?;
    check_groups(pattern.as_ref(), source, want)?;
    let mut labels = match &source.label_path {
        Some(path) if want.label => Some(LabelLines::open(path, source)?),
        _ => None,
    };
    let constant_label = source.label.as_ref().filter(|_| want.label).map(|label| match label {
        ColumnName::Name(name) => name.trim().to_owned(),
        ColumnName::Number(number) => number.to_string(),
    });
    let source = source.clone();
    let mut input = input;
    let mut line = 0;
    Ok(iter::from_fn(move || {
        loop {
            line += 1;
            let content = match next_line(&mut input, &source, line).transpose() {
                Some(content) => content,
                None => return labels.as_mut()?.require_end(line).err().map(Err),
            };
            let content = match content {
                // There is nothing to match in a blank line.
                Ok(content) if pattern.is_some() && content.trim().is_empty() => continue,
                Ok(content) => content,
                Err(error) => return Some(Err(error)),
            };
            let label = match labels.as_mut().map(|labels| labels.next_label(line)).transpose() {
                Ok(label) => label.or_else(|| constant_label.clone()),
                Err(error) => return Some(Err(error)),
            };
            let example = match &pattern {
                None => Ok(Record { text: content, ..Record::default() }),
                Some(pattern) => match_line(pattern, &content, line, &source, want),
            };
            let example = example.map(|example| Record {
                label: example.label.or(label),
                line: Some(line),
                ..example
            });
            if let Some(example) = failed.keep(line..=line, example) {
                return Some(example);
            }
        }
    }))
}

/// The lines of a file of labels.
struct LabelLines {
    input: Text,
    /// The file, for messages.
    source: Source,
    texts: String,
}

impl LabelLines {
    fn open(path: &Path, texts: &Source) -> Result<LabelLines> {
        let source = Source { path: path.to_path_buf(), skip_bad: None, ..texts.clone() };
        let input = OpenFile::open(path)?.text(&source)?;
        Ok(LabelLines { input, source, texts: texts.path.display().to_string() })
    }

    /// Returns the label of the text on a line.
    fn next_label(&mut self, line: u64) -> Result<String> {
        match next_line(&mut self.input, &self.source, line)? {
            Some(label) => Ok(label.trim().to_owned()),
            None => Err(self.error(
                line,
                format!("a label for line {line} of {}", self.texts),
                "the end of the file",
            )),
        }
    }

    /// Returns an error if there are labels after that of the last text.
    fn require_end(&mut self, line: u64) -> Result<()> {
        match next_line(&mut self.input, &self.source, line)? {
            None => Ok(()),
            Some(_) => Err(self.error(
                line,
                format!("{}, as many as {} has lines", counted(line - 1, "label"), self.texts),
                "more",
            )),
        }
    }

    fn error(&self, line: u64, expected: String, got: &str) -> Error {
        let hint = "write one label per line, each on the line of its text; an empty line is a missing label";
        self.source.malformed(Some(line), expected, got, hint)
    }
}

/// Compiles the pattern so that it must match the whole line.
fn compile(pattern: &str, source: &Source) -> Result<Regex> {
    // Compiled on its own first, so that the message shows the pattern as it was written.
    Regex::new(pattern)
        .and_then(|_| Regex::new(&format!(r"\A(?:{pattern})\z")))
        .map_err(|error| {
            source.malformed(
                None,
                "a regular expression as `pattern`",
                error.to_string(),
                "correct the pattern: the syntax is that of the Rust crate regex, without look-around and back \
                 references",
            )
        })
}

fn check_groups(pattern: Option<&Regex>, source: &Source, want: WantedFields) -> Result<()> {
    let has_group = |group: &str| {
        pattern.is_some_and(|pattern| pattern.capture_names().flatten().any(|it| it == group))
    };
    let lacks = |what: &str, got: &str, hint: &str| Err(source.malformed(None, what, got, hint));
    if !source.label_columns.is_empty() {
        return lacks(
            "columns of labels to learn from",
            "a file of lines, which has no columns",
            "leave train.label and sweep.label out, or write the rows as csv, tsv, jsonl or parquet",
        );
    }
    if pattern.is_some() && !has_group("text") {
        return lacks(
            "a group `text` in `pattern`",
            "a pattern without it",
            r"mark the text in it: (?<label>\w+) (?<text>.*)",
        );
    }
    let is_labelled = source.label.is_some() || source.label_path.is_some();
    if want.label && !is_labelled && !has_group("label") {
        return lacks(
            "a label for the lines of this file",
            "neither `label` nor a `pattern` with a group `label`",
            "set `label` of this source to the one label of all its lines, `label_path` to a file of labels, or mark them in `pattern` as (?<label>...)",
        );
    }
    if want.text_pair && !has_group("text_pair") {
        return lacks(
            "a second text in every line",
            "no `pattern` with a group `text_pair`",
            "mark the second text in `pattern` as (?<text_pair>...), or use another format",
        );
    }
    if source.id.is_some() && !has_group("id") {
        return lacks(
            "an id in every line",
            "no `pattern` with a group `id`",
            "mark the id in `pattern` as (?<id>...), or leave `id` of this source out",
        );
    }
    Ok(())
}

fn match_line(
    pattern: &Regex,
    content: &str,
    line: u64,
    source: &Source,
    want: WantedFields,
) -> Result<Record> {
    let hint = "correct the line or `pattern`, which must match every line as a whole";
    let captures = pattern.captures(content).ok_or_else(|| {
        source.malformed(
            Some(line),
            format!("a line that matches `{}`", source.pattern.as_deref().unwrap_or_default()),
            format!("`{}`", shorten(content, 80)),
            hint,
        )
    })?;
    let label = if want.label {
        group(&captures, "label").map(|label| label.trim().to_owned())
    } else {
        None
    };
    if want.label && label.is_none() && source.label.is_none() {
        return Err(source.malformed(
            Some(line),
            "a label",
            "a match without its group `label`",
            hint,
        ));
    }
    Ok(Record {
        id: group(&captures, "id"),
        text: group(&captures, "text").unwrap_or_default(),
        text_pair: if want.text_pair {
            Some(group(&captures, "text_pair").unwrap_or_default())
        } else {
            None
        },
        label,
        line: Some(line),
        ..Record::default()
    })
}

fn group(captures: &Captures<'_>, name: &str) -> Option<String> {
    captures.name(name).map(|found| found.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use crate::data::{Format, Record, Source, WantedFields, read_from};

    const LABELLED: WantedFields = WantedFields { label: true, text_pair: false };
    const TREC: &str = r"(?<label>\w+):\S+ (?<text>.*)";

    fn source(pattern: Option<&str>, label: Option<&str>) -> Source {
        Source {
            format: Some(Format::Lines),
            pattern: pattern.map(str::to_owned),
            label: label.map(Into::into),
            ..Source::new("a.label")
        }
    }

    fn read_bytes(
        content: &[u8],
        source: &Source,
        want: WantedFields,
    ) -> crate::error::Result<Vec<Record>> {
        read_from(std::io::Cursor::new(content.to_vec()), source, want)?.collect()
    }

    fn rows(content: &str, source: &Source) -> Vec<(u64, String, String)> {
        let examples = read_bytes(content.as_bytes(), source, LABELLED).unwrap();
        examples.into_iter().map(|e| (e.line.unwrap(), e.text, e.label.unwrap())).collect()
    }

    fn row(line: u64, text: &str, label: &str) -> (u64, String, String) {
        (line, text.to_owned(), label.to_owned())
    }

    #[test]
    fn a_line_is_a_text_and_the_sources_label_is_that_of_all() {
        let expected = [row(1, " one ", "pos"), row(2, "", "pos"), row(3, "three", "pos")];
        assert_eq!(rows(" one \n\nthree", &source(None, Some("pos"))), expected);
        assert_eq!(rows(" one \r\n\r\nthree\r\n", &source(None, Some("pos"))), expected);
        let numbered = Source { label: Some(1.into()), ..source(None, None) };
        assert_eq!(rows("one\n", &numbered), [row(1, "one", "1")]);
    }

    #[test]
    fn without_a_wanted_label_there_is_none() {
        for source in [source(None, None), source(None, Some("pos")), source(Some(TREC), None)] {
            assert_eq!(
                read_bytes(b"NUM:dist How far?", &source, WantedFields::default()).unwrap()[0]
                    .label,
                None
            );
        }
    }

    #[test]
    fn a_patterns_groups_are_text_label_pair_and_id() {
        assert_eq!(
            rows("NUM:dist How far?\r\n", &source(Some(TREC), None)),
            [row(1, "How far?", "NUM")]
        );
        let all = Source {
            id: Some("id".into()),
            ..source(Some(r"(?P<id>\d+)\|(?<text>[^|]*)\|(?<text_pair>[^|]*)\|(?<label>.*)"), None)
        };
        assert_eq!(
            read_bytes(b"7|one|two| yes ", &all, WantedFields { label: true, text_pair: true })
                .unwrap(),
            [Record {
                id: Some("7".to_owned()),
                text: "one".to_owned(),
                text_pair: Some("two".to_owned()),
                label: Some("yes".to_owned()),
                line: Some(1),
                ..Record::default()
            }]
        );
    }

    #[test]
    fn a_patterns_label_goes_before_the_sources() {
        let content = "NUM:dist How far?\n";
        assert_eq!(rows(content, &source(Some(TREC), Some("all"))), [row(1, "How far?", "NUM")]);
        assert_eq!(
            rows(content, &source(Some(r"\S+ (?<text>.*)"), Some("all"))),
            [row(1, "How far?", "all")]
        );
        let optional = r"(?:(?<label>\w+): )?(?<text>.*)";
        assert_eq!(
            rows("a: one\ntwo\n", &source(Some(optional), Some("rest"))),
            [row(1, "one", "a"), row(2, "two", "rest")]
        );
        let error =
            read_bytes(b"a: one\ntwo\n", &source(Some(optional), None), LABELLED).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a.label:2: expected a label, got a match without its group `label`"
        );
    }

    #[test]
    fn a_line_that_does_not_match_as_a_whole_names_its_line() {
        for bad in ["no label", "x NUM:dist How far?"] {
            let content = format!("NUM:dist How far?\n{bad}\n");
            let error =
                read_bytes(content.as_bytes(), &source(Some(TREC), None), LABELLED).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("a.label:2: expected a line that matches `{TREC}`, got `{bad}`")
            );
            assert!(error.hint().unwrap().contains("`pattern`"));
        }
    }

    #[test]
    fn what_cannot_be_found_is_refused_before_the_first_line() {
        let id = Source { id: Some("id".into()), ..source(None, Some("pos")) };
        for (source, message, hint) in [
            (
                source(None, None),
                "expected a label for the lines of this file, got neither `label` nor",
                "set `label`",
            ),
            (
                source(Some("(?<text>.*)"), None),
                "expected a label for the lines of this file",
                "(?<label>...)",
            ),
            (
                source(Some("(?<label>.*)"), None),
                "expected a group `text` in `pattern`",
                "mark the text",
            ),
            (
                source(Some("(?<text>.*"), None),
                "expected a regular expression as `pattern`, got regex parse",
                "correct the pattern",
            ),
            (id, "expected an id in every line, got no `pattern` with a group `id`", "leave `id`"),
        ] {
            let error = read_bytes(b"", &source, LABELLED).unwrap_err();
            assert!(error.to_string().starts_with(&format!("a.label: {message}")), "{error}");
            assert!(error.hint().unwrap().contains(hint), "{}", error.hint().unwrap());
        }
        let error =
            read_bytes(b"", &source(None, None), WantedFields { label: false, text_pair: true })
                .unwrap_err();
        assert!(error.hint().unwrap().contains("(?<text_pair>...)"), "{error}");
    }

    #[test]
    fn latin1_is_read_as_windows_1252() {
        let latin1 = Source { encoding: "latin1".to_owned(), ..source(None, Some("x")) };
        let examples = read_bytes(b"caf\xE9 \x93quoted\x94", &latin1, LABELLED).unwrap();
        assert_eq!(examples[0].text, "caf\u{e9} \u{201c}quoted\u{201d}");
    }

    #[test]
    fn a_file_of_labels_has_one_for_each_line_of_texts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.txt");
        let with_labels = Source { label_path: Some(path.clone()), ..source(None, None) };
        std::fs::write(&path, "a\r\n b \n").unwrap();
        assert_eq!(rows("one\ntwo\n", &with_labels), [row(1, "one", "a"), row(2, "two", "b")]);
        for (texts, message) in [
            ("one\n", "labels.txt:2: expected 1 label, as many as a.label has lines, got more"),
            (
                "one\ntwo\nthree\n",
                "labels.txt:3: expected a label for line 3 of a.label, got the end of the file",
            ),
        ] {
            let error = read_bytes(texts.as_bytes(), &with_labels, LABELLED).unwrap_err();
            assert!(error.to_string().ends_with(message), "{error}");
        }
        // Without labels, the file is not needed.
        std::fs::remove_file(&path).unwrap();
        let texts = read_bytes(b"one\ntwo\n", &with_labels, WantedFields::default()).unwrap();
        assert!(texts.len() == 2 && texts[0].label.is_none());
        let with_pattern = Source { label_path: Some(path), ..source(Some(TREC), None) };
        assert!(read_bytes(b"a:b c\n", &with_pattern, LABELLED).is_err());
    }

    #[test]
    fn an_empty_file_has_no_lines() {
        assert!(rows("", &source(None, Some("pos"))).is_empty());
    }
}

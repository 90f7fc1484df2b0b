//! Records that cannot be read: errors that say how to leave them out, or left out and listed: `data.clean.skip_bad`.

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use frostbert_cache::wording::counted;

use super::{
    record::Record,
    source::{Format, Source},
    split::Part,
};
use crate::error::{Error, Result};

/// A record that was left out, as nothing could be made of it; or all those of a source that are not listed one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRow {
    /// The file or folder that the pipeline names.
    pub source: PathBuf,
    /// Its file: the same, or one of the folder.
    pub file: PathBuf,
    /// What a record of the source is called.
    pub unit: &'static str,
    /// The line, from 1, where there are lines; for Parquet and arrays the row.
    pub line: Option<u64>,
    /// What was expected, and what is there.
    pub reason: String,
    /// The number of records that it stands for.
    pub n_records: usize,
}

/// Maximum number of records of a source that are listed; all others are counted. In a file such a record may have two
/// bytes.
const MOST_LISTED: usize = 10_000;

/// The records that were left out while files were read. Copies share them.
#[derive(Clone, Debug, Default)]
pub struct BadRows(Arc<Mutex<Log>>);

#[derive(Debug, Default)]
struct Log {
    /// Those of each source, in the order in which the sources were read.
    sources: Vec<SourceRows>,
    /// The parts that the files say all of them are for, where that is known.
    parts: Vec<Option<Part>>,
}

#[derive(Debug)]
struct SourceRows {
    listed: Vec<BadRow>,
    n_more: usize,
}

impl BadRows {
    /// Returns those so far that are listed, file by file in the order in which the files were read; behind those of a
    /// source one for all others.
    pub(crate) fn rows(&self) -> Vec<BadRow> {
        self.lock().sources.iter().flat_map(SourceRows::sorted).collect()
    }

    /// How many there are so far.
    pub fn count(&self) -> usize {
        self.lock().parts.len()
    }

    /// The parts that those after the first `n` are for, where these are known.
    pub(super) fn parts_after(&self, n: usize) -> Vec<Option<Part>> {
        self.lock().parts[n..].to_vec()
    }

    fn push(&self, row: BadRow, part: Option<Part>) {
        let mut log = self.lock();
        log.parts.push(part);
        match log.sources.last_mut() {
            Some(rows) if rows.listed[0].source == row.source => rows.push(row),
            _ => log.sources.push(SourceRows { listed: vec![row], n_more: 0 }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SourceRows {
    fn push(&mut self, row: BadRow) {
        if self.listed.len() < MOST_LISTED {
            self.listed.push(row);
        } else {
            self.n_more += 1;
        }
    }

    fn sorted(&self) -> Vec<BadRow> {
        let mut rows = self.listed.clone();
        for rows in rows.chunk_by_mut(|one, other| one.file == other.file) {
            rows.sort_by_key(|row| row.line);
        }
        if self.n_more > 0 {
            let BadRow { source, unit, .. } = self.listed[0].clone();
            rows.push(BadRow {
                source: source.clone(),
                file: source,
                unit,
                line: None,
                reason: format!("{} more, not listed", counted(self.n_more, unit)),
                n_records: self.n_more,
            });
        }
        rows
    }
}

/// What was left out, in words, a line for each source.
pub(crate) fn warnings(rows: &[BadRow]) -> Vec<String> {
    let sources = rows.chunk_by(|one, other| one.source == other.source);
    sources
        .map(|rows| {
            let BadRow { source, reason, unit, .. } = &rows[0];
            format!(
                "{}: {} that cannot be read, left out (a run lists them in {BAD_ROWS_FILE}); the first{}: {reason}",
                source.display(),
                counted(rows.iter().map(|row| row.n_records).sum::<usize>(), unit),
                rows[0].place(),
            )
        })
        .collect()
}

impl BadRow {
    /// Where it stands in its source, as what follows its name.
    fn place(&self) -> String {
        let file = if self.file == self.source {
            String::new()
        } else {
            format!(" in {}", self.file.display())
        };
        match self.line {
            Some(row) if self.unit == ROW => format!(" is row {row}{file}"),
            Some(line) => format!(" is line {line}{file}"),
            None => file,
        }
    }
}

/// What a record of a Parquet file or an array is called: its line is none.
const ROW: &str = "row";

impl Source {
    /// Whether records that cannot be read are left out.
    pub(super) fn skips_bad(&self) -> bool {
        self.skip_bad == Some(true)
    }

    /// What to add to the hint for a record that cannot be read.
    pub(super) fn skip_hint(&self) -> String {
        match self.skip_bad {
            Some(false) => format!(
                "; or leave such {}s out with data.clean.skip_bad = true in the pipeline",
                self.unit()
            ),
            _ => String::new(),
        }
    }

    /// What one of its records is called, where it cannot be read.
    fn unit(&self) -> &'static str {
        match self.resolve_format() {
            Ok(Format::Conll | Format::Conllu) => "sentence",
            Ok(Format::Squad) => "question",
            Ok(Format::Parquet | Format::Npy) => ROW,
            Ok(Format::Folder) => "text",
            _ => "line",
        }
    }
}

/// The file of a run folder that lists them.
pub(crate) const BAD_ROWS_FILE: &str = "bad_rows.csv";

/// Bytes that do not decode: for each line that has some, a description of the first. Clones share the map, which holds no
/// more lines than there are in the records that are being read.
#[derive(Clone, Debug, Default)]
pub(super) struct BadBytes(Arc<Mutex<BTreeMap<u64, String>>>);

impl BadBytes {
    pub(super) fn note(&self, line: u64, problem: String) {
        self.lock().entry(line).or_insert(problem);
    }

    /// Returns the first of some lines that has such bytes, with their description, and forgets the lines before these:
    /// records are read in the order of their first lines.
    fn first_in(&self, lines: RangeInclusive<u64>) -> Option<(u64, String)> {
        let mut bytes = self.lock();
        while bytes.first_key_value().is_some_and(|(line, _)| line < lines.start()) {
            bytes.pop_first();
        }
        bytes.range(lines).next().map(|(line, problem)| (*line, problem.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Handles the records of a file that cannot be read.
#[derive(Clone)]
pub(super) struct FailedRows {
    source: Arc<Source>,
    log: BadRows,
    bytes: BadBytes,
}

impl FailedRows {
    pub(super) fn new(source: &Source, log: &BadRows, bytes: BadBytes) -> FailedRows {
        FailedRows { source: Arc::new(source.clone()), log: log.clone(), bytes }
    }

    /// What becomes of a record that stands on some lines: `None` where it is left out, as it cannot be read or a byte on
    /// them does not decode.
    pub(super) fn keep(
        &self,
        lines: RangeInclusive<u64>,
        record: Result<Record>,
    ) -> Option<Result<Record>> {
        self.keep_of(None, lines, record)
    }

    /// As [`FailedRows::keep`], of a record that its file says is for `part`.
    pub(super) fn keep_of(
        &self,
        part: Option<Part>,
        lines: RangeInclusive<u64>,
        record: Result<Record>,
    ) -> Option<Result<Record>> {
        if let Some((line, reason)) = self.bytes.first_in(lines) {
            self.leave_out(self.source.path.clone(), Some(line), reason, part);
            return None;
        }
        match record {
            Err(error) => self.settle(part, error).err().map(Err),
            record => Some(record),
        }
    }

    /// Leaves out the record that an error tells of, where the source asks for that; else the error, which says how.
    /// `part` is the one that its file says it is for.
    pub(super) fn settle(&self, part: Option<Part>, mut error: Error) -> Result<()> {
        if let Error::Record { path, line, expected, got, hint } = &mut error {
            if self.source.skips_bad() {
                self.leave_out(
                    path.clone(),
                    *line,
                    format!("expected {expected}, got {got}"),
                    part,
                );
                return Ok(());
            }
            let cure = self.source.skip_hint();
            if !hint.contains(&cure) {
                hint.push_str(&cure);
            }
        }
        Err(error)
    }

    /// Leaves out a record on a line.
    pub(super) fn leave_out_at(&self, line: u64, reason: String) {
        self.leave_out(self.source.path.clone(), Some(line), reason, None);
    }

    /// The first byte on some lines that does not decode: its line, and what is wrong.
    pub(super) fn bad_byte(&self, lines: RangeInclusive<u64>) -> Option<(u64, String)> {
        self.bytes.first_in(lines)
    }

    fn leave_out(&self, file: PathBuf, line: Option<u64>, reason: String, part: Option<Part>) {
        let (source, unit) = (self.source.path.clone(), self.source.unit());
        self.log.push(BadRow { source, file, unit, line, reason, n_records: 1 }, part);
    }
}

#[cfg(test)]
mod tests {
    use super::{BadBytes, MOST_LISTED, warnings};
    use crate::data::{Format, Source, WantedFields, bad_rows::BadRows, read_logged};

    /// Reads a file; returns its texts, and the lines that were skipped.
    fn read(name: &str, content: &[u8], source: Source) -> (Vec<String>, Vec<(u64, String)>) {
        let folder = tempfile::tempdir().unwrap();
        let source = Source { path: folder.path().join(name), skip_bad: Some(true), ..source };
        std::fs::write(&source.path, content).unwrap();
        let log = BadRows::default();
        let want = WantedFields { label: true, text_pair: false };
        let records = read_logged(&source, want, &log).unwrap();
        let texts = records.map(|record| record.unwrap().text).collect();
        (texts, log.rows().into_iter().map(|row| (row.line.unwrap_or(0), row.reason)).collect())
    }

    fn lines(rows: &[(u64, String)]) -> Vec<u64> {
        rows.iter().map(|(line, _)| *line).collect()
    }

    #[test]
    fn a_line_with_an_open_quote_takes_no_other_with_it() {
        let content = b"text,label\n\"one\nand more\",a\n\"two,b\n\"three, really\",c\nfour,d,e\n\"five \"\"5\"\"\",f\nsix,\"g\n";
        let (texts, bad) = read("a.csv", content, Source::new(""));
        assert_eq!(texts, ["one\nand more", "three, really", "five \"5\""]);
        assert_eq!(lines(&bad), [4, 6, 8]);
        assert!(bad[0].1.contains("quotes are closed"), "{}", bad[0].1);
        assert_eq!(bad[1].1, "expected 2 fields, as in the header, got 3 fields");
    }

    #[test]
    fn of_very_many_records_the_first_are_listed_and_all_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        std::fs::write(&path, "1\n".repeat(MOST_LISTED + 1234)).unwrap();
        let source = Source { skip_bad: Some(true), ..Source::new(&path) };
        let (log, want) = (BadRows::default(), WantedFields { label: true, text_pair: false });
        assert_eq!(read_logged(&source, want, &log).unwrap().count(), 0);
        let rows = log.rows();
        assert_eq!((rows.len(), log.count()), (MOST_LISTED + 1, MOST_LISTED + 1234));
        assert_eq!(rows[MOST_LISTED - 1].line, Some(MOST_LISTED as u64));
        assert_eq!(rows[MOST_LISTED].reason, "1,234 lines more, not listed");
        let warning = &warnings(&rows)[0];
        assert!(warning.contains(": 11,234 lines that cannot be read"), "{warning}");
    }

    #[test]
    fn bytes_that_do_not_decode_are_forgotten_behind_the_record_that_is_read() {
        let bytes = BadBytes::default();
        (1..=1_000).for_each(|line| bytes.note(line, format!("byte {line}")));
        assert_eq!(bytes.first_in(1..=1), Some((1, "byte 1".into())));
        assert_eq!(bytes.first_in(900..=950), Some((900, "byte 900".into())));
        assert_eq!(bytes.first_in(1_001..=2_000), None);
        assert!(bytes.lock().is_empty());
    }

    #[test]
    fn bytes_that_are_no_text_cost_their_line_alone() {
        for (name, format) in [("a.csv", None), ("a.jsonl", None), ("a.txt", Some(Format::Lines))] {
            let line = |text: &[u8]| match name {
                "a.csv" => [text, b",x\n"].concat(),
                "a.jsonl" => [b"{\"text\": \"", text, b"\", \"label\": \"x\"}\n"].concat(),
                _ => [text, b"\n"].concat(),
            };
            let header: &[u8] = if name == "a.csv" { b"text,label\n" } else { b"" };
            let long = "long ".repeat(30_000);
            let content = [
                header,
                &line(b"one"),
                &line(b"caf\xE9"),
                &line(long.as_bytes()),
                &line(b"\xFF\xFE"),
            ];
            let label = (format.is_some()).then(|| "x".into());
            let source = Source { format, label, ..Source::new("") };
            let (texts, bad) = read(name, &content.concat(), source);
            assert_eq!(texts, ["one", &long], "{name}");
            let first = 2 + u64::from(name == "a.csv");
            assert_eq!(lines(&bad), [first, first + 2], "{name}");
            assert_eq!(bad[0].1, "expected UTF-8 text, got the byte 0xE9", "{name}");
        }
    }

    #[test]
    fn a_bad_line_costs_its_sentence() {
        let (texts, bad) = read(
            "a.conll",
            b"a O\n\nb\nc O\n\n-DOCSTART- O\n\nd O\ncaf\xE9 O\n\ne O\nf O O\ng\n\nh O\n",
            Source::new(""),
        );
        assert_eq!(texts, ["a", "h"]);
        assert_eq!(lines(&bad), [3, 9, 12]);
        assert_eq!(bad[1].1, "expected UTF-8 text, got the byte 0xE9");
        let word = |id: u32, form: &str| format!("{id}\t{form}\t_\tX\t_\t_\t_\t_\t_\t_\n");
        let content = [
            word(1, "a"),
            "\n# sent_id = 2\n".to_owned(),
            word(1, "b"),
            word(3, "c"),
            word(4, "d"),
            "\n# sent_id = 3\n\n".to_owned(),
            word(1, "e"),
        ];
        let (texts, bad) = read("a.conllu", content.concat().as_bytes(), Source::new(""));
        assert_eq!((texts, lines(&bad)), (vec!["a".to_owned(), "e".to_owned()], vec![5, 8]));
        assert_eq!(bad[0].1, "expected the sentence's word number 2, got the ID `3`");
    }

    #[test]
    fn a_malformed_question_costs_itself_and_a_missing_context_its_questions() {
        let fine = "{\"id\": \"fine\", \"question\": \"fine?\", \"answers\": [{\"text\": \"c\", \"answer_start\": 0}]}";
        let question = |id: &str, more: &str| format!("{{\"id\": \"{id}\", {more}}}");
        let bad = [
            question("a", "\"question\": 5, \"answers\": []"),
            question("b", "\"question\": \"?\", \"answers\": []"),
            question(
                "c",
                "\"question\": \"?\", \"answers\": [{\"text\": \"c\", \"answer_start\": \"0\"}]",
            ),
            question("d", "\"question\": \"?\", \"answers\": \"c\""),
            "7".to_owned(),
            question("e", "\"question\": \"half of a pair: \\ud83d\""),
        ];
        let content = format!(
            "{{\"data\": [{{\"paragraphs\": [{{\"context\": \"c\", \"qas\": [{fine}, {}]}},\n{{\"qas\": [{fine}, {fine}]}},\n\
             {{\"context\": \"c\", \"qas\": [{fine}, {}, {fine}]}}]}}]}}",
            bad.join(", "),
            fine.replace("fine?", "caf*")
        );
        let content: Vec<u8> =
            content.bytes().map(|byte| if byte == b'*' { 0xE9 } else { byte }).collect();
        let (texts, bad) = read("a.json", &content, Source::new(""));
        assert_eq!(texts, ["fine?"; 3]);
        assert_eq!(lines(&bad), [0, 0, 0, 0, 0, 0, 0, 0, 3]);
        for (row, reason) in [
            (0, "for question 2 of paragraph 1 of article 1, got invalid type: integer `5`"),
            (1, "expected an answer, or `is_impossible: true` for question `b`, in paragraph 1"),
            (6, "expected a `context` in paragraph 2 of article 1, got none"),
            (7, "expected a `context` in paragraph 2 of article 1, got none"),
            (8, "got the byte 0xE9, in question `fine`, in paragraph 3 of article 1"),
        ] {
            assert!(bad[row].1.contains(reason), "{}", bad[row].1);
        }
    }

    #[test]
    fn objects_that_are_none_are_left_out_of_lines_and_arrays() {
        let good = |text: &str| format!("{{\"text\": \"{text}\", \"label\": 1}}");
        let content = format!("{}\n{{\"text\": \n{}\n[1]\n", good("one"), good("two"));
        let (texts, bad) = read("a.jsonl", content.as_bytes(), Source::new(""));
        assert_eq!((texts.len(), lines(&bad)), (2, vec![2, 4]));
        let content = format!("[{},\n{{\"text\": NaN}},\n{}]", good("one"), good("two"));
        let (texts, bad) = read("a.json", content.as_bytes(), Source::new(""));
        assert_eq!((texts.len(), lines(&bad)), (2, vec![2]));
    }
}

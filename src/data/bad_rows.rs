//! Lines that cannot be read: errors that say how to leave them out, or left out and listed: `data.clean.skip_bad`.

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use frostbert_cache::wording::counted;

use super::{record::Record, source::Source, split::Part};
use crate::error::{Error, Result};

/// A record that was left out, as nothing could be made of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRow {
    /// Its file, as the pipeline names it.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: u64,
    /// What was expected, and what is there.
    pub reason: String,
    /// The part that its file says it is for, where that is known.
    pub part: Option<Part>,
}

/// The records that were left out while files were read. Copies share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct BadRows(Arc<Mutex<Vec<BadRow>>>);

impl BadRows {
    /// All so far, file by file in the order in which these were read.
    pub(crate) fn rows(&self) -> Vec<BadRow> {
        let mut rows = self.lock().clone();
        for rows in rows.chunk_by_mut(|one, other| one.file == other.file) {
            rows.sort_by_key(|row| row.line);
        }
        rows
    }

    /// How many there are so far.
    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    /// The parts that those after the first `n` are for, where these are known.
    pub(super) fn parts_after(&self, n: usize) -> Vec<Option<Part>> {
        self.lock()[n..].iter().map(|row| row.part).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<BadRow>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was left out, in words, a line for each file.
pub(crate) fn warnings(rows: &[BadRow]) -> Vec<String> {
    let files = rows.chunk_by(|one, other| one.file == other.file);
    files
        .map(|rows| {
            let BadRow { file, line, reason, .. } = &rows[0];
            format!(
                "{}: {} that cannot be read, left out (a run lists them in {BAD_ROWS_FILE}); the first is line {line}: {reason}",
                file.display(),
                counted(rows.len(), "line"),
            )
        })
        .collect()
}

/// The file of a run folder that lists them.
pub(crate) const BAD_ROWS_FILE: &str = "bad_rows.csv";

/// Bytes that are no text, by the line on which they stand, with what is wrong with them. Copies share them.
#[derive(Clone, Debug, Default)]
pub(super) struct BadBytes(Arc<Mutex<BTreeMap<u64, String>>>);

impl BadBytes {
    pub(super) fn note(&self, line: u64, problem: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(line).or_insert(problem);
    }

    /// What is wrong first on some lines.
    fn first_in(&self, lines: RangeInclusive<u64>) -> Option<(u64, String)> {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.range(lines).next().map(|(line, problem)| (*line, problem.clone()))
    }
}

/// What becomes of the records of a file that cannot be read.
#[derive(Clone)]
pub(super) struct FailedRows {
    source: Source,
    log: BadRows,
    bytes: BadBytes,
}

impl FailedRows {
    pub(super) fn new(source: &Source, log: &BadRows, bytes: BadBytes) -> FailedRows {
        FailedRows { source: source.clone(), log: log.clone(), bytes }
    }

    /// The record that was made of some lines, or the error for it; none where it is left out.
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
            self.leave_out(BadRow { file: self.source.path.clone(), line, reason, part });
            return None;
        }
        match record {
            Err(error) => self.settle(part, error).err().map(Err),
            record => Some(record),
        }
    }

    /// Leaves out what an error tells of, where the source asks for that; else the error, which says how. `part` is the one
    /// that its file says it is for.
    pub(super) fn settle(&self, part: Option<Part>, mut error: Error) -> Result<()> {
        if let Error::Record { path, line: Some(line), expected, got, hint } = &mut error {
            if self.source.skips_bad() {
                let reason = format!("expected {expected}, got {got}");
                self.leave_out(BadRow { file: path.clone(), line: *line, reason, part });
                return Ok(());
            }
            hint.push_str(self.source.skip_hint());
        }
        Err(error)
    }

    fn leave_out(&self, row: BadRow) {
        self.log.lock().push(row);
    }
}

#[cfg(test)]
mod tests {
    use crate::data::{Format, Source, WantedFields, bad_rows::BadRows, read_logged};

    /// Texts, and what was left out.
    fn read(name: &str, content: &[u8], source: Source) -> (Vec<String>, Vec<(u64, String)>) {
        let folder = tempfile::tempdir().unwrap();
        let source = Source { path: folder.path().join(name), skip_bad: Some(true), ..source };
        std::fs::write(&source.path, content).unwrap();
        let log = BadRows::default();
        let want = WantedFields { label: true, text_pair: false };
        let records = read_logged(&source, want, &log).unwrap();
        let texts = records.map(|record| record.unwrap().text).collect();
        (texts, log.rows().into_iter().map(|row| (row.line, row.reason)).collect())
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

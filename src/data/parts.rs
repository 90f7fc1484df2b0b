//! Files that assign each record to a split: by a column, `split_column`, or by the key of its list.

use frostbert_cache::wording::shorten;

use super::{
    Records,
    bad_rows::{BadBytes, BadRows, FailedRows},
    record::Record,
    source::{Format, Source},
    split::Part,
    until_error,
};
use crate::error::{Error, Result};

/// The names that files use for the splits.
const WORDS: [(Part, &[&str]); 3] = [
    (Part::Train, &["train", "training"]),
    (Part::Validation, &["validation", "valid", "val", "dev", "development", "eval", "evaluation"]),
    (Part::Test, &["test", "testing"]),
];

/// Returns the split that a word stands for, ignoring case.
pub(super) fn part_named(word: &str) -> Option<Part> {
    let word = word.trim().to_lowercase();
    WORDS.into_iter().find_map(|(part, words)| words.contains(&word.as_str()).then_some(part))
}

/// Returns the split that a key of an object stands for: the whole key, or its last word as in `oos_train`.
pub(super) fn part_of_key(key: &str) -> Option<Part> {
    part_named(key).or_else(|| part_named(key.rsplit(['_', '-', '.', ' ']).next()?))
}

/// Reads the records of a source, each with the part that its `split_column` says; of a source without one, as they are.
/// `read` reads what it is given. Records whose cell names no part are listed in `log` where bad ones are left out.
pub(super) fn with_parts(
    source: &Source,
    log: &BadRows,
    read: impl FnOnce(&Source) -> Result<Records>,
) -> Result<Records> {
    let Some(column) = &source.split_column else {
        return read(source);
    };
    let format = source.resolve_format()?;
    // The columns of an array are those of its file of labels.
    if !format.has_columns() && format != Format::Npy {
        return Err(source.malformed(
            None,
            "a file with columns, one of which is `split_column`",
            format!("a {format} file, which has no columns"),
            "leave `split_column` of this source out, or write the rows as csv, tsv, jsonl or parquet",
        ));
    }
    let mut asked = source.clone();
    asked.label_columns.push(column.clone());
    let records = read(&asked)?;
    let failed = FailedRows::new(source, log, BadBytes::default());
    let source = source.clone();
    Ok(until_error(records.filter_map(move |record| {
        let mut record = match record {
            Ok(record) => record,
            Err(error) => return Some(Err(error)),
        };
        let cell = record.label_cells.pop().unwrap_or_default();
        match part_named(&cell) {
            Some(part) => Some(Ok(Record { part: Some(part), ..record })),
            None => failed.settle(None, no_part(&source, &record, &cell)).err().map(Err),
        }
    })))
}

fn no_part(source: &Source, record: &Record, cell: &str) -> Error {
    let got = match cell {
        "" => "an empty cell".to_owned(),
        cell => format!("`{}`", shorten(cell, 40)),
    };
    source.malformed(
        record.line,
        "train, validation (or valid, val, dev, eval) or test in the column that `split_column` names",
        got,
        "correct the cell; or leave `split_column` of this source out, so that the rows are split",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{WantedFields, read};

    fn parts(name: &str, content: &str, split_column: Option<&str>) -> Result<Vec<Option<Part>>> {
        let folder = tempfile::tempdir().unwrap();
        let source = Source {
            split_column: split_column.map(Into::into),
            ..Source::new(folder.path().join(name))
        };
        std::fs::write(&source.path, content).unwrap();
        let want = WantedFields { label: true, text_pair: false };
        read(&source, want)?.map(|record| record.map(|record| record.part)).collect()
    }

    #[test]
    fn a_column_says_in_usual_words_which_part_a_row_is_for() {
        let content = "text,label,fold\none,a,Train\ntwo,b, dev \nthree,a,test\nfour,b,valid\n";
        let found = parts("a.csv", content, Some("fold")).unwrap();
        let [train, validation, test] = Part::ALL.map(Some);
        assert_eq!(found, [train, validation, test, validation]);
        assert_eq!(parts("a.csv", content, None).unwrap(), [None; 4]);
        let lines = "{\"text\": \"one\", \"label\": 1, \"fold\": \"eval\"}\n";
        assert_eq!(parts("a.jsonl", lines, Some("fold")).unwrap(), [validation]);
    }

    #[test]
    fn a_cell_that_names_no_part_is_an_error_with_its_line() {
        for (cell, got) in [("", "an empty cell"), ("3", "`3`")] {
            let content = format!("text,label,fold\none,a,train\ntwo,b,{cell}\n");
            let error = parts("a.csv", &content, Some("fold")).unwrap_err().to_string();
            assert!(
                error.contains("a.csv:3: expected train, validation") && error.ends_with(got),
                "{error}"
            );
        }
        let error = parts("a.csv", "text,label\none,a\n", Some("fold")).unwrap_err();
        assert!(error.to_string().contains("a column `fold` for `split_column`"), "{error}");
        let error = parts("a.txt", "one\n", Some("fold")).unwrap_err();
        assert!(error.to_string().contains("a lines file, which has no columns"), "{error}");
    }

    #[test]
    fn lists_of_pairs_under_the_names_of_parts_are_read_as_json() {
        let content = "{\"oos_val\": [[\"one\", \"oos\"]],\n \"train\": [[\"two\", \"a\"], [\"three, [4]\", 7]],\n\"test\": []}";
        let [train, validation, _] = Part::ALL.map(Some);
        assert_eq!(parts("data_full.json", content, None).unwrap(), [validation, train, train]);
        let objects = "{\"dev\": [{\"text\": \"one\", \"label\": \"a\"}]}";
        assert_eq!(parts("a.json", objects, None).unwrap(), [validation]);
        let error =
            parts("a.json", "{\"train\": [[\"a\", \"b\"]], \"rest\": []}", None).unwrap_err();
        assert!(error.to_string().contains("got the key `rest`"), "{error}");
        let error = parts("a.json", "{\"train\": [[\"a\", \"b\", \"c\"]]}", None).unwrap_err();
        assert!(
            error.to_string().contains("expected a text and its label, got a list of 3 items"),
            "{error}"
        );
        // Files of questions and files of lists are told apart by their first key.
        let error = parts("a.json", "{\"data\": [[\"a\", \"b\"]]}", None).unwrap_err();
        assert!(error.to_string().contains("as in SQuAD"), "{error}");
    }
}

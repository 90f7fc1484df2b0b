//! Small files, and the records or messages that they result in.

use crate::{
    data::{Record, Source, WantedFields, read},
    error::{Error, Result},
};

const LABELLED: WantedFields = WantedFields { label: true, text_pair: false };

fn read_str(content: &str, source: Source, want: WantedFields) -> Result<Vec<Record>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(&source.path);
    std::fs::write(&path, content).unwrap();
    let result = read(&Source { path, ..source.clone() }, want).and_then(Iterator::collect);
    result.map_err(|mut error| {
        if let Error::Record { path, .. } = &mut error {
            *path = source.path;
        }
        error
    })
}

/// Returns line, text and label of every record.
fn rows(content: &str, source: Source) -> Vec<(u64, String, String)> {
    let examples = read_str(content, source, LABELLED).unwrap();
    examples
        .into_iter()
        .map(|example| (example.line.unwrap(), example.text, example.label.unwrap()))
        .collect()
}

fn row(line: u64, text: &str, label: &str) -> (u64, String, String) {
    (line, text.to_owned(), label.to_owned())
}

fn message(content: &str, source: Source, want: WantedFields) -> String {
    let error = read_str(content, source, want).unwrap_err();
    format!("{error}; hint: {}", error.hint().unwrap())
}

#[test]
fn records_know_the_line_on_which_they_start() {
    for line_end in ["\n", "\r\n"] {
        let content = [
            "label,text",
            "a,one",
            "b,\"two",
            "and a half\"",
            "",
            "",
            "c,\"say \"\"three\"\"\"",
            "\"d\", four ",
            "",
        ]
        .join(line_end);
        let half = format!("two{line_end}and a half");
        assert_eq!(
            rows(&content, Source::new("a.csv")),
            [
                row(2, "one", "a"),
                row(3, &half, "b"),
                row(7, "say \"three\"", "c"),
                row(8, " four ", "d")
            ]
        );
        assert_eq!(
            rows(content.trim_end(), Source::new("a.csv")).len(),
            4,
            "without a last line end"
        );
    }
}

#[test]
fn a_last_field_in_quotes_before_crlf_loses_only_the_line_end() {
    let rows =
        rows("label,text\r\na,\"one\r\n\"\r\nb,\"two\"\r\nc,\"\"\r\nd,\r\n", Source::new("a.csv"));
    assert_eq!(
        rows,
        [row(2, "one\r\n", "a"), row(4, "two", "b"), row(5, "", "c"), row(6, "", "d")]
    );
}

#[test]
fn literal_quotes_stay_where_quoting_is_off() {
    let source = Source {
        header: false,
        quoting: false,
        text: Some(1.into()),
        label: Some(0.into()),
        ..Source::new("sms.tsv")
    };
    let expected = [row(1, "\"Hello", "ham"), row(2, "\"\"x\" y", "spam")];
    assert_eq!(rows("ham\t\"Hello\nspam\t\"\"x\" y\n", source.clone()), expected);
    assert_eq!(rows("ham\t\"Hello\r\nspam\t\"\"x\" y", source), expected);
}

#[test]
fn ids_and_pairs_are_read_by_name_and_by_number() {
    let content = "id,question,answer,label\n7,Why?,So.,\" yes \"\n";
    let expected = Record {
        id: Some("7".to_owned()),
        text: "Why?".to_owned(),
        text_pair: Some("So.".to_owned()),
        label: Some("yes".to_owned()),
        line: Some(2),
        ..Record::default()
    };
    let by_name = Source {
        text: Some("question".into()),
        text_pair: Some("answer".into()),
        id: Some("id".into()),
        ..Source::new("a.csv")
    };
    let by_number = Source {
        text: Some(1.into()),
        text_pair: Some(2.into()),
        id: Some(0.into()),
        label: Some(3.into()),
        ..Source::new("a.csv")
    };
    for source in [by_name, by_number] {
        let examples =
            read_str(content, source, WantedFields { label: true, text_pair: true }).unwrap();
        assert_eq!(examples, std::slice::from_ref(&expected));
    }
}

#[test]
fn what_is_not_wanted_need_not_exist() {
    let examples =
        read_str("text\none\n\"\"\n", Source::new("a.csv"), WantedFields::default()).unwrap();
    assert_eq!(examples.len(), 2);
    assert_eq!(
        (examples[0].text.as_str(), &examples[0].label, &examples[0].text_pair),
        ("one", &None, &None)
    );
    assert_eq!((examples[1].text.as_str(), examples[1].line), ("", Some(3)));
}

#[test]
fn without_a_header_longer_records_are_read_and_shorter_ones_refused() {
    let source = Source {
        header: false,
        text: Some(1.into()),
        label: Some(0.into()),
        ..Source::new("a.csv")
    };
    assert_eq!(
        rows("a,one\nb,two,more\n", source.clone()),
        [row(1, "one", "a"), row(2, "two", "b")]
    );
    assert_eq!(
        message("a,one\nb\n", source, LABELLED),
        "a.csv:2: expected at least 2 fields, to reach column number 1, got 1 field; hint: correct the line, or the \
         column numbers of this source, which count from 0; or set `quoting = false` for this source if its quotes \
         are ordinary characters"
    );
}

#[test]
fn ragged_records_name_line_and_counts() {
    let expected = "a.csv:4: expected 2 fields, as in the header, got 3 fields; hint: correct the line: a text that \
                    contains the delimiter or a line end must be in quotes; or set `quoting = false` for this source \
                    if its quotes are ordinary characters";
    assert_eq!(
        message("text,label\n\"x\ny\",a\none, two,b\n", Source::new("a.csv"), LABELLED),
        expected
    );
    let short =
        message("text,label\none\n", Source { quoting: false, ..Source::new("a.csv") }, LABELLED);
    assert!(
        short.starts_with("a.csv:2: expected 2 fields, as in the header, got 1 field;"),
        "{short}"
    );
    assert!(short.contains("`quoting = true`"), "{short}");
}

#[test]
fn a_missing_column_lists_the_columns_that_are_there() {
    for (source, start) in [
        (
            Source::new("a.csv"),
            "a.csv:1: expected a column `label` for `label`, got the columns `text`, `category`; ",
        ),
        (
            Source { text: Some(2.into()), ..Source::new("a.csv") },
            "a.csv:1: expected a column number 2 for `text`, got the columns `text`, `category`; ",
        ),
    ] {
        let message = message("text,category\none,a\n", source, LABELLED);
        assert!(message.starts_with(start), "{message}");
        assert!(message.ends_with("or `header = false` if the file has no header"), "{message}");
    }
}

#[test]
fn blanks_and_byte_order_marks_around_names_do_not_count() {
    let content = "\u{feff}\u{feff} text ,\tlabel\none,a\n";
    assert_eq!(rows(content, Source::new("a.csv")), [row(2, "one", "a")]);
    // A column with exactly this name takes precedence.
    let content = "text, text,label\none,two,a\n";
    assert_eq!(rows(content, Source::new("a.csv")), [row(2, "one", "a")]);
}

#[test]
fn a_header_that_another_delimiter_would_cut_as_it_is_wanted_says_so() {
    for (header, delimiter) in [
        ("text;label", ";"),
        ("text\tlabel", "\\t"),
        ("a, b;text;label", ";"),
        ("\"a\"| text |label, other", "|"),
    ] {
        let said = message(&format!("{header}\n"), Source::new("a.csv"), LABELLED);
        let hint = format!("hint: set `delimiter = \"{delimiter}\"` of this source");
        assert!(said.contains(&hint), "{header}: {said}");
    }
    let said = message("said;by,label\n", Source::new("a.csv"), LABELLED);
    assert!(said.contains("hint: set `text` of this source to one of these"), "{said}");
}

#[test]
fn a_name_that_two_columns_share_is_refused() {
    let message = message("text,text,label\none,two,a\n", Source::new("a.csv"), LABELLED);
    assert!(
        message.starts_with("a.csv:1: expected one column `text` for `text`, got 2 of that name; "),
        "{message}"
    );
}

#[test]
fn a_record_that_ends_before_an_id_that_it_may_lack_has_none() {
    let source = Source {
        header: false,
        text: Some(0.into()),
        id: Some(2.into()),
        may_lack_id: true,
        ..Source::new("a.csv")
    };
    let want = WantedFields { label: false, text_pair: false };
    let records = read_str("one,a,7\ntwo,b\n", source.clone(), want).unwrap();
    let ids: Vec<Option<&str>> = records.iter().map(|record| record.id.as_deref()).collect();
    assert_eq!(ids, [Some("7"), None]);
    let asked = Source { may_lack_id: false, ..source };
    let message = message("one,a,7\ntwo,b\n", asked, want);
    assert!(message.starts_with("a.csv:2: expected at least 3 fields"), "{message}");
}

#[test]
fn names_without_a_header_are_refused() {
    let message = message("one,a\n", Source { header: false, ..Source::new("a.csv") }, LABELLED);
    assert!(
        message.contains("expected a column number for `text`")
            && message.contains("counted from 0"),
        "{message}"
    );
}

#[test]
fn a_pair_that_is_wanted_but_not_named_is_refused() {
    let message = message(
        "text,label\none,a\n",
        Source::new("a.csv"),
        WantedFields { label: true, text_pair: true },
    );
    assert!(message.contains("hint: set `text_pair`"), "{message}");
}

#[test]
fn an_open_quote_names_the_record_that_it_starts_in() {
    for end in ["", "\n", "\r\n"] {
        let content = format!("label,text\na,one\nb,\"two\nc,three{end}");
        let message = message(&content, Source::new("a.csv"), LABELLED);
        assert!(
            message.starts_with("a.csv:3: expected a record whose quotes are closed, got an open"),
            "{message}"
        );
        assert!(message.contains("`quoting = false`"), "{message}");
    }
    assert!(message("label,text\na,\"", Source::new("a.csv"), LABELLED).starts_with("a.csv:2:"));
    assert!(message("\"label,text\na,b\n", Source::new("a.csv"), LABELLED).starts_with("a.csv:1:"));
}

#[test]
fn bad_bytes_in_a_field_name_the_file_and_the_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csv");
    std::fs::write(&path, b"\xEF\xBB\xBFtext,label\none,a\n\"caf\n\xE9\",b\n").unwrap();
    let mut examples = read(&Source::new(&path), LABELLED).unwrap();
    assert_eq!(examples.next().unwrap().unwrap().text, "one");
    let error = examples.next().unwrap().unwrap_err();
    let expected = format!("{}:4: expected UTF-8 text, got the byte 0xE9", path.display());
    assert_eq!(error.to_string(), expected);
    assert!(error.hint().unwrap().contains("`encoding`"));
    assert!(examples.next().is_none(), "nothing comes after an error");

    std::fs::write(&path, b"text,label\ncaf\xE9,b\n").unwrap();
    let source = Source { encoding: "latin1".to_owned(), ..Source::new(&path) };
    assert_eq!(read(&source, LABELLED).unwrap().next().unwrap().unwrap().text, "caf\u{E9}");
}

#[test]
fn an_empty_file_has_no_records() {
    for content in ["", "\n\n", "text,label\n", "text,label"] {
        assert!(
            read_str(content, Source::new("a.csv"), LABELLED).unwrap().is_empty(),
            "{content:?}"
        );
    }
}

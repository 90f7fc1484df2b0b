use crate::data::{Record, Source, WantedFields, read_from};

const LABELLED: WantedFields = WantedFields { label: true, text_pair: false };

fn read_str(
    content: &str,
    source: &Source,
    want: WantedFields,
) -> crate::error::Result<Vec<Record>> {
    read_from(std::io::Cursor::new(content.to_owned()), source, want)?.collect()
}

#[test]
fn strings_numbers_and_booleans_are_labels_and_blank_lines_are_skipped() {
    let content = "{\"text\": \"one \\u00e9\\n\", \"label\": \" a \"}\r\n\r\n  \n{\"label\": 3, \"text\": null}\n\
                   {\"text\": \"three\", \"label\": 2.50, \"more\": {}}\n{\"text\": \"four\", \"label\": true}";
    let examples = read_str(content, &Source::new("a.jsonl"), LABELLED).unwrap();
    let rows: Vec<_> =
        examples.iter().map(|e| (e.line.unwrap(), e.text.as_str(), e.label.as_deref())).collect();
    assert_eq!(
        rows,
        [
            (1, "one \u{e9}\n", Some("a")),
            (4, "", Some("3")),
            (5, "three", Some("2.5")),
            (6, "four", Some("true"))
        ]
    );
}

#[test]
fn ids_and_pairs_are_read_and_an_id_may_be_null() {
    let source =
        Source { text_pair: Some("b".into()), id: Some("n".into()), ..Source::new("a.jsonl") };
    let content =
        "{\"text\": \"x\", \"b\": \"y\", \"n\": 17}\n{\"text\": \"x\", \"b\": null, \"n\": null}\n";
    let examples =
        read_str(content, &source, WantedFields { label: false, text_pair: true }).unwrap();
    assert_eq!(
        (examples[0].id.as_deref(), examples[0].text_pair.as_deref()),
        (Some("17"), Some("y"))
    );
    assert_eq!((examples[1].id.as_deref(), examples[1].text_pair.as_deref()), (None, Some("")));
    assert_eq!(examples[0].label, None);
}

#[test]
fn every_error_names_file_line_and_cure() {
    for (line, message, hint) in [
        ("[1]", "expected one JSON object, got an array", "one object per line"),
        (
            "{\"text\": \"x\",",
            "expected one JSON object, got EOF while parsing a value (column 13)",
            "on one line",
        ),
        (
            "{\"label\": 1}",
            "expected the key `text` for `text`, got the keys `label`",
            "set `text`",
        ),
        (
            "{\"text\": \"x\"}",
            "expected the key `label` for `label`, got the keys `text`",
            "set `label`",
        ),
        (
            "{\"text\": 5, \"label\": 1}",
            "expected a string under `text`, got a number",
            "set `text`",
        ),
        (
            "{\"text\": \"x\", \"label\": {}}",
            "expected a string, a number or a boolean under `label`, got an object",
            "give the record a label",
        ),
        (
            "{\"text\": \"x\", \"label\": [{}]}",
            "expected strings, numbers or booleans in the list under `label`, got an object",
            "give the record labels",
        ),
        (
            "{\"text\": \"x\", \"label\": NaN}",
            "expected one JSON object, got NaN (column 24), which is not JSON",
            "null",
        ),
        (
            "{\"text\": \"x\", \"label\": -Infinity}",
            "expected one JSON object, got -Infinity (column 25), which is not JSON",
            "null",
        ),
        (
            "{\"text\": \"x \\ud83d y\", \"label\": 1}",
            "expected one JSON object, got half of a surrogate pair (column 19)",
            "one character",
        ),
    ] {
        let content = format!("{{\"text\": \"fine\", \"label\": 0}}\n\n{line}\n");
        let error = read_str(&content, &Source::new("a.jsonl"), LABELLED).unwrap_err();
        assert_eq!(error.to_string(), format!("a.jsonl:3: {message}"));
        assert!(error.hint().unwrap().contains(hint), "{}", error.hint().unwrap());
    }
}

#[test]
fn an_object_may_lack_the_key_of_its_label_where_the_unlabelled_are_left_out() {
    let source = Source { drops_unlabelled: true, ..Source::new("a.jsonl") };
    let content = "{\"text\": \"one\"}\n{\"text\": \"two\", \"label\": null}\n{\"text\": \"three\", \"label\": 0}\n";
    let examples = read_str(content, &source, LABELLED).unwrap();
    let labels: Vec<Option<&str>> = examples.iter().map(|e| e.label.as_deref()).collect();
    assert_eq!(labels, [None, None, Some("0")]);
}

#[test]
fn integers_of_any_size_keep_their_digits() {
    let source = Source { id: Some("n".into()), ..Source::new("a.jsonl") };
    let content = "{\"n\": 123456789012345678901234567890, \"text\": \"x\", \"label\": -98765432109876543210}\n\
                   {\"n\": 18446744073709551615, \"text\": \"x\", \"label\": [36893488147419103232, \"a\"]}";
    let examples = read_str(content, &source, LABELLED).unwrap();
    assert_eq!(examples[0].id.as_deref(), Some("123456789012345678901234567890"));
    assert_eq!(examples[0].label.as_deref(), Some("-98765432109876543210"));
    assert_eq!(examples[1].id.as_deref(), Some("18446744073709551615"));
    let labels = ["36893488147419103232".to_owned(), "a".to_owned()];
    assert_eq!(examples[1].labels.as_deref(), Some(&labels[..]));
}

#[test]
fn a_column_number_is_refused() {
    let source = Source { text: Some(0.into()), ..Source::new("a.jsonl") };
    let error = read_str("", &source, LABELLED).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a.jsonl: expected a name for `text`, as the keys of JSON objects have no order, got the number 0"
    );
}

use std::io::{Cursor, Write};

use serde_json::{Value, json};

use crate::data::{Answer, Record, Source, WantedFields, read, read_from};

const LABELLED: WantedFields = WantedFields { label: true, text_pair: false };

/// Two articles: the second has no title, and repeats a context of the first.
fn two_articles() -> Value {
    json!({"version": "v2.0", "data": [
        {"title": "Coffee", "paragraphs": [
            {"context": " Caf\u{e9}s \u{1f600} sell coffee. ", "document_id": 1, "qas": [
                {"id": "a1", "question": "What do they sell?", "is_impossible": false, "answers": [
                    {"text": "coffee", "answer_start": 14}, {"text": "coffee. ", "answer_start": 14}]},
                {"id": 17, "question": " Who? ", "is_impossible": true, "answers": [],
                 "plausible_answers": [{"text": "Caf\u{e9}s", "answer_start": 1}]}]},
            {"context": "", "qas": [{"question": "Why?", "answers": [{"text": "So", "answer_start": 0}]}]}]},
        {"paragraphs": [
            {"context": " Caf\u{e9}s \u{1f600} sell coffee. ", "qas": []},
            {"context": " Caf\u{e9}s \u{1f600} sell coffee. ", "qas": [
                {"id": null, "question": "What?", "answers": [{"text": "coffee", "answer_start": 15}]}]}]}]})
}

fn read_str(content: &str, want: WantedFields) -> crate::error::Result<Vec<Record>> {
    read_from(Cursor::new(content.to_owned()), &Source::new("a.json"), want)?.collect()
}

/// Returns the message for a file of a valid article and one with this paragraph.
fn error(paragraph: Value) -> String {
    let mut file = two_articles();
    file["data"][1] =
        json!({"title": "Tea", "paragraphs": [{"context": "c", "qas": []}, paragraph]});
    read_str(&file.to_string(), LABELLED).unwrap_err().to_string()
}

#[test]
fn a_question_has_its_context_its_answers_and_its_id() {
    let examples = read_str(&two_articles().to_string(), LABELLED).unwrap();
    let rows: Vec<_> = examples
        .iter()
        .map(|example| {
            let answers = example.answers.as_ref().unwrap();
            let starts: Vec<usize> = answers.iter().map(|answer| answer.start).collect();
            (example.id.as_deref(), example.text.as_str(), starts)
        })
        .collect();
    assert_eq!(
        rows,
        [
            (Some("a1"), "What do they sell?", vec![14, 14]),
            (Some("17"), " Who? ", vec![]),
            (None, "Why?", vec![0]),
            (None, "What?", vec![15]),
        ]
    );
    let context = " Caf\u{e9}s \u{1f600} sell coffee. ";
    assert_eq!(examples[1].text_pair.as_deref(), Some(context));
    let impossible: Vec<bool> = examples.iter().map(Record::is_impossible).collect();
    assert_eq!(impossible, [false, true, false, false]);
    let empty: Vec<bool> = examples.iter().map(Record::is_empty).collect();
    assert_eq!(empty, [false, false, true, false]);
}

#[test]
fn an_answer_that_is_not_where_it_says_is_kept_with_its_white_space() {
    let examples = read_str(&two_articles().to_string(), LABELLED).unwrap();
    let matches: Vec<Vec<bool>> = examples
        .iter()
        .map(|example| {
            let context = example.text_pair.as_deref().unwrap();
            let answers = example.answers.iter().flatten();
            answers.map(|answer: &Answer| answer.matches(context)).collect()
        })
        .collect();
    assert_eq!(matches, [vec![true, true], vec![], vec![false], vec![false]]);
    assert_eq!(examples[0].answers.as_ref().unwrap()[1].text, "coffee. ");
}

#[test]
fn questions_about_one_context_have_one_group_in_whatever_article() {
    let examples = read_str(&two_articles().to_string(), WantedFields::default()).unwrap();
    let groups: Vec<&str> = examples.iter().map(|e| e.group.as_deref().unwrap()).collect();
    assert_eq!(groups[0], groups[1]);
    assert_eq!(groups[0], groups[3]);
    assert_ne!(groups[0], groups[2]);
}

#[test]
fn without_wanted_labels_a_question_needs_no_answers() {
    let file = json!({"data": [{"paragraphs": [{"context": "c", "qas": [{"id": "1", "question": "q"}]}]}]});
    let examples = read_str(&file.to_string(), WantedFields::default()).unwrap();
    assert_eq!((examples[0].answers.as_ref(), examples[0].line), (None, None));
    assert!(!examples[0].is_impossible());
    assert!(read_str(&file.to_string(), LABELLED).is_err());
    assert!(read_str(r#"{"data": []}"#, LABELLED).unwrap().is_empty());
}

#[test]
fn what_a_question_lacks_is_named_with_its_place() {
    let question = |question: Value| {
        json!({"context": "c", "qas": [{"id": "q0", "question": "?",
        "answers": [{"text": "c", "answer_start": 0}]}, question]})
    };
    let place = "for question `q1`, in paragraph 2 of article 2 `Tea`";
    for (paragraph, message) in [
        (json!({"qas": []}), "a `context` in paragraph 2 of article 2 `Tea`, got none".to_owned()),
        (question(json!({"id": "q1", "answers": [{"text": "c", "answer_start": 0}]})),
         format!("a `question` {place}, got none")),
        (question(json!({"question": "?"})),
         "an answer, or `is_impossible: true` for question 2 of paragraph 2 of article 2 `Tea`, got neither".to_owned()),
        (question(json!({"id": "q1", "question": "?", "answers": [], "is_impossible": false})),
         format!("an answer, or `is_impossible: true` {place}, got neither")),
        (question(json!({"id": "q1", "question": "?", "answers": [{"text": "c", "answer_start": 0}], "is_impossible": true})),
         format!("no answer, as `is_impossible` is true {place}, got 1 under `answers`")),
        (question(json!({"id": "q1", "question": "?", "answers": [{"answer_start": 0}]})),
         format!("the `text` of every answer {place}, got an answer without it")),
        (question(json!({"id": "q1", "question": "?", "answers": [{"text": "c"}]})),
         format!("the `answer_start` of every answer {place}, got an answer without it")),
        (question(json!({"id": "q1", "question": "?", "answers": [{"text": "c", "answer_start": -1}]})),
         format!("an `answer_start` of 0 or more {place}, got -1")),
        (question(json!({"id": [], "question": "?"})),
         "a string or a number as `id` for question 2 of paragraph 2 of article 2 `Tea`, got an array".to_owned()),
    ] {
        assert_eq!(error(paragraph), format!("a.json: expected {message}"));
    }
}

#[test]
fn a_file_of_another_shape_is_named_with_line_and_column() {
    for (content, got) in [
        ("", ":1: ", "EOF while parsing a value (column 0)"),
        (
            "{\"data\": [\n{\"title\": 5}]}",
            ":2: ",
            "invalid type: integer `5`, expected a string (column 12)",
        ),
        ("{\"data\": [\n\n{\"title\": \"x\"}]}", ":3: ", "missing field `paragraphs` (column 14)"),
        ("{\"version\": \"1\"}", ":1: ", "missing field `data` (column 16)"),
        ("{\"data\": []}\n{\"data\": []}", ":2: ", "trailing characters (column 1)"),
        ("{\"data\": [", ":1: ", "EOF while parsing a list (column 10)"),
    ]
    .map(|(content, line, got)| {
        (
            content,
            format!(
                "a.json{line}expected one JSON object as in SQuAD: `data` with `paragraphs`, each a `context` with \
                 `qas`, got {got}"
            ),
        )
    }) {
        let error = read_str(content, LABELLED).unwrap_err();
        assert_eq!(error.to_string(), got);
        assert!(error.hint().unwrap().contains("jsonl"));
    }
}

#[test]
fn a_list_of_very_many_values_that_are_no_questions_is_refused() {
    let items = "1,".repeat(1 << 20);
    let file = format!(
        "{{\"data\": [{{\"paragraphs\": [{{\"context\": \"c\", \"qas\": [{items}1]}}]}}]}}"
    );
    let error = read_str(&file, LABELLED).unwrap_err().to_string();
    assert!(error.contains("more than 1048576 questions about one context"), "{error}");
}

#[test]
fn gzip_a_byte_order_mark_and_bytes_that_do_not_decode_are_met_as_in_all_text_formats() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.json.gz");
    let file = std::fs::File::create(&path).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    write!(gzip, "\u{feff}{}", two_articles()).unwrap();
    gzip.finish().unwrap();
    let examples = read(&Source::new(&path), LABELLED).unwrap();
    assert_eq!(examples.count(), 4);

    let bytes = b"{\"data\":\n[{\"title\": \"caf\xE9\"".to_vec();
    let error = read_from(Cursor::new(bytes), &Source::new("a.json"), LABELLED).err().unwrap();
    assert_eq!(error.to_string(), "a.json:2: expected UTF-8 text, got the byte 0xE9");
}

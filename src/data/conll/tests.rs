use std::io::Cursor;

use crate::data::{Format, Record, Source, WantedFields, read_from};

const LABELLED: WantedFields = WantedFields { label: true, text_pair: false };

fn source() -> Source {
    Source { format: Some(Format::Conll), ..Source::new("a.iob") }
}

fn read_bytes(
    content: &[u8],
    source: &Source,
    want: WantedFields,
) -> crate::error::Result<Vec<Record>> {
    read_from(Cursor::new(content.to_vec()), source, want)?.collect()
}

/// Returns the line of each sentence and, for each of its words, `word/tag`.
fn sentences(content: &str, source: &Source) -> Vec<(u64, String)> {
    let examples = read_bytes(content.as_bytes(), source, LABELLED).unwrap();
    let sentence = |example: Record| {
        let words = example.words.unwrap();
        assert_eq!(example.text, words.join(" "));
        let pairs = words.iter().zip(example.tags.unwrap());
        let pairs: Vec<String> = pairs.map(|(word, tag)| format!("{word}/{tag}")).collect();
        (example.line.unwrap(), pairs.join(" "))
    };
    examples.into_iter().map(sentence).collect()
}

fn sentence(line: u64, words: &str) -> (u64, String) {
    (line, words.to_owned())
}

fn error(content: &str, source: &Source) -> (String, String) {
    let error = read_bytes(content.as_bytes(), source, LABELLED).unwrap_err();
    (error.to_string(), error.hint().unwrap().to_owned())
}

/// Reads a sentence with these tags, separated by spaces, and returns its tags in the same form.
fn tags(tags: &str) -> String {
    let lines: String = tags.split(' ').map(|tag| format!("w\t{tag}\n")).collect();
    let examples = read_bytes(lines.as_bytes(), &source(), LABELLED).unwrap();
    examples[0].tags.as_ref().unwrap().join(" ")
}

#[test]
fn blank_lines_and_lone_tabs_end_sentences_and_several_are_one() {
    let content = "\n\nIn\tO\nRome\tB-LOC\n\t\n\t\n \nYes\tO\n\n.\tO";
    let expected = [sentence(3, "In/O Rome/B-LOC"), sentence(8, "Yes/O"), sentence(10, "./O")];
    assert_eq!(sentences(content, &source()), expected);
    let crlf = format!("\u{feff}{}\r\n\r\n", content.replace('\n', "\r\n"));
    assert_eq!(sentences(&crlf, &source()), expected);
    for content in ["", "\n", "\t\n\n"] {
        assert!(sentences(content, &source()).is_empty());
    }
}

#[test]
fn columns_stand_between_tabs_or_runs_of_spaces() {
    let content = "EU NNP  I-NP B-ORG \nrejects   VBZ I-VP O\n\nNew York\tNNP\tI-NP\tB-LOC\n";
    assert_eq!(
        sentences(content, &source()),
        [sentence(1, "EU/B-ORG rejects/O"), sentence(4, "New York/B-LOC")]
    );
    let chosen = Source { words: Some(1.into()), tags: Some(2.into()), ..source() };
    assert_eq!(
        sentences(content, &chosen),
        [sentence(1, "NNP/B-NP VBZ/B-VP"), sentence(4, "NNP/B-NP")]
    );
}

#[test]
fn white_space_of_other_kinds_may_be_a_word() {
    let content = "\u{a0}\tO\n\u{feff}\tO\n\u{3000} O\n";
    let examples = read_bytes(content.as_bytes(), &source(), LABELLED).unwrap();
    assert_eq!(examples[0].words.as_ref().unwrap(), &["\u{a0}", "\u{feff}", "\u{3000}"]);
}

#[test]
fn without_wanted_labels_words_may_stand_alone() {
    let examples =
        read_bytes(b"one\ntwo\n\nthree O\n", &source(), WantedFields::default()).unwrap();
    let expected = [
        Record {
            text: "one two".to_owned(),
            words: Some(vec!["one".to_owned(), "two".to_owned()]),
            line: Some(1),
            ..Record::default()
        },
        Record {
            text: "three".to_owned(),
            words: Some(vec!["three".to_owned()]),
            line: Some(4),
            ..Record::default()
        },
    ];
    assert_eq!(examples, expected);
}

#[test]
fn docstart_lines_number_the_documents_and_end_sentences() {
    let content = "zero O\n-DOCSTART- -X- -X- O\n\none O\n\ntwo O\n-DOCSTART-\tO\nthree O\n";
    let examples = read_bytes(content.as_bytes(), &source(), LABELLED).unwrap();
    let rows: Vec<_> =
        examples.iter().map(|e| (e.text.as_str(), e.group.as_deref(), e.line.unwrap())).collect();
    assert_eq!(
        rows,
        [("zero", None, 1), ("one", Some("1"), 4), ("two", Some("1"), 6), ("three", Some("2"), 8)]
    );
}

#[test]
fn iob1_becomes_iob2() {
    for (iob1, iob2) in [
        ("I-PER I-PER O I-LOC", "B-PER I-PER O B-LOC"),
        ("I-PER B-PER I-PER", "B-PER B-PER I-PER"),
        ("O I-LOC I-PER B-PER O", "O B-LOC B-PER B-PER O"),
        ("I-creative-work I-creative-work", "B-creative-work I-creative-work"),
    ] {
        assert_eq!(tags(iob1), iob2);
    }
}

#[test]
fn an_entity_never_goes_on_in_the_next_sentence() {
    let content = "a I-X\nb I-X\n\nc I-X\n";
    assert_eq!(sentences(content, &source()), [sentence(1, "a/B-X b/I-X"), sentence(4, "c/B-X")]);
}

#[test]
fn what_is_iob2_or_something_else_stays_as_it_is() {
    for same in [
        "B-PER I-PER B-PER O B-LOC I-LOC",
        "O O",
        "NN O VBZ",
        "O I B",
        "B-X E-X S-Y I-Y",
        "B-a,B-b I-a,I-b O I-a",
        "I- O I-X",
    ] {
        assert_eq!(tags(same), same);
    }
}

#[test]
fn a_line_that_lacks_something_is_named() {
    for (lines, message) in [
        ("Paris", "at least 2 columns, the last of them the word's tag, got 1 column"),
        ("Paris\t", "a tag in column number 1, got none in `Paris\\t`"),
        ("\tB-LOC", "a word in column number 0, got none in `\\tB-LOC`"),
        (" \tB-LOC", "a word in column number 0, got none in `\\tB-LOC`"),
        ("New York B-LOC", "2 columns, as in line 3, where the sentence starts, got 3 columns"),
    ] {
        let (error, hint) = error(&format!("a O\n\nIn O\n{lines}\n"), &source());
        assert_eq!(error, format!("a.iob:4: expected {message}"));
        assert!(hint.contains("`words`") && hint.contains("`tags`"), "{hint}");
    }
    let third = Source { tags: Some(2.into()), ..source() };
    assert_eq!(
        error("a x O\n\nb O\n", &third).0,
        "a.iob:3: expected at least 3 columns, to reach column number 2, got 2 columns"
    );
}

#[test]
fn what_the_format_does_not_have_is_refused_before_the_first_line() {
    for (source, message) in [
        (
            Source { words: Some("FORM".into()), ..source() },
            "a column number for `words`, as a conll file does not name its columns, got the name `FORM`",
        ),
        (
            Source { tags: Some("ner".into()), ..source() },
            "a column number for `tags`, as a conll file does not name its columns, got the name `ner`",
        ),
        (
            Source { id: Some(0.into()), ..source() },
            "no `id`, as the sentences of a conll file have no names, got an `id`",
        ),
        (
            Source { label: Some(3.into()), ..source() },
            "`tags`, as a sentence of a conll file has a tag for each word, got a `label`",
        ),
    ] {
        assert_eq!(error("", &source).0, format!("a.iob: expected {message}"));
    }
    let pair = WantedFields { label: false, text_pair: true };
    let error = read_bytes(b"", &source(), pair).unwrap_err();
    assert!(error.to_string().contains("has no second one, got a `text_pair`"), "{error}");
}

#[test]
fn other_encodings_and_gzip_are_read_as_in_all_text_formats() {
    let latin1 = Source { encoding: "latin1".to_owned(), ..source() };
    let examples = read_bytes(b"caf\xE9\tO\n", &latin1, LABELLED).unwrap();
    assert_eq!(examples[0].text, "caf\u{e9}");
    let error = read_bytes(b"a\tO\n\ncaf\xE9\tO\n", &source(), LABELLED).unwrap_err();
    assert_eq!(error.to_string(), "a.iob:3: expected UTF-8 text, got the byte 0xE9");
}

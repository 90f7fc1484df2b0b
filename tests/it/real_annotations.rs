//! The readers of words and questions on public data sets, compared with an independent parser in Python
//! (`scripts/fixtures/annotated_data.py`).

use std::collections::HashSet;

use frostbert::internals::data::{Format, Record, Source, WantedFields};
use serde::Deserialize;

use crate::real_readers::{data_set, examples};

const LABELLED: WantedFields = WantedFields { label: true, text_pair: false };

#[derive(Deserialize)]
struct Fixture {
    words: Vec<WordsCase>,
    squad: Vec<SquadCase>,
}

#[derive(Deserialize)]
struct WordsCase {
    file: String,
    examples: usize,
    words: usize,
    tags: usize,
    entities: usize,
    /// The number of tags that differ from the file.
    made_iob2: usize,
    groups: usize,
    crc32: u32,
}

#[derive(Deserialize)]
struct SquadCase {
    file: String,
    examples: usize,
    impossible: usize,
    answers: usize,
    matching: usize,
    groups: usize,
    crc32: u32,
}

fn fixture() -> Fixture {
    serde_json::from_str(include_str!("../../tests/fixtures/annotated_data.json")).unwrap()
}

fn crc32(texts: impl Iterator<Item = String>) -> u32 {
    let mut crc = flate2::Crc::new();
    for text in texts {
        crc.update(text.as_bytes());
    }
    crc.sum()
}

fn n_groups(examples: &[Record]) -> usize {
    let groups = examples.iter().filter_map(|e| e.group.as_deref());
    groups.collect::<HashSet<_>>().len()
}

fn tagged_words(example: &Record) -> impl Iterator<Item = (&String, &String)> {
    let tags = example.tags.as_ref().unwrap();
    example.words.as_ref().unwrap().iter().zip(tags)
}

/// Formats a sentence as for the fixture's checksum.
fn sentence_lines(example: &Record) -> String {
    let name = |name: &Option<String>| name.clone().unwrap_or_default();
    let line = example.line.unwrap();
    let mut lines = format!("{line}\t{}\t{}\n", name(&example.id), name(&example.group));
    for (word, tag) in tagged_words(example) {
        lines.push_str(&format!("{word}\t{tag}\n"));
    }
    lines
}

/// Formats a question as for the fixture's checksum.
fn question_lines(example: &Record) -> String {
    let id = example.id.as_deref().unwrap();
    let context = example.text_pair.as_deref().unwrap();
    let mut lines = format!("{id}\n{}\n{context}\n", example.text);
    for answer in example.answers.as_ref().unwrap() {
        lines.push_str(&format!("{}\t{}\n", answer.start, answer.text));
    }
    lines
}

#[test]
fn sentences_words_tags_lines_and_documents_are_those_of_another_parser() {
    for case in fixture().words {
        let Some(path) = data_set(&case.file) else {
            return;
        };
        let by_extension = Source::new(path);
        let source = Source {
            // The annotated test file of WNUT17 has an unusual extension.
            format: by_extension.resolve_format().ok().or(Some(Format::Conll)),
            ..by_extension
        };
        let examples = examples(&source, LABELLED);
        let tags = || examples.iter().flat_map(tagged_words).map(|(_, tag)| tag);
        let counts = (
            examples.len(),
            tags().count(),
            tags().collect::<HashSet<_>>().len(),
            tags().filter(|tag| tag.starts_with("B-")).count(),
            n_groups(&examples),
        );
        let expected = (case.examples, case.words, case.tags, case.entities, case.groups);
        assert_eq!(counts, expected, "{}", case.file);
        let crc32 = crc32(examples.iter().map(sentence_lines));
        assert_eq!(crc32, case.crc32, "{}", case.file);
        for example in &examples {
            assert_eq!(example.text, example.words.as_ref().unwrap().join(" "));
            assert!(!example.is_empty());
        }
    }
}

#[test]
fn the_published_counts_of_wnut17_ud_ewt_and_squad_are_those_of_the_fixture() {
    let Fixture { words, squad } = fixture();
    let made_iob2: Vec<_> = words.iter().map(|case| case.made_iob2).collect();
    let words: Vec<_> =
        words.iter().map(|case| (case.examples, case.words, case.entities)).collect();
    // In the test file that has several tags in some cells, one annotator made a mistake: an entity that starts with
    // `I-`.
    assert_eq!(made_iob2, [0, 0, 0, 1, 0, 0]);
    assert_eq!(words[0], (3_394, 62_730, 1_975));
    assert_eq!(words[1], (1_009, 15_733, 836));
    assert_eq!(words[2], (1_287, 23_394, 1_079));
    assert_eq!(words[4], (2_001, 25_147, 0));
    assert_eq!(words[5], (2_077, 25_094, 0));
    let squad: Vec<_> = squad
        .iter()
        .map(|case| (case.examples, case.impossible, case.answers, case.matching, case.groups))
        .collect();
    assert_eq!(squad[0], (2_910, 0, 10_052, 10_052, 646));
    assert_eq!(squad[1], (838, 0, 838, 838, 160));
    assert_eq!(squad[2], (6_078, 3_168, 10_052, 10_052, 646));
}

#[test]
fn questions_contexts_and_answers_are_those_of_another_parser() {
    for case in fixture().squad {
        let Some(path) = data_set(&case.file) else {
            return;
        };
        let source = Source::new(path);
        let examples = examples(&source, LABELLED);
        let mut answers = Vec::new();
        for example in &examples {
            let context = example.text_pair.as_deref().unwrap();
            let given = example.answers.iter().flatten();
            answers.extend(given.map(|answer| answer.matches(context)));
        }
        let counts = (
            examples.len(),
            examples.iter().filter(|e| e.is_impossible()).count(),
            answers.len(),
            answers.iter().filter(|matches| **matches).count(),
            n_groups(&examples),
        );
        let expected = (case.examples, case.impossible, case.answers, case.matching, case.groups);
        assert_eq!(counts, expected, "{}", case.file);
        let crc32 = crc32(examples.iter().map(question_lines));
        assert_eq!(crc32, case.crc32, "{}", case.file);
    }
}

#[test]
fn without_labels_the_same_texts_are_read() {
    let files =
        ["wnut17/wnut17train.conll", "ud_ewt/en_ewt-ud-dev.conllu", "squad2_cs224n/dev-v2.0.json"];
    for file in files {
        let Some(path) = data_set(file) else {
            return;
        };
        let source = Source::new(path);
        let unlabelled = examples(&source, LABELLED).into_iter().map(|example| Record {
            tags: None,
            answers: None,
            ..example
        });
        assert!(unlabelled.eq(examples(&source, WantedFields::default())), "{file}");
    }
}

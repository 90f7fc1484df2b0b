//! Compares what data/README.md says about the files next to it with what the library's readers find in them.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
};

use frostbert::internals::{
    data::{ColumnName, LabelMap, Record, Source, WantedFields, read},
    metrics::tag_scheme::{TagScheme, entities_strict},
};
use regex::Regex;

use crate::support::repository;

fn readme() -> String {
    fs::read_to_string(repository().join("data/README.md")).unwrap()
}

fn source(name: &str) -> Source {
    Source::new(repository().join("data").join(name))
}

fn source_with_label(name: &str, label: &str) -> Source {
    Source { label: Some(ColumnName::from(label)), ..source(name) }
}

fn records(source: &Source, want: WantedFields) -> Vec<Record> {
    let records: Result<Vec<Record>, _> = read(source, want).unwrap().collect();
    records.unwrap()
}

const LABELS: WantedFields = WantedFields { label: true, text_pair: false };

fn labelled(name: &str, label: &str) -> Vec<Record> {
    records(&source_with_label(name, label), LABELS)
}

fn texts(name: &str) -> Vec<String> {
    let examples = records(&source(name), WantedFields::default());
    examples.into_iter().map(|example| example.text).collect()
}

/// Returns the cells of the table row for this file or label.
fn row_of(readme: &str, name: &str) -> Vec<String> {
    let start = format!("| `{name}`");
    let line = readme.lines().find(|line| line.starts_with(&start));
    let line = line.unwrap_or_else(|| panic!("data/README.md has no row of {name}"));
    line.split('|').skip(2).map(|cell| cell.trim().to_string()).collect()
}

/// Returns the numbers in a text, in order; `2,261` is a single number.
fn numbers(text: &str) -> Vec<usize> {
    let pattern = Regex::new(r"\d+(,\d{3})*").unwrap();
    let found = pattern.find_iter(text);
    found.map(|number| number.as_str().replace(',', "").parse().unwrap()).collect()
}

fn counts<'a>(names: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    counts
}

#[test]
fn every_file_of_data_has_a_row_with_its_number_of_records() {
    let readme = readme();
    for entry in fs::read_dir(repository().join("data")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        // banking77 is a folder and has its own section.
        if name == "README.md" || name == "banking77" {
            continue;
        }
        let stated = numbers(&row_of(&readme, &name)[0])[0];
        assert_eq!(texts(&name).len(), stated, "records of {name}");
    }
}

#[test]
fn the_entities_are_iob2_and_as_many_of_each_type_as_the_readme_says() {
    let sentences = records(&source("entities.conll"), LABELS);
    let row = row_of(&readme(), "entities.conll");
    let n_words = sentences.iter().flat_map(|sentence| &sentence.words).map(Vec::len);
    assert_eq!(numbers(&row[0])[1], n_words.sum::<usize>());

    let raw = fs::read_to_string(repository().join("data/entities.conll")).unwrap();
    let raw: Vec<&str> = raw.lines().filter_map(|line| Some(line.split_once('\t')?.1)).collect();
    let tags: Vec<&str> = sentences
        .iter()
        .flat_map(|sentence| sentence.tags.iter().flatten())
        .map(String::as_str)
        .collect();
    // The reader converts other tags to IOB2, so tags that it does not change are in IOB2.
    assert_eq!(raw, tags);

    let labels = LabelMap::from_train(tags.iter().copied());
    let scheme = TagScheme::new(labels.names()).expect("labels of IOB2");
    let mut found = BTreeMap::new();
    let mut n_without = 0;
    for sentence in &sentences {
        let tags = sentence.tags.iter().flatten();
        let ids: Vec<usize> = tags.map(|tag| labels.id(tag).unwrap()).collect();
        let entities = entities_strict(&scheme, &ids);
        n_without += usize::from(entities.is_empty());
        for entity in entities {
            *found.entry(scheme.types[entity.kind].as_str()).or_default() += 1;
        }
    }
    let pattern = Regex::new(r"(\d+) `([A-Z]+)`").unwrap();
    let stated: BTreeMap<&str, usize> = pattern
        .captures_iter(&row[1])
        .map(|found| (found.get(2).unwrap().as_str(), found[1].parse().unwrap()))
        .collect();
    assert_eq!(found, stated);
    assert_eq!(numbers(&row[1]).last(), Some(&n_without));
}

#[test]
fn every_answer_stands_in_its_context_where_it_says() {
    let questions = records(&source("questions.json"), LABELS);
    let contexts: HashSet<&str> =
        questions.iter().filter_map(|question| question.text_pair.as_deref()).collect();
    let impossible = questions.iter().filter(|question| question.is_impossible()).count();
    let row = row_of(&readme(), "questions.json");
    assert_eq!(numbers(&row[0]), [questions.len(), contexts.len()]);
    assert_eq!(numbers(&row[1]), [impossible]);
    for question in &questions {
        let context = question.text_pair.as_deref().unwrap();
        for answer in question.answers.iter().flatten() {
            assert!(answer.matches(context), "{:?}: {answer:?}", question.id);
        }
    }
}

#[test]
fn the_labels_of_reviews_and_topics_are_as_many_as_the_readme_says() {
    let readme = readme();
    let reviews = labelled("reviews.csv", "label");
    let topics = labelled("reviews.csv", "topic");
    let held_out = labelled("held_out.csv", "label");
    for label in ["negative", "neutral", "positive"] {
        let is_label = |example: &&Record| example.label.as_deref() == Some(label);
        let of_topic = |topic: &str| {
            let both = reviews.iter().zip(&topics);
            both.filter(|(review, other)| is_label(review) && other.label.as_deref() == Some(topic))
                .count()
        };
        let stated = numbers(&row_of(&readme, label).join(" "));
        let found = [
            reviews.iter().filter(is_label).count(),
            of_topic("product"),
            of_topic("movie"),
            held_out.iter().filter(is_label).count(),
        ];
        assert_eq!(stated, found, "{label}");
    }

    let source = source_with_label("topics.csv", "labels");
    let rows = records(&source, LABELS);
    let labels: Vec<Vec<_>> =
        rows.iter().map(|row| source.split_labels(row.label.as_deref().unwrap())).collect();
    let each = counts(labels.iter().flatten().map(|label| &**label));
    let line = |start: &str| {
        let mut lines = readme.lines().skip_while(|line| !line.starts_with(start));
        (lines.next().unwrap(), lines.nth(1).unwrap())
    };
    let (names, stated) = line("| `business`");
    let names: Vec<&str> = names.split('`').skip(1).step_by(2).collect();
    let stated: BTreeMap<&str, usize> = names.into_iter().zip(numbers(stated)).collect();
    assert_eq!(each, stated);
    let sizes = [1, 2, 3].map(|n| labels.iter().filter(|labels| labels.len() == n).count());
    let [one, two, three] = sizes;
    let sentence = format!("{one} texts have one label, {two} two and {three} three");
    assert!(readme.contains(&sentence), "{sentence}");
    assert_eq!(one + two + three, rows.len());
}

#[test]
fn scores_of_pairs_run_from_0_to_5_and_every_pair_is_whole() {
    let source = Source {
        text_pair: Some(ColumnName::from("text_pair")),
        ..source_with_label("pairs.tsv", "score")
    };
    let want = WantedFields { label: true, text_pair: true };
    for pair in records(&source, want) {
        let score: f64 = pair.label.as_deref().unwrap().parse().unwrap();
        assert!((0.0..=5.0).contains(&score), "{pair:?}");
        assert!(!pair.is_empty(), "{pair:?}");
    }
}

#[test]
fn held_out_texts_are_the_same_in_both_files_and_none_is_trained_on() {
    let held_out = texts("held_out.csv");
    assert_eq!(held_out, texts("held_out.txt"));
    let trained: HashSet<String> = texts("reviews.csv").into_iter().collect();
    for text in held_out.iter().chain(&texts("new_reviews.txt")) {
        assert!(!trained.contains(text), "{text}");
    }
}

#[test]
fn the_readme_names_every_pipeline_that_reads_a_file() {
    let readme = readme();
    let (_, uses) = readme.split_once("## What it is for").unwrap();
    let pattern = Regex::new(r#"path = "data/([^"]+)""#).unwrap();
    let mut n_files = 0;
    for entry in fs::read_dir(repository().join("pipelines")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        for file in pattern.captures_iter(&fs::read_to_string(&path).unwrap()) {
            let row = row_of(uses, &file[1]);
            assert!(row[0].contains(&format!("`{name}`")), "{}: {name}", &file[1]);
            n_files += 1;
        }
    }
    assert!(n_files > 9, "{n_files} files are read by pipelines");
}

//! Cleaning: drops empty and repeated records, reports contradictory ones, and counts all of them.
//!
//! The target of a record is compared as a string: a label, all labels of a cell in a fixed order, a number, a tag for
//! each word. Equal sentences with other tags are not duplicates.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    hash::Hash,
};

use frostbert_cache::wording::shorten;
use serde::{Deserialize, Serialize};

use super::record::Record;
use crate::error::Result;

/// Number of duplicates and conflicts that are listed, of all that are counted.
const N_LISTED: usize = 5;

/// What to drop: `data.clean` of a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanOptions {
    /// Drop records without a text: see [`Record::is_empty`].
    pub drop_empty: bool,
    /// Of records with the same text and the same target, keep the first.
    pub drop_duplicates: bool,
    /// Drop records without a label, in every file; otherwise they are an error.
    pub drop_unlabelled: bool,
}

/// The findings of cleaning. Whether empty and repeated records are also dropped depends on [`CleanOptions`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CleanCounts {
    /// Number of records read.
    pub read: usize,
    /// Number of records without a text.
    pub empty: usize,
    /// Number of records that repeat the text and the target of an earlier record.
    pub duplicates: usize,
    /// The first few of these.
    pub repeats: Vec<Repeat>,
    /// Number of texts (not records) that occur with two or more targets. They are kept.
    pub conflicting: usize,
    /// The first few of these.
    pub conflicts: Vec<Conflict>,
}

/// The place of a record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordLine {
    /// The index of its source: see [`Record::source`].
    pub source: usize,
    /// Its line: see [`Record::line`].
    pub line: Option<u64>,
}

impl RecordLine {
    fn of(example: &Record) -> RecordLine {
        RecordLine { source: example.source, line: example.line }
    }
}

/// A record that repeats the text and the target of an earlier one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Repeat {
    /// The text, shortened.
    pub text: String,
    /// The first record with the text (whatever its target).
    pub first: RecordLine,
    /// The repeating record.
    pub other: RecordLine,
}

/// A text that occurs with two targets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Conflict {
    /// The text, shortened.
    pub text: String,
    /// Its first target; `None` for a record without one.
    pub first_label: Option<String>,
    /// The first record.
    pub first: RecordLine,
    /// The first other target.
    pub other_label: Option<String>,
    /// The record with the other target.
    pub other: RecordLine,
}

impl Default for CleanOptions {
    fn default() -> Self {
        CleanOptions { drop_empty: true, drop_duplicates: true, drop_unlabelled: false }
    }
}

/// Reads `examples` to their end and returns those to keep, in order, with the counts. Fails with their first error.
///
/// `key` identifies a text: a hash of `text`, and of `text_pair` if there is one. Only keys are stored, never a second
/// copy of a text, so they must be wide enough that no two texts share one. An empty text that is kept is treated like
/// any other. `target` formats the target of a record, equal targets in the same way.
pub(crate) fn clean<K: Eq + Hash + Clone>(
    examples: impl IntoIterator<Item = Result<Record>>,
    options: CleanOptions,
    key: impl Fn(&Record) -> K,
    target: impl Fn(&Record) -> Option<String>,
) -> Result<(Vec<Record>, CleanCounts)> {
    let mut seen = SeenTexts::default();
    let mut counts = CleanCounts::default();
    let mut kept = Vec::new();
    for example in examples {
        let example = example?;
        counts.read += 1;
        if example.is_empty() {
            counts.empty += 1;
            if options.drop_empty {
                continue;
            }
        }
        match seen.add(key(&example), target(&example), &example) {
            Repetition::New => {}
            Repetition::Duplicate(repeat) => {
                counts.duplicates += 1;
                if counts.repeats.len() < N_LISTED {
                    counts.repeats.push(repeat);
                }
                if options.drop_duplicates {
                    continue;
                }
            }
            Repetition::Conflict(conflict) => {
                counts.conflicting += 1;
                if counts.conflicts.len() < N_LISTED {
                    counts.conflicts.push(conflict);
                }
            }
        }
        kept.push(example);
    }
    Ok((kept, counts))
}

/// The texts seen so far. Targets are stored as numbers, so that each string is held once.
struct SeenTexts<K> {
    label_numbers: HashMap<Option<String>, usize>,
    labels: Vec<Option<String>>,
    first: HashMap<K, FirstRecord>,
    /// The labels of a text other than its first one.
    others: HashSet<(K, usize)>,
}

/// The first record with a text.
struct FirstRecord {
    label: usize,
    place: RecordLine,
    has_others: bool,
}

enum Repetition {
    /// A new text, or another label of a text that is already known to conflict.
    New,
    Duplicate(Repeat),
    /// A text with a second target.
    Conflict(Conflict),
}

impl<K: Eq + Hash + Clone> SeenTexts<K> {
    fn add(&mut self, key: K, target: Option<String>, example: &Record) -> Repetition {
        let label = self.label_number(&target);
        let place = RecordLine::of(example);
        let first = match self.first.entry(key.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(FirstRecord { label, place, has_others: false });
                return Repetition::New;
            }
            Entry::Occupied(entry) => entry.into_mut(),
        };
        if first.label == label || !self.others.insert((key, label)) {
            return Repetition::Duplicate(Repeat {
                text: shorten(&example.text, 80),
                first: first.place,
                other: place,
            });
        }
        if std::mem::replace(&mut first.has_others, true) {
            return Repetition::New;
        }
        Repetition::Conflict(Conflict {
            text: shorten(&example.text, 80),
            first_label: self.labels[first.label].clone(),
            first: first.place,
            other_label: target,
            other: place,
        })
    }

    fn label_number(&mut self, label: &Option<String>) -> usize {
        if let Some(&number) = self.label_numbers.get(label) {
            return number;
        }
        self.label_numbers.insert(label.clone(), self.labels.len());
        self.labels.push(label.clone());
        self.labels.len() - 1
    }
}

impl<K> Default for SeenTexts<K> {
    fn default() -> Self {
        SeenTexts {
            label_numbers: HashMap::new(),
            labels: Vec::new(),
            first: HashMap::new(),
            others: HashSet::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Drops nothing.
    const NOTHING: CleanOptions =
        CleanOptions { drop_empty: false, drop_duplicates: false, drop_unlabelled: false };
    use crate::error::Error;

    fn examples(rows: &[(&str, Option<&str>)]) -> Vec<Result<Record>> {
        let example = |(i, (text, label)): (usize, &(&str, Option<&str>))| {
            Ok(Record {
                text: (*text).to_owned(),
                label: label.map(str::to_owned),
                line: Some(i as u64 + 1),
                ..Record::default()
            })
        };
        rows.iter().enumerate().map(example).collect()
    }

    fn cleaned(rows: &[(&str, Option<&str>)], options: CleanOptions) -> (Vec<u64>, CleanCounts) {
        let (kept, counts) = clean(
            examples(rows),
            options,
            |example| example.text.clone(),
            |example| example.label.clone(),
        )
        .unwrap();
        (kept.iter().map(|example| example.line.unwrap()).collect(), counts)
    }

    fn at(line: u64) -> RecordLine {
        RecordLine { source: 0, line: Some(line) }
    }

    const ROWS: &[(&str, Option<&str>)] = &[
        ("one", Some("a")),
        ("two", Some("a")),
        ("", Some("a")),
        ("one", Some("b")),
        ("one", Some("a")),
        (" \u{a0}\t", Some("b")),
        ("one", Some("b")),
        ("one", Some("c")),
        ("", Some("a")),
        ("One", Some("a")),
    ];

    #[test]
    fn empty_texts_and_repeated_ones_go_and_other_labels_of_a_text_are_counted() {
        let example = |text: &str, label: &str| {
            Ok(Record { text: text.to_owned(), label: Some(label.to_owned()), ..Record::default() })
        };
        let examples = [example("a", "x"), example(" ", "x"), example("a", "x"), example("a", "y")];
        let key = |example: &Record| example.text.clone();
        let target = |example: &Record| example.label.clone();
        let (kept, counts) = clean(examples, CleanOptions::default(), key, target).unwrap();
        assert_eq!(kept.len(), 2);
        let counts = (counts.read, counts.empty, counts.duplicates, counts.conflicting);
        assert_eq!(counts, (4, 1, 1, 1));
    }

    #[test]
    fn empty_and_repeated_records_go_and_contradictions_stay() {
        let (lines, counts) = cleaned(ROWS, CleanOptions::default());
        assert_eq!(lines, [1, 2, 4, 8, 10]);
        assert_eq!(
            (counts.read, counts.empty, counts.duplicates, counts.conflicting),
            (10, 3, 2, 1)
        );
        let conflict = Conflict {
            text: "one".to_owned(),
            first_label: Some("a".to_owned()),
            first: at(1),
            other_label: Some("b".to_owned()),
            other: at(4),
        };
        assert_eq!(counts.conflicts, [conflict]);
        let repeat = |line| Repeat { text: "one".to_owned(), first: at(1), other: at(line) };
        assert_eq!(counts.repeats, [repeat(5), repeat(7)]);
    }

    #[test]
    fn given_files_are_only_counted() {
        let (lines, counts) = cleaned(ROWS, NOTHING);
        assert_eq!(lines.len(), 10);
        assert_eq!(
            (counts.read, counts.empty, counts.duplicates, counts.conflicting),
            (10, 3, 3, 1)
        );
    }

    #[test]
    fn each_option_works_alone() {
        assert_eq!(cleaned(ROWS, CleanOptions { drop_empty: true, ..NOTHING }).0.len(), 7);
        assert_eq!(
            cleaned(ROWS, CleanOptions { drop_duplicates: true, ..NOTHING }).0,
            [1, 2, 3, 4, 6, 8, 10]
        );
    }

    #[test]
    fn without_labels_the_text_alone_makes_a_duplicate() {
        let (lines, counts) =
            cleaned(&[("one", None), ("one", None), ("two", None)], CleanOptions::default());
        assert_eq!((lines, counts.duplicates, counts.conflicting), (vec![1, 3], 1, 0));
    }

    #[test]
    fn all_conflicts_are_counted_and_the_first_few_listed() {
        let rows: Vec<(String, &str)> =
            (0..40).map(|i| (format!("text {}", i / 2), ["a", "b"][i % 2])).collect();
        let rows: Vec<(&str, Option<&str>)> =
            rows.iter().map(|(text, label)| (text.as_str(), Some(*label))).collect();
        let (lines, counts) = cleaned(&rows, CleanOptions::default());
        assert_eq!((lines.len(), counts.conflicting, counts.conflicts.len()), (40, 20, N_LISTED));
    }

    #[test]
    fn the_key_decides_what_the_same_text_is() {
        let rows = examples(&[("One", Some("a")), ("one", Some("a"))]);
        let key = |example: &Record| example.text.to_lowercase();
        let label = |example: &Record| example.label.clone();
        let (kept, _) = clean(rows, CleanOptions::default(), key, label).unwrap();
        assert_eq!(kept.len(), 1);
    }

    #[test]
    fn the_first_error_ends_it() {
        let mut rows = examples(&[("one", None)]);
        rows.push(Err(Error::io("read", "a.csv")(std::io::Error::other("gone"))));
        let key = |example: &Record| example.text.clone();
        assert!(clean(rows, CleanOptions::default(), key, |_| None).is_err());
    }
}

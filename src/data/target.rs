//! The target of a row: a class, several classes, a number, a tag for each word, or answers.

use std::{borrow::Cow, collections::BTreeSet};

use frostbert_cache::wording::{counted, shorten};
use serde::{Deserialize, Serialize};

use super::{
    bad_rows::{BadBytes, BadRows, FailedRows},
    labels::{LabelMap, is_missing},
    record::{Answer, Record},
    source::{Format, Source},
};
use crate::error::{Error, Result};

/// The meaning of the labels in the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataTask {
    /// One label for each text or pair.
    Classification,
    /// Any number of labels, including none; a cell is split at [`Source::label_separator`].
    Multilabel,
    /// A number.
    Regression,
    /// A tag for each word, from conll and conllu files.
    Tokens,
    /// Answers in a context, from squad files or tables of questions.
    Qa,
}

/// The target of a row.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// The id of its label.
    Class(usize),
    /// The ids of its labels, sorted and distinct; may be empty.
    Classes(Vec<usize>),
    /// Its number, which is finite.
    Value(f64),
    /// The id of each word's tag.
    Tags(Vec<usize>),
    /// Its correct answers, as in the file; empty if the context does not answer the question. Misplaced answers count
    /// in scores, but are not learned from: see [`Example::spans`](crate::data::example::Example::spans).
    Answers(Vec<Answer>),
}

impl DataTask {
    /// Whether targets are ids of a [`LabelMap`].
    pub fn has_labels(self) -> bool {
        match self {
            DataTask::Classification | DataTask::Multilabel | DataTask::Tokens => true,
            DataTask::Regression | DataTask::Qa => false,
        }
    }

    /// Returns what a row is called and what a group of rows is, if rows are kept together when they are split: tags of a
    /// document, and questions about a context.
    pub(crate) fn group_nouns(self) -> Option<[&'static str; 2]> {
        match self {
            DataTask::Tokens => Some(["sentence", "document"]),
            DataTask::Qa => Some(["question", "context"]),
            _ => None,
        }
    }

    /// Returns what tells the group of a record from others, and whether only those of the same file: a context is one
    /// group, whatever file and article it is in.
    pub(super) fn group_of(self, example: &Record) -> Option<(&String, bool)> {
        match self {
            DataTask::Tokens => Some((example.group.as_ref()?, true)),
            DataTask::Qa => Some((example.text_pair.as_ref()?, false)),
            _ => None,
        }
    }

    /// Returns an error if the format of `source` cannot have the targets of the task.
    pub(super) fn check_format(self, source: &Source) -> Result<()> {
        let (fits, expected, hint): (fn(Format) -> bool, _, _) = match self {
            DataTask::Tokens => (
                |format| matches!(format, Format::Conll | Format::Conllu),
                "words with a tag each, as in conll and conllu",
                "set `format` of this source to conll or conllu, if that is what it holds",
            ),
            DataTask::Qa if source.holds_questions => return Ok(()),
            DataTask::Qa => (
                |format| format == Format::Squad,
                "questions with answers in a context, as in squad",
                "set `format` of this source to squad, if that is what it holds",
            ),
            _ => return Ok(()),
        };
        let format = source.resolve_format()?;
        if fits(format) {
            Ok(())
        } else {
            Err(source.malformed(None, expected, format!("a {format} file"), hint))
        }
    }
}

impl Target {
    /// Returns the id of the single label.
    pub fn class(&self) -> Option<usize> {
        match self {
            Target::Class(class) => Some(*class),
            _ => None,
        }
    }

    /// Returns the number.
    pub fn value(&self) -> Option<f64> {
        match self {
            Target::Value(value) => Some(*value),
            _ => None,
        }
    }

    /// Returns all ids of labels: of the single label, of the labels, or of the tags; empty for numbers and answers.
    pub fn label_ids(&self) -> &[usize] {
        match self {
            Target::Class(class) => std::slice::from_ref(class),
            Target::Classes(ids) | Target::Tags(ids) => ids,
            Target::Value(_) | Target::Answers(_) => &[],
        }
    }

    /// Returns the correct answers; empty for other targets.
    pub fn answers(&self) -> &[Answer] {
        match self {
            Target::Answers(answers) => answers,
            _ => &[],
        }
    }

    /// Encodes the target as bytes to hash; different targets of one task have different bytes. A class is its id in 8
    /// bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let number = |number: usize| (number as u64).to_le_bytes();
        match self {
            Target::Class(class) => number(*class).to_vec(),
            Target::Value(value) => value.to_bits().to_le_bytes().to_vec(),
            Target::Classes(ids) | Target::Tags(ids) => {
                let numbers = std::iter::once(ids.len()).chain(ids.iter().copied());
                numbers.flat_map(number).collect()
            }
            Target::Answers(answers) => {
                let mut bytes = number(answers.len()).to_vec();
                for answer in answers {
                    bytes.extend(number(answer.start));
                    bytes.extend(number(answer.text.len()));
                    bytes.extend(answer.text.as_bytes());
                }
                bytes
            }
        }
    }
}

/// Reads targets from records.
pub(super) struct TargetReader<'a> {
    pub(super) task: DataTask,
    /// The sources of the records, by [`Record::source`].
    pub(super) sources: &'a [Source],
}

impl TargetReader<'_> {
    /// Formats the target of a record, even if it is not valid; equal targets of one task are formatted in the same
    /// way.
    pub(super) fn spell(&self, example: &Record) -> Option<String> {
        let source = &self.sources[example.source];
        match self.task {
            DataTask::Classification => example.label.clone(),
            DataTask::Multilabel => {
                let labels = labels_of(example, source)?;
                let distinct: BTreeSet<Cow<'_, str>> = labels.into_iter().collect();
                Some(distinct.into_iter().collect::<Vec<_>>().join(", "))
            }
            DataTask::Regression => {
                let cell = example.label.as_deref()?;
                Some(cell.parse::<f64>().map_or(cell.into(), |v| v.to_string()))
            }
            DataTask::Tokens => Some(example.tags.as_ref()?.join(" ")),
            DataTask::Qa => {
                let answers = example.answers.as_ref()?.iter();
                let answers = answers.map(|answer| format!("{} {}", answer.start, answer.text));
                Some(answers.collect::<Vec<_>>().join("\n"))
            }
        }
    }

    /// Whether a text lacks the label that it needs. A cell that stands for a missing label is one if `labels` has it.
    pub(super) fn lacks_label(&self, example: &Record, labels: &LabelMap) -> bool {
        if example.is_empty() {
            return false;
        }
        let format = self.sources[example.source].resolve_format();
        let has_nulls = matches!(format, Ok(Format::Jsonl | Format::Json | Format::Parquet));
        match (self.task, &example.label, &example.labels) {
            (DataTask::Classification | DataTask::Regression, Some(label), _) => {
                is_missing(label) && labels.id(label).is_none()
            }
            (DataTask::Tokens | DataTask::Qa, ..) => false,
            // A missing label is not the same as an empty list of labels.
            (_, None, None) => has_nulls,
            _ => false,
        }
    }

    /// An example; none where its label cannot be one of the task, as a word is no number, and its source leaves such
    /// records out, which are listed in `log`. For other sources that is an error once targets are read. Missing labels are
    /// a matter of their own.
    pub(super) fn readable(
        &self,
        example: Record,
        labels: &LabelMap,
        log: &BadRows,
    ) -> Option<Result<Record>> {
        let source = &self.sources[example.source];
        let is_one_label = matches!(self.task, DataTask::Classification | DataTask::Regression);
        if !(source.skips_bad() && is_one_label) || self.lacks_label(&example, labels) {
            return Some(Ok(example));
        }
        let label = match (&example.label, &example.labels) {
            (Some(cell), _) if self.task == DataTask::Regression && !is_missing(cell) => {
                value(cell, source, example.line).map(|_| ())
            }
            (None, Some(_)) => label_cell(&example, source).map(|_| ()),
            _ => Ok(()),
        };
        match label {
            Ok(()) => Some(Ok(example)),
            Err(error) => {
                let failed = FailedRows::new(source, log, BadBytes::default());
                failed.settle(example.part, error).err().map(Err)
            }
        }
    }

    /// The labels that examples have.
    pub(super) fn found_labels(&self, examples: &[Record]) -> LabelMap {
        let labels = examples.iter().flat_map(|example| self.labels_in(example));
        LabelMap::from_train(labels)
    }

    pub(super) fn labels_in<'e>(&self, example: &'e Record) -> Vec<Cow<'e, str>> {
        let cell = example.label.as_deref();
        match self.task {
            DataTask::Classification => cell.into_iter().map(Cow::Borrowed).collect(),
            DataTask::Multilabel => {
                labels_of(example, &self.sources[example.source]).unwrap_or_default()
            }
            DataTask::Tokens => {
                let tags = example.tags.iter().flatten();
                tags.map(|tag| Cow::Borrowed(tag.as_str())).collect()
            }
            DataTask::Regression | DataTask::Qa => Vec::new(),
        }
    }

    /// Adds every `I-x` that the records have and `labels` lacks, if it has `B-x`.
    ///
    /// Whether an entity of a known type has a second word in train is a matter of chance, and not an error in test.
    pub(super) fn add_continuations(&self, examples: &[Record], labels: &mut LabelMap) {
        let tags = examples.iter().flat_map(|example| self.labels_in(example));
        let continues_known = |tag: &Cow<'_, str>| {
            let kind = tag.strip_prefix("I-");
            kind.is_some_and(|kind| labels.id(&format!("B-{kind}")).is_some())
        };
        let found: BTreeSet<String> = tags.filter(continues_known).map(Cow::into_owned).collect();
        found.into_iter().for_each(|tag| labels.push(tag));
    }

    /// Reads the target of a record. With a `first_id`, labels may be given by their ids: see
    /// [`LabelMap::id_or_number`].
    pub(super) fn read(
        &self,
        example: &Record,
        labels: &LabelMap,
        first_id: Option<usize>,
    ) -> Result<Target> {
        let source = &self.sources[example.source];
        let id_of = |label: &str| {
            let id = match first_id {
                Some(first_id) => labels.id_or_number(label, first_id),
                None => labels.id(label),
            };
            id.ok_or_else(|| labels.unknown(label, &source.path, example.line))
        };
        match self.task {
            DataTask::Classification => Ok(Target::Class(id_of(label_cell(example, source)?)?)),
            DataTask::Multilabel => {
                let labels = match labels_of(example, source) {
                    Some(labels) => labels,
                    None => return Err(no_label(example, source)?),
                };
                let ids = labels.iter().map(|label| id_of(label));
                let ids: Result<BTreeSet<usize>> = ids.collect();
                Ok(Target::Classes(ids?.into_iter().collect()))
            }
            DataTask::Regression => value(label_cell(example, source)?, source, example.line),
            DataTask::Tokens => {
                let words = example.words.iter().flatten();
                let tags = example.tags.iter().flatten();
                let id_of = |(tag, word): (&String, &String)| {
                    id_of(tag).map_err(|error| at_word(error, word))
                };
                let ids: Result<Vec<usize>> = tags.zip(words).map(id_of).collect();
                Ok(Target::Tags(ids?))
            }
            DataTask::Qa => match &example.answers {
                Some(answers) => Ok(Target::Answers(answers.clone())),
                None => Err(source.malformed(
                    example.line,
                    "a question with answers in a context, as in squad",
                    "a record without them",
                    "write the file in the JSON format of SQuAD: `data` with `paragraphs`, each a `context` with `qas`",
                )),
            },
        }
    }
}

/// Returns the labels of a record with several labels: those of a list, or of a cell.
fn labels_of<'e>(example: &'e Record, source: &Source) -> Option<Vec<Cow<'e, str>>> {
    match (&example.labels, &example.label) {
        (Some(labels), _) => {
            Some(labels.iter().map(|label| Cow::Borrowed(label.as_str())).collect())
        }
        (None, Some(cell)) => Some(source.split_labels(cell)),
        (None, None) => None,
    }
}

fn label_cell<'e>(example: &'e Record, source: &Source) -> Result<&'e str> {
    match &example.label {
        Some(label) => Ok(label),
        None => Err(no_label(example, source)?),
    }
}

/// The error for a record that has no label, or a list of labels where one is needed.
fn no_label(example: &Record, source: &Source) -> Result<Error> {
    if let Some(labels) = &example.labels {
        return Ok(source.malformed(
            example.line,
            "one label",
            format!("a list of {}", counted(labels.len(), "label")),
            "set data.task to `multilabel` for texts with any number of labels",
        ));
    }
    Ok(source.malformed(
        example.line,
        "a label for the text, as in csv, tsv, jsonl, json, parquet and lines",
        format!("a record of {}, which has none", source.resolve_format()?),
        "set data.task to `tokens` for words with tags, and to `qa` for questions with answers",
    ))
}

fn value(cell: &str, source: &Source, line: Option<u64>) -> Result<Target> {
    let value = cell.parse().ok().filter(|value: &f64| value.is_finite());
    value.map(Target::Value).ok_or_else(|| {
        let got = match cell {
            "" => "an empty label".to_owned(),
            cell => format!("`{}`", shorten(cell, 40)),
        };
        source.malformed(
            line,
            "a finite number, with a point as the decimal separator",
            got,
            format!(
                "correct the number or leave the record out; and check which column the source's `label` names{}",
                source.skip_hint()
            ),
        )
    })
}

/// Refers to all items of a kind: `the 1 row`, `all 20 rows`.
fn all(count: usize, noun: &str) -> String {
    let counted = counted(count, noun);
    if count == 1 { format!("the {counted}") } else { format!("all {counted}") }
}

/// Adds the word whose tag is wrong: a sentence has many lines, and errors give the first of them.
fn at_word(mut error: Error, word: &str) -> Error {
    if let Error::Record { got, .. } = &mut error {
        got.push_str(&format!(" for the word `{}`", shorten(word, 40)));
    }
    error
}

/// Returns an error if there is nothing to learn because all rows of train are alike.
pub(super) fn require_contrast(
    task: DataTask,
    targets: &[&Target],
    labels: &LabelMap,
    source: &Source,
) -> Result<()> {
    let n_rows = targets.len();
    let fail =
        |expected: &str, got: String, hint: &str| Err(source.malformed(None, expected, got, hint));
    let mut ids = targets.iter().flat_map(|target| target.label_ids());
    let first = ids.next();
    let name = || first.and_then(|id| labels.name(*id));
    let alike = ids.all(|id| Some(id) == first);
    match task {
        DataTask::Classification if alike => fail(
            "rows of at least two labels",
            match name() {
                Some(label) => format!("only `{label}` in {}", all(n_rows, "row")),
                None => "no labelled row".into(),
            },
            "there is nothing to learn from one label: check which column the source's `label` names",
        ),
        DataTask::Multilabel if first.is_none() => fail(
            "rows with labels",
            format!("no label in {}", all(n_rows, "row")),
            "there is nothing to learn without labels: check which column the source's `label` names",
        ),
        DataTask::Tokens if alike => fail(
            "words of at least two tags",
            match name() {
                Some(tag) => format!("only `{tag}` in {}", all(n_rows, "sentence")),
                None => "no tagged word".into(),
            },
            "there is nothing to learn from one tag: check which column the source's `tags` names",
        ),
        DataTask::Regression if targets.windows(2).all(|pair| pair[0] == pair[1]) => fail(
            "rows of at least two values",
            match targets.first().and_then(|target| target.value()) {
                Some(value) => format!("only {value} in {}", all(n_rows, "row")),
                None => "no row".into(),
            },
            "there is nothing to learn from one value: check which column the source's `label` names",
        ),
        DataTask::Qa if targets.iter().all(|target| target.answers().is_empty()) => fail(
            "questions with answers",
            format!("none with an answer among all {n_rows}"),
            "without answers there is nothing to learn from: add a file of questions that have some",
        ),
        _ => Ok(()),
    }
}

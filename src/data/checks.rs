//! Checks of the data that need no model: empty, repeated or contradictory texts, texts in two splits, rare classes,
//! misplaced answers. The results are written to reports as JSON.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    path::PathBuf,
};

use frostbert_cache::wording::{counted, shorten};
use serde::{Deserialize, Serialize};

use crate::data::{
    bad_rows::{self, BadRow},
    clean::{CleanCounts, CleanOptions, RecordLine},
    example::{Example, FileRecord, part_name},
    split::Part,
    split_check::SplitCheck,
    summary::ClassBalance,
    target::Target,
};

/// Number of examples of each finding that are listed, of all that are counted.
const N_LISTED: usize = 5;

/// Number of characters of a text that are shown.
const N_SHOWN: usize = 80;

/// The results of the checks of a pipeline's rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DataChecks {
    /// Records that were left out because they cannot be read: a file of the run lists them.
    #[serde(skip)]
    pub bad_rows: Vec<BadRow>,
    /// The findings of reading and cleaning: in train before its split, then in given validation and test files.
    pub files: Vec<FileChecks>,
    /// For every two splits, the texts that are in both.
    pub shared: Vec<SharedTexts>,
    /// The split of train, if it was split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<SplitCheck>,
    /// Number of answers that were moved to the nearest place where they occur.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub moved_answers: usize,
    /// Whether some of the misplaced answers occur elsewhere in their context, so that they could be moved.
    #[serde(skip)]
    pub has_movable_answers: bool,
    /// Answers that are not in their context at the stated position.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub misplaced_answers: Option<Finding>,
    /// How balanced the classes are in train, for tasks with labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balance: Option<ClassBalance>,
}

/// The findings in the files of one split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileChecks {
    /// The split that the files were given as.
    pub part: Part,
    /// Records that were left out because they cannot be read.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bad_lines: usize,
    /// Number of records read, without these.
    pub read: usize,
    /// Number of records without a text.
    pub empty: usize,
    /// Whether these were dropped.
    pub empty_dropped: bool,
    /// Records that repeat text and target of an earlier one.
    pub duplicates: Finding,
    /// Whether these were dropped.
    pub duplicates_dropped: bool,
    /// Texts that occur with two or more targets; all are kept. Not for questions, which may have other answers.
    pub conflicts: Finding,
}

/// Texts of a split that also occur in an earlier split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SharedTexts {
    /// The earlier split.
    pub first: Part,
    /// The split whose rows are counted.
    pub other: Part,
    /// Texts (or pairs, or sentences of words) of `other` that are also in `first`.
    pub texts: SharedRecords,
    /// Contexts of `other` that are also in `first`, for questions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contexts: Option<SharedRecords>,
}

/// The texts or contexts that two splits share: how many there are, and the first few rows that have them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedRecords {
    /// Number of distinct texts, or contexts.
    pub count: usize,
    /// Number of rows of the later split that have them.
    pub rows: usize,
    /// The first few of these rows, each with the first such row of the earlier split.
    pub examples: Vec<FoundText>,
}

/// The number of findings of one kind, and the first few of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Number of all findings.
    pub count: usize,
    /// The first few findings.
    pub examples: Vec<FoundText>,
}

/// A text, and the records that have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundText {
    /// The text, shortened.
    pub text: String,
    /// Its targets, shortened, if they are what was found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// The records that have it.
    pub records: Vec<RecordPlace>,
}

/// The place of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordPlace {
    /// Its file, as in the pipeline.
    #[serde(serialize_with = "frostbert_cache::wording::path_shown")]
    pub file: PathBuf,
    /// Its line (or row) from 1, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Its id, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

impl RecordPlace {
    /// Returns the place of a row of a dataset with these files.
    pub(crate) fn of(row: &Example, files: &[FileRecord]) -> RecordPlace {
        RecordPlace { file: files[row.file].path.clone(), line: row.line, id: row.id.clone() }
    }
}

impl Finding {
    /// Counts `items` and converts the first few with `show`.
    fn of<T>(items: impl Iterator<Item = T>, show: impl Fn(T) -> FoundText) -> Finding {
        let mut finding = Finding::default();
        for item in items {
            finding.count += 1;
            if finding.examples.len() < N_LISTED {
                finding.examples.push(show(item));
            }
        }
        finding
    }
}

impl FileChecks {
    /// Collects the findings of cleaning in `files`.
    pub(super) fn of(
        part: Part,
        counts: CleanCounts,
        options: CleanOptions,
        files: &[FileRecord],
    ) -> FileChecks {
        let place = |place: RecordLine| RecordPlace {
            file: files[place.source].path.clone(),
            line: place.line,
            id: None,
        };
        let repeats = counts.repeats.into_iter().map(|repeat| FoundText {
            text: repeat.text,
            labels: Vec::new(),
            records: vec![place(repeat.first), place(repeat.other)],
        });
        let shown = |label: Option<String>| shorten(&label.unwrap_or_default(), N_SHOWN);
        let conflicts = counts.conflicts.into_iter().map(|conflict| FoundText {
            text: conflict.text,
            labels: vec![shown(conflict.first_label), shown(conflict.other_label)],
            records: vec![place(conflict.first), place(conflict.other)],
        });
        FileChecks {
            part,
            bad_lines: 0,
            read: counts.read,
            empty: counts.empty,
            empty_dropped: options.drop_empty,
            duplicates: Finding { count: counts.duplicates, examples: repeats.collect() },
            duplicates_dropped: options.drop_duplicates,
            conflicts: Finding { count: counts.conflicting, examples: conflicts.collect() },
        }
    }
}

impl DataChecks {
    /// Checks the rows of a dataset.
    pub(super) fn of(
        files: Vec<FileChecks>,
        split: Option<SplitCheck>,
        rows: &[Example],
        records: &[FileRecord],
        balance: Option<ClassBalance>,
    ) -> DataChecks {
        let pairs = [
            (Part::Train, Part::Validation),
            (Part::Train, Part::Test),
            (Part::Validation, Part::Test),
        ];
        let has = |part: Part| rows.iter().any(|row| row.part == part);
        let shared = pairs
            .into_iter()
            .filter(|(first, other)| has(*first) && has(*other))
            .map(|(first, other)| SharedTexts {
                first,
                other,
                texts: shared(rows, first, other, records, |row| Some(&row.keys)),
                contexts: is_qa(rows).then(|| shared(rows, first, other, records, |row| row.group)),
            })
            .collect();
        DataChecks {
            bad_rows: Vec::new(),
            moved_answers: 0,
            has_movable_answers: rows.iter().any(has_movable_answer),
            files,
            shared,
            split,
            misplaced_answers: is_qa(rows).then(|| misplaced_answers(rows, records)),
            balance,
        }
    }

    /// Returns a line for each warning to the user.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = bad_rows::warnings(&self.bad_rows);
        let splits_test = self.split.as_ref().is_some_and(|split| split.asked.test > 0.0);
        warnings.extend(self.files.iter().flat_map(|files| file_warnings(files, splits_test)));
        warnings.extend(self.split.iter().flat_map(SplitCheck::warnings));
        warnings.extend(self.shared.iter().flat_map(SharedTexts::warnings));
        if self.moved_answers > 0 {
            warnings.push(format!(
                "{} not where `answer_start` says in the context, and moved to the nearest place where {}",
                match self.moved_answers {
                    1 => "1 answer is".to_owned(),
                    n => format!("{} are", counted(n, "answer")),
                },
                if self.moved_answers == 1 { "it is" } else { "they are" },
            ));
        }
        if let Some(answers) = self.misplaced_answers.as_ref().filter(|answers| answers.count > 0) {
            let named: Vec<String> = answers
                .examples
                .iter()
                .flat_map(|answer| &answer.records)
                .map(|record| match &record.id {
                    Some(id) => format!("question `{id}` of {}", record.file.display()),
                    None => match record.line {
                        Some(line) => format!("{}:{line}", record.file.display()),
                        None => format!("a question of {}", record.file.display()),
                    },
                })
                .collect();
            warnings.push(format!(
                "{} not where `answer_start` says in the context, so nothing is learned from {}, but {} as correct: \
                 {}{}{}",
                match answers.count {
                    1 => "1 answer is".to_owned(),
                    n => format!("{} are", counted(n, "answer")),
                },
                if answers.count == 1 { "it" } else { "them" },
                if answers.count == 1 { "it counts" } else { "they count" },
                named.join(", "),
                if answers.count > named.len() { " and more" } else { "" },
                if self.has_movable_answers {
                    "; data.misplaced = \"nearest\" moves those that are elsewhere in it"
                } else {
                    ""
                }
            ));
        }
        warnings
    }
}

impl SharedTexts {
    /// Returns a line each about shared texts and shared contexts; none if there are none.
    pub fn warnings(&self) -> Vec<String> {
        let [first, other] = [self.first, self.other].map(part_name);
        let mut warnings = Vec::new();
        if self.texts.rows > 0 {
            warnings.push(format!(
                "{} ({}) also {} in {first}",
                counted(self.texts.rows, &format!("{other} row")),
                counted(self.texts.count, "text"),
                if self.texts.rows == 1 { "occurs" } else { "occur" },
            ));
        }
        if let Some(contexts) = self.contexts.as_ref().filter(|contexts| contexts.rows > 0) {
            warnings.push(format!(
                "{} of {other} {} about {} of {first}",
                counted(contexts.rows, "question"),
                if contexts.rows == 1 { "is" } else { "are" },
                counted(contexts.count, "context"),
            ));
        }
        warnings
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// The verb of so many rows.
fn occur(rows: usize) -> &'static str {
    if rows == 1 { "occurs" } else { "occur" }
}

/// Returns the warnings about the files of a split; `splits_test` says whether test rows are split from train.
fn file_warnings(checks: &FileChecks, splits_test: bool) -> Vec<String> {
    let name = part_name(checks.part);
    let fate = |dropped| if dropped { "left out" } else { "kept" };
    let mut warnings = Vec::new();
    if checks.empty > 0 {
        let fate = fate(checks.empty_dropped);
        let empty = counted(checks.empty, "row");
        warnings.push(format!("{name}: {empty} without a text, {fate}"));
    }
    if checks.duplicates.count > 0 {
        let fate = fate(checks.duplicates_dropped);
        // If a data set has no test file, published figures are computed on all of its rows.
        let cure = if splits_test && checks.duplicates_dropped && checks.part == Part::Train {
            " before the split; to compare metrics with published ones, keep them with data.clean.drop_duplicates = \
             false"
        } else {
            ""
        };
        let repeated = counted(checks.duplicates.count, "repeated row");
        warnings.push(format!("{name}: {repeated}, {fate}{cure}"));
    }
    if let Some(conflict) = checks.conflicts.examples.first() {
        let labels: Vec<String> =
            conflict.labels.iter().map(|label| format!("`{label}`")).collect();
        warnings.push(format!(
            "{name}: {} {} with two labels, such as `{}` with {}",
            counted(checks.conflicts.count, "text"),
            occur(checks.conflicts.count),
            conflict.text,
            labels.join(" and "),
        ));
    }
    warnings
}

/// Finds the rows of `other` whose `key` some row of `first` also has; rows without a key are ignored.
fn shared<'r, K: Eq + Hash + Clone>(
    rows: &'r [Example],
    first: Part,
    other: Part,
    records: &[FileRecord],
    key: impl Fn(&'r Example) -> Option<K>,
) -> SharedRecords {
    let of_part = |part: Part| rows.iter().filter(move |row| row.part == part);
    let mut earlier: HashMap<K, &Example> = HashMap::new();
    for row in of_part(first) {
        if let Some(key) = key(row) {
            earlier.entry(key).or_insert(row);
        }
    }
    let mut distinct: HashSet<K> = HashSet::new();
    let mut shared = SharedRecords::default();
    for row in of_part(other) {
        let Some(key) = key(row) else { continue };
        let Some(first) = earlier.get(&key) else {
            continue;
        };
        shared.rows += 1;
        distinct.insert(key);
        if shared.examples.len() < N_LISTED {
            shared.examples.push(FoundText {
                text: shorten(&row.text, N_SHOWN),
                labels: Vec::new(),
                records: vec![RecordPlace::of(first, records), RecordPlace::of(row, records)],
            });
        }
    }
    shared.count = distinct.len();
    shared
}

fn misplaced_answers(rows: &[Example], records: &[FileRecord]) -> Finding {
    let misplaced = rows.iter().flat_map(|row| {
        let context = row.text_pair.as_deref().unwrap_or_default();
        let answers = row.target.answers().iter();
        let misplaced = answers.filter(move |answer| !answer.matches(context));
        misplaced.map(move |answer| (row, answer))
    });
    Finding::of(misplaced, |(row, answer)| FoundText {
        text: shorten(&answer.text, N_SHOWN),
        labels: Vec::new(),
        records: vec![RecordPlace::of(row, records)],
    })
}

/// Whether an answer of a row occurs in its context, but not at its position.
fn has_movable_answer(row: &Example) -> bool {
    let context = row.text_pair.as_deref().unwrap_or_default();
    let mut answers = row.target.answers().iter();
    answers.any(|answer| {
        !answer.text.is_empty() && context.contains(&answer.text) && !answer.matches(context)
    })
}

fn is_qa(rows: &[Example]) -> bool {
    let target = rows.first().map(|row| &row.target);
    matches!(target, Some(Target::Answers(_)))
}

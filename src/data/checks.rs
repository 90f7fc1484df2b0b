//! What can be told of data without a model: texts that are empty, repeated, contradictory, or in two parts; classes
//! that are rare; answers that are not where they say. For reports, in a form that machines read.

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

/// Examples of each kind that are listed, of all that are counted.
const N_LISTED: usize = 5;

/// Characters of a text that are shown.
const N_SHOWN: usize = 80;

/// What the rows of a pipeline showed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DataChecks {
    /// Records that were left out because they cannot be read: a file of the run lists them.
    #[serde(skip)]
    pub bad_rows: Vec<BadRow>,
    /// What reading and cleaning found: in train before its split, then in given validation and test files.
    pub files: Vec<FileChecks>,
    /// Every two parts, with what stands in both.
    pub shared: Vec<SharedTexts>,
    /// How train was split, where it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split: Option<SplitCheck>,
    /// Answers that were moved to the nearest place where they stand.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub moved_answers: usize,
    /// Whether some of those that are left stand elsewhere, so that they could be moved.
    #[serde(skip)]
    pub has_movable_answers: bool,
    /// Answers that do not stand in their contexts where they say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub misplaced_answers: Option<Finding>,
    /// How even the classes are in train; for tasks with labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balance: Option<ClassBalance>,
}

/// What the files of one part showed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileChecks {
    /// What the files were given as.
    pub part: Part,
    /// Records that were left out because they cannot be read.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bad_lines: usize,
    /// Records in them, beside these.
    pub read: usize,
    /// Records without a text.
    pub empty: usize,
    /// Whether these were left out.
    pub empty_dropped: bool,
    /// Records that repeat text and target of an earlier one.
    pub duplicates: Finding,
    /// Whether these were left out.
    pub duplicates_dropped: bool,
    /// Texts that stand there with two or more targets; all are kept. Never questions: one may have other answers.
    pub conflicts: Finding,
}

/// Texts of a part that stand in an earlier part too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SharedTexts {
    /// The earlier part.
    pub first: Part,
    /// The part whose rows are counted.
    pub other: Part,
    /// Texts (or pairs, or sentences of words) of `other` that `first` has.
    pub texts: SharedRecords,
    /// Contexts of `other` that `first` has, for questions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contexts: Option<SharedRecords>,
}

/// What two parts share: how much there is, and the first few of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedRecords {
    /// Distinct texts, or contexts.
    pub count: usize,
    /// Rows of the later part that hold them.
    pub rows: usize,
    /// The first few of these rows, each with the first row of the earlier part.
    pub examples: Vec<FoundText>,
}

/// How many there are, and the first few of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// All of them.
    pub count: usize,
    /// The first few.
    pub examples: Vec<FoundText>,
}

/// A text, and where it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundText {
    /// The text, shortened.
    pub text: String,
    /// Its targets, shortened, where they are what was found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// The records that hold it.
    pub records: Vec<RecordPlace>,
}

/// Where a record stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordPlace {
    /// Its file, as the pipeline names it.
    #[serde(serialize_with = "frostbert_cache::wording::path_shown")]
    pub file: PathBuf,
    /// Its line (or row) from 1, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Its own name, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

impl RecordPlace {
    /// Where a row of a dataset with these files stands.
    pub(crate) fn of(row: &Example, files: &[FileRecord]) -> RecordPlace {
        RecordPlace { file: files[row.file].path.clone(), line: row.line, id: row.id.clone() }
    }
}

impl Finding {
    /// Counts `items` and shows the first few.
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
    /// Of what cleaning counted in `files`.
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
    /// Of loaded rows.
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

    /// What a user should know of it, a line each.
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
    /// What stands in both parts, in words, a line each; none where nothing does.
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

/// What the files of a part showed; `splits_test` says that test rows are split from those of train.
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
        // Published figures are of all rows, where the data comes without a test file.
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

/// What rows of `other` share with rows of `first` by this `key`; rows without a key are left out.
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

/// Whether an answer of a row stands in its context, and not where it says.
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

//! The labelled rows of a pipeline: every source read, cleaned, labelled and split, each row with its keys.

use std::{collections::HashMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{
    Answer, ClassDistribution, CleanCounts, CleanOptions, Column, DataTask, Example, LabelColumn,
    LabelMap, Part, QuestionSummary, Source, SplitFractions, Target, ValueSummary, Want,
    checks::{DataChecks, FileChecks},
    class_distribution, clean, read, require_texts, split_plan,
    strata::split_rows,
    summary::{question_summaries, value_summaries},
    target::{Targets, require_contrast},
};
use crate::{
    error::Result,
    fingerprint::{self, Key, Mode},
};

/// What is given is never thinned.
const KEEP_ALL: CleanOptions = CleanOptions {
    drop_empty: false,
    drop_duplicates: false,
};

/// Where labelled rows come from, and how they become a [`Dataset`].
#[derive(Clone, Debug)]
pub struct DatasetSettings<'a> {
    /// What labels mean.
    pub task: DataTask,
    /// Whether two texts are one document, or two: `data.pair`.
    pub joint_pairs: bool,
    /// Rows to learn from, and to split for what is not given.
    pub train: &'a [Source],
    /// Validation rows, where they are given.
    pub validation: Option<&'a [Source]>,
    /// Test rows, where they are given.
    pub test: Option<&'a [Source]>,
    /// The labels, where they are given (cells may then hold their ids: see [`LabelMap::id_or_number`]); else those of
    /// train. Not looked at where [`DataTask::has_labels`] is false.
    pub labels: Option<LabelMap>,
    /// How train is split.
    pub split: SplitFractions,
    /// What is left out.
    pub clean: CleanOptions,
    /// Decides the split.
    pub seed: u64,
    /// Columns of the train sources that heads learn from in place of the label, for classification.
    pub label_columns: Vec<Column>,
    /// Whether given validation rows are learned from too, so that their files need these columns.
    pub teaches_validation: bool,
}

/// One labelled row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The keys of its documents in a cache: one, or for a pair that is encoded separately two, in order. See
    /// [`example_keys`].
    pub keys: Vec<Key>,
    /// Its own name, where the source has one.
    pub id: Option<String>,
    /// Its text; for questions the question, for words all of them with one space between.
    pub text: String,
    /// Its second text; for questions the context.
    pub text_pair: Option<String>,
    /// Its words, for tokens.
    pub words: Option<Vec<String>>,
    /// What it is to be learned as.
    pub target: Target,
    /// What it is for.
    pub part: Part,
    /// What it belongs to, numbered over all files: rows of one document (tokens), of one context (qa). A split never
    /// tears it apart.
    pub group: Option<u64>,
    /// Its file, a place in [`Dataset::files`].
    pub file: usize,
    /// The line of the file (from 1) on which it starts; for Parquet the row.
    pub line: Option<u64>,
}

/// The labelled rows of a pipeline.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// The labels, by id; none for regression and qa.
    pub labels: LabelMap,
    /// The rows: train in file order (with what was split from it), then given validation, then given test.
    pub rows: Vec<Row>,
    /// What the rows are in columns beside their label, where these were asked for.
    pub label_columns: Vec<LabelColumn>,
    /// How the classes are spread: rows of each label, for tokens words of each tag; empty for regression and qa.
    pub distribution: ClassDistribution,
    /// The range of the values of each part, for regression.
    pub values: Vec<ValueSummary>,
    /// The questions of each part, for qa.
    pub questions: Vec<QuestionSummary>,
    /// What can be told of the rows without a model.
    pub checks: DataChecks,
    /// The files, in the order in which they were read.
    pub files: Vec<FileRecord>,
    /// What the user should know: conflicts, duplicates, leaks, answers that are not where they say.
    pub warnings: Vec<String>,
}

/// A data file as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRecord {
    /// Its path, as the pipeline names it.
    pub path: PathBuf,
    /// blake3 of its bytes.
    pub blake3: String,
    /// Records in it.
    pub rows: usize,
}

/// The keys of an example's documents: of its words, of its text, or of its two texts in one document or in two.
///
/// These are the keys under which an extraction stores them.
pub fn example_keys(example: &Example, joint_pairs: bool) -> Vec<Key> {
    let text = |text: &str| Key::of(Mode::Text, &[text]);
    match (&example.words, &example.text_pair) {
        (Some(words), _) => vec![Key::of(Mode::Words, words)],
        (None, Some(second)) if joint_pairs => vec![Key::of(Mode::Pair, &[&example.text, second])],
        (None, Some(second)) => vec![text(&example.text), text(second)],
        (None, None) => vec![text(&example.text)],
    }
}

impl Row {
    /// The answers that stand in the context where they say, which is what a span can be learned from. None for a
    /// question with answers ([`Target::answers`]) means that there is nothing to learn from it, not that it has none.
    pub fn spans(&self) -> impl Iterator<Item = &Answer> {
        let context = self.text_pair.as_deref().unwrap_or_default();
        let answers = self.target.answers().iter();
        answers.filter(move |answer| answer.matches(context))
    }
}

impl Dataset {
    /// The same rows, with those of validation to be learned from too. The checks stay those of the data as it was read.
    pub fn with_validation_in_train(&self) -> Dataset {
        let mut merged = self.clone();
        let validation = merged.rows.iter_mut();
        for row in validation.filter(|row| row.part == Part::Validation) {
            row.part = Part::Train;
        }
        merged.distribution = distribution_of(&merged.labels, &merged.rows);
        merged.values = value_summaries(&merged.rows);
        if !self.questions.is_empty() {
            merged.questions = question_summaries(&merged.rows);
        }
        merged
    }

    /// Reads, cleans, labels and splits.
    ///
    /// - Classification, multilabel: labels are those of train, or given. A label that train lacks is an error.
    /// - Regression: finite numbers.
    /// - Tokens: tags are labels like others, but `I-x` in a given file, where train has only `B-x`, becomes a label
    ///   after the others: no row teaches it, and it counts where it is missed.
    /// - Qa: answers as they are.
    ///
    /// # Errors
    /// When a file cannot be read, holds no record or is of a format without such targets; a target is missing, none of
    /// train's labels, or no number; or all rows of train are alike.
    pub fn load(settings: &DatasetSettings<'_>) -> Result<Dataset> {
        let columns = settings.label_columns.iter().cloned();
        let mut loader = Loader {
            given_labels: settings.labels.is_some(),
            labels: settings.labels.clone().unwrap_or_default(),
            label_columns: columns.map(LabelColumn::new).collect(),
            ..Loader::new(settings.task, settings.joint_pairs)
        };
        let train = with_label_columns(settings.train, &settings.label_columns);
        loader.read(Part::Train, &train, settings.clean)?;
        let targets: Vec<&Target> = loader.rows.iter().map(|row| &row.target).collect();
        require_contrast(settings.task, &targets, &loader.labels, &settings.train[0])?;
        for column in &loader.label_columns {
            column.require_contrast(&loader.labels, &settings.train[0])?;
        }

        let groups: Vec<Option<u64>> = loader.rows.iter().map(|row| row.group).collect();
        let fractions = split_plan(
            settings.validation.is_some(),
            settings.test.is_some(),
            settings.split,
        );
        let parts = split_rows(&targets, &groups, fractions, settings.seed);
        for (row, part) in loader.rows.iter_mut().zip(parts) {
            row.part = part;
        }
        for (sources, part) in [
            (settings.validation, Part::Validation),
            (settings.test, Part::Test),
        ] {
            let teaches = part == Part::Validation && settings.teaches_validation;
            let columns = settings.label_columns.iter().filter(|_| teaches);
            let columns: Vec<Column> = columns.cloned().collect();
            if let Some(sources) = sources {
                loader.read(part, &with_label_columns(sources, &columns), KEEP_ALL)?;
            }
        }
        Ok(loader.finish())
    }

    /// Reads files as they are, all rows of `part`, for labels that are known: to evaluate a head on other data. Cells may
    /// hold ids of labels: see [`LabelMap::id_or_number`].
    ///
    /// # Errors
    /// As [`Dataset::load`]; rows may be alike.
    pub fn of_part(
        task: DataTask,
        joint_pairs: bool,
        sources: &[Source],
        labels: LabelMap,
        part: Part,
    ) -> Result<Dataset> {
        let mut loader = Loader {
            given_labels: true,
            labels,
            ..Loader::new(task, joint_pairs)
        };
        loader.read(part, sources, KEEP_ALL)?;
        Ok(loader.finish())
    }

    /// The places in `rows` of a part, in order.
    pub fn part(&self, part: Part) -> Vec<u32> {
        let places = self
            .rows
            .iter()
            .enumerate()
            .filter(|(_, row)| row.part == part);
        places.map(|(place, _)| place as u32).collect()
    }

    /// The keys of every row's documents, row by row: one each, or two for pairs that are encoded separately.
    pub fn document_keys(&self) -> Vec<Key> {
        let keys = self.rows.iter().flat_map(|row| row.keys.iter().copied());
        keys.collect()
    }

    /// The key of every row's document, of a pair's first.
    pub fn keys(&self) -> Vec<Key> {
        self.rows.iter().map(|row| row.keys[0]).collect()
    }

    /// The labels of some rows, for classification.
    ///
    /// # Panics
    /// When the rows are of another task.
    pub fn labels_of(&self, places: &[u32]) -> Vec<u32> {
        let class = |place: &u32| {
            let class = self.rows[*place as usize].target.class();
            class.expect("rows of classification") as u32
        };
        places.iter().map(class).collect()
    }
}

/// The name of a part in pipelines and reports.
pub fn part_name(part: Part) -> &'static str {
    match part {
        Part::Train => "train",
        Part::Validation => "validation",
        Part::Test => "test",
    }
}

/// What is gathered while files are read.
struct Loader {
    task: DataTask,
    joint_pairs: bool,
    labels: LabelMap,
    given_labels: bool,
    rows: Vec<Row>,
    label_columns: Vec<LabelColumn>,
    files: Vec<FileRecord>,
    checks: Vec<FileChecks>,
    /// The number of each document of a file (tokens) and of each context (qa).
    groups: HashMap<(Option<usize>, Key), u64>,
}

impl Loader {
    fn new(task: DataTask, joint_pairs: bool) -> Loader {
        Loader {
            task,
            joint_pairs,
            labels: LabelMap::default(),
            given_labels: false,
            rows: Vec::new(),
            label_columns: Vec::new(),
            files: Vec::new(),
            checks: Vec::new(),
            groups: HashMap::new(),
        }
    }

    /// Adds the rows of some files, all as `part`. Labels that are not given are found where that is train.
    fn read(&mut self, part: Part, sources: &[Source], options: CleanOptions) -> Result<()> {
        let targets = Targets {
            task: self.task,
            sources,
        };
        let first_file = self.files.len();
        let (examples, counts) = self.read_examples(&targets, options)?;
        let files = &self.files[first_file..];
        self.checks
            .push(FileChecks::of(part, counts, options, files));
        match (self.given_labels, part) {
            (true, _) => {}
            (false, Part::Train) => self.labels = targets.found_labels(&examples),
            (false, _) => targets.add_continuations(&examples, &mut self.labels),
        }
        for example in examples {
            let read = |example: &Example| {
                targets.read(example, &self.labels, self.given_labels.then_some(0))
            };
            let target = read(&example)?;
            let source = &sources[example.source];
            for (place, column) in self.label_columns.iter_mut().enumerate() {
                let cell = example.label_cells.get(place).map(String::as_str);
                column.push(&example, cell, &target, source, &self.labels, read)?;
            }
            let file = first_file + example.source;
            let group = self.group_of(&example, file);
            self.rows.push(Row {
                keys: example_keys(&example, self.joint_pairs),
                group,
                id: example.id,
                text: example.text,
                text_pair: example.text_pair,
                words: example.words,
                target,
                part,
                file,
                line: example.line,
            });
        }
        Ok(())
    }

    fn read_examples(
        &mut self,
        targets: &Targets<'_>,
        options: CleanOptions,
    ) -> Result<(Vec<Example>, CleanCounts)> {
        let (task, sources) = (targets.task, targets.sources);
        let first_file = self.files.len();
        for source in sources {
            let blake3 = fingerprint::hash_file(&source.path)?;
            task.check_format(source)?;
            self.files.push(FileRecord {
                path: source.path.clone(),
                blake3,
                rows: 0,
            });
        }
        let counted = &mut self.files[first_file..];
        let examples = read_all(sources, true).inspect(|example| {
            if let Ok(example) = example {
                counted[example.source].rows += 1;
            }
        });
        let keys = |example: &Example| example_keys(example, self.joint_pairs);
        let (examples, mut counts) =
            clean(examples, options, keys, |example| targets.spell(example))?;
        let files = &self.files[first_file..];
        let n_records: Vec<usize> = files.iter().map(|file| file.rows).collect();
        require_texts(sources, &n_records, examples.len(), counts.empty as u64)?;
        if task == DataTask::Qa {
            // A question may well have other answers in another file: none of them contradicts the others.
            counts.conflicting = 0;
            counts.conflicts.clear();
        }
        Ok((examples, counts))
    }

    fn group_of(&mut self, example: &Example, file: usize) -> Option<u64> {
        let name = |name: &String| Key::of(Mode::Text, &[name]);
        let group = match self.task {
            // Whichever file and article it stands in.
            DataTask::Qa => (None, name(example.text_pair.as_ref()?)),
            DataTask::Tokens => (Some(file), name(example.group.as_ref()?)),
            _ => return None,
        };
        let next = self.groups.len() as u64;
        Some(*self.groups.entry(group).or_insert(next))
    }

    fn finish(self) -> Dataset {
        let Loader {
            task,
            labels,
            rows,
            label_columns,
            files,
            checks,
            ..
        } = self;
        let distribution = distribution_of(&labels, &rows);
        let checks = DataChecks::of(checks, &rows, &files, distribution.balance());
        Dataset {
            values: value_summaries(&rows),
            questions: match task {
                DataTask::Qa => question_summaries(&rows),
                _ => Vec::new(),
            },
            warnings: checks
                .warnings()
                .into_iter()
                .chain(label_columns.iter().filter_map(LabelColumn::warning))
                .collect(),
            checks,
            distribution,
            labels,
            rows,
            label_columns,
            files,
        }
    }
}

/// The sources, asked for these columns.
fn with_label_columns(sources: &[Source], columns: &[Column]) -> Vec<Source> {
    let asked = sources.iter().map(|source| Source {
        label_columns: columns.to_vec(),
        ..source.clone()
    });
    asked.collect()
}

fn distribution_of(labels: &LabelMap, rows: &[Row]) -> ClassDistribution {
    let ids = |row: &Row| row.target.label_ids().to_vec();
    let ids = rows
        .iter()
        .flat_map(|row| ids(row).into_iter().map(|id| (id, row.part)));
    class_distribution(labels, ids)
}

/// The examples of several sources one after the other, each with its source's number.
pub fn read_all(sources: &[Source], label: bool) -> impl Iterator<Item = Result<Example>> {
    sources
        .iter()
        .enumerate()
        .flat_map(move |(number, source)| {
            let want = Want {
                label,
                text_pair: source.text_pair.is_some(),
            };
            let (examples, error) = match read(source, want) {
                Ok(examples) => (Some(examples), None),
                Err(error) => (None, Some(Err(error))),
            };
            let examples = examples.into_iter().flatten();
            error.into_iter().chain(examples.map(move |example| {
                example.map(|example| Example {
                    source: number,
                    ..example
                })
            }))
        })
}

#[cfg(test)]
mod tests;

//! The labelled examples of a pipeline: every source read, cleaned, labelled and split, each example with its keys.

use frostbert_cache::fingerprint::Key;

use super::{
    ClassDistribution, CleanOptions, ColumnName, DataTask, LabelColumn, LabelMap, Part,
    QuestionSummary, Record, Records, Source, SplitFractions, ValueSummary, WantedFields,
    bad_rows::BadRows,
    checks::DataChecks,
    class_distribution, read_logged,
    summary::{question_summaries, value_summaries},
};
use crate::{
    data::example::{Example, FileRecord},
    error::Result,
};

/// The sources of a [`Dataset`] and how it is made from them.
#[derive(Clone, Debug)]
pub struct DatasetSettings<'a> {
    /// The task, which determines what labels mean.
    pub task: DataTask,
    /// Whether a pair of texts is one document or two: `data.pair`.
    pub joint_pairs: bool,
    /// The sources of train, which are split if validation or test is not given.
    pub train: &'a [Source],
    /// The sources of validation, if given.
    pub validation: Option<&'a [Source]>,
    /// The sources of test, if given.
    pub test: Option<&'a [Source]>,
    /// The labels, if given (cells may then hold their ids, counted from 0 in all files or from 1 in all); otherwise
    /// they are collected from train. Ignored if [`DataTask::has_labels`] is false.
    pub labels: Option<LabelMap>,
    /// The shares into which train is split.
    pub split: SplitFractions,
    /// Which examples are dropped.
    pub clean: CleanOptions,
    /// The seed of the split.
    pub seed: u64,
    /// Columns of the train sources that heads learn from in place of the label, for classification.
    pub label_columns: Vec<ColumnName>,
    /// Whether heads also learn from the given validation rows, so that their files need these columns.
    pub teaches_validation: bool,
}

/// The labelled examples of a pipeline.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// The labels, by id; empty for regression and qa.
    pub labels: LabelMap,
    /// The number that cells use for the first label, if they hold ids.
    pub first_id: Option<usize>,
    /// The examples: train in file order (including what was split from it), then given validation, then given test.
    pub rows: Vec<Example>,
    /// The labels of the rows in other columns, if these were requested.
    pub label_columns: Vec<LabelColumn>,
    /// The counts of the classes in each split: rows of each label, for tokens words of each tag; empty for regression
    /// and qa.
    pub distribution: ClassDistribution,
    /// The range of the values in each split, for regression.
    pub values: Vec<ValueSummary>,
    /// The counts of the questions in each split, for qa.
    pub questions: Vec<QuestionSummary>,
    /// The results of the checks that need no model.
    pub checks: DataChecks,
    /// The files, in the order in which they were read.
    pub files: Vec<FileRecord>,
    /// Warnings for the user: conflicts, duplicates, leaks, misplaced answers.
    pub warnings: Vec<String>,
}

impl Dataset {
    /// Returns the same rows, with those of validation moved to train. The checks remain those of the data as read.
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

    /// Returns the indices in `rows` of a split, in order.
    pub fn part(&self, part: Part) -> Vec<u32> {
        let places = self.rows.iter().enumerate().filter(|(_, row)| row.part == part);
        places.map(|(place, _)| place as u32).collect()
    }

    /// Returns the keys of every row's documents, row by row: one each, or two for pairs that are encoded separately.
    pub fn document_keys(&self) -> Vec<Key> {
        let keys = self.rows.iter().flat_map(|row| row.keys.iter().copied());
        keys.collect()
    }

    /// Returns the key of every row's first document.
    pub fn keys(&self) -> Vec<Key> {
        self.rows.iter().map(|row| row.keys[0]).collect()
    }

    /// Returns the class ids of some rows, for classification.
    ///
    /// # Panics
    /// Panics if the rows belong to another task.
    pub fn labels_of(&self, places: &[u32]) -> Vec<u32> {
        let class = |place: &u32| {
            let class = self.rows[*place as usize].target.class();
            class.expect("rows of classification") as u32
        };
        places.iter().map(class).collect()
    }
}

pub(super) fn distribution_of(labels: &LabelMap, rows: &[Example]) -> ClassDistribution {
    let ids = |row: &Example| row.target.label_ids().to_vec();
    let ids = rows.iter().flat_map(|row| ids(row).into_iter().map(|id| (id, row.part)));
    class_distribution(labels, ids)
}

/// Iterates over the records of several sources, one after the other, each with the index of its source. Only their
/// texts are read, not their labels.
pub(crate) fn read_all(sources: &[Source]) -> impl Iterator<Item = Result<Record>> {
    read_all_logged(sources, &BadRows::default())
}

/// Like [`read_all`], and lists the lines that are skipped because they cannot be read in `log`.
pub(crate) fn read_all_logged<'s>(
    sources: &'s [Source],
    log: &BadRows,
) -> impl Iterator<Item = Result<Record>> + use<'s> {
    let log = log.clone();
    sources.iter().enumerate().flat_map(move |(number, source)| {
        let want = WantedFields { label: false, text_pair: source.text_pair.is_some() };
        numbered(read_logged(source, want, &log), number, source)
    })
}

/// Sets the source of records to `number`, and their prompts to those of `source`; an error of opening it becomes the
/// only item.
pub(crate) fn numbered(
    examples: Result<Records>,
    number: usize,
    source: &Source,
) -> impl Iterator<Item = Result<Record>> + use<> {
    let prompts = source.prompts();
    let (examples, error) = match examples {
        Ok(examples) => (Some(examples), None),
        Err(error) => (None, Some(Err(error))),
    };
    let examples = examples.into_iter().flatten();
    error.into_iter().chain(examples.map(move |example| {
        example.map(|example| Record { source: number, prompts: prompts.clone(), ..example })
    }))
}

#[cfg(test)]
mod tests;

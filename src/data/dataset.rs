//! The labelled rows of a pipeline: every source read, cleaned, labelled and split, each row with its keys.

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
    /// The labels, where they are given (cells may then hold their ids, counted in all files from 0 or in all from 1); else
    /// those of train. Not looked at where [`DataTask::has_labels`] is false.
    pub labels: Option<LabelMap>,
    /// How train is split.
    pub split: SplitFractions,
    /// What is left out.
    pub clean: CleanOptions,
    /// Decides the split.
    pub seed: u64,
    /// Columns of the train sources that heads learn from in place of the label, for classification.
    pub label_columns: Vec<ColumnName>,
    /// Whether given validation rows are learned from too, so that their files need these columns.
    pub teaches_validation: bool,
}

/// The labelled rows of a pipeline.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// The labels, by id; none for regression and qa.
    pub labels: LabelMap,
    /// The number by which cells call the first label, where they hold ids.
    pub first_id: Option<usize>,
    /// The rows: train in file order (with what was split from it), then given validation, then given test.
    pub rows: Vec<Example>,
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

    /// The places in `rows` of a part, in order.
    pub fn part(&self, part: Part) -> Vec<u32> {
        let places = self.rows.iter().enumerate().filter(|(_, row)| row.part == part);
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

pub(super) fn distribution_of(labels: &LabelMap, rows: &[Example]) -> ClassDistribution {
    let ids = |row: &Example| row.target.label_ids().to_vec();
    let ids = rows.iter().flat_map(|row| ids(row).into_iter().map(|id| (id, row.part)));
    class_distribution(labels, ids)
}

/// The examples of several sources one after the other, each with its source's number; of texts, without what they are
/// to be learned as.
pub(crate) fn read_all(sources: &[Source]) -> impl Iterator<Item = Result<Record>> {
    read_all_logged(sources, &BadRows::default())
}

/// As [`read_all`]; the lines that are left out because they cannot be read are listed in `log`.
pub(crate) fn read_all_logged<'s>(
    sources: &'s [Source],
    log: &BadRows,
) -> impl Iterator<Item = Result<Record>> + use<'s> {
    let log = log.clone();
    sources.iter().enumerate().flat_map(move |(number, source)| {
        let want = WantedFields { label: false, text_pair: source.text_pair.is_some() };
        numbered(read_logged(source, want, &log), number)
    })
}

/// Examples with the number of their source, or the error of opening it.
pub(crate) fn numbered(
    examples: Result<Records>,
    number: usize,
) -> impl Iterator<Item = Result<Record>> {
    let (examples, error) = match examples {
        Ok(examples) => (Some(examples), None),
        Err(error) => (None, Some(Err(error))),
    };
    let examples = examples.into_iter().flatten();
    error.into_iter().chain(
        examples.map(move |example| example.map(|example| Record { source: number, ..example })),
    )
}

#[cfg(test)]
mod tests;

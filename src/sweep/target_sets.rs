//! The sets of samples that heads are trained on: every split, once for each label column that trials are trained on.

use frostbert_cache::wording::counted;

use crate::{
    config::settings::Pipeline,
    data::{ColumnName, dataset::Dataset},
    error::Result,
    head::targets::TargetTable,
    sweep::{splits::Split, trials::Trial},
    tasks::{SamplePurpose, TaskRows},
};

/// The samples and targets that the heads of some trials are trained on, set by set: the splits of the first column,
/// then those of the second, and so on.
pub(super) struct TargetSets {
    /// The number of the column of each trial; all splits of a column are consecutive.
    column_of: Vec<usize>,
    columns: Vec<Option<ColumnName>>,
    n_splits: usize,
    /// The samples of each set.
    train: Vec<Vec<u32>>,
    /// The targets of label columns, besides the rows' own: one table for each set of rows that is evaluated.
    tables: Vec<TargetTable>,
    /// The table of each set; `None` if heads are trained on the rows' own targets.
    table_of: Vec<Option<usize>>,
}

impl TargetSets {
    /// Creates the sets for the splits of a dataset and the columns of all trials.
    pub(super) fn new(
        rows: &TaskRows<'_>,
        dataset: &Dataset,
        trials: &[Trial],
        splits: &[Split],
    ) -> TargetSets {
        let (columns, column_of) = columns(trials);
        let mut target_sets = TargetSets {
            column_of,
            n_splits: splits.len(),
            train: Vec::new(),
            tables: Vec::new(),
            table_of: Vec::new(),
            columns: Vec::new(),
        };
        for column in columns {
            let mut judged: Option<&[u32]> = None;
            for split in splits {
                let train = rows.samples_of(dataset, &split.train, SamplePurpose::Training);
                let train = rows.taught(dataset, column.as_ref(), &train);
                target_sets.train.push(train);
                // Splits that are evaluated on the same rows are consecutive.
                if column.is_some() && judged != Some(&split.validation) {
                    let table = rows.targets_of(dataset, column.as_ref(), &split.validation);
                    target_sets.tables.push(table);
                    judged = Some(&split.validation);
                }
                let table = column.as_ref().and(target_sets.tables.len().checked_sub(1));
                target_sets.table_of.push(table);
            }
            target_sets.columns.push(column);
        }
        target_sets
    }

    /// Returns the set of a trial on a split.
    pub(super) fn set(&self, trial: usize, split: usize) -> usize {
        self.column_of[trial] * self.n_splits + split
    }

    /// Returns the split of a set.
    pub(super) fn split(&self, set: usize) -> usize {
        set % self.n_splits
    }

    /// Returns the samples of each set, in order.
    pub(super) fn train(&self) -> &[Vec<u32>] {
        &self.train
    }

    /// Returns the targets of a set's samples; samples that heads are evaluated on keep their own.
    pub(super) fn targets<'a>(&'a self, set: usize, rows: &'a TaskRows<'_>) -> &'a TargetTable {
        match self.table_of[set] {
            Some(table) => &self.tables[table],
            None => &rows.targets,
        }
    }

    /// Returns the columns that heads are trained on, with the samples of each split.
    pub(super) fn columns(&self) -> impl Iterator<Item = (Option<&ColumnName>, &[Vec<u32>])> {
        let columns = self.columns.iter().map(Option::as_ref);
        columns.zip(self.train.chunks(self.n_splits))
    }
}

/// Returns the distinct columns that trials are trained on, and the position of each trial's column among them.
fn columns(trials: &[Trial]) -> (Vec<Option<ColumnName>>, Vec<usize>) {
    let mut columns: Vec<Option<ColumnName>> = Vec::new();
    let column_of = trials.iter().map(|trial| {
        let column = &trial.pipeline.head.label;
        let place = columns.iter().position(|one| one == column);
        place.unwrap_or_else(|| {
            columns.push(column.clone());
            columns.len() - 1
        })
    });
    let column_of = column_of.collect();
    (columns, column_of)
}

/// Checks that heads can learn from every column on every split.
///
/// # Errors
/// Returns an error if the training rows of a split have fewer than two labels in a column.
pub(super) fn check(
    pipeline: &Pipeline,
    dataset: &Dataset,
    trials: &[Trial],
    splits: &[Split],
) -> Result<()> {
    for column in columns(trials).0.iter().flatten() {
        for split in splits {
            let target_sets = split.train.iter();
            let mut classes =
                target_sets.filter_map(|row| dataset.target_for(*row, Some(column))?.class());
            let first = classes.next();
            if !classes.any(|class| Some(class) != first) {
                return Err(pipeline.refuse(
                    format!(
                        "a head would learn from the column {column}, which has fewer than two labels \
                         on the {} that it learns from",
                        counted(split.train.len(), "row")
                    ),
                    "leave the column out of sweep.label, or fill more of its cells".into(),
                ));
            }
        }
    }
    Ok(())
}

//! The sets of samples that heads learn from: every cut, and for each label column that trials learn from one of its own.

use super::{cuts::Cut, trials::Trial};
use crate::{
    data::{Column, dataset::Dataset},
    error::Result,
    head::targets::TargetTable,
    pipeline::{settings::Pipeline, tasks::TaskRows},
    wording::counted,
};

/// What the heads of some trials learn, set by set: the cuts of the first column, then those of the second ...
pub(super) struct Lessons {
    /// The column of each trial, by its place; all cuts of a column are one behind the other.
    column_of: Vec<usize>,
    columns: Vec<Option<Column>>,
    n_cuts: usize,
    /// The samples of each set.
    train: Vec<Vec<u32>>,
    /// Beside the rows' own targets, those of columns: one for each part of the rows that is judged.
    tables: Vec<TargetTable>,
    /// The table of each set; none where heads learn what they are judged by.
    table_of: Vec<Option<usize>>,
}

impl Lessons {
    /// Of the cuts of a dataset, for the columns of all trials.
    pub(super) fn new(
        rows: &TaskRows<'_>,
        dataset: &Dataset,
        trials: &[Trial],
        cuts: &[Cut],
    ) -> Lessons {
        let (columns, column_of) = columns(trials);
        let mut lessons = Lessons {
            column_of,
            n_cuts: cuts.len(),
            train: Vec::new(),
            tables: Vec::new(),
            table_of: Vec::new(),
            columns: Vec::new(),
        };
        for column in columns {
            let mut judged: Option<&[u32]> = None;
            for cut in cuts {
                let train = rows.samples_of(dataset, &cut.train, true);
                let train = rows.taught(dataset, column.as_ref(), &train);
                lessons.train.push(train);
                // Cuts that are judged on the same rows follow one another.
                if column.is_some() && judged != Some(&cut.validation) {
                    let table = rows.targets_of(dataset, column.as_ref(), &cut.validation);
                    lessons.tables.push(table);
                    judged = Some(&cut.validation);
                }
                let table = column.as_ref().and(lessons.tables.len().checked_sub(1));
                lessons.table_of.push(table);
            }
            lessons.columns.push(column);
        }
        lessons
    }

    /// The set of a trial on a cut.
    pub(super) fn set(&self, trial: usize, cut: usize) -> usize {
        self.column_of[trial] * self.n_cuts + cut
    }

    /// The cut of a set.
    pub(super) fn cut(&self, set: usize) -> usize {
        set % self.n_cuts
    }

    /// The samples of each set, in their order.
    pub(super) fn train(&self) -> &[Vec<u32>] {
        &self.train
    }

    /// What the samples of a set are to be, of those that are judged what they are.
    pub(super) fn targets<'a>(&'a self, set: usize, rows: &'a TaskRows<'_>) -> &'a TargetTable {
        match self.table_of[set] {
            Some(table) => &self.tables[table],
            None => &rows.targets,
        }
    }

    /// The columns that heads learn from, and the samples of each cut.
    pub(super) fn columns(&self) -> impl Iterator<Item = (Option<&Column>, &[Vec<u32>])> {
        let columns = self.columns.iter().map(Option::as_ref);
        columns.zip(self.train.chunks(self.n_cuts))
    }
}

/// The columns that trials learn from, each once, and the place of each trial's among them.
fn columns(trials: &[Trial]) -> (Vec<Option<Column>>, Vec<usize>) {
    let mut columns: Vec<Option<Column>> = Vec::new();
    let column_of = trials.iter().map(|trial| {
        let column = &trial.pipeline.file.train.label;
        let place = columns.iter().position(|one| one == column);
        place.unwrap_or_else(|| {
            columns.push(column.clone());
            columns.len() - 1
        })
    });
    let column_of = column_of.collect();
    (columns, column_of)
}

/// Checks that every column teaches something on every cut.
///
/// # Errors
/// When too few rows have a label in it.
pub(super) fn check(
    pipeline: &Pipeline,
    dataset: &Dataset,
    trials: &[Trial],
    cuts: &[Cut],
) -> Result<()> {
    for column in columns(trials).0.iter().flatten() {
        for cut in cuts {
            let lessons = cut.train.iter();
            let mut classes = lessons.filter_map(|row| dataset.lesson(*row, Some(column))?.class());
            let first = classes.next();
            if !classes.any(|class| Some(class) != first) {
                return Err(pipeline.refuse(
                    format!(
                        "a head would learn from the column {column}, which has fewer than two labels \
                         on the {} that it learns from",
                        counted(cut.train.len(), "row")
                    ),
                    "leave the column out of sweep.label, or fill more of its cells".into(),
                ));
            }
        }
    }
    Ok(())
}

//! Columns of labels that heads learn from in place of the source's own: an annotator, a rule, a weak label.
//!
//! They hold labels of the same [`LabelMap`](super::LabelMap), and heads that learn from them are evaluated on the
//! source's own label.

use frostbert_cache::wording::part_of;

use super::{
    dataset::Dataset,
    labels::{LabelMap, is_missing},
    record::Record,
    source::{ColumnName, Source},
    target::Target,
};
use crate::error::{Error, Result};

/// A column of labels, in the order of the rows of a [`Dataset`].
#[derive(Clone, Debug, PartialEq)]
pub struct LabelColumn {
    /// Its name or number.
    pub column: ColumnName,
    /// The target of each row in this column; `None` if its cell is empty, or if the column was not read from the row's
    /// file.
    pub targets: Vec<Option<Target>>,
    /// Number of rows from whose file the column was read.
    pub n_asked: usize,
}

impl LabelColumn {
    /// Creates a column without rows.
    pub(super) fn new(column: ColumnName) -> LabelColumn {
        LabelColumn { column, targets: Vec::new(), n_asked: 0 }
    }

    /// Adds the row of a record of `source` whose own target is `own`; `cell` is `None` if the column was not read.
    pub(super) fn push(
        &mut self,
        example: &Record,
        cell: Option<&str>,
        own: &Target,
        source: &Source,
        labels: &LabelMap,
        read: impl Fn(&Record) -> Result<Target>,
    ) -> Result<()> {
        self.n_asked += usize::from(cell.is_some());
        let target = match cell {
            None => None,
            Some(cell) if is_missing(cell) && labels.id(cell).is_none() => None,
            // This is the source's own column, whose target may come from a default.
            Some(_) if source.label_column() == self.column => Some(own.clone()),
            Some(cell) => {
                let example = Record {
                    label: Some(cell.to_owned()),
                    source: example.source,
                    line: example.line,
                    ..Record::default()
                };
                Some(read(&example).map_err(|error| self.located(error, source))?)
            }
        };
        self.targets.push(target);
        Ok(())
    }

    /// Returns the number of rows whose cell is empty.
    pub fn n_empty(&self) -> usize {
        self.n_asked - self.targets.iter().flatten().count()
    }

    /// Returns a warning if some rows are not learned from.
    pub(super) fn warning(&self) -> Option<String> {
        let n_empty = self.n_empty();
        (n_empty > 0).then(|| {
            format!(
                "{} {} no label in the column {}: heads that learn from it do not learn from these rows",
                part_of(n_empty, self.n_asked, "row"),
                if n_empty == 1 { "has" } else { "have" },
                self.column
            )
        })
    }

    /// Returns an error if the rows so far do not have at least two labels.
    pub(super) fn require_contrast(&self, labels: &LabelMap, source: &Source) -> Result<()> {
        let mut classes = self.targets.iter().flatten().filter_map(Target::class);
        let first = classes.next();
        if classes.any(|class| Some(class) != first) {
            return Ok(());
        }
        let got = match first.and_then(|class| labels.name(class)) {
            Some(label) => format!("only `{label}`"),
            None => "only empty cells".to_owned(),
        };
        Err(source.malformed(
            None,
            format!("rows of at least two labels in the column {}", self.column),
            got,
            "there is nothing to learn from one label: check which columns train.label and sweep.label name",
        ))
    }

    fn located(&self, mut error: Error, source: &Source) -> Error {
        if let Error::Record { expected, hint, .. } = &mut error {
            expected.push_str(&format!(
                " in the column {}, which the head learns from instead of {}",
                self.column,
                source.label_column()
            ));
            *hint = "correct the cell, or leave it empty if nobody gave a label; to learn something else, give it a \
                     task of its own: [tasks.NAME]"
                .to_owned();
        }
        error
    }
}

impl Dataset {
    /// Returns a column of labels that was read with the rows.
    pub fn label_column(&self, column: Option<&ColumnName>) -> Option<&LabelColumn> {
        let mut read = self.label_columns.iter();
        read.find(|one| Some(&one.column) == column)
    }

    /// Returns the target of a row for a head that learns from `column`, or from the row's own label if that is `None`.
    /// There is none if the row has no label in the column.
    pub fn target_for(&self, row: u32, column: Option<&ColumnName>) -> Option<&Target> {
        match self.label_column(column) {
            Some(column) => column.targets[row as usize].as_ref(),
            None => Some(&self.rows[row as usize].target),
        }
    }
}

#[cfg(test)]
mod tests;

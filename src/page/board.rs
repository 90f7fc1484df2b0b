//! The leaderboard of a sweep, read back.

use super::{
    csv_table::CsvTable,
    numbers::{NONE, short},
};
use crate::metrics::metric::Metric;

/// The leaderboard of a run, with what its columns are.
pub(super) struct Board {
    pub(super) table: CsvTable,
    pub(super) metric: Metric,
    /// The columns of the settings that have more than one value.
    pub(super) settings: Vec<usize>,
    pub(super) scores: Vec<Option<f64>>,
    pub(super) are_best: Vec<bool>,
}

impl Board {
    /// Reads leaderboard.csv.
    pub(super) fn of(table: CsvTable) -> Option<Board> {
        let prefix = "validation_";
        let score = table.names.iter().position(|name| name.starts_with(prefix))?;
        let metric = Metric::named(table.names[score].strip_prefix(prefix)?)?;
        let start = table.place("trial")? + 1;
        let end = table.place("rung").unwrap_or(score);
        let varies = |column: &usize| {
            let mut cells = table.rows.iter().map(|row| &row[*column]);
            let first = cells.next();
            cells.any(|cell| Some(cell) != first)
        };
        let settings = (start..end).filter(varies).collect();
        let scores = table.numbers(&table.names[score])?;
        let are_best = table.column("not_worse_than_best")?.into_iter();
        let are_best = are_best.map(|cell| cell == "true").collect();
        Some(Board { metric, settings, scores, are_best, table })
    }
}

/// A value of a setting: numbers with the digits that say something.
pub(super) fn setting(cell: &str) -> String {
    match cell.parse::<f64>() {
        _ if cell.is_empty() => NONE.into(),
        Ok(number) if cell.contains(['.', 'e']) => short(number),
        _ => cell.into(),
    }
}

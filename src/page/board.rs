//! The leaderboard of a sweep, read back.

use super::{
    csv_table::CsvTable,
    numbers::{NONE, short},
};
use crate::{
    metrics::metric::Metric,
    report::leaderboard::RUNG,
    selection::{curves::FRACTION, leaderboard::chosen_from},
};

/// The title of adjusted p-values.
pub(super) const ADJUSTED_P: &str = "p (Holm)";

/// The leaderboard of a run, with what its columns are.
pub(super) struct Board {
    pub(super) table: CsvTable,
    pub(super) metric: Metric,
    /// The columns of the settings that have more than one value.
    pub(super) settings: Vec<usize>,
    pub(super) scores: Vec<Option<f64>>,
    pub(super) are_best: Vec<bool>,
    /// The row of the run's own head.
    pub(super) winner: Option<usize>,
}

impl Board {
    /// Reads leaderboard.csv.
    pub(super) fn of(table: CsvTable) -> Option<Board> {
        let prefix = "validation_";
        let score = table.names.iter().position(|name| name.starts_with(prefix))?;
        let metric = Metric::named(table.names[score].strip_prefix(prefix)?)?;
        let start = table.place("trial")? + 1;
        let end = table.place(RUNG).unwrap_or(score);
        let varies = |column: &usize| {
            let mut cells = table.rows.iter().map(|row| &row[*column]);
            let first = cells.next();
            cells.any(|cell| Some(cell) != first)
        };
        let settings = (start..end).filter(varies).collect();
        let scores = table.numbers(&table.names[score])?;
        let are_best = table.column("not_worse_than_best")?.into_iter();
        let are_best = are_best.map(|cell| cell == "true").collect();
        let winner = winner(&table, metric);
        Some(Board { metric, settings, scores, are_best, winner, table })
    }

    /// The settings that a row was chosen from, itself among them: those behind it that learned from the same share of the
    /// rows for as long, and did not diverge.
    pub(super) fn rivals(&self, winner: usize) -> Vec<usize> {
        let columns = [FRACTION, RUNG].map(|name| self.table.place(name));
        let rows = self.table.rows.iter();
        let learned: Vec<[Option<&String>; 2]> =
            rows.map(|row| columns.map(|column| Some(&row[column?]))).collect();
        let rows = 0..self.table.rows.len();
        let diverged: Vec<bool> = rows.map(|row| diverged(&self.table, row)).collect();
        chosen_from(&learned, &diverged, winner)
    }

    /// A number of a row.
    pub(super) fn number(&self, name: &str, row: usize) -> Option<f64> {
        self.table.numbers(name)?[row]
    }

    /// The interval of each row, from the columns of its ends.
    pub(super) fn intervals(&self, ends: [&str; 2]) -> Vec<Option<[f64; 2]>> {
        let [low, high] = ends.map(|name| self.table.numbers(name).unwrap_or_default());
        let end = |all: &[Option<f64>], row: usize| all.get(row).copied().flatten();
        let rows = 0..self.table.rows.len();
        rows.map(|row| end(&low, row).zip(end(&high, row)).map(|(low, high)| [low, high])).collect()
    }
}

/// The row that alone has a corrected score, or a test score; else the first that could win: the best of those that learned
/// from all rows.
fn winner(table: &CsvTable, metric: Metric) -> Option<usize> {
    let told = ["corrected", "test"].iter().find_map(|name| {
        let cells = table.column(&format!("{name}_{metric}"))?;
        cells.iter().position(|cell| !cell.is_empty())
    });
    told.or_else(|| {
        let shares = table.numbers(FRACTION);
        let whole = shares.iter().flatten().flatten().copied().reduce(f64::max);
        let is_whole = |row: usize| shares.as_ref().is_none_or(|shares| shares[row] == whole);
        (0..table.rows.len()).find(|row| is_whole(*row) && !diverged(table, *row))
    })
}

fn diverged(table: &CsvTable, row: usize) -> bool {
    let place = table.place("n_diverged");
    place.is_some_and(|place| !["", "0"].contains(&table.rows[row][place].as_str()))
}

/// A value of a setting: numbers with the digits that say something.
pub(super) fn setting(cell: &str) -> String {
    match cell.parse::<f64>() {
        _ if cell.is_empty() => NONE.into(),
        Ok(number) if cell.contains(['.', 'e']) => short(number),
        _ => cell.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(csv: &str) -> Board {
        Board::of(CsvTable::parse(csv.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn the_winner_is_the_row_with_a_corrected_or_a_test_score() {
        let names = "rank,trial,lr,validation_macro_f1,test_macro_f1,not_worse_than_best,corrected_macro_f1\n";
        let corrected = "1,0,0.1,0.9,,true,\n2,1,0.2,0.8,,true,0.7\n";
        assert_eq!(board(&format!("{names}{corrected}")).winner, Some(1));
        let tested = "1,0,0.1,0.9,,true,\n2,1,0.2,0.8,0.6,true,\n";
        assert_eq!(board(&format!("{names}{tested}")).winner, Some(1));
    }

    #[test]
    fn a_winner_has_learned_from_all_rows_and_rivals_as_long_as_it() {
        let names = "rank,trial,fraction,rung,validation_macro_f1,not_worse_than_best,n_diverged\n";
        let rows = "1,0,0.5,2,0.9,true,0\n2,1,1.0,2,0.8,true,1\n3,2,1.0,2,0.8,true,0\n\
                    4,3,1.0,2,0.7,true,0\n5,4,0.5,2,0.6,true,0\n6,5,1.0,1,0.5,false,0\n";
        let board = board(&format!("{names}{rows}"));
        assert_eq!(board.winner, Some(2));
        assert_eq!(board.rivals(2), [2, 3]);
    }
}

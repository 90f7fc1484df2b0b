//! The score over two settings at once.

use serde::Serialize;
use toml::Value;

use crate::{
    config::settings::show,
    selection::{leaderboard::Leaderboard, setting::distinct},
};

/// Scores of heads by the values of two settings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HeatMap {
    /// The setting of the rows.
    pub row_key: String,
    /// The setting of the columns.
    pub column_key: String,
    /// Values of the rows: numbers in ascending order, other values in the order of the trials.
    pub rows: Vec<String>,
    /// Values of the columns, likewise.
    pub columns: Vec<String>,
    /// The best score of each cell, `[rows][columns]`; `None` if no head has both values.
    pub best: Vec<Vec<Option<f64>>>,
    /// The mean score of each cell.
    pub mean: Vec<Vec<Option<f64>>>,
}

/// Best and mean score for every pair of values; `None` if one of the settings has a single value.
pub(crate) fn heat_map(
    leaderboard: &Leaderboard,
    row_key: &str,
    column_key: &str,
) -> Option<HeatMap> {
    let varied = leaderboard.varied();
    if !varied.contains(&row_key) || !varied.contains(&column_key) {
        return None;
    }
    // By trial, so that the order of names does not depend on who won.
    let mut trials: Vec<_> = leaderboard.rows.iter().collect();
    trials.sort_by_key(|row| row.trial);
    let scored: Vec<(&Value, &Value, f64)> = trials
        .iter()
        .filter_map(|row| Some((row.setting(row_key)?, row.setting(column_key)?, row.score?)))
        .collect();
    let rows = distinct(scored.iter().map(|(row, ..)| *row));
    let columns = distinct(scored.iter().map(|(_, column, _)| *column));
    let cells = |summary: &dyn Fn(&[f64]) -> Option<f64>| -> Vec<Vec<Option<f64>>> {
        let cell = |row: &Value, column: &Value| {
            let own = scored
                .iter()
                .filter(|(own_row, own_column, _)| *own_row == row && *own_column == column);
            summary(&own.map(|(.., score)| *score).collect::<Vec<f64>>())
        };
        rows.iter().map(|row| columns.iter().map(|column| cell(row, column)).collect()).collect()
    };
    Some(HeatMap {
        row_key: row_key.to_string(),
        column_key: column_key.to_string(),
        best: cells(&|scores| leaderboard.best(scores.iter().copied())),
        mean: cells(&|scores| {
            (!scores.is_empty()).then(|| scores.iter().sum::<f64>() / scores.len() as f64)
        }),
        rows: rows.iter().map(|value| show(value)).collect(),
        columns: columns.iter().map(|value| show(value)).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::selection::leaderboard::tests::board;

    #[test]
    fn every_pair_of_values_has_its_best_and_mean_or_nothing() {
        let board = board(
            &["layer", "pooling"],
            &[
                (&[6.into(), "mean".into()], 0.5),
                (&[6.into(), "mean".into()], 0.75),
                (&[12.into(), "cls".into()], 0.25),
                (&[0.into(), "mean".into()], 1.0),
            ],
        );
        let map = heat_map(&board, "layer", "pooling").unwrap();
        assert_eq!(map.rows, ["0", "6", "12"]);
        assert_eq!(map.columns, ["mean", "cls"]);
        assert_eq!(map.best, [[Some(1.0), None], [Some(0.75), None], [None, Some(0.25)]]);
        assert_eq!(map.mean[1], [Some(0.625), None]);
        assert_eq!(heat_map(&board, "layer", "lr"), None);
    }
}

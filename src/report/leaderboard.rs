//! The files of a leaderboard. They contain no times, so that equal leaderboards give equal bytes.

use std::path::Path;

use frostbert_cache::durable::write_file;
use toml::Value;

use super::{
    chart::ChartFrame,
    plots,
    sheet::{Sheet, SheetColumn},
};
use crate::{
    config::settings::show,
    error::Result,
    selection::{
        SweepFindings,
        bias_corrected::CorrectedScore,
        curves::{FRACTION, by_kind},
        heat_map::HeatMap,
        leaderboard::{Leaderboard, Spread},
    },
};

/// The leaderboard as CSV, one line for each setting.
pub(crate) const LEADERBOARD_CSV: &str = "leaderboard.csv";

/// The leaderboard as Parquet.
pub(crate) const LEADERBOARD_PARQUET: &str = "leaderboard.parquet";

/// The first heads compared with one another, a line for each pair.
pub(crate) const PAIRS_FILE: &str = "pairs.csv";

/// The effect of each setting, a line for each of its values.
pub(crate) const EFFECTS_FILE: &str = "effects.csv";

/// The expected best score, one line for each number of trials.
pub(crate) const EXPECTED_BEST_FILE: &str = "expected_best.csv";

/// The learning curve, a line for each share of the training rows; of several kinds of head, for each of these too.
pub(crate) const LEARNING_CURVE_FILE: &str = "learning_curve.csv";

/// The best score by layer, one line for each layer.
pub(crate) const LAYER_PROFILE_FILE: &str = "layer_profile.csv";

/// The plot of the best score by layer.
pub(crate) const LAYER_PROFILE_PLOT: &str = "layer_profile.svg";

/// The plot of the expected best score by the number of trials.
pub(crate) const EXPECTED_BEST_PLOT: &str = "expected_best.svg";

/// The plot of the best score by the share of the training rows.
pub(crate) const LEARNING_CURVE_PLOT: &str = "learning_curve.svg";

/// The best and the mean score by layer and pooling, one line for each pair.
pub(crate) const HEAT_MAP_FILE: &str = "heat_map.csv";

/// The plot of the best score by layer and pooling.
pub(crate) const HEAT_MAP_PLOT: &str = "heat_map.svg";

/// With halving, the column of the last rung that a setting reached.
pub(crate) const RUNG: &str = "rung";

/// Writes the leaderboard and what was found in it to a run folder: the tables, and a picture of each curve. What was
/// not varied has no file. `test` is the row of the head that was chosen, and its metric on the test rows; `corrected`
/// the same row, and its score corrected for the choice.
///
/// # Errors
/// Returns an error if a file cannot be written.
pub(crate) fn write(
    run: &Path,
    findings: &SweepFindings,
    test: Option<(usize, f64)>,
    corrected: Option<(usize, CorrectedScore)>,
) -> Result<()> {
    let board = &findings.leaderboard;
    let sheet = leaderboard_sheet(findings, test, corrected);
    sheet.write_csv(&run.join(LEADERBOARD_CSV))?;
    sheet.write_parquet(&run.join(LEADERBOARD_PARQUET))?;
    if !board.pairs.is_empty() {
        pairs_sheet(board).write_csv(&run.join(PAIRS_FILE))?;
    }
    if !findings.effects.is_empty() {
        effects_sheet(findings).write_csv(&run.join(EFFECTS_FILE))?;
    }
    if findings.expected_best.len() > 1 {
        expected_best_sheet(findings).write_csv(&run.join(EXPECTED_BEST_FILE))?;
        let plot =
            plots::expected_best(&findings.expected_best, board.metric).draw(ChartFrame::FILE);
        write_text(&run.join(EXPECTED_BEST_PLOT), &plot)?;
    }
    if !findings.learning_curve.is_empty() {
        learning_curve_sheet(findings).write_csv(&run.join(LEARNING_CURVE_FILE))?;
        let plot =
            plots::learning_curve(&findings.learning_curve, board.metric).draw(ChartFrame::FILE);
        write_text(&run.join(LEARNING_CURVE_PLOT), &plot)?;
    }
    if findings.layer_profile.len() > 1 {
        layer_profile_sheet(findings).write_csv(&run.join(LAYER_PROFILE_FILE))?;
        let plot =
            plots::layer_profile(&findings.layer_profile, board.metric).draw(ChartFrame::FILE);
        write_text(&run.join(LAYER_PROFILE_PLOT), &plot)?;
    }
    if let Some(map) = &findings.heat_map {
        heat_map_sheet(map).write_csv(&run.join(HEAT_MAP_FILE))?;
        let plot = plots::heat_map::heat_map(map, board.metric);
        write_text(&run.join(HEAT_MAP_PLOT), &plot)?;
    }
    Ok(())
}

fn write_text(path: &Path, text: &str) -> Result<()> {
    Ok(write_file(path, text.as_bytes())?)
}

/// One line for each row: its rank, the settings that the sweep varies, and all that is known of its score.
pub(crate) fn leaderboard_sheet(
    findings: &SweepFindings,
    test: Option<(usize, f64)>,
    corrected: Option<(usize, CorrectedScore)>,
) -> Sheet {
    let board = &findings.leaderboard;
    let rows = || board.rows.iter();
    let mut sheet = Sheet::default();
    sheet.integers("rank", rows().map(|row| Some(row.rank)));
    sheet.integers("trial", rows().map(|row| Some(row.trial)));
    for key in &board.keys {
        sheet.push(key, setting_column(board, key));
    }
    if rows().any(|row| row.rung.is_some()) {
        sheet.integers(RUNG, rows().map(|row| row.rung));
    }
    sheet.numbers(&format!("validation_{}", board.metric), rows().map(|row| row.score));
    let end = |end: usize| rows().map(move |row| row.interval.map(|interval| interval[end]));
    sheet.numbers("low", end(0));
    sheet.numbers("high", end(1));
    let of = |chosen: usize, value: Option<f64>| {
        (0..board.rows.len()).map(move |row| value.filter(|_| row == chosen))
    };
    if let Some((chosen, value)) = test {
        sheet.numbers(&format!("test_{}", board.metric), of(chosen, Some(value)));
    }
    if let Some(test) = &findings.test {
        let metric = board.metric;
        let values = test.iter().map(|scores| scores.value(metric));
        sheet.numbers(&format!("test_{metric}_not_for_selection"), values);
        let end = |end: usize| {
            test.iter().map(move |scores| scores.interval(metric).map(|interval| interval[end]))
        };
        sheet.numbers("test_low_not_for_selection", end(0));
        sheet.numbers("test_high_not_for_selection", end(1));
    }
    let flags = rows().map(|row| Some(row.not_worse_than_best));
    sheet.push("not_worse_than_best", SheetColumn::Flags(flags.collect()));
    sheet.numbers("p_value", rows().map(|row| row.p_value));
    sheet.numbers("p_adjusted", rows().map(|row| row.p_adjusted));
    sheet.integers("n_seeds", rows().map(|row| Some(row.seeds)));
    push_spread(&mut sheet, "seed", rows().map(|row| row.seed_spread));
    sheet.integers("n_folds", rows().map(|row| Some(row.folds)));
    push_spread(&mut sheet, "fold", rows().map(|row| row.fold_spread));
    if rows().any(|row| row.diverged > 0) {
        sheet.integers("n_diverged", rows().map(|row| Some(row.diverged)));
    }
    sheet.numbers("mean_best_epoch", rows().map(|row| row.best_epoch));
    sheet.numbers("mean_epochs", rows().map(|row| row.epochs));
    if let Some((chosen, CorrectedScore { score, ci, prediction_interval })) = corrected {
        sheet.numbers(&format!("corrected_{}", board.metric), of(chosen, Some(score)));
        for (name, interval) in [("corrected", ci), ("new_test", prediction_interval)] {
            sheet.numbers(&format!("{name}_low"), of(chosen, interval.map(|ends| ends[0])));
            sheet.numbers(&format!("{name}_high"), of(chosen, interval.map(|ends| ends[1])));
        }
    }
    sheet
}

fn push_spread(
    sheet: &mut Sheet,
    name: &str,
    spreads: impl Iterator<Item = Option<Spread>> + Clone,
) {
    let of = |part: fn(Spread) -> f64| spreads.clone().map(move |spread| spread.map(part));
    sheet.numbers(&format!("{name}_std"), of(|spread| spread.std));
    sheet.numbers(&format!("{name}_min"), of(|spread| spread.min));
    sheet.numbers(&format!("{name}_max"), of(|spread| spread.max));
}

/// Returns the values of a setting as integers, flags or numbers if all of them are, and otherwise as strings.
fn setting_column(board: &Leaderboard, key: &str) -> SheetColumn {
    let values: Vec<Option<&Value>> = board.rows.iter().map(|row| row.setting(key)).collect();
    let all = |is: fn(&Value) -> bool| values.iter().flatten().all(|value| is(value));
    let values = values.iter();
    if all(Value::is_integer) {
        return SheetColumn::Integers(
            values.map(|value| value.and_then(Value::as_integer)).collect(),
        );
    }
    if all(Value::is_bool) {
        return SheetColumn::Flags(values.map(|value| value.and_then(Value::as_bool)).collect());
    }
    if all(|value| value.is_float() || value.is_integer()) {
        let number = |value: &Value| value.as_float().or(value.as_integer().map(|n| n as f64));
        return SheetColumn::Numbers(values.map(|value| value.and_then(number)).collect());
    }
    SheetColumn::Texts(values.map(|value| value.map(show)).collect())
}

fn pairs_sheet(board: &Leaderboard) -> Sheet {
    let pairs = || board.pairs.iter();
    let mut sheet = Sheet::default();
    sheet.integers("a", pairs().map(|pair| Some(pair.a)));
    sheet.integers("b", pairs().map(|pair| Some(pair.b)));
    sheet.numbers("difference", pairs().map(|pair| Some(pair.difference)));
    let end = |end: usize| pairs().map(move |pair| pair.interval.map(|ends| ends[end]));
    sheet.numbers("low", end(0));
    sheet.numbers("high", end(1));
    sheet.numbers("p_value", pairs().map(|pair| pair.p_value));
    sheet.texts("test", pairs().map(|_| board.test.name().to_string()));
    sheet
}

fn effects_sheet(findings: &SweepFindings) -> Sheet {
    let lines: Vec<_> = findings
        .effects
        .iter()
        .flat_map(|effect| effect.values.iter().map(|value| (&effect.key, value)))
        .collect();
    let mut sheet = Sheet::default();
    sheet.texts("setting", lines.iter().map(|(key, _)| key.to_string()));
    sheet.texts("value", lines.iter().map(|(_, value)| value.value.clone()));
    sheet.integers("heads", lines.iter().map(|(_, value)| Some(value.heads)));
    let diverged = lines.iter().map(|(_, value)| Some(value.diverged));
    sheet.integers("diverged", diverged);
    sheet.numbers("mean", lines.iter().map(|(_, value)| value.mean));
    sheet.numbers("median", lines.iter().map(|(_, value)| value.median));
    sheet.numbers("best", lines.iter().map(|(_, value)| value.best));
    sheet
}

fn expected_best_sheet(findings: &SweepFindings) -> Sheet {
    let expected = &findings.expected_best;
    let mut sheet = Sheet::default();
    sheet.integers("trials", (1..=expected.len()).map(Some));
    let name = format!("expected_{}", findings.leaderboard.metric);
    sheet.numbers(&name, expected.iter().map(|score| Some(*score)));
    sheet
}

fn layer_profile_sheet(findings: &SweepFindings) -> Sheet {
    let layers = || findings.layer_profile.iter();
    let mut sheet = Sheet::default();
    let names = layers().map(|layer| layer.layer.to_string());
    sheet.texts("layer", names);
    let name = format!("validation_{}", findings.leaderboard.metric);
    sheet.numbers(&name, layers().map(|layer| Some(layer.best)));
    let end = |end: usize| layers().map(move |layer| layer.interval.map(|ends| ends[end]));
    sheet.numbers("low", end(0));
    sheet.numbers("high", end(1));
    sheet.numbers("mean", layers().map(|layer| Some(layer.mean)));
    sheet.integers("heads", layers().map(|layer| Some(layer.heads)));
    sheet
}

fn heat_map_sheet(map: &HeatMap) -> Sheet {
    let n_columns = map.columns.len();
    let cells = || 0..map.rows.len() * n_columns;
    let mut sheet = Sheet::default();
    let row = |cell: usize| map.rows[cell / n_columns].clone();
    sheet.texts(&map.row_key, cells().map(row));
    let column = |cell: usize| map.columns[cell % n_columns].clone();
    sheet.texts(&map.column_key, cells().map(column));
    let score = |scores: &[Vec<Option<f64>>]| {
        let scores = scores.concat();
        cells().map(move |cell| scores[cell])
    };
    sheet.numbers("best", score(&map.best));
    sheet.numbers("mean", score(&map.mean));
    sheet
}

fn learning_curve_sheet(findings: &SweepFindings) -> Sheet {
    let points = || findings.learning_curve.iter();
    let has_kinds = by_kind(&findings.learning_curve).len() > 1;
    let mut sheet = Sheet::default();
    if has_kinds {
        sheet.texts("kind", points().map(|point| point.kind.clone()));
    }
    sheet.numbers(FRACTION, points().map(|point| Some(point.fraction)));
    if has_kinds {
        sheet.integers("train_rows", points().map(|point| Some(point.train_rows)));
    }
    let name = format!("validation_{}", findings.leaderboard.metric);
    sheet.numbers(&name, points().map(|point| Some(point.score)));
    let end = |end: usize| points().map(move |point| point.interval.map(|ends| ends[end]));
    sheet.numbers("low", end(0));
    sheet.numbers("high", end(1));
    let std = |spread: Option<Spread>| spread.map(|spread| spread.std);
    sheet.numbers("seed_std", points().map(|point| std(point.seed_spread)));
    sheet.numbers("fold_std", points().map(|point| std(point.fold_spread)));
    sheet.integers("heads", points().map(|point| Some(point.heads)));
    sheet
}

#[cfg(test)]
pub(super) mod tests;

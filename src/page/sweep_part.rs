//! What a sweep found: its leaderboard, what settings do, and its curves.

use serde::Serialize;

use super::{
    board::{ADJUSTED_P, Board, setting},
    csv_table::CsvTable,
    numbers::{NONE, decimal, evenly, grouped, short, with_interval},
    parallel::{ParallelView, parallel},
    run_files::RunFiles,
    table::{Figure, TableView},
    winner::WinnerView,
};
use crate::{
    metrics::metric::Metric,
    report::{
        leaderboard::{self, RUNG},
        plots,
    },
    selection::{
        curves::{FRACTION, LayerScore, LearningPoint},
        leaderboard::Spread,
    },
};

/// Rows of the leaderboard that are listed.
const LISTED_ROWS: usize = 50;

/// Rows of a table beside a curve.
const LISTED_POINTS: usize = 40;

/// The seventh part of a page.
#[derive(Clone, Debug, Serialize)]
pub(super) struct SweepView {
    pub(super) sentence: String,
    pub(super) winner: Option<WinnerView>,
    pub(super) leaderboard: TableView,
    pub(super) parallel: Option<ParallelView>,
    pub(super) effects: Option<TableView>,
    pub(super) heat_map: Option<HeatMapView>,
    pub(super) figures: Vec<Figure>,
}

/// The best score for every pair of values of two settings.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct HeatMapView {
    pub(super) row_key: String,
    pub(super) column_key: String,
    pub(super) columns: Vec<String>,
    pub(super) rows: Vec<HeatRow>,
}

/// The cells of one value.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct HeatRow {
    pub(super) name: String,
    pub(super) cells: Vec<HeatCell>,
}

/// A score, and how good it is among all: from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct HeatCell {
    pub(super) score: String,
    pub(super) goodness: Option<f64>,
    pub(super) is_best: bool,
}

impl SweepView {
    /// `None` where the run is of no sweep.
    pub(super) fn of(run: &RunFiles) -> Option<SweepView> {
        let bytes = run.lock.read_output(&run.folder, leaderboard::LEADERBOARD_CSV).ok()?;
        let board = Board::of(CsvTable::parse(&bytes)?)?;
        let figures =
            [layer_profile(run, &board), learning_curve(run, &board), expected_best(run, &board)];
        Some(SweepView {
            sentence: sentence(&board),
            winner: WinnerView::of(run, &board),
            leaderboard: board_table(&board),
            parallel: parallel(&board),
            effects: run.table(leaderboard::EFFECTS_FILE).and_then(effects),
            heat_map: run
                .table(leaderboard::HEAT_MAP_FILE)
                .and_then(|table| heat_map(&table, board.metric)),
            figures: figures.into_iter().flatten().collect(),
        })
    }
}

fn sentence(board: &Board) -> String {
    let n = board.table.rows.len();
    let n_best = board.are_best.iter().filter(|is_best| **is_best).count();
    let best = board.scores.first().copied().flatten().map_or(NONE.into(), decimal);
    format!(
        "{} settings were compared on the rows that their heads did not see. The best has a {} of {best}; {} not significantly \
         worse than it, itself included.{}",
        grouped(n as u64),
        board.metric.in_words(),
        if n_best == 1 {
            "1 setting is".to_string()
        } else {
            format!("{} settings are", grouped(n_best as u64))
        },
        halving_sentence(board).unwrap_or_default(),
    )
}

/// How many settings were trained to the end, where halving gave others up.
fn halving_sentence(board: &Board) -> Option<String> {
    let rungs = board.table.numbers(RUNG)?;
    let last = rungs.iter().flatten().copied().reduce(f64::max)?;
    let n_whole = rungs.iter().filter(|rung| **rung == Some(last)).count();
    Some(format!(
        " Halving trained {} of them to the end, to rung {last}; the scores of the others are after fewer epochs and \
         cannot be compared with theirs.",
        grouped(n_whole as u64)
    ))
}

/// What stands above test scores of all settings, and below.
const UNUSED_TEST: &str = "test (chose nothing)";
const UNUSED_TEST_NOTE: &str =
    "Test scores were not used to choose: picking by them would overstate the score.";

/// The leaderboard with its intervals; rows that are not worse than the best stand out.
fn board_table(board: &Board) -> TableView {
    let table = &board.table;
    let metric = board.metric;
    let column = |name: &str, show: fn(f64) -> String| -> Option<Vec<String>> {
        let all = table.numbers(name).filter(|all| all.iter().any(Option::is_some))?;
        Some(all.into_iter().map(|value| value.map_or(NONE.into(), show)).collect())
    };
    let unused = table.numbers(&format!("test_{metric}_not_for_selection")).map(|all| {
        let ends = ["test_low_not_for_selection", "test_high_not_for_selection"];
        let scores = all.into_iter().zip(board.intervals(ends));
        scores.map(|(score, interval)| with_interval(score, interval)).collect()
    });
    let has_unused = unused.is_some();
    let extra = [
        ("test", column(&format!("test_{metric}"), decimal)),
        (UNUSED_TEST, unused),
        (ADJUSTED_P, column("p_adjusted", decimal)),
        ("seed std", column("seed_std", decimal)),
        ("fold std", column("fold_std", decimal)),
        (RUNG, column(RUNG, short)),
        ("epochs", column("mean_best_epoch", short)),
    ];
    let extra: Vec<(&str, Vec<String>)> =
        extra.into_iter().filter_map(|(title, cells)| Some((title, cells?))).collect();
    let words: Vec<&str> = std::iter::once("rank")
        .chain(board.settings.iter().map(|column| table.names[*column].as_str()))
        .collect();
    let title = metric.in_words();
    let numbers: Vec<&str> =
        std::iter::once(title.as_str()).chain(extra.iter().map(|(title, _)| *title)).collect();
    let mut view = TableView::new(&words, &numbers);
    let intervals = board.intervals(["low", "high"]);
    for (row, cells) in table.rows.iter().enumerate().take(LISTED_ROWS) {
        let mut shown = vec![cells[0].clone()];
        shown.extend(board.settings.iter().map(|column| setting(&cells[*column])));
        shown.push(with_interval(board.scores[row], intervals[row]));
        shown.extend(extra.iter().map(|(_, cells)| cells[row].clone()));
        view.push_row(shown, board.are_best[row]);
    }
    let more = table.rows.len().saturating_sub(LISTED_ROWS);
    let more = (more > 0).then(|| format!("{} more are in leaderboard.csv.", grouped(more as u64)));
    let notes = [more, has_unused.then(|| UNUSED_TEST_NOTE.to_string())];
    let notes: Vec<String> = notes.into_iter().flatten().collect();
    view.note = (!notes.is_empty()).then(|| notes.join(" "));
    view
}

fn effects(table: CsvTable) -> Option<TableView> {
    let mut view = TableView::new(&["setting", "value"], &["heads", "mean", "median", "best"]);
    let columns = ["setting", "value", "heads"].map(|name| table.column(name));
    let [Some(keys), Some(values), Some(heads)] = columns else {
        return None;
    };
    let scores = ["mean", "median", "best"].map(|name| table.numbers(name).unwrap_or_default());
    let mut before = "";
    for (row, key) in keys.into_iter().enumerate() {
        let score = |column: usize| {
            scores[column].get(row).copied().flatten().map_or_else(|| NONE.to_string(), decimal)
        };
        let shown = if key == before { String::new() } else { key.to_string() };
        view.push([shown, values[row].into(), heads[row].into(), score(0), score(1), score(2)]);
        before = key;
    }
    view.if_any()
}

fn heat_map(table: &CsvTable, metric: Metric) -> Option<HeatMapView> {
    let best = table.numbers("best")?;
    let distinct = |column: usize| {
        let mut found: Vec<&String> = Vec::new();
        for row in &table.rows {
            if !found.contains(&&row[column]) {
                found.push(&row[column]);
            }
        }
        found
    };
    let (names, columns) = (distinct(0), distinct(1));
    // Of settings that are given, not every pair is among the heads.
    if table.rows.is_empty() || names.len() * columns.len() != table.rows.len() {
        return None;
    }
    let scores = best.iter().flatten().copied();
    let low = scores.clone().fold(f64::INFINITY, f64::min);
    let high = scores.fold(f64::NEG_INFINITY, f64::max);
    let (worst, top) = if metric.higher_is_better() { (low, high) } else { (high, low) };
    let cell = |score: Option<f64>| HeatCell {
        score: score.map_or(NONE.into(), decimal),
        goodness: score.map(|score| if high > low { (score - worst) / (top - worst) } else { 0.5 }),
        is_best: score == Some(top),
    };
    let rows = names.iter().zip(best.chunks(columns.len())).map(|(name, scores)| HeatRow {
        name: (*name).clone(),
        cells: scores.iter().map(|score| cell(*score)).collect(),
    });
    Some(HeatMapView {
        row_key: table.names[0].clone(),
        column_key: table.names[1].clone(),
        columns: columns.iter().map(|name| (*name).clone()).collect(),
        rows: rows.collect(),
    })
}

/// The score of each row with its interval, beside some columns of the table.
fn scores_with_intervals(table: &CsvTable, beside: &[&str], metric: Metric) -> Option<TableView> {
    let scores = table.numbers(&format!("validation_{metric}"))?;
    let [low, high] = ["low", "high"].map(|name| table.numbers(name).unwrap_or_default());
    let names: Vec<Vec<&str>> =
        beside.iter().map(|name| table.column(name)).collect::<Option<_>>()?;
    let mut view = TableView::new(beside, &[&metric.in_words()]);
    for row in 0..table.rows.len() {
        let interval = low.get(row).copied().flatten().zip(high.get(row).copied().flatten());
        let score = with_interval(scores[row], interval.map(|(low, high)| [low, high]));
        let cells = names.iter().map(|cells| setting(cells[row])).chain([score]);
        view.push_row(cells.collect(), false);
    }
    Some(view)
}

fn layer_profile(run: &RunFiles, board: &Board) -> Option<Figure> {
    let table = run.table(leaderboard::LAYER_PROFILE_FILE)?;
    let columns = ["layer", "low", "high", "mean", "heads"].map(|name| table.numbers(name));
    let [Some(layers), Some(low), Some(high), Some(mean), Some(heads)] = columns else {
        return None;
    };
    let best = table.numbers(&format!("validation_{}", board.metric))?;
    let of_row = |row: usize| {
        Some(LayerScore {
            layer: layers[row]? as i64,
            best: best[row]?,
            interval: low[row].zip(high[row]).map(|(low, high)| [low, high]),
            mean: mean[row]?,
            heads: heads[row]? as usize,
        })
    };
    let scores: Vec<LayerScore> = (0..table.rows.len()).filter_map(of_row).collect();
    let chart = plots::layer_profile(&scores, board.metric);
    let numbers = scores_with_intervals(&table, &["layer"], board.metric)?;
    let description = format!(
        "The best {} of the heads of each layer, with its 95 % interval.",
        board.metric.in_words()
    );
    (scores.len() > 1).then(|| Figure::new("Layer by layer", description, chart, numbers))
}

fn learning_curve(run: &RunFiles, board: &Board) -> Option<Figure> {
    let table = run.table(leaderboard::LEARNING_CURVE_FILE)?;
    let [fractions, low, high] = [FRACTION, "low", "high"].map(|name| table.numbers(name));
    let (fractions, low, high) = (fractions?, low?, high?);
    let scores = table.numbers(&format!("validation_{}", board.metric))?;
    let [seed, fold] = ["seed_std", "fold_std"].map(|name| table.numbers(name).unwrap_or_default());
    // Only where there are several kinds of head are these in the table.
    let kinds = table.column("kind");
    let train_rows = table.numbers("train_rows").unwrap_or_default();
    // Only the deviation is drawn.
    let spread = |all: &[Option<f64>], row: usize| {
        let std = all.get(row).copied().flatten()?;
        Some(Spread { std, min: f64::NAN, max: f64::NAN })
    };
    let of_row = |row: usize| {
        Some(LearningPoint {
            kind: kinds.as_ref().map_or_else(String::new, |kinds| kinds[row].to_string()),
            train_rows: train_rows.get(row).copied().flatten().unwrap_or_default() as usize,
            fraction: fractions[row]?,
            score: scores[row]?,
            interval: low[row].zip(high[row]).map(|(low, high)| [low, high]),
            seed_spread: spread(&seed, row),
            fold_spread: spread(&fold, row),
            heads: 0,
        })
    };
    let points: Vec<LearningPoint> = (0..table.rows.len()).filter_map(of_row).collect();
    let chart = plots::learning_curve(&points, board.metric);
    let columns: &[&str] = if kinds.is_some() { &["kind", FRACTION] } else { &[FRACTION] };
    let numbers = scores_with_intervals(&table, columns, board.metric)?;
    let description = format!(
        "The best {} with a share of the training rows: where it still rises at the right, more rows will help.",
        board.metric.in_words()
    );
    (points.len() > 1).then(|| Figure::new("Learning curve", description, chart, numbers))
}

fn expected_best(run: &RunFiles, board: &Board) -> Option<Figure> {
    let table = run.table(leaderboard::EXPECTED_BEST_FILE)?;
    let expected = table.numbers(&format!("expected_{}", board.metric))?;
    let expected: Vec<f64> = expected.into_iter().collect::<Option<_>>()?;
    if expected.len() < 2 {
        return None;
    }
    let chart = plots::expected_best(&expected, board.metric);
    let mut numbers = TableView::new(&[], &["trials", &board.metric.in_words()]);
    for place in evenly(expected.len(), LISTED_POINTS) {
        numbers.push([(place + 1).to_string(), decimal(expected[place])]);
    }
    let description = format!(
        "The best {} to expect of so many trials: where it is flat at the right, more trials are unlikely to help.",
        board.metric.in_words()
    );
    Some(Figure::new("Expected best score", description, chart, numbers))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board(csv: &str) -> Board {
        Board::of(CsvTable::parse(csv.as_bytes()).unwrap()).unwrap()
    }

    const CSV: &str = "rank,trial,lr,kind,seed,validation_macro_f1,low,high,not_worse_than_best,p_adjusted\n\
                       1,3,0.0010000000475,linear,1,0.75,0.7,0.8,true,\n\
                       2,1,0.01,mlp,1,0.7,0.65,0.75,true,0.4\n\
                       3,2,,linear,1,,,,false,\n";

    #[test]
    fn the_leaderboard_shows_what_varies_with_intervals_and_marks_the_best() {
        let table = board_table(&board(CSV));
        let names: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["rank", "lr", "kind", "macro f1", "p (Holm)"]);
        assert_eq!(table.rows[0].cells, ["1", "0.001", "linear", "0.750 [0.700, 0.800]", NONE]);
        assert_eq!(table.rows[2].cells, ["3", NONE, "linear", NONE, NONE]);
        let marked: Vec<bool> = table.rows.iter().map(|row| row.is_marked).collect();
        assert_eq!(marked, [true, true, false]);
    }

    #[test]
    fn test_scores_of_all_settings_are_marked_as_having_chosen_nothing() {
        let csv = "rank,trial,lr,rung,validation_f1,low,high,test_f1_not_for_selection,test_low_not_for_selection,\
                   test_high_not_for_selection,not_worse_than_best\n\
                   1,0,0.1,2,0.75,0.7,0.8,0.5,0.4,0.6,true\n2,1,0.2,1,0.8,,,,,,false\n";
        let board = board(csv);
        let table = board_table(&board);
        let names: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["rank", "lr", "f1", "test (chose nothing)", "rung"]);
        assert_eq!(table.rows[0].cells[2..], ["0.750 [0.700, 0.800]", "0.500 [0.400, 0.600]", "2"]);
        assert_eq!(table.rows[1].cells[2..], ["0.800", NONE, "1"]);
        assert_eq!(table.note.unwrap(), UNUSED_TEST_NOTE);
        let said = sentence(&board);
        assert!(said.contains("Halving trained 1 of them to the end, to rung 2;"), "{said}");
        assert!(said.ends_with("after fewer epochs and cannot be compared with theirs."), "{said}");
    }

    #[test]
    fn a_heat_map_has_a_cell_for_each_pair_and_one_is_the_best() {
        let csv =
            "layer,pooling,best,mean\n0,mean,0.5,0.4\n0,cls,,\n6,mean,0.75,0.7\n6,cls,0.25,0.2\n";
        let map = heat_map(&CsvTable::parse(csv.as_bytes()).unwrap(), Metric::MacroF1).unwrap();
        assert_eq!(map.columns, ["mean", "cls"]);
        assert_eq!(map.rows[0].cells[1].goodness, None);
        assert!(map.rows[1].cells[0].is_best && map.rows[1].cells[0].goodness == Some(1.0));
        let none = CsvTable::parse(b"layer,pooling,best,mean\n").unwrap();
        assert_eq!(heat_map(&none, Metric::MacroF1), None);
        let loss = heat_map(&CsvTable::parse(csv.as_bytes()).unwrap(), Metric::LogLoss).unwrap();
        assert!(loss.rows[1].cells[1].is_best);
    }
}

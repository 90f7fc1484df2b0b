//! The head that a sweep chose: what it is worth without the luck of being the best of many, and how far the next are
//! behind it.

use frostbert_cache::wording::counted;
use serde::Serialize;

use super::{
    board::{ADJUSTED_P, Board, setting},
    csv_table::CsvTable,
    numbers::{NONE, decimal, grouped},
    run_files::RunFiles,
    table::TableView,
};
use crate::{
    config::names::Task,
    report::leaderboard::{PAIRS_FILE, RUNG},
    run_folder::lock::LockedSplit,
};

/// Heads after the winner that are compared with it.
const COMPARED: usize = 5;

/// The head of the run among those of its sweep.
#[derive(Clone, Debug, Serialize)]
pub(super) struct WinnerView {
    pub(super) sentences: Vec<String>,
    /// Whether one of them is a score that was corrected for the choice.
    pub(super) is_corrected: bool,
    /// The next beside it.
    pub(super) next: Option<TableView>,
}

impl WinnerView {
    /// `None` where the leaderboard has no row that could be it.
    pub(super) fn of(run: &RunFiles, board: &Board) -> Option<WinnerView> {
        let winner = board.winner?;
        let has_folds = run.lock.pipeline.sweep.as_ref().is_some_and(|own| own.folds.is_some());
        let corrected = corrected(board, winner, has_folds);
        let new_test = new_test(board, winner, test_rows(&run.lock.split, has_folds), run.task());
        let is_corrected = !corrected.is_empty();
        let mut sentences = vec![rank(board, winner)];
        sentences.extend(corrected);
        sentences.extend(new_test);
        let next = run.table(PAIRS_FILE).and_then(|pairs| next(&pairs, board, winner));
        Some(WinnerView { sentences, is_corrected, next })
    }
}

fn rank(board: &Board, winner: usize) -> String {
    let row = &board.table.rows[winner];
    let settings = board.settings.iter().filter(|column| !row[**column].is_empty());
    let settings: Vec<String> = settings
        .map(|column| format!("{} {}", board.table.names[*column], setting(&row[*column])))
        .collect();
    let settings =
        if settings.is_empty() { String::new() } else { format!(": {}", settings.join(", ")) };
    format!("The head of this run has rank {}{settings}.", row[0])
}

/// The score that is to be expected, and what it does not correct.
fn corrected(board: &Board, winner: usize, has_folds: bool) -> Vec<String> {
    let metric = board.metric.in_words();
    let scores =
        board.scores[winner].zip(board.number(&format!("corrected_{}", board.metric), winner));
    let Some((raw, corrected)) = scores else {
        return Vec::new();
    };
    let interval = board.intervals(["corrected_low", "corrected_high"])[winner];
    let interval = interval
        .map_or(String::new(), |[low, high]| format!(" (95 % interval {low:.3} to {high:.3})"));
    let rivals = board.rivals(winner);
    let mut sentences = vec![match rivals.len() {
        0 | 1 => format!(
            "It was not chosen among others, so its {metric} needs no correction for a choice among settings: \
             {corrected:.3}{interval} is what to expect of it on many new rows."
        ),
        n => format!(
            "On the rows that chose it its {metric} is {raw:.3}. The best of many heads looks better than it is on the \
             rows that chose it, and this one is the best of {}. Corrected for that choice, {corrected:.3}{interval} \
             is what to expect of it on many new rows.",
            match board.table.place(RUNG) {
                Some(_) => format!("{} that were trained to the end", grouped(n as u64)),
                None => grouped(n as u64),
            }
        ),
    }];
    // With early stopping the best epoch is not always the last.
    let epochs = ["mean_best_epoch", "mean_epochs"]
        .map(|name| board.table.numbers(name).unwrap_or_default());
    let [best, last] = &epochs;
    let chose_epoch = |row: &usize| {
        best.get(*row).is_some_and(Option::is_some) && best.get(*row) != last.get(*row)
    };
    if !has_folds && rivals.iter().any(chose_epoch) {
        sentences.push(
            "The rows that it is measured on also chose its epoch, which this does not correct."
                .into(),
        );
    }
    sentences
}

/// As many rows as a new test set is thought to have: those of the test part, or where there is none those that chose.
fn test_rows(split: &LockedSplit, has_folds: bool) -> usize {
    match split.test {
        0 if has_folds => split.train + split.validation,
        0 => split.validation,
        rows => rows,
    }
}

/// Where the score on a new test set will lie, and whether that on the run's own lies there.
fn new_test(board: &Board, winner: usize, rows: usize, task: Task) -> Option<String> {
    let [low, high] = board.intervals(["new_test_low", "new_test_high"])[winner]?;
    // Heads are compared before thresholds and temperatures are tuned, and tested after.
    let is_tuned =
        board.metric.measures_probabilities() || matches!(task, Task::Multilabel | Task::Qa);
    let tested = board.number(&format!("test_{}", board.metric), winner).filter(|_| !is_tuned);
    let tested = tested.map_or(String::new(), |score| {
        let lies = if (low..=high).contains(&score) { "inside" } else { "outside" };
        format!("; the {score:.3} on the test part of this run lies {lies}")
    });
    Some(format!(
        "On a new test set of {} its score will lie between {low:.3} and {high:.3}, with a probability of 95 %{tested}.",
        counted(rows, "row")
    ))
}

/// The next heads by their ranks, as the sweep compared them with the winner: of those that it was chosen from, as the
/// scores of others cannot be compared with its own.
fn next(pairs: &CsvTable, board: &Board, winner: usize) -> Option<TableView> {
    let column = |name: &str| pairs.numbers(name);
    let (a, b, differences) = (column("a")?, column("b")?, column("difference")?);
    let (low, high, p_values) = (column("low")?, column("high")?, column("p_value")?);
    let test = *pairs.column("test")?.first()?;
    let ranks = board.table.numbers("rank")?;
    let own = ranks[winner]?;
    let rivals: Vec<f64> = board
        .rivals(winner)
        .into_iter()
        .filter_map(|row| ranks[row])
        .filter(|rank| *rank != own)
        .collect();
    let is_of_rival = |place: &usize| {
        a[*place] == Some(own) && b[*place].is_some_and(|rank| rivals.contains(&rank))
    };
    let compared: Vec<usize> = (0..a.len()).filter(is_of_rival).take(COMPARED).collect();
    // The leaderboard compares all heads with the first, which is not always the winner.
    let adjusted = board.table.numbers("p_adjusted").filter(|_| winner == 0);
    // What all of them have alike tells them apart from none.
    let rows = &board.table.rows;
    let row_of = |place: usize| ranks.iter().position(|rank| rank.is_some() && *rank == b[place]);
    let differs = |column: &&usize| {
        let mut others = compared.iter().filter_map(|place| row_of(*place));
        others.any(|row| rows[row][**column] != rows[winner][**column])
    };
    let settings: Vec<&usize> = board.settings.iter().filter(differs).collect();
    let names = settings.iter().map(|column| board.table.names[**column].as_str());
    let words: Vec<&str> = std::iter::once("rank").chain(names).collect();
    let mut numbers = vec!["difference to the winner", "p"];
    numbers.extend(adjusted.as_ref().map(|_| ADJUSTED_P));
    let mut table = TableView::new(&words, &numbers);
    for place in compared.iter().copied() {
        let row_at = row_of(place)?;
        let row = &rows[row_at];
        let interval = low[place].zip(high[place]);
        let interval = interval.map(|(low, high)| format!(" [{low:+.3}, {high:+.3}]"));
        let difference = format!("{:+.3}{}", differences[place]?, interval.unwrap_or_default());
        let p = |value: Option<f64>| value.map_or(NONE.into(), decimal);
        let mut cells = vec![row[0].clone()];
        cells.extend(settings.iter().map(|column| setting(&row[**column])));
        cells.extend([difference, p(p_values[place])]);
        cells.extend(adjusted.as_ref().map(|adjusted| p(adjusted[row_at])));
        table.push_row(cells, false);
    }
    let allows = match adjusted {
        Some(_) => format!(" {ADJUSTED_P}, as in the leaderboard, allows for the number of heads."),
        None => String::new(),
    };
    table.note = Some(format!(
        "In brackets: 95 % intervals. p ({test}) is the probability of a difference at least as large, in either \
         direction, if the two were equally good.{allows} Where it is above 0.05, these rows do not show which of \
         the two is better. `frostbert sweep pairs` compares any two."
    ));
    table.if_any()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOARD: &str = "rank,trial,lr,validation_macro_f1,test_macro_f1,not_worse_than_best,mean_best_epoch,mean_epochs,\
        corrected_macro_f1,corrected_low,corrected_high,new_test_low,new_test_high,p_adjusted\n\
        1,1,0.1,0.75,0.5,true,3,5,0.7,0.65,0.72,0.55,0.8,\n\
        2,0,0.2,0.7,,true,5,5,,,,,,0.06\n\
        3,2,0.3,0.6,,false,5,5,,,,,,0.03\n";

    fn board() -> Board {
        Board::of(CsvTable::parse(BOARD.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn the_winner_is_told_with_its_corrected_score_and_what_that_leaves_out() {
        let board = board();
        assert_eq!(rank(&board, 0), "The head of this run has rank 1: lr 0.1.");
        let told = corrected(&board, 0, false);
        let [score, epoch] = &told[..] else { panic!("{told:?}") };
        assert!(score.contains("is 0.750. The best of many heads looks better"), "{score}");
        assert!(
            score.contains("this one is the best of 3. Corrected for that choice, 0.700"),
            "{score}"
        );
        assert!(
            score.contains("0.700 (95 % interval 0.650 to 0.720) is what to expect"),
            "{score}"
        );
        assert!(epoch.contains("also chose its epoch"), "{epoch}");
        assert_eq!(corrected(&board, 0, true).len(), 1, "folds do not judge their own epochs");
        assert!(corrected(&board, 1, true).is_empty());
    }

    #[test]
    fn a_new_test_set_has_an_interval_and_the_test_part_is_held_against_it() {
        let board = board();
        let told = new_test(&board, 0, 20, Task::Classification).unwrap();
        assert!(told.contains("a new test set of 20 rows"), "{told}");
        assert!(
            told.contains("between 0.550 and 0.800") && told.ends_with("lies outside."),
            "{told}"
        );
        let tuned = new_test(&board, 0, 20, Task::Multilabel).unwrap();
        assert!(tuned.ends_with("with a probability of 95 %."), "{tuned}");
        assert_eq!(new_test(&board, 1, 20, Task::Classification), None);
    }

    #[test]
    fn the_next_heads_stand_with_their_differences_and_p_values() {
        let pairs = "a,b,difference,low,high,p_value,test\n\
                     1,2,-0.05,-0.1,0.02,0.04,McNemar\n1,3,-0.15,,,0.01,McNemar\n2,3,-0.1,,,0.5,McNemar\n";
        let pairs = CsvTable::parse(pairs.as_bytes()).unwrap();
        let table = next(&pairs, &board(), 0).unwrap();
        assert_eq!(table.rows[0].cells, ["2", "0.2", "-0.050 [-0.100, +0.020]", "0.040", "0.060"]);
        assert_eq!(table.rows[1].cells, ["3", "0.3", "-0.150", "0.010", "0.030"]);
        assert_eq!(table.rows.len(), 2);
        let second = next(&pairs, &board(), 1).unwrap();
        let cells = &second.rows[0].cells;
        assert_eq!(
            cells,
            &["3", "0.3", "-0.100", "0.500"],
            "the leaderboard compares with the first"
        );
        assert!(next(&pairs, &board(), 2).is_none(), "none is behind the last");
    }

    #[test]
    fn heads_that_halving_gave_up_are_not_compared_with_the_winner() {
        let names = "rank,trial,lr,rung,validation_macro_f1,not_worse_than_best\n";
        let pairs = "a,b,difference,low,high,p_value,test\n\
                     1,2,-0.05,,,0.5,McNemar\n1,3,0.05,,,0.5,McNemar\n";
        let pairs = CsvTable::parse(pairs.as_bytes()).unwrap();
        let ranks_beside_winner = |rungs: [usize; 3]| {
            let [first, second, third] = rungs;
            let rows = format!(
                "1,0,0.1,{first},0.7,true\n2,1,0.2,{second},0.65,true\n3,2,0.3,{third},0.75,true\n"
            );
            let csv = format!("{names}{rows}");
            let board = Board::of(CsvTable::parse(csv.as_bytes()).unwrap()).unwrap();
            let table = next(&pairs, &board, 0)?;
            Some(table.rows.iter().map(|row| row.cells[0].clone()).collect::<Vec<_>>())
        };
        assert_eq!(ranks_beside_winner([2, 2, 1]).unwrap(), ["2"]);
        assert_eq!(ranks_beside_winner([2, 1, 1]), None, "it was trained to the end alone");
    }
}

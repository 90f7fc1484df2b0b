use super::*;
use crate::report::leaderboard::tests::{
    findings, layers_and_poolings, shares, shares_of_kinds, with_test_scores,
};

fn block(blocks: &[SummaryTable], title: &str) -> Vec<Vec<String>> {
    let found = blocks.iter().find(|block| block.title == title);
    found.map(|block| block.lines.clone()).unwrap_or_default()
}

#[test]
fn the_first_rows_are_listed_with_what_differs_and_the_rest_is_counted() {
    let findings = layers_and_poolings();
    let blocks = summary(&findings);
    let board = block(&blocks, "leaderboard");
    let header = ["rank", "layers", "pooling", "lr", "macro_f1", "seed std"];
    assert_eq!(board[0], header);
    assert_eq!(board.len(), 1 + LISTED_ROWS);
    let first = &findings.leaderboard.rows[0];
    assert_eq!(board[1][0], "1=");
    assert_eq!(board[1][1], show(first.setting("layers").unwrap()));
    let [low, high] = first.interval.unwrap();
    let score = format!("{:.3} [{low:.3}, {high:.3}]", first.score.unwrap());
    assert_eq!(board[1][4], score);
    let n_equal = findings.leaderboard.rows.iter();
    let n_equal = n_equal.filter(|row| row.not_worse_than_best).count();
    assert!((2..78).contains(&n_equal), "{n_equal}");
    let notes = block(&blocks, "");
    let expected = format!(
        "= not significantly worse than the best (paired bootstrap, Holm): {n_equal} of 78"
    );
    assert_eq!(notes, [[expected], ["68 more in leaderboard.csv".to_string()]]);
}

#[test]
fn test_scores_of_all_rows_are_listed_with_the_note_that_they_chose_nothing() {
    let blocks = summary(&with_test_scores(shares()));
    let board = block(&blocks, "leaderboard");
    assert_eq!(board[0].last().unwrap(), "test macro_f1");
    let last = |line: usize| board[line].last().unwrap().as_str();
    assert_eq!([last(1), last(2)], ["1.000 [0.125, 1.000]", "-"]);
    let note = "test scores were not used to choose: picking by them would overstate the score";
    assert!(block(&blocks, "").contains(&vec![note.to_string()]));
}

#[test]
fn effects_stand_in_the_order_of_what_they_do() {
    let blocks = summary(&layers_and_poolings());
    let keys: Vec<String> = block(&blocks, "effects")
        .into_iter()
        .map(|line| line[0].clone())
        .filter(|key| !key.is_empty())
        .collect();
    // The layers have a table of their own.
    assert_eq!(keys, ["setting", "pooling", "lr"]);
    assert_eq!(block(&blocks, "layers").len(), 14);
    assert!(block(&blocks, "labels").is_empty());
}

#[test]
fn a_learning_curve_is_listed_by_share() {
    let blocks = summary(&shares());
    let shares: Vec<String> =
        block(&blocks, "labels").into_iter().map(|line| line[0].clone()).collect();
    assert_eq!(shares, ["share", "10 %", "25 %", "50 %", "75 %", "100 %"]);
}

#[test]
fn the_learning_curves_of_several_kinds_are_listed_one_after_the_other() {
    let lines = block(&summary(&shares_of_kinds()), "labels");
    assert_eq!(lines[0], ["kind", "share", "rows", "best head"]);
    let starts: Vec<[&str; 3]> =
        lines[1..].iter().map(|line| [0, 1, 2].map(|cell| line[cell].as_str())).collect();
    let expected = [
        ["linear", "5 %", "25"],
        ["", "50 %", "250"],
        ["", "100 %", "500"],
        ["ridge", "5 %", "25"],
        ["", "50 %", "250"],
        ["", "100 %", "500"],
    ];
    assert_eq!(starts, expected);
}

#[test]
fn more_trials_help_where_the_last_ones_did() {
    let line = |scores: &[f64]| {
        let settings: Vec<_> = (0..scores.len() as i64).map(|lr| vec![("lr", lr.into())]).collect();
        let blocks = summary(&findings(&settings, &[], |trial| scores[trial]));
        block(&blocks, "trials").into_iter().flatten().next()
    };
    let mut one_lucky = [0.55; 12];
    one_lucky[7] = 0.95;
    let lucky = line(&one_lucky).unwrap();
    assert!(lucky.starts_with("expected best score after 6 trials"), "{lucky}");
    assert!(lucky.ends_with("; more trials are likely to help"), "{lucky}");
    let many = line(&[0.8; 60]).unwrap();
    assert!(many.starts_with("expected best score after 10 trials"), "{many}");
    assert!(many.ends_with("; more trials are unlikely to help"), "{many}");
    assert_eq!(line(&[0.5, 0.6, 0.7]), None);
}

//! The score of a sweep's winner, corrected for its choice: in the report, in the leaderboard's file, on the terminal.

use std::fs;

use serde_json::Value;

use crate::{
    support::Workshop,
    sweep::{SWEEP, workshop},
};

/// The corrected score of a sweep, and the raw one.
fn scores(report: &Value) -> [f64; 2] {
    let corrected = &report["bias_corrected"];
    [&corrected["score"], &report["leaderboard"][0]["score"]].map(|score| score.as_f64().unwrap())
}

/// What the terminal shows, with one space between words.
fn page(workshop: &Workshop) -> String {
    let stdout = workshop.succeed(&["sweep", "pipeline.toml"]).stdout;
    stdout.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_winner_has_a_corrected_score_beside_the_raw_one_and_an_interval_for_new_tests() {
    let workshop = workshop(
        "folds = 3\nlr = [1e-3, 3e-3, 1e-2, 3e-2]\nepochs = [8]\ndropout = [0.0, 0.3]\nseeds = 2",
    );
    let report = workshop.json(SWEEP);
    let corrected = &report["bias_corrected"];
    assert_eq!(corrected["metric"], "macro_f1");
    // A test part of 15 % of 120 rows.
    for (key, expected) in [("test_rows", 18), ("draws", 200), ("candidates", 8)] {
        assert_eq!(corrected[key], expected, "{key}");
    }
    assert_eq!(corrected["epoch_in_score"], false);
    let [score, _] = scores(&report);
    let mut ends = Vec::new();
    for key in ["ci", "prediction_interval"] {
        let [low, high] = [0, 1].map(|end| corrected[key][end].as_f64().unwrap());
        assert!(low <= score && score <= high && high <= 1.0, "{corrected}");
        ends.extend([low, high]);
    }
    let run = workshop.path(report["run"].as_str().unwrap());
    let board = fs::read_to_string(run.join("leaderboard.csv")).unwrap();
    let mut lines = board.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let header = lines.next().unwrap();
    let place = header.len() - 5;
    assert_eq!(
        header[place..],
        ["corrected_macro_f1", "corrected_low", "corrected_high", "new_test_low", "new_test_high"]
    );
    let first: Vec<f64> =
        lines.next().unwrap()[place..].iter().map(|cell| cell.parse().unwrap()).collect();
    assert_eq!(first, [&[score][..], &ends[..]].concat());
    assert!(lines.all(|line| line[place..] == [""; 5]));
    let page = page(&workshop);
    assert!(page.contains("corrected for choosing the best of 8: "), "{page}");
    assert!(page.contains("a new test set of 18 rows would score "), "{page}");
    assert!(page.contains("the test part's "), "{page}");
}

#[test]
fn where_nothing_is_chosen_the_corrected_score_is_the_raw_one() {
    for sweep in [
        "folds = 3\nlr = [1e-2]\nepochs = [6]\nearly_stopping = [false]\nselect = \"accuracy\"",
        "folds = 3\nkind = [\"ridge\"]\nlambda = [1.0]",
        "lr = [1e-2]",
    ] {
        let workshop = workshop(sweep);
        let report = workshop.json(SWEEP);
        let [corrected, raw] = scores(&report);
        assert!((corrected - raw).abs() < 1e-9, "{sweep}: {report}");
        assert_eq!(report["bias_corrected"]["candidates"], 1);
    }
}

#[test]
fn a_fold_has_no_say_in_the_epoch_of_the_head_that_it_judges() {
    // The epoch of the lowest loss on a fold is the one of the lowest log loss, so any other can only be worse.
    let workshop = workshop("folds = 3\nlr = [1e-1]\nepochs = [40]\nselect = \"log_loss\"");
    let stopping = "train.early_stopping={metric=\"loss\",patience=3}";
    let report = workshop.json(&["sweep", "pipeline.toml", "--set", stopping]);
    let [corrected, raw] = scores(&report);
    assert!(corrected >= raw - 1e-5, "{report}");
}

#[test]
fn without_folds_it_is_said_that_the_choice_of_the_epoch_is_in_the_score() {
    for (sweep, is_in_score) in
        [("lr = [1e-3, 1e-2]", true), ("lr = [1e-3, 1e-2]\nearly_stopping = [false]", false)]
    {
        let workshop = workshop(sweep);
        let report = workshop.json(SWEEP);
        assert_eq!(report["bias_corrected"]["epoch_in_score"], is_in_score);
        assert_eq!(page(&workshop).contains("also chose its epoch"), is_in_score);
    }
}

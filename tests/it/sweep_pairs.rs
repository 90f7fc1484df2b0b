//! `sweep pairs`: the best heads of a sweep compared with one another.

use std::fs;

use serde_json::{Value, json};

use crate::{
    support::Workshop,
    sweep::{SWEEP, workshop},
};

/// The numbers under a key of some objects; those that are missing are left out.
fn numbers(objects: &Value, key: &str) -> Vec<f64> {
    objects.as_array().unwrap().iter().filter_map(|object| object[key].as_f64()).collect()
}

/// Holm's adjustment, from its definition.
fn holm(p_values: &[f64]) -> Vec<f64> {
    let adjusted = |p: f64| {
        let mut below: Vec<f64> = p_values.iter().copied().filter(|other| *other <= p).collect();
        below.sort_by(f64::total_cmp);
        let places = below.iter().enumerate();
        let adjusted = places.map(|(place, p)| ((p_values.len() - place) as f64 * p).min(1.0));
        adjusted.fold(0.0, f64::max)
    };
    p_values.iter().map(|p| adjusted(*p)).collect()
}

#[test]
fn any_two_of_the_best_heads_are_compared_with_holm_over_the_pairs() {
    for (sweep, test) in [
        ("folds = 3\nlr = [1e-5, 1e-3, 1e-2, 3e-2]\nselect = \"accuracy\"", "McNemar"),
        ("folds = 2\nseeds = 2\nlr = [1e-5, 1e-3, 1e-2, 3e-2]", "paired bootstrap"),
    ] {
        let workshop = workshop(sweep);
        let report = workshop.json(SWEEP);
        let board = &report["leaderboard"];
        let compared = workshop.json(&["sweep", "pairs", "tiny"]);
        assert_eq!((&compared["run"], &compared["test"]), (&json!("runs/tiny/001"), &json!(test)));
        let heads = compared["heads"].as_array().unwrap();
        assert_eq!(heads.len(), 4);
        for (head, row) in heads.iter().zip(board.as_array().unwrap()) {
            assert_eq!((&head["rank"], &head["score"]), (&row["rank"], &row["score"]));
            assert_eq!(head["ci"], row["interval"]);
            assert_eq!(head["settings"]["lr"], row["settings"]["lr"]);
        }
        let scores = numbers(board, "score");
        let pairs = compared["pairs"].as_array().unwrap();
        let places: Vec<[u64; 2]> =
            pairs.iter().map(|pair| ["a", "b"].map(|key| pair[key].as_u64().unwrap())).collect();
        assert_eq!(places, [[1, 2], [1, 3], [1, 4], [2, 3], [2, 4], [3, 4]]);
        for (pair, [a, b]) in pairs.iter().zip(places) {
            let [a, b] = [a, b].map(|rank| rank as usize - 1);
            assert_eq!(pair["difference"].as_f64(), Some(scores[b] - scores[a]), "{pair}");
            let [low, high] = [0, 1].map(|end| pair["ci"][end].as_f64().unwrap());
            assert!(low <= high, "{pair}");
            if a == 0 {
                assert_eq!(pair["p_value"], board[b]["p_value"], "as on the leaderboard: {pair}");
            }
        }
        let p_values = numbers(&compared["pairs"], "p_value");
        let adjusted = numbers(&compared["pairs"], "p_value_holm");
        for (got, expected) in adjusted.iter().zip(holm(&p_values)) {
            assert!((got - expected).abs() < 1e-12, "{got} {expected}");
        }
        assert_eq!(adjusted.len(), 6);

        let best = workshop.json(&["sweep", "pairs", "runs/tiny/001", "--best", "2"]);
        assert_eq!(best["heads"].as_array().unwrap().len(), 2);
        assert_eq!(best["pairs"][0]["p_value_holm"], best["pairs"][0]["p_value"]);
        assert!(best["pairs"][1].is_null());

        let page = workshop.succeed(&["sweep", "pairs", "tiny"]).stdout;
        assert!(page.starts_with("run         runs/tiny/001\n"), "{page}");
        assert!(page.contains("heads       rank  lr "), "{page}");
        assert!(page.contains(&format!("p-values by {test}, two-sided")), "{page}");
        let of_pairs = page.split("\npairs ").nth(1).unwrap().lines();
        assert_eq!(of_pairs.count(), 1 + 6 + 1, "{page}");
    }
}

#[test]
fn a_head_that_diverged_is_in_no_pair() {
    let workshop = workshop("optimizer = [\"sgd\"]\nlr = [1e-2, 1e38]");
    workshop.json(SWEEP);
    let compared = workshop.json(&["sweep", "pairs", "tiny"]);
    assert_eq!(compared["heads"].as_array().unwrap().len(), 1);
    assert_eq!((&compared["pairs"], &compared["test"]), (&json!([]), &Value::Null));
    let page = workshop.succeed(&["sweep", "pairs", "tiny"]).stdout;
    assert!(page.contains("pairs       none"), "{page}");
}

#[test]
fn a_run_without_pairs_says_why_it_has_none() {
    let workshop = workshop("lr = [1e-3, 1e-2]");
    workshop.json(SWEEP);
    let refused = |workshop: &Workshop, arguments: &[&str], code: i32, wanted: &str| {
        let ran = workshop.run(&[&["sweep", "pairs"], arguments].concat());
        assert_eq!(ran.code, Some(code), "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(wanted), "{arguments:?}: {}", ran.stderr);
    };
    refused(&workshop, &["tiny", "--best", "1"], 2, "1 is not in 2..=50");
    refused(&workshop, &["nowhere"], 4, "expected a run folder with lock.json");
    refused(&workshop, &[], 2, "Usage: frostbert sweep pairs");
    let path = workshop.path("runs/tiny/001/pairs.csv");
    let csv = fs::read_to_string(&path).unwrap();
    fs::write(&path, csv.replace("difference", "distance")).unwrap();
    refused(&workshop, &["tiny"], 3, "expected a table that a sweep writes");
    fs::remove_file(&path).unwrap();
    refused(&workshop, &["tiny"], 4, "make it again with `frostbert run --locked`");
    // Everything else of such a run is as before.
    workshop.succeed(&["predict", "tiny", "--text", "the cold snow"]);
    let replayed = workshop.json(&["run", "--locked", "runs/tiny/001"]);
    assert!(workshop.path("runs/tiny/002/pairs.csv").is_file(), "{replayed}");

    let one = Workshop::tiny();
    one.succeed(&["run", "pipeline.toml", "--set", "train.epochs=1"]);
    refused(&one, &["tiny"], 4, "got a run of one head");
    let both = one.run(&["sweep", "pipeline.toml", "pairs", "tiny"]);
    assert_eq!(both.code, Some(2), "{}", both.stderr);
}

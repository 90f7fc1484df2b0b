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
        let picked = workshop.succeed(&["sweep", "pairs", "tiny", "--heads", "1,3"]).stdout;
        let said = picked.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains("picked after a look at the leaderboard, p-values are"), "{picked}");
        assert!(!page.contains("picked"), "{page}");
    }
}

#[test]
fn heads_are_chosen_by_their_ranks_and_what_they_share_is_said() {
    let workshop = workshop("folds = 2\nlr = [1e-5, 1e-3, 1e-2]\npooling = [\"mean\", \"cls\"]");
    let report = workshop.json(SWEEP);
    let board = report["leaderboard"].as_array().unwrap();
    let ranks = |object: &Value| -> Vec<u64> {
        object.as_array().unwrap().iter().map(|head| head["rank"].as_u64().unwrap()).collect()
    };
    let all = workshop.json(&["sweep", "pairs", "tiny"]);
    let three = workshop.json(&["sweep", "pairs", "tiny", "--heads", "6,1,4"]);
    assert_eq!(ranks(&three["heads"]), [1, 4, 6]);
    let pairs = three["pairs"].as_array().unwrap();
    let places: Vec<[u64; 2]> =
        pairs.iter().map(|pair| ["a", "b"].map(|key| pair[key].as_u64().unwrap())).collect();
    assert_eq!(places, [[1, 4], [1, 6], [4, 6]]);
    for pair in pairs {
        let mut same = all["pairs"].as_array().unwrap().iter();
        let same = same.find(|other| other["a"] == pair["a"] && other["b"] == pair["b"]).unwrap();
        assert_eq!(pair["p_value"], same["p_value"], "only Holm depends on the others");
    }
    assert!(all["last_rung"].is_null() && all["heads"][0]["rung"].is_null(), "{all}");
    // Two heads of one pooling: the other setting is all that they differ in.
    let of_mean: Vec<String> = board
        .iter()
        .filter(|row| row["settings"]["pooling"] == "mean")
        .map(|row| row["rank"].to_string())
        .collect();
    let page = workshop.succeed(&["sweep", "pairs", "tiny", "--heads", &of_mean.join(",")]).stdout;
    assert!(page.contains("the same for all: pooling mean"), "{page}");
    assert!(page.contains("heads       rank  lr "), "{page}");
    for (heads, got) in
        [("1,7", "rank 7"), ("0,1", "rank 0"), ("2", "1 of them"), ("2,2", "1 of them")]
    {
        let error = workshop.fail(&["sweep", "pairs", "tiny", "--heads", heads]);
        assert!(error.contains(&format!("got {got}")), "{error}");
        assert!(error.contains("from 1 to 6"), "{error}");
    }
    let both = workshop.run(&["sweep", "pairs", "tiny", "--best", "3", "--heads", "1,2"]);
    assert_eq!(both.code, Some(2), "{}", both.stderr);
}

#[test]
fn heads_that_halving_gave_up_are_told_from_those_trained_to_the_end() {
    let workshop = workshop(
        "lr = { min = 1e-4, max = 1e-1, log = true }\ntrials = 16\nepochs = [16]\nearly_stopping = [false]\n\
         search = \"halving\"",
    );
    let report = workshop.json(SWEEP);
    let board = report["leaderboard"].as_array().unwrap();
    let compared = workshop.json(&["sweep", "pairs", "tiny", "--best", "16"]);
    let heads = compared["heads"].as_array().unwrap();
    for (head, row) in heads.iter().zip(board) {
        assert_eq!((&head["rank"], &head["rung"]), (&row["rank"], &row["rung"]));
    }
    let last = compared["last_rung"].as_u64().unwrap();
    assert_eq!(board[0]["rung"], last, "the winner was trained to the end");
    let n_whole = heads.iter().filter(|head| head["rung"] == last).count();
    assert!((1..heads.len()).contains(&n_whole), "{compared}");
    let page = workshop.succeed(&["sweep", "pairs", "tiny", "--best", "16"]).stdout;
    let said = format!(
        "{n_whole} of {} were trained to the end, rung {last}: the scores of the others are after fewer epochs \
         and cannot be compared with theirs",
        heads.len()
    );
    let words: Vec<&str> = page.split_whitespace().collect();
    assert!(words.join(" ").contains(&said), "{said} in {page}");
    let ranks: Vec<String> = (1..=n_whole.max(2)).map(|rank| rank.to_string()).collect();
    let page = workshop.succeed(&["sweep", "pairs", "tiny", "--heads", &ranks.join(",")]).stdout;
    assert_eq!(page.contains("all were trained to the end"), n_whole > 1, "{page}");
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

//! Sweeps by metrics of probabilities: the order of the heads, and the value of each compared with that of the same
//! head trained alone.

use std::fs;

use serde_json::Value;

use crate::support::{Workshop, read_json, texts};

/// Creates the tiny pipeline for texts with one of two labels, or with any number of them, with every fourth text in a
/// validation file.
fn workshop(task: &str) -> Workshop {
    let workshop = Workshop::empty();
    let mut files = [String::from("text,label\n"), String::from("text,label\n")];
    for (number, text) in texts(160).into_iter().enumerate() {
        let label = match task {
            "multilabel" => ["x", "y", "x y"][number % 3],
            _ => ["x", "y"][usize::from(number % 3 == 0)],
        };
        files[usize::from(number % 4 == 3)] += &format!("{text},{label}\n");
    }
    workshop.write("train.csv", &files[0]);
    workshop.write("judged.csv", &files[1]);
    workshop.write_pipeline(&format!(
        "name = \"tiny\"\n[model]\npath = \"MODEL\"\ndevice = \"cpu\"\n[data]\ntask = \"{task}\"\n\
         train = {{ path = \"train.csv\", label_separator = \" \" }}\n\
         validation = {{ path = \"judged.csv\", label_separator = \" \" }}\n[cache]\nmax_length = 32\n"
    ));
    workshop.succeed(&["extract", "pipeline.toml"]);
    workshop
}

/// Returns the value of a column in the last row of history.csv.
fn of_the_last_epoch(workshop: &Workshop, report: &Value, column: &str) -> f64 {
    let run = workshop.path(report["run"].as_str().unwrap());
    let history = fs::read_to_string(run.join("history.csv")).unwrap();
    let names: Vec<&str> = history.lines().next().unwrap().split(',').collect();
    let place = names.iter().position(|name| *name == column).unwrap();
    let last = history.lines().last().unwrap();
    last.split(',').nth(place).unwrap().parse().unwrap()
}

#[test]
fn heads_are_selected_by_every_metric_of_probabilities_in_its_own_direction() {
    for task in ["classification", "multilabel"] {
        let workshop = workshop(task);
        let plain = fs::read_to_string(workshop.path("pipeline.toml")).unwrap();
        for (metric, higher_is_better) in
            [("roc_auc", true), ("log_loss", false), ("brier", false), ("ece", false)]
        {
            // With this patience no head stops early, so the last row of history.csv is the last epoch.
            let train = format!(
                "[train]\nepochs = 4\nearly_stopping = {{ metric = \"{metric}\", patience = 9 }}\n"
            );
            let sweep = format!(
                "[sweep]\nlr = [1e-4, 1e-2, 3e-2]\nselect = \"{metric}\"\nearly_stopping = [false]\n"
            );
            workshop.write("sweep.toml", format!("{plain}{train}{sweep}"));
            let report = workshop.json(&["sweep", "sweep.toml"]);
            let rows = report["leaderboard"].as_array().unwrap();
            let score = |row: &Value| row["score"].as_f64().unwrap();
            let scores: Vec<f64> = rows.iter().map(score).collect();
            let in_order = if higher_is_better {
                scores.is_sorted_by(|a, b| a >= b)
            } else {
                scores.is_sorted_by(|a, b| a <= b)
            };
            assert!(in_order && scores[0] != scores[2], "{metric} {scores:?}");
            assert!(report["best"]["validation"][format!("{metric}_ci")].is_array());
            assert!(rows[2]["p_value"].is_f64(), "{metric}");
            let run = workshop.path(report["run"].as_str().unwrap());
            assert!(read_json(&run.join("metrics.json"))["test"][metric].is_f64());
            workshop.write("plain.toml", format!("{plain}{train}"));
            for row in rows {
                let lr = format!("train.lr={}", row["settings"]["lr"]);
                let one = workshop.json(&["train", "plain.toml", "--set", &lr]);
                let own = of_the_last_epoch(&workshop, &one, &format!("validation_{metric}"));
                assert!((own - score(row)).abs() < 1e-9, "{metric} {lr}: {own} {}", score(row));
            }
        }
    }
}

#[test]
fn folds_and_halving_select_by_a_loss_of_probabilities_too() {
    let workshop = workshop("classification");
    let plain = fs::read_to_string(workshop.path("pipeline.toml")).unwrap();
    let sweep = "[sweep]\nlr = [1e-6, 1e-3, 1e-2, 3e-2]\nepochs = [8]\nselect = \"log_loss\"\n";
    for more in ["folds = 3\nnested = 2", "folds = 2\nsearch = \"halving\""] {
        workshop.write("sweep.toml", format!("{plain}{sweep}{more}\n"));
        let report = workshop.json(&["sweep", "sweep.toml"]);
        let rows = report["leaderboard"].as_array().unwrap();
        let last = rows.last().unwrap();
        assert_eq!(last["settings"]["lr"], 1e-6, "{more}: the one that learns nothing");
        assert!(report["best"]["settings"]["lr"] != 1e-6);
        assert!(rows[0]["score"].as_f64() < last["score"].as_f64(), "{more}");
    }
}

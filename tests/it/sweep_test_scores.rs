//! `sweep.test = "all"`: a test score for every setting, by which nothing is chosen.

use std::fs;

use serde_json::Value;

use crate::{
    cases::{Case, Data, PIPELINE, assert_near, outputs},
    support::{Workshop, csv, read_json, texts},
    sweep::{SWEEP, workshop},
};

const ALL: [&str; 2] = ["--set", "sweep.test=all"];

/// The test scores of a row of the leaderboard.
const FIELD: &str = "test_not_for_selection";

/// Small data of a task with a sweep, its states extracted.
fn of_task(task: &'static str, data: Data, sweep: &str) -> Workshop {
    let case = Case { task, data, cache: "max_length = 48\nstride = 12", settings: "" };
    let workshop = case.workshop();
    let text = fs::read_to_string(workshop.path(PIPELINE)).unwrap();
    workshop.write(PIPELINE, format!("{text}\n[train]\nepochs = 4\n[sweep]\n{sweep}\n"));
    workshop.succeed(&["extract", PIPELINE]);
    workshop
}

fn sweep_with(workshop: &Workshop, arguments: &[&str]) -> Value {
    workshop.json(&[&["sweep", PIPELINE], arguments].concat())
}

/// The test scores of every row, and the rows without them.
fn taken_apart(report: &Value) -> (Vec<Value>, Vec<Value>) {
    let mut rows = report["leaderboard"].as_array().unwrap().clone();
    let tests = rows.iter_mut().map(|row| row.as_object_mut().unwrap().remove(FIELD).unwrap());
    (tests.collect(), rows)
}

/// The cells of leaderboard.csv, the names first.
fn board(workshop: &Workshop, report: &Value) -> Vec<Vec<String>> {
    let run = workshop.path(report["run"].as_str().unwrap());
    let text = fs::read_to_string(run.join("leaderboard.csv")).unwrap();
    text.lines().map(|line| line.split(',').map(String::from).collect()).collect()
}

#[test]
fn the_best_setting_is_the_same_and_its_test_score_that_of_its_run_for_every_task() {
    for (task, data, sweep, metric) in [
        (
            "classification",
            Data::Classes,
            "kind = [\"linear\", \"mlp\", \"ridge\", \"lda\", \"logistic\", \"linfa-logistic\", \"linfa-svm\"]\nhidden = [[4]]",
            "macro_f1",
        ),
        ("classification", Data::Classes, "lr = [1e-3, 1e-2]\nselect = \"log_loss\"", "log_loss"),
        ("multilabel", Data::Labels, "kind = [\"linear\", \"ridge\"]", "macro_f1"),
        ("multilabel", Data::Labels, "lr = [1e-3, 1e-2]\nselect = \"brier\"", "brier"),
        ("regression", Data::Values, "kind = [\"linear\", \"ridge\"]", "spearman"),
        ("similarity", Data::PairValues, "kind = [\"cosine\", \"linear\"]", "spearman"),
        ("tokens", Data::Iob2, "kind = [\"linear\", \"crf\"]\nlr = [1e-2]", "entity_f1_strict"),
        ("qa", Data::Questions, "kind = [\"matching\", \"linear\"]", "f1"),
        ("qa", Data::ImpossibleQuestions, "lr = [1e-3, 1e-2]", "f1"),
    ] {
        let workshop = of_task(task, data, sweep);
        let plain = sweep_with(&workshop, &[]);
        let all = sweep_with(&workshop, &ALL);
        let what = format!("{task}: {sweep}");
        assert_eq!(all["best"], plain["best"], "{what}");
        let (tests, rows) = taken_apart(&all);
        assert_eq!(&rows, plain["leaderboard"].as_array().unwrap(), "{what}");
        assert!(tests.iter().all(|test| test[metric].is_f64()), "{what}: {tests:?}");
        assert_near(&tests[0][metric], &all["best"]["test"][metric], &what);
        let interval = &tests[0][format!("{metric}_ci")];
        assert_eq!(interval.as_array().map(Vec::len), Some(2), "{what}: {tests:?}");
    }
}

#[test]
fn a_sweep_that_tests_its_winner_alone_leaves_what_it_leaves_without_the_key() {
    let workshop = workshop("lr = [1e-3, 1e-2]\nfolds = 2");
    let plain = workshop.json(SWEEP);
    let winner = workshop.json(&[SWEEP, &["--set", "sweep.test=winner"]].concat());
    let files = [&plain, &winner].map(|report| {
        let mut files = outputs(&workshop, &report["run"]);
        files.remove("timings.csv").unwrap();
        let lock = workshop.path(report["run"].as_str().unwrap()).join("lock.json");
        assert!(read_json(&lock)["pipeline"]["sweep"].get("test").is_none());
        files
    });
    assert!(files[0] == files[1]);
    assert!(plain["leaderboard"][0].get(FIELD).is_none());
}

#[test]
fn the_score_of_folds_is_the_mean_of_their_heads_and_is_replayed_to_the_same_bytes() {
    // A cosine is the same for all folds, and for the run.
    let cosines = of_task("similarity", Data::PairValues, "folds = 3\nlayer = [1, 2]");
    let report = sweep_with(&cosines, &ALL);
    let (tests, _) = taken_apart(&report);
    assert_near(&tests[0]["spearman"], &report["best"]["test"]["spearman"], "cosine");

    // Every share has a score, and resamples have no part in it.
    let sweep = "folds = 3\nseeds = 2\nlr = [1e-3, 1e-2]\nfraction = [0.5, 1.0]";
    let workshop = of_task("classification", Data::Classes, sweep);
    let report = sweep_with(&workshop, &ALL);
    let (tests, _) = taken_apart(&report);
    assert_eq!(tests.len(), 4);
    let resampled = [&ALL[..], &["--set", "sweep.bootstrap=2"]].concat();
    assert_eq!(taken_apart(&sweep_with(&workshop, &resampled)).0, tests);
    let board = board(&workshop, &report);
    let column = |name: &str| board[0].iter().position(|other| other == name).unwrap();
    // Beside the test score of the run, which learned from all folds.
    let of_run: Vec<&String> = board[1..].iter().map(|row| &row[column("test_macro_f1")]).collect();
    assert_eq!(of_run.iter().filter(|cell| !cell.is_empty()).count(), 1, "{of_run:?}");
    let own = column("test_macro_f1_not_for_selection");
    for (row, test) in board[1..].iter().zip(&tests) {
        assert_eq!(row[own].parse::<f64>().unwrap(), test["macro_f1"].as_f64().unwrap());
        let interval = ["low", "high"].map(|end| {
            row[column(&format!("test_{end}_not_for_selection"))].parse::<f64>().unwrap()
        });
        assert_eq!(Value::from(interval.to_vec()), test["macro_f1_ci"]);
    }
    workshop.succeed(&["run", "--locked", report["run"].as_str().unwrap()]);
}

#[test]
fn settings_that_halving_gave_up_have_no_test_score() {
    let workshop = workshop(
        "lr = { min = 1e-4, max = 1e-1, log = true }\ntrials = 16\nepochs = [16]\nearly_stopping = [false]\n\
         search = \"halving\"\ntest = \"all\"",
    );
    let report = workshop.json(SWEEP);
    let (tests, rows) = taken_apart(&report);
    let board = board(&workshop, &report);
    let column = board[0].iter().position(|name| name == "test_macro_f1_not_for_selection");
    for ((test, row), cells) in tests.iter().zip(&rows).zip(&board[1..]) {
        let has_ended = row["rung"] == 3;
        assert_eq!(test.as_object().unwrap().is_empty(), !has_ended, "{row} {test}");
        assert_eq!(cells[column.unwrap()].is_empty(), !has_ended, "{cells:?}");
    }
    assert_near(&tests[0]["macro_f1"], &report["best"]["test"]["macro_f1"], "the winner");
}

#[test]
fn people_are_told_that_test_scores_chose_nothing() {
    let workshop = workshop("lr = [1e-3, 1e-2]");
    let note = "test scores were not used to choose: picking by them would overstate the score";
    let plain = workshop.succeed(&SWEEP[1..]).stdout;
    assert!(!plain.contains(note) && !plain.contains("test macro_f1"), "{plain}");
    let all = workshop.succeed(&[&SWEEP[1..], &ALL].concat()).stdout;
    assert!(all.contains(note) && all.contains("test macro_f1"), "{all}");
}

#[test]
fn what_cannot_be_tested_is_refused_before_anything_is_done() {
    let workshop = Workshop::tiny();
    let text = fs::read_to_string(workshop.path(PIPELINE)).unwrap();
    workshop.write(PIPELINE, format!("{text}\n[sweep]\nlr = [1e-2]\n"));
    let split = "data.split={ train = 0.8, validation = 0.2, test = 0.0 }";
    let without = [&["run", PIPELINE, "--set", split], &ALL[..]].concat();
    let error = workshop.fail(&without);
    assert!(error.contains("sweep.test is \"all\""), "{error}");
    assert!(error.contains("hint: name a file in data.test"), "{error}");
    let error = workshop.fail(&["run", PIPELINE, "--set", "sweep.test=none"]);
    assert!(error.contains("expected `winner` or `all`"), "{error}");
    assert!(!workshop.path("cache").exists() && !workshop.path("runs").exists());
}

#[test]
fn predictions_of_all_heads_that_do_not_fit_into_memory_are_refused_before_anything_is_encoded() {
    let workshop = Workshop::tiny();
    let path = workshop.path("pipeline.toml");
    let text = fs::read_to_string(&path).unwrap().replace("epochs = 3", "memory_mb = 1");
    let test = "\"train.csv\" }\ntest = { path = \"test.csv\" }";
    let text = text.replace("\"train.csv\" }", test);
    workshop.write("test.csv", csv(&texts(1_620)[120..], 0));
    // 200,000 heads, 4 bytes for each row.
    workshop.write("pipeline.toml", format!("{text}\n[sweep]\nseeds = 200_000\ntest = \"all\"\n"));
    let error = workshop.fail(&["run", "pipeline.toml"]);
    for words in [
        "predictions of 200,000 heads for the rows that they are evaluated on take about 1.2 GB",
        "but train.memory_mb plus 1 GiB is 1.1 GB",
        "leave sweep.test out, compare fewer heads, or set train.memory_mb to",
    ] {
        assert!(error.contains(words), "no {words:?} in {error}");
    }
    assert!(!workshop.path("cache").exists());
    // As many heads, of which halving trains a tenth to the end: only these predict test rows.
    let lr: Vec<f64> = (1..=100).map(|n| f64::from(n) / 1e4).collect();
    let halving = format!("[sweep]\nlr = {lr:?}\nseeds = 2_000\ntest = \"all\"\n");
    workshop.write("halving.toml", format!("{text}\n{halving}"));
    let dry = ["run", "halving.toml", "--dry-run", "--set"];
    assert!(workshop.run(&[&dry[..], &["sweep.search=grid"]].concat()).has_failed());
    workshop.succeed(&[&dry[..], &["sweep.search=halving"]].concat());
    // Only the winner is tested: these fit. Probabilities of a few more rows do not.
    let check = |select: &str| {
        let set = format!("sweep.select={select}");
        workshop.run(&[
            "run",
            "pipeline.toml",
            "--dry-run",
            "--set",
            "sweep.test=winner",
            "--set",
            &set,
        ])
    };
    assert_eq!(check("accuracy").code, Some(0));
    workshop.write("validation.csv", csv(&texts(2_620)[1_620..], 0));
    let text = fs::read_to_string(&path).unwrap();
    let validation = "test = { path = \"test.csv\" }\nvalidation = { path = \"validation.csv\" }";
    workshop.write("pipeline.toml", text.replace("test = { path = \"test.csv\" }", validation));
    assert_eq!(check("accuracy").code, Some(0));
    let refused = check("log_loss");
    assert!(refused.has_failed(), "{}", refused.stderr);
    assert!(refused.stderr.contains("set sweep.select to \"accuracy\""), "{}", refused.stderr);
}

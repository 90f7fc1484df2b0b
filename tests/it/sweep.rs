//! Sweeps as users run them: what is printed and written, and that the bytes do not depend on what they should not.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{
    cases::{Case, Data, conll, sentences, squad},
    support::{Workshop, read_json},
};

pub(crate) const SWEEP: &[&str] = &["--json", "sweep", "pipeline.toml"];

/// Creates a workshop with the tiny pipeline, extracted states, and a section `[sweep]`.
pub(crate) fn workshop(sweep: &str) -> Workshop {
    let workshop = Workshop::tiny();
    add_sweep(&workshop, sweep);
    workshop.succeed(&["extract", "pipeline.toml"]);
    workshop
}

fn add_sweep(workshop: &Workshop, sweep: &str) {
    let path = workshop.path("pipeline.toml");
    let text = fs::read_to_string(&path).unwrap();
    let text = text.split("[sweep]").next().unwrap().to_string();
    workshop.write_pipeline(&format!("{text}\n[sweep]\n{sweep}"));
}

fn lines(path: &Path) -> Vec<Vec<String>> {
    let text = fs::read_to_string(path).unwrap();
    let cells = |line: &str| line.split(',').map(String::from).collect();
    text.lines().map(cells).collect()
}

#[test]
fn a_sweep_holds_the_contract() {
    let workshop = Workshop::tiny();
    add_sweep(
        &workshop,
        "folds = 3\nseeds = 2\nlr = [1e-3, 1e-2]\nkind = [\"linear\", \"mlp\"]\nhidden = [[4]]\npooling = [\"cls\", \"mean\"]\nlayer = [1, 2]",
    );
    let report = workshop.json(&["run", "pipeline.toml"]);
    assert!(report["extract"]["cache"].is_string() && report["train"].is_null());
    let sweep = &report["sweep"];
    assert_eq!(sweep["heads"], 2 * 2 * 2 * 2 * 2 * 3);
    assert_eq!(sweep["epochs"], 3.0);
    let number = |key: &str| sweep[key].as_f64().unwrap();
    // Train and validation are 85 % of 120 rows; two of three folds are trained on.
    assert!((number("rows") - 102.0 * 2.0 / 3.0).abs() < 1.0, "{}", number("rows"));
    let rate = number("heads") * number("rows") * number("epochs") / number("seconds");
    assert!((number("head_samples_per_second") / rate - 1.0).abs() < 1e-6);
    let best = &sweep["best"];
    for key in ["kind", "lr", "pooling", "layer"] {
        assert!(!best["settings"][key].is_null(), "{best}");
    }
    assert!(
        best["validation"]["macro_f1"].is_f64() && best["validation"]["macro_f1_ci"].is_array()
    );
    assert!(best["test"]["accuracy"].is_f64() && best["test"]["accuracy_ci"].is_array());
    let board = sweep["leaderboard"].as_array().unwrap();
    assert_eq!(board.len(), 16);
    assert_eq!(board[0]["settings"], best["settings"]);
    assert_eq!(board[0]["score"], best["validation"]["macro_f1"]);
    let scores: Vec<f64> = board.iter().map(|row| row["score"].as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");

    let run = workshop.path(sweep["run"].as_str().unwrap());
    for name in [
        "lock.json",
        "metrics.json",
        "history.csv",
        "predictions.parquet",
        "head.safetensors",
        "head.json",
        "leaderboard.csv",
        "leaderboard.parquet",
        "pairs.csv",
        "timings.csv",
        "effects.csv",
        "heat_map.csv",
        "heat_map.svg",
        "layer_profile.svg",
        "expected_best.svg",
    ] {
        assert!(run.join(name).is_file(), "{name}");
    }
    assert!(!run.join("unfinished").exists());
    assert_eq!(lines(&run.join("leaderboard.csv")).len(), 1 + 16);
    let folder = sweep["run"].as_str().unwrap();
    let said = workshop.json(&["predict", folder, "--text", "a very cold film"]);
    assert!(said["label"].is_string(), "{said}");
    let lock = format!("{folder}/lock.json");
    let replay = workshop.succeed(&["run", "--locked", &lock]);
    assert!(replay.stdout.contains("leaderboard.csv"), "{}", replay.stdout);
}

#[test]
fn the_number_of_threads_changes_no_byte_of_a_sweep() {
    let workshop = workshop(
        "folds = 2\nseeds = 2\nlr = [1e-3, 1e-2]\nkind = [\"linear\", \"mlp\"]\nhidden = [[4]]\ndropout = [0.0, 0.2]\nbatch_size = [8, 32]",
    );
    let runs: Vec<String> = ["1", "2", "4"]
        .iter()
        .map(|threads| {
            let report = workshop.json(&["sweep", "pipeline.toml", "--threads", threads]);
            report["run"].as_str().unwrap().to_string()
        })
        .collect();
    for other in &runs[1..] {
        for name in [
            "leaderboard.csv",
            "pairs.csv",
            "effects.csv",
            "head.safetensors",
            "metrics.json",
            "predictions.parquet",
        ] {
            let bytes = |run: &String| fs::read(workshop.path(run).join(name)).unwrap();
            assert!(bytes(&runs[0]) == bytes(other), "{name}");
        }
    }
}

#[test]
fn the_winner_of_a_sweep_without_folds_is_the_head_that_train_makes() {
    let workshop =
        workshop("lr = [1e-3, 3e-2]\npooling = [\"mean\"]\nlabel_smoothing = [0.0, 0.1]");
    let report = workshop.json(&["sweep", "pipeline.toml"]);
    let settings = &report["best"]["settings"];
    let lr = format!("train.lr={}", settings["lr"]);
    let smoothing = format!("train.label_smoothing={}", settings["label_smoothing"]);
    let text = fs::read_to_string(workshop.path("pipeline.toml")).unwrap();
    workshop.write("one.toml", text.split("[sweep]").next().unwrap());
    let one = workshop.json(&["train", "one.toml", "--set", &lr, "--set", &smoothing]);
    let [sweep, train] =
        [&report, &one].map(|report| workshop.path(report["run"].as_str().unwrap()));
    for name in ["head.safetensors", "predictions.parquet", "metrics.json", "history.csv"] {
        assert!(
            fs::read(sweep.join(name)).unwrap() == fs::read(train.join(name)).unwrap(),
            "{name}"
        );
    }
    // Its score in the leaderboard is the validation metric of the same head.
    let validation = one["metrics"]["validation"]["macro_f1"].as_f64().unwrap();
    let score = report["best"]["validation"]["macro_f1"].as_f64().unwrap();
    assert!((validation - score).abs() < 1e-12, "{validation}, {score}");
}

#[test]
fn a_head_in_full_batch_can_win_where_others_are_given_up() {
    let workshop = workshop(
        "search = \"halving\"\nkind = [\"linear\", \"ridge\"]\nlr = [1e-9, 2e-9, 3e-9, 4e-9, 5e-9]\nepochs = [16]\nselect = \"accuracy\"",
    );
    let report = workshop.json(SWEEP);
    assert_eq!(report["best"]["settings"]["kind"], "ridge", "{report}");
}

#[test]
fn halving_gives_heads_up_and_says_at_which_rung() {
    let workshop = workshop(
        "lr = { min = 1e-4, max = 1e-1, log = true }\ntrials = 16\nepochs = [16]\nearly_stopping = [false]\nsearch = \"halving\"",
    );
    let report = workshop.json(SWEEP);
    let board = report["leaderboard"].as_array().unwrap();
    let rungs: Vec<u64> = board.iter().map(|row| row["rung"].as_u64().unwrap()).collect();
    let of = |rung: u64| rungs.iter().filter(|of| **of == rung).count();
    assert_eq!([of(0), of(1), of(2), of(3)], [8, 4, 2, 2], "{rungs:?}");
    // 16 heads for one epoch, 8 for one more, 4 for two, 2 for the last twelve.
    assert_eq!(report["epochs"].as_f64().unwrap() * 16.0, 16.0 + 8.0 + 4.0 * 2.0 + 2.0 * 12.0);
    assert_eq!(report["bias_corrected"]["candidates"], 2, "of those trained to the end");
    let full = workshop.json(&[SWEEP[1], SWEEP[2], "--set", "sweep.search=random"]);
    let epochs = full["epochs"].as_f64().unwrap();
    assert_eq!(epochs, 16.0);
    // A head that was trained to the end is the same in both sweeps.
    let last = board.iter().find(|row| row["rung"] == 3).unwrap();
    let mut others = full["leaderboard"].as_array().unwrap().iter();
    let same = others.find(|row| row["settings"] == last["settings"]).unwrap();
    assert_eq!(same["score"], last["score"]);
}

#[test]
fn nested_folds_choose_without_each_fold_and_judge_the_choice_on_it() {
    // One of the two learning rates is too low to learn anything, so every fold chooses the other. Without early
    // stopping, its head is the one in the leaderboard.
    let workshop = workshop(
        "folds = 3\nnested = 2\nlr = [1e-9, 1e-2]\nepochs = [6]\nearly_stopping = [false]\nselect = \"accuracy\"",
    );
    let report = workshop.json(SWEEP);
    assert_eq!(report["heads"], 2 * (3 + 3 * 2));
    let nested = &report["nested"];
    assert_eq!(nested["metric"], "accuracy");
    assert_eq!(nested["score"], report["leaderboard"][0]["score"], "{nested}");
    assert!(nested["interval"].is_array());
    let folds = nested["folds"].as_array().unwrap();
    assert_eq!(folds.len(), 3);
    for fold in folds {
        assert_eq!(fold["settings"], report["best"]["settings"]);
        assert_eq!(fold["epochs"], 6);
        assert!(fold["inner"].is_f64() && fold["score"].is_f64());
    }
    let run = workshop.path(report["run"].as_str().unwrap());
    assert_eq!(lines(&run.join("nested.csv")).len(), 1 + 3);
    let board = fs::read(run.join("leaderboard.csv")).unwrap();
    // The inner folds do not affect the leaderboard.
    add_sweep(
        &workshop,
        "folds = 3\nlr = [1e-9, 1e-2]\nepochs = [6]\nearly_stopping = [false]\nselect = \"accuracy\"",
    );
    let plain = workshop.json(SWEEP);
    assert!(plain["nested"].is_null());
    let run = workshop.path(plain["run"].as_str().unwrap());
    assert!(fs::read(run.join("leaderboard.csv")).unwrap() == board);
}

#[test]
fn nested_folds_take_heads_in_full_batch_too() {
    let workshop = workshop("folds = 3\nnested = 2\nkind = [\"ridge\"]\nlambda = [1.0]");
    let report = workshop.json(SWEEP);
    assert_eq!(report["nested"]["score"], report["leaderboard"][0]["score"]);
    assert_eq!(report["nested"]["folds"][0]["epochs"], 0);
}

#[test]
fn a_head_that_diverges_is_given_up_and_the_others_go_on() {
    let workshop = workshop("optimizer = [\"sgd\"]\nlr = [1e-2, 1e38]");
    let report = workshop.json(SWEEP);
    assert_eq!(report["best"]["settings"]["lr"], 1e-2);
    let board = report["leaderboard"].as_array().unwrap();
    assert_eq!(board.len(), 2);
    assert_eq!([&board[0]["diverged"], &board[1]["diverged"]], [0, 1]);
    let effects = lines(&workshop.path(report["run"].as_str().unwrap()).join("effects.csv"));
    let header = ["setting", "value", "heads", "diverged", "mean", "median", "best"];
    assert_eq!(effects[0], header);
    assert_eq!(effects[1][..4], ["lr", "0.01", "1", "0"]);
    assert_eq!(effects[2][2..], ["0", "1", "", "", ""], "counted and not averaged");
}

#[test]
fn shares_and_resamples_of_the_rows_have_files_of_their_own_and_never_win() {
    let workshop =
        workshop("lr = [1e-2]\nepochs = [10]\nfraction = [0.1, 1.0]\nbootstrap = 5\nseeds = 2");
    let report = workshop.json(SWEEP);
    assert_eq!(report["heads"], 2 * 2 * 6);
    assert_eq!(report["best"]["settings"]["fraction"], 1.0);
    let run = workshop.path(report["run"].as_str().unwrap());
    assert!(run.join("learning_curve.csv").is_file() && run.join("learning_curve.svg").is_file());
    let resamples = lines(&run.join("bootstrap.csv"));
    assert_eq!(resamples.len(), 3);
    let place = resamples[0].iter().position(|name| name == "resamples").unwrap();
    assert_eq!(resamples[1][place], "10", "five of each of two seeds");
}

#[test]
fn every_kind_of_head_has_a_learning_curve_of_its_own_by_training_rows() {
    let workshop = workshop("kind = [\"linear\", \"ridge\"]\nfraction = [0.25, 1.0]\nfolds = 2");
    let report = workshop.json(SWEEP);
    let run = workshop.path(report["run"].as_str().unwrap());
    let curve = lines(&run.join("learning_curve.csv"));
    assert_eq!(curve[0][..4], ["kind", "fraction", "train_rows", "validation_macro_f1"]);
    let points: Vec<[&str; 2]> =
        curve[1..].iter().map(|line| [line[0].as_str(), line[1].as_str()]).collect();
    assert_eq!(points, [["linear", "0.25"], ["linear", "1"], ["ridge", "0.25"], ["ridge", "1"]]);
    let rows: Vec<f64> = curve[1..].iter().map(|line| line[2].parse().unwrap()).collect();
    assert_eq!(rows[..2], rows[2..]);
    let mean = f64::midpoint(rows[0], rows[1]);
    assert!((mean - report["rows"].as_f64().unwrap()).abs() <= 0.5, "{rows:?}");
    let svg = fs::read_to_string(run.join("learning_curve.svg")).unwrap();
    let texts: Vec<&str> = svg.lines().map(str::trim).collect();
    assert!(["linear", "ridge", "training rows"].iter().all(|text| texts.contains(text)));
    let printed = workshop.succeed(&SWEEP[1..]).stdout;
    let listed = printed.lines().find(|line| line.starts_with("labels")).unwrap();
    let header: Vec<&str> = listed.split_whitespace().collect();
    assert_eq!(header, ["labels", "kind", "share", "rows", "best", "head"]);

    // One kind has one curve, by shares alone.
    let one = ["sweep", "pipeline.toml", "--set", "sweep.kind=[\"ridge\"]"];
    let report = workshop.json(&one);
    let run = workshop.path(report["run"].as_str().unwrap());
    let curve = lines(&run.join("learning_curve.csv"));
    let header =
        ["fraction", "validation_macro_f1", "low", "high", "seed_std", "fold_std", "heads"];
    assert_eq!(curve[0], header);
}

#[test]
fn cosines_stand_on_a_leaderboard_beside_heads_and_score_as_a_cosine_run_alone() {
    let workshop = Case {
        task: "similarity",
        data: Data::PairValues,
        cache: "max_length = 24",
        settings: "[head]\nkind = \"cosine\"",
    }
    .workshop();
    let alone = workshop.json(&["run", "pipeline.toml", "--set", "head.layers=[1]"]);
    let expected = &alone["train"]["metrics"];
    let sweep = "kind = [\"cosine\", \"ridge\"]\nlayer = [1, 2]\npooling = [\"mean\", \"cls\"]\nstandardize = [true, false]";
    add_sweep(&workshop, sweep);
    let report = workshop.json(&["run", "pipeline.toml"])["sweep"].clone();
    // A cosine has no scaling, so it has two layers and two poolings; ridge has twice as many combinations.
    assert_eq!(report["heads"], 4 + 8);
    let board = report["leaderboard"].as_array().unwrap();
    let cosine = board.iter().find(|row| {
        let settings = &row["settings"];
        settings["kind"] == "cosine" && settings["layer"] == 1 && settings["pooling"] == "mean"
    });
    let score = cosine.unwrap()["score"].as_f64().unwrap();
    let own = expected["validation"]["spearman"].as_f64().unwrap();
    assert!((score - own).abs() < 1e-12, "{score}, {own}");

    // Folds, nested folds and a refit do not affect a head that is not trained.
    add_sweep(&workshop, "folds = 3\nnested = 2\nlayer = [1]");
    let folds = workshop.json(SWEEP);
    assert_eq!(folds["best"]["test"], expected["test"]);
    assert_eq!(folds["nested"]["score"], folds["leaderboard"][0]["score"]);
    let predict = [
        "predict",
        folds["run"].as_str().unwrap(),
        "--text",
        "a very cold film",
        "--text-pair",
        "the snow",
    ];
    assert!(workshop.json(&predict)["value"].is_number());
}

/// Runs a sweep on small data of a task.
fn of_task(data: &str, head: &str, sweep: &str, files: &[(&str, String)]) -> Value {
    let workshop = Workshop::empty();
    for (name, content) in files {
        workshop.write(name, content);
    }
    workshop.write_pipeline(&format!(
        "name = \"tiny\"\n[model]\npath = \"MODEL\"\ndevice = \"cpu\"\nbatch_tokens = 512\n[data]\n{data}\n[cache]\nmax_length = 48\n\
         {head}\n[train]\nepochs = 2\n[sweep]\n{sweep}\n"
    ));
    let report = workshop.json(&["run", "pipeline.toml"])["sweep"].clone();
    let folder = report["run"].as_str().unwrap();
    let lock = read_json(&workshop.path(folder).join("lock.json"));
    assert!(lock["pipeline"]["sweep"].is_object() && lock["winner"]["sweep"].is_null());
    // The winner can be used like any other run.
    let mut predict = vec!["predict", folder, "--text", "a very cold film"];
    if data.contains("qa") {
        predict.extend(["--text-pair", "the film is snow and the cold frost is good"]);
    }
    assert!(workshop.json(&predict).is_object());
    let evaluated = workshop.json(&["evaluate", folder, "--data", files[0].0]);
    assert!(evaluated["metrics"].is_object(), "{evaluated}");
    report
}

#[test]
fn tasks_of_one_file_have_sweeps_of_their_own() {
    let workshop = Workshop::tiny();
    let text = fs::read_to_string(workshop.path("pipeline.toml")).unwrap();
    let tasks = text.replace("[data]", "[tasks.one.data]").replace("[train]", "[tasks.one.train]");
    let two = "[tasks.two.data]\ntrain = { path = \"train.csv\" }\n[tasks.two.train]\nepochs = 2\n";
    workshop.write_pipeline(&format!("{tasks}\n[tasks.one.sweep]\nlr = [1e-3, 1e-2]\n{two}"));
    let report = workshop.json(&["run", "pipeline.toml"]);
    let tasks = &report["train"]["tasks"];
    assert_eq!(tasks["one"]["heads"], 2);
    assert!(tasks["two"]["metrics"]["test"].is_object(), "{report}");
    let run = tasks["one"]["run"].as_str().unwrap();
    assert!(workshop.path(run).join("leaderboard.csv").is_file());
    let error = workshop.fail(&["train", "pipeline.toml"]);
    assert!(error.contains("frostbert sweep"), "{error}");
    assert_eq!(workshop.json(&["sweep", "pipeline.toml"])["tasks"]["one"]["heads"], 2);
    // If every task has a sweep, the report is that of a sweep.
    let all = ["run", "pipeline.toml", "--set", "tasks.two.sweep.lr=[1e-3]"];
    let report = workshop.json(&all);
    let tasks = &report["sweep"]["tasks"];
    assert_eq!([&tasks["one"]["heads"], &tasks["two"]["heads"]], [2, 1]);
    assert!(report["train"].is_null());
}

#[test]
fn words_questions_numbers_and_labels_are_swept_by_their_own_metrics() {
    let conll = conll(&sentences(60, 1));
    let words = of_task(
        "task = \"tokens\"\ntrain = { path = \"words.conll\" }",
        "",
        "folds = 2\nkind = [\"linear\", \"crf\"]\nlr = [1e-2]\nlayer = [0, 1, 2]",
        &[("words.conll", conll)],
    );
    assert!(words["best"]["validation"]["entity_f1_strict"].is_f64(), "{words}");
    assert!(words["best"]["test"]["entity_f1_strict"].is_f64());
    let questions = of_task(
        "task = \"qa\"\ntrain = { path = \"questions.json\", format = \"squad\" }",
        "stride = 8",
        "folds = 2\nlr = [1e-2]\nkind = [\"matching\"]\nmax_answer_tokens = [1, 30]",
        &[("questions.json", squad(12, 1, false))],
    );
    assert!(questions["best"]["validation"]["f1"].is_f64(), "{questions}");
    assert!(questions["best"]["test"]["exact_match"].is_f64());
    let rows: String = (0..60)
        .map(|row| format!("{} cold film {row},{row}\n", if row % 2 == 0 { "very" } else { "not" }))
        .collect();
    let numbers = of_task(
        "task = \"regression\"\ntrain = { path = \"rows.csv\", label = \"number\" }",
        "",
        "lr = [1e-3, 1e-2]\nselect = \"mae\"",
        &[("rows.csv", format!("text,number\n{rows}"))],
    );
    assert!(numbers["best"]["validation"]["mae"].is_f64(), "{numbers}");
    let board = numbers["leaderboard"].as_array().unwrap();
    assert!(board[0]["score"].as_f64() <= board[1]["score"].as_f64(), "a smaller error is better");
    let rows: String = (0..60)
        .map(|row| {
            format!(
                "{} film {row},{}\n",
                ["warm", "cold", "good"][row % 3],
                ["a", "b", "a b"][row % 3]
            )
        })
        .collect();
    let labels = of_task(
        "task = \"multilabel\"\ntrain = { path = \"rows.csv\", label_separator = \" \" }",
        "",
        "folds = 2\nlr = [1e-3, 1e-2]\nclass_weights = [\"balanced\"]",
        &[("rows.csv", format!("text,label\n{rows}"))],
    );
    assert!(labels["best"]["validation"]["macro_f1"].is_f64(), "{labels}");
}

#[test]
fn what_is_wrong_with_a_sweep_is_said_before_anything_is_done() {
    let workshop = Workshop::tiny();
    for (sweep, problem) in [
        ("rate = [0.1]", ":19:1: unknown field `rate`, expected one of `folds`, "),
        ("lr = []", "empty list"),
        ("lr = [\"fast\"]", "lr = fast"),
        ("kind = [\"linear\", \"crf\"]", "kind = crf"),
        ("lr = { min = 1e-4, max = 1e-2 }", "trials is missing"),
        ("lr = [0.1]\nselect = \"spearman\"", "sweep.select is `spearman`"),
        ("kind = [\"ridge\"]\nselect = \"brier\"", "a head of kind ridge"),
        ("lr = [0.1]\nfolds = 1", "sweep.folds is 1"),
        ("lr = [0.1]\nfolds = 1000", "sweep.folds is 1000"),
        ("lr = [0.1]\nnested = 3", "there are no folds"),
        ("lr = [0.1]\nfolds = 3\nnested = 1", "sweep.nested is 1"),
        ("lr = [0.1]\nfolds = 3\nnested = 2\nsearch = \"halving\"", "cannot be combined with"),
        ("lr = [0.1]\nfraction = [0.0]", "the share 0"),
        ("lr = [0.1]\nseeds = 0", "sweep.seeds is 0"),
        ("lr = [0.1]\nseeds = 100000000000", "more than 200000 heads"),
        ("lr = [0.1]\nbootstrap = 1000000000000", "sets of rows"),
        ("kind = [\"ridge\"]\nbootstrap = 3", "counts each row once"),
        ("layer = [1]\nlayers = [2]", "both `layer` and `layers`"),
        ("lr = [0.1]\nsearch = \"annealing\"", "annealing"),
    ] {
        add_sweep(&workshop, sweep);
        let error = workshop.fail(&["run", "pipeline.toml"]);
        assert!(error.contains(problem), "{sweep}: {error}");
        assert!(error.contains("hint: "), "{sweep}: {error}");
    }
    assert!(!workshop.path("cache").exists() && !workshop.path("runs").exists());
    add_sweep(&workshop, "lr = [0.1]");
    let error = workshop.fail(&["train", "pipeline.toml"]);
    assert!(error.contains("frostbert sweep"), "{error}");
    let workshop = Workshop::tiny();
    let error = workshop.fail(&["sweep", "pipeline.toml"]);
    assert!(error.contains("no section [sweep]"), "{error}");
}

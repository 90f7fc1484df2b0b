//! What a pipeline does that says nothing: heads and layers by task, early stopping by the task's own metric, the cosine
//! next to a trained similarity, C and lambda by folds; and settings of a sweep that are given as they are.

use serde_json::{Value, json};

use crate::{
    cases::{Case, Data, PIPELINE},
    support::{Workshop, csv, read_json, texts},
};

/// Runs a pipeline with these settings besides its data. Returns the workshop and the run's folder.
fn run_of(task: &'static str, data: Data, settings: &'static str) -> (Workshop, String) {
    let workshop = Case { task, data, cache: "max_length = 48\nstride = 12", settings }.workshop();
    let report = workshop.json(&["run", PIPELINE]);
    let run = report["train"]["run"].as_str().unwrap().to_string();
    (workshop, run)
}

fn head_of(workshop: &Workshop, run: &str) -> Value {
    read_json(&workshop.path(run).join("head.json"))
}

#[test]
fn each_task_has_a_head_and_layers_of_its_own() {
    // The tiny model has two layers.
    for (task, data, kind, layers) in [
        ("classification", Data::Classes, "linear", json!([2])),
        ("regression", Data::Values, "linear", json!([2])),
        ("similarity", Data::PairValues, "cosine", json!([2])),
        ("tokens", Data::Iob2, "linear", json!([0, 1, 2])),
        ("qa", Data::Questions, "matching", json!([1])),
    ] {
        let (workshop, run) = run_of(task, data, "[train]\nepochs = 2");
        let head = head_of(&workshop, &run);
        assert_eq!((&head["kind"], &head["layers"]), (&json!(kind), &layers), "{task}: {head}");
        // The defaults are in the lock, for a replay.
        let lock = read_json(&workshop.path(&run).join("lock.json"));
        assert_eq!(lock["pipeline"]["head"]["kind"], kind);
    }
}

#[test]
fn layers_are_named_by_a_word_and_projected_ones_are_the_last() {
    let (workshop, run) =
        run_of("classification", Data::Classes, "[head]\nlayers = \"all\"\n[train]\nepochs = 2");
    assert_eq!(head_of(&workshop, &run)["layers"], json!([0, 1, 2]));
    // Principal components are those of a single layer.
    let (workshop, run) = run_of("tokens", Data::Iob2, "[head]\npca = 4\n[train]\nepochs = 2");
    assert_eq!(head_of(&workshop, &run)["layers"], json!([2]));
    let workshop = Case {
        task: "classification",
        data: Data::Classes,
        cache: "max_length = 48\nlayers = \"all\"\nstore = [\"cls\"]",
        settings: "",
    }
    .workshop();
    workshop.succeed(&["extract", PIPELINE]);
    let shard = workshop.cache().join("shard-000000");
    let is_stored = |layer: usize| shard.join(format!("cls-L{layer:02}.parquet")).is_file();
    assert_eq!([0, 1, 2, 3].map(is_stored), [true, true, true, false]);
    let ran = workshop.fail(&["run", PIPELINE, "--set", "head.layers=most"]);
    assert!(ran.contains("\"all\", \"auto\", or a list of layers such as [-1]"), "{ran}");
}

/// Returns the epoch that was kept, and the metric and loss in each row of history.csv.
fn course(workshop: &Workshop, run: &str, column: &str) -> (usize, Vec<[f64; 2]>) {
    let history = std::fs::read_to_string(workshop.path(run).join("history.csv")).unwrap();
    let names: Vec<&str> = history.lines().next().unwrap().split(',').collect();
    let place = |name: &str| names.iter().position(|other| *other == name).unwrap();
    let (metric, loss) = (place(column), place("validation_loss"));
    let rows = history.lines().skip(1).map(|line| {
        let cells: Vec<&str> = line.split(',').collect();
        [metric, loss].map(|column| cells[column].parse().unwrap())
    });
    let metrics = read_json(&workshop.path(run).join("metrics.json"));
    (metrics["best_epoch"].as_u64().unwrap() as usize, rows.collect())
}

#[test]
fn training_follows_the_metric_of_the_task_and_among_equals_the_loss() {
    for (task, data, metric) in [
        ("classification", Data::Classes, "macro_f1"),
        ("multilabel", Data::Labels, "macro_f1"),
        ("regression", Data::Values, "spearman"),
        ("tokens", Data::Iob2, "entity_f1_strict"),
        ("tokens", Data::Conllu, "token_accuracy"),
        ("qa", Data::Questions, "f1"),
    ] {
        let (workshop, run) = run_of(task, data, "[train]\nlr = 3e-2\nepochs = 40");
        let (best, rows) = course(&workshop, &run, &format!("validation_{metric}"));
        let kept = rows[best - 1];
        for (epoch, row) in rows.iter().enumerate() {
            let is_better = row[0] > kept[0] || (row[0] == kept[0] && row[1] < kept[1]);
            assert!(!is_better, "{task}: epoch {} {row:?}, kept {best} {kept:?}", epoch + 1);
        }
        let stopped = best + 10;
        assert!(rows.len() == stopped || rows.len() == 40, "{task}: {best} of {}", rows.len());
    }
}

#[test]
fn a_trained_similarity_is_shown_next_to_the_cosine() {
    let (workshop, run) =
        run_of("similarity", Data::PairValues, "[head]\nkind = \"linear\"\n[train]\nepochs = 2");
    let baseline = &read_json(&workshop.path(&run).join("metrics.json"))["baseline"];
    let cosine = workshop.json(&["run", PIPELINE, "--set", "head.kind=cosine"]);
    let test = &cosine["train"]["metrics"]["test"];
    for metric in ["spearman", "pearson"] {
        let (own, alone) = (&baseline["cosine"][metric], &test[metric]);
        assert!((own.as_f64().unwrap() - alone.as_f64().unwrap()).abs() < 1e-9, "{own} {alone}");
    }
    let ran = workshop.succeed(&["train", PIPELINE]);
    assert!(ran.stdout.contains("the cosine of the two texts, without training: spearman"));
}

#[test]
fn settings_of_a_sweep_are_compared_as_they_are_given() {
    let sweep = "[sweep]\nfolds = 3\n\
                 [[sweep.settings]]\nkind = \"ridge\"\nlambda = 3.0\n\
                 [[sweep.settings]]\nlayer = 0\nepochs = 2\n\
                 [[sweep.settings]]\nkind = \"ridge\"\nlambda = 3.0\npooling = \"cls\"\n";
    let workshop = Case {
        task: "classification",
        data: Data::Classes,
        cache: "max_length = 48",
        settings: sweep,
    }
    .workshop();
    let report = workshop.json(&["run", PIPELINE]);
    let rows = report["sweep"]["leaderboard"].as_array().unwrap();
    let settings: Vec<&Value> = rows.iter().map(|row| &row["settings"]).collect();
    assert_eq!(settings.len(), 3, "{settings:?}");
    for given in [
        json!({ "kind": "ridge", "lambda": 3.0 }),
        json!({ "layer": 0, "epochs": 2 }),
        json!({ "kind": "ridge", "lambda": 3.0, "pooling": "cls" }),
    ] {
        assert!(settings.contains(&&given), "{given} in {settings:?}");
    }

    // Together with keys that have lists, and with a key that has no effect on the head.
    workshop.write(
        "both.toml",
        std::fs::read_to_string(workshop.path(PIPELINE)).unwrap().replace(
            sweep,
            "[train]\nepochs = 2\n[sweep]\nlr = [1e-3, 1e-2]\n[[sweep.settings]]\nkind = \"lda\"\nlr = 1.0\n",
        ),
    );
    let ran = workshop.succeed(&["run", "both.toml", "--json"]);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["sweep"]["leaderboard"].as_array().unwrap().len(), 3);
    let warning = "sweep.settings, number 1: lr does not affect a head of kind lda";
    assert!(ran.stderr.contains(warning), "{}", ran.stderr);

    // Principal components are those of a single layer, while a head without them reads a mix of all layers.
    let words = Case {
        task: "tokens",
        data: Data::Iob2,
        cache: "max_length = 48",
        settings: "[train]\nepochs = 1\n[[sweep.settings]]\npca = 4\n[[sweep.settings]]\nlr = 3e-3\n",
    };
    let report = words.workshop().json(&["run", PIPELINE]);
    assert_eq!(report["sweep"]["leaderboard"].as_array().unwrap().len(), 2);

    // Keys of other sections and invalid values are rejected.
    for (setting, expected) in [
        ("folds = 3", "unknown field `folds`"),
        ("kind = \"crf\"", "is not a head for the task `classification`"),
        ("", "has no keys"),
        ("layer = 1\nlayers = [0]", "has both `layer` and `layers`"),
        ("lr = 0.1\n[sweep]\ntrials = 3", "are used as they are"),
    ] {
        let text = std::fs::read_to_string(workshop.path(PIPELINE)).unwrap();
        let text = text.replace(sweep, &format!("[[sweep.settings]]\n{setting}\n"));
        workshop.write("wrong.toml", text);
        let error = workshop.fail(&["run", "wrong.toml"]);
        assert!(error.contains(expected), "{setting}: {error}");
    }
}

/// Values of C and of lambda among which folds choose, the strongest regularisation first.
const VALUES_OF_C: [f64; 7] = [1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3];
const VALUES_OF_LAMBDA: [f64; 7] = [1e5, 1e4, 1e3, 1e2, 1e1, 1.0, 1e-1];

/// What folds chose for a run.
fn chosen_of(workshop: &Workshop, run: &str) -> Value {
    read_json(&workshop.path(run).join("metrics.json"))["chosen"].clone()
}

fn read_bytes(workshop: &Workshop, run: &str, name: &str) -> Vec<u8> {
    std::fs::read(workshop.path(run).join(name)).unwrap()
}

#[test]
fn folds_over_train_choose_a_c_that_the_run_shows_and_a_replay_chooses_again() {
    let settings = "[head]\nkind = \"logistic\"";
    let case =
        Case { task: "classification", data: Data::Classes, cache: "max_length = 48", settings };
    let workshop = case.workshop();
    let shown = workshop.succeed(&["run", PIPELINE]).stdout;
    let run = "runs/tiny/001";
    let chosen = chosen_of(&workshop, run);
    let (c, score) = (chosen["C"].as_f64().unwrap(), chosen["score"].as_f64().unwrap());
    let line = format!("C = {c} chosen by 5 folds over train (macro_f1 {score:.3})");
    assert!(shown.contains(&line), "no {line:?} in {shown}");
    assert_eq!((&chosen["by"], &chosen["metric"]), (&json!("5 folds"), &json!("macro_f1")));
    let tried = chosen["tried"].as_array().unwrap();
    let [values, scores, losses] = ["C", "macro_f1", "log_loss"].map(|name| {
        let column = tried.iter().map(|one| one[name].as_f64().unwrap());
        column.collect::<Vec<f64>>()
    });
    assert_eq!(values, VALUES_OF_C);
    let place = values.iter().position(|value| *value == c).unwrap();
    assert_eq!(scores[place], score);
    for (other, loss) in scores.iter().zip(&losses) {
        assert!(*other < score || (*other == score && *loss >= losses[place]), "{chosen}");
    }
    assert_eq!(head_of(&workshop, run)["C"], chosen["C"]);
    let lock = read_json(&workshop.path(run).join("lock.json"));
    assert_eq!(lock["pipeline"]["head"]["C"], "auto");

    for threads in ["1", "2", "4"] {
        let lock = format!("{run}/lock.json");
        let report = workshop.json(&["run", "--locked", &lock, "--threads", threads]);
        assert_eq!(report["train"]["metrics"]["chosen"], chosen);
    }

    // The same number in the file chooses nothing, and gives the same head.
    let set = ["--set", &format!("head.C={c}")];
    let report = workshop.json(&[&["train", PIPELINE][..], &set].concat());
    assert!(report["metrics"]["chosen"].is_null(), "{report}");
    let fixed = report["run"].as_str().unwrap();
    assert!(head_of(&workshop, fixed)["C"].is_null());
    for name in ["head.safetensors", "predictions.parquet"] {
        assert!(read_bytes(&workshop, fixed, name) == read_bytes(&workshop, run, name), "{name}");
    }
    let shown = workshop.succeed(&[&["train", PIPELINE][..], &set].concat()).stdout;
    assert!(!shown.contains("chosen by"), "{shown}");
    let ran = workshop.fail(&["train", PIPELINE, "--set", "head.C=best"]);
    assert!(ran.contains("expected a number, or \"auto\""), "{ran}");
}

#[test]
fn folds_choose_a_lambda_by_the_metric_of_the_task_and_for_numbers_by_their_squared_error() {
    for (task, data, settings, metric) in [
        ("classification", Data::Classes, "[head]\nkind = \"lda\"", "macro_f1"),
        ("classification", Data::PairClasses, "[head]\nkind = \"ridge\"", "macro_f1"),
        ("multilabel", Data::Labels, "[head]\nkind = \"ridge\"", "macro_f1"),
        ("regression", Data::Values, "[head]\nkind = \"ridge\"", "mse"),
    ] {
        let (workshop, run) = run_of(task, data, settings);
        let chosen = chosen_of(&workshop, &run);
        assert!(VALUES_OF_LAMBDA.contains(&chosen["lambda"].as_f64().unwrap()), "{chosen}");
        assert_eq!((&chosen["metric"], &chosen["C"]), (&json!(metric), &Value::Null), "{task}");
        let head = head_of(&workshop, &run);
        assert_eq!((&head["lambda"], &head["C"]), (&chosen["lambda"], &Value::Null), "{task}");
    }
    // The heads of linfa keep a C of 1.
    let (workshop, run) =
        run_of("classification", Data::Classes, "[head]\nkind = \"linfa-logistic\"");
    assert!(chosen_of(&workshop, &run).is_null());
    let set = ["--set", "head.C=1"];
    let given = workshop.json(&[&["train", PIPELINE][..], &set].concat());
    let given = given["run"].as_str().unwrap();
    let name = "head.safetensors";
    assert!(read_bytes(&workshop, given, name) == read_bytes(&workshop, &run, name));
}

#[test]
fn validation_and_test_have_no_part_in_what_folds_choose() {
    let settings =
        "validation = { path = \"validation.csv\" }\n[head]\nkind = \"logistic\"\nlayers = [0]";
    let case =
        Case { task: "classification", data: Data::Classes, cache: "max_length = 48", settings };
    let workshop = case.workshop();
    // The texts stay, with the labels of others.
    let run_with = |shift: usize| {
        for (name, first) in [("test.csv", 90), ("validation.csv", 120)] {
            let texts = &texts(150)[first..first + 30];
            workshop.write(name, csv(texts, first + shift));
        }
        let report = workshop.json(&["run", PIPELINE]);
        report["train"]["metrics"].clone()
    };
    let (one, other) = (run_with(0), run_with(1));
    assert!(one["chosen"]["C"].is_f64(), "{one}");
    assert_eq!(one["chosen"], other["chosen"]);
    for part in ["validation", "test"] {
        assert_ne!(one[part]["accuracy"], other[part]["accuracy"], "{part}");
    }
}

#[test]
fn rows_that_are_too_few_for_folds_leave_a_c_of_1_and_a_note() {
    let workshop = Workshop::tiny();
    workshop.write("train.csv", "text,label\ncold,a\nsnow,a\nfrost,a\nwarm,b\n");
    let all = "data.split={train=1.0,validation=0.0,test=0.0}";
    let ran =
        workshop.succeed(&["run", "pipeline.toml", "--set", all, "--set", "head.kind=logistic"]);
    let note = "C is 1: folds of 4 rows cannot choose it";
    assert!(ran.stderr.contains(note), "{}", ran.stderr);
    assert!(!ran.stdout.contains("chosen by"), "{}", ran.stdout);
    assert!(chosen_of(&workshop, "runs/tiny/001").is_null());

    // In a sweep it is said once, however many heads there are.
    workshop.write("train.csv", "text,label\ncold,a\nsnow,a\nfrost,a\nwarm,b\ngood,b\n");
    let sweep =
        ["sweep.folds=5", "sweep.kind=[\"logistic\", \"lda\"]", "sweep.standardize=[true, false]"];
    let sets = sweep.iter().chain([&all]).flat_map(|set| ["--set", *set]);
    let ran =
        workshop.succeed(&["run", "pipeline.toml"].into_iter().chain(sets).collect::<Vec<_>>());
    assert_eq!(ran.stderr.matches("cannot choose it").count(), 1, "{}", ran.stderr);
}

#[test]
fn each_head_of_a_sweep_chooses_its_own_number_and_so_does_the_best_as_a_run() {
    let sweep = "[head]\nkind = \"logistic\"\n[sweep]\nfolds = 3\nC = [\"auto\", 1e-3]\n";
    let case = Case {
        task: "classification",
        data: Data::Classes,
        cache: "max_length = 48",
        settings: sweep,
    };
    let workshop = case.workshop();
    let ran = workshop.succeed(&["run", PIPELINE, "--json"]);
    let note =
        "1 of 2 settings leave C or lambda to folds over the rows that each head learns from";
    assert!(ran.stderr.contains(note), "{}", ran.stderr);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    let report = &report["sweep"];
    assert_eq!(report["heads"], 2 * 3);
    let rows = report["leaderboard"].as_array().unwrap();
    for c in [json!("auto"), json!(1e-3)] {
        let is_there = |row: &&Value| row["settings"]["C"] == c;
        assert!(rows.iter().find(is_there).unwrap()["score"].is_f64(), "{rows:?}");
    }

    // Alone, it is trained on train and validation, which choose for it too, by the same metric as the sweep.
    let set = ["--set", "sweep.C=[\"auto\"]", "--set", "sweep.select=log_loss"];
    let alone = workshop.json(&[&["sweep", PIPELINE][..], &set].concat());
    let run = alone["run"].as_str().unwrap();
    let chosen = chosen_of(&workshop, run);
    assert_eq!(chosen["metric"], "log_loss");
    assert!(VALUES_OF_C.contains(&chosen["C"].as_f64().unwrap()), "{chosen}");
    let lock = format!("{run}/lock.json");
    workshop.json(&["run", "--locked", &lock, "--threads", "1"]);
}

//! What a pipeline does that says nothing: heads and layers by task, early stopping by the task's own metric, the cosine
//! next to a trained similarity; and settings of a sweep that are given as they are.

use serde_json::{Value, json};

use crate::{
    cases::{Case, Data, PIPELINE},
    support::{Workshop, read_json},
};

/// Runs a pipeline with nothing but its data; returns the workshop, and the run's folder.
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
        // What nothing was said of is in the lock, for a replay.
        let lock = read_json(&workshop.path(&run).join("lock.json"));
        assert_eq!(lock["pipeline"]["head"]["kind"], kind);
    }
}

#[test]
fn layers_are_named_by_a_word_and_projected_ones_are_the_last() {
    let (workshop, run) =
        run_of("classification", Data::Classes, "[head]\nlayers = \"all\"\n[train]\nepochs = 2");
    assert_eq!(head_of(&workshop, &run)["layers"], json!([0, 1, 2]));
    // Components are of one layer.
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

/// The epoch that was kept, and the rows of history.csv.
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

    // Next to keys with lists, and with a key that changes nothing.
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
    let warning = "sweep.settings, number 1: lr changes nothing of a head of kind lda";
    assert!(ran.stderr.contains(warning), "{}", ran.stderr);

    // Components are of one layer, and a head without them reads a mix of all.
    let words = Case {
        task: "tokens",
        data: Data::Iob2,
        cache: "max_length = 48",
        settings: "[train]\nepochs = 1\n[[sweep.settings]]\npca = 4\n[[sweep.settings]]\nlr = 3e-3\n",
    };
    let report = words.workshop().json(&["run", PIPELINE]);
    assert_eq!(report["sweep"]["leaderboard"].as_array().unwrap().len(), 2);

    // Keys of other sections, and values that cannot be, are refused.
    for (setting, expected) in [
        ("folds = 3", "unknown field `folds`"),
        ("kind = \"crf\"", "is no head for the task `classification`"),
        ("", "names no key"),
        ("layer = 1\nlayers = [0]", "has both `layer` and `layers`"),
        ("lr = 0.1\n[sweep]\ntrials = 3", "are taken as they are"),
    ] {
        let text = std::fs::read_to_string(workshop.path(PIPELINE)).unwrap();
        let text = text.replace(sweep, &format!("[[sweep.settings]]\n{setting}\n"));
        workshop.write("wrong.toml", text);
        let error = workshop.fail(&["run", "wrong.toml"]);
        assert!(error.contains(expected), "{setting}: {error}");
    }
}

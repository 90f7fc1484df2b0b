//! Sweeps over models: a cache for each, one leaderboard over all, and the winner's model in its run.

use std::fs;

use serde_json::{Value, json};

use crate::{
    cases::{Case, Data, PIPELINE, outputs},
    support::{
        TINY_PIPELINE, TINY_ROWS, Workshop, assert_same_files, copy_folder, csv, fixture,
        read_json, texts,
    },
    sweep_kills::{assert_same_run, kill_at},
};

const RUN: [&str; 2] = ["run", PIPELINE];

/// Two models in the folder, of two layers and of three.
fn with_models(workshop: &Workshop) {
    for (model, name) in [("tiny_bert", "models/a"), ("families/bert_sharded", "models/b")] {
        copy_folder(&fixture(model), &workshop.path(name));
    }
}

/// The tiny pipeline on the first of two models, with a section `[sweep]`.
fn write_sweep(workshop: &Workshop, sweep: &str) {
    let toml = TINY_PIPELINE.replace("MODEL", "models/a");
    workshop.write(PIPELINE, format!("{toml}\n[sweep]\n{sweep}"));
}

fn workshop(sweep: &str) -> Workshop {
    let workshop = Workshop::tiny();
    with_models(&workshop);
    write_sweep(&workshop, sweep);
    workshop
}

const BOTH: &str =
    "model.path = [\"models/a\", \"models/b\"]\nlr = [1e-3, 1e-1]\nlayer = [1, -1]\nfolds = 3\n";

#[test]
fn heads_of_two_models_stand_in_one_leaderboard_and_the_winner_has_its_model() {
    let workshop = workshop(BOTH);
    let report = workshop.json(&RUN);
    let extract = &report["extract"];
    let of_model = |model: &str| &extract["models"][model];
    for model in ["models/a", "models/b"] {
        assert_eq!(of_model(model)["computed"], json!(TINY_ROWS), "{extract}");
        let fingerprint = of_model(model)["fingerprint"].as_str().unwrap();
        assert_eq!(of_model(model)["cache"], json!(format!("cache/{fingerprint}")));
    }
    assert_ne!(of_model("models/a")["cache"], of_model("models/b")["cache"]);
    assert_eq!(extract["cache"], of_model("models/a")["cache"]);
    assert_eq!(extract["computed"], json!(2 * TINY_ROWS));

    let sweep = &report["sweep"];
    assert_eq!(sweep["heads"], json!(2 * 2 * 2 * 3));
    let board = sweep["leaderboard"].as_array().unwrap();
    let n_of = |model: &str| {
        board.iter().filter(|row| row["settings"]["model.path"] == json!(model)).count()
    };
    assert_eq!([n_of("models/a"), n_of("models/b")], [4, 4], "{board:?}");

    let run = sweep["run"].as_str().unwrap();
    let lock = read_json(&workshop.path(run).join("lock.json"));
    let winner = &sweep["best"]["settings"]["model.path"];
    assert_eq!(lock["winner"]["model"]["path"], *winner);
    assert_eq!(lock["pipeline"]["sweep"]["model.path"], json!(["models/a", "models/b"]));
    let models = lock["models"].as_array().unwrap();
    assert_eq!(models.len(), 2, "{models:?}");
    let own = models.iter().find(|model| model["path"] == *winner).unwrap();
    assert_eq!(
        (&lock["model"], &lock["cache"]["fingerprint"]),
        (&own["model"], &own["fingerprint"])
    );
    assert_eq!(own["fingerprint"], of_model(winner.as_str().unwrap())["fingerprint"]);
    let name = winner.as_str().unwrap().strip_prefix("models/").unwrap();
    assert_eq!(lock["base_model"]["name"], json!(name));
    let said = workshop.json(&["predict", run, "--text", "a very cold film"]);
    assert!(said["label"].is_string(), "{said}");

    let page = fs::read_to_string(workshop.path(run).join("report.html")).unwrap();
    assert!(page.contains("The models that were compared"));
    assert!(!page.contains("The model is not where the run found it"));
    for model in ["models&#x2f;a", "models&#x2f;b"] {
        assert!(page.contains(&format!("<td>{model}: weights</td>")), "{model}");
        let is_own = model.ends_with(name);
        assert_eq!(page.contains(&format!("<tr class=\"marked\"><td>{model}</td>")), is_own);
    }

    // Again: nothing is computed, and the same comes out.
    let again = workshop.json(&RUN);
    assert_eq!(again["extract"]["computed"], json!(0));
    let timings_aside = |run: &Value| {
        let mut files = outputs(&workshop, run);
        files.remove("timings.csv").unwrap();
        files
    };
    assert_same_files(&timings_aside(&sweep["run"]), &timings_aside(&again["sweep"]["run"]));
    let replay = workshop.json(&["run", "--locked", run, "--threads", "2"]);
    let same = replay["replay"]["same"].as_array().unwrap();
    assert!(same.contains(&json!("leaderboard.csv")) && same.len() == 5, "{same:?}");

    // What both models need is kept.
    let collected = workshop.json(&["cache", "gc", "cache", "--pipeline", PIPELINE]);
    let dropped = |cache: &Value| cache["dropped"] == json!(0);
    assert!(collected["caches"].as_array().unwrap().iter().all(dropped), "{collected}");
    let cache = of_model("models/b")["cache"].as_str().unwrap();
    let to = ["cache", "export", cache, "--to", "npy", "--pipeline", PIPELINE];
    assert_eq!(workshop.json(&to)["rows"], json!(TINY_ROWS));
}

#[test]
fn the_head_of_a_model_is_the_one_that_it_has_alone() {
    let workshop = workshop("model.path = [\"models/b\"]\nlr = [3e-2]");
    // Of [model] nothing is needed where all settings name another model.
    fs::remove_dir_all(workshop.path("models/a")).unwrap();
    let sweep = workshop.json(&RUN);
    assert!(sweep["extract"]["models"].is_null(), "{sweep}");
    workshop.write(PIPELINE, TINY_PIPELINE.replace("MODEL", "models/b"));
    let alone = workshop.json(&["run", PIPELINE, "--set", "train.lr=3e-2"]);
    assert_eq!(alone["extract"]["computed"], json!(0));
    assert_eq!(alone["extract"]["cache"], sweep["extract"]["cache"]);
    let [mut swept, mut trained] =
        [&sweep["sweep"]["run"], &alone["train"]["run"]].map(|run| outputs(&workshop, run));
    // The card of a winner tells of its sweep.
    let card = trained.remove("model_card.md").unwrap();
    let cards = [card, swept["model_card.md"].clone()];
    for card in cards.map(|card| String::from_utf8(card).unwrap()) {
        assert!(card.contains("`b` (a local folder; BLAKE3"), "{card}");
    }
    swept.retain(|name, _| trained.contains_key(name));
    assert_same_files(&trained, &swept);
}

#[test]
fn settings_name_a_model_of_their_own_and_its_layers() {
    let given = "[[sweep.settings]]\nmodel.path = \"models/b\"\nlayer = 3\n\
                 [[sweep.settings]]\nkind = \"ridge\"\n";
    let workshop = workshop(given);
    let report = workshop.json(&RUN);
    let settings = report["sweep"]["leaderboard"].as_array().unwrap().iter();
    let settings: Vec<&Value> = settings.map(|row| &row["settings"]).collect();
    for expected in [json!({ "layer": 3, "model.path": "models/b" }), json!({ "kind": "ridge" })] {
        assert!(settings.contains(&&expected), "{expected} in {settings:?}");
    }
    let is_stored = |model: &str, layer: usize| {
        let cache = report["extract"]["models"][model]["cache"].as_str().unwrap();
        let state = format!("shard-000000/mean-L{layer:02}.parquet");
        workshop.path(cache).join(state).is_file()
    };
    assert_eq!([1, 2, 3].map(|layer| is_stored("models/a", layer)), [false, true, false]);
    assert_eq!([1, 2, 3].map(|layer| is_stored("models/b", layer)), [false, false, true]);
}

#[test]
fn a_dry_run_tells_what_each_model_would_take() {
    let workshop = workshop(BOTH);
    let report = workshop.json(&["run", PIPELINE, "--dry-run"]);
    for model in ["models/a", "models/b"] {
        assert_eq!(report["extract"]["models"][model]["computed"], json!(TINY_ROWS), "{report}");
    }
    assert_eq!(report["tasks"][0]["heads"], json!(24));
    assert!(!workshop.path("cache").exists() && !workshop.path("runs").exists());
    for arguments in [&["extract", PIPELINE, "--dry-run"][..], &["extract", PIPELINE][..]] {
        let page = workshop.succeed(arguments).stdout;
        assert!(page.contains("model       models/a\n") && page.contains("model       models/b\n"));
    }
    let report = workshop.json(&["sweep", PIPELINE, "--dry-run"]);
    assert_eq!(report["tasks"][0]["heads"], json!(24));
}

#[test]
fn what_is_wrong_with_a_model_is_said_before_anything_is_done() {
    let workshop = workshop(BOTH);
    for (sweep, expected) in [
        (
            "model.path = [\"models/a\", \"models/none\"]",
            &["models/none/config.json", "pipeline.toml names it in sweep.model.path"][..],
        ),
        ("model.path = [\"models/a\", \"./models/a\"]", &["are the same model"][..]),
        ("model.path = [\"models/a\", \"models/a\"]", &["names \"models/a\" twice"][..]),
        ("model.path = [\"models/a\", 3]", &["sweep.model.path is 3"][..]),
        ("model = [\"models/a\", \"models/b\"]", &["the key model.path"][..]),
        (
            "model.path = [\"models/a\", \"models/b\"]\nlayer = [3]",
            &["names layer 3, but the model has 2 (the model `models/a` of model.path)"][..],
        ),
    ] {
        write_sweep(&workshop, sweep);
        let error = workshop.fail(&RUN);
        for expected in expected {
            assert!(error.contains(expected), "{sweep}: {error}");
        }
        assert!(error.contains("hint: "), "{sweep}: {error}");
    }
    assert!(!workshop.path("cache").exists() && !workshop.path("runs").exists());
}

#[test]
fn models_are_set_on_the_command_line() {
    let workshop = workshop("folds = 2\nlr = [1e-2]");
    let models = "sweep.model.path=[\"models/a\", \"models/b\"]";
    let report = workshop.json(&["run", PIPELINE, "--set", models]);
    assert_eq!(report["sweep"]["leaderboard"].as_array().unwrap().len(), 2);
}

#[test]
fn a_sweep_over_models_that_have_moved_gives_the_same_bytes() {
    let project = workshop(BOTH);
    project.succeed(&RUN);
    let elsewhere = Workshop::empty();
    copy_folder(&project.path("runs/tiny/001"), &elsewhere.path("kept"));
    copy_folder(&project.path("models/a"), &elsewhere.path("new/a"));
    copy_folder(&project.path("models/b"), &elsewhere.path("other"));
    fs::copy(project.path("train.csv"), elsewhere.path("train.csv")).unwrap();
    let replay = ["run", "--locked", "kept/lock.json"];
    let moved = ["--moved", "models/a=new/a", "--moved", "models/b=other"];
    let report = elsewhere.json(&[&replay[..], &moved].concat());
    let same = report["replay"]["same"].as_array().unwrap();
    assert!(same.contains(&json!("leaderboard.csv")), "{same:?}");
    // What was made elsewhere is a run like any other.
    let run = report["sweep"]["run"].as_str().unwrap();
    elsewhere.succeed(&["predict", run, "--text", "a very cold film"]);
    elsewhere.json(&["run", "--locked", run]);

    let error = elsewhere.fail(&[&replay[..], &["--model", "other"]].concat());
    assert!(error.contains("a folder for each of its 2 models"), "{error}");
    // A model that is another one is named.
    copy_folder(&project.path("models/a"), &elsewhere.path("same"));
    let wrong = ["--moved", "models/a=new/a", "--moved", "models/b=same"];
    let error = elsewhere.fail(&[&replay[..], &wrong].concat());
    assert!(error.contains("same/model.safetensors: expected"), "{error}");
}

#[test]
fn a_killed_sweep_over_models_goes_on_and_ends_in_the_same_bytes() {
    let workshop = workshop(
        "model.path = [\"models/a\", \"models/b\"]\nfolds = 3\nseeds = 4\nepochs = [20, 30]\ntrials = 60\n\
         lr = { min = 1e-4, max = 1e-1, log = true }\npooling = [\"cls\", \"mean\", \"max\"]",
    );
    workshop.succeed(&["extract", PIPELINE]);
    kill_at(&workshop, "runs/tiny/001/unfinished/00000.json.gz");
    let run = workshop.path("runs/tiny/001");
    assert!(!run.join("lock.json").exists(), "killed in time");
    let resumed = workshop.succeed(&["sweep", PIPELINE]);
    for line in ["resuming the unfinished sweep", "heads were trained before"] {
        assert!(resumed.stderr.contains(line), "{}", resumed.stderr);
    }
    workshop.succeed(&["sweep", PIPELINE]);
    assert_same_run(&run, &workshop.path("runs/tiny/002"));
}

#[test]
fn halving_and_nested_folds_choose_among_models() {
    let workshop = workshop(BOTH);
    workshop.succeed(&["extract", PIPELINE]);
    for set in ["sweep.search=halving", "sweep.nested=2"] {
        let report = workshop.json(&["sweep", PIPELINE, "--set", set]);
        assert_eq!(report["leaderboard"].as_array().unwrap().len(), 8, "{set}");
        let nested = report["nested"]["folds"].as_array().into_iter().flatten();
        for fold in nested {
            assert!(fold["settings"]["model.path"].is_string(), "{fold}");
        }
    }
}

/// The tokenizer of one of the models makes many more tokens of a text: other answers and words are cut off.
#[test]
fn heads_are_compared_on_the_same_rows_whatever_each_tokenizer_cuts_off() {
    for (task, data, cache, settings) in [
        (
            "qa",
            Data::Questions,
            "max_length = 48\noverflow = \"truncate\"",
            "[train]\nepochs = 2\n[sweep]\nmodel.path = [\"MODEL\", \"models/roberta\"]\nfolds = 2\n",
        ),
        (
            "tokens",
            Data::Iob2,
            "max_length = 12",
            "[train]\nepochs = 2\n[sweep]\nmodel.path = [\"MODEL\", \"models/roberta\"]\nfolds = 2\n",
        ),
    ] {
        let workshop = Case { task, data, cache, settings }.workshop();
        copy_folder(&fixture("families/roberta"), &workshop.path("models/roberta"));
        let report = workshop.json(&RUN);
        let truncated: Vec<&Value> =
            report["extract"]["models"].as_object().unwrap().values().collect();
        assert_ne!(truncated[0]["truncated"], truncated[1]["truncated"], "{task}");
        let sweep = &report["sweep"];
        let board = sweep["leaderboard"].as_array().unwrap();
        assert!(board.len() == 2 && board[1]["p_value"].is_f64(), "{task}: {board:?}");
        let run = sweep["run"].as_str().unwrap();
        workshop.json(&["run", "--locked", run]);
    }
}

#[test]
fn of_several_tasks_only_those_that_compare_models_need_all_of_them() {
    let workshop = Workshop::tiny();
    with_models(&workshop);
    let top = "name = \"tiny\"\n[model]\npath = \"models/a\"\ndevice = \"cpu\"\n[cache]\nmax_length = 32\n";
    workshop.write("few.csv", csv(&texts(TINY_ROWS + 30)[TINY_ROWS..], TINY_ROWS));
    workshop.write(
        PIPELINE,
        format!(
            "{top}[tasks.swept.data]\ntrain = {{ path = \"train.csv\" }}\n[tasks.swept.train]\nepochs = 2\n\
             [tasks.swept.sweep]\nmodel.path = [\"models/a\", \"models/b\"]\n\
             [tasks.plain.data]\ntrain = {{ path = \"few.csv\" }}\n\
             [tasks.plain.train]\nepochs = 2\n"
        ),
    );
    let report = workshop.json(&RUN);
    let documents = |model: &str| &report["extract"]["models"][model]["documents"];
    assert_eq!(*documents("models/a"), json!(TINY_ROWS + 30));
    assert_eq!(*documents("models/b"), json!(TINY_ROWS));
    let tasks = &report["train"]["tasks"];
    assert_eq!(tasks["swept"]["leaderboard"].as_array().unwrap().len(), 2);
    let lock = read_json(&workshop.path("runs/tiny/001/plain/lock.json"));
    assert!(lock["models"].is_null() && lock["pipeline"]["model"]["path"] == json!("models/a"));
    workshop.json(&["run", "--locked", "runs/tiny/001/swept/lock.json"]);
}

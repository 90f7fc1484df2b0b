//! Runs and their replays: the same bytes, or an error about what differs. Also heads applied to other texts.

use std::{collections::HashMap, fs, path::PathBuf};

use parquet::{file::reader::SerializedFileReader, record::Field};
use serde_json::{Value, json};

use crate::support::{
    Workshop, assert_same_files, contents, csv, fixture, label, read_json, texts,
};

const RUN: [&str; 2] = ["run", "pipeline.toml"];

/// The files that a replay must reproduce.
const REPRODUCED: [&str; 4] =
    ["head.json", "head.safetensors", "metrics.json", "predictions.parquet"];

/// Returns the files of a run folder that a replay must reproduce.
fn reproduced(workshop: &Workshop, run: &Value) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut files = contents(&workshop.path(run.as_str().unwrap()));
    files.retain(|name, _| REPRODUCED.contains(&name.as_str()));
    assert_eq!(files.len(), REPRODUCED.len());
    files
}

#[test]
fn a_replay_gives_the_same_bytes_for_any_number_of_threads() {
    let workshop = Workshop::with_test_file();
    let first = workshop.json(&RUN)["train"]["run"].clone();
    assert_eq!(first, json!("runs/tiny/001"));
    let expected = reproduced(&workshop, &first);
    for threads in ["1", "2", "4"] {
        let arguments = ["run", "--locked", "runs/tiny/001/lock.json", "--threads", threads];
        let again = workshop.json(&arguments)["train"]["run"].clone();
        assert_ne!(again, first, "a run folder is never written to again");
        assert_same_files(&expected, &reproduced(&workshop, &again));
    }
    let ran = workshop.succeed(&["run", "--locked", "runs/tiny/001/lock.json"]);
    let last = ran.stdout.lines().last().unwrap();
    assert!(last.contains("the same bytes as runs/tiny/001/lock.json"), "{}", ran.stdout);
}

#[test]
fn a_replay_without_the_cache_extracts_again_and_gives_the_same_bytes() {
    let workshop = Workshop::with_test_file();
    workshop.json(&RUN);
    fs::remove_dir_all(workshop.path("cache")).unwrap();
    workshop.json(&["run", "--locked", "runs/tiny/001/lock.json"]);
}

#[test]
fn a_replay_is_of_the_run_and_not_of_the_pipeline_file() {
    let workshop = Workshop::with_test_file();
    workshop.json(&[
        "run",
        "pipeline.toml",
        "--set",
        "train.lr=0.02",
        "--set",
        "seed=7",
        "--set",
        "head.pooling=max",
    ]);
    let lock = read_json(&workshop.path("runs/tiny/001/lock.json"));
    assert_eq!((&lock["seed"], &lock["pipeline"]["train"]["lr"]), (&json!(7), &json!(0.02)));
    fs::remove_file(workshop.path("pipeline.toml")).unwrap();
    workshop.json(&["run", "--locked", "runs/tiny/001/lock.json"]);
}

#[test]
fn a_cache_that_has_grown_changes_no_replay() {
    let workshop = Workshop::with_test_file();
    workshop.json(&RUN);
    workshop.write("more.csv", csv(&texts(300)[180..], 180));
    workshop.json(&["extract", "pipeline.toml", "--set", "data.train={ path = \"more.csv\" }"]);
    let report = workshop.json(&["run", "--locked", "runs/tiny/001/lock.json"]);
    assert_eq!(report["extract"]["computed"], json!(0));
}

#[test]
fn a_changed_data_file_is_named_before_anything_runs() {
    let workshop = Workshop::with_test_file();
    workshop.json(&RUN);
    let replay = ["run", "--locked", "runs/tiny/001/lock.json"];
    workshop.write("test.csv", csv(&texts(181)[120..], 120));
    insta::assert_snapshot!(workshop.fail(&replay));
    fs::remove_file(workshop.path("train.csv")).unwrap();
    insta::assert_snapshot!("a_data_file_that_is_gone", workshop.fail(&replay));
    assert!(!workshop.path("runs/tiny/002").exists());
}

#[test]
fn a_changed_model_is_named_before_anything_runs() {
    let workshop = Workshop::with_test_file();
    let model = workshop.copy_model("model");
    workshop.json(&["run", "pipeline.toml", "--set", "model.path=model"]);
    for file in ["config.json", "model.safetensors"] {
        fs::copy(fixture("tiny_bert_gamma_beta").join(file), model.join(file)).unwrap();
    }
    insta::assert_snapshot!(workshop.fail(&["run", "--locked", "runs/tiny/001/lock.json"]));
    insta::assert_snapshot!(
        "predicting_with_a_changed_model",
        workshop.fail(&["predict", "runs/tiny", "--text", "a"])
    );
    assert!(!workshop.path("runs/tiny/002").exists());
}

#[test]
fn other_bytes_than_the_lock_says_are_an_error_that_names_them() {
    let workshop = Workshop::with_test_file();
    workshop.json(&RUN);
    let path = workshop.path("runs/tiny/001/lock.json");
    let lock = read_json(&path);
    let damaged = |change: &dyn Fn(&mut Value)| {
        let mut lock = lock.clone();
        change(&mut lock);
        fs::write(&path, lock.to_string()).unwrap();
        workshop.fail(&["run", "--locked", "runs/tiny/001/lock.json"])
    };
    let zeros = json!("0".repeat(64));
    let one_output = damaged(&|lock| lock["outputs"]["metrics.json"] = zeros.clone());
    insta::assert_snapshot!("another_digest_of_the_metrics", one_output);
    for (what, pointer) in [
        ("head.safetensors", "/outputs/head.safetensors"),
        ("predictions.parquet", "/outputs/predictions.parquet"),
        ("rows of the cache", "/cache/rows"),
        ("split", "/split/rows"),
    ] {
        let stderr = damaged(&|lock| *lock.pointer_mut(pointer).unwrap() = zeros.clone());
        assert!(stderr.contains(&format!("{what}: expected ")), "{stderr}");
    }
    let other_program = damaged(&|lock| lock["frostbert"] = json!("0.0.1"));
    insta::assert_snapshot!("another_version_of_the_program", other_program);
    fs::write(&path, "{}").unwrap();
    let no_lock = workshop.fail(&["run", "--locked", "runs/tiny/001/lock.json"]);
    insta::assert_snapshot!("a_file_that_is_no_lock", no_lock);
}

/// Returns the rows of predictions.parquet by their text.
fn predictions(run: PathBuf) -> HashMap<String, HashMap<String, Field>> {
    let file = fs::File::open(run.join("predictions.parquet")).unwrap();
    let reader = SerializedFileReader::new(file).unwrap();
    let rows = reader.into_iter().map(|row| row.unwrap().into_columns().into_iter().collect());
    rows.map(|row: HashMap<String, Field>| {
        (row["text"].to_string().trim_matches('"').to_string(), row)
    })
    .collect()
}

fn float(field: &Field) -> f64 {
    let Field::Float(value) = field else { panic!("{field:?}") };
    f64::from(*value)
}

#[test]
fn predictions_for_a_text_equal_those_that_the_run_wrote() {
    assert_predicts_as_the_run(&RUN);
}

#[test]
fn predictions_for_a_text_in_windows_equal_those_that_the_run_wrote() {
    let windows = ["cache.max_length=10", "cache.overflow=windows", "head.pooling=max"];
    let settings = windows.iter().flat_map(|setting| ["--set", setting]);
    assert_predicts_as_the_run(&RUN.into_iter().chain(settings).collect::<Vec<_>>());
}

fn assert_predicts_as_the_run(run: &[&str]) {
    let workshop = Workshop::with_test_file();
    workshop.json(run);
    let written = predictions(workshop.path("runs/tiny/001"));
    assert_eq!(written.len(), 180);
    let all = texts(180);
    workshop.write("texts.txt", all.join("\n"));
    let from_file = workshop.succeed(&["predict", "runs/tiny", "texts.txt", "--json"]).stdout;
    let one_by_one = workshop
        .succeed(&["predict", "runs/tiny/001", "--text", &all[3], "--text", &all[150], "--json"])
        .stdout;
    let lines: Vec<Value> =
        from_file.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|line| line["text"].as_str().unwrap()).collect::<Vec<_>>(), all);
    let others = one_by_one.lines().map(|line| serde_json::from_str(line).unwrap());
    for line in lines.iter().cloned().chain(others) {
        assert!(line["text"].is_string() && line["label"].is_string(), "{line}");
        let row = &written[line["text"].as_str().unwrap()];
        assert_eq!(line["label"].to_string(), row["predicted"].to_string(), "{line}");
        // It was in a batch with other texts, so the stored f16 states may differ by one unit in the last place.
        let near =
            |value: &Value, field: &Field| (value.as_f64().unwrap() - float(field)).abs() < 1e-3;
        assert!(near(&line["confidence"], &row["confidence"]), "{line} is not {row:?}");
        let probabilities = line["probabilities"].as_object().unwrap();
        assert_eq!(probabilities.keys().collect::<Vec<_>>(), ["cold", "plain", "warm"]);
        for (name, probability) in probabilities {
            assert!(near(probability, &row[&format!("p_{name}")]), "{line} is not {row:?}");
        }
        let sum: f64 = probabilities.values().map(|value| value.as_f64().unwrap()).sum();
        assert!(
            (sum - 1.0).abs() < 1e-5
                && line["confidence"] == probabilities[line["label"].as_str().unwrap()]
        );
    }
    let accuracy =
        (120..180).filter(|number| lines[*number]["label"] == json!(label(*number))).count() as f64
            / 60.0;
    let metrics = read_json(&workshop.path("runs/tiny/001/metrics.json"));
    assert!((metrics["test"]["accuracy"].as_f64().unwrap() - accuracy).abs() < 1e-9);
}

#[test]
fn texts_are_predicted_from_stdin_and_from_labelled_files_alike() {
    let workshop = Workshop::with_test_file();
    workshop.json(&RUN);
    let from_csv = workshop.succeed(&["predict", "runs/tiny", "test.csv", "--json"]).stdout;
    let mut command =
        assert_cmd::Command::from_std(workshop.command(&["predict", "runs/tiny", "-", "--json"]));
    let output = command.write_stdin(texts(180)[120..].join("\n")).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), from_csv);
}

#[test]
fn evaluating_the_test_file_gives_the_metrics_of_the_run() {
    let workshop = Workshop::with_test_file();
    let test = workshop.json(&RUN)["train"]["metrics"]["test"].clone();
    for run in ["runs/tiny", "runs/tiny/001"] {
        let report = workshop.json(&["evaluate", run, "--data", "test.csv"]);
        assert_eq!(report["metrics"], test);
    }
    // The same holds if the states must be computed again.
    fs::remove_dir_all(workshop.path("cache")).unwrap();
    let accuracy =
        workshop.json(&["evaluate", "runs/tiny", "--data", "test.csv"])["metrics"]["accuracy"]
            .clone();
    assert_eq!(accuracy, test["accuracy"]);
}

#[test]
fn quiet_runs_say_nothing_and_results_go_to_stdout_alone() {
    let workshop = Workshop::with_test_file();
    let ran = workshop.succeed(&["run", "pipeline.toml", "--quiet"]);
    assert_eq!(ran.stderr, "");
    assert!(ran.stdout.contains("runs/tiny/001"), "{}", ran.stdout);
}

#[test]
fn a_constant_label_of_one_train_file_is_never_taken_for_anothers() {
    let workshop = Workshop::empty();
    let both = texts(120);
    workshop.write("warm.txt", both[..60].join("\n"));
    workshop.write("cold.txt", both[60..].join("\n"));
    workshop.write_pipeline(
        "name = \"tiny\"\n[model]\npath = \"MODEL\"\n[data]\ntrain = [\n\
         { path = \"warm.txt\", label = \"warm\" },\n{ path = \"cold.txt\", label = \"cold\" }]\n\
         [cache]\nmax_length = 32\n",
    );
    workshop.succeed(&["run", "pipeline.toml"]);
    for (file, label) in [("warm.txt", 1), ("cold.txt", 0)] {
        let report = workshop.json(&["evaluate", "runs/tiny", "--data", file]);
        let support = &report["metrics"]["per_class"][label]["support"];
        assert_eq!(support, 60, "{file} is read with its own label");
    }
    workshop.write("other.txt", "a text\n");
    let message = workshop.fail(&["evaluate", "runs/tiny", "--data", "other.txt"]);
    assert!(message.contains("other.txt"), "{message}");
    workshop.write("other.csv", "text,label\na text,cold\n");
    let report = workshop.json(&["evaluate", "runs/tiny", "--data", "other.csv"]);
    assert_eq!(report["metrics"]["n"], 1);
}

#[test]
fn given_test_rows_are_never_thinned() {
    let workshop = Workshop::with_test_file();
    workshop.write("test.csv", "text,label\nred,warm\n ,cold\nred,warm\n");
    let report = workshop.json(&["run", "pipeline.toml"]);
    assert_eq!(report["train"]["metrics"]["test"]["n"], 3);
    let report = workshop.json(&["evaluate", "runs/tiny", "--data", "test.csv"]);
    assert_eq!(report["metrics"]["n"], 3);
}

//! The output of `--json` and the files of a run: the names that scripts depend on.

use serde_json::{Value, json};

use crate::support::{Workshop, contents, fixture, minilm, read_json};

const RUN: [&str; 2] = ["run", "pipeline.toml"];

const METRICS: [&str; 9] = [
    "accuracy",
    "macro_f1",
    "micro_f1",
    "weighted_f1",
    "mcc",
    "roc_auc",
    "log_loss",
    "ece",
    "brier",
];

fn assert_fraction(value: &Value, what: &str) {
    let number = value.as_f64().unwrap_or_else(|| panic!("{what} is {value}"));
    assert!((-1.0..=1.0).contains(&number) || what.ends_with("log_loss"), "{what} is {number}");
}

fn assert_metrics(metrics: &Value, intervals: bool) {
    for name in METRICS {
        assert_fraction(&metrics[name], name);
        let interval = metrics[format!("{name}_ci")].as_array();
        assert_eq!(interval.is_some(), intervals, "{name}_ci");
        for end in interval.into_iter().flatten() {
            assert_fraction(end, name);
        }
    }
}

fn assert_text(value: &Value, keys: &[&str]) {
    keys.iter().for_each(|key| assert!(value[key].is_string(), "{key} in {value}"));
}

fn assert_counts(value: &Value, keys: &[&str]) {
    keys.iter().for_each(|key| assert!(value[key].is_u64(), "{key} in {value}"));
}

fn assert_numbers(value: &Value, keys: &[&str]) {
    keys.iter().for_each(|key| assert!(value[key].is_f64(), "{key} in {value}"));
}

fn assert_extract(report: &Value) {
    assert_text(report, &["cache", "fingerprint", "device", "precision"]);
    let counts = [
        "documents",
        "unique",
        "computed",
        "reused",
        "tokens",
        "truncated",
        "bytes_written",
        "peak_rss_bytes",
    ];
    assert_counts(report, &counts);
    assert_numbers(report, &["padding_efficiency", "seconds", "tokens_per_second"]);
    assert!(report["peak_rss_bytes"].as_u64() > Some(1 << 20), "{report}");
    let fingerprint = report["fingerprint"].as_str().unwrap();
    assert_eq!(report["cache"], json!(format!("cache/{fingerprint}")));
}

fn assert_train(report: &Value) {
    assert_text(report, &["run", "task"]);
    assert_numbers(report, &["seconds"]);
    assert_metrics(&report["metrics"]["train"], false);
    assert_metrics(&report["metrics"]["validation"], true);
    assert_metrics(&report["metrics"]["test"], true);
}

#[test]
fn extract_train_run_and_evaluate_print_the_names_of_the_contract() {
    let workshop = Workshop::with_test_file();
    assert_extract(&workshop.json(&["extract", "pipeline.toml"]));
    assert_train(&workshop.json(&["train", "pipeline.toml"]));
    let run = workshop.json(&RUN);
    assert_extract(&run["extract"]);
    assert_train(&run["train"]);
    assert_metrics(
        &workshop.json(&["evaluate", "runs/tiny", "--data", "test.csv"])["metrics"],
        true,
    );
}

#[test]
fn a_run_leaves_what_the_contract_names_and_nothing_empty() {
    let workshop = Workshop::with_test_file();
    let report = workshop.json(&RUN);
    let run = workshop.path(report["train"]["run"].as_str().unwrap());
    let files: Vec<String> = contents(&run).into_keys().collect();
    let expected = [
        ".eval_results/frostbert.yaml",
        "checks.json",
        "confusion.svg",
        "head.json",
        "head.safetensors",
        "history.csv",
        "history.svg",
        "lock.json",
        "metrics.json",
        "model_card.md",
        "precision_recall.svg",
        "predictions.parquet",
        "reliability.svg",
    ];
    assert_eq!(files, expected);
    let metrics = read_json(&run.join("metrics.json"));
    assert_eq!(metrics, report["train"]["metrics"]);
    let head = read_json(&run.join("head.json"));
    assert_eq!(head["labels"], json!(["cold", "plain", "warm"]));
    assert_eq!((&head["pooling"], &head["layers"]), (&json!("mean"), &json!([2])));
    assert!(head["temperature"].is_f64() && head["standardize"].is_boolean(), "{head}");
    let lock = read_json(&run.join("lock.json"));
    for key in [
        "pipeline",
        "data",
        "model",
        "cache",
        "labels",
        "split",
        "seed",
        "frostbert",
        "cpu",
        "device",
    ] {
        assert!(!lock[key].is_null(), "{key} in lock.json");
    }
    let rows: Vec<&Value> =
        lock["data"].as_array().unwrap().iter().map(|file| &file["rows"]).collect();
    assert_eq!(rows, [&json!(120), &json!(60)]);
}

#[test]
fn caches_are_listed_described_and_verified_by_the_names_of_the_contract() {
    let workshop = Workshop::tiny();
    workshop.json(&["extract", "pipeline.toml"]);
    let list = workshop.json(&["cache", "ls"]);
    let [cache] = &list["caches"].as_array().unwrap()[..] else { panic!("{list}") };
    assert_text(cache, &["fingerprint", "path"]);
    assert_counts(cache, &["documents", "tokens", "bytes"]);
    assert_eq!(workshop.json(&["cache", "ls", "cache"]), list);
    let path = cache["path"].as_str().unwrap();
    assert_eq!(workshop.json(&["cache", "info", path]), workshop.manifest());
    for folder in [path, "cache"] {
        let report = workshop.json(&["cache", "verify", folder]);
        assert_counts(&report, &["shards"]);
        assert_eq!(report["damaged"], json!([]));
    }
    assert_eq!(workshop.json(&["cache", "ls", "nowhere"])["caches"], json!([]));
}

#[test]
fn a_model_is_described_by_the_names_of_the_contract() {
    let workshop = Workshop::empty();
    let folder = minilm().display().to_string();
    let report = workshop.json(&["model", "info", &folder]);
    assert_text(&report, &["family"]);
    assert_counts(&report, &["layers", "hidden", "vocabulary", "parameters"]);
    assert_eq!(
        ["layers", "hidden", "vocabulary"].map(|key| report[key].as_u64().unwrap()),
        [6, 384, 30522],
        "{report}"
    );
    // The count of transformers for this checkpoint.
    assert_eq!(report["parameters"], json!(22_713_216));
    for head in report["heads"].as_array().unwrap() {
        assert_text(head, &["kind"]);
        assert_counts(head, &["trainable", "training_bytes"]);
    }
    assert_eq!(report["heads"][0]["trainable"], json!(2 * 384 + 2));
    assert_counts(&report["fine_tuning"], &["trainable", "training_bytes"]);
    assert_text(&report["graphs"], &["cpu", "cpu_int8", "cuda"]);
}

#[test]
fn tokens_are_shown_by_the_names_of_the_contract() {
    let workshop = Workshop::empty();
    let model = fixture("tiny_bert").display().to_string();
    for text in read_json(&fixture("tiny_bert/expected.json"))["texts"].as_array().unwrap() {
        if text["text_pair"].is_string() {
            continue;
        }
        let report = workshop.json(&[
            "tokenize",
            "--model",
            &model,
            "--text",
            text["text"].as_str().unwrap(),
        ]);
        for key in ["tokens", "ids", "offsets", "word_ids"] {
            assert_eq!(report[key], text[key], "{key} of {}", text["text"]);
        }
    }
}

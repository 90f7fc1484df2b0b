//! What a run leaves for people and for other programs: pictures, a card, names in its metrics, event files, and arrays for
//! Datalab. Other programs read them in `scripts/check-cards.py`.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use regex::Regex;
use serde_json::{Value, json};

use crate::{
    cases::{Case, Data, outputs},
    support::{Ran, Workshop, assert_same_files, finish, label, read_json, repository, say, texts},
    sweep::{self, SWEEP},
};

const RUN: [&str; 2] = ["run", "pipeline.toml"];

const PICTURES: [&str; 4] =
    ["history.svg", "confusion.svg", "reliability.svg", "precision_recall.svg"];

fn read(workshop: &Workshop, name: &str) -> String {
    fs::read_to_string(workshop.path(name)).unwrap()
}

#[test]
fn metrics_name_the_class_of_every_number_of_a_class() {
    for (task, data) in
        [("classification", Data::Classes), ("multilabel", Data::Labels), ("tokens", Data::Iob2)]
    {
        let case = Case { task, data, cache: "max_length = 32", settings: "[train]\nepochs = 2" };
        let workshop = case.workshop();
        let report = workshop.json(&RUN);
        let labels = read_json(&workshop.path("runs/tiny/001/head.json"))["labels"].clone();
        for part in ["train", "validation", "test"] {
            let classes = report["train"]["metrics"][part]["per_class"].as_array().unwrap();
            let names: Vec<&Value> = classes.iter().map(|class| &class["name"]).collect();
            assert_eq!(json!(names), labels, "{task} {part}");
            assert!(classes.iter().enumerate().all(|(id, class)| class["label"] == id));
        }
    }
    let workshop = Workshop::with_test_file();
    workshop.json(&RUN);
    let report = workshop.json(&["evaluate", "runs/tiny", "--data", "test.csv"]);
    assert_eq!(report["metrics"]["per_class"][0]["name"], "cold");
}

#[test]
fn a_run_is_drawn_and_told_of_in_the_same_bytes_by_every_replay() {
    let workshop = Workshop::with_test_file();
    let report = workshop.json(&RUN);
    let metrics = &report["train"]["metrics"];
    for name in PICTURES {
        let svg = read(&workshop, &format!("runs/tiny/001/{name}"));
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"), "{name}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{name}");
    }
    let kept = format!("epoch {}, kept", metrics["best_epoch"]);
    assert!(read(&workshop, "runs/tiny/001/history.svg").contains(&kept), "{kept}");

    let card = read(&workshop, "runs/tiny/001/model_card.md");
    let accuracy = metrics["test"]["accuracy"].as_f64().unwrap();
    let sentence = format!("Of 60 texts of test, the head gets {:.1} % right", 100.0 * accuracy);
    let [low, high] = [0, 1].map(|end| metrics["test"]["accuracy_ci"][end].as_f64().unwrap());
    let row = format!("{accuracy:.3} [{low:.3}, {high:.3}] |");
    for expected in [
        sentence.as_str(),
        row.as_str(),
        "library_name: \"frostbert\"\n",
        "pipeline_tag: \"text-classification\"\n",
        "split: \"test\"\n",
        "It predicts 3 labels: cold, plain, warm.",
        "| `train.epochs` | `3` |",
        "| `train.csv` | 120 |",
    ] {
        assert!(card.contains(expected), "{expected} in\n{card}");
    }
    // The tiny model was never on the hub.
    assert!(!card.contains("base_model") && card.contains("(a local folder; BLAKE3"), "{card}");
    let results = read(&workshop, "runs/tiny/001/.eval_results/frostbert.yaml");
    assert!(results.contains(&format!("value: {accuracy}\n")), "{results}");
    for text in texts(180).iter().filter(|text| text.len() > 20) {
        assert!(!card.contains(text.as_str()) && !results.contains(text.as_str()), "{text}");
    }

    let again = workshop.json(&["run", "--locked", "runs/tiny/001/lock.json"]);
    assert_same_files(
        &outputs(&workshop, &report["train"]["run"]),
        &outputs(&workshop, &again["train"]["run"]),
    );
}

#[test]
fn names_of_classes_are_never_markup() {
    let workshop = Workshop::tiny();
    let name = |number: usize| match label(number) {
        "cold" => "<script>alert(1)</script>",
        "warm" => "a|b & 'c'",
        other => other,
    };
    let rows = texts(120).into_iter().enumerate();
    let rows = rows.map(|(number, text)| format!("{text},{}\n", name(number)));
    workshop.write("train.csv", "text,label\n".to_string() + &rows.collect::<String>());
    workshop.succeed(&RUN);
    for file in ["model_card.md", "confusion.svg", "precision_recall.svg"] {
        let content = read(&workshop, &format!("runs/tiny/001/{file}"));
        assert!(!content.contains("<script>") && content.contains("&lt;script"), "{file}");
    }
    let card = read(&workshop, "runs/tiny/001/model_card.md");
    assert!(card.contains("| a\\|b &amp; 'c' |"), "{card}");
}

#[test]
fn the_card_names_a_model_that_was_pulled_from_the_hub() {
    let workshop = Workshop::with_test_file();
    let model = workshop.copy_model("model");
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let source = json!({ "repository": "someone/tiny", "revision": commit, "files": {} });
    fs::write(model.join("source.json"), source.to_string()).unwrap();
    workshop.succeed(&["run", "pipeline.toml", "--set", "model.path=model"]);
    let card = read(&workshop, "runs/tiny/001/model_card.md");
    assert!(card.contains("base_model: \"someone/tiny\"\n"), "{card}");
    assert!(card.contains("`someone/tiny`, revision `0123456789ab`; its weights"), "{card}");
}

/// The event files below a folder, by the folder that each lies in, each as its bytes.
fn events(logs: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![logs.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.file_name().unwrap().to_str().unwrap();
            assert!(name.starts_with("events.out.tfevents."), "{name}");
            let place = folder.strip_prefix(logs).unwrap().display().to_string();
            assert!(files.insert(place, fs::read(&path).unwrap()).is_none(), "one of each run");
        }
    }
    files
}

fn count(bytes: &[u8], text: &str) -> usize {
    bytes.windows(text.len()).filter(|window| *window == text.as_bytes()).count()
}

#[test]
fn event_files_hold_every_epoch_of_a_run() {
    let workshop = Workshop::with_test_file();
    workshop.succeed(&["run", "pipeline.toml", "--tensorboard", "logs"]);
    workshop.succeed(&[
        "train",
        "pipeline.toml",
        "--tensorboard",
        "logs",
        "--set",
        "train.lr=0.01",
    ]);
    let files = events(&workshop.path("logs"));
    let places: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(places, ["tiny/001", "tiny/002"]);
    for (place, bytes) in &files {
        let history = read(&workshop, &format!("runs/{place}/history.csv"));
        let n_epochs = history.lines().count() - 1;
        for tag in ["loss/train", "loss/validation", "learning_rate", "validation/macro_f1"] {
            assert_eq!(count(bytes, tag), n_epochs, "{tag} of {place}");
        }
        assert_eq!(count(bytes, "test/accuracy"), 1);
        assert_eq!(count(bytes, "train.lr"), usize::from(place == "tiny/002"));
    }
    // The run folders are those of runs without it.
    workshop.succeed(&["train", "pipeline.toml"]);
    assert_same_files(
        &outputs(&workshop, &json!("runs/tiny/001")),
        &outputs(&workshop, &json!("runs/tiny/003")),
    );
    let replay = ["run", "--locked", "runs/tiny/001/lock.json", "--tensorboard", "logs"];
    assert_eq!(workshop.run(&replay).code, Some(2));
}

#[test]
fn every_trial_of_a_sweep_has_its_settings_and_its_score_in_event_files() {
    let workshop = sweep::workshop("lr = [1e-3, 1e-2]\npooling = [\"cls\", \"mean\"]");
    let report = workshop.json(&[SWEEP, &["--tensorboard", "logs"]].concat()[1..]);
    let files = events(&workshop.path("logs"));
    assert_eq!(files.len(), 1 + report["leaderboard"].as_array().unwrap().len());
    for (place, bytes) in &files {
        if place == "tiny/001" {
            assert!(count(bytes, "loss/train") > 0);
            continue;
        }
        assert!(place.starts_with("tiny/001/trial-000"), "{place}");
        assert_eq!(count(bytes, "validation/macro_f1_low"), 1, "{place}");
        assert_eq!(count(bytes, "pooling"), 1, "{place}");
    }
    let card = read(&workshop, "runs/tiny/001/model_card.md");
    assert!(card.contains("Its settings won a sweep"), "{card}");
}

/// The shape of an array of NumPy, and the bytes of its values.
fn npy(path: PathBuf) -> (Vec<usize>, Vec<u8>) {
    let bytes = fs::read(path).unwrap();
    assert!(bytes.starts_with(b"\x93NUMPY\x01\x00"));
    let end = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..end]).unwrap();
    let shape = Regex::new(r"'shape': \(([0-9, ]+)\)").unwrap();
    let shape = shape.captures(header).unwrap()[1].to_string();
    let sizes = shape.split(',').filter_map(|size| size.trim().parse().ok());
    (sizes.collect(), bytes[end..].to_vec())
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect()
}

#[test]
fn arrays_for_datalab_are_of_rows_that_heads_did_not_see() {
    let workshop = Workshop::with_test_file();
    // A class of two rows has no column.
    let rare = "the film is rare 1,rare\nthe film is rare 2,rare\n";
    workshop.write("train.csv", read(&workshop, "train.csv") + rare);
    workshop.succeed(&["run", "pipeline.toml"]);
    assert!(!workshop.path("runs/tiny/001/pred_probs.npy").exists());
    workshop.succeed(&["train", "pipeline.toml", "--datalab"]);
    let run = workshop.path("runs/tiny/002");
    let checks = read_json(&run.join("checks.json"))["label_errors"].clone();
    assert_eq!(checks["left_out"], json!(["rare"]));
    let n_rows = checks["judged"].as_u64().unwrap() as usize;
    let (shape, features) = npy(run.join("features.npy"));
    assert_eq!(shape, [n_rows, 32]);
    assert!(floats(&features).iter().all(|value| value.is_finite()));
    let (shape, labels) = npy(run.join("labels.npy"));
    assert_eq!(shape, [n_rows]);
    let labels: Vec<i64> =
        labels.as_chunks().0.iter().map(|eight| i64::from_le_bytes(*eight)).collect();
    let (shape, probabilities) = npy(run.join("pred_probs.npy"));
    assert_eq!(shape, [n_rows, 3]);
    let probabilities = floats(&probabilities);
    for row in probabilities.chunks(3) {
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{row:?}");
    }
    let rows = fs::read_to_string(run.join("datalab_rows.csv")).unwrap();
    let rows: Vec<Vec<&str>> = rows.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows[0], ["row", "part", "id", "key", "file", "line", "label"]);
    assert_eq!(rows.len(), 1 + n_rows);
    for (row, number) in rows[1..].iter().zip(&labels) {
        assert_eq!(row[6], ["cold", "plain", "warm"][*number as usize]);
        assert!(["train", "validation"].contains(&row[1]) && row[4] == "train.csv", "{row:?}");
        // A line of the file, whose first line names the columns.
        let line: usize = row[5].parse().unwrap();
        assert_eq!(row[6], label(line - 2), "{row:?}");
    }
}

#[test]
fn rows_for_datalab_are_of_the_part_that_they_were_split_into_also_after_a_refit() {
    let workshop = sweep::workshop("lr = [1e-3]\nfolds = 3");
    workshop.succeed(&["sweep", "pipeline.toml", "--datalab"]);
    let rows = read(&workshop, "runs/tiny/001/datalab_rows.csv");
    let of_part =
        |part: &str| rows.lines().filter(|line| line.split(',').nth(1) == Some(part)).count();
    // 70, 15 and 15 % of 120 rows.
    assert_eq!([of_part("train"), of_part("validation"), of_part("test")], [84, 18, 0], "{rows}");
}

#[test]
fn other_tasks_have_features_for_datalab_and_say_what_is_missing() {
    let case = Case {
        task: "multilabel",
        data: Data::Labels,
        cache: "max_length = 32",
        settings: "[train]\nepochs = 2",
    };
    let workshop = case.workshop();
    let ran = workshop.succeed(&["run", "pipeline.toml", "--datalab"]);
    let said = "Datalab gets no pred_probs.npy and no labels.npy: only tasks with one class per row are checked";
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
    let run = workshop.path("runs/tiny/001");
    let (shape, _) = npy(run.join("features.npy"));
    let split = read_json(&run.join("lock.json"))["split"].clone();
    let n_rows = split["train"].as_u64().unwrap() + split["validation"].as_u64().unwrap();
    assert_eq!(shape, [n_rows as usize, 32]);
    assert!(!run.join("pred_probs.npy").exists() && run.join("datalab_rows.csv").exists());
}

#[test]
fn the_hub_datalab_and_tensorboard_read_what_a_run_leaves() {
    let python = std::env::var_os("FROSTBERT_CARDS_PYTHON").filter(|python| !python.is_empty());
    let Some(python) = python else {
        return say(
            "skipped: FROSTBERT_CARDS_PYTHON names no Python with huggingface_hub, cleanlab and tensorboard",
        );
    };
    let workshop = sweep::workshop("lr = [1e-3, 1e-2]\npooling = [\"cls\", \"mean\"]");
    workshop.succeed(&["sweep", "pipeline.toml", "--tensorboard", "logs", "--datalab"]);
    let mut command = std::process::Command::new(python);
    command.current_dir(workshop.path("")).arg(repository().join("scripts/check-cards.py"));
    command.args(["runs/tiny/001", "--tensorboard", "logs"]);
    let Ran { code, stdout, stderr } = finish(command);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(stdout.contains("labels doubted") && stdout.contains("4 trials"), "{stdout}");
}

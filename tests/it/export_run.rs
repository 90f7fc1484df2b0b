//! `frostbert export`: every task and kind of head, checked by the program itself and, with the Python that
//! FROSTBERT_PYTHON names, by `scripts/check-onnx-export.py`.

use std::{fs, path::PathBuf, process::Command};

use serde_json::{Value, json};

use crate::{
    cases::{Case, Data, PIPELINE},
    support::{Ran, Workshop, finish, fixture, read_json, repository, say},
};

const SHORT: &str = "max_length = 32";

fn case(task: &'static str, data: Data, settings: &'static str) -> Case {
    let cache = if task == "qa" { "max_length = 24\nstride = 6" } else { SHORT };
    Case { task, data, cache, settings }
}

/// Returns the Python that FROSTBERT_PYTHON names, if it has what the script needs.
fn python() -> Option<PathBuf> {
    let named = std::env::var_os("FROSTBERT_PYTHON").filter(|python| !python.is_empty());
    let python = named.map(PathBuf::from).filter(|python| {
        let mut command = Command::new(python);
        command.args(["-c", "import onnxruntime, tokenizers, numpy"]);
        finish(command).code == Some(0)
    });
    if python.is_none() {
        say("skipped: FROSTBERT_PYTHON names no Python with onnxruntime, tokenizers and numpy");
    }
    python
}

/// Writes the contexts of the questions of a file, in order, for the script.
fn write_contexts(workshop: &Workshop, file: &str) {
    let squad = read_json(&workshop.path(file));
    let mut contexts = String::new();
    for paragraph in squad["data"][0]["paragraphs"].as_array().unwrap() {
        for _ in paragraph["qas"].as_array().unwrap() {
            contexts.push_str(&format!("{}\n", paragraph["context"]));
        }
    }
    workshop.write("contexts.jsonl", contexts);
}

/// Runs the exported file of a case in Python and compares it with the predictions for the test file.
fn check_in_python(workshop: &Workshop, case: &Case, folder: &str) {
    let Some(python) = python() else { return };
    let test = case.data.test_file();
    let ran = workshop.succeed(&["predict", "runs/tiny", test, "--json"]);
    workshop.write("predictions.jsonl", ran.stdout);
    let mut command = Command::new(python);
    command.current_dir(workshop.path("")).arg(repository().join("scripts/check-onnx-export.py"));
    command.args([folder, "predictions.jsonl"]);
    if case.task == "qa" {
        write_contexts(workshop, test);
        command.args(["--contexts", "contexts.jsonl"]);
    }
    let Ran { code, stdout, stderr } = finish(command);
    assert_eq!(code, Some(0), "{} {}: {stdout}{stderr}", case.task, case.settings);
}

/// Asserts that an export was checked on rows of the test part and agrees with `predict`.
fn assert_checked(exported: &Value, what: &str) {
    let check = &exported["check"];
    assert_eq!(check["part"], "test", "{what}: {check}");
    assert!(check["rows"].as_u64().unwrap() >= 5, "{what}: {check}");
    assert!(check["largest_difference"].as_f64().unwrap() <= 1e-5, "{what}: {check}");
    assert_eq!(check["by_label"], false, "{what}");
    assert!(check["judged"].is_u64(), "{what}: {check}");
    // What the contract promises on top.
    assert_eq!(exported["out"], exported["folder"], "{what}");
    assert!(exported["kind"].is_string(), "{what}: {exported}");
    assert_eq!(exported["checked_rows"], check["rows"], "{what}");
    assert_eq!(exported["largest_difference"], check["largest_difference"], "{what}");
}

/// Trains a case and exports it in every ONNX and safetensors form that it has.
fn export_all(case: &Case) {
    let workshop = case.workshop();
    workshop.succeed(&["run", PIPELINE]);
    let what = format!("{} {}", case.task, case.settings);
    // A head over layers that were trained with it is not written without them.
    let has_weights = !["cosine", "unfreeze"].iter().any(|word| case.settings.contains(word));
    let reads_states = has_weights && !case.settings.contains("matching");
    let kinds = [("onnx", true), ("onnx-head", reads_states), ("safetensors", has_weights)];
    for (kind, is_possible) in kinds {
        let arguments = ["export", "runs/tiny", "--to", kind, "--out", kind];
        if !is_possible {
            let message = workshop.fail(&arguments);
            assert!(message.contains(&format!("--to {kind}")), "{what}: {message}");
            assert!(!workshop.path(kind).exists(), "{what}");
            continue;
        }
        let exported = workshop.json(&arguments);
        assert_checked(&exported, &format!("{what}, {kind}"));
        assert_eq!((&exported["out"], &exported["kind"]), (&json!(kind), &json!(kind)), "{what}");
        let about = read_json(&workshop.path(kind).join("export.json"));
        assert_eq!(about["check"], exported["check"], "{what}");
        for file in exported["files"].as_array().unwrap() {
            let path = workshop.path(kind).join(file["name"].as_str().unwrap());
            assert_eq!(fs::metadata(path).unwrap().len(), file["bytes"].as_u64().unwrap());
        }
    }
    let has_transitions = workshop.path("onnx/transitions.npy").exists();
    assert_eq!(has_transitions, case.settings.contains("crf"), "{what}");
    check_in_python(&workshop, case, "onnx");
}

#[test]
fn heads_of_single_texts_compute_the_same_as_onnx() {
    for settings in [
        "[train]\nepochs = 3",
        "[head]\nkind = \"mlp\"\nhidden = [24, 24]\nskip = true\nlayer_norm = true\nlayers = [0, 2]\n[train]\nepochs = 3",
        "[head]\nkind = \"mlp\"\nhidden = [8]\nlayers = [0, 1]\npooling = \"attention\"\n[train]\nepochs = 2",
        "[head]\nkind = \"mlp\"\nhidden = [8]\npca = 8\npooling = \"max\"\n[train]\nepochs = 3",
        "[head]\nkind = \"ridge\"\nlambda = 10.0\npooling = \"cls\"",
    ] {
        export_all(&case("classification", Data::Classes, settings));
    }
    export_all(&case("multilabel", Data::Labels, "[train]\nepochs = 3"));
    export_all(&case("regression", Data::Values, "[train]\nepochs = 3"));
}

#[test]
fn heads_of_pairs_compute_the_same_as_onnx() {
    let layers = "[head]\nlayers = [1, 2]\n[train]\nepochs = 3";
    export_all(&case("classification", Data::PairClasses, layers));
    let joint = "pair = \"joint\"\n[train]\nepochs = 3";
    export_all(&case("classification", Data::PairClasses, joint));
    export_all(&case("similarity", Data::PairValues, "[head]\nkind = \"cosine\""));
}

#[test]
fn layers_that_were_trained_with_a_head_are_in_the_onnx_file() {
    for (task, data, settings) in [
        (
            "classification",
            Data::Classes,
            "[head]\npooling = \"mean\"\n[train]\nepochs = 2\nunfreeze = 1",
        ),
        (
            "classification",
            Data::Classes,
            "[head]\npooling = \"attention\"\n[train]\nepochs = 2\nunfreeze = 2",
        ),
        (
            "classification",
            Data::PairClasses,
            "[head]\npooling = \"cls\"\n[train]\nepochs = 2\nunfreeze = 1",
        ),
        ("tokens", Data::Iob2, "[head]\nkind = \"crf\"\n[train]\nepochs = 2\nunfreeze = 1"),
        ("tokens", Data::Iob2, "[train]\nepochs = 2\nunfreeze = \"all\""),
        ("qa", Data::Questions, "[head]\nkind = \"linear\"\n[train]\nepochs = 2\nunfreeze = 1"),
        ("qa", Data::Questions, "[head]\nkind = \"matching\"\n[train]\nepochs = 2\nunfreeze = 1"),
    ] {
        export_all(&case(task, data, settings));
    }
}

#[test]
fn heads_of_words_and_questions_compute_the_same_as_onnx() {
    for settings in ["[train]\nepochs = 3", "[head]\nkind = \"crf\"\n[train]\nepochs = 2"] {
        export_all(&case("tokens", Data::Iob2, settings));
    }
    for settings in [
        "[head]\nkind = \"linear\"\n[train]\nepochs = 3",
        "[head]\nkind = \"matching\"\nlayers = [0, 2]\n[train]\nepochs = 2",
    ] {
        export_all(&case("qa", Data::Questions, settings));
    }
}

#[test]
fn every_family_is_written_in_ordinary_operators() {
    for family in [
        "roberta",
        "mpnet",
        "distilbert",
        "electra",
        "modernbert",
        "albert",
        "deberta_v3",
        "deberta_v2",
        "deberta_v2_conv",
        "nomic_bert",
        "gte",
        "jina_v2",
    ] {
        let case = case("classification", Data::Classes, "[train]\nepochs = 2");
        let workshop = case.workshop();
        let own = fixture(&format!("families/{family}")).display().to_string();
        let toml = fs::read_to_string(workshop.path(PIPELINE)).unwrap();
        let tiny = fixture("tiny_bert").display().to_string();
        workshop.write(PIPELINE, toml.replace(&tiny, &own));
        workshop.succeed(&["run", PIPELINE]);
        let exported = workshop.json(&["export", "runs/tiny", "--to", "onnx", "--out", "onnx"]);
        assert_checked(&exported, family);
        let model = fs::read(workshop.path("onnx/model.onnx")).unwrap();
        let contrib = b"com.microsoft";
        assert!(!model.windows(contrib.len()).any(|bytes| bytes == contrib), "{family}");
        check_in_python(&workshop, &case, "onnx");
    }
}

#[test]
fn fused_and_quantised_files_and_other_layouts_are_written_when_they_are_asked_for() {
    let case = case("classification", Data::Classes, "[train]\nepochs = 20");
    let workshop = case.workshop();
    workshop.succeed(&["run", PIPELINE]);
    let export = |options: &[&str]| {
        workshop.json(&[&["export", "runs/tiny", "--to", "onnx"], options].concat())
    };
    let fused = export(&["--fused", "--out", "fused", "--layout", "hub"]);
    assert_checked(&fused, "fused");
    let model = fs::read(workshop.path("fused/onnx/model.onnx")).unwrap();
    let contrib = b"com.microsoft";
    assert!(model.windows(contrib.len()).any(|bytes| bytes == contrib));
    check_in_python(&workshop, &case, "fused");
    let int8 = export(&["--precision", "int8"]);
    let check = &int8["check"];
    assert_eq!((&check["by_label"], &check["quantized"]), (&json!(true), &json!(true)), "{int8}");
    // A label for each row, however often it was run.
    assert_eq!(check["judged"], check["rows"], "{int8}");
    assert_eq!(int8["folder"], "tiny-001-onnx");
    let config = read_json(&workshop.path("tiny-001-onnx/config.json"));
    assert_eq!(config["frostbert"]["task"], "classification");
    assert_eq!(config["problem_type"], "single_label_classification");
    let labels = config["id2label"].as_object().unwrap();
    let head = read_json(&workshop.path("runs/tiny/001/head.json"));
    assert_eq!(labels.len(), head["labels"].as_array().unwrap().len());
    assert_eq!(labels["0"], head["labels"][0]);

    // Where states were rounded to f16, labels must agree, and the difference is told.
    let toml = fs::read_to_string(workshop.path(PIPELINE)).unwrap();
    workshop.write(PIPELINE, toml.replace("dtype = \"f32\"", "dtype = \"f16\""));
    workshop.succeed(&["run", PIPELINE]);
    let rounded = export(&["--out", "rounded"]);
    let check = &rounded["check"];
    assert_eq!((&check["by_label"], &check["other_labels"]), (&json!(true), &json!(0)));
    assert!(check["largest_difference"].as_f64().unwrap() > 0.0, "{check}");
}

#[test]
fn an_export_that_fails_leaves_nothing_and_says_why() {
    let case = case("classification", Data::Classes, "[train]\nepochs = 2");
    let workshop = case.workshop();
    workshop.succeed(&["run", PIPELINE]);
    fs::create_dir(workshop.path("taken")).unwrap();
    workshop.write("taken/note.txt", "mine");
    let fails =
        |options: &[&str]| workshop.fail(&[&["export", "runs/tiny", "--out"], options].concat());
    let message = fails(&["taken", "--to", "safetensors"]);
    assert!(message.contains("`taken`, which exists"), "{message}");
    assert_eq!(fs::read(workshop.path("taken/note.txt")).unwrap(), b"mine");
    let message = fails(&["new", "--to", "safetensors", "--fused"]);
    assert!(message.contains("leave --fused out"), "{message}");
    fs::remove_file(workshop.path("test.csv")).unwrap();
    let message = fails(&["new", "--to", "safetensors"]);
    assert!(message.contains("test.csv"), "{message}");
    let names = fs::read_dir(workshop.path("")).unwrap();
    let names: Vec<String> =
        names.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    assert!(!names.iter().any(|name| name == "new" || name.contains("export")), "{names:?}");
}

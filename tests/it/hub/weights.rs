//! The weights that are pulled and verified are those that an extraction uses.

use std::{
    fs,
    path::{Path, PathBuf},
};

use insta::assert_snapshot;
use serde_json::json;

use super::{
    PULL, fail,
    server::{Hub, tiny_bert},
    succeed,
};
use crate::support::{Workshop, contents, fixture};

/// Copies a checkpoint of the families, without its expected states.
fn copy_of(workshop: &Workshop, family: &str) -> PathBuf {
    let folder = workshop.path(family);
    fs::create_dir(&folder).unwrap();
    for (name, bytes) in contents(&fixture("families").join(family)) {
        if !name.starts_with("expected.") {
            fs::write(folder.join(name), bytes).unwrap();
        }
    }
    folder
}

/// Returns the files in the folder that `verify` reports as damaged, and the number of files it checked. Asserts that
/// `extract` agrees.
fn verify(workshop: &Workshop, folder: &Path) -> (Vec<String>, u64) {
    let name = folder.file_name().unwrap().to_str().unwrap();
    let ran = workshop.run(&["model", "verify", name, "--json"]);
    let got: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let damaged = got["damaged"].as_array().unwrap().iter();
    let damaged: Vec<String> =
        damaged.map(|path| path.as_str().unwrap()[name.len() + 1..].into()).collect();
    assert_eq!(ran.code, Some(i32::from(!damaged.is_empty())));
    let extracted = workshop.run(&[
        "extract",
        "pipeline.toml",
        "--set",
        &format!("model.path={name}"),
        "--set",
        "cache.layers=[1]",
        "--set",
        "head.layers=[1]",
    ]);
    assert_eq!(extracted.has_failed(), ran.has_failed(), "{}", extracted.stderr);
    (damaged, got["files"].as_u64().unwrap())
}

fn damaged(names: &[&str], n_files: u64) -> (Vec<String>, u64) {
    (names.iter().map(|name| name.to_string()).collect(), n_files)
}

#[test]
fn a_model_onnx_needs_no_config() {
    let workshop = Workshop::tiny();
    let folder = copy_of(&workshop, "int8_onnx");
    assert_eq!(verify(&workshop, &folder), damaged(&[], 2));
    let graph = fs::read(folder.join("model.onnx")).unwrap();
    fs::write(folder.join("model.onnx"), &graph[..graph.len() / 2]).unwrap();
    assert_eq!(verify(&workshop, &folder), damaged(&["model.onnx"], 2));
    fs::write(folder.join("model.onnx"), graph).unwrap();
    fs::write(folder.join("config.json"), "{").unwrap();
    assert_eq!(verify(&workshop, &folder), damaged(&["config.json"], 3));
}

#[test]
fn the_external_data_of_a_model_onnx_must_be_there() {
    let workshop = Workshop::tiny();
    let folder = copy_of(&workshop, "deberta_onnx");
    fs::write(folder.join("config.json"), other_family()).unwrap();
    assert_eq!(verify(&workshop, &folder), damaged(&[], 4));
    // The safetensors of a family that our own graph does not support are never read.
    fs::write(folder.join("model.safetensors"), "half").unwrap();
    assert_eq!(verify(&workshop, &folder), damaged(&[], 4));
    fs::remove_file(folder.join("model.onnx_data")).unwrap();
    assert_eq!(verify(&workshop, &folder), damaged(&["model.onnx_data"], 4));
}

#[test]
fn a_model_onnx_in_its_own_folder_is_looked_at() {
    let workshop = Workshop::tiny();
    let folder = copy_of(&workshop, "deberta_onnx");
    fs::create_dir(folder.join("onnx")).unwrap();
    for name in ["model.onnx", "model.onnx_data"] {
        fs::rename(folder.join(name), folder.join("onnx").join(name)).unwrap();
    }
    assert_eq!(verify(&workshop, &folder), damaged(&[], 4));
    fs::remove_file(folder.join("onnx/model.onnx_data")).unwrap();
    let expected = damaged(&["onnx/model.onnx_data"], 4);
    assert_eq!(verify(&workshop, &folder), expected);
    fs::write(folder.join("onnx/model.onnx"), "").unwrap();
    assert_eq!(verify(&workshop, &folder), damaged(&["onnx/model.onnx"], 3));
}

#[test]
fn other_safetensors_are_no_weights() {
    let workshop = Workshop::tiny();
    let folder = workshop.copy_model("bert");
    fs::write(folder.join("adapter.safetensors"), "half").unwrap();
    assert_eq!(verify(&workshop, &folder), damaged(&[], 3));
    let weights = folder.join("model.safetensors");
    fs::rename(weights, folder.join("adapter.safetensors")).unwrap();
    assert_eq!(verify(&workshop, &folder), damaged(&["model.safetensors"], 3));
}

/// Returns a config.json of a family that our own graph does not support.
fn other_family() -> Vec<u8> {
    let config = fs::read_to_string(fixture("families/deberta_onnx/config.json")).unwrap();
    config.replace("\"deberta-v2\"", "\"roformer\"").into_bytes()
}

/// Returns the files of a repository with safetensors, of a family that our own graph does not support.
fn roformer() -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut files = tiny_bert();
    files.insert("config.json".into(), other_family());
    files
}

#[test]
fn weights_that_our_graph_cannot_run_are_passed_over_for_model_onnx() {
    let mut files = roformer();
    for name in ["model.onnx", "model.onnx_data"] {
        let bytes = fs::read(fixture("families/deberta_onnx").join(name)).unwrap();
        files.insert(format!("onnx/{name}"), bytes);
    }
    let tokenizer = fs::read(fixture("families/deberta_onnx/tokenizer.json")).unwrap();
    files.insert("tokenizer.json".into(), tokenizer);
    let (workshop, hub) = (Workshop::tiny(), Hub::of(files.clone()));
    let pulled = succeed(&workshop, &hub, &[&PULL[..], &["--to", "tiny"]].concat());
    assert_eq!(pulled["files"], json!(5));
    let asked = hub.asked();
    let safetensors = asked.iter().find(|one| one.path.contains("safetensors"));
    assert!(safetensors.is_none(), "{asked:?}");
    assert_eq!(verify(&workshop, &workshop.path("tiny")), damaged(&[], 5));

    // If our own graph supports the family, the safetensors are pulled.
    files.extend(tiny_bert());
    let (workshop, hub) = (Workshop::empty(), Hub::of(files));
    succeed(&workshop, &hub, &PULL);
    let mut got = contents(&workshop.path("models/tiny"));
    got.remove("source.json");
    assert_eq!(got, tiny_bert());
}

#[test]
fn a_repository_without_weights_that_can_be_run_is_refused_before_they_are_fetched() {
    let (workshop, hub) = (Workshop::empty(), Hub::of(roformer()));
    assert_snapshot!("no_weights_that_can_be_run", fail(&workshop, &hub, &PULL));
    let asked = hub.asked();
    assert_eq!(asked.len(), 2, "the list and config.json: {asked:?}");
    assert!(!workshop.path("models/tiny").exists());

    // An earlier pull is left unchanged.
    let hub = Hub::of(tiny_bert());
    succeed(&workshop, &hub, &PULL);
    let before = contents(&workshop.path("models/tiny"));
    fail(&workshop, &Hub::of(roformer()), &PULL);
    assert_eq!(contents(&workshop.path("models/tiny")), before);
}

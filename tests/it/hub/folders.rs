//! Repositories in the forms that are on the hub: sentence-transformers folders with their modules, weights in
//! PyTorch's own format, and tokenizers without a tokenizer.json.

use std::{collections::BTreeMap, fs};

use serde_json::{Value, json};

use super::{
    PULL, fail, names,
    server::{Hub, OLD_COMMIT, tiny_bert},
    succeed,
};
use crate::support::{Workshop, contents};

type Files = BTreeMap<String, Vec<u8>>;

fn with(files: impl IntoIterator<Item = (&'static str, Value)>) -> Files {
    let files = files.into_iter();
    tiny_bert()
        .into_iter()
        .chain(files.map(|(name, value)| (name.to_string(), value.to_string().into_bytes())))
        .collect()
}

/// Returns modules.json with a module in each of these folders, after the encoder.
fn modules(folders: &[&str]) -> Value {
    let mut modules =
        vec![json!({ "idx": 0, "path": "", "type": "sentence_transformers.models.Transformer" })];
    for (place, folder) in folders.iter().enumerate() {
        let class = folder.rsplit('_').next().unwrap();
        let class = format!("sentence_transformers.models.{class}");
        modules.push(json!({ "idx": place + 1, "path": folder, "type": class }));
    }
    modules.into()
}

/// Pulls these files from a repository that holds others besides, which must stay there.
fn assert_pulled(wanted: &Files, others: &[&str]) {
    let (workshop, mut files) = (Workshop::empty(), wanted.clone());
    files.extend(others.iter().map(|name| (name.to_string(), b"not asked for".to_vec())));
    let hub = Hub::of(files);
    let pulled = succeed(&workshop, &hub, &PULL);
    assert_eq!(pulled["files"], wanted.len());
    let folder = workshop.path("models/tiny");
    let mut got = contents(&folder);
    let source: Value = serde_json::from_slice(&got.remove("source.json").unwrap()).unwrap();
    assert_eq!(&got, wanted);
    let recorded: Vec<&String> = source["files"].as_object().unwrap().keys().collect();
    assert_eq!(recorded, wanted.keys().collect::<Vec<_>>());
    let asked = hub.asked();
    for other in others {
        let place = format!("/{other}");
        assert!(asked.iter().all(|one| !one.path.ends_with(&place)), "{other} was asked for");
    }
    // A second pull finds everything.
    assert_eq!(succeed(&workshop, &hub, &PULL)["bytes_fetched"], 0);
}

#[test]
fn a_sentence_transformers_repository_is_pulled_with_its_modules_and_nothing_else() {
    let mut wanted = with([
        ("modules.json", modules(&["1_Pooling", "2_Dense", "3_Normalize"])),
        ("config_sentence_transformers.json", json!({ "prompts": { "query": "q: " } })),
        ("sentence_bert_config.json", json!({ "max_seq_length": 16, "do_lower_case": false })),
        ("1_Pooling/config.json", json!({ "pooling_mode_mean_tokens": true })),
        ("2_Dense/config.json", json!({ "in_features": 32, "out_features": 8 })),
        ("special_tokens_map.json", json!({})),
    ]);
    wanted.insert("2_Dense/model.safetensors".into(), tiny_bert()["model.safetensors"].clone());
    let others = [
        ".gitattributes",
        "1_Pooling/README.md",
        "2_Dense/pytorch_model.bin",
        "4_Dense/config.json",
        "README.md",
        "merges.txt",
        "onnx/model.onnx",
        "onnx/sentence_bert_config.json",
        "openvino/openvino_model.xml",
        "pytorch_model.bin",
        "spm.model",
        "train_script.py",
        "vocab.json",
    ];
    assert_pulled(&wanted, &others);
}

#[test]
fn the_weights_of_a_module_come_in_pytorchs_format_where_there_is_no_other() {
    let mut wanted = with([
        ("modules.json", modules(&["1_Pooling", "2_Dense"])),
        ("1_Pooling/config.json", json!({})),
        ("2_Dense/config.json", json!({})),
    ]);
    wanted.insert("2_Dense/pytorch_model.bin".into(), vec![3; 500]);
    assert_pulled(&wanted, &["2_Dense/rust_model.ot", "tf_model.h5"]);
}

#[test]
fn weights_in_pytorchs_format_are_pulled_where_there_are_no_safetensors() {
    let mut wanted = tiny_bert();
    wanted.remove("model.safetensors");
    let without = wanted.clone();
    wanted.insert("pytorch_model.bin".into(), vec![0; 100]);
    assert_pulled(&wanted, &["flax_model.msgpack", "tf_model.h5", "training_args.bin"]);

    // In shards, which the index names.
    let mut wanted = without;
    for name in ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"] {
        wanted.insert(name.into(), name.as_bytes().to_vec());
    }
    let mut index = json!({ "weight_map": {
        "a": "pytorch_model-00001-of-00002.bin",
        "b": "pytorch_model-00002-of-00002.bin",
    } });
    wanted.insert("pytorch_model.bin.index.json".into(), index.to_string().into_bytes());
    assert_pulled(&wanted, &["pytorch_model-00003-of-00002.bin"]);

    for (name, words) in [
        ("none.bin", "the shard `none.bin`, which pytorch_model.bin.index.json names"),
        ("tokenizer.json", "`tokenizer.json`, which does not end with .bin"),
        ("../x.bin", "the path `../x.bin` for a file name"),
    ] {
        index["weight_map"]["b"] = json!(name);
        wanted.insert("pytorch_model.bin.index.json".into(), index.to_string().into_bytes());
        let stderr = fail(&Workshop::empty(), &Hub::of(wanted.clone()), &PULL);
        assert!(stderr.contains(words), "{stderr}");
    }
}

#[test]
fn safetensors_in_shards_come_before_one_file_in_pytorchs_format() {
    let mut wanted = tiny_bert();
    let weights = wanted.remove("model.safetensors").unwrap();
    wanted.insert("model-1-of-1.safetensors".into(), weights);
    let index = json!({ "weight_map": { "a": "model-1-of-1.safetensors" } });
    wanted.insert("model.safetensors.index.json".into(), index.to_string().into_bytes());
    assert_pulled(&wanted, &["pytorch_model.bin", "pytorch_model.bin.index.json"]);
}

#[test]
fn the_files_of_an_older_tokenizer_are_pulled_where_there_is_no_tokenizer_json() {
    for own in [
        &["vocab.txt"][..],
        &["spm.model", "added_tokens.json"],
        &["spiece.model"],
        &["sentencepiece.bpe.model"],
        &["vocab.json", "merges.txt"],
    ] {
        let mut wanted = with([("special_tokens_map.json", json!({}))]);
        wanted.remove("tokenizer.json");
        wanted.extend(own.iter().map(|name| (name.to_string(), b"pieces".to_vec())));
        assert_pulled(&wanted, &["tokenizer.model.old"]);
    }
    // Beside a tokenizer.json they would be read by nobody.
    assert_pulled(&tiny_bert(), &["spm.model", "merges.txt", "vocab.json", "added_tokens.json"]);
}

#[test]
fn a_module_that_would_lie_outside_the_folder_is_refused() {
    for path in ["../outside", "/outside", "1_Pooling/../../outside", ".git"] {
        let workshop = Workshop::empty();
        let modules = json!([{ "path": path, "type": "sentence_transformers.models.Pooling" }]);
        let mut files = with([("modules.json", modules)]);
        files.insert(format!("{path}/config.json"), b"{}".to_vec());
        let stderr = fail(&workshop, &Hub::of(files), &PULL);
        assert!(stderr.contains(&format!("`{path}` for a module's folder")), "{stderr}");
        assert!(!workshop.path("outside").exists() && !workshop.path("models/outside").exists());
    }
}

#[test]
fn what_a_new_commit_lacks_of_the_modules_is_removed() {
    let pooling = ("1_Pooling/config.json", json!({ "pooling_mode": "cls" }));
    let new = with([("modules.json", modules(&["1_Pooling"])), pooling.clone()]);
    let mut old = with([
        ("modules.json", modules(&["1_Pooling", "2_Dense"])),
        pooling,
        ("2_Dense/config.json", json!({ "in_features": 32 })),
    ]);
    old.insert("2_Dense/pytorch_model.bin".into(), vec![1; 10]);
    let (workshop, hub) = (Workshop::empty(), Hub::of(new.clone()));
    hub.add("v1", OLD_COMMIT, old.clone());
    succeed(&workshop, &hub, &["model", "pull", "hf:acme/tiny@v1"]);
    let folder = workshop.path("models/tiny");
    assert_eq!(names(&folder).len(), old.len() + 1);
    succeed(&workshop, &hub, &PULL);
    let mut got = contents(&folder);
    got.remove("source.json");
    assert_eq!(got, new);

    // Every file of a module is checked as the others are.
    fs::write(folder.join("1_Pooling/config.json"), "{}").unwrap();
    let ran = workshop.run(&["model", "verify", "models/tiny", "--json"]);
    let said: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(said["damaged"], json!(["models/tiny/1_Pooling/config.json"]));
    succeed(&workshop, &hub, &PULL);
    workshop.succeed(&["model", "verify", "models/tiny"]);
}

#[test]
fn a_pull_of_modules_that_broke_off_goes_on_and_leaves_no_part() {
    let mut files = with([
        ("modules.json", modules(&["1_Pooling", "2_Dense"])),
        ("1_Pooling/config.json", json!({})),
        ("2_Dense/config.json", json!({})),
    ]);
    files.insert("2_Dense/model.safetensors".into(), tiny_bert()["model.safetensors"].clone());
    let (workshop, hub) = (Workshop::empty(), Hub::of(files.clone()));
    hub.break_off("2_Dense/model.safetensors", 20_000);
    fail(&workshop, &hub, &PULL);
    let folder = workshop.path("models/tiny");
    assert!(!folder.join("config.json").exists() && !folder.join("1_Pooling").exists());
    hub.forget();
    succeed(&workshop, &hub, &PULL);
    let ranges = hub.asked().into_iter().filter_map(|request| request.range);
    assert!(ranges.collect::<Vec<_>>().contains(&"bytes=20000-".to_string()));
    let mut got = contents(&folder);
    got.remove("source.json");
    assert_eq!(got, files);
}

#[test]
fn a_name_on_the_hub_without_its_scheme_gets_the_command_that_pulls_it() {
    let workshop = Workshop::tiny();
    let name = "sentence-transformers/all-mpnet-base-v2";
    let stderr =
        workshop.fail(&["extract", "pipeline.toml", "--set", &format!("model.path={name}")]);
    assert!(stderr.contains(&format!("run `frostbert model pull hf:{name}` once")), "{stderr}");
    assert!(stderr.contains("model.path = \"models/all-mpnet-base-v2\""), "{stderr}");
}

/// The files of a sentence-transformers repository in the layout with the encoder in a folder of its own.
fn in_old_layout() -> Files {
    let mut files: Files = tiny_bert()
        .into_iter()
        .map(|(name, bytes)| (format!("0_Transformer/{name}"), bytes))
        .collect();
    let mut listed = modules(&["1_Pooling"]);
    listed[0]["path"] = json!("0_Transformer");
    for (name, value) in [
        ("modules.json", listed),
        ("config_sentence_transformers.json", json!({ "prompts": { "query": "q: " } })),
        ("0_Transformer/sentence_bert_config.json", json!({ "max_seq_length": 16 })),
        ("0_Transformer/special_tokens_map.json", json!({})),
        ("1_Pooling/config.json", json!({ "pooling_mode_mean_tokens": true })),
    ] {
        files.insert(name.into(), value.to_string().into_bytes());
    }
    files
}

#[test]
fn a_repository_of_the_old_layout_is_pulled_with_its_folders_and_runs() {
    let others = ["README.md", "0_Transformer/pytorch_model.bin", "sentence_x_config.json"];
    assert_pulled(&in_old_layout(), &others);

    // The first versions wrote their own version to a config.json in the root.
    let mut files = in_old_layout();
    files.insert("config.json".into(), br#"{"__version__": "0.2.5"}"#.to_vec());
    let (workshop, hub) = (Workshop::tiny(), Hub::of(files));
    succeed(&workshop, &hub, &PULL);
    assert!(!workshop.path("models/tiny/config.json").exists());
    let info = workshop.json(&["model", "info", "models/tiny"]);
    assert_eq!(info["sentence_transformers"]["max_length"], json!(16));
    workshop.succeed(&["extract", "pipeline.toml", "--set", "model.path=models/tiny"]);
    workshop.succeed(&["model", "verify", "models/tiny"]);
}

#[test]
fn the_shards_of_the_old_layout_lie_beside_their_index() {
    let mut wanted = in_old_layout();
    wanted.remove("0_Transformer/model.safetensors");
    wanted.insert("0_Transformer/pytorch_model-1-of-1.bin".into(), vec![1; 100]);
    let index = json!({ "weight_map": { "a": "pytorch_model-1-of-1.bin" } });
    let name = "0_Transformer/pytorch_model.bin.index.json";
    wanted.insert(name.into(), index.to_string().into_bytes());
    assert_pulled(&wanted, &["pytorch_model-2-of-2.bin"]);
}

#[test]
fn a_new_commit_may_be_of_another_layout() {
    let new = with([
        ("modules.json", modules(&["1_Pooling"])),
        ("1_Pooling/config.json", json!({ "pooling_mode": "cls" })),
    ]);
    let (workshop, hub) = (Workshop::empty(), Hub::of(new.clone()));
    hub.add("v1", OLD_COMMIT, in_old_layout());
    let folder = workshop.path("models/tiny");
    for (name, files) in [
        ("hf:acme/tiny@v1", &in_old_layout()),
        (PULL[2], &new),
        ("hf:acme/tiny@v1", &in_old_layout()),
    ] {
        succeed(&workshop, &hub, &["model", "pull", name]);
        let mut got = contents(&folder);
        got.remove("source.json");
        assert_eq!(&got, files, "{name}");
    }

    // Without its config.json, a folder that broke off is no checkpoint.
    fs::remove_file(folder.join("0_Transformer/model.safetensors")).unwrap();
    fs::remove_file(folder.join("0_Transformer/config.json")).unwrap();
    hub.break_off("0_Transformer/model.safetensors", 20_000);
    fail(&workshop, &hub, &["model", "pull", "hf:acme/tiny@v1"]);
    assert!(!folder.join("0_Transformer/config.json").exists());
}

//! `model pull` and `model verify`, with a hub of our own on 127.0.0.1. No test opens a connection to another host.

mod folders;
mod server;
mod strangers;
mod weights;

use std::{fs, path::Path};

use insta::assert_snapshot;
use serde_json::json;
use server::{COMMIT, Hub, OLD_COMMIT, tiny_bert};

use crate::support::{Ran, Workshop, contents, finish, read_json};

const PULL: [&str; 3] = ["model", "pull", "hf:acme/tiny"];

/// Runs the program with this hub.
fn run(workshop: &Workshop, hub: &Hub, arguments: &[&str]) -> Ran {
    run_with(workshop, hub, arguments, &[])
}

fn run_with(workshop: &Workshop, hub: &Hub, arguments: &[&str], variables: &[(&str, &str)]) -> Ran {
    let mut command = workshop.command(arguments);
    // HOME may contain a token, which tests must not see.
    command.env("HOME", workshop.path("home"));
    command.env("HF_ENDPOINT", hub.address());
    command.envs(variables.iter().copied());
    finish(command)
}

fn succeed(workshop: &Workshop, hub: &Hub, arguments: &[&str]) -> serde_json::Value {
    let ran = run(workshop, hub, &[arguments, &["--json"]].concat());
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    serde_json::from_str(&ran.stdout).unwrap()
}

/// Runs the program, which must fail, and returns its stderr with the hub's address replaced.
fn fail(workshop: &Workshop, hub: &Hub, arguments: &[&str]) -> String {
    let ran = run(workshop, hub, arguments);
    assert!(ran.has_failed() && ran.stdout.is_empty(), "{}", ran.stderr);
    ran.stderr.replace(&hub.address(), "[hub]")
}

fn names(folder: &Path) -> Vec<String> {
    contents(folder).into_keys().collect()
}

#[test]
fn a_model_is_pulled_checked_and_used() {
    let (workshop, hub) = (Workshop::tiny(), Hub::of(tiny_bert()));
    let pulled = succeed(&workshop, &hub, &PULL);
    let bytes: usize = tiny_bert().values().map(Vec::len).sum();
    let expected = json!({
        "path": "models/tiny",
        "repository": "acme/tiny",
        "revision": COMMIT,
        "files": 4,
        "bytes_fetched": bytes,
    });
    assert_eq!(pulled, expected);
    let folder = workshop.path("models/tiny");
    let mut got = contents(&folder);
    let source = read_json(&folder.join("source.json"));
    got.remove("source.json");
    assert_eq!(got, tiny_bert());
    assert_snapshot!("source_of_a_pull", workshop.normalise(&format!("{source:#}")));
    // Only large files come from the other server, which is not sent the token.
    let asked = hub.asked();
    assert_eq!(asked.len(), 6, "{asked:?}");

    workshop.succeed(&["model", "info", "models/tiny"]);
    workshop.succeed(&["extract", "pipeline.toml", "--set", "model.path=models/tiny"]);
    let verified = workshop.succeed(&["model", "verify", "models/tiny"]);
    assert_snapshot!("verify_of_a_pull", verified.stdout);
}

#[test]
fn a_second_pull_of_the_same_commit_fetches_nothing_and_says_so() {
    let (workshop, hub) = (Workshop::empty(), Hub::of(tiny_bert()));
    succeed(&workshop, &hub, &PULL);
    let before = contents(&workshop.path("models"));
    hub.forget();
    let ran = run(&workshop, &hub, &PULL);
    assert_snapshot!(ran.stdout);
    assert_eq!(hub.asked().len(), 1, "{:?}", hub.asked());
    assert_eq!(contents(&workshop.path("models")), before);
}

#[test]
fn a_pull_that_broke_off_goes_on_where_it_was() {
    let (workshop, hub) = (Workshop::empty(), Hub::of(tiny_bert()));
    let size = tiny_bert()["model.safetensors"].len();
    hub.break_off("model.safetensors", 20_000);
    let stderr = fail(&workshop, &hub, &PULL);
    assert_snapshot!(stderr);
    let folder = workshop.path("models/tiny");
    assert!(!folder.join("model.safetensors").exists() && !folder.join("config.json").exists());
    let ran = workshop.run(&["model", "info", "models/tiny"]);
    assert!(ran.has_failed(), "half a model is none");

    hub.forget();
    let pulled = succeed(&workshop, &hub, &PULL);
    let ranges: Vec<String> = hub.asked().into_iter().filter_map(|request| request.range).collect();
    assert_eq!(
        ranges,
        ["bytes=20000-", "bytes=20000-"],
        "asked of the hub, and where it points to"
    );
    let all: usize = tiny_bert().values().map(Vec::len).sum();
    // config.json was fetched first.
    let rest = all - 20_000 - tiny_bert()["config.json"].len();
    assert_eq!(pulled["bytes_fetched"], rest);
    assert_eq!(fs::metadata(folder.join("model.safetensors")).unwrap().len(), size as u64);
    let with_source: Vec<String> = tiny_bert().into_keys().chain(["source.json".into()]).collect();
    assert_eq!(names(&folder).len(), with_source.len(), "{:?}", names(&folder));
}

#[test]
fn a_server_that_knows_no_ranges_sends_everything_again() {
    let (workshop, hub) = (Workshop::empty(), Hub::of(tiny_bert()));
    hub.break_off("model.safetensors", 20_000);
    fail(&workshop, &hub, &PULL);
    hub.without_ranges();
    let pulled = succeed(&workshop, &hub, &PULL);
    let bytes: usize = tiny_bert().values().map(Vec::len).sum();
    let config = tiny_bert()["config.json"].len();
    assert_eq!(pulled["bytes_fetched"], bytes - config);
}

#[test]
fn a_file_with_another_hash_is_refused_and_removed() {
    for file in ["model.safetensors", "config.json"] {
        let (workshop, hub) = (Workshop::empty(), Hub::of(tiny_bert()));
        hub.corrupt(file);
        let stderr = fail(&workshop, &hub, &PULL);
        let (expected, got) = hub.hashes(file);
        assert!(
            stderr.contains(file) && stderr.contains(&expected) && stderr.contains(&got),
            "{stderr}"
        );
        assert_snapshot!(
            format!("another_hash_of_{}", file.replace('.', "_")),
            workshop.normalise(&stderr)
        );
        let left = names(&workshop.path("models/tiny"));
        assert!(!left.iter().any(|name| name.starts_with(file)), "{left:?}");
        // Do what the hint says.
        hub.heal();
        succeed(&workshop, &hub, &PULL);
    }
}

#[test]
fn a_file_longer_than_announced_is_refused() {
    let (workshop, hub) = (Workshop::empty(), Hub::of(tiny_bert()));
    hub.lengthen("tokenizer.json");
    assert_snapshot!(fail(&workshop, &hub, &PULL));
    assert!(!workshop.path("models/tiny/config.json").exists());
}

#[test]
fn a_file_or_a_repository_that_is_not_there_is_named() {
    let (workshop, hub) = (Workshop::empty(), Hub::of(tiny_bert()));
    assert_snapshot!(
        "no_such_repository",
        fail(&workshop, &hub, &["model", "pull", "hf:acme/none"])
    );
    assert_snapshot!(
        "no_such_revision",
        fail(&workshop, &hub, &["model", "pull", "hf:acme/tiny@none"])
    );
    assert!(!workshop.path("models").exists());
    hub.lose("tokenizer.json");
    assert_snapshot!("a_listed_file_that_is_not_served", fail(&workshop, &hub, &PULL));
}

#[test]
fn a_repository_that_holds_no_usable_model_is_refused_with_the_cure() {
    for (name, lacks) in [
        ("no_weights", "model.safetensors"),
        ("no_tokenizer_json", "tokenizer.json"),
        ("no_config", "config.json"),
    ] {
        let mut files = tiny_bert();
        files.remove(lacks);
        let (workshop, hub) = (Workshop::empty(), Hub::of(files));
        assert_snapshot!(name, fail(&workshop, &hub, &PULL));
        assert!(!workshop.path("models/tiny").exists());
    }
}

#[test]
fn a_private_repository_needs_a_token_which_goes_to_the_hub_alone() {
    let (workshop, hub) = (Workshop::empty(), Hub::of(tiny_bert()));
    hub.require_token("hf_right");
    let stderr = fail(&workshop, &hub, &PULL);
    assert!(stderr.contains("HF_TOKEN"), "{stderr}");
    assert_snapshot!("without_a_token", stderr);
    let ran = run_with(&workshop, &hub, &PULL, &[("HF_TOKEN", "hf_wrong")]);
    assert!(ran.has_failed());
    assert!(!ran.stderr.contains("hf_wrong"), "a token is a secret");
    assert_snapshot!("with_the_wrong_token", ran.stderr);

    hub.forget();
    let ran = run_with(&workshop, &hub, &PULL, &[("HF_TOKEN", "hf_right")]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let (own, other): (Vec<_>, Vec<_>) = hub.asked().into_iter().partition(|request| request.own);
    assert!(own.iter().all(|request| request.authorization.as_deref() == Some("Bearer hf_right")));
    assert!(!other.is_empty() && other.iter().all(|request| request.authorization.is_none()));

    // The token file in HF_HOME and in its default location.
    for (file, variables) in [
        ("elsewhere", vec![("HF_HOME", workshop.path("elsewhere"))]),
        ("home/.cache/huggingface", vec![]),
    ] {
        fs::create_dir_all(workshop.path(file)).unwrap();
        workshop.write(&format!("{file}/token"), "hf_right\n");
        let variables: Vec<(&str, &str)> =
            variables.iter().map(|(name, path)| (*name, path.to_str().unwrap())).collect();
        let arguments = [&PULL[..], &["--to", file]].concat();
        let ran = run_with(&workshop, &hub, &arguments, &variables);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    }
}

#[test]
fn a_hub_that_is_down_is_named() {
    let (workshop, hub) = (Workshop::empty(), Hub::down());
    assert_snapshot!(fail(&workshop, &hub, &PULL));
    assert!(!workshop.path("models").exists());
}

#[test]
fn a_hub_in_trouble_is_said_to_be() {
    for status in [429, 503] {
        let (workshop, hub) = (Workshop::empty(), Hub::of(tiny_bert()));
        hub.answer_always(status);
        assert_snapshot!(format!("status_{status}"), fail(&workshop, &hub, &PULL));
    }
}

#[test]
fn a_revision_pins_the_files_and_another_one_replaces_them() {
    let (workshop, hub) = (Workshop::empty(), Hub::of(tiny_bert()));
    let mut old = tiny_bert();
    let longer = format!("{}\n", String::from_utf8(old["config.json"].clone()).unwrap());
    old.insert("config.json".into(), longer.clone().into_bytes());
    old.insert("vocab.txt".into(), b"[PAD]\n".to_vec());
    hub.add("release/v1", OLD_COMMIT, old);
    let pulled = succeed(&workshop, &hub, &["model", "pull", "hf:acme/tiny@release/v1"]);
    assert_eq!(pulled["revision"], OLD_COMMIT);
    let folder = workshop.path("models/tiny");
    assert_eq!(fs::read_to_string(folder.join("config.json")).unwrap(), longer);

    let pulled = succeed(&workshop, &hub, &PULL);
    assert_eq!(pulled["revision"], COMMIT);
    let config = &tiny_bert()["config.json"];
    assert_eq!(pulled["bytes_fetched"], config.len(), "what is the same is kept");
    let mut got = contents(&folder);
    got.remove("source.json");
    assert_eq!(got, tiny_bert(), "what the new commit lacks is gone");
    // A commit can be given as the revision.
    let pulled = succeed(&workshop, &hub, &["model", "pull", &format!("hf:acme/tiny@{COMMIT}")]);
    assert_eq!(pulled["bytes_fetched"], 0);
}

#[test]
fn weights_in_shards_are_pulled_with_their_index() {
    let mut files = tiny_bert();
    let weights = files.remove("model.safetensors").unwrap();
    files.insert("model-1-of-2.safetensors".into(), weights.clone());
    files.insert("model-2-of-2.safetensors".into(), weights);
    let index = json!({ "weight_map": { "a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors" } });
    files.insert("model.safetensors.index.json".into(), index.to_string().into_bytes());
    let (workshop, hub) = (Workshop::empty(), Hub::of(files.clone()));
    succeed(&workshop, &hub, &PULL);
    let mut got = contents(&workshop.path("models/tiny"));
    got.remove("source.json");
    assert_eq!(got, files);
    fs::remove_file(workshop.path("models/tiny/model-2-of-2.safetensors")).unwrap();
    let ran = workshop.run(&["model", "verify", "models/tiny", "--json"]);
    assert!(ran.has_failed());
    let expected = json!({ "files": 6, "damaged": ["models/tiny/model-2-of-2.safetensors"] });
    assert_eq!(serde_json::from_str::<serde_json::Value>(&ran.stdout).unwrap(), expected);

    let outside = json!({ "weight_map": { "a": "../../outside.safetensors" } });
    files.insert("model.safetensors.index.json".into(), outside.to_string().into_bytes());
    let (workshop, hub) = (Workshop::empty(), Hub::of(files));
    assert_snapshot!("a_shard_outside_the_folder", fail(&workshop, &hub, &PULL));
}

#[test]
fn an_onnx_file_is_pulled_with_its_external_data() {
    let mut files = tiny_bert();
    files.remove("model.safetensors");
    files.insert("onnx/model.onnx".into(), b"graph".to_vec());
    files.insert("onnx/model.onnx_data".into(), vec![7; 20_000]);
    let (workshop, hub) = (Workshop::empty(), Hub::of(files));
    succeed(&workshop, &hub, &PULL);
    let got = names(&workshop.path("models/tiny"));
    assert!(
        got.contains(&"model.onnx".into()) && got.contains(&"model.onnx_data".into()),
        "{got:?}"
    );
}

#[test]
fn a_folder_that_holds_something_else_is_left_alone() {
    let (workshop, hub) = (Workshop::empty(), Hub::of(tiny_bert()));
    fs::create_dir(workshop.path("models")).unwrap();
    let folder = workshop.copy_model("models/tiny");
    let before = contents(&folder);
    assert_snapshot!("files_of_one_s_own", fail(&workshop, &hub, &PULL));
    assert_eq!(contents(&folder), before);
    let to = ["model", "pull", "hf:acme/tiny", "--to", "here"];
    succeed(&workshop, &hub, &to);
    let lock = fs::File::open(workshop.path("here")).unwrap();
    lock.lock().unwrap();
    assert_snapshot!("a_folder_that_is_being_pulled_into", fail(&workshop, &hub, &to));
    drop(lock);
    hub.rename("acme/other");
    assert_snapshot!(
        "another_model",
        fail(&workshop, &hub, &["model", "pull", "hf:acme/other", "--to", "here"])
    );
}

#[test]
fn verify_names_every_damaged_file() {
    let (workshop, hub) = (Workshop::empty(), Hub::of(tiny_bert()));
    succeed(&workshop, &hub, &PULL);
    let folder = workshop.path("models/tiny");
    let mut weights = tiny_bert()["model.safetensors"].clone();
    let last = weights.len() - 1;
    weights[last] ^= 1;
    fs::write(folder.join("model.safetensors"), weights).unwrap();
    fs::write(folder.join("config.json"), "{}").unwrap();
    fs::remove_file(folder.join("tokenizer.json")).unwrap();
    let ran = workshop.run(&["model", "verify", "models/tiny"]);
    assert!(ran.has_failed());
    assert_snapshot!("verify_of_a_damaged_pull", workshop.normalise(&ran.stdout));
    // Another pull fetches the damaged file again.
    succeed(&workshop, &hub, &PULL);
    workshop.succeed(&["model", "verify", "models/tiny"]);
}

#[test]
fn verify_without_a_source_looks_into_the_files_and_shows_their_hashes() {
    let workshop = Workshop::empty();
    let folder = workshop.copy_model("model");
    let ran = workshop.succeed(&["model", "verify", "model"]);
    assert_snapshot!(workshop.normalise(&ran.stdout));
    let mut weights = fs::read(folder.join("model.safetensors")).unwrap();
    weights.truncate(30_000);
    fs::write(folder.join("model.safetensors"), weights).unwrap();
    fs::write(folder.join("config.json"), "{").unwrap();
    fs::write(folder.join("tokenizer.json"), "[]").unwrap();
    let ran = workshop.run(&["model", "verify", "model"]);
    assert!(ran.has_failed());
    assert_snapshot!("verify_of_damaged_files", ran.stdout);
    assert_snapshot!("verify_of_no_folder", workshop.fail(&["model", "verify", "nowhere"]));
}

#[test]
fn a_name_on_the_hub_is_no_path_and_nothing_is_fetched_unasked() {
    let (workshop, hub) = (Workshop::tiny(), Hub::of(tiny_bert()));
    for command in ["run", "extract", "train"] {
        let stderr = fail(
            &workshop,
            &hub,
            &[command, "pipeline.toml", "--set", "model.path=hf:acme/tiny@v1"],
        );
        assert_snapshot!("a_name_on_the_hub_as_model_path", stderr);
    }
    assert!(hub.asked().is_empty());
    let ran = run(&workshop, &hub, &["model", "pull", "acme/tiny"]);
    assert_eq!(ran.code, Some(2));
    assert_snapshot!("a_model_without_its_scheme", ran.stderr);
}

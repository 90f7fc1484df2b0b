//! Runs whose folder, model, data or cache have been moved, and what a lock says about where a run was made.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Map, Value, json};

use crate::support::{
    Workshop, assert_same_files, contents, copy_folder, csv, fixture, read_json, texts,
};

const REVISION: &str = "0123456789abcdef0123456789abcdef01234567";

/// Creates a project with its own model and only relative paths, and a run.
fn project() -> Workshop {
    let workshop = Workshop::with_test_file();
    let model = workshop.copy_model("model");
    let source = json!({ "repository": "someone/tiny", "revision": REVISION, "files": {} });
    fs::write(model.join("source.json"), source.to_string()).unwrap();
    workshop.json(&["run", "pipeline.toml", "--set", "model.path=model"]);
    workshop
}

fn copy_file(from: &Workshop, name: &str, to: &Workshop, new: &str) {
    let to = to.path(new);
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(from.path(name), to).unwrap();
}

/// Returns the files that a replay must reproduce.
fn reproduced(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = contents(run);
    let names = ["head.json", "head.safetensors", "metrics.json", "predictions.parquet"];
    files.retain(|name, _| names.contains(&name.as_str()));
    assert_eq!(files.len(), 4);
    files
}

#[test]
fn files_that_have_moved_are_named_one_by_one() {
    let project = project();
    let elsewhere = Workshop::empty();
    copy_folder(&project.path("runs/tiny/001"), &elsewhere.path("kept"));
    copy_folder(&project.path("model"), &elsewhere.path("models/other"));
    copy_file(&project, "train.csv", &elsewhere, "d/learned.csv");
    copy_file(&project, "test.csv", &elsewhere, "d/test.csv");

    let predict = ["predict", "kept", "--text", "the cold snow"];
    insta::assert_snapshot!("a_run_without_its_model", elsewhere.fail(&predict));
    let with_model = [&predict[..], &["--json", "--model", "models/other"]].concat();
    let answer = elsewhere.succeed(&with_model).stdout;
    let own = project.succeed(&["predict", "tiny", "--text", "the cold snow", "--json"]).stdout;
    assert_eq!(answer, own);
    let other = fixture("tiny_bert_gamma_beta").display().to_string();
    let said = elsewhere.fail(&[&predict[..], &["--model", &other]].concat());
    assert!(said.contains("expected the model"), "its hash is another: {said}");

    let lock = "kept/lock.json";
    let said = elsewhere.fail(&["run", "--locked", lock]);
    insta::assert_snapshot!("a_replay_without_its_files", said);
    let files = ["train.csv=d/learned.csv", "test.csv=d/test.csv", "model=models/other"];
    let moved: Vec<&str> = files.iter().flat_map(|file| ["--moved", file]).collect();
    let ran = elsewhere.succeed(&[&["run", "--locked", lock][..], &moved].concat());
    let last = ran.stdout.lines().last().unwrap();
    let expected = "replay      the same bytes as kept/lock.json: head.json, ";
    assert!(last.starts_with(expected), "{last}");
    assert_same_files(
        &reproduced(&project.path("runs/tiny/001")),
        &reproduced(&elsewhere.path("runs/tiny/001")),
    );
    // The new run can be used like any other.
    let again = elsewhere.json(&["run", "--locked", "tiny"]);
    assert_eq!(again["replay"]["lock"], "runs/tiny/001/lock.json");
    assert_eq!(again["replay"]["same"].as_array().unwrap().len(), 4);
    let report = elsewhere.json(&[
        "evaluate",
        "kept",
        "--data",
        "d/test.csv",
        "--moved",
        "model=models/other",
    ]);
    assert_eq!(
        report["metrics"]["accuracy"],
        read_json(&project.path("runs/tiny/001/metrics.json"))["test"]["accuracy"]
    );
}

#[test]
fn a_project_that_has_moved_as_a_whole_has_a_root() {
    let project = project();
    let elsewhere = Workshop::empty();
    copy_folder(&project.path("runs/tiny/001"), &elsewhere.path("kept"));
    let root = project.path("").display().to_string();
    let ran = elsewhere.succeed(&["predict", "kept", "--text", "a", "--root", &root]);
    assert!(!ran.stderr.contains("is not there"), "{}", ran.stderr);
    let report = elsewhere.json(&["run", "--locked", "kept/lock.json", "--root", &root]);
    assert_eq!(report["extract"]["computed"], json!(0), "the cache lies there too");
    assert_eq!(report["train"]["run"], json!(project.path("runs/tiny/002").display().to_string()));
}

#[test]
fn what_lies_beside_the_runs_is_found_by_its_hash() {
    let project = project();
    let elsewhere = Workshop::empty();
    copy_folder(&project.path(""), &elsewhere.path("project"));
    let ran = elsewhere.succeed(&["predict", "project/runs/tiny", "--text", "a"]);
    let said = elsewhere.normalise(&ran.stderr);
    let note =
        "note: model is not there: [dir]/project/model has the same bytes, and is read instead";
    assert!(said.contains(note), "{said}");
    let report = elsewhere.json(&["run", "--locked", "project/runs/tiny/001/lock.json"]);
    assert_eq!(report["extract"]["computed"], json!(0), "the cache is found too");
    assert_eq!(report["train"]["run"], "runs/tiny/001", "what is new goes where it is made");
    assert_same_files(
        &reproduced(&project.path("runs/tiny/001")),
        &reproduced(&elsewhere.path("runs/tiny/001")),
    );
    // A different file of the same name is not used.
    elsewhere.write("project/train.csv", csv(&texts(121), 0));
    let said = elsewhere.fail(&["run", "--locked", "project/runs/tiny/001/lock.json"]);
    assert!(said.contains("train.csv: expected") && said.contains("no such file"), "{said}");
    // But a model of the same name in a folder of models is found.
    fs::remove_dir_all(elsewhere.path("project/model")).unwrap();
    copy_folder(&project.path("model"), &elsewhere.path("models/model"));
    let ran = elsewhere.succeed(&["predict", "project/runs/tiny", "--text", "a"]);
    assert!(ran.stderr.contains("models/model has the same bytes"), "{}", ran.stderr);
}

#[test]
fn a_pipeline_says_itself_where_its_files_lie() {
    let workshop = Workshop::tiny();
    for option in [["--root", "."], ["--model", "m"], ["--moved", "a=b"]] {
        let ran = workshop.run(&[&["run", "pipeline.toml"], &option[..]].concat());
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
        assert!(ran.stderr.contains("give them with --locked"), "{}", ran.stderr);
    }
    let ran = workshop.run(&["predict", "runs/tiny", "--text", "a", "--moved", "a"]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
}

#[test]
fn a_lock_says_where_a_run_was_made_and_an_old_one_need_not() {
    let project = project();
    let path = project.path("runs/tiny/001/lock.json");
    let lock = read_json(&path);
    assert_eq!(lock["base_model"], json!({ "name": "someone/tiny", "revision": REVISION }));
    let created = lock["created"].as_str().unwrap();
    let is_utc = created.starts_with("20") && created.ends_with('Z') && created.len() == 20;
    assert!(is_utc, "{created}");
    assert!(lock["host"].as_str().unwrap().contains("core"), "{lock}");
    // The version and the lock name the same commit, or neither does, if the program was built without git.
    let version = project.succeed(&["--version"]).stdout;
    match lock["commit"].as_str() {
        Some(commit) => assert!(version.ends_with(&format!(" ({commit})\n")), "{version}"),
        None => assert!(version.ends_with("(built without git: no commit)\n"), "{version}"),
    }

    let with = |change: &dyn Fn(&mut Map<String, Value>)| {
        let mut lock = lock.clone();
        change(lock.as_object_mut().unwrap());
        fs::write(&path, lock.to_string()).unwrap();
        project.succeed(&["run", "--locked", "runs/tiny/001/lock.json"])
    };
    // Another commit of the same version is not an error.
    let ran = with(&|lock| drop(lock.insert("commit".into(), json!("000000000000"))));
    assert!(ran.stderr.contains("was made by commit 000000000000 of frostbert"), "{}", ran.stderr);
    assert!(ran.stdout.lines().last().unwrap().contains("the same bytes"), "{}", ran.stdout);
    // A lock of an earlier version has none of these keys.
    let ran = with(&|lock| {
        for key in ["commit", "created", "host", "base_model"] {
            lock.remove(key);
        }
    });
    assert!(!ran.stderr.contains("commit"), "{}", ran.stderr);
    let list = project.json(&["runs", "ls"]);
    assert_eq!(list["runs"][0]["model"], "model");
    assert!(list["runs"][0]["created"].is_string(), "by the time of the file: {list}");
    assert_eq!(list["runs"][1]["model"], "someone/tiny@0123456789ab");
}

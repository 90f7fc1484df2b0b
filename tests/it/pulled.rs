//! `frostbert cache pull`, from a folder on a disk: caches that several machines made, fetched and checked.

use std::{fs, path::PathBuf};

use serde_json::Value;

use crate::support::{Workshop, assert_same_files, contents, csv_with_repeats};

const N_TEXTS: usize = 240;

const PULL: [&str; 4] = ["cache", "pull", "shared", "pulled"];

/// A workshop with a committed plan in `shared`, and the folder of its cache.
fn shared() -> (Workshop, PathBuf) {
    let workshop = Workshop::rich(N_TEXTS);
    workshop.json(&["extract", "pipeline.toml", "--out", "shared", "--part", "1/1"]);
    let report = workshop.json(&["commit", "shared"]);
    let cache = workshop.path(report["cache"].as_str().unwrap());
    (workshop, cache)
}

fn only_cache(report: &Value) -> &Value {
    assert_eq!(report["caches"].as_array().unwrap().len(), 1, "{report}");
    &report["caches"][0]
}

#[test]
fn a_pulled_cache_has_the_same_files_and_is_used_like_any_other() {
    let (workshop, cache) = shared();
    let report = workshop.json(&PULL);
    let first = only_cache(&report);
    assert_eq!((&first["existed"], &first["documents"]), (&false.into(), &N_TEXTS.into()));
    assert_eq!(first["fetched"], first["bytes"]);
    let pulled = workshop.path("pulled").join(cache.file_name().unwrap());
    assert_eq!(workshop.path(first["cache"].as_str().unwrap()), pulled);
    assert_same_files(&contents(&cache), &contents(&pulled));
    assert_eq!(fs::read_dir(workshop.path("pulled")).unwrap().count(), 1);
    workshop.succeed(&["cache", "verify", "pulled"]);
    workshop.succeed(&["train", "pipeline.toml", "--set", "cache.dir=pulled"]);

    let report = workshop.json(&PULL);
    let second = only_cache(&report);
    assert_eq!((&second["existed"], &second["fetched"]), (&true.into(), &0.into()));
}

#[test]
fn texts_are_added_to_a_pulled_cache_as_to_that_of_one_machine() {
    let (workshop, cache) = shared();
    workshop.json(&PULL);
    let (more, own) = (csv_with_repeats(N_TEXTS + 60), ["--set", "cache.dir=pulled"]);
    let extract = [&["extract", "pipeline.toml"], &own[..]].concat();
    let report = workshop.json(&extract);
    assert_eq!((&report["reused"], &report["computed"]), (&N_TEXTS.into(), &0.into()));
    workshop.write("train.csv", &more);
    let report = workshop.json(&extract);
    assert_eq!((&report["reused"], &report["computed"]), (&N_TEXTS.into(), &60.into()));
    let pulled = workshop.path("pulled").join(cache.file_name().unwrap());
    let other = Workshop::rich(N_TEXTS);
    other.succeed(&["extract", "pipeline.toml"]);
    other.write("train.csv", &more);
    other.succeed(&["extract", "pipeline.toml"]);
    assert_same_files(&contents(&other.cache()), &contents(&pulled));
    workshop.succeed(&["cache", "verify", "pulled"]);
    workshop.succeed(&[&["train", "pipeline.toml"], &own[..]].concat());

    // It still has what the machines made, so there is nothing to fetch, and what was added stays.
    let grown = contents(&pulled);
    let report = workshop.json(&PULL);
    let again = only_cache(&report);
    assert_eq!((&again["existed"], &again["fetched"]), (&true.into(), &0.into()));
    assert_eq!(again["documents"], N_TEXTS + 60);
    assert_same_files(&grown, &contents(&pulled));
}

#[test]
fn a_pull_goes_on_with_what_is_missing_and_names_what_is_damaged() {
    let (workshop, cache) = shared();
    let files = contents(&cache);
    let (name, whole) = files.iter().rfind(|(name, _)| name.contains('/')).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    // Another file: the one in the cache is a link to the stored one.
    fs::remove_file(cache.join(name)).unwrap();
    fs::write(cache.join(name), damaged).unwrap();
    let ran = workshop.run(&PULL);
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
    assert!(ran.stderr.contains(name), "no `{name}` in {}", ran.stderr);
    let pulled = workshop.path("pulled").join(cache.file_name().unwrap());
    assert!(!pulled.exists(), "half a cache");
    // Nobody takes what was fetched for a cache.
    assert_eq!(workshop.json(&["cache", "ls", "pulled"])["caches"], Value::Array(Vec::new()));
    fs::write(cache.join(name), whole).unwrap();
    let report = workshop.json(&PULL);
    let (fetched, bytes) = (&only_cache(&report)["fetched"], &only_cache(&report)["bytes"]);
    let missing = whole.len() as u64..bytes.as_u64().unwrap();
    assert!(missing.contains(&fetched.as_u64().unwrap()), "{fetched} of {bytes}");
    assert_same_files(&files, &contents(&pulled));
}

#[test]
fn the_least_recently_used_caches_make_room_within_the_limit() {
    let (workshop, cache) = shared();
    let other = ["--set", "cache.max_length=12", "--set", "cache.dir=pulled"];
    let other = workshop.json(&[&["extract", "pipeline.toml"], &other[..]].concat());
    let other = workshop.path(other["cache"].as_str().unwrap());
    let bytes: u64 = fs::read_dir(&cache)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .map(|shard| contents(&shard).values().map(|file| file.len() as u64).sum::<u64>())
        .sum();
    let pull = |max_size: u64| {
        [&PULL.map(String::from)[..], &["--max-size".into(), format!("{max_size}B")]].concat()
    };
    let small = pull(bytes - 1);
    let refused = workshop.fail(&small.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(refused.contains("larger --max-size"), "{refused}");
    assert!(other.exists(), "something was removed for nothing");
    let enough = pull(bytes);
    let report = workshop.json(&enough.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(report["removed"].as_array().unwrap().len(), 1, "{report}");
    assert!(!other.exists());
    assert_eq!(only_cache(&report)["bytes"], bytes);
}

#[test]
fn a_cache_of_other_texts_is_not_taken_for_the_one_to_fetch() {
    let (workshop, _) = shared();
    // A fingerprint does not cover the texts.
    workshop.write("train.csv", csv_with_repeats(40));
    workshop.succeed(&["extract", "pipeline.toml", "--set", "cache.dir=pulled"]);
    let ran = workshop.run(&PULL);
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
    assert!(ran.stderr.contains("a cache with other files"), "{}", ran.stderr);
}

#[test]
fn an_address_in_place_of_a_folder_of_caches_is_refused() {
    let workshop = Workshop::rich(N_TEXTS);
    let address = ["--set", "cache.dir=s3://bucket/corpus"];
    for command in ["extract", "run"] {
        let ran = workshop.run(&[&[command, "pipeline.toml"], &address[..]].concat());
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
        assert!(ran.stderr.contains("cache pull s3://bucket/corpus FOLDER"), "{}", ran.stderr);
    }
    if cfg!(not(feature = "remote")) {
        let ran = workshop.run(&[&["train", "pipeline.toml"], &address[..]].concat());
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
        assert!(ran.stderr.contains("--features remote"), "{}", ran.stderr);
    }
    assert!(!workshop.path("s3:").exists());
}

#[test]
fn a_folder_without_a_cache_is_named() {
    let workshop = Workshop::rich(N_TEXTS);
    workshop.json(&["plan", "pipeline.toml", "--out", "shared"]);
    let ran = workshop.run(&PULL);
    assert_eq!(ran.code, Some(4), "{}", ran.stderr);
    assert!(ran.stderr.contains("frostbert commit"), "{}", ran.stderr);
}

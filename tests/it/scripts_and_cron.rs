//! What scripts and nightly jobs need: a log, waiting for a busy cache, listing and pruning caches, and dry runs.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

use regex::Regex;
use serde_json::{Value, json};

use crate::support::{TINY_PIPELINE, Workshop, contents, csv, finish, texts};

/// Takes the lock that a writer of the cache holds.
fn writers_lock(cache: &Path) -> File {
    let path = cache.join("writer.lock");
    fs::write(&path, "4242\n").unwrap();
    let lock = File::open(&path).unwrap();
    lock.try_lock().unwrap();
    lock
}

#[test]
fn a_log_has_the_lines_of_stderr_with_their_times_and_goes_on() {
    let workshop = Workshop::tiny();
    let first = workshop.succeed(&["extract", "pipeline.toml", "--log", "night.log"]);
    let second = workshop.run(&["run", "missing.toml", "--log=night.log"]);
    assert_eq!(second.code, Some(4));
    let log = fs::read_to_string(workshop.path("night.log")).unwrap();
    let stamp = Regex::new(r"(?m)^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ ").unwrap();
    assert_eq!(stamp.find_iter(&log).count(), log.lines().count(), "{log}");
    assert_eq!(stamp.replace_all(&log, ""), first.stderr + &second.stderr);
    assert!(log.contains("note: to encode: ") && log.contains(" error: cannot read"), "{log}");

    let ran = workshop.run(&["extract", "pipeline.toml", "--log", "no/such/folder/night.log"]);
    assert_eq!(ran.code, Some(4), "{}", ran.stderr);
    assert!(ran.stderr.contains("cannot write to the log `no/such/folder/night.log`"));
}

/// Starts an extraction, and returns when it is waiting for the cache.
fn start_waiting(workshop: &Workshop) -> Child {
    let mut command =
        workshop.command(&["extract", "--wait", "pipeline.toml", "--json", "--log", "wait.log"]);
    let waiting = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    let log = || fs::read_to_string(workshop.path("wait.log")).unwrap_or_default();
    while !log().contains("waiting") {
        assert!(start.elapsed() < Duration::from_secs(60), "{}", log());
        thread::sleep(Duration::from_millis(20));
    }
    waiting
}

#[test]
fn a_busy_cache_is_waited_for_as_long_as_is_said() {
    let workshop = Workshop::tiny();
    workshop.succeed(&["extract", "pipeline.toml"]);
    workshop.write("train.csv", csv(&texts(150), 0));
    let lock = writers_lock(&workshop.cache());

    let start = Instant::now();
    for wait in [&["--wait=1s"][..], &["--wait", "1s"]] {
        let ran = workshop.run(&[&["extract", "pipeline.toml"], wait].concat());
        assert_eq!(ran.code, Some(5), "{}", ran.stderr);
        assert_eq!(ran.stderr.matches("process 4242: waiting").count(), 1, "{}", ran.stderr);
    }
    assert!(start.elapsed() >= Duration::from_secs(2));

    let waiting = start_waiting(&workshop);
    drop(lock);
    let output = waiting.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches("waiting").count(), 1, "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["computed"], 30);

    let ran = workshop.run(&["extract", "pipeline.toml", "--wait=soon"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("as in 90s, 10m, 12h, 30d or 4w"), "{}", ran.stderr);
}

#[test]
fn a_cache_that_is_removed_while_it_is_waited_for_is_made_anew() {
    let workshop = Workshop::tiny();
    workshop.succeed(&["extract", "pipeline.toml"]);
    let cache = workshop.cache();
    workshop.write("train.csv", csv(&texts(150), 0));
    let lock = writers_lock(&cache);
    let waiting = start_waiting(&workshop);
    fs::remove_dir_all(&cache).unwrap();
    drop(lock);
    let output = waiting.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(cache.join("manifest.json").is_file());
    workshop.succeed(&["cache", "verify", "cache"]);
}

/// Sets the last use of a cache to this many days ago.
fn age(cache: &Path, days: u64) {
    let about = File::options().append(true).open(cache.join("about.json")).unwrap();
    about.set_modified(SystemTime::now() - Duration::from_secs(days * 86_400)).unwrap();
}

/// Creates three caches of the tiny BERT, with the lengths 16, 24 and 32; the largest was last used 3 days ago, and the
/// smallest 1 day ago.
fn three_caches() -> (Workshop, Vec<PathBuf>) {
    let workshop = Workshop::tiny();
    let caches = [16, 24, 32].map(|length| {
        let length = format!("cache.max_length={length}");
        let report = workshop.json(&["extract", "pipeline.toml", "--set", &length]);
        workshop.path(report["cache"].as_str().unwrap())
    });
    for (cache, days) in caches.iter().zip([1, 2, 3]) {
        age(cache, days);
    }
    (workshop, caches.to_vec())
}

#[test]
fn caches_are_listed_with_their_model_and_their_last_use() {
    let (workshop, caches) = three_caches();
    let listed = workshop.json(&["cache", "ls"]);
    let first = &listed["caches"][0];
    let keys: Vec<&str> = first.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "fingerprint",
        "path",
        "model",
        "revision",
        "documents",
        "tokens",
        "bytes",
        "states",
        "max_length",
        "dtype",
        "device",
        "last_used",
    ];
    assert_eq!(keys, expected);
    assert_eq!((&first["model"], &first["revision"]), (&json!("tiny_bert"), &Value::Null));
    let page = workshop.succeed(&["cache", "ls"]).stdout;
    assert!(page.lines().all(|line| line.chars().count() <= 100), "{page}");
    assert!(
        page.contains("  tiny_bert  ") && page.contains("mean-L02, at most 24 tokens, f16, cpu")
    );
    // Training counts as a use.
    age(&caches[2], 90);
    let of = |cache: &Path| {
        let all = workshop.json(&["cache", "ls"]);
        let all = all["caches"].as_array().unwrap().clone();
        let name = cache.file_name().unwrap().to_str().unwrap().to_string();
        let own = all.into_iter().find(|cache| cache["fingerprint"] == name.as_str()).unwrap();
        own["last_used"].as_str().unwrap().to_string()
    };
    let before = of(&caches[2]);
    workshop.succeed(&["train", "pipeline.toml"]);
    assert!(of(&caches[2]) > before);
}

#[test]
fn the_name_of_a_pulled_model_stands_with_its_commit() {
    let workshop = Workshop::tiny();
    workshop.copy_model("model");
    let source = r#"{"repository": "acme/tiny", "revision": "0123456789abcdef0123456789abcdef01234567", "files": {}}"#;
    workshop.write("model/source.json", source);
    workshop.succeed(&["extract", "pipeline.toml", "--set", "model.path=model"]);
    let listed = workshop.json(&["cache", "ls"]);
    assert_eq!(listed["caches"][0]["model"], "acme/tiny");
    assert_eq!(listed["caches"][0]["revision"], "0123456789abcdef0123456789abcdef01234567");
    let page = workshop.succeed(&["cache", "ls"]).stdout;
    assert!(page.contains("  tiny@0123456  "), "{page}");
}

#[test]
fn caches_are_pruned_by_age_and_by_size_the_longest_unused_first() {
    let (workshop, caches) = three_caches();
    let sizes: Vec<u64> = {
        let listed = workshop.json(&["cache", "ls"]);
        let listed = listed["caches"].as_array().unwrap().clone();
        let size = |cache: &PathBuf| {
            let name = cache.file_name().unwrap().to_str().unwrap();
            let own = listed.iter().find(|own| own["fingerprint"] == name).unwrap();
            own["bytes"].as_u64().unwrap()
        };
        caches.iter().map(size).collect()
    };
    let there = || caches.iter().map(|cache| cache.is_dir()).collect::<Vec<bool>>();
    let before = contents(&workshop.path("cache"));
    // The target of a link belongs to another folder of caches.
    fs::create_dir(workshop.path("others")).unwrap();
    let link = workshop.path("others").join(caches[2].file_name().unwrap());
    std::os::unix::fs::symlink(&caches[2], &link).unwrap();
    let others = workshop.json(&["cache", "prune", "others", "--max-size", "0B"]);
    assert_eq!((others["removed"].as_array().unwrap().len(), there()), (0, vec![true; 3]));
    let dry = workshop.json(&["cache", "prune", "--older-than", "36h", "--dry-run"]);
    assert_eq!(dry["removed"].as_array().unwrap().len(), 2);
    assert_eq!(dry["freed_bytes"], sizes[1] + sizes[2]);
    assert_eq!(dry["bytes"], sizes[0]);
    assert_eq!(dry["dry_run"], true);
    assert!(contents(&workshop.path("cache")) == before, "a dry run removed something");

    // Another process is writing to the oldest cache, so the next one is removed instead.
    let lock = writers_lock(&caches[2]);
    let most = format!("{}B", sizes[0] + sizes[2]);
    let page = workshop.succeed(&["cache", "prune", "--max-size", &most]).stdout;
    assert_eq!(there(), [true, false, true], "{page}");
    assert!(page.contains("in use, and kept: cache/"), "{page}");
    assert!(page.contains("1 cache, ") && page.contains(" freed; 2 caches, "), "{page}");
    drop(lock);
    let reader = File::open(&caches[2]).unwrap();
    reader.lock_shared().unwrap();
    let pruned = workshop.json(&["cache", "prune", "--older-than", "1h", "--max-size", "1TB"]);
    assert_eq!(there(), [false, false, true]);
    assert_eq!(pruned["in_use"].as_array().unwrap().len(), 1);
    drop(reader);
    workshop.succeed(&["cache", "prune", "--max-size", "0B"]);
    assert_eq!(there(), [false; 3]);
    assert!(!caches[2].exists(), "nothing of it stays");

    for wrong in [&["cache", "prune"][..], &["cache", "prune", "--max-size", "20"]] {
        assert_eq!(workshop.run(wrong).code, Some(2), "{wrong:?}");
    }
}

#[test]
fn a_dry_run_checks_everything_says_what_would_be_done_and_writes_nothing() {
    let workshop = Workshop::tiny();
    let names = || contents(&workshop.path("")).into_keys().collect::<Vec<String>>();
    let before = names();
    let dry = workshop.json(&["run", "pipeline.toml", "--dry-run"]);
    assert_eq!(names(), before, "something was written");
    assert!(!workshop.path("cache").exists() && !workshop.path("runs").exists());
    let missing = workshop.run(&["train", "pipeline.toml", "--dry-run"]);
    assert_eq!(missing.code, Some(4), "{}", missing.stderr);

    let done = workshop.json(&["run", "pipeline.toml"]);
    for key in [
        "cache",
        "fingerprint",
        "documents",
        "unique",
        "computed",
        "reused",
        "tokens",
        "truncated",
        "device",
    ] {
        assert_eq!(dry["extract"][key], done["extract"][key], "{key}");
    }
    let metrics = &done["train"]["metrics"];
    for part in ["train", "validation", "test"] {
        assert_eq!(dry["tasks"][0][part], metrics[part]["n"], "{part}");
    }
    assert_eq!(dry["tasks"][0]["heads"], 1);

    let before = contents(&workshop.path(""));
    let again = workshop.json(&["extract", "pipeline.toml", "--dry-run"]);
    assert_eq!(again["extract"]["computed"], 0);
    assert_eq!(again["extract"]["reused"], done["extract"]["unique"]);
    let trained = workshop.json(&["train", "pipeline.toml", "--dry-run"]);
    assert!(trained.get("extract").is_none());
    let page = workshop.succeed(&["run", "pipeline.toml", "--dry-run"]).stdout;
    assert!(page.contains("0 to encode, 120 in the cache"), "{page}");
    assert!(contents(&workshop.path("")) == before, "something was written");

    // Errors are found.
    workshop.write("train.csv", "text,label\na,b\nc\n");
    let ran = workshop.run(&["run", "pipeline.toml", "--dry-run"]);
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
}

#[test]
fn a_dry_run_of_a_sweep_counts_the_heads_that_it_trains() {
    let workshop = Workshop::empty();
    workshop.write("train.csv", csv(&texts(60), 0));
    let sweep =
        "\n[sweep]\nlr = [0.01, 0.1]\nkind = [\"linear\", \"ridge\"]\nfolds = 3\nseeds = 2\n";
    workshop.write_pipeline(&(TINY_PIPELINE.to_string() + sweep));
    workshop.succeed(&["extract", "pipeline.toml"]);
    let dry = workshop.json(&["sweep", "pipeline.toml", "--dry-run"]);
    assert!(!workshop.path("runs").exists());
    let done = workshop.json(&["sweep", "pipeline.toml"]);
    assert_eq!(dry["tasks"][0]["heads"], done["heads"]);
    let ran = finish(workshop.command(&["train", "pipeline.toml", "--dry-run"]));
    assert_eq!(ran.code, Some(2), "train refuses a sweep: {}", ran.stderr);
}

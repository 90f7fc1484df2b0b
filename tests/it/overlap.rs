//! So many texts that work begins before the last of them is tokenised.

use std::{
    collections::BTreeMap,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use regex::Regex;
use serde_json::Value;

use crate::support::{Workshop, assert_same_files, contents, csv, read_json, texts};

/// Texts of more tokens than are tokenised before work begins.
const N_TEXTS: usize = 25_000;

fn workshop() -> Workshop {
    let workshop = Workshop::tiny();
    workshop.write("train.csv", csv(&texts(N_TEXTS), 0));
    workshop
}

fn extract<'a>(threads: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let settings = ["--set", "cache.shard_tokens=30000", "--set", "model.batch_tokens=2048"];
    [&["extract", "pipeline.toml", "--json", "--threads", threads][..], &settings, more].concat()
}

fn n_committed(cache: &Path) -> usize {
    let manifest = cache.join("manifest.json");
    if !manifest.is_file() {
        return 0;
    }
    read_json(&manifest)["shards"].as_array().unwrap().len()
}

/// Kills an extraction when so many shards are committed.
fn kill_after(workshop: &Workshop, cache: &Path, n_shards: usize) {
    let mut command = workshop.command(&extract("2", &[]));
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let start = Instant::now();
    let mut child = command.spawn().unwrap();
    while n_committed(cache) < n_shards && child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < Duration::from_secs(60), "shard {n_shards} never came");
        thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9), "it ended before it was killed");
}

/// Asserts that an extraction which is killed twice ends in the bytes of one that was never killed.
fn assert_survives_kills(cache_name: &str, expected: &BTreeMap<String, Vec<u8>>) {
    let workshop = workshop();
    let cache = workshop.path("cache").join(cache_name);
    kill_after(&workshop, &cache, 1);
    let n_first = n_committed(&cache);
    assert!(n_first >= 1, "killed before the first commit");
    kill_after(&workshop, &cache, n_first + 2);
    let n_done = read_json(&cache.join("manifest.json"))["documents"].as_u64().unwrap();
    let report: Value = serde_json::from_str(&workshop.succeed(&extract("2", &[])).stdout).unwrap();
    assert_eq!(report["reused"], n_done, "{report}");
    assert_eq!(report["computed"], N_TEXTS as u64 - n_done, "{report}");
    assert_same_files(expected, &contents(&cache));
}

#[test]
fn work_begins_before_the_last_text_is_tokenised_and_neither_threads_nor_kills_change_the_bytes() {
    let first = workshop();
    let ran = first.succeed(&extract("1", &[]));
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    let tokens = report["tokens"].as_f64().unwrap();
    assert!(tokens > 300_000.0, "{report}");
    let note = Regex::new("note: to encode: 25,000 texts, about ([0-9,]+) tokens, about ").unwrap();
    let about = note.captures(&ran.stderr).unwrap_or_else(|| panic!("{}", ran.stderr));
    let about: f64 = about[1].replace(',', "").parse().unwrap();
    assert!((about / tokens - 1.0).abs() < 0.03, "{about} of {tokens}");
    let manifest = first.manifest();
    assert_eq!(manifest["documents"], N_TEXTS);
    assert_eq!(manifest["tokens"].as_f64(), Some(tokens));

    let busy = report["busy"].as_object().unwrap();
    assert!(busy.keys().eq(["encoder", "tokenizer", "writer"]), "{report}");
    assert!(busy.values().all(|share| share.as_f64().unwrap() > 0.0), "{report}");

    let second = workshop();
    let dry: Value =
        serde_json::from_str(&second.succeed(&extract("2", &["--dry-run"])).stdout).unwrap();
    assert_eq!(dry["extract"]["tokens"].as_f64(), Some(tokens), "a dry run counts all of them");
    second.succeed(&extract("2", &[]));
    let expected = contents(&first.cache());
    assert_same_files(&expected, &contents(&second.cache()));
    let again: Value = serde_json::from_str(&second.succeed(&extract("2", &[])).stdout).unwrap();
    assert_eq!(again["computed"], 0);
    assert!(again.get("bound_by").is_none() && again.get("busy").is_none(), "{again}");

    assert_survives_kills(first.cache().file_name().unwrap().to_str().unwrap(), &expected);
}

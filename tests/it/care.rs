//! Maintenance of caches: repair, garbage collection, and comparison.

use std::{
    collections::BTreeMap, fs, os::unix::process::ExitStatusExt, path::Path, process::Stdio,
    time::Duration,
};

use frostbert::cache::{
    fingerprint::Key,
    reader::{CacheReader, rows_of},
};
use serde_json::{Value, json};

use crate::support::{TINY_ROWS, Workshop, csv, label, texts};

const EXTRACT: [&str; 6] = [
    "extract",
    "pipeline.toml",
    "--set",
    "cache.store=[\"cls\", \"mean\", \"words\", \"tokens\"]",
    "--set",
    "cache.layers=[1, 2]",
];

/// Every stored row, by document and state: its bytes, and the words and tokens that it is for.
type Rows = BTreeMap<(Key, String), (Vec<u8>, String)>;

fn rows(cache: &Path) -> Rows {
    let reader = CacheReader::open(cache).unwrap().unwrap();
    let mut rows = Rows::new();
    for (number, entry) in reader.manifest().shards.iter().enumerate() {
        let layout = reader.read_layout(number as u32).unwrap();
        for state in entry.states() {
            let file = reader.open_state(number as u32, state).unwrap();
            for document in 0..layout.documents.len() {
                let own = rows_of(&layout, state.kind, document);
                let bytes = file.rows(own.clone()).flatten().copied().collect();
                let words = &layout.words[layout.word_start[document] as usize
                    ..layout.word_start[document + 1] as usize];
                let tokens = layout.alignment.part(layout.documents.tokens(document));
                let what = format!("{words:?} {tokens:?}");
                let key = (layout.documents.key(document), state.to_string());
                assert!(rows.insert(key, (bytes, what)).is_none(), "stored twice");
            }
        }
    }
    rows
}

/// Asserts that the cache contains this many documents, and that all their rows are the same as in the `whole` cache.
fn assert_holds(workshop: &Workshop, n_documents: usize, whole: &Rows) {
    assert_eq!(workshop.manifest()["documents"], n_documents);
    let left = rows(&workshop.cache());
    assert!(left.iter().all(|(key, row)| whole[key] == *row));
    assert_eq!(left.len(), whole.len() * n_documents / TINY_ROWS);
}

fn shards(manifest: &Value) -> usize {
    manifest["shards"].as_array().unwrap().len()
}

#[test]
fn a_damaged_shard_is_repaired_by_computing_its_documents_again() {
    let workshop = Workshop::tiny();
    workshop.succeed(&EXTRACT);
    let cache = workshop.cache();
    let (before, whole) = (workshop.manifest(), rows(&cache));
    let path = cache.join("shard-000001/tokens-L02.parquet");
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    fs::remove_file(cache.join("shard-000002/docs.parquet")).unwrap();

    assert_eq!(workshop.run(&["cache", "verify", "cache"]).code, Some(1));
    let report = workshop.json(&["cache", "verify", "cache", "--repair"]);
    assert_eq!(report["damaged"].as_array().unwrap().len(), 2);
    let dropped: Vec<&str> = report["dropped"]
        .as_array()
        .unwrap()
        .iter()
        .map(|shard| shard.as_str().unwrap().rsplit('/').next().unwrap())
        .collect();
    assert_eq!(dropped, ["shard-000001", "shard-000002"]);
    assert_eq!(shards(&workshop.manifest()), shards(&before) - 2);

    let lost = before["shards"][1]["documents"].as_u64().unwrap()
        + before["shards"][2]["documents"].as_u64().unwrap();
    assert_eq!(workshop.manifest()["documents"].as_u64().unwrap(), TINY_ROWS as u64 - lost);
    assert_eq!(workshop.json(&EXTRACT)["computed"], lost);
    assert_eq!(rows(&cache), whole);
    workshop.succeed(&["cache", "verify", "cache"]);
}

#[test]
fn a_cache_that_lost_its_manifest_is_damaged_and_not_passed_over() {
    let workshop = Workshop::tiny();
    workshop.succeed(&EXTRACT);
    let cache = workshop.cache();
    workshop.succeed(&[&EXTRACT[..], &["--set", "cache.max_length=16"]].concat());
    fs::remove_file(cache.join("manifest.json")).unwrap();
    let ran = workshop.run(&["cache", "verify", "cache", "--json"]);
    assert_eq!(ran.code, Some(1));
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    let damaged = format!("cache/{}/manifest.json", cache.file_name().unwrap().display());
    assert_eq!(report["damaged"], json!([damaged]));
    assert!(ran.stderr.contains("restore the manifest"), "{}", ran.stderr);
}

#[test]
fn collecting_garbage_without_a_pipeline_only_merges_small_shards() {
    let workshop = Workshop::tiny();
    workshop.succeed(&EXTRACT);
    let (before, whole) = (workshop.manifest(), rows(&workshop.cache()));
    assert!(shards(&before) > 3);
    let report = workshop.json(&["cache", "gc", "cache"]);
    assert_eq!(report["caches"][0]["dropped"], 0);
    assert_eq!(report["caches"][0]["shards_after"], 1);
    assert_eq!(shards(&workshop.manifest()), 1);
    for count in ["documents", "tokens", "truncated"] {
        assert_eq!(workshop.manifest()[count], before[count], "{count}");
    }
    assert_eq!(rows(&workshop.cache()), whole);
    workshop.succeed(&["cache", "verify", "cache"]);
    assert_eq!(workshop.json(&EXTRACT)["computed"], 0);
    // A second garbage collection has nothing to do.
    let merged = workshop.manifest();
    workshop.succeed(&["cache", "gc", "cache"]);
    assert_eq!(workshop.manifest(), merged);
}

#[test]
fn collecting_garbage_keeps_what_a_pipeline_needs_and_asks_before_it_drops_the_rest() {
    let workshop = Workshop::tiny();
    workshop.succeed(&EXTRACT);
    let (before, whole) = (workshop.manifest(), rows(&workshop.cache()));
    // Every third text, with a different label.
    let kept: Vec<String> = texts(TINY_ROWS).into_iter().step_by(3).collect();
    workshop.write("train.csv", csv(&kept, 1));
    assert_ne!(label(0), label(1));

    let gc = ["cache", "gc", "cache", "--pipeline", "pipeline.toml"];
    let refused = workshop.fail(&gc);
    let expected = format!("this drops {} of {TINY_ROWS} documents", TINY_ROWS - kept.len());
    assert!(refused.contains(&expected) && refused.contains("--yes"), "{refused}");
    assert_eq!(workshop.manifest(), before);

    let report = workshop.json(&[&gc[..], &["--yes"]].concat());
    assert_eq!(report["caches"][0]["dropped"], TINY_ROWS - kept.len());
    let manifest = workshop.manifest();
    let tokens = manifest["shards"].as_array().unwrap().iter();
    let tokens: u64 = tokens.map(|shard| shard["tokens"].as_u64().unwrap()).sum();
    assert_eq!(manifest["tokens"], tokens);
    assert_holds(&workshop, kept.len(), &whole);
    assert_eq!(workshop.json(&EXTRACT)["computed"], 0);
    workshop.succeed(&["cache", "verify", "cache"]);
}

#[test]
fn a_collection_that_is_killed_loses_nothing_that_is_needed() {
    let kept: Vec<String> = texts(TINY_ROWS).into_iter().step_by(3).collect();
    let gc = ["cache", "gc", "cache", "--pipeline", "pipeline.toml", "--yes"];
    let mut n_killed = 0;
    for milliseconds in [2, 5, 8, 12, 16, 20, 25, 30, 40, 60] {
        let workshop = Workshop::tiny();
        workshop.succeed(&EXTRACT);
        let whole = rows(&workshop.cache());
        workshop.write("train.csv", csv(&kept, 0));
        let mut child =
            workshop.command(&gc).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        n_killed += usize::from(child.wait().unwrap().signal() == Some(9));

        workshop.succeed(&["cache", "verify", "cache"]);
        assert_eq!(workshop.json(&EXTRACT)["computed"], 0, "killed after {milliseconds} ms");
        workshop.succeed(&gc);
        assert_holds(&workshop, kept.len(), &whole);
    }
    assert!(n_killed >= 4, "only {n_killed} collections were still at work");
}

#[test]
fn a_cache_that_no_pipeline_uses_is_removed_whole() {
    let workshop = Workshop::tiny();
    workshop.succeed(&EXTRACT);
    workshop.succeed(&[&EXTRACT[..], &["--set", "cache.max_length=16"]].concat());
    let n_caches = || fs::read_dir(workshop.path("cache")).unwrap().count();
    assert_eq!(n_caches(), 2);
    let gc = ["cache", "gc", "cache", "--pipeline", "pipeline.toml", "--yes"];
    workshop.succeed(&gc);
    assert_eq!(n_caches(), 1);
    assert_eq!(workshop.manifest()["inputs"]["max_length"], 32);
}

#[test]
fn a_difference_names_inputs_states_and_documents() {
    let workshop = Workshop::tiny();
    workshop.succeed(&EXTRACT);
    let first = workshop.cache();
    fs::rename(workshop.path("cache"), workshop.path("first")).unwrap();
    workshop.write("train.csv", csv(&texts(TINY_ROWS + 30)[20..], 20));
    workshop.succeed(&["extract", "pipeline.toml", "--set", "cache.max_length=20"]);
    let first = workshop.path("first").join(first.file_name().unwrap());
    let (first, second) = (first.display().to_string(), workshop.cache().display().to_string());
    let difference = workshop.json(&["cache", "diff", &first, &second]);
    assert_eq!(difference["differences"], json!(["max_length 32 -> 20"]));
    assert_eq!(difference["states_only_b"], json!([]));
    assert_eq!(difference["states_only_a"].as_array().unwrap().len(), 7);
    let documents = ["documents_common", "documents_only_a", "documents_only_b"];
    assert_eq!(
        documents.map(|name| difference[name].as_u64().unwrap()),
        [TINY_ROWS as u64 - 20, 20, 30]
    );
}

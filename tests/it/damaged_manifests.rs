//! Manifests are checked before they are used: changed values, counts and names, foreign files, and links.

use std::{fs, os::unix::fs::symlink, path::Path};

use frostbert::cache::{
    fingerprint::{FORMAT_VERSION, hash_bytes},
    manifest::Manifest,
    reader::CacheReader,
};
use serde_json::{Value, json};

use crate::support::{Workshop, assert_same_files, contents, copy_folder, csv, read_json, texts};

const EXTRACT: [&str; 2] = ["extract", "pipeline.toml"];

/// Returns the files of a cache, without the writer's lock.
fn without_lock(cache: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let mut files = contents(cache);
    files.remove("writer.lock");
    files
}

/// Collects the pointers to all values in a JSON document.
fn pointers(value: &Value, before: &str, all: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            pointers(value, &format!("{before}/{key}"), all);
        }),
        Value::Array(list) => list.iter().enumerate().for_each(|(number, value)| {
            pointers(value, &format!("{before}/{number}"), all);
        }),
        _ => all.push(before.to_string()),
    }
}

/// Returns a different value of the same type.
fn another(value: &Value) -> Value {
    match value {
        Value::Number(number) => match number.as_u64() {
            Some(number) => json!(number + 1),
            None => json!(number.as_f64().unwrap() * 2.0),
        },
        Value::String(text) if text == "f16" => json!("f32"),
        Value::String(text) if text == "mean-L02" => json!("max-L02"),
        Value::String(text) if text.ends_with('0') => {
            json!(format!("{}1", &text[..text.len() - 1]))
        }
        Value::String(text) => json!(format!("{}0", &text[..text.len() - 1])),
        other => other.clone(),
    }
}

#[test]
fn every_value_of_a_manifest_that_changes_is_noticed_and_a_repair_mends_what_the_files_tell() {
    let workshop = Workshop::tiny();
    workshop.json(&EXTRACT);
    let (cache, good) = (workshop.cache(), without_lock(&workshop.cache()));
    let manifest = workshop.manifest();
    let mut all = Vec::new();
    pointers(&manifest, "", &mut all);
    // One pointer of each kind: keep only the first shard, its first origin and its first file.
    all.retain(|pointer| {
        let mut numbers = pointer.split('/').filter_map(|part| part.parse::<usize>().ok());
        numbers.all(|number| number == 0)
    });
    assert!(all.len() > 25, "{all:?}");
    for pointer in &all {
        let mut changed = manifest.clone();
        let value = changed.pointer_mut(pointer).unwrap();
        *value = another(value);
        fs::write(cache.join("manifest.json"), serde_json::to_string_pretty(&changed).unwrap())
            .unwrap();
        for command in [
            &["cache", "verify", "cache"][..],
            &["cache", "info", &workshop.cache_named().display().to_string()],
            &["train", "pipeline.toml"],
            &EXTRACT,
        ] {
            let ran = workshop.run(command);
            assert!(ran.has_failed(), "{pointer}: {command:?} took it");
            assert!(ran.stderr.contains("manifest.json` is damaged"), "{pointer}: {}", ran.stderr);
        }
        let repaired = workshop.run(&["cache", "verify", "cache", "--repair"]);
        if pointer.starts_with("/inputs") || pointer == "/fingerprint" {
            assert!(repaired.has_failed(), "{pointer}: what it is of is not known");
            fs::write(cache.join("manifest.json"), &good["manifest.json"]).unwrap();
            continue;
        }
        assert_eq!(repaired.code, Some(0), "{pointer}: {}", repaired.stderr);
        assert_eq!(workshop.run(&["cache", "verify", "cache"]).code, Some(0), "{pointer}");
        workshop.json(&EXTRACT);
        let tells_nothing = ["parity", "device", "onnxruntime", "batch_tokens", "model_layers"];
        if !tells_nothing.iter().any(|name| pointer.contains(name)) {
            let documents: Vec<Value> = ["documents", "tokens", "truncated", "hidden", "dtype"]
                .map(|name| workshop.manifest()[name].clone())
                .to_vec();
            let expected = ["documents", "tokens", "truncated", "hidden", "dtype"]
                .map(|name| manifest[name].clone());
            assert_eq!(documents, expected, "{pointer}");
        }
        fs::remove_dir_all(&cache).unwrap();
        fs::create_dir(&cache).unwrap();
        for (name, bytes) in &good {
            fs::create_dir_all(cache.join(name).parent().unwrap()).unwrap();
            fs::write(cache.join(name), bytes).unwrap();
        }
    }
}

#[test]
fn the_checksum_of_a_manifest_is_of_all_bytes_before_it() {
    let workshop = Workshop::tiny();
    workshop.json(&EXTRACT);
    let path = workshop.cache().join("manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    let (body, checksum) = text.split_once(",\n  \"checksum\": \"").unwrap();
    assert_eq!(checksum, format!("{}\"\n}}", hash_bytes(body.as_bytes())));
    assert_eq!(read_json(&path)["inputs"]["format_version"], json!(FORMAT_VERSION));
    // A manifest from before checksums were added is repaired by one command, and nothing is computed again.
    fs::write(&path, format!("{body}\n}}")).unwrap();
    let stderr = workshop.fail(&EXTRACT);
    assert!(
        stderr.contains("expected a checksum") && stderr.contains("cache verify --repair"),
        "{stderr}"
    );
    workshop.succeed(&["cache", "verify", "cache", "--repair"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    assert_eq!(workshop.json(&EXTRACT)["computed"], json!(0));
}

#[test]
fn counts_that_are_wrong_under_a_right_checksum_are_mended_and_remove_nothing() {
    let workshop = Workshop::tiny();
    workshop.json(&EXTRACT);
    let (cache, good) = (workshop.cache(), without_lock(&workshop.cache()));
    let whole = Manifest::open(&cache).unwrap();
    type Change = fn(&mut Manifest);
    let changes: [(Change, bool); 6] = [
        (|manifest| manifest.documents += 1, true),
        (|manifest| manifest.documents = 0, true),
        (|manifest| manifest.documents = 10_000_000_000, true),
        (|manifest| manifest.tokens = u64::MAX, true),
        (|manifest| manifest.truncated = 1, true),
        // This contradicts the table of the shard, whose documents are therefore computed again.
        (|manifest| manifest.shards[0].documents = (1 << 31) - 1, false),
    ];
    for (number, (change, is_of_totals)) in changes.into_iter().enumerate() {
        let mut changed = whole.clone();
        change(&mut changed);
        changed.write(&cache).unwrap();
        let gc = workshop.run(&["cache", "gc", "cache", "--yes"]);
        assert!(cache.join("shard-000000/docs.parquet").is_file(), "{number}: {}", gc.stderr);
        let verify = workshop.run(&["cache", "verify", "cache"]);
        assert_eq!(verify.code, Some(1), "{number}: {}", verify.stdout);
        workshop.succeed(&["cache", "verify", "cache", "--repair"]);
        workshop.succeed(&["cache", "verify", "cache"]);
        workshop.json(&EXTRACT);
        let mut expected = good.clone();
        let mut got = without_lock(&cache);
        if !is_of_totals {
            expected.retain(|name, _| !name.starts_with("shard"));
            got.retain(|name, _| !name.starts_with("shard"));
            assert_eq!(workshop.manifest()["documents"], json!(120));
            continue;
        }
        for files in [&mut expected, &mut got] {
            files.retain(|name, _| !name.ends_with("manifest.json") || number != 5);
        }
        assert_same_files(&expected, &got);
    }
}

#[test]
fn a_collection_that_drops_nothing_removes_nothing() {
    let workshop = Workshop::tiny();
    workshop.json(&EXTRACT);
    let cache = workshop.cache();
    let mut empty = Manifest::open(&cache).unwrap();
    for entry in empty.shards.drain(..) {
        fs::remove_dir_all(cache.join(entry.name)).unwrap();
    }
    (empty.documents, empty.tokens) = (0, 0);
    empty.write(&cache).unwrap();
    workshop.succeed(&["cache", "gc", "cache", "--yes"]);
    assert!(cache.join("manifest.json").is_file());
}

/// Writes the user's own files into the folders of a cache and next to it, and returns their paths.
fn put_strangers(cache: &Path) -> Vec<std::path::PathBuf> {
    let parent = cache.parent().unwrap();
    let names = ["index.html", "notes/thesis.pdf", "shard-1", "tmp-mine", "plan-mine.json"];
    let folders = [parent, cache, &cache.join("shard-000000"), &cache.join("shard-000001")];
    let mut paths = Vec::new();
    for folder in folders {
        for name in names {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "precious").unwrap();
            paths.push(path);
        }
    }
    paths
}

#[test]
fn strangers_in_a_cache_stop_nothing_and_stay() {
    let workshop = Workshop::tiny();
    workshop.json(&EXTRACT);
    let cache = workshop.cache();
    let strangers = put_strangers(&cache);
    let are_there = |after: &str| {
        for path in &strangers {
            let content = fs::read_to_string(path).unwrap_or_default();
            assert_eq!(content, "precious", "{} after {after}", path.display());
        }
    };
    workshop.write("train.csv", csv(&texts(200), 0));
    for command in [
        &EXTRACT[..],
        &["train", "pipeline.toml"],
        &["cache", "ls"],
        &["cache", "verify", "cache", "--repair"],
        &["cache", "gc", "cache", "--yes"],
    ] {
        workshop.succeed(command);
        are_there(&command.join(" "));
    }
    // A cache from which nothing is needed is removed, except for files that do not belong to it.
    workshop.write("train.csv", "text,label\nnothing,a\nof it,b\n");
    workshop.succeed(&["cache", "gc", "cache", "--yes", "--pipeline", "pipeline.toml"]);
    are_there("a collection of everything");
    assert!(!cache.join("manifest.json").exists());
    assert!(!cache.join("writer.lock").exists());
}

#[test]
fn a_strangers_files_where_a_shard_is_to_be_are_named() {
    let workshop = Workshop::tiny();
    workshop.json(&EXTRACT);
    let name = format!("shard-{:06}", workshop.manifest()["shards"].as_array().unwrap().len());
    let mine = workshop.cache().join(&name).join("mine.txt");
    fs::create_dir(mine.parent().unwrap()).unwrap();
    fs::write(&mine, "precious").unwrap();
    workshop.write("train.csv", csv(&texts(200), 0));
    let stderr = workshop.fail(&EXTRACT);
    assert!(
        stderr.contains(&name) && stderr.contains("move it out of the cache folder"),
        "{stderr}"
    );
    assert_eq!(fs::read_to_string(&mine).unwrap(), "precious");
    fs::remove_dir_all(mine.parent().unwrap()).unwrap();
    workshop.succeed(&EXTRACT);
}

#[test]
fn a_link_in_a_cache_leads_no_write_and_no_removal_elsewhere() {
    let workshop = Workshop::tiny();
    workshop.json(&EXTRACT);
    let cache = workshop.cache();
    copy_folder(&workshop.path("cache"), &workshop.path("good"));
    let home = workshop.path("home");
    fs::create_dir(&home).unwrap();
    for name in ["a.txt", "docs.parquet", "mean-L02.parquet"] {
        fs::write(home.join(name), "precious").unwrap();
    }
    let kept = contents(&home);
    workshop.write("more.csv", csv(&texts(200), 0));
    let more = [&EXTRACT[..], &["--set", "data.train={path=\"more.csv\"}"]].concat();
    let commands =
        [&more[..], &["cache", "gc", "cache", "--yes"], &["cache", "verify", "cache", "--repair"]];
    for command in commands {
        for link in
            ["shard-000000", "shard-000099", "writer.lock", "tmp-manifest.json", "tmp-shard-000003"]
        {
            let path = cache.join(link);
            let target = if link.contains("shard") { home.clone() } else { home.join("a.txt") };
            let was_there = path.exists();
            if path.is_dir() {
                fs::remove_dir_all(&path).unwrap();
            } else if was_there {
                fs::remove_file(&path).unwrap();
            }
            symlink(&target, &path).unwrap();
            let ran = workshop.run(command);
            assert_same_files(&kept, &contents(&home));
            assert!(matches!(ran.code, Some(0..=6)), "{command:?} {link}");
            fs::remove_dir_all(workshop.path("cache")).unwrap();
            copy_folder(&workshop.path("good"), &workshop.path("cache"));
        }
    }
}

#[test]
fn a_collection_leaves_a_cache_alone_that_somebody_reads() {
    let workshop = Workshop::tiny();
    workshop.json(&EXTRACT);
    let before = without_lock(&workshop.cache());
    let reader = CacheReader::open(&workshop.cache()).unwrap().unwrap();
    let gc = ["cache", "gc", "cache", "--yes"];
    let stderr = workshop.fail(&gc);
    assert!(stderr.contains("is being read") && stderr.contains("hint: "), "{stderr}");
    assert_same_files(&before, &without_lock(&workshop.cache()));
    drop(reader);
    workshop.succeed(&gc);
    assert!(workshop.manifest()["shards"].as_array().unwrap().len() < 4);
}

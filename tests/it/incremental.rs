//! An extraction leaves what it finds in its cache unchanged, and computes only what is missing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    time::SystemTime,
};

use frostbert::cache::{
    fingerprint::Key,
    manifest::Manifest,
    reader::{CacheReader, rows_of},
    states::{Dtype, StateId, StateKind},
};
use serde_json::{Value, json};

use crate::support::{Workshop, assert_same_files, contents, csv, csv_with_repeats, texts};

const EXTRACT: [&str; 2] = ["extract", "pipeline.toml"];

fn extract(workshop: &Workshop, settings: &[&str]) -> Value {
    let set = settings.iter().flat_map(|setting| ["--set", setting]);
    let arguments: Vec<&str> = EXTRACT.into_iter().chain(set).collect();
    workshop.json(&arguments)
}

fn train(workshop: &Workshop, settings: &[&str]) {
    let set = settings.iter().flat_map(|setting| ["--set", setting]);
    let arguments: Vec<&str> = ["train", "pipeline.toml"].into_iter().chain(set).collect();
    workshop.succeed(&arguments);
}

/// Returns the numbers of distinct, computed and reused texts.
pub(crate) fn counts(report: &Value) -> [u64; 3] {
    ["unique", "computed", "reused"].map(|key| report[key].as_u64().unwrap())
}

fn verify(workshop: &Workshop) {
    let report = workshop.json(&["cache", "verify", "cache"]);
    assert_eq!(report["damaged"], json!([]));
}

/// Returns every file of the shards with its inode, modification time and checksum, which show that nobody wrote to it.
fn identities(cache: &Path) -> BTreeMap<String, (u64, SystemTime, blake3::Hash)> {
    let files = contents(cache).into_iter();
    let shards = files.filter(|(name, _)| name.starts_with("shard-"));
    shards
        .map(|(name, bytes)| {
            let metadata = fs::metadata(cache.join(&name)).unwrap();
            let identity = (metadata.ino(), metadata.modified().unwrap(), blake3::hash(&bytes));
            (name, identity)
        })
        .collect()
}

/// Returns every value of a state, by document, read as any stage reads it.
pub(crate) fn states(cache: &Path, state: StateId) -> BTreeMap<Key, Vec<f32>> {
    let reader = CacheReader::open(cache).unwrap().unwrap();
    let manifest = reader.manifest();
    let mut states = BTreeMap::new();
    for (key, _) in reader.index().documents() {
        let Some((shard, row)) = reader.locate(&key, state) else {
            continue;
        };
        let layout = reader.read_layout(shard).unwrap();
        let file = reader.open_state(shard, state).unwrap();
        let mut values = Vec::new();
        for rows in file.rows(rows_of(&layout, state.kind, row as usize)) {
            let mut some = vec![0.0; rows.len() / manifest.dtype.size_bytes()];
            manifest.dtype.decode(rows, &mut some);
            values.extend(some);
        }
        states.insert(key, values);
    }
    states
}

fn all_states() -> Vec<StateId> {
    let names = ["cls", "mean", "words", "tokens"];
    let of = |layer: u8| names.map(|name| format!("{name}-L0{layer}").parse().unwrap());
    [of(1), of(2)].concat()
}

#[test]
fn labels_order_and_texts_that_go_cost_nothing_and_texts_that_come_cost_themselves() {
    let workshop = Workshop::rich(200);
    assert_eq!(counts(&extract(&workshop, &[])), [200, 200, 0]);
    let before = contents(&workshop.cache());
    let unchanged = |file: String, n_texts: u64| {
        workshop.write("train.csv", file);
        assert_eq!(counts(&extract(&workshop, &[])), [n_texts, 0, n_texts]);
        assert_same_files(&before, &contents(&workshop.cache()));
        train(&workshop, &[]);
    };
    let all = texts(200);
    // Other labels, another order without repeated texts, and then half of the texts.
    unchanged(csv(&all, 1), 200);
    unchanged(csv(&all.iter().rev().cloned().collect::<Vec<_>>(), 0), 200);
    unchanged(csv(&all[..100], 0), 100);

    workshop.write("train.csv", csv_with_repeats(202));
    assert_eq!(counts(&extract(&workshop, &[])), [202, 2, 200]);
    let after = contents(&workshop.cache());
    let mut kept = before.keys().filter(|name| *name != "manifest.json");
    assert!(kept.all(|name| before[name] == after[name]));
    assert_eq!(workshop.manifest()["documents"], json!(202));
    train(&workshop, &[]);
    verify(&workshop);
}

#[test]
fn another_order_gives_the_same_bytes_of_every_kind_of_state() {
    let (forward, backward) = (Workshop::rich(120), Workshop::rich(120));
    let file = csv_with_repeats(120);
    let (header, rows) = file.split_once('\n').unwrap();
    let rows: Vec<&str> = rows.lines().rev().collect();
    backward.write("train.csv", format!("{header}\n{}\n", rows.join("\n")));
    for workshop in [&forward, &backward] {
        extract(workshop, &[]);
    }
    assert_same_files(&contents(&forward.path("cache")), &contents(&backward.path("cache")));
}

#[test]
fn states_depend_neither_on_the_batches_nor_on_the_shards_nor_on_threads() {
    let shapes = [
        ("batch_tokens=40", "shard_tokens=400", "1"),
        ("batch_tokens=700", "shard_tokens=2000", "2"),
        ("batch_tokens=1", "shard_tokens=150", "2"),
    ];
    let workshops = shapes.map(|(batch_tokens, shard_tokens, threads)| {
        let workshop = Workshop::rich(90);
        workshop.json(&[
            "extract",
            "pipeline.toml",
            "--threads",
            threads,
            "--set",
            "cache.dtype=f32",
            "--set",
            &format!("model.{batch_tokens}"),
            "--set",
            &format!("cache.{shard_tokens}"),
        ]);
        workshop
    });
    let [first, others @ ..] = &workshops;
    for state in all_states() {
        let expected = states(&first.cache(), state);
        assert_eq!(expected.len(), 90);
        let values = || expected.values().flatten();
        let largest = values().fold(1.0f32, |largest, value| largest.max(value.abs()));
        for other in others {
            let got = states(&other.cache(), state);
            assert!(got.keys().eq(expected.keys()), "{state}: other keys");
            let lengths = |states: &BTreeMap<Key, Vec<f32>>| {
                states.values().map(Vec::len).collect::<Vec<_>>()
            };
            assert_eq!(lengths(&expected), lengths(&got), "{state}");
            let both = values().zip(got.values().flatten());
            let worst = both.fold(0.0f32, |worst, (a, b)| worst.max((a - b).abs()));
            assert!(worst <= 1e-5 * largest, "{state}: {worst}");
        }
    }
}

#[test]
fn what_is_added_stands_beside_what_was_there() {
    let workshop = Workshop::rich(150);
    let steps = [
        ("cache.store=[\"mean\"]", "cache.layers=[-1]", vec![]),
        ("cache.store=[\"mean\"]", "cache.layers=[1, -1]", vec!["mean-L01"]),
        ("cache.store=[\"mean\", \"cls\"]", "cache.layers=[-1]", vec!["cls-L02"]),
        ("cache.store=[\"words\"]", "cache.layers=[-1]", vec!["words", "words-L02"]),
        (
            "cache.store=[\"tokens\", \"mean\"]",
            "cache.layers=[1, -1]",
            vec!["tokens", "tokens-L01", "tokens-L02"],
        ),
        ("cache.store=[\"words\", \"max\"]", "cache.layers=[1]", vec!["words-L01", "max-L01"]),
    ];
    let mut before = BTreeMap::new();
    for (number, (store, layers, added)) in steps.into_iter().enumerate() {
        let report = extract(&workshop, &[store, layers]);
        assert_eq!(counts(&report), [150, 150, 0], "{store} {layers}");
        assert_eq!(
            counts(&extract(&workshop, &[store, layers])),
            [150, 0, 150],
            "{store} {layers}"
        );
        let after = identities(&workshop.cache());
        if number > 0 {
            for (name, identity) in &before {
                assert_eq!(after.get(name), Some(identity), "{name} was written again");
            }
            let shards: BTreeSet<&str> = after.keys().map(|name| &name[..12]).collect();
            assert!(shards.len() > 4, "{shards:?}");
            let expected: BTreeSet<String> = shards
                .iter()
                .flat_map(|shard| added.iter().map(move |name| format!("{shard}/{name}.parquet")))
                .collect();
            let new = after.keys().filter(|name| !before.contains_key(*name));
            assert_eq!(new.cloned().collect::<BTreeSet<_>>(), expected);
        }
        before = after;
        train(&workshop, &["cache.store=[\"mean\"]", "cache.layers=[-1]"]);
    }
    let manifest = workshop.manifest();
    assert_eq!(manifest["documents"], json!(150));
    verify(&workshop);
    // Together, they equal what a single extraction of everything stores, to the last bit of every row.
    let at_once = Workshop::rich(150);
    extract(&at_once, &["cache.store=[\"mean\", \"cls\", \"max\", \"words\", \"tokens\"]"]);
    for state in ["mean-L01", "mean-L02", "cls-L02", "words-L02", "tokens-L01", "max-L01"] {
        let state = state.parse().unwrap();
        assert!(
            states(&workshop.cache(), state) == states(&at_once.cache(), state),
            "{state} differs"
        );
    }
}

#[test]
fn a_state_that_some_texts_ask_for_first_and_then_all_is_there_for_all() {
    for (kind, head) in [("cls", "cls"), ("words", "mean"), ("tokens", "mean")] {
        let workshop = Workshop::rich(150);
        let new = format!("cache.store=[\"mean\", \"{kind}\"]");
        let head = format!("head.pooling={head}");
        let settings = [&new[..], "cache.layers=[-1]", &head];
        extract(&workshop, &["cache.store=[\"mean\"]", "cache.layers=[-1]"]);
        let before = identities(&workshop.cache());

        let all = texts(150);
        let subset: Vec<String> = all.iter().step_by(3).cloned().collect();
        workshop.write("train.csv", csv(&subset, 0));
        assert_eq!(counts(&extract(&workshop, &settings)), [50, 50, 0]);
        assert_eq!(workshop.manifest()["documents"], json!(150));
        train(&workshop, &settings);
        let after = identities(&workshop.cache());
        assert!(before.iter().all(|(name, identity)| after.get(name) == Some(identity)));
        let new_shards: Vec<&String> =
            after.keys().filter(|name| !before.contains_key(*name)).collect();
        assert!(!new_shards.iter().any(|name| name.contains("mean")), "{new_shards:?}");

        workshop.write("train.csv", csv_with_repeats(150));
        assert_eq!(counts(&extract(&workshop, &settings)), [150, 100, 50]);
        assert_eq!(counts(&extract(&workshop, &settings)), [150, 0, 150]);
        assert_eq!(workshop.manifest()["documents"], json!(150));
        let at_once = Workshop::rich(150);
        extract(&at_once, &settings);
        for name in ["tokens", "truncated"] {
            assert_eq!(workshop.manifest()[name], at_once.manifest()[name], "{name}");
        }
        for state in ["mean-L02", &format!("{kind}-L02")] {
            let state: StateId = state.parse().unwrap();
            let (grown, whole) =
                (states(&workshop.cache(), state), states(&at_once.cache(), state));
            assert_eq!(grown.len(), 150, "{state}");
            // A different batch may change the last bit of the stored values.
            let both = grown.values().flatten().zip(whole.values().flatten());
            assert!(grown.keys().eq(whole.keys()));
            for (a, b) in both {
                assert!((a - b).abs() <= 2e-3 * b.abs().max(1.0), "{state}: {a} {b}");
            }
        }
        train(&workshop, &settings);
        verify(&workshop);
    }
}

#[test]
fn texts_without_a_word_have_states_too() {
    // A control character is not white space, but the tokenizer drops it, so only special tokens are left.
    let workshop = Workshop::rich(30);
    let mut all = texts(2);
    all.extend(["\u{1}", "\u{2}", "\u{1}\u{1}"].map(String::from));
    workshop.write("train.csv", csv(&all, 0));
    // Every text is in its own shard, so some shards have no word states at all.
    assert_eq!(counts(&extract(&workshop, &["cache.shard_tokens=1"])), [5, 5, 0]);
    let words = states(&workshop.cache(), StateId { kind: StateKind::Words, layer: 2 });
    assert_eq!(words.values().filter(|rows| rows.is_empty()).count(), 3);
    train(&workshop, &[]);
    verify(&workshop);
}

#[test]
fn the_parity_of_every_origin_is_measured_and_small() {
    for dtype in [Dtype::F32, Dtype::F16] {
        let workshop = Workshop::rich(120);
        let dtype_setting = format!("cache.dtype={}", dtype.name());
        // Two origins per shard: two states of one layer, and then the rest.
        extract(
            &workshop,
            &[&dtype_setting, "cache.store=[\"mean\", \"words\"]", "cache.layers=[-1]"],
        );
        extract(&workshop, &[&dtype_setting]);
        let all = all_states().into_iter();
        let values = all.flat_map(|state| states(&workshop.cache(), state).into_values().flatten());
        let largest = values.fold(0.0f32, |largest, value| largest.max(value.abs()));
        let manifest = workshop.manifest();
        let shards = manifest["shards"].as_array().unwrap();
        assert!(shards.len() > 4);
        for origin in shards.iter().flat_map(|shard| {
            let origins = shard["origins"].as_array().unwrap();
            assert_eq!(origins.len(), 2);
            origins
        }) {
            let parity = &origin["parity"];
            let number = |name: &str| parity[name].as_f64().unwrap();
            assert!(parity["documents"].as_u64() > Some(0), "{origin}");
            assert!(parity["tokens"].as_u64() > parity["documents"].as_u64(), "{origin}");
            assert!(number("median_error") <= number("max_error"), "{origin}");
            let rounding = number("max_rounding");
            match dtype {
                Dtype::F32 => {
                    assert!(number("max_error") < 1e-5 * f64::from(largest), "{origin}");
                    assert_eq!(rounding, 0.0, "{origin}");
                }
                Dtype::F16 => {
                    // The spacing of f16 at the largest value.
                    let step = f64::from(largest.log2().floor().exp2()) / 1024.0;
                    assert!(rounding > 0.0 && rounding <= step / 2.0, "{origin}");
                    assert!((number("max_error") - rounding).abs() <= step, "{origin}");
                }
            }
        }
    }
}

#[test]
fn other_settings_after_a_kill_plan_anew_and_lose_nothing() {
    // A kill leaves a cache with some shards and a plan; this is simulated by dropping shards from a complete cache.
    let workshop = Workshop::rich(150);
    extract(&workshop, &[]);
    let whole = contents(&workshop.cache());
    let path = workshop.cache().join("manifest.json");
    let mut manifest = workshop.manifest();
    let shards = manifest["shards"].as_array_mut().unwrap();
    shards.truncate(3);
    let [kept, tokens] = ["documents", "tokens"].map(|count| {
        let counts = shards.iter().map(|shard| shard[count].as_u64().unwrap());
        counts.sum::<u64>()
    });
    (manifest["documents"], manifest["tokens"]) = (json!(kept), json!(tokens));
    let manifest: Manifest = serde_json::from_value(manifest).unwrap();
    manifest.write(path.parent().unwrap()).unwrap();
    let plan = json!({
        "settings": { "shard_tokens": 400, "batch_tokens": 256 },
        "states": ["mean-L02"], "first_shard": 3, "added": [], "documents": 1, "keys": "0".repeat(64),
    });
    fs::write(workshop.cache().join("plan-0.json"), plan.to_string()).unwrap();
    let left: BTreeMap<_, _> = whole
        .iter()
        .filter(|(name, _)| ["shard-000000", "shard-000001", "shard-000002"].contains(&&name[..12]))
        .collect();

    // An extraction that fails before its first commit does not remove the plan.
    workshop.fail(&["extract", "pipeline.toml", "--ort-lib", "nowhere.so"]);
    assert!(workshop.cache().join("plan-0.json").is_file());
    let ran = workshop.succeed(&[
        "extract",
        "pipeline.toml",
        "--set",
        "cache.shard_tokens=300",
        "--json",
    ]);
    assert!(
        ran.stderr.contains("what it committed is kept, the rest is planned again"),
        "{}",
        ran.stderr
    );
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(counts(&report), [150, 150 - kept, kept]);
    let after = contents(&workshop.cache());
    assert!(left.iter().all(|(name, bytes)| after.get(*name) == Some(*bytes)));
    assert!(!after.keys().any(|name| name.starts_with("plan-")));
    verify(&workshop);
    for state in all_states() {
        assert_eq!(states(&workshop.cache(), state).len(), 150);
    }
}

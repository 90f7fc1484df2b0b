//! What a sound cache must not contain: states that are not finite, and files that do not match the manifest.

use std::{collections::BTreeMap, fs, path::Path};

use frostbert::cache::{
    Error,
    fingerprint::Key,
    manifest::Manifest,
    reader::CacheReader,
    states::StateId,
    verify::{damaged_files, repair},
};
use serde_json::{Value, json};

use crate::{
    incremental::{counts, states},
    support::{Workshop, contents, csv, texts},
};

const EXTRACT: [&str; 2] = ["extract", "pipeline.toml"];

fn n_shards(workshop: &Workshop) -> usize {
    workshop.manifest()["shards"].as_array().unwrap().len()
}

/// Copies the tiny model to `model`, with another value at the start of a row of one of its tensors.
pub(crate) fn patch_model(workshop: &Workshop, tensor: &str, row: usize, value: f32) {
    let model = workshop.copy_model("model").join("model.safetensors");
    let mut bytes = std::fs::read(&model).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let tensors: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let tensor = &tensors[tensor];
    assert_eq!(tensor["dtype"], json!("F32"));
    let columns = tensor["shape"][1].as_u64().unwrap_or(1) as usize;
    let place =
        8 + header + tensor["data_offsets"][0].as_u64().unwrap() as usize + row * columns * 4;
    bytes[place..place + 4].copy_from_slice(&value.to_le_bytes());
    std::fs::write(&model, bytes).unwrap();
}

#[test]
fn a_state_that_half_precision_cannot_hold_stops_the_run_and_single_precision_holds_it() {
    for kind in ["cls", "mean", "max", "words", "tokens"] {
        let workshop = Workshop::tiny();
        patch_model(&workshop, "encoder.layer.1.output.LayerNorm.bias", 5, 1e6);
        let stored = format!("cache.store=[\"{kind}\"]");
        let extract = [&EXTRACT[..], &["--set", "model.path=model", "--set", &stored]].concat();
        let stderr = workshop.fail(&extract);
        for part in
            ["train.csv:", kind, "layer 2", "f16 cannot store", "hint: set cache.dtype = \"f32\""]
        {
            assert!(stderr.contains(part), "no `{part}` in {stderr}");
        }
        assert!(!workshop.cache().join("manifest.json").exists());
        workshop.json(&[&extract[..], &["--set", "cache.dtype=f32"]].concat());
    }
}

#[test]
fn an_infinite_state_stops_the_run_in_single_precision_too() {
    for (kind, value) in
        [("mean", f32::INFINITY), ("words", f32::NEG_INFINITY), ("tokens", f32::INFINITY)]
    {
        let workshop = Workshop::tiny();
        patch_model(&workshop, "encoder.layer.1.output.LayerNorm.bias", 5, value);
        let stored = format!("cache.store=[\"{kind}\"]");
        let arguments = ["--set", "model.path=model", "--set", &stored, "--set", "cache.dtype=f32"];
        let stderr = workshop.fail(&[&EXTRACT[..], &arguments].concat());
        for part in ["train.csv:", kind, "infinity, which f32 cannot store", "hint: "] {
            assert!(stderr.contains(part), "no `{part}` in {stderr}");
        }
        assert!(!workshop.cache().join("manifest.json").exists());
    }
}

#[test]
fn a_state_that_is_no_number_stops_the_run_names_the_text_and_leaves_the_others() {
    // The id of the word `bad` in the tiny vocabulary. The word occurs in a single text, on line 42 including the
    // header.
    const BAD: usize = 78;
    for (kind, threads) in
        [("cls", "1"), ("mean", "2"), ("max", "2"), ("words", "2"), ("tokens", "1")]
    {
        let workshop = Workshop::tiny();
        patch_model(&workshop, "embeddings.word_embeddings.weight", BAD, f32::NAN);
        let good: Vec<String> =
            texts(120).iter().map(|text| text.replace("bad", "good film")).collect();
        let mut all = good.clone();
        all[40] = "the film is bad".into();
        workshop.write("train.csv", csv(&all, 0));
        let stored = format!("cache.store=[\"{kind}\"]");
        let arguments = ["--threads", threads, "--set", "model.path=model", "--set", &stored];
        let extract = [&EXTRACT[..], &arguments].concat();
        let stderr = workshop.fail(&extract);
        for part in ["error: ", kind, "layer 2", "train.csv:42 ", "NaN", "f16", "hint: "] {
            assert!(stderr.contains(part), "no `{part}` in {stderr}");
        }
        let finite = |n_documents: std::ops::RangeInclusive<usize>| {
            let state: StateId = format!("{kind}-L02").parse().unwrap();
            let states = states(&workshop.cache(), state);
            assert!(n_documents.contains(&states.len()), "{}", states.len());
            assert!(states.values().flatten().all(|value| value.is_finite()));
            states.len() as u64
        };
        let left =
            if workshop.cache().join("manifest.json").exists() { finite(1..=119) } else { 0 };
        all.remove(40);
        workshop.write("train.csv", csv(&all, 0));
        assert_eq!(counts(&workshop.json(&extract)), [119, 119 - left, left]);
        finite(119..=119);
    }
}

#[test]
fn a_flipped_byte_is_found_by_verify_and_by_whatever_reads_it() {
    let workshop = Workshop::tiny();
    workshop.json(&EXTRACT);
    let whole = workshop.json(&["cache", "verify", "cache"]);
    assert_eq!((&whole["shards"], &whole["damaged"]), (&json!(n_shards(&workshop)), &json!([])));
    let original = contents(&workshop.cache());
    let states_and_documents: Vec<&String> =
        original.keys().filter(|name| name.contains("shard-000001")).collect();
    assert_eq!(states_and_documents.len(), 2, "{states_and_documents:?}");
    for name in states_and_documents {
        let path = workshop.cache().join(name);
        for place in [0, original[name].len() / 2, original[name].len() - 1] {
            let mut bytes = original[name].clone();
            bytes[place] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            let ran = workshop.run(&["cache", "verify", "cache", "--json"]);
            let report: Value = serde_json::from_str(&ran.stdout).unwrap();
            assert_eq!(ran.code, Some(1), "{name} at {place}");
            assert_eq!(report["damaged"].as_array().unwrap().len(), 1, "{report}");
            assert!(report["damaged"][0].as_str().unwrap().ends_with(name.as_str()), "{report}");
            let stderr = workshop.fail(&["train", "pipeline.toml"]);
            assert!(stderr.contains(&format!("{name}` is damaged: expected blake3")), "{stderr}");
        }
        std::fs::remove_file(&path).unwrap();
        let stderr = workshop.fail(&["train", "pipeline.toml"]);
        assert!(stderr.contains("got no such file"), "{stderr}");
        std::fs::write(&path, &original[name]).unwrap();
    }
    workshop.succeed(&["train", "pipeline.toml"]);
}

#[test]
fn a_damaged_manifest_is_never_taken_for_an_empty_cache() {
    let workshop = Workshop::tiny();
    workshop.json(&EXTRACT);
    let path = workshop.cache().join("manifest.json");
    let manifest = std::fs::read_to_string(&path).unwrap();
    let halved = manifest[..manifest.len() / 2].to_string();
    for damaged in [halved, manifest.replace("\"max_length\": 32", "\"max_length\": 33")] {
        assert_ne!(damaged, manifest);
        std::fs::write(&path, damaged).unwrap();
        for command in ["extract", "train"] {
            let stderr = workshop.fail(&[command, "pipeline.toml"]);
            assert!(stderr.contains("manifest.json` is damaged: expected"), "{stderr}");
        }
    }
    std::fs::write(&path, manifest).unwrap();
    workshop.succeed(&["train", "pipeline.toml"]);
}

#[test]
fn verify_tells_of_a_damaged_manifest_in_json_too_and_goes_on_to_other_caches() {
    let workshop = Workshop::tiny();
    workshop.json(&EXTRACT);
    let path = workshop.cache().join("manifest.json");
    workshop.json(&["extract", "pipeline.toml", "--set", "cache.max_length=16"]);
    std::fs::write(&path, "{").unwrap();
    let ran = workshop.run(&["cache", "verify", "cache", "--json"]);
    assert_eq!(ran.code, Some(1));
    let report: Value = serde_json::from_str(&ran.stdout)
        .unwrap_or_else(|error| panic!("no JSON ({error}), but on stderr: {}", ran.stderr));
    let damaged = report["damaged"].as_array().unwrap();
    assert_eq!(damaged.len(), 1, "{report}");
    assert!(damaged[0].as_str().unwrap().ends_with("manifest.json"), "{report}");
    assert!(
        report["shards"].as_u64() > Some(3),
        "the whole cache beside it was not checked: {report}"
    );
}

#[test]
fn a_damaged_cache_stands_in_the_way_of_no_other() {
    let workshop = Workshop::tiny();
    workshop.json(&EXTRACT);
    std::fs::write(workshop.cache().join("manifest.json"), "{").unwrap();
    let other = ["--set", "cache.max_length=16"];
    workshop.json(&[&EXTRACT[..], &other].concat());
    workshop.json(&[&["train", "pipeline.toml"], &other[..]].concat());
}

/// Opens every file of every shard as the stages do: the documents, the tables, and each state.
fn open_all(cache: &Path) -> Result<(), Error> {
    let Some(reader) = CacheReader::open(cache)? else {
        return Ok(());
    };
    for shard in 0..reader.manifest().shards.len() as u32 {
        reader.read_layout(shard)?;
        for state in reader.shard(shard).states() {
            reader.open_state(shard, state)?;
        }
    }
    Ok(())
}

#[test]
fn a_damaged_file_of_any_kind_is_named_with_its_cure_and_costs_one_shard() {
    let whole = Workshop::rich(120);
    whole.json(&EXTRACT);
    let original = contents(&whole.cache());
    let expected: BTreeMap<Key, Vec<f32>> = states(&whole.cache(), "tokens-L02".parse().unwrap());
    let of_shard = whole.manifest()["shards"][1]["documents"].as_u64().unwrap();
    let files: Vec<&String> =
        original.keys().filter(|name| name.starts_with("shard-000001/")).collect();
    // Documents, two tables, and four states of two layers.
    assert_eq!(files.len(), 11, "{files:?}");
    for (number, name) in files.into_iter().enumerate() {
        let workshop = Workshop::rich(120);
        crate::support::copy_folder(&whole.path("cache"), &workshop.path("cache"));
        let cache = workshop.cache();
        let path = cache.join(name);
        match number % 3 {
            0 => fs::remove_file(&path).unwrap(),
            1 => fs::write(&path, &original[name][..original[name].len() - 1]).unwrap(),
            _ => {
                let mut bytes = original[name].clone();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                fs::write(&path, bytes).unwrap();
            }
        }
        let ran = workshop.run(&["cache", "verify", "cache", "--json"]);
        assert_eq!(ran.code, Some(1), "{name}");
        let report: Value = serde_json::from_str(&ran.stdout).unwrap();
        let damaged = report["damaged"].as_array().unwrap();
        assert_eq!(damaged.len(), 1, "{report}");
        assert!(damaged[0].as_str().unwrap().ends_with(name.as_str()), "{report}");

        let error = open_all(&cache).unwrap_err();
        assert!(matches!(&error, Error::Damage { .. }), "{error}");
        assert!(error.to_string().contains(name.as_str()), "{error}");
        let hint = error.hint().unwrap();
        assert!(
            hint.contains("cache verify --repair") && hint.contains("frostbert extract"),
            "{hint}"
        );
        // Stage 1 verifies the table of documents, but never removes anything by itself.
        let ran = workshop.run(&EXTRACT);
        let code = if name.ends_with("docs.parquet") { 3 } else { 0 };
        assert_eq!(ran.code, Some(code), "{}", ran.stderr);
        let others = contents(&cache);
        let mut kept = original.keys().filter(|other| *other != name);
        assert!(kept.all(|other| original[other] == others[other]), "{name}");

        assert!(!damaged_files(&cache, &Manifest::open(&cache).unwrap()).is_empty());
        assert_eq!(repair(&cache, &()).unwrap().dropped, ["shard-000001"]);
        open_all(&cache).unwrap();
        let report = workshop.json(&EXTRACT);
        assert_eq!(counts(&report), [120, of_shard, 120 - of_shard], "{name}");
        assert!(states(&cache, "tokens-L02".parse().unwrap()) == expected, "{name}");
        let (manifest, was) = (workshop.manifest(), whole.manifest());
        for count in ["documents", "tokens", "truncated"] {
            assert_eq!(manifest[count], was[count], "{name}");
        }
    }
}

#[test]
fn shards_without_a_manifest_are_never_thrown_away() {
    let workshop = Workshop::tiny();
    workshop.json(&EXTRACT);
    let path = workshop.cache().join("manifest.json");
    let manifest = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let left = contents(&workshop.cache());
    let stderr = workshop.fail(&EXTRACT);
    for part in [
        "manifest.json` is damaged: expected the manifest of ",
        " shards, got no such file",
        "hint: ",
    ] {
        assert!(stderr.contains(part), "no `{part}` in {stderr}");
    }
    crate::support::assert_same_files(&left, &contents(&workshop.cache()));
    fs::write(&path, manifest).unwrap();
    assert_eq!(counts(&workshop.json(&EXTRACT)), [120, 0, 120]);
}

#[test]
fn a_text_of_more_windows_than_can_be_numbered_is_refused() {
    let workshop = Workshop::tiny();
    workshop.write("train.csv", csv(&["the ".repeat(200_000)], 0));
    let windows = ["--set", "cache.overflow=windows", "--set", "cache.stride=27"];
    let stderr = workshop.fail(&[&EXTRACT[..], &windows].concat());
    let expected =
        "the ...` takes 66658 windows, of which 65535 can be numbered: split it into several texts";
    assert!(stderr.contains(expected), "{stderr}");
}

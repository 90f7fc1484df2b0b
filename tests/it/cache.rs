//! Stage 1 through the program: what is computed, what is reused, and that the bytes depend on nothing else.

use serde_json::{Value, json};

use crate::support::{
    TINY_PIPELINE, TINY_ROWS, Workshop, assert_same_files, contents, csv, fixture, texts,
};

const EXTRACT: [&str; 2] = ["extract", "pipeline.toml"];

fn counts(report: &Value) -> [u64; 4] {
    ["documents", "unique", "computed", "reused"].map(|key| report[key].as_u64().unwrap())
}

fn n_shards(workshop: &Workshop) -> usize {
    workshop.manifest()["shards"].as_array().unwrap().len()
}

#[test]
fn a_second_run_computes_nothing_and_changes_no_file() {
    let workshop = Workshop::tiny();
    let first = workshop.json(&EXTRACT);
    assert_eq!(
        counts(&first),
        [TINY_ROWS as u64, TINY_ROWS as u64, TINY_ROWS as u64, 0]
    );
    assert!(
        n_shards(&workshop) > 3,
        "{} shards are too few for this test",
        n_shards(&workshop)
    );
    let before = contents(&workshop.cache());
    let second = workshop.json(&EXTRACT);
    assert_eq!(
        counts(&second),
        [TINY_ROWS as u64, TINY_ROWS as u64, 0, TINY_ROWS as u64]
    );
    assert_eq!(
        (&second["tokens"], &second["bytes_written"]),
        (&json!(0), &json!(0))
    );
    assert_same_files(&before, &contents(&workshop.cache()));
}

#[test]
fn a_second_run_needs_no_onnx_runtime() {
    let workshop = Workshop::tiny();
    workshop.json(&EXTRACT);
    workshop.json(&["extract", "pipeline.toml", "--ort-lib", "nowhere.so"]);
    workshop.json(&["train", "pipeline.toml", "--ort-lib", "nowhere.so"]);
}

#[test]
fn new_rows_cost_only_themselves() {
    let workshop = Workshop::tiny();
    workshop.json(&EXTRACT);
    let before = contents(&workshop.cache());
    let grown = texts(TINY_ROWS + 17);
    workshop.write("train.csv", csv(&grown, 0));
    let report = workshop.json(&EXTRACT);
    let n_rows = grown.len() as u64;
    assert_eq!(counts(&report), [n_rows, n_rows, 17, TINY_ROWS as u64]);
    assert_eq!(workshop.manifest()["documents"], json!(n_rows));
    let after = contents(&workshop.cache());
    for (name, bytes) in before.iter().filter(|(name, _)| *name != "manifest.json") {
        assert_eq!(
            after.get(name),
            Some(bytes),
            "{name} was committed and has changed"
        );
    }
}

#[test]
fn another_order_of_the_file_gives_the_same_bytes() {
    let (forward, backward) = (Workshop::tiny(), Workshop::tiny());
    let mut reversed = texts(TINY_ROWS);
    reversed.reverse();
    backward.write("train.csv", csv(&reversed, 0));
    forward.json(&EXTRACT);
    backward.json(&EXTRACT);
    assert_same_files(
        &contents(&forward.path("cache")),
        &contents(&backward.path("cache")),
    );
}

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    let caches = ["1", "2", "3"].map(|threads| {
        let workshop = Workshop::tiny();
        workshop.json(&["extract", "pipeline.toml", "--threads", threads]);
        contents(&workshop.path("cache"))
    });
    assert_same_files(&caches[0], &caches[1]);
    assert_same_files(&caches[0], &caches[2]);
}

#[test]
fn the_manifest_holds_no_time_no_process_and_no_host() {
    // Two extractions at two times in two folders, the second over files of another name.
    let (first, second) = (Workshop::tiny(), Workshop::tiny());
    second.write("other.csv", csv(&texts(TINY_ROWS), 0));
    second.write_pipeline(&TINY_PIPELINE.replace("train.csv", "other.csv"));
    first.json(&EXTRACT);
    second.json(&EXTRACT);
    assert_same_files(
        &contents(&first.path("cache")),
        &contents(&second.path("cache")),
    );
    let manifest = first.manifest().to_string();
    let folder = first.path("").display().to_string();
    assert!(
        !manifest.contains(folder.trim_end_matches('/')),
        "{manifest}"
    );
}

#[test]
fn another_max_length_is_another_cache_and_the_command_says_so() {
    let workshop = Workshop::tiny();
    workshop.succeed(&["extract", "pipeline.toml", "--set", "cache.max_length=64"]);
    let ran = workshop.succeed(&["extract", "pipeline.toml", "--set", "cache.max_length=32"]);
    assert!(ran.stderr.contains("max_length 64 -> 32"), "{}", ran.stderr);
    let caches = workshop.json(&["cache", "ls"]);
    assert_eq!(caches["caches"].as_array().unwrap().len(), 2);
}

#[test]
fn another_model_is_another_cache_and_the_command_says_so() {
    let workshop = Workshop::tiny();
    workshop.succeed(&EXTRACT);
    let other = fixture("tiny_bert_gamma_beta").display().to_string();
    let ran = workshop.succeed(&[
        "extract",
        "pipeline.toml",
        "--set",
        &format!("model.path={other}"),
    ]);
    assert!(ran.stderr.contains("differs in weights "), "{}", ran.stderr);
    let ran = workshop.succeed(&["extract", "pipeline.toml", "--set", "cache.dtype=f32"]);
    assert!(ran.stderr.contains("dtype f16 -> f32"), "{}", ran.stderr);
}

#[test]
fn a_state_that_is_added_to_an_old_cache_can_be_trained_on() {
    let workshop = Workshop::tiny();
    workshop.json(&[
        "extract",
        "pipeline.toml",
        "--set",
        "cache.store=[\"mean\"]",
    ]);
    let fingerprint = workshop.manifest()["fingerprint"].clone();
    let train = |pooling: &str| {
        let pooling = format!("head.pooling={pooling}");
        let arguments = [
            "train",
            "pipeline.toml",
            "--set",
            "cache.store=[\"cls\", \"mean\"]",
            "--set",
            &pooling,
        ];
        workshop.run(&arguments)
    };
    let ran = train("cls");
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr
            .contains("lacks the cls-L02 state of 120 of 120 texts"),
        "{}",
        ran.stderr
    );

    let report = workshop.json(&[
        "extract",
        "pipeline.toml",
        "--set",
        "cache.store=[\"cls\", \"mean\"]",
    ]);
    assert_eq!(report["fingerprint"], fingerprint);
    assert_eq!(workshop.manifest()["documents"], json!(TINY_ROWS));
    for pooling in ["cls", "mean"] {
        let ran = train(pooling);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    }
    let again = workshop.json(&[
        "extract",
        "pipeline.toml",
        "--set",
        "cache.store=[\"mean\", \"cls\"]",
    ]);
    assert_eq!(again["computed"], json!(0));
    assert_eq!(
        workshop.json(&["cache", "verify", "cache"])["damaged"],
        json!([])
    );
}

#[test]
fn a_corpus_without_labels_is_extracted() {
    let workshop = Workshop::tiny();
    workshop.write("corpus.txt", texts(30).join("\n"));
    workshop.write_pipeline(
        &TINY_PIPELINE
            .replace("train.csv", "corpus.txt")
            .replace("[train]\nepochs = 3\n", ""),
    );
    assert_eq!(counts(&workshop.json(&EXTRACT)), [30, 30, 30, 0]);
    // The same texts with labels are the same documents.
    workshop.write("train.csv", csv(&texts(30), 0));
    workshop.write_pipeline(TINY_PIPELINE);
    assert_eq!(counts(&workshop.json(&EXTRACT)), [30, 30, 0, 30]);
}

#[test]
fn a_repeated_text_is_encoded_once_and_an_empty_one_never() {
    let workshop = Workshop::tiny();
    let mut lines = texts(10);
    lines.extend(texts(10));
    lines.push("   ".into());
    lines.extend(texts(10));
    workshop.write("corpus.txt", lines.join("\n"));
    workshop.write_pipeline(&TINY_PIPELINE.replace("train.csv", "corpus.txt"));
    assert_eq!(counts(&workshop.json(&EXTRACT)), [31, 10, 10, 0]);
    assert_eq!(workshop.manifest()["documents"], json!(10));
}

#[test]
fn truncated_texts_are_counted_and_warned_of_on_every_run() {
    let workshop = Workshop::tiny();
    let long = "the snow is very cold and ".repeat(10);
    workshop.write(
        "train.csv",
        csv(&[texts(8), vec![long.clone(), long + "not"]].concat(), 0),
    );
    for computed in [10, 0] {
        let ran = workshop.succeed(&["extract", "pipeline.toml", "--json", "--quiet"]);
        let report: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!(
            (&report["truncated"], &report["computed"]),
            (&json!(2), &json!(computed))
        );
        let warning = "warning: 2 of 10 texts are longer than 32 tokens";
        assert!(ran.stderr.starts_with(warning), "{}", ran.stderr);
    }
    assert_eq!(workshop.manifest()["truncated"], json!(2));
}

/// A copy of the tiny model, in `model`, with another value at the start of a row of one of its tensors.
fn patch_model(workshop: &Workshop, tensor: &str, row: usize, value: f32) {
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
    let workshop = Workshop::tiny();
    patch_model(&workshop, "encoder.layer.1.output.LayerNorm.bias", 5, 1e6);
    let extract = ["extract", "pipeline.toml", "--set", "model.path=model"];
    let stderr = workshop.fail(&extract);
    for part in [
        "train.csv:",
        "mean",
        "layer 2",
        "f16 cannot store",
        "hint: set cache.dtype = \"f32\"",
    ] {
        assert!(stderr.contains(part), "no `{part}` in {stderr}");
    }
    workshop.json(&[&extract[..], &["--set", "cache.dtype=f32"]].concat());
}

#[test]
fn a_state_that_is_no_number_stops_the_run_and_names_the_text() {
    // The word `bad` has this id in the tiny vocabulary, and stands in the third text alone: on line 4, after the header.
    const BAD: usize = 78;
    for pooling in ["cls", "mean", "max"] {
        let workshop = Workshop::tiny();
        patch_model(
            &workshop,
            "embeddings.word_embeddings.weight",
            BAD,
            f32::NAN,
        );
        workshop.write(
            "train.csv",
            "text,label\nthe film,a\nsnow is cold,b\nthe film is bad,a\nwarm snow,b\n",
        );
        let stored = format!("cache.store=[\"{pooling}\"]");
        let stderr = workshop.fail(&[
            "extract",
            "pipeline.toml",
            "--set",
            "model.path=model",
            "--set",
            &stored,
        ]);
        for part in [
            "error: ",
            pooling,
            "layer 2",
            "train.csv:4 ",
            "NaN",
            "f16",
            "hint: ",
        ] {
            assert!(stderr.contains(part), "no `{part}` in {stderr}");
        }
        assert!(!workshop.cache().join("manifest.json").exists());
    }
}

#[test]
fn a_flipped_byte_is_found_by_verify_and_by_whatever_reads_it() {
    let workshop = Workshop::tiny();
    workshop.json(&EXTRACT);
    let whole = workshop.json(&["cache", "verify", "cache"]);
    assert_eq!(
        (&whole["shards"], &whole["damaged"]),
        (&json!(n_shards(&workshop)), &json!([]))
    );
    let original = contents(&workshop.cache());
    let states_and_documents: Vec<&String> = original
        .keys()
        .filter(|name| name.contains("shard-000001"))
        .collect();
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
            assert!(
                report["damaged"][0]
                    .as_str()
                    .unwrap()
                    .ends_with(name.as_str()),
                "{report}"
            );
            let stderr = workshop.fail(&["train", "pipeline.toml"]);
            assert!(
                stderr.contains(&format!("{name}` is damaged: expected blake3")),
                "{stderr}"
            );
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
    for damaged in [
        halved,
        manifest.replace("\"max_length\": 32", "\"max_length\": 33"),
    ] {
        assert_ne!(damaged, manifest);
        std::fs::write(&path, damaged).unwrap();
        for command in ["extract", "train"] {
            let stderr = workshop.fail(&[command, "pipeline.toml"]);
            assert!(
                stderr.contains("manifest.json` is damaged: expected"),
                "{stderr}"
            );
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
    assert!(
        damaged[0].as_str().unwrap().ends_with("manifest.json"),
        "{report}"
    );
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

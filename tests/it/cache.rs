//! Stage 1 through the program: what is computed and what is reused, and that the bytes depend on nothing else.

use serde_json::{Value, json};

use crate::support::{
    TINY_PIPELINE, TINY_ROWS, Workshop, assert_same_files, contents, csv, fixture, read_json, texts,
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
    assert_eq!(counts(&first), [TINY_ROWS as u64, TINY_ROWS as u64, TINY_ROWS as u64, 0]);
    assert!(n_shards(&workshop) > 3, "{} shards are too few for this test", n_shards(&workshop));
    let before = contents(&workshop.cache());
    let second = workshop.json(&EXTRACT);
    assert_eq!(counts(&second), [TINY_ROWS as u64, TINY_ROWS as u64, 0, TINY_ROWS as u64]);
    assert_eq!((&second["tokens"], &second["bytes_written"]), (&json!(0), &json!(0)));
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
        assert_eq!(after.get(name), Some(bytes), "{name} was committed and has changed");
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
    assert_same_files(&contents(&forward.path("cache")), &contents(&backward.path("cache")));
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
    // Two extractions at different times in different folders, the second of a file with another name.
    let (first, second) = (Workshop::tiny(), Workshop::tiny());
    second.write("other.csv", csv(&texts(TINY_ROWS), 0));
    second.write_pipeline(&TINY_PIPELINE.replace("train.csv", "other.csv"));
    first.json(&EXTRACT);
    second.json(&EXTRACT);
    assert_same_files(&contents(&first.path("cache")), &contents(&second.path("cache")));
    let manifest = first.manifest().to_string();
    let folder = first.path("").display().to_string();
    assert!(!manifest.contains(folder.trim_end_matches('/')), "{manifest}");
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
    let ran =
        workshop.succeed(&["extract", "pipeline.toml", "--set", &format!("model.path={other}")]);
    assert!(ran.stderr.contains("differs in weights "), "{}", ran.stderr);
    let ran = workshop.succeed(&["extract", "pipeline.toml", "--set", "cache.dtype=f32"]);
    assert!(ran.stderr.contains("dtype f16 -> f32"), "{}", ran.stderr);
}

#[test]
fn a_state_that_is_added_to_an_old_cache_can_be_trained_on() {
    let workshop = Workshop::tiny();
    workshop.json(&["extract", "pipeline.toml", "--set", "cache.store=[\"mean\"]"]);
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
    assert_eq!(ran.code, Some(4));
    assert!(ran.stderr.contains("lacks the cls-L02 state of 120 of 120 texts"), "{}", ran.stderr);

    let report =
        workshop.json(&["extract", "pipeline.toml", "--set", "cache.store=[\"cls\", \"mean\"]"]);
    assert_eq!(report["fingerprint"], fingerprint);
    assert_eq!(workshop.manifest()["documents"], json!(TINY_ROWS));
    for pooling in ["cls", "mean"] {
        let ran = train(pooling);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    }
    let again =
        workshop.json(&["extract", "pipeline.toml", "--set", "cache.store=[\"mean\", \"cls\"]"]);
    assert_eq!(again["computed"], json!(0));
    assert_eq!(workshop.json(&["cache", "verify", "cache"])["damaged"], json!([]));
}

#[test]
fn a_corpus_without_labels_is_extracted() {
    let workshop = Workshop::tiny();
    workshop.write("corpus.txt", texts(30).join("\n"));
    workshop.write_pipeline(
        &TINY_PIPELINE.replace("train.csv", "corpus.txt").replace("[train]\nepochs = 3\n", ""),
    );
    assert_eq!(counts(&workshop.json(&EXTRACT)), [30, 30, 30, 0]);
    // With labels, the same texts are still the same documents.
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
    workshop.write("train.csv", csv(&[texts(8), vec![long.clone(), long + "not"]].concat(), 0));
    for computed in [10, 0] {
        let ran = workshop.succeed(&["extract", "pipeline.toml", "--json", "--quiet"]);
        let report: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert_eq!((&report["truncated"], &report["computed"]), (&json!(2), &json!(computed)));
        let warning = "warning: 2 of 10 texts are longer than 32 tokens";
        assert!(ran.stderr.starts_with(warning), "{}", ran.stderr);
    }
    assert_eq!(workshop.manifest()["truncated"], json!(2));
}

#[test]
fn a_text_of_no_token_at_all_is_named() {
    let workshop = Workshop::tiny();
    let model = workshop.copy_model("model");
    let path = model.join("tokenizer.json");
    let mut tokenizer = read_json(&path);
    // Without a post-processor, there are no special tokens either.
    tokenizer["post_processor"] = Value::Null;
    workshop.write("model/tokenizer.json", tokenizer.to_string());
    workshop.write("train.csv", "text,label\ncold snow,cold\n  ,warm\n");
    let stderr = workshop.fail(&[
        "extract",
        "pipeline.toml",
        "--set",
        "model.path=model",
        "--set",
        "data.clean.drop_empty=false",
    ]);
    let expected =
        "error: train.csv:3: expected a text of at least one token, got one without tokens";
    assert!(stderr.contains(expected), "{stderr}");
}

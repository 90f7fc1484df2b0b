//! Model folders from untrusted sources: no number, nesting or table in them may end the program in any other way than
//! with an error that names the file. Also, the memory for a text of any length is bounded by what is kept of it.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Workshop, csv, read_json, texts};

const EXTRACT: [&str; 4] = ["extract", "pipeline.toml", "--set", "model.path=model"];

/// Rewrites a file of the model with one change.
fn change(workshop: &Workshop, file: &str, change: impl FnOnce(&mut Value)) {
    let path = workshop.path("model").join(file);
    let mut json = read_json(&path);
    change(&mut json);
    fs::write(path, json.to_string()).unwrap();
}

/// Runs a command that must fail and name the file in its error.
fn fail_at(workshop: &Workshop, file: &str, arguments: &[&str]) {
    let ran = workshop.run(arguments);
    let said = format!("{}{}", ran.stdout, ran.stderr);
    assert!(ran.has_failed(), "{arguments:?}: {said}");
    assert!(said.contains(file), "{arguments:?}: {said}");
    assert!(!said.contains("panicked"), "{arguments:?}: {said}");
}

#[test]
fn a_tokenizer_that_makes_the_tokenizers_library_panic_is_named() {
    let template = json!({
        "type": "TemplateProcessing",
        "single": [{ "SpecialToken": { "id": "[CLS]", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }],
        "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 0 } }],
        "special_tokens": {},
    });
    let unigram = json!({ "type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a".repeat(200_000), -1.0]] });
    let charsmap = |map: &str| json!({ "type": "Precompiled", "precompiled_charsmap": map });
    for (part, value) in [
        ("post_processor", template),
        ("pre_tokenizer", json!({ "type": "FixedLength", "length": 0 })),
        (
            "added_tokens",
            json!([{ "id": u32::MAX, "content": "x", "single_word": false, "lstrip": false, "rstrip": false,
                     "normalized": false, "special": true }]),
        ),
        // Out of bounds, and more memory than a machine has.
        ("normalizer", charsmap("AAAAAAAA")),
        ("normalizer", charsmap("/////w==")),
        // Nested more deeply than the stack allows.
        ("model", unigram),
    ] {
        let workshop = Workshop::tiny();
        workshop.copy_model("model");
        change(&workshop, "tokenizer.json", |json| json[part] = value);
        fail_at(&workshop, "tokenizer.json", &EXTRACT);
        fail_at(&workshop, "tokenizer.json", &["model", "verify", "model"]);
        let tokenize = ["tokenize", "--model", "model", "--text", "the cold"];
        fail_at(&workshop, "tokenizer.json", &tokenize);
        let doctor = ["doctor", "pipeline.toml", "--set", "model.path=model"];
        let ran = workshop.run(&doctor);
        assert!(ran.stdout.contains("tokenizer.json"), "{}", ran.stdout);
        assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    }
}

#[test]
fn an_onnx_model_of_graphs_in_graphs_without_end_is_named() {
    let workshop = Workshop::tiny();
    let folder = workshop.copy_model("model");
    fs::remove_file(folder.join("model.safetensors")).unwrap();
    // Graph, node, attribute, graph: the header of each field, from the innermost outwards.
    let varint = |mut number: usize| {
        let mut bytes = Vec::new();
        while number > 0x7f {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
        bytes
    };
    let (mut heads, mut length) = (Vec::new(), 0);
    for _ in 0..100_000 {
        for field in [6, 5, 1] {
            let head = [vec![field << 3 | 2], varint(length)].concat();
            length += head.len();
            heads.push(head);
        }
    }
    heads.push([vec![7 << 3 | 2], varint(length)].concat());
    heads.reverse();
    fs::write(folder.join("model.onnx"), heads.concat()).unwrap();
    fail_at(&workshop, "model.onnx", &EXTRACT);
    fail_at(&workshop, "model.onnx", &["model", "info", "model"]);
    fail_at(&workshop, "model.onnx", &["model", "verify", "model"]);
}

#[test]
fn sizes_in_config_json_that_no_model_has_are_named() {
    for (key, value) in [
        ("num_hidden_layers", json!(1u64 << 63)),
        ("num_hidden_layers", json!(10_001)),
        ("num_hidden_layers", json!(-1)),
        ("vocab_size", json!(1u64 << 63)),
        ("hidden_size", json!(1u64 << 62)),
        ("max_position_embeddings", json!(u64::MAX)),
        ("type_vocab_size", json!(1u64 << 40)),
        ("layer_norm_eps", json!(1e308)),
        ("layer_norm_eps", json!(-1.0)),
    ] {
        let workshop = Workshop::tiny();
        workshop.copy_model("model");
        change(&workshop, "config.json", |json| json[key] = value);
        let only_embeddings = ["--set", "cache.layers=[0]", "--set", "head.layers=[0]"];
        fail_at(&workshop, "config.json", &[&EXTRACT[..], &only_embeddings].concat());
        fail_at(&workshop, "config.json", &["model", "info", "model"]);
    }
}

#[test]
fn a_weights_file_whose_header_lies_is_named() {
    let workshop = Workshop::tiny();
    let path = workshop.copy_model("model").join("model.safetensors");
    let good = fs::read(&path).unwrap();
    let length = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&good[8..8 + length]).unwrap();
    let name = "embeddings.word_embeddings.weight";
    let with = |key: &str, value: Value| {
        let mut header = header.clone();
        header[name][key] = value;
        let header = header.to_string().into_bytes();
        let size = (header.len() as u64).to_le_bytes();
        [&size[..], &header, &good[8 + length..]].concat()
    };
    let sized = |size: u64| [&size.to_le_bytes()[..], &good[8..]].concat();
    for bytes in [
        sized(u64::MAX),
        sized(1 << 40),
        sized(0),
        with("shape", json!([1u64 << 63, 2])),
        with("shape", json!([0, 1u64 << 63, 4])),
        with("data_offsets", json!([0, u64::MAX])),
        with("data_offsets", json!([100, 50])),
        with("dtype", json!("F64")),
        good[..4].to_vec(),
    ] {
        fs::write(&path, bytes).unwrap();
        fail_at(&workshop, "model.safetensors", &EXTRACT);
    }
}

#[test]
fn a_long_text_of_which_little_is_kept_takes_little_memory_and_gives_the_same_states() {
    let workshop = Workshop::tiny();
    let long = "the cold snow is not the film ".repeat(200_000);
    let short: String = long.chars().take(3_000).collect();
    let others = csv(&texts(20), 0);
    let mut caches = Vec::new();
    for (text, dir) in [(&long, "long"), (&short, "short")] {
        workshop.write("train.csv", format!("{others}{text},cold\n"));
        let dir = format!("cache.dir={dir}");
        let report = workshop.json(&["extract", "pipeline.toml", "--threads", "1", "--set", &dir]);
        caches.push(report);
    }
    let peak = |report: &Value| report["peak_rss_bytes"].as_u64().unwrap();
    // If the whole text were tokenised, every character would take more than a hundred bytes.
    let more = peak(&caches[0]).saturating_sub(peak(&caches[1]));
    assert!(more < 20 * long.len() as u64, "{more} bytes for {}", long.len());
    assert_eq!(caches[0]["truncated"], caches[1]["truncated"], "{}", caches[0]);
}

#[test]
fn more_threads_than_a_machine_can_hold_are_not_made() {
    let workshop = Workshop::tiny();
    let ran = workshop.succeed(&["extract", "pipeline.toml", "--threads", "65535"]);
    assert!(ran.stderr.contains("note: --threads 65535: "), "{}", ran.stderr);
}

//! The memory that texts of thousands of tokens take.

#![cfg(target_os = "linux")]

use std::{fs, process::Command};

use crate::support::{Workshop, copy_folder, fixture, say};

const TOKENS: u64 = 8_192;

/// The heads of the model.
const HEADS: u64 = 2;

/// Extracts a few texts of [`TOKENS`] tokens in one thread with a copy of a fixture whose position table, if it has
/// one, is long enough, and returns the peak memory that the program tells, in bytes.
fn peak_of_long_texts(family: &str) -> u64 {
    let workshop = Workshop::empty();
    let model = workshop.path("model");
    copy_folder(&fixture(&format!("families/{family}")), &model);
    let config = model.join("config.json");
    let short = "\"max_position_embeddings\": 64";
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.contains(short), "{family}");
    let long = format!("\"max_position_embeddings\": {TOKENS}");
    fs::write(&config, text.replace(short, &long)).unwrap();
    let texts: Vec<String> = ["snow", "film", "frost"]
        .iter()
        .map(|word| format!("{word} ").repeat(TOKENS as usize + 10))
        .collect();
    workshop.write("texts.txt", texts.join("\n"));
    // As many tokens as the three texts together, so that only their attention keeps them out of one batch.
    let pipeline = format!(
        "[model]\npath = \"model\"\ndevice = \"cpu\"\nbatch_tokens = {}\n\
         [data]\ntrain = {{ path = \"texts.txt\", format = \"lines\" }}\n\
         [cache]\ndir = \"cache\"\nmax_length = {TOKENS}\nstore = [\"mean\"]\ndtype = \"f32\"\n",
        3 * TOKENS
    );
    workshop.write("pipeline.toml", pipeline);
    let report = workshop.json(&["extract", "pipeline.toml", "--threads", "1"]);
    assert_eq!(report["tokens"].as_u64(), Some(3 * TOKENS), "{family}");
    report["peak_rss_bytes"].as_u64().unwrap()
}

/// Returns whether the system reports the size of the L2 cache, as ONNX Runtime asks for it.
fn knows_l2_cache() -> bool {
    let output = Command::new("getconf").arg("LEVEL2_CACHE_SIZE").output();
    let size = output.ok().and_then(|output| String::from_utf8(output.stdout).ok());
    size.and_then(|size| size.trim().parse().ok()).is_some_and(|size: u64| size > 0)
}

#[test]
fn texts_of_8192_tokens_never_take_the_memory_of_all_pairs() {
    if !knows_l2_cache() {
        say("skipped: without the size of the L2 cache, ONNX Runtime holds all pairs");
        return;
    }
    let all_pairs = 4 * HEADS * TOKENS * TOKENS;
    for family in ["modernbert", "nomic_bert", "gte"] {
        let peak = peak_of_long_texts(family);
        println!("{family}: {peak} bytes, and {all_pairs} of scores for all pairs of tokens");
        assert!(peak > 1 << 20 && peak < all_pairs, "{family}: {peak}");
    }
}

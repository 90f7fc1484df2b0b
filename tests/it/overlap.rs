//! So many texts that work begins before the last of them is tokenised.

use regex::Regex;
use serde_json::Value;

use crate::support::{Workshop, assert_same_files, contents, csv, texts};

/// Texts of more tokens than are tokenised before work begins.
const N_TEXTS: usize = 40_000;

fn workshop() -> Workshop {
    let workshop = Workshop::tiny();
    workshop.write("train.csv", csv(&texts(N_TEXTS), 0));
    workshop
}

fn extract<'a>(threads: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let settings = ["--set", "cache.shard_tokens=50000", "--set", "model.batch_tokens=2048"];
    [&["extract", "pipeline.toml", "--json", "--threads", threads][..], &settings, more].concat()
}

#[test]
fn work_begins_before_the_last_text_is_tokenised_and_any_number_of_threads_gives_the_same_bytes() {
    let first = workshop();
    let ran = first.succeed(&extract("1", &[]));
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    let tokens = report["tokens"].as_f64().unwrap();
    assert!(tokens > 300_000.0, "{report}");
    let note = Regex::new("note: to encode: 40,000 texts, about ([0-9,]+) tokens, about ").unwrap();
    let about = note.captures(&ran.stderr).unwrap_or_else(|| panic!("{}", ran.stderr));
    let about: f64 = about[1].replace(',', "").parse().unwrap();
    assert!((about / tokens - 1.0).abs() < 0.03, "{about} of {tokens}");
    let manifest = first.manifest();
    assert_eq!(manifest["documents"], N_TEXTS);
    assert_eq!(manifest["tokens"].as_f64(), Some(tokens));

    let parts = ["encoder", "tokenizer", "writer"];
    let busy = report["busy"].as_object().unwrap();
    assert!(busy.keys().eq(parts), "{report}");
    let share = |part: &str| busy[part].as_f64().unwrap();
    assert!(parts.iter().all(|part| (0.0..=1.0).contains(&share(part))), "{report}");
    let bound_by = report["bound_by"].as_str().unwrap();
    assert!(parts.iter().all(|part| share(part) <= share(bound_by)), "{report}");

    let second = workshop();
    let dry: Value =
        serde_json::from_str(&second.succeed(&extract("2", &["--dry-run"])).stdout).unwrap();
    assert_eq!(dry["extract"]["tokens"].as_f64(), Some(tokens), "a dry run counts all of them");
    second.succeed(&extract("2", &[]));
    assert_same_files(&contents(&first.cache()), &contents(&second.cache()));
    let again: Value = serde_json::from_str(&second.succeed(&extract("2", &[])).stdout).unwrap();
    assert_eq!(again["computed"], 0);
    assert!(again.get("bound_by").is_none() && again.get("busy").is_none(), "{again}");
}

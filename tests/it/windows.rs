//! Truncation, windows and alignment compared with the Python tokenizers; the expected numbers are made by
//! `scripts/fixtures/windows.py`.

use std::{collections::HashMap, path::PathBuf};

use frostbert::{
    cache::states::{Alignment, WordPlace},
    internals::{
        data::document::Document,
        encoder::{
            tokenizer::TextTokenizer,
            windows::{Encoding, Overflow},
        },
    },
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{fixture, read_json};

/// The tokenizer files of a fixture, including those that are derived from others.
struct Tokenizers {
    made: TempDir,
}

impl Tokenizers {
    fn new() -> Tokenizers {
        Tokenizers { made: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        let Some((name, key)) = name.split_once(", ") else {
            return fixture(name).join("tokenizer.json");
        };
        let mut json = read_json(&fixture(name).join("tokenizer.json"));
        for part in ["pre_tokenizer", "post_processor"] {
            assert_eq!(json[part][key], json!(false));
            json[part][key] = json!(true);
        }
        let path = self.made.path().join("tokenizer.json");
        std::fs::write(&path, json.to_string()).unwrap();
        path
    }

    fn open(&self, case: &Value) -> TextTokenizer {
        let overflow = match case["overflow"].as_str() {
            Some("windows") => {
                Overflow::Windows { stride: case["stride"].as_u64().unwrap() as usize }
            }
            _ => Overflow::Truncate,
        };
        let path = self.path(case["tokenizer"].as_str().unwrap());
        let max_length = case["max_length"].as_u64().unwrap() as usize;
        TextTokenizer::open(&path, max_length, overflow).unwrap()
    }
}

/// Encodes the input of a case with our tokenizer.
fn encode(tokenizer: &TextTokenizer, case: &Value, aligned: bool) -> Encoding {
    let parts: Vec<String> = serde_json::from_value(case["input"].clone()).unwrap();
    let input = match (&case["split"], &parts[..]) {
        (Value::Bool(true), words) => Document::Words(words),
        (_, [text]) => Document::Text(text),
        (_, [first, second]) => Document::Pair(first, second),
        _ => panic!("{case}"),
    };
    tokenizer.encode(&[input], aligned).unwrap().remove(0)
}

/// Returns a name for a case, for messages.
fn name(case: &Value) -> String {
    let fields = ["tokenizer", "overflow", "max_length", "stride", "input"];
    fields.map(|field| case[field].to_string()).join(" ")
}

fn windows(encoding: &Encoding) -> Value {
    let window = |window: &frostbert::internals::encoder::windows::Window| {
        let Alignment { token_ids, words, char_starts, char_ends, sequences } = &window.alignment;
        assert_eq!(token_ids, &window.ids);
        json!([window.ids, window.type_ids, char_starts, char_ends, words, sequences])
    };
    encoding.windows.iter().map(window).collect()
}

fn words(encoding: &Encoding) -> Value {
    let place = |place: &WordPlace| {
        json!([
            place.sequence,
            place.word,
            place.char_start,
            place.char_end,
            place.window,
            place.position
        ])
    };
    encoding.words.iter().map(place).collect()
}

#[test]
fn windows_and_their_alignment_equal_those_of_the_python_tokenizers() {
    let tokenizers = Tokenizers::new();
    let fixture = read_json(&fixture("windows.json"));
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut n_prefixed = 0;
    for case in fixture["cases"].as_array().unwrap() {
        if case["split"] == true && case["tokenizer"] == "families/roberta" {
            // Words that are given separately get a leading space, which this tokenizer.json omits, as if it had
            // `add_prefix_space`.
            continue;
        }
        let encoding = encode(&tokenizers.open(case), case, true);
        assert_eq!(windows(&encoding), case["windows"], "{}", name(case));
        assert_eq!(words(&encoding), case["words"], "words of {}", name(case));
        if case["split"] == true && case["tokenizer"] == "families/roberta, add_prefix_space" {
            let mut plain = case.clone();
            plain["tokenizer"] = json!("families/roberta");
            let encoding = encode(&tokenizers.open(&plain), case, true);
            assert_eq!(windows(&encoding), case["windows"], "words: {}", name(case));
            n_prefixed += 1;
        }
        assert_eq!(json!(encoding.truncated), case["truncated"], "{case}");
        *seen.entry(case["tokenizer"].as_str().unwrap().into()).or_default() +=
            encoding.windows.len();
    }
    assert_eq!(seen.len(), 4);
    assert!(seen.values().all(|n_windows| *n_windows > 30), "{seen:?}");
    assert!(n_prefixed > 0);
}

#[test]
fn ids_do_not_depend_on_whether_an_alignment_is_asked_for() {
    let tokenizers = Tokenizers::new();
    for case in read_json(&fixture("windows.json"))["cases"].as_array().unwrap() {
        let tokenizer = tokenizers.open(case);
        let (with, without) = (encode(&tokenizer, case, true), encode(&tokenizer, case, false));
        assert_eq!(with.truncated, without.truncated, "{}", name(case));
        assert!(without.words.is_empty());
        let ids = |encoding: &Encoding| -> Vec<(Vec<u32>, Vec<u8>)> {
            let windows = encoding.windows.iter();
            windows.map(|window| (window.ids.clone(), window.type_ids.clone())).collect()
        };
        assert_eq!(ids(&with), ids(&without), "{}", name(case));
    }
}

/// Our rule differs here from that of transformers, which fails if the first text leaves no room for the stride. A
/// first text that does not fit next to the whole second text keeps half of the room that the stride leaves, or the
/// room that the second text leaves, whichever is larger. The fixture has the result of transformers for a first text
/// that was cut in this way.
#[test]
fn a_question_of_too_many_tokens_is_cut_and_the_rest_equals_transformers() {
    let tokenizers = Tokenizers::new();
    let fixture = read_json(&fixture("windows.json"));
    for case in fixture["question_cut"].as_array().unwrap() {
        let encoding = encode(&tokenizers.open(case), case, true);
        assert!(encoding.truncated);
        assert_eq!(windows(&encoding), case["windows"], "{}", name(case));
        assert_eq!(words(&encoding), case["words"], "words of {}", name(case));
    }
}

#[test]
fn a_pair_always_has_room_for_its_special_tokens() {
    // `<s> a </s> </s> b </s>` has one special token more than `[CLS] a [SEP] b [SEP]`.
    let path = fixture("families/roberta").join("tokenizer.json");
    for max_length in 1..8 {
        let Ok(tokenizer) = TextTokenizer::open(&path, max_length, Overflow::Truncate) else {
            assert!(max_length < 4, "{max_length} tokens are refused");
            continue;
        };
        let inputs = [Document::Pair("the snow", "is cold"), Document::Text("the snow is cold")];
        for encoding in tokenizer.encode(&inputs, true).unwrap() {
            assert!(encoding.windows[0].ids.len() <= max_length);
        }
    }
}

use serde_json::json;

use super::*;

fn knows(tokenizer: &Value) -> bool {
    Prefixes::of(tokenizer).is_some()
}

#[test]
fn what_goes_word_by_word_is_known_and_what_may_look_further_is_not() {
    let bert = json!({
        "normalizer": { "type": "BertNormalizer" },
        "pre_tokenizer": { "type": "BertPreTokenizer" },
        "added_tokens": [{ "content": "[MASK]", "normalized": false }],
        "model": { "type": "WordPiece" },
    });
    assert!(knows(&bert));
    let with = |key: &str, value: Value| {
        let mut other = bert.clone();
        other[key] = value;
        knows(&other)
    };
    let replace = |pattern: Value| json!({ "type": "Replace", "pattern": pattern, "content": "x" });
    let sequence = |parts: &[Value]| json!({ "type": "Sequence", "normalizers": parts, "pretokenizers": parts });
    let kind = |kind: &str| json!({ "type": kind });
    for (key, value, known) in [
        ("normalizer", Value::Null, true),
        ("normalizer", kind("Precompiled"), true),
        ("normalizer", kind("ByteLevel"), false),
        ("normalizer", replace(json!({ "Regex": " {2,}" })), true),
        ("normalizer", replace(json!({ "Regex": ".*" })), false),
        ("normalizer", replace(json!({ "String": "``" })), true),
        ("normalizer", replace(json!({ "String": "" })), false),
        ("normalizer", sequence(&[kind("Nmt"), replace(json!({ "String": "``" }))]), false),
        ("pre_tokenizer", Value::Null, false),
        ("pre_tokenizer", kind("Punctuation"), false),
        ("pre_tokenizer", kind("Split"), false),
        ("pre_tokenizer", kind("Metaspace"), true),
        ("pre_tokenizer", json!({ "type": "Metaspace", "split": false }), false),
        ("pre_tokenizer", json!({ "type": "ByteLevel", "use_regex": false }), false),
        ("pre_tokenizer", sequence(&[kind("WhitespaceSplit"), sequence(&[kind("Digits")])]), true),
        ("pre_tokenizer", sequence(&[kind("WhitespaceSplit"), kind("Split")]), false),
        ("added_tokens", json!([{ "content": "a b", "normalized": true }]), false),
        ("model", json!({ "type": "BPE", "dropout": 0.1 }), false),
    ] {
        assert_eq!(with(key, value.clone()), known, "{key} {value}");
    }
}

#[test]
fn a_beginning_ends_with_a_word_where_one_is_near_and_always_with_a_character() {
    assert_eq!(beginning("one two three", 9), "one two");
    assert_eq!(beginning("one twothreefour", 12), "one twothree");
    assert_eq!(beginning("äöü", 3), "ä");
    assert_eq!(beginning("short", 99), "short");
}

#[test]
fn tokens_settle_when_another_word_follows_before_the_margin() {
    let prefixes = Prefixes { margin: 3 };
    let tokens = |words: &[i32], offsets: &[(u32, u32)]| Sequence {
        ids: vec![0; words.len()],
        offsets: offsets.to_vec(),
        words: words.to_vec(),
    };
    let settles = |text: &str, words: &[i32], offsets: &[(u32, u32)], wanted: usize| {
        prefixes.settle(text, &tokens(words, offsets), wanted)
    };
    let three = [(0, 2), (3, 5), (6, 8)];
    assert!(settles("ab cd ef", &[0, 1, 2], &three, 1));
    assert!(!settles("ab cd e", &[0, 1, 2], &three, 1));
    assert!(!settles("ab cd ef", &[0, 1, 2], &three, 2));
    assert!(!settles("ab cd ef", &[0, 0, 2], &three, 1));
    assert!(!settles("ab cd ef", &[-1, 1, 2], &three, 1));
    assert!(!settles("ab .. ef", &[0, 1, 2], &three, 1));
    assert!(!settles("ab cd ef", &[0, 1, 2], &three, 4));
    assert!(!settles("ab cd ef", &[0, 1, 2], &three, 0));
}

//! Truncation, windows and character offsets on public data sets; the expected numbers are made by
//! `scripts/fixtures/real_alignment.py`. Without the data, a test prints a message and passes.

use std::{collections::HashMap, io::Read, path::Path};

use flate2::{Crc, read::GzDecoder};
use frostbert::internals::{
    data::document::Document,
    encoder::{
        tokenizer::TextTokenizer,
        windows::{Encoding, Overflow, Window},
    },
};
use serde_json::{Value, json};
use tokenizers::{NormalizedString, Normalizer, normalizers::BertNormalizer};

use crate::support::{datasets, fixture, minilm, read_json};

const WINDOW: usize = 128;
const STRIDE: usize = 32;

/// A limit that no text reaches, in tokens.
const UNLIMITED: usize = 100_000;

fn tokenizer(max_length: usize, overflow: Overflow) -> TextTokenizer {
    TextTokenizer::open(&minilm().join("tokenizer.json"), max_length, overflow).unwrap()
}

fn paragraphs(datasets: &Path) -> Vec<String> {
    let path = datasets.join("corpus/paragraphs_4k.txt.gz");
    let mut text = String::new();
    GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    let lines = text.strip_suffix('\n').unwrap().split('\n');
    lines.map(String::from).collect()
}

fn encode(texts: &[String], max_length: usize, overflow: Overflow) -> Vec<Encoding> {
    let inputs: Vec<Document<'_>> = texts.iter().map(|text| Document::Text(text)).collect();
    tokenizer(max_length, overflow).encode(&inputs, true).unwrap()
}

/// Returns the id, start, end and word of each token.
fn tokens(window: &Window) -> impl Iterator<Item = (u32, u32, u32, i32)> + '_ {
    let places = &window.alignment;
    (0..window.ids.len()).map(|token| {
        let (start, end) = (places.char_starts[token], places.char_ends[token]);
        (window.ids[token], start, end, places.words[token])
    })
}

/// Computes the same checksum as the script.
fn crc32(encodings: &[Encoding]) -> u32 {
    let mut crc = Crc::new();
    for encoding in encodings {
        let window = |window: &Window| {
            let tokens =
                tokens(window).map(|(id, start, end, word)| format!("{id},{start},{end},{word}"));
            tokens.collect::<Vec<_>>().join(" ")
        };
        let windows: Vec<String> = encoding.windows.iter().map(window).collect();
        crc.update(windows.join(" | ").as_bytes());
        crc.update(b"\n");
    }
    crc.sum()
}

/// Normalises a text as BERT does (no control characters, no accents, lower case), and removes white space.
fn normalise(normalizer: &BertNormalizer, text: &str) -> String {
    let mut normalized = NormalizedString::from(text);
    normalizer.normalize(&mut normalized).unwrap();
    normalized.get().split_whitespace().collect()
}

/// Returns the spelling of every id.
fn vocabulary() -> HashMap<u32, String> {
    let json = read_json(&minilm().join("tokenizer.json"));
    let entries = json["model"]["vocab"].as_object().unwrap();
    let entry = |(token, id): (&String, &Value)| (id.as_u64().unwrap() as u32, token.clone());
    entries.iter().map(entry).collect()
}

#[test]
fn four_thousand_paragraphs_have_the_tokens_of_the_python_tokenizer() {
    let Some(datasets) = datasets() else { return };
    let expected = &read_json(&fixture("real_alignment.json"))["paragraphs"];
    let texts = paragraphs(&datasets);
    assert_eq!(json!(texts.len()), expected["texts"]);

    let whole = encode(&texts, UNLIMITED, Overflow::Truncate);
    let n_tokens: usize = whole.iter().map(Encoding::n_tokens).sum();
    assert_eq!(json!(n_tokens), expected["tokens"]);
    assert_eq!(json!(crc32(&whole)), expected["crc32_whole"]);
    spell_their_text(&texts, &whole, expected);

    let truncated = encode(&texts, WINDOW, Overflow::Truncate);
    let n_truncated = truncated.iter().filter(|text| text.truncated).count();
    assert_eq!(json!(n_truncated), expected["truncated_at_128"]);
    assert_eq!(json!(crc32(&truncated)), expected["crc32_truncated"]);
    for (text, whole) in truncated.iter().zip(&whole) {
        assert_eq!(text.truncated, whole.n_tokens() > WINDOW);
    }

    let windows = encode(&texts, WINDOW, Overflow::Windows { stride: STRIDE });
    let n_windows: usize = windows.iter().map(|text| text.windows.len()).sum();
    assert_eq!(json!(n_windows), expected["windows"]);
    assert_eq!(json!(crc32(&windows)), expected["crc32_windows"]);
    for (text, whole) in windows.iter().zip(&whole) {
        assert!(!text.truncated);
        assert_holds_all(text, &whole.windows[0]);
    }
}

/// Asserts that the normalised characters of every token spell it.
fn spell_their_text(texts: &[String], whole: &[Encoding], expected: &Value) {
    let (vocabulary, normalizer) = (vocabulary(), BertNormalizer::default());
    // Words occur many times.
    let mut normalised: HashMap<String, String> = HashMap::new();
    let mut n_compared = 0;
    for (text, encoding) in texts.iter().zip(whole) {
        let characters: Vec<char> = text.chars().collect();
        for (id, start, end, word) in tokens(&encoding.windows[0]) {
            let token = &vocabulary[&id];
            if word < 0 || token == "[UNK]" {
                continue;
            }
            let own: String = characters[start as usize..end as usize].iter().collect();
            let spelt = normalised.entry(own).or_insert_with_key(|own| normalise(&normalizer, own));
            let token = token.strip_prefix("##").unwrap_or(token);
            assert_eq!(spelt, token, "characters {start}..{end} of `{text}`");
            n_compared += 1;
        }
    }
    assert_eq!(json!(n_compared), expected["tokens_that_spell_their_text"]);
}

/// Asserts that every token is in the windows that cover it and in no other, and that special tokens are in all of
/// them.
fn assert_holds_all(encoding: &Encoding, whole: &Window) {
    let mut counts: HashMap<(u32, u32, u32, i32), i64> = HashMap::new();
    for window in &encoding.windows {
        assert!(window.ids.len() <= WINDOW);
        for token in tokens(window) {
            *counts.entry(token).or_default() += 1;
        }
    }
    let (room, n_windows) = (WINDOW - 2, encoding.windows.len());
    let last = whole.ids.len() - 1;
    for (place, token) in tokens(whole).enumerate() {
        let reached = match place {
            0 => n_windows,
            _ if place == last => n_windows,
            _ => {
                let over = |window: &usize| {
                    let start = 1 + window * (room - STRIDE);
                    (start..start + room).contains(&place)
                };
                (0..n_windows).filter(over).count()
            }
        };
        assert!(reached > 0, "token {place} stands in no window");
        *counts.entry(token).or_default() -= reached as i64;
    }
    assert!(counts.values().all(|count| *count == 0));
}

#[test]
fn the_tokens_of_an_answer_spell_it() {
    let Some(datasets) = datasets() else { return };
    let (vocabulary, normalizer) = (vocabulary(), BertNormalizer::default());
    let overflow = Overflow::Windows { stride: 128 };
    let (whole, windows) = (tokenizer(UNLIMITED, Overflow::Truncate), tokenizer(384, overflow));
    for case in read_json(&fixture("real_alignment.json"))["squad"].as_array().unwrap() {
        let (mut n_answers, mut n_in_a_window, mut not_spelt) = (0, 0, Vec::new());
        let file = read_json(&datasets.join(case["file"].as_str().unwrap()));
        let articles = file["data"].as_array().unwrap().iter();
        for paragraph in articles.flat_map(|article| article["paragraphs"].as_array().unwrap()) {
            let context = paragraph["context"].as_str().unwrap();
            let alone = whole.encode(&[Document::Text(context)], true).unwrap();
            let alone = &alone[0].windows[0];
            let questions = paragraph["qas"].as_array().unwrap();
            let inputs: Vec<Document<'_>> = questions
                .iter()
                .map(|question| Document::Pair(question["question"].as_str().unwrap(), context))
                .collect();
            let encodings = windows.encode(&inputs, true).unwrap();
            for (question, encoding) in questions.iter().zip(&encodings) {
                for answer in question["answers"].as_array().unwrap() {
                    n_answers += 1;
                    let text = answer["text"].as_str().unwrap();
                    let start = answer["answer_start"].as_u64().unwrap() as u32;
                    let end = start + text.chars().count() as u32;
                    let covering = |token: &(u32, u32, u32, i32)| {
                        token.3 >= 0 && token.1 < end && start < token.2
                    };
                    let covering: Vec<_> = tokens(alone).filter(covering).collect();
                    let pieces = covering.iter().map(|token| {
                        let token = &vocabulary[&token.0];
                        token.strip_prefix("##").unwrap_or(token)
                    });
                    let spelt: String = pieces.collect();
                    if !spelt.contains(&normalise(&normalizer, text)) {
                        not_spelt.push(question["id"].as_str().unwrap());
                    }
                    let held = encoding.windows.iter().any(|window| holds(window, &covering));
                    n_in_a_window += usize::from(held);
                }
            }
        }
        let got = json!({
            "file": case["file"],
            "answers": n_answers,
            "whole_in_a_window": n_in_a_window,
            "not_spelt": not_spelt,
        });
        assert_eq!(got, *case);
    }
}

/// Returns whether the second text of a window contains these tokens consecutively.
fn holds(window: &Window, run: &[(u32, u32, u32, i32)]) -> bool {
    let sequences = &window.alignment.sequences;
    let second: Vec<_> = tokens(window)
        .zip(sequences)
        .filter(|(_, sequence)| **sequence == 1)
        .map(|(token, _)| token)
        .collect();
    second.windows(run.len()).any(|tokens| tokens == run)
}

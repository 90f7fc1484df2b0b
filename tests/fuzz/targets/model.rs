//! Checkpoints: their sizes, their weights, their graphs and their tokenizers.

use std::{
    fs,
    path::{Path, PathBuf},
};

use frostbert::internals::{
    data::document::Document,
    encoder::{
        checkpoint::Checkpoint, device::Precision, source, tokenizer::TextTokenizer,
        tokenizer_file::TokenizerFile, windows::Overflow,
    },
};

use super::Execute;
use crate::base;

/// A file of the small checkpoints of every family, where they have it.
pub(super) fn files(name: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(base::fixture("families")).unwrap();
    let folders = entries.map(|entry| entry.unwrap().path()).chain([base::fixture("tiny_bert")]);
    let mut paths: Vec<PathBuf> = folders.map(|folder| folder.join(name)).collect();
    paths.retain(|path| path.is_file());
    paths.sort();
    paths
}

/// Weights of two families, in f32 and bf16.
pub(super) fn small_weights() -> Vec<PathBuf> {
    let folders = ["tiny_bert", "families/electra_one_width", "families/camembert_bf16"];
    folders.map(|folder| base::fixture(folder).join("model.safetensors")).into()
}

/// Weights as torch.save writes them, in its form of today and before.
pub(super) fn small_torch_weights() -> Vec<PathBuf> {
    let folder = base::fixture("old_forms/weights");
    ["f16.bin", "old_names.bin", "legacy.bin"].map(|name| folder.join(name)).into()
}

/// Vocabularies of two kinds of tokenizers.
pub(super) fn sentencepiece_models() -> Vec<PathBuf> {
    let folder = base::fixture("old_forms/tokenizers");
    ["albert/spiece.model", "deberta_v2/spm.model"].map(|name| folder.join(name)).into()
}

/// Copies of small checkpoints, in which one file is damaged.
fn damaged(scratch: &Path, fixtures: &[&str], name: &'static str) -> Execute {
    let folders: Vec<PathBuf> = fixtures.iter().map(|fixture| scratch.join(fixture)).collect();
    for (folder, fixture) in folders.iter().zip(fixtures) {
        base::copy(&base::fixture(fixture), folder);
        let _ = fs::remove_file(folder.join("expected.json"));
    }
    Box::new(move |bytes, thorough| {
        let mut accepted = false;
        for folder in &folders {
            fs::write(folder.join(name), bytes).unwrap();
            accepted |= open(folder);
            if thorough {
                let _ = source::verify(folder);
            }
        }
        accepted
    })
}

fn open(folder: &Path) -> bool {
    let Ok(checkpoint) = Checkpoint::open(folder) else {
        return false;
    };
    let _ = checkpoint.parameters();
    let (_, _) = (checkpoint.check_layers(&[0, 1, 2]), checkpoint.check_layers(&[usize::MAX]));
    let _ = checkpoint.check_precision(Precision::Int8);
    let _ = checkpoint.graph_profile("cpu", Precision::F32);
    true
}

pub(super) fn config(scratch: &Path) -> Execute {
    damaged(scratch, &["tiny_bert", "families/distilbert", "families/odd_onnx"], "config.json")
}

pub(super) fn weights(scratch: &Path) -> Execute {
    damaged(scratch, &["tiny_bert"], "model.safetensors")
}

pub(super) fn torch_weights(scratch: &Path) -> Execute {
    damaged(scratch, &["old_forms/weights"], "pytorch_model.bin")
}

pub(super) fn index(scratch: &Path) -> Execute {
    damaged(scratch, &["families/bert_sharded"], "model.safetensors.index.json")
}

pub(super) fn onnx(scratch: &Path) -> Execute {
    damaged(scratch, &["families/deberta_onnx", "families/odd_onnx"], "model.onnx")
}

pub(super) fn provenance(scratch: &Path) -> Execute {
    damaged(scratch, &["tiny_bert"], "source.json")
}

/// Texts that tokenizers trip over.
const TEXTS: [&str; 6] = [
    "the cold snow is not very good",
    "",
    " \u{a0}\u{3000}",
    "caf\u{e9} cafe\u{301} \u{fb01} \u{130}\u{df}",
    "\u{1f469}\u{200d}\u{1f467} \u{4f60}\u{597d}\0\u{feff}",
    "[CLS] the [SEP] [MASK]<s></s><pad> ##x",
];

pub(super) fn tokenizer(scratch: &Path) -> Execute {
    let path = scratch.join("tokenizer.json");
    Box::new(move |bytes, _| {
        fs::write(&path, bytes).unwrap();
        tokenise(&path)
    })
}

pub(super) fn tokenizer_config(scratch: &Path) -> Execute {
    let folders = ["tiny_bert", "families/roberta", "families/camembert_bf16"].map(|name| {
        let folder = scratch.join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::copy(base::fixture(name).join("tokenizer.json"), folder.join("tokenizer.json"))
            .unwrap();
        folder
    });
    Box::new(move |bytes, thorough| {
        let mut accepted = false;
        // Those of the first are cheap.
        for folder in &folders[..if thorough { 3 } else { 1 }] {
            fs::write(folder.join("tokenizer_config.json"), bytes).unwrap();
            accepted |= tokenise(&folder.join("tokenizer.json"));
        }
        accepted
    })
}

pub(super) fn sentencepiece(scratch: &Path) -> Execute {
    let folder = scratch.join("old_forms");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("config.json"), r#"{"model_type": "deberta-v2"}"#).unwrap();
    Box::new(move |bytes, _| {
        fs::write(folder.join("spm.model"), bytes).unwrap();
        tokenise(&folder.join("tokenizer.json"))
    })
}

fn tokenise(path: &Path) -> bool {
    let Ok(file) = TokenizerFile::open(path) else {
        return false;
    };
    let mut accepted = false;
    for overflow in [Overflow::Truncate, Overflow::Windows { stride: 3 }] {
        let Ok(tokenizer) = TextTokenizer::new(&file, 12, overflow) else {
            continue;
        };
        accepted = true;
        let words: Vec<Vec<String>> =
            TEXTS.iter().map(|text| text.split(' ').map(str::to_owned).collect()).collect();
        let mut inputs = Vec::new();
        for (text, words) in TEXTS.iter().zip(&words) {
            inputs.extend([
                Document::Text(text),
                Document::Pair(TEXTS[0], text),
                Document::Words(words),
            ]);
        }
        for aligned in [false, true] {
            for encoding in tokenizer.encode(&inputs, aligned).into_iter().flatten() {
                let ids = encoding.windows.iter().flat_map(|window| &window.ids);
                let most = ids.copied().max().unwrap_or(0) as usize;
                let n = file.vocabulary;
                assert!(most < n, "accepted, but it gives id {most} of {n}");
            }
        }
        let _ = TEXTS.map(|text| tokenizer.table(text).is_ok());
    }
    accepted
}

/// Texts through tokenizers of three kinds, truncated and in windows.
pub(super) fn windows(_: &Path) -> Execute {
    let files = ["tiny_bert", "families/roberta", "families/camembert_bf16"];
    let overflows = [
        (5, Overflow::Truncate),
        (16, Overflow::Truncate),
        (12, Overflow::Windows { stride: 0 }),
        (12, Overflow::Windows { stride: 5 }),
    ];
    let mut tokenizers = Vec::new();
    for name in files {
        let path = base::fixture(name).join("tokenizer.json");
        for (length, overflow) in overflows {
            tokenizers.push((
                length,
                overflow,
                TextTokenizer::open(&path, length, overflow).unwrap(),
            ));
        }
    }
    Box::new(move |bytes, thorough| {
        let text = String::from_utf8_lossy(bytes);
        let text: String = text.chars().take(1024).collect();
        let (first, second) = text.split_once('\n').unwrap_or((&text, "the snow"));
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        let mut inputs = vec![Document::Text(&text), Document::Pair(first, second)];
        if !words.is_empty() {
            inputs.push(Document::Words(&words));
        }
        // All twelve take long, and differ in little.
        let chosen = if thorough {
            0..tokenizers.len()
        } else {
            let one = bytes.iter().map(|byte| usize::from(*byte)).sum::<usize>() % tokenizers.len();
            one..one + 1
        };
        let mut accepted = false;
        for (length, overflow, tokenizer) in &tokenizers[chosen] {
            let fast = tokenizer.encode(&inputs, false);
            let Ok(aligned) = tokenizer.encode(&inputs, true) else {
                assert!(fast.is_err(), "tokens without their alignment, and none with it");
                continue;
            };
            accepted = true;
            let fast = fast.expect("tokens with their alignment, and none without it");
            for ((fast, aligned), input) in fast.iter().zip(&aligned).zip(&inputs) {
                let ids =
                    |encoding: &frostbert::internals::encoder::windows::Encoding| -> Vec<Vec<u32>> {
                        encoding.windows.iter().map(|window| window.ids.clone()).collect()
                    };
                assert_eq!(ids(fast), ids(aligned), "other tokens with their alignment");
                assert_eq!(fast.truncated, aligned.truncated, "cut off in one way only");
                check(aligned, *input, *length, *overflow);
            }
        }
        accepted
    })
}

/// What must hold of the windows of a document.
fn check(
    encoding: &frostbert::internals::encoder::windows::Encoding,
    input: Document<'_>,
    length: usize,
    overflow: Overflow,
) {
    assert!(!encoding.windows.is_empty(), "a document without a window");
    if overflow == Overflow::Truncate {
        assert_eq!(encoding.windows.len(), 1, "several windows, though it is cut off");
    }
    let n_characters = |text: &str| text.chars().count() as u32;
    let lengths = match input {
        Document::Text(text) => [n_characters(text), 0],
        Document::Pair(first, second) => [n_characters(first), n_characters(second)],
        Document::Words(words) => [n_characters(&words.join(" ")), 0],
        Document::Prompted { prompt, text } => [n_characters(prompt) + n_characters(text), 0],
    };
    for window in &encoding.windows {
        let n_tokens = window.ids.len();
        assert!(n_tokens <= length, "a window of {n_tokens} tokens, of at most {length}");
        let alignment = &window.alignment;
        assert_eq!(
            (window.type_ids.len(), alignment.len()),
            (n_tokens, n_tokens),
            "an entry for each token"
        );
        for token in 0..n_tokens {
            let (start, end) = (alignment.char_starts[token], alignment.char_ends[token]);
            let sequence = alignment.sequences[token];
            let last = lengths.get(usize::from(sequence)).copied().unwrap_or(0);
            assert!(start <= end && end <= last, "a token at {start}..{end} of {last} characters");
        }
    }
    for word in &encoding.words {
        let last = lengths[usize::from(word.sequence)];
        assert!(
            word.char_start <= word.char_end && word.char_end <= last,
            "a word out of its text: {word:?}"
        );
        let window = &encoding.windows[usize::from(word.window)];
        assert!(
            usize::from(word.position) < window.ids.len(),
            "a word out of its window: {word:?}"
        );
    }
}

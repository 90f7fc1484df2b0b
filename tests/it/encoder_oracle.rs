//! The encoder compared with `transformers`; the expected numbers are made by `scripts/fixtures/hidden_states.py` and
//! `tiny_bert.py`.

use std::path::Path;

use frostbert::{
    cache::states::{Dtype, Pooling, StateId, StateValues},
    internals::{
        data::document::Document,
        encoder::{
            Encoder, EncoderSettings, Request,
            checkpoint::Checkpoint,
            device::{Device, Precision},
            plan::plan_batches,
            pooling::pool,
            provider::Provider,
            session::{EncoderSession, SessionOptions, TokenBatch},
            tokenizer::TextTokenizer,
            windows::Overflow,
        },
    },
};
use safetensors::SafeTensors;
use serde_json::Value;

use crate::support::{fixture, minilm, read_json, runtime};

/// The tolerances, f32 against f32, over all tokens except padding.
const MOST: f32 = 1e-4;
const MEDIAN: f32 = 1e-6;

/// A session that returns every layer, and the checkpoint.
pub(crate) struct Oracle {
    pub(crate) checkpoint: Checkpoint,
    session: EncoderSession,
}

/// The states of one text, one array `[tokens, hidden]` per layer.
pub(crate) type Layers = Vec<Vec<f32>>;

impl Oracle {
    fn open(folder: &Path) -> Oracle {
        Oracle::open_with(folder, Precision::F32)
    }

    pub(crate) fn open_with(folder: &Path, precision: Precision) -> Oracle {
        let checkpoint = Checkpoint::open(folder).unwrap();
        let options = SessionOptions {
            provider: Provider::Cpu,
            precision,
            layers: (0..=checkpoint.config.layers).collect(),
            intra_threads: 1,
        };
        let session = EncoderSession::open(runtime(), &checkpoint, &options).unwrap();
        Oracle { checkpoint, session }
    }

    fn tokenizer(&self, max_length: usize) -> TextTokenizer {
        TextTokenizer::open(&self.checkpoint.tokenizer.path, max_length, Overflow::Truncate)
            .unwrap()
    }

    /// Returns the states of every document of a batch, without padding.
    pub(crate) fn run(&mut self, documents: &[&[u32]]) -> Vec<Layers> {
        let batch = TokenBatch::new(documents.iter().map(|ids| (*ids, &[][..])));
        let hidden = self.checkpoint.config.hidden;
        let mut texts = vec![Layers::new(); documents.len()];
        self.session
            .run(&batch, |layer, states| {
                for (row, text) in texts.iter_mut().enumerate() {
                    assert_eq!(text.len(), layer, "layers come in their order");
                    let start = row * batch.width * hidden;
                    text.push(states[start..start + documents[row].len() * hidden].to_vec());
                }
                Ok(())
            })
            .unwrap();
        texts
    }

    pub(crate) fn alone(&mut self, ids: &[u32]) -> Layers {
        self.run(&[ids]).remove(0)
    }
}

/// The expectation of a fixture for one text.
struct Expected {
    text: String,
    ids: Vec<u32>,
    /// The tokens whose states are in the fixture.
    positions: Vec<usize>,
    /// The states, one array `[positions, hidden]` per layer.
    states: Layers,
}

fn floats(value: &Value) -> Vec<f32> {
    match value {
        Value::Array(values) => values.iter().flat_map(floats).collect(),
        number => vec![number.as_f64().unwrap() as f32],
    }
}

pub(crate) fn numbers(value: &Value) -> Vec<usize> {
    let numbers = value.as_array().unwrap().iter();
    numbers.map(|number| number.as_u64().unwrap() as usize).collect()
}

pub(crate) fn ids(value: &Value) -> Vec<u32> {
    numbers(value).into_iter().map(|id| id as u32).collect()
}

/// Returns the texts of a tiny model's fixture, without the pairs.
fn expected_of_tiny(folder: &str) -> Vec<Expected> {
    let json = read_json(&fixture(folder).join("expected.json"));
    let texts = json["texts"].as_array().unwrap().iter();
    texts
        .filter(|text| text["text_pair"].is_null())
        .map(|text| Expected {
            text: text["text"].as_str().unwrap().into(),
            ids: ids(&text["ids"]),
            positions: (0..text["ids"].as_array().unwrap().len()).collect(),
            states: text["hidden_states"].as_array().unwrap().iter().map(floats).collect(),
        })
        .collect()
}

pub(crate) fn tensor(file: &[u8], name: &str) -> Vec<f32> {
    let tensors = SafeTensors::deserialize(file).unwrap();
    let four = tensors.tensor(name).unwrap();
    let four = four.data().chunks_exact(4);
    four.map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

pub(crate) fn hidden_states() -> (Value, Vec<u8>) {
    let file = std::fs::read(fixture("hidden_states.safetensors")).unwrap();
    (read_json(&fixture("hidden_states.json")), file)
}

fn expected_of_minilm() -> Vec<Expected> {
    let (json, file) = hidden_states();
    let n_layers = json["layers"].as_u64().unwrap() as usize + 1;
    let texts = json["texts"].as_array().unwrap().iter().enumerate();
    texts
        .map(|(number, text)| {
            let states = tensor(&file, &format!("text{number}.hidden_states"));
            Expected {
                text: text["text"].as_str().unwrap().into(),
                ids: ids(&text["ids"]),
                positions: numbers(&text["positions"]),
                states: states.chunks_exact(states.len() / n_layers).map(<[f32]>::to_vec).collect(),
            }
        })
        .collect()
}

/// Asserts the tolerances over all values of all texts; `max_length` is that of the fixture.
fn assert_equals_transformers(folder: &Path, expected: &[Expected], max_length: usize) {
    let mut oracle = Oracle::open(folder);
    let hidden = oracle.checkpoint.config.hidden;
    let tokenizer = oracle.tokenizer(max_length);
    let mut differences = Vec::new();
    for text in expected {
        let encoding = tokenizer.encode(&[Document::Text(&text.text)], false).unwrap().remove(0);
        assert_eq!(encoding.windows[0].ids, text.ids, "`{}`", text.text);
        let layers = oracle.alone(&text.ids);
        assert_eq!(layers.len(), text.states.len(), "layers of `{}`", text.text);
        for (got, expected) in layers.iter().zip(&text.states) {
            let got =
                text.positions.iter().flat_map(|token| &got[token * hidden..(token + 1) * hidden]);
            assert_eq!(expected.len(), text.positions.len() * hidden);
            differences.extend(got.zip(expected).map(|(got, expected)| (got - expected).abs()));
        }
    }
    differences.sort_by(f32::total_cmp);
    let (most, median) = (differences[differences.len() - 1], differences[differences.len() / 2]);
    assert!(most <= MOST, "the largest of {} differences is {most}", differences.len());
    assert!(median <= MEDIAN, "the median of {} differences is {median}", differences.len());
}

#[test]
fn every_layer_of_minilm_equals_that_of_transformers() {
    assert_equals_transformers(&minilm(), &expected_of_minilm(), 128);
}

#[test]
fn every_layer_of_a_tiny_bert_equals_that_of_transformers() {
    assert_equals_transformers(&fixture("tiny_bert"), &expected_of_tiny("tiny_bert"), 64);
}

#[test]
fn old_and_new_names_of_tensors_give_identical_states() {
    let mut new = Oracle::open(&fixture("tiny_bert"));
    let mut old = Oracle::open(&fixture("tiny_bert_gamma_beta"));
    for text in expected_of_tiny("tiny_bert") {
        assert_eq!(new.alone(&text.ids), old.alone(&text.ids), "`{}`", text.text);
    }
}

#[test]
fn truncated_texts_keep_their_special_tokens_and_say_so() {
    let (json, _) = hidden_states();
    let texts: Vec<Document<'_>> = json["texts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|text| Document::Text(text["text"].as_str().unwrap()))
        .collect();
    let tokenizer = Oracle::open(&fixture("tiny_bert")).tokenizer(16);
    let minilm =
        TextTokenizer::open(&minilm().join("tokenizer.json"), 128, Overflow::Truncate).unwrap();
    for (encoding, text) in
        minilm.encode(&texts, false).unwrap().iter().zip(json["texts"].as_array().unwrap())
    {
        assert_eq!(Value::from(encoding.truncated), text["truncated"]);
    }
    for encoding in tokenizer.encode(&texts, false).unwrap() {
        let [window] = &encoding.windows[..] else {
            panic!("a truncated text is one window");
        };
        assert_eq!((window.ids[0], window.ids.last()), (2, Some(&3)));
        assert!(window.ids.len() <= 16 && encoding.truncated == (window.ids.len() == 16));
    }
}

#[test]
fn a_text_alone_equals_the_same_text_in_any_batch() {
    for (folder, texts) in
        [(minilm(), expected_of_minilm()), (fixture("tiny_bert"), expected_of_tiny("tiny_bert"))]
    {
        let mut oracle = Oracle::open(&folder);
        let documents: Vec<&[u32]> = texts.iter().map(|text| &text.ids[..]).collect();
        let alone: Vec<Layers> = documents.iter().map(|ids| oracle.alone(ids)).collect();
        // A stride that visits every text: 5 has no common divisor with 8 texts, and 3 none with 5.
        let n_texts = documents.len();
        let stride = if n_texts.is_multiple_of(5) { 3 } else { 5 };
        let orders: [Vec<usize>; 3] = [
            (0..n_texts).collect(),
            (0..n_texts).rev().collect(),
            (0..n_texts).map(|place| (place * stride + 2) % n_texts).collect(),
        ];
        for order in orders {
            // All texts in one batch, in this order, and then in batches as they are planned.
            let mut batches = vec![(0..n_texts as u32).collect::<Vec<u32>>()];
            let lengths: Vec<u32> =
                order.iter().map(|text| documents[*text].len() as u32).collect();
            for budget in [1, 60, 256, 4096] {
                batches.extend(plan_batches(&lengths, budget));
            }
            for batch in batches {
                let members: Vec<usize> =
                    batch.iter().map(|place| order[*place as usize]).collect();
                let ids: Vec<&[u32]> = members.iter().map(|text| documents[*text]).collect();
                for (text, layers) in members.iter().zip(oracle.run(&ids)) {
                    assert_near(&alone[*text], &layers, &texts[*text].text);
                }
            }
        }
    }
}

fn assert_near(expected: &Layers, got: &Layers, text: &str) {
    for (layer, (expected, got)) in expected.iter().zip(got).enumerate() {
        assert_eq!(expected.len(), got.len());
        let largest = expected.iter().fold(1.0f32, |largest, value| largest.max(value.abs()));
        let difference = largest_difference(expected, got);
        assert!(
            difference <= 1e-5 * largest,
            "layer {layer} of `{text}` moves by {difference} with its batch mates"
        );
    }
}

pub(crate) fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    // Written so that NaN counts as the largest difference.
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |most, next| if next <= most { most } else { next })
}

#[test]
fn pooled_states_equal_those_of_transformers() {
    let (json, file) = hidden_states();
    let checkpoint = Checkpoint::open(&minilm()).unwrap();
    let layer = checkpoint.config.layers;
    let states = Pooling::ALL.map(|pooling| StateId::pooled(pooling, layer));
    let settings = EncoderSettings {
        device: Device::Cpu,
        precision: Precision::F32,
        layers: vec![layer],
        threads: 1,
    };
    let mut encoder = Encoder::open(runtime(), &checkpoint, &settings).unwrap();
    let all: Vec<Vec<u32>> =
        json["texts"].as_array().unwrap().iter().map(|text| ids(&text["ids"])).collect();
    let batch = TokenBatch::new(all.iter().map(|ids| (&ids[..], &[][..])));
    let request = Request {
        states: &states,
        dtype: Dtype::F32,
        stored: Dtype::F32,
        words: &[],
        left_out: &[],
    };
    let computed = encoder.workers().0[0].compute(&batch).unwrap();
    let made = computed.finish(request, |row| format!("text {row}")).unwrap();
    let names: Vec<&str> = made.iter().map(|made| made.state.kind.name()).collect();
    assert_eq!(names, ["cls", "mean", "max"]);
    for state in &made {
        let StateValues::Pooled(values) = &state.values else {
            panic!("{} is pooled", state.state);
        };
        for (number, got) in values.chunks_exact(checkpoint.config.hidden).enumerate() {
            let expected = tensor(&file, &format!("text{number}.{}", state.state.kind.name()));
            let got = got.to_vec();
            let difference = largest_difference(&expected, &got);
            assert!(difference <= MOST, "{} of text {number} differs by {difference}", state.state);
        }
    }
}

#[test]
fn padding_is_never_pooled() {
    let mut oracle = Oracle::open(&fixture("tiny_bert"));
    let texts = expected_of_tiny("tiny_bert");
    let hidden = oracle.checkpoint.config.hidden;
    let documents: Vec<&[u32]> = texts.iter().map(|text| &text.ids[..]).collect();
    for (layers, text) in oracle.run(&documents).iter().zip(&texts) {
        let (last, expected) = (layers.last().unwrap(), text.states.last().unwrap());
        for pooling in Pooling::ALL {
            let (mut got, mut wanted) = (vec![0.0; hidden], vec![0.0; hidden]);
            pool(pooling, last, &mut got);
            pool(pooling, expected, &mut wanted);
            let difference = largest_difference(&wanted, &got);
            assert!(difference <= MOST, "{pooling:?} of `{}` differs by {difference}", text.text);
        }
    }
}

#[test]
fn characters_and_words_of_tokens_equal_those_of_the_python_tokenizer() {
    for (folder, path) in
        [(minilm(), "hidden_states.json"), (fixture("tiny_bert"), "tiny_bert/expected.json")]
    {
        let tokenizer =
            TextTokenizer::open(&folder.join("tokenizer.json"), 128, Overflow::Truncate).unwrap();
        for text in read_json(&fixture(path))["texts"].as_array().unwrap() {
            // A table is for a single text that is not truncated.
            if text["text_pair"].is_string() || text["truncated"] == Value::Bool(true) {
                continue;
            }
            let table = tokenizer.table(text["text"].as_str().unwrap()).unwrap();
            assert_eq!(Value::from(table.tokens), text["tokens"]);
            assert_eq!(Value::from(table.ids), text["ids"]);
            assert_eq!(Value::from(table.word_ids), text["word_ids"]);
            assert_eq!(serde_json::to_value(table.offsets).unwrap(), text["offsets"]);
        }
    }
}

#[test]
fn the_f16_graph_computes_the_same_as_the_f32_graph() {
    // A CPU has no f16 kernels, so ONNX Runtime casts around them. This verifies the graph, its weights and its
    // outputs; only CUDA can show the speed and the rounding of its own kernels.
    for folder in [minilm(), fixture("tiny_bert")] {
        let mut single = Oracle::open_with(&folder, Precision::F32);
        let mut half = Oracle::open_with(&folder, Precision::F16);
        let tokenizer = single.tokenizer(32);
        let texts = ["a cat sat on the mat", "an old bear reads", "cab"];
        let encodings = tokenizer.encode(&texts.map(Document::Text), false).unwrap();
        let documents: Vec<&[u32]> =
            encodings.iter().map(|encoding| &encoding.windows[0].ids[..]).collect();
        let hidden = single.checkpoint.config.hidden;
        for (expected, got) in single.run(&documents).iter().zip(half.run(&documents)) {
            for (expected, got) in expected.iter().zip(&got) {
                for (expected, got) in expected.chunks(hidden).zip(got.chunks(hidden)) {
                    let cosine = cosine(expected, got);
                    assert!(cosine >= 0.9999, "{}: {cosine}", folder.display());
                }
            }
        }
    }
}

pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| {
        let products = a.iter().zip(b).map(|(x, y)| f64::from(*x) * f64::from(*y));
        products.sum::<f64>()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

//! Every model family compared with `transformers`; the checkpoints and the expected numbers are made by
//! `scripts/fixtures/families.py`.

use std::path::{Path, PathBuf};

use frostbert::internals::{
    data::document::Document,
    encoder::{
        checkpoint::Checkpoint,
        device::Precision,
        provider::Provider,
        session::{EncoderSession, SessionOptions, TokenBatch},
        tokenizer::TextTokenizer,
        windows::Overflow,
    },
};
use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::support::{Workshop, contents, fixture, read_json, runtime};

/// The tolerances, f32 against f32, over all tokens; of a family that is none of [`PARTS_OF_BERT`], as a share of the
/// largest value.
const MOST: f32 = 1e-4;
const MEDIAN: f32 = 1e-6;

/// Folder, family, number of layers, maximum input length, and the layers that have states.
type Described = (&'static str, &'static str, usize, Option<usize>, &'static [usize]);

const MODELS: [Described; 27] = [
    ("bert_sharded", "bert", 3, Some(64), &[0, 1, 2, 3]),
    ("roberta", "roberta", 2, Some(64), &[0, 1, 2]),
    ("xlm_roberta_f16", "xlm-roberta", 2, Some(64), &[0, 1, 2]),
    ("camembert_bf16", "camembert", 2, Some(64), &[0, 1, 2]),
    ("distilbert", "distilbert", 2, Some(64), &[0, 1, 2]),
    ("electra", "electra", 2, Some(64), &[0, 1, 2]),
    ("electra_one_width", "electra", 1, Some(64), &[0, 1]),
    ("mpnet", "mpnet", 2, Some(200), &[0, 1, 2]),
    ("modernbert", "modernbert", 3, Some(64), &[0, 1, 2, 3]),
    ("modernbert_older", "modernbert", 3, Some(130), &[0, 1, 2, 3]),
    ("albert", "albert", 3, Some(64), &[0, 1, 2, 3]),
    ("albert_groups", "albert", 4, Some(64), &[0, 1, 2, 3, 4]),
    ("deberta_v3", "deberta-v2", 2, Some(100), &[0, 1, 2]),
    ("deberta_v2", "deberta-v2", 2, Some(40), &[0, 1, 2]),
    ("deberta_v2_conv", "deberta-v2", 2, Some(100), &[0, 1, 2]),
    ("deberta_v2_conv_groups", "deberta-v2", 2, Some(40), &[0, 1, 2]),
    ("nomic_bert", "nomic_bert", 2, Some(64), &[0, 1, 2]),
    ("nomic_bert_hub", "nomic_bert", 2, Some(64), &[0, 1, 2]),
    ("gte", "gte", 2, Some(64), &[0, 1, 2]),
    ("gte_new", "new", 2, Some(64), &[0, 1, 2]),
    ("jina_v2", "bert", 2, Some(100), &[0, 1, 2]),
    ("jina_v2_four_heads", "bert", 2, Some(64), &[0, 1, 2]),
    ("deberta_onnx", "deberta-v2", 2, Some(64), &[0, 1, 2]),
    // Exported by scripts/export-onnx.py.
    ("albert_onnx", "albert", 2, Some(64), &[0, 1, 2]),
    ("modernbert_onnx", "modernbert", 2, Some(64), &[0, 1, 2]),
    ("odd_onnx", "onnx", 1, None, &[1]),
    // The expected numbers are ONNX Runtime's own, with each text run alone.
    ("int8_onnx", "onnx", 1, None, &[1]),
];

/// The families whose layers have BERT's parts (but jina-v2, which calls itself a BERT). States between the layers of a
/// ModernBERT are not normalised, so they are as large as its weights make them.
const PARTS_OF_BERT: [&str; 8] =
    ["bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra", "mpnet", "onnx"];

fn family(name: &str) -> PathBuf {
    fixture("families").join(name)
}

/// The token ids and token types of a text.
pub(crate) type Window = (Vec<u32>, Vec<u8>);

struct Expected {
    window: Window,
    /// The states, one array `[tokens, hidden]` per layer.
    states: Vec<Vec<f32>>,
}

fn expected(folder: &Path) -> Vec<Expected> {
    let json = read_json(&folder.join("expected.json"));
    let file = std::fs::read(folder.join("expected.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let ids = |value: &Value| -> Vec<u32> {
        let ids = value.as_array().unwrap().iter();
        ids.map(|id| id.as_u64().unwrap() as u32).collect()
    };
    let texts = json["texts"].as_array().unwrap().iter().enumerate();
    texts
        .map(|(number, text)| {
            let states = tensors.tensor(&format!("text{number}")).unwrap();
            let floats = states.data().chunks_exact(4);
            let floats: Vec<f32> =
                floats.map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
            let layer_size = floats.len() / states.shape()[0];
            let types = ids(&text["type_ids"]);
            Expected {
                window: (ids(&text["ids"]), types.into_iter().map(|id| id as u8).collect()),
                states: floats.chunks(layer_size).map(<[f32]>::to_vec).collect(),
            }
        })
        .collect()
}

pub(crate) fn open_session(checkpoint: &Checkpoint, layers: &[usize]) -> EncoderSession {
    let options = SessionOptions {
        provider: Provider::Cpu,
        precision: Precision::F32,
        layers: layers.to_vec(),
        intra_threads: 1,
    };
    EncoderSession::open(runtime(), checkpoint, &options).unwrap()
}

/// Returns the states by window and layer, without padding.
pub(crate) fn run(
    session: &mut EncoderSession,
    windows: &[&Window],
    hidden: usize,
) -> Vec<Vec<Vec<f32>>> {
    let batch = TokenBatch::new(windows.iter().map(|(ids, types)| (&ids[..], &types[..])));
    let mut states = vec![Vec::new(); windows.len()];
    session
        .run(&batch, |_, layer| {
            for (row, of_window) in states.iter_mut().enumerate() {
                let start = row * batch.width * hidden;
                of_window.push(layer[start..start + windows[row].0.len() * hidden].to_vec());
            }
            Ok(())
        })
        .unwrap();
    states
}

fn differences(a: &[f32], b: &[f32]) -> Vec<f32> {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().zip(b);
    pairs.map(|(a, b)| (a - b).abs()).collect()
}

#[test]
fn every_layer_of_every_family_equals_that_of_transformers() {
    for (name, kind, _, _, layers) in MODELS {
        let folder = family(name);
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let mut session = open_session(&checkpoint, layers);
        let (mut all, mut largest) = (Vec::new(), 1.0f32);
        for text in expected(&folder) {
            let got = run(&mut session, &[&text.window], checkpoint.config.hidden).remove(0);
            for (layer, got) in layers.iter().zip(&got) {
                all.extend(differences(got, &text.states[*layer]));
                largest = got.iter().fold(largest, |most, value| most.max(value.abs()));
            }
        }
        all.sort_by(f32::total_cmp);
        let has_parts_of_bert = PARTS_OF_BERT.contains(&kind) && !name.starts_with("jina");
        let is_plain = has_parts_of_bert || name.ends_with("onnx");
        let scale = if is_plain { 1.0 } else { largest };
        let (most, median) = (all[all.len() - 1] / scale, all[all.len() / 2] / scale);
        println!("{name}: {} values, largest difference {most:e}, median {median:e}", all.len());
        // A difference in the last bit of f32 may change an 8-bit value by one step.
        let allowed = if name == "int8_onnx" { 5e-2 } else { MOST };
        assert!(most <= allowed, "{name}: the largest difference is {most}");
        assert!(median <= MEDIAN, "{name}: the median is {median}");
    }
}

#[test]
fn a_text_of_any_family_alone_equals_the_same_text_in_a_padded_batch() {
    for (name, _, _, _, layers) in MODELS {
        let folder = family(name);
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let hidden = checkpoint.config.hidden;
        let mut session = open_session(&checkpoint, layers);
        let texts = expected(&folder);
        let windows: Vec<&Window> = texts.iter().map(|text| &text.window).collect();
        let together = run(&mut session, &windows, hidden);
        for (window, got) in windows.iter().zip(&together) {
            let alone = run(&mut session, &[window], hidden).remove(0);
            for (alone, got) in alone.iter().zip(got) {
                let largest = alone.iter().fold(1.0f32, |most, value| most.max(value.abs()));
                let moved = differences(alone, got);
                let moved = moved.iter().fold(0.0f32, |most, next| most.max(*next));
                assert!(moved <= 1e-5 * largest, "{name} moves by {moved}");
            }
        }
    }
}

#[test]
fn every_familys_tokenizer_gives_the_ids_of_the_python_one() {
    for (name, ..) in MODELS {
        let folder = family(name);
        let tokenizer =
            TextTokenizer::open(&folder.join("tokenizer.json"), 64, Overflow::Truncate).unwrap();
        let json = read_json(&folder.join("expected.json"));
        for text in json["texts"].as_array().unwrap() {
            let Some(first) = text["text"].as_str() else {
                // Ids that no text gives, for their number.
                continue;
            };
            let input = match text["text_pair"].as_str() {
                Some(second) => Document::Pair(first, second),
                None => Document::Text(first),
            };
            let encoding = tokenizer.encode(&[input], false).unwrap();
            let window = &encoding[0].windows[0];
            assert_eq!(json!(window.ids), text["ids"], "{name}");
            assert_eq!(json!(window.type_ids), text["type_ids"], "{name}");
        }
    }
}

#[test]
fn a_checkpoint_is_described_without_onnx_runtime() {
    for (name, kind, layers, max_tokens, _) in MODELS {
        let workshop = Workshop::empty();
        let folder = family(name).display().to_string();
        let report = workshop.json(&["model", "info", &folder]);
        assert_eq!(report["family"], json!(kind), "{name}");
        assert_eq!(report["layers"], json!(layers), "{name}");
        assert_eq!(report["max_tokens"], json!(max_tokens), "{name}");
        let parameters = &read_json(&family(name).join("expected.json"))["parameters"];
        if !name.ends_with("onnx") {
            assert_eq!(&report["parameters"], parameters, "{name}");
        }
        assert!(report["vocabulary"].as_u64() >= Some(57), "{name}");
    }
}

/// Copies a family's folder, to be damaged.
fn copy_of(name: &str) -> (Workshop, PathBuf) {
    let workshop = Workshop::empty();
    let copy = workshop.path("model");
    std::fs::create_dir(&copy).unwrap();
    for file in contents(&family(name)).into_keys() {
        std::fs::copy(family(name).join(&file), copy.join(&file)).unwrap();
    }
    (workshop, copy)
}

fn refusal(folder: &Path) -> String {
    let Err(error) = Checkpoint::open(folder) else { panic!("`{}` is opened", folder.display()) };
    format!("{error}; {}", error.hint().unwrap())
}

fn weights_hash(folder: &Path) -> String {
    Checkpoint::open(folder).unwrap().hashes.weights.to_string()
}

#[test]
fn every_shard_is_hashed_and_needed() {
    let (_workshop, folder) = copy_of("bert_sharded");
    let before = weights_hash(&folder);
    let shard = folder.join("model-00002-of-00003.safetensors");
    let mut bytes = std::fs::read(&shard).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&shard, bytes).unwrap();
    assert_ne!(weights_hash(&folder), before);

    std::fs::remove_file(&shard).unwrap();
    let message = refusal(&folder);
    assert!(
        message.contains("model-00002-of-00003.safetensors")
            && message.contains("fetch this shard"),
        "{message}"
    );
}

#[test]
fn a_tensor_that_the_index_does_not_name_is_named() {
    let (_workshop, folder) = copy_of("bert_sharded");
    let index = folder.join("model.safetensors.index.json");
    let text = std::fs::read_to_string(&index).unwrap();
    let name = "bert.encoder.layer.1.output.dense.bias";
    std::fs::write(&index, text.replace(name, "bert.other")).unwrap();
    let checkpoint = Checkpoint::open(&folder).unwrap();
    let options = SessionOptions {
        provider: Provider::Cpu,
        precision: Precision::F32,
        layers: vec![3],
        intra_threads: 1,
    };
    let Err(error) = EncoderSession::open(runtime(), &checkpoint, &options) else {
        panic!("a graph is built without `{name}`")
    };
    let message = error.to_string();
    assert!(message.contains(name) && message.contains("index.json"), "{message}");

    std::fs::write(&index, text.replace("model-00002-of", "../model-00002-of")).unwrap();
    assert!(refusal(&folder).contains("for a file name"));
}

#[test]
fn one_file_of_weights_keeps_its_own_hash() {
    let folder = family("roberta");
    let file = frostbert::cache::fingerprint::hash_file(&folder.join("model.safetensors")).unwrap();
    assert_eq!(weights_hash(&folder), file.to_string());
}

#[test]
fn external_data_of_a_model_onnx_is_hashed_and_needed() {
    let (_workshop, folder) = copy_of("deberta_onnx");
    let before = weights_hash(&folder);
    let data = folder.join("model.onnx_data");
    let mut bytes = std::fs::read(&data).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&data, bytes).unwrap();
    assert_ne!(weights_hash(&folder), before);
    std::fs::remove_file(&data).unwrap();
    let message = refusal(&folder);
    assert!(
        message.contains("model.onnx_data") && message.contains("next to model.onnx"),
        "{message}"
    );
}

#[test]
fn a_model_onnx_may_lie_in_a_folder_of_its_own() {
    let (_workshop, folder) = copy_of("deberta_onnx");
    let before = weights_hash(&folder);
    std::fs::create_dir(folder.join("onnx")).unwrap();
    for file in ["model.onnx", "model.onnx_data"] {
        std::fs::rename(folder.join(file), folder.join("onnx").join(file)).unwrap();
    }
    assert_eq!(weights_hash(&folder), before);
    let checkpoint = Checkpoint::open(&folder).unwrap();
    open_session(&checkpoint, &[2]);
}

#[test]
fn a_layer_that_a_model_onnx_does_not_put_out_is_refused_before_anything_runs() {
    let checkpoint = Checkpoint::open(&family("odd_onnx")).unwrap();
    checkpoint.check_layers(&[1]).unwrap();
    let error = checkpoint.check_layers(&[0]).unwrap_err();
    assert!(error.to_string().contains("layer 0"), "{error}");
    let error = checkpoint.check_layers(&[2]).unwrap_err();
    assert!(error.to_string().contains("from 0 (embeddings) to 1"), "{error}");
}

#[test]
fn what_no_graph_of_ours_computes_is_refused_with_a_way_out() {
    let (_workshop, folder) = copy_of("roberta");
    let config = folder.join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    for (from, to, word) in [
        ("\"model_type\": \"roberta\"", "\"model_type\": \"roformer\"", "roformer"),
        ("\"gelu\"", "\"gelu_fast\"", "gelu_fast"),
        (
            "\"model_type\"",
            "\"position_embedding_type\": \"relative_key_query\", \"model_type\"",
            "relative_key_query",
        ),
    ] {
        assert!(text.contains(from), "{from}");
        std::fs::write(&config, text.replacen(from, to, 1)).unwrap();
        let message = refusal(&folder);
        assert!(message.contains(word) && message.contains("model.onnx"), "{message}");
    }
}

#[test]
fn a_family_without_a_relative_bias_keeps_the_graphs_that_caches_are_made_with() {
    let graphs = |name: &str| {
        let checkpoint = Checkpoint::open(&family(name)).unwrap();
        [("cpu", Precision::F32), ("cpu", Precision::Int8), ("cuda", Precision::F16)]
            .map(|(provider, precision)| checkpoint.graph_profile(provider, precision))
    };
    let plain = ["bert-fused-2", "bert-fused-w8-out-a8-row-smooth-1", "bert-packed-1"];
    for name in ["bert_sharded", "distilbert", "electra", "electra_one_width"] {
        assert_eq!(graphs(name), plain, "{name}");
    }
    for name in ["roberta", "xlm_roberta_f16", "camembert_bf16"] {
        assert_eq!(graphs(name), plain.map(|graph| format!("{graph}-padding-1")), "{name}");
    }
    assert_eq!(graphs("mpnet"), plain.map(|graph| format!("{graph}-relative-1-padding-1")));
    assert_eq!(graphs("albert"), plain.map(|graph| format!("{graph}-albert-1")));
}

#[test]
fn a_family_whose_attention_knows_positions_runs_the_padded_graph_everywhere() {
    for (name, graph) in [
        ("modernbert", "bert-fused-2-modernbert-3"),
        ("modernbert_older", "bert-fused-2-modernbert-3"),
        ("deberta_v3", "bert-fused-2-deberta-1"),
        ("deberta_v2_conv", "bert-fused-2-deberta-1-convolution-1"),
        ("nomic_bert_hub", "bert-fused-2-nomic-2"),
        ("gte_new", "bert-fused-2-gte-2"),
        ("jina_v2", "bert-fused-2-jina-1"),
    ] {
        let checkpoint = Checkpoint::open(&family(name)).unwrap();
        for (provider, precision) in [("cpu", Precision::F32), ("cuda", Precision::F16)] {
            assert_eq!(checkpoint.graph_profile(provider, precision), graph);
        }
        checkpoint.check_precision(Precision::F32).unwrap();
        checkpoint.check_precision(Precision::Int8).unwrap();
    }
}

#[test]
fn families_with_other_parts_keep_their_states_in_8_bits() {
    for (name, last) in [
        ("modernbert", 3),
        ("modernbert_older", 3),
        ("albert", 3),
        ("deberta_v3", 2),
        ("deberta_v2", 2),
        ("deberta_v2_conv", 2),
        ("deberta_v2_conv_groups", 2),
        ("nomic_bert", 2),
        ("gte", 2),
        ("jina_v2", 2),
        ("jina_v2_four_heads", 2),
    ] {
        let folder = family(name);
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let options = SessionOptions {
            provider: Provider::Cpu,
            precision: Precision::Int8,
            layers: (0..=last).collect(),
            intra_threads: 1,
        };
        let mut session = EncoderSession::open(runtime(), &checkpoint, &options).unwrap();
        let hidden = checkpoint.config.hidden;
        let texts = expected(&folder);
        let windows: Vec<&Window> = texts.iter().map(|text| &text.window).collect();
        let mut states = run(&mut session, &windows, hidden);
        states.extend(windows.iter().flat_map(|window| run(&mut session, &[window], hidden)));
        for layer in 0..=last {
            let (mut sum, mut n_tokens) = (0.0f32, 0);
            for (text, got) in texts.iter().chain(&texts).zip(&states) {
                for (a, b) in got[layer].chunks(hidden).zip(text.states[layer].chunks(hidden)) {
                    let dot =
                        |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
                    sum += dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
                    n_tokens += 1;
                }
            }
            let (mean, least) = (sum / n_tokens as f32, if layer == last { 0.998 } else { 0.99 });
            assert!(mean >= least, "{name}: the mean cosine of layer {layer} is {mean}");
        }
    }
}

#[test]
fn a_model_onnx_stands_in_for_safetensors_that_no_graph_of_ours_runs() {
    let (_workshop, folder) = copy_of("deberta_onnx");
    std::fs::write(folder.join("model.safetensors"), b"weights of another family").unwrap();
    let config = folder.join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("\"deberta-v2\"", "\"roformer\"")).unwrap();
    let checkpoint = Checkpoint::open(&folder).unwrap();
    for provider in ["cpu", "cuda"] {
        assert_eq!(checkpoint.graph_profile(provider, Precision::F32), "onnx-file-1");
    }
    assert_eq!(weights_hash(&folder), weights_hash(&family("deberta_onnx")));
}

#[test]
fn a_file_that_is_no_onnx_model_is_named() {
    let (_workshop, folder) = copy_of("odd_onnx");
    let path = folder.join("model.onnx");
    let bytes = std::fs::read(&path).unwrap();
    for content in [&b"version https://git-lfs"[..], b"", &bytes[..bytes.len() / 2]] {
        std::fs::write(&path, content).unwrap();
        let message = refusal(&folder);
        assert!(message.contains("a complete ONNX model"), "{message}");
    }
}

#[test]
fn a_padding_token_in_a_text_of_a_roberta_takes_the_position_that_transformers_gives_it() {
    let fixture = read_json(&fixture("padding_token.json"));
    for (name, texts) in fixture["models"].as_object().unwrap() {
        let folder = family(name);
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let mut session = open_session(&checkpoint, &[0, 1, 2]);
        let tokenizer = TextTokenizer::new(&checkpoint.tokenizer, 64, Overflow::Truncate).unwrap();
        let mut windows: Vec<Window> = Vec::new();
        for text in texts.as_array().unwrap() {
            let input = Document::Text(text["text"].as_str().unwrap());
            let mut encoding = tokenizer.encode(&[input], false).unwrap().remove(0);
            let window = encoding.windows.remove(0);
            assert_eq!(json!(window.ids), text["ids"], "{name}");
            windows.push((window.ids, window.type_ids));
        }
        // Run together, so that the padding around them is tested too.
        let all: Vec<&Window> = windows.iter().collect();
        let states = run(&mut session, &all, checkpoint.config.hidden);
        for (text, states) in texts.as_array().unwrap().iter().zip(states) {
            let expected = text["states"].as_array().unwrap();
            assert_eq!(expected.len(), states.len());
            for (expected, got) in expected.iter().zip(states) {
                let expected: Vec<f32> = serde_json::from_value(expected.clone()).unwrap();
                let most = differences(&expected, &got).into_iter().fold(0.0, f32::max);
                assert!(most <= MOST, "{name}, {}: {most}", text["text"]);
            }
        }
    }
}

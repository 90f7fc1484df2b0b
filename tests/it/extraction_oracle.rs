//! All of stage 1, from files to Parquet files, compared with `transformers`; the expected numbers are made by
//! `scripts/fixtures/extraction.py`.

mod read_back;

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
};

use frostbert::cache::{
    fingerprint::{Key, Mode},
    states::Dtype,
};
use half::f16;
use read_back::{decode, files, rows, shards, states};
use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::support::{Workshop, fixture, minilm, read_json};

/// The tolerances, f32 against f32, over all values.
const MOST: f64 = 1e-4;
const MEDIAN: f64 = 1e-6;

const HIDDEN: usize = 32;
const LAYERS: [usize; 3] = [0, 1, 2];

/// Small batches and shards, so that the windows of a document are in different ones.
const PIPELINE: &str = r#"
[model]
path = "MODEL"
device = "cpu"
batch_tokens = 60

[data]
DATA

[cache]
store = ["cls", "mean", "max", "words", "tokens"]
layers = [0, 1, -1]
dtype = "f32"
shard_tokens = 90
"#;

/// A group of documents of the fixture.
struct Group {
    name: &'static str,
    records: Vec<Value>,
    tensors: Vec<u8>,
}

impl Group {
    fn read(name: &'static str) -> Group {
        let json = read_json(&fixture("extraction.json"));
        Group {
            name,
            records: json[name].as_array().unwrap().clone(),
            tensors: std::fs::read(fixture("extraction.safetensors")).unwrap(),
        }
    }

    fn parts(&self, document: usize) -> Vec<String> {
        serde_json::from_value(self.records[document]["input"].clone()).unwrap()
    }

    /// Returns the documents by their keys.
    fn by_key(&self) -> HashMap<String, usize> {
        let key = |document: usize| {
            let parts = self.parts(document);
            let mode = match (&self.records[document]["split"], parts.len()) {
                (Value::Bool(true), _) => Mode::Words,
                (_, 1) => Mode::Text,
                _ => Mode::Pair,
            };
            (Key::of(mode, &parts).to_hex(), document)
        };
        (0..self.records.len()).map(key).collect()
    }

    /// Returns a pipeline with the length limit of the group and a source.
    fn pipeline(&self, data: &str) -> String {
        let limit = &self.records[0];
        let pipeline = PIPELINE.replace("DATA", data);
        format!(
            "{pipeline}max_length = {}\noverflow = {}\nstride = {}\n",
            limit["max_length"], limit["overflow"], limit["stride"]
        )
    }

    /// Returns the states of each token of a window: `[token][hidden]`.
    fn states(&self, document: usize, window: usize, layer: usize) -> Vec<Vec<f64>> {
        let tensors = SafeTensors::deserialize(&self.tensors).unwrap();
        let name = format!("{}.{document}.{window}", self.name);
        let tensor = tensors.tensor(&name).unwrap();
        let bytes = tensor.data();
        let layer_bytes = bytes.len() / tensor.shape()[0];
        decode(&bytes[layer * layer_bytes..(layer + 1) * layer_bytes], Dtype::F32)
            .chunks_exact(HIDDEN)
            .map(|row| row.iter().copied().map(f64::from).collect())
            .collect()
    }
}

fn numbers(value: &Value) -> Vec<u64> {
    serde_json::from_value(value.clone()).unwrap()
}

/// What a shard should contain of a group, according to the keys in its docs.parquet.
#[derive(Default)]
struct Expected {
    documents: Vec<Value>,
    tokens: Vec<Value>,
    words: Vec<Value>,
    /// The documents, in order.
    numbers: Vec<usize>,
}

impl Expected {
    fn of(group: &Group, keys: &[String]) -> Expected {
        let known = group.by_key();
        let mut shard = Expected::default();
        for (row, key) in keys.iter().enumerate() {
            let number = known[key];
            let record = &group.records[number];
            let windows = record["windows"].as_array().unwrap();
            for (window, columns) in windows.iter().enumerate() {
                let n_tokens = columns[0].as_array().unwrap().len();
                shard.documents.push(json!([
                    key,
                    window,
                    windows.len(),
                    n_tokens,
                    record["truncated"],
                    shard.tokens.len()
                ]));
                for token in 0..n_tokens {
                    let [id, start, end, word, sequence] =
                        [0, 2, 3, 4, 5].map(|column| &columns[column][token]);
                    shard.tokens.push(json!([row, window, token, id, word, start, end, sequence]));
                }
            }
            for place in record["words"].as_array().unwrap() {
                let mut columns = vec![json!(row)];
                columns.extend(place.as_array().unwrap().iter().cloned());
                shard.words.push(Value::Array(columns));
            }
            shard.numbers.push(number);
        }
        shard
    }

    /// Returns the rows of a state's file.
    fn states(&self, group: &Group, kind: &str, layer: usize) -> Vec<Vec<f64>> {
        let of_document = |number: &usize| -> Vec<Vec<f64>> {
            let record = &group.records[*number];
            let n_windows = record["windows"].as_array().unwrap().len();
            let windows: Vec<Vec<Vec<f64>>> =
                (0..n_windows).map(|window| group.states(*number, window, layer)).collect();
            // A token that two windows share counts twice.
            let all = || windows.iter().flatten();
            let folded = |fold: fn(f64, f64) -> f64, start: f64| -> Vec<f64> {
                let value = |place: usize| all().map(|token| token[place]).fold(start, fold);
                (0..HIDDEN).map(value).collect()
            };
            match kind {
                "tokens" => all().cloned().collect(),
                "cls" => vec![windows[0][0].clone()],
                "max" => vec![folded(f64::max, f64::NEG_INFINITY)],
                "mean" => {
                    let sum = folded(|a, b| a + b, 0.0);
                    let n_tokens = all().count() as f64;
                    vec![sum.iter().map(|sum| sum / n_tokens).collect()]
                }
                "words" => {
                    let places = record["words"].as_array().unwrap().iter().map(numbers);
                    places
                        .map(|place| windows[place[4] as usize][place[5] as usize].clone())
                        .collect()
                }
                other => panic!("no state `{other}`"),
            }
        };
        self.numbers.iter().flat_map(of_document).collect()
    }
}

/// Compares the tables of every shard and, if the fixture has states, the rows of every state.
fn assert_holds(cache: &Path, group: &Group, with_states: bool) {
    let mut seen = BTreeSet::new();
    let mut differences: HashMap<&str, Vec<f64>> = HashMap::new();
    let shards = shards(cache);
    assert!(shards.len() > 1 || !with_states, "{shards:?}");
    for shard in &shards {
        let documents = rows(&shard.join("docs.parquet"));
        let mut keys: Vec<String> =
            documents.iter().map(|row| row[0].as_str().unwrap().into()).collect();
        keys.dedup();
        let expected = Expected::of(group, &keys);
        assert_eq!(documents, expected.documents, "{}", group.name);
        assert_eq!(rows(&shard.join("tokens.parquet")), expected.tokens);
        assert_eq!(rows(&shard.join("words.parquet")), expected.words);
        seen.extend(expected.numbers.iter().copied());
        if !with_states {
            continue;
        }
        for kind in ["cls", "mean", "max", "words", "tokens"] {
            for layer in LAYERS {
                let got = states(&shard.join(format!("{kind}-L{layer:02}.parquet")), Dtype::F32);
                let expected = expected.states(group, kind, layer);
                assert_eq!(got.len(), expected.len(), "rows of {kind}-L{layer:02}");
                for (got, expected) in got.iter().zip(&expected) {
                    let pairs = got.iter().zip(expected);
                    let pairs = pairs.map(|(got, expected)| (f64::from(*got) - expected).abs());
                    differences.entry(kind).or_default().extend(pairs);
                }
            }
        }
    }
    assert_eq!(seen.len(), group.records.len(), "all documents are there");
    for (kind, mut all) in differences {
        all.sort_by(f64::total_cmp);
        let (most, median) = (all[all.len() - 1], all[all.len() / 2]);
        assert!(most <= MOST, "{}: {kind} differs by {most}", group.name);
        assert!(median <= MEDIAN, "{}: {kind}: median {median}", group.name);
    }
}

/// Formats a group's documents as JSON lines.
fn json_lines(group: &Group) -> String {
    let line = |document: usize| match &group.parts(document)[..] {
        [text] => json!({ "text": text }).to_string(),
        [text, other] => json!({ "text": text, "other": other }).to_string(),
        parts => panic!("{parts:?}"),
    };
    let lines: Vec<String> = (0..group.records.len()).map(line).collect();
    lines.join("\n")
}

const TEXTS: &str = "train = { path = \"data.jsonl\" }";
const PAIRS: &str = "train = { path = \"data.jsonl\", text_pair = \"other\" }\npair = \"joint\"";

/// Extracts a group from JSON lines. Returns the workshop, the report, and what was printed to stderr.
fn extract(group: &Group, data: &str) -> (Workshop, Value, String) {
    let workshop = Workshop::empty();
    workshop.write("data.jsonl", json_lines(group));
    workshop.write_pipeline(&group.pipeline(data));
    let ran = workshop.succeed(&["extract", "pipeline.toml", "--json"]);
    let report = serde_json::from_str(&ran.stdout).unwrap();
    (workshop, report, ran.stderr)
}

#[test]
fn every_row_of_texts_in_windows_equals_transformers() {
    let group = Group::read("texts");
    let (workshop, report, said) = extract(&group, TEXTS);
    assert_holds(&workshop.cache(), &group, true);
    assert_eq!(report["truncated"], json!(0));
    assert!(!said.contains("cut off"), "{said}");
}

#[test]
fn every_row_of_joint_pairs_in_windows_equals_transformers() {
    let group = Group::read("pairs");
    let (workshop, report, said) = extract(&group, PAIRS);
    assert_holds(&workshop.cache(), &group, true);
    assert_eq!(report["truncated"], json!(0));
    assert!(!said.contains("cut off"), "{said}");

    // The same questions and contexts from a SQuAD file are the same documents.
    let question = |document: usize| match &group.parts(document)[..] {
        [question, context] => json!({
            "context": context,
            "qas": [{ "id": document.to_string(), "question": question, "answers": [] }],
        }),
        parts => panic!("{parts:?}"),
    };
    let paragraphs: Vec<Value> = (0..group.records.len()).map(question).collect();
    workshop.write("squad.json", json!({ "data": [{ "paragraphs": paragraphs }] }).to_string());
    let squad = "train = { path = \"squad.json\", format = \"squad\" }\ntask = \"qa\"";
    workshop.write_pipeline(&group.pipeline(squad));
    let report = workshop.json(&["extract", "pipeline.toml"]);
    let counts = ["unique", "reused", "computed"].map(|count| report[count].as_u64());
    assert_eq!(counts, [Some(4), Some(4), Some(0)]);
}

#[test]
fn states_that_are_added_later_equal_transformers() {
    let group = Group::read("pairs");
    let workshop = Workshop::empty();
    workshop.write("data.jsonl", json_lines(&group));
    workshop.write_pipeline(&group.pipeline(PAIRS));
    for store in ["[\"mean\"]", "[\"mean\", \"words\"]"] {
        let store = format!("cache.store={store}");
        workshop.json(&["extract", "pipeline.toml", "--set", &store]);
    }
    let before = shards(&workshop.cache());
    workshop.json(&["extract", "pipeline.toml"]);
    assert_eq!(shards(&workshop.cache()), before);
    assert_holds(&workshop.cache(), &group, true);
}

/// Formats a group's words as a CoNLL file, all with the same tag.
fn conll(group: &Group) -> String {
    let sentence = |document: usize| -> String {
        let words = group.parts(document).into_iter();
        words.map(|word| format!("{word}\tO\n")).collect()
    };
    let sentences: Vec<String> = (0..group.records.len()).map(sentence).collect();
    sentences.join("\n")
}

#[test]
fn every_row_of_given_words_in_windows_equals_transformers() {
    let group = Group::read("words");
    let workshop = Workshop::empty();
    workshop.write("words.conll", conll(&group));
    let source = "train = { path = \"words.conll\", format = \"conll\" }\ntask = \"tokens\"";
    let pipeline = group.pipeline(source);
    workshop.write_pipeline(&pipeline.replace("shard_tokens = 90", "shard_tokens = 40"));
    workshop.json(&["extract", "pipeline.toml"]);
    assert_holds(&workshop.cache(), &group, true);
}

/// Returns the rank of an f16 value among all f16 values, so that neighbours differ by one.
fn rank(half: f16) -> i32 {
    let bits = i32::from(half.to_bits());
    if bits < 0x8000 { bits } else { 0x8000 - bits }
}

#[test]
fn rows_of_halves_are_the_rounded_rows_of_floats() {
    for (name, data) in [("texts", TEXTS), ("pairs", PAIRS)] {
        let group = Group::read(name);
        let (workshop, _, _) = extract(&group, data);
        let of_floats = shards(&workshop.cache());
        let dtype = ["--set", "cache.dtype=f16", "--set", "cache.dir=halves"];
        let arguments = [&["extract", "pipeline.toml"][..], &dtype].concat();
        let report = workshop.json(&arguments);
        let halves = workshop.path(report["cache"].as_str().unwrap());
        let mut n_values = 0;
        for shard in &of_floats {
            let other = halves.join(shard.file_name().unwrap());
            for kind in ["cls", "mean", "max", "words", "tokens"] {
                let name = format!("{kind}-L02.parquet");
                let floats = states(&shard.join(&name), Dtype::F32).concat();
                let halves = states(&other.join(&name), Dtype::F16).concat();
                assert_eq!(floats.len(), halves.len());
                n_values += floats.len();
                for (float, half) in floats.iter().zip(&halves) {
                    let apart = rank(f16::from_f32(*float)) - rank(f16::from_f32(*half));
                    assert!(apart.abs() <= 1, "{kind}: {float} is stored as {half}");
                }
            }
        }
        assert!(n_values > 4000);
    }
}

#[test]
fn a_separate_pair_is_the_two_texts_that_it_is_made_of() {
    let group = Group::read("pairs");
    let separate = PAIRS.replace("joint", "separate");
    let (workshop, report, _) = extract(&group, &separate);
    let parts: BTreeSet<String> =
        (0..group.records.len()).flat_map(|document| group.parts(document)).collect();
    let counts = ["documents", "unique", "computed"].map(|count| report[count].as_u64());
    assert_eq!(counts, [Some(4), Some(7), Some(7)]);
    let rows =
        shards(&workshop.cache()).into_iter().flat_map(|shard| rows(&shard.join("docs.parquet")));
    let got: BTreeSet<String> = rows.map(|row| row[0].as_str().unwrap().to_string()).collect();
    let keys = parts.iter().map(|part| Key::of(Mode::Text, &[part]));
    assert_eq!(got, keys.map(Key::to_hex).collect());
}

/// Returns a pipeline for MiniLM with only a task and a source.
fn with_defaults(task: &str, source: &str) -> String {
    let model = minilm().display().to_string();
    format!(
        "[model]\npath = \"{model}\"\ndevice = \"cpu\"\n\n[data]\ntask = \"{task}\"\ntrain = {source}\n"
    )
}

#[test]
fn question_answering_stores_tokens_of_joint_pairs_in_windows() {
    let group = Group::read("qa");
    let [question, context] = &group.parts(0)[..] else {
        panic!("a question and its context");
    };
    let paragraph = json!({ "context": context, "qas": [{ "question": question }] });
    let workshop = Workshop::empty();
    workshop.write("squad.json", json!({ "data": [{ "paragraphs": [paragraph] }] }).to_string());
    let source = "{ path = \"squad.json\", format = \"squad\" }";
    workshop.write("pipeline.toml", with_defaults("qa", source));
    workshop.json(&["extract", "pipeline.toml"]);
    let inputs = &workshop.manifest()["inputs"];
    let limits = ["max_length", "overflow", "stride"].map(|input| &inputs[input]);
    assert_eq!(limits, [&json!(384), &json!("windows"), &json!(128)]);

    let shard = workshop.cache().join("shard-000000");
    let names = ["docs.parquet", "tokens-L03.parquet", "tokens.parquet"];
    assert_eq!(files(&shard), names.map(String::from).into());
    let documents = rows(&shard.join("docs.parquet"));
    let key = documents[0][0].as_str().unwrap().to_string();
    let expected = Expected::of(&group, &[key]);
    assert_eq!(documents, expected.documents);
    assert_eq!(rows(&shard.join("tokens.parquet")), expected.tokens);
}

#[test]
fn tagging_stores_words() {
    let workshop = Workshop::empty();
    workshop.write("words.conll", conll(&Group::read("words")));
    let source = "{ path = \"words.conll\", format = \"conll\" }";
    workshop.write("pipeline.toml", with_defaults("tokens", source));
    workshop.json(&["extract", "pipeline.toml"]);
    let inputs = &workshop.manifest()["inputs"];
    let limits = ["max_length", "overflow", "stride"].map(|input| &inputs[input]);
    assert_eq!(limits, [&json!(128), &json!("truncate"), &Value::Null]);
    let shard = workshop.cache().join("shard-000000");
    let layers = (0..=6).map(|layer| format!("words-L{layer:02}.parquet"));
    let names = ["docs.parquet", "words.parquet"].map(String::from).into_iter().chain(layers);
    assert_eq!(files(&shard), names.collect());
}

#[test]
fn what_is_cut_off_is_flagged_counted_and_warned_of() {
    for (name, data, of) in [("truncated", TEXTS, 5), ("truncated_pairs", PAIRS, 4)] {
        let group = Group::read(name);
        let (workshop, report, said) = extract(&group, data);
        assert_holds(&workshop.cache(), &group, false);
        let cut = group.records.iter();
        let cut = cut.filter(|record| record["truncated"] == json!(true)).count();
        assert!(0 < cut && cut < of);
        assert_eq!(report["truncated"], json!(cut), "{name}");
        let warning = format!("{cut} of {of} texts are longer than");
        assert!(said.contains(&warning), "{said}");
        // Reused documents are also reported as truncated.
        let again = workshop.succeed(&["extract", "pipeline.toml", "--json"]);
        let report: Value = serde_json::from_str(&again.stdout).unwrap();
        assert_eq!((&report["truncated"], &report["computed"]), (&json!(cut), &json!(0)));
        assert!(again.stderr.contains(&warning), "{}", again.stderr);
    }
}

#[test]
fn a_question_that_is_cut_off_in_windows_is_counted_and_warned_of() {
    let group = Group::read("pairs");
    let [_, context] = &group.parts(0)[..] else {
        panic!("a question and its context");
    };
    let workshop = Workshop::empty();
    let pair = json!({ "text": "is the snow warm or ".repeat(8), "other": context });
    let lines = [json_lines(&group), pair.to_string()];
    workshop.write("data.jsonl", lines.join("\n"));
    workshop.write_pipeline(&group.pipeline(PAIRS));
    let ran = workshop.succeed(&["extract", "pipeline.toml", "--json"]);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["truncated"], json!(1));
    let warning = "1 of 5 texts is a pair whose first text";
    assert!(ran.stderr.contains(warning), "{}", ran.stderr);
}

//! `frostbert serve`: the answers of `predict` and of `embed`, other answers to all that cannot be answered, and
//! nothing lost when it stops.

mod client;
mod image;
mod refusing;
mod stopping;

use std::{fs, thread};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use client::{Connection, Server, posting, request};
use serde_json::{Value, json};

use crate::{
    cases::{Case, Data, PIPELINE, predicted},
    support::{Workshop, read_json, texts},
};

/// A workshop with the run `tiny`, a classifier of three labels over states in f32.
fn trained() -> Workshop {
    let workshop = Workshop::tiny();
    workshop.succeed(&["run", PIPELINE, "--set", "cache.dtype=f32"]);
    workshop
}

/// Asserts that two predictions are the same, and their numbers within 1e-5.
fn assert_same(got: &Value, expected: &Value, place: &str) {
    match (got, expected) {
        (Value::Object(got), Value::Object(expected)) => {
            let keys = |object: &serde_json::Map<String, Value>| {
                object.keys().cloned().collect::<Vec<String>>()
            };
            assert_eq!(keys(got), keys(expected), "{place}");
            for (key, value) in expected {
                assert_same(&got[key], value, &format!("{place}.{key}"));
            }
        }
        (Value::Array(got), Value::Array(expected)) => {
            assert_eq!(got.len(), expected.len(), "{place}");
            for (number, value) in expected.iter().enumerate() {
                assert_same(&got[number], value, &format!("{place}[{number}]"));
            }
        }
        (Value::Number(_), Value::Number(_)) => {
            let (got, expected) = (got.as_f64().unwrap(), expected.as_f64().unwrap());
            let error = (got - expected).abs();
            assert!(error <= 1e-5 * expected.abs().max(1.0), "{place}: {got}, {expected}");
        }
        _ => assert_eq!(got, expected, "{place}"),
    }
}

/// The questions of a file with their contexts.
fn questions(squad: &Value) -> Vec<Value> {
    let articles = squad["data"].as_array().unwrap().iter();
    let paragraphs = articles.flat_map(|article| article["paragraphs"].as_array().unwrap());
    let questions = paragraphs.flat_map(|paragraph| {
        let questions = paragraph["qas"].as_array().unwrap().iter();
        questions
            .map(|asked| json!({ "question": asked["question"], "context": paragraph["context"] }))
    });
    questions.collect()
}

#[test]
fn every_task_is_answered_as_predict_does() {
    let epoch = "[train]\nepochs = 1\n";
    let attention = "[head]\npooling = \"attention\"\nlayers = [1, 2]\n[train]\nepochs = 1\n";
    for (task, data, settings) in [
        ("classification", Data::Classes, epoch),
        ("classification", Data::Classes, attention),
        ("classification", Data::PairClasses, epoch),
        ("classification", Data::PairClasses, "pair = \"joint\"\n[train]\nepochs = 1\n"),
        ("multilabel", Data::Labels, epoch),
        ("regression", Data::Values, epoch),
        ("similarity", Data::PairValues, ""),
        ("tokens", Data::Iob2, epoch),
        ("qa", Data::Questions, epoch),
    ] {
        let case = Case { task, data, cache: "max_length = 32\nstride = 8", settings };
        let workshop = case.workshop();
        workshop.succeed(&["run", PIPELINE]);
        let expected = predicted(&workshop, &["tiny", data.test_file()]);
        let fields = |line: &Value| match (&line["words"], &line["text_pair"]) {
            (Value::Array(_), _) => json!({ "words": line["words"] }),
            (_, Value::String(_)) => {
                json!({ "text": line["text"], "text_pair": line["text_pair"] })
            }
            _ => line["text"].clone(),
        };
        let inputs: Vec<Value> = match data {
            Data::Questions => questions(&read_json(&workshop.path(data.test_file()))),
            _ => expected.iter().map(fields).collect(),
        };
        assert_eq!(inputs.len(), expected.len());
        let server = Server::start(&workshop, &["tiny"]);
        let together = server.predicted("tiny", &inputs);
        for (number, (got, expected)) in together.iter().zip(&expected).enumerate() {
            assert_same(got, expected, &format!("{task} {data:?} {number}"));
        }
        let alone = server.predicted("tiny", &inputs[..1]);
        assert_same(&alone[0], &expected[0], task);
    }
}

#[test]
fn with_batches_of_one_the_bits_are_those_of_predict() {
    let workshop = Workshop::tiny();
    workshop.succeed(&["run", PIPELINE]);
    let texts = &texts(140)[120..126];
    let expected: Vec<String> = texts
        .iter()
        .map(|text| workshop.succeed(&["predict", "tiny", "--text", text, "--json"]).stdout)
        .collect();
    let server = Server::start(&workshop, &["tiny", "--max-batch", "1"]);
    let server = &server;
    thread::scope(|scope| {
        for (text, expected) in texts.iter().zip(&expected) {
            scope.spawn(move || {
                for _ in 0..20 {
                    let answer = server.post("/predict", &json!({ "inputs": text }));
                    let line = expected.trim_end();
                    let body = format!("{{\"run\":\"tiny\",\"predictions\":[{line}]}}");
                    assert_eq!(answer.body, body);
                }
            });
        }
    });
}

#[test]
fn concurrent_requests_are_each_answered_with_their_own_texts() {
    let workshop = trained();
    let server = Server::start(&workshop, &["tiny"]);
    let texts = texts(64);
    let expected: Vec<Value> = texts.iter().map(|text| json!(text)).collect();
    let expected = server.predicted("tiny", &expected);
    thread::scope(|scope| {
        for client in 0..8 {
            let (server, texts, expected) = (&server, &texts, &expected);
            scope.spawn(move || {
                let mut connection = Connection::open(server.port).unwrap();
                for round in 0..40 {
                    let number = (client * 13 + round * 7) % texts.len();
                    let inputs = json!({ "inputs": [{ "id": round, "text": texts[number] }] });
                    let answer = connection.ask(&posting("/predict", &inputs)).unwrap().unwrap();
                    let got = &answer.json()["predictions"][0];
                    assert_eq!((&got["id"], &got["text"]), (&json!(round), &json!(texts[number])));
                    for key in ["label", "confidence", "probabilities"] {
                        assert_same(&got[key], &expected[number][key], key);
                    }
                }
            });
        }
    });
    let metrics = server.get("/metrics").body;
    let count = |name: &str| -> f64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("{name} in\n{metrics}")).trim().parse().unwrap()
    };
    assert_eq!(count("frostbert_requests_total{path=\"/predict\",status=\"200\"}"), 321.0);
    assert_eq!(count("frostbert_texts_total"), 384.0);
    assert_eq!(count("frostbert_waiting_texts"), 0.0);
    assert!(count("frostbert_tokens_total") > 6.0 * 384.0);
    assert!(count("frostbert_batches_total") <= 384.0);
}

/// Reads the rows of an .npy file of f32.
fn npy(path: &std::path::Path) -> Vec<f32> {
    let bytes = fs::read(path).unwrap();
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    floats(&bytes[start..])
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect()
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

fn assert_close(got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len());
    for (got, expected) in got.iter().zip(expected) {
        assert!((got - expected).abs() <= 1e-5, "{got}, {expected}");
    }
}

#[test]
fn texts_are_embedded_as_embed_does_in_the_shapes_of_tei_and_of_openai() {
    let workshop = trained();
    let two = ["the cold snow", "very warm film"];
    workshop.write("two.txt", two.join("\n"));
    let model = crate::support::fixture("tiny_bert").display().to_string();
    let embed = ["embed", "two.txt", "--out", "two.npy", "--model", &model];
    workshop.succeed(&[&embed[..], &["--set", "cache.max_length=32"]].concat());
    let raw = npy(&workshop.path("two.npy"));
    let unit: Vec<Vec<f32>> = raw
        .chunks_exact(32)
        .map(|row| {
            let length = row.iter().map(|value| value * value).sum::<f32>().sqrt();
            row.iter().map(|value| value / length).collect()
        })
        .collect();

    let server = Server::start(&workshop, &["tiny"]);
    assert_eq!(server.ready["embeds"], true);
    let as_they_are = server.posted("/embed", &json!({ "inputs": two, "normalize": false }));
    assert_close(&[numbers(&as_they_are[0]), numbers(&as_they_are[1])].concat(), &raw);
    let of_one = server.posted("/embed", &json!({ "inputs": two[1] }));
    assert_close(&numbers(&of_one[0]), &unit[1]);
    assert_eq!(of_one.as_array().unwrap().len(), 1);

    let list = server.posted("/v1/embeddings", &json!({ "input": two, "model": "tiny" }));
    assert_eq!((&list["object"], &list["model"]), (&json!("list"), &json!("tiny")));
    // [CLS] and [SEP] count, as everywhere.
    assert_eq!(list["usage"], json!({ "prompt_tokens": 10, "total_tokens": 10 }));
    for (index, unit) in unit.iter().enumerate() {
        let one = &list["data"][index];
        assert_eq!((&one["object"], &one["index"]), (&json!("embedding"), &json!(index)));
        assert_close(&numbers(&one["embedding"]), unit);
    }
    let coded = json!({ "input": two[0], "encoding_format": "base64" });
    let coded = server.posted("/v1/embeddings", &coded);
    let bytes = STANDARD.decode(coded["data"][0]["embedding"].as_str().unwrap()).unwrap();
    assert_close(&floats(&bytes), &unit[0]);

    // What is too long is refused, unless it may be cut.
    let long = vec!["snow"; 40].join(" ");
    let refused = server.post("/embed", &json!({ "inputs": [two[0], long] }));
    assert_eq!(refused.status, 413, "{refused:?}");
    let message = "`inputs` must have at most 32 tokens, and inputs[1] has more";
    assert!(refused.json()["error"].as_str().unwrap().starts_with(message), "{refused:?}");
    assert_eq!(refused.json()["error_type"], "Validation");
    server.posted("/embed", &json!({ "inputs": long, "truncate": true }));
    assert_eq!(server.post("/v1/embeddings", &json!({ "input": long })).status, 413);
    for (path, body, status, named) in [
        ("/embed", json!({ "inputs": "" }), 400, "Empty"),
        ("/embed", json!({ "inputs": two[0], "prompt_name": "query" }), 422, "Tokenizer"),
        ("/embed", json!({ "inputs": two[0], "truncation_direction": "left" }), 422, "Tokenizer"),
        ("/v1/embeddings", json!({ "input": two[0], "model": "ada" }), 404, "model_not_found"),
        ("/v1/embeddings", json!({ "input": two[0], "dimensions": 8 }), 422, "invalid_request"),
        ("/v1/embeddings", json!({ "input": [[1, 2]] }), 422, "invalid_request"),
        ("/v1/embeddings", json!({ "input": two[0], "encoding_format": "f16" }), 422, "base64"),
    ] {
        let answer = server.post(path, &body);
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        assert!(answer.body.contains(named), "{body}: {answer:?}");
    }
    drop(server);
    let server = Server::start(&workshop, &["tiny", "--no-embed"]);
    assert_eq!(server.post("/embed", &json!({ "inputs": two })).status, 404);
    assert_eq!(server.predicted("tiny", &[json!(two[0])]).len(), 1);
}

#[test]
fn runs_on_one_model_share_it_and_are_told_apart_by_name() {
    let workshop = trained();
    let other = ["run", PIPELINE, "--set", "name=other", "--set", "head.kind=lda"];
    let settings = ["--set", "cache.dtype=f32", "--set", "cache.max_length=16"];
    workshop.succeed(&[&other[..], &settings].concat());
    let server = Server::start(&workshop, &["tiny", "other"]);
    let numbers = [0, 1].map(|run| server.ready["runs"][run]["model_number"].clone());
    assert_eq!(numbers, [json!(0), json!(0)]);
    let text = "the cold snow and the very warm film is not bad and the good frost is cold";
    for run in ["tiny", "other"] {
        let expected = predicted(&workshop, &[run, "--text", text]);
        let got = server.predicted(run, &[json!(text)]);
        assert_same(&got[0], &expected[0], run);
    }
    let unnamed = server.post("/predict", &json!({ "inputs": text }));
    assert_eq!(unnamed.status, 400, "{unnamed:?}");
    assert!(unnamed.json()["error"]["hint"].as_str().unwrap().ends_with("tiny, other"));
    let unknown = server.post("/predict", &json!({ "inputs": text, "run": "third" }));
    assert_eq!((unknown.status, &unknown.json()["error"]["kind"]), (404, &json!("missing")));
    // They have the same vectors, so no name is needed.
    server.posted("/embed", &json!({ "inputs": "the cold snow" }));
}

#[test]
fn the_page_describes_all_paths_and_a_dry_run_starts_nothing() {
    let workshop = trained();
    let dry = workshop.json(&["serve", "tiny", "--dry-run", "--ort-lib", "no-such-library.so"]);
    assert_eq!(dry["dry_run"], true);
    let run = &dry["runs"][0];
    assert_eq!((&run["name"], &run["task"]), (&json!("tiny"), &json!("classification")));
    assert_eq!((&run["labels"], &run["run"]), (&json!(3), &json!("runs/tiny/001")));
    let server = Server::start(&workshop, &["tiny"]);
    let described = server.get("/openapi.json").json();
    let page = server.get("/docs");
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    assert!(page.headers["content-security-policy"].starts_with("default-src 'none'"));
    for (path, methods) in described["paths"].as_object().unwrap() {
        assert!(page.body.contains(path), "{path}");
        let method = methods.as_object().unwrap().keys().next().unwrap().to_uppercase();
        let answer = server.ask(&request(&method, path, &[], ""));
        // A request without a body is refused, but by the path itself.
        assert!(matches!(answer.status, 200 | 415), "{method} {path}: {answer:?}");
        let listed = described["paths"][path][method.to_lowercase()]["responses"].as_object();
        assert!(listed.unwrap().contains_key(&answer.status.to_string()), "{path}");
    }
}

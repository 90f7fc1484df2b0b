//! `frostbert export --to transformers` and `--to sentence-transformers`: what is written is opened again as a model of
//! this program, its head is computed from the written weights, and `scripts/check-transformers-export` loads it in the
//! Python that FROSTBERT_PYTHON names.

use std::{fs, path::PathBuf, process::Command};

use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::{
    cases::{Case, Data, PIPELINE, predicted},
    support::{Ran, Workshop, finish, fixture, read_json, repository, say, texts},
};

/// The largest difference of a probability.
const MOST: f64 = 1e-5;

const CLS: &str = "[head]\npooling = \"cls\"\nstandardize = true\n[train]\nepochs = 3";
const TANH: &str = "[head]\nkind = \"mlp\"\nactivation = \"tanh\"\nhidden = [24]\npooling = \"cls\"\n\
                    standardize = true\n[train]\nepochs = 3";
const FIRST_LAYER: &str = "[head]\nlayers = [1]\nstandardize = true\n[train]\nepochs = 3";
const SENTENCE: &str = "[head]\npooling = \"sentence\"\nstandardize = true\n[train]\nepochs = 3";
const LINEAR_ANSWERS: &str = "[head]\nkind = \"linear\"\nlayers = [1]\n[train]\nepochs = 3";

/// Trains a head on a model of the fixtures.
fn trained(model: &str, case: &Case) -> Workshop {
    let workshop = case.workshop();
    let toml = fs::read_to_string(workshop.path(PIPELINE)).unwrap();
    let [own, other] = ["tiny_bert", model].map(|name| fixture(name).display().to_string());
    workshop.write(PIPELINE, toml.replace(&own, &other));
    workshop.json(&["run", PIPELINE]);
    workshop
}

/// Exports the run of a workshop to the folder `exported`, and returns the report.
fn export(workshop: &Workshop, kind: &str) -> Value {
    let report = workshop.json(&["export", "runs/tiny", "--to", kind, "--out", "exported"]);
    let check = &report["check"];
    assert_eq!((&check["part"], &check["by_label"]), (&json!("test"), &json!(false)), "{report}");
    assert!(check["rows"].as_u64() >= Some(20), "{report}");
    assert!(check["largest_difference"].as_f64() <= Some(MOST), "{report}");
    assert_eq!(&read_json(&workshop.path("exported/export.json"))["check"], check);
    report
}

#[test]
fn layers_that_were_trained_with_a_head_are_in_the_exported_checkpoint() {
    let cls = "[head]\nkind = \"mlp\"\nactivation = \"tanh\"\nhidden = [32]\npooling = \"cls\"\n[train]\nepochs = 2\nunfreeze = 1";
    let mean = "[head]\npooling = \"mean\"\n[train]\nepochs = 2\nunfreeze = \"all\"";
    for (model, kind, settings) in [
        ("tiny_bert", "transformers", cls),
        ("tiny_bert", "sentence-transformers", mean),
        ("families/mpnet", "sentence-transformers", mean),
    ] {
        let workshop = trained(model, &case("classification", Data::Classes, settings));
        export(&workshop, kind);
        let [exported, layers] = ["exported/model.safetensors", "runs/tiny/001/layers.safetensors"]
            .map(|path| fs::read(workshop.path(path)).unwrap());
        let exported = SafeTensors::deserialize(&exported).unwrap().tensors();
        for (name, view) in SafeTensors::deserialize(&layers).unwrap().tensors() {
            let (_, own) = exported.iter().find(|(own, _)| own.ends_with(&name)).unwrap();
            assert_eq!(own.data(), view.data(), "{model}: {name}");
        }
    }
    let answers = "[head]\nkind = \"linear\"\n[train]\nepochs = 2\nunfreeze = 1";
    for (task, data, settings) in [
        ("tokens", Data::Iob2, "[train]\nepochs = 2\nunfreeze = 2"),
        ("qa", Data::Questions, answers),
    ] {
        export(&trained("tiny_bert", &case(task, data, settings)), "transformers");
    }
    let attention = "[head]\npooling = \"attention\"\n[train]\nepochs = 1\nunfreeze = 1";
    let workshop = trained("tiny_bert", &case("classification", Data::Classes, attention));
    for kind in ["transformers", "sentence-transformers"] {
        workshop.fail(&["export", "runs/tiny", "--to", kind, "--out", "exported"]);
        assert!(!workshop.path("exported").exists(), "{kind}");
    }
}

/// A case in which only contexts of questions are longer than an input.
fn case(task: &'static str, data: Data, settings: &'static str) -> Case {
    let cache = if task == "qa" { "max_length = 32\nstride = 8" } else { "max_length = 60" };
    Case { task, data, cache, settings }
}

fn config(workshop: &Workshop) -> Value {
    read_json(&workshop.path("exported/config.json"))
}

/// What `embed` writes for the texts of the test file, or of another one.
fn vectors(workshop: &Workshop, file: &str, model: &str, more: &[&str]) -> Vec<Vec<f32>> {
    let settings = ["--set", "cache.max_length=60", "--set", "model.device=cpu"];
    let arguments = ["embed", file, "--model", model, "--out", "vectors.npy"];
    workshop.json(&[&arguments[..], &settings, more].concat());
    let bytes = fs::read(workshop.path("vectors.npy")).unwrap();
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = String::from_utf8(bytes[10..start].to_vec()).unwrap();
    let shape = header.split("'shape': (").nth(1).unwrap().split(')').next().unwrap();
    let width: usize = shape.split(", ").nth(1).unwrap().parse().unwrap();
    let values = bytes[start..].chunks_exact(4);
    let values: Vec<f32> =
        values.map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
    values.chunks(width).map(<[f32]>::to_vec).collect()
}

/// A linear layer of the exported weights, applied in f64.
fn linear(bytes: &[u8], name: &str, x: &[f64]) -> Vec<f64> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let values = |name: String| -> Vec<f64> {
        let tensor = file.tensor(&name).unwrap();
        let four = tensor.data().chunks_exact(4);
        four.map(|four| f32::from_le_bytes(four.try_into().unwrap()).into()).collect()
    };
    let (weight, bias) = (values(format!("{name}.weight")), values(format!("{name}.bias")));
    let rows = weight.chunks(x.len()).zip(bias);
    rows.map(|(row, bias)| row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>() + bias).collect()
}

fn softmax(logits: &[f64]) -> Vec<f64> {
    let highest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let powers: Vec<f64> = logits.iter().map(|logit| (logit - highest).exp()).collect();
    let total: f64 = powers.iter().sum();
    powers.into_iter().map(|power| power / total).collect()
}

/// Asserts that logits are those of the run's predictions for its test file.
fn assert_predicted(workshop: &Workshop, logits: &[Vec<f64>]) {
    let lines = predicted(workshop, &["runs/tiny", "test.csv"]);
    assert_eq!(lines.len(), logits.len());
    for (line, logits) in lines.iter().zip(logits) {
        let expected = line["probabilities"].as_object().unwrap().values();
        let expected: Vec<f64> = expected.map(|value| value.as_f64().unwrap()).collect();
        let got = softmax(logits);
        assert_eq!(got.len(), expected.len());
        let near = |(got, expected): (&f64, &f64)| (got - expected).abs() <= MOST;
        assert!(got.iter().zip(&expected).all(near), "{got:?} and {line}");
    }
}

#[test]
fn the_layers_that_a_class_of_texts_computes_give_the_probabilities_of_predict() {
    let gelu = |x: f64| 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2));
    let relu = |x: f64| x.max(0.0);
    let activations: [&dyn Fn(f64) -> f64; 3] = [&f64::tanh, &relu, &gelu];
    let of_roberta = ["classifier.dense", "classifier.out_proj"];
    for (model, class, settings, [first, last], activation) in [
        ("tiny_bert", "Bert", TANH, ["bert.pooler.dense", "classifier"], 0),
        ("families/roberta", "Roberta", TANH, of_roberta, 0),
        ("families/mpnet", "MPNet", TANH, of_roberta, 0),
        ("families/distilbert", "DistilBert", CLS, ["pre_classifier", "classifier"], 1),
        ("families/electra", "Electra", CLS, of_roberta, 2),
    ] {
        let workshop = trained(model, &case("classification", Data::Classes, settings));
        export(&workshop, "transformers");
        let config = config(&workshop);
        assert_eq!(config["architectures"], json!([format!("{class}ForSequenceClassification")]));
        assert_eq!(config["id2label"], json!({ "0": "cold", "1": "plain", "2": "warm" }));
        assert_eq!(config["problem_type"], "single_label_classification", "{model}");
        let weights = fs::read(workshop.path("exported/model.safetensors")).unwrap();
        let states = vectors(&workshop, "test.csv", "exported", &["--pooling", "cls"]);
        let logits: Vec<Vec<f64>> = states
            .iter()
            .map(|state| {
                let state: Vec<f64> = state.iter().map(|value| f64::from(*value)).collect();
                let hidden = linear(&weights, first, &state).into_iter();
                let hidden: Vec<f64> = hidden.map(activations[activation]).collect();
                linear(&weights, last, &hidden)
            })
            .collect();
        assert_predicted(&workshop, &logits);
    }
}

#[test]
fn a_head_on_an_earlier_layer_ends_the_encoder_there() {
    for (task, data, settings, class) in [
        ("tokens", Data::Iob2, FIRST_LAYER, "TokenClassification"),
        ("qa", Data::Questions, LINEAR_ANSWERS, "QuestionAnswering"),
    ] {
        let workshop = trained("families/distilbert", &case(task, data, settings));
        let report = export(&workshop, "transformers");
        let note = "the head reads layer 1 of 2: the exported encoder ends there";
        assert!(report["notes"].as_array().unwrap().contains(&json!(note)), "{report}");
        let config = config(&workshop);
        assert_eq!(config["n_layers"], 1);
        assert_eq!(config["architectures"], json!([format!("DistilBertFor{class}")]));
        assert_eq!(config["id2label"].is_object(), task == "tokens");
        workshop.write("texts.txt", texts(20).join("\n") + "\n");
        let original = fixture("families/distilbert").display().to_string();
        let own = vectors(&workshop, "texts.txt", &original, &["--layer", "1"]);
        let got = vectors(&workshop, "texts.txt", "exported", &["--layer", "-1"]);
        assert_eq!(own, got, "{task}");
    }
}

#[test]
fn what_a_prediction_needs_beside_the_classes_of_transformers_is_in_the_config() {
    let workshop = trained("families/electra", &case("multilabel", Data::Labels, CLS));
    let report = export(&workshop, "transformers");
    let own = config(&workshop)["frostbert"].clone();
    let head = read_json(&workshop.path("runs/tiny/001/head.json"));
    assert_eq!(own["thresholds"], head["thresholds"], "in the order of id2label");
    assert!(own["thresholds"].as_array().is_some_and(|all| all.len() == 4), "{own}");
    let notes = report["notes"].to_string();
    assert!(notes.contains("frostbert.thresholds"), "{notes}");
    let printed = workshop.succeed(&["export", "runs/tiny", "--to", "transformers", "--out", "2"]);
    assert!(printed.stdout.contains("frostbert.thresholds"), "{}", printed.stdout);

    let impossible = case("qa", Data::ImpossibleQuestions, LINEAR_ANSWERS);
    let workshop = trained("tiny_bert", &impossible);
    export(&workshop, "transformers");
    let own = config(&workshop)["frostbert"].clone();
    let head = read_json(&workshop.path("runs/tiny/001/head.json"));
    for key in ["no_answer_threshold", "max_answer_tokens"] {
        assert!(own[key].is_number() && own[key] == head[key], "{own}");
    }
    assert_eq!(own["stride"], 8);
}

#[test]
fn a_head_that_no_class_computes_is_refused_with_its_reason_and_leaves_nothing() {
    let mlp = "[head]\nkind = \"mlp\"\nskip = true\npooling = \"cls\"\n[train]\nepochs = 1";
    let crf = "[head]\nkind = \"crf\"\nlayers = [-1]\n[train]\nepochs = 1";
    let mix = "[head]\nlayers = [1, 2]\n[train]\nepochs = 1";
    let embeddings = "[head]\nlayers = [0]\n[train]\nepochs = 1";
    let epoch = "[train]\nepochs = 1";
    let last = "[head]\nlayers = [-1]\n[train]\nepochs = 1";
    for (model, task, data, settings, reason, other) in [
        (
            "tiny_bert",
            "classification",
            Data::Classes,
            epoch,
            "reads `mean`",
            "sentence-transformers",
        ),
        ("tiny_bert", "classification", Data::Classes, CLS, "no hidden layer with tanh", "onnx"),
        ("tiny_bert", "classification", Data::Classes, mlp, "head.skip", "onnx"),
        ("tiny_bert", "classification", Data::PairClasses, epoch, "two texts", "onnx"),
        ("families/electra", "classification", Data::Classes, TANH, "activation than gelu", "onnx"),
        ("tiny_bert", "tokens", Data::Iob2, crf, "CRF", "onnx"),
        ("tiny_bert", "tokens", Data::Iob2, mix, "a mix of 2 layers", "onnx"),
        ("tiny_bert", "tokens", Data::Iob2, embeddings, "layer 0", "onnx"),
        ("tiny_bert", "qa", Data::Questions, epoch, "matching", "onnx"),
        ("families/albert_onnx", "tokens", Data::Iob2, last, "the model.onnx of", "onnx"),
    ] {
        let workshop = trained(model, &case(task, data, settings));
        let arguments = ["export", "runs/tiny", "--to", "transformers", "--out", "exported"];
        let error = workshop.fail(&arguments);
        assert!(error.contains(reason) && error.contains(&format!("--to {other}")), "{error}");
        assert!(!workshop.path("exported").exists(), "{reason}");
    }
    let workshop = trained("tiny_bert", &case("tokens", Data::Iob2, epoch));
    let arguments = ["export", "runs/tiny", "--to", "sentence-transformers", "--out", "exported"];
    let error = workshop.fail(&arguments);
    assert!(error.contains("reads `words`") && error.contains("--to transformers"), "{error}");
}

#[test]
fn the_vectors_of_an_exported_folder_are_the_logits_of_the_head() {
    let mean = "[head]\nlayers = [1]\nstandardize = true\n[train]\nepochs = 3";
    let deep = "[head]\nkind = \"mlp\"\nhidden = [16, 8]\npooling = \"max\"\n[train]\nepochs = 3";
    for (model, settings, modules) in [
        ("families/mpnet", mean, "Transformer Pooling Dense"),
        ("tiny_bert", deep, "Transformer Pooling Dense Dense Dense"),
        ("sentence_folders/mean_max_dense", SENTENCE, "Transformer Pooling Dense Normalize Dense"),
        ("sentence_folders/truncated", SENTENCE, "Transformer Pooling Normalize Dense"),
    ] {
        let workshop = trained(model, &case("classification", Data::Classes, settings));
        let report = export(&workshop, "sentence-transformers");
        assert_eq!(report["check"]["compared"], "probabilities", "{model}");
        assert!(report["notes"].to_string().contains("encode returns the logits"), "{report}");
        let listed = read_json(&workshop.path("exported/modules.json"));
        let classes = listed.as_array().unwrap().iter();
        let classes: Vec<&str> = classes
            .map(|module| module["type"].as_str().unwrap().rsplit('.').next().unwrap())
            .collect();
        assert_eq!(classes.join(" "), modules, "{model}");
        let logits = vectors(&workshop, "test.csv", "exported", &[]);
        let as_f64 = |row: &Vec<f32>| row.iter().map(|value| f64::from(*value)).collect();
        assert_predicted(&workshop, &logits.iter().map(as_f64).collect::<Vec<Vec<f64>>>());
    }
}

#[test]
fn the_prompt_of_a_run_is_that_of_the_exported_folder() {
    let case = case("classification", Data::Classes, "[train]\nepochs = 3");
    let workshop = case.workshop();
    let toml = fs::read_to_string(workshop.path(PIPELINE)).unwrap();
    let prompt = ".csv\", prompt = \"very good: \"";
    workshop.write(PIPELINE, toml.replace(".csv\"", prompt));
    workshop.json(&["run", PIPELINE]);
    export(&workshop, "sentence-transformers");
    let settings = read_json(&workshop.path("exported/config_sentence_transformers.json"));
    assert_eq!(settings["prompts"], json!({ "text": "very good: " }));
    assert_eq!(settings["default_prompt_name"], "text");
    let logits = vectors(&workshop, "test.csv", "exported", &[]);
    let as_f64 = |row: &Vec<f32>| row.iter().map(|value| f64::from(*value)).collect();
    assert_predicted(&workshop, &logits.iter().map(as_f64).collect::<Vec<Vec<f64>>>());
}

#[test]
fn a_head_over_two_texts_leaves_the_vectors_that_it_reads() {
    let cosine = "pair = \"separate\"\n[head]\nkind = \"cosine\"";
    let epoch = "[train]\nepochs = 1";
    for (task, data, settings) in
        [("classification", Data::PairClasses, epoch), ("similarity", Data::PairValues, cosine)]
    {
        let workshop = trained("tiny_bert", &case(task, data, settings));
        let report = export(&workshop, "sentence-transformers");
        assert_eq!(report["check"]["compared"], "vectors");
        assert!(report["notes"].to_string().contains("encode returns the vector"), "{report}");
        let original = fixture("tiny_bert").display().to_string();
        let own = vectors(&workshop, "test.csv", &original, &["--pooling", "mean"]);
        assert_eq!(own, vectors(&workshop, "test.csv", "exported", &[]), "{task}");
    }
}

/// Returns the Python that FROSTBERT_PYTHON names, if it has what the script needs.
fn python() -> Option<PathBuf> {
    let named = std::env::var_os("FROSTBERT_PYTHON").filter(|python| !python.is_empty());
    let python = named.map(PathBuf::from).filter(|python| {
        let mut command = Command::new(python);
        command.args(["-c", "import sentence_transformers, torch, transformers"]);
        finish(command).code == Some(0)
    });
    if python.is_none() {
        say(
            "skipped: FROSTBERT_PYTHON names no Python with torch, transformers and sentence-transformers",
        );
    }
    python
}

#[test]
fn transformers_and_sentence_transformers_load_the_folders_and_agree_with_predict() {
    let Some(python) = python() else { return };
    let mean = "[head]\nlayers = [1]\n[train]\nepochs = 3";
    let cosine = "pair = \"separate\"\n[head]\nkind = \"cosine\"";
    let joint = "pair = \"joint\"\n[train]\nepochs = 3";
    let (st, hf) = ("sentence-transformers", "transformers");
    let exports = [
        ("tiny_bert", hf, "classification", Data::Classes, TANH),
        ("families/xlm_roberta_f16", hf, "classification", Data::Classes, TANH),
        ("families/distilbert", hf, "multilabel", Data::Labels, CLS),
        ("families/electra", hf, "regression", Data::Values, CLS),
        ("families/roberta", hf, "tokens", Data::Iob2, FIRST_LAYER),
        ("families/mpnet", hf, "qa", Data::ImpossibleQuestions, LINEAR_ANSWERS),
        ("families/mpnet", st, "classification", Data::Classes, mean),
        ("tiny_bert", st, "classification", Data::PairClasses, joint),
        ("families/camembert_bf16", st, "regression", Data::Values, mean),
        ("sentence_folders/mean_max_dense", st, "classification", Data::Classes, SENTENCE),
        ("tiny_bert", st, "similarity", Data::PairValues, cosine),
    ];
    let mut command = Command::new(python);
    command.arg(repository().join("scripts/check-transformers-export"));
    let mut workshops = Vec::new();
    for (model, kind, task, data, settings) in exports {
        let workshop = trained(model, &case(task, data, settings));
        export(&workshop, kind);
        let arguments = ["predict", "runs/tiny", data.test_file(), "--json"];
        workshop.write("predictions.jsonl", workshop.succeed(&arguments).stdout);
        command.arg(workshop.path("exported")).arg(workshop.path("predictions.jsonl"));
        if task == "qa" {
            command.arg("--squad").arg(workshop.path(data.test_file()));
        }
        workshops.push(workshop);
    }
    let Ran { code, stdout, stderr } = finish(command);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert_eq!(stdout.lines().count(), workshops.len(), "{stdout}");
    for line in stdout.lines() {
        let report: Value = serde_json::from_str(line).unwrap();
        assert!(report["compared"].as_u64() >= Some(20), "{line}");
        say(&format!("{}: {}", report["loaded"], report["largest_difference"]));
    }
}

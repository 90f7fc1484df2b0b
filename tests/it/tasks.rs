//! Every task and every kind of head, run as users run it: what is printed and written, that the bytes are the same
//! whichever way a run is made, and that the saved head reproduces the predictions and the scores of the run.

use std::fs;

use serde_json::{Map, Value, json};

use crate::{
    cases::{Case, Data, PIPELINE, assert_near, assert_same_bytes, predicted, predictions},
    support::{Workshop, contents, read_json},
};

/// Returns the metrics of a task, and those that have intervals.
fn metrics_of(task: &str) -> (&'static [&'static str], &'static [&'static str]) {
    match task {
        "classification" => (
            &[
                "accuracy",
                "macro_f1",
                "micro_f1",
                "weighted_f1",
                "mcc",
                "roc_auc",
                "log_loss",
                "ece",
                "brier",
            ],
            &["accuracy", "macro_f1"],
        ),
        "multilabel" => (
            &[
                "accuracy",
                "macro_f1",
                "micro_f1",
                "weighted_f1",
                "roc_auc",
                "log_loss",
                "ece",
                "brier",
            ],
            &["accuracy", "macro_f1", "micro_f1"],
        ),
        "regression" | "similarity" => {
            (&["spearman", "pearson", "mse", "mae"], &["spearman", "mse"])
        }
        "tokens" => (
            &["token_accuracy", "entity_f1_strict", "entity_f1_conlleval"],
            &["token_accuracy", "entity_f1_strict"],
        ),
        _ => (&["exact_match", "f1"], &["exact_match", "f1"]),
    }
}

fn assert_report(case: &Case, report: &Value) {
    for key in ["cache", "fingerprint"] {
        assert!(report["extract"][key].is_string(), "{report}");
    }
    let train = &report["train"];
    assert_eq!(train["task"], case.task);
    assert!(train["run"].is_string() && train["seconds"].is_f64());
    let (names, with_interval) = metrics_of(case.task);
    // Parts of speech are not entities.
    let is_there = |name: &&&str| case.data != Data::Conllu || !name.starts_with("entity");
    for part in ["train", "validation", "test"] {
        let metrics = &train["metrics"][part];
        for name in names.iter().filter(is_there) {
            assert!(metrics[name].is_f64(), "{part} {name} in {metrics}");
        }
        for name in with_interval.iter().filter(is_there) {
            let interval = metrics[format!("{name}_ci")].as_array();
            assert_eq!(interval.is_some(), part != "train", "{part} {name}_ci");
            if let Some(ends) = interval {
                let [low, high] = [&ends[0], &ends[1]].map(|end| end.as_f64().unwrap());
                assert!(low <= high, "{part} {name}_ci in {metrics}");
            }
        }
    }
}

fn assert_folder(workshop: &Workshop, case: &Case, report: &Value) {
    let run = workshop.path(report["train"]["run"].as_str().unwrap());
    let files: Vec<String> = contents(&run).into_keys().collect();
    let mut expected = vec![
        ".eval_results/frostbert.yaml",
        "checks.json",
        "head.json",
        "head.safetensors",
        "history.csv",
        "lock.json",
        "metrics.json",
        "model_card.md",
        "predictions.parquet",
    ];
    if case.has_epochs() {
        expected.push("history.svg");
    } else {
        expected.retain(|name| *name != "history.csv");
    }
    expected.extend_from_slice(match case.task {
        "classification" => &["confusion.svg", "precision_recall.svg", "reliability.svg"],
        "multilabel" => &["precision_recall.svg", "reliability.svg"],
        "tokens" => &["confusion.svg"],
        _ => &[],
    });
    if case.settings.contains("unfreeze") {
        expected.push("layers.safetensors");
    }
    let head = read_json(&run.join("head.json"));
    if case.task == "classification" && head["labels"].as_array().unwrap().len() == 2 {
        expected.push("roc.svg");
    }
    expected.sort_unstable();
    assert_eq!(files, expected);
    let metrics = read_json(&run.join("metrics.json"));
    assert_eq!(metrics, report["train"]["metrics"]);
    assert_eq!(head["task"], case.task);
    if case.has_epochs() {
        let history = fs::read_to_string(run.join("history.csv")).unwrap();
        let epochs = metrics["epochs"].as_u64().unwrap() as usize;
        assert!(history.starts_with("epoch,lr,train_loss,validation_loss"));
        assert_eq!(history.lines().count(), 1 + epochs);
    }
}

fn keys(line: &Value) -> Vec<&str> {
    let keys = line.as_object().unwrap().keys();
    keys.map(String::as_str).collect()
}

/// Asserts that a printed prediction is the one that the run wrote for the same row.
fn assert_same_prediction(case: &Case, line: &Value, row: &Map<String, Value>) {
    let is_pair = row.contains_key("text_pair");
    let with_pair = |mut names: Vec<&'static str>| {
        if is_pair {
            names.insert(1, "text_pair");
        }
        names
    };
    let assert_probabilities = || {
        for (name, probability) in line["probabilities"].as_object().unwrap() {
            assert_near(probability, &row[&format!("p_{name}")], name);
        }
    };
    let expected = match case.task {
        "classification" => {
            assert_eq!(line["label"], row["predicted"]);
            assert_near(&line["confidence"], &row["confidence"], "confidence");
            assert_probabilities();
            with_pair(vec!["text", "label", "confidence", "probabilities"])
        }
        "multilabel" => {
            assert_eq!(line["labels"], row["predicted"]);
            assert_probabilities();
            with_pair(vec!["text", "labels", "probabilities"])
        }
        "regression" | "similarity" => {
            assert_near(&line["value"], &row["predicted"], "value");
            with_pair(vec!["text", "value"])
        }
        "tokens" => {
            assert_eq!(line["labels"], row["predicted"]);
            assert_eq!(line["words"], row["words"]);
            let words = row["words"].as_array().unwrap();
            let words: Vec<&str> = words.iter().map(|word| word.as_str().unwrap()).collect();
            assert_eq!(line["text"], words.join(" "));
            vec!["text", "words", "labels", "entities"]
        }
        _ => {
            assert_eq!(line["answer"], row["predicted"]);
            assert_eq!(
                (&line["start"], &line["end"], &line["question"]),
                (&row["start"], &row["end"], &row["question"])
            );
            let score = if line["answer"].is_null() { "null_score" } else { "score" };
            assert_near(&line["score"], &row[score], score);
            vec!["question", "answer", "start", "end", "score"]
        }
    };
    assert_eq!(keys(line), expected);
    if !matches!(case.task, "tokens" | "qa") {
        assert_eq!(line["text"], row["text"]);
    }
    if is_pair {
        assert_eq!(line["text_pair"], row["text_pair"]);
    }
}

impl Case {
    fn has_epochs(&self) -> bool {
        let without = ["ridge", "lda", "logistic", "linfa", "cosine"];
        !without.iter().any(|kind| self.settings.contains(kind))
    }

    /// Asserts that the run fulfils its contract.
    fn hold(&self) {
        let workshop = self.workshop();
        let report = assert_same_bytes(&workshop);
        assert_report(self, &report);
        assert_folder(&workshop, self, &report);

        let file = self.data.test_file();
        let measured = workshop.json(&["evaluate", "runs/tiny/001", "--data", file]);
        assert_eq!(measured["metrics"], report["train"]["metrics"]["test"]);

        let written = predictions(&workshop, "runs/tiny/001");
        let printed = predicted(&workshop, &["runs/tiny/001", file]);
        assert!(!written.is_empty());
        assert_eq!(printed.len(), written.len());
        for (line, row) in printed.iter().zip(&written) {
            assert_same_prediction(self, line, row);
        }

        // The same predictions in a file.
        let out = ["predict", "runs/tiny/001", file, "--out", "out.jsonl"];
        assert_eq!(workshop.json(&out)["rows"], printed.len());
        let rows = std::fs::read_to_string(workshop.path("out.jsonl")).unwrap();
        assert_eq!(rows.lines().count(), printed.len());
        for (line, row) in printed.iter().zip(rows.lines()) {
            let row: Map<String, Value> = serde_json::from_str(row).unwrap();
            assert!(!row.is_empty());
            for (name, value) in &row {
                let value = match (name.as_str(), value) {
                    ("entities", Value::String(list)) => serde_json::from_str(list).unwrap(),
                    _ => value.clone(),
                };
                assert_eq!(line[name], value, "{name} of {row:?}");
            }
        }
    }
}

const SHORT: &str = "max_length = 32";

fn classes(settings: &'static str) -> Case {
    Case { task: "classification", data: Data::Classes, cache: SHORT, settings }
}

#[test]
fn a_linear_classifier_holds_the_contract() {
    classes("[train]\nepochs = 3\nclass_weights = \"balanced\"").hold();
}

#[test]
fn a_deep_classifier_holds_the_contract() {
    classes("[head]\nkind = \"mlp\"\nhidden = [24, 24]\nskip = true\nlayer_norm = true\n[train]\nepochs = 3\nclip = 1.0").hold();
}

#[test]
fn a_classifier_with_attention_holds_the_contract() {
    classes("[head]\npooling = \"attention\"\n[train]\nepochs = 3\nloss = \"focal\"").hold();
}

#[test]
fn a_classifier_with_attention_over_mixed_layers_holds_the_contract() {
    classes("[head]\nkind = \"mlp\"\nhidden = [8]\nlayers = [0, 1, 2]\npooling = \"attention\"\n[train]\nepochs = 2").hold();
}

#[test]
fn a_classifier_of_mixed_layers_holds_the_contract_and_shows_their_shares() {
    let case = classes("[head]\nlayers = [0, 1, -1]\npooling = \"cls\"\n[train]\nepochs = 3");
    case.hold();
    let report = case.workshop().json(&["run", PIPELINE]);
    let profile = report["train"]["metrics"]["layer_profile"].as_array().unwrap();
    let layers: Vec<&Value> = profile.iter().map(|layer| &layer["layer"]).collect();
    assert_eq!(layers, [&json!(0), &json!(1), &json!(2)]);
    let shares = profile.iter().map(|layer| layer["share"].as_f64().unwrap());
    assert!((shares.sum::<f64>() - 1.0).abs() < 1e-5, "{profile:?}");
}

#[test]
fn classifiers_whose_last_layers_are_trained_too_hold_the_contract() {
    classes("[head]\npooling = \"mean\"\n[train]\nepochs = 2\nunfreeze = 1").hold();
    classes("[head]\nkind = \"mlp\"\nhidden = [8]\npooling = \"attention\"\n[train]\nepochs = 2\nunfreeze = \"all\"").hold();
}

#[test]
fn other_heads_of_texts_whose_last_layers_are_trained_too_hold_the_contract() {
    labels("[head]\npooling = \"cls\"\n[train]\nepochs = 2\nunfreeze = 2\nlayer_decay = 0.5")
        .hold();
    values(Data::Values, "[train]\nepochs = 2\nunfreeze = 1\nlora = { rank = 4 }").hold();
    values(Data::Values, "[head]\npooling = \"max\"\n[train]\nepochs = 2\nunfreeze = 1").hold();
}

#[test]
fn taggers_whose_last_layers_are_trained_too_hold_the_contract() {
    tokens(Data::Iob2, "[train]\nepochs = 2\nunfreeze = 1").hold();
    let crf = "[head]\nkind = \"crf\"\n[train]\nepochs = 2\nunfreeze = 2";
    let windows = "max_length = 12\noverflow = \"windows\"\nstride = 3";
    Case { cache: windows, ..tokens(Data::Iob1, crf) }.hold();
}

#[test]
fn heads_of_answers_whose_last_layers_are_trained_too_hold_the_contract() {
    let linear = "[head]\nkind = \"linear\"\n[train]\nepochs = 2\nunfreeze = 1";
    questions(Data::Questions, linear).hold();
    let mlp = "[head]\nkind = \"mlp\"\nhidden = [8]\n[train]\nepochs = 2\nunfreeze = \"all\"";
    questions(Data::ImpossibleQuestions, mlp).hold();
    // The kind that a file without one gets.
    questions(Data::Questions, "[train]\nepochs = 2\nunfreeze = 1").hold();
}

#[test]
fn heads_of_pairs_whose_last_layers_are_trained_too_hold_the_contract() {
    pairs("[head]\npooling = \"mean\"\n[train]\nepochs = 2\nunfreeze = 1").hold();
    let score = "[head]\nkind = \"mlp\"\nhidden = [8]\npooling = \"cls\"\n[train]\nepochs = 2\nunfreeze = 1";
    Case { task: "similarity", data: Data::PairValues, cache: SHORT, settings: score }.hold();
}

#[test]
fn heads_of_windows_whose_last_layers_are_trained_too_hold_the_contract() {
    let windows = "max_length = 8\noverflow = \"windows\"\nstride = 1";
    for settings in [
        "[head]\npooling = \"mean\"\n[train]\nepochs = 2\nunfreeze = 2",
        "[head]\npooling = \"attention\"\n[train]\nepochs = 2\nunfreeze = 1",
    ] {
        Case { cache: windows, ..classes(settings) }.hold();
    }
}

#[test]
fn a_logistic_regression_in_full_batch_holds_the_contract() {
    classes("[head]\nkind = \"linfa-logistic\"\nC = 0.5").hold();
}

#[test]
fn a_weighted_logistic_regression_of_our_own_holds_the_contract() {
    classes("[head]\nkind = \"logistic\"\nC = 0.5\n[train]\nclass_weights = \"balanced\"").hold();
}

#[test]
fn a_logistic_regression_on_states_as_they_are_holds_the_contract() {
    pairs("[head]\nkind = \"logistic\"\nstandardize = false").hold();
}

#[test]
fn a_ridge_classifier_holds_the_contract() {
    classes("[head]\nkind = \"ridge\"\nlambda = 10.0").hold();
}

#[test]
fn a_discriminant_analysis_holds_the_contract() {
    classes("[head]\nkind = \"lda\"\npca = 8").hold();
}

#[test]
fn ridge_regressions_of_labels_numbers_and_pairs_hold_the_contract() {
    let ridge = "[head]\nkind = \"ridge\"";
    labels(ridge).hold();
    values(Data::Values, ridge).hold();
    similarity(ridge).hold();
}

#[test]
fn a_support_vector_machine_holds_the_contract() {
    classes("[head]\nkind = \"linfa-svm\"").hold();
}

#[test]
fn a_classifier_of_principal_components_holds_the_contract() {
    classes("[head]\npca = 8\npooling = \"max\"\n[train]\nepochs = 3").hold();
}

#[test]
fn a_classifier_of_long_texts_in_windows_holds_the_contract() {
    let windows = "max_length = 10\noverflow = \"windows\"\nstride = 3";
    Case { cache: windows, ..classes("[head]\npooling = \"attention\"\n[train]\nepochs = 2") }
        .hold();
}

fn labels(settings: &'static str) -> Case {
    Case { task: "multilabel", data: Data::Labels, cache: SHORT, settings }
}

#[test]
fn a_linear_head_of_several_labels_holds_the_contract() {
    labels("[train]\nepochs = 3").hold();
}

#[test]
fn a_deep_head_of_several_labels_holds_the_contract() {
    labels("[head]\nkind = \"mlp\"\nhidden = [16]\n[train]\nepochs = 3\nloss = \"focal\"").hold();
}

fn values(data: Data, settings: &'static str) -> Case {
    Case { task: "regression", data, cache: SHORT, settings }
}

#[test]
fn a_regression_on_texts_holds_the_contract() {
    values(Data::Values, "[train]\nepochs = 3").hold();
}

#[test]
fn a_deep_regression_on_texts_holds_the_contract() {
    values(
        Data::Values,
        "[head]\nkind = \"mlp\"\nhidden = [8]\nstandardize = false\n[train]\nepochs = 3",
    )
    .hold();
}

#[test]
fn a_regression_on_pairs_holds_the_contract() {
    values(Data::PairValues, "[train]\nepochs = 3").hold();
}

#[test]
fn a_regression_on_pairs_of_mixed_layers_in_one_input_holds_the_contract() {
    values(Data::PairValues, "pair = \"joint\"\n[head]\nlayers = [1, 2]\n[train]\nepochs = 3")
        .hold();
}

fn pairs(settings: &'static str) -> Case {
    Case { data: Data::PairClasses, ..classes(settings) }
}

#[test]
fn a_classifier_of_pairs_in_two_inputs_holds_the_contract() {
    pairs("[head]\nlayers = [1, 2]\n[train]\nepochs = 3").hold();
}

#[test]
fn a_classifier_of_pairs_in_one_input_holds_the_contract() {
    pairs("pair = \"joint\"\n[head]\npooling = \"attention\"\n[train]\nepochs = 3").hold();
}

fn tokens(data: Data, settings: &'static str) -> Case {
    Case { task: "tokens", data, cache: SHORT, settings }
}

#[test]
fn a_linear_tagger_holds_the_contract() {
    tokens(Data::Iob2, "[train]\nepochs = 3\nlabel_smoothing = 0.1").hold();
}

#[test]
fn a_deep_tagger_of_mixed_layers_holds_the_contract() {
    tokens(
        Data::Iob2,
        "[head]\nkind = \"mlp\"\nhidden = [16]\nlayers = [0, 2]\n[train]\nepochs = 3",
    )
    .hold();
}

#[test]
fn a_random_field_of_tags_holds_the_contract() {
    tokens(Data::Iob1, "[head]\nkind = \"crf\"\n[train]\nepochs = 3\nlr = 1e-2\nearly_stopping = { metric = \"entity_f1_strict\", patience = 2 }").hold();
}

#[test]
fn a_tagger_of_parts_of_speech_holds_the_contract() {
    tokens(Data::Conllu, "[head]\nkind = \"crf\"\nlayers = [0, 1]\n[train]\nepochs = 2").hold();
}

fn questions(data: Data, settings: &'static str) -> Case {
    Case { task: "qa", data, cache: "max_length = 24\nstride = 6", settings }
}

#[test]
fn a_linear_head_of_answers_holds_the_contract() {
    questions(Data::Questions, "[train]\nepochs = 3").hold();
}

#[test]
fn a_deep_head_of_answers_or_none_holds_the_contract() {
    questions(Data::ImpossibleQuestions, "[head]\nkind = \"mlp\"\nhidden = [16]\nlayers = [1, 2]\nmax_answer_tokens = 4\n[train]\nepochs = 3").hold();
}

#[test]
fn a_matching_head_of_answers_holds_the_contract() {
    questions(Data::Questions, "[head]\nkind = \"matching\"\n[train]\nepochs = 3").hold();
}

#[test]
fn a_matching_head_of_answers_or_none_of_mixed_layers_holds_the_contract() {
    questions(
        Data::ImpossibleQuestions,
        "[head]\nkind = \"matching\"\nlayers = [0, 2]\n[train]\nepochs = 3",
    )
    .hold();
}

fn similarity(settings: &'static str) -> Case {
    Case { task: "similarity", data: Data::PairValues, cache: SHORT, settings }
}

#[test]
fn a_cosine_holds_the_contract() {
    similarity("[head]\nkind = \"cosine\"").hold();
}

#[test]
fn a_trained_similarity_holds_the_contract() {
    similarity("[head]\nkind = \"mlp\"\nhidden = [8]\n[train]\nepochs = 3").hold();
}

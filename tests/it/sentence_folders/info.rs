//! What `model info` and `model verify` say of sentence-transformers folders.

use std::fs;

use serde_json::{Value, json};

use super::{folder, path_of};
use crate::support::{Workshop, copy_folder, fixture};

#[test]
fn model_verify_looks_at_the_modules_of_a_folder_that_was_not_pulled() {
    let workshop = Workshop::empty();
    let model = workshop.path("model");
    let name = "mean_max_dense";
    copy_folder(&folder(name), &model);
    assert_eq!(workshop.json(&["model", "verify", "model"])["damaged"], json!([]));
    let damaged = || {
        let ran = workshop.run(&["model", "verify", "model", "--json"]);
        serde_json::from_str::<Value>(&ran.stdout).unwrap()["damaged"].clone()
    };
    let dense = fs::read(model.join("2_Dense/model.safetensors")).unwrap();
    fs::write(model.join("2_Dense/model.safetensors"), &dense[..dense.len() - 1]).unwrap();
    assert_eq!(damaged(), json!(["model/2_Dense/model.safetensors"]));
    fs::remove_file(model.join("2_Dense/model.safetensors")).unwrap();
    assert_eq!(damaged(), json!(["model/2_Dense/model.safetensors"]));
    fs::write(model.join("2_Dense/model.safetensors"), dense).unwrap();
    fs::remove_file(model.join("1_Pooling/config.json")).unwrap();
    assert_eq!(damaged(), json!(["model/1_Pooling/config.json"]));
    fs::write(model.join("1_Pooling/config.json"), "{").unwrap();
    assert_eq!(damaged(), json!(["model/1_Pooling/config.json"]));
    fs::write(model.join("modules.json"), "[").unwrap();
    assert_eq!(damaged(), json!(["model/modules.json"]));
}

#[test]
fn model_info_tells_what_the_folder_says() {
    let workshop = Workshop::empty();
    let info = workshop.json(&["model", "info", &path_of("old_layout")]);
    assert_eq!(
        info["sentence_transformers"],
        json!({
            "parts": ["Transformer", "Pooling", "Dense"],
            "pooling": ["cls", "mean"],
            "max_length": 20,
            "sentence": "cls + mean, Dense 32 -> 10, identity",
            "dimensions": 10,
            "refused": null,
            "prompts": {},
            "default_prompt": null,
            "include_prompt": true,
            "ignored": [],
        })
    );
    // Its heads read sentence vectors of 10 values, or the states of tokens, of 16.
    let trainable = |info: &Value| -> Vec<u64> {
        let heads = info["heads"].as_array().unwrap().iter();
        heads.map(|head| head["trainable"].as_u64().unwrap()).collect()
    };
    let of_old = trainable(&info);
    assert_eq!(of_old[..3], [10 * 2 + 2, 10 * 256 + 256 + 256 * 2 + 2, 16 * 2 + 2 + 4 + 4]);
    let fine_tuned = info["fine_tuning"]["trainable"].as_u64().unwrap();
    assert_eq!(fine_tuned, info["parameters"].as_u64().unwrap() + of_old[0]);
    // With a single pooling, heads read that and not what is made of it.
    let truncated = trainable(&workshop.json(&["model", "info", &path_of("truncated")]));
    assert_eq!(truncated[..2], [16 * 2 + 2, 16 * 256 + 256 + 256 * 2 + 2]);
    let model = workshop.path("prompted");
    copy_folder(&folder("cls"), &model);
    fs::write(
        model.join("config_sentence_transformers.json"),
        r#"{"prompts": {"query": "query: ", "passage": "passage: "}, "default_prompt_name": "query"}"#,
    )
    .unwrap();
    let ran = workshop.succeed(&["model", "info", "prompted"]);
    let prompts = r#"passage "passage: ", query "query: " (the default)"#;
    assert!(ran.stdout.contains(prompts), "{}", ran.stdout);
    let ran = workshop.succeed(&["model", "info", &path_of("truncated")]);
    assert!(
        ran.stdout.contains("mean, Normalize, first 6 of 16 values: 6 values"),
        "{}",
        ran.stdout
    );
    let plain = workshop.json(&["model", "info", &fixture("tiny_bert").display().to_string()]);
    assert_eq!(plain.get("sentence_transformers"), None);
    let verified = workshop.succeed(&["model", "verify", &path_of("old_layout")]);
    assert!(verified.stdout.contains("0_Transformer/model.safetensors"), "{}", verified.stdout);
}

//! What lies beside an exported ONNX file: the tokenizer, and a config.json that names the labels and says what the
//! file reads.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::{
    config::names::Task,
    encoder::{checkpoint::Checkpoint, sentence_folder::encoder_folder, windows::Overflow},
    error::{Error, Result},
    export::{exported_task::exported_task, folder::NewFolder},
    head::saved::HeadDescription,
    prediction::saved_run::SavedRun,
};

/// The files of a tokenizer that other libraries read besides tokenizer.json.
const TOKENIZER_FILES: [&str; 2] = ["tokenizer_config.json", "special_tokens_map.json"];

/// Writes the files of an encoder with a head.
pub(super) fn write(run: &SavedRun, checkpoint: &Checkpoint, folder: &NewFolder) -> Result<()> {
    folder.write("tokenizer.json", &tokenizer(run, checkpoint)?)?;
    let of_encoder = encoder_folder(&checkpoint.folder)?;
    for name in TOKENIZER_FILES {
        let path = of_encoder.join(name);
        if path.is_file() {
            folder.copy(&path, name)?;
        }
    }
    folder.write("config.json", &config(run, &of_encoder.join("config.json"))?)
}

/// The tokenizer as it is used. It cuts texts off as `predict` does; it does not pad.
fn tokenizer(run: &SavedRun, checkpoint: &Checkpoint) -> Result<Vec<u8>> {
    let path = &checkpoint.tokenizer.path;
    let parsed = serde_json::from_slice(checkpoint.tokenizer.json());
    let mut tokenizer: Value =
        parsed.map_err(|error| Error::io("read", path)(std::io::Error::other(error)))?;
    let extraction = &run.pipeline.extraction;
    tokenizer["padding"] = Value::Null;
    tokenizer["truncation"] = match extraction.overflow {
        Overflow::Truncate => json!({
            "direction": "Right",
            "max_length": extraction.max_length,
            "strategy": "LongestFirst",
            "stride": 0,
        }),
        // What is longer than a window is cut into several, by whoever feeds the file.
        Overflow::Windows { .. } => Value::Null,
    };
    Ok(with_line_end(&tokenizer))
}

fn with_line_end(value: &Value) -> Vec<u8> {
    let json = serde_json::to_string_pretty(value).expect("values become JSON");
    (json + "\n").into_bytes()
}

/// The model's config.json with the labels, and with what else a program needs to know under the key `frostbert`.
fn config(run: &SavedRun, path: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let mut config: Map<String, Value> = serde_json::from_slice(&bytes)
        .map_err(|error| Error::io("read", path)(std::io::Error::other(error)))?;
    let head = exported_task(run.pipeline.data.task).class_name();
    let family = config.get("architectures").and_then(|names| names[0].as_str()).map(|name| {
        let ends = name.find("For").or_else(|| name.find("Model")).unwrap_or(name.len());
        name[..ends].to_owned()
    });
    if let Some(family) = family {
        config.insert("architectures".into(), json!([format!("{family}{head}")]));
    }
    add_labels(&mut config, &run.description, run.pipeline.data.task);
    config.insert("frostbert".into(), about(run));
    Ok(with_line_end(&Value::Object(config)))
}

/// The config.json of a head alone.
pub(super) fn head_config(run: &SavedRun) -> Vec<u8> {
    let mut config = Map::new();
    add_labels(&mut config, &run.description, run.pipeline.data.task);
    config.insert("frostbert".into(), about(run));
    with_line_end(&Value::Object(config))
}

/// Puts the head's labels in the place of those that the model has of another head.
fn add_labels(config: &mut Map<String, Value>, description: &HeadDescription, task: Task) {
    let labels = &description.labels;
    for key in ["id2label", "label2id", "num_labels"] {
        config.remove(key);
    }
    if !labels.is_empty() {
        let ids = labels.iter().enumerate();
        let by_id: Map<String, Value> =
            ids.map(|(id, label)| (id.to_string(), label.clone().into())).collect();
        let ids = labels.iter().enumerate();
        let by_label: Map<String, Value> =
            ids.map(|(id, label)| (label.clone(), id.into())).collect();
        config.insert("id2label".into(), by_id.into());
        config.insert("label2id".into(), by_label.into());
        config.insert("num_labels".into(), labels.len().into());
    }
    if let Some(problem) = exported_task(task).problem_type() {
        config.insert("problem_type".into(), problem.into());
    }
}

/// What the file reads, and what `predict` does around it.
pub(super) fn about(run: &SavedRun) -> Value {
    let extraction = &run.pipeline.extraction;
    let prompts = run.prompts();
    let (overflow, stride) = match extraction.overflow {
        Overflow::Truncate => ("truncate", None),
        Overflow::Windows { stride } => ("windows", Some(stride)),
    };
    let description = &run.description;
    let states: Vec<String> = description.states.iter().map(ToString::to_string).collect();
    json!({
        "task": description.task,
        "head": description.kind,
        "states": states,
        "pair": run.pipeline.reads_pairs().then(|| {
            if run.pipeline.has_separate_pairs() { "separate" } else { "joint" }
        }),
        "prompt": prompts.text.as_deref(),
        "pair_prompt": prompts.text_pair.as_deref(),
        "max_length": extraction.max_length,
        "overflow": overflow,
        "stride": stride,
        "temperature": description.temperature,
        "thresholds": description.thresholds,
        "no_answer_threshold": description.no_answer_threshold,
        "max_answer_tokens": description.max_answer_tokens,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_the_model_give_way_to_those_of_the_head() {
        let of_model = json!({
            "hidden_size": 32,
            "id2label": { "0": "LABEL_0" },
            "label2id": { "LABEL_0": 0 },
            "num_labels": 1,
        });
        let config = |labels: &[&str], task: Task| {
            let labels = labels.iter().map(|label| (*label).to_owned()).collect();
            let description = HeadDescription { labels, ..HeadDescription::default() };
            let mut config = of_model.as_object().unwrap().clone();
            add_labels(&mut config, &description, task);
            Value::Object(config)
        };
        let numbers = json!({ "hidden_size": 32, "problem_type": "regression" });
        assert_eq!(config(&[], Task::Regression), numbers);
        let tags = config(&["O", "B-X"], Task::Tokens);
        assert_eq!(tags["id2label"], json!({ "0": "O", "1": "B-X" }));
        assert_eq!(tags["label2id"], json!({ "O": 0, "B-X": 1 }));
        assert_eq!(tags["num_labels"], 2);
    }
}

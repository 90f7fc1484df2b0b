//! The default model on a public data set. Without the data, the test prints a message and passes.

use serde_json::json;

use crate::support::{Workshop, datasets, minilm, read_json};

/// TREC's test questions, split into three parts: latin-1, with one `LABEL:fine text` per line.
const TREC: &str = r#"name = "trec"

[model]
path = "MINILM"
device = "cpu"

[data.train]
path = "QUESTIONS"
format = "lines"
encoding = "latin1"
pattern = '(?<label>\w+):\S+ (?<text>.*)'

[data]
split = { train = 0.6, validation = 0.2, test = 0.2 }

[cache]
dtype = "f32"

[train]
epochs = 30
lr = 1e-2
"#;

#[test]
fn the_kinds_of_trec_questions_are_learned() {
    let Some(datasets) = datasets() else { return };
    let workshop = Workshop::empty();
    let questions = datasets.join("trec/TREC_10.label");
    let toml = TREC.replace("MINILM", &minilm().display().to_string());
    workshop.write("trec.toml", toml.replace("QUESTIONS", &questions.display().to_string()));
    let report = workshop.json(&["run", "trec.toml"]);
    assert_eq!(report["extract"]["documents"], json!(500));
    let distinct = report["extract"]["unique"].as_u64().unwrap();
    assert!((490..=500).contains(&distinct), "{distinct} distinct questions");
    assert_eq!(report["extract"]["computed"], json!(distinct));
    assert!(report["extract"]["padding_efficiency"].as_f64() > Some(0.9), "{report}");

    let run = workshop.path(report["train"]["run"].as_str().unwrap());
    let lock = read_json(&run.join("lock.json"));
    assert_eq!(lock["labels"], json!(["ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM"]));
    assert_eq!(lock["data"][0]["rows"], json!(500));
    let split = ["train", "validation", "test"].map(|part| lock["split"][part].as_u64().unwrap());
    assert!((490..=500).contains(&split.iter().sum::<u64>()), "{split:?}");

    let metrics = &report["train"]["metrics"];
    let accuracy = metrics["test"]["accuracy"].as_f64().unwrap();
    let baseline = metrics["baseline"]["accuracy"].as_f64().unwrap();
    assert!(accuracy > baseline + 0.3, "accuracy {accuracy}, always the same label {baseline}");
}

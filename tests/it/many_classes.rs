//! More classes than a confusion matrix, or a table with a column for each, can show.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use crate::{
    cases::all_predictions,
    support::{TINY_PIPELINE, Workshop, read_json},
};

const N_CLASSES: usize = 1_200;

const ROWS_OF_CLASS: usize = 4;

/// Creates a workshop with many classes, each of which has two words of its own.
fn workshop() -> Workshop {
    let words =
        ["cold", "snow", "frost", "warm", "good", "very", "film", "not", "bad", "is", "and", "the"];
    let word = |number: usize| words[number % words.len()];
    let mut csv = String::from("text,label\n");
    for row in 0..N_CLASSES * ROWS_OF_CLASS {
        let class = row % N_CLASSES;
        let [one, other, third] = [class, class / 12, class / 144].map(word);
        let own: String = (row / N_CLASSES).to_string();
        csv.push_str(&format!("{one} {other} {third} {} {own},class {class}\n", class % 10));
    }
    let workshop = Workshop::empty();
    workshop.write("train.csv", csv);
    let pipeline = TINY_PIPELINE.replace("shard_tokens = 400", "").replace("= 256", "= 4096");
    workshop.write_pipeline(&pipeline);
    workshop.succeed(&["extract", "pipeline.toml"]);
    workshop
}

#[test]
fn a_run_of_many_classes_keeps_cells_of_the_confusion_and_the_most_probable_labels() {
    let workshop = workshop();
    let ran = workshop.succeed(&["train", "pipeline.toml", "--set", "train.epochs=2"]);
    for said in
        ["to train: 1,200 classes x 32 features, 39,600 parameters", "labels were not checked"]
    {
        assert!(ran.stderr.contains(said), "no {said:?} in {}", ran.stderr);
    }
    let metrics = read_json(&workshop.path("runs/tiny/001/metrics.json"));
    let checks = read_json(&workshop.path("runs/tiny/001/checks.json"));
    let skipped = checks["label_errors"]["skipped"].as_str().unwrap();
    assert!(skipped.contains("more than 1,000 classes"), "{skipped}");

    let rows: Vec<Map<String, Value>> = all_predictions(&workshop, "runs/tiny/001");
    assert_eq!(rows.len(), N_CLASSES * ROWS_OF_CLASS);
    let columns: BTreeSet<&str> = rows[0].keys().map(String::as_str).collect();
    let expected = [
        "key",
        "id",
        "part",
        "text",
        "label",
        "predicted",
        "confidence",
        "top_labels",
        "top_probabilities",
    ];
    assert_eq!(columns, BTreeSet::from(expected));
    for row in &rows {
        let top = row["top_labels"].as_array().unwrap();
        let probabilities = row["top_probabilities"].as_array().unwrap().iter();
        let probabilities: Vec<f64> = probabilities.map(|p| p.as_f64().unwrap()).collect();
        assert_eq!((top.len(), probabilities.len()), (20, 20));
        assert_eq!(
            (&top[0], probabilities[0]),
            (&row["predicted"], row["confidence"].as_f64().unwrap())
        );
        assert!(probabilities.windows(2).all(|pair| pair[0] >= pair[1]), "{row:?}");
        assert!(probabilities.iter().sum::<f64>() <= 1.0 + 1e-5, "{row:?}");
    }
    let labels = read_json(&workshop.path("runs/tiny/001/head.json"));
    let labels: Vec<&str> =
        labels["labels"].as_array().unwrap().iter().map(|l| l.as_str().unwrap()).collect();
    for part in ["train", "validation", "test"] {
        let own = &metrics[part];
        assert_eq!(own.get("confusion"), None, "{part}");
        let mut expected: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for row in rows.iter().filter(|row| row["part"] == part) {
            let [label, predicted] = ["label", "predicted"].map(|name| row[name].as_str().unwrap());
            *expected.entry((label, predicted)).or_insert(0) += 1;
        }
        let id = |cell: &Value, name: &str| labels[cell[name].as_u64().unwrap() as usize];
        let cells = own["confusion_cells"].as_array().unwrap().iter();
        let cells: BTreeMap<(&str, &str), u64> = cells
            .map(|cell| ((id(cell, "true"), id(cell, "predicted")), cell["rows"].as_u64().unwrap()))
            .collect();
        assert_eq!(cells, expected, "{part}");
        assert_eq!(cells.values().sum::<u64>(), own["n"].as_u64().unwrap());
        assert!(own["roc_auc"].as_f64().unwrap() > 0.5, "{part}");
    }

    let text = ["predict", "runs/tiny", "--text", "cold snow frost 1"];
    let shown = workshop.succeed(&text).stdout;
    // The label, and the three most probable labels below it.
    assert_eq!(shown.matches("class ").count(), 4, "{shown}");
    let all = workshop.json(&text);
    assert_eq!(all["probabilities"].as_object().unwrap().len(), N_CLASSES);

    let report = workshop.json(&["evaluate", "runs/tiny", "--data", "train.csv"]);
    let measured = report.to_string();
    assert!(measured.contains("confusion_cells") && !measured.contains("\"confusion\""));
}

#[test]
fn heads_of_many_classes_that_do_not_fit_into_memory_are_refused_before_they_are_trained() {
    let workshop = workshop();
    let large = |arguments: &[&str]| {
        let sets = ["head.kind=\"mlp\"", "head.hidden=[40000]", "train.memory_mb=64"];
        let sets = sets.iter().flat_map(|set| ["--set", set]);
        let all: Vec<&str> = arguments.iter().copied().chain(sets).collect();
        workshop.fail(&all)
    };
    let said = large(&["train", "pipeline.toml"]);
    for words in [
        "1 head of 1,200 classes with 32 features takes about 1.4 GB of memory to train",
        "train.memory_mb plus 1 GiB is 1.1 GB",
        "hint: set train.memory_mb to ",
    ] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
    assert!(!workshop.path("runs").exists());

    let pipeline = std::fs::read_to_string(workshop.path("pipeline.toml")).unwrap();
    workshop.write("pipeline.toml", pipeline + "[sweep]\nlr = [0.01, 0.001]\nseeds = 2\n");
    let said = large(&["sweep", "pipeline.toml"]);
    let words = "2 heads of 1,200 classes with 32 features take about 2.8 GB of memory";
    assert!(said.contains(words), "{said}");
}

#[test]
fn a_sweep_of_many_classes_chooses_a_head_as_any_other() {
    let workshop = workshop();
    let pipeline = std::fs::read_to_string(workshop.path("pipeline.toml")).unwrap();
    let sweep = pipeline + "[sweep]\nlr = [0.1, 0.00001]\nfolds = 2\nselect = \"accuracy\"\n";
    workshop.write("pipeline.toml", sweep);
    let ran = workshop.json(&["sweep", "pipeline.toml", "--set", "train.epochs=1"]);
    assert_eq!(ran["best"]["settings"]["lr"], 0.1);
    assert_eq!(ran["heads"], 4);
    let cells = ran["best"]["test"]["confusion_cells"].as_array().unwrap();
    assert!(!cells.is_empty());
}

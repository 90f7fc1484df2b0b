//! The checks of data by its states: finds near-duplicates and wrong labels that were planted.

use std::collections::HashSet;

use frostbert::{
    cache::{
        fingerprint::{Key, Mode},
        reader::CacheReader,
        states::{Pooling, StateId},
    },
    internals::{features::FeatureView, head::out_of_fold, metrics::label_errors::likely_errors},
};
use serde_json::json;

use crate::support::{Workshop, datasets, minilm, read_json};

const PIPELINE: &str = r#"name = "mr"

[model]
path = "MINILM"
device = "cpu"

[data]
train = { path = "train.tsv", quoting = false }
test = { path = "test.tsv", quoting = false }
validation = { path = "validation.tsv", quoting = false }

[train]
epochs = 3
"#;

/// The number of training reviews of each class.
const N_OF_CLASS: usize = 500;

/// One label in this many is flipped.
const FLIPPED: usize = 10;

/// The number of training rows whose text is also in the test set, in capitals, which an uncased model maps to the same
/// tokens.
const N_COPIES: usize = 7;

#[test]
fn flipped_labels_and_near_copies_of_movie_reviews_are_found() {
    let Some(datasets) = datasets() else { return };
    let reviews = |name: &str| -> Vec<String> {
        let bytes = std::fs::read(datasets.join("mr").join(name)).unwrap();
        let text: String = bytes.into_iter().map(char::from).collect();
        text.lines().map(|line| line.trim().to_owned()).take(N_OF_CLASS + 100).collect()
    };
    let classes =
        [("negative", reviews("rt-polarity.neg")), ("positive", reviews("rt-polarity.pos"))];
    let [mut train, mut validation, mut test] = [(); 3].map(|()| "text\tlabel\n".to_owned());
    let (mut texts, mut labels) = (Vec::new(), Vec::new());
    let mut flipped = HashSet::new();
    for (class, (name, reviews)) in classes.iter().enumerate() {
        for review in &reviews[..N_OF_CLASS] {
            let row = texts.len();
            let is_flipped = row % FLIPPED == 3;
            let label = if is_flipped { 1 - class } else { class };
            train.push_str(&format!("{review}\t{}\n", classes[label].0));
            if is_flipped {
                flipped.insert(row);
            }
            texts.push(review.clone());
            labels.push(label);
        }
        for (number, review) in reviews[N_OF_CLASS..].iter().enumerate() {
            let part = if number < 50 { &mut validation } else { &mut test };
            part.push_str(&format!("{review}\t{name}\n"));
        }
    }
    for review in &texts[..N_COPIES] {
        test.push_str(&format!("{}\tnegative\n", review.to_uppercase()));
    }
    let workshop = Workshop::empty();
    workshop.write("train.tsv", train);
    workshop.write("validation.tsv", validation);
    workshop.write("test.tsv", test);
    workshop.write("mr.toml", PIPELINE.replace("MINILM", &minilm().display().to_string()));
    let report = workshop.json(&["run", "mr.toml"]);

    let checks =
        read_json(&workshop.path(report["train"]["run"].as_str().unwrap()).join("checks.json"));
    let near = &checks["near_duplicates"];
    let test_part = near["parts"]
        .as_array()
        .unwrap()
        .iter()
        .find(|part| part["part"] == json!("test"))
        .unwrap();
    assert_eq!(test_part["compared"], json!(100 + N_COPIES));
    assert_eq!(test_part["count"], json!(N_COPIES), "{near}");
    for pair in near["pairs"].as_array().unwrap() {
        let (text, copy) = (pair["text"].as_str().unwrap(), pair["train_text"].as_str().unwrap());
        assert_eq!(text.to_lowercase(), copy.to_lowercase(), "{pair}");
        assert!(pair["cosine"].as_f64() > Some(0.999), "{pair}");
    }
    let doubtful = &checks["label_errors"];
    assert_eq!(doubtful["rows"].as_array().unwrap().len(), 20);

    // All rows that are found, not only those that are listed, compared with all flipped labels.
    let cache = CacheReader::existing(&workshop.cache()).unwrap();
    let keys: Vec<Key> = texts.iter().map(|text| Key::of(Mode::Text, &[text])).collect();
    let view = FeatureView::read(&cache, StateId::pooled(Pooling::Mean, 6), &keys).unwrap();
    let samples: Vec<u32> = (0..texts.len() as u32).collect();
    let classes: Vec<u32> = labels.iter().map(|label| *label as u32).collect();
    let probabilities = out_of_fold::probabilities(&view, &samples, &classes, 2, 42).unwrap();
    let found = likely_errors(&labels, probabilities.view());
    let right =
        |n: usize| found[..n].iter().filter(|error| flipped.contains(&error.row)).count() as f64;
    let recall = right(found.len()) / flipped.len() as f64;
    let precision = right(found.len()) / found.len() as f64;
    let first = right(flipped.len().min(found.len())) / flipped.len() as f64;
    let measured = format!(
        "{} found of {} flipped: recall {recall:.3}, precision {precision:.3}; among as many first ones {first:.3}",
        found.len(),
        flipped.len()
    );
    eprintln!("{measured}");
    // The heads disagree with a third of all labels, of which one in ten is flipped: guessing would find a third of
    // them with a precision of 0.1, and 0.1 among the first ones. The checks of runs over these rows gave a recall of
    // 0.62, a precision of 0.199 and 0.29 (with two rows of validation), and 0.66, 0.184 and 0.25 (with all 100). The
    // bounds are four standard deviations of a guess away from it.
    assert!(recall >= 0.55 && precision >= 0.17, "{measured}");
    assert!(first >= 0.22, "{measured}");
}

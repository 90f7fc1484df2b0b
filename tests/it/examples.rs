//! The examples, run on the tiny BERT: they build, run, and print what they should.

use frostbert::{Device, EmbedderOptions, internals::config::settings::Pipeline};

use crate::support::{TINY_ROWS, Workshop, fixture, label, texts};

#[expect(dead_code, reason = "tests call what its `main` calls")]
#[path = "../../examples/cache_rows.rs"]
mod cache_rows;
#[expect(dead_code, reason = "tests call what its `main` calls")]
#[path = "../../examples/embed.rs"]
mod embed;
#[expect(dead_code, reason = "tests call what its `main` calls")]
#[path = "../../examples/experiment.rs"]
mod experiment;
#[expect(dead_code, reason = "tests call what its `main` calls")]
#[path = "../../examples/fit.rs"]
mod fit;
#[expect(dead_code, reason = "tests call what its `main` calls")]
#[path = "../../examples/linfa_svm.rs"]
mod linfa_svm;
#[expect(dead_code, reason = "tests call what its `main` calls")]
#[path = "../../examples/predict.rs"]
mod predict;
#[expect(dead_code, reason = "tests call what its `main` calls")]
#[path = "../../examples/train_head.rs"]
mod train_head;

/// Returns the folder of the tiny BERT, which reads at most 64 tokens.
fn tiny_bert() -> String {
    fixture("tiny_bert").display().to_string()
}

/// Only the embedding layer is used, because the weights of the layers above it are random.
fn embeddings() -> EmbedderOptions {
    EmbedderOptions::default().device(Device::Cpu).layer(0).max_length(32)
}

/// Reads the pipeline of a workshop, with absolute paths.
fn pipeline(workshop: &Workshop) -> Pipeline {
    let absolute = |key: &str, name: &str| format!("{key}={}", workshop.path(name).display());
    let overrides = [
        absolute("data.train.path", "train.csv"),
        absolute("cache.dir", "cache"),
        // Only the embedding layer is used, because the weights of the layers above it are random.
        "cache.layers=[0]".to_string(),
    ];
    Pipeline::read(&workshop.path("pipeline.toml"), &overrides).unwrap()
}

#[test]
fn a_head_trained_through_the_library_tells_the_classes_apart() {
    let workshop = Workshop::tiny();
    let state = "mean-L00".parse().unwrap();
    let (right, n_rows) = train_head::train(&pipeline(&workshop), state).unwrap();
    assert_eq!(n_rows, 18);
    assert!(right > 14, "{right}");
}

#[test]
fn a_machine_of_linfa_tells_one_class_from_the_others() {
    let workshop = Workshop::tiny();
    let state = "mean-L00".parse().unwrap();
    let (right, n_rows) = linfa_svm::classify(&pipeline(&workshop), state).unwrap();
    assert_eq!(n_rows, 18);
    assert!(right > 14, "{right}");
}

#[test]
fn a_saved_tagger_names_entities_by_their_characters() {
    let workshop = Workshop::empty();
    let sentences = ["cold\tO\nsnow\tB-ICE\nfrost\tI-ICE\n\n", "warm\tO\nfilm\tO\n\n"];
    workshop.write("train.conll", sentences.concat().repeat(12));
    workshop.write_pipeline(
        "[model]\npath = \"MODEL\"\ndevice = \"cpu\"\n\
         [data]\ntask = \"tokens\"\ntrain = { path = \"train.conll\" }\nclean = { drop_empty = true, drop_duplicates = false }\n\
         [cache]\nmax_length = 32\n[train]\nlr = 0.05\n",
    );
    workshop.succeed(&["run", "pipeline.toml"]);
    let lines =
        predict::entities(&workshop.path("runs/pipeline"), &["cold snow frost", "warm film"])
            .unwrap();
    assert_eq!(lines, ["cold snow frost", "  5..15 ICE: snow frost", "warm film"]);
}

#[test]
fn texts_of_the_same_words_are_more_alike_than_others() {
    let texts = ["the cold snow", "snow cold the", "very good film"];
    let cosines = embed::cosines(&tiny_bert(), &embeddings(), &texts).unwrap();
    assert_eq!(cosines.dim(), (3, 3));
    assert!((0..3).all(|text| (cosines[[text, text]] - 1.0).abs() < 1e-5), "{cosines}");
    assert!(cosines[[0, 1]] > 0.9 && cosines[[0, 1]] > cosines[[0, 2]], "{cosines}");
}

#[test]
fn a_head_fitted_on_embedded_texts_gives_each_of_its_classes_a_probability() {
    let known = texts(60);
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let labels: Vec<&str> = (0..60).map(label).collect();
    let new = ["the snow frost snow", "the warm good very"];
    let lines = fit::classify(&tiny_bert(), &embeddings(), (&known, &labels), &new).unwrap();
    assert_eq!(lines.len(), 2);
    for (line, place) in lines.iter().zip([0, 2]) {
        let (text, row) = line.split_once(r#" ["cold", "plain", "warm"] ["#).unwrap();
        let row: Vec<f32> =
            row.trim_end_matches(']').split(", ").map(|p| p.parse().unwrap()).collect();
        assert!(new.contains(&text) && row.len() == 3 && row[place] > 0.9, "{line}");
    }
}

#[test]
fn rows_of_a_cache_are_found_by_their_texts() {
    let workshop = Workshop::tiny();
    let extracted = workshop.json(&["extract", "pipeline.toml"]);
    let folder = workshop.path(extracted["cache"].as_str().unwrap());
    let texts = texts(TINY_ROWS);
    let rows = cache_rows::rows(&folder, "mean-L02", &texts[3..5]).unwrap();
    assert_eq!(rows.dim(), (2, 32));
    let error = cache_rows::rows(&folder, "mean-L02", &["never seen"]).unwrap_err().to_string();
    assert!(error.contains("lacks the document keys[0] = "), "{error}");
}

#[test]
fn a_pipeline_file_is_run_and_its_head_measured() {
    let workshop = Workshop::tiny();
    let absolute = |key: &str, name: &str| format!("{key}={}", workshop.path(name).display());
    let paths = [
        absolute("data.train.path", "train.csv"),
        absolute("cache.dir", "cache"),
        absolute("run.dir", "runs"),
    ];
    let mut overrides: Vec<&str> = paths.iter().map(String::as_str).collect();
    overrides.extend(["cache.layers=[0]", "head.layers=[0]", "head.kind=logistic"]);
    let pipeline = workshop.path("pipeline.toml");
    let score = experiment::test_accuracy(&pipeline, &overrides).unwrap().unwrap();
    let [low, high] = score.interval.unwrap();
    assert!(score.value > 0.8 && low <= score.value && score.value <= high, "{score:?}");
    assert!(workshop.path("runs/tiny/001/head.json").is_file());
}

//! The examples on the tiny BERT: that they build, run, and say what they should.

use frostbert::config::settings::Pipeline;

use crate::support::Workshop;

#[expect(dead_code, reason = "tests call what its `main` calls")]
#[path = "../../examples/linfa_svm.rs"]
mod linfa_svm;
#[expect(dead_code, reason = "tests call what its `main` calls")]
#[path = "../../examples/predict.rs"]
mod predict;
#[expect(dead_code, reason = "tests call what its `main` calls")]
#[path = "../../examples/train_head.rs"]
mod train_head;

/// The pipeline of a workshop, with its paths as seen from here.
fn pipeline(workshop: &Workshop) -> Pipeline {
    let absolute = |key: &str, name: &str| format!("{key}={}", workshop.path(name).display());
    let overrides = [
        absolute("data.train.path", "train.csv"),
        absolute("cache.dir", "cache"),
        // Sums of words: the weights of the layers above are random.
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

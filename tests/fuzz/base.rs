//! What damaged files are put into: runs of several heads on the tiny BERT and the cache under them, made anew for every
//! fuzzing, so that they are of today's format.

use std::{
    fs,
    path::{Path, PathBuf},
};

use frostbert::internals::{experiment::Experiment, extraction::machine::Machine};

/// The pipelines whose runs are made: every kind of head that is saved in another way.
pub(crate) const RUNS: [&str; 5] = ["linear", "mixed", "attention", "crf", "questions"];

/// The folder of the checkout.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file or folder of `tests/fixtures`.
pub(crate) fn fixture(name: &str) -> PathBuf {
    repository().join("tests/fixtures").join(name)
}

/// A folder of the saved corpus.
pub(crate) fn corpus(name: &str) -> PathBuf {
    repository().join("tests/fuzz/corpus").join(name)
}

/// Where failing inputs go, and what is made for all targets.
pub(crate) fn output() -> PathBuf {
    repository().join("target/fuzz")
}

/// The folder of the base. It is the working directory of all targets, because a run names its files by it.
pub(crate) fn folder() -> PathBuf {
    output().join("base")
}

/// The cache folder of a pipeline of the base.
pub(crate) fn cache_of(pipeline: &str) -> PathBuf {
    let lock = fs::read(run_of(pipeline).join("lock.json")).unwrap();
    let lock: serde_json::Value = serde_json::from_slice(&lock).unwrap();
    folder().join(lock["cache"]["path"].as_str().unwrap())
}

/// The run folder of a pipeline of the base.
pub(crate) fn run_of(pipeline: &str) -> PathBuf {
    folder().join("runs").join(pipeline).join("001")
}

/// Makes the base, and works in it from then on.
pub(crate) fn make() {
    let folder = folder();
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    fs::create_dir_all(&folder).unwrap();
    copy(&fixture("tiny_bert"), &folder.join("model"));
    for (from, to) in [
        ("csv/small.csv", "train.csv"),
        ("conll/small.conll", "train.conll"),
        ("squad/small.json", "train.json"),
    ] {
        fs::copy(corpus(from), folder.join(to)).unwrap();
    }
    std::env::set_current_dir(&folder).unwrap();
    let machine = Machine::new(repository().join("runtime/libonnxruntime.so"), 1);
    for name in RUNS {
        let file = corpus("pipeline").join(name).with_extension("toml");
        let run = Experiment::open(&file).and_then(|experiment| experiment.run(&machine, &()));
        let run = run.unwrap_or_else(|error| {
            panic!("{name}: {error} ({})", error.hint().unwrap_or_default())
        });
        assert_eq!(folder.join(run.folder()), run_of(name));
    }
}

/// Copies a folder with everything in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

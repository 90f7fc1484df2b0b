//! Pipeline files, overrides and lists of labels.

use std::{
    fs,
    path::{Path, PathBuf},
};

use frostbert::internals::{
    config::{file::PipelineFile, settings::Pipeline},
    data::LabelMap,
    selection::trials,
};

use super::Execute;
use crate::base;

/// The pipelines that come with the program.
pub(super) fn shipped() -> Vec<PathBuf> {
    let entries = fs::read_dir(base::repository().join("pipelines")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

pub(super) fn file(folder: &Path) -> Execute {
    let path = folder.join("pipeline.toml");
    Box::new(move |bytes, thorough| {
        fs::write(&path, bytes).unwrap();
        let Ok(tasks) = Pipeline::read_tasks(&path, &[]) else {
            return false;
        };
        for task in tasks {
            require_same_after_a_lock(&path, &task.pipeline, thorough);
        }
        true
    })
}

/// What was accepted means the same once a lock file has kept it, and its settings can be worked with.
fn require_same_after_a_lock(path: &Path, pipeline: &Pipeline, thorough: bool) {
    let kept =
        serde_json::to_string(pipeline.file()).expect("an accepted pipeline is kept as JSON");
    let file: PipelineFile = serde_json::from_str(&kept)
        .unwrap_or_else(|error| panic!("accepted, but its lock is not: {error} in {kept}"));
    let again = Pipeline::check(path, file)
        .unwrap_or_else(|error| panic!("accepted, but not from its lock: {error} in {kept}"));
    assert!(
        again.file() == pipeline.file(),
        "accepted, but another after a lock: {kept}\n{}",
        serde_json::to_string(again.file()).unwrap_or_default()
    );
    let _ = pipeline.check_training();
    let _ = pipeline.head_states(2);
    let _ = pipeline.stored_states(2);
    if let (Ok(section), true) = (pipeline.sweep(), thorough) {
        let _ = trials::trials(section, 1);
    }
}

pub(super) fn overrides(folder: &Path) -> Execute {
    let path = folder.join("pipeline.toml");
    fs::copy(base::corpus("pipeline/sweep.toml"), &path).unwrap();
    Box::new(move |bytes, thorough| {
        let text = String::from_utf8_lossy(bytes);
        let settings: Vec<String> = text.lines().take(8).map(str::to_owned).collect();
        match Pipeline::read(&path, &settings) {
            Ok(pipeline) => {
                require_same_after_a_lock(&path, &pipeline, thorough);
                true
            }
            Err(_) => false,
        }
    })
}

pub(super) fn labels(folder: &Path) -> Execute {
    let path = folder.join("labels.txt");
    Box::new(move |bytes, _| {
        fs::write(&path, bytes).unwrap();
        let Ok((labels, _)) = LabelMap::from_file(&path) else {
            return false;
        };
        assert!(!labels.is_empty(), "accepted without a label");
        for (id, name) in labels.names().iter().enumerate() {
            assert_eq!(labels.id(name), Some(id), "accepted, but `{name}` is not found");
        }
        true
    })
}

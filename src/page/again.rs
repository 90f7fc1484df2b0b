//! How to get a run again: the commands, the hashes of all that went in and came out, and where it was made.

use std::path::Path;

use serde::Serialize;

use super::{numbers::grouped, run_files::RunFiles, table::TableView};
use crate::{
    config::file::PipelineFile,
    data::Part,
    encoder::checkpoint::CheckpointHashes,
    run_folder::lock::{LOCK_FILE, Lock},
};

/// The last part of a page.
#[derive(Clone, Debug, Serialize)]
pub(super) struct AgainView {
    /// What to type, with what it does.
    pub(super) commands: Vec<(String, &'static str)>,
    /// Where and when the run was made.
    pub(super) facts: Vec<(&'static str, String)>,
    /// The models that a sweep compared, and the caches of their states.
    pub(super) models: Option<TableView>,
    /// The files that went in.
    pub(super) inputs: TableView,
    /// The files that came out.
    pub(super) outputs: TableView,
    /// The pipeline with all its values, as TOML.
    pub(super) pipeline: String,
    /// Of a sweep, that of the head that was chosen.
    pub(super) winner: Option<String>,
}

impl AgainView {
    pub(super) fn of(run: &RunFiles) -> AgainView {
        let lock = &run.lock;
        let folder = shell_word(&run.folder.to_string_lossy());
        let lock_path = run.folder.join(LOCK_FILE);
        let commands = vec![
            (
                format!("frostbert run --locked {}", shell_word(&lock_path.to_string_lossy())),
                "makes the run again from the same inputs, and compares every byte",
            ),
            (format!("frostbert predict {folder} FILE"), "applies the head to other texts"),
            (
                format!("frostbert evaluate {folder} --data FILE"),
                "measures it on other labelled data",
            ),
        ];
        let made = &lock.made;
        let split = |part: Part| {
            let rows = match part {
                Part::Train => lock.split.train,
                Part::Validation => lock.split.validation,
                Part::Test => lock.split.test,
            };
            grouped(rows as u64)
        };
        let optional = [
            ("made", run.created()),
            ("commit", made.commit.clone()),
            ("machine", made.host.clone()),
        ];
        let mut facts = vec![("frostbert", lock.frostbert.clone())];
        facts.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
        facts.extend([
            ("states made on", lock.device.clone()),
            ("ONNX Runtime", lock.cache.onnxruntime.join(", ")),
            ("CPU features", lock.cpu.join(", ")),
            ("seed", lock.seed.to_string()),
            ("split", Part::ALL.map(split).join(" / ")),
            ("cache", lock.cache.fingerprint.clone()),
            ("rows that were read", lock.cache.rows.short()),
        ]);
        // Nothing computed states that the data brought with them.
        facts.retain(|(_, value)| !value.is_empty());
        let mut inputs = TableView::new(&["file", "blake3"], &["records"]);
        for file in &lock.data {
            let (path, rows) = (file.path.display().to_string(), grouped(file.rows as u64));
            inputs.push([path, file.blake3.short(), rows]);
        }
        let own = &run.file().model.path;
        let compared = lock.models.iter().map(|one| (one.folder(), &one.model));
        let mut models: Vec<(&Path, &CheckpointHashes)> = compared.collect();
        if models.is_empty() {
            models.extend(lock.model.iter().map(|model| (own.as_path(), model)));
        }
        for (folder, model) in models {
            for (name, hash) in [
                ("weights", &model.weights),
                ("config.json", &model.config),
                ("tokenizer.json", &model.tokenizer),
            ] {
                let file = format!("{}: {name}", folder.display());
                inputs.push([file, hash.short(), String::new()]);
            }
        }
        let mut outputs = TableView::new(&["file", "blake3"], &[]);
        for (name, hash) in &lock.outputs {
            outputs.push([name.clone(), hash.short()]);
        }
        AgainView {
            commands,
            facts,
            models: models_table(lock, own),
            inputs,
            outputs,
            pipeline: toml_of(&lock.pipeline),
            winner: lock.winner.as_ref().map(toml_of),
        }
    }
}

/// The models of a sweep over several, that of the head that was chosen marked.
fn models_table(lock: &Lock, own: &Path) -> Option<TableView> {
    let mut table = TableView::new(&["model", "cache", "weights"], &[]);
    for one in &lock.models {
        let cells = vec![
            one.folder().display().to_string(),
            one.fingerprint.clone(),
            one.model.weights.short(),
        ];
        table.push_row(cells, one.path == own);
    }
    table.note = Some("The marked one is that of the head that was chosen.".into());
    table.if_any()
}

/// A pipeline as it could stand in a file.
fn toml_of(pipeline: &PipelineFile) -> String {
    // By way of a table: values stand before the sections.
    let table = toml::Table::try_from(pipeline).ok();
    table.and_then(|table| toml::to_string(&table).ok()).unwrap_or_default()
}

/// A word as a shell takes it.
fn shell_word(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.into()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::shell_word;

    #[test]
    fn a_path_is_one_word_of_a_shell() {
        assert_eq!(shell_word("runs/a-b/001"), "runs/a-b/001");
        assert_eq!(shell_word("my runs/it's"), "'my runs/it'\\''s'");
    }
}

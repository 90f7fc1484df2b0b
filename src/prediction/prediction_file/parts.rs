//! A folder of parts, which a later call can go on with if the first one was killed.
//!
//! The folder has a file that says what its parts are the predictions of, and whether they are all of them. It is locked
//! while the parts are written. Its name begins with `_`, so readers of a folder of Parquet files ignore it.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

use frostbert_cache::durable::write_file;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    error::{Error, Result},
    prediction::several::NamedPredictor,
    report::row_writer::is_aside,
    run_folder::program::VERSION,
};

use super::PredictionOutput;

const PARTS_FILE: &str = "_parts.json";

/// A folder whose parts are being written.
pub(super) struct PartsFolder {
    folder: PathBuf,
    description: PartsDescription,
    /// The number of parts that an earlier call completed.
    pub(super) n_complete: usize,
    _lock: File,
}

/// What the parts of a folder are.
#[derive(Serialize, Deserialize)]
struct PartsDescription {
    /// Whether they are all.
    complete: bool,
    /// What determines their content; empty if that is not known.
    of: Map<String, Value>,
}

impl PartsFolder {
    /// Creates a folder, or continues one whose parts are an incomplete output of the same predictions. A folder without a
    /// part is begun again, if nothing else is in it than what a killed call leaves. Any other folder that is not empty is
    /// refused, because the parts of two calls would look like those of one.
    pub(super) fn open(
        folder: &Path,
        output: &PredictionOutput,
        predictors: &[NamedPredictor],
    ) -> Result<PartsFolder> {
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let of = what_is_predicted(output, predictors);
        let file = folder.join(PARTS_FILE);
        let (lock, description) = match open_description(&file)? {
            None if holds_something(folder)? => return Err(refused(folder, "which holds files")),
            None => begin(folder, &file, of)?,
            Some(opened) => {
                let lock = lock(folder, opened)?;
                // Who held the lock before may have written a part meanwhile.
                if holds_something(folder)? {
                    (lock, continued(folder, &file, &of)?)
                } else {
                    begin_again(lock, &file, of)?
                }
            }
        };
        remove_temporary_files(folder)?;
        let is_part = |number: &usize| folder.join(part_name(*number)).is_file();
        let n_complete = (0..).take_while(is_part).count();
        let folder = folder.to_path_buf();
        Ok(PartsFolder { folder, description, n_complete, _lock: lock })
    }

    /// Removes the parts if no later call can go on with them: some of them would look like all of them.
    pub(super) fn stop(self) {
        if !self.description.of.is_empty() {
            return;
        }
        // Errors here are ignored, because the error that stopped the work is reported.
        let parts = (0..).map(|number| self.folder.join(part_name(number)));
        parts.take_while(|part| part.exists()).for_each(|part| drop(fs::remove_file(part)));
        drop(fs::remove_file(self.folder.join(PARTS_FILE)));
    }

    /// Notes that all parts are there.
    pub(super) fn complete(mut self) -> Result<()> {
        self.description.complete = true;
        self.description.write(&self.folder.join(PARTS_FILE))
    }
}

impl PartsDescription {
    /// Reads a description; `None` if it is damaged.
    fn read(file: &Path) -> Option<PartsDescription> {
        serde_json::from_slice(&fs::read(file).ok()?).ok()
    }

    fn write(&self, file: &Path) -> Result<()> {
        Ok(write_file(file, &self.json())?)
    }

    fn json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).expect("names and numbers become JSON");
        json.push(b'\n');
        json
    }
}

/// Returns the name of a part.
pub(super) fn part_name(number: usize) -> String {
    format!("part-{number:05}.parquet")
}

/// Returns what determines the content of the parts: the input, the runs, the columns and the program.
fn what_is_predicted(
    output: &PredictionOutput,
    predictors: &[NamedPredictor],
) -> Map<String, Value> {
    let Some(input) = &output.input else {
        return Map::new();
    };
    let runs = predictors.iter().map(|NamedPredictor { name, predictor }| {
        json!({ "name": name, "outputs": predictor.run().output_digests() })
    });
    let of = json!({
        "frostbert": VERSION,
        "input": input,
        "runs": runs.collect::<Vec<Value>>(),
        "columns": output.columns,
        "part_rows": output.part_rows,
        "batch": output.most_texts,
    });
    // As they are read back from the file.
    match serde_json::from_str(&of.to_string()) {
        Ok(Value::Object(of)) => of,
        _ => Map::new(),
    }
}

/// Returns the first key whose values differ; that of the input is more exact.
fn first_difference(one: &Map<String, Value>, other: &Map<String, Value>) -> Option<String> {
    let key = one.keys().chain(other.keys()).find(|key| one.get(*key) != other.get(*key))?;
    let inner = match (one.get(key), other.get(key)) {
        (Some(Value::Object(one)), Some(Value::Object(other))) => first_difference(one, other),
        _ => None,
    };
    Some(inner.map_or_else(|| key.clone(), |inner| format!("{key}.{inner}")))
}

/// Opens the description of a folder, if it has one, so that it can be read, locked and written.
fn open_description(file: &Path) -> Result<Option<File>> {
    match OpenOptions::new().read(true).write(true).open(file) {
        Ok(opened) => Ok(Some(opened)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", file)(error)),
    }
}

/// Returns the description of a folder with parts, if they are the first of the predictions that are described by `of`.
fn continued(folder: &Path, file: &Path, of: &Map<String, Value>) -> Result<PartsDescription> {
    let description = PartsDescription::read(file).filter(|description| !description.complete);
    let Some(description) = description else {
        return Err(refused(folder, "which holds files"));
    };
    if of.is_empty() {
        return Err(refused(
            folder,
            "which holds parts, and an input that can be read only once cannot be continued",
        ));
    }
    match first_difference(&description.of, of) {
        Some(key) => Err(refused(folder, &format!("whose parts have another `{key}`"))),
        None => Ok(description),
    }
}

/// Creates the description of a folder and locks it. Of several processes that find the folder empty, one creates it.
fn begin(folder: &Path, file: &Path, of: Map<String, Value>) -> Result<(File, PartsDescription)> {
    let created = match OpenOptions::new().write(true).create_new(true).open(file) {
        Ok(created) => created,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(refused(folder, "which another process is writing to"));
        }
        Err(error) => return Err(Error::io("create", file)(error)),
    };
    begin_again(lock(folder, created)?, file, of)
}

/// Writes the description of a folder that has no part, over whatever a killed process left of another one. The file
/// stays the same, and with it the lock.
fn begin_again(
    mut locked: File,
    file: &Path,
    of: Map<String, Value>,
) -> Result<(File, PartsDescription)> {
    let description = PartsDescription { complete: false, of };
    locked.set_len(0).map_err(Error::io("write", file))?;
    locked.write_all(&description.json()).map_err(Error::io("write", file))?;
    locked.sync_all().map_err(Error::io("write", file))?;
    Ok((locked, description))
}

/// Locks the description of a folder until the file is dropped.
fn lock(folder: &Path, opened: File) -> Result<File> {
    match opened.try_lock() {
        Err(TryLockError::WouldBlock) => {
            Err(refused(folder, "which another process is writing to"))
        }
        // Some file systems cannot lock.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(opened),
    }
}

/// Whether a folder holds anything but a description and what a killed process leaves of a part.
fn holds_something(folder: &Path) -> Result<bool> {
    Ok(names_in(folder)?.iter().any(|name| name != PARTS_FILE && !is_aside(name)))
}

/// Removes what a killed process left of the part that it was writing.
fn remove_temporary_files(folder: &Path) -> Result<()> {
    for name in names_in(folder)?.iter().filter(|name| is_aside(name)) {
        let path = folder.join(name);
        fs::remove_file(&path).map_err(Error::io("remove", &path))?;
    }
    Ok(())
}

/// Returns the names of what is in a folder.
fn names_in(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).map_err(Error::io("list", folder))?;
    let name = |entry: io::Result<fs::DirEntry>| -> Result<String> {
        let entry = entry.map_err(Error::io("list", folder))?;
        Ok(entry.file_name().to_string_lossy().into_owned())
    };
    entries.map(name).collect()
}

fn refused(folder: &Path, got: &str) -> Error {
    Error::Argument {
        action: "write predictions",
        expected: "a folder that is empty, does not exist yet, or holds the first parts of the same predictions"
            .into(),
        got: format!("`{}`, {got}", folder.display()),
        hint: "name another folder with --out, or remove what is in this one".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_that_begin_a_folder_the_second_is_refused_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(PARTS_FILE);
        let of = |input: &str| {
            let mut of = Map::new();
            of.insert("input".into(), input.into());
            of
        };
        let _begun = begin(folder.path(), &file, of("one")).unwrap();
        let error = begin(folder.path(), &file, of("other")).map(drop).unwrap_err();
        assert!(error.to_string().contains("which another process is writing to"), "{error}");
        let opened = open_description(&file).unwrap().unwrap();
        let error = lock(folder.path(), opened).map(drop).unwrap_err();
        assert!(error.to_string().contains("which another process is writing to"), "{error}");
        let written = PartsDescription::read(&file).unwrap();
        assert_eq!(written.of["input"], "one");
    }
}

//! The folder of an export, which appears once everything in it is written and checked.

use std::{
    fs,
    path::{Path, PathBuf},
};

use frostbert_cache::durable::write_file;
use serde_json::json;
use tempfile::TempDir;

use crate::{
    error::{Error, Result},
    export::request::{ExportCheck, ExportRequest, ExportedFile, ExportedRun},
    prediction::saved_run::SavedRun,
    run_folder::program::PROGRAM,
};

/// The file that says what a folder was exported from, and how it was checked.
pub(crate) const EXPORT_FILE: &str = "export.json";

/// A folder that is being written, beside the place where it will be.
pub(crate) struct NewFolder {
    staging: TempDir,
    out: PathBuf,
}

impl NewFolder {
    /// Creates it; it is removed again unless it is finished.
    ///
    /// # Errors
    /// Returns an error if there is something at `out`, or if the folder around it cannot be written.
    pub(crate) fn create(out: &Path) -> Result<NewFolder> {
        if out.symlink_metadata().is_ok() {
            return Err(Error::Argument {
                action: "export the run",
                expected: "a new folder".into(),
                got: format!("`{}`, which exists", out.display()),
                hint: "remove it, or name another folder with --out".into(),
            });
        }
        let parent = match out.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        let staging = tempfile::Builder::new().prefix(".frostbert-export-").tempdir_in(parent);
        let staging = staging.map_err(Error::io("make a folder in", parent))?;
        fs::create_dir(staging.path().join("files"))
            .map_err(Error::io("create", staging.path()))?;
        Ok(NewFolder { staging, out: out.to_path_buf() })
    }

    /// Where its files are written.
    pub(crate) fn path(&self) -> PathBuf {
        self.staging.path().join("files")
    }

    /// Writes a file; `name` may lead into a subfolder, which is created.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        Ok(write_file(&self.place(name)?, content)?)
    }

    /// Copies a file.
    pub(crate) fn copy(&self, from: &Path, name: &str) -> Result<()> {
        let content = fs::read(from).map_err(Error::io("read", from))?;
        self.write(name, &content)
    }

    /// Returns the path of a file, whose subfolder exists.
    pub(crate) fn place(&self, name: &str) -> Result<PathBuf> {
        let path = self.path().join(name);
        let parent = path.parent().unwrap_or(&path);
        fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        Ok(path)
    }

    /// Writes export.json and moves the folder to its place.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written, or if there is something in its place now.
    pub(crate) fn finish(
        self,
        run: &SavedRun,
        request: &ExportRequest,
        check: ExportCheck,
        notes: Vec<String>,
    ) -> Result<ExportedRun> {
        let about = json!({
            "frostbert": PROGRAM,
            "kind": request.kind,
            "precision": request.precision,
            "layout": request.layout,
            "fused": request.fused,
            "run": run.folder.to_string_lossy(),
            "model": run.model_name(),
            "task": run.description.task,
            "head": run.description.kind,
            "check": check,
            "notes": notes,
        });
        let about = serde_json::to_string_pretty(&about).expect("plain values become JSON") + "\n";
        self.write(EXPORT_FILE, about.as_bytes())?;
        let files = files_below(&self.path())?;
        fs::rename(self.path(), &self.out).map_err(Error::io("write", &self.out))?;
        Ok(ExportedRun {
            out: self.out.clone(),
            checked_rows: check.rows,
            largest_difference: check.largest_difference,
            run: run.folder.clone(),
            kind: request.kind,
            folder: self.out.clone(),
            files,
            check,
            notes,
        })
    }
}

/// Lists the files below a folder, sorted by their paths in it.
fn files_below(folder: &Path) -> Result<Vec<ExportedFile>> {
    let mut files = Vec::new();
    let mut waiting = vec![folder.to_path_buf()];
    while let Some(next) = waiting.pop() {
        for entry in fs::read_dir(&next).map_err(Error::io("list", &next))? {
            let path = entry.map_err(Error::io("list", &next))?.path();
            if path.is_dir() {
                waiting.push(path);
                continue;
            }
            let name = path.strip_prefix(folder).unwrap_or(&path).to_string_lossy().into_owned();
            let bytes = fs::metadata(&path).map_err(Error::io("read", &path))?.len();
            files.push(ExportedFile { name, bytes });
        }
    }
    files.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(files)
}

//! The folder of an export, filled under a temporary name and renamed when complete, so that a partial export is never
//! mistaken for a complete one.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions, TryLockError},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    durable::sync_folder,
    error::{Error, Result},
};

/// The file that describes an export; every export has it.
pub const EXPORT: &str = "export.json";

/// The lock of an export in progress, removed when it is done.
const LOCK: &str = "export.lock";

/// Where an earlier export is moved when the new one takes its name; removed when the new one is done.
const REPLACED: &str = "export.replaced";

/// A file of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportFile {
    /// The name in the folder.
    pub name: String,
    /// The size in bytes.
    pub bytes: u64,
}

/// An export in progress. If it is dropped before [`StagedExport::commit`], nothing is left behind.
pub(super) struct StagedExport {
    target: PathBuf,
    aside: PathBuf,
    /// Held until the export is completed or abandoned.
    lock: Option<File>,
}

/// The part of [`EXPORT`] that is needed to replace an export.
#[derive(Deserialize)]
struct EarlierExport {
    format: String,
    files: Vec<ExportFile>,
}

impl StagedExport {
    /// Creates a temporary folder for an export that is to become `target`, which must be missing, empty, or an earlier
    /// export without added files.
    ///
    /// # Errors
    /// Returns [`Error::Export`] if `target` is something else or another process is exporting to it, or another error
    /// if the folder cannot be created.
    pub(super) fn new(target: &Path) -> Result<StagedExport> {
        require_free(target)?;
        let name = target.file_name().ok_or_else(|| Error::Export {
            folder: target.to_path_buf(),
            problem: "a new folder cannot have this name".into(),
            hint: "name a folder with --out".into(),
        })?;
        let beside = |suffix: &str| {
            let mut name = name.to_os_string();
            name.push(suffix);
            target.with_file_name(name)
        };
        let aside = beside(".partial");
        let parent = parent_of(target);
        fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        if aside.is_dir() {
            // It belongs to a killed export unless it is somebody else's; the lock of a running export is held.
            let present = names(&aside)?;
            if !present.is_empty() && !present.contains(LOCK) {
                return Err(Error::Export {
                    folder: target.to_path_buf(),
                    problem: format!(
                        "`{}` is in the way, and does not belong to an export",
                        aside.display()
                    ),
                    hint: "name another folder with --out".into(),
                });
            }
            drop(take_lock(&aside, target)?);
            fs::remove_dir_all(&aside).map_err(Error::io("remove", &aside))?;
        }
        fs::create_dir(&aside).map_err(Error::io("create", &aside))?;
        let lock = take_lock(&aside, target)?;
        Ok(StagedExport { target: target.to_path_buf(), aside, lock: Some(lock) })
    }

    /// Returns the folder to which files are written.
    pub(super) fn path(&self) -> &Path {
        &self.aside
    }

    /// Returns the files written so far, by name.
    ///
    /// # Errors
    /// Returns an error if they cannot be listed.
    pub(super) fn files(&self) -> Result<Vec<ExportFile>> {
        let mut files = Vec::new();
        for name in names(&self.aside)? {
            if name != LOCK {
                let path = self.aside.join(&name);
                let metadata = fs::metadata(&path).map_err(Error::io("read", &path))?;
                files.push(ExportFile { name, bytes: metadata.len() });
            }
        }
        Ok(files)
    }

    /// Syncs every file, writes [`EXPORT`], and renames the folder to its final name.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written or synced, or if something else has taken the name meanwhile.
    pub(super) fn commit(mut self, description: &impl Serialize) -> Result<()> {
        let json = serde_json::to_vec_pretty(description).expect("plain fields become JSON");
        let path = self.aside.join(EXPORT);
        fs::write(&path, json).map_err(Error::io("write", &path))?;
        for name in names(&self.aside)? {
            let path = self.aside.join(name);
            let synced = File::open(&path).and_then(|file| file.sync_all());
            synced.map_err(Error::io("sync", &path))?;
        }
        require_free(&self.target)?;
        let replaced = self.target.exists();
        if replaced {
            // Move it before removing it: a kill here leaves no export, but never half of one under its name.
            let place = self.aside.join(REPLACED);
            fs::rename(&self.target, &place).map_err(Error::io("rename", &self.target))?;
        }
        sync_folder(&self.aside)?;
        fs::rename(&self.aside, &self.target).map_err(Error::io("rename", &self.target))?;
        self.lock = None;
        sync_folder(parent_of(&self.target))?;
        // The export is complete by now; anything that a kill leaves here is removed by the next export to this name.
        if replaced {
            let place = self.target.join(REPLACED);
            fs::remove_dir_all(&place).map_err(Error::io("remove", &place))?;
        }
        let lock = self.target.join(LOCK);
        fs::remove_file(&lock).map_err(Error::io("remove", &lock))
    }
}

impl Drop for StagedExport {
    fn drop(&mut self) {
        if self.lock.take().is_some() {
            // On a full disk this makes room again; whatever cannot be removed now, the next export removes.
            let _ = fs::remove_dir_all(&self.aside);
        }
    }
}

/// Returns an error unless an export may use this name.
fn require_free(target: &Path) -> Result<()> {
    let refuse = |problem: String| Error::Export {
        folder: target.to_path_buf(),
        problem,
        hint: "name another folder with --out: only an earlier export is replaced".into(),
    };
    let metadata = match fs::metadata(target) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("read", target)(error)),
    };
    if !metadata.is_dir() {
        return Err(refuse("a file of this name is there".into()));
    }
    let present = names(target)?;
    if present.is_empty() {
        return Ok(());
    }
    let earlier = fs::read(target.join(EXPORT)).ok();
    let earlier = earlier.and_then(|json| serde_json::from_slice::<EarlierExport>(&json).ok());
    let Some(earlier) = earlier.filter(|earlier| !earlier.format.is_empty()) else {
        return Err(refuse("it is not empty, and does not hold an earlier export".into()));
    };
    let own: BTreeSet<&str> = earlier
        .files
        .iter()
        .map(|file| file.name.as_str())
        .chain([EXPORT, LOCK, REPLACED])
        .collect();
    match present.iter().find(|name| !own.contains(name.as_str())) {
        Some(strange) => {
            Err(refuse(format!("`{strange}` in it is not part of the earlier export")))
        }
        None => Ok(()),
    }
}

fn take_lock(aside: &Path, target: &Path) -> Result<File> {
    let path = aside.join(LOCK);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(Error::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Export {
            folder: target.to_path_buf(),
            problem: "another process is exporting to it".into(),
            hint: "wait until it has finished, or name another folder with --out".into(),
        }),
        Err(TryLockError::Error(error)) => Err(Error::io("lock", &path)(error)),
    }
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

fn names(folder: &Path) -> Result<BTreeSet<String>> {
    let names = fs::read_dir(folder).and_then(|entries| {
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    });
    names.map_err(Error::io("list", folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(staged: &StagedExport) -> serde_json::Value {
        serde_json::json!({ "format": "npy", "files": staged.files().unwrap() })
    }

    #[test]
    fn an_export_stands_whole_or_not_at_all_and_replaces_only_another() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("out");
        let staged = StagedExport::new(&target).unwrap();
        fs::write(staged.path().join("a.npy"), "a").unwrap();
        let error = StagedExport::new(&target).err().unwrap().to_string();
        assert!(error.contains("another process is exporting to it"), "{error}");
        drop(staged);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

        for content in ["one", "two"] {
            let staged = StagedExport::new(&target).unwrap();
            fs::write(staged.path().join("a.npy"), content).unwrap();
            let description = description(&staged);
            staged.commit(&description).unwrap();
            assert_eq!(fs::read_to_string(target.join("a.npy")).unwrap(), content);
            assert_eq!(names(&target).unwrap(), ["a.npy", EXPORT].map(String::from).into());
        }

        fs::write(target.join("mine.txt"), "mine").unwrap();
        let error = StagedExport::new(&target).err().unwrap().to_string();
        assert!(error.contains("`mine.txt`"), "{error}");
        fs::remove_file(target.join(EXPORT)).unwrap();
        let error = StagedExport::new(&target).err().unwrap().to_string();
        assert!(error.contains("not empty"), "{error}");
        assert_eq!(fs::read_to_string(target.join("mine.txt")).unwrap(), "mine");
    }

    #[test]
    fn what_a_killed_export_left_makes_way() {
        let folder = tempfile::tempdir().unwrap();
        let aside = folder.path().join("out.partial");
        fs::create_dir(&aside).unwrap();
        fs::write(aside.join("half.npy"), "half").unwrap();
        let target = folder.path().join("out");
        let error = StagedExport::new(&target).err().unwrap().to_string();
        assert!(error.contains("in the way"), "{error}");
        fs::write(aside.join(LOCK), "").unwrap();
        let staged = StagedExport::new(&target).unwrap();
        assert_eq!(staged.files().unwrap(), []);
    }
}

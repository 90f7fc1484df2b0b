//! The files of a shared folder on a disk that all machines see.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use frostbert_cache::durable::sync_folder;
use tempfile::NamedTempFile;

use crate::{
    distributed::files::{FetchedFile, SharedFile, SharedFiles, write_aside},
    error::{Error, Result},
};

/// A folder on a disk. Files are written beside the name that they are to have, synced, and linked or renamed to it.
#[derive(Debug)]
pub(crate) struct Disk {
    root: PathBuf,
}

impl Disk {
    pub(crate) fn new(root: &Path) -> Disk {
        Disk { root: root.to_path_buf() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Removes a file, and its folder if nothing else is in it.
    fn remove_one(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(Error::io("remove", path)(error));
        }
        let mut folders = path.ancestors().skip(1).take_while(|folder| *folder != self.root);
        // A folder that is not empty stays.
        let _ = folders.try_for_each(fs::remove_dir);
        Ok(())
    }
}

impl SharedFiles for Disk {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", path)(error)),
        }
    }

    fn create(&self, name: &str, content: &[u8]) -> Result<bool> {
        let path = self.path(name);
        let (aside, ()) = write_aside(folder_of(&path), &path, |file| file.write_all(content))?;
        aside.as_file().sync_all().map_err(Error::io("sync", &path))?;
        match aside.persist_noclobber(&path) {
            Ok(_) => {
                sync_folder(folder_of(&path))?;
                Ok(true)
            }
            Err(failed) if failed.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(failed) => Err(Error::io("create", path)(failed.error)),
        }
    }

    fn aside(&self, folder: &str) -> PathBuf {
        self.path(folder)
    }

    fn store(&self, aside: NamedTempFile, name: &str) -> Result<()> {
        let path = self.path(name);
        let written = aside.as_file().metadata().map_err(Error::io("read", aside.path()))?;
        // `vacuum` goes by the age of what no receipt names yet.
        let renew = || File::open(&path)?.set_modified(SystemTime::now());
        if fs::metadata(&path).is_ok_and(|there| there.len() == written.len()) && renew().is_ok() {
            return Ok(());
        }
        aside.as_file().sync_all().map_err(Error::io("sync", &path))?;
        aside.persist(&path).map_err(|failed| Error::io("create", &path)(failed.error))?;
        Ok(sync_folder(folder_of(&path))?)
    }

    fn fetch(&self, name: &str) -> Result<FetchedFile> {
        Ok(FetchedFile::in_place(self.path(name)))
    }

    fn list(&self, folder: &str) -> Result<Vec<SharedFile>> {
        let path = self.path(folder);
        let entries = match fs::read_dir(&path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("list", path)(error)),
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::io("list", &path))?;
            let name = format!("{folder}/{}", entry.file_name().to_string_lossy());
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                // Another process has just finished or removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::io("read", entry.path())(error)),
            };
            if metadata.is_dir() {
                files.extend(self.list(&name)?);
            } else {
                let modified = metadata.modified().map_err(Error::io("read", entry.path()))?;
                files.push(SharedFile { name, bytes: metadata.len(), modified });
            }
        }
        files.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(files)
    }

    fn folders(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("list", &self.root)(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::io("list", &self.root))?;
            if entry.path().is_dir() {
                names.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn remove(&self, names: &[String]) -> Result<()> {
        names.iter().try_for_each(|name| self.remove_one(name))
    }

    fn keeps_objects(&self) -> bool {
        false
    }

    fn n_parallel(&self) -> usize {
        1
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."))
}

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
    distributed::files::{ASIDE, FetchedFile, SharedFile, SharedFiles, write_aside},
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

    /// Removes a file that is older than this, and returns whether it is gone. It is looked at under another name: a
    /// worker that stores it again from then on finds none, and one that did so before has renewed it.
    fn remove_one_older(&self, name: &str, limit: SystemTime) -> Result<bool> {
        let path = self.path(name);
        let Some(file) = path.file_name() else { return Ok(false) };
        let aside = path.with_file_name(format!("{ASIDE}{}", file.to_string_lossy()));
        match fs::rename(&path, &aside) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(Error::io("rename", path)(error)),
        }
        // A network file system asks the server as it opens a file, and not whenever it is asked about one.
        let modified = File::open(&aside).and_then(|file| file.metadata()?.modified());
        if modified.map_err(Error::io("read", &aside))? > limit {
            // If there is another one by now, it has the same bytes.
            fs::rename(&aside, &path).map_err(Error::io("rename", &aside))?;
            return Ok(false);
        }
        self.remove_path(&aside)?;
        Ok(true)
    }

    /// Removes a file, and its folder if nothing else is in it.
    fn remove_path(&self, path: &Path) -> Result<()> {
        if let Err(error) = fs::remove_file(path)
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
        // `vacuum` goes by the age of what no receipt names yet. If it has taken this file aside before it was renewed,
        // there is none now.
        let renew = || {
            File::open(&path)?.set_modified(SystemTime::now())?;
            File::open(&path)
        };
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
        names.iter().try_for_each(|name| self.remove_path(&self.path(name)))
    }

    fn remove_older(&self, names: &[String], limit: SystemTime) -> Result<Vec<bool>> {
        names.iter().map(|name| self.remove_one_older(name, limit)).collect()
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

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;

    const BYTES: &[u8] = b"the same bytes";

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn make_old(disk: &Disk, name: &str) {
        File::open(disk.path(name)).unwrap().set_modified(SystemTime::now() - 2 * DAY).unwrap();
    }

    fn store(disk: &Disk, name: &str) {
        let (folder, path) = (disk.aside("objects"), disk.path(name));
        let (aside, ()) = write_aside(&folder, &path, |file| file.write_all(BYTES)).unwrap();
        disk.store(aside, name).unwrap();
    }

    #[test]
    fn a_file_that_was_stored_again_after_it_was_listed_stays() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(folder.path());
        let names = ["objects/again", "objects/gone", "objects/old"].map(String::from);
        for name in &names {
            store(&disk, name);
            make_old(&disk, name);
        }
        store(&disk, &names[0]);
        disk.remove(&names[1..2]).unwrap();
        let limit = SystemTime::now() - DAY;
        assert_eq!(disk.remove_older(&names, limit).unwrap(), [false, true, true]);
        let left: Vec<String> =
            disk.list("objects").unwrap().into_iter().map(|file| file.name).collect();
        assert_eq!(left, names[..1]);
        assert_eq!(disk.read(&names[0]).unwrap().unwrap(), BYTES);
    }

    #[test]
    fn what_is_stored_while_it_is_removed_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(folder.path());
        let name = String::from("objects/file");
        let limit = SystemTime::now() - DAY;
        store(&disk, &name);
        for round in 0..100 {
            make_old(&disk, &name);
            thread::scope(|scope| {
                scope.spawn(|| store(&disk, &name));
                scope.spawn(|| disk.remove_older(std::slice::from_ref(&name), limit).unwrap());
            });
            assert_eq!(disk.read(&name).unwrap().as_deref(), Some(BYTES), "round {round}");
        }
    }
}

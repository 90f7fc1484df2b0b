//! The files of a shared folder on a disk that all machines see.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    time::SystemTime,
};

use frostbert_cache::durable::{is_at, sync_folder};
use tempfile::NamedTempFile;

use crate::{
    distributed::files::{
        FetchedFile, SharedFile, SharedFiles, VACUUM_ASIDE, taken_from, write_aside,
    },
    error::{Error, Result},
};

/// The file that a vacuum locks while it removes files.
const LOCK: &str = "vacuum.lock";

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

    /// Keeps other vacuums out while the returned file is open: what one has taken aside, another could remove.
    fn lock(&self) -> Result<File> {
        let path = self.path(LOCK);
        loop {
            // NFS grants this lock only for a file that is open for writing.
            let opened = File::options().write(true).create(true).truncate(false).open(&path);
            let lock = opened.map_err(Error::io("open", &path))?;
            match lock.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::Argument {
                        action: "vacuum",
                        expected: "a folder from which nobody else removes files".into(),
                        got: format!("`{}`, where another vacuum runs", self.root.display()),
                        hint: "run the command again when the other one has finished".into(),
                    });
                }
                Err(TryLockError::Error(error)) => return Err(Error::io("lock", path)(error)),
            }
            if is_at(&lock, &path)? {
                return Ok(lock);
            }
        }
    }

    /// Removes a file that is older than this, and returns whether it is gone. It is looked at under another name: a
    /// worker that stores it again from then on finds none, and one that did so before has renewed it. That holds on a
    /// local disk and on NFS 4; a worker on NFS 3 need not look the name up again as it opens the file.
    fn remove_one_older(&self, name: &str, limit: SystemTime) -> Result<bool> {
        let path = self.path(name);
        if let Some(taken_from) = taken_from(name) {
            return put_back(&path, &self.path(&taken_from)).map(|()| false);
        }
        let Some(file) = path.file_name() else { return Ok(false) };
        let aside = path.with_file_name(format!("{VACUUM_ASIDE}{}", file.to_string_lossy()));
        match fs::rename(&path, &aside) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(Error::io("rename", path)(error)),
        }
        match self.remove_if_older(&aside, limit) {
            Ok(true) => Ok(true),
            kept => {
                // If there is another one by now, it has the same bytes.
                let back = fs::rename(&aside, &path).map_err(Error::io("rename", &aside));
                kept.and_then(|removed| back.map(|()| removed))
            }
        }
    }

    /// Removes a file that is older than this, and returns whether it was.
    fn remove_if_older(&self, path: &Path, limit: SystemTime) -> Result<bool> {
        // A network file system asks the server as it opens a file, and not whenever it is asked about one. Not every
        // file that may be removed may be opened.
        let metadata = File::open(path).and_then(|file| file.metadata());
        let metadata = metadata.or_else(|_| fs::metadata(path));
        let modified =
            metadata.and_then(|there| there.modified()).map_err(Error::io("read", path))?;
        if modified > limit {
            return Ok(false);
        }
        self.remove_path(path)?;
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
        // It may have been written long ago.
        let renewed = aside.as_file().set_modified(SystemTime::now());
        renewed.map_err(Error::io("set the time of", aside.path()))?;
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
        let lock = self.lock()?;
        let removed = names.iter().map(|name| self.remove_one_older(name, limit)).collect();
        // Before it is unlocked, so that nobody else's is removed.
        let _ = fs::remove_file(self.path(LOCK));
        drop(lock);
        removed
    }

    fn keeps_objects(&self) -> bool {
        false
    }

    fn n_parallel(&self) -> usize {
        1
    }
}

/// Gives a file its name back that an interrupted vacuum took aside. A receipt may name it by now, and there may be
/// a newer file of that name, so it counts as new.
fn put_back(aside: &Path, path: &Path) -> Result<()> {
    // Only the owner may do that.
    let _ = File::open(aside).and_then(|file| file.set_modified(SystemTime::now()));
    match fs::rename(aside, path) {
        // The vacuum was not interrupted, and has ended since it was listed.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        renamed => renamed.map_err(Error::io("rename", aside)),
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, thread, time::Duration};

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

    /// The names of the files of the folder `objects`.
    fn listed(disk: &Disk) -> Vec<String> {
        disk.list("objects").unwrap().into_iter().map(|file| file.name).collect()
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
        assert_eq!(listed(&disk), names[..1]);
        assert_eq!(disk.read(&names[0]).unwrap().unwrap(), BYTES);
    }

    /// A worker stores a file while so many vacuums remove it; a hundred times.
    fn store_while_vacuums_run(n_vacuums: usize) {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(folder.path());
        let name = String::from("objects/file");
        let limit = SystemTime::now() - DAY;
        store(&disk, &name);
        for round in 0..100 {
            make_old(&disk, &name);
            thread::scope(|scope| {
                for _ in 0..n_vacuums {
                    scope.spawn(|| {
                        if let Err(refused) = disk.remove_older(std::slice::from_ref(&name), limit)
                        {
                            // All but one of those that meet are refused.
                            let is_one_of_several = n_vacuums > 1;
                            assert!(is_one_of_several, "{refused}");
                            assert!(refused.to_string().contains("another vacuum"), "{refused}");
                        }
                    });
                }
                scope.spawn(|| store(&disk, &name));
            });
            assert_eq!(disk.read(&name).unwrap().as_deref(), Some(BYTES), "round {round}");
        }
    }

    #[test]
    fn what_is_stored_while_it_is_removed_is_there() {
        store_while_vacuums_run(1);
    }

    #[test]
    fn vacuums_that_run_at_once_and_workers_lose_nothing() {
        store_while_vacuums_run(3);
    }

    #[test]
    fn a_second_vacuum_is_refused_while_one_removes_files() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(folder.path());
        let name = [String::from("objects/file")];
        store(&disk, &name[0]);
        make_old(&disk, &name[0]);
        let limit = SystemTime::now() - DAY;
        let lock = disk.lock().unwrap();
        let refused = disk.remove_older(&name, limit).unwrap_err().to_string();
        assert!(refused.contains("another vacuum"), "{refused}");
        assert_eq!(listed(&disk), name);
        drop(lock);
        assert_eq!(disk.remove_older(&name, limit).unwrap(), [true]);
        // Neither the lock nor the folder is left.
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_an_interrupted_vacuum_took_aside_gets_its_name_back_and_is_new() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(folder.path());
        let aside = [format!("objects/{VACUUM_ASIDE}file")];
        store(&disk, &aside[0]);
        make_old(&disk, &aside[0]);
        let limit = SystemTime::now() - DAY;
        assert_eq!(disk.remove_older(&aside, limit).unwrap(), [false]);
        assert_eq!(listed(&disk), ["objects/file"]);
        assert!(disk.list("objects").unwrap()[0].modified > limit);
        // One that is no longer there is left to the next vacuum.
        assert_eq!(disk.remove_older(&aside, limit).unwrap(), [false]);
    }

    #[test]
    fn what_cannot_be_removed_gets_its_name_back() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(folder.path());
        let later = SystemTime::now() + DAY;
        fs::create_dir_all(disk.path("objects/folder")).unwrap();
        store(&disk, "objects/folder/file");
        assert!(disk.remove_older(&["objects/folder".into()], later).is_err());
        assert_eq!(listed(&disk), ["objects/folder/file"]);
        // Its age cannot be read.
        let link = disk.path("objects/link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert!(disk.remove_older(&["objects/link".into()], later).is_err());
        assert!(link.is_symlink());
    }

    #[test]
    fn what_cannot_be_opened_has_an_age_nevertheless() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(folder.path());
        let name = String::from("socket");
        // Unlike a file without permissions, root cannot open it either.
        let _socket = UnixListener::bind(disk.path(&name)).unwrap();
        let gone = |limit| disk.remove_older(std::slice::from_ref(&name), limit).unwrap();
        assert_eq!(gone(SystemTime::now() - DAY), [false]);
        assert!(disk.path(&name).exists());
        assert_eq!(gone(SystemTime::now() + DAY), [true]);
        assert!(!disk.path(&name).exists());
    }

    #[test]
    fn a_file_is_as_old_as_its_storing() {
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::new(folder.path());
        let (aside, ()) =
            write_aside(folder.path(), folder.path(), |file| file.write_all(BYTES)).unwrap();
        aside.as_file().set_modified(SystemTime::now() - 2 * DAY).unwrap();
        disk.store(aside, "file").unwrap();
        let limit = SystemTime::now() - DAY;
        assert!(fs::metadata(disk.path("file")).unwrap().modified().unwrap() > limit);
    }
}

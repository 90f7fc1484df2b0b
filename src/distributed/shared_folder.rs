//! The folder that the plan, the workers and the commit share. Its files are written whole and never changed, so any
//! number of processes on any number of machines can write to it without a lock.

use std::{
    fs::{self, File, Permissions},
    io::{self, BufWriter, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use frostbert_cache::{durable::sync_folder, fingerprint::Digest};
use tempfile::{Builder, NamedTempFile};

use crate::error::{Error, Result};

/// The plan.
pub(crate) const PLAN_FILE: &str = "plan.json";

/// The folder of the texts of tasks, each file under the hash of its bytes.
pub(crate) const TEXTS: &str = "texts";

/// The folder of the files of shards, each under the hash of its bytes.
pub(crate) const OBJECTS: &str = "objects";

/// The folder of the receipts of tasks, in a folder for each plan.
pub(crate) const RECEIPTS: &str = "receipts";

/// The name prefix of what is being written.
pub(crate) const ASIDE: &str = "tmp-";

/// A folder on a disk that all machines see.
#[derive(Clone, Debug)]
pub(crate) struct SharedFolder {
    root: PathBuf,
}

/// A file of the shared folder.
pub(crate) struct SharedFile {
    /// Its path below the shared folder, with `/` between the parts.
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) modified: SystemTime,
}

impl SharedFolder {
    /// Takes a folder, which may not exist yet.
    ///
    /// # Errors
    /// Returns an error for an address of another kind.
    pub(crate) fn new(root: &Path) -> Result<SharedFolder> {
        let shown = root.to_string_lossy();
        if shown.contains("://") {
            return Err(Error::Argument {
                action: "share the work",
                expected: "a folder that all machines see".into(),
                got: format!("`{shown}`"),
                hint: "object stores are not supported: name a folder on a disk that the machines share, such as NFS \
                       or Lustre"
                    .into(),
            });
        }
        Ok(SharedFolder { root: root.to_path_buf() })
    }

    /// Creates the folder, and checks that of two files with the same name only the first is created.
    ///
    /// # Errors
    /// Returns an error if the disk cannot keep that promise, on which everything rests.
    pub(crate) fn probe(&self) -> Result<()> {
        let name = format!("{ASIDE}probe-{}", std::process::id());
        let path = self.path(&name);
        let outcome = self.create(&name, b"first").and_then(|_| self.create(&name, b"second"));
        let kept = fs::read(&path);
        let _ = fs::remove_file(&path);
        if outcome? || kept.map_err(Error::io("read", &path))? != b"first" {
            return Err(Error::Argument {
                action: "share the work",
                expected: "a disk on which a file is created only if there is none of its name"
                    .into(),
                got: format!("`{}`, where a second file replaced the first", self.root.display()),
                hint: "name a folder on another disk".into(),
            });
        }
        Ok(())
    }

    /// Returns the folder itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Returns where a file of this name is, or would be.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Reads a file; returns `None` if there is none.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", path)(error)),
        }
    }

    /// Creates a file unless there is one of its name; returns whether it was created.
    pub(crate) fn create(&self, name: &str, content: &[u8]) -> Result<bool> {
        let path = self.path(name);
        let (aside, ()) = write_aside(&path, |file| file.write_all(content))?;
        match aside.persist_noclobber(&path) {
            Ok(_) => {
                sync_folder(folder_of(&path))?;
                Ok(true)
            }
            Err(failed) if failed.error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(failed) => Err(Error::io("create", path)(failed.error)),
        }
    }

    /// Writes a file to one of the folders, under the hash of what `write` puts into it; returns the hash. A file of
    /// the same hash has the same bytes, so it does not matter which of two stays.
    pub(crate) fn put(
        &self,
        folder: &str,
        write: impl FnOnce(&mut HashedWriter<'_>) -> io::Result<()>,
    ) -> Result<Digest> {
        let place = self.path(folder).join("file");
        let (aside, digest) = write_aside(&place, |file| {
            let mut hashed = HashedWriter { file, hasher: blake3::Hasher::new() };
            write(&mut hashed)?;
            Ok(Digest::from(hashed.hasher.finalize()))
        })?;
        let path = self.path(folder).join(digest.to_string());
        let written = aside.as_file().metadata().map_err(Error::io("read", aside.path()))?;
        if fs::metadata(&path).is_ok_and(|there| there.len() == written.len()) {
            return Ok(digest);
        }
        aside.persist(&path).map_err(|failed| Error::io("create", &path)(failed.error))?;
        sync_folder(folder_of(&path))?;
        Ok(digest)
    }

    /// Lists the files of caches that are being put together, or whose commit was killed.
    pub(crate) fn list_unfinished(&self) -> Result<Vec<SharedFile>> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::io("list", &self.root)(error)),
        };
        let mut files = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::io("list", &self.root))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(ASIDE) && entry.path().is_dir() {
                files.extend(self.list(&name)?);
            }
        }
        Ok(files)
    }

    /// Lists the files of a folder and of those below it, sorted by name; none if there is no such folder.
    pub(crate) fn list(&self, folder: &str) -> Result<Vec<SharedFile>> {
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
}

/// A file that is hashed while it is written.
pub(crate) struct HashedWriter<'a> {
    file: &'a mut dyn Write,
    hasher: blake3::Hasher,
}

impl Write for HashedWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n_written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..n_written]);
        Ok(n_written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Writes a file beside the one that it is to become, and syncs it. Dropping the file removes it.
fn write_aside<T>(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<T>,
) -> Result<(NamedTempFile, T)> {
    let folder = folder_of(path);
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    // Other users of the machines may read it, as far as the umask allows.
    let made = Builder::new()
        .prefix(ASIDE)
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)
        .map_err(Error::io("create a file in", folder))?;
    // The file below the named one, whose errors name its temporary path.
    let mut file = BufWriter::new(made.as_file());
    let written = write(&mut file).and_then(|written| file.flush().map(|()| written));
    let written = written.map_err(Error::io("write", path))?;
    drop(file);
    made.as_file().sync_all().map_err(Error::io("sync", path))?;
    Ok((made, written))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_files_with_one_name_the_first_stays_whole() {
        let folder = tempfile::tempdir().unwrap();
        let shared = SharedFolder::new(&folder.path().join("new")).unwrap();
        shared.probe().unwrap();
        assert_eq!(fs::read_dir(shared.root()).unwrap().count(), 0, "the probe left something");
        assert!(shared.create("receipts/one/0.json", b"first").unwrap());
        assert!(!shared.create("receipts/one/0.json", b"second").unwrap());
        assert_eq!(shared.read("receipts/one/0.json").unwrap().unwrap(), b"first");
        assert_eq!(shared.read("receipts/one/1.json").unwrap(), None);
        let names: Vec<String> =
            shared.list("receipts").unwrap().into_iter().map(|file| file.name).collect();
        assert_eq!(names, ["receipts/one/0.json"]);
    }

    #[test]
    fn of_many_writers_of_one_name_exactly_one_creates_it() {
        let folder = tempfile::tempdir().unwrap();
        let shared = SharedFolder::new(folder.path()).unwrap();
        let created: usize = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..8)
                .map(|writer| {
                    let shared = &shared;
                    scope.spawn(move || {
                        let content = vec![writer; 100_000];
                        usize::from(shared.create("one", &content).unwrap())
                    })
                })
                .collect();
            writers.into_iter().map(|writer| writer.join().unwrap()).sum()
        });
        assert_eq!(created, 1);
        let content = shared.read("one").unwrap().unwrap();
        assert!(content.len() == 100_000 && content.iter().all(|byte| *byte == content[0]));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn content_is_stored_once_under_its_hash() {
        let folder = tempfile::tempdir().unwrap();
        let shared = SharedFolder::new(folder.path()).unwrap();
        let put = || shared.put(OBJECTS, |file| file.write_all(b"some states")).unwrap();
        let digest = put();
        assert_eq!(digest, Digest::from(blake3::hash(b"some states")));
        assert_eq!(put(), digest);
        let names: Vec<String> =
            shared.list(OBJECTS).unwrap().into_iter().map(|file| file.name).collect();
        assert_eq!(names, [format!("objects/{digest}")]);
        // What fails halfway leaves nothing.
        let failed = shared.put(OBJECTS, |file| {
            file.write_all(b"half")?;
            Err(io::Error::other("the source is gone"))
        });
        assert!(failed.unwrap_err().to_string().contains("the source is gone"));
        assert_eq!(shared.list(OBJECTS).unwrap().len(), 1);
    }

    #[test]
    fn an_address_of_an_object_store_is_refused() {
        let error = SharedFolder::new(Path::new("s3://bucket/cache")).unwrap_err();
        assert!(error.to_string().contains("s3://bucket/cache"), "{error}");
    }
}

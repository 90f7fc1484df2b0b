//! What the files of a shared folder can do, wherever they are: they are created or stored whole, and never changed.

use std::{
    fmt,
    fs::{self, File, Permissions},
    io::{self, BufWriter, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use tempfile::{Builder, NamedTempFile, TempPath};

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

/// The name prefix of the folders of caches that are being put together.
pub(crate) const COMMIT_ASIDE: &str = "tmp-commit-";

/// The name prefix of what a vacuum looks at before it removes it.
pub(crate) const VACUUM_ASIDE: &str = "tmp-vacuum-";

/// The files of a shared folder. Their names are paths below it, with `/` between the parts.
pub(crate) trait SharedFiles: fmt::Debug + Send + Sync {
    /// Reads a file; returns `None` if there is none.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>>;

    /// Creates a file unless there is one of its name; returns whether it was created. Of any number of writers, one
    /// creates it.
    fn create(&self, name: &str, content: &[u8]) -> Result<bool>;

    /// Returns a folder on this machine in which a file is written before it is stored in a folder of this name.
    fn aside(&self, folder: &str) -> PathBuf;

    /// Stores a file under a name that stands for its bytes, so that it does not matter which of two stays.
    fn store(&self, aside: NamedTempFile, name: &str) -> Result<()>;

    /// Makes a file available on this machine.
    fn fetch(&self, name: &str) -> Result<FetchedFile>;

    /// Lists the files of a folder and of those below it, sorted by name; none if there is no such folder.
    fn list(&self, folder: &str) -> Result<Vec<SharedFile>>;

    /// Returns the names of the folders, sorted.
    fn folders(&self) -> Result<Vec<String>>;

    /// Removes files, and folders in which nothing is left. It is no error if they are gone already.
    fn remove(&self, names: &[String]) -> Result<()>;

    /// Removes files that are older than this, and returns for each whether it is gone. A file that was stored again
    /// since it was listed stays if that can be seen as it is removed; a bucket removes objects by their names alone.
    /// What an interrupted removal took aside gets its name back instead, and counts as new.
    fn remove_older(&self, names: &[String], _limit: SystemTime) -> Result<Vec<bool>> {
        self.remove(names)?;
        Ok(vec![true; names.len()])
    }

    /// Returns whether a cache is a manifest alone, and its files stay in [`OBJECTS`]. Otherwise it is a folder with
    /// files of its own.
    fn keeps_objects(&self) -> bool;

    /// Returns how many files are best read at a time.
    fn n_parallel(&self) -> usize;
}

/// A file of the shared folder.
pub(crate) struct SharedFile {
    /// Its path below the shared folder, with `/` between the parts.
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) modified: SystemTime,
}

/// A file of the shared folder as it is on this machine; a copy is removed when this is dropped.
pub(crate) struct FetchedFile {
    path: PathBuf,
    copy: Option<TempPath>,
}

impl FetchedFile {
    /// Takes a file that is on a disk of this machine anyway.
    pub(crate) fn in_place(path: PathBuf) -> FetchedFile {
        FetchedFile { path, copy: None }
    }

    /// Takes a copy.
    #[cfg(feature = "remote")]
    pub(crate) fn copied(copy: TempPath) -> FetchedFile {
        FetchedFile { path: copy.to_path_buf(), copy: Some(copy) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Moves a copy to a place on its disk, or copies a file that is not one.
    pub(crate) fn place(self, to: &Path) -> Result<()> {
        match self.copy {
            Some(copy) => match copy.persist(to) {
                Ok(()) => Ok(()),
                // Another disk.
                Err(failed) => copy_file(&failed.path, to),
            },
            None => copy_file(&self.path, to),
        }
    }
}

fn copy_file(from: &Path, to: &Path) -> Result<()> {
    let mut source = File::open(from).map_err(Error::io("read", from))?;
    let mut target = File::create(to).map_err(Error::io("write", to))?;
    io::copy(&mut source, &mut target).map_err(Error::io("write", to)).map(drop)
}

/// Writes a file in a folder of this machine, and names `place` if that fails. Dropping the file removes it.
pub(crate) fn write_aside<T>(
    folder: &Path,
    place: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> io::Result<T>,
) -> Result<(NamedTempFile, T)> {
    let mut tries_left = 3;
    let made = loop {
        // Other users of the machines may read it, as far as the umask allows.
        let mut file = Builder::new();
        file.prefix(ASIDE).permissions(Permissions::from_mode(0o666));
        match fs::create_dir_all(folder).and_then(|()| file.tempfile_in(folder)) {
            // `vacuum` removes a folder in which nothing is left. While the folder is created, it is first there and then
            // gone, which is the second error.
            Err(error)
                if tries_left > 0
                    && [io::ErrorKind::NotFound, io::ErrorKind::AlreadyExists]
                        .contains(&error.kind()) =>
            {
                tries_left -= 1;
            }
            made => break made.map_err(Error::io("create a file in", folder))?,
        }
    };
    // The file below the named one, whose errors name its temporary path.
    let mut file = BufWriter::new(made.as_file());
    let written = write(&mut file).and_then(|written| file.flush().map(|()| written));
    let written = written.map_err(Error::io("write", place))?;
    drop(file);
    Ok((made, written))
}

/// Returns the name that a file had before a vacuum took it aside; `None` for any other file.
pub(crate) fn taken_from(name: &str) -> Option<String> {
    let (folder, file) = name.rsplit_once('/')?;
    Some(format!("{folder}/{}", file.strip_prefix(VACUUM_ASIDE)?))
}

/// Builds the error for a file of a shared folder that is not what it should be.
pub(crate) fn damage(path: &Path, expected: String, got: String, hint: &str) -> Error {
    let (path, hint) = (path.to_path_buf(), hint.into());
    frostbert_cache::Error::Damage { path, expected, got, hint }.into()
}

/// Builds the error for what is in the place of a cache.
pub(crate) fn in_the_way(folder: &Path, what: &str) -> Error {
    let hint = "move it out of the folder in which it lies, or let the extraction that began it finish, and run the \
                command again";
    damage(folder, "room for the cache".into(), what.into(), hint)
}

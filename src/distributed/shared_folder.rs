//! The folder that the plan, the workers and the commit share. Its files are written whole and never changed, so any
//! number of processes on any number of machines can write to it without a lock.

use std::{
    io::{self, Write},
    panic::resume_unwind,
    path::{Path, PathBuf},
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::SystemTime,
};

use frostbert_cache::{
    fingerprint::Digest,
    manifest::{FileEntry, MANIFEST, Manifest, ShardEntry},
};

use crate::{
    distributed::{
        disk::Disk,
        files::{ASIDE, COMMIT_ASIDE, FetchedFile, OBJECTS, SharedFile, SharedFiles, write_aside},
    },
    error::{Error, Result},
};

/// A folder that all machines see: on a disk, or in a bucket of an object store.
#[derive(Clone, Debug)]
pub struct SharedFolder {
    root: PathBuf,
    files: Arc<dyn SharedFiles>,
}

/// What this machine needs for a folder in an object store; one on a disk needs none of it.
#[derive(Clone, Default)]
pub struct StoreAccess {
    /// The variables `AWS_*` of the environment, which name the server, the region and the credentials.
    pub variables: Vec<(String, String)>,
    /// A folder on this machine's own disk, for files on their way.
    pub scratch: PathBuf,
}

impl SharedFolder {
    /// Takes a folder, which may not exist yet, or an address `s3://BUCKET/PREFIX`.
    ///
    /// # Errors
    /// Returns an error for an address of another kind, if this program was built without the feature `remote`, or if
    /// the variables do not make sense.
    pub fn open(address: &Path, access: &StoreAccess) -> Result<SharedFolder> {
        let shown = address.to_string_lossy();
        let files = match shown.split_once("://") {
            None => Arc::new(Disk::new(address)) as Arc<dyn SharedFiles>,
            Some(("s3", _)) => in_a_bucket(&shown, access)?,
            Some(_) => {
                return Err(refused(
                    &shown,
                    "stores other than S3 and those that speak its protocol are not supported",
                ));
            }
        };
        Ok(SharedFolder { root: address.to_path_buf(), files })
    }

    /// Checks that of two files with the same name only the first is created. On a disk, this creates the folder.
    ///
    /// # Errors
    /// Returns an error if the disk or the store cannot keep that promise, on which everything rests.
    pub(crate) fn probe(&self) -> Result<()> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let name = format!("{ASIDE}probe-{}-{}", process::id(), now.as_nanos());
        let outcome = self.create(&name, b"first").and_then(|_| self.create(&name, b"second"));
        let kept = self.read(&name);
        let _ = self.files.remove(&[name]);
        if outcome? || kept?.is_none_or(|kept| kept != b"first") {
            return Err(Error::Argument {
                action: "share the work",
                expected: "a place where a file is created only if there is none of its name".into(),
                got: format!("`{}`, where a second file replaced the first", self.root.display()),
                hint: "name a folder on another disk, or a store that knows conditional puts (If-None-Match)".into(),
            });
        }
        Ok(())
    }

    /// Returns the folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns where a file of this name is, or would be; in a bucket this is its address.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Returns a folder on this machine for what is on its way to the shared one.
    pub(crate) fn aside(&self) -> PathBuf {
        self.files.aside("")
    }

    /// Reads a file; returns `None` if there is none.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.files.read(name)
    }

    /// Creates a file unless there is one of its name; returns whether it was created.
    pub(crate) fn create(&self, name: &str, content: &[u8]) -> Result<bool> {
        self.files.create(name, content)
    }

    /// Writes a file to one of the folders, under the hash of what `write` puts into it; returns the hash. A file of
    /// the same hash has the same bytes, so it does not matter which of two stays.
    pub(crate) fn put(
        &self,
        folder: &str,
        write: impl FnOnce(&mut HashedWriter<'_>) -> io::Result<()>,
    ) -> Result<Digest> {
        let here = self.files.aside(folder);
        let (aside, digest) = write_aside(&here, &here.join("file"), |file| {
            let mut hashed = HashedWriter { file, hasher: blake3::Hasher::new() };
            write(&mut hashed)?;
            Ok(Digest::from(hashed.hasher.finalize()))
        })?;
        self.files.store(aside, &format!("{folder}/{digest}"))?;
        Ok(digest)
    }

    /// Makes a file available on this machine.
    pub(crate) fn fetch(&self, name: &str) -> Result<FetchedFile> {
        self.files.fetch(name)
    }

    /// Lists the files of a folder and of those below it, sorted by name; none if there is no such folder.
    pub(crate) fn list(&self, folder: &str) -> Result<Vec<SharedFile>> {
        self.files.list(folder)
    }

    /// Lists the files of caches that a commit has begun to put together.
    pub(crate) fn list_unfinished(&self) -> Result<Vec<SharedFile>> {
        let mut files = Vec::new();
        for folder in self.files.folders()? {
            if folder.starts_with(COMMIT_ASIDE) {
                files.extend(self.list(&folder)?);
            }
        }
        Ok(files)
    }

    /// Removes files, and folders in which nothing is left.
    pub(crate) fn remove(&self, names: &[String]) -> Result<()> {
        self.files.remove(names)
    }

    /// Removes files that are older than this, as far as can be told also now, and returns for each whether it is gone.
    pub(crate) fn remove_older(&self, names: &[String], limit: SystemTime) -> Result<Vec<bool>> {
        self.files.remove_older(names, limit)
    }

    /// Returns whether the files of caches stay among the stored objects.
    pub(crate) fn keeps_objects(&self) -> bool {
        self.files.keeps_objects()
    }

    /// Returns the manifest of a cache; `None` if there is no such cache.
    ///
    /// # Errors
    /// Returns an error if it is damaged, or cannot be read.
    pub(crate) fn manifest(&self, fingerprint: &str) -> Result<Option<Manifest>> {
        let Some(json) = self.read(&format!("{fingerprint}/{MANIFEST}"))? else {
            return Ok(None);
        };
        Ok(Some(Manifest::from_json(&self.path(fingerprint), &json)?))
    }

    /// Returns the manifests of all caches.
    ///
    /// # Errors
    /// Returns an error if one of them is damaged, or cannot be read.
    pub(crate) fn manifests(&self) -> Result<Vec<Manifest>> {
        let mut manifests = Vec::new();
        for folder in self.files.folders()? {
            // A cache that was moved aside has the name of no fingerprint.
            let manifest = self.manifest(&folder)?;
            manifests.extend(manifest.filter(|manifest| manifest.fingerprint == folder));
        }
        Ok(manifests)
    }

    /// Returns the name of a file of a cache.
    pub(crate) fn cached(&self, fingerprint: &str, shard: &ShardEntry, file: &FileEntry) -> String {
        if self.keeps_objects() {
            format!("{OBJECTS}/{}", file.blake3)
        } else {
            format!("{fingerprint}/{}/{}", shard.name, file.name)
        }
    }

    /// Does something for each number, several at a time where that is faster, and returns the results in order.
    ///
    /// # Errors
    /// Returns the first error in the order of the numbers that were begun; no more are begun after one.
    pub(crate) fn for_each<T: Send>(
        &self,
        n: usize,
        one: impl Fn(usize) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let n_threads = self.files.n_parallel().min(n);
        if n_threads <= 1 {
            return (0..n).map(one).collect();
        }
        let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
        let work = || {
            let mut done = Vec::new();
            while !failed.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= n {
                    break;
                }
                let result = one(number);
                failed.fetch_or(result.is_err(), Ordering::Relaxed);
                done.push((number, result));
            }
            done
        };
        let mut done: Vec<(usize, Result<T>)> = thread::scope(|scope| {
            let threads: Vec<_> = (0..n_threads).map(|_| scope.spawn(work)).collect();
            let joined = threads.into_iter().map(|thread| thread.join());
            joined.flat_map(|done| done.unwrap_or_else(|panic| resume_unwind(panic))).collect()
        });
        done.sort_unstable_by_key(|(number, _)| *number);
        done.into_iter().map(|(_, result)| result).collect()
    }
}

#[cfg(feature = "remote")]
fn in_a_bucket(address: &str, access: &StoreAccess) -> Result<Arc<dyn SharedFiles>> {
    let StoreAccess { variables, scratch } = access;
    Ok(Arc::new(crate::distributed::bucket::Bucket::open(address, variables, scratch)?))
}

#[cfg(not(feature = "remote"))]
fn in_a_bucket(address: &str, _access: &StoreAccess) -> Result<Arc<dyn SharedFiles>> {
    Err(refused(
        address,
        "this program was built without object stores: build it with `cargo build --release --features remote`",
    ))
}

/// Builds the error for an address that cannot be used.
fn refused(address: &str, why: &str) -> Error {
    Error::Argument {
        action: "share the work",
        expected: "a folder that all machines see".into(),
        got: format!("`{address}`"),
        hint: format!(
            "{why}; or name a folder on a disk that the machines share, such as NFS or Lustre"
        ),
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn on_disk(folder: &Path) -> SharedFolder {
        SharedFolder::open(folder, &StoreAccess::default()).unwrap()
    }

    #[test]
    fn of_two_files_with_one_name_the_first_stays_whole() {
        let folder = tempfile::tempdir().unwrap();
        let shared = on_disk(&folder.path().join("new"));
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
        let shared = on_disk(folder.path());
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
        let shared = on_disk(folder.path());
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
    fn several_at_a_time_give_the_results_in_order_and_the_first_error() {
        #[derive(Debug)]
        struct Several(Disk);

        impl SharedFiles for Several {
            fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
                self.0.read(name)
            }
            fn create(&self, name: &str, content: &[u8]) -> Result<bool> {
                self.0.create(name, content)
            }
            fn aside(&self, folder: &str) -> PathBuf {
                self.0.aside(folder)
            }
            fn store(&self, aside: tempfile::NamedTempFile, name: &str) -> Result<()> {
                self.0.store(aside, name)
            }
            fn fetch(&self, name: &str) -> Result<FetchedFile> {
                self.0.fetch(name)
            }
            fn list(&self, folder: &str) -> Result<Vec<SharedFile>> {
                self.0.list(folder)
            }
            fn folders(&self) -> Result<Vec<String>> {
                self.0.folders()
            }
            fn remove(&self, names: &[String]) -> Result<()> {
                self.0.remove(names)
            }
            fn keeps_objects(&self) -> bool {
                true
            }
            fn n_parallel(&self) -> usize {
                7
            }
        }

        let files = Arc::new(Several(Disk::new(Path::new("nowhere"))));
        let shared = SharedFolder { root: "nowhere".into(), files };
        let squares = shared.for_each(1000, |number| Ok(number * number)).unwrap();
        assert_eq!(squares, (0..1000).map(|number| number * number).collect::<Vec<_>>());
        assert_eq!(shared.for_each(0, Ok).unwrap(), [0usize; 0]);
        let failed = shared.for_each(1000, |number| match number {
            5 => Err(Error::Consent { what: "five".into() }),
            _ => Ok(number),
        });
        assert_eq!(failed.unwrap_err().to_string(), "five");
    }

    #[test]
    fn an_address_of_an_unknown_store_is_refused() {
        let open = |address: &str| SharedFolder::open(Path::new(address), &StoreAccess::default());
        let error = open("gs://bucket/cache").unwrap_err();
        assert!(error.to_string().contains("gs://bucket/cache"), "{error}");
        assert!(error.hint().unwrap().contains("not supported"), "{error}");
    }

    #[cfg(not(feature = "remote"))]
    #[test]
    fn a_program_without_object_stores_says_how_to_build_one_that_has_them() {
        let address = Path::new("s3://bucket/cache");
        let error = SharedFolder::open(address, &StoreAccess::default()).unwrap_err();
        assert!(error.to_string().contains("s3://bucket/cache"), "{error}");
        assert!(error.hint().unwrap().contains("--features remote"), "{error}");
    }
}

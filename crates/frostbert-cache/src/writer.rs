//! The single writer of a cache: locks it, commits shards, and never changes what is committed.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
};

use crate::{
    durable::{is_at, through_no_link},
    error::{Error, Result},
    fingerprint::FingerprintInputs,
    in_use::lock_within,
    index::DocumentIndex,
    leftovers::remove_leftovers,
    manifest::{Manifest, refuse_orphans},
    names::LOCK_FILE,
    plan::PlannedShard,
    progress::Progress,
    staging::{ShardPlace, WrittenShard},
    state_file::StateMetadata,
    states::Dtype,
};

/// The shape of the states that a cache holds.
#[derive(Clone, Copy, Debug)]
pub struct CacheShape {
    /// The number of layers of the encoder.
    pub model_layers: usize,
    /// Width of a state.
    pub hidden: usize,
    /// The type of the stored values.
    pub dtype: Dtype,
}

/// A cache that is open for writing; no other process can write to it at the same time.
pub struct CacheWriter {
    folder: PathBuf,
    manifest: Manifest,
    /// The content of the cache when it was opened.
    index: DocumentIndex,
    _lock: WriterLock,
}

impl CacheWriter {
    /// Opens (or creates) the cache of these inputs under `cache_dir`.
    ///
    /// Takes the writer's lock, for which it waits as long as the progress has patience, and removes what an earlier writer
    /// left unfinished.
    ///
    /// # Errors
    /// [`Error::Busy`] when another process still writes; when the cache is damaged or the disk refuses.
    pub fn open(
        cache_dir: &Path,
        inputs: &FingerprintInputs,
        shape: CacheShape,
        progress: &dyn Progress,
    ) -> Result<CacheWriter> {
        let folder = cache_dir.join(inputs.fingerprint());
        let lock = loop {
            fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
            if let Some(lock) = try_lock(&folder, progress)? {
                break lock;
            }
        };
        let manifest = match Manifest::read(&folder)? {
            Some(mut manifest) => {
                manifest.require(&folder, inputs)?;
                // A repair cannot tell how many layers the model has, but a writer knows the model.
                manifest.model_layers = shape.model_layers;
                manifest
            }
            None => {
                refuse_orphans(&folder)?;
                Manifest::empty(inputs, shape.model_layers, shape.hidden, shape.dtype)
            }
        };
        remove_leftovers(&folder, &manifest)?;
        Ok(CacheWriter {
            index: DocumentIndex::read(&folder, &manifest)?,
            folder,
            manifest,
            _lock: lock,
        })
    }

    /// Returns the cache folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the manifest of what is committed.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns the locations of the documents when the cache was opened.
    pub fn index(&self) -> &DocumentIndex {
        &self.index
    }

    /// Returns the place to write a planned shard to, for use by any thread.
    ///
    /// To add states to a shard, get its place only after everything planned for that shard before is committed.
    ///
    /// # Panics
    /// Panics if the plan adds states to a shard that does not exist.
    pub fn place(&self, planned: &PlannedShard) -> ShardPlace {
        let mut entries = self.manifest.shards.iter();
        let entry = entries.find(|entry| planned.added && entry.name == planned.name);
        assert_eq!(planned.added, entry.is_some(), "a plan adds states to a shard that is there");
        ShardPlace {
            folder: self.folder.clone(),
            name: planned.name.clone(),
            metadata: StateMetadata::of(&self.manifest),
            entry: entry.cloned(),
        }
    }

    /// Commits a written shard: moves it into place and then lists it in the manifest. Returns its size in bytes.
    ///
    /// # Errors
    /// Returns an error if a file cannot be moved or written; everything committed before is unaffected.
    pub fn commit(&mut self, written: WrittenShard) -> Result<u64> {
        let bytes = written.files.iter().map(|file| file.bytes).sum();
        if written.added {
            self.add_states(written)?
        } else {
            self.add_shard(written)?
        }
        self.manifest.write(&self.folder)?;
        Ok(bytes)
    }

    fn add_shard(&mut self, written: WrittenShard) -> Result<()> {
        let documents = &written.documents;
        for document in 0..documents.len() {
            if self.index.truncated(&documents.key(document)).is_none() {
                self.manifest.documents += 1;
                self.manifest.tokens += documents.n_tokens_of(document);
                self.manifest.truncated += u64::from(documents.truncated(document));
            }
        }
        let entry = written.rename(&self.folder)?;
        self.manifest.shards.push(entry);
        Ok(())
    }

    fn add_states(&mut self, written: WrittenShard) -> Result<()> {
        let target = self.folder.join(&written.name);
        written.move_into(&target)?;
        let mut entries = self.manifest.shards.iter_mut();
        let entry = entries.find(|entry| entry.name == written.name);
        let entry = entry.expect("its place was that of a shard that is there");
        entry.files.extend(written.files);
        entry.origins.extend(written.origins);
        Ok(())
    }
}

/// The exclusive right to write to a cache, until it is dropped.
pub(crate) struct WriterLock(File);

impl Drop for WriterLock {
    fn drop(&mut self) {
        // The lock ends with the process anyway; an empty file shows that nobody holds it.
        let _ = self.0.set_len(0);
    }
}

/// Takes the writer's lock of a cache folder, for which it waits as long as the progress has patience.
///
/// # Errors
/// [`Error::Busy`] when another process still holds it; [`Error::Damage`] where the lock is a link, or holds something
/// else than the number of a process; when the folder is not there.
pub(crate) fn take_lock(folder: &Path, progress: &dyn Progress) -> Result<WriterLock> {
    loop {
        if let Some(lock) = try_lock(folder, progress)? {
            return Ok(lock);
        }
    }
}

/// As [`take_lock`]; `None` where whoever held the lock has removed the cache, and the file of the lock with it.
fn try_lock(folder: &Path, progress: &dyn Progress) -> Result<Option<WriterLock>> {
    let path = folder.join(LOCK_FILE);
    let mut file = open_lock(&path)?;
    let waiting = || {
        let holder = holder(&path);
        progress
            .note(&format!("cache `{}` is being written by {holder}: waiting", folder.display()));
    };
    match lock_within(&file, progress.patience(), waiting) {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let holder = holder(&path);
            return Err(Error::Busy { cache: folder.to_path_buf(), holder });
        }
        Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
    }
    if !is_at(&file, &path)? {
        return Ok(None);
    }
    file.set_len(0).map_err(Error::io("write", &path))?;
    file.rewind().map_err(Error::io("write", &path))?;
    writeln!(file, "{}", std::process::id()).map_err(Error::io("write", &path))?;
    Ok(Some(WriterLock(file)))
}

/// Who holds a lock. The number is a courtesy: without it the message still says what is wrong.
fn holder(path: &Path) -> String {
    let mut pid = String::new();
    let _ = open_lock(path).map(|mut file| file.read_to_string(&mut pid));
    match pid.trim() {
        "" => "another process".into(),
        pid => format!("process {pid}"),
    }
}

/// The maximum size of a lock file; a process id and a line feed are shorter.
const MOST_LOCK_BYTES: u64 = 32;

/// Opens a lock file without following links, because its content is overwritten.
fn open_lock(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    through_no_link(&mut options);
    let no_lock = |got: &str| Error::Damage {
        path: path.to_path_buf(),
        expected: "a lock file".into(),
        got: got.into(),
        hint:
            "check what it is, and remove it if nothing needs it: the next writer creates a new one"
                .into(),
    };
    let file = match options.open(path) {
        Err(_) if path.is_symlink() => return Err(no_lock("a link")),
        other => other.map_err(Error::io("open", path))?,
    };
    let metadata = file.metadata().map_err(Error::io("read", path))?;
    if metadata.is_file() && metadata.len() <= MOST_LOCK_BYTES {
        Ok(file)
    } else {
        Err(no_lock("something else"))
    }
}

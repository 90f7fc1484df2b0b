//! The one writer of a cache: locks it, commits shards, never touches what is committed.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
};

use super::{
    file::damage,
    index::DocumentIndex,
    manifest::{FileEntry, Manifest, Origin, ShardEntry, refuse_orphans, sync_folder},
    plan::PlannedShard,
    shard::{OpenShard, ShardLayout, StateRows},
    state_file::{self, StateMetadata},
    tables,
};
use crate::{
    error::{Error, Result},
    fingerprint::FingerprintInputs,
    states::{Dtype, StateKind},
};

/// The shape of the states that a cache holds.
#[derive(Clone, Copy, Debug)]
pub struct CacheShape {
    /// Layers of the encoder.
    pub model_layers: usize,
    /// Width of a state.
    pub hidden: usize,
    /// Type of a stored value.
    pub dtype: Dtype,
}

/// A cache that is open for writing; no other process can write to it meanwhile.
pub struct CacheWriter {
    folder: PathBuf,
    manifest: Manifest,
    /// What the cache held when it was opened.
    index: DocumentIndex,
    _lock: WriterLock,
}

impl CacheWriter {
    /// Opens (or creates) the cache of these inputs under `cache_dir`.
    ///
    /// Takes the writer's lock, and removes what an earlier writer left unfinished.
    ///
    /// # Errors
    /// [`Error::CacheBusy`] when another process writes; when the cache is damaged or the disk refuses.
    pub fn open(
        cache_dir: &Path,
        inputs: &FingerprintInputs,
        shape: CacheShape,
    ) -> Result<CacheWriter> {
        let folder = cache_dir.join(inputs.fingerprint());
        fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        let lock = take_lock(&folder)?;
        let manifest = match Manifest::read(&folder)? {
            Some(manifest) => {
                manifest.require(&folder, inputs)?;
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

    /// The cache folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What is committed.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Where the documents lay when the cache was opened.
    pub fn index(&self) -> &DocumentIndex {
        &self.index
    }

    /// Commits what was planned: files written aside, checksummed and synced, renamed, then named in the manifest.
    /// Returns its bytes.
    ///
    /// # Errors
    /// When the disk refuses; everything committed before stands.
    ///
    /// # Panics
    /// When the shard lacks rows.
    pub fn commit(
        &mut self,
        planned: &PlannedShard,
        shard: OpenShard,
        origin: Origin,
    ) -> Result<u64> {
        assert!(shard.is_complete(), "a shard is committed whole");
        let (layout, states) = shard.into_parts();
        let bytes = if planned.added {
            self.add_states(&planned.name, layout, states, origin)?
        } else {
            self.add_shard(&planned.name, layout, states, origin)?
        };
        self.manifest.write(&self.folder)?;
        Ok(bytes)
    }

    fn add_shard(
        &mut self,
        name: &str,
        layout: ShardLayout,
        states: Vec<StateRows>,
        origin: Origin,
    ) -> Result<u64> {
        let documents = &layout.documents;
        let (mut n_documents, mut n_tokens, mut n_truncated) = (0, 0, 0);
        for document in 0..documents.len() {
            if self.index.truncated(&documents.key(document)).is_none() {
                n_documents += 1;
                n_tokens += documents.n_tokens_of(document);
                n_truncated += u64::from(documents.truncated(document));
            }
        }
        let entry = write_shard(
            &self.folder,
            &self.manifest,
            name,
            layout,
            states.into_iter().map(Ok),
            vec![origin],
        )?;
        let bytes = entry.bytes();
        self.manifest.documents += n_documents;
        self.manifest.tokens += n_tokens;
        self.manifest.truncated += n_truncated;
        self.manifest.shards.push(entry);
        Ok(bytes)
    }

    fn add_states(
        &mut self,
        name: &str,
        layout: ShardLayout,
        states: Vec<StateRows>,
        origin: Origin,
    ) -> Result<u64> {
        let number = self
            .manifest
            .shards
            .iter()
            .position(|entry| entry.name == name);
        let number = number.expect("a plan adds states to a shard that is there");
        let entry = &self.manifest.shards[number];
        let target = self.folder.join(name);
        if tables::read_documents(&self.folder, entry)? != layout.documents {
            return Err(damage(
                &target.join(tables::DOCUMENTS),
                "the windows that the tokenizer gives now",
                "others".into(),
            ));
        }
        let aside = Aside::new(&self.folder, name)?;
        let files = write_states(
            &aside.path,
            &self.manifest,
            &layout,
            states.into_iter().map(Ok),
            &entry.files,
        )?;
        for file in &files {
            let path = target.join(&file.name);
            fs::rename(aside.path.join(&file.name), &path).map_err(Error::io("rename", &path))?;
        }
        sync_folder(&target)?;
        let entry = &mut self.manifest.shards[number];
        let bytes = files.iter().map(|file| file.bytes).sum();
        entry.files.extend(files);
        entry.origins.push(origin);
        Ok(bytes)
    }
}

/// Writes a new shard aside and renames it; the manifest does not name it yet.
///
/// # Errors
/// When the disk refuses; nothing is left then.
pub(super) fn write_shard(
    folder: &Path,
    manifest: &Manifest,
    name: &str,
    layout: ShardLayout,
    states: impl Iterator<Item = Result<StateRows>>,
    origins: Vec<Origin>,
) -> Result<ShardEntry> {
    let documents = &layout.documents;
    let aside = Aside::new(folder, name)?;
    let mut files = vec![tables::write_documents(&aside.path, documents)?];
    files.extend(write_states(&aside.path, manifest, &layout, states, &[])?);
    sync_folder(&aside.path)?;
    let target = folder.join(name);
    fs::rename(&aside.path, &target).map_err(Error::io("rename", &target))?;
    aside.renamed();
    sync_folder(folder)?;
    Ok(ShardEntry {
        name: name.into(),
        documents: documents.len() as u64,
        windows: documents.n_windows() as u64,
        tokens: documents.n_tokens(),
        origins,
        files,
    })
}

/// Writes states, one after the other, and the tables of tokens and words that they need and that `present` lacks.
fn write_states(
    aside: &Path,
    manifest: &Manifest,
    layout: &ShardLayout,
    states: impl Iterator<Item = Result<StateRows>>,
    present: &[FileEntry],
) -> Result<Vec<FileEntry>> {
    let metadata = StateMetadata {
        fingerprint: manifest.fingerprint.clone(),
        hidden: manifest.hidden,
        dtype: manifest.dtype,
    };
    let mut files: Vec<FileEntry> = Vec::new();
    for rows in states {
        let rows = rows?;
        let mut known = present.iter().chain(&files);
        match rows.state.kind {
            StateKind::Tokens if known.all(|file| file.name != tables::TOKENS) => {
                files.push(tables::write_tokens(aside, layout)?);
            }
            StateKind::Words if known.all(|file| file.name != tables::WORDS) => {
                files.push(tables::write_words(aside, layout)?);
            }
            _ => {}
        }
        files.push(state_file::write_state(aside, rows, &metadata)?);
    }
    Ok(files)
}

/// A temporary folder in a cache, removed with what is left in it unless it was renamed.
struct Aside {
    path: PathBuf,
}

impl Aside {
    fn new(folder: &Path, name: &str) -> Result<Aside> {
        let path = folder.join(format!("tmp-{name}"));
        fs::create_dir(&path).map_err(Error::io("create", &path))?;
        Ok(Aside { path })
    }

    fn renamed(mut self) {
        self.path = PathBuf::new();
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if self.path != Path::new("") {
            // On a full disk this makes room again; what cannot be removed now, the next writer removes.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// The right to write to a cache, until it is dropped.
pub(super) struct WriterLock(File);

impl Drop for WriterLock {
    fn drop(&mut self) {
        // The lock goes with the process anyway; an empty file says that nobody holds it.
        let _ = self.0.set_len(0);
    }
}

/// Takes the writer's lock of a cache folder.
///
/// # Errors
/// [`Error::CacheBusy`] when another process holds it.
pub(super) fn take_lock(folder: &Path) -> Result<WriterLock> {
    let path = folder.join("writer.lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(Error::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // The number is a courtesy: without it the error still says what is wrong.
            let _ = file.read_to_string(&mut pid);
            let holder = match pid.trim() {
                "" => "another process".into(),
                pid => format!("process {pid}"),
            };
            return Err(Error::CacheBusy {
                cache: folder.to_path_buf(),
                holder,
            });
        }
        Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
    }
    file.set_len(0).map_err(Error::io("write", &path))?;
    file.rewind().map_err(Error::io("write", &path))?;
    writeln!(file, "{}", std::process::id()).map_err(Error::io("write", &path))?;
    Ok(WriterLock(file))
}

/// Removes what a killed writer left: temporary files, and what no manifest names.
pub(super) fn remove_leftovers(folder: &Path, manifest: &Manifest) -> Result<()> {
    for path in list(folder)? {
        let name = file_name(&path);
        let entry = manifest.shards.iter().find(|shard| shard.name == name);
        if let Some(entry) = entry {
            for file in list(&path)? {
                let name = file_name(&file);
                if !entry.files.iter().any(|known| known.name == name) {
                    fs::remove_file(&file).map_err(Error::io("remove", &file))?;
                }
            }
        } else if name.starts_with("tmp-") || name.starts_with("shard-") {
            let removed = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            removed.map_err(Error::io("remove", &path))?;
        }
    }
    Ok(())
}

fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(Error::io("list", folder))
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

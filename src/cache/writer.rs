//! The one writer of a cache: locks it, commits shards, never touches what is committed.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
};

use super::{
    manifest::{Manifest, ShardEntry, sync_folder},
    reader,
    schema::{self, StateMetadata},
    shard::{OpenShard, ShardOrigin, entry_bytes, shard_name},
};
use crate::{
    error::{Error, Result},
    fingerprint::{FingerprintInputs, Key},
    states::{Dtype, StateId},
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
    wanted: Vec<StateId>,
    documents: HashMap<Key, Presence>,
    lock: File,
}

/// States that can be asked for at a time: a bit each.
pub const MAX_STATES: usize = 128;

/// What the cache holds of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Presence {
    /// Bit `i` is set where the `i`-th wanted state is not there.
    lacking: u128,
    /// Whether its end was cut off.
    pub truncated: bool,
}

impl Presence {
    /// Whether every wanted state is there.
    pub fn is_complete(self) -> bool {
        self.lacking == 0
    }
}

impl CacheWriter {
    /// Opens (or creates) the cache of these inputs under `cache_dir`, and looks up which documents have all `states`.
    ///
    /// Takes the writer's lock, and removes what an earlier writer left unfinished.
    ///
    /// # Errors
    /// [`Error::CacheBusy`] when another process writes; when the cache is damaged or the disk refuses.
    pub fn open(
        cache_dir: &Path,
        inputs: &FingerprintInputs,
        shape: CacheShape,
        states: &[StateId],
    ) -> Result<CacheWriter> {
        let fingerprint = inputs.fingerprint();
        let folder = cache_dir.join(&fingerprint);
        fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
        let lock = take_lock(&folder)?;
        let manifest = match Manifest::read(&folder)? {
            Some(manifest) => {
                manifest.require(&folder, inputs)?;
                manifest
            }
            None => Manifest {
                fingerprint,
                inputs: inputs.clone(),
                model_layers: shape.model_layers,
                hidden: shape.hidden,
                dtype: shape.dtype,
                documents: 0,
                tokens: 0,
                truncated: 0,
                shards: Vec::new(),
            },
        };
        remove_leftovers(&folder, &manifest)?;

        assert!(
            states.len() <= MAX_STATES,
            "the caller checks how many states are asked for"
        );
        let mut documents: HashMap<Key, Presence> = HashMap::new();
        for entry in &manifest.shards {
            let held = bits_of(states, &entry.states);
            for row in reader::read_documents(&folder, entry)? {
                let absent = Presence {
                    lacking: all_bits(states),
                    truncated: row.truncated,
                };
                documents.entry(row.key).or_insert(absent).lacking &= !held;
            }
        }
        let wanted = states.to_vec();
        Ok(CacheWriter {
            folder,
            manifest,
            wanted,
            documents,
            lock,
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

    /// The states that this writer was opened for.
    pub fn wanted(&self) -> &[StateId] {
        &self.wanted
    }

    /// What the cache holds of a document, if anything.
    pub fn presence(&self, key: &Key) -> Option<Presence> {
        self.documents.get(key).copied()
    }

    /// The wanted states that at least one of these documents lacks, in their order.
    pub fn lacking<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> Vec<StateId> {
        let all = all_bits(&self.wanted);
        let lacking = keys
            .map(|key| {
                self.documents
                    .get(key)
                    .map_or(all, |presence| presence.lacking)
            })
            .fold(0, |union, bits| union | bits);
        let states = self.wanted.iter().enumerate();
        states
            .filter(|(bit, _)| lacking >> bit & 1 == 1)
            .map(|(_, state)| *state)
            .collect()
    }

    /// Commits a shard: files written aside, checksummed and synced, the folder renamed, then named in the manifest.
    /// Returns its bytes.
    ///
    /// # Errors
    /// When the disk refuses; everything committed before stands.
    ///
    /// # Panics
    /// When the shard lacks rows.
    pub fn commit(&mut self, shard: OpenShard, origin: &ShardOrigin) -> Result<u64> {
        assert!(shard.is_complete(), "a shard is committed whole");
        let name = shard_name(self.manifest.shards.len());
        let (documents, states) = shard.into_parts();

        let aside = self.folder.join(format!("tmp-{name}"));
        fs::create_dir(&aside).map_err(Error::io("create", &aside))?;
        let metadata = StateMetadata {
            fingerprint: self.manifest.fingerprint.clone(),
            hidden: self.manifest.hidden,
            dtype: self.manifest.dtype,
        };
        let mut files = vec![schema::write_documents(&aside, &documents)?];
        let mut state_ids = Vec::with_capacity(states.len());
        for rows in states {
            state_ids.push(rows.state);
            files.push(schema::write_state(
                &aside, rows.state, rows.bytes, &metadata,
            )?);
        }
        sync_folder(&aside)?;
        let target = self.folder.join(&name);
        fs::rename(&aside, &target).map_err(Error::io("rename", &target))?;
        sync_folder(&self.folder)?;

        let entry = ShardEntry {
            name,
            documents: documents.len() as u64,
            tokens: documents
                .iter()
                .map(|document| u64::from(document.n_tokens))
                .sum(),
            states: state_ids,
            device: origin.device.clone(),
            onnxruntime: origin.onnxruntime.clone(),
            batch_tokens: origin.batch_tokens,
            files,
        };
        let bytes = entry_bytes(&entry);
        let held = bits_of(&self.wanted, &entry.states);
        for document in &documents {
            let known = self.documents.entry(document.key).or_insert_with(|| {
                self.manifest.documents += 1;
                self.manifest.tokens += u64::from(document.n_tokens);
                self.manifest.truncated += u64::from(document.truncated);
                Presence {
                    lacking: all_bits(&self.wanted),
                    truncated: document.truncated,
                }
            });
            known.lacking &= !held;
        }
        self.manifest.shards.push(entry);
        self.manifest.write(&self.folder)?;
        Ok(bytes)
    }
}

impl Drop for CacheWriter {
    fn drop(&mut self) {
        // The lock goes with the process anyway; an empty file says that nobody holds it.
        let _ = self.lock.set_len(0);
    }
}

/// A bit for each wanted state.
fn all_bits(wanted: &[StateId]) -> u128 {
    bits_of(wanted, wanted)
}

/// The bits of those wanted states that are among `held`.
fn bits_of(wanted: &[StateId], held: &[StateId]) -> u128 {
    let bits = wanted
        .iter()
        .enumerate()
        .filter(|(_, state)| held.contains(state));
    bits.fold(0, |bits, (bit, _)| bits | 1u128 << bit)
}

fn take_lock(folder: &Path) -> Result<File> {
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
    Ok(file)
}

/// Removes what a killed writer left: temporary files, and shards that no manifest names.
fn remove_leftovers(folder: &Path, manifest: &Manifest) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let path = entry.map_err(Error::io("list", folder))?.path();
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let unnamed_shard =
            name.starts_with("shard-") && !manifest.shards.iter().any(|shard| shard.name == name);
        if !name.starts_with("tmp-") && !unnamed_shard {
            continue;
        }
        let removed = if path.is_dir() {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.map_err(Error::io("remove", &path))?;
    }
    Ok(())
}

//! Fetches the caches of a shared folder to one of this machine: file by file, each checked, so that they are mapped
//! and read like any other.

use std::{
    collections::HashSet,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use frostbert_cache::{
    about::{ABOUT_FILE, About, note_use},
    durable::sync_folder,
    fingerprint::{FingerprintInputs, hash_file},
    manifest::{FileEntry, Manifest, ShardEntry, caches_in},
    progress::Progress,
    prune::{PruneLimits, Pruned, prune},
    wording::{counted, path_shown, paths_shown},
};
use serde::Serialize;

use crate::{
    distributed::{
        commit::{OTHER_CACHE, have_same_files},
        files::{ASIDE, damage, in_the_way},
        shared_folder::SharedFolder,
    },
    error::{Error, Result},
    extraction::extract::explain_miss_among,
};

/// The outcome of a pull.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct PullReport {
    /// The caches of the shared folder that were asked for, as they are on this machine now.
    pub caches: Vec<PulledCache>,
    /// The caches that were removed to make room.
    #[serde(serialize_with = "paths_shown")]
    pub removed: Vec<PathBuf>,
}

/// A cache of the shared folder.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct PulledCache {
    /// Its folder on this machine.
    #[serde(serialize_with = "path_shown")]
    pub cache: PathBuf,
    /// Its fingerprint.
    pub fingerprint: String,
    /// Number of shards.
    pub shards: usize,
    /// Number of distinct documents.
    pub documents: u64,
    /// Size of the shards in bytes.
    pub bytes: u64,
    /// Bytes of the files that were fetched now; the others were there.
    pub fetched: u64,
    /// Whether the cache was there already.
    pub existed: bool,
}

/// The name prefix of the folders of caches that are being put together.
const UNFINISHED: &str = "tmp-pull-";

/// Returns the folder in which files are put that are on their way to a folder of caches.
pub fn pull_scratch(folder: &Path) -> PathBuf {
    folder.join(format!("{ASIDE}fetched"))
}

/// Fetches all caches of a shared folder to a folder of caches, unless they are there. If a limit is given, the least
/// recently used of the other caches there are removed until all together are within it. Another process that does the
/// same is waited for. A pull that was killed goes on with the files that are missing.
///
/// # Errors
/// Returns an error if there is no cache, a file that was fetched is not the one that the manifest names, the limit
/// cannot be kept, or a file cannot be written.
pub fn pull(
    shared: &SharedFolder,
    folder: &Path,
    max_bytes: Option<u64>,
    progress: &dyn Progress,
) -> Result<PullReport> {
    let manifests = shared.manifests()?;
    if manifests.is_empty() {
        return Err(nothing_committed(shared));
    }
    pull_these(shared, &manifests, true, (folder, max_bytes), progress)
}

/// The same for the caches that a pipeline reads alone: of each list, those that are there. If there are several, their
/// rows decide which of them is read. No other manifest is read.
///
/// # Errors
/// Returns the errors of [`pull`], also if there is no cache of a list.
pub fn pull_to_read(
    shared: &SharedFolder,
    wanted: &[Vec<FingerprintInputs>],
    folder: &Path,
    max_bytes: Option<u64>,
    progress: &dyn Progress,
) -> Result<PullReport> {
    let mut manifests: Vec<Manifest> = Vec::new();
    for tried in wanted {
        let mut found = Vec::new();
        for inputs in tried {
            let fingerprint = inputs.fingerprint();
            if let Some(manifest) = shared.manifest(&fingerprint)? {
                manifest.require(&shared.path(&fingerprint), inputs)?;
                found.push(manifest);
            }
        }
        if let Some(inputs) = tried.last().filter(|_| found.is_empty()) {
            return Err(not_committed(shared, inputs));
        }
        manifests.extend(found);
    }
    pull_these(shared, &manifests, false, (folder, max_bytes), progress)
}

fn nothing_committed(shared: &SharedFolder) -> Error {
    let lacks = "a cache: nothing is committed here".into();
    let hint = "run `frostbert commit` with this folder first".into();
    let cache = shared.root().to_path_buf();
    frostbert_cache::Error::Miss { cache, lacks, hint }.into()
}

/// Builds the error for a cache that a pipeline reads and that is not in the shared folder.
fn not_committed(shared: &SharedFolder, inputs: &FingerprintInputs) -> Error {
    // The others are for a hint only, so it does not matter if one of them is damaged.
    let others = shared.manifests().unwrap_or_default();
    let Some(explanation) = explain_miss_among(&others, inputs) else {
        return nothing_committed(shared);
    };
    frostbert_cache::Error::Miss {
        cache: shared.path(&inputs.fingerprint()),
        lacks: "everything: nothing was committed with these settings".into(),
        hint: format!(
            "run `frostbert plan` with this pipeline first, then its workers and `frostbert commit` ({explanation})"
        ),
    }
    .into()
}

/// Fetches the caches of these manifests, which are all of the shared folder or some.
fn pull_these(
    shared: &SharedFolder,
    manifests: &[Manifest],
    are_all: bool,
    (folder, max_bytes): (&Path, Option<u64>),
    progress: &dyn Progress,
) -> Result<PullReport> {
    fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    let _lock = lock(folder, progress)?;
    let _ = fs::remove_dir_all(pull_scratch(folder));
    // Another pipeline's pull may go on with what it left, unless there is a limit: it counts for nothing there.
    if are_all || max_bytes.is_some() {
        remove_leftovers(folder, manifests)?;
    }
    let removed = match max_bytes {
        Some(max_bytes) => make_room(folder, manifests, max_bytes)?,
        None => Vec::new(),
    };
    let scratch = pull_scratch(folder);
    fs::create_dir_all(&scratch).map_err(Error::io("create", &scratch))?;
    let caches = manifests.iter().map(|manifest| pull_one(shared, folder, manifest, progress));
    let caches = caches.collect::<Result<Vec<PulledCache>>>();
    let _ = fs::remove_dir_all(&scratch);
    Ok(PullReport { caches: caches?, removed })
}

/// Returns the folder in which a cache is put together.
fn unfinished(folder: &Path, fingerprint: &str) -> PathBuf {
    folder.join(format!("{UNFINISHED}{fingerprint}"))
}

/// Removes what pulls left that were killed, unless it belongs to one of these caches.
fn remove_leftovers(folder: &Path, wanted: &[Manifest]) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let path = entry.map_err(Error::io("list", folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(fingerprint) = name.strip_prefix(UNFINISHED) else { continue };
        if !wanted.iter().any(|manifest| manifest.fingerprint == fingerprint) {
            fs::remove_dir_all(&path).map_err(Error::io("remove", path))?;
        }
    }
    Ok(())
}

/// Removes the files of a cache that is being put together which its manifest does not name: it may have been begun with
/// another one.
fn remove_unnamed(aside: &Path, manifest: &Manifest) -> Result<()> {
    let mut named: HashSet<PathBuf> = HashSet::new();
    for shard in &manifest.shards {
        let own = aside.join(&shard.name);
        named.extend(shard.files.iter().map(|file| own.join(&file.name)));
        named.insert(own);
    }
    let list = |folder: &Path| -> Result<Vec<PathBuf>> {
        let entries = fs::read_dir(folder).map_err(Error::io("list", folder))?;
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        paths.collect::<io::Result<_>>().map_err(Error::io("list", folder))
    };
    for path in list(aside)? {
        if !named.contains(&path) {
            remove(&path)?;
            continue;
        }
        for file in list(&path)?.into_iter().filter(|file| !named.contains(file)) {
            remove(&file)?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.map_err(Error::io("remove", path))
}

/// Waits for other processes that fetch to the same folder, for as long as the returned file is open.
fn lock(folder: &Path, progress: &dyn Progress) -> Result<File> {
    let lock = File::open(folder).map_err(Error::io("open", folder))?;
    match lock.try_lock() {
        Ok(()) => return Ok(lock),
        Err(TryLockError::WouldBlock) => {
            progress.note(&format!("waiting for another process to fetch to {}", folder.display()));
        }
        Err(TryLockError::Error(error)) => return Err(Error::io("lock", folder)(error)),
    }
    lock.lock().map_err(Error::io("lock", folder))?;
    Ok(lock)
}

/// Removes the least recently used of the other caches until there is room for these; returns those that went.
fn make_room(folder: &Path, wanted: &[Manifest], max_bytes: u64) -> Result<Vec<PathBuf>> {
    let own: u64 = wanted.iter().map(Manifest::bytes).sum();
    let too_large = |got: String, hint: &str| Error::Argument {
        action: "fetch the caches",
        expected: format!("at most {}", counted(max_bytes, "byte")),
        got,
        hint: hint.into(),
    };
    let Some(left) = max_bytes.checked_sub(own) else {
        let hint = "allow more, with a larger --max-size (or FROSTBERT_PULL_MAX_SIZE): a cache is fetched as a whole";
        return Err(too_large(counted(own, "byte"), hint));
    };
    let is_wanted = |manifest: &Manifest| {
        wanted.iter().any(|wanted| wanted.fingerprint == manifest.fingerprint)
    };
    let others: Vec<(PathBuf, Manifest)> = caches_in(folder)?
        .into_iter()
        .filter_map(|(path, manifest)| Some((path, manifest.ok()?)))
        .filter(|(_, manifest)| !is_wanted(manifest))
        .collect();
    let limits = PruneLimits { max_bytes: Some(left), older_than: None };
    let all: u64 = others.iter().map(|(_, manifest)| manifest.bytes()).sum();
    // Nothing is removed if that does not suffice.
    let mut pruned = Pruned::default();
    for dry_run in [true, false] {
        pruned = prune(&others, limits, dry_run)?;
        let freed: u64 = pruned.removed.iter().map(|place| others[*place].1.bytes()).sum();
        if all - freed > left {
            let in_use = pruned.in_use.first().map_or(folder, |place| &others[*place].0);
            return Err(frostbert_cache::Error::InUse { cache: in_use.to_path_buf() }.into());
        }
    }
    Ok(pruned.removed.into_iter().map(|place| others[place].0.clone()).collect())
}

/// Fetches a cache, which appears whole.
fn pull_one(
    shared: &SharedFolder,
    folder: &Path,
    manifest: &Manifest,
    progress: &dyn Progress,
) -> Result<PulledCache> {
    let fingerprint = &manifest.fingerprint;
    let cache = folder.join(fingerprint);
    let pulled = |there: &Manifest, fetched, existed| PulledCache {
        cache: cache.clone(),
        fingerprint: fingerprint.clone(),
        shards: there.shards.len(),
        documents: there.documents,
        bytes: there.bytes(),
        fetched,
        existed,
    };
    if let Some(there) = Manifest::read(&cache)? {
        if !have_same_files(&there, manifest.shards.iter()) {
            return Err(in_the_way(&cache, OTHER_CACHE));
        }
        note_use(&cache);
        return Ok(pulled(&there, 0, true));
    }
    let outer = unfinished(folder, fingerprint);
    // One folder deeper than a cache, so that nothing takes the shards for one without a manifest.
    let aside = outer.join("cache");
    for shard in &manifest.shards {
        let own = aside.join(&shard.name);
        fs::create_dir_all(&own).map_err(Error::io("create", &own))?;
    }
    let files: Vec<(&ShardEntry, &FileEntry)> = manifest
        .shards
        .iter()
        .flat_map(|shard| shard.files.iter().map(move |file| (shard, file)))
        .collect();
    remove_unnamed(&aside, manifest)?;
    progress.start("fetching", Some(files.len() as u64), "files");
    let fetched = shared.for_each(files.len(), |number| {
        let (shard, file) = files[number];
        let name = shared.cached(fingerprint, shard, file);
        let fetched = pull_file(shared, &name, file, &aside.join(&shard.name).join(&file.name))?;
        progress.advance(1, 0);
        Ok(fetched)
    })?;
    progress.finish();
    for shard in &manifest.shards {
        sync_folder(&aside.join(&shard.name))?;
    }
    manifest.write(&aside)?;
    if let Some(about) = shared.read(&format!("{fingerprint}/{ABOUT_FILE}"))?
        && let Ok(about) = serde_json::from_slice::<About>(&about)
    {
        about.note(&aside);
    }
    match fs::rename(&aside, &cache) {
        Ok(()) => {}
        Err(error)
            if [io::ErrorKind::DirectoryNotEmpty, io::ErrorKind::AlreadyExists]
                .contains(&error.kind()) =>
        {
            return Err(in_the_way(&cache, "a folder that was not there before"));
        }
        Err(error) => return Err(Error::io("rename", &aside)(error)),
    }
    let _ = fs::remove_dir(&outer);
    sync_folder(folder)?;
    Ok(pulled(manifest, fetched.into_iter().sum(), false))
}

/// Fetches a file unless it is there, and checks its bytes; returns how many were fetched.
fn pull_file(shared: &SharedFolder, name: &str, file: &FileEntry, to: &Path) -> Result<u64> {
    let is_there = fs::metadata(to).is_ok_and(|there| there.len() == file.bytes);
    if is_there && hash_file(to)? == file.blake3 {
        return Ok(0);
    }
    shared.fetch(name)?.place(to)?;
    let found = hash_file(to)?;
    if found != file.blake3 {
        let _ = fs::remove_file(to);
        let expected = format!("the blake3 {}", file.blake3.short());
        let hint = "run the command again, which keeps what was fetched; if it fails again, the file itself is damaged";
        return Err(damage(&shared.path(name), expected, found.short(), hint));
    }
    File::open(to).and_then(|file| file.sync_all()).map_err(Error::io("sync", to))?;
    Ok(file.bytes)
}

//! Makes a cache of what workers left in a shared folder: the same one, byte for byte, as an extraction on one machine.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use frostbert_cache::{
    about::ABOUT_FILE,
    durable::sync_folder,
    fingerprint::Digest,
    manifest::{FileEntry, MANIFEST, Manifest, ShardEntry},
    progress::Progress,
    wording::counted,
};
use serde::Serialize;

use crate::{
    distributed::{
        files::{COMMIT_ASIDE, OBJECTS, damage, in_the_way},
        plan::DistributedPlan,
        receipt::TaskReceipt,
        shared_folder::SharedFolder,
    },
    error::{Error, Result},
};

/// What lies in the place of the cache of a plan.
pub(super) const OTHER_CACHE: &str = "a cache with other files, such as one of other texts";

/// The most tasks without a receipt that a message lists.
const LISTED_TASKS: usize = 8;

/// The outcome of a commit: the cache and its size.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct CommitReport {
    /// The cache.
    #[serde(serialize_with = "frostbert_cache::wording::path_shown")]
    pub cache: PathBuf,
    /// Its fingerprint.
    pub fingerprint: String,
    /// Number of shards.
    pub shards: usize,
    /// Number of distinct documents.
    pub documents: u64,
    /// Number of their tokens.
    pub tokens: u64,
    /// Number of truncated documents.
    pub truncated: u64,
    /// Size of the shards in bytes.
    pub bytes: u64,
    /// Whether it was committed before.
    pub existed: bool,
}

/// Makes a cache of a plan whose tasks are all done. A cache that is there already is left as it is.
///
/// # Errors
/// Returns an error if a task has no receipt, a receipt does not fit the plan, a file that it names is missing, or the
/// folder cannot be written. Nothing is lost then: the same command can be run again.
pub fn commit(shared: &SharedFolder, progress: &dyn Progress) -> Result<CommitReport> {
    let plan = DistributedPlan::read(shared)?;
    let fingerprint = plan.inputs.fingerprint();
    let folder = shared.path(&fingerprint);
    let there = shared.manifest(&fingerprint)?;
    if let Some(manifest) = &there
        && is_marked(shared, &plan)?
    {
        return Ok(report(folder, manifest, true));
    }
    progress.start("reading receipts", Some(plan.tasks.len() as u64), "tasks");
    let receipts = read_receipts(shared, &plan, progress)?;
    progress.finish();
    if let Some(manifest) = there {
        if !holds(&manifest, &receipts) {
            return Err(in_the_way(&folder, OTHER_CACHE));
        }
        mark(shared, &plan)?;
        return Ok(report(folder, &manifest, true));
    }
    let manifest = manifest_of(&plan, require_all(shared, receipts)?);
    // Names of files in receipts become paths.
    manifest.require_sound(&folder)?;
    let there = if shared.keeps_objects() {
        commit_manifest(shared, &plan, &manifest, progress)?
    } else {
        commit_folder(shared, &plan, &manifest, progress)?
    };
    let (manifest, existed) = match there {
        None => (manifest, false),
        Some(there) if have_same_files(&there, manifest.shards.iter()) => (there, true),
        Some(_) => return Err(in_the_way(&folder, OTHER_CACHE)),
    };
    mark(shared, &plan)?;
    Ok(report(folder, &manifest, existed))
}

/// The name of the file which says that the cache of a plan was committed. The cache itself does not say whose it is: its
/// fingerprint covers no texts, and its shards may have been rewritten since.
pub(super) fn mark_of(plan: &DistributedPlan) -> String {
    format!("{}/committed", TaskReceipt::folder(&plan.id))
}

fn mark(shared: &SharedFolder, plan: &DistributedPlan) -> Result<()> {
    shared.create(&mark_of(plan), b"").map(drop)
}

/// Whether a plan is marked as committed.
pub(super) fn is_marked(shared: &SharedFolder, plan: &DistributedPlan) -> Result<bool> {
    Ok(shared.read(&mark_of(plan))?.is_some())
}

/// Whether a cache is that of a plan which is not marked: its commit was killed just before that.
pub(super) fn holds(manifest: &Manifest, receipts: &[Option<TaskReceipt>]) -> bool {
    let shards = receipts.iter().flatten().flat_map(|receipt| &receipt.shards);
    receipts.iter().all(Option::is_some) && have_same_files(manifest, shards)
}

/// Whether a cache has the files of these shards.
pub(super) fn have_same_files<'a>(
    manifest: &Manifest,
    mut shards: impl Iterator<Item = &'a ShardEntry>,
) -> bool {
    let there: HashSet<Digest> = manifest
        .shards
        .iter()
        .flat_map(|shard| shard.files.iter().map(|file| file.blake3))
        .collect();
    shards.all(|shard| shard.files.iter().all(|file| there.contains(&file.blake3)))
}

/// Makes a cache whose files stay where they are stored, which is a manifest alone; returns that of another commit if
/// it was faster.
fn commit_manifest(
    shared: &SharedFolder,
    plan: &DistributedPlan,
    manifest: &Manifest,
    progress: &dyn Progress,
) -> Result<Option<Manifest>> {
    require_all_stored(shared, manifest, progress)?;
    let fingerprint = &manifest.fingerprint;
    let about = serde_json::to_vec_pretty(&plan.about).expect("plain fields become JSON");
    shared.create(&format!("{fingerprint}/{ABOUT_FILE}"), &about)?;
    let name = format!("{fingerprint}/{MANIFEST}");
    let created = shared.create(&name, manifest.to_json().as_bytes())?;
    progress.finish();
    if created { Ok(None) } else { shared.manifest(fingerprint) }
}

/// Checks that every file of a cache is stored, with its size.
fn require_all_stored(
    shared: &SharedFolder,
    manifest: &Manifest,
    progress: &dyn Progress,
) -> Result<()> {
    let objects = shared.list(OBJECTS)?;
    let stored: HashMap<&str, u64> =
        objects.iter().map(|file| (file.name.as_str(), file.bytes)).collect();
    progress.start("committing", Some(manifest.shards.len() as u64), "shards");
    for shard in &manifest.shards {
        for file in &shard.files {
            let name = format!("{OBJECTS}/{}", file.blake3);
            require_stored(&shared.path(&name), file, stored.get(name.as_str()).copied())?;
        }
        progress.advance(1, 0);
    }
    Ok(())
}

/// Makes a cache that is a folder with files of its own; returns the manifest of another commit if it was faster.
fn commit_folder(
    shared: &SharedFolder,
    plan: &DistributedPlan,
    manifest: &Manifest,
    progress: &dyn Progress,
) -> Result<Option<Manifest>> {
    let folder = shared.path(&manifest.fingerprint);
    let aside = tempfile::Builder::new()
        .prefix(COMMIT_ASIDE)
        .permissions(Permissions::from_mode(0o777))
        .tempdir_in(shared.root())
        .map_err(Error::io("create a folder in", shared.root()))?;
    progress.start("committing", Some(manifest.shards.len() as u64), "shards");
    for shard in &manifest.shards {
        let own = aside.path().join(&shard.name);
        fs::create_dir(&own).map_err(Error::io("create", &own))?;
        for file in &shard.files {
            take(shared, file, &own.join(&file.name))?;
        }
        sync_folder(&own)?;
        progress.advance(1, 0);
    }
    manifest.write(aside.path())?;
    plan.about.note(aside.path());
    progress.finish();
    // The cache appears whole. If two commits run at once, the second finds the cache of the first.
    match fs::rename(aside.path(), &folder) {
        Ok(()) => {
            let _ = aside.keep();
            sync_folder(shared.root())?;
            Ok(None)
        }
        Err(error) if is_in_the_way(&error) => match Manifest::read(&folder)? {
            Some(there) => Ok(Some(there)),
            None => Err(in_the_way(&folder, "a folder without a manifest.json")),
        },
        Err(error) => Err(Error::io("rename", aside.path())(error)),
    }
}

fn is_in_the_way(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists)
}

/// Reads the receipts of all tasks, in order; `None` for a task that has none.
pub(super) fn read_receipts(
    shared: &SharedFolder,
    plan: &DistributedPlan,
    progress: &dyn Progress,
) -> Result<Vec<Option<TaskReceipt>>> {
    shared.for_each(plan.tasks.len(), |task| {
        let receipt = TaskReceipt::read(shared, plan, task)?;
        progress.advance(1, 0);
        Ok(receipt)
    })
}

/// Returns the receipts if no task lacks one.
fn require_all(shared: &SharedFolder, read: Vec<Option<TaskReceipt>>) -> Result<Vec<TaskReceipt>> {
    let n_tasks = read.len();
    let mut receipts = Vec::with_capacity(n_tasks);
    let mut missing = Vec::new();
    for (task, receipt) in read.into_iter().enumerate() {
        match receipt {
            Some(receipt) => receipts.push(receipt),
            None => missing.push(task.to_string()),
        }
    }
    if missing.is_empty() {
        return Ok(receipts);
    }
    let n_missing = missing.len();
    let more = if n_missing > LISTED_TASKS { ", ..." } else { "" };
    missing.truncate(LISTED_TASKS);
    Err(frostbert_cache::Error::Miss {
        cache: shared.root().to_path_buf(),
        lacks: format!(
            "the receipts of {} of {} ({}{more})",
            counted(n_missing, "task"),
            n_tasks,
            missing.join(", ")
        ),
        hint: "let the workers finish them, and run the command again: what is done is kept".into(),
    }
    .into())
}

fn manifest_of(plan: &DistributedPlan, receipts: Vec<TaskReceipt>) -> Manifest {
    let DistributedPlan { inputs, model_layers, hidden, dtype, .. } = plan;
    let mut manifest = Manifest::empty(inputs, *model_layers, *hidden, *dtype);
    for receipt in receipts {
        manifest.truncated += receipt.truncated;
        for shard in receipt.shards {
            manifest.documents += shard.documents;
            manifest.tokens += shard.tokens;
            manifest.shards.push(shard);
        }
    }
    manifest
}

/// Puts a stored file into a shard: by a link where the disk has them, so that nothing is written twice.
fn take(shared: &SharedFolder, file: &FileEntry, to: &Path) -> Result<()> {
    let path = shared.path(&format!("{OBJECTS}/{}", file.blake3));
    let bytes = match fs::metadata(&path) {
        Ok(metadata) => Some(metadata.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    require_stored(&path, file, bytes)?;
    if fs::hard_link(&path, to).is_err() {
        fs::copy(&path, to).map_err(Error::io("write", to))?;
        let copied = fs::File::open(to).and_then(|file| file.sync_all());
        copied.map_err(Error::io("sync", to))?;
    }
    Ok(())
}

/// Checks the size of a stored file, where there is one.
fn require_stored(path: &Path, file: &FileEntry, bytes: Option<u64>) -> Result<()> {
    if bytes == Some(file.bytes) {
        return Ok(());
    }
    let got = bytes.map_or("no such file".into(), |bytes| counted(bytes, "byte"));
    let hint = "remove the receipt that names it, and its task is done again by the next worker";
    Err(damage(path, counted(file.bytes, "byte"), got, hint))
}

fn report(cache: PathBuf, manifest: &Manifest, existed: bool) -> CommitReport {
    CommitReport {
        cache,
        fingerprint: manifest.fingerprint.clone(),
        shards: manifest.shards.len(),
        documents: manifest.documents,
        tokens: manifest.tokens,
        truncated: manifest.truncated,
        bytes: manifest.bytes(),
        existed,
    }
}

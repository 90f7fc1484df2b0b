//! Makes a cache of what workers left in a shared folder: the same one, byte for byte, as an extraction on one machine.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use frostbert_cache::{
    durable::sync_folder,
    manifest::{FileEntry, Manifest},
    progress::Progress,
    wording::counted,
};
use serde::Serialize;

use crate::{
    distributed::{
        plan::{DistributedPlan, damage},
        receipt::TaskReceipt,
        shared_folder::{ASIDE, OBJECTS, SharedFolder},
    },
    error::{Error, Result},
};

/// The most tasks without a receipt that a message lists.
const LISTED_TASKS: usize = 8;

/// What was committed.
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
pub fn commit(out: &Path, progress: &dyn Progress) -> Result<CommitReport> {
    let shared = SharedFolder::new(out)?;
    let plan = DistributedPlan::read(&shared)?;
    let folder = shared.path(&plan.inputs.fingerprint());
    if let Some(manifest) = Manifest::read(&folder)? {
        return Ok(report(folder, &manifest, true));
    }
    progress.start("reading receipts", Some(plan.tasks.len() as u64), "tasks");
    let receipts = read_receipts(&shared, &plan, progress)?;
    progress.finish();
    let manifest = manifest_of(&plan, receipts);
    // Names of files in receipts become paths.
    manifest.require_sound(&folder)?;
    let aside = tempfile::Builder::new()
        .prefix(ASIDE)
        .permissions(Permissions::from_mode(0o777))
        .tempdir_in(shared.root())
        .map_err(Error::io("create a folder in", shared.root()))?;
    progress.start("committing", Some(manifest.shards.len() as u64), "shards");
    for shard in &manifest.shards {
        let own = aside.path().join(&shard.name);
        fs::create_dir(&own).map_err(Error::io("create", &own))?;
        for file in &shard.files {
            take(&shared, file, &own.join(&file.name))?;
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
            Ok(report(folder, &manifest, false))
        }
        Err(error) if is_in_the_way(&error) => match Manifest::read(&folder)? {
            Some(manifest) => Ok(report(folder, &manifest, true)),
            None => {
                let hint = "move it away, or let the extraction that began it finish, and run the command again";
                let got = "a folder without a manifest.json".into();
                Err(damage(&folder, "room for the cache".into(), got, hint))
            }
        },
        Err(error) => Err(Error::io("rename", aside.path())(error)),
    }
}

fn is_in_the_way(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists)
}

/// Reads the receipts of all tasks, in order.
fn read_receipts(
    shared: &SharedFolder,
    plan: &DistributedPlan,
    progress: &dyn Progress,
) -> Result<Vec<TaskReceipt>> {
    let mut receipts = Vec::with_capacity(plan.tasks.len());
    let mut missing = Vec::new();
    for task in 0..plan.tasks.len() {
        match TaskReceipt::read(shared, plan, task)? {
            Some(receipt) => receipts.push(receipt),
            None => missing.push(task.to_string()),
        }
        progress.advance(1, 0);
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
            plan.tasks.len(),
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
    let got = match fs::metadata(&path) {
        Ok(metadata) if metadata.len() == file.bytes => None,
        Ok(metadata) => Some(counted(metadata.len(), "byte")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some("no such file".into()),
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    if let Some(got) = got {
        let hint =
            "remove the receipt that names it, and its task is done again by the next worker";
        return Err(damage(&path, counted(file.bytes, "byte"), got, hint));
    }
    if fs::hard_link(&path, to).is_err() {
        fs::copy(&path, to).map_err(Error::io("write", to))?;
        let copied = fs::File::open(to).and_then(|file| file.sync_all());
        copied.map_err(Error::io("sync", to))?;
    }
    Ok(())
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

//! Removes from a shared folder what no cache and no plan needs.
//!
//! Workers take no lock, so what a worker is about to name in its receipt looks like what nothing needs. Its age keeps
//! it: a worker stores a file, or renews one that is there, before it names it, and files that are younger than the
//! limit stay. So the limit has to be longer than a task takes. A worker may also store a file again between the moment
//! in which it is listed, old, and that of its removal. On a local disk and on NFS 4 such a file stays
//! (`Disk::remove_one_older`). Elsewhere it may be lost if exactly that happens, as in a bucket, which removes by name
//! alone: the commit then misses the file, names it and says how its task is done again.
//!
//! A plan that is made again while its committed predecessor is removed may lose its plan.json; workers then say that
//! nothing is planned here, and `plan` writes it once more.

use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};

use frostbert_cache::{manifest::ShardEntry, wording::counted};
use serde::Serialize;

use crate::{
    distributed::{
        commit::{holds, is_marked, mark_of, read_receipts},
        files::{ASIDE, COMMIT_ASIDE, OBJECTS, PLAN_FILE, RECEIPTS, TEXTS, taken_from},
        plan::DistributedPlan,
        receipt::TaskReceipt,
        shared_folder::SharedFolder,
    },
    error::{Error, Result},
};

/// The outcome of a vacuum: what was removed and what was kept.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct VacuumReport {
    /// Number of files removed.
    pub removed: u64,
    /// Their size in bytes; files that the cache has too take no less space than before.
    pub bytes: u64,
    /// Number of files that nothing needs and that are too new.
    pub too_new: u64,
}

/// Removes files older than this: of a plan whose cache is committed all, of another those that neither the plan nor a
/// receipt names. Caches are not touched, and neither are files with other names than those of a plan.
///
/// # Errors
/// Returns an error if there is no plan, or if it has receipts and no cache, unless that is said to be known (`force`):
/// its workers may be at work. Also if another vacuum removes files on this disk, or a file cannot be removed.
pub fn vacuum(shared: &SharedFolder, older_than: Duration, force: bool) -> Result<VacuumReport> {
    // What is stored while this reads is younger, but for the step of the clock of files (some milliseconds).
    let limit = SystemTime::now().checked_sub(older_than).unwrap_or(SystemTime::UNIX_EPOCH);
    let plan_bytes = shared.read(PLAN_FILE)?;
    let manifests = if shared.keeps_objects() { shared.manifests()? } else { Vec::new() };
    let plan = match &plan_bytes {
        // What the manifests of a bucket name is known without a plan.
        None if !manifests.is_empty() => None,
        _ => Some(DistributedPlan::read(shared)?),
    };
    let uncommitted = match &plan {
        None => None,
        Some(plan) => uncommitted(shared, plan)?.map(|receipts| (plan, receipts)),
    };
    let is_committed = uncommitted.is_none();
    let (mut needed, mut files) = match uncommitted {
        None => (HashSet::new(), shared.list_unfinished()?),
        // A commit may run.
        Some((plan, receipts)) => (needed_by(plan, &receipts, force)?, Vec::new()),
    };
    for manifest in &manifests {
        needed.extend(manifest.shards.iter().flat_map(objects_of));
    }
    // The plan last: while it is there, what it names is known.
    for folder in [RECEIPTS, OBJECTS, TEXTS] {
        files.extend(shared.list(folder)?);
    }
    files.retain(|file| is_of_a_plan(&file.name) && !needed.contains(&file.name));
    let n_unneeded = files.len() as u64;
    // What an interrupted vacuum took aside gets its name back, whatever its age.
    files.retain(|file| file.modified <= limit || taken_from(&file.name).is_some());
    let (names, bytes): (Vec<String>, Vec<u64>) =
        files.into_iter().map(|file| (file.name, file.bytes)).unzip();
    // A worker may have stored one of them again since they were listed.
    let is_gone = shared.remove_older(&names, limit)?;
    let mut report = VacuumReport::default();
    for (_, bytes) in is_gone.iter().zip(bytes).filter(|(is_gone, _)| **is_gone) {
        report.removed += 1;
        report.bytes += bytes;
    }
    report.too_new = n_unneeded - report.removed;
    // Another plan may have taken its place.
    if report.too_new == 0
        && is_committed
        && let Some(plan) = shared.read(PLAN_FILE)?.filter(|plan| Some(plan) == plan_bytes.as_ref())
    {
        shared.remove(&[PLAN_FILE.into()])?;
        report.removed += 1;
        report.bytes += plan.len() as u64;
    }
    // Without the plan, nobody asks for its mark.
    if let Some(plan) = plan.filter(|_| report.too_new == 0 && is_committed) {
        shared.remove(&[mark_of(&plan)])?;
    }
    Ok(report)
}

/// Returns the receipts of a plan whose cache is not committed; `None` if it is.
fn uncommitted(
    shared: &SharedFolder,
    plan: &DistributedPlan,
) -> Result<Option<Vec<Option<TaskReceipt>>>> {
    let manifest = shared.manifest(&plan.inputs.fingerprint())?;
    if manifest.is_some() && is_marked(shared, plan)? {
        return Ok(None);
    }
    let receipts = read_receipts(shared, plan, &())?;
    let is_committed = manifest.is_some_and(|manifest| holds(&manifest, &receipts));
    Ok((!is_committed).then_some(receipts))
}

/// Whether a file has a name that plans, workers and commits give: a user's own files may lie beside them.
fn is_of_a_plan(name: &str) -> bool {
    let (folders, file) = name.rsplit_once('/').unwrap_or(("", name));
    let is_hash = |file: &str| file.len() == 64 && file.bytes().all(|c| c.is_ascii_hexdigit());
    let is_number = |stem: &str| stem.bytes().all(|c| c.is_ascii_digit());
    match folders.split('/').next().unwrap_or_default() {
        folder if folder.starts_with(COMMIT_ASIDE) => true,
        _ if file.starts_with(ASIDE) => true,
        RECEIPTS => file.strip_suffix(".json").is_some_and(is_number),
        _ => is_hash(file),
    }
}

/// Returns the names of the stored files of a shard.
fn objects_of(shard: &ShardEntry) -> impl Iterator<Item = String> + '_ {
    shard.files.iter().map(|file| format!("{OBJECTS}/{}", file.blake3))
}

/// Returns the names of the files that a plan without a cache needs.
fn needed_by(
    plan: &DistributedPlan,
    receipts: &[Option<TaskReceipt>],
    force: bool,
) -> Result<HashSet<String>> {
    let mut needed = HashSet::new();
    let mut n_receipts = 0usize;
    for (task, receipt) in receipts.iter().enumerate() {
        needed.insert(plan.texts_of(task));
        let Some(receipt) = receipt else { continue };
        n_receipts += 1;
        needed.insert(TaskReceipt::name(&plan.id, task));
        needed.extend(receipt.shards.iter().flat_map(objects_of));
    }
    if n_receipts == 0 || force {
        return Ok(needed);
    }
    Err(Error::Argument {
        action: "vacuum",
        expected: "a plan that is committed, or that nobody has begun".into(),
        got: format!(
            "{} of {} done, and no cache",
            n_receipts,
            counted(plan.tasks.len(), "task")
        ),
        hint: "run `frostbert commit` when all are done; or give --force, which removes only what neither the plan nor \
               a receipt names"
            .into(),
    })
}

//! Removes from a shared folder what no cache and no plan needs.

use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};

use frostbert_cache::{manifest::ShardEntry, wording::counted};
use serde::Serialize;

use crate::{
    distributed::{
        files::{COMMITS, OBJECTS, PLAN_FILE, RECEIPTS, TEXTS},
        plan::DistributedPlan,
        receipt::TaskReceipt,
        shared_folder::SharedFolder,
    },
    error::{Error, Result},
};

/// What was removed.
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
/// receipt names. Caches are not touched.
///
/// # Errors
/// Returns an error if the plan has receipts and no cache, unless that is said to be known (`force`): its workers may
/// be at work. Also if a file cannot be removed.
pub fn vacuum(shared: &SharedFolder, older_than: Duration, force: bool) -> Result<VacuumReport> {
    let plan = DistributedPlan::read_if_any(shared)?;
    let mut needed = HashSet::new();
    if let Some(plan) = &plan
        && shared.manifest(&plan.inputs.fingerprint())?.is_none()
    {
        needed = needed_by(plan, shared, force)?;
    }
    if shared.keeps_objects() {
        for manifest in shared.manifests()? {
            needed.extend(manifest.shards.iter().flat_map(objects_of));
        }
    }
    let mut files = Vec::new();
    // The plan last: while it is there, what it names is known.
    for folder in [COMMITS, RECEIPTS, OBJECTS, TEXTS] {
        files.extend(shared.list(folder)?);
    }
    let limit = SystemTime::now().checked_sub(older_than).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut report = VacuumReport::default();
    let mut unneeded = Vec::new();
    for file in files.into_iter().filter(|file| !needed.contains(&file.name)) {
        if file.modified > limit {
            report.too_new += 1;
            continue;
        }
        unneeded.push(file.name);
        report.removed += 1;
        report.bytes += file.bytes;
    }
    shared.remove(&unneeded)?;
    if report.too_new == 0
        && !needed.contains(PLAN_FILE)
        && let Some(plan) = shared.read(PLAN_FILE)?
    {
        shared.remove(&[PLAN_FILE.into()])?;
        report.removed += 1;
        report.bytes += plan.len() as u64;
    }
    Ok(report)
}

/// Returns the names of the stored files of a shard.
fn objects_of(shard: &ShardEntry) -> impl Iterator<Item = String> + '_ {
    shard.files.iter().map(|file| format!("{OBJECTS}/{}", file.blake3))
}

/// Returns the names of the files that a plan without a cache needs.
fn needed_by(
    plan: &DistributedPlan,
    shared: &SharedFolder,
    force: bool,
) -> Result<HashSet<String>> {
    let mut needed = HashSet::from([PLAN_FILE.to_string()]);
    let mut n_receipts = 0usize;
    let receipts =
        shared.for_each(plan.tasks.len(), |task| TaskReceipt::read(shared, plan, task))?;
    for (task, receipt) in receipts.into_iter().enumerate() {
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

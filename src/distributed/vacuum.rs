//! Removes from a shared folder what no cache and no plan needs.

use std::{
    collections::HashSet,
    fs, io,
    path::Path,
    time::{Duration, SystemTime},
};

use frostbert_cache::{manifest::Manifest, wording::counted};
use serde::Serialize;

use crate::{
    distributed::{
        plan::DistributedPlan,
        receipt::TaskReceipt,
        shared_folder::{OBJECTS, PLAN_FILE, RECEIPTS, SharedFolder, TEXTS},
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
pub fn vacuum(out: &Path, older_than: Duration, force: bool) -> Result<VacuumReport> {
    let shared = SharedFolder::new(out)?;
    let needed = match DistributedPlan::read_if_any(&shared)? {
        None => HashSet::new(),
        Some(plan) => {
            let folder = shared.path(&plan.inputs.fingerprint());
            if Manifest::read(&folder)?.is_some() {
                HashSet::new()
            } else {
                needed_by(&plan, &shared, force)?
            }
        }
    };
    let mut files = shared.list_unfinished()?;
    // The plan last: while it is there, what it names is known.
    for folder in [RECEIPTS, OBJECTS, TEXTS] {
        files.extend(shared.list(folder)?);
    }
    let limit = SystemTime::now().checked_sub(older_than).unwrap_or(SystemTime::UNIX_EPOCH);
    let mut report = VacuumReport::default();
    for file in files.into_iter().filter(|file| !needed.contains(&file.name)) {
        if file.modified > limit {
            report.too_new += 1;
            continue;
        }
        remove(&shared, &file.name)?;
        report.removed += 1;
        report.bytes += file.bytes;
    }
    let plan = shared.path(PLAN_FILE);
    if report.too_new == 0 && needed.is_empty() && plan.exists() {
        report.bytes += fs::metadata(&plan).map_err(Error::io("read", &plan))?.len();
        remove(&shared, PLAN_FILE)?;
        report.removed += 1;
    }
    Ok(report)
}

/// Returns the names of the files that a plan without a cache needs.
fn needed_by(
    plan: &DistributedPlan,
    shared: &SharedFolder,
    force: bool,
) -> Result<HashSet<String>> {
    let mut needed = HashSet::from([PLAN_FILE.to_string()]);
    let mut n_receipts = 0usize;
    for task in 0..plan.tasks.len() {
        needed.insert(plan.texts_of(task));
        let Some(receipt) = TaskReceipt::read(shared, plan, task)? else { continue };
        n_receipts += 1;
        needed.insert(TaskReceipt::name(&plan.id, task));
        let files = receipt.shards.iter().flat_map(|shard| &shard.files);
        needed.extend(files.map(|file| format!("{OBJECTS}/{}", file.blake3)));
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

/// Removes a file, and its folder if nothing else is in it.
fn remove(shared: &SharedFolder, name: &str) -> Result<()> {
    let path = shared.path(name);
    if let Err(error) = fs::remove_file(&path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(Error::io("remove", path)(error));
    }
    let mut folders = path.ancestors().skip(1).take_while(|folder| *folder != shared.root());
    // A folder that is not empty stays.
    let _ = folders.try_for_each(fs::remove_dir);
    Ok(())
}

//! Which caches go, where they have become too many or too old: those that nobody has used for the longest time.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use crate::{
    about::last_use,
    error::{Error, Result},
    gc,
    in_use::is_locked,
    manifest::Manifest,
    names::LOCK_FILE,
};

/// What a folder of caches may hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PruneLimits {
    /// Bytes of all caches together.
    pub max_bytes: Option<u64>,
    /// Time since a cache was used.
    pub older_than: Option<Duration>,
}

/// What a pruning did to caches, or would do, each by its place among those that were given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Those that went, the longest unused first.
    pub removed: Vec<usize>,
    /// Those that would have gone, and that another process uses.
    pub in_use: Vec<usize>,
}

/// Removes every cache that was last used longer ago than the limit, then those that were used the longest time ago until the
/// rest is small enough. A cache that another process writes or reads stays, and so does a link to one: what it points to
/// belongs to another folder. With `dry_run` nothing is removed.
///
/// # Errors
/// When a cache is damaged, or the disk refuses.
pub fn prune(caches: &[(PathBuf, Manifest)], limits: PruneLimits, dry_run: bool) -> Result<Pruned> {
    let now = SystemTime::now();
    let own: Vec<usize> =
        (0..caches.len()).filter(|place| !caches[*place].0.is_symlink()).collect();
    let uses: Vec<CacheUse> = own
        .iter()
        .map(|place| &caches[*place])
        .map(|(folder, manifest)| CacheUse {
            bytes: manifest.bytes(),
            // A clock that was set back makes no cache old.
            unused: last_use(folder)
                .and_then(|time| now.duration_since(time).ok())
                .unwrap_or_default(),
        })
        .collect();
    let chosen = choose(&uses, limits, |place| {
        let folder = &caches[own[place]].0;
        if dry_run {
            return Ok(!is_in_use(folder));
        }
        match gc::remove(folder) {
            Ok(()) => Ok(true),
            Err(Error::Busy { .. } | Error::InUse { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    })?;
    let in_caches = |places: Vec<usize>| places.into_iter().map(|place| own[place]).collect();
    Ok(Pruned { removed: in_caches(chosen.removed), in_use: in_caches(chosen.in_use) })
}

/// What decides whether a cache goes.
struct CacheUse {
    bytes: u64,
    /// Time since it was used.
    unused: Duration,
}

/// Goes through caches, the longest unused first; `remove` says whether one is gone.
fn choose(
    caches: &[CacheUse],
    limits: PruneLimits,
    mut remove: impl FnMut(usize) -> Result<bool>,
) -> Result<Pruned> {
    let mut order: Vec<usize> = (0..caches.len()).collect();
    order.sort_by_key(|place| std::cmp::Reverse(caches[*place].unused));
    let mut left: u64 = caches.iter().map(|cache| cache.bytes).sum();
    let mut pruned = Pruned::default();
    for place in order {
        let CacheUse { bytes, unused } = caches[place];
        let is_old = limits.older_than.is_some_and(|most| unused > most);
        let is_too_much = limits.max_bytes.is_some_and(|most| left > most);
        if !is_old && !is_too_much {
            continue;
        }
        if remove(place)? {
            left -= bytes;
            pruned.removed.push(place);
        } else {
            pruned.in_use.push(place);
        }
    }
    Ok(pruned)
}

/// Whether another process writes to a cache, or reads it.
fn is_in_use(folder: &Path) -> bool {
    is_locked(&folder.join(LOCK_FILE)) || is_locked(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3600;

    fn chosen(limits: PruneLimits, held: &[usize]) -> Pruned {
        // Bytes, and hours since each was used.
        let caches = [(10, 1), (20, 50), (30, 5), (40, 100)];
        let caches = caches
            .map(|(bytes, hours)| CacheUse { bytes, unused: Duration::from_secs(hours * HOUR) });
        choose(&caches, limits, |place| Ok(!held.contains(&place))).unwrap()
    }

    #[test]
    fn the_longest_unused_go_first_until_the_rest_is_small_and_young_enough() {
        let limits = |max_bytes: Option<u64>, hours: Option<u64>| PruneLimits {
            max_bytes,
            older_than: hours.map(|hours| Duration::from_secs(hours * HOUR)),
        };
        assert_eq!(chosen(limits(Some(100), None), &[]).removed, [0; 0]);
        assert_eq!(chosen(limits(Some(99), None), &[]).removed, [3]);
        assert_eq!(chosen(limits(Some(40), None), &[]).removed, [3, 1]);
        assert_eq!(chosen(limits(Some(0), None), &[]).removed, [3, 1, 2, 0]);
        assert_eq!(chosen(limits(None, Some(20)), &[]).removed, [3, 1]);
        assert_eq!(chosen(limits(Some(10), Some(60)), &[]).removed, [3, 1, 2]);
        let held = chosen(limits(Some(50), None), &[3]);
        assert_eq!((held.removed, held.in_use), (vec![1, 2], vec![3]));
    }
}

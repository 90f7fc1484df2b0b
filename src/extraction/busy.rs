//! How long each part of an extraction was at work, which shows what bounds its speed.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// The time for which a part was at work, added up over its threads.
#[derive(Default)]
pub(crate) struct BusyTime(AtomicU64);

impl BusyTime {
    /// Does some work, and counts the time that it takes.
    pub(crate) fn during<T>(&self, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let done = work();
        self.add(start.elapsed());
        done
    }

    pub(crate) fn add(&self, time: Duration) {
        self.0.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Returns the share of so many threads' time.
    fn share(&self, wall: Duration, n_threads: usize) -> f64 {
        let all = wall.as_nanos() as f64 * n_threads as f64;
        (self.0.load(Ordering::Relaxed) as f64 / all.max(1.0)).min(1.0)
    }
}

/// The parts of an extraction that run side by side.
#[derive(Default)]
pub(crate) struct BusyTimes {
    pub(crate) tokenizer: BusyTime,
    /// The runs of the model.
    pub(crate) encoder: BusyTime,
    /// The thread that puts states into their shards and commits these.
    pub(crate) placing: BusyTime,
    /// The threads that write shards to the disk.
    pub(crate) writing: BusyTime,
}

/// The share of the time of encoding in which each part was at work, by its name.
pub(crate) type BusyShares = BTreeMap<&'static str, f64>;

impl BusyTimes {
    pub(crate) fn shares(&self, wall: Duration, n_workers: usize, n_writers: usize) -> BusyShares {
        let writer = self.placing.share(wall, 1).max(self.writing.share(wall, n_writers));
        BTreeMap::from([
            ("tokenizer", self.tokenizer.share(wall, 1)),
            ("encoder", self.encoder.share(wall, n_workers)),
            ("writer", writer),
        ])
    }
}

/// Returns the part that was at work for most of the time, if for more than half of it: what the others waited for.
pub(crate) fn bound_by(shares: &BusyShares) -> Option<&'static str> {
    let most = shares.iter().max_by(|one, other| one.1.total_cmp(other.1));
    most.filter(|(_, share)| **share > 0.5).map(|(name, _)| *name)
}

/// Returns the shares of two extractions together, given how long each took.
pub(crate) fn together(one: (&BusyShares, f64), other: (&BusyShares, f64)) -> BusyShares {
    let mut joined = BusyShares::new();
    let seconds = (one.1 + other.1).max(f64::MIN_POSITIVE);
    for (shares, own) in [one, other] {
        for (name, share) in shares {
            *joined.entry(name).or_default() += share * own / seconds;
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_at_work_for_most_of_the_time_bounds_the_speed() {
        let busy = BusyTimes::default();
        let seconds = Duration::from_secs;
        busy.tokenizer.add(seconds(1));
        busy.encoder.add(seconds(30));
        busy.placing.add(seconds(2));
        busy.writing.add(seconds(8));
        let shares = busy.shares(seconds(10), 4, 2);
        let expected = [("encoder", 0.75), ("tokenizer", 0.1), ("writer", 0.4)];
        assert_eq!(shares, BTreeMap::from(expected));
        assert_eq!(bound_by(&shares), Some("encoder"));
        let other = BTreeMap::from([("encoder", 0.15), ("tokenizer", 0.9), ("writer", 0.0)]);
        let both = together((&shares, 10.0), (&other, 30.0));
        assert!((both["tokenizer"] - 0.7).abs() < 1e-12 && (both["encoder"] - 0.3).abs() < 1e-12);
        assert_eq!(bound_by(&both), Some("tokenizer"));
        assert_eq!(together((&shares, 1.0), (&BusyShares::new(), 0.0)), shares);
        assert_eq!(bound_by(&BusyShares::new()), None);
        assert_eq!(bound_by(&BTreeMap::from([("encoder", 0.5), ("writer", 0.4)])), None);
    }
}

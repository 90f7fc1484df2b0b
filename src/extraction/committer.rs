//! Writes complete shards side by side and commits them in order: the committed shards are always the first of the
//! extraction, so that a resumed one ends in the same bytes.

use std::{
    collections::{BTreeMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread::Scope,
};

use crossbeam_channel::{Receiver, Sender, bounded};
use frostbert_cache::{
    batch_log::BatchLogs,
    plan::{PlanSettings, PlannedShard},
    staging::{ShardPlace, WrittenShard},
    writer::CacheWriter,
};

use crate::{
    encoder::device::Devices,
    error::{Error, Result},
    extraction::{busy::BusyTime, filling_shard::FillingShard},
};

/// Returns the number of shards that are written at once, and so the most that are complete but not committed: what a
/// full disk or a kill can cost, and their states' memory. One thread writes more than a CPU encodes; a GPU fills
/// shards faster.
pub(crate) fn shards_at_once(devices: &Devices) -> usize {
    match devices {
        Devices::Cpu => 2,
        Devices::Cuda(_) => 4,
    }
}

/// Hands shards to the threads that write them, and commits what they wrote.
pub(crate) struct Committer<'a> {
    settings: &'a PlanSettings,
    writer: &'a mut CacheWriter,
    at_once: usize,
    logs: Option<&'a BatchLogs>,
    /// Counts the time that commits take.
    busy: &'a BusyTime,
    complete: Sender<(usize, ShardPlace, FillingShard)>,
    written: Receiver<(usize, Result<WrittenShard>)>,
    /// The shards that were handed over and are not committed, in order.
    in_writing: VecDeque<Arc<PlannedShard>>,
    /// Shards that were written, or failed, before their turn.
    early: BTreeMap<usize, Result<WrittenShard>>,
    /// Number of shards that were handed over, which is the number of the next one.
    pub(crate) handed: usize,
    committed: usize,
    bytes: u64,
}

impl<'a> Committer<'a> {
    /// Starts the threads, each of which calls `write` for one shard after the other.
    pub(crate) fn new<'scope>(
        settings: &'a PlanSettings,
        writer: &'a mut CacheWriter,
        scope: &'scope Scope<'scope, '_>,
        at_once: usize,
        logs: Option<&'a BatchLogs>,
        busy: &'a BusyTime,
        write: impl Fn(ShardPlace, FillingShard) -> Result<WrittenShard> + Copy + Send + 'scope,
    ) -> Committer<'a> {
        let (complete, waiting) = bounded::<(usize, ShardPlace, FillingShard)>(at_once);
        let (sender, written) = bounded(at_once);
        for _ in 0..at_once {
            let (waiting, sender) = (waiting.clone(), sender.clone());
            scope.spawn(move || {
                for (number, place, filling) in waiting {
                    // A panic is passed on as an error: the other threads stay alive, so the receiver would wait
                    // forever.
                    let made = AssertUnwindSafe(|| write(place, filling));
                    let written = catch_unwind(made).unwrap_or_else(|_| Err(thread_ended()));
                    // If the receiver is gone, another error came first; what was written is removed.
                    if sender.send((number, written)).is_err() {
                        return;
                    }
                }
            });
        }
        Committer {
            settings,
            writer,
            at_once,
            logs,
            busy,
            complete,
            written,
            in_writing: VecDeque::new(),
            early: BTreeMap::new(),
            handed: 0,
            committed: 0,
            bytes: 0,
        }
    }

    /// Hands over the next shard; waits while as many are being written as may be.
    ///
    /// # Errors
    /// Returns an error if an earlier shard could not be written or committed.
    pub(crate) fn hand_over(&mut self, filling: FillingShard) -> Result<()> {
        let planned = Arc::clone(&filling.planned);
        while self.in_writing.len() >= self.at_once || self.is_in_writing(&planned) {
            self.wait()?;
        }
        let place = self.writer.place(&planned);
        let sent = self.complete.send((self.handed, place, filling));
        sent.map_err(|_| thread_ended())?;
        self.in_writing.push_back(planned);
        self.handed += 1;
        Ok(())
    }

    /// Whether states of the same shard are yet to be committed: what is added next depends on the files that it has
    /// then.
    fn is_in_writing(&self, planned: &PlannedShard) -> bool {
        self.in_writing.iter().any(|other| other.name == planned.name)
    }

    /// Commits the shards that were written in the meantime, without waiting.
    ///
    /// # Errors
    /// Returns an error if a shard could not be written or committed; everything committed before is kept.
    pub(crate) fn commit_written(&mut self) -> Result<()> {
        while let Ok((number, written)) = self.written.try_recv() {
            self.commit(number, written)?;
        }
        Ok(())
    }

    /// Waits for all shards that were handed over, and commits them.
    ///
    /// # Errors
    /// Returns the errors of [`Committer::commit_written`].
    pub(crate) fn commit_handed(&mut self) -> Result<()> {
        while self.committed < self.handed {
            self.wait()?;
        }
        Ok(())
    }

    /// Waits for all shards that were handed over and returns the number of bytes that were committed. `n_shards` is
    /// how many there are in all, if all were planned.
    ///
    /// # Errors
    /// Returns the errors of [`Committer::commit_written`], and an error if not all shards were handed over because a
    /// worker thread ended.
    pub(crate) fn finish(mut self, n_shards: Option<usize>) -> Result<u64> {
        self.commit_handed()?;
        if n_shards == Some(self.committed) { Ok(self.bytes) } else { Err(thread_ended()) }
    }

    fn wait(&mut self) -> Result<()> {
        let (number, written) = self.written.recv().map_err(|_| thread_ended())?;
        self.commit(number, written)
    }

    /// Commits a shard and those after it that are written, or keeps it until its turn. If it could not be written,
    /// those before it are committed all the same.
    fn commit(&mut self, number: usize, written: Result<WrittenShard>) -> Result<()> {
        self.early.insert(number, written);
        while let Some(written) = self.early.remove(&self.committed) {
            let written = written?;
            let (busy, writer) = (self.busy, &mut *self.writer);
            self.bytes += busy.during(|| writer.commit(written))?;
            let planned = self.in_writing.pop_front().expect("it was handed over");
            if let Some(logs) = self.logs {
                logs.remove(self.settings, &planned)?;
            }
            self.committed += 1;
        }
        Ok(())
    }
}

/// Returns the error for a thread that ended early.
pub(crate) fn thread_ended() -> Error {
    Error::Encoder { action: "finish", reason: "a worker thread ended before its work did".into() }
}

//! Complete shards, written side by side and committed in their order: what is committed is always the beginning of the
//! plan, so that a resumed extraction ends in the same bytes.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    thread::Scope,
};

use crossbeam_channel::{Receiver, Sender, bounded};
use frostbert_cache::{
    batch_log::BatchLogs,
    plan::{ExtractionPlan, PlannedShard},
    staging::{ShardPlace, WrittenShard},
    writer::CacheWriter,
};

use crate::{
    encoder::device::Devices,
    error::{Error, Result},
    extraction::filling_shard::FillingShard,
};

/// Shards in writing at once, and so the most that are complete and not committed: what a full disk or a kill can cost, and
/// their states' memory. One thread writes more than a CPU encodes; a GPU fills shards faster.
pub(crate) fn shards_at_once(devices: &Devices) -> usize {
    match devices {
        Devices::Cpu => 2,
        Devices::Cuda(_) => 4,
    }
}

/// Hands shards to the threads that write them, and commits what they wrote.
pub(crate) struct Committer<'a> {
    plan: &'a ExtractionPlan,
    writer: &'a mut CacheWriter,
    at_once: usize,
    logs: Option<&'a BatchLogs>,
    complete: Sender<(usize, ShardPlace, FillingShard)>,
    written: Receiver<(usize, Result<WrittenShard>)>,
    /// Written, or failed, before their turn.
    early: BTreeMap<usize, Result<WrittenShard>>,
    /// Shards that were handed over: the number of the next.
    pub(crate) handed: usize,
    committed: usize,
    bytes: u64,
}

impl<'a> Committer<'a> {
    /// Starts the threads, each of which calls `write` for one shard after the other.
    pub(crate) fn new<'scope>(
        plan: &'a ExtractionPlan,
        writer: &'a mut CacheWriter,
        scope: &'scope Scope<'scope, '_>,
        at_once: usize,
        logs: Option<&'a BatchLogs>,
        write: impl Fn(usize, ShardPlace, FillingShard) -> Result<WrittenShard> + Copy + Send + 'scope,
    ) -> Committer<'a> {
        let (complete, waiting) = bounded::<(usize, ShardPlace, FillingShard)>(at_once);
        let (sender, written) = bounded(at_once);
        for _ in 0..at_once {
            let (waiting, sender) = (waiting.clone(), sender.clone());
            scope.spawn(move || {
                for (number, place, filling) in waiting {
                    // Whoever waits for this shard must hear of a panic: the other threads go on waiting for work.
                    let made = AssertUnwindSafe(|| write(number, place, filling));
                    let written = catch_unwind(made).unwrap_or_else(|_| Err(thread_ended()));
                    // Nobody listening means that an error goes first; what was written is removed.
                    if sender.send((number, written)).is_err() {
                        return;
                    }
                }
            });
        }
        Committer {
            plan,
            writer,
            at_once,
            logs,
            complete,
            written,
            early: BTreeMap::new(),
            handed: 0,
            committed: 0,
            bytes: 0,
        }
    }

    /// Hands the next shard of the plan over; waits while as many are in writing as may be.
    ///
    /// # Errors
    /// When an earlier shard could not be written or committed.
    pub(crate) fn hand_over(&mut self, filling: FillingShard) -> Result<()> {
        let planned = &self.plan.shards[self.handed];
        while self.handed - self.committed >= self.at_once || self.is_in_writing(planned) {
            self.wait()?;
        }
        let place = self.writer.place(planned);
        let sent = self.complete.send((self.handed, place, filling));
        sent.map_err(|_| thread_ended())?;
        self.handed += 1;
        Ok(())
    }

    /// Whether states of the same shard are yet to be committed: what is added next depends on which files it has then.
    fn is_in_writing(&self, planned: &PlannedShard) -> bool {
        let mut before = self.plan.shards[self.committed..self.handed].iter();
        before.any(|other| other.name == planned.name)
    }

    /// Commits what was written meanwhile; does not wait.
    ///
    /// # Errors
    /// When a shard could not be written, or the disk refuses; everything committed before stands.
    pub(crate) fn commit_written(&mut self) -> Result<()> {
        while let Ok((number, written)) = self.written.try_recv() {
            self.commit(number, written)?;
        }
        Ok(())
    }

    /// Waits for all shards that were handed over, and commits them.
    ///
    /// # Errors
    /// As [`Committer::commit_written`].
    pub(crate) fn commit_handed(&mut self) -> Result<()> {
        while self.committed < self.handed {
            self.wait()?;
        }
        Ok(())
    }

    /// Waits for all shards of the plan and returns the bytes that were committed.
    ///
    /// # Errors
    /// As [`Committer::commit_written`]; when not all shards were handed over, because a thread of the workers ended.
    pub(crate) fn finish(mut self) -> Result<u64> {
        self.commit_handed()?;
        if self.committed == self.plan.shards.len() { Ok(self.bytes) } else { Err(thread_ended()) }
    }

    fn wait(&mut self) -> Result<()> {
        let (number, written) = self.written.recv().map_err(|_| thread_ended())?;
        self.commit(number, written)
    }

    /// Commits a shard, and those after it that are written, or keeps it until its turn: where it could not be written,
    /// those before it are committed all the same.
    fn commit(&mut self, number: usize, written: Result<WrittenShard>) -> Result<()> {
        self.early.insert(number, written);
        while let Some(written) = self.early.remove(&self.committed) {
            self.bytes += self.writer.commit(written?)?;
            if let Some(logs) = self.logs {
                logs.remove(self.plan, &self.plan.shards[self.committed])?;
            }
            self.committed += 1;
        }
        Ok(())
    }
}

/// What to say where a thread ended early.
pub(crate) fn thread_ended() -> Error {
    Error::Encoder { action: "finish", reason: "a worker thread ended before its work did".into() }
}

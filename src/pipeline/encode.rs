//! Stage 1 at work: batches are planned, encoded on every worker, placed, and committed, with bounded queues between.

use std::collections::BTreeMap;

use crossbeam_channel::{Receiver, Sender, bounded};

use super::spool::{Spool, SpooledDocument};
use crate::{
    cache::{
        plan::ExtractionPlan,
        shard::{DocumentRow, OpenShard, ShardOrigin},
        writer::CacheWriter,
    },
    data::Source,
    encoder::{Encoder, Worker, plan::plan_batches, session::Batch},
    error::{Error, Result},
    progress::Progress,
    states::StateRows,
};

/// Batches that wait for each worker, and results that wait for the writer.
const QUEUE_PER_WORKER: usize = 8;

/// What was encoded and written.
#[derive(Default)]
pub(super) struct Totals {
    pub(super) tokens: u64,
    padded_tokens: u64,
    pub(super) bytes: u64,
}

impl Totals {
    /// Real tokens over padded tokens.
    pub(super) fn padding_efficiency(&self) -> f64 {
        if self.padded_tokens == 0 {
            1.0
        } else {
            self.tokens as f64 / self.padded_tokens as f64
        }
    }
}

/// A batch on its way to a worker.
struct PlannedBatch {
    shard: usize,
    positions: Vec<u32>,
    documents: Vec<SpooledDocument>,
    batch: Batch,
}

/// A batch on its way to the writer.
struct EncodedBatch {
    shard: usize,
    positions: Vec<u32>,
    tokens: u64,
    padded_tokens: u64,
    rows: Vec<StateRows>,
}

/// An extraction: its plan, and what it works on.
pub(super) struct Job<'a> {
    pub(super) plan: &'a ExtractionPlan,
    pub(super) spool: &'a Spool,
    pub(super) sources: &'a [Source],
    /// Bytes of one state of one document.
    pub(super) row_bytes: usize,
}

impl Job<'_> {
    /// `read batches | one worker per session | place and commit`, with bounded queues between; this thread commits.
    pub(super) fn run(
        &self,
        encoder: &mut Encoder,
        writer: &mut CacheWriter,
        origin: &ShardOrigin,
        progress: &dyn Progress,
    ) -> Result<Totals> {
        let workers = encoder.workers();
        let capacity = workers.len() * QUEUE_PER_WORKER;
        let (batch_sender, batches) = bounded::<Result<PlannedBatch>>(capacity);
        let (result_sender, results) = bounded::<Result<EncodedBatch>>(capacity);
        let first = writer.manifest().shards.len() - self.plan.first_shard;
        std::thread::scope(|scope| {
            scope.spawn(move || self.feed(first, &batch_sender));
            for worker in workers {
                let (batches, results) = (batches.clone(), result_sender.clone());
                scope.spawn(move || self.work(worker, &batches, &results));
            }
            // Only the threads hold these ends now: when they stop, whoever waits for them stops too.
            drop((batches, result_sender));
            self.commit_all(first, results, writer, origin, progress)
        })
    }

    /// Sends the batches of every shard that is still to do, in order, until nobody listens.
    fn feed(&self, first: usize, batches: &Sender<Result<PlannedBatch>>) {
        for shard in first..self.plan.shards.len() {
            let documents = self.documents(shard);
            let lengths: Vec<u32> = documents.iter().map(|document| document.n_tokens).collect();
            for positions in plan_batches(&lengths, self.plan.settings.batch_tokens) {
                let planned = self.plan_batch(shard, positions, &documents);
                let failed = planned.is_err();
                if batches.send(planned).is_err() || failed {
                    return;
                }
            }
        }
    }

    fn plan_batch(
        &self,
        shard: usize,
        positions: Vec<u32>,
        documents: &[SpooledDocument],
    ) -> Result<PlannedBatch> {
        let documents: Vec<SpooledDocument> = positions
            .iter()
            .map(|position| documents[*position as usize])
            .collect();
        let ids = documents
            .iter()
            .map(|document| self.spool.read_ids(document))
            .collect::<Result<Vec<Vec<u32>>>>()?;
        let batch = Batch::new(ids.iter().map(|ids| (&ids[..], &[][..])));
        Ok(PlannedBatch {
            shard,
            positions,
            documents,
            batch,
        })
    }

    fn documents(&self, shard: usize) -> Vec<SpooledDocument> {
        let keys = self.plan.shards[shard].iter();
        keys.map(|key| {
            *self
                .spool
                .find(key)
                .expect("a plan that fits names spooled documents")
        })
        .collect()
    }

    fn work(
        &self,
        worker: &mut Worker,
        batches: &Receiver<Result<PlannedBatch>>,
        results: &Sender<Result<EncodedBatch>>,
    ) {
        for planned in batches {
            let encoded = planned.and_then(|planned| {
                let name_of = |row: usize| planned.documents[row].place(self.sources);
                let rows = worker.run(&planned.batch, name_of)?;
                Ok(EncodedBatch {
                    shard: planned.shard,
                    tokens: planned.batch.tokens(),
                    padded_tokens: (planned.batch.windows() * planned.batch.width) as u64,
                    positions: planned.positions,
                    rows,
                })
            });
            let failed = encoded.is_err();
            if results.send(encoded).is_err() || failed {
                return;
            }
        }
    }

    /// Places batches as they come and commits shards in their order.
    fn commit_all(
        &self,
        first: usize,
        results: Receiver<Result<EncodedBatch>>,
        writer: &mut CacheWriter,
        origin: &ShardOrigin,
        progress: &dyn Progress,
    ) -> Result<Totals> {
        let mut totals = Totals::default();
        let mut open: BTreeMap<usize, OpenShard> = BTreeMap::new();
        let mut next = first;
        for encoded in results {
            let encoded = encoded?;
            let shard = open
                .entry(encoded.shard)
                .or_insert_with(|| self.open_shard(encoded.shard));
            shard.place(&encoded.positions, &encoded.rows);
            totals.tokens += encoded.tokens;
            totals.padded_tokens += encoded.padded_tokens;
            progress.advance(encoded.positions.len() as u64, encoded.tokens);
            while open.get(&next).is_some_and(OpenShard::is_complete) {
                let complete = open.remove(&next).expect("just looked at");
                totals.bytes += writer.commit(complete, origin)?;
                next += 1;
            }
        }
        if next < self.plan.shards.len() {
            return Err(Error::Encoder {
                action: "finish",
                reason: "a worker thread ended before its work did".into(),
            });
        }
        Ok(totals)
    }

    fn open_shard(&self, shard: usize) -> OpenShard {
        let documents = self
            .documents(shard)
            .into_iter()
            .map(|document| DocumentRow {
                key: document.key,
                n_tokens: document.n_tokens,
                truncated: document.truncated,
            });
        OpenShard::new(
            documents.collect(),
            &self.plan.settings.states,
            self.row_bytes,
        )
    }
}

//! The work of stage 1: shards are tokenised, their batches planned, encoded on every worker, placed and committed,
//! with bounded queues in between.

mod logged;
mod shard_batches;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    slice,
    sync::Arc,
    time::Instant,
};

use crossbeam_channel::{Receiver, Sender, bounded};
use frostbert_cache::{
    batch_log::BatchLogs,
    fingerprint::Key,
    manifest::Origin,
    plan::{PlanSettings, PlannedShard},
    progress::Progress,
    shard::{OpenShard, ShardLayout, WindowPlace},
    staging::{ShardPlace, WrittenShard},
    states::{BatchStates, Dtype, Placement},
    writer::CacheWriter,
};

use crate::{
    data::Source,
    encoder::{
        Encoder, Request, Worker,
        session::TokenBatch,
        windows::Encoding,
        worker::{Computed, run_batches},
    },
    error::Result,
    extraction::{
        busy::{BusyShares, BusyTimes},
        committer::{Committer, shards_at_once, thread_ended},
        filling_shard::FillingShard,
        parity,
        spool::Spool,
        tokenised::TokenisedShard,
    },
};

/// Number of batches that wait for each worker, and of results that wait for the writer.
const QUEUE_PER_WORKER: usize = 8;

/// Number of tokenised shards that wait for their batches to be planned.
const SHARDS_AHEAD: usize = 2;

/// The totals of what was encoded and written.
#[derive(Default)]
pub(crate) struct EncodingTotals {
    pub(crate) tokens: u64,
    padded_tokens: u64,
    pub(crate) bytes: u64,
    /// The share of the time in which each part was at work; empty if nothing was encoded.
    pub(crate) busy: BusyShares,
}

impl EncodingTotals {
    /// Returns the ratio of real tokens to padded tokens; 1 if nothing was encoded.
    pub(crate) fn padding_efficiency(&self) -> f64 {
        if self.padded_tokens == 0 { 1.0 } else { self.tokens as f64 / self.padded_tokens as f64 }
    }
}

/// Some windows of a shard, or of its parity sample, on their way to a worker.
struct PlannedBatch {
    shard: usize,
    planned: Arc<PlannedShard>,
    /// Its number among the batches of its shard.
    number: u32,
    in_sample: bool,
    places: Vec<WindowPlace>,
    /// The spooled documents of the windows, for messages.
    documents: Vec<u32>,
    /// The positions of each window's words.
    words: Vec<Vec<u16>>,
    /// The number of tokens of each window that pooling leaves out.
    left_out: Vec<u32>,
    batch: TokenBatch,
}

/// What the thread that places states receives.
enum Arrival {
    /// A shard, before its first batch.
    Shard(Box<ShardStart>),
    /// The states of a batch.
    Batch(EncodedBatch),
    /// The number of all shards, when the batches of all were sent to the workers.
    AllShards(usize),
}

/// A shard of which no batch has arrived yet.
struct ShardStart {
    shard: usize,
    planned: Arc<PlannedShard>,
    layout: ShardLayout,
    /// The documents of its parity sample, as rows of the shard, and their layout.
    sampled: Vec<usize>,
    of_sample: ShardLayout,
}

/// A batch on its way to the writer.
struct EncodedBatch {
    shard: usize,
    number: u32,
    /// Whether an earlier process encoded it.
    is_logged: bool,
    in_sample: bool,
    places: Vec<WindowPlace>,
    tokens: u64,
    padded_tokens: u64,
    states: Vec<BatchStates>,
}

/// An extraction: its settings, and the data that it works on.
pub(crate) struct ExtractionJob<'a> {
    pub(crate) settings: PlanSettings,
    pub(crate) spool: &'a Spool,
    pub(crate) sources: &'a [Source],
    pub(crate) hidden: usize,
    pub(crate) dtype: Dtype,
}

/// The device and the library that compute the states.
pub(crate) struct ComputedBy {
    pub(crate) device: String,
    pub(crate) placement: Option<Placement>,
    pub(crate) onnxruntime: String,
}

impl ExtractionJob<'_> {
    /// Runs `tokenise | plan batches | one worker per thread or GPU | place | write shards | commit`, with bounded
    /// queues in between; this thread places and commits.
    ///
    /// Shards and batches are made in an order, and shards are committed in that order, so what is written does not
    /// depend on which of the threads is the fastest.
    pub(crate) fn run(
        &self,
        mut shards: impl Iterator<Item = Result<TokenisedShard>> + Send,
        encoder: &mut Encoder,
        writer: &mut CacheWriter,
        computer: &ComputedBy,
        progress: &dyn Progress,
    ) -> Result<EncodingTotals> {
        let at_once = shards_at_once(&encoder.devices);
        let logs = self.logs(&encoder.devices, writer.folder(), computer);
        let logs = logs.as_ref();
        let (workers, reference) = encoder.workers();
        let n_workers = workers.len();
        let capacity = n_workers * QUEUE_PER_WORKER;
        let busy = &BusyTimes::default();
        let start = Instant::now();
        let (shard_sender, tokenised) = bounded::<Result<TokenisedShard>>(SHARDS_AHEAD);
        let (batch_sender, batches) = bounded::<Result<PlannedBatch>>(capacity);
        let (result_sender, results) = bounded::<Result<Arrival>>(capacity);
        let totals = std::thread::scope(|scope| {
            // If the workers compute in f32 on a CPU, they compute the samples too.
            let sample_sender = match reference {
                None => batch_sender.clone(),
                Some(worker) => {
                    let (sender, samples) = bounded(QUEUE_PER_WORKER);
                    let results = result_sender.clone();
                    // Not counted: it only computes the parity sample.
                    let uncounted = BusyTimes::default();
                    scope.spawn(move || {
                        self.work(slice::from_mut(worker), samples, &results, &uncounted);
                    });
                    sender
                }
            };
            scope.spawn(move || {
                while let Some(shard) = busy.tokenizer.during(|| shards.next()) {
                    // If the receiver is gone, another error came first.
                    if shard_sender.send(shard).is_err() {
                        return;
                    }
                }
            });
            let logged = result_sender.clone();
            scope.spawn(move || self.feed(tokenised, &batch_sender, &sample_sender, logs, &logged));
            // Only the threads hold the ends of the queues: when they stop, the threads that wait for them stop too.
            scope.spawn(move || self.work(workers, batches, &result_sender, busy));
            let write =
                move |place, filling| busy.writing.during(|| self.write(place, filling, computer));
            let committing = &busy.placing;
            let committer =
                Committer::new(&self.settings, writer, scope, at_once, logs, committing, write);
            self.place_all(results, committer, logs, busy, progress)
        })?;
        Ok(EncodingTotals { busy: busy.shares(start.elapsed(), n_workers, at_once), ..totals })
    }

    /// Sends the batches of every shard, in order, until the receiver is gone: to the workers or, if an earlier process
    /// encoded them, straight to be placed.
    fn feed(
        &self,
        shards: Receiver<Result<TokenisedShard>>,
        batches: &Sender<Result<PlannedBatch>>,
        samples: &Sender<Result<PlannedBatch>>,
        logs: Option<&BatchLogs>,
        results: &Sender<Result<Arrival>>,
    ) {
        let mut n_shards = 0;
        for shard in shards {
            let shard = match shard {
                Ok(shard) => shard,
                Err(error) => {
                    // If the receiver is gone, another error came first.
                    let _ = batches.send(Err(error));
                    return;
                }
            };
            let (start, planned) = self.plan_shard(n_shards, shard);
            let mut logged =
                logs.map_or_else(BTreeMap::new, |logs| logs.read(&self.settings, &start.planned));
            if results.send(Ok(Arrival::Shard(Box::new(start)))).is_err() {
                return;
            }
            n_shards += 1;
            for batch in planned {
                let states = logged.remove(&batch.number);
                let queue = if batch.in_sample { samples } else { batches };
                let is_sent = match states.filter(|states| self.fits(&batch, states)) {
                    Some(states) => {
                        results.send(Ok(Arrival::Batch(batch.encoded(states, true)))).is_ok()
                    }
                    None => queue.send(Ok(batch)).is_ok(),
                };
                if !is_sent {
                    return;
                }
            }
        }
        let _ = results.send(Ok(Arrival::AllShards(n_shards)));
    }

    /// Encodes batches as they arrive and sends them on; an error is the last to be sent.
    fn work(
        &self,
        workers: &mut [Worker],
        batches: Receiver<Result<PlannedBatch>>,
        results: &Sender<Result<Arrival>>,
        busy: &BusyTimes,
    ) {
        let worked = run_batches(
            workers,
            batches.into_iter(),
            |planned| &planned.batch,
            |planned, computed| {
                busy.encoder.add(computed.took);
                let encoded = self.finish(planned, computed)?;
                // If the receiver is gone, another error came first.
                results.send(Ok(Arrival::Batch(encoded))).map_err(|_| thread_ended())
            },
            || (),
        );
        if let Err(error) = worked {
            let _ = results.send(Err(error));
        }
    }

    /// Returns the states of a computed batch in the form in which they are stored.
    fn finish(&self, planned: PlannedBatch, computed: Computed) -> Result<EncodedBatch> {
        let name_of = |row: usize| self.spool.document(planned.documents[row]).place(self.sources);
        let request = Request {
            states: &planned.planned.states,
            dtype: if planned.in_sample { Dtype::F32 } else { self.dtype },
            stored: self.dtype,
            words: &planned.words,
            left_out: &planned.left_out,
        };
        let states = computed.finish(request, name_of)?;
        Ok(planned.encoded(states, false))
    }

    /// Places batches as they arrive and hands over complete shards, in order.
    fn place_all(
        &self,
        results: Receiver<Result<Arrival>>,
        mut committer: Committer<'_>,
        logs: Option<&BatchLogs>,
        busy: &BusyTimes,
        progress: &dyn Progress,
    ) -> Result<EncodingTotals> {
        let mut totals = EncodingTotals::default();
        let mut n_shards = None;
        let mut starts: BTreeMap<usize, ShardStart> = BTreeMap::new();
        let mut open: BTreeMap<usize, FillingShard> = BTreeMap::new();
        for arrival in results {
            let encoded = match arrival {
                Ok(Arrival::Batch(encoded)) => encoded,
                Ok(Arrival::Shard(start)) => {
                    starts.insert(start.shard, *start);
                    continue;
                }
                Ok(Arrival::AllShards(n)) => {
                    n_shards = Some(n);
                    continue;
                }
                Err(error) => {
                    // Complete shards are kept; if that fails too, the first error is the one to report.
                    let _ = committer.commit_handed();
                    return Err(error);
                }
            };
            let filling = match open.entry(encoded.shard) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    let start = starts.remove(&encoded.shard);
                    let start = start.expect("a shard comes before its batches");
                    entry.insert(self.open_shard(start, logs))
                }
            };
            busy.placing.during(|| filling.place(&encoded));
            if !encoded.in_sample {
                if !encoded.is_logged {
                    totals.tokens += encoded.tokens;
                    totals.padded_tokens += encoded.padded_tokens;
                }
                let documents = encoded.places.iter().filter(|(_, window)| *window == 0);
                progress.advance(documents.count() as u64, encoded.tokens);
            }
            while open.get(&committer.handed).is_some_and(FillingShard::is_complete) {
                let complete = open.remove(&committer.handed).expect("just looked at");
                committer.hand_over(complete)?;
            }
            committer.commit_written()?;
        }
        totals.bytes = committer.finish(n_shards)?;
        Ok(totals)
    }

    /// Compares a complete shard with its sample and writes its files, ready to be committed.
    fn write(
        &self,
        place: ShardPlace,
        filling: FillingShard,
        computer: &ComputedBy,
    ) -> Result<WrittenShard> {
        let FillingShard { planned, shard, sample, sampled, log: _ } = filling;
        let origin = Origin {
            states: planned.states.clone(),
            device: computer.device.clone(),
            placement: computer.placement.clone(),
            onnxruntime: computer.onnxruntime.clone(),
            batch_tokens: self.settings.batch_tokens,
            parity: parity::compare(&shard, self.dtype, self.hidden, &sampled, &sample),
        };
        Ok(place.write(shard, origin)?)
    }

    fn open_shard(&self, start: ShardStart, logs: Option<&BatchLogs>) -> FillingShard {
        let ShardStart { shard: _, planned, layout, sampled, of_sample } = start;
        FillingShard {
            shard: OpenShard::new(layout, &planned.states, self.hidden, self.dtype),
            sample: OpenShard::new(of_sample, &planned.states, self.hidden, Dtype::F32),
            sampled,
            log: logs.and_then(|logs| logs.append_to(&self.settings, &planned)),
            planned,
        }
    }
}

impl FillingShard {
    /// Logs and places a batch.
    fn place(&mut self, encoded: &EncodedBatch) {
        if let Some(log) = self.log.as_mut().filter(|_| !encoded.is_logged)
            && !log.append(encoded.number, &encoded.states)
        {
            self.log = None;
        }
        let shard = if encoded.in_sample { &mut self.sample } else { &mut self.shard };
        shard.place(&encoded.places, &encoded.states);
    }
}

/// Returns some windows of documents as the model reads them; if word states are stored, the positions of each window's
/// words; and how many tokens of each window pooling leaves out.
pub(crate) fn batch_of(
    encodings: &[Encoding],
    places: &[WindowPlace],
    stores_words: bool,
) -> (TokenBatch, Vec<Vec<u16>>, Vec<u32>) {
    let batch = TokenBatch::new(places.iter().map(|(document, window)| {
        let window = &encodings[*document as usize].windows[usize::from(*window)];
        (&window.ids[..], &window.type_ids[..])
    }));
    let words = places.iter().map(|(document, window)| {
        let words = encodings[*document as usize].words.iter();
        let own = words.filter(|word| stores_words && word.window == *window);
        own.map(|word| word.position).collect()
    });
    let left_out = places.iter().map(|(document, _)| encodings[*document as usize].left_out);
    (batch, words.collect(), left_out.collect())
}

/// Adds a document to a layout, with the parts of its alignment that are stored.
pub(crate) fn lay_out(
    layout: &mut ShardLayout,
    key: Key,
    encoding: &Encoding,
    stores_tokens: bool,
    stores_words: bool,
) {
    let alignments = encoding.windows.iter().map(|window| &window.alignment);
    layout.push(
        key,
        encoding.truncated,
        &encoding.lengths().collect::<Vec<u32>>(),
        alignments.filter(|_| stores_tokens),
        if stores_words { &encoding.words } else { &[] },
    );
}

//! Encodes a stream of texts without a pause: while the workers encode one chunk, the next is read and tokenised on a
//! thread of its own, and the calling thread uses the one before.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use crossbeam_channel::{Receiver, Sender, bounded};
use frostbert_cache::shard::OpenShard;

use crate::{
    data::{StopReading, document::Document},
    encoder::{Encoder, worker::run_batches},
    error::Result,
    extraction::{
        committer::thread_ended,
        embedder::{EncodeRequest, EncodedTexts, TextBatch, TextEncoder},
    },
};

/// Some texts that are encoded together.
pub(crate) trait ChunkOfTexts: Send + Sync {
    /// Returns the texts to encode, in order; there may be none.
    fn documents(&self) -> Vec<Document<'_>>;
}

/// How large a batch may be.
#[derive(Clone, Copy)]
struct BatchLimits {
    tokens: usize,
    rows: usize,
}

/// A chunk on its way through the encoder.
struct ChunkInWork<C> {
    number: usize,
    chunk: C,
    shard: Mutex<OpenShard>,
    truncated: u64,
}

/// A chunk that was tokenised.
enum PlannedChunk<C> {
    /// Its batches, each of which holds the chunk: whoever drops the last of them has the complete chunk.
    Batches(Vec<(Arc<ChunkInWork<C>>, TextBatch)>),
    /// It has no text to encode.
    Nothing(Box<ChunkInWork<C>>),
}

impl TextEncoder {
    /// Encodes chunks of texts. Batches are planned within a chunk, but the workers go from one chunk to the next without
    /// waiting for each other. `take` gets the chunks in order, on this thread, and returns whether to go on. A few chunks
    /// are in memory at a time, however many there are. When no more of them are needed, `stop` ends the wait for them.
    ///
    /// # Errors
    /// Returns the first error of `take`; or else that of `chunks`, of the tokenizer or of the encoder, after the chunks
    /// that were complete before it.
    pub(crate) fn encode_chunks<C: ChunkOfTexts>(
        &mut self,
        chunks: impl Iterator<Item = Result<C>> + Send,
        stop: &StopReading,
        mut take: impl FnMut(C, EncodedTexts) -> Result<bool>,
    ) -> Result<()> {
        let TextEncoder { settings, states, hidden, encoder, tokenizer, most_rows, .. } = self;
        let (encoded, truncated) = (&mut self.encoded, &mut self.truncated);
        let request = &EncodeRequest {
            tokenizer,
            states,
            hidden: *hidden,
            dtype: settings.dtype,
            batch_tokens: settings.batch_tokens,
            spreads: false,
        };
        let limits = BatchLimits { tokens: request.most_tokens(encoder), rows: *most_rows };
        // Without capacity: a single chunk waits, as tokens, until the workers have begun the last batches before it.
        let (planned_sender, planned) = bounded(0);
        let (done_sender, done) = bounded(1);
        thread::scope(|scope| {
            scope.spawn(move || plan_chunks(request, limits, chunks, &planned_sender));
            // When the work is done, the sender is dropped, which ends the loop of `take_in_order`.
            let work =
                scope.spawn(move || encode_planned(encoder, request, planned, &done_sender, stop));
            let mut take_next = |chunk: ChunkInWork<C>| {
                let shard = chunk.shard.into_inner().unwrap_or_else(PoisonError::into_inner);
                *encoded += shard.layout().documents.len() as u64;
                *truncated += chunk.truncated;
                take(chunk.chunk, request.encoded(shard))
            };
            let taken = take_in_order(&done, &mut take_next);
            // Whoever still works for a reader that has stopped fails, and that is no error of its own.
            drop(done);
            stop.stop();
            match taken {
                Ok(true) => work.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                Ok(false) => Ok(()),
                Err(error) => Err(error),
            }
        })
    }
}

/// Tokenises chunks and sends them to the workers, until these are gone or there is an error, which is sent last.
fn plan_chunks<C: ChunkOfTexts>(
    request: &EncodeRequest<'_>,
    limits: BatchLimits,
    chunks: impl Iterator<Item = Result<C>>,
    planned: &Sender<Result<PlannedChunk<C>>>,
) {
    for (number, chunk) in chunks.enumerate() {
        let chunk = chunk.and_then(|chunk| plan_chunk(request, limits, number, chunk));
        let is_last = chunk.is_err();
        if planned.send(chunk).is_err() || is_last {
            return;
        }
    }
}

fn plan_chunk<C: ChunkOfTexts>(
    request: &EncodeRequest<'_>,
    limits: BatchLimits,
    number: usize,
    chunk: C,
) -> Result<PlannedChunk<C>> {
    let plan = request.plan(&chunk.documents(), |_| limits.tokens, limits.rows)?;
    let (truncated, batches) = (plan.n_truncated(), plan.batches);
    let shard = Mutex::new(request.open_shard(plan.layout));
    let chunk = ChunkInWork { number, chunk, shard, truncated };
    if batches.is_empty() {
        return Ok(PlannedChunk::Nothing(Box::new(chunk)));
    }
    let chunk = Arc::new(chunk);
    let batches = batches.into_iter().map(|batch| (Arc::clone(&chunk), batch));
    Ok(PlannedChunk::Batches(batches.collect()))
}

/// Runs the batches of planned chunks on all workers and sends on the chunks that are complete.
fn encode_planned<C: ChunkOfTexts>(
    encoder: &mut Encoder,
    request: &EncodeRequest<'_>,
    planned: Receiver<Result<PlannedChunk<C>>>,
    done: &Sender<ChunkInWork<C>>,
    stop: &StopReading,
) -> Result<()> {
    let (workers, _) = encoder.workers();
    let batches = planned.into_iter().flat_map(|chunk| match chunk {
        Ok(PlannedChunk::Batches(batches)) => batches.into_iter().map(Ok).collect::<Vec<_>>(),
        Ok(PlannedChunk::Nothing(chunk)) => match done.send(*chunk) {
            Ok(()) => Vec::new(),
            Err(_) => vec![Err(thread_ended())],
        },
        Err(error) => vec![Err(error)],
    });
    run_batches(
        workers,
        batches,
        |(_, batch)| &batch.batch,
        |(chunk, batch), computed| {
            request.place(&batch, computed, &chunk.shard, || chunk.chunk.documents())?;
            match Arc::into_inner(chunk) {
                Some(complete) => done.send(complete).map_err(|_| thread_ended()),
                None => Ok(()),
            }
        },
        || stop.stop(),
    )
}

/// Hands over chunks in the order of their numbers. Returns `false` if `take` does not want more.
fn take_in_order<C>(
    done: &Receiver<ChunkInWork<C>>,
    take: &mut impl FnMut(ChunkInWork<C>) -> Result<bool>,
) -> Result<bool> {
    // The workers begin chunks in order, so at most the chunks that they work on are waited for.
    let mut early: BTreeMap<usize, ChunkInWork<C>> = BTreeMap::new();
    let mut next = 0;
    for chunk in done {
        early.insert(chunk.number, chunk);
        while let Some(chunk) = early.remove(&next) {
            next += 1;
            if !take(chunk)? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

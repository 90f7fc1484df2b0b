//! The work of stage 1: batches are planned, encoded on every worker, placed and committed, with bounded queues in
//! between.

mod logged;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    slice,
};

use crossbeam_channel::{Receiver, Sender, bounded};
use frostbert_cache::{
    batch_log::BatchLogs,
    fingerprint::Key,
    manifest::Origin,
    plan::ExtractionPlan,
    progress::Progress,
    shard::{OpenShard, ShardLayout, WindowPlace},
    staging::{ShardPlace, WrittenShard},
    states::{BatchStates, Dtype, Placement, StateKind},
    writer::CacheWriter,
};

use crate::{
    data::Source,
    encoder::{
        Encoder, Request, Worker,
        plan::plan_batches,
        session::TokenBatch,
        windows::Encoding,
        worker::{Computed, run_batches},
    },
    error::Result,
    extraction::{
        committer::{Committer, shards_at_once, thread_ended},
        filling_shard::FillingShard,
        parity,
        spool::{Spool, SpooledDocument},
    },
};

/// Number of batches that wait for each worker, and of results that wait for the writer.
const QUEUE_PER_WORKER: usize = 8;

/// The totals of what was encoded and written.
#[derive(Default)]
pub(crate) struct EncodingTotals {
    pub(crate) tokens: u64,
    padded_tokens: u64,
    pub(crate) bytes: u64,
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

/// An extraction: its plan, and the data that it works on.
pub(crate) struct ExtractionJob<'a> {
    pub(crate) plan: &'a ExtractionPlan,
    /// The spooled documents of each planned shard.
    pub(crate) members: &'a [Vec<u32>],
    pub(crate) spool: &'a Spool,
    pub(crate) sources: &'a [Source],
    pub(crate) hidden: usize,
    pub(crate) dtype: Dtype,
    /// Size in bytes of one row of a state.
    pub(crate) row_bytes: usize,
}

/// The device and the library that compute the states.
pub(crate) struct ComputedBy {
    pub(crate) device: String,
    pub(crate) placement: Option<Placement>,
    pub(crate) onnxruntime: String,
}

impl ExtractionJob<'_> {
    /// Returns the number of documents to encode; one that gets states in several shards counts once.
    pub(crate) fn documents(&self) -> u64 {
        self.spool.documents().len() as u64
    }

    /// Returns the number of words of a planned shard.
    pub(crate) fn words(&self, shard: usize) -> u64 {
        let documents = self.members[shard].iter();
        documents.map(|number| u64::from(self.document(*number).n_words)).sum()
    }

    fn document(&self, number: u32) -> &SpooledDocument {
        &self.spool.documents()[number as usize]
    }

    /// Runs `read batches | one worker per session | place | write shards | commit`, with bounded queues in between;
    /// this thread places and commits.
    pub(crate) fn run(
        &self,
        encoder: &mut Encoder,
        writer: &mut CacheWriter,
        computer: &ComputedBy,
        progress: &dyn Progress,
    ) -> Result<EncodingTotals> {
        let at_once = shards_at_once(&encoder.devices);
        let logs = self.logs(&encoder.devices, writer.folder(), computer);
        let logs = logs.as_ref();
        let (workers, reference) = encoder.workers();
        let capacity = workers.len() * QUEUE_PER_WORKER;
        let (batch_sender, batches) = bounded::<Result<PlannedBatch>>(capacity);
        let (result_sender, results) = bounded::<Result<EncodedBatch>>(capacity);
        std::thread::scope(|scope| {
            // If the workers compute in f32 on a CPU, they compute the samples too.
            let sample_sender = match reference {
                None => batch_sender.clone(),
                Some(worker) => {
                    let (sender, samples) = bounded(QUEUE_PER_WORKER);
                    let results = result_sender.clone();
                    scope.spawn(move || self.work(slice::from_mut(worker), samples, &results));
                    sender
                }
            };
            let logged = result_sender.clone();
            scope.spawn(move || self.feed(&batch_sender, &sample_sender, logs, &logged));
            // Only the threads hold the ends of the queues: when they stop, the threads that wait for them stop too.
            scope.spawn(move || self.work(workers, batches, &result_sender));
            let write = move |number, place, filling| self.write(number, place, filling, computer);
            let committer = Committer::new(self.plan, writer, scope, at_once, logs, write);
            self.place_all(results, committer, logs, progress)
        })
    }

    /// Sends the batches of every shard, in order, until the receiver is gone: to the workers or, if an earlier process
    /// encoded them, straight to be placed.
    fn feed(
        &self,
        batches: &Sender<Result<PlannedBatch>>,
        samples: &Sender<Result<PlannedBatch>>,
        logs: Option<&BatchLogs>,
        results: &Sender<Result<EncodedBatch>>,
    ) {
        for (shard, planned_shard) in self.plan.shards.iter().enumerate() {
            let mut logged =
                logs.map_or_else(BTreeMap::new, |logs| logs.read(self.plan, planned_shard));
            let planned = match self.plan_shard(shard) {
                Ok(planned) => planned,
                Err(error) => {
                    // If the receiver is gone, another error came first.
                    let _ = batches.send(Err(error));
                    return;
                }
            };
            for batch in planned {
                let states = logged.remove(&batch.number);
                let queue = if batch.in_sample { samples } else { batches };
                let is_sent = match states.filter(|states| self.fits(&batch, states)) {
                    Some(states) => results.send(Ok(batch.encoded(states, true))).is_ok(),
                    None => queue.send(Ok(batch)).is_ok(),
                };
                if !is_sent {
                    return;
                }
            }
        }
    }

    /// Returns the batches of a shard, followed by the windows of its sample, each in a batch of its own.
    fn plan_shard(&self, shard: usize) -> Result<Vec<PlannedBatch>> {
        let encodings = self.read(shard)?;
        let windows = encodings.iter().enumerate().flat_map(|(row, encoding)| {
            (0..encoding.windows.len()).map(move |window| (row as u32, window as u16))
        });
        let windows: Vec<WindowPlace> = windows.collect();
        let lengths: Vec<u32> = encodings.iter().flat_map(Encoding::lengths).collect();
        let mut batches = Vec::new();
        for rows in plan_batches(&lengths, self.plan.settings.batch_tokens) {
            let places = rows.iter().map(|row| windows[*row as usize]).collect();
            batches.push(self.batch(shard, &encodings, places));
        }
        let sampled = self.sampled(shard);
        for (number, row) in sampled.into_iter().enumerate() {
            for window in 0..encodings[row].windows.len() as u16 {
                let mut batch = self.batch(shard, &encodings, vec![(row as u32, window)]);
                batch.in_sample = true;
                batch.places = vec![(number as u32, window)];
                batches.push(batch);
            }
        }
        for (number, batch) in batches.iter_mut().enumerate() {
            batch.number = number as u32;
        }
        Ok(batches)
    }

    fn batch(
        &self,
        shard: usize,
        encodings: &[Encoding],
        places: Vec<WindowPlace>,
    ) -> PlannedBatch {
        let stores_words = self.stores(shard, StateKind::Words);
        let (batch, words, left_out) = batch_of(encodings, &places, stores_words);
        PlannedBatch {
            shard,
            number: 0,
            in_sample: false,
            documents: places.iter().map(|(row, _)| self.members[shard][*row as usize]).collect(),
            words,
            left_out,
            batch,
            places,
        }
    }

    /// Reads the documents of a shard back from the spool.
    fn read(&self, shard: usize) -> Result<Vec<Encoding>> {
        let documents = self.members[shard].iter();
        documents.map(|number| self.spool.read(self.document(*number))).collect()
    }

    /// Returns the rows of a shard that are its parity sample.
    fn sampled(&self, shard: usize) -> Vec<usize> {
        let documents = self.members[shard].iter();
        let n_tokens = documents.map(|number| self.document(*number).n_tokens);
        parity::choose(&n_tokens.collect::<Vec<u32>>())
    }

    fn stores(&self, shard: usize, kind: StateKind) -> bool {
        let states = &self.plan.shards[shard].states;
        states.iter().any(|state| state.kind == kind)
    }

    /// Returns the layout of some rows of a shard.
    fn layout(
        &self,
        shard: usize,
        encodings: &[Encoding],
        rows: impl Iterator<Item = usize>,
    ) -> ShardLayout {
        let stores_tokens = self.stores(shard, StateKind::Tokens);
        let stores_words = self.stores(shard, StateKind::Words);
        let mut layout = ShardLayout::default();
        for row in rows {
            let (number, encoding) = (self.members[shard][row], &encodings[row]);
            let key = self.document(number).key;
            lay_out(&mut layout, key, encoding, stores_tokens, stores_words);
        }
        layout
    }

    /// Encodes batches as they arrive and sends them on; an error is the last to be sent.
    fn work(
        &self,
        workers: &mut [Worker],
        batches: Receiver<Result<PlannedBatch>>,
        results: &Sender<Result<EncodedBatch>>,
    ) {
        let worked = run_batches(
            workers,
            batches.into_iter(),
            |planned| &planned.batch,
            |planned, computed| {
                let encoded = self.finish(planned, computed)?;
                // If the receiver is gone, another error came first.
                results.send(Ok(encoded)).map_err(|_| thread_ended())
            },
        );
        if let Err(error) = worked {
            let _ = results.send(Err(error));
        }
    }

    /// Returns the states of a computed batch in the form in which they are stored.
    fn finish(&self, planned: PlannedBatch, computed: Computed) -> Result<EncodedBatch> {
        let name_of = |row: usize| self.document(planned.documents[row]).place(self.sources);
        let request = Request {
            states: &self.plan.shards[planned.shard].states,
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
        results: Receiver<Result<EncodedBatch>>,
        mut committer: Committer<'_>,
        logs: Option<&BatchLogs>,
        progress: &dyn Progress,
    ) -> Result<EncodingTotals> {
        let mut totals = EncodingTotals::default();
        let mut open: BTreeMap<usize, FillingShard> = BTreeMap::new();
        for encoded in results {
            let encoded = match encoded {
                Ok(encoded) => encoded,
                Err(error) => {
                    // Complete shards are kept; if that fails too, the first error is the one to report.
                    let _ = committer.commit_handed();
                    return Err(error);
                }
            };
            let filling = match open.entry(encoded.shard) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => entry.insert(self.open_shard(encoded.shard, logs)?),
            };
            if let Some(log) = filling.log.as_mut().filter(|_| !encoded.is_logged)
                && !log.append(encoded.number, &encoded.states)
            {
                filling.log = None;
            }
            if encoded.in_sample {
                filling.sample.place(&encoded.places, &encoded.states);
            } else {
                filling.shard.place(&encoded.places, &encoded.states);
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
        totals.bytes = committer.finish()?;
        Ok(totals)
    }

    /// Compares a complete shard with its sample and writes its files, ready to be committed.
    fn write(
        &self,
        number: usize,
        place: ShardPlace,
        filling: FillingShard,
        computer: &ComputedBy,
    ) -> Result<WrittenShard> {
        let FillingShard { shard, sample, sampled, log: _ } = filling;
        let origin = Origin {
            states: self.plan.shards[number].states.clone(),
            device: computer.device.clone(),
            placement: computer.placement.clone(),
            onnxruntime: computer.onnxruntime.clone(),
            batch_tokens: self.plan.settings.batch_tokens,
            parity: parity::compare(&shard, self.dtype, self.hidden, &sampled, &sample),
        };
        Ok(place.write(shard, origin)?)
    }

    fn open_shard(&self, shard: usize, logs: Option<&BatchLogs>) -> Result<FillingShard> {
        let states = &self.plan.shards[shard].states;
        let encodings = self.read(shard)?;
        let sampled = self.sampled(shard);
        let layout = self.layout(shard, &encodings, 0..encodings.len());
        let of_sample = self.layout(shard, &encodings, sampled.iter().copied());
        Ok(FillingShard {
            shard: OpenShard::new(layout, states, self.hidden, self.dtype),
            sample: OpenShard::new(of_sample, states, self.hidden, Dtype::F32),
            sampled,
            log: logs.and_then(|logs| logs.append_to(self.plan, &self.plan.shards[shard])),
        })
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

//! The thread that owns the encoder of a model, and the heads of all runs on it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use frostbert_cache::shard::DocumentTable;

use super::{
    answers::{AnswerError, AnswerSlot},
    embedding::{EmbeddedText, PromptedText, TextVectors},
    queue::BatchQueue,
};
use crate::{
    data::Record,
    encoder::{Encoder, tokenizer::TextTokenizer},
    error::Result,
    extraction::embedder::EncodeRequest,
    prediction::predictor::Predictor,
    tasks::prediction::Prediction,
};

/// A text that waits for its answer.
pub(super) enum TextJob {
    /// A record to predict for.
    Predict { run: usize, record: Box<Record>, slot: AnswerSlot<Prediction> },
    /// A text to embed, read as a run reads its texts.
    Embed { run: usize, text: PromptedText, slot: AnswerSlot<EmbeddedText> },
}

/// What the threads have done so far.
#[derive(Debug, Default)]
pub(super) struct WorkDone {
    pub(super) texts: AtomicU64,
    pub(super) tokens: AtomicU64,
    pub(super) truncated: AtomicU64,
    pub(super) batches: AtomicU64,
    pub(super) failed: AtomicU64,
}

/// A run on the model: its head, and how it reads texts.
pub(super) struct HeadOnModel {
    pub(super) predictor: Predictor,
    pub(super) tokenizer: TextTokenizer,
    /// The most tokens in a batch, if they are limited.
    pub(super) batch_tokens: Option<usize>,
}

/// The encoder of a model, with the runs on it.
pub(super) struct ModelThread {
    pub(super) encoder: Encoder,
    pub(super) hidden: usize,
    pub(super) heads: Vec<HeadOnModel>,
    pub(super) vectors: Option<Arc<TextVectors>>,
    pub(super) queue: Arc<BatchQueue<TextJob>>,
    /// The most texts, and bytes of texts, that are encoded together.
    pub(super) most: (usize, usize),
    pub(super) done: Arc<WorkDone>,
}

/// Records or texts that are answered together.
struct Gathered<J, T> {
    jobs: Vec<J>,
    slots: Vec<AnswerSlot<T>>,
}

impl<J, T> Gathered<J, T> {
    fn new() -> Gathered<J, T> {
        Gathered { jobs: Vec::new(), slots: Vec::new() }
    }

    /// Adds a job, unless nobody waits for its answer any more.
    fn add(&mut self, job: J, slot: AnswerSlot<T>) {
        if slot.is_awaited() {
            self.jobs.push(job);
            self.slots.push(slot);
        }
    }

    /// Answers all of them, so that a text that cannot be encoded leaves the others unharmed.
    fn answer(self, failed: &AtomicU64, mut work: impl FnMut(&[J]) -> Result<Vec<T>>) {
        if !self.jobs.is_empty() {
            answer_or_halve(&self.jobs, self.slots, failed, &mut work);
        }
    }
}

/// Answers jobs together. If that fails, each half of them is tried again, down to the jobs that fail alone.
fn answer_or_halve<J, T>(
    jobs: &[J],
    mut slots: Vec<AnswerSlot<T>>,
    failed: &AtomicU64,
    work: &mut impl FnMut(&[J]) -> Result<Vec<T>>,
) {
    let error = match work(jobs) {
        Ok(answers) => {
            slots.into_iter().zip(answers).for_each(|(slot, answer)| slot.fill(Ok(answer)));
            return;
        }
        Err(error) => error,
    };
    if jobs.len() < 2 {
        failed.fetch_add(1, Ordering::Relaxed);
        slots.into_iter().for_each(|slot| slot.fill(Err(AnswerError::of(&error))));
        return;
    }
    let (first_jobs, last_jobs) = jobs.split_at(jobs.len() / 2);
    let last_slots = slots.split_off(first_jobs.len());
    answer_or_halve(first_jobs, slots, failed, work);
    answer_or_halve(last_jobs, last_slots, failed, work);
}

/// Closes the queue when the thread ends, even by a panic, so that nobody waits in vain.
struct ClosedAtTheEnd(Arc<BatchQueue<TextJob>>);

impl Drop for ClosedAtTheEnd {
    fn drop(&mut self) {
        drop(self.0.drain());
    }
}

impl ModelThread {
    /// Answers what waits in the queue until that is closed and empty.
    pub(super) fn work(mut self) {
        let queue = Arc::clone(&self.queue);
        let _closed = ClosedAtTheEnd(Arc::clone(&queue));
        while let Some(jobs) = queue.take(self.most.0, self.most.1) {
            self.answer(jobs);
        }
    }

    fn answer(&mut self, jobs: Vec<TextJob>) {
        let mut records: Vec<Gathered<Record, Prediction>> = Vec::new();
        let mut texts: Vec<Gathered<PromptedText, EmbeddedText>> = Vec::new();
        records.resize_with(self.heads.len(), Gathered::new);
        texts.resize_with(self.heads.len(), Gathered::new);
        for job in jobs {
            match job {
                TextJob::Predict { run, record, slot } => records[run].add(*record, slot),
                TextJob::Embed { run, text, slot } => texts[run].add(text, slot),
            }
        }
        let done = Arc::clone(&self.done);
        for (run, records) in records.into_iter().enumerate() {
            records.answer(&done.failed, |records| self.predict(run, records));
        }
        for (run, texts) in texts.into_iter().enumerate() {
            texts.answer(&done.failed, |texts| self.embed(run, texts));
        }
    }

    fn predict(&mut self, run: usize, records: &[Record]) -> Result<Vec<Prediction>> {
        let HeadOnModel { predictor, tokenizer, batch_tokens } = &self.heads[run];
        let saved = predictor.run();
        let prompts = saved.prompts();
        let documents = predictor.documents(records, &prompts);
        let request = EncodeRequest {
            tokenizer,
            states: &saved.description.states,
            hidden: self.hidden,
            dtype: saved.pipeline.extraction.dtype,
            batch_tokens: *batch_tokens,
            spreads: *batch_tokens != Some(1),
        };
        let encoded = request.run(&mut self.encoder, &documents)?;
        self.done.count(&encoded.layout.documents, records.len());
        predictor.predict_encoded(records, encoded)
    }

    fn embed(&mut self, run: usize, texts: &[PromptedText]) -> Result<Vec<EmbeddedText>> {
        let Some(vectors) = &self.vectors else {
            return Ok(Vec::new());
        };
        let head = &self.heads[run];
        let embedded =
            vectors.embed(&mut self.encoder, &head.tokenizer, head.batch_tokens, texts)?;
        let tokens = embedded.iter().map(|text| text.tokens).sum();
        let truncated = embedded.iter().filter(|text| text.is_truncated).count();
        self.done.add(texts.len(), tokens, truncated);
        Ok(embedded)
    }
}

impl WorkDone {
    fn count(&self, documents: &DocumentTable, n_texts: usize) {
        let truncated = (0..documents.len()).filter(|number| documents.truncated(*number));
        self.add(n_texts, documents.n_tokens(), truncated.count());
    }

    fn add(&self, texts: usize, tokens: u64, truncated: usize) {
        self.texts.fetch_add(texts as u64, Ordering::Relaxed);
        self.tokens.fetch_add(tokens, Ordering::Relaxed);
        self.truncated.fetch_add(truncated as u64, Ordering::Relaxed);
        self.batches.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::{
        error::Error,
        extraction::embedder::TOKENISE,
        server::answers::{Answers, places},
    };

    #[test]
    fn a_text_that_cannot_be_encoded_leaves_the_others_unharmed() {
        let (sender, answers) = mpsc::channel();
        let (_ticket, slots) = places(3, move |found: Answers<u8>| sender.send(found).unwrap());
        let mut gathered = Gathered::new();
        for (job, slot) in ["1", "", "3"].into_iter().zip(slots) {
            gathered.add(job, slot);
        }
        let failed = AtomicU64::new(0);
        gathered.answer(&failed, |jobs| {
            let reason = "`` has no token".to_string();
            let parse = |job: &&str| {
                job.parse::<u8>()
                    .map_err(|_| Error::Encoder { action: TOKENISE, reason: reason.clone() })
            };
            jobs.iter().map(parse).collect()
        });
        let refused = Err(AnswerError::Input("`` has no token".into()));
        assert_eq!(answers.try_recv().unwrap(), [Ok(1), refused, Ok(3)]);
        assert_eq!(failed.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_batch_with_a_text_that_cannot_be_encoded_is_halved_and_not_run_one_by_one() {
        let (sender, answers) = mpsc::channel();
        let (_ticket, slots) = places(16, move |found: Answers<usize>| sender.send(found).unwrap());
        let mut gathered = Gathered::new();
        for (job, slot) in (0..16).zip(slots) {
            gathered.add(job, slot);
        }
        let failed = AtomicU64::new(0);
        let mut sizes = Vec::new();
        gathered.answer(&failed, |jobs: &[usize]| {
            if jobs.contains(&5) {
                return Err(Error::Encoder { action: TOKENISE, reason: "`` has no token".into() });
            }
            sizes.push(jobs.len());
            Ok(jobs.to_vec())
        });
        assert_eq!(sizes, [4, 1, 2, 8], "what was run");
        let expected = (0..16).map(|job| match job {
            5 => Err(AnswerError::Input("`` has no token".into())),
            _ => Ok(job),
        });
        assert_eq!(answers.try_recv().unwrap(), expected.collect::<Answers<usize>>());
        assert_eq!(failed.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn what_nobody_waits_for_is_not_worked_on() {
        let (ticket, slots) = places(2, |_: Answers<u8>| ());
        drop(ticket);
        let mut gathered = Gathered::new();
        for (job, slot) in [1, 2].into_iter().zip(slots) {
            gathered.add(job, slot);
        }
        gathered.answer(&AtomicU64::new(0), |_| panic!("nobody waits"));
    }

    #[test]
    fn a_thread_that_ends_leaves_nobody_waiting() {
        let queue =
            Arc::new(BatchQueue::new(crate::server::queue::QueueLimits { jobs: 9, bytes: 9 }));
        let (sender, answers) = mpsc::channel();
        let (_ticket, mut slots) =
            places(1, move |found: Answers<Prediction>| sender.send(found).unwrap());
        let slot = slots.remove(0);
        let job = TextJob::Predict { run: 0, record: Box::default(), slot };
        assert!(queue.push_all(vec![(job, 1)]).is_ok());
        drop(ClosedAtTheEnd(Arc::clone(&queue)));
        assert_eq!(answers.try_recv().unwrap(), [Err(AnswerError::Stopped)]);
        assert!(queue.is_closed());
    }
}

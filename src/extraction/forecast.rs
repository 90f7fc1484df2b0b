//! A forecast of what an extraction will take: documents, tokens, bytes, disk space and time.

use std::{iter, path::Path, time::Instant};

use frostbert_cache::{
    durable::free_bytes, plan::ExtractionPlan, progress::Progress, states::StateKind,
    wording::counted,
};

use crate::{
    encoder::{Encoder, plan::plan_batches, session::TokenBatch},
    error::{Error, Result},
    extraction::{encode::ExtractionJob, machine::Machine},
};

/// Number of tokens that the warm-up encodes on every worker.
const WARM_UP_TOKENS: u32 = 1024;

/// Number of tokens below which a forecast of the time takes longer than it is worth.
const WORTH_TOKENS: u64 = 100_000;

/// What will be read, computed and written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Forecast {
    /// Number of documents to encode.
    pub(crate) documents: u64,
    /// Number of tokens in their windows.
    pub(crate) tokens: u64,
    /// Number of documents, among all that were read, whose end is cut off.
    pub(crate) truncated: u64,
    /// Number of bytes to write: exact for the states, estimated for the tables and Parquet's overhead.
    pub(crate) bytes: u64,
    /// Free space on the disk in bytes; `None` if the system does not report it.
    pub(crate) free_bytes: Option<u64>,
    /// How long it will take, in seconds, by a short warm-up.
    pub(crate) seconds: Option<f64>,
}

impl Forecast {
    /// Counts what a job will do, and warms up the encoder to forecast the time if that is worth it.
    pub(crate) fn of(
        job: &ExtractionJob<'_>,
        truncated: u64,
        encoder: &mut Encoder,
        folder: &Path,
    ) -> Result<Forecast> {
        let mut forecast = Forecast::without_time(job, truncated, folder);
        if forecast.is_worth_timing() {
            forecast.time(job, encoder)?;
        }
        Ok(forecast)
    }

    /// Counts what a job will do.
    pub(crate) fn without_time(job: &ExtractionJob<'_>, truncated: u64, folder: &Path) -> Forecast {
        Forecast {
            documents: job.documents(),
            tokens: job.plan.shards.iter().map(|shard| shard.tokens).sum(),
            truncated,
            bytes: bytes_of(job.plan, job.row_bytes, |shard| job.words(shard)),
            free_bytes: free_bytes(folder),
            seconds: None,
        }
    }

    /// Whether there is enough to do for a forecast of the time to be worth it.
    pub(crate) fn is_worth_timing(&self) -> bool {
        self.tokens >= WORTH_TOKENS
    }

    /// Warms up the encoder, and forecasts the time from that.
    pub(crate) fn time(&mut self, job: &ExtractionJob<'_>, encoder: &mut Encoder) -> Result<()> {
        self.seconds = Some(self.tokens as f64 / warm_up(job, encoder)?);
        Ok(())
    }

    /// Reports the forecast, and asks or refuses to go on if there is not enough space on the disk.
    ///
    /// # Errors
    /// Returns [`Error::NoSpace`] if there is not enough space and nobody agreed to go on.
    pub(crate) fn settle(
        &self,
        folder: &Path,
        machine: &Machine,
        progress: &dyn Progress,
    ) -> Result<()> {
        progress.note(&self.describe());
        let Some(free) = self.free_bytes.filter(|free| self.bytes > *free) else {
            return Ok(());
        };
        let problem = format!(
            "{} are to be written to `{}`, which has {} left",
            megabytes(self.bytes),
            folder.display(),
            megabytes(free)
        );
        if machine.go_on {
            progress.warn(&format!("{problem}: continuing anyway"));
            return Ok(());
        }
        if progress.ask(&format!("{problem}. Continue?")) {
            return Ok(());
        }
        Err(Error::NoSpace {
            folder: folder.to_path_buf(),
            needed_bytes: self.bytes,
            free_bytes: free,
        })
    }

    /// Describes the forecast in words.
    pub(crate) fn describe(&self) -> String {
        let mut parts = vec![counted(self.documents, "text"), counted(self.tokens, "token")];
        if self.truncated > 0 {
            parts.push(format!("{} cut off", self.truncated));
        }
        parts.push(format!("{} to write", megabytes(self.bytes)));
        if let Some(free) = self.free_bytes {
            parts.push(format!("{} free", megabytes(free)));
        }
        if let Some(seconds) = self.seconds {
            parts.push(format!("about {}", duration(seconds)));
        }
        format!("to encode: {}", parts.join(", "))
    }
}

/// Returns the number of bytes that a plan writes; `words` returns the number of words of a planned shard.
fn bytes_of(plan: &ExtractionPlan, row_bytes: usize, words: impl Fn(usize) -> u64) -> u64 {
    // Measured on 10,000 sentences: bytes per row of docs.parquet, tokens.parquet and words.parquet, and bytes for the
    // pages and the footer of a file.
    const DOCUMENT: u64 = 48;
    const TOKEN: u64 = 8;
    const WORD: u64 = 10;
    const FILE: u64 = 2048;
    let shards = plan.shards.iter().enumerate();
    shards
        .map(|(number, shard)| {
            let (documents, words) = (shard.documents as u64, words(number));
            let states = shard.states.iter().map(|state| {
                let rows = match state.kind {
                    StateKind::Pooled(_) => documents,
                    StateKind::Words => words,
                    StateKind::Tokens => shard.tokens,
                };
                let bytes = rows * row_bytes as u64;
                bytes + bytes / 1000 + FILE
            });
            // One table serves all layers; a shard that already exists has its documents.
            let stores = |kind: StateKind| shard.states.iter().any(|state| state.kind == kind);
            let tables = [
                (!shard.added, documents * DOCUMENT + FILE),
                (stores(StateKind::Words), words * WORD + FILE),
                (stores(StateKind::Tokens), shard.tokens * TOKEN + FILE),
            ];
            let tables = tables.iter().filter(|(written, _)| *written);
            states.sum::<u64>() + tables.map(|(_, bytes)| bytes).sum::<u64>()
        })
        .sum()
}

/// Measures the real tokens per second of all workers together, over as many rounds of the same few batches as there
/// are workers.
fn warm_up(job: &ExtractionJob<'_>, encoder: &mut Encoder) -> Result<f64> {
    let documents = job.spool.documents();
    // Spread over the keys, which are hashes, so this is a fair sample of lengths.
    let step = (documents.len() / 1024).max(1);
    let mut windows = Vec::new();
    let mut tokens = 0;
    for document in documents.iter().step_by(step) {
        let encoding = job.spool.read(document)?;
        tokens += document.n_tokens;
        windows.extend(encoding.windows);
        if tokens > WARM_UP_TOKENS {
            break;
        }
    }
    let lengths: Vec<u32> = windows.iter().map(|window| window.ids.len() as u32).collect();
    let batches: Vec<TokenBatch> = plan_batches(&lengths, job.plan.settings.batch_tokens)
        .into_iter()
        .map(|rows| {
            TokenBatch::new(rows.iter().map(|row| {
                let window = &windows[*row as usize];
                (&window.ids[..], &window.type_ids[..])
            }))
        })
        .collect();
    encoder.warm_up(&batches[0])?;
    let n_workers = encoder.workers().0.len();
    let repeated = iter::repeat_n(&batches, n_workers).flatten();
    let start = Instant::now();
    encoder.run_batches(repeated.map(Ok), |batch| batch, |_, _| Ok(()))?;
    let all = lengths.iter().map(|length| f64::from(*length)).sum::<f64>() * n_workers as f64;
    Ok(all / start.elapsed().as_secs_f64())
}

pub(crate) fn megabytes(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

pub(crate) fn duration(seconds: f64) -> String {
    match seconds {
        ..90.0 => format!("{seconds:.0} s"),
        ..5400.0 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

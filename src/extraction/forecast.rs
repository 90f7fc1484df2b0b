//! A forecast of what an extraction will take: documents, tokens, bytes, disk space and time.

use std::{iter, path::Path, time::Instant};

use frostbert_cache::{
    durable::free_bytes,
    plan::PlanSettings,
    progress::Progress,
    states::{StateId, StateKind},
    wording::counted,
};

use crate::{
    encoder::{
        Encoder,
        plan::plan_batches,
        session::TokenBatch,
        windows::{Encoding, Window},
    },
    error::{Error, Result},
    extraction::{
        machine::Machine,
        tokenised::{TokenisedShard, TokenisedShards},
    },
};

/// Number of tokens after which an extraction starts, although more documents may be left to tokenise: enough for a
/// good estimate of these, and no more than a shard holds by default, as nothing can be encoded before the first shard is
/// cut. Smaller extractions are tokenised before they start.
pub(crate) const TOKENS_BEFORE_START: u64 = 1 << 17;

/// Number of tokens that the warm-up encodes on every worker.
const WARM_UP_TOKENS: usize = 1024;

/// Number of bytes from which on the memory for attention is worth saying.
const WORTH_ATTENTION_BYTES: u64 = 1 << 30;

/// Number of tokens below which a forecast of the time takes longer than it is worth.
const WORTH_TOKENS: u64 = 100_000;

/// What will be read, computed and written.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Forecast {
    /// Number of documents to encode.
    pub(crate) documents: u64,
    /// Number of tokens in their windows.
    pub(crate) tokens: u64,
    /// Number of documents, among all that were read, whose end is cut off; 0 if that is not known yet.
    pub(crate) truncated: u64,
    /// Number of bytes to write: exact for the states, estimated for the tables and Parquet's overhead.
    pub(crate) bytes: u64,
    /// Whether tokens and bytes are estimated from the first documents.
    pub(crate) is_estimate: bool,
    /// Free space on the disk in bytes; `None` if the system does not report it.
    pub(crate) free_bytes: Option<u64>,
    /// How long it will take, in seconds, by a short warm-up.
    pub(crate) seconds: Option<f64>,
    /// Number of bytes of memory that attention to the longest text so far takes in all workers; 0 if that is not
    /// known.
    pub(crate) attention_bytes: u64,
}

/// Totals over tokenised shards.
pub(crate) struct ShardTotals {
    /// Size in bytes of one row of a state.
    row_bytes: u64,
    documents: u64,
    tokens: u64,
    words: u64,
    bytes: u64,
    /// Number of tokens of the longest window.
    pub(crate) longest: usize,
    /// The first windows, for the warm-up.
    windows: Vec<Window>,
}

impl ShardTotals {
    pub(crate) fn new(row_bytes: usize) -> ShardTotals {
        let row_bytes = row_bytes as u64;
        ShardTotals {
            row_bytes,
            documents: 0,
            tokens: 0,
            words: 0,
            bytes: 0,
            longest: 0,
            windows: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, shard: &TokenisedShard) {
        let TokenisedShard { planned, encodings, .. } = shard;
        let words = encodings.iter().map(|encoding| encoding.words.len() as u64).sum();
        let rows = Rows { documents: planned.documents as u64, tokens: planned.tokens, words };
        self.bytes += bytes_of(&planned.states, planned.added, rows, 1, self.row_bytes);
        self.documents += rows.documents;
        self.tokens += rows.tokens;
        self.words += rows.words;
        let windows = encodings.iter().flat_map(|encoding| &encoding.windows);
        self.longest = windows.map(|window| window.ids.len()).fold(self.longest, usize::max);
        // Keys are hashes, so the first documents are a fair sample of lengths.
        for Encoding { windows, .. } in encodings.iter() {
            if self.windows.iter().map(|window| window.ids.len()).sum::<usize>() > WARM_UP_TOKENS {
                break;
            }
            self.windows.extend(windows.iter().cloned());
        }
    }

    /// Adds an estimate of the documents that are not in a shard yet, which are on average as long as those before.
    fn add_remaining(&mut self, shards: &TokenisedShards<'_>, shard_tokens: usize) {
        let of_all = |rows: u64, documents: u64| {
            (rows as f64 / self.documents.max(1) as f64 * documents as f64) as u64
        };
        let (mut tokens, mut bytes) = (0, 0);
        for (group, n_documents) in shards.remaining() {
            let documents = n_documents as u64;
            let rows = Rows {
                documents,
                tokens: of_all(self.tokens, documents),
                words: of_all(self.words, documents),
            };
            let is_added = group.added_to.is_some();
            let n_shards = if is_added { 1 } else { rows.tokens / shard_tokens.max(1) as u64 + 1 };
            tokens += rows.tokens;
            bytes += bytes_of(&group.states, is_added, rows, n_shards, self.row_bytes);
        }
        self.tokens += tokens;
        self.bytes += bytes;
    }

    /// Warms up the encoder and measures its real tokens per second, of all workers together, over as many rounds of
    /// the same few batches as there are workers.
    fn warm_up(&self, batch_tokens: usize, encoder: &mut Encoder) -> Result<f64> {
        let lengths: Vec<u32> = self.windows.iter().map(|window| window.ids.len() as u32).collect();
        let batches: Vec<TokenBatch> = plan_batches(&lengths, batch_tokens)
            .into_iter()
            .map(|rows| {
                TokenBatch::new(rows.iter().map(|row| {
                    let window = &self.windows[*row as usize];
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
}

impl Forecast {
    /// Forecasts what the shards of an extraction come to: those that are ready, and an estimate of the rest. Warms up
    /// the encoder to forecast the time if that is worth it.
    ///
    /// `row_bytes` is the size of one row of a state; `documents` and `truncated` are of all texts, as far as is known.
    pub(crate) fn of(
        shards: &TokenisedShards<'_>,
        row_bytes: usize,
        (documents, truncated): (u64, u64),
        settings: &PlanSettings,
        encoder: &mut Encoder,
        folder: &Path,
    ) -> Result<Forecast> {
        let mut totals = ShardTotals::new(row_bytes);
        shards.ahead().for_each(|shard| totals.add(shard));
        totals.add_remaining(shards, settings.shard_tokens);
        let is_estimate = !shards.is_complete();
        let truncated = if is_estimate { 0 } else { truncated };
        let counted = Forecast::without_time(&totals, documents, truncated, folder);
        let attention_bytes = encoder.attention_bytes(totals.longest);
        let mut forecast = Forecast { is_estimate, attention_bytes, ..counted };
        if forecast.is_worth_timing() {
            forecast.time(&totals, settings.batch_tokens, encoder)?;
        }
        Ok(forecast)
    }

    /// Forecasts an extraction from the totals over its shards, without the time.
    pub(crate) fn without_time(
        totals: &ShardTotals,
        documents: u64,
        truncated: u64,
        folder: &Path,
    ) -> Forecast {
        Forecast {
            documents,
            tokens: totals.tokens,
            truncated,
            bytes: totals.bytes,
            is_estimate: false,
            free_bytes: free_bytes(folder),
            seconds: None,
            attention_bytes: 0,
        }
    }

    /// Whether there is enough to do for a forecast of the time to be worth it.
    pub(crate) fn is_worth_timing(&self) -> bool {
        self.tokens >= WORTH_TOKENS
    }

    /// Warms up the encoder, and forecasts the time from that.
    pub(crate) fn time(
        &mut self,
        totals: &ShardTotals,
        batch_tokens: usize,
        encoder: &mut Encoder,
    ) -> Result<()> {
        self.seconds = Some(self.tokens as f64 / totals.warm_up(batch_tokens, encoder)?);
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
        let about = if self.is_estimate { "about " } else { "" };
        let tokens = format!("{about}{}", counted(self.tokens, "token"));
        let mut parts = vec![counted(self.documents, "text"), tokens];
        if self.truncated > 0 {
            parts.push(format!("{} cut off", self.truncated));
        }
        parts.push(format!("{about}{} to write", megabytes(self.bytes)));
        if let Some(free) = self.free_bytes {
            parts.push(format!("{} free", megabytes(free)));
        }
        if self.attention_bytes >= WORTH_ATTENTION_BYTES {
            let bytes = megabytes(self.attention_bytes);
            parts.push(format!("{bytes} of memory for attention to the longest text"));
        }
        if let Some(seconds) = self.seconds {
            parts.push(format!("about {}", duration(seconds)));
        }
        format!("to encode: {}", parts.join(", "))
    }
}

/// Numbers of rows.
#[derive(Clone, Copy)]
struct Rows {
    documents: u64,
    tokens: u64,
    words: u64,
}

/// Returns the number of bytes that some states of so many rows take, in so many shards; `is_added` if these exist.
fn bytes_of(states: &[StateId], is_added: bool, rows: Rows, n_shards: u64, row_bytes: u64) -> u64 {
    // Measured on 10,000 sentences: bytes per row of docs.parquet, tokens.parquet and words.parquet, and bytes for the
    // pages and the footer of a file.
    const DOCUMENT: u64 = 48;
    const TOKEN: u64 = 8;
    const WORD: u64 = 10;
    const FILE: u64 = 2048;
    let Rows { documents, tokens, words } = rows;
    let of_states = states.iter().map(|state| {
        let rows = match state.kind {
            StateKind::Pooled(_) => documents,
            StateKind::Words => words,
            StateKind::Tokens => tokens,
        };
        let bytes = rows * row_bytes;
        bytes + bytes / 1000 + FILE * n_shards
    });
    // One table serves all layers; a shard that already exists has its documents.
    let stores = |kind: StateKind| states.iter().any(|state| state.kind == kind);
    let tables = [
        (!is_added, documents * DOCUMENT),
        (stores(StateKind::Words), words * WORD),
        (stores(StateKind::Tokens), tokens * TOKEN),
    ];
    let tables = tables.iter().filter(|(is_written, _)| *is_written);
    of_states.sum::<u64>() + tables.map(|(_, bytes)| bytes + FILE * n_shards).sum::<u64>()
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

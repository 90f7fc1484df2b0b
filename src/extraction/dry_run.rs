//! A forecast of an extraction without doing it: everything is read and checked, and nothing is written.

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
};

use frostbert_cache::{
    index::DocumentIndex, manifest::Manifest, plan::Planner, progress::Progress,
    reader::CacheReader,
};
use serde::Serialize;

use crate::{
    config::settings::Pipeline,
    encoder::{attention_bytes, checkpoint::Checkpoint},
    error::Result,
    extraction::{
        extract::{Entered, cutter, enter, read_texts, shape_of, stores_rows, warn_of_truncation},
        forecast::{Forecast, ShardTotals},
        machine::Machine,
        tokenised::TokenisedShards,
    },
};

/// What an extraction would do.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ExtractForecast {
    /// The cache folder, `<cache.dir>/<fingerprint>`; it may not exist yet.
    #[serde(serialize_with = "frostbert_cache::wording::path_shown")]
    pub cache: PathBuf,
    /// Its fingerprint.
    pub fingerprint: String,
    /// Number of records read.
    pub documents: u64,
    /// Number of distinct texts among them.
    pub unique: u64,
    /// Number of texts that would be encoded.
    pub computed: u64,
    /// Number of texts that the cache already has.
    pub reused: u64,
    /// Number of real tokens that would be encoded.
    pub tokens: u64,
    /// Number of distinct texts whose end is cut off.
    pub truncated: u64,
    /// Number of bytes that would be written.
    pub bytes: u64,
    /// Free space on the disk in bytes; `None` if the system does not report it.
    pub free_bytes: Option<u64>,
    /// How long the encoding would take, in seconds, if there is enough of it to be forecast.
    pub seconds: Option<f64>,
    /// Number of bytes of memory that attention to the longest text takes in all workers.
    #[serde(skip)]
    pub attention_bytes: u64,
    /// The device that would be used.
    pub device: String,
    /// Where several models are compared, what would be done for each, by its folder: the counts above are then those of all
    /// together, and the cache is that of the first.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, ExtractForecast>,
}

impl ExtractForecast {
    /// Adds what another extraction would do.
    pub(crate) fn add(&mut self, other: &ExtractForecast) {
        self.documents += other.documents;
        self.unique += other.unique;
        self.computed += other.computed;
        self.reused += other.reused;
        self.tokens += other.tokens;
        self.truncated += other.truncated;
        self.bytes += other.bytes;
        self.attention_bytes = self.attention_bytes.max(other.attention_bytes);
        self.seconds = [self.seconds, other.seconds].into_iter().flatten().reduce(|a, b| a + b);
    }
}

/// Reads, checks and tokenises what [`extract()`](super::extract::extract) would encode.
///
/// # Errors
/// Returns the errors that the extraction itself would return before it encodes anything.
pub(crate) fn forecast(
    checkpoint: &Checkpoint,
    pipeline: &Pipeline,
    machine: &Machine,
    progress: &dyn Progress,
) -> Result<ExtractForecast> {
    let settings = &pipeline.extraction;
    let entered = enter(checkpoint, pipeline, machine, progress)?;
    let Entered { mut lazy, states, devices, inputs, folder } = entered;
    let cache = CacheReader::open(&folder)?;
    let shape = shape_of(pipeline, checkpoint);
    let empty = (
        Manifest::empty(&inputs, shape.model_layers, shape.hidden, shape.dtype),
        DocumentIndex::default(),
    );
    let (manifest, index) = match &cache {
        Some(cache) => (cache.manifest(), cache.index()),
        None => (&empty.0, &empty.1),
    };
    manifest.require(&folder, &inputs)?;
    let row_bytes = shape.hidden * settings.dtype.size_bytes();
    let planner = Planner::new(&states, manifest, index, row_bytes);
    // The temporary file has no name, so nothing of it remains, and the folder of the cache need not exist.
    let aside = env::temp_dir();
    let tokenizer = settings.tokenizer(checkpoint)?;
    let (spool, mut counts) = read_texts(pipeline, &planner, index, &aside, progress)?;
    let cutter = cutter(pipeline, &devices, &spool, &planner);
    let (lacking, batch_tokens) = (cutter.states(), cutter.settings().batch_tokens);
    let aligned = stores_rows(&planner);
    let mut shards = TokenisedShards::new(&spool, &tokenizer, &settings.sources, aligned, cutter);
    let computed = spool.documents().len() as u64;
    progress.start("tokenising", Some(computed), "texts");
    let mut totals = ShardTotals::new(row_bytes);
    for shard in &mut shards {
        let shard = shard?;
        progress.advance(shard.members.len() as u64, 0);
        totals.add(&shard);
    }
    progress.finish();
    counts.truncated += shards.truncated;
    warn_of_truncation(pipeline, counts, progress);
    let mut forecast =
        Forecast::without_time(&totals, computed, counts.truncated, existing(&folder));
    if computed > 0 {
        // Report now if the encoder is unavailable.
        lazy.runtime()?;
    }
    if forecast.is_worth_timing() {
        lazy.layers = lacking.iter().map(|state| state.layer).collect();
        forecast.time(&totals, batch_tokens, lazy.open(progress)?)?;
    }
    Ok(ExtractForecast {
        fingerprint: inputs.fingerprint(),
        documents: counts.documents,
        unique: counts.unique,
        computed,
        reused: counts.unique - computed,
        tokens: forecast.tokens,
        truncated: counts.truncated,
        bytes: forecast.bytes,
        free_bytes: forecast.free_bytes,
        seconds: forecast.seconds,
        attention_bytes: attention_bytes(checkpoint, &devices, machine.threads, totals.longest),
        device: devices.to_string(),
        cache: folder,
        models: BTreeMap::new(),
    })
}

/// Returns the folder, or the nearest one above it that exists.
fn existing(folder: &Path) -> &Path {
    let mut folders = folder.ancestors().filter(|folder| folder.is_dir());
    folders.next().unwrap_or(Path::new("."))
}

impl ExtractForecast {
    /// Describes in words what would be encoded and written.
    pub fn describe(&self) -> String {
        Forecast {
            documents: self.computed,
            tokens: self.tokens,
            truncated: 0,
            bytes: self.bytes,
            is_estimate: false,
            free_bytes: self.free_bytes,
            seconds: self.seconds,
            attention_bytes: self.attention_bytes,
        }
        .describe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder::device::Devices;

    #[test]
    fn the_memory_of_attention_is_told_from_a_gibibyte_on() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny_bert");
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let heads = checkpoint.config.attention_heads.unwrap() as u64;
        let bytes = |threads, tokens| attention_bytes(&checkpoint, &Devices::Cpu, threads, tokens);
        assert_eq!(bytes(3, 1000), 3 * heads * 4_000_000);
        let one_gpu = attention_bytes(&checkpoint, &Devices::Cuda(vec![0]), 16, 1000);
        assert_eq!(one_gpu, heads * 4_000_000);
        let described = |attention_bytes| {
            let totals = ShardTotals::new(2);
            let forecast = Forecast::without_time(&totals, 1, 0, &folder);
            Forecast { attention_bytes, ..forecast }.describe()
        };
        let modern = folder.with_file_name("families").join("modernbert");
        let modern = Checkpoint::open(&modern).unwrap();
        let bytes = |devices| attention_bytes(&modern, &devices, 1, 8_192);
        // Two heads; blocks of 16 queries with 32 keys.
        assert_eq!(bytes(Devices::Cpu), 4 * 2 * 8_192 * 32);
        assert_eq!(bytes(Devices::Cuda(vec![0])), 4 * 2 * 8_192 * 8_192);
        assert!(described(3 << 30).contains("of memory for attention to the longest text"));
        assert!(!described(1 << 20).contains("attention"));
    }
}

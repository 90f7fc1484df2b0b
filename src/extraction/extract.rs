//! Stage 1: texts -> token ids -> states -> shards of a cache. States that the cache holds are not computed again.

mod report;
mod warnings;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Instant,
};

use frostbert_cache::{
    about::{About, keep_tokenizer},
    fingerprint::{FingerprintInputs, Key},
    index::DocumentIndex,
    manifest::{Manifest, caches_in},
    plan::{ExtractionPlan, PlanSettings, Planner, ShardCutter},
    progress::Progress,
    reader::CacheReader,
    states::{StateId, StateKind},
    wording::{counted, part_of},
    writer::{CacheShape, CacheWriter},
};

pub use report::ExtractReport;
pub(crate) use warnings::warn_of_swallowed;
pub(crate) use warnings::warn_of_truncation;
use warnings::{warn_of_bad_rows, warn_of_versions};

use crate::{
    config::settings::Pipeline,
    data::{SwallowedLines, bad_rows::BadRows, dataset::read_all_logged, require_texts},
    encoder::{
        checkpoint::Checkpoint,
        device::{self, Devices, has_vnni},
        fingerprint_inputs,
        source::ModelSource,
    },
    error::Result,
    extraction::{
        busy::bound_by,
        encode::{ComputedBy, EncodingTotals, ExtractionJob},
        forecast::{Forecast, TOKENS_BEFORE_START},
        lazy_encoder::LazyEncoder,
        machine::Machine,
        sentence::folder_to_note,
        spool::{Admission, ReadCounts, Spool},
        tokenised::TokenisedShards,
    },
};

/// Encodes every text of the pipeline that its cache lacks, and commits shard by shard.
///
/// # Errors
/// Returns an error if the data, the model or the device does not match the pipeline, or if a file cannot be written;
/// committed shards are kept.
pub fn extract(
    pipeline: &Pipeline,
    machine: &Machine,
    progress: &dyn Progress,
) -> Result<ExtractReport> {
    let checkpoint = pipeline.extraction.checkpoint()?;
    extract_with(&checkpoint, pipeline, machine, progress)
}

/// Like [`extract()`], with a checkpoint that is already open: opening one reads and hashes all its weights.
pub(crate) fn extract_with(
    checkpoint: &Checkpoint,
    pipeline: &Pipeline,
    machine: &Machine,
    progress: &dyn Progress,
) -> Result<ExtractReport> {
    let start = Instant::now();
    let settings = &pipeline.extraction;
    let entered = enter(checkpoint, pipeline, machine, progress)?;
    let Entered { mut lazy, states, devices, inputs, folder } = entered;
    let done = match count_if_cached(pipeline, &folder, &inputs, &states, progress)? {
        Some(counts) => {
            warn_of_truncation(pipeline, counts, progress);
            clear_finished_plan(&settings.cache_dir, &inputs, shape_of(pipeline, checkpoint))?;
            ExtractionOutcome { counts, computed: 0, totals: EncodingTotals::default() }
        }
        None => compute_missing(&mut lazy, &devices, &inputs, &states, progress)?,
    };
    about(checkpoint).note(&folder);
    if let Some(json) = checkpoint.tokenizer.built_json() {
        keep_tokenizer(&folder, json);
    }
    let ExtractionOutcome { counts, computed, totals } = done;
    let seconds = start.elapsed().as_secs_f64();
    Ok(ExtractReport {
        cache: folder,
        fingerprint: inputs.fingerprint(),
        documents: counts.documents,
        empty: counts.empty,
        unique: counts.unique,
        computed,
        reused: counts.unique - computed,
        tokens: totals.tokens,
        truncated: counts.truncated,
        padding_efficiency: totals.padding_efficiency(),
        bound_by: bound_by(&totals.busy),
        busy: totals.busy,
        seconds,
        tokens_per_second: totals.tokens as f64 / seconds,
        bytes_written: totals.bytes,
        device: devices.to_string(),
        device_reason: lazy.auto_took,
        precision: settings.precision.name(),
        models: BTreeMap::new(),
    })
}

/// An extraction that was checked as far as possible without reading its texts.
pub(crate) struct Entered<'a> {
    pub(crate) lazy: LazyEncoder<'a>,
    /// The states to store.
    pub(crate) states: Vec<StateId>,
    pub(crate) devices: Devices,
    pub(crate) inputs: FingerprintInputs,
    /// The folder of their cache, which may not exist yet.
    pub(crate) folder: PathBuf,
}

/// Checks the model, the states and the device before anything is read, and says why no cache fits if others are there.
pub(crate) fn enter<'a>(
    checkpoint: &'a Checkpoint,
    pipeline: &'a Pipeline,
    machine: &'a Machine,
    progress: &dyn Progress,
) -> Result<Entered<'a>> {
    let settings = &pipeline.extraction;
    if let Some(warning) = &checkpoint.tokenizer.warning {
        progress.warn(warning);
    }
    let states = pipeline.check_model(checkpoint)?;
    let layers = states.iter().map(|state| state.layer).collect();
    let mut lazy =
        LazyEncoder { pipeline, machine, checkpoint, layers, encoder: None, auto_took: None };
    device::check(&settings.device, settings.precision, &machine.onnxruntime)?;
    let devices = lazy.devices(progress)?;
    let inputs = inputs_for(pipeline, checkpoint, devices.name());
    if let Some(explanation) = explain_miss(&settings.cache_dir, &inputs)? {
        progress.note(&explanation);
    }
    let folder = settings.cache_dir.join(inputs.fingerprint());
    Ok(Entered { lazy, states, devices, inputs, folder })
}

/// Returns what people call the model: its name on the hub with the commit if it was pulled, otherwise the name of its
/// folder.
pub(crate) fn about(checkpoint: &Checkpoint) -> About {
    let folder = folder_to_note(checkpoint);
    match ModelSource::read(&checkpoint.folder) {
        Ok(Some(source)) => {
            About { model: Some(source.repository), revision: Some(source.revision), folder }
        }
        _ => {
            let path = checkpoint.folder.canonicalize();
            let name = path.ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into()));
            About { model: name, revision: None, folder }
        }
    }
}

pub(crate) fn shape_of(pipeline: &Pipeline, checkpoint: &Checkpoint) -> CacheShape {
    CacheShape {
        model_layers: checkpoint.config.layers,
        hidden: checkpoint.config.hidden,
        dtype: pipeline.extraction.dtype,
    }
}

/// What was read, and how much of it was computed.
struct ExtractionOutcome {
    counts: ReadCounts,
    computed: u64,
    totals: EncodingTotals,
}

/// Locks the cache, reads what it lacks, and tokenises and encodes it.
fn compute_missing(
    lazy: &mut LazyEncoder<'_>,
    devices: &Devices,
    inputs: &FingerprintInputs,
    states: &[StateId],
    progress: &dyn Progress,
) -> Result<ExtractionOutcome> {
    let (pipeline, checkpoint) = (lazy.pipeline, lazy.checkpoint);
    let settings = &pipeline.extraction;
    let shape = shape_of(pipeline, checkpoint);
    let mut writer = CacheWriter::open(&settings.cache_dir, inputs, shape, progress)?;
    if writer.manifest().shards.is_empty() {
        // Something will certainly be encoded, so report now, rather than after reading, that it cannot be.
        match devices {
            Devices::Cpu => drop(lazy.runtime()?),
            Devices::Cuda(_) => drop(lazy.open(progress)?),
        }
    }
    let row_bytes = shape.hidden * settings.dtype.size_bytes();
    let planner = Planner::new(states, writer.manifest(), writer.index(), row_bytes);
    let tokenizer = settings.tokenizer(checkpoint)?;
    let (spool, mut counts) =
        read_texts(pipeline, &planner, writer.index(), writer.folder(), progress)?;
    let cutter = cutter(pipeline, devices, &spool, &planner);
    let unfinished = ExtractionPlan::read(writer.folder())?;
    let is_unreadable = ExtractionPlan::is_unreadable(writer.folder())?;
    let plan = planner.extraction_plan(spool.keys(), &cutter);
    let is_rest = |plan: &ExtractionPlan| planner.is_rest_of(plan, spool.keys());
    let is_rest = unfinished.as_ref().is_some_and(is_rest);
    let lacking = cutter.states();
    let mut shards =
        TokenisedShards::new(&spool, &tokenizer, &settings.sources, stores_rows(&planner), cutter);
    progress.start("tokenising", None, "texts");
    shards.tokenise_ahead(TOKENS_BEFORE_START)?;
    progress.finish();
    let all_known = shards.is_complete();
    if all_known {
        counts.truncated += shards.truncated;
        warn_of_truncation(pipeline, counts, progress);
    }
    if is_unreadable && plan.documents > 0 {
        progress.note(UNREADABLE_PLAN);
    }
    settle_unfinished(&plan, unfinished.as_ref().map(|plan| (plan, is_rest)), &lacking, progress);
    let totals = if plan.documents == 0 {
        EncodingTotals::default()
    } else {
        lazy.layers = lacking.iter().map(|state| state.layer).collect();
        let job = ExtractionJob {
            settings: plan.settings.clone(),
            spool: &spool,
            sources: &settings.sources,
            hidden: shape.hidden,
            dtype: settings.dtype,
        };
        let known = (row_bytes, counts.truncated);
        encode(lazy, &job, &mut shards, &plan, known, &mut writer, progress)?
    };
    if !all_known {
        counts.truncated += shards.truncated;
        warn_of_truncation(pipeline, counts, progress);
    }
    ExtractionPlan::clear(writer.folder())?;
    Ok(ExtractionOutcome { counts, computed: plan.documents, totals })
}

/// Reports what a job will take, writes its plan, and runs it.
fn encode(
    lazy: &mut LazyEncoder<'_>,
    job: &ExtractionJob<'_>,
    shards: &mut TokenisedShards<'_>,
    plan: &ExtractionPlan,
    (row_bytes, truncated): (usize, u64),
    writer: &mut CacheWriter,
    progress: &dyn Progress,
) -> Result<EncodingTotals> {
    let onnxruntime = lazy.runtime()?.version;
    warn_of_versions(writer.manifest(), &onnxruntime, progress);
    let machine = lazy.machine;
    if let Some(note) = lazy.pipeline.extraction.precision.note(has_vnni()) {
        progress.note(note);
    }
    let encoder = lazy.open(progress)?;
    let computer = ComputedBy {
        device: encoder.devices.to_string(),
        placement: encoder.placement.clone(),
        onnxruntime,
    };
    let counts = (plan.documents, truncated);
    let forecast =
        Forecast::of(shards, row_bytes, counts, &plan.settings, encoder, writer.folder())?;
    forecast.settle(writer.folder(), machine, progress)?;
    // The plan of an unfinished extraction is kept until this one replaces it.
    ExtractionPlan::remove(writer.folder())?;
    plan.write(writer.folder())?;
    progress.start("encoding", Some(plan.documents), "texts");
    progress.expect_tokens(forecast.tokens);
    let totals = job.run(shards, encoder, writer, &computer, progress)?;
    progress.finish();
    Ok(totals)
}

/// Returns the inputs of a pipeline's fingerprint on a provider, `cpu` or `cuda`.
pub(crate) fn inputs_for(
    pipeline: &Pipeline,
    checkpoint: &Checkpoint,
    provider: &str,
) -> FingerprintInputs {
    let settings = &pipeline.extraction;
    let inputs = fingerprint_inputs(
        checkpoint,
        provider,
        settings.precision,
        settings.dtype,
        settings.max_length,
        settings.overflow,
    );
    let leaves_out_prompts = settings.has_prompts() && !checkpoint.include_prompt;
    FingerprintInputs { include_prompt: leaves_out_prompts.then_some(false), ..inputs }
}

/// Removes the plan of an extraction that was killed after its last commit, or that was of other texts. If another
/// process is writing, the plan is left to it.
fn clear_finished_plan(
    cache_dir: &Path,
    inputs: &FingerprintInputs,
    shape: CacheShape,
) -> Result<()> {
    if ExtractionPlan::read(&cache_dir.join(inputs.fingerprint()))?.is_none() {
        return Ok(());
    }
    match CacheWriter::open(cache_dir, inputs, shape, &()) {
        Ok(writer) => Ok(ExtractionPlan::clear(writer.folder())?),
        Err(frostbert_cache::Error::Busy { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Counts the texts if the cache has all of them in every state: then nothing is written, and no writer is waited for.
/// Otherwise returns `None`.
fn count_if_cached(
    pipeline: &Pipeline,
    folder: &Path,
    inputs: &FingerprintInputs,
    states: &[StateId],
    progress: &dyn Progress,
) -> Result<Option<ReadCounts>> {
    let Some(cache) = CacheReader::open(folder)? else {
        return Ok(None);
    };
    cache.manifest().require(folder, inputs)?;
    // Nothing will be written, so the size of a row does not matter.
    let planner = Planner::new(states, cache.manifest(), cache.index(), 0);
    let mut admission = Admission::new(&pipeline.extraction);
    let mut rows = vec![0usize; pipeline.extraction.sources.len()];
    let mut swallowed = vec![SwallowedLines::default(); pipeline.extraction.sources.len()];
    let bad_rows = BadRows::default();
    for example in read_all_logged(&pipeline.extraction.sources, &bad_rows) {
        let example = example?;
        rows[example.source] += 1;
        swallowed[example.source].count(&example);
        if !admission.admit(&example) {
            continue;
        }
        for input in pipeline.extraction.documents(&example) {
            let key = input.key();
            if !admission.is_new(&key) {
                continue;
            }
            if planner.lacking(&key) != 0 {
                return Ok(None);
            }
            let truncated = cache.index().truncated(&key) == Some(true);
            admission.counts.truncated += u64::from(truncated);
        }
    }
    let counts = admission.counts;
    require_texts(&pipeline.extraction.sources, &rows, counts.unique as usize, counts.empty)?;
    warn_of_swallowed(&pipeline.extraction.sources, &swallowed, progress);
    warn_of_bad_rows(&bad_rows, progress);
    Ok(Some(counts))
}

/// Reads the texts and spools those that a cache lacks; `index` lists the documents that it has. `aside` is a folder
/// for a temporary file without a name.
pub(crate) fn read_texts(
    pipeline: &Pipeline,
    planner: &Planner<'_>,
    index: &DocumentIndex,
    aside: &Path,
    progress: &dyn Progress,
) -> Result<(Spool, ReadCounts)> {
    let settings = &pipeline.extraction;
    let mut rows = vec![0usize; settings.sources.len()];
    let mut swallowed = vec![SwallowedLines::default(); settings.sources.len()];
    let bad_rows = BadRows::default();
    let examples = read_all_logged(&settings.sources, &bad_rows).inspect(|example| {
        if let Ok(example) = example {
            rows[example.source] += 1;
            swallowed[example.source].count(example);
            progress.advance(1, 0);
        }
    });
    progress.start("reading", None, "texts");
    let present = |key: &Key| {
        let complete = planner.lacking(key) == 0;
        complete.then(|| index.truncated(key) == Some(true))
    };
    let (spool, counts) = Spool::fill(aside, examples, Admission::new(settings), present)?;
    progress.finish();
    warn_of_swallowed(&settings.sources, &swallowed, progress);
    warn_of_bad_rows(&bad_rows, progress);
    require_texts(&settings.sources, &rows, counts.unique as usize, counts.empty)?;
    Ok((spool, counts))
}

/// Whether rows of tokens or words are stored, so that their positions are needed.
pub(crate) fn stores_rows(planner: &Planner<'_>) -> bool {
    planner.wanted().iter().any(|state| !matches!(state.kind, StateKind::Pooled(_)))
}

/// Returns what cuts the documents into shards.
pub(crate) fn cutter(
    pipeline: &Pipeline,
    devices: &Devices,
    spool: &Spool,
    planner: &Planner<'_>,
) -> ShardCutter {
    let settings = PlanSettings {
        shard_tokens: pipeline.extraction.shard_tokens,
        batch_tokens: pipeline.extraction.batch_tokens.unwrap_or(devices.default_batch_tokens()),
    };
    let documents = spool.documents();
    planner.cutter(documents.len(), |number| documents[number].key, settings)
}

/// What is said of an unfinished plan in the cache that is damaged, or of another version.
const UNREADABLE_PLAN: &str = "the plan of an unfinished extraction in this cache cannot be read: what it committed is \
                               kept, the rest is planned again";

/// Reports how this plan relates to an unfinished one in the cache, of which it is the rest or not, and to which shards
/// it adds states. `states` are all that it computes.
fn settle_unfinished(
    plan: &ExtractionPlan,
    unfinished: Option<(&ExtractionPlan, bool)>,
    states: &[StateId],
    progress: &dyn Progress,
) {
    match unfinished {
        Some((unfinished, is_rest)) if !is_rest || unfinished.settings != plan.settings => {
            progress.note(
                "the unfinished extraction in this cache was for other texts or settings: what it committed is kept, \
                 the rest is planned again",
            );
        }
        Some((unfinished, _)) if plan.documents > 0 => {
            let n_done = unfinished.documents - plan.documents;
            progress.note(&format!(
                "resuming an unfinished extraction: {} done",
                part_of(n_done, unfinished.documents, "text")
            ));
        }
        _ => {}
    }
    if !plan.added.is_empty() {
        let states: Vec<String> = states.iter().map(ToString::to_string).collect();
        progress.note(&format!(
            "{} without {}: only these states are added",
            counted(plan.added.len(), "shard"),
            states.join(", ")
        ));
    }
}

/// Explains why there is no cache of these inputs although there are others, by the differences from the nearest one.
pub(crate) fn explain_miss(cache_dir: &Path, inputs: &FingerprintInputs) -> Result<Option<String>> {
    // This is for a note only, so a cache whose manifest is damaged is skipped.
    let caches: Vec<Manifest> =
        caches_in(cache_dir)?.into_iter().filter_map(|(_, manifest)| manifest.ok()).collect();
    Ok(explain_miss_among(&caches, inputs))
}

/// The same where the other caches are known.
pub(crate) fn explain_miss_among(
    caches: &[Manifest],
    inputs: &FingerprintInputs,
) -> Option<String> {
    let fingerprint = inputs.fingerprint();
    if caches.iter().any(|manifest| manifest.fingerprint == fingerprint) {
        return None;
    }
    let nearest = caches
        .iter()
        .map(|manifest| (manifest.inputs.differences(inputs), &manifest.fingerprint))
        .min_by_key(|(differences, _)| differences.len());
    nearest.map(|(differences, other)| {
        format!(
            "{fingerprint} is a new cache: the nearest, {other}, differs in {}",
            differences.join(", ")
        )
    })
}

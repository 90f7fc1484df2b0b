//! The inputs that the heads of a task are trained from: its labelled rows, and a cache that holds their states.

use std::path::Path;

use frostbert_cache::{
    fingerprint::{Digest, FingerprintInputs, Key},
    progress::Progress,
    reader::CacheReader,
    states::StateId,
};

use crate::{
    config::settings::Pipeline,
    data::dataset::Dataset,
    encoder::{checkpoint::Checkpoint, device::Device},
    error::Result,
    extraction::{
        extract::{explain_miss, inputs_for},
        sentence::SentenceState,
    },
    run_folder::{
        lock::{Lock, LockedCache, LockedModel, LockedSplit, cpu_features},
        program::VERSION,
    },
    training::extras::RunExtras,
};

/// A task's rows, and the cache that holds their states.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    /// None where the rows bring their states with them.
    pub(crate) checkpoint: Option<&'a Checkpoint>,
    pub(crate) pipeline: &'a Pipeline,
    pub(crate) dataset: &'a Dataset,
    pub(crate) cache: &'a CacheReader,
    /// What the run is to write beside its files.
    pub(crate) extras: &'a RunExtras,
}

/// A model, and a cache that holds the states of a task's rows.
#[derive(Clone, Copy)]
pub(crate) struct ModelCache<'a> {
    /// None where the rows bring their states with them.
    pub(crate) checkpoint: Option<&'a Checkpoint>,
    pub(crate) cache: &'a CacheReader,
}

impl ModelCache<'_> {
    /// The number of the model's layers.
    pub(crate) fn layers(&self) -> usize {
        self.checkpoint.map_or(0, |checkpoint| checkpoint.config.layers)
    }

    /// The width of a state.
    pub(crate) fn hidden(&self) -> usize {
        self.cache.manifest().hidden
    }

    /// Whether it is the model in this folder.
    pub(crate) fn is_in(&self, folder: &Path) -> bool {
        self.checkpoint.map_or(Path::new(""), |checkpoint| &checkpoint.folder) == folder
    }
}

/// A task's rows over the caches of the models that its sweep compares, or of its only model.
#[derive(Clone, Copy)]
pub(crate) struct SweepInputs<'a> {
    pub(crate) pipeline: &'a Pipeline,
    pub(crate) dataset: &'a Dataset,
    /// Each once.
    pub(crate) models: &'a [ModelCache<'a>],
    /// What the run is to write beside its files.
    pub(crate) extras: &'a RunExtras,
}

impl Inputs<'_> {
    /// Returns everything that determines a result, except for the digest of the rows that are read; the outputs are
    /// left empty.
    pub(crate) fn lock(&self, states: &[StateId]) -> Lock {
        let Inputs { checkpoint, pipeline, dataset, cache, .. } = self;
        let manifest = cache.manifest();
        let versions = manifest.onnxruntime_versions().into_iter();
        let device = manifest.devices().into_iter().next().map(String::from);
        Lock {
            frostbert: VERSION.into(),
            made: Default::default(),
            pipeline: pipeline.file().clone(),
            winner: None,
            data: dataset.files.clone(),
            model: checkpoint.map(|checkpoint| checkpoint.hashes.clone()),
            models: Vec::new(),
            modules: checkpoint.and_then(|checkpoint| modules(pipeline, checkpoint)),
            cache: match checkpoint {
                Some(_) => LockedCache {
                    path: cache.folder().to_path_buf(),
                    fingerprint: manifest.fingerprint.clone(),
                    onnxruntime: versions.map(String::from).collect(),
                    rows: Digest::from_bytes([0; 32]),
                },
                None => LockedCache::none(),
            },
            states: states.to_vec(),
            labels: dataset.labels.clone(),
            split: LockedSplit::of(dataset),
            seed: pipeline.seed,
            device: device.unwrap_or_default(),
            cpu: cpu_features(),
            outputs: Default::default(),
        }
    }
}

/// The hash of the modules after the encoder, where a pipeline reads sentence vectors. Modules that are not computed have
/// stopped it before.
fn modules(pipeline: &Pipeline, checkpoint: &Checkpoint) -> Option<Digest> {
    let reads = pipeline.compares_sentences();
    let sentence = reads.then(|| SentenceState::of(checkpoint).ok().flatten()).flatten();
    sentence.map(|sentence| sentence.digest())
}

impl SweepInputs<'_> {
    /// The modules for a lock: those of the only model, as sentence vectors of several are not compared.
    pub(crate) fn locked_modules(&self) -> Option<Digest> {
        modules(self.pipeline, self.models.first()?.checkpoint?)
    }

    /// The models for a lock, where the sweep compares some.
    pub(crate) fn locked_models(&self) -> Vec<LockedModel> {
        let compared = self.pipeline.models.iter().filter_map(|swept| {
            let own = self.models.iter().find(|model| model.is_in(&swept.path))?;
            Some(LockedModel {
                path: swept.name.clone(),
                moved_to: (swept.path != swept.name).then(|| swept.path.clone()),
                model: own.checkpoint?.hashes.clone(),
                fingerprint: own.cache.manifest().fingerprint.clone(),
            })
        });
        compared.collect()
    }
}

/// The cache in `folder` where one is named, else the one that holds the states of the rows.
///
/// # Errors
/// Returns an error if there is none.
pub(crate) fn open_cache(
    folder: Option<&Path>,
    pipeline: &Pipeline,
    checkpoint: &Checkpoint,
    dataset: &Dataset,
    states: &[StateId],
) -> Result<CacheReader> {
    match folder.map(CacheReader::open).transpose()?.flatten() {
        Some(cache) => Ok(cache),
        None => cache_with(pipeline, checkpoint, states, &dataset.document_keys()),
    }
}

/// Reports which cache was found.
pub(crate) fn note_cache(cache: &CacheReader, progress: &dyn Progress) {
    let provider = &cache.manifest().inputs.provider;
    progress.note(&format!("states from {}, computed on {provider}", cache.folder().display()));
}

/// Returns what determines the caches that may hold the states of a pipeline's rows, in the order in which they are
/// tried: on the device that it names, or with `auto` on CUDA and then on the CPU.
pub(crate) fn caches_tried(pipeline: &Pipeline, checkpoint: &Checkpoint) -> Vec<FingerprintInputs> {
    let providers: &[&str] = match &pipeline.extraction.device {
        Device::Auto => &["cuda", "cpu"],
        Device::Cuda(_) | Device::AllCuda => &["cuda"],
        Device::Cpu => &["cpu"],
    };
    providers.iter().map(|provider| inputs_for(pipeline, checkpoint, provider)).collect()
}

/// Opens the first of the caches to try that has every row.
fn cache_with(
    pipeline: &Pipeline,
    checkpoint: &Checkpoint,
    states: &[StateId],
    keys: &[Key],
) -> Result<CacheReader> {
    let cache_dir = &pipeline.extraction.cache_dir;
    let tried = caches_tried(pipeline, checkpoint);
    let mut incomplete = None;
    for inputs in &tried {
        let folder = cache_dir.join(inputs.fingerprint());
        let Some(cache) = CacheReader::open(&folder)? else {
            continue;
        };
        cache.manifest().require(&folder, inputs)?;
        let has = |key: &Key| states.iter().all(|state| cache.locate(key, *state).is_some());
        if keys.iter().all(has) {
            return Ok(cache);
        }
        incomplete = Some(cache);
    }
    if let Some(cache) = incomplete {
        // Reading from it reports which rows are missing.
        return Ok(cache);
    }
    let inputs = &tried[tried.len() - 1];
    let mut hint =
        "run `frostbert extract` with this pipeline first, or `frostbert run`, which does both"
            .to_string();
    if let Some(explanation) = explain_miss(cache_dir, inputs)? {
        hint.push_str(&format!(" ({explanation})"));
    }
    Err(frostbert_cache::Error::Miss {
        cache: cache_dir.join(inputs.fingerprint()),
        lacks: "everything: nothing was extracted with these settings".into(),
        hint,
    }
    .into())
}

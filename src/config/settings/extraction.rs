//! The checked settings of the extraction.

use std::path::{Path, PathBuf};

use frostbert_cache::states::{Dtype, StateKind};

use crate::{
    config::{
        file,
        file::{LayersKey, LayersWord, PipelineFile, TrainSection, sweep::SweepSection},
        names,
        names::{HeadPooling, Pair, Store, Task},
        settings::{
            LayerChoice,
            model_folder::FolderDefaults,
            unfreezing::{layer_below, unfreezings},
        },
    },
    data::{Part, Prompts, Record, Source, document::Document},
    encoder::{
        checkpoint::Checkpoint,
        device::{Device, Precision},
        tokenizer::{MIN_LENGTH, TextTokenizer},
        windows::Overflow,
    },
    error::{Error, Result},
};

/// Whether a place is an address, such as that of a bucket, and no path of this machine.
pub(super) fn is_address(place: &Path) -> bool {
    place.to_string_lossy().contains("://")
}

/// The checked settings of the extraction.
#[derive(Clone, Debug)]
pub(crate) struct ExtractionSettings {
    /// The checkpoint folder.
    pub model: PathBuf,
    /// The device that the encoder runs on.
    pub device: Device,
    /// The precision that the encoder computes in.
    pub precision: Precision,
    /// Maximum number of padded tokens in a batch; the device's default if `None`.
    pub batch_tokens: Option<usize>,
    /// Whether the tokenizer converts texts to lower case; as its files say if `None`.
    pub lowercase: Option<bool>,
    /// The folder that caches are written to.
    pub cache_dir: PathBuf,
    /// The kinds of states to store for each layer.
    pub kinds: Vec<StateKind>,
    /// The layers to store.
    pub layers: LayerChoice,
    /// The type of a stored value.
    pub dtype: Dtype,
    /// Maximum length of an input in tokens.
    pub max_length: usize,
    /// How to handle longer documents.
    pub overflow: Overflow,
    /// Number of tokens between two commits.
    pub shard_tokens: usize,
    /// The sources of all texts: train, validation, test.
    pub sources: Vec<Source>,
    /// For each source, how the two texts of a pair are encoded.
    pub pairs: Vec<Pair>,
    /// For each source, whether its empty training examples are dropped: those of train sources are, if the pipeline
    /// says so. Given validation and test files are never thinned out.
    pub thinned: Vec<bool>,
}

impl ExtractionSettings {
    /// Opens the checkpoint.
    ///
    /// # Errors
    /// Returns the errors of [`Checkpoint::open_with_lowercase`].
    pub(crate) fn checkpoint(&self) -> Result<Checkpoint> {
        self.require_encoder("open the encoder")?;
        Checkpoint::open_with_lowercase(&self.model, self.lowercase)
    }

    /// Returns the checkpoint's tokenizer, which limits inputs to the length of these settings.
    ///
    /// # Errors
    /// Returns an error if its file is missing or invalid, or if the length leaves no room for a text.
    pub(crate) fn tokenizer(&self, checkpoint: &Checkpoint) -> Result<TextTokenizer> {
        let tokenizer = TextTokenizer::new(&checkpoint.tokenizer, self.max_length, self.overflow)?;
        Ok(tokenizer.leaving_out_prompts(!checkpoint.include_prompt))
    }

    /// Whether prompts are put before some of the texts.
    pub(crate) fn has_prompts(&self) -> bool {
        self.sources.iter().any(|source| source.prompts() != Prompts::default())
    }

    /// Whether a record is dropped: it is empty, belongs to train, and its source is thinned out.
    pub(crate) fn leaves_out(&self, example: &Record) -> bool {
        let is_of_train = matches!(example.part, None | Some(Part::Train));
        self.thinned[example.source] && is_of_train && example.is_empty()
    }

    /// Iterates over the documents of a record: one, or two for a pair that is encoded as two inputs.
    pub(crate) fn documents<'r>(
        &self,
        example: &'r Record,
    ) -> impl Iterator<Item = Document<'r>> + use<'r> {
        example.documents(self.pairs[example.source] == Pair::Joint)
    }

    /// Returns the same settings for these sources only, none of which is thinned out.
    pub(crate) fn of_sources(&self, sources: Vec<Source>) -> ExtractionSettings {
        let pair = self.pairs.first().copied().unwrap_or_default();
        ExtractionSettings {
            pairs: vec![pair; sources.len()],
            thinned: vec![false; sources.len()],
            sources,
            ..self.clone()
        }
    }

    /// Adds the sources and states of another extraction with the same fingerprint.
    pub(crate) fn merge(&mut self, other: &ExtractionSettings) {
        self.sources.extend(other.sources.iter().cloned());
        self.pairs.extend(&other.pairs);
        self.thinned.extend(&other.thinned);
        for kind in &other.kinds {
            if !self.kinds.contains(kind) {
                self.kinds.push(*kind);
            }
        }
        self.layers.merge(&other.layers);
    }
}

/// Sets the defaults of question answering for keys that the file leaves out. Applies to all tasks of a file, because
/// they share its cache.
pub(super) fn set_qa_defaults(cache: &mut file::CacheSection) {
    cache.max_length.get_or_insert(384);
    let overflow = *cache.overflow.get_or_insert(names::Overflow::Windows);
    if overflow == names::Overflow::Windows {
        cache.stride.get_or_insert(128);
    }
}

/// Checks the settings of the extraction, and fills in the defaults that depend on the task and the head. If the rows
/// bring their states with them, the file keeps no defaults of a cache that is not there.
pub(super) fn check(
    file: &mut PipelineFile,
    sources: Vec<Source>,
    defaults: &FolderDefaults,
    refuse: &impl Fn(String, String) -> Error,
) -> Result<ExtractionSettings> {
    if file.data.has_given_states() {
        let settings = filled_in(&mut file.clone(), sources, defaults, refuse)?;
        return Ok(ExtractionSettings { dtype: Dtype::F32, ..settings });
    }
    filled_in(file, sources, defaults, refuse)
}

fn filled_in(
    file: &mut PipelineFile,
    sources: Vec<Source>,
    defaults: &FolderDefaults,
    refuse: &impl Fn(String, String) -> Error,
) -> Result<ExtractionSettings> {
    let layers = stored_layers(file, &file.model.path);
    let read = read_store(file, defaults);
    let PipelineFile { model, data, cache, sweep, .. } = file;
    if data.task == Task::Qa {
        set_qa_defaults(cache);
    }
    let max_length = *cache.max_length.get_or_insert(128);
    for (value, key) in [
        (max_length, "cache.max_length"),
        (cache.shard_tokens, "cache.shard_tokens"),
        (model.batch_tokens.unwrap_or(1), "model.batch_tokens"),
    ] {
        if value == 0 {
            return Err(refuse(format!("{key} is 0"), format!("set {key} to a number of tokens")));
        }
    }
    if is_address(&cache.dir) {
        let folder = cache.dir.display();
        return Err(refuse(
            format!("cache.dir is `{folder}`, but caches are read from a folder of this machine"),
            format!(
                "fetch them first, with `frostbert cache pull {folder} FOLDER`, and set cache.dir to that folder; \
                 `frostbert train` and `frostbert sweep` do both"
            ),
        ));
    }
    if max_length > usize::from(u16::MAX) {
        return Err(refuse(
            format!(
                "cache.max_length is {max_length}, but a window can have at most {} tokens",
                u16::MAX
            ),
            "set cache.max_length to what the model was made for, 512 for most".into(),
        ));
    }
    if max_length < MIN_LENGTH {
        return Err(refuse(
            format!(
                "cache.max_length is {max_length}, which leaves no room for a text beside the special tokens"
            ),
            format!("set cache.max_length to {MIN_LENGTH} or more"),
        ));
    }
    let overflow = check_overflow(cache, max_length, refuse)?;
    let pair = *data.pair.get_or_insert(data.task.facts().pair);
    // Of models that are compared each has its own layers, unless the file names some.
    if !sweep.as_ref().is_some_and(SweepSection::compares_models) {
        cache.layers = layers.key();
    }
    if layers == LayerChoice::Listed(Vec::new()) {
        return Err(refuse("cache.layers is empty".into(), "name a layer, as in [-1]".into()));
    }
    let store = cache.store.get_or_insert(read);
    let kinds: Vec<StateKind> = store.iter().map(|store| store.kind()).collect();
    if kinds.is_empty() {
        return Err(refuse("cache.store is empty".into(), "name a state, as in [\"mean\"]".into()));
    }
    Ok(ExtractionSettings {
        model: model.path.clone(),
        device: model.device.clone(),
        precision: model.precision,
        batch_tokens: model.batch_tokens,
        lowercase: model.lowercase,
        cache_dir: cache.dir.clone(),
        kinds,
        layers,
        dtype: cache.dtype,
        max_length,
        overflow,
        shard_tokens: cache.shard_tokens,
        pairs: vec![pair; sources.len()],
        thinned: (0..sources.len())
            .map(|source| data.clean.drop_empty && source < data.train.0.len())
            .collect(),
        sources,
    })
}

/// The layers to store of a model: those that the file names, else those that the heads read.
pub(super) fn stored_layers(file: &PipelineFile, model: &Path) -> LayerChoice {
    match &file.cache.layers {
        Some(LayersKey::Listed(layers)) => LayerChoice::Listed(layers.clone()),
        Some(LayersKey::Named(LayersWord::All)) => LayerChoice::All,
        Some(LayersKey::Named(LayersWord::Auto)) | None => swept_layers(file, model),
    }
}

/// The layers of a model that the heads of a file read: those of a sweep, and that of `[head]` where a head has none of
/// its own.
fn swept_layers(file: &PipelineFile, model: &Path) -> LayerChoice {
    let compared = file.sweep.as_ref().filter(|section| section.compares_models());
    let of_model = compared.map(|section| PipelineFile {
        sweep: Some(section.of_model(model, model == file.model.path)),
        ..file.clone()
    });
    let file = of_model.as_ref().unwrap_or(file);
    let mut all: Option<LayerChoice> = None;
    for trained in unfreezings(file) {
        let own = match trained {
            Some(trained) => LayerChoice::Listed(vec![layer_below(trained)]),
            None => frozen_layers(file),
        };
        match &mut all {
            None => all = Some(own),
            Some(all) => all.merge(&own),
        }
    }
    all.unwrap_or_else(|| LayerChoice::of_head(file))
}

/// The same of the heads that train no layers.
fn frozen_layers(file: &PipelineFile) -> LayerChoice {
    const KEYS: [&str; 2] = ["layer", "layers"];
    let file = &PipelineFile {
        train: TrainSection { unfreeze: None, ..file.train.clone() },
        ..file.clone()
    };
    let mut own = LayerChoice::of_head(file);
    let Some(section) = &file.sweep else { return own };
    if section.leaves_out(&["pca"]) {
        // Heads without PCA read the layers of `[head]` as if there were no sweep.
        own.merge(&LayerChoice::of_head(&PipelineFile { sweep: None, ..file.clone() }));
    }
    let values = KEYS.into_iter().flat_map(|key| section.values(key));
    match LayerChoice::of_values(values) {
        None => own,
        Some(mut swept) => {
            if section.leaves_out(&KEYS) {
                swept.merge(&own);
            }
            swept
        }
    }
}

/// Returns the kinds of states that the heads of a file read, found in the same way: layers are trained from tokens.
pub(super) fn read_store(file: &PipelineFile, defaults: &FolderDefaults) -> Vec<Store> {
    let unfreezings = unfreezings(file);
    let trains_layers = unfreezings.iter().any(Option::is_some);
    let mut store = if trains_layers { vec![Store::Tokens] } else { Vec::new() };
    if unfreezings.contains(&None) {
        let frozen = swept_store(file.head.pooling, file.data.task, file.sweep.as_ref(), defaults);
        store.extend(frozen.into_iter().filter(|kind| !trains_layers || *kind != Store::Tokens));
    }
    store
}

/// The same of the heads that train no layers.
fn swept_store(
    own: HeadPooling,
    task: Task,
    sweep: Option<&SweepSection>,
    defaults: &FolderDefaults,
) -> Vec<Store> {
    let values = sweep.into_iter().flat_map(|section| section.values("pooling"));
    // An invalid pooling is refused when the trials are made.
    let mut read: Vec<HeadPooling> =
        values.filter_map(|value| value.clone().try_into().ok()).collect();
    if read.is_empty() || sweep.is_some_and(|section| section.leaves_out(&["pooling"])) {
        read.push(own);
    }
    let mut store: Vec<Store> = Vec::new();
    let resolved = read.iter().map(|pooling| match pooling {
        HeadPooling::Auto => defaults.pooling,
        pooling => *pooling,
    });
    for kind in resolved.flat_map(|pooling| pooling.stores(task, &defaults.sentence)) {
        if !store.contains(&kind) {
            store.push(kind);
        }
    }
    store
}

/// Checks how longer documents are handled, and fills in the defaults.
fn check_overflow(
    cache: &mut file::CacheSection,
    max_length: usize,
    refuse: &impl Fn(String, String) -> Error,
) -> Result<Overflow> {
    if *cache.overflow.get_or_insert(names::Overflow::Truncate) == names::Overflow::Truncate {
        // A stride without windows is ignored, so that a file can switch between the two with one key.
        return Ok(Overflow::Truncate);
    }
    let stride = *cache.stride.get_or_insert(max_length / 4);
    if stride.saturating_add(MIN_LENGTH) > max_length {
        return Err(refuse(
            format!(
                "cache.stride is {stride}, which is too large for windows of {max_length} tokens to advance"
            ),
            format!("set cache.stride well below cache.max_length, as in {}", max_length / 4),
        ));
    }
    Ok(Overflow::Windows { stride })
}

#[cfg(test)]
mod tests {
    use crate::config::settings::Pipeline;

    #[test]
    fn a_stride_without_an_end_is_refused_and_does_not_overflow() {
        for stride in [i64::MAX.to_string(), "126".into()] {
            let text = format!(
                "[model]\npath = \"m\"\n[data]\ntrain = {{ path = \"a.csv\" }}\n[cache]\noverflow = \"windows\"\nstride = {stride}"
            );
            let file = toml::from_str(&text).unwrap();
            let error = Pipeline::check("p.toml".as_ref(), file).unwrap_err().to_string();
            assert!(
                error.contains(&format!("cache.stride is {stride}, which is too large")),
                "{error}"
            );
        }
    }
}

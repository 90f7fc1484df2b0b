//! What stage 1 is to do, after its checks.

use std::path::PathBuf;

use crate::{
    data::{Example, Source},
    encoder::{
        device::{Device, Precision},
        tokenizer::MIN_LENGTH,
        windows::Overflow,
    },
    error::{Error, Result},
    pipeline::file::{self, HeadPooling, Pair, PipelineFile, Store, Task},
    states::{Dtype, Pooling, StateKind},
};

/// What stage 1 is to do.
#[derive(Clone, Debug)]
pub struct ExtractionSettings {
    /// The checkpoint folder.
    pub model: PathBuf,
    /// Where the encoder runs.
    pub device: Device,
    /// What it computes in.
    pub precision: Precision,
    /// Padded tokens of one batch; by the device where `None`.
    pub batch_tokens: Option<usize>,
    /// Caches go here.
    pub cache_dir: PathBuf,
    /// What to store of each layer.
    pub kinds: Vec<StateKind>,
    /// Layers to store, negative from the end.
    pub layers: Vec<i64>,
    /// Type of a stored value.
    pub dtype: Dtype,
    /// Longest input in tokens.
    pub max_length: usize,
    /// What happens to longer documents.
    pub overflow: Overflow,
    /// How two texts are encoded.
    pub pair: Pair,
    /// Tokens between two commits.
    pub shard_tokens: usize,
    /// Every file of texts: train, validation, test.
    pub sources: Vec<Source>,
    /// How many of the first sources lose their texts of nothing but white space: those of train, or none. Given
    /// validation and test files are never thinned.
    pub n_thinned_sources: usize,
}

impl ExtractionSettings {
    /// Whether an example is left out: it is empty, and of a source that is thinned.
    pub fn leaves_out(&self, example: &Example) -> bool {
        example.source < self.n_thinned_sources && example.is_empty()
    }
}

/// Checks what stage 1 needs, and sets the defaults that depend on the task and the head in the file.
pub(super) fn check(
    file: &mut PipelineFile,
    sources: Vec<Source>,
    refuse: &impl Fn(String, String) -> Error,
) -> Result<ExtractionSettings> {
    let PipelineFile {
        model,
        data,
        cache,
        head,
        ..
    } = file;
    let is_qa = data.task == Task::Qa;
    if model.precision == Precision::Int8 {
        return Err(refuse(
            "this version does not run int8 encoders yet".into(),
            "set model.precision = \"f32\"".into(),
        ));
    }
    let max_length = *cache
        .max_length
        .get_or_insert(if is_qa { 384 } else { 128 });
    for (value, key) in [
        (max_length, "cache.max_length"),
        (cache.shard_tokens, "cache.shard_tokens"),
        (model.batch_tokens.unwrap_or(1), "model.batch_tokens"),
    ] {
        if value == 0 {
            return Err(refuse(
                format!("{key} is 0"),
                format!("set {key} to a number of tokens"),
            ));
        }
    }
    if max_length > usize::from(u16::MAX) {
        return Err(refuse(
            format!(
                "cache.max_length is {max_length}, and the cache numbers {} tokens of a window",
                u16::MAX
            ),
            "set cache.max_length to what the model was made for, 512 for most".into(),
        ));
    }
    if max_length < MIN_LENGTH {
        return Err(refuse(
            format!(
                "cache.max_length is {max_length}, which leaves no room beside the special tokens"
            ),
            format!("set cache.max_length to {MIN_LENGTH} or more"),
        ));
    }
    let overflow = check_overflow(cache, max_length, is_qa, refuse)?;
    let pair = *data
        .pair
        .get_or_insert(if is_qa { Pair::Joint } else { Pair::Separate });
    let layers = cache
        .layers
        .get_or_insert_with(|| head.layers.clone())
        .clone();
    if layers.is_empty() {
        return Err(refuse(
            "cache.layers is empty".into(),
            "name a layer, as in [-1]".into(),
        ));
    }
    let store = cache.store.get_or_insert_with(|| {
        vec![match (data.task, head.pooling) {
            (Task::Tokens, _) => Store::Words,
            (Task::Qa, _) | (_, HeadPooling::Attention) => Store::Tokens,
            (_, HeadPooling::Cls) => Store::Cls,
            (_, HeadPooling::Mean) => Store::Mean,
            (_, HeadPooling::Max) => Store::Max,
        }]
    });
    let kinds: Vec<StateKind> = store
        .iter()
        .map(|store| match store {
            Store::Cls => StateKind::Pooled(Pooling::Cls),
            Store::Mean => StateKind::Pooled(Pooling::Mean),
            Store::Max => StateKind::Pooled(Pooling::Max),
            Store::Tokens => StateKind::Tokens,
            Store::Words => StateKind::Words,
        })
        .collect();
    if kinds.is_empty() {
        return Err(refuse(
            "cache.store is empty".into(),
            "name a state, as in [\"mean\"]".into(),
        ));
    }
    Ok(ExtractionSettings {
        model: model.path.clone(),
        device: model.device,
        precision: model.precision,
        batch_tokens: model.batch_tokens,
        cache_dir: cache.dir.clone(),
        kinds,
        layers,
        dtype: cache.dtype,
        max_length,
        overflow,
        pair,
        shard_tokens: cache.shard_tokens,
        sources,
        n_thinned_sources: if data.clean.drop_empty {
            data.train.0.len()
        } else {
            0
        },
    })
}

/// What happens to longer documents, with the defaults of the task set in the file.
fn check_overflow(
    cache: &mut file::CacheSection,
    max_length: usize,
    is_qa: bool,
    refuse: &impl Fn(String, String) -> Error,
) -> Result<Overflow> {
    let default = match is_qa {
        true => file::Overflow::Windows,
        false => file::Overflow::Truncate,
    };
    if *cache.overflow.get_or_insert(default) == file::Overflow::Truncate {
        // A stride without windows changes nothing, so that a file can switch between the two by one key.
        return Ok(Overflow::Truncate);
    }
    let default = if is_qa { 128 } else { max_length / 4 };
    let stride = *cache.stride.get_or_insert(default);
    if stride + MIN_LENGTH > max_length {
        return Err(refuse(
            format!(
                "cache.stride is {stride}, which leaves windows of {max_length} tokens no room to get on"
            ),
            format!(
                "set cache.stride well below cache.max_length, as in {}",
                max_length / 4
            ),
        ));
    }
    Ok(Overflow::Windows { stride })
}

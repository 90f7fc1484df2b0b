//! A Hugging Face checkpoint folder: config.json, model.safetensors, tokenizer.json.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use half::{bf16, f16};
use safetensors::{Dtype as StoredType, SafeTensors, tensor::TensorView};

use super::{config::BertConfig, hub};
use crate::{
    error::{Error, Result},
    fingerprint,
};

/// The prefixes under which checkpoints name the encoder's tensors.
const PREFIXES: [&str; 2] = ["", "bert."];

/// An opened checkpoint: its shape, its weights (mapped, not read), and the hashes of its files.
pub struct Checkpoint {
    /// The folder.
    pub folder: PathBuf,
    /// What config.json says.
    pub config: BertConfig,
    /// blake3 of each file.
    pub hashes: CheckpointHashes,
    weights: Bytes,
    prefix: &'static str,
}

/// blake3 of the files that decide what a checkpoint computes, as 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct CheckpointHashes {
    /// model.safetensors.
    pub weights: String,
    /// config.json.
    pub config: String,
    /// tokenizer.json.
    pub tokenizer: String,
}

impl Checkpoint {
    /// Opens a folder, checks that its files are there, and hashes them. Weights are mapped, not read into memory.
    ///
    /// # Errors
    /// When a file is missing, damaged, or not of the bert family.
    pub fn open(folder: &Path) -> Result<Checkpoint> {
        hub::refuse_name_on_hub(folder)?;
        for name in ["config.json", "tokenizer.json", "model.safetensors"] {
            let path = folder.join(name);
            if !path.is_file() {
                return Err(Error::Checkpoint {
                    expected: "a file".into(),
                    got: if folder.is_dir() { "no such file" } else { "no such folder" }.into(),
                    hint: "set model.path to a folder with config.json, tokenizer.json and model.safetensors; \
                           `make setup` fetches the default model into models/minilm"
                        .into(),
                    path,
                });
            }
        }
        let config = BertConfig::read(&folder.join("config.json"))?;
        let (weights, weights_hash) = fingerprint::map_and_hash(&folder.join("model.safetensors"))?;
        let mut checkpoint = Checkpoint {
            folder: folder.to_path_buf(),
            config,
            hashes: CheckpointHashes {
                weights: weights_hash,
                config: fingerprint::hash_file(&folder.join("config.json"))?,
                tokenizer: fingerprint::hash_file(&folder.join("tokenizer.json"))?,
            },
            weights,
            prefix: "",
        };
        checkpoint.prefix = checkpoint.find_prefix()?;
        Ok(checkpoint)
    }

    /// The path of tokenizer.json.
    pub fn tokenizer_path(&self) -> PathBuf {
        self.folder.join("tokenizer.json")
    }

    /// Number of the encoder's parameters in the file, pooler included, pre-training heads not: what `transformers`
    /// counts for the bare model.
    ///
    /// # Errors
    /// When the file is damaged.
    pub fn parameters(&self) -> Result<u64> {
        let tensors = self.tensors()?;
        let own = tensors.iter().filter(|(name, view)| {
            let floating = matches!(
                view.dtype(),
                StoredType::F32 | StoredType::F16 | StoredType::BF16
            );
            floating && name.starts_with(self.prefix)
        });
        Ok(own
            .map(|(_, view)| view.shape().iter().product::<usize>() as u64)
            .sum())
    }

    /// Decodes one tensor to f32.
    ///
    /// `name` is the encoder's own name without a prefix, as `encoder.layer.0.output.dense.weight`; the old names
    /// `LayerNorm.gamma` and `LayerNorm.beta` are found too.
    ///
    /// # Errors
    /// When there is no such tensor, or its shape is not `shape`, or it is not f32, f16 or bf16.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let tensors = self.tensors()?;
        let full_name = format!("{}{name}", self.prefix);
        let old_name = full_name
            .replace("LayerNorm.weight", "LayerNorm.gamma")
            .replace("LayerNorm.bias", "LayerNorm.beta");
        let view = tensors
            .tensor(&full_name)
            .or_else(|_| tensors.tensor(&old_name))
            .map_err(|_| {
                self.refuse(
                format!("a tensor `{full_name}`"),
                "none of that name".into(),
                "fetch the checkpoint again, or name one whose config.json belongs to its weights",
            )
            })?;
        if view.shape() != shape {
            return Err(self.refuse(
                format!("`{full_name}` of shape {shape:?}, as config.json says"),
                format!("{:?}", view.shape()),
                "name a folder whose config.json belongs to its weights",
            ));
        }
        decode(&view).ok_or_else(|| {
            self.refuse(
                format!("`{full_name}` as f32, f16 or bf16"),
                format!("{:?}", view.dtype()),
                "use a checkpoint whose weights are floating point numbers",
            )
        })
    }

    fn tensors(&self) -> Result<SafeTensors<'_>> {
        SafeTensors::deserialize(&self.weights).map_err(|error| {
            self.refuse(
                "a whole safetensors file".into(),
                format!("a damaged one of {} bytes ({error})", self.weights.len()),
                "the file is incomplete or not a safetensors file: fetch it again",
            )
        })
    }

    fn find_prefix(&self) -> Result<&'static str> {
        let tensors = self.tensors()?;
        let word_embeddings = "embeddings.word_embeddings.weight";
        PREFIXES
            .into_iter()
            .find(|prefix| {
                tensors
                    .tensor(&format!("{prefix}{word_embeddings}"))
                    .is_ok()
            })
            .ok_or_else(|| {
                self.refuse(
                    format!("a tensor `{word_embeddings}`, with or without the prefix `bert.`"),
                    format!("{} tensors, none of that name", tensors.len()),
                    "use a checkpoint of the bert family",
                )
            })
    }

    fn refuse(&self, expected: String, got: String, hint: &str) -> Error {
        let path = self.folder.join("model.safetensors");
        Error::Checkpoint {
            path,
            expected,
            got,
            hint: hint.into(),
        }
    }
}

fn decode(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let bytes = view.data();
    Some(match view.dtype() {
        StoredType::F32 => bytes
            .chunks_exact(4)
            .map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]))
            .collect(),
        StoredType::F16 => bytes
            .chunks_exact(2)
            .map(|pair| f16::from_le_bytes([pair[0], pair[1]]).to_f32())
            .collect(),
        StoredType::BF16 => bytes
            .chunks_exact(2)
            .map(|pair| bf16::from_le_bytes([pair[0], pair[1]]).to_f32())
            .collect(),
        _ => return None,
    })
}

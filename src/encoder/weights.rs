//! The weights of a checkpoint: model.safetensors, or the shards listed in model.safetensors.index.json.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use frostbert_cache::fingerprint::{self, Digest};
use half::{bf16, f16};
use safetensors::{Dtype as StoredType, SafeTensors, tensor::TensorView};
use serde::Deserialize;

use super::family::PREFIXES;
use crate::error::{Error, Result};

/// The file that holds all weights.
pub(super) const SINGLE_FILE: &str = "model.safetensors";

/// The index that maps tensors to shards.
pub(super) const INDEX_FILE: &str = "model.safetensors.index.json";

const FETCH_AGAIN: &str = "the file is incomplete or not a safetensors file: fetch it again";

/// The weights, memory-mapped but not read.
pub(super) struct Weights {
    files: Vec<WeightFile>,
    /// The path of the index and the file number of each tensor; `None` if one file holds all tensors.
    index: Option<(PathBuf, BTreeMap<String, usize>)>,
    prefix: &'static str,
}

struct WeightFile {
    path: PathBuf,
    bytes: Bytes,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Returns the file through which a folder's weights are opened: the single file, or the index of the shards.
pub(super) fn find(folder: &Path) -> Option<PathBuf> {
    let paths = [SINGLE_FILE, INDEX_FILE].map(|name| folder.join(name));
    paths.into_iter().find(|path| path.is_file())
}

/// Returns the blake3 of the weights that [`find`] found: that of the single file, or of the hashes of all shards,
/// sorted by name.
///
/// # Errors
/// Returns an error if a file is missing or the index is not valid.
pub(super) fn hash(found: &Path) -> Result<Digest> {
    Ok(map_files(found)?.1)
}

impl Weights {
    /// Maps the weights that [`find`] found and returns them with their hash.
    ///
    /// # Errors
    /// Returns an error if a file is missing or damaged, or if the weights contain no encoder.
    pub(super) fn open(found: &Path) -> Result<(Weights, Digest)> {
        let (files, hash, index) = map_files(found)?;
        let mut weights =
            Weights { files, index: index.map(|index| (found.to_path_buf(), index)), prefix: "" };
        weights.prefix = weights.find_prefix()?;
        Ok((weights, hash))
    }

    /// Returns the number of the encoder's parameters in the files, including the pooler but not the pre-training
    /// heads: the count that `transformers` gives for the bare model.
    ///
    /// # Errors
    /// Returns an error if a file is damaged.
    pub(super) fn parameters(&self) -> Result<u64> {
        let mut parameters = 0;
        for file in &self.files {
            for (name, view) in file.tensors()?.iter() {
                let floating =
                    matches!(view.dtype(), StoredType::F32 | StoredType::F16 | StoredType::BF16);
                if floating && name.starts_with(self.prefix) {
                    parameters += view.shape().iter().product::<usize>() as u64;
                }
            }
        }
        Ok(parameters)
    }

    /// Decodes one tensor to f32.
    ///
    /// `name` is the encoder's own name without a prefix, such as `encoder.layer.0.output.dense.weight`; the old names
    /// `LayerNorm.gamma` and `LayerNorm.beta` are recognised too.
    ///
    /// # Errors
    /// Returns an error if there is no such tensor, its shape is not `shape`, or its type is not f32, f16 or bf16.
    pub(super) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let full_name = format!("{}{name}", self.prefix);
        let old_name = full_name
            .replace("LayerNorm.weight", "LayerNorm.gamma")
            .replace("LayerNorm.bias", "LayerNorm.beta");
        let file = self.file_of(&full_name).or_else(|| self.file_of(&old_name));
        let Some(file) = file else {
            // Only with an index is it known beforehand that no file holds the tensor.
            let path = self.index.as_ref().map_or(&self.files[0].path, |index| &index.0);
            return Err(refuse(
                path,
                format!("a tensor `{full_name}`"),
                "none of that name".into(),
                "fetch the checkpoint again, or name one whose config.json belongs to its weights",
            ));
        };
        let tensors = file.tensors()?;
        let view = tensors
            .tensor(&full_name)
            .or_else(|_| tensors.tensor(&old_name))
            .map_err(|_| {
                refuse(
                    &file.path,
                    format!("a tensor `{full_name}`"),
                    "none of that name".into(),
                    "fetch the checkpoint again, or name one whose config.json belongs to its weights",
                )
            })?;
        if view.shape() != shape {
            return Err(refuse(
                &file.path,
                format!("`{full_name}` of shape {shape:?}, as config.json says"),
                format!("{:?}", view.shape()),
                "name a folder whose config.json belongs to its weights",
            ));
        }
        decode(&view).ok_or_else(|| {
            refuse(
                &file.path,
                format!("`{full_name}` as f32, f16 or bf16"),
                format!("{:?}", view.dtype()),
                "use a checkpoint whose weights are floating point numbers",
            )
        })
    }

    /// Returns the file that should hold a tensor.
    fn file_of(&self, name: &str) -> Option<&WeightFile> {
        match &self.index {
            Some((_, index)) => index.get(name).map(|number| &self.files[*number]),
            None => Some(&self.files[0]),
        }
    }

    fn find_prefix(&self) -> Result<&'static str> {
        let word_embeddings = "embeddings.word_embeddings.weight";
        let mut n_tensors = 0;
        let mut found = None;
        for file in &self.files {
            let tensors = file.tensors()?;
            n_tensors += tensors.len();
            let holds =
                |prefix: &&str| tensors.tensor(&format!("{prefix}{word_embeddings}")).is_ok();
            found = found.or_else(|| PREFIXES.into_iter().find(holds));
        }
        found.ok_or_else(|| {
            let path = self.index.as_ref().map_or(&self.files[0].path, |index| &index.0);
            let prefixes: Vec<String> =
                PREFIXES[1..].iter().map(|name| format!("`{name}`")).collect();
            refuse(
                path,
                format!(
                    "a tensor `{word_embeddings}`, with no prefix or one of {}",
                    prefixes.join(", ")
                ),
                format!("{n_tensors} tensors, none of that name"),
                "use a checkpoint of a family that this program runs, or a folder with model.onnx",
            )
        })
    }
}

impl WeightFile {
    fn tensors(&self) -> Result<SafeTensors<'_>> {
        SafeTensors::deserialize(&self.bytes).map_err(|error| {
            refuse(
                &self.path,
                "a whole safetensors file".into(),
                format!("a damaged one of {} bytes ({error})", self.bytes.len()),
                FETCH_AGAIN,
            )
        })
    }
}

/// The mapped files, their hash, and the file of each tensor if there is an index.
type Mapped = (Vec<WeightFile>, Digest, Option<BTreeMap<String, usize>>);

fn map_files(found: &Path) -> Result<Mapped> {
    if found.file_name().is_none_or(|name| name != INDEX_FILE) {
        let (bytes, hash) = fingerprint::map_and_hash(found)?;
        let path = found.to_path_buf();
        return Ok((vec![WeightFile { path, bytes }], hash, None));
    }
    let weight_map = read_index(found)?;
    let names: BTreeSet<&String> = weight_map.values().collect();
    let mut files = Vec::new();
    let mut hashes = String::new();
    for name in &names {
        let path = found.with_file_name(name);
        if !path.is_file() {
            return Err(refuse(
                &path,
                format!("a file, because {INDEX_FILE} names it"),
                "no such file".into(),
                "fetch this shard too: every shard of the checkpoint must lie beside the index",
            ));
        }
        let (bytes, hash) = fingerprint::map_and_hash(&path)?;
        hashes.push_str(&hash.to_string());
        files.push(WeightFile { path, bytes });
    }
    let numbers: BTreeMap<&String, usize> = names.into_iter().zip(0..).collect();
    let index = weight_map.iter().map(|(tensor, file)| (tensor.clone(), numbers[file])).collect();
    Ok((files, fingerprint::hash_bytes(hashes.as_bytes()), Some(index)))
}

/// Returns the shards that an index lists, each once; they are files in its folder.
///
/// # Errors
/// Returns an error if the file cannot be read or is not an index.
pub(super) fn shards(index: &Path) -> Result<BTreeSet<String>> {
    Ok(read_index(index)?.into_values().collect())
}

fn read_index(path: &Path) -> Result<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    let expected = "an index of shards, as {\"weight_map\": {tensor: file}}";
    let damaged = |got: String| {
        refuse(
            path,
            expected.into(),
            got,
            "fetch the checkpoint again, or save it as one model.safetensors",
        )
    };
    let index: Index = serde_json::from_str(&text)
        .map_err(|error| damaged(format!("a file that cannot be parsed: {error}")))?;
    if index.weight_map.is_empty() {
        return Err(damaged("one without tensors".into()));
    }
    // A shard is in the same folder as its index; a path could lead anywhere.
    let plain = |name: &str| Path::new(name).file_name().is_some_and(|file| file == name);
    if let Some(name) = index.weight_map.values().find(|name| !plain(name)) {
        return Err(damaged(format!("the path `{name}` for a file name")));
    }
    // Under another name it could replace one of the checkpoint's other files.
    let shard = |name: &str| name.ends_with(".safetensors");
    if let Some(name) = index.weight_map.values().find(|name| !shard(name)) {
        return Err(damaged(format!("`{name}`, which does not end with .safetensors")));
    }
    Ok(index.weight_map)
}

fn refuse(path: &Path, expected: String, got: String, hint: &str) -> Error {
    Error::Checkpoint { path: path.to_path_buf(), expected, got, hint: hint.into() }
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

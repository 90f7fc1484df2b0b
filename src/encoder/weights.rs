//! The weights of a checkpoint: model.safetensors, or the shards listed in model.safetensors.index.json; without them
//! pytorch_model.bin, or the shards listed in pytorch_model.bin.index.json.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use frostbert_cache::{
    fingerprint::{self, Digest},
    mmap::MappedPages,
};
use half::{bf16, f16};
use safetensors::{Dtype as StoredType, SafeTensors, tensor::TensorView};
use serde::Deserialize;

use super::{
    family::{PREFIXES, WORD_TABLES},
    torch_file::{StoredTensor, TorchFile},
};
use crate::error::{Error, Result};

/// The file that holds all weights.
pub(super) const SINGLE_FILE: &str = "model.safetensors";

/// The index that maps tensors to shards.
pub(super) const INDEX_FILE: &str = "model.safetensors.index.json";

/// The file that holds all weights in a folder without safetensors.
pub(super) const PYTORCH_FILE: &str = "pytorch_model.bin";

/// The index of the shards of [`PYTORCH_FILE`].
pub(super) const PYTORCH_INDEX: &str = "pytorch_model.bin.index.json";

/// The files through which weights are opened; of several that exist, the first.
pub(super) const PLACES: [&str; 4] = [SINGLE_FILE, INDEX_FILE, PYTORCH_FILE, PYTORCH_INDEX];

const SAFETENSORS: &str = ".safetensors";

const PICKLED: &str = ".bin";

const FETCH_AGAIN: &str = "the file is incomplete or not a safetensors file: fetch it again";

/// The weights, memory-mapped but not read.
pub(super) struct Weights {
    files: Vec<WeightFile>,
    /// The path of the index and the file number of each tensor; `None` if one file holds all tensors.
    index: Option<(PathBuf, BTreeMap<String, usize>)>,
    prefix: &'static str,
}

/// A file of weights, in either format.
pub(super) struct WeightFile {
    path: PathBuf,
    content: WeightContent,
    pages: MappedPages,
}

/// The content of a file, by its format.
enum WeightContent {
    Safetensors(Bytes),
    Torch(TorchFile),
}

/// A tensor in a file.
pub(super) enum WeightTensor<'f> {
    Safetensors(TensorView<'f>),
    Torch(&'f TorchFile, &'f StoredTensor),
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Returns the file through which a folder's weights are opened: the single file, or the index of the shards.
pub(super) fn find(folder: &Path) -> Option<PathBuf> {
    let paths = PLACES.map(|name| folder.join(name));
    paths.into_iter().find(|path| path.is_file())
}

/// Returns whether the file that [`find`] found is the index of shards.
pub(super) fn is_index(found: &Path) -> bool {
    [INDEX_FILE, PYTORCH_INDEX].iter().any(|name| found.ends_with(name))
}

/// Returns whether a file of weights is one of PyTorch's.
pub(super) fn is_of_torch(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "bin")
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
        let files = files
            .into_iter()
            .map(|(path, bytes, pages)| Ok(WeightFile { pages, ..WeightFile::open(path, bytes)? }));
        let files = files.collect::<Result<Vec<WeightFile>>>()?;
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
            for (name, tensor) in file.tensors()? {
                let floating =
                    matches!(tensor.dtype(), StoredType::F32 | StoredType::F16 | StoredType::BF16);
                if floating && name.starts_with(self.prefix) {
                    parameters += tensor.shape().iter().product::<usize>() as u64;
                }
            }
        }
        Ok(parameters)
    }

    /// Whether there is a tensor of this name, without a prefix.
    ///
    /// # Errors
    /// Returns an error if a file is damaged.
    pub(super) fn holds(&self, name: &str) -> Result<bool> {
        let name = format!("{}{name}", self.prefix);
        match self.file_of(&name) {
            Some(file) => Ok(file.tensor(&name)?.is_some()),
            None => Ok(false),
        }
    }

    /// Decodes one tensor to f32. What was read of its file does not stay in memory: graphs hold weights of their own.
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
        let tensor = match file.tensor(&full_name)? {
            Some(tensor) => Some(tensor),
            None => file.tensor(&old_name)?,
        };
        let tensor = tensor.ok_or_else(|| {
            refuse(
                &file.path,
                format!("a tensor `{full_name}`"),
                "none of that name".into(),
                "fetch the checkpoint again, or name one whose config.json belongs to its weights",
            )
        })?;
        if tensor.shape() != shape {
            return Err(refuse(
                &file.path,
                format!("`{full_name}` of shape {shape:?}, as config.json says"),
                format!("{:?}", tensor.shape()),
                "name a folder whose config.json belongs to its weights",
            ));
        }
        let decoded = decode(&tensor).ok_or_else(|| {
            refuse(
                &file.path,
                format!("`{full_name}` as f32, f16 or bf16"),
                format!("{:?}", tensor.dtype()),
                "use a checkpoint whose weights are floating point numbers",
            )
        });
        file.pages.release();
        decoded
    }

    /// Returns the file that should hold a tensor.
    fn file_of(&self, name: &str) -> Option<&WeightFile> {
        match &self.index {
            Some((_, index)) => index.get(name).map(|number| &self.files[*number]),
            None => Some(&self.files[0]),
        }
    }

    fn find_prefix(&self) -> Result<&'static str> {
        let word_embeddings = WORD_TABLES[0];
        let mut n_tensors = 0;
        let mut found = None;
        for file in &self.files {
            let tensors = file.tensors()?;
            n_tensors += tensors.len();
            let holds = |prefix: &&str| {
                let full_names = WORD_TABLES.map(|table| format!("{prefix}{table}"));
                tensors.iter().any(|(name, _)| full_names.contains(name))
            };
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
    /// Reads what a file with these contents declares.
    ///
    /// # Errors
    /// Returns an error if a pytorch_model.bin is damaged or contains anything but tensors.
    pub(super) fn open(path: PathBuf, bytes: Bytes) -> Result<WeightFile> {
        let content = if is_of_torch(&path) {
            WeightContent::Torch(TorchFile::open(&path, bytes)?)
        } else {
            WeightContent::Safetensors(bytes)
        };
        Ok(WeightFile { path, content, pages: MappedPages::default() })
    }

    /// Returns all tensors with their names.
    fn tensors(&self) -> Result<Vec<(String, WeightTensor<'_>)>> {
        Ok(match &self.content {
            WeightContent::Safetensors(bytes) => {
                let tensors = self.parsed(bytes)?.tensors().into_iter();
                tensors.map(|(name, view)| (name, WeightTensor::Safetensors(view))).collect()
            }
            WeightContent::Torch(file) => {
                let tensors = file.tensors();
                tensors
                    .map(|(name, tensor)| (name.into(), WeightTensor::Torch(file, tensor)))
                    .collect()
            }
        })
    }

    /// Returns the tensor of a name.
    ///
    /// # Errors
    /// Returns an error if the file is damaged.
    pub(super) fn tensor(&self, name: &str) -> Result<Option<WeightTensor<'_>>> {
        Ok(match &self.content {
            WeightContent::Safetensors(bytes) => {
                self.parsed(bytes)?.tensor(name).ok().map(WeightTensor::Safetensors)
            }
            WeightContent::Torch(file) => {
                file.tensor(name).map(|tensor| WeightTensor::Torch(file, tensor))
            }
        })
    }

    fn parsed<'f>(&self, bytes: &'f Bytes) -> Result<SafeTensors<'f>> {
        SafeTensors::deserialize(bytes).map_err(|error| {
            refuse(
                &self.path,
                "a whole safetensors file".into(),
                format!("a damaged one of {} bytes ({error})", bytes.len()),
                FETCH_AGAIN,
            )
        })
    }
}

impl WeightTensor<'_> {
    /// The size in each dimension.
    pub(super) fn shape(&self) -> &[usize] {
        match self {
            WeightTensor::Safetensors(view) => view.shape(),
            WeightTensor::Torch(_, tensor) => tensor.shape(),
        }
    }

    /// The type of its values.
    pub(super) fn dtype(&self) -> StoredType {
        match self {
            WeightTensor::Safetensors(view) => view.dtype(),
            WeightTensor::Torch(_, tensor) => tensor.dtype(),
        }
    }

    /// Returns the bytes of the values, row by row.
    fn data(&self) -> Cow<'_, [u8]> {
        match self {
            WeightTensor::Safetensors(view) => Cow::Borrowed(view.data()),
            WeightTensor::Torch(file, tensor) => file.data(tensor),
        }
    }
}

/// The mapped files, their hash, and the file of each tensor if there is an index.
type Mapped = (Vec<(PathBuf, Bytes, MappedPages)>, Digest, Option<BTreeMap<String, usize>>);

/// Maps and hashes the files. None of their bytes stay in memory until they are used.
fn map_files(found: &Path) -> Result<Mapped> {
    if !is_index(found) {
        let (bytes, pages, hash) = fingerprint::map_and_hash(found)?;
        pages.release();
        return Ok((vec![(found.to_path_buf(), bytes, pages)], hash, None));
    }
    let weight_map = read_index(found, ending_of_shards(found))?;
    let names: BTreeSet<&String> = weight_map.values().collect();
    let mut files = Vec::new();
    let mut hashes = String::new();
    for name in &names {
        let path = found.with_file_name(name);
        if !path.is_file() {
            return Err(refuse(
                &path,
                "a file, because the index of shards names it".into(),
                "no such file".into(),
                "fetch this shard too: every shard of the checkpoint must lie beside the index",
            ));
        }
        let (bytes, pages, hash) = fingerprint::map_and_hash(&path)?;
        pages.release();
        hashes.push_str(&hash.to_string());
        files.push((path, bytes, pages));
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
    shards_ending(index, ending_of_shards(index))
}

/// Like [`shards`], for shards whose names end like this.
///
/// # Errors
/// Returns an error if the file cannot be read or is not an index.
pub(super) fn shards_ending(index: &Path, ending: &str) -> Result<BTreeSet<String>> {
    Ok(read_index(index, ending)?.into_values().collect())
}

/// Returns how the names of the shards of an index end.
fn ending_of_shards(index: &Path) -> &'static str {
    if index.ends_with(PYTORCH_INDEX) { PICKLED } else { SAFETENSORS }
}

fn read_index(path: &Path, ending: &str) -> Result<BTreeMap<String, String>> {
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
    if let Some(name) = index.weight_map.values().find(|name| !name.ends_with(ending)) {
        return Err(damaged(format!("`{name}`, which does not end with {ending}")));
    }
    Ok(index.weight_map)
}

fn refuse(path: &Path, expected: String, got: String, hint: &str) -> Error {
    Error::Checkpoint { path: path.to_path_buf(), expected, got, hint: hint.into() }
}

/// Returns the values of a tensor in f32, or `None` if they are not floating point numbers.
pub(super) fn decode(tensor: &WeightTensor<'_>) -> Option<Vec<f32>> {
    if !matches!(tensor.dtype(), StoredType::F32 | StoredType::F16 | StoredType::BF16) {
        return None;
    }
    let bytes = tensor.data();
    Some(match tensor.dtype() {
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

//! pytorch_model.bin: the tensors that torch.save wrote, read without executing anything.
//!
//! The file is mapped, and tensors are ranges of its bytes. There are two forms: a zip archive (since PyTorch 1.6), and
//! a row of pickles before it.

mod legacy;
mod pickle;
mod zip;

use std::{borrow::Cow, collections::BTreeMap, ops::Range, path::Path};

use bytes::Bytes;
use frostbert_cache::wording::shorten;
use pickle::{TorchTensor, Unpickled};
use safetensors::Dtype as StoredType;

use crate::error::{Error, Result};

/// The tensors of a file.
pub(super) struct TorchFile {
    bytes: Bytes,
    tensors: BTreeMap<String, StoredTensor>,
}

/// A tensor that is known to be inside its file.
pub(super) struct StoredTensor {
    view: TorchTensor,
    /// The place of the bytes of its storage.
    storage: Range<usize>,
}

impl StoredTensor {
    /// The size in each dimension.
    pub(super) fn shape(&self) -> &[usize] {
        &self.view.shape
    }

    /// The type of its values.
    pub(super) fn dtype(&self) -> StoredType {
        self.view.storage.dtype
    }
}

impl TorchFile {
    /// Reads the names and places of the tensors in `bytes`, the contents of the file at `path`.
    ///
    /// # Errors
    /// Returns an error if the file is damaged, if it contains anything but tensors in a dictionary, or if a tensor is
    /// not inside its storage.
    pub(super) fn open(path: &Path, bytes: Bytes) -> Result<TorchFile> {
        let tensors = read(&bytes).map_err(|got| Error::Checkpoint {
            path: path.to_path_buf(),
            expected: "tensors in a dictionary, as torch.save(model.state_dict(), FILE) writes them".into(),
            got,
            hint: "fetch the file again; if it is as its author made it and you trust it, load the model with Python's \
                   transformers and save it again: model.save_pretrained(FOLDER) writes model.safetensors"
                .into(),
        })?;
        Ok(TorchFile { bytes, tensors })
    }

    /// Returns the tensor of a name.
    pub(super) fn tensor(&self, name: &str) -> Option<&StoredTensor> {
        self.tensors.get(name)
    }

    /// Iterates over all tensors with their names.
    pub(super) fn tensors(&self) -> impl Iterator<Item = (&str, &StoredTensor)> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Returns the bytes of a tensor of this file, row by row.
    pub(super) fn data(&self, tensor: &StoredTensor) -> Cow<'_, [u8]> {
        let storage = &self.bytes[tensor.storage.clone()];
        let TorchTensor { offset, shape, strides, .. } = &tensor.view;
        let width = tensor.dtype().bitsize() / 8;
        let count: usize = shape.iter().product();
        if count == 0 {
            return Cow::Borrowed(&[]);
        }
        if is_row_by_row(shape, strides) {
            return Cow::Borrowed(&storage[offset * width..(offset + count) * width]);
        }
        let mut rows = Vec::with_capacity(count * width);
        let mut index = vec![0; shape.len()];
        for _ in 0..count {
            let steps: usize =
                index.iter().zip(strides).map(|(place, stride)| place * stride).sum();
            let start = (offset + steps) * width;
            rows.extend_from_slice(&storage[start..start + width]);
            // The next place: the last dimension goes round the fastest.
            for (place, size) in index.iter_mut().zip(shape).rev() {
                *place += 1;
                if *place < *size {
                    break;
                }
                *place = 0;
            }
        }
        Cow::Owned(rows)
    }
}

fn is_row_by_row(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1;
    shape.iter().zip(strides).rev().all(|(size, stride)| {
        let fits = *size == 1 || *stride == expected;
        expected *= size;
        fits
    })
}

fn read(bytes: &[u8]) -> Result<BTreeMap<String, StoredTensor>, String> {
    let (unpickled, storages, prefix) = if bytes.starts_with(zip::LOCAL_ENTRY) {
        let entries = zip::entries(bytes)?;
        let (unpickled, prefix) = pickle_of(bytes, &entries)?;
        (unpickled, entries, prefix + "data/")
    } else if bytes.starts_with(legacy::BEGINNING) {
        let (unpickled, storages) = legacy::read(bytes)?;
        (unpickled, storages, String::new())
    } else {
        return Err(format!("{} bytes that torch.save did not write", bytes.len()));
    };
    let mut tensors = BTreeMap::new();
    for (name, view) in unpickled.tensors()? {
        let storage = storages.get(&format!("{prefix}{}", view.storage.key));
        let shown = shorten(&name, 80);
        let storage = storage.cloned().ok_or_else(|| format!("`{shown}` without its storage"))?;
        require_inside(&view, storage.len()).map_err(|problem| format!("`{shown}`, {problem}"))?;
        tensors.insert(name, StoredTensor { view, storage });
    }
    Ok(tensors)
}

/// Reads the pickle of an archive, and returns it with the folder that it is in.
fn pickle_of(
    bytes: &[u8],
    entries: &BTreeMap<String, Range<usize>>,
) -> Result<(Unpickled, String), String> {
    let folder = |name: &str, file: &str| {
        let folder = name.strip_suffix(file)?;
        (folder.is_empty() || folder.ends_with('/')).then(|| folder.to_string())
    };
    let mut found =
        entries.iter().filter_map(|(name, place)| Some((folder(name, "data.pkl")?, place)));
    let (prefix, place) = found.next().ok_or("a zip archive without data.pkl")?;
    if found.next().is_some() {
        return Err("a zip archive with several data.pkl".into());
    }
    if entries.contains_key(&format!("{prefix}constants.pkl")) {
        return Err("a TorchScript module, which is a program".into());
    }
    let order = entries.get(&format!("{prefix}byteorder"));
    if order.is_some_and(|order| &bytes[order.clone()] != b"little") {
        return Err("numbers with their most significant byte first".into());
    }
    Ok((pickle::read(&bytes[place.clone()])?, prefix))
}

/// Returns an error if a tensor reaches beyond its storage, or has more values than it.
fn require_inside(view: &TorchTensor, n_bytes: usize) -> Result<(), String> {
    let TorchTensor { storage, offset, shape, strides } = view;
    if storage.n_bytes().is_none_or(|said| said > n_bytes) {
        return Err(format!("whose storage of {} values has {n_bytes} bytes", storage.length));
    }
    let count = shape.iter().try_fold(1usize, |count, size| count.checked_mul(*size));
    let last = shape.iter().zip(strides).try_fold(*offset, |last, (size, stride)| {
        last.checked_add(size.saturating_sub(1).checked_mul(*stride)?)
    });
    match (count, last) {
        (Some(0), _) => Ok(()),
        (Some(count), Some(last)) if count <= storage.length && last < storage.length => Ok(()),
        _ => Err(format!(
            "a tensor of shape {shape:?} that starts at {offset} and goes in steps of {strides:?} beyond the {} values \
             of its storage",
            storage.length
        )),
    }
}

#[cfg(test)]
mod tests;

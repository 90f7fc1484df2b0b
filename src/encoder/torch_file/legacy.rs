//! The form in which torch.save wrote files before PyTorch 1.6: five pickles (a magic number, a version, the machine,
//! the tensors, the names of the storages), then each storage, after its length.

use std::{collections::BTreeMap, ops::Range};

use super::pickle::{self, TorchStorage, Unpickled};

/// The number that the file begins with.
const MAGIC: i128 = 0x1950_a86a_20f9_469c_fc6c;

/// The first byte of a file: that of a pickle.
pub(super) const BEGINNING: &[u8] = b"\x80";

/// The version of the form.
const VERSION: i128 = 1001;

/// Returns the pickle of the tensors, and the place of every storage's bytes by its name.
///
/// # Errors
/// Describes what is damaged or unknown.
pub(super) fn read(bytes: &[u8]) -> Result<(Unpickled, BTreeMap<String, Range<usize>>), String> {
    let mut at = 0;
    let mut next = || {
        let unpickled = pickle::read(&bytes[at..])?;
        at += unpickled.n_bytes;
        Ok::<Unpickled, String>(unpickled)
    };
    if next()?.number() != Some(MAGIC) {
        return Err("a pickle that torch.save did not write".into());
    }
    let version = next()?.number();
    if version != Some(VERSION) {
        return Err("a version of torch.save's old form other than 1001".into());
    }
    if next()?.flag("little_endian") == Some(false) {
        return Err("numbers with their most significant byte first".into());
    }
    let (tensors, names) = (next()?, next()?);
    let names = names.texts().ok_or("no list of storages after the tensors")?;
    let mut storages: BTreeMap<&str, &TorchStorage> = BTreeMap::new();
    for storage in tensors.storages() {
        if storages.insert(&storage.key, storage).is_some_and(|other| other != storage) {
            return Err("a storage that is described in two ways".into());
        }
    }
    let mut places = BTreeMap::new();
    for name in names {
        let storage = storages.get(name).ok_or("a storage that no tensor uses")?;
        let cut_off =
            || format!("a storage of {} values that the file does not hold", storage.length);
        let length =
            bytes.get(at..).and_then(|left| left.first_chunk::<8>()).ok_or_else(cut_off)?;
        let length = u64::from_le_bytes(*length);
        if length != storage.length as u64 {
            return Err(format!(
                "a storage of {length} values, which the tensors say has {}",
                storage.length
            ));
        }
        let start = at + 8;
        let end = storage.n_bytes().and_then(|n_bytes| start.checked_add(n_bytes));
        let end = end.filter(|end| *end <= bytes.len()).ok_or_else(cut_off)?;
        places.insert(name.to_string(), start..end);
        at = end;
    }
    Ok((tensors, places))
}

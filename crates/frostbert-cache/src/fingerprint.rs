//! What determines a state: the fingerprint of an encoder and its settings, and the key of a document under it.

use std::{fmt, fs::Metadata, path::Path, str::FromStr, time::SystemTime};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    mmap::{self, MappedPages},
    wording::shorten,
};

/// The version of the cache format; a new version changes the fingerprints.
pub const FORMAT_VERSION: u32 = 2;

/// Everything that affects a state, in readable form. What is *stored* (layers, poolings) is not part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FingerprintInputs {
    /// blake3 of the weights.
    pub weights: Digest,
    /// blake3 of config.json.
    pub config: Digest,
    /// blake3 of tokenizer.json.
    pub tokenizer: Digest,
    /// The name and version of the graph that was built from the checkpoint.
    pub graph: String,
    /// `cpu` or `cuda`.
    pub provider: String,
    /// The type in which the encoder computes: `f32`, `f16` or `int8`.
    pub precision: String,
    /// The type in which states are stored: `f16` or `f32`.
    pub dtype: String,
    /// The maximum input length in tokens, including special tokens.
    pub max_length: usize,
    /// How longer texts are handled: `truncate` or `windows`.
    pub overflow: String,
    /// The number of tokens that neighbouring windows share, if overflow is `windows`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stride: Option<usize>,
    /// `false` if pooled states leave out the tokens of prompts; absent if they count, or if there are no prompts.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub include_prompt: Option<bool>,
    /// The [`FORMAT_VERSION`] of the cache.
    pub format_version: u32,
}

impl FingerprintInputs {
    /// Returns the first 16 hexadecimal digits of the blake3 of these inputs: the name of the cache folder.
    pub fn fingerprint(&self) -> String {
        // A struct of strings and numbers always serialises to JSON, with its fields in declaration order.
        let json = serde_json::to_string(self).expect("plain fields become JSON");
        blake3::hash(json.as_bytes()).to_hex()[..16].to_string()
    }

    /// Returns the inputs in which two fingerprints differ, as in `max_length 128 -> 256`.
    pub fn differences(&self, other: &FingerprintInputs) -> Vec<String> {
        let (ours, theirs) = (fields(self), fields(other));
        let names = ours.iter().map(|(name, _)| name).chain(
            theirs
                .iter()
                .map(|(name, _)| name)
                .filter(|name| !ours.iter().any(|(known, _)| known == *name)),
        );
        names
            .filter_map(|name| {
                let value = |of: &[(String, String)]| {
                    of.iter()
                        .find(|(known, _)| known == name)
                        .map_or("none".to_string(), |(_, value)| value.clone())
                };
                let (before, after) = (value(&ours), value(&theirs));
                (before != after).then(|| format!("{name} {before} -> {after}"))
            })
            .collect()
    }
}

fn fields(inputs: &FingerprintInputs) -> Vec<(String, String)> {
    let serde_json::Value::Object(map) =
        serde_json::to_value(inputs).expect("plain fields become JSON")
    else {
        unreachable!("a struct becomes an object")
    };
    map.into_iter()
        .map(|(name, value)| match value {
            serde_json::Value::String(text) if text.len() == 64 => (name, text[..12].to_string()),
            serde_json::Value::String(text) => (name, text),
            other => (name, other.to_string()),
        })
        .collect()
}

/// A blake3 hash, written as 64 hexadecimal digits; the digits are validated when a file is read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Creates a digest from its bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Digest {
        Digest(bytes)
    }

    /// Returns the first 16 hexadecimal digits, for messages and file names.
    pub fn short(&self) -> String {
        self.to_string()[..16].to_string()
    }
}

impl From<blake3::Hash> for Digest {
    fn from(hash: blake3::Hash) -> Digest {
        Digest(*hash.as_bytes())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", self.short())
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(digits: &str) -> Result<Digest, String> {
        match blake3::Hash::from_hex(digits) {
            Ok(hash) => Ok(hash.into()),
            Err(_) => Err(format!(
                "expected a blake3 hash of 64 hexadecimal digits, got `{}`",
                shorten(digits, 80)
            )),
        }
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// How a document is passed to the encoder. Part of the document's key, so that inputs of different modes never share
/// one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One text.
    Text,
    /// Two texts in one input.
    Pair,
    /// Words that the data lists separately; this differs from the text that they form.
    Words,
    /// A prompt and the text that it is put before; this differs from the text that they form.
    Prompted,
}

/// The key of a document: the blake3 of a mode tag, the number of parts, and each part preceded by its length.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub [u8; 32]);

impl Key {
    /// Returns the key of a document that consists of `parts`.
    pub fn of(mode: Mode, parts: &[impl AsRef<str>]) -> Key {
        let mut hasher = blake3::Hasher::new();
        hasher.update(match mode {
            Mode::Text => b"text",
            Mode::Pair => b"pair",
            Mode::Words => b"word",
            Mode::Prompted => b"prom",
        });
        hasher.update(&(parts.len() as u64).to_le_bytes());
        for part in parts.iter().map(AsRef::as_ref) {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        Key(*hasher.finalize().as_bytes())
    }

    /// Returns the key of a document that is known by its vector alone: the blake3 of a tag, the number of values, and
    /// the values as little-endian f32.
    pub fn of_vector(bytes: &[u8]) -> Key {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"vect");
        hasher.update(&(bytes.len() as u64 / 4).to_le_bytes());
        hasher.update(bytes);
        Key(*hasher.finalize().as_bytes())
    }

    /// Formats the key as 64 hexadecimal digits.
    pub fn to_hex(self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }

    /// Parses a key from 64 hexadecimal digits.
    pub fn from_hex(hex: &str) -> Option<Key> {
        blake3::Hash::from_hex(hex).ok().map(|hash| Key(*hash.as_bytes()))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", &self.to_hex()[..12])
    }
}

/// Returns the blake3 of a file.
///
/// # Errors
/// Returns an error if the file cannot be read.
pub fn hash_file(path: &Path) -> Result<Digest> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_mmap_rayon(path).map_err(Error::io("read", path))?;
    Ok(hasher.finalize().into())
}

/// Metadata that shows whether a file was modified or replaced by another of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    length: u64,
    modified: Option<SystemTime>,
    /// Identifies the file, if the system numbers its files.
    number: Option<(u64, u64)>,
}

impl Stamp {
    /// Returns the stamp of the file at a path.
    ///
    /// # Errors
    /// Returns an error if there is no such file.
    pub fn of(path: &Path) -> Result<Stamp> {
        let metadata = std::fs::metadata(path).map_err(Error::io("read", path))?;
        Ok(Stamp::of_metadata(&metadata))
    }

    /// Returns the stamp of a file from its metadata.
    pub fn of_metadata(metadata: &Metadata) -> Stamp {
        #[cfg(unix)]
        let number = {
            use std::os::unix::fs::MetadataExt;
            Some((metadata.dev(), metadata.ino()))
        };
        #[cfg(not(unix))]
        let number = None;
        Stamp { length: metadata.len(), modified: metadata.modified().ok(), number }
    }
}

/// Returns the blake3 of bytes that are in memory or mapped.
pub fn hash_bytes(bytes: &[u8]) -> Digest {
    blake3::hash(bytes).into()
}

/// Maps a file and returns it with its pages and its hash, so that exactly the hashed bytes are used.
///
/// # Errors
/// Returns an error if the file cannot be read.
pub fn map_and_hash(path: &Path) -> Result<(Bytes, MappedPages, Digest)> {
    let (bytes, pages) = mmap::map_with_pages(path)?;
    let hash = hash_on_all_cores(&bytes);
    Ok((bytes, pages, hash))
}

/// Like [`hash_bytes`], for many bytes.
fn hash_on_all_cores(bytes: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update_rayon(bytes);
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_join_to_the_same_text_have_different_keys() {
        let keys = [
            Key::of(Mode::Text, &["ab"]),
            Key::of(Mode::Pair, &["a", "b"]),
            Key::of(Mode::Pair, &["ab", ""]),
            Key::of(Mode::Pair, &["", "ab"]),
            Key::of(Mode::Text, &["a", "b"]),
            Key::of(Mode::Words, &["a", "b"]),
            Key::of(Mode::Words, &["ab"]),
            Key::of(Mode::Prompted, &["a", "b"]),
            Key::of(Mode::Prompted, &["", "ab"]),
        ];
        for (i, a) in keys.iter().enumerate() {
            for b in &keys[i + 1..] {
                assert_ne!(a, b);
            }
        }
        assert_eq!(Key::from_hex(&keys[0].to_hex()), Some(keys[0]));
    }

    #[test]
    fn a_difference_of_fingerprints_is_said_in_words() {
        let inputs = FingerprintInputs {
            weights: hash_bytes(b"weights"),
            config: hash_bytes(b"config"),
            tokenizer: hash_bytes(b"tokenizer"),
            graph: "fused-1".into(),
            provider: "cpu".into(),
            precision: "f32".into(),
            dtype: "f16".into(),
            max_length: 128,
            overflow: "truncate".into(),
            stride: None,
            include_prompt: None,
            format_version: FORMAT_VERSION,
        };
        let longer = FingerprintInputs { max_length: 256, ..inputs.clone() };
        assert_eq!(inputs.differences(&longer), ["max_length 128 -> 256"]);
        assert_ne!(inputs.fingerprint(), longer.fingerprint());
        let windows =
            FingerprintInputs { stride: Some(32), overflow: "windows".into(), ..inputs.clone() };
        assert_eq!(
            inputs.differences(&windows),
            ["overflow truncate -> windows", "stride none -> 32"]
        );
        let without_prompts = FingerprintInputs { include_prompt: Some(false), ..inputs.clone() };
        assert_eq!(inputs.differences(&without_prompts), ["include_prompt none -> false"]);
        assert_ne!(inputs.fingerprint(), without_prompts.fingerprint());
        let json = serde_json::to_string(&inputs).unwrap();
        assert!(
            !json.contains("include_prompt"),
            "caches without prompts keep their names: {json}"
        );
    }
}

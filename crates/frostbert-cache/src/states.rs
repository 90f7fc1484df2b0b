//! What the encoder passes to the cache: the states of each layer, row by row in the storage type, and the positions of
//! those rows' tokens in their document.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    ops::Range,
    str::FromStr,
    sync::{Mutex, PoisonError},
};

use half::{f16, slice::HalfFloatSliceExt};
use multiversion::multiversion;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Where the encoder's graph ran, if the device was a GPU.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// The GPU's name according to the driver; all names if the machine has several models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<String>,
    /// Operators that nevertheless ran on the CPU, with their numbers of nodes; empty if the whole graph ran on the
    /// GPU.
    pub cpu_nodes: BTreeMap<String, u64>,
}

/// How the hidden states of a document's tokens are combined into one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pooling {
    /// The state of the first token, `[CLS]`.
    Cls,
    /// The mean over all real tokens, including `[CLS]` and `[SEP]`: the sentence-transformers convention.
    Mean,
    /// The element-wise maximum over all real tokens.
    Max,
    /// None: the vector was given, in a column of this name, and no encoder of this program computed it. See
    /// [`StateId::given`].
    Given(&'static str),
}

impl Pooling {
    /// All poolings of an encoder's states, in file order.
    pub const ALL: [Pooling; 3] = [Pooling::Cls, Pooling::Mean, Pooling::Max];

    /// Returns the name in pipelines, file names and metadata.
    pub fn name(self) -> &'static str {
        match self {
            Pooling::Cls => "cls",
            Pooling::Mean => "mean",
            Pooling::Max => "max",
            Pooling::Given(column) => column,
        }
    }
}

/// What is stored for a layer, and therefore what a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StateKind {
    /// One row per document.
    Pooled(Pooling),
    /// One row per word: the state of its first sub-word.
    Words,
    /// One row per real token, including special tokens.
    Tokens,
}

impl StateKind {
    /// All kinds, in file order.
    pub const ALL: [StateKind; 5] = [
        StateKind::Pooled(Pooling::Cls),
        StateKind::Pooled(Pooling::Mean),
        StateKind::Pooled(Pooling::Max),
        StateKind::Words,
        StateKind::Tokens,
    ];

    /// Returns the name in pipelines, file names and metadata.
    pub fn name(self) -> &'static str {
        match self {
            StateKind::Pooled(pooling) => pooling.name(),
            StateKind::Words => "words",
            StateKind::Tokens => "tokens",
        }
    }
}

impl FromStr for StateKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        StateKind::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            format!("`{name}` is not a kind of state: expected cls, mean, max, words or tokens")
        })
    }
}

/// A stored state: a kind and an absolute layer (0 = embeddings), written as in `mean-L06`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateId {
    /// What is stored for the layer.
    pub kind: StateKind,
    /// The absolute layer; 0 is the embedding output.
    pub layer: usize,
}

impl StateId {
    /// Returns the id of a pooled state of a layer.
    pub fn pooled(pooling: Pooling, layer: usize) -> StateId {
        StateId { kind: StateKind::Pooled(pooling), layer }
    }

    /// Returns the id of vectors that were given in a column: each is the row of a document, of no layer.
    pub fn given(column: &str) -> StateId {
        StateId::pooled(Pooling::Given(interned(column)), 0)
    }

    /// Returns the column of vectors that were given; `None` for the states of an encoder.
    pub fn column(self) -> Option<&'static str> {
        match self.kind {
            StateKind::Pooled(Pooling::Given(column)) => Some(column),
            _ => None,
        }
    }
}

/// Returns a name that lives as long as the program, so that an id can be copied. A program names few columns.
fn interned(name: &str) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    match names.get(name) {
        Some(known) => known,
        None => {
            let name: &'static str = Box::leak(name.into());
            names.insert(name);
            name
        }
    }
}

/// What stands before the column of given vectors where an id is stored, so that a column `mean-L06` is no state of a
/// layer.
const COLUMN_PREFIX: &str = "column:";

impl fmt::Display for StateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.column() {
            Some(column) => f.write_str(column),
            None => write!(f, "{}-L{:02}", self.kind.name(), self.layer),
        }
    }
}

impl FromStr for StateId {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        if let Some(column) = name.strip_prefix(COLUMN_PREFIX) {
            return Ok(StateId::given(column));
        }
        let parsed = name.split_once("-L").and_then(|(kind, layer)| {
            Some(StateId { kind: kind.parse().ok()?, layer: layer.parse().ok()? })
        });
        parsed.ok_or_else(|| Error::StateName { name: name.into() })
    }
}

impl Serialize for StateId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.column() {
            Some(column) => serializer.collect_str(&format_args!("{COLUMN_PREFIX}{column}")),
            None => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for StateId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The type in which states are stored, little-endian.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// IEEE half precision: 2 bytes, 11 significant bits, largest value 65,504.
    #[default]
    F16,
    /// IEEE single precision: 4 bytes.
    F32,
}

impl Dtype {
    /// Returns the size of one value in bytes.
    pub fn size_bytes(self) -> usize {
        match self {
            Dtype::F16 => 2,
            Dtype::F32 => 4,
        }
    }

    /// Returns the name in pipelines and metadata.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F16 => "f16",
            Dtype::F32 => "f32",
        }
    }

    /// Returns the type with this name.
    pub fn named(name: &str) -> Option<Dtype> {
        [Dtype::F16, Dtype::F32].into_iter().find(|dtype| dtype.name() == name)
    }

    /// Checks that values are finite and fit into this type.
    ///
    /// # Errors
    /// Returns the first value that is not finite or does not fit into this type (over 65,504 for f16).
    pub fn check(self, values: &[f32]) -> Result<(), f32> {
        let limit = match self {
            Dtype::F16 => F16_LIMIT,
            Dtype::F32 => f32::MAX,
        };
        let fits = |value: f32| value.abs() <= limit;
        // Check all values at once first, which the compiler vectorises.
        if values.iter().fold(true, |all, value| all & fits(*value)) {
            return Ok(());
        }
        let unfit = values.iter().find(|value| !fits(**value));
        unfit.map_or(Ok(()), |value| Err(*value))
    }

    /// Appends values to `out` in this type.
    ///
    /// # Errors
    /// Returns the same errors as [`Dtype::check`]; nothing is appended then.
    pub fn encode(self, values: &[f32], out: &mut Vec<u8>) -> Result<(), f32> {
        self.check(values)?;
        self.put(values, out);
        Ok(())
    }

    /// Appends values to `out` in this type; they must have been checked.
    pub fn put(self, values: &[f32], out: &mut Vec<u8>) {
        out.reserve(values.len() * self.size_bytes());
        match self {
            Dtype::F16 => {
                let mut halves = [f16::ZERO; BLOCK];
                for block in values.chunks(BLOCK) {
                    let halves = &mut halves[..block.len()];
                    halves.convert_from_f32_slice(block);
                    out.extend(halves.iter().flat_map(|half| half.to_le_bytes()));
                }
            }
            Dtype::F32 => {
                for value in values {
                    out.extend_from_slice(&value.to_le_bytes());
                }
            }
        }
    }

    /// Decodes stored bytes into `out`; `bytes` may be unaligned.
    ///
    /// # Panics
    /// Panics if `bytes` does not hold exactly `out.len()` values.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) {
        assert_eq!(
            bytes.len(),
            out.len() * self.size_bytes(),
            "stored bytes and values differ in number"
        );
        match self {
            Dtype::F16 => decode_halves(bytes, out),
            Dtype::F32 => {
                for (value, four) in out.iter_mut().zip(bytes.chunks_exact(4)) {
                    *value = f32::from_le_bytes([four[0], four[1], four[2], four[3]]);
                }
            }
        }
    }
}

/// The largest whole number that rounds to a finite f16: halfway between 65,504 and the next step already rounds to
/// infinity.
const F16_LIMIT: f32 = 65_519.0;

/// Decodes little-endian f16 values in loops that vectorise.
///
/// Shifted left by 13, the bits of an f16 without its sign are those of an f32 that is too small by a factor of 2^112.
/// Multiplying by that factor is exact, even for subnormal numbers. Infinity and NaN become 65,536 or more, which no
/// finite f16 reaches; their result is the shifted bits with all exponent bits set.
#[multiversion(targets = "simd")]
fn decode_halves(bytes: &[u8], out: &mut [f32]) {
    /// The sign bit of an f32, and the places of the other 15 bits after the shift by 13.
    const KEPT: i32 = (1 << 31) | (0x7FFF << 13);
    let scale = f32::from_bits((127 + 112) << 23);
    for (value, pair) in out.iter_mut().zip(bytes.chunks_exact(2)) {
        // Sign-extended, so that the sign is in the highest bit too.
        let bits = i32::from(i16::from_le_bytes([pair[0], pair[1]])) << 13;
        let bits = (bits & KEPT) as u32;
        let finite = f32::from_bits(bits) * scale;
        *value = if finite.abs() < 65_536.0 { finite } else { f32::from_bits(bits | 0x7F80_0000) };
    }
}

/// The number of values converted at a time.
const BLOCK: usize = 512;

/// The values of one state for a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchStates {
    /// The state.
    pub state: StateId,
    /// The values.
    pub values: StateValues,
}

/// The values of one state for a batch's windows, in window order.
#[derive(Clone, Debug, PartialEq)]
pub enum StateValues {
    /// `windows x hidden` values: each window pooled by itself, to be combined per document later.
    Pooled(Vec<f32>),
    /// `rows x hidden` values of tokens or words, little-endian, in the storage type.
    Rows(Vec<u8>),
}

/// The positions of a window's tokens in their document; each field has one entry per real token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alignment {
    /// Rows of the word embedding table.
    pub token_ids: Vec<u32>,
    /// The number of each token's word in its sequence; -1 for special tokens.
    pub words: Vec<i32>,
    /// The first character of each token in the original text, in Unicode code points; 0 for special tokens.
    pub char_starts: Vec<u32>,
    /// The character after the last of each token.
    pub char_ends: Vec<u32>,
    /// 0 for the first text, 1 for the second, [`SPECIAL`] for special tokens.
    pub sequences: Vec<u8>,
}

impl Alignment {
    /// Returns the number of tokens.
    pub fn len(&self) -> usize {
        self.token_ids.len()
    }

    /// Returns the alignment of a range of tokens.
    ///
    /// # Panics
    /// Panics if the range is out of bounds.
    pub fn part(&self, tokens: Range<u64>) -> Alignment {
        let tokens = tokens.start as usize..tokens.end as usize;
        Alignment {
            token_ids: self.token_ids[tokens.clone()].to_vec(),
            words: self.words[tokens.clone()].to_vec(),
            char_starts: self.char_starts[tokens.clone()].to_vec(),
            char_ends: self.char_ends[tokens.clone()].to_vec(),
            sequences: self.sequences[tokens].to_vec(),
        }
    }

    /// Returns whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.token_ids.is_empty()
    }
}

/// The sequence number of special tokens.
pub const SPECIAL: u8 = 255;

/// A word of a document and the token whose state represents it: the word's first sub-word, in the window that gives it
/// the most context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WordPlace {
    /// 0 for the first text, 1 for the second.
    pub sequence: u8,
    /// The number of the word in the sequence.
    pub word: i32,
    /// The first character in the original text, in Unicode code points.
    pub char_start: u32,
    /// The character after the last one.
    pub char_end: u32,
    /// The number of the window in the document.
    pub window: u16,
    /// The position of the token in the window.
    pub position: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_name_is_parsed_back() {
        for kind in StateKind::ALL {
            let state = StateId { kind, layer: 6 };
            assert_eq!(state.to_string().parse::<StateId>().unwrap(), state);
        }
        assert_eq!(StateId::pooled(Pooling::Mean, 6).to_string(), "mean-L06");
        assert!("mean".parse::<StateId>().is_err());
        assert!("sum-L06".parse::<StateId>().is_err());
    }

    #[test]
    fn given_vectors_are_named_by_their_column_whatever_its_name() {
        for column in ["embedding", "mean-L06", "a/b", ""] {
            let state = StateId::given(column);
            assert_eq!((state.to_string().as_str(), state.column()), (column, Some(column)));
            let json = serde_json::to_string(&state).unwrap();
            assert_eq!(json, format!("\"column:{column}\""));
            assert_eq!(serde_json::from_str::<StateId>(&json).unwrap(), state);
        }
        assert_ne!(StateId::given("mean-L06"), "mean-L06".parse().unwrap());
        assert_eq!(StateId::pooled(Pooling::Mean, 6).column(), None);
    }

    #[test]
    fn conversion_in_blocks_equals_conversion_one_by_one() {
        let values: Vec<f32> = (0..3 * BLOCK + 7).map(|i| (i as f32 - 700.3) * 1.7).collect();
        let mut bytes = vec![0u8];
        Dtype::F16.encode(&values, &mut bytes).unwrap();
        let one_by_one = values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes());
        assert!(bytes[1..].iter().copied().eq(one_by_one));
        let mut back = vec![0.0; values.len()];
        Dtype::F16.decode(&bytes[1..], &mut back);
        let one_by_one = values.iter().map(|v| f16::from_f32(*v).to_f32());
        assert!(back.iter().copied().eq(one_by_one));
    }

    #[test]
    fn every_half_is_decoded_to_its_value() {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let mut values = vec![0.0; 1 << 16];
        Dtype::F16.decode(&bytes, &mut values);
        for (bits, value) in (0..=u16::MAX).zip(values) {
            let expected = f16::from_bits(bits).to_f32();
            let is_same = value.to_bits() == expected.to_bits();
            assert!(is_same || value.is_nan() && expected.is_nan(), "{bits:04x}: {value}");
        }
    }

    #[test]
    fn values_that_the_type_cannot_hold_are_refused() {
        let mut out = Vec::new();
        assert_eq!(Dtype::F16.encode(&[1.0, 70_000.0], &mut out), Err(70_000.0));
        assert!(Dtype::F16.encode(&[f32::NAN], &mut out).unwrap_err().is_nan());
        assert_eq!(Dtype::F32.encode(&[f32::INFINITY], &mut out), Err(f32::INFINITY));
        out.clear();
        assert_eq!(Dtype::F16.encode(&[65_504.0, 65_519.0], &mut out), Ok(()));
        let mut back = [0.0; 2];
        Dtype::F16.decode(&out, &mut back);
        assert_eq!(back, [65_504.0; 2]);
    }
}

//! What the encoder hands to the cache: which state of which layer, in which storage type, row by row.

use std::{fmt, str::FromStr};

use half::f16;
use serde::{Deserialize, Serialize};

/// How the hidden states of one document become one stored vector (or, later, many).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The state of the first token, `[CLS]`.
    Cls,
    /// The mean over all real tokens, `[CLS]` and `[SEP]` included: the sentence-transformers convention.
    Mean,
    /// The element-wise maximum over all real tokens.
    Max,
}

impl Pooling {
    /// All poolings, in file order.
    pub const ALL: [Pooling; 3] = [Pooling::Cls, Pooling::Mean, Pooling::Max];

    /// The name in pipelines, file names and metadata.
    pub fn name(self) -> &'static str {
        match self {
            Pooling::Cls => "cls",
            Pooling::Mean => "mean",
            Pooling::Max => "max",
        }
    }
}

/// One stored state: a pooling of one absolute layer (0 = embeddings). Written `mean-L06`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StateId {
    /// The pooling.
    pub pooling: Pooling,
    /// The absolute layer; 0 is the embedding output.
    pub layer: usize,
}

impl fmt::Display for StateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-L{:02}", self.pooling.name(), self.layer)
    }
}

impl FromStr for StateId {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let parsed = name.split_once("-L").and_then(|(pooling, layer)| {
            let pooling = Pooling::ALL
                .into_iter()
                .find(|known| known.name() == pooling)?;
            Some(StateId {
                pooling,
                layer: layer.parse().ok()?,
            })
        });
        parsed.ok_or_else(|| format!("`{name}` is no state name (such as mean-L06)"))
    }
}

impl Serialize for StateId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StateId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
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
    /// Bytes of one value.
    pub fn size_bytes(self) -> usize {
        match self {
            Dtype::F16 => 2,
            Dtype::F32 => 4,
        }
    }

    /// The name in pipelines and metadata.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F16 => "f16",
            Dtype::F32 => "f32",
        }
    }

    /// Appends values to `out` in this type.
    ///
    /// # Errors
    /// The first value that is not finite, or that this type cannot hold (over 65,504 for f16), is returned; `out`
    /// then holds an undefined number of values.
    pub fn encode(self, values: &[f32], out: &mut Vec<u8>) -> Result<(), f32> {
        out.reserve(values.len() * self.size_bytes());
        let limit = match self {
            Dtype::F16 => F16_LIMIT,
            Dtype::F32 => f32::MAX,
        };
        let fits = |value: f32| value.abs() <= limit;
        if let Some(unfit) = values.iter().find(|value| !fits(**value)) {
            return Err(*unfit);
        }
        match self {
            Dtype::F16 => {
                for value in values {
                    out.extend_from_slice(&f16::from_f32(*value).to_le_bytes());
                }
            }
            Dtype::F32 => {
                for value in values {
                    out.extend_from_slice(&value.to_le_bytes());
                }
            }
        }
        Ok(())
    }

    /// Decodes stored bytes into `out`; `bytes` may be unaligned.
    ///
    /// # Panics
    /// When `bytes` does not hold exactly `out.len()` values.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) {
        assert_eq!(
            bytes.len(),
            out.len() * self.size_bytes(),
            "stored bytes and values differ in number"
        );
        match self {
            Dtype::F16 => {
                for (value, pair) in out.iter_mut().zip(bytes.chunks_exact(2)) {
                    *value = f16::from_le_bytes([pair[0], pair[1]]).to_f32();
                }
            }
            Dtype::F32 => {
                for (value, four) in out.iter_mut().zip(bytes.chunks_exact(4)) {
                    *value = f32::from_le_bytes([four[0], four[1], four[2], four[3]]);
                }
            }
        }
    }
}

/// The largest value that rounds to a finite f16: halfway between 65,504 and the next step is already infinity.
const F16_LIMIT: f32 = 65_519.0;

/// Some documents' rows of one state, in the storage type, one after the other.
#[derive(Clone, Debug)]
pub struct StateRows {
    /// Which state.
    pub state: StateId,
    /// `documents x hidden` values, little-endian.
    pub bytes: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_name_is_parsed_back() {
        for pooling in Pooling::ALL {
            let state = StateId { pooling, layer: 6 };
            assert_eq!(state.to_string().parse(), Ok(state));
        }
        assert_eq!(
            StateId {
                pooling: Pooling::Mean,
                layer: 6
            }
            .to_string(),
            "mean-L06"
        );
        assert!("mean".parse::<StateId>().is_err());
        assert!("sum-L06".parse::<StateId>().is_err());
    }

    #[test]
    fn values_that_the_type_cannot_hold_are_refused() {
        let mut out = Vec::new();
        assert_eq!(Dtype::F16.encode(&[1.0, 70_000.0], &mut out), Err(70_000.0));
        assert!(
            Dtype::F16
                .encode(&[f32::NAN], &mut out)
                .unwrap_err()
                .is_nan()
        );
        assert_eq!(
            Dtype::F32.encode(&[f32::INFINITY], &mut out),
            Err(f32::INFINITY)
        );
        out.clear();
        assert_eq!(Dtype::F16.encode(&[65_504.0, 65_519.0], &mut out), Ok(()));
        let mut back = [0.0; 2];
        Dtype::F16.decode(&out, &mut back);
        assert_eq!(back, [65_504.0; 2]);
    }
}

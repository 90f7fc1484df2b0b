//! The keys of the training of the encoder's layers.

use serde::{Deserialize, Serialize};

use crate::head::spec::LoraTarget;

/// How many of the encoder's layers are trained: a number, or a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number of layers, or \"all\"")]
pub enum UnfreezeKey {
    /// So many of the last layers.
    Last(usize),
    /// A word.
    Named(UnfreezeWord),
}

/// A number of layers by a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnfreezeWord {
    /// All layers, but not the embeddings.
    All,
}

/// `train.lora`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LoraTable {
    /// The rank of an update.
    pub rank: usize,
    /// An update counts with `alpha / rank`.
    pub alpha: f64,
    /// The weights of each layer that are updated.
    pub targets: Vec<LoraTarget>,
}

impl Default for LoraTable {
    /// Rank 8 and alpha 16, of query and value.
    fn default() -> LoraTable {
        LoraTable { rank: 8, alpha: 16.0, targets: vec![LoraTarget::Query, LoraTarget::Value] }
    }
}

//! The section `[sweep]` of a pipeline file: what varies, and how the heads are compared.

use serde::{Deserialize, Serialize};

/// `[sweep]`: these keys, and every key of `[head]` and `[train]` by its last name with a list of values or a
/// distribution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SweepSection {
    /// Parts that train and validation together are cut into: each head is trained once without each of them, and
    /// judged on what it did not see. Without it heads learn from train and are judged on validation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folds: Option<usize>,
    /// Parts that what is left of each fold is cut into, to choose a setting without the fold: what the whole choice is
    /// worth is then measured on rows that had no part in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nested: Option<usize>,
    /// Heads of every setting, with other initial weights and dropout masks.
    #[serde(default = "one")]
    pub seeds: usize,
    /// How settings are chosen and heads given up.
    #[serde(default)]
    pub search: Search,
    /// Settings that are drawn where a value has a distribution or the search is random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trials: Option<usize>,
    /// The validation metric that the best head has the best value of; by the task where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub select: Option<String>,
    /// Whether the winner is trained again on train and validation; with folds it is, without it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refit: Option<bool>,
    /// Shares of the training rows, for a learning curve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fraction: Option<OneOrMany>,
    /// Heads of every setting that learn from rows drawn with replacement: how much the choice of rows matters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<usize>,
    /// What varies.
    #[serde(flatten)]
    pub keys: toml::Table,
}

fn one() -> usize {
    1
}

/// How settings are chosen, and whether heads are given up early.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Search {
    /// Every combination of the values.
    #[default]
    Grid,
    /// `trials` combinations, drawn.
    Random,
    /// As grid or random, whichever the values ask for; after some epochs only the best go on: see [`super::halving`].
    Halving,
}

/// A number, or a list of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number or a list of numbers")]
pub enum OneOrMany {
    /// One.
    One(f64),
    /// Several.
    Many(Vec<f64>),
}

impl OneOrMany {
    /// The numbers.
    pub fn values(&self) -> &[f64] {
        match self {
            OneOrMany::One(value) => std::slice::from_ref(value),
            OneOrMany::Many(values) => values,
        }
    }
}

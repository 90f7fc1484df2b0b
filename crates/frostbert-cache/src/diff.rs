//! In what two caches differ.

use std::path::Path;

use serde::Serialize;

use crate::{error::Result, reader::CacheReader, states::StateId};

/// The difference of two caches, `a` and `b`.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// The inputs of the fingerprints that differ, as `max_length 128 -> 256`.
    pub differences: Vec<String>,
    /// States that only the first holds.
    pub states_only_a: Vec<StateId>,
    /// States that only the second holds.
    pub states_only_b: Vec<StateId>,
    /// Documents that both hold.
    pub documents_common: u64,
    /// Documents that only the first holds.
    pub documents_only_a: u64,
    /// Documents that only the second holds.
    pub documents_only_b: u64,
}

impl Difference {
    /// Compares two cache folders.
    ///
    /// # Errors
    /// When one of them is no cache, or is damaged.
    pub fn between(a: &Path, b: &Path) -> Result<Difference> {
        let (a, b) = (CacheReader::existing(a)?, CacheReader::existing(b)?);
        let (states_a, states_b) = (a.manifest().states(), b.manifest().states());
        let of_a = a.index().documents();
        let in_both = of_a.filter(|(key, _)| b.index().truncated(key).is_some());
        let documents_common = in_both.count() as u64;
        Ok(Difference {
            differences: a.manifest().inputs.differences(&b.manifest().inputs),
            states_only_a: states_a.difference(&states_b).copied().collect(),
            states_only_b: states_b.difference(&states_a).copied().collect(),
            documents_common,
            documents_only_a: a.index().n_documents() - documents_common,
            documents_only_b: b.index().n_documents() - documents_common,
        })
    }
}

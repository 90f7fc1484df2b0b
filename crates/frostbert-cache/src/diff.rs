//! Compares two caches.

use std::path::Path;

use serde::Serialize;

use crate::{error::Result, reader::CacheReader, states::StateId};

/// The differences between two caches, `a` and `b`.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// The fingerprint inputs that differ, as in `max_length 128 -> 256`.
    pub differences: Vec<String>,
    /// States that only `a` holds.
    pub states_only_a: Vec<StateId>,
    /// States that only `b` holds.
    pub states_only_b: Vec<StateId>,
    /// The number of documents in both caches.
    pub documents_common: u64,
    /// The number of documents that only `a` holds.
    pub documents_only_a: u64,
    /// The number of documents that only `b` holds.
    pub documents_only_b: u64,
}

impl Difference {
    /// Compares two cache folders.
    ///
    /// # Errors
    /// Returns an error if one of them is not a cache or is damaged.
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

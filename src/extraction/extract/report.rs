//! The report of an extraction, or of several together.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::extraction::busy::{bound_by, together};

/// The report of an extraction.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ExtractReport {
    /// The cache folder, `<cache.dir>/<fingerprint>`.
    #[serde(serialize_with = "frostbert_cache::wording::path_shown")]
    pub cache: PathBuf,
    /// Its fingerprint.
    pub fingerprint: String,
    /// Number of records read.
    pub documents: u64,
    /// Number of texts of only white space that were left out.
    pub empty: u64,
    /// Number of distinct texts among the others.
    pub unique: u64,
    /// Number of texts that were encoded.
    pub computed: u64,
    /// Number of texts that the cache already had.
    pub reused: u64,
    /// Number of real tokens that were encoded.
    pub tokens: u64,
    /// Number of distinct texts whose end was cut off.
    pub truncated: u64,
    /// The ratio of real tokens to padded tokens.
    pub padding_efficiency: f64,
    /// The part of stage 1 that bound its speed: the one that was at work for most of the time. Absent if nothing was
    /// encoded, or if no part was at work for more than half of the time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bound_by: Option<&'static str>,
    /// The share of the time of encoding in which `tokenizer`, `encoder` and `writer` were at work.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub busy: BTreeMap<&'static str, f64>,
    /// Wall time of the stage, in seconds.
    pub seconds: f64,
    /// `tokens / seconds`.
    pub tokens_per_second: f64,
    /// Size of the new shards in bytes.
    pub bytes_written: u64,
    /// The device that was used, such as `cpu`, `cuda:0` or `cuda:0,1`.
    pub device: String,
    /// What `device = "auto"` chose, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_reason: Option<String>,
    /// The precision of the computation.
    pub precision: &'static str,
    /// Where several models are compared, what was done for each, by its folder: the counts above are then those of all
    /// together, and the cache is that of the first.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub models: BTreeMap<String, ExtractReport>,
}

impl ExtractReport {
    /// The cache of a model.
    pub(crate) fn cache_of(&self, model: &Path) -> &Path {
        let own = self.models.get(&model.display().to_string());
        own.map_or(&self.cache, |own| &own.cache)
    }

    /// The seconds in which something was encoded.
    fn encoding(&self) -> f64 {
        if self.busy.is_empty() { 0.0 } else { self.seconds }
    }

    /// Adds what another extraction did.
    pub(crate) fn add(&mut self, other: &ExtractReport) {
        let padded = |report: &ExtractReport| match report.padding_efficiency {
            0.0 => 0.0,
            efficiency => report.tokens as f64 / efficiency,
        };
        let padded = padded(self) + padded(other);
        self.busy = together((&self.busy, self.encoding()), (&other.busy, other.encoding()));
        self.bound_by = bound_by(&self.busy);
        self.documents += other.documents;
        self.empty += other.empty;
        self.unique += other.unique;
        self.computed += other.computed;
        self.reused += other.reused;
        self.tokens += other.tokens;
        self.truncated += other.truncated;
        self.seconds += other.seconds;
        self.bytes_written += other.bytes_written;
        self.tokens_per_second = self.tokens as f64 / self.seconds.max(f64::MIN_POSITIVE);
        if padded > 0.0 {
            self.padding_efficiency = self.tokens as f64 / padded;
        }
    }
}

//! What a sentence-transformers folder says, in words.

use serde::Serialize;

use super::SentenceFolder;
use crate::error::Result;

/// What a sentence-transformers folder says and what is made of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SentenceSummary {
    /// The names of the modules, in order.
    pub parts: Vec<String>,
    /// The poolings that are concatenated; none if one of them is not computed.
    pub pooling: Vec<String>,
    /// The longest input in tokens.
    pub max_length: Option<usize>,
    /// How a sentence vector is computed; `None` if it is not.
    pub sentence: Option<String>,
    /// The number of values in a sentence vector.
    pub dimensions: Option<usize>,
    /// Why no sentence vector is computed.
    pub refused: Option<String>,
    /// What has no effect.
    pub ignored: Vec<String>,
}

impl SentenceFolder {
    /// Summarises the folder, for states of `hidden` values.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read. What is not computed is part of the summary.
    pub fn summary(&self, hidden: usize) -> Result<SentenceSummary> {
        let vector = self.vector(hidden);
        let poolings = self.poolings().unwrap_or_default();
        Ok(SentenceSummary {
            parts: self.parts().into_iter().map(String::from).collect(),
            pooling: poolings.iter().map(|pooling| pooling.name().to_string()).collect(),
            max_length: self.max_length()?,
            sentence: vector.as_ref().ok().map(|vector| vector.describe()),
            dimensions: vector.as_ref().ok().map(|vector| vector.n_values()),
            refused: vector.as_ref().err().map(ToString::to_string),
            ignored: self.ignored()?,
        })
    }
}

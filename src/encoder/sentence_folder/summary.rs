//! What a sentence-transformers folder says, in words.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{SentenceFolder, pooling_folder};
use crate::{
    encoder::prompts::{FolderPrompts, include_prompt},
    error::Result,
};

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
    /// The texts of its prompts by name.
    pub prompts: BTreeMap<String, String>,
    /// The name of the prompt that is put before texts if none is chosen.
    pub default_prompt: Option<String>,
    /// Whether pooled states count the tokens of prompts.
    pub include_prompt: bool,
    /// What has no effect.
    pub ignored: Vec<String>,
}

impl SentenceFolder {
    /// Summarises the folder, for states of `hidden` values and a tokenizer as its files say.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read. What is not computed is part of the summary.
    pub fn summary(&self, hidden: usize) -> Result<SentenceSummary> {
        let vector = self.vector(hidden, None);
        let poolings = self.poolings(None).unwrap_or_default();
        let prompts = FolderPrompts::read(&self.folder)?;
        Ok(SentenceSummary {
            parts: self.parts().into_iter().map(String::from).collect(),
            pooling: poolings.iter().map(|pooling| pooling.name().to_string()).collect(),
            max_length: self.max_length()?,
            sentence: vector.as_ref().ok().map(|vector| vector.describe()),
            dimensions: vector.as_ref().ok().map(|vector| vector.n_values()),
            refused: vector.as_ref().err().map(ToString::to_string),
            default_prompt: prompts.default_prompt().map(|(name, _)| name.to_string()),
            prompts: prompts.texts,
            include_prompt: include_prompt(&pooling_folder(&self.folder)?)?,
            ignored: self.ignored()?,
        })
    }
}

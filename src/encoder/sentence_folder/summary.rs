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
    /// How the vectors of tokens are computed, in a folder that makes them instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub multi_vector: Option<MultiVectorSummary>,
    /// Why no sentence vector is computed, or no vectors of tokens.
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

/// How a folder makes a vector of each token, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MultiVectorSummary {
    /// What becomes of the states of the last layer.
    pub steps: String,
    /// The number of values in a vector.
    pub dimensions: usize,
    /// Which tokens have a vector.
    pub tokens: String,
    /// How long queries are, and with what short ones are filled up.
    pub queries: String,
    /// The similarity of a query and a document: `maxsim` or `meanmaxsim`.
    pub similarity: String,
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
        let of_tokens =
            if self.has_token_vectors()? { Some(self.token_vectors(hidden, None)) } else { None };
        let refused = match &of_tokens {
            Some(vectors) => vectors.as_ref().err(),
            None => vector.as_ref().err(),
        };
        Ok(SentenceSummary {
            parts: self.parts().into_iter().map(String::from).collect(),
            pooling: poolings.iter().map(|pooling| pooling.name().to_string()).collect(),
            max_length: self.max_length()?,
            sentence: vector.as_ref().ok().map(|vector| vector.describe()),
            dimensions: vector.as_ref().ok().map(|vector| vector.n_values()),
            refused: refused.map(ToString::to_string),
            multi_vector: of_tokens.and_then(Result::ok).map(|vectors| MultiVectorSummary {
                steps: vectors.describe(),
                dimensions: vectors.n_values(),
                tokens: vectors.describe_mask(),
                queries: vectors.describe_queries(),
                similarity: vectors.similarity_name().into(),
            }),
            default_prompt: prompts.default_prompt().map(|(name, _)| name.to_string()),
            prompts: prompts.texts,
            include_prompt: include_prompt(&pooling_folder(&self.folder)?)?,
            ignored: self.ignored()?,
        })
    }
}

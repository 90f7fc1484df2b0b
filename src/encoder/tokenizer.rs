//! tokenizer.json: texts to token ids, with every limit set here and nothing trusted that is baked into the file.

use std::path::Path;

use rayon::prelude::*;
use tokenizers::{Tokenizer, TruncationDirection, TruncationParams, TruncationStrategy};

use crate::error::{Error, Result};

/// The token ids of one text, special tokens included, at most `max_length` of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoding {
    /// Rows of the word embedding.
    pub ids: Vec<u32>,
    /// Whether the text was longer and its end is missing.
    pub truncated: bool,
}

/// One text, token by token, as the `tokenize` command shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenTable {
    /// The tokens as the vocabulary spells them.
    pub tokens: Vec<String>,
    /// Their ids.
    pub ids: Vec<u32>,
    /// Start and end of each in the text, in characters (Unicode code points); `(0, 0)` for special tokens.
    pub offsets: Vec<(usize, usize)>,
    /// The word each belongs to; `None` for special tokens.
    pub word_ids: Vec<Option<u32>>,
    /// Whether the text was longer.
    pub truncated: bool,
}

/// A tokenizer that truncates to a given length and never pads.
pub struct TextTokenizer {
    inner: Tokenizer,
}

impl TextTokenizer {
    /// Opens tokenizer.json; longer texts than `max_length` tokens (special ones included) lose their end.
    ///
    /// # Errors
    /// When the file is missing or no tokenizer, or `max_length` leaves no room for a token beside the special ones.
    pub fn open(path: &Path, max_length: usize) -> Result<TextTokenizer> {
        let refuse = |expected: &str, got: String, hint: &str| Error::Checkpoint {
            path: path.to_path_buf(),
            expected: expected.into(),
            got,
            hint: hint.into(),
        };
        let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
        let mut inner = Tokenizer::from_bytes(&bytes).map_err(|error| {
            refuse(
                "a Hugging Face tokenizer.json",
                error.to_string(),
                "fetch the checkpoint again",
            )
        })?;
        let truncation = TruncationParams {
            max_length,
            strategy: TruncationStrategy::LongestFirst,
            stride: 0,
            direction: TruncationDirection::Right,
        };
        if max_length < MIN_LENGTH {
            return Err(refuse(
                &format!("a max_length of at least {MIN_LENGTH} tokens"),
                format!("{max_length}"),
                "raise cache.max_length",
            ));
        }
        inner.with_truncation(Some(truncation)).map_err(|error| {
            refuse(
                "a usable max_length",
                error.to_string(),
                "raise cache.max_length",
            )
        })?;
        inner.with_padding(None);
        Ok(TextTokenizer { inner })
    }

    /// Tokenises texts on all threads of the current rayon pool, in their order.
    ///
    /// # Errors
    /// When the tokenizer itself fails on a text.
    pub fn encode(&self, texts: &[impl AsRef<str> + Sync]) -> Result<Vec<Encoding>> {
        texts
            .par_iter()
            .map(|text| {
                let encoding = self
                    .inner
                    .encode_fast(text.as_ref(), true)
                    .map_err(failed)?;
                Ok(Encoding {
                    ids: encoding.get_ids().to_vec(),
                    truncated: !encoding.get_overflowing().is_empty(),
                })
            })
            .collect()
    }

    /// One text with its tokens, offsets and words.
    ///
    /// # Errors
    /// When the tokenizer itself fails on the text.
    pub fn table(&self, text: &str) -> Result<TokenTable> {
        let encoding = self.inner.encode_char_offsets(text, true).map_err(failed)?;
        Ok(TokenTable {
            tokens: encoding.get_tokens().to_vec(),
            ids: encoding.get_ids().to_vec(),
            offsets: encoding.get_offsets().to_vec(),
            word_ids: encoding.get_word_ids().to_vec(),
            truncated: !encoding.get_overflowing().is_empty(),
        })
    }
}

/// Room for `[CLS]`, `[SEP]` and one token.
pub const MIN_LENGTH: usize = 3;

fn failed(error: tokenizers::Error) -> Error {
    Error::Encoder {
        action: "tokenise a text",
        reason: error.to_string(),
    }
}

//! tokenizer.json: documents to token ids, with every limit set here and nothing trusted that is baked into the file.

use std::{borrow::Cow, path::Path};

use rayon::prelude::*;
use serde_json::Value;
use tokenizers::{InputSequence, Tokenizer};

use super::tokenizer_file::TokenizerFile;
use super::windows::{Encoding, Overflow, Piece, Sequence, Template, cut, least_length};
use crate::{
    error::{Error, Result},
    fingerprint::{Key, Mode},
    wording::shorten,
};

/// A document as it is handed to the encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input<'a> {
    /// One text.
    Text(&'a str),
    /// Two texts in one input.
    Pair(&'a str, &'a str),
    /// Words that somebody else told apart; offsets count in the words joined by one space.
    Words(&'a [String]),
}

impl Input<'_> {
    /// The key of this document.
    pub fn key(self) -> Key {
        match self {
            Input::Text(text) => Key::of(Mode::Text, &[text]),
            Input::Pair(first, second) => Key::of(Mode::Pair, &[first, second]),
            Input::Words(words) => Key::of(Mode::Words, words),
        }
    }

    /// Its first characters, for messages.
    fn beginning(self) -> String {
        let text = match self {
            Input::Text(text) | Input::Pair(_, text) => text,
            Input::Words(words) => words.first().map_or("", String::as_str),
        };
        shorten(text, 40)
    }
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
}

/// A tokenizer that cuts documents to a given length and never pads.
pub struct TextTokenizer {
    inner: Tokenizer,
    /// For given words, where these need another setting than texts.
    of_words: Option<Tokenizer>,
    template: Template,
    max_length: usize,
    overflow: Overflow,
}

impl TextTokenizer {
    /// Opens tokenizer.json, with the files beside it: see [`TokenizerFile::open`].
    ///
    /// # Errors
    /// As [`TokenizerFile::open`] and [`TextTokenizer::new`].
    pub fn open(path: &Path, max_length: usize, overflow: Overflow) -> Result<TextTokenizer> {
        TextTokenizer::new(&TokenizerFile::open(path)?, max_length, overflow)
    }

    /// The tokenizer of a file; documents longer than `max_length` tokens (special ones included) are truncated, or cut
    /// into windows.
    ///
    /// # Errors
    /// When the file is no tokenizer, or `max_length` leaves too little room beside the special tokens.
    pub fn new(
        file: &TokenizerFile,
        max_length: usize,
        overflow: Overflow,
    ) -> Result<TextTokenizer> {
        let path = &file.path;
        let refuse = |expected: &str, got: String, hint: &str| Error::Checkpoint {
            path: path.clone(),
            expected: expected.into(),
            got,
            hint: hint.into(),
        };
        let parse = |bytes: &[u8]| {
            let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(|error| {
                refuse(
                    "a Hugging Face tokenizer.json",
                    error.to_string(),
                    "fetch the checkpoint again",
                )
            })?;
            tokenizer.with_padding(None);
            tokenizer.with_truncation(None).map_err(failed)?;
            Ok(tokenizer)
        };
        let inner = parse(&file.json)?;
        let of_words = with_prefix_space(&file.json)
            .map(|bytes| parse(&bytes))
            .transpose()?;
        let template = template_of(&inner).map_err(failed)?.ok_or_else(|| {
            refuse(
                "a tokenizer.json that makes tokens of a letter or a digit, with room for two texts",
                "none in any of its templates".into(),
                "fetch the tokenizer.json that belongs to the model",
            )
        })?;
        let least = least_length(&template, overflow);
        if max_length < least {
            let (needed, hint) = match overflow {
                Overflow::Truncate => (String::new(), "raise cache.max_length"),
                Overflow::Windows { stride } => (
                    format!(
                        " (the special tokens of a pair, a stride of {stride}, and a token of each text)"
                    ),
                    "raise cache.max_length, or lower cache.stride",
                ),
            };
            return Err(refuse(
                &format!("a max_length of at least {least} tokens{needed}"),
                format!("{max_length}"),
                hint,
            ));
        }
        Ok(TextTokenizer {
            inner,
            of_words,
            template,
            max_length,
            overflow,
        })
    }

    /// Tokenises documents on all threads of the current rayon pool, in their order; with their alignment, which takes
    /// longer, only where it is asked for.
    ///
    /// # Errors
    /// When the tokenizer itself fails, or a document has more windows than can be numbered.
    pub fn encode(&self, inputs: &[Input<'_>], aligned: bool) -> Result<Vec<Encoding>> {
        inputs
            .par_iter()
            .map(|input| self.encode_one(*input, aligned))
            .collect()
    }

    fn encode_one(&self, input: Input<'_>, aligned: bool) -> Result<Encoding> {
        let (first, second) = match input {
            Input::Text(text) => (sequence(&self.inner, raw(text), aligned)?, None),
            Input::Pair(first, second) => (
                sequence(&self.inner, raw(first), aligned)?,
                Some(sequence(&self.inner, raw(second), aligned)?),
            ),
            Input::Words(words) => {
                let given = InputSequence::PreTokenizedOwned(Cow::Borrowed(words));
                let tokenizer = self.of_words.as_ref().unwrap_or(&self.inner);
                let mut sequence = sequence(tokenizer, given, aligned)?;
                shift_into_joined_text(&mut sequence, words);
                (sequence, None)
            }
        };
        let encoding = cut(
            &first,
            second.as_ref(),
            &self.template,
            self.max_length,
            self.overflow,
        );
        if encoding.windows.len() > usize::from(u16::MAX) {
            return Err(Error::Encoder {
                action: "tokenise a text",
                reason: format!(
                    "`{}` makes {} windows, and {} can be numbered: cut it into several texts",
                    input.beginning(),
                    encoding.windows.len(),
                    u16::MAX
                ),
            });
        }
        Ok(encoding)
    }

    /// One whole text with its tokens, offsets and words; nothing is cut off.
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
        })
    }
}

fn sequence(tokenizer: &Tokenizer, input: InputSequence<'_>, aligned: bool) -> Result<Sequence> {
    if !aligned {
        let encoding = tokenizer.encode_fast(input, false).map_err(failed)?;
        return Ok(Sequence {
            ids: encoding.get_ids().to_vec(),
            ..Sequence::default()
        });
    }
    let encoding = tokenizer
        .encode_char_offsets(input, false)
        .map_err(failed)?;
    let words = encoding.get_word_ids().iter();
    let offsets = encoding.get_offsets().iter();
    Ok(Sequence {
        ids: encoding.get_ids().to_vec(),
        offsets: offsets
            .map(|(start, end)| (*start as u32, *end as u32))
            .collect(),
        words: words
            .map(|word| word.map_or(-1, |word| word as i32))
            .collect(),
    })
}

fn raw(text: &str) -> InputSequence<'_> {
    InputSequence::Raw(Cow::Borrowed(text))
}

/// Offsets of given words count from the word's own start: these count from the start of the words joined by spaces.
fn shift_into_joined_text(sequence: &mut Sequence, words: &[String]) {
    let starts: Vec<u32> = words
        .iter()
        .scan(0, |next, word| {
            let start = *next;
            *next += word.chars().count() as u32 + 1;
            Some(start)
        })
        .collect();
    for (offset, word) in sequence.offsets.iter_mut().zip(&sequence.words) {
        if let Some(start) = usize::try_from(*word)
            .ok()
            .and_then(|word| starts.get(word))
        {
            *offset = (offset.0 + start, offset.1 + start);
        }
    }
}

/// tokenizer.json with `add_prefix_space` on, where it is off: a byte-level tokenizer (RoBERTa's) tells a word by the
/// space before it, which words that are given one by one have lost. `None` where there is nothing to turn on.
fn with_prefix_space(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut json: Value = serde_json::from_slice(bytes).ok()?;
    let parts = ["pre_tokenizer", "post_processor"];
    let turned = parts.map(|part| json.get_mut(part).is_some_and(turn_prefix_space_on));
    turned[0].then(|| json.to_string().into_bytes())
}

/// Turns `add_prefix_space` on in a part of tokenizer.json and the parts that it is made of; whether it was off.
fn turn_prefix_space_on(part: &mut Value) -> bool {
    match part {
        Value::Object(fields) => {
            let here = fields
                .get_mut("add_prefix_space")
                .filter(|on| **on == Value::Bool(false));
            let turned = here.map(|on| *on = Value::Bool(true)).is_some();
            fields.values_mut().fold(turned, |turned, field| {
                turn_prefix_space_on(field) || turned
            })
        }
        Value::Array(parts) => {
            let mut turned = false;
            // Every part, also after one that was off: `any` would stop there.
            for part in parts {
                turned |= turn_prefix_space_on(part);
            }
            turned
        }
        _ => false,
    }
}

/// Asks the tokenizer where it sets special tokens, by letting it encode one word and two.
///
/// A word that the vocabulary cannot spell gives no token, and shows nothing: then the next is tried.
fn template_of(tokenizer: &Tokenizer) -> tokenizers::Result<Option<Template>> {
    let pieces = |encoding: tokenizers::Encoding| {
        let mut pieces: Vec<Piece> = Vec::new();
        let sequences = encoding.get_sequence_ids();
        for (token, sequence) in sequences.into_iter().enumerate() {
            let type_id = encoding.get_type_ids()[token] as u8;
            let piece = match sequence.filter(|_| encoding.get_special_tokens_mask()[token] == 0) {
                Some(number) => Piece::Sequence { number, type_id },
                None => Piece::Special {
                    id: encoding.get_ids()[token],
                    type_id,
                },
            };
            let more = matches!(piece, Piece::Sequence { .. }) && pieces.last() == Some(&piece);
            if !more {
                pieces.push(piece);
            }
        }
        pieces
    };
    let holds = |pieces: &[Piece], number: usize| {
        let is_it =
            |piece: &Piece| matches!(piece, Piece::Sequence { number: n, .. } if *n == number);
        pieces.iter().any(is_it)
    };
    for probe in ["a", "the", "A", "0", "."] {
        let template = Template {
            single: pieces(tokenizer.encode(probe, true)?),
            pair: pieces(tokenizer.encode((probe, probe), true)?),
        };
        if holds(&template.single, 0) && holds(&template.pair, 0) && holds(&template.pair, 1) {
            return Ok(Some(template));
        }
    }
    Ok(None)
}

/// Room for `[CLS]`, `[SEP]` and one token.
pub const MIN_LENGTH: usize = 3;

fn failed(error: tokenizers::Error) -> Error {
    Error::Encoder {
        action: "tokenise a text",
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A byte-pair tokenizer of single characters, without a token for what it does not know.
    fn open(characters: &[&str]) -> Result<TextTokenizer> {
        let special = |id: usize, content: &str| {
            json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": true })
        };
        let mut vocabulary = json!({ "[CLS]": 0, "[SEP]": 1 });
        for (id, character) in characters.iter().enumerate() {
            vocabulary[character] = json!(id + 2);
        }
        let json = json!({
            "version": "1.0",
            "added_tokens": [special(0, "[CLS]"), special(1, "[SEP]")],
            "pre_tokenizer": { "type": "Whitespace" },
            "post_processor": { "type": "BertProcessing", "sep": ["[SEP]", 1], "cls": ["[CLS]", 0] },
            "model": { "type": "BPE", "vocab": vocabulary, "merges": [] },
        });
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        std::fs::write(&path, json.to_string()).unwrap();
        TextTokenizer::open(&path, 16, Overflow::Truncate)
    }

    #[test]
    fn a_vocabulary_without_the_letter_that_is_tried_first_is_tried_with_others() {
        let tokenizer = open(&["0", "x"]).unwrap();
        let encodings = tokenizer.encode(&[Input::Text("x0 x"), Input::Pair("x", "0")], true);
        let ids: Vec<Vec<u32>> = encodings
            .unwrap()
            .iter()
            .map(|encoding| encoding.windows[0].ids.clone())
            .collect();
        assert_eq!(ids, [vec![0, 3, 2, 3, 1], vec![0, 3, 1, 2, 1]]);
    }

    #[test]
    fn a_tokenizer_that_spells_none_of_them_is_refused() {
        let error = open(&["x"]).err().unwrap();
        assert!(
            error
                .to_string()
                .contains("expected a tokenizer.json that makes tokens"),
            "{error}"
        );
    }
}

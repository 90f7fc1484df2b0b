//! Turns documents into token ids with tokenizer.json. All limits are set here; those stored in the file are ignored.

mod prompted;

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

use frostbert_cache::{fence::fenced, wording::shorten};
use rayon::prelude::*;
use serde_json::Value;
use tokenizers::{InputSequence, Tokenizer};

use self::prompted::PromptLengths;
use super::{
    prefix::{Prefixes, beginning},
    sentence_folder::encoder_folder,
    tokenizer_file::TokenizerFile,
    windows::{Encoding, Overflow, Piece, Sequence, Template, cut, least_length, room},
};
use crate::{
    data::document::Document,
    error::{Error, Result},
};

/// What fails where a document has more windows than are allowed.
pub(crate) const CUT_INTO_WINDOWS: &str = "cut a text into windows";

/// A text split into tokens, as shown by the `tokenize` command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenTable {
    /// The tokens as the vocabulary spells them.
    pub tokens: Vec<String>,
    /// The ids of the tokens.
    pub ids: Vec<u32>,
    /// Start and end of each token in the text, in characters (Unicode code points); `(0, 0)` for special tokens.
    pub offsets: Vec<(usize, usize)>,
    /// The word that each token belongs to; `None` for special tokens.
    pub word_ids: Vec<Option<u32>>,
}

/// A tokenizer that cuts documents to a given length and never pads.
pub struct TextTokenizer {
    path: PathBuf,
    inner: Tokenizer,
    /// The tokenizer for pre-split words, if these need another setting than texts.
    of_words: Option<Tokenizer>,
    /// Set if the first tokens of a long text can be computed from its beginning alone.
    prefixes: Option<Prefixes>,
    template: Template,
    max_length: usize,
    overflow: Overflow,
    /// Whether pooling leaves out the tokens of prompts.
    leaves_out_prompts: bool,
    /// The most windows of a document, if fewer than can be numbered.
    most_windows: Option<usize>,
}

impl TextTokenizer {
    /// Opens tokenizer.json and the files next to it; see [`TokenizerFile::open`].
    ///
    /// # Errors
    /// Returns an error in the same cases as [`TokenizerFile::open`] and [`TextTokenizer::new`].
    pub fn open(path: &Path, max_length: usize, overflow: Overflow) -> Result<TextTokenizer> {
        TextTokenizer::new(&TokenizerFile::open(path)?, max_length, overflow)
    }

    /// Opens the tokenizer of a model folder; in a sentence-transformers folder, that of the first module.
    ///
    /// # Errors
    /// Returns an error in the same cases as [`TextTokenizer::open`], and if the list of modules cannot be read or does
    /// not begin with an encoder.
    pub fn of_model(folder: &Path, max_length: usize, overflow: Overflow) -> Result<TextTokenizer> {
        let path = encoder_folder(folder)?.join("tokenizer.json");
        TextTokenizer::open(&path, max_length, overflow)
    }

    /// Builds the tokenizer of a file. Documents longer than `max_length` tokens (including special tokens) are
    /// truncated or cut into windows.
    ///
    /// # Errors
    /// Returns an error if the file is not a tokenizer, or if the special tokens leave too little room in `max_length`.
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
            let parsed = fenced(|| {
                let mut tokenizer = Tokenizer::from_bytes(bytes)?;
                tokenizer.with_padding(None);
                tokenizer.with_truncation(None)?;
                tokenizers::Result::Ok(tokenizer)
            });
            parsed.and_then(|parsed| parsed.map_err(|error| error.to_string()))
        };
        let open = |bytes: &[u8]| {
            parse(bytes).map_err(|got| {
                let hint = "fetch the checkpoint again";
                refuse("a Hugging Face tokenizer.json", got, hint)
            })
        };
        let inner = open(&file.json)?;
        // An added token that the vocabulary has under another id than the file gives is assigned a new id.
        let highest = inner.get_added_tokens_decoder().into_keys().max();
        if let Some(id) = highest.filter(|id| *id as usize >= file.vocabulary) {
            let expected = "added tokens with the ids that the file gives them";
            let hint = "give every token of added_tokens the id that it has in the vocabulary";
            return Err(refuse(expected, format!("the id {id}"), hint));
        }
        let json: Value = serde_json::from_slice(&file.json).unwrap_or_default();
        let prefixes = Prefixes::of(&json);
        let of_words = with_prefix_space(json).map(|bytes| open(&bytes)).transpose()?;
        let template = encoded(path, "a", || template_of(&inner))?.ok_or_else(|| {
            refuse(
                "a tokenizer.json that makes tokens of a letter or a digit, with templates for one text and for two",
                "one without them".into(),
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
            path: path.clone(),
            inner,
            of_words,
            prefixes,
            template,
            max_length,
            overflow,
            leaves_out_prompts: false,
            most_windows: None,
        })
    }

    /// Refuses documents that take more windows, of which then only the beginning is tokenised.
    pub(crate) fn with_most_windows(self, most: usize) -> TextTokenizer {
        TextTokenizer { most_windows: Some(most), ..self }
    }

    /// Returns the id of a token, as the vocabulary spells it.
    pub(crate) fn id_of(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Tokenises documents in parallel on the current rayon pool and returns them in order. Alignments take longer and
    /// are computed only if `aligned` is set.
    ///
    /// # Errors
    /// Returns an error if the tokenizer itself fails, if a prompt leaves no room for a text, or if a document has more
    /// windows than are allowed or can be numbered.
    pub fn encode(&self, inputs: &[Document<'_>], aligned: bool) -> Result<Vec<Encoding>> {
        let prompts = self.prompt_lengths(inputs)?;
        inputs.par_iter().map(|input| self.encode_one(*input, &prompts, aligned)).collect()
    }

    fn encode_one(
        &self,
        input: Document<'_>,
        prompts: &PromptLengths<'_>,
        aligned: bool,
    ) -> Result<Encoding> {
        let (first, second) = match input {
            Document::Prompted { prompt, text } => {
                let encoding = self.prompted(prompt, text, prompts[prompt], aligned)?;
                return self.require_few(input, encoding);
            }
            Document::Text(text) => {
                let wanted = self.wanted(&self.template.single);
                (self.first_tokens(text, aligned, wanted)?.0, None)
            }
            Document::Pair(first, second) => {
                let (first, second) = self.pair(first, second, aligned)?;
                (first, Some(second))
            }
            Document::Words(words) => {
                let wanted = self.wanted(&self.template.single);
                (self.first_words(words, aligned, wanted)?, None)
            }
        };
        let encoding = cut(&first, second.as_ref(), &self.template, self.max_length, self.overflow);
        self.require_few(input, encoding)
    }

    /// Fails if a document has more windows than are allowed or can be numbered.
    fn require_few(&self, input: Document<'_>, encoding: Encoding) -> Result<Encoding> {
        match self.most_windows {
            Some(most) if encoding.windows.len() > most => Err(Error::Encoder {
                action: CUT_INTO_WINDOWS,
                reason: format!("`{}` takes more than {most} windows", input.beginning()),
            }),
            _ => require_numbered(input, encoding),
        }
    }

    /// Returns how many tokens of a sequence determine what is kept of it and whether it is truncated, or that it takes
    /// too many windows; `None` if all do.
    fn wanted(&self, pieces: &[Piece]) -> Option<usize> {
        match self.overflow {
            Overflow::Truncate => Some(room(pieces, self.max_length).saturating_add(1)),
            // Each window after the first adds at most what the stride leaves.
            Overflow::Windows { stride } => self.most_windows.map(|most| {
                let room = room(pieces, self.max_length);
                (room - stride).saturating_mul(most).saturating_add(room)
            }),
        }
    }

    /// Returns the tokens of a text, or at least the first `wanted` if there are that many, and whether these are all.
    ///
    /// For a long text, tokenising the beginning is enough and takes a fraction of the memory, which is some hundred
    /// bytes per character.
    fn first_tokens(
        &self,
        text: &str,
        aligned: bool,
        wanted: Option<usize>,
    ) -> Result<(Sequence, bool)> {
        if let (Some(prefixes), Some(wanted)) = (&self.prefixes, wanted) {
            let mut n_bytes = prefixes.likely_bytes(wanted);
            while n_bytes < text.len() / 2 {
                let beginning = beginning(text, n_bytes);
                let mut tokens = self.sequence(&self.inner, raw(beginning), beginning, true)?;
                if prefixes.settle(beginning, &tokens, wanted) {
                    if !aligned {
                        (tokens.offsets, tokens.words) = Default::default();
                    }
                    return Ok((tokens, false));
                }
                n_bytes *= 4;
            }
        }
        let tokens = self.sequence(&self.inner, raw(text), text, aligned)?;
        Ok((tokens, true))
    }

    fn pair(&self, first: &str, second: &str, aligned: bool) -> Result<(Sequence, Sequence)> {
        let wanted = self.wanted(&self.template.pair);
        let (a, all_of_a) = self.first_tokens(first, aligned, wanted)?;
        let (b, all_of_b) = self.first_tokens(second, aligned, wanted)?;
        let room = room(&self.template.pair, self.max_length);
        let shorter = a.ids.len().min(b.ids.len());
        let is_cut = matches!(self.overflow, Overflow::Windows { .. });
        if (all_of_a && all_of_b) || is_cut || shorter <= room || room.is_multiple_of(2) {
            return Ok((a, b));
        }
        // Both are truncated, and the odd token goes to the longer one; telling which is longer takes all tokens of
        // both.
        let whole = |text| self.first_tokens(text, aligned, None).map(|tokenised| tokenised.0);
        Ok((whole(first)?, whole(second)?))
    }

    /// Does the same as [`TextTokenizer::first_tokens`] for pre-split words, each of which is tokenised by itself.
    fn first_words(
        &self,
        words: &[String],
        aligned: bool,
        wanted: Option<usize>,
    ) -> Result<Sequence> {
        let tokenizer = self.of_words.as_ref().unwrap_or(&self.inner);
        let mut n_words = wanted.unwrap_or(usize::MAX).min(words.len());
        loop {
            let taken = &words[..n_words];
            let given = InputSequence::PreTokenizedOwned(Cow::Borrowed(taken));
            let name = taken.first().map_or("", String::as_str);
            let mut tokens = self.sequence(tokenizer, given, name, aligned)?;
            // Some words give no token.
            if n_words == words.len() || wanted.is_some_and(|wanted| tokens.ids.len() >= wanted) {
                shift_into_joined_text(&mut tokens, taken);
                return Ok(tokens);
            }
            n_words = n_words.saturating_mul(4).min(words.len());
        }
    }

    /// Returns all tokens of an input; `text` is the input or its beginning, for error messages.
    fn sequence(
        &self,
        tokenizer: &Tokenizer,
        input: InputSequence<'_>,
        text: &str,
        aligned: bool,
    ) -> Result<Sequence> {
        encoded(&self.path, text, || sequence(tokenizer, input, aligned))
    }

    /// Tokenises a whole text, with offsets and words, without truncating it.
    ///
    /// # Errors
    /// Returns an error if the tokenizer itself fails on the text.
    pub fn table(&self, text: &str) -> Result<TokenTable> {
        let encode = || self.inner.encode_char_offsets(text, true);
        let encoding = encoded(&self.path, text, encode)?;
        // A template may name a special token with more ids than tokens.
        let n = encoding.get_ids().len();
        let others = [
            encoding.get_tokens().len(),
            encoding.get_offsets().len(),
            encoding.get_word_ids().len(),
        ];
        if others != [n; 3] {
            return Err(Error::Checkpoint {
                path: self.path.clone(),
                expected: "a token, offsets and a word for each id".into(),
                got: format!("{others:?} for {n} ids"),
                hint: "give each special token of the post-processor as many tokens as ids".into(),
            });
        }
        Ok(TokenTable {
            tokens: encoding.get_tokens().to_vec(),
            ids: encoding.get_ids().to_vec(),
            offsets: encoding.get_offsets().to_vec(),
            word_ids: encoding.get_word_ids().to_vec(),
        })
    }
}

fn sequence(
    tokenizer: &Tokenizer,
    input: InputSequence<'_>,
    aligned: bool,
) -> tokenizers::Result<Sequence> {
    if !aligned {
        let encoding = tokenizer.encode_fast(input, false)?;
        return Ok(Sequence { ids: encoding.get_ids().to_vec(), ..Sequence::default() });
    }
    let encoding = tokenizer.encode_char_offsets(input, false)?;
    let words = encoding.get_word_ids().iter();
    let offsets = encoding.get_offsets().iter();
    Ok(Sequence {
        ids: encoding.get_ids().to_vec(),
        offsets: offsets.map(|(start, end)| (*start as u32, *end as u32)).collect(),
        words: words.map(|word| word.map_or(-1, |word| word as i32)).collect(),
    })
}

fn raw(text: &str) -> InputSequence<'_> {
    InputSequence::Raw(Cow::Borrowed(text))
}

/// Shifts the offsets of pre-split words, which count from each word's own start, to count from the start of the words
/// joined by spaces.
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
        if let Some(start) = usize::try_from(*word).ok().and_then(|word| starts.get(word)) {
            *offset = (offset.0 + start, offset.1 + start);
        }
    }
}

/// Returns tokenizer.json with `add_prefix_space` turned on; `None` if it is not off anywhere. A byte-level tokenizer
/// (RoBERTa's) recognises a word by the space before it, which pre-split words have lost.
pub(super) fn with_prefix_space(mut json: Value) -> Option<Vec<u8>> {
    let parts = ["pre_tokenizer", "post_processor"];
    let turned = parts.map(|part| json.get_mut(part).is_some_and(turn_prefix_space_on));
    turned[0].then(|| json.to_string().into_bytes())
}

/// Turns `add_prefix_space` on in a part of tokenizer.json and all parts inside it; returns whether it was off
/// anywhere.
fn turn_prefix_space_on(part: &mut Value) -> bool {
    match part {
        Value::Object(fields) => {
            let here = fields.get_mut("add_prefix_space").filter(|on| **on == Value::Bool(false));
            let turned = here.map(|on| *on = Value::Bool(true)).is_some();
            fields.values_mut().fold(turned, |turned, field| turn_prefix_space_on(field) || turned)
        }
        Value::Array(parts) => {
            let mut turned = false;
            // Visit every part, even after one that was off; `any` would stop there.
            for part in parts {
                turned |= turn_prefix_space_on(part);
            }
            turned
        }
        _ => false,
    }
}

/// Fails if a document has more windows than can be numbered.
fn require_numbered(input: Document<'_>, encoding: Encoding) -> Result<Encoding> {
    if encoding.windows.len() <= usize::from(u16::MAX) {
        return Ok(encoding);
    }
    Err(Error::Encoder {
        action: "tokenise a text",
        reason: format!(
            "`{}` takes {} windows, of which {} can be numbered: split it into several texts",
            input.beginning(),
            encoding.windows.len(),
            u16::MAX
        ),
    })
}

/// Finds out where the tokenizer puts special tokens, by letting it encode one word and two.
///
/// A word that the vocabulary cannot spell gives no token and reveals nothing; in that case, the next word is tried.
fn template_of(tokenizer: &Tokenizer) -> tokenizers::Result<Option<Template>> {
    let pieces = |encoding: tokenizers::Encoding| {
        let mut pieces: Vec<Piece> = Vec::new();
        let sequences = encoding.get_sequence_ids();
        for (token, sequence) in sequences.into_iter().enumerate() {
            let type_id = u8::try_from(encoding.get_type_ids()[token])?;
            let piece = match sequence.filter(|_| encoding.get_special_tokens_mask()[token] == 0) {
                Some(number) => Piece::Sequence { number, type_id },
                None => Piece::Special { id: encoding.get_ids()[token], type_id },
            };
            let more = matches!(piece, Piece::Sequence { .. }) && pieces.last() == Some(&piece);
            if !more {
                pieces.push(piece);
            }
        }
        tokenizers::Result::Ok(pieces)
    };
    let holds = |pieces: &[Piece], number: usize| {
        let is_it =
            |piece: &Piece| matches!(piece, Piece::Sequence { number: n, .. } if *n == number);
        pieces.iter().any(is_it)
    };
    for probe in ["a", "the", "A", "0", "."] {
        let template = Template {
            single: pieces(tokenizer.encode(probe, true)?)?,
            pair: pieces(tokenizer.encode((probe, probe), true)?)?,
        };
        if holds(&template.single, 0) && holds(&template.pair, 0) && holds(&template.pair, 1) {
            return Ok(Some(template));
        }
    }
    Ok(None)
}

/// Room for `[CLS]`, `[SEP]` and one token.
pub(crate) const MIN_LENGTH: usize = 3;

/// Runs a tokenizer on a text, and on failure returns an error that names the text.
fn encoded<T>(
    path: &Path,
    text: &str,
    encode: impl FnOnce() -> tokenizers::Result<T>,
) -> Result<T> {
    let done = fenced(encode).and_then(|done| done.map_err(|error| error.to_string()));
    done.map_err(|reason| Error::Checkpoint {
        path: path.to_path_buf(),
        expected: "a tokenizer.json that can tokenise any text".into(),
        got: format!("one that fails at `{}`: {reason}", shorten(text, 40)),
        hint: "fetch the tokenizer.json that belongs to the model".into(),
    })
}

#[cfg(test)]
mod tests;

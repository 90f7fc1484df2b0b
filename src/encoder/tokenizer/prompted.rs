//! Texts with a prompt before them, which are tokenised together with it, as in sentence-transformers.

use std::collections::HashMap;

use super::{TextTokenizer, raw};
use crate::{
    data::document::Document,
    encoder::windows::{Encoding, Overflow, Piece, Sequence, Template, cut, room},
    error::{Error, Result},
};

/// The number of tokens of each prompt, without special tokens.
pub(super) type PromptLengths<'a> = HashMap<&'a str, usize>;

impl TextTokenizer {
    /// Sets whether pooling leaves out the tokens of prompts.
    pub(crate) fn leaving_out_prompts(self, leaves_out_prompts: bool) -> TextTokenizer {
        TextTokenizer { leaves_out_prompts, ..self }
    }

    /// Tokenises the prompts of some documents, each once.
    pub(super) fn prompt_lengths<'a>(&self, inputs: &[Document<'a>]) -> Result<PromptLengths<'a>> {
        let mut lengths = HashMap::new();
        for input in inputs {
            if let Document::Prompted { prompt, .. } = *input
                && !lengths.contains_key(prompt)
            {
                lengths.insert(prompt, self.prompt_length(prompt)?);
            }
        }
        Ok(lengths)
    }

    /// Returns the number of tokens of a prompt. Fails if they leave no room for a text.
    fn prompt_length(&self, prompt: &str) -> Result<usize> {
        let n_tokens = self.sequence(&self.inner, raw(prompt), prompt, false)?.ids.len();
        let room = room(&self.template.single, self.max_length);
        let most = match self.overflow {
            Overflow::Truncate => room - 1,
            // Every window has the prompt, and most of what the stride leaves is for the text.
            Overflow::Windows { stride } => (room - stride) / 2,
        };
        if n_tokens <= most {
            return Ok(n_tokens);
        }
        Err(Error::Argument {
            action: "put a prompt before texts",
            expected: format!("one of at most {most} tokens, which leaves room for a text"),
            got: format!(
                "`{}`, which has {n_tokens}",
                frostbert_cache::wording::shorten(prompt, 40)
            ),
            hint: "raise cache.max_length, or shorten the prompt".into(),
        })
    }

    /// Tokenises a text together with a prompt of `n_prompt` tokens before it. Of a text in several windows, each begins
    /// with the prompt.
    pub(super) fn prompted(
        &self,
        prompt: &str,
        text: &str,
        n_prompt: usize,
        aligned: bool,
    ) -> Result<Encoding> {
        let joined = format!("{prompt}{text}");
        let pieces = &self.template.single;
        let mut tokens = self.first_tokens(&joined, aligned, self.wanted(pieces))?.0;
        count_from_text(&mut tokens, prompt);
        let (max_length, overflow) = (self.max_length, self.overflow);
        let encoding = match overflow {
            Overflow::Truncate => cut(&tokens, None, &self.template, max_length, overflow),
            Overflow::Windows { .. } => {
                let (first, rest) = split(tokens, n_prompt);
                let together = of_both(pieces);
                let template = Template { single: together.clone(), pair: together };
                cut(&first, Some(&rest), &template, max_length, overflow)
            }
        };
        let left_out = if self.leaves_out_prompts { left_out(pieces, n_prompt) } else { 0 };
        // A token of each window is left, even of a text without any.
        let shortest = encoding.lengths().min().unwrap_or(0);
        Ok(Encoding { left_out: left_out.min(shortest.saturating_sub(1)), ..encoding })
    }
}

/// Counts the words and characters of a text with a prompt before it from the beginning of the text. Tokens that begin
/// in the prompt are in no word and at no character of it, like special tokens.
fn count_from_text(tokens: &mut Sequence, prompt: &str) {
    let n_chars = prompt.chars().count() as u32;
    let places = || tokens.words.iter().zip(&tokens.offsets);
    let first = places().find(|(word, offsets)| **word >= 0 && offsets.0 >= n_chars);
    let first = first.map_or(0, |(word, _)| *word);
    for (word, offsets) in tokens.words.iter_mut().zip(&mut tokens.offsets) {
        if offsets.0 < n_chars {
            (*word, *offsets) = (-1, (0, 0));
            continue;
        }
        *offsets = (offsets.0 - n_chars, offsets.1 - n_chars);
        if *word >= 0 {
            *word -= first;
        }
    }
}

/// Returns the number of tokens that sentence-transformers counts as the prompt's: those of the prompt tokenised alone,
/// without a special token at its end.
fn left_out(pieces: &[Piece], n_prompt: usize) -> u32 {
    let n_special = pieces.iter().filter(|piece| matches!(piece, Piece::Special { .. })).count();
    let n_last = usize::from(matches!(pieces.last(), Some(Piece::Special { .. })));
    (n_special + n_prompt - n_last) as u32
}

/// Divides tokens into the first `n` and the rest.
fn split(mut tokens: Sequence, n: usize) -> (Sequence, Sequence) {
    let rest = Sequence {
        ids: tokens.ids.split_off(n.min(tokens.ids.len())),
        offsets: tokens.offsets.split_off(n.min(tokens.offsets.len())),
        words: tokens.words.split_off(n.min(tokens.words.len())),
    };
    (tokens, rest)
}

/// Returns the pieces of one text as those of two that follow each other without a special token between them.
fn of_both(pieces: &[Piece]) -> Vec<Piece> {
    let both = pieces.iter().flat_map(|piece| match *piece {
        Piece::Sequence { type_id, .. } => {
            [0, 1].map(|number| Piece::Sequence { number, type_id }).to_vec()
        }
        special => vec![special],
    });
    both.collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn tokenizer(max_length: usize, overflow: Overflow) -> TextTokenizer {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny_bert");
        TextTokenizer::open(&folder.join("tokenizer.json"), max_length, overflow).unwrap()
    }

    /// The windows of a text with a prompt, and how many tokens of each are left out.
    fn encoded(tokenizer: &TextTokenizer, prompt: &str, text: &str) -> (Vec<Vec<u32>>, u32) {
        let encoding = &tokenizer.encode(&[Document::Prompted { prompt, text }], false).unwrap()[0];
        (encoding.windows.iter().map(|window| window.ids.clone()).collect(), encoding.left_out)
    }

    fn ids(tokenizer: &TextTokenizer, text: &str) -> Vec<u32> {
        tokenizer.encode(&[Document::Text(text)], false).unwrap()[0].windows[0].ids.clone()
    }

    #[test]
    fn a_prompt_and_its_text_are_tokenised_as_one_text() {
        let all = tokenizer(32, Overflow::Truncate);
        // Without a space between them they are one word.
        for prompt in ["the film is ", "warm"] {
            let expected = ids(&all, &format!("{prompt}ing snow"));
            assert_eq!(encoded(&all, prompt, "ing snow"), (vec![expected], 0), "{prompt}");
        }
        let cut = tokenizer(6, Overflow::Truncate);
        let expected = ids(&cut, "the film is cold snow");
        assert_eq!(encoded(&cut, "the film is ", "cold snow"), (vec![expected], 0));
    }

    #[test]
    fn what_is_left_out_are_the_tokens_of_the_prompt_with_what_stands_before_it() {
        let tokenizer = tokenizer(32, Overflow::Truncate).leaving_out_prompts(true);
        // [CLS], and three words.
        assert_eq!(encoded(&tokenizer, "the film is ", "cold").1, 4);
        // [SEP] is left.
        assert_eq!(encoded(&tokenizer, "the film is ", "").1, 4);
        let plain = tokenizer.encode(&[Document::Text("the film is cold")], false).unwrap();
        assert_eq!(plain[0].left_out, 0);
    }

    #[test]
    fn words_and_characters_are_those_of_the_text_without_its_prompt() {
        let tokenizer = tokenizer(32, Overflow::Truncate);
        let alignment = |input: Document<'_>| {
            let encoding = &tokenizer.encode(&[input], true).unwrap()[0];
            encoding.windows[0].alignment.clone()
        };
        let plain = alignment(Document::Text("cold warming snow"));
        // [CLS], and three words before the text.
        let prompted =
            alignment(Document::Prompted { prompt: "the film is ", text: "cold warming snow" });
        assert_eq!(prompted.words[..4], [-1, -1, -1, -1]);
        assert_eq!(prompted.char_ends[..4], [0, 0, 0, 0]);
        assert_eq!(prompted.words[4..], plain.words[1..]);
        assert_eq!(prompted.char_starts[4..], plain.char_starts[1..]);
        assert_eq!(prompted.char_ends[4..], plain.char_ends[1..]);
        assert_eq!(prompted.token_ids[4..], plain.token_ids[1..]);
    }

    #[test]
    fn every_window_begins_with_the_prompt() {
        let tokenizer = tokenizer(8, Overflow::Windows { stride: 1 }).leaving_out_prompts(true);
        let (windows, left_out) =
            encoded(&tokenizer, "the film ", "snow frost warm cold good bad very");
        let prompt = ids(&tokenizer, "the film")[..3].to_vec();
        let texts: Vec<Vec<u32>> = windows
            .iter()
            .map(|window| {
                assert_eq!(window[..3], prompt);
                window[3..].to_vec()
            })
            .collect();
        let text = |text: &str| ids(&tokenizer, text)[1..].to_vec();
        assert_eq!(texts, [text("snow frost warm cold"), text("cold good bad very")]);
        assert_eq!(left_out, 3);
        // A text that fits is a single window.
        let whole = vec![ids(&tokenizer, "the film cold")];
        assert_eq!(encoded(&tokenizer, "the film ", "cold"), (whole, 3));
    }

    #[test]
    fn a_prompt_that_leaves_no_room_is_refused() {
        for (overflow, most) in [(Overflow::Truncate, 5), (Overflow::Windows { stride: 2 }, 2)] {
            let tokenizer = tokenizer(8, overflow);
            let with = |n: usize| {
                let prompt = "cold ".repeat(n);
                let input = Document::Prompted { prompt: &prompt, text: "snow" };
                tokenizer.encode(&[input], false).map(drop).map_err(|error| error.to_string())
            };
            assert_eq!(with(most), Ok(()));
            let error = with(most + 1).unwrap_err();
            assert!(error.contains(&format!("at most {most} tokens")), "{error}");
        }
    }
}

//! How much of a long text has to be tokenised where only its first tokens are kept.
//!
//! A tokenizer goes from left to right and, once a text is split into words, word by word. So the first tokens of a text
//! are those of its beginning, if that goes on far enough behind them. Where a part of tokenizer.json is not known to
//! work like that, texts are tokenised whole.

use serde_json::Value;

use super::windows::Sequence;

/// Characters behind the last token that matters in which nothing is relied upon, beside the longest added token.
const MARGIN: usize = 64;

/// What is known of a tokenizer that goes word by word.
#[derive(Debug)]
pub(super) struct Prefixes {
    /// Characters at the end of a beginning whose tokens may be others in the whole text.
    margin: usize,
}

impl Prefixes {
    /// `None` where a part of tokenizer.json may look further than one word.
    pub(super) fn of(tokenizer: &Value) -> Option<Prefixes> {
        let normalizers = parts(&tokenizer["normalizer"], "normalizers");
        let mut longest = 0;
        let mut deletes = false;
        for normalizer in &normalizers {
            match normalizer["type"].as_str()? {
                "NFC" | "NFD" | "NFKC" | "NFKD" | "Lowercase" | "Prepend" => {}
                "BertNormalizer" | "StripAccents" | "Nmt" | "Strip" | "Precompiled" => {
                    deletes = true;
                }
                "Replace" => {
                    let replaced = replaced(normalizer, deletes)?;
                    longest = longest.max(replaced);
                    let content = normalizer["content"].as_str()?;
                    deletes |= normalizer["pattern"]["Regex"].is_string()
                        || content.chars().count() < replaced;
                }
                _ => return None,
            }
        }
        let added = tokenizer["added_tokens"].as_array().into_iter().flatten();
        for token in added {
            // With characters deleted from it, a token may stretch over any number of them.
            if token["normalized"] != false && deletes {
                return None;
            }
            longest = longest.max(token["content"].as_str()?.chars().count());
        }
        let splits = parts(&tokenizer["pre_tokenizer"], "pretokenizers");
        let mut at_spaces = false;
        for split in &splits {
            match split["type"].as_str()? {
                "BertPreTokenizer" | "Whitespace" | "WhitespaceSplit" => at_spaces = true,
                "Metaspace" if split["split"] != false => at_spaces = true,
                "ByteLevel" if split["use_regex"] != false => at_spaces = true,
                "Digits" | "Punctuation" => {}
                _ => return None,
            }
        }
        let is_random = tokenizer["model"]["dropout"].as_f64().is_some_and(|dropout| dropout > 0.0);
        // Four characters may be composed into one before a token is looked for.
        (at_spaces && !is_random).then_some(Prefixes { margin: MARGIN + 4 * longest })
    }

    /// Bytes of a beginning that most likely gives so many tokens.
    pub(super) fn likely_bytes(&self, wanted: usize) -> usize {
        wanted.saturating_mul(16).saturating_add(self.margin.saturating_mul(8))
    }

    /// Whether the first `wanted` tokens of a beginning, and the word that the last of them belongs to, are those of
    /// every text that begins so.
    ///
    /// They are where that word ends before a token of another word, with a letter or digit in it (which keeps what
    /// strips spaces away from what is behind it), and that one ends before the margin.
    pub(super) fn settle(&self, beginning: &str, tokens: &Sequence, wanted: usize) -> bool {
        let Some(&word) = wanted.checked_sub(1).and_then(|last| tokens.words.get(last)) else {
            return false;
        };
        let characters: Vec<char> = beginning.chars().collect();
        let safe = characters.len().saturating_sub(self.margin);
        let behind = tokens.words.iter().zip(&tokens.offsets).skip(wanted);
        let mut others = behind.skip_while(|(other, _)| **other == word);
        word >= 0
            && others.any(|(other, &(start, end))| {
                let place = start as usize..end as usize;
                *other >= 0
                    && place.end <= safe
                    && characters
                        .get(place)
                        .is_some_and(|token| token.iter().any(|c| c.is_alphanumeric()))
            })
    }
}

/// The first bytes of a text, to the end of a word where one is near, else of a character.
pub(super) fn beginning(text: &str, n_bytes: usize) -> &str {
    let mut end = n_bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let most = &text[..end];
    match most.rfind(' ') {
        Some(end) if end > most.len() / 2 => &most[..end],
        _ => most,
    }
}

/// A part of tokenizer.json and, where it is a sequence, all that this is made of, in order.
fn parts<'a>(part: &'a Value, of_sequence: &str) -> Vec<&'a Value> {
    match part {
        Value::Null => Vec::new(),
        part if part["type"] == "Sequence" => {
            let inner = part[of_sequence].as_array().into_iter().flatten();
            inner.flat_map(|part| parts(part, of_sequence)).collect()
        }
        part => vec![part],
    }
}

/// Characters that a replacement looks at, where their number is known.
fn replaced(normalizer: &Value, follows_deletion: bool) -> Option<usize> {
    let pattern = &normalizer["pattern"];
    match (pattern["String"].as_str(), pattern["Regex"].as_str()) {
        // SentencePiece's: a run of spaces is no word's part.
        (None, Some(" {2,}")) => Some(2),
        (Some(text), None) if !text.is_empty() && !follows_deletion => Some(text.chars().count()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;

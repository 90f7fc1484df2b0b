//! Determines how much of a long text has to be tokenised if only its first tokens are kept.
//!
//! A tokenizer works from left to right and, once a text is split into words, word by word. The first tokens of a text
//! are therefore those of its beginning, provided that the beginning continues far enough past them. If a part of
//! tokenizer.json is not known to work this way, texts are tokenised as a whole.

use serde_json::Value;

use super::windows::Sequence;

/// The number of characters at the end of a beginning that are not relied upon, in addition to the longest added token.
const MARGIN: usize = 64;

/// Properties of a tokenizer that works word by word.
#[derive(Debug)]
pub(super) struct Prefixes {
    /// The number of characters at the end of a beginning whose tokens may differ in the whole text.
    margin: usize,
}

impl Prefixes {
    /// Inspects a tokenizer.json; returns `None` if a part of it may look beyond a single word.
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
            // If characters are deleted, the text of a token may span any number of them.
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
        // Up to four characters may be composed into one before tokens are matched.
        (at_spaces && !is_random).then_some(Prefixes { margin: MARGIN + 4 * longest })
    }

    /// Returns the length in bytes of a beginning that most likely gives `wanted` tokens.
    pub(super) fn likely_bytes(&self, wanted: usize) -> usize {
        wanted.saturating_mul(16).saturating_add(self.margin.saturating_mul(8))
    }

    /// Returns whether the first `wanted` tokens of a beginning, and the word that the last of them belongs to, are the
    /// same for every text with this beginning.
    ///
    /// They are if that word is followed by a token of another word that contains a letter or digit and ends before the
    /// margin. The letter or digit keeps the stripping of trailing spaces from reaching any further back.
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

/// Returns the first bytes of a text, up to the end of a word if one is near, otherwise up to the end of a character.
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

/// Returns a part of tokenizer.json or, if it is a sequence, all parts that it consists of, in order.
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

/// Returns the number of characters that a replacement matches, if it is known.
fn replaced(normalizer: &Value, follows_deletion: bool) -> Option<usize> {
    let pattern = &normalizer["pattern"];
    match (pattern["String"].as_str(), pattern["Regex"].as_str()) {
        // SentencePiece's pattern: a run of spaces is not part of any word.
        (None, Some(" {2,}")) => Some(2),
        (Some(text), None) if !text.is_empty() && !follows_deletion => Some(text.chars().count()),
        _ => None,
    }
}

#[cfg(test)]
mod tests;

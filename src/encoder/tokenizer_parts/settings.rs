//! What the small files of a folder say about its tokenizer: tokenizer_config.json, special_tokens_map.json and
//! added_tokens.json, as `transformers` reads them.

use std::{collections::HashMap, path::Path};

use serde_json::{Map, Value, json};

use crate::error::{Error, Result};

/// The keys of the special tokens, in the order in which they get ids that the vocabulary does not give them.
const SPECIAL_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The special tokens of a kind of tokenizer, where its files do not name others.
pub(super) struct SpecialTokens {
    /// The keys that it has, with their tokens.
    pub(super) texts: &'static [(&'static str, &'static str)],
    /// Whether the token for masks includes the white space before it.
    pub(super) mask_takes_space: bool,
}

impl SpecialTokens {
    /// Returns the token of a key; empty if there is none.
    pub(super) fn text(&self, key: &str) -> &'static str {
        self.texts.iter().find(|(name, _)| *name == key).map_or("", |(_, text)| *text)
    }
}

/// The settings of a tokenizer.
pub(super) struct TokenizerSettings {
    /// tokenizer_config.json, with what special_tokens_map.json says in its place.
    config: Map<String, Value>,
    /// Tokens with the ids that the files give them.
    added: Vec<(u64, Value)>,
}

impl TokenizerSettings {
    /// Reads the files of a folder, each of which may be missing.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read or is not a JSON object.
    pub(super) fn read(folder: &Path) -> Result<TokenizerSettings> {
        let mut config = object(&folder.join("tokenizer_config.json"))?;
        let mut added = Vec::new();
        if let Some(Value::Object(decoder)) = config.remove("added_tokens_decoder") {
            for (id, token) in &decoder {
                let content = token["content"].as_str();
                if let (Ok(id), Some(content)) = (id.parse::<u64>(), content) {
                    let is_special = token["special"] == true;
                    added.push((id, described(content, token, is_special)));
                }
            }
        } else {
            config.extend(object(&folder.join("special_tokens_map.json"))?);
            let is_special = |content: &str| {
                SPECIAL_TOKENS
                    .iter()
                    .any(|key| config.get(*key).and_then(content_of) == Some(content))
            };
            for (content, id) in &object(&folder.join("added_tokens.json"))? {
                if let Some(id) = id.as_u64() {
                    added.push((id, described(content, &Value::Null, is_special(content))));
                }
            }
        }
        added.sort_by_key(|(id, _)| *id);
        Ok(TokenizerSettings { config, added })
    }

    /// Returns the class of the tokenizer, without the `Fast` of older names.
    pub(super) fn class(&self) -> Option<&str> {
        self.config.get("tokenizer_class")?.as_str().map(without_fast)
    }

    /// Returns a truth value, if the key holds one.
    pub(super) fn flag(&self, key: &str) -> Option<bool> {
        self.config.get(key)?.as_bool()
    }

    /// Returns the text of a special token: what the files say, else the default. A file may say that there is none.
    pub(super) fn special<'s>(&'s self, key: &str, default: &'s str) -> Option<&'s str> {
        match self.config.get(key) {
            None => Some(default),
            Some(token) => content_of(token),
        }
    }

    /// Returns all tokens that are found in a text before it is split, each with its id: that in the vocabulary, or
    /// else the next one after its `n_pieces`. `further` are those that the vocabulary itself marks.
    ///
    /// # Errors
    /// Describes a token to which the files give another id.
    pub(super) fn added_tokens(
        &self,
        vocabulary: &HashMap<&str, usize>,
        n_pieces: usize,
        defaults: &SpecialTokens,
        further: Vec<Value>,
    ) -> Result<Vec<Value>, String> {
        let mut tokens: Vec<(Option<u64>, Value)> = Vec::new();
        tokens.extend(self.added.iter().map(|(id, token)| (Some(*id), token.clone())));
        for key in SPECIAL_TOKENS {
            let content = self.special(key, defaults.text(key)).unwrap_or_default();
            if content.is_empty() {
                continue;
            }
            let own = json!({ "lstrip": defaults.mask_takes_space && key == "mask_token" });
            let given = self.config.get(key).filter(|token| token.is_object());
            let token = described(content, given.unwrap_or(&own), true);
            match tokens.iter_mut().find(|(_, other)| other["content"] == content) {
                Some((_, other)) => other["special"] = true.into(),
                None => tokens.push((None, token)),
            }
        }
        let listed = ["additional_special_tokens", "extra_special_tokens"];
        let listed = listed.iter().filter_map(|key| self.config.get(*key)?.as_array()).flatten();
        let listed = listed.filter_map(|token| Some(described(content_of(token)?, token, true)));
        for token in further.into_iter().chain(listed) {
            if tokens.iter().all(|(_, other)| other["content"] != token["content"]) {
                tokens.push((None, token));
            }
        }
        let mut next = n_pieces;
        for (given, token) in &mut tokens {
            let content = token["content"].as_str().unwrap_or_default();
            let id = vocabulary.get(content).copied().unwrap_or_else(|| {
                next += 1;
                next - 1
            });
            if let Some(given) = given.filter(|given| *given != id as u64) {
                return Err(format!("the id {given} for `{content}`, which gets the id {id}"));
            }
            token["id"] = id.into();
        }
        let mut tokens: Vec<Value> = tokens.into_iter().map(|(_, token)| token).collect();
        tokens.sort_by_key(|token| token["id"].as_u64());
        Ok(tokens)
    }
}

/// Returns the name of a tokenizer's class without the `Fast` of older names.
pub(super) fn without_fast(class: &str) -> &str {
    class.strip_suffix("Fast").unwrap_or(class)
}

/// Returns a token as tokenizer.json describes it; it still lacks its id.
pub(super) fn described(content: &str, given: &Value, is_special: bool) -> Value {
    let is_set = |key: &str| given[key] == true;
    json!({
        "id": null,
        "content": content,
        "single_word": is_set("single_word"),
        "lstrip": is_set("lstrip"),
        "rstrip": is_set("rstrip"),
        "normalized": given["normalized"].as_bool().unwrap_or(!is_special),
        "special": is_special,
    })
}

/// Returns the text of a token, which is a string or an object with a `content`.
fn content_of(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token["content"].as_str())
}

/// Reads a JSON object; empty if there is no such file.
fn object(path: &Path) -> Result<Map<String, Value>> {
    if !path.is_file() {
        return Ok(Map::new());
    }
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    serde_json::from_slice(&bytes).map_err(|error| Error::Checkpoint {
        path: path.to_path_buf(),
        expected: "a JSON object".into(),
        got: format!("a file that cannot be parsed: {error}"),
        hint: "fetch the checkpoint again".into(),
    })
}

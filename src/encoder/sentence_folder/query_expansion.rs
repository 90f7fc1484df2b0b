//! The tokens that are added to short queries, as ColBERT adds `[MASK]` tokens.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::{FETCH_AGAIN, refuse};
use crate::{encoder::tokenizer_parts::named_token, error::Result};

/// The keys of the tokens that queries are filled up with, if none is named: that of a masked token or, if the tokenizer
/// has none, that of the end of a text.
const FILLERS: [&str; 2] = ["mask_token", "eos_token"];

/// How a query is filled up with tokens that have vectors too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueryExpansion {
    /// Number of tokens, with the special ones, that a query has at least.
    pub(crate) length: usize,
    /// Whether it has no more either.
    pub(crate) is_fixed: bool,
    /// Whether the encoder attends to the added tokens. If not, they attend to the others all the same.
    pub(crate) attend: bool,
    /// The token, by its name in the vocabulary.
    pub(crate) token: String,
}

/// `query_expansion` of the settings of an encoder.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpansionSettings {
    strategy: ExpansionStrategy,
    #[serde(default)]
    attend: bool,
    token: Option<String>,
    length: usize,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum ExpansionStrategy {
    Fixed,
    Min,
}

impl QueryExpansion {
    /// Reads the key of the settings of an encoder, in whose folder the tokenizer lies.
    ///
    /// # Errors
    /// Returns an error that names what is not known, or if the folder names no token to fill up with.
    pub(super) fn of(settings: &Value, path: &Path, encoder: &Path) -> Result<QueryExpansion> {
        let expected = "a `query_expansion` with a `strategy` (fixed or min), a `length`, and perhaps `attend` and \
                        `token`";
        let parsed = ExpansionSettings::deserialize(settings);
        let parsed = parsed.map_err(|error| {
            refuse(path, expected.into(), format!("{settings}: {error}"), FETCH_AGAIN)
        })?;
        if parsed.length == 0 {
            return Err(refuse(path, expected.into(), settings.to_string(), FETCH_AGAIN));
        }
        let token = match parsed.token {
            Some(token) => token,
            None => named_token(encoder, &FILLERS)?.ok_or_else(|| {
                refuse(
                    &encoder.join("tokenizer_config.json"),
                    "a `mask_token` (or `eos_token`), with which queries are filled up".into(),
                    "none".into(),
                    "write the token into `mask_token`, or into `token` of query_expansion",
                )
            })?,
        };
        Ok(QueryExpansion {
            length: parsed.length,
            is_fixed: parsed.strategy == ExpansionStrategy::Fixed,
            attend: parsed.attend,
            token,
        })
    }

    /// What it does, in a few words.
    pub(super) fn describe(&self) -> String {
        let length = if self.is_fixed { "exactly" } else { "at least" };
        let unattended = if self.attend { "" } else { " that nothing attends to" };
        format!("{length} {} tokens, filled up with {}{unattended}", self.length, self.token)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_query_is_filled_up_with_the_token_that_the_folder_names_or_the_mask() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sentence_bert_config.json");
        let of = |settings: Value| QueryExpansion::of(&settings, &path, folder.path());
        let without = json!({ "strategy": "fixed", "length": 32, "token": null });
        let error = of(without.clone()).unwrap_err().to_string();
        assert!(error.contains("a `mask_token` (or `eos_token`)"), "{error}");
        std::fs::write(
            folder.path().join("tokenizer_config.json"),
            r#"{"eos_token": "</s>", "mask_token": {"content": "<mask>", "lstrip": true}}"#,
        )
        .unwrap();
        let expansion = of(without).unwrap();
        assert_eq!(
            expansion,
            QueryExpansion { length: 32, is_fixed: true, attend: false, token: "<mask>".into() }
        );
        let said = "exactly 32 tokens, filled up with <mask> that nothing attends to";
        assert_eq!(expansion.describe(), said);
        let named = json!({ "strategy": "min", "length": 8, "token": "[Q]", "attend": true });
        assert_eq!(of(named).unwrap().describe(), "at least 8 tokens, filled up with [Q]");
    }

    #[test]
    fn what_is_not_known_of_an_expansion_is_refused_by_name() {
        let path = Path::new("sentence_bert_config.json");
        for (settings, named) in [
            (json!({ "strategy": "soft", "length": 8 }), "unknown variant `soft`"),
            (json!({ "strategy": "min", "length": 8, "weight": 2 }), "unknown field `weight`"),
            (json!({ "strategy": "min" }), "missing field `length`"),
            (json!({ "strategy": "min", "length": 0 }), "\"length\":0"),
        ] {
            let error = QueryExpansion::of(&settings, path, Path::new("none")).unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
        }
    }
}

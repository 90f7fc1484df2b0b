//! `config.json` of a Hugging Face checkpoint, checked.

use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};

/// The shape of a BERT encoder.
#[derive(Clone, Debug, PartialEq)]
pub struct BertConfig {
    /// `model_type` in config.json; `bert` in this version.
    pub family: String,
    /// Number of transformer layers, L.
    pub layers: usize,
    /// Width of a hidden state, H.
    pub hidden: usize,
    /// Attention heads per layer; divides H.
    pub attention_heads: usize,
    /// Width of the feed-forward layer.
    pub intermediate: usize,
    /// Rows of the word embedding.
    pub vocabulary: usize,
    /// Rows of the position embedding: the longest input in tokens.
    pub max_positions: usize,
    /// Rows of the token type embedding.
    pub type_vocabulary: usize,
    /// Added to the variance in layer normalisation.
    pub layer_norm_epsilon: f32,
}

#[derive(Deserialize)]
struct RawConfig {
    model_type: Option<String>,
    num_hidden_layers: Option<usize>,
    hidden_size: Option<usize>,
    num_attention_heads: Option<usize>,
    intermediate_size: Option<usize>,
    vocab_size: Option<usize>,
    max_position_embeddings: Option<usize>,
    type_vocab_size: Option<usize>,
    layer_norm_eps: Option<f32>,
    hidden_act: Option<String>,
    position_embedding_type: Option<String>,
}

impl BertConfig {
    /// Reads and checks `config.json`.
    ///
    /// # Errors
    /// When the file is missing or no JSON, lacks a size, names another model family than `bert`, relative positions
    /// or an activation other than the exact (erf) `gelu`.
    pub fn read(path: &Path) -> Result<BertConfig> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        let raw: RawConfig = serde_json::from_str(&text).map_err(|error| Error::Checkpoint {
            path: path.to_path_buf(),
            expected: "a Hugging Face config.json".into(),
            got: format!("what JSON calls: {error}"),
            hint: "fetch the checkpoint again".into(),
        })?;
        raw.check(path)
    }
}

impl RawConfig {
    fn check(self, path: &Path) -> Result<BertConfig> {
        let refuse = |expected: &str, got: String, hint: &str| Error::Checkpoint {
            path: path.to_path_buf(),
            expected: expected.into(),
            got,
            hint: hint.into(),
        };
        let size = |value: Option<usize>, key: &str| {
            value.filter(|value| *value > 0).ok_or_else(|| {
                refuse(
                    &format!("a positive number `{key}`"),
                    "none".into(),
                    "name a folder that holds a BERT checkpoint with its own config.json",
                )
            })
        };
        let family = self.model_type.unwrap_or_else(|| "bert".into());
        if family != "bert" {
            return Err(refuse(
                "model_type `bert`",
                format!("`{family}`"),
                "use a checkpoint of the bert family; this version runs no other",
            ));
        }
        let activation = self.hidden_act.unwrap_or_else(|| "gelu".into());
        if activation != "gelu" {
            return Err(refuse(
                "hidden_act `gelu` (the exact erf form)",
                format!("`{activation}`"),
                "use a checkpoint with gelu: another activation would give wrong states",
            ));
        }
        if let Some(kind) = self
            .position_embedding_type
            .filter(|kind| kind != "absolute")
        {
            return Err(refuse(
                "position_embedding_type `absolute`",
                format!("`{kind}`"),
                "use a checkpoint with absolute positions",
            ));
        }
        let config = BertConfig {
            family,
            layers: size(self.num_hidden_layers, "num_hidden_layers")?,
            hidden: size(self.hidden_size, "hidden_size")?,
            attention_heads: size(self.num_attention_heads, "num_attention_heads")?,
            intermediate: size(self.intermediate_size, "intermediate_size")?,
            vocabulary: size(self.vocab_size, "vocab_size")?,
            max_positions: size(self.max_position_embeddings, "max_position_embeddings")?,
            type_vocabulary: size(self.type_vocab_size.or(Some(2)), "type_vocab_size")?,
            layer_norm_epsilon: self.layer_norm_eps.unwrap_or(1e-12),
        };
        if !config.hidden.is_multiple_of(config.attention_heads) {
            return Err(refuse(
                "a hidden_size that num_attention_heads divides",
                format!("{} and {}", config.hidden, config.attention_heads),
                "fetch the checkpoint again",
            ));
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str) -> Result<BertConfig> {
        serde_json::from_str::<RawConfig>(json)
            .unwrap()
            .check(Path::new("config.json"))
    }

    const GOOD: &str = r#"{"model_type": "bert", "num_hidden_layers": 2, "hidden_size": 8, "num_attention_heads": 2,
        "intermediate_size": 16, "vocab_size": 10, "max_position_embeddings": 32, "hidden_act": "gelu"}"#;

    #[test]
    fn a_bert_config_is_read() {
        let config = check(GOOD).unwrap();
        assert_eq!(
            (config.layers, config.hidden, config.type_vocabulary),
            (2, 8, 2)
        );
        assert_eq!(config.layer_norm_epsilon, 1e-12);
    }

    #[test]
    fn what_would_give_wrong_states_is_refused() {
        for (from, to, what) in [
            ("\"bert\"", "\"deberta\"", "model_type"),
            ("\"gelu\"", "\"gelu_new\"", "hidden_act"),
            ("\"hidden_size\": 8", "\"hidden_size\": 9", "divides"),
            ("\"hidden_size\": 8", "\"hidden_size\": 0", "hidden_size"),
            (
                "\"hidden_act\"",
                "\"position_embedding_type\": \"relative_key\", \"hidden_act\"",
                "absolute",
            ),
        ] {
            let message = check(&GOOD.replace(from, to)).unwrap_err().to_string();
            assert!(message.contains(what), "{message}");
        }
    }
}

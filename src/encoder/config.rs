//! Reads and validates the `config.json` of a Hugging Face checkpoint.

mod parts;

use std::path::{Path, PathBuf};

use frostbert_cache::fingerprint::{self, Digest};
use parts::Convolution;
use serde_json::{Map, Value};

use super::{
    attention_positions::{Disentangled, RotaryLayer},
    family::{EncoderActivation, Family, Positions},
    unsupported::UnsupportedModel,
};
use crate::error::{Error, Result};

/// The shape of an encoder, independent of what runs it.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// `model_type` in config.json; `onnx` for a model.onnx without one.
    pub family: String,
    /// Number of transformer layers, L.
    pub layers: usize,
    /// Width of a hidden state, H.
    pub hidden: usize,
    /// Number of rows in the word embedding table.
    pub vocabulary: usize,
    /// The maximum input length in tokens, including special tokens; `None` if the folder does not say.
    pub max_tokens: Option<usize>,
    /// Attention heads per layer, if the folder says.
    pub attention_heads: Option<usize>,
    /// Width of the feed-forward layer, if the folder says.
    pub intermediate: Option<usize>,
}

/// The sizes that the fused graph is built from, all of them present in config.json.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FusedShape {
    pub(super) family: &'static Family,
    pub(super) layers: usize,
    pub(super) hidden: usize,
    /// Divides the hidden size.
    pub(super) attention_heads: usize,
    pub(super) intermediate: usize,
    pub(super) vocabulary: usize,
    /// Width of the embeddings. It differs from the hidden size only in families that project the embeddings.
    pub(super) embedding: usize,
    /// Number of rows in the position table, or the longest input of a family without one.
    pub(super) positions: usize,
    /// The row of the first token; less than `positions`.
    pub(super) first_position: usize,
    /// Id of the padding token, if positions are counted on from it: a padding token inside a text then takes the row
    /// of its own id and does not advance the count.
    pub(super) padding_token: Option<usize>,
    /// Number of rows in the token type table; 0 if there is none.
    pub(super) token_types: usize,
    /// Epsilon added to the variance in layer normalisation.
    pub(super) layer_norm_epsilon: f32,
    /// Whether normalisations have a bias.
    pub(super) norm_bias: bool,
    pub(super) activation: EncoderActivation,
    /// The number of groups of layers that share their weights, in families that have them.
    pub(super) groups: Option<usize>,
    /// One for each layer, in families with rotary positions.
    pub(super) rotary: Option<Vec<RotaryLayer>>,
    pub(super) disentangled: Option<Disentangled>,
    pub(super) convolution: Option<Convolution>,
}

impl FusedShape {
    /// Returns the part that every kind of model has.
    pub(super) fn config(&self) -> ModelConfig {
        ModelConfig {
            family: self.family.name.into(),
            layers: self.layers,
            hidden: self.hidden,
            vocabulary: self.vocabulary,
            max_tokens: Some(self.positions - self.first_position),
            attention_heads: Some(self.attention_heads),
            intermediate: Some(self.intermediate),
        }
    }
}

/// The maximum number of layers: real encoders have less than a tenth of it, and it keeps everything sized by layers
/// small.
pub(super) const MOST_LAYERS: usize = 10_000;

/// The maximum width, vocabulary size or number of positions: the product of two of them, in bytes, does not overflow.
pub(super) const MOST_SIZE: usize = 1 << 24;

/// The content of a `config.json`.
pub(super) struct ConfigFile {
    path: PathBuf,
    /// The blake3 of the file's bytes.
    pub(super) blake3: Digest,
    fields: Map<String, Value>,
}

impl ConfigFile {
    /// Reads `config.json`.
    ///
    /// # Errors
    /// Returns an error if the file is missing or is not a JSON object.
    pub(super) fn read(path: &Path) -> Result<ConfigFile> {
        let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
        let fields = serde_json::from_str(&text).map_err(|error| Error::Checkpoint {
            path: path.to_path_buf(),
            expected: "a Hugging Face config.json".into(),
            got: format!("a file that cannot be parsed: {error}"),
            hint: "fetch the checkpoint again".into(),
        })?;
        Ok(ConfigFile {
            path: path.to_path_buf(),
            blake3: fingerprint::hash_bytes(text.as_bytes()),
            fields,
        })
    }

    /// Returns `model_type`; a config without one is an old BERT.
    pub(super) fn model_type(&self) -> &str {
        self.text("model_type").unwrap_or("bert")
    }

    /// Returns a size between 1 and [`MOST_SIZE`], if the key holds one.
    pub(super) fn number(&self, key: &str) -> Option<usize> {
        let number = usize::try_from(self.fields.get(key)?.as_u64()?).ok()?;
        (1..=MOST_SIZE).contains(&number).then_some(number)
    }

    /// Returns a probability below 1, if the key holds one.
    pub(super) fn rate(&self, key: &str) -> Option<f64> {
        self.fields.get(key)?.as_f64().filter(|rate| (0.0..1.0).contains(rate))
    }

    /// Returns `pad_token_id`, if it is present and plausible.
    pub(super) fn padding_token(&self) -> Option<usize> {
        let id = usize::try_from(self.fields.get("pad_token_id")?.as_u64()?).ok()?;
        (id < MOST_SIZE).then_some(id)
    }

    /// Returns a string, if the key holds one.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.fields.get(key)?.as_str()
    }

    fn size(&self, key: &str) -> Result<usize> {
        self.number(key).ok_or_else(|| {
            let got = self.fields.get(key).map_or("none".to_string(), |value| format!("`{value}`"));
            self.refuse(
                &format!("a number `{key}` from 1 to {MOST_SIZE}"),
                got,
                "name a folder that holds a checkpoint with its own config.json",
            )
        })
    }

    /// Returns the sizes to build the fused graph from.
    ///
    /// # Errors
    /// Returns an error if the family is not supported, a size is missing, or the model needs something that the graph
    /// does not compute: code of its own, relative positions of another kind than the family's, causal attention, or an
    /// activation or another part of a layer that is not among the family's.
    pub(super) fn fused_shape(&self) -> Result<FusedShape> {
        let family = self.family()?;
        self.check_own_code(family)?;
        self.check_arithmetic(family)?;
        let keys = family.keys;
        let hidden = self.size(keys.hidden)?;
        let layers = self.number_of_layers(keys.layers)?;
        let attention_heads = self.size(keys.attention_heads)?;
        let positions = self.size(keys.positions)?;
        if let (Positions::AfterPadding, None, Some(given)) = (
            family.positions,
            self.padding_token(),
            self.fields.get("pad_token_id").filter(|id| !id.is_null()),
        ) {
            return Err(self.refuse(
                &format!("a pad_token_id from 0 to less than {MOST_SIZE}"),
                format!("`{given}`"),
                "fetch the checkpoint again",
            ));
        }
        let shape = FusedShape {
            family,
            layers,
            hidden,
            attention_heads,
            intermediate: self.size(keys.intermediate)?,
            vocabulary: self.size("vocab_size")?,
            embedding: if family.projects_embeddings {
                self.number("embedding_size").unwrap_or(hidden)
            } else {
                hidden
            },
            positions: self.longest_input(family, positions)?,
            first_position: self.first_position(family.positions),
            padding_token: match family.positions {
                Positions::FromZero | Positions::NoTable => None,
                Positions::AfterPadding | Positions::AfterRow(_) => {
                    Some(self.first_position(family.positions) - 1)
                }
            },
            token_types: self.token_types(family)?,
            layer_norm_epsilon: self.layer_norm_epsilon(keys.epsilon)?,
            norm_bias: self.has_norm_bias(family)?,
            activation: self.activation(family)?,
            groups: self.groups(family, layers)?,
            rotary: self.rotary(family, layers, hidden / attention_heads)?,
            disentangled: self.disentangled(family, positions)?,
            convolution: self.convolution(family, hidden)?,
        };
        if !shape.hidden.is_multiple_of(shape.attention_heads) {
            return Err(self.refuse(
                &format!("a {} that {} divides", keys.hidden, keys.attention_heads),
                format!("{} and {}", shape.hidden, shape.attention_heads),
                "fetch the checkpoint again",
            ));
        }
        if shape.rotary.is_some() && !(hidden / shape.attention_heads).is_multiple_of(2) {
            return Err(self.refuse(
                "heads of an even width, whose halves are turned by angles",
                format!("{hidden} values for {} heads", shape.attention_heads),
                "fetch the checkpoint again",
            ));
        }
        if shape.first_position >= shape.positions {
            return Err(self.refuse(
                "more max_position_embeddings than pad_token_id + 1",
                format!("{} and {}", shape.positions, shape.first_position),
                "fetch the checkpoint again",
            ));
        }
        Ok(shape)
    }

    fn layer_norm_epsilon(&self, (key, default): (&str, f32)) -> Result<f32> {
        let given = match self.fields.get(key) {
            None | Some(Value::Null) => return Ok(default),
            Some(given) => given,
        };
        // A large epsilon would make all states zero.
        let sound = given.as_f64().filter(|epsilon| (0.0..1.0).contains(epsilon));
        sound.map(|epsilon| epsilon as f32).ok_or_else(|| {
            self.refuse(
                &format!("a {key} from 0 to less than 1, as 1e-12"),
                format!("`{given}`"),
                "fetch the checkpoint again",
            )
        })
    }

    fn family(&self) -> Result<&'static Family> {
        let holds = |key: &str| self.fields.get(key).is_some_and(|value| !value.is_null());
        let says = |key: &str, value: &str| self.text(key) == Some(value);
        Family::named(self.model_type(), holds, says).ok_or_else(|| {
            self.refuse(
                &format!("a model_type of {}", Family::names()),
                format!("`{}`", self.model_type()),
                &self.unsupported().way_out(),
            )
        })
    }

    /// Returns what decides how the model can be used without the fused graph.
    fn unsupported(&self) -> UnsupportedModel<'_> {
        let experts = ["num_experts", "num_local_experts", "n_routed_experts"];
        let own_code = self.fields.get("auto_map").and_then(|classes| classes.get("AutoModel"));
        UnsupportedModel {
            model_type: self.model_type(),
            own_code: own_code.map(|class| class.as_str().unwrap_or("a class")),
            has_experts: experts.iter().any(|key| self.number(key).is_some_and(|n| n > 1)),
            has_adapters: self.fields.get("lora_adaptations").is_some_and(|tasks| !tasks.is_null()),
        }
    }

    /// Refuses a model that its repository's own code computes, whatever family it says that it is of.
    fn check_own_code(&self, family: &Family) -> Result<()> {
        let unsupported = self.unsupported();
        let Some(class) = unsupported.own_code else { return Ok(()) };
        let is_known = family.own_classes.iter().any(|own| {
            let before = class.strip_suffix(*own);
            before.is_some_and(|before| before.is_empty() || before.ends_with(['.', '/']))
        });
        if is_known && !unsupported.has_adapters && !unsupported.has_experts {
            return Ok(());
        }
        let mut hint = unsupported.way_out();
        let model = self.model_type();
        if family.told_by.is_none() && !unsupported.has_adapters && !unsupported.has_experts {
            hint.push_str(&format!(
                "; if the code computes what transformers' own `{model}` does, remove auto_map from config.json"
            ));
        }
        Err(self.refuse(
            &format!("a `{model}` that transformers computes by itself"),
            format!("the class `{class}` in auto_map, which is code of the repository"),
            &hint,
        ))
    }

    /// Refuses a model whose weights hold a tensor of a part that only its repository's own code computes.
    ///
    /// # Errors
    /// Returns an error that names the tensor if they do, and the error of `holds`.
    pub(super) fn check_tensors(
        &self,
        family: &Family,
        holds: impl Fn(&str) -> Result<bool>,
    ) -> Result<()> {
        let Some(tensor) = family.foreign_tensor else { return Ok(()) };
        if !holds(tensor)? {
            return Ok(());
        }
        let unsupported = self.unsupported();
        let own_code = unsupported.own_code.or(Some("a class"));
        Err(self.refuse(
            &format!("a `{}` without `{tensor}`", self.model_type()),
            "weights with that tensor, of a part that only the code of a repository computes"
                .into(),
            &UnsupportedModel { own_code, ..unsupported }.way_out(),
        ))
    }

    fn check_arithmetic(&self, family: &Family) -> Result<()> {
        self.activation(family)?;
        let positions = self.text("position_embedding_type").unwrap_or("absolute");
        if positions != "absolute" && family.has_position_table() {
            return Err(self.refuse(
                "position_embedding_type `absolute`",
                format!("`{positions}`"),
                &self.unsupported().way_out(),
            ));
        }
        self.check_demands(family)?;
        if let Some(bias) = family.relative_bias {
            let given = self.fields.get(bias.key).filter(|given| !given.is_null());
            let other = given.filter(|given| given.as_u64() != Some(bias.buckets as u64));
            if let Some(other) = other {
                return Err(self.refuse(
                    &format!("{} {}", bias.key, bias.buckets),
                    format!("`{other}`"),
                    &self.unsupported().way_out(),
                ));
            }
        }
        if self.fields.get("is_decoder").and_then(Value::as_bool) == Some(true) {
            return Err(self.refuse(
                "an encoder (is_decoder false)",
                "is_decoder true: each token sees only those before it".into(),
                "name the checkpoint of an encoder",
            ));
        }
        Ok(())
    }

    /// Returns the first row of the position table that is used.
    pub(super) fn first_position(&self, positions: Positions) -> usize {
        match positions {
            Positions::FromZero | Positions::NoTable => 0,
            // 1 is the default of these families in `transformers`.
            Positions::AfterPadding => self.padding_token().unwrap_or(1) + 1,
            Positions::AfterRow(row) => row + 1,
        }
    }

    fn refuse(&self, expected: &str, got: String, hint: &str) -> Error {
        Error::Checkpoint {
            path: self.path.clone(),
            expected: expected.into(),
            got,
            hint: hint.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str) -> Result<FusedShape> {
        ConfigFile {
            path: "config.json".into(),
            blake3: fingerprint::hash_bytes(b""),
            fields: serde_json::from_str(json).unwrap(),
        }
        .fused_shape()
    }

    const GOOD: &str = r#"{"model_type": "bert", "num_hidden_layers": 2, "hidden_size": 8, "num_attention_heads": 2,
        "intermediate_size": 16, "vocab_size": 10, "max_position_embeddings": 32, "hidden_act": "gelu"}"#;

    #[test]
    fn a_bert_config_is_read() {
        let shape = check(GOOD).unwrap();
        assert_eq!((shape.layers, shape.hidden, shape.token_types), (2, 8, 2));
        assert_eq!(shape.layer_norm_epsilon, 1e-12);
        assert_eq!(shape.config().max_tokens, Some(32));
        assert_eq!(check(&GOOD.replace("\"model_type\": \"bert\",", "")).unwrap(), shape);
    }

    #[test]
    fn gelu_python_is_the_exact_gelu() {
        let shape = check(&GOOD.replace("\"gelu\"", "\"gelu_python\"")).unwrap();
        assert_eq!(shape, check(GOOD).unwrap());
    }

    #[test]
    fn roberta_loses_the_positions_up_to_its_padding_token() {
        let roberta = GOOD.replace("\"bert\"", "\"roberta\", \"pad_token_id\": 1");
        let shape = check(&roberta).unwrap();
        assert_eq!((shape.first_position, shape.config().max_tokens), (2, Some(30)));
        let few = roberta.replace("32", "2");
        assert!(check(&few).unwrap_err().to_string().contains("pad_token_id"));
    }

    #[test]
    fn distilbert_has_keys_of_its_own_and_no_token_types() {
        let shape = check(
            r#"{"model_type": "distilbert", "n_layers": 2, "dim": 8, "n_heads": 2, "hidden_dim": 16, "vocab_size": 10,
                "max_position_embeddings": 32, "activation": "gelu"}"#,
        )
        .unwrap();
        assert_eq!((shape.layers, shape.intermediate, shape.token_types), (2, 16, 0));
    }

    #[test]
    fn mpnet_counts_from_the_row_of_its_own_padding_token() {
        let mpnet = GOOD.replace("\"bert\"", "\"mpnet\", \"pad_token_id\": 9");
        let shape = check(&mpnet).unwrap();
        assert_eq!((shape.first_position, shape.padding_token), (2, Some(1)));
        assert_eq!((shape.config().max_tokens, shape.token_types), (Some(30), 0));
        let buckets = |n: usize| {
            mpnet.replace(": 9", &format!(": 1, \"relative_attention_num_buckets\": {n}"))
        };
        assert_eq!(check(&buckets(32)).unwrap(), shape);
        let message = check(&buckets(64)).unwrap_err().to_string();
        assert!(message.contains("relative_attention_num_buckets 32"), "{message}");
    }

    #[test]
    fn what_would_give_wrong_states_is_refused() {
        for (from, to, what) in [
            ("\"bert\"", "\"deberta\"", "model_type"),
            ("\"gelu\"", "\"gelu_new\"", "hidden_act"),
            ("\"hidden_size\": 8", "\"hidden_size\": 9", "divides"),
            ("\"hidden_size\": 8", "\"hidden_size\": 0", "hidden_size"),
            (
                "\"hidden_size\": 8",
                "\"hidden_size\": 9223372036854775808",
                "`hidden_size` from 1 to",
            ),
            ("_layers\": 2", "_layers\": -2", "num_hidden_layers"),
            ("_layers\": 2", "_layers\": 10001", "at most 10000"),
            ("\"hidden_act\"", "\"layer_norm_eps\": 1e300, \"hidden_act\"", "layer_norm_eps"),
            ("\"bert\"", "\"roberta\", \"pad_token_id\": 18446744073709551615", "pad_token_id"),
            ("\"hidden_act\"", "\"is_decoder\": true, \"hidden_act\"", "is_decoder"),
            (
                "\"hidden_act\"",
                "\"position_embedding_type\": \"relative_key\", \"hidden_act\"",
                "absolute",
            ),
            (
                "\"hidden_act\"",
                "\"auto_map\": {\"AutoModel\": \"jinaai/jina-bert.JinaBertModel\"}, \"hidden_act\"",
                "the class `jinaai/jina-bert.JinaBertModel` in auto_map",
            ),
        ] {
            let message = check(&GOOD.replace(from, to)).unwrap_err().to_string();
            assert!(message.contains(what), "{message}");
        }
    }

    #[test]
    fn code_of_a_repository_for_something_else_than_the_encoder_does_no_harm() {
        let other =
            r#""auto_map": {"AutoModelForSequenceClassification": "own.Head"}, "hidden_act""#;
        assert_eq!(check(&GOOD.replace("\"hidden_act\"", other)).unwrap(), check(GOOD).unwrap());
    }

    #[test]
    fn the_hint_names_what_can_be_done_with_this_model() {
        let hint = |to: &str| {
            let error = check(&GOOD.replace("\"model_type\": \"bert\"", to)).unwrap_err();
            error.hint().unwrap().to_string()
        };
        let script = "export-onnx.py MODEL FOLDER`";
        assert!(hint(r#""model_type": "eurobert""#).contains(script));
        assert!(hint(r#""model_type": "nomic_bert", "num_experts": 1"#).contains(script));
        for useless in [
            r#""model_type": "nomic_bert", "num_experts": 8"#,
            r#""model_type": "xlm-roberta", "auto_map": {"AutoModel": "x.Y"}, "lora_adaptations": ["a"]"#,
        ] {
            assert!(hint(useless).starts_with("the model cannot be used"), "{}", hint(useless));
        }
        let own = hint(r#""model_type": "bert", "auto_map": {"AutoModel": "x.Y"}"#);
        assert!(own.contains("--trust-remote-code") && own.contains("remove auto_map"), "{own}");
    }
}

//! The first layers of an encoder as `transformers` keeps them: config.json, the tensors by their names there, and the
//! tokenizer.

use std::path::Path;

use serde_json::{Map, Value};

use super::{
    checkpoint::{Checkpoint, FusedModel, Model},
    config::FusedShape,
    graph::{POSITIONS, TOKEN_TYPES},
    sentence_folder::encoder_folder,
    tokenizer::with_prefix_space,
};
use crate::error::{Error, Result};

/// Keys of config.json that tell of a head, of code of the model's own, of the numbers in the file, or of outputs that
/// not every program expects.
const DROPPED_KEYS: [&str; 17] = [
    "_name_or_path",
    "_num_labels",
    "architectures",
    "auto_map",
    "custom_pipelines",
    "dtype",
    "finetuning_task",
    "id2label",
    "label2id",
    "num_labels",
    "output_attentions",
    "output_hidden_states",
    "problem_type",
    "quantization_config",
    "return_dict",
    "torch_dtype",
    "transformers_version",
];

/// The special tokens by their keys in tokenizer_config.json, with their usual names.
const SPECIAL_TOKENS: [(&str, &[&str]); 7] = [
    ("bos_token", &[]),
    ("eos_token", &[]),
    ("cls_token", &["[CLS]", "<s>"]),
    ("sep_token", &["[SEP]", "</s>"]),
    ("pad_token", &["[PAD]", "<pad>"]),
    ("unk_token", &["[UNK]", "<unk>"]),
    ("mask_token", &["[MASK]", "<mask>"]),
];

/// The files that may name the special tokens; of a token that both name, the first decides.
const TOKEN_FILES: [&str; 2] = ["tokenizer_config.json", "special_tokens_map.json"];

const POOLER: &str = "pooler.dense";

/// A tensor in f32.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PortableTensor {
    /// Its name; of an encoder, without what stands before it in a model with a head.
    pub(crate) name: String,
    /// The size in each dimension.
    pub(crate) shape: Vec<usize>,
    /// Its values, row by row.
    pub(crate) values: Vec<f32>,
}

/// The first layers of an encoder.
#[derive(Clone, Debug)]
pub(crate) struct PortableEncoder {
    /// `model_type` in config.json.
    pub(crate) family: &'static str,
    /// How the names of its classes in `transformers` begin, as `Bert`.
    pub(crate) class: &'static str,
    /// What stands before the names of its tensors in a model with a head, as `bert.`.
    pub(crate) base: &'static str,
    /// Width of a hidden state.
    pub(crate) hidden: usize,
    /// config.json, without anything that tells of a head.
    pub(crate) config: Map<String, Value>,
    /// Its tensors, without a pooler.
    pub(crate) tensors: Vec<PortableTensor>,
    /// The layer that only the bare model of `transformers` has, if the family has it there. Nothing here reads it; it
    /// is zero where the checkpoint has none.
    pub(crate) pooler: Vec<PortableTensor>,
    /// tokenizer.json as it is used.
    pub(crate) tokenizer: Vec<u8>,
    /// The inputs of the model, as tokenizer_config.json names them.
    pub(crate) input_names: Vec<&'static str>,
    /// The special tokens by their keys in tokenizer_config.json.
    pub(crate) special_tokens: Map<String, Value>,
}

impl PortableEncoder {
    /// Reads the first `n_layers` layers of a checkpoint; `None` if it is a model.onnx.
    ///
    /// # Errors
    /// Returns an error if a file is missing or damaged.
    ///
    /// # Panics
    /// Panics if the checkpoint does not have so many layers, or if `n_layers` is 0.
    pub(crate) fn read(
        checkpoint: &Checkpoint,
        n_layers: usize,
    ) -> Result<Option<PortableEncoder>> {
        let Model::Fused(model) = &checkpoint.model else {
            return Ok(None);
        };
        let shape = &model.shape;
        let parts = shape.family.layer;
        if parts.shares_weights || !shape.family.has_plain_attention() {
            return Err(Error::Checkpoint {
                path: checkpoint.folder.clone(),
                expected: "a family whose layers are BERT's, each with weights of its own".into(),
                got: format!("`{}` ({})", shape.family.name, shape.family.class),
                hint: "export the head alone with --to onnx-head or --to safetensors".into(),
            });
        }
        assert!((1..=shape.layers).contains(&n_layers), "{n_layers} of {} layers", shape.layers);
        let folder = encoder_folder(&checkpoint.folder)?;
        let tokenizer = checkpoint.tokenizer.json.clone();
        let parsed: Value = serde_json::from_slice(&tokenizer).unwrap_or_default();
        let mut input_names = vec!["input_ids", "attention_mask"];
        if shape.token_types > 1 {
            input_names.insert(1, "token_type_ids");
        }
        Ok(Some(PortableEncoder {
            family: shape.family.name,
            class: shape.family.class,
            base: shape.family.base,
            hidden: shape.hidden,
            config: config_of(&folder.join("config.json"), shape, n_layers)?,
            tensors: read_tensors(model, tensors_of(shape, n_layers))?,
            pooler: read_pooler(model)?,
            special_tokens: special_tokens(&folder, &parsed)?,
            tokenizer,
            input_names,
        }))
    }

    /// Makes the tokenizer one for words that are separated already, as a tagger is trained on them.
    pub(crate) fn tokenize_words(&mut self) {
        let parsed: Value = serde_json::from_slice(&self.tokenizer).unwrap_or_default();
        if let Some(of_words) = with_prefix_space(parsed) {
            self.tokenizer = of_words;
        }
    }
}

fn read_object(path: &Path) -> Result<Map<String, Value>> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    serde_json::from_slice(&bytes).map_err(|error| Error::Checkpoint {
        path: path.to_path_buf(),
        expected: "a JSON object".into(),
        got: error.to_string(),
        hint: "fetch the checkpoint again".into(),
    })
}

/// Returns the checkpoint's config.json for a model of fewer layers.
fn config_of(path: &Path, shape: &FusedShape, n_layers: usize) -> Result<Map<String, Value>> {
    let mut config = read_object(path)?;
    for key in DROPPED_KEYS {
        config.shift_remove(key);
    }
    let family = shape.family;
    config.insert("model_type".into(), family.name.into());
    config.insert(family.keys.layers.into(), n_layers.into());
    if family.projects_embeddings {
        // Without the key, `transformers` takes 128.
        config.insert("embedding_size".into(), shape.embedding.into());
    }
    config.insert("dtype".into(), "float32".into());
    Ok(config)
}

/// Returns the names and shapes of an encoder's tensors.
fn tensors_of(shape: &FusedShape, n_layers: usize) -> Vec<(String, Vec<usize>)> {
    let (hidden, intermediate, width) = (shape.hidden, shape.intermediate, shape.embedding);
    let mut tensors = vec![
        (format!("{}.weight", shape.family.embeddings.words), vec![shape.vocabulary, width]),
        (POSITIONS.to_string(), vec![shape.positions, width]),
    ];
    if shape.token_types > 0 {
        tensors.push((TOKEN_TYPES.into(), vec![shape.token_types, width]));
    }
    norm(&mut tensors, "embeddings.LayerNorm", width);
    if width != hidden {
        linear(&mut tensors, "embeddings_project", width, hidden);
    }
    if let Some(bias) = shape.family.relative_bias {
        tensors.push((bias.tensor.into(), vec![bias.buckets, shape.attention_heads]));
    }
    let names = shape.family.tensors;
    for layer in 0..n_layers {
        let at = |name: &str| format!("{}.{layer}.{name}", names.layers);
        for name in names.projections {
            linear(&mut tensors, &at(name), hidden, hidden);
        }
        linear(&mut tensors, &at(names.attention_output), hidden, hidden);
        norm(&mut tensors, &at(names.attention_norm), hidden);
        linear(&mut tensors, &at(names.widen), hidden, intermediate);
        linear(&mut tensors, &at(names.narrow), intermediate, hidden);
        norm(&mut tensors, &at(names.output_norm), hidden);
    }
    tensors
}

fn linear(tensors: &mut Vec<(String, Vec<usize>)>, name: &str, inputs: usize, outputs: usize) {
    tensors.push((format!("{name}.weight"), vec![outputs, inputs]));
    tensors.push((format!("{name}.bias"), vec![outputs]));
}

fn norm(tensors: &mut Vec<(String, Vec<usize>)>, name: &str, width: usize) {
    tensors.push((format!("{name}.weight"), vec![width]));
    tensors.push((format!("{name}.bias"), vec![width]));
}

fn read_tensors(
    model: &FusedModel,
    tensors: Vec<(String, Vec<usize>)>,
) -> Result<Vec<PortableTensor>> {
    let tensors = tensors.into_iter().map(|(name, shape)| {
        let values = model.weights.tensor(&name, &shape)?;
        Ok(PortableTensor { name, shape, values })
    });
    tensors.collect()
}

fn read_pooler(model: &FusedModel) -> Result<Vec<PortableTensor>> {
    if !model.shape.family.pooler {
        return Ok(Vec::new());
    }
    let mut tensors = Vec::new();
    linear(&mut tensors, POOLER, model.shape.hidden, model.shape.hidden);
    if model.weights.holds(&format!("{POOLER}.weight"))? {
        return read_tensors(model, tensors);
    }
    let zeros = tensors.into_iter().map(|(name, shape)| {
        let values = vec![0.0; shape.iter().product()];
        PortableTensor { name, shape, values }
    });
    Ok(zeros.collect())
}

/// Returns the special tokens that the files beside the tokenizer name, and otherwise the usual ones that its
/// vocabulary has.
fn special_tokens(folder: &Path, tokenizer: &Value) -> Result<Map<String, Value>> {
    let mut files = Vec::new();
    for name in TOKEN_FILES {
        let path = folder.join(name);
        if path.is_file() {
            files.push(read_object(&path)?);
        }
    }
    let named = |key: &str| {
        let tokens = files.iter().filter_map(|file| file.get(key));
        // A token with settings is an object.
        let mut texts = tokens.filter_map(|token| token.as_str().or(token["content"].as_str()));
        texts.next().map(String::from)
    };
    let mut tokens = Map::new();
    for (key, usual) in SPECIAL_TOKENS {
        let usual = || usual.iter().find(|token| knows(tokenizer, token)).map(|t| t.to_string());
        if let Some(token) = named(key).or_else(usual) {
            tokens.insert(key.into(), token.into());
        }
    }
    Ok(tokens)
}

/// Whether a tokenizer.json has a token.
fn knows(tokenizer: &Value, token: &str) -> bool {
    let mut added = tokenizer["added_tokens"].as_array().into_iter().flatten();
    if added.any(|added| added["content"] == token) {
        return true;
    }
    match &tokenizer["model"]["vocab"] {
        Value::Object(ids) => ids.contains_key(token),
        // With their scores, in the order of their ids.
        Value::Array(pieces) => pieces.iter().any(|piece| piece[0] == token),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fixture(name: &str) -> Checkpoint {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
        Checkpoint::open(&folder).unwrap()
    }

    #[test]
    fn the_first_layers_of_every_family_have_their_names_and_no_others() {
        for (name, class, n_tensors) in [
            ("tiny_bert", "Bert", 5 + 16),
            ("families/roberta", "Roberta", 5 + 16),
            ("families/xlm_roberta_f16", "XLMRoberta", 5 + 16),
            ("families/camembert_bf16", "Camembert", 5 + 16),
            ("families/distilbert", "DistilBert", 4 + 16),
            ("families/electra", "Electra", 7 + 16),
            ("families/mpnet", "MPNet", 5 + 16),
        ] {
            let encoder = PortableEncoder::read(&fixture(name), 1).unwrap().unwrap();
            assert_eq!((encoder.class, encoder.tensors.len()), (class, n_tensors), "{name}");
            let is_of_layer_1 = |tensor: &PortableTensor| tensor.name.contains(".1.");
            assert!(!encoder.tensors.iter().any(is_of_layer_1), "{name}");
            let layers = ["num_hidden_layers", "n_layers"].map(|key| encoder.config.get(key));
            assert!(layers.contains(&Some(&json!(1))), "{name}: {layers:?}");
            assert_eq!(encoder.pooler.is_empty(), ["DistilBert", "Electra"].contains(&class));
            let pad = encoder.special_tokens["pad_token"].as_str().unwrap();
            assert!(["[PAD]", "<pad>"].contains(&pad), "{name}: {pad}");
            assert!(!encoder.config.contains_key("architectures"), "{name}");
        }
        let mut of_roberta =
            PortableEncoder::read(&fixture("families/roberta"), 1).unwrap().unwrap();
        of_roberta.tokenize_words();
        let tokenizer: Value = serde_json::from_slice(&of_roberta.tokenizer).unwrap();
        assert_eq!(tokenizer["pre_tokenizer"]["add_prefix_space"], json!(true));
        let of_bert = PortableEncoder::read(&fixture("tiny_bert"), 2).unwrap().unwrap();
        assert_eq!(of_bert.input_names, ["input_ids", "token_type_ids", "attention_mask"]);
        let onnx = PortableEncoder::read(&fixture("families/albert_onnx"), 1).unwrap();
        assert!(onnx.is_none());
        for name in ["families/albert", "families/modernbert", "families/deberta_v3"] {
            let refused = PortableEncoder::read(&fixture(name), 1).unwrap_err();
            assert!(refused.hint().unwrap().contains("--to onnx-head"), "{name}: {refused}");
        }
    }
}

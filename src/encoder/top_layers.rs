//! The last layers of a checkpoint as arrays, for a training that goes on from them.

use std::path::Path;

use super::{
    checkpoint::{Checkpoint, Model},
    config::ConfigFile,
    family::{Family, LayerTensors},
    relative_bias::RelativeBias,
    sentence_folder::encoder_folder,
};
use crate::error::{Error, Result};

/// The families whose layers can be trained, by their `model_type` in config.json. Their layers compute the same, apart
/// from the bias of MPNet.
const FAMILIES: [&str; 7] =
    ["bert", "roberta", "xlm-roberta", "camembert", "distilbert", "electra", "mpnet"];

/// The keys of the dropout rates in config.json, by family: of units, and of attention's shares.
const DROPOUT_KEYS: [[&str; 2]; 2] =
    [["hidden_dropout_prob", "dropout"], ["attention_probs_dropout_prob", "attention_dropout"]];

/// A dropout rate that config.json does not name, as in `transformers`.
const DROPOUT: f64 = 0.1;

/// The last layers of an encoder, from the lowest.
pub(crate) struct TopLayers {
    /// Attention heads of each layer.
    pub(crate) attention_heads: usize,
    /// Width of the feed-forward part.
    pub(crate) intermediate: usize,
    /// Added to the variance in layer normalisation.
    pub(crate) epsilon: f32,
    /// The dropout of units in training after the feed-forward part.
    pub(crate) dropout: f32,
    /// The same after attention: DistilBERT has none there.
    pub(crate) attention_output_dropout: f32,
    /// The dropout of attention's shares in training.
    pub(crate) attention_dropout: f32,
    /// For each layer the names of its tensors, as the bare model of `transformers` has them: the weights of query, key
    /// and value, then their biases, then weight and bias of each other part from below.
    pub(crate) names: Vec<Vec<String>>,
    /// The bias that attention adds to its scores: the name of its table, and the smallest distance of each bucket of a
    /// side.
    pub(crate) distance_bias: Option<(String, Vec<usize>)>,
    /// The values of all tensors in the order of their names, row by row; the table of biases is the last.
    pub(crate) values: Vec<f32>,
}

impl TopLayers {
    /// Reads the last `n_layers` layers of a checkpoint.
    ///
    /// # Errors
    /// Returns an error if the checkpoint is of a family whose layers are not trained here, or a file is damaged.
    ///
    /// # Panics
    /// Panics if the checkpoint does not have so many layers.
    pub(crate) fn read(checkpoint: &Checkpoint, n_layers: usize) -> Result<TopLayers> {
        let model = match &checkpoint.model {
            Model::Fused(model) if is_trained(model.shape.family) => model,
            Model::Fused(model) => {
                let family = model.shape.family;
                let got = format!("`{}` ({})", family.name, family.class);
                return Err(refuse(&checkpoint.folder, got));
            }
            Model::Onnx(_) => return Err(refuse(&checkpoint.folder, "a model.onnx".into())),
        };
        let (shape, weights) = (&model.shape, &model.weights);
        let (hidden, wide) = (shape.hidden, shape.intermediate);
        assert!(n_layers <= shape.layers, "{n_layers} of {} layers", shape.layers);
        let mut values = Vec::new();
        let mut names = Vec::with_capacity(n_layers);
        for number in shape.layers - n_layers..shape.layers {
            let tensors = tensors_of(shape.family.tensors, number, hidden, wide);
            for (name, shape) in &tensors {
                values.extend(weights.tensor(name, shape)?);
            }
            names.push(tensors.into_iter().map(|(name, _)| name).collect());
        }
        let mut distance_bias = None;
        if let Some(bias) = shape.family.relative_bias {
            values.extend(weights.tensor(bias.tensor, &[bias.buckets, shape.attention_heads])?);
            distance_bias = Some((bias.tensor.to_string(), first_distances(bias)));
        }
        let folder = encoder_folder(&checkpoint.folder)?;
        let config = ConfigFile::read(&folder.join("config.json"))?;
        let [dropout, attention_dropout] = DROPOUT_KEYS.map(|keys| {
            let given = keys.iter().find_map(|key| config.rate(key));
            given.unwrap_or(DROPOUT) as f32
        });
        Ok(TopLayers {
            attention_heads: shape.attention_heads,
            intermediate: wide,
            epsilon: shape.layer_norm_epsilon,
            dropout,
            attention_output_dropout: if shape.family.name == "distilbert" { 0.0 } else { dropout },
            attention_dropout,
            names,
            distance_bias,
            values,
        })
    }
}

fn is_trained(family: &Family) -> bool {
    FAMILIES.contains(&family.name) && family.has_plain_attention()
}

/// The tensors of a layer with their shapes, in the order of [`TopLayers::names`].
fn tensors_of(
    tensors: &LayerTensors,
    number: usize,
    hidden: usize,
    wide: usize,
) -> Vec<(String, Vec<usize>)> {
    let name = |part: &str, end: &str| format!("{}.{number}.{part}.{end}", tensors.layers);
    let weights = tensors.projections.map(|part| (name(part, "weight"), vec![hidden, hidden]));
    let biases = tensors.projections.map(|part| (name(part, "bias"), vec![hidden]));
    let others = [
        (tensors.attention_output, vec![hidden, hidden], hidden),
        (tensors.attention_norm, vec![hidden], hidden),
        (tensors.widen, vec![wide, hidden], wide),
        (tensors.narrow, vec![hidden, wide], hidden),
        (tensors.output_norm, vec![hidden], hidden),
    ];
    let others = others.into_iter().flat_map(|(part, shape, width)| {
        [(name(part, "weight"), shape), (name(part, "bias"), vec![width])]
    });
    weights.into_iter().chain(biases).chain(others).collect()
}

/// The smallest distance of each bucket of a side.
fn first_distances(bias: &RelativeBias) -> Vec<usize> {
    let mut first = Vec::new();
    for distance in 0..=bias.max_distance {
        if bias.bucket(-(distance as i32)) == first.len() {
            first.push(distance);
        }
    }
    first
}

fn refuse(folder: &Path, got: String) -> Error {
    Error::Checkpoint {
        path: folder.to_path_buf(),
        expected: format!("a model_type of {}, whose layers can be trained", FAMILIES.join(", ")),
        got,
        hint:
            "leave train.unfreeze out, or set model.path to a checkpoint of one of these families"
                .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoder::family::Family;

    fn checkpoint(name: &str) -> Checkpoint {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        Checkpoint::open(&fixtures.join(name)).unwrap()
    }

    #[test]
    fn the_last_layers_are_read_with_the_names_of_their_family() {
        for (folder, first, n_values) in [
            ("tiny_bert", "encoder.layer.1.attention.self.query.weight", 8_544),
            ("families/distilbert", "transformer.layer.1.attention.q_lin.weight", 7_504),
            ("families/mpnet", "encoder.layer.1.attention.attn.q.weight", 7_504 + 32 * 4),
        ] {
            let layers = TopLayers::read(&checkpoint(folder), 1).unwrap();
            assert_eq!(layers.names[0][0], first);
            assert_eq!(layers.names[0].len(), 16);
            assert_eq!(layers.values.len(), n_values, "{folder}");
            assert_eq!((layers.dropout, layers.attention_dropout), (0.1, 0.1));
            let after_attention = if folder == "families/distilbert" { 0.0 } else { 0.1 };
            assert_eq!(layers.attention_output_dropout, after_attention, "{folder}");
        }
        let two = TopLayers::read(&checkpoint("tiny_bert"), 2).unwrap();
        assert_eq!((two.names.len(), two.values.len()), (2, 2 * 8_544));
    }

    #[test]
    fn a_family_whose_layers_are_not_trained_is_refused_with_the_list() {
        let refused = TopLayers::read(&checkpoint("families/modernbert_onnx"), 1);
        let message = refused.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(message.contains("a model_type of bert, roberta"), "{message}");
    }

    #[test]
    fn the_first_distances_of_the_buckets_are_those_of_t5() {
        let bias = Family::named("mpnet", |_| false, |_, _| false)
            .and_then(|family| family.relative_bias)
            .unwrap();
        let expected = [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91];
        assert_eq!(first_distances(bias), expected);
    }
}

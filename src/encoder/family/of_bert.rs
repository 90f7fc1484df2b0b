//! BERT and the families whose layers are made of the same parts.

use super::{
    Attention, ConfigKeys, EmbeddingTensors, EncoderActivation, Family, FeedForward, LayerParts,
    LayerTensors, Norms, Positions,
};
use crate::encoder::relative_bias::RelativeBias;

pub(super) const BERT_KEYS: ConfigKeys = ConfigKeys {
    layers: "num_hidden_layers",
    hidden: "hidden_size",
    attention_heads: "num_attention_heads",
    intermediate: "intermediate_size",
    activation: "hidden_act",
    positions: "max_position_embeddings",
    epsilon: ("layer_norm_eps", 1e-12),
    norm_bias: None,
};

pub(super) const BERT_TENSORS: LayerTensors = LayerTensors {
    layers: "encoder.layer",
    projections: ["attention.self.query", "attention.self.key", "attention.self.value"],
    attention_output: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    widen: "intermediate.dense",
    narrow: "output.dense",
    output_norm: "output.LayerNorm",
    without_bias: &[],
    stored: &[],
    inner: "",
};

pub(super) const BERT_EMBEDDINGS: EmbeddingTensors = EmbeddingTensors {
    words: "embeddings.word_embeddings",
    norm: "embeddings.LayerNorm",
    projection: "embeddings_project",
    always_projects: false,
    last_norm: "",
};

pub(super) const BERT_LAYER: LayerParts = LayerParts {
    attention: Attention::Plain,
    feed_forward: FeedForward::Plain,
    norms: Norms::After,
    shares_weights: false,
    convolution: None,
};

/// `gelu_python` is the same formula written in Python.
pub(super) const EXACT_GELU: &[(&str, EncoderActivation)] =
    &[("gelu", EncoderActivation::Gelu), ("gelu_python", EncoderActivation::Gelu)];

pub(super) const DISTILBERT_KEYS: ConfigKeys = ConfigKeys {
    layers: "n_layers",
    hidden: "dim",
    attention_heads: "n_heads",
    intermediate: "hidden_dim",
    activation: "activation",
    ..BERT_KEYS
};

pub(super) const DISTILBERT_TENSORS: LayerTensors = LayerTensors {
    layers: "transformer.layer",
    projections: ["attention.q_lin", "attention.k_lin", "attention.v_lin"],
    attention_output: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    widen: "ffn.lin1",
    narrow: "ffn.lin2",
    output_norm: "output_layer_norm",
    ..BERT_TENSORS
};

pub(super) const MPNET_TENSORS: LayerTensors = LayerTensors {
    projections: ["attention.attn.q", "attention.attn.k", "attention.attn.v"],
    attention_output: "attention.attn.o",
    attention_norm: "attention.LayerNorm",
    ..BERT_TENSORS
};

pub(super) const MPNET_BIAS: RelativeBias = RelativeBias {
    tensor: "encoder.relative_attention_bias.weight",
    key: "relative_attention_num_buckets",
    buckets: 32,
    max_distance: 128,
};

pub(super) const BERT: Family = Family {
    name: "bert",
    told_by: None,
    class: "Bert",
    base: "bert.",
    pooler: true,
    keys: &BERT_KEYS,
    embeddings: &BERT_EMBEDDINGS,
    tensors: &BERT_TENSORS,
    layer: BERT_LAYER,
    activations: EXACT_GELU,
    demands: &[],
    own_classes: &[],
    foreign_tensor: None,
    graph: "",
    positions: Positions::FromZero,
    relative_bias: None,
    token_types: Some(2),
    projects_embeddings: false,
};

pub(super) const ROBERTA: Family = Family {
    name: "roberta",
    class: "Roberta",
    base: "roberta.",
    positions: Positions::AfterPadding,
    ..BERT
};

pub(super) const XLM_ROBERTA: Family =
    Family { name: "xlm-roberta", class: "XLMRoberta", ..ROBERTA };

pub(super) const CAMEMBERT: Family = Family { name: "camembert", class: "Camembert", ..ROBERTA };

pub(super) const DISTILBERT: Family = Family {
    name: "distilbert",
    class: "DistilBert",
    base: "distilbert.",
    pooler: false,
    keys: &DISTILBERT_KEYS,
    tensors: &DISTILBERT_TENSORS,
    token_types: None,
    ..BERT
};

pub(super) const ELECTRA: Family = Family {
    name: "electra",
    class: "Electra",
    base: "electra.",
    pooler: false,
    projects_embeddings: true,
    ..BERT
};

pub(super) const MPNET: Family = Family {
    name: "mpnet",
    class: "MPNet",
    base: "mpnet.",
    tensors: &MPNET_TENSORS,
    positions: Positions::AfterRow(1),
    relative_bias: Some(&MPNET_BIAS),
    token_types: None,
    ..BERT
};

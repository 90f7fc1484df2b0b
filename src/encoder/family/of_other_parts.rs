//! The families whose layers have other parts than BERT's.

use super::{
    Attention, ConfigKeys, Demand, EmbeddingTensors, EncoderActivation, Family, FeedForward,
    LayerParts, LayerTensors, Norms, Positions, RotaryKeys, StoredRows, WindowKeys,
    of_bert::{BERT, BERT_EMBEDDINGS, BERT_KEYS, BERT_LAYER, BERT_TENSORS},
};

pub(super) const MODERNBERT_KEYS: ConfigKeys = ConfigKeys {
    activation: "hidden_activation",
    epsilon: ("norm_eps", 1e-5),
    norm_bias: Some("norm_bias"),
    ..BERT_KEYS
};

pub(super) const MODERNBERT_ROTARY: RotaryKeys = RotaryKeys {
    theta: "global_rope_theta",
    default_theta: 160_000.0,
    trained_length: None,
    windows: Some(&WindowKeys {
        tokens: "local_attention",
        default_tokens: 128,
        every: "global_attn_every_n_layers",
        default_every: 3,
        theta: "local_rope_theta",
        default_theta: 10_000.0,
    }),
};

pub(super) const MODERNBERT_TENSORS: LayerTensors = LayerTensors {
    layers: "layers",
    projections: ["attn.query", "attn.key", "attn.value"],
    attention_output: "attn.Wo",
    attention_norm: "attn_norm",
    widen: "mlp.Wi_activated",
    narrow: "mlp.Wo",
    output_norm: "mlp_norm",
    without_bias: &[
        "attn.query",
        "attn.key",
        "attn.value",
        "attn.Wo",
        "mlp.Wi_activated",
        "mlp.Wo",
    ],
    stored: &[
        StoredRows { name: "attn.query", tensor: "attn.Wqkv", part: 0, of: 3 },
        StoredRows { name: "attn.key", tensor: "attn.Wqkv", part: 1, of: 3 },
        StoredRows { name: "attn.value", tensor: "attn.Wqkv", part: 2, of: 3 },
        StoredRows { name: "mlp.Wi_activated", tensor: "mlp.Wi", part: 0, of: 2 },
        StoredRows { name: "mlp.Wi_gate", tensor: "mlp.Wi", part: 1, of: 2 },
    ],
    inner: "",
};

pub(super) const MODERNBERT: Family = Family {
    name: "modernbert",
    class: "ModernBert",
    base: "model.",
    pooler: false,
    keys: &MODERNBERT_KEYS,
    embeddings: &EmbeddingTensors {
        words: "embeddings.tok_embeddings",
        norm: "embeddings.norm",
        last_norm: "final_norm",
        ..BERT_EMBEDDINGS
    },
    tensors: &MODERNBERT_TENSORS,
    layer: LayerParts {
        attention: Attention::Rotary(&MODERNBERT_ROTARY),
        feed_forward: FeedForward::Gated("mlp.Wi_gate"),
        norms: Norms::Before,
        ..BERT_LAYER
    },
    demands: &[optional("attention_bias", &["false"]), optional("mlp_bias", &["false"])],
    graph: "modernbert-3",
    positions: Positions::NoTable,
    token_types: None,
    ..BERT
};

pub(super) const ALBERT_TENSORS: LayerTensors = LayerTensors {
    layers: "encoder.albert_layer_groups",
    projections: ["attention.query", "attention.key", "attention.value"],
    attention_output: "attention.dense",
    attention_norm: "attention.LayerNorm",
    widen: "ffn",
    narrow: "ffn_output",
    output_norm: "full_layer_layer_norm",
    inner: ".albert_layers.0",
    ..BERT_TENSORS
};

pub(super) const ALBERT: Family = Family {
    name: "albert",
    class: "Albert",
    base: "albert.",
    embeddings: &EmbeddingTensors {
        projection: "encoder.embedding_hidden_mapping_in",
        always_projects: true,
        ..BERT_EMBEDDINGS
    },
    tensors: &ALBERT_TENSORS,
    layer: LayerParts { shares_weights: true, ..BERT_LAYER },
    activations: &[
        ("gelu_new", EncoderActivation::GeluTanh),
        ("gelu_pytorch_tanh", EncoderActivation::GeluTanh),
        ("gelu", EncoderActivation::Gelu),
    ],
    demands: &[optional("inner_group_num", &["1"])],
    graph: "albert-1",
    projects_embeddings: true,
    ..BERT
};

pub(super) const DEBERTA: Family = Family {
    name: "deberta-v2",
    class: "DebertaV2",
    base: "deberta.",
    pooler: false,
    keys: &ConfigKeys { epsilon: ("layer_norm_eps", 1e-7), ..BERT_KEYS },
    tensors: &LayerTensors {
        projections: [
            "attention.self.query_proj",
            "attention.self.key_proj",
            "attention.self.value_proj",
        ],
        ..BERT_TENSORS
    },
    layer: LayerParts {
        attention: Attention::Disentangled,
        convolution: Some("encoder.conv"),
        ..BERT_LAYER
    },
    demands: &[
        demanded("relative_attention", &["true"]),
        demanded("position_biased_input", &["false"]),
        optional("norm_rel_ebd", &["\"none\"", "\"layer_norm\""]),
    ],
    graph: "deberta-1",
    positions: Positions::NoTable,
    token_types: Some(0),
    ..BERT
};

pub(super) const JINA_TENSORS: LayerTensors = LayerTensors {
    widen: "mlp.activated",
    narrow: "mlp.wo",
    output_norm: "mlp.layernorm",
    without_bias: &["mlp.activated"],
    stored: &[
        StoredRows { name: "mlp.activated", tensor: "mlp.gated_layers", part: 0, of: 2 },
        StoredRows { name: "mlp.gate", tensor: "mlp.gated_layers", part: 1, of: 2 },
    ],
    ..BERT_TENSORS
};

/// The code of jina-embeddings-v2, which calls itself a BERT.
pub(super) const JINA: Family = Family {
    told_by: Some(("position_embedding_type", "alibi")),
    class: "JinaBert",
    tensors: &JINA_TENSORS,
    layer: LayerParts {
        attention: Attention::Alibi,
        feed_forward: FeedForward::Gated("mlp.gate"),
        ..BERT_LAYER
    },
    demands: &[demanded("feed_forward_type", &["\"geglu\""])],
    own_classes: &[
        "jina-bert-implementation--modeling_bert.JinaBertModel",
        "modeling_bert.JinaBertModel",
    ],
    // The same class of jina-bert-v2-qk-post-norm (jina-embeddings-v2-base-code) also normalises queries and keys. A
    // folder that `transformers` saved again does not name the repository.
    foreign_tensor: Some("encoder.layer.0.attention.self.layer_norm_q.weight"),
    graph: "jina-1",
    positions: Positions::NoTable,
    ..BERT
};

pub(super) const NOMIC_ROTARY: RotaryKeys = RotaryKeys {
    theta: "rotary_emb_base",
    default_theta: 1_000.0,
    trained_length: Some("max_trained_positions"),
    windows: None,
};

pub(super) const NOMIC_TENSORS: LayerTensors = LayerTensors {
    layers: "encoder.layers",
    projections: ["attn.query", "attn.key", "attn.value"],
    attention_output: "attn.out_proj",
    attention_norm: "norm1",
    widen: "mlp.fc12",
    narrow: "mlp.fc2",
    output_norm: "norm2",
    without_bias: &["attn.query", "attn.key", "attn.value", "attn.out_proj", "mlp.fc12", "mlp.fc2"],
    stored: &[
        StoredRows { name: "attn.query", tensor: "attn.Wqkv", part: 0, of: 3 },
        StoredRows { name: "attn.key", tensor: "attn.Wqkv", part: 1, of: 3 },
        StoredRows { name: "attn.value", tensor: "attn.Wqkv", part: 2, of: 3 },
    ],
    inner: "",
};

/// As `transformers` itself writes the config.
pub(super) const NOMIC: Family = Family {
    name: "nomic_bert",
    class: "NomicBert",
    base: "nomic_bert.",
    pooler: false,
    embeddings: &EmbeddingTensors { norm: "emb_ln", ..BERT_EMBEDDINGS },
    tensors: &NOMIC_TENSORS,
    layer: LayerParts {
        attention: Attention::Rotary(&NOMIC_ROTARY),
        feed_forward: FeedForward::Gated("mlp.fc11"),
        ..BERT_LAYER
    },
    activations: &[("silu", EncoderActivation::Silu), ("swiglu", EncoderActivation::Silu)],
    own_classes: &["NomicBertModel"],
    graph: "nomic-2",
    positions: Positions::NoTable,
    ..BERT
};

/// As the hub's own folders do.
pub(super) const NOMIC_OF_HUB: Family = Family {
    keys: &ConfigKeys {
        layers: "n_layer",
        hidden: "n_embd",
        attention_heads: "n_head",
        intermediate: "n_inner",
        activation: "activation_function",
        positions: "n_positions",
        epsilon: ("layer_norm_epsilon", 1e-12),
        norm_bias: None,
    },
    demands: &[
        optional("prenorm", &["false"]),
        demanded("qkv_proj_bias", &["false"]),
        demanded("mlp_fc1_bias", &["false"]),
        demanded("mlp_fc2_bias", &["false"]),
        optional("use_rms_norm", &["false"]),
        optional("parallel_block", &["false"]),
        optional("causal", &["false"]),
        optional("rotary_emb_interleaved", &["false"]),
        demanded("rotary_emb_fraction", &["1", "1.0"]),
    ],
    ..NOMIC
};

pub(super) const GTE_ROTARY: RotaryKeys = RotaryKeys {
    theta: "rope_theta",
    default_theta: 160_000.0,
    trained_length: None,
    windows: None,
};

pub(super) const GTE_TENSORS: LayerTensors = LayerTensors {
    layers: "encoder.layer",
    projections: ["attention.query", "attention.key", "attention.value"],
    attention_output: "attention.o_proj",
    attention_norm: "attn_ln",
    widen: "mlp.activated_proj",
    narrow: "mlp.down_proj",
    output_norm: "mlp_ln",
    without_bias: &["mlp.activated_proj"],
    stored: &[
        StoredRows { name: "attention.query", tensor: "attention.qkv_proj", part: 0, of: 3 },
        StoredRows { name: "attention.key", tensor: "attention.qkv_proj", part: 1, of: 3 },
        StoredRows { name: "attention.value", tensor: "attention.qkv_proj", part: 2, of: 3 },
        StoredRows { name: "mlp.up_proj", tensor: "mlp.up_gate_proj", part: 0, of: 2 },
        StoredRows { name: "mlp.activated_proj", tensor: "mlp.up_gate_proj", part: 1, of: 2 },
    ],
    inner: "",
};

pub(super) const GTE: Family = Family {
    name: "gte",
    class: "Gte",
    base: "new.",
    tensors: &GTE_TENSORS,
    layer: LayerParts {
        attention: Attention::Rotary(&GTE_ROTARY),
        feed_forward: FeedForward::Gated("mlp.up_proj"),
        ..BERT_LAYER
    },
    demands: &[
        optional("position_embedding_type", &["\"rope\""]),
        optional("layer_norm_type", &["\"layer_norm\""]),
        optional("pack_qkv", &["true"]),
        optional("logn_attention_scale", &["false"]),
    ],
    own_classes: &["NewModel", "GteModel"],
    graph: "gte-2",
    positions: Positions::NoTable,
    token_types: Some(1),
    ..BERT
};

/// As [`GTE_ROTARY`], with what the class of the hub's folders takes where they say nothing.
const GTE_OF_HUB_ROTARY: RotaryKeys = RotaryKeys { default_theta: 10_000.0, ..GTE_ROTARY };

/// The name under which the hub's folders have it.
pub(super) const GTE_OF_HUB: Family = Family {
    name: "new",
    layer: LayerParts { attention: Attention::Rotary(&GTE_OF_HUB_ROTARY), ..GTE.layer },
    ..GTE
};

const fn optional(key: &'static str, allowed: &'static [&'static str]) -> Demand {
    Demand { key, allowed, may_be_missing: true }
}

const fn demanded(key: &'static str, allowed: &'static [&'static str]) -> Demand {
    Demand { key, allowed, may_be_missing: false }
}

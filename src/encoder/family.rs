//! The model families that the fused graph supports, described as data: the names of their config keys and tensors, how
//! they count positions, and what else their attention knows of positions.

use super::relative_bias::RelativeBias;

/// One family of checkpoints.
#[derive(Debug, PartialEq)]
pub(super) struct Family {
    /// `model_type` in config.json.
    pub(super) name: &'static str,
    /// How the names of its classes in `transformers` begin.
    pub(super) class: &'static str,
    /// What `transformers` puts before the encoder's tensors in a model with a head.
    pub(super) base: &'static str,
    /// Whether the bare model of `transformers` has a pooler, which nothing here reads.
    pub(super) pooler: bool,
    /// The keys of the sizes in config.json.
    pub(super) keys: &'static ConfigKeys,
    /// The names of a layer's tensors in the weights.
    pub(super) tensors: &'static LayerTensors,
    /// The row of the position table for the first token.
    pub(super) positions: Positions,
    /// The bias that every layer adds to its attention scores, in families that have one.
    pub(super) relative_bias: Option<&'static RelativeBias>,
    /// Whether there is a token type table; without one, nothing is added.
    pub(super) token_types: bool,
    /// Whether embeddings may be narrower than hidden states (`embedding_size`), in which case they are projected.
    pub(super) projects_embeddings: bool,
}

/// The first row of the position table that a text uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Positions {
    /// Row 0.
    FromZero,
    /// Row `pad_token_id + 1`: RoBERTa counts on from the padding token, so the rows before are unused.
    AfterPadding,
    /// The row after this one, that of the padding token: MPNet counts as RoBERTa does, but its padding token is fixed
    /// whatever `pad_token_id` says.
    AfterRow(usize),
}

/// Keys of config.json that differ between families.
#[derive(Debug, PartialEq)]
pub(super) struct ConfigKeys {
    pub(super) layers: &'static str,
    pub(super) hidden: &'static str,
    pub(super) attention_heads: &'static str,
    pub(super) intermediate: &'static str,
    pub(super) activation: &'static str,
}

/// Names of a layer's tensors, after `<layers>.<number>.` and before `.weight` and `.bias`.
#[derive(Debug, PartialEq)]
pub(super) struct LayerTensors {
    /// The prefix before the layer's number.
    pub(super) layers: &'static str,
    /// The three projections of attention: query, key, value.
    pub(super) projections: [&'static str; 3],
    /// The dense layer after attention.
    pub(super) attention_output: &'static str,
    /// The LayerNorm after attention.
    pub(super) attention_norm: &'static str,
    /// The feed-forward layer's first half, to the intermediate size.
    pub(super) widen: &'static str,
    /// The feed-forward layer's second half, back to the hidden size.
    pub(super) narrow: &'static str,
    /// The LayerNorm after the feed-forward layer.
    pub(super) output_norm: &'static str,
}

/// The prefixes that checkpoints of any family use for the encoder's tensors. The last two are those of the state dict
/// of a whole SentenceTransformer, and of its first module.
pub(super) const PREFIXES: [&str; 8] =
    ["", "bert.", "roberta.", "distilbert.", "electra.", "mpnet.", "0.auto_model.", "auto_model."];

const BERT_KEYS: ConfigKeys = ConfigKeys {
    layers: "num_hidden_layers",
    hidden: "hidden_size",
    attention_heads: "num_attention_heads",
    intermediate: "intermediate_size",
    activation: "hidden_act",
};

const BERT_TENSORS: LayerTensors = LayerTensors {
    layers: "encoder.layer",
    projections: ["attention.self.query", "attention.self.key", "attention.self.value"],
    attention_output: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    widen: "intermediate.dense",
    narrow: "output.dense",
    output_norm: "output.LayerNorm",
};

const DISTILBERT_KEYS: ConfigKeys = ConfigKeys {
    layers: "n_layers",
    hidden: "dim",
    attention_heads: "n_heads",
    intermediate: "hidden_dim",
    activation: "activation",
};

const DISTILBERT_TENSORS: LayerTensors = LayerTensors {
    layers: "transformer.layer",
    projections: ["attention.q_lin", "attention.k_lin", "attention.v_lin"],
    attention_output: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    widen: "ffn.lin1",
    narrow: "ffn.lin2",
    output_norm: "output_layer_norm",
};

const MPNET_TENSORS: LayerTensors = LayerTensors {
    projections: ["attention.attn.q", "attention.attn.k", "attention.attn.v"],
    attention_output: "attention.attn.o",
    attention_norm: "attention.LayerNorm",
    ..BERT_TENSORS
};

const MPNET_BIAS: RelativeBias = RelativeBias {
    tensor: "encoder.relative_attention_bias.weight",
    key: "relative_attention_num_buckets",
    buckets: 32,
    max_distance: 128,
};

const BERT: Family = Family {
    name: "bert",
    class: "Bert",
    base: "bert.",
    pooler: true,
    keys: &BERT_KEYS,
    tensors: &BERT_TENSORS,
    positions: Positions::FromZero,
    relative_bias: None,
    token_types: true,
    projects_embeddings: false,
};

const ROBERTA: Family = Family {
    name: "roberta",
    class: "Roberta",
    base: "roberta.",
    positions: Positions::AfterPadding,
    ..BERT
};

const XLM_ROBERTA: Family = Family { name: "xlm-roberta", class: "XLMRoberta", ..ROBERTA };

const CAMEMBERT: Family = Family { name: "camembert", class: "Camembert", ..ROBERTA };

const DISTILBERT: Family = Family {
    name: "distilbert",
    class: "DistilBert",
    base: "distilbert.",
    pooler: false,
    keys: &DISTILBERT_KEYS,
    tensors: &DISTILBERT_TENSORS,
    token_types: false,
    ..BERT
};

const ELECTRA: Family = Family {
    name: "electra",
    class: "Electra",
    base: "electra.",
    pooler: false,
    projects_embeddings: true,
    ..BERT
};

const MPNET: Family = Family {
    name: "mpnet",
    class: "MPNet",
    base: "mpnet.",
    tensors: &MPNET_TENSORS,
    positions: Positions::AfterRow(1),
    relative_bias: Some(&MPNET_BIAS),
    token_types: false,
    ..BERT
};

/// All families that the fused graph supports.
pub(super) const FAMILIES: [&Family; 7] =
    [&BERT, &ROBERTA, &XLM_ROBERTA, &CAMEMBERT, &DISTILBERT, &ELECTRA, &MPNET];

impl Family {
    /// Returns the family of a `model_type` in config.json.
    pub(super) fn named(model_type: &str) -> Option<&'static Family> {
        FAMILIES.into_iter().find(|family| family.name == model_type)
    }

    /// Returns all family names, for an error message.
    pub(super) fn names() -> String {
        FAMILIES.map(|family| family.name).join(", ")
    }
}

//! The model families that the fused graph supports, described as data: the names of their config keys and tensors, how
//! they count positions, and the parts that a layer is made of.

mod of_bert;
mod of_other_parts;

use of_bert::{BERT, CAMEMBERT, DISTILBERT, ELECTRA, MPNET, ROBERTA, XLM_ROBERTA};
use of_other_parts::{ALBERT, DEBERTA, GTE, GTE_OF_HUB, JINA, MODERNBERT, NOMIC, NOMIC_OF_HUB};

use super::relative_bias::RelativeBias;

/// One family of checkpoints.
#[derive(Debug, PartialEq)]
pub(super) struct Family {
    /// `model_type` in config.json.
    pub(super) name: &'static str,
    /// A key of config.json and its value, which tell the family from others of its name.
    pub(super) told_by: Option<(&'static str, &'static str)>,
    /// How the names of its classes in `transformers` begin.
    pub(super) class: &'static str,
    /// What `transformers` puts before the encoder's tensors in a model with a head.
    pub(super) base: &'static str,
    /// Whether the bare model of `transformers` has a pooler, which nothing here reads.
    pub(super) pooler: bool,
    /// The keys of the sizes in config.json.
    pub(super) keys: &'static ConfigKeys,
    /// The names of the tensors before the first layer and after the last.
    pub(super) embeddings: &'static EmbeddingTensors,
    /// The names of a layer's tensors in the weights.
    pub(super) tensors: &'static LayerTensors,
    /// What a layer is made of.
    pub(super) layer: LayerParts,
    /// The values of the key of the activation that are supported; the first is that of a config without the key.
    pub(super) activations: &'static [(&'static str, EncoderActivation)],
    /// What config.json must say, because the graph computes nothing else.
    pub(super) demands: &'static [Demand],
    /// Classes of repositories' own code that compute what the graph does: the ends of their names, from a `.` or `/`
    /// on.
    pub(super) own_classes: &'static [&'static str],
    /// A tensor of a part that the graph does not compute: the weights of other code whose class has the same name hold
    /// it.
    pub(super) foreign_tensor: Option<&'static str>,
    /// What the name of the graph contains besides that of BERT's; empty if it is built from the same parts.
    pub(super) graph: &'static str,
    /// The row of the position table for the first token.
    pub(super) positions: Positions,
    /// The bias that every layer adds to its attention scores, in families that have one.
    pub(super) relative_bias: Option<&'static RelativeBias>,
    /// The rows of the token type table if config.json does not say; `None` if there is no table, and nothing is added.
    pub(super) token_types: Option<usize>,
    /// Whether embeddings may be narrower than hidden states (`embedding_size`), in which case they are projected.
    pub(super) projects_embeddings: bool,
}

/// The parts of a layer, each of a kind that the graph knows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct LayerParts {
    pub(super) attention: Attention,
    pub(super) feed_forward: FeedForward,
    pub(super) norms: Norms,
    /// Whether groups of layers have the same weights (`num_hidden_groups`).
    pub(super) shares_weights: bool,
    /// What the names of the tensors of a convolution after the first layer begin with, in families that may have one
    /// (`conv_kernel_size`).
    pub(super) convolution: Option<&'static str>,
}

/// What attention knows of positions, besides a bias that is the same in all layers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Attention {
    /// Nothing: positions are added to the embeddings.
    Plain,
    /// Queries and keys are turned by angles that grow with their position; some layers may look at a window only.
    Rotary(&'static RotaryKeys),
    /// Scores between states and distances are added to those between states (DeBERTa).
    Disentangled,
    /// Scores are lowered by the distance of the key from the query, in each head by another slope (ALiBi).
    Alibi,
}

/// Keys of config.json for rotary positions.
#[derive(Debug, PartialEq)]
pub(super) struct RotaryKeys {
    /// The base of the angles in the older spelling; `transformers` 5 writes `rope_parameters`.
    pub(super) theta: &'static str,
    /// The base if neither is there.
    pub(super) default_theta: f64,
    /// The length up to which the model was trained, beyond which its angles depend on the longest text of a batch if
    /// they are scaled.
    pub(super) trained_length: Option<&'static str>,
    /// Keys of the layers that look at a window, in families that have them.
    pub(super) windows: Option<&'static WindowKeys>,
}

/// Keys of config.json for layers whose tokens see only their neighbours.
#[derive(Debug, PartialEq)]
pub(super) struct WindowKeys {
    /// The tokens of a window, both sides together.
    pub(super) tokens: &'static str,
    pub(super) default_tokens: usize,
    /// Every how many layers one sees all tokens, from the first on; `transformers` 5 writes `layer_types`.
    pub(super) every: &'static str,
    pub(super) default_every: usize,
    /// The base of the angles of these layers, in the older spelling.
    pub(super) theta: &'static str,
    pub(super) default_theta: f64,
}

/// The half of a layer after attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FeedForward {
    /// `narrow(activation(widen(x)))`.
    Plain,
    /// `narrow(activation(widen(x)) * gate(x))`, with this tensor as the gate; neither of the two has a bias.
    Gated(&'static str),
}

/// Where a layer normalises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Norms {
    /// The sum of what attention, or the feed-forward half, was given and gave.
    After,
    /// What attention, except that of the first layer, and the feed-forward half are given. The states between layers
    /// are sums, which only the end of the last layer normalises.
    Before,
}

/// The function between the two matrices of a feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EncoderActivation {
    /// The exact one, by erf.
    Gelu,
    /// The approximation by tanh.
    GeluTanh,
    /// `x` times its sigmoid.
    Silu,
}

/// A value that config.json must have.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Demand {
    pub(super) key: &'static str,
    /// The values allowed, as JSON writes them.
    pub(super) allowed: &'static [&'static str],
    /// Whether the key may be missing or null.
    pub(super) may_be_missing: bool,
}

/// Names of the tensors outside layers, without `.weight` and `.bias`.
#[derive(Debug, PartialEq)]
pub(super) struct EmbeddingTensors {
    pub(super) words: &'static str,
    pub(super) norm: &'static str,
    /// What widens embeddings to hidden states.
    pub(super) projection: &'static str,
    /// Whether they are projected even if both have one width.
    pub(super) always_projects: bool,
    /// The norm after the last layer, where norms come before.
    pub(super) last_norm: &'static str,
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
    /// No row: there is no table, because attention knows positions by itself.
    NoTable,
}

/// Keys of config.json that differ between families.
#[derive(Debug, PartialEq)]
pub(super) struct ConfigKeys {
    pub(super) layers: &'static str,
    pub(super) hidden: &'static str,
    pub(super) attention_heads: &'static str,
    pub(super) intermediate: &'static str,
    pub(super) activation: &'static str,
    /// The longest input, or the rows of the position table.
    pub(super) positions: &'static str,
    /// The epsilon of normalisations, and its value if the key is missing.
    pub(super) epsilon: (&'static str, f32),
    /// Whether normalisations have a bias; they do if the family has no key for it.
    pub(super) norm_bias: Option<&'static str>,
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
    /// The LayerNorm after attention; before it, where norms come before.
    pub(super) attention_norm: &'static str,
    /// The feed-forward layer's first half, to the intermediate size.
    pub(super) widen: &'static str,
    /// The feed-forward layer's second half, back to the hidden size.
    pub(super) narrow: &'static str,
    /// The LayerNorm after the feed-forward layer; before it, where norms come before.
    pub(super) output_norm: &'static str,
    /// The names above that have no bias.
    pub(super) without_bias: &'static [&'static str],
    /// The names above that the weights store as a part of another tensor or under another name.
    pub(super) stored: &'static [StoredRows],
    /// What the weights have between a layer's number and the names above.
    pub(super) inner: &'static str,
}

/// A linear layer whose weight and bias are some of the rows of a tensor.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StoredRows {
    /// Its name in the graph.
    pub(super) name: &'static str,
    /// The tensor.
    pub(super) tensor: &'static str,
    /// Which of the parts, which have one size.
    pub(super) part: usize,
    /// The number of parts.
    pub(super) of: usize,
}

/// The prefixes that checkpoints of any family use for the encoder's tensors. The last two are those of the state dict
/// of a whole SentenceTransformer, and of its first module.
pub(super) const PREFIXES: [&str; 13] = [
    "",
    "bert.",
    "roberta.",
    "distilbert.",
    "electra.",
    "mpnet.",
    "model.",
    "albert.",
    "deberta.",
    "nomic_bert.",
    "new.",
    "0.auto_model.",
    "auto_model.",
];

/// The names of the word embeddings in any family, with `.weight`.
pub(super) const WORD_TABLES: [&str; 2] =
    ["embeddings.word_embeddings.weight", "embeddings.tok_embeddings.weight"];

/// All families that the fused graph supports; of those with one name that config.json does not rule out, the first
/// whose key of the hidden size is there counts.
pub(super) const FAMILIES: [&Family; 15] = [
    &JINA,
    &BERT,
    &ROBERTA,
    &XLM_ROBERTA,
    &CAMEMBERT,
    &DISTILBERT,
    &ELECTRA,
    &MPNET,
    &MODERNBERT,
    &ALBERT,
    &DEBERTA,
    &NOMIC,
    &NOMIC_OF_HUB,
    &GTE,
    &GTE_OF_HUB,
];

impl Family {
    /// Returns the family of a `model_type` in config.json; `holds` tells whether it has a key, and `says` whether with
    /// this value.
    pub(super) fn named(
        model_type: &str,
        holds: impl Fn(&str) -> bool,
        says: impl Fn(&str, &str) -> bool,
    ) -> Option<&'static Family> {
        let is_named = |family: &&Family| {
            family.name == model_type && family.told_by.is_none_or(|(key, value)| says(key, value))
        };
        let of_name: Vec<&'static Family> = FAMILIES.into_iter().filter(is_named).collect();
        let spelled = of_name.iter().find(|family| holds(family.keys.hidden));
        spelled.or(of_name.first()).copied()
    }

    /// Returns all family names, for an error message.
    pub(super) fn names() -> String {
        let mut names: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
        names.dedup();
        names.join(", ")
    }

    /// Whether there is a position table.
    pub(super) fn has_position_table(&self) -> bool {
        self.positions != Positions::NoTable
    }

    /// Whether attention knows nothing of positions, as the graph without padding presumes.
    pub(super) fn has_plain_attention(&self) -> bool {
        self.layer.attention == Attention::Plain
    }

    /// Whether attention is put together from parts, and not one operator with at most a bias of its scores.
    pub(super) fn has_attention_of_parts(&self) -> bool {
        matches!(self.layer.attention, Attention::Rotary(_) | Attention::Disentangled)
    }
}

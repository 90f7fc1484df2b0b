//! A folder with a model.onnx: identifies its inputs and the outputs that hold the states of each layer.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use frostbert_cache::wording::counted;

use super::{
    attention_positions::{BlockInput, Disentangled},
    config::{ConfigFile, MOST_LAYERS, MOST_SIZE, ModelConfig},
    family::Positions,
    onnx_file::{Element, OnnxFile, Port},
    onnx_hash::HashedFiles,
    relative_bias::RelativeBias,
    token_positions::TokenPositions,
};
use crate::{encoder::onnx_file::refuse, error::Result};

/// The fingerprint's name and version for a graph that is a file; the file itself is hashed with the weights.
pub(super) const PROFILE: &str = "onnx-file-1";

/// Where model.onnx may be in its folder; the first one found is used.
pub(super) const PLACES: [&str; 2] = ["model.onnx", "onnx/model.onnx"];

/// Families without a fused graph that, like RoBERTa, count positions on from the padding token.
const AFTER_PADDING: [&str; 8] = [
    "roberta",
    "xlm-roberta",
    "xlm-roberta-xl",
    "camembert",
    "mpnet",
    "longformer",
    "data2vec-text",
    "roberta-prelayernorm",
];

const EXPORT_AGAIN: &str = "export the bare encoder with inputs input_ids, attention_mask, token_type_ids and position_ids (the last two \
                            only if it needs them) and the output last_hidden_state, or hidden_states.0, hidden_states.1 ... for every layer";

/// An encoder that runs the graph in its file.
pub(super) struct OnnxModel {
    /// The path of model.onnx.
    pub(super) path: PathBuf,
    /// The inputs of the session.
    pub(super) inputs: Vec<SessionInput>,
    /// The name of the output that holds the states of each absolute layer.
    pub(super) outputs: BTreeMap<usize, String>,
    /// What the folder says about the model's shape.
    pub(super) config: ModelConfig,
    /// The files of the model and their hash.
    pub(super) hashed: HashedFiles,
    /// The positions of tokens, for a model with an input for them.
    pub(super) positions: TokenPositions,
    /// Whether the model has a single token type; if so, it is fed 0 whatever the tokenizer returns.
    pub(super) one_token_type: bool,
    /// Whether states depend on the rest of the batch, so that each text must be run alone.
    pub(super) alone: bool,
    /// The number of values in its weights.
    pub(super) parameters: u64,
}

/// An input of a session.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SessionInput {
    pub(super) role: Role,
    pub(super) name: String,
    /// Whether the input is i64 instead of i32.
    pub(super) wide: bool,
}

/// What an input is fed with; each is `[batch, sequence]`, except those by distance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    TokenIds,
    TokenTypes,
    Mask,
    Positions,
    /// `[sequence, sequence]`, only of our own graph: the indices of this bias.
    Distances(&'static RelativeBias),
    /// The same shape, only of our own graph: whether keys are outside a window of so many tokens on each side.
    Window(usize),
    /// The same shape, only of our own graph: the rows of the table of distances.
    Buckets(Disentangled),
    /// The same shape, only of our own graph: the distance of each key from each query.
    Lengths,
    /// Only of our own graph: how texts are cut where tokens see a window of so many tokens on each side.
    Blocks(BlockInput, usize),
}

impl Role {
    /// Whether the input is `[sequence, sequence]`, the same for all texts of a batch.
    pub(super) fn is_by_distance(&self) -> bool {
        matches!(self, Role::Distances(_) | Role::Window(_) | Role::Buckets(_) | Role::Lengths)
    }
}

/// Returns the path of the folder's model.onnx, if it has one.
pub(super) fn find(folder: &Path) -> Option<PathBuf> {
    let mut paths = PLACES.iter().map(|place| folder.join(place));
    paths.find(|path| path.is_file())
}

impl OnnxModel {
    /// Determines how to run a model.onnx. `config` is config.json, if there is one; `vocabulary` is the tokenizer's
    /// size, used if the config gives none.
    ///
    /// # Errors
    /// Returns an error if an input or output cannot be identified by name, type and shape, or if nothing gives the
    /// width of a state.
    pub(super) fn open(
        path: PathBuf,
        file: &OnnxFile,
        hashed: HashedFiles,
        config: Option<&ConfigFile>,
        vocabulary: usize,
    ) -> Result<OnnxModel> {
        let number = |keys: &[&str]| {
            config.and_then(|config| keys.iter().find_map(|key| config.number(key)))
        };
        let inputs = find_inputs(&path, &file.inputs)?;
        let known = number(&["hidden_size", "dim", "d_model", "n_embd"]);
        let (numbered, last, hidden) = find_outputs(&path, &file.outputs, known)?;
        let layers = number(&["num_hidden_layers", "n_layers", "n_layer", "num_layers"])
            .or_else(|| numbered.keys().next_back().copied())
            .unwrap_or(1)
            .max(1);
        if layers > MOST_LAYERS || !(1..=MOST_SIZE).contains(&hidden) {
            return Err(refuse(
                &path,
                format!("at most {MOST_LAYERS} layers of 1 to {MOST_SIZE} values per token"),
                format!("{layers} layers of {hidden}"),
                EXPORT_AGAIN,
            ));
        }
        let mut outputs = numbered;
        if let Some(name) = last {
            outputs.entry(layers).or_insert(name);
        }
        if let Some(layer) = outputs.keys().find(|layer| **layer > layers) {
            return Err(refuse(
                &path,
                format!("states of layers up to {layers}, as config.json says"),
                format!("an output `{}`", outputs[layer]),
                "name a folder whose config.json belongs to its model.onnx",
            ));
        }
        let model_type = config.map(ConfigFile::model_type);
        let positions_of_tokens = match (config, model_type) {
            (Some(config), Some(family)) if AFTER_PADDING.contains(&family) => {
                TokenPositions::after_padding(config.first_position(Positions::AfterPadding) - 1)
            }
            _ => TokenPositions::FROM_ZERO,
        };
        let positions = number(&["max_position_embeddings", "n_positions"]);
        Ok(OnnxModel {
            config: ModelConfig {
                family: model_type.unwrap_or("onnx").into(),
                layers,
                hidden,
                vocabulary: number(&["vocab_size"]).unwrap_or(vocabulary),
                max_tokens: positions
                    .map(|positions| positions.saturating_sub(positions_of_tokens.first as usize)),
                attention_heads: number(&["num_attention_heads", "n_heads", "n_head"]),
                intermediate: number(&["intermediate_size", "hidden_dim"]),
            },
            path,
            inputs,
            outputs,
            hashed,
            positions: positions_of_tokens,
            one_token_type: number(&["type_vocab_size"]) == Some(1),
            alone: file.dynamically_quantised || takes_one_text(&file.inputs),
            parameters: file.parameters,
        })
    }

    /// Returns the outputs of these layers.
    ///
    /// # Errors
    /// Returns an error if the file has no output for one of them.
    pub(super) fn outputs_of(&self, layers: &[usize]) -> Result<Vec<(usize, String)>> {
        let output = |layer: &usize| {
            let name = self.outputs.get(layer).ok_or_else(|| {
                let has: Vec<String> = self.outputs.keys().map(usize::to_string).collect();
                refuse(
                    &self.path,
                    format!("an output with the states of layer {layer}"),
                    format!("outputs for layer {} of {} only", has.join(", "), self.config.layers),
                    "ask for one of those layers in cache.layers and head.layers, or export the model with all hidden states as outputs \
                     (hidden_states.0, hidden_states.1 ...)",
                )
            })?;
            Ok((*layer, name.clone()))
        };
        layers.iter().map(output).collect()
    }
}

/// Returns the part of a name that carries its meaning: `/model/Input_IDs:0` becomes `input_ids`.
fn plain_name(name: &str) -> String {
    let name = name.rsplit('/').next().unwrap_or(name);
    let name = name.split(':').next().unwrap_or(name);
    name.to_lowercase().replace(['.', '-'], "_")
}

fn role(name: &str) -> Option<Role> {
    let name = plain_name(name);
    let has = |words: &[&str]| words.iter().any(|word| name.contains(word));
    // The order matters: `token_type_ids` and `position_ids` are ids too, and an `input_mask` is an input.
    if has(&["mask"]) {
        Some(Role::Mask)
    } else if has(&["position"]) {
        Some(Role::Positions)
    } else if has(&["type", "segment"]) {
        Some(Role::TokenTypes)
    } else if has(&["ids", "token"]) {
        Some(Role::TokenIds)
    } else {
        None
    }
}

fn find_inputs(path: &Path, ports: &[Port]) -> Result<Vec<SessionInput>> {
    let mut inputs: Vec<SessionInput> = Vec::new();
    for port in ports {
        let role = role(&port.name).filter(|role| inputs.iter().all(|input| input.role != *role));
        let two_sizes = port.shape.as_ref().is_none_or(|shape| shape.len() == 2);
        if let (Some(_), true, Some(size)) = (&role, two_sizes, fixed_size(port)) {
            return Err(refuse(
                path,
                "inputs of any number of tokens, and of any number of texts or of one".into(),
                format!("{}, which takes only {size}", port.describe()),
                "export the model again with dynamic axes: batch and sequence (torch.onnx.export: dynamic_axes={\"input_ids\": \
                 {0: \"batch\", 1: \"sequence\"}, ...} for every input and output; optimum does it by itself)",
            ));
        }
        let wide = match port.element {
            Element::I32 => Some(false),
            Element::I64 => Some(true),
            _ => None,
        };
        let (Some(role), true, Some(wide)) = (role, two_sizes, wide) else {
            return Err(refuse(
                path,
                "inputs input_ids, attention_mask, token_type_ids or position_ids, each i32 or i64 with two \
                 dimensions, batch and sequence"
                    .into(),
                format!("{} among {}", port.describe(), list(ports)),
                EXPORT_AGAIN,
            ));
        };
        inputs.push(SessionInput { role, name: port.name.clone(), wide });
    }
    for (role, name) in [(Role::TokenIds, "input_ids"), (Role::Mask, "attention_mask")] {
        if inputs.iter().all(|input| input.role != role) {
            return Err(refuse(
                path,
                format!("an input {name}"),
                format!("the inputs {}", list(ports)),
                EXPORT_AGAIN,
            ));
        }
    }
    Ok(inputs)
}

/// Describes the dimension that a 2-D input fixes, if that keeps it from running on any text: a number of texts other
/// than one, or of tokens.
fn fixed_size(port: &Port) -> Option<String> {
    let [texts, tokens] = port.shape.as_ref()?[..] else {
        return None;
    };
    match (texts, tokens) {
        (_, Some(tokens)) => Some(format!("texts of {}", counted(tokens, "token"))),
        (Some(texts), None) if texts != 1 => Some(counted(texts, "text")),
        _ => None,
    }
}

/// Returns whether an input accepts one text at a time only.
fn takes_one_text(ports: &[Port]) -> bool {
    let mut texts = ports.iter().filter_map(|port| port.shape.as_ref()?.first().copied());
    texts.any(|texts| texts == Some(1))
}

/// Parses the number in `hidden_states.3`, `hidden_states_3` or `layer_3`.
fn layer_number(name: &str) -> Option<usize> {
    let name = plain_name(name);
    let rest = ["hidden_states_", "hidden_state_", "layer_"]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))?;
    rest.parse().ok()
}

/// The outputs that name their layer, by layer; the output of the last layer, if that one does not; and their width.
type Outputs = (BTreeMap<usize, String>, Option<String>, usize);

fn find_outputs(path: &Path, ports: &[Port], hidden: Option<usize>) -> Result<Outputs> {
    let width = |port: &Port| port.shape.as_ref().and_then(|shape| shape[2]);
    // A dynamic width may be the right one.
    let fits = |port: &&Port| {
        let three_sizes = port.shape.as_ref().is_some_and(|shape| shape.len() == 3);
        matches!(port.element, Element::F32 | Element::F16)
            && three_sizes
            && width(port).is_none_or(|size| hidden.is_none_or(|hidden| size == hidden))
    };
    let states: Vec<&Port> = ports.iter().filter(fits).collect();
    let of_width = hidden.map_or(String::new(), |hidden| format!(" (hidden_size is {hidden})"));
    let expected = format!(
        "an output with three dimensions, batch, sequence and hidden, of f32 or f16{of_width}"
    );
    let (numbered, others): (Vec<&Port>, Vec<&Port>) =
        states.iter().partition(|port| layer_number(&port.name).is_some());
    let named_last = |port: &&&Port| plain_name(&port.name) == "last_hidden_state";
    let last = match (others.iter().find(named_last), &others[..]) {
        (Some(port), _) => Some(*port),
        (None, [only]) if numbered.is_empty() => Some(*only),
        // If other outputs name their layers, one that does not could be anything.
        (None, _) if !numbered.is_empty() => None,
        (None, []) => {
            return Err(refuse(
                path,
                expected,
                format!("the outputs {}", list(ports)),
                EXPORT_AGAIN,
            ));
        }
        (None, _) => {
            let several = others.into_iter().cloned().collect::<Vec<Port>>();
            return Err(refuse(
                path,
                "one output with three dimensions, or one named last_hidden_state".into(),
                format!("the outputs {}", list(&several)),
                EXPORT_AGAIN,
            ));
        }
    };
    let all = numbered.iter().chain(last.iter());
    let mut widths: Vec<usize> = all.filter_map(|port| width(port)).chain(hidden).collect();
    widths.sort_unstable();
    widths.dedup();
    let &[hidden] = &widths[..] else {
        return Err(refuse(
            path,
            "states of one known size".into(),
            format!("the outputs {}", list(ports)),
            "put the model's config.json with hidden_size and num_hidden_layers beside model.onnx",
        ));
    };
    let numbered =
        numbered.iter().filter_map(|port| Some((layer_number(&port.name)?, port.name.clone())));
    Ok((numbered.collect(), last.map(|port| port.name.clone()), hidden))
}

fn list(ports: &[Port]) -> String {
    let ports: Vec<String> = ports.iter().map(Port::describe).collect();
    if ports.is_empty() { "none at all".into() } else { ports.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, element: Element, shape: &[usize]) -> Port {
        let size = |size: &usize| Some(*size).filter(|size| *size > 0);
        Port { name: name.into(), element, shape: Some(shape.iter().map(size).collect()) }
    }

    #[test]
    fn inputs_are_known_by_odd_names_too() {
        for (name, expected) in [
            ("input_ids", Role::TokenIds),
            ("/bert/Input.IDs:0", Role::TokenIds),
            ("tokens", Role::TokenIds),
            ("attention_mask", Role::Mask),
            ("input_mask:0", Role::Mask),
            ("token_type_ids", Role::TokenTypes),
            ("segment_ids", Role::TokenTypes),
            ("position_ids", Role::Positions),
        ] {
            assert_eq!(role(name), Some(expected), "{name}");
        }
        assert_eq!(role("pixel_values"), None);
    }

    #[test]
    fn what_is_missing_or_strange_is_named_with_all_that_is_there() {
        let ids = port("input_ids", Element::I64, &[0, 0]);
        let path = Path::new("model.onnx");
        let message = |ports: &[Port]| find_inputs(path, ports).unwrap_err().to_string();
        let alone = message(std::slice::from_ref(&ids));
        assert!(
            alone.contains("attention_mask") && alone.contains("`input_ids` i64 [?, ?]"),
            "{alone}"
        );
        let image = message(&[ids, port("pixel_values", Element::F32, &[0, 3, 8, 8])]);
        assert!(image.contains("`pixel_values` f32 [?, 3, 8, 8]"), "{image}");
    }

    #[test]
    fn inputs_of_fixed_sizes_are_refused_with_the_way_to_export_them_free() {
        let path = Path::new("model.onnx");
        let inputs = |shape: &[usize]| {
            ["input_ids", "attention_mask"].map(|name| port(name, Element::I64, shape))
        };
        for (shape, words) in [
            (&[1, 16][..], "`input_ids` i64 [1, 16], which takes only texts of 16 tokens"),
            (&[0, 16], "texts of 16 tokens"),
            (&[8, 0], "`input_ids` i64 [8, ?], which takes only 8 texts"),
        ] {
            let error = find_inputs(path, &inputs(shape)).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
            assert!(error.hint().unwrap().contains("dynamic axes"));
        }
        // A model that takes one text at a time is run text by text.
        assert!(find_inputs(path, &inputs(&[1, 0])).is_ok());
        assert!(takes_one_text(&inputs(&[1, 0])) && !takes_one_text(&inputs(&[0, 0])));
    }

    #[test]
    fn layers_are_chosen_among_outputs_that_say_their_number() {
        let path = Path::new("model.onnx");
        let states = |name: &str, width: usize| port(name, Element::F32, &[0, 0, width]);
        let all = [
            states("logits", 30),
            states("hidden_states.0", 8),
            states("hidden_states.1", 0),
            states("last_hidden_state", 8),
            port("pooler_output", Element::F32, &[0, 8]),
        ];
        let (numbered, last, hidden) = find_outputs(path, &all, Some(8)).unwrap();
        assert_eq!(numbered.into_keys().collect::<Vec<_>>(), [0, 1]);
        assert_eq!((last.as_deref(), hidden), (Some("last_hidden_state"), 8));

        let odd = [states("onnx::Shape_422", 8), port("461", Element::F32, &[0, 0])];
        let (numbered, last, hidden) = find_outputs(path, &odd, None).unwrap();
        assert_eq!((numbered.len(), last.as_deref(), hidden), (0, Some("onnx::Shape_422"), 8));

        for (ports, hidden, words) in [
            (&odd[1..], None, "`461` f32 [?, ?]"),
            (&[states("a", 8), states("b", 8)][..], None, "last_hidden_state"),
            (&[states("a", 0)][..], None, "one known size"),
            (&[states("a", 8)][..], Some(16), "hidden_size is 16"),
        ] {
            let message = find_outputs(path, ports, hidden).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
    }
}

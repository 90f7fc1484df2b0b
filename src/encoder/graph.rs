//! Builds a checkpoint of a supported family as a fused ONNX Runtime graph in memory.
//!
//! Each layer uses ONNX Runtime's contrib operators (domain `com.microsoft`), which otherwise only an optimiser pass in
//! Python inserts:
//!
//! ```text
//! x0 = EmbedLayerNormalization(input_ids, token_type_ids, word, position, type, gamma, beta)
//!      (ELECTRA, where embeddings are narrower than states: x0 = MatMul(., Wp) + bp)
//! a  = Attention(x, Wqkv [H,3H], bqkv [3H], attention_mask [B,S])
//! y  = SkipLayerNormalization(MatMul(a, Wo), x, gamma, beta, bo)
//! x' = SkipLayerNormalization(MatMul(BiasGelu(MatMul(y, Wi), bi), Wd), y, gamma, beta, bd)
//! ```
//!
//! On a CPU in f32, each `SkipLayerNormalization` is two `Add` and a `LayerNormalization`, which is faster there.
//!
//! MPNet's attention also takes a bias of its scores, `[1, heads, S, S]`, from [`attention_bias`]. In families whose
//! attention itself knows positions, it is made of the parts in [`attention_parts`]. [`layer`] puts a layer together
//! from the parts that its family names.
//!
//! A checkpoint stores linear weights as `[out, in]`; they are transposed once, here. `BiasGelu` is the exact erf form.
//! This graph uses padding; [`packed`] is the one without padding, for CUDA. [`exported`] writes the same graph to a file,
//! and [`ordinary`] are its parts in operators of ONNX itself.

pub(super) mod attention_bias;

mod attention_parts;

mod convolution;

mod layer;

pub(super) mod packed;

pub(crate) mod exported;

pub(super) mod int8;

mod key_column;

mod ordinary;

mod session_graph;

mod weights;

mod window_blocks;

use std::collections::HashMap;

use frostbert_cache::fingerprint::Digest;
use ort::{
    editor::{Model, ONNX_DOMAIN, Opset},
    value::{Outlet, Shape, SymbolicDimensions, TensorElementType, ValueType},
};

use crate::{
    encoder::{
        checkpoint::{self, Checkpoint, FusedModel},
        config::FusedShape,
        device::Precision,
        graph::session_graph::SessionGraph,
        graph_target::{CONTRIB_DOMAIN, GraphTarget, NodeAttribute, TensorValues, attribute},
        onnx_model::{self, Role, SessionInput},
        ort_error::encoder_error,
        token_positions::TokenPositions,
    },
    error::Result,
};

/// The name and version of this graph. Part of the fingerprint, because another graph differs in the last bits.
pub(super) const PROFILE: &str = "bert-fused-2";

/// The optimiser of ONNX Runtime that would join additions and normalisations into `SkipLayerNormalization`; the padded
/// f32 graph is loaded without it.
pub(super) const JOINS_NORMS: &str = "SkipLayerNormFusion";

/// The inputs of every graph, each i32 `[batch, sequence]`.
const INPUTS: [(Role, &str); 3] = [
    (Role::TokenIds, "input_ids"),
    (Role::TokenTypes, "token_type_ids"),
    (Role::Mask, "attention_mask"),
];

/// Rows of the position table, for the families in which they are an input.
const POSITION_IDS: &str = "position_ids";

pub(super) const POSITIONS: &str = "embeddings.position_embeddings.weight";

pub(super) const TOKEN_TYPES: &str = "embeddings.token_type_embeddings.weight";

/// Returns the name of the graph output that holds the states of an absolute layer, `[batch, sequence, hidden]`.
pub(super) fn output_name(layer: usize) -> String {
    format!("layer_{layer}")
}

/// Returns the graph inputs for a shape, including rows of the position table unless they simply count up from 0, and
/// distances between tokens if the family has a bias for them. `for_cpu` is as for [`build`].
pub(super) fn inputs(shape: &FusedShape, for_cpu: bool) -> Vec<SessionInput> {
    let positions = shape.padding_token.map(|_| (Role::Positions, POSITION_IDS));
    let distances = match attention_bias::role(shape) {
        Some(Role::Window(window)) if for_cpu => window_blocks::inputs(window),
        role => role.into_iter().map(|role| (role, attention_bias::DISTANCES)).collect(),
    };
    let inputs = INPUTS.into_iter().filter(|(role, _)| {
        // `EmbedLayerNormalization` takes the input even if there is no table.
        *role != Role::TokenTypes || shape.token_types > 1 || shape.family.has_position_table()
    });
    let inputs = inputs.chain(positions).chain(distances);
    inputs.map(|(role, name)| SessionInput { role, name: name.into(), wide: false }).collect()
}

/// Returns how tokens map to rows of the graph's position table.
pub(super) fn token_positions(shape: &FusedShape) -> TokenPositions {
    match shape.padding_token {
        Some(token) => TokenPositions::after_padding(token).in_table_from(first_table_row(shape)),
        None => TokenPositions::FROM_ZERO,
    }
}

/// Returns the first row of the checkpoint's position table that the graph's table contains.
fn first_table_row(shape: &FusedShape) -> usize {
    shape.padding_token.unwrap_or(shape.first_position)
}

/// Builds the model, ending at the highest of `layers` (absolute; 0 = embeddings), each of which is an output.
///
/// With `half`, the weights and the outputs are f16 (CUDA only: ONNX Runtime has no such kernels for a CPU). With
/// `for_cpu`, attention to rotary positions takes memory by the length of a text: [`window_blocks`], [`key_column`].
///
/// # Errors
/// Returns an error if the checkpoint lacks a tensor or has one of another shape, or if ONNX Runtime rejects the graph.
///
/// # Panics
/// Panics if `layers` is empty or names a layer that the checkpoint does not have; the caller checks that.
pub(super) fn build(
    source: &FusedModel,
    layers: &[usize],
    half: bool,
    for_cpu: bool,
) -> Result<Model> {
    let highest = highest(source, layers);
    let mut builder = GraphBuilder::new(source, half)?;
    builder.for_cpu = for_cpu;
    builder.adds_apart = !half;
    builder.embeddings()?;
    builder.attention_constants()?;
    for layer in 0..highest {
        builder.layer(layer)?;
    }
    builder.finish_padded(layers)
}

/// Returns the layer at which a graph ends.
fn highest(source: &FusedModel, layers: &[usize]) -> usize {
    let highest = layers.iter().max();
    let highest = *highest.expect("at least one layer is asked for");
    assert!(highest <= source.shape.layers, "layer {highest} of {}", source.shape.layers);
    highest
}

struct GraphBuilder<'a, T: GraphTarget = SessionGraph> {
    source: &'a FusedModel,
    shape: &'a FusedShape,
    graph: T,
    half: bool,
    /// Whether only operators of ONNX itself are used.
    is_ordinary: bool,
    /// What is put before the names of the inputs.
    prefix: &'static str,
    /// Whether sums are computed by operators of their own before they are normalised.
    adds_apart: bool,
    /// Whether attention to rotary positions is built for a CPU.
    for_cpu: bool,
    /// The weights by their content and the names that stand for them, where layers share weights.
    shared: HashMap<Digest, String>,
    aliases: HashMap<String, String>,
    /// Tensors that stand in place of the checkpoint's.
    trained: Option<&'a HashMap<String, Vec<f32>>>,
}

impl<'a> GraphBuilder<'a> {
    fn new(source: &'a FusedModel, half: bool) -> Result<GraphBuilder<'a>> {
        Ok(GraphBuilder::of(source, SessionGraph::new()?, half))
    }
}

impl<'a, T: GraphTarget> GraphBuilder<'a, T> {
    fn of(source: &'a FusedModel, graph: T, half: bool) -> GraphBuilder<'a, T> {
        GraphBuilder {
            source,
            shape: &source.shape,
            graph,
            half,
            is_ordinary: false,
            adds_apart: false,
            for_cpu: false,
            prefix: "",
            shared: HashMap::new(),
            aliases: HashMap::new(),
            trained: None,
        }
    }
}

impl<T: GraphTarget> GraphBuilder<'_, T> {
    /// Returns the name of an input that holds token ids, token types or the mask.
    fn input(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn embeddings(&mut self) -> Result<()> {
        if self.is_ordinary || !self.shape.family.has_position_table() {
            return self.embeddings_apart();
        }
        self.embedding_tables()?;
        let output = self.normed_embeddings();
        let words = self.words();
        let norm = self.shape.family.embeddings.norm;
        let [gamma, beta] = ["weight", "bias"].map(|part| format!("{norm}.{part}"));
        let [ids, types] = ["input_ids", "token_type_ids"].map(|name| self.input(name));
        let mut inputs = vec![&ids[..], &types, &words, POSITIONS, TOKEN_TYPES, &gamma, &beta];
        if self.shape.padding_token.is_some() {
            // The mask input before them stays empty, because attention has its own.
            inputs.extend(["", POSITION_IDS]);
        }
        self.node(
            "EmbedLayerNormalization",
            CONTRIB_DOMAIN,
            &inputs,
            &[&output, "embeddings.mask_index"],
            vec![attribute("epsilon", self.shape.layer_norm_epsilon)],
        )?;
        self.project_embeddings()
    }

    /// Adds the tables that `EmbedLayerNormalization` sums, and the weights of its norm.
    fn embedding_tables(&mut self) -> Result<()> {
        let width = self.shape.embedding;
        self.weight(&self.words(), &[self.shape.vocabulary, width])?;
        if self.shape.family.has_position_table() {
            self.positions()?;
            self.token_types()?;
        } else if self.shape.token_types > 0 {
            self.weight(TOKEN_TYPES, &[self.shape.token_types, width])?;
        }
        self.norm(self.shape.family.embeddings.norm, width)?;
        Ok(())
    }

    /// Returns the name of the word embeddings.
    fn words(&self) -> String {
        format!("{}.weight", self.shape.family.embeddings.words)
    }

    /// Returns the name of the embeddings after their norm, which is layer 0 unless they are still to be projected.
    fn normed_embeddings(&self) -> String {
        if self.shape.projects_embeddings() { "embeddings.normed".into() } else { output_name(0) }
    }

    /// Computes layer 0 from embeddings of another width, if the model has them.
    fn project_embeddings(&mut self) -> Result<()> {
        let (width, hidden) = (self.shape.embedding, self.shape.hidden);
        if !self.shape.projects_embeddings() {
            return Ok(());
        }
        let name = self.shape.family.embeddings.projection;
        self.linear(name, width, hidden)?;
        let projected = "embeddings.projected";
        self.matmul(&self.normed_embeddings(), &format!("{name}.weight"), projected)?;
        self.node(
            "Add",
            ONNX_DOMAIN,
            &[projected, &format!("{name}.bias")],
            &[&output_name(0)],
            vec![],
        )
    }

    /// Adds the used rows of the position table only, so that the operator may count from 0 when positions are not an
    /// input.
    fn positions(&mut self) -> Result<()> {
        let (rows, first, width) =
            (self.shape.positions, first_table_row(self.shape), self.shape.embedding);
        let table = self.source.weights.tensor(POSITIONS, &[rows, width])?;
        self.initializer(POSITIONS, &[rows - first, width], &table[first * width..])
    }

    /// Adds the token type table. A family without one gets a single row of zeros, because the operator requires a
    /// table whenever it is given type ids.
    fn token_types(&mut self) -> Result<()> {
        let (rows, width) = (self.shape.token_types, self.shape.embedding);
        match rows {
            0 => self.initializer(TOKEN_TYPES, &[1, width], &vec![0.0; width]),
            _ => self.weight(TOKEN_TYPES, &[rows, width]),
        }
    }

    fn num_heads(&self) -> NodeAttribute {
        attribute("num_heads", self.shape.attention_heads as i64)
    }

    /// Returns the attribute of a cast to the type of the states: its number in ONNX.
    fn to_float(&self) -> Vec<NodeAttribute> {
        let (float, half) = (1i64, 10);
        vec![attribute("to", if self.half { half } else { float })]
    }

    fn node(
        &mut self,
        operator: &str,
        domain: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: Vec<NodeAttribute>,
    ) -> Result<()> {
        let named = inputs.iter().map(|name| self.aliases.get(*name).map_or(*name, |own| &own[..]));
        let named: Vec<&str> = named.collect();
        self.graph.add_node(operator, domain, &named, outputs, &attributes)
    }
}

impl GraphBuilder<'_> {
    /// Finishes the graph with inputs and outputs for batches of padded rows.
    fn finish_padded(self, layers: &[usize]) -> Result<Model> {
        let rows = [(-1, "batch"), (-1, "sequence")];
        let inputs = inputs(self.shape, self.for_cpu).into_iter().map(|input| {
            let sizes = match input.role {
                Role::Blocks(part, _) => window_blocks::sizes(part).map(|size| (-1, size)),
                role if role.is_by_distance() => [rows[1]; 2],
                _ => rows,
            };
            tensor_outlet(&input.name, TensorElementType::Int32, &sizes)
        });
        self.finish(inputs, layers, &rows)
    }

    /// Finishes the graph; `rows` is the shape of the outputs without the last dimension, the hidden size.
    fn finish(
        mut self,
        inputs: impl IntoIterator<Item = Outlet>,
        layers: &[usize],
        rows: &[(i64, &str)],
    ) -> Result<Model> {
        let action = "build the graph";
        let float = if self.half { TensorElementType::Float16 } else { TensorElementType::Float32 };
        let shape = [rows, &[(self.shape.hidden as i64, "")]].concat();
        let outputs = layers.iter().map(|layer| tensor_outlet(&output_name(*layer), float, &shape));
        self.graph.0.set_inputs(inputs).map_err(encoder_error(action))?;
        self.graph.0.set_outputs(outputs).map_err(encoder_error(action))?;

        let opset = |domain, version| Opset::new(domain, version).map_err(encoder_error(action));
        let mut model = Model::new([opset(ONNX_DOMAIN, 17)?, opset(CONTRIB_DOMAIN, 1)?])
            .map_err(encoder_error(action))?;
        model.set_graph(self.graph.0).map_err(encoder_error(action))?;
        Ok(model)
    }
}

/// Returns the attribute that names an axis.
fn axis(number: i64) -> Vec<NodeAttribute> {
    vec![attribute("axis", number)]
}

/// Describes an input or output. A size of -1 is dynamic; dynamic sizes of the same name are equal.
fn tensor_outlet(name: &str, ty: TensorElementType, shape: &[(i64, &str)]) -> Outlet {
    let dimension_symbols =
        SymbolicDimensions::new(shape.iter().map(|(_, symbol)| (*symbol).to_string()));
    let shape = Shape::new(shape.iter().map(|(size, _)| *size));
    Outlet::new(name, ValueType::Tensor { ty, shape, dimension_symbols })
}

impl Checkpoint {
    /// Returns the name and version of the graph that runs the checkpoint on a provider (`cpu` or `cuda`) in a
    /// precision. Part of the fingerprint, because another graph differs in the last bits.
    pub fn graph_profile(&self, provider: &str, precision: Precision) -> String {
        let model = match &self.model {
            checkpoint::Model::Fused(model) => model,
            checkpoint::Model::Onnx(_) => return onnx_model::PROFILE.into(),
        };
        let profile = match (provider, precision) {
            ("cuda", _) if model.shape.family.has_plain_attention() => packed::PROFILE,
            (_, Precision::Int8) => int8::PROFILE,
            _ => PROFILE,
        };
        let mut profile = profile.to_string();
        if model.shape.family.relative_bias.is_some() {
            profile.push_str("-relative-1");
        }
        if !model.shape.family.graph.is_empty() {
            profile.push('-');
            profile.push_str(model.shape.family.graph);
        }
        if model.shape.convolution.is_some() {
            profile.push_str("-convolution-1");
        }
        if model.shape.padding_token.is_some() {
            // Positions are counted as in the family even if a text contains the padding token.
            profile.push_str("-padding-1");
        }
        profile
    }
}

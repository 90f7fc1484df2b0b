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
//! MPNet's attention also takes a bias of its scores, `[1, heads, S, S]`, from [`attention_bias`].
//!
//! A checkpoint stores linear weights as `[out, in]`; they are transposed once, here. `BiasGelu` is the exact erf form.
//! This graph uses padding; [`packed`] is the one without padding, for CUDA. [`exported`] writes the same graph to a file,
//! and [`ordinary`] are its parts in operators of ONNX itself.

pub(super) mod attention_bias;

pub(super) mod packed;

pub(crate) mod exported;

pub(super) mod int8;

mod ordinary;

mod session_graph;

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

pub(super) const WORDS: &str = "embeddings.word_embeddings.weight";

pub(super) const POSITIONS: &str = "embeddings.position_embeddings.weight";

pub(super) const TOKEN_TYPES: &str = "embeddings.token_type_embeddings.weight";

/// Returns the name of the graph output that holds the states of an absolute layer, `[batch, sequence, hidden]`.
pub(super) fn output_name(layer: usize) -> String {
    format!("layer_{layer}")
}

/// Returns the graph inputs for a shape, including rows of the position table unless they simply count up from 0, and
/// distances between tokens if the family has a bias for them.
pub(super) fn inputs(shape: &FusedShape) -> Vec<SessionInput> {
    let positions = shape.padding_token.map(|_| (Role::Positions, POSITION_IDS));
    let distances =
        shape.family.relative_bias.map(|bias| (Role::Distances(bias), attention_bias::DISTANCES));
    let inputs = INPUTS.into_iter().chain(positions).chain(distances);
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
/// With `half`, the weights and the outputs are f16 (CUDA only: ONNX Runtime has no such kernels for a CPU).
///
/// # Errors
/// Returns an error if the checkpoint lacks a tensor or has one of another shape, or if ONNX Runtime rejects the graph.
///
/// # Panics
/// Panics if `layers` is empty or names a layer that the checkpoint does not have; the caller checks that.
pub(super) fn build(source: &FusedModel, layers: &[usize], half: bool) -> Result<Model> {
    let highest = highest(source, layers);
    let mut builder = GraphBuilder::new(source, half)?;
    builder.adds_apart = !half;
    builder.embeddings()?;
    builder.relative_bias()?;
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
}

impl<'a> GraphBuilder<'a> {
    fn new(source: &'a FusedModel, half: bool) -> Result<GraphBuilder<'a>> {
        let graph = SessionGraph::new()?;
        Ok(GraphBuilder {
            source,
            shape: &source.shape,
            graph,
            half,
            is_ordinary: false,
            adds_apart: false,
            prefix: "",
        })
    }
}

impl<T: GraphTarget> GraphBuilder<'_, T> {
    /// Returns the name of an input that holds token ids, token types or the mask.
    fn input(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn embeddings(&mut self) -> Result<()> {
        if self.is_ordinary {
            return self.ordinary_embeddings();
        }
        self.embedding_tables()?;
        let output = self.normed_embeddings();
        let [ids, types] = ["input_ids", "token_type_ids"].map(|name| self.input(name));
        let mut inputs = vec![
            &ids[..],
            &types,
            WORDS,
            POSITIONS,
            TOKEN_TYPES,
            "embeddings.LayerNorm.weight",
            "embeddings.LayerNorm.bias",
        ];
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
        self.weight(WORDS, &[self.shape.vocabulary, width])?;
        self.positions()?;
        self.token_types()?;
        self.weight("embeddings.LayerNorm.weight", &[width])?;
        self.weight("embeddings.LayerNorm.bias", &[width])
    }

    /// Returns the name of the embeddings after their norm, which is layer 0 unless they are still to be projected.
    fn normed_embeddings(&self) -> String {
        if self.shape.embedding == self.shape.hidden {
            output_name(0)
        } else {
            "embeddings.normed".into()
        }
    }

    /// Computes layer 0 from embeddings of another width, if the model has them.
    fn project_embeddings(&mut self) -> Result<()> {
        let (width, hidden) = (self.shape.embedding, self.shape.hidden);
        if width == hidden {
            return Ok(());
        }
        self.linear("embeddings_project", width, hidden)?;
        self.matmul(
            &self.normed_embeddings(),
            "embeddings_project.weight",
            "embeddings.projected",
        )?;
        self.node(
            "Add",
            ONNX_DOMAIN,
            &["embeddings.projected", "embeddings_project.bias"],
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

    fn layer(&mut self, layer: usize) -> Result<()> {
        let tensors = self.shape.family.tensors;
        let at = |name: &str| format!("{}.{layer}.{name}", tensors.layers);
        let hidden = self.shape.hidden;
        if self.is_ordinary {
            self.ordinary_attention(layer)?;
            self.linear(&at(tensors.attention_output), hidden, hidden)?;
            return self.after_attention(layer);
        }
        self.query_key_value(layer)?;
        let (input, weight, bias) = (output_name(layer), at("qkv.weight"), at("qkv.bias"));
        let mask = self.input("attention_mask");
        let mut inputs = vec![&input[..], &weight, &bias, &mask];
        if let Some(scores) = attention_bias::scores(self.shape) {
            // The input before it holds states of earlier tokens, which an encoder does not have.
            inputs.extend(["", scores]);
        }
        self.node(
            "Attention",
            CONTRIB_DOMAIN,
            &inputs,
            &[&at("attention")],
            vec![self.num_heads()],
        )?;
        self.linear(&at(tensors.attention_output), hidden, hidden)?;
        self.after_attention(layer)
    }

    fn num_heads(&self) -> NodeAttribute {
        attribute("num_heads", self.shape.attention_heads as i64)
    }

    /// Adds the rest of a layer, given the output of its attention and the weights of the dense layer after it.
    fn after_attention(&mut self, layer: usize) -> Result<()> {
        let shape = self.shape;
        let (hidden, intermediate) = (shape.hidden, shape.intermediate);
        let tensors = shape.family.tensors;
        let at = |name: &str| format!("{}.{layer}.{name}", tensors.layers);
        let weight = |name: &str| at(&format!("{name}.weight"));
        let bias = |name: &str| at(&format!("{name}.bias"));
        let (input, output) = (output_name(layer), output_name(layer + 1));

        self.matmul(&at("attention"), &weight(tensors.attention_output), &at("attended"))?;
        self.skip_layer_norm(
            &[&at("attended"), &input],
            &bias(tensors.attention_output),
            &at(tensors.attention_norm),
            &at("attention_normed"),
        )?;

        self.linear(&at(tensors.widen), hidden, intermediate)?;
        self.matmul(&at("attention_normed"), &weight(tensors.widen), &at("widened"))?;
        self.bias_gelu(&at("widened"), &bias(tensors.widen), &at("activated"))?;
        self.linear(&at(tensors.narrow), intermediate, hidden)?;
        self.matmul(&at("activated"), &weight(tensors.narrow), &at("narrowed"))?;
        self.skip_layer_norm(
            &[&at("narrowed"), &at("attention_normed")],
            &bias(tensors.narrow),
            &at(tensors.output_norm),
            &output,
        )
    }

    /// Adds `Wqkv [H, 3H]` and `bqkv [3H]`: the three projections side by side, transposed.
    fn query_key_value(&mut self, layer: usize) -> Result<()> {
        let hidden = self.shape.hidden;
        let tensors = self.shape.family.tensors;
        let at = |name: &str| format!("{}.{layer}.{name}", tensors.layers);
        let mut weight = vec![0.0f32; hidden * 3 * hidden];
        let mut bias = Vec::with_capacity(3 * hidden);
        for (part, name) in tensors.projections.into_iter().enumerate() {
            let name = at(name);
            let projection =
                self.source.weights.tensor(&format!("{name}.weight"), &[hidden, hidden])?;
            for (out, row) in projection.chunks_exact(hidden).enumerate() {
                for (input, value) in row.iter().enumerate() {
                    weight[input * 3 * hidden + part * hidden + out] = *value;
                }
            }
            bias.extend(self.source.weights.tensor(&format!("{name}.bias"), &[hidden])?);
        }
        self.initializer(&at("qkv.weight"), &[hidden, 3 * hidden], &weight)?;
        self.initializer(&at("qkv.bias"), &[3 * hidden], &bias)
    }

    /// Adds the weight of a linear layer as `[in, out]` (it is `[out, in]` in the checkpoint), and its bias.
    fn linear(&mut self, name: &str, inputs: usize, outputs: usize) -> Result<()> {
        let weight = self.transposed(name, inputs, outputs)?;
        self.initializer(&format!("{name}.weight"), &[inputs, outputs], &weight)?;
        self.weight(&format!("{name}.bias"), &[outputs])
    }

    /// Returns the weight of a linear layer as `[in, out]`.
    fn transposed(&self, name: &str, inputs: usize, outputs: usize) -> Result<Vec<f32>> {
        let stored = self.source.weights.tensor(&format!("{name}.weight"), &[outputs, inputs])?;
        let mut transposed = vec![0.0f32; stored.len()];
        for (out, row) in stored.chunks_exact(inputs).enumerate() {
            for (input, value) in row.iter().enumerate() {
                transposed[input * outputs + out] = *value;
            }
        }
        Ok(transposed)
    }

    fn matmul(&mut self, input: &str, weight: &str, output: &str) -> Result<()> {
        self.node("MatMul", ONNX_DOMAIN, &[input, weight], &[output], vec![])
    }

    /// Adds `Gelu(input + bias)`.
    fn bias_gelu(&mut self, input: &str, bias: &str, output: &str) -> Result<()> {
        if self.is_ordinary {
            return self.ordinary_bias_gelu(input, bias, output);
        }
        self.node("BiasGelu", CONTRIB_DOMAIN, &[input, bias], &[output], vec![])
    }

    /// Adds `LayerNorm(branch + skip + bias)`.
    fn skip_layer_norm(
        &mut self,
        summands: &[&str; 2],
        bias: &str,
        norm: &str,
        output: &str,
    ) -> Result<()> {
        let hidden = self.shape.hidden;
        let (gamma, beta) = (format!("{norm}.weight"), format!("{norm}.bias"));
        self.weight(&gamma, &[hidden])?;
        self.weight(&beta, &[hidden])?;
        if self.is_ordinary || self.adds_apart {
            return self.ordinary_skip_layer_norm(summands, bias, &[&gamma, &beta], output);
        }
        self.node(
            "SkipLayerNormalization",
            CONTRIB_DOMAIN,
            &[summands[0], summands[1], &gamma, &beta, bias],
            &[output],
            vec![attribute("epsilon", self.shape.layer_norm_epsilon)],
        )
    }

    /// Adds a tensor of the checkpoint unchanged.
    fn weight(&mut self, name: &str, shape: &[usize]) -> Result<()> {
        let values = self.source.weights.tensor(name, shape)?;
        self.initializer(name, shape, &values)
    }

    fn initializer(&mut self, name: &str, shape: &[usize], values: &[f32]) -> Result<()> {
        let values = if self.half { TensorValues::Half(values) } else { TensorValues::F32(values) };
        self.graph.add_tensor(name, shape, values)
    }

    fn node(
        &mut self,
        operator: &str,
        domain: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: Vec<NodeAttribute>,
    ) -> Result<()> {
        self.graph.add_node(operator, domain, inputs, outputs, &attributes)
    }
}

impl GraphBuilder<'_> {
    /// Finishes the graph with inputs and outputs for batches of padded rows.
    fn finish_padded(self, layers: &[usize]) -> Result<Model> {
        let rows = [(-1, "batch"), (-1, "sequence")];
        let inputs = inputs(self.shape).into_iter().map(|input| {
            let sizes = match input.role {
                Role::Distances(_) => [rows[1]; 2],
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
            ("cuda", _) => packed::PROFILE,
            (_, Precision::Int8) => int8::PROFILE,
            _ => PROFILE,
        };
        let mut profile = profile.to_string();
        if model.shape.family.relative_bias.is_some() {
            profile.push_str("-relative-1");
        }
        if model.shape.padding_token.is_some() {
            // Positions are counted as in the family even if a text contains the padding token.
            profile.push_str("-padding-1");
        }
        profile
    }
}

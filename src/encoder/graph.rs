//! A BERT checkpoint as a fused ONNX Runtime graph, built in memory.
//!
//! Per layer, in ONNX Runtime's contrib operators (domain `com.microsoft`), which it otherwise gets only from an
//! optimiser pass in Python:
//!
//! ```text
//! x0 = EmbedLayerNormalization(input_ids, token_type_ids, word, position, type, gamma, beta)
//! a  = Attention(x, Wqkv [H,3H], bqkv [3H], attention_mask [B,S])
//! y  = SkipLayerNormalization(MatMul(a, Wo), x, gamma, beta, bo)
//! x' = SkipLayerNormalization(MatMul(BiasGelu(MatMul(y, Wi), bi), Wd), y, gamma, beta, bd)
//! ```
//!
//! Linear weights lie as `[out, in]` in a checkpoint and are transposed once, here. `BiasGelu` is the exact erf form.

use half::f16;
use ort::{
    editor::{Graph, Model, Node, ONNX_DOMAIN, Opset},
    memory::Allocator,
    operator::Attribute,
    value::{Outlet, Shape, SymbolicDimensions, Tensor, TensorElementType, ValueType},
};

use super::{checkpoint::Checkpoint, session::encoder_error};
use crate::error::Result;

/// The name and version of this graph; part of the fingerprint, because another graph gives other last bits.
pub(super) const PROFILE: &str = "bert-fused-1";

/// The graph inputs, each i32 `[batch, sequence]`.
pub(super) const INPUTS: [&str; 3] = ["input_ids", "token_type_ids", "attention_mask"];

const CONTRIB_DOMAIN: &str = "com.microsoft";

/// ONNX Runtime takes larger tensors over as they are, and wants smaller ones copied into the model.
const SMALL_TENSOR_BYTES: usize = 127;

/// The name of the graph output that holds the states of an absolute layer, `[batch, sequence, hidden]`.
pub(super) fn output_name(layer: usize) -> String {
    format!("layer_{layer}")
}

/// Builds the model, ending at the highest of `layers` (absolute; 0 = embeddings), each of which is an output.
///
/// With `half` the weights and the outputs are f16 (CUDA only: ONNX Runtime has no such kernels for a CPU).
///
/// # Errors
/// When the checkpoint lacks a tensor or has one of another shape, or ONNX Runtime refuses the graph.
///
/// # Panics
/// When `layers` is empty or names a layer that the checkpoint has not: the caller checks that.
pub(super) fn build(checkpoint: &Checkpoint, layers: &[usize], half: bool) -> Result<Model> {
    let config = &checkpoint.config;
    let highest = *layers
        .iter()
        .max()
        .expect("at least one layer is asked for");
    assert!(
        highest <= config.layers,
        "layer {highest} of {}",
        config.layers
    );

    let mut builder = GraphBuilder::new(checkpoint, half)?;
    builder.embeddings()?;
    for layer in 0..highest {
        builder.layer(layer)?;
    }
    builder.finish(layers)
}

struct GraphBuilder<'a> {
    checkpoint: &'a Checkpoint,
    graph: Graph,
    half: bool,
}

impl<'a> GraphBuilder<'a> {
    fn new(checkpoint: &'a Checkpoint, half: bool) -> Result<GraphBuilder<'a>> {
        let graph = Graph::new().map_err(encoder_error("create a graph"))?;
        Ok(GraphBuilder {
            checkpoint,
            graph,
            half,
        })
    }

    fn embeddings(&mut self) -> Result<()> {
        let config = self.checkpoint.config.clone();
        let hidden = config.hidden;
        self.weight(
            "embeddings.word_embeddings.weight",
            &[config.vocabulary, hidden],
        )?;
        self.weight(
            "embeddings.position_embeddings.weight",
            &[config.max_positions, hidden],
        )?;
        self.weight(
            "embeddings.token_type_embeddings.weight",
            &[config.type_vocabulary, hidden],
        )?;
        self.weight("embeddings.LayerNorm.weight", &[hidden])?;
        self.weight("embeddings.LayerNorm.bias", &[hidden])?;
        self.node(
            "EmbedLayerNormalization",
            CONTRIB_DOMAIN,
            &[
                "input_ids",
                "token_type_ids",
                "embeddings.word_embeddings.weight",
                "embeddings.position_embeddings.weight",
                "embeddings.token_type_embeddings.weight",
                "embeddings.LayerNorm.weight",
                "embeddings.LayerNorm.bias",
            ],
            &[&output_name(0), "embeddings.mask_index"],
            vec![float_attribute("epsilon", config.layer_norm_epsilon)?],
        )
    }

    fn layer(&mut self, layer: usize) -> Result<()> {
        let config = self.checkpoint.config.clone();
        let (hidden, intermediate) = (config.hidden, config.intermediate);
        let at = |name: &str| format!("encoder.layer.{layer}.{name}");
        let (input, output) = (output_name(layer), output_name(layer + 1));

        self.query_key_value(layer)?;
        self.node(
            "Attention",
            CONTRIB_DOMAIN,
            &[&input, &at("qkv.weight"), &at("qkv.bias"), "attention_mask"],
            &[&at("attention")],
            vec![
                Attribute::new("num_heads", config.attention_heads as i64)
                    .map_err(encoder_error("set num_heads"))?,
            ],
        )?;

        self.linear(&at("attention.output.dense"), hidden, hidden)?;
        self.matmul(
            &at("attention"),
            &at("attention.output.dense.weight"),
            &at("attended"),
        )?;
        self.skip_layer_norm(
            &[&at("attended"), &input],
            &at("attention.output"),
            &at("attention_normed"),
        )?;

        self.linear(&at("intermediate.dense"), hidden, intermediate)?;
        self.matmul(
            &at("attention_normed"),
            &at("intermediate.dense.weight"),
            &at("widened"),
        )?;
        self.node(
            "BiasGelu",
            CONTRIB_DOMAIN,
            &[&at("widened"), &at("intermediate.dense.bias")],
            &[&at("activated")],
            vec![],
        )?;
        self.linear(&at("output.dense"), intermediate, hidden)?;
        self.matmul(
            &at("activated"),
            &at("output.dense.weight"),
            &at("narrowed"),
        )?;
        self.skip_layer_norm(
            &[&at("narrowed"), &at("attention_normed")],
            &at("output"),
            &output,
        )
    }

    /// `Wqkv [H, 3H]` and `bqkv [3H]`: the three projections side by side, transposed.
    fn query_key_value(&mut self, layer: usize) -> Result<()> {
        let hidden = self.checkpoint.config.hidden;
        let mut weight = vec![0.0f32; hidden * 3 * hidden];
        let mut bias = Vec::with_capacity(3 * hidden);
        for (part, name) in ["query", "key", "value"].into_iter().enumerate() {
            let name = format!("encoder.layer.{layer}.attention.self.{name}");
            let projection = self
                .checkpoint
                .tensor(&format!("{name}.weight"), &[hidden, hidden])?;
            for (out, row) in projection.chunks_exact(hidden).enumerate() {
                for (input, value) in row.iter().enumerate() {
                    weight[input * 3 * hidden + part * hidden + out] = *value;
                }
            }
            bias.extend(self.checkpoint.tensor(&format!("{name}.bias"), &[hidden])?);
        }
        self.initializer(
            &format!("encoder.layer.{layer}.qkv.weight"),
            &[hidden, 3 * hidden],
            &weight,
        )?;
        self.initializer(
            &format!("encoder.layer.{layer}.qkv.bias"),
            &[3 * hidden],
            &bias,
        )
    }

    /// The weight of a linear layer, `[out, in]` in the checkpoint, as `[in, out]`, and its bias.
    fn linear(&mut self, name: &str, inputs: usize, outputs: usize) -> Result<()> {
        let stored = self
            .checkpoint
            .tensor(&format!("{name}.weight"), &[outputs, inputs])?;
        let mut transposed = vec![0.0f32; stored.len()];
        for (out, row) in stored.chunks_exact(inputs).enumerate() {
            for (input, value) in row.iter().enumerate() {
                transposed[input * outputs + out] = *value;
            }
        }
        self.initializer(&format!("{name}.weight"), &[inputs, outputs], &transposed)?;
        self.weight(&format!("{name}.bias"), &[outputs])
    }

    fn matmul(&mut self, input: &str, weight: &str, output: &str) -> Result<()> {
        self.node("MatMul", ONNX_DOMAIN, &[input, weight], &[output], vec![])
    }

    /// `LayerNorm(branch + skip + bias)`, with the LayerNorm and the dense bias under `block`.
    fn skip_layer_norm(&mut self, summands: &[&str; 2], block: &str, output: &str) -> Result<()> {
        let hidden = self.checkpoint.config.hidden;
        let epsilon = self.checkpoint.config.layer_norm_epsilon;
        let (gamma, beta) = (
            format!("{block}.LayerNorm.weight"),
            format!("{block}.LayerNorm.bias"),
        );
        self.weight(&gamma, &[hidden])?;
        self.weight(&beta, &[hidden])?;
        self.node(
            "SkipLayerNormalization",
            CONTRIB_DOMAIN,
            &[
                summands[0],
                summands[1],
                &gamma,
                &beta,
                &format!("{block}.dense.bias"),
            ],
            &[output],
            vec![float_attribute("epsilon", epsilon)?],
        )
    }

    /// A tensor of the checkpoint as it lies there.
    fn weight(&mut self, name: &str, shape: &[usize]) -> Result<()> {
        let values = self.checkpoint.tensor(name, shape)?;
        self.initializer(name, shape, &values)
    }

    fn initializer(&mut self, name: &str, shape: &[usize], values: &[f32]) -> Result<()> {
        let action = "hold the weights";
        let allocator = Allocator::default();
        let bytes = values.len() * if self.half { 2 } else { 4 };
        let external = bytes > SMALL_TENSOR_BYTES;
        let shape: Vec<i64> = shape.iter().map(|size| *size as i64).collect();
        if self.half {
            let mut tensor =
                Tensor::<f16>::new(&allocator, shape).map_err(encoder_error(action))?;
            for (target, value) in tensor.extract_tensor_mut().1.iter_mut().zip(values) {
                *target = f16::from_f32(*value);
            }
            self.graph
                .add_initializer(name, tensor, external)
                .map_err(encoder_error(action))
        } else {
            let mut tensor =
                Tensor::<f32>::new(&allocator, shape).map_err(encoder_error(action))?;
            tensor.extract_tensor_mut().1.copy_from_slice(values);
            self.graph
                .add_initializer(name, tensor, external)
                .map_err(encoder_error(action))
        }
    }

    fn node(
        &mut self,
        operator: &str,
        domain: &str,
        inputs: &[&str],
        outputs: &[&str],
        attributes: Vec<Attribute>,
    ) -> Result<()> {
        // An operator is named after its first output, which is unique in the graph.
        let node = Node::new(operator, domain, outputs[0], inputs, outputs, attributes)
            .map_err(encoder_error("create an operator"))?;
        self.graph
            .add_node(node)
            .map_err(encoder_error("add an operator"))
    }

    fn finish(mut self, layers: &[usize]) -> Result<Model> {
        let action = "build the graph";
        let float = if self.half {
            TensorElementType::Float16
        } else {
            TensorElementType::Float32
        };
        let hidden = self.checkpoint.config.hidden as i64;
        let inputs = INPUTS.map(|name| tensor_outlet(name, TensorElementType::Int32, &[-1, -1]));
        self.graph
            .set_inputs(inputs)
            .map_err(encoder_error(action))?;
        let outputs: Vec<Outlet> = layers
            .iter()
            .map(|layer| tensor_outlet(&output_name(*layer), float, &[-1, -1, hidden]))
            .collect();
        self.graph
            .set_outputs(outputs)
            .map_err(encoder_error(action))?;

        let opset = |domain, version| Opset::new(domain, version).map_err(encoder_error(action));
        let mut model = Model::new([opset(ONNX_DOMAIN, 17)?, opset(CONTRIB_DOMAIN, 1)?])
            .map_err(encoder_error(action))?;
        model.set_graph(self.graph).map_err(encoder_error(action))?;
        Ok(model)
    }
}

fn tensor_outlet(name: &str, ty: TensorElementType, shape: &[i64]) -> Outlet {
    let symbols = ["batch", "sequence", "hidden"];
    let dimension_symbols =
        SymbolicDimensions::new(shape.iter().zip(symbols).map(|(size, symbol)| {
            if *size < 0 {
                symbol.to_string()
            } else {
                String::new()
            }
        }));
    let shape = Shape::new(shape.iter().copied());
    Outlet::new(
        name,
        ValueType::Tensor {
            ty,
            shape,
            dimension_symbols,
        },
    )
}

fn float_attribute(name: &str, value: f32) -> Result<Attribute> {
    Attribute::new(name, value).map_err(encoder_error("set an attribute"))
}

//! A head in ONNX: its transform and its network, on rows of states.

use std::collections::HashMap;

use crate::{
    error::Result,
    export::graph_ops::GraphOps,
    head::{
        layers::{LAYER_NORM, activation::Activation},
        saved::Head,
        transform::Transform,
    },
};

/// What is added to the score of a row that does not count.
const MASKED: f32 = -1e9;

/// Adds a head to a graph and returns the name of its outputs.
///
/// `rows` is `[..., n_inputs]` with `rank` axes. A head that pools rows takes `[batch, rows, n_inputs]` and `mask`, f32
/// `[batch, rows]` with 1 for the rows that count, and returns `[batch, outputs]`.
pub(super) fn add_head(
    ops: &mut GraphOps,
    head: &Head,
    rows: &str,
    rank: usize,
    mask: Option<&str>,
) -> Result<String> {
    let (network, parameters) = head.network();
    let spec = network.spec();
    let named: HashMap<String, Vec<f32>> = network
        .named_tensors(parameters)
        .into_iter()
        .map(|(name, _, values)| (name, values))
        .collect();
    let tensor = |name: &str| &named[name][..];
    let mut rows = transformed(ops, &head.transform, rows)?;
    if let Some(shares) = network.layer_profile(parameters) {
        let mut shape = vec![0i64; rank - 1];
        shape.extend([spec.n_layers as i64, spec.n_features as i64]);
        let shape = ops.numbers(&shape)?;
        let by_layer = ops.apply("Reshape", &[&rows, &shape])?;
        let shares = ops.graph.constant(&[spec.n_layers, 1], &shares[..])?;
        let weighted = ops.apply("Mul", &[&by_layer, &shares])?;
        rows = ops.sum(&weighted, -2, false)?;
    }
    if let (true, Some(mask)) = (spec.attention, mask) {
        let query = ops.graph.constant(&[spec.n_features, 1], tensor("attention.query"))?;
        let scores = ops.apply("MatMul", &[&rows, &query])?;
        let one = ops.scalar(1.0)?;
        let left_out = ops.apply("Sub", &[&one, mask])?;
        let penalty = ops.scaled(&left_out, MASKED)?;
        let penalty = ops.unsqueeze(&penalty, &[2])?;
        let scores = ops.apply("Add", &[&scores, &penalty])?;
        let shares = ops.softmax(&scores, 1)?;
        let weighted = ops.apply("Mul", &[&rows, &shares])?;
        rows = ops.sum(&weighted, 1, false)?;
    }
    let activation = match spec.activation {
        Activation::Relu => "relu",
        Activation::Gelu => "gelu",
        Activation::Tanh => "tanh",
    };
    let mut n_inputs = spec.n_read();
    for (number, width) in spec.hidden.iter().copied().enumerate() {
        let at = |name: &str| format!("hidden.{number}.{name}");
        let bias = Some(tensor(&at("bias")));
        let mut units = ops.linear(&rows, tensor(&at("weight")), width, bias)?;
        if spec.layer_norm {
            let (gain, bias) = (tensor(&at("norm.weight")), tensor(&at("norm.bias")));
            units = ops.layer_norm(&units, gain, bias, LAYER_NORM.epsilon as f32)?;
        }
        let mut output = ops.activation(activation, &units)?;
        if spec.skip {
            let skipped = if n_inputs == width {
                rows.clone()
            } else {
                ops.linear(&rows, tensor(&at("skip.weight")), width, None)?
            };
            output = ops.apply("Add", &[&output, &skipped])?;
        }
        rows = output;
        n_inputs = width;
    }
    ops.linear(&rows, tensor("weight"), spec.n_outputs, Some(tensor("bias")))
}

fn transformed(ops: &mut GraphOps, transform: &Transform, rows: &str) -> Result<String> {
    if transform.is_identity() {
        return Ok(rows.to_string());
    }
    let mean = ops.vector(&transform.scaler.mean.to_vec())?;
    let inverse: Vec<f32> = transform.scaler.deviation.iter().map(|one| 1.0 / one).collect();
    let inverse = ops.vector(&inverse)?;
    let centred = ops.apply("Sub", &[rows, &mean])?;
    let scaled = ops.apply("Mul", &[&centred, &inverse])?;
    let Some(projection) = &transform.projection else {
        return Ok(scaled);
    };
    let mean = ops.vector(&projection.mean.to_vec())?;
    let centred = ops.apply("Sub", &[&scaled, &mean])?;
    let (n_features, n_components) = projection.components.dim();
    let components: Vec<f32> = projection.components.iter().copied().collect();
    let components = ops.graph.constant(&[n_features, n_components], &components[..])?;
    ops.apply("MatMul", &[&centred, &components])
}

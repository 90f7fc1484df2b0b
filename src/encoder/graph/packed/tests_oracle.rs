//! The packed graph with its attention written out in ordinary ONNX operators, so that a CPU can run it: it computes
//! what `PackedMultiHeadAttention` is documented to do, from the same inputs.
//!
//! ```text
//! padded = ScatterND(zeros [B S, H], token_offset[..T], x)       for query, key, value
//! p      = Softmax(Q K' / sqrt(D) + bias, keys from cu_seqlens[b + 1] - cu_seqlens[b] on left out)
//! output = Gather(p V, token_offset[..T])
//! ```

use ort::{editor::Model, editor::ONNX_DOMAIN};

use super::{
    CU_SEQLENS, FusedModel, GraphBuilder, PackedAttention, TOKEN_OFFSET, attention_bias,
    build_with, shape_initializer,
};
use crate::{
    encoder::graph_target::{NodeAttribute, attribute},
    error::Result,
};

/// Builds the model as [`super::build`] does, for a CPU.
pub(in crate::encoder) fn build(
    source: &FusedModel,
    layers: &[usize],
    half: bool,
) -> Result<Model> {
    build_with(source, layers, half, attention)
}

/// Adds operators whose names start with that of the layer's attention.
struct Sketch<'a, 'b> {
    builder: &'a mut GraphBuilder<'b>,
    prefix: &'a str,
}

impl Sketch<'_, '_> {
    fn add(&mut self, operator: &str, inputs: &[&str], output: &str) -> String {
        self.add_with(operator, inputs, output, vec![])
    }

    fn add_with(
        &mut self,
        operator: &str,
        inputs: &[&str],
        output: &str,
        attributes: Vec<NodeAttribute>,
    ) -> String {
        let output = format!("{}.{output}", self.prefix);
        let added = self.builder.node(operator, ONNX_DOMAIN, inputs, &[&output], attributes);
        added.unwrap();
        output
    }

    fn sizes(&mut self, name: &str, sizes: &[i64]) -> String {
        let name = format!("{}.{name}", self.prefix);
        shape_initializer(self.builder, &name, sizes).unwrap();
        name
    }

    fn number(&mut self, name: &str, value: f32) -> String {
        let name = format!("{}.{name}", self.prefix);
        self.builder.initializer(&name, &[1], &[value]).unwrap();
        name
    }
}

fn numbers(name: &'static str, values: &[i64]) -> NodeAttribute {
    attribute(name, values.to_vec())
}

fn number(name: &'static str, value: i64) -> NodeAttribute {
    attribute(name, value)
}

fn attention(builder: &mut GraphBuilder<'_>, named: &PackedAttention) -> Result<()> {
    let (hidden, heads) = (builder.shape.hidden, builder.shape.attention_heads);
    let (half, bias) = (builder.half, attention_bias::scores(builder.shape));
    let prefix = format!("{}.oracle", named.output);
    let mut sketch = Sketch { builder, prefix: &prefix };
    let zero = sketch.sizes("zero", &[0]);
    let one = sketch.sizes("one", &[1]);
    let minus_one = sketch.sizes("minus_one", &[-1]);
    let width = sketch.sizes("width", &[hidden as i64]);
    let rows = sketch.sizes("rows", &[-1, hidden as i64]);
    let head_sizes = sketch.sizes("head_sizes", &[heads as i64, (hidden / heads) as i64]);

    // The indices of the T real tokens in the padded batch of B x S.
    let flat = sketch.add("Reshape", &[TOKEN_OFFSET, &minus_one], "flat");
    let places = sketch.add("Shape", &[&flat], "places");
    let flat = sketch.add_with("Cast", &[&flat], "flat_i64", vec![number("to", 7)]);
    let first = vec![number("start", 0), number("end", 1)];
    let n_tokens = sketch.add_with("Shape", &[&named.query], "n_tokens", first);
    let real = sketch.add("Slice", &[&flat, &zero, &n_tokens], "real");
    let indices = sketch.add("Unsqueeze", &[&real, &one], "indices");

    let zeros_shape =
        sketch.add_with("Concat", &[&places, &width], "zeros_shape", vec![number("axis", 0)]);
    let mut zeros = sketch.add("ConstantOfShape", &[&zeros_shape], "zeros");
    if half {
        zeros = sketch.add_with("Cast", &[&zeros], "zeros_f16", vec![number("to", 10)]);
    }
    let batch = sketch.add("Shape", &[TOKEN_OFFSET], "batch");
    let by_head =
        sketch.add_with("Concat", &[&batch, &head_sizes], "by_head", vec![number("axis", 0)]);
    let mut heads_of = |packed: &str, name: &str, permutation: &[i64]| {
        let padded =
            sketch.add("ScatterND", &[&zeros, &indices, packed], &format!("{name}.padded"));
        let split = sketch.add("Reshape", &[&padded, &by_head], &format!("{name}.split"));
        let attribute = vec![numbers("perm", permutation)];
        sketch.add_with("Transpose", &[&split], &format!("{name}.heads"), attribute)
    };
    let query = heads_of(&named.query, "query", &[0, 2, 1, 3]);
    let key = heads_of(&named.key, "key", &[0, 2, 3, 1]);
    let value = heads_of(&named.value, "value", &[0, 2, 1, 3]);

    // Mask out keys after the end of their window: [B, 1, 1, S].
    let ends = sketch.sizes("ends", &[i64::MAX]);
    let starts = sketch.add("Slice", &[CU_SEQLENS, &zero, &minus_one], "starts");
    let stops = sketch.add("Slice", &[CU_SEQLENS, &one, &ends], "stops");
    let lengths = sketch.add("Sub", &[&stops, &starts], "lengths");
    let lengths = sketch.add_with("Cast", &[&lengths], "lengths_i64", vec![number("to", 7)]);
    let column = sketch.sizes("column", &[-1, 1, 1, 1]);
    let lengths = sketch.add("Reshape", &[&lengths, &column], "length_column");
    let second = vec![number("start", 1), number("end", 2)];
    let longest = sketch.add_with("Shape", &[TOKEN_OFFSET], "longest", second);
    let [from, to, step] = [&zero, &longest, &one].map(|size| {
        let name = format!("{}.scalar", size.trim_start_matches(&prefix));
        sketch.add("Squeeze", &[size], &name)
    });
    let keys = sketch.add("Range", &[&from, &to, &step], "keys");
    let kept = sketch.add("Less", &[&keys, &lengths], "kept");

    let scores = sketch.add("MatMul", &[&query, &key], "scores");
    let scale = sketch.number("scale", 1.0 / ((hidden / heads) as f32).sqrt());
    let mut scaled = sketch.add("Mul", &[&scores, &scale], "scaled");
    if let Some(bias) = bias {
        scaled = sketch.add("Add", &[&scaled, bias], "biased");
    }
    let never = sketch.number("never", f32::NEG_INFINITY);
    let masked = sketch.add("Where", &[&kept, &scaled, &never], "masked");
    let shares = sketch.add_with("Softmax", &[&masked], "shares", vec![number("axis", -1)]);
    let attended = sketch.add("MatMul", &[&shares, &value], "attended");
    let back = vec![numbers("perm", &[0, 2, 1, 3])];
    let joined = sketch.add_with("Transpose", &[&attended], "joined", back);
    let padded = sketch.add("Reshape", &[&joined, &rows], "padded");
    builder.node(
        "Gather",
        ONNX_DOMAIN,
        &[&padded, &real],
        &[&named.output],
        vec![number("axis", 0)],
    )
}

//! The graph without padding, for CUDA: the real tokens of all windows of a batch stand in one row after the other.
//!
//! With T tokens in B windows, the longest of S tokens, everything between the embeddings and the outputs is `[T, H]`:
//! exactly the rows that are stored, and no arithmetic on padding. Per layer:
//!
//! ```text
//! x0 = Reshape(EmbedLayerNormalization(input_ids, token_type_ids, word, position, type, gamma, beta, , position_ids))
//! q  = Gemm(x, Wq, bq)    k = MatMul(x, Wk)    v = MatMul(x, Wv)
//! a  = PackedMultiHeadAttention(q, k, v, , token_offset, cu_seqlens)
//! y  = SkipLayerNormalization(MatMul(a, Wo), x, gamma, beta, bo + bv Wo)
//! x' = as in the padded graph
//! ```
//!
//! - Positions are fed: counted along the packed row, the second window would start where the first ends.
//! - Three projections, not one of `[H, 3H]` and a `CountedSentences`: at thousands of tokens each of them fills a GPU, and a split
//!   reads and writes `3 T H` values once more. Kept apart, 2-D and without a bias input they go to Flash attention as
//!   they are; with a bias input the operator first copies all three.
//! - The bias of the keys adds `q bk` to all scores of a query, which its softmax takes out again: it is left out. That of
//!   the values passes through attention, whose weights add up to 1, and is part of the bias after it.
//!
//! `PackedMultiHeadAttention` exists for CUDA alone, in f16 and f32. The contracts are those of ONNX Runtime's
//! `bert_defs.cc` and `packed_multihead_attention.cc`.

use ort::{
    editor::{Model, ONNX_DOMAIN},
    memory::Allocator,
    value::{Tensor, TensorElementType},
};

use super::{
    CONTRIB_DOMAIN, GraphBuilder, POSITIONS, TOKEN_TYPES, WORDS, float_attribute, highest,
    output_name, tensor_outlet,
};
use crate::{
    encoder::{checkpoint::FusedModel, ort_error::encoder_error},
    error::Result,
};

/// The name and version of this graph; part of the fingerprint.
pub(in crate::encoder) const PROFILE: &str = "bert-packed-1";

/// Token ids, type ids and rows of the position table, counted anew in each window, each i32 `[1, T]`.
pub(in crate::encoder) const TOKENS: [&str; 3] = ["input_ids", "token_type_ids", "position_ids"];

/// i32 `[B, S]`: where each token of the packed row would stand in the padded batch, and then where its padding would.
pub(in crate::encoder) const TOKEN_OFFSET: &str = "token_offset";

/// i32 `[B + 1]`: the first token of each window in the packed row, and T.
pub(in crate::encoder) const CU_SEQLENS: &str = "cu_seqlens";

/// What goes into a layer's attention and comes out of it, by name, each `[T, H]`.
struct PackedAttention {
    query: String,
    key: String,
    value: String,
    output: String,
}

/// Builds the model, ending at the highest of `layers` (absolute; 0 = embeddings), each of which is an output `[T, H]`.
///
/// With `half` the weights and the outputs are f16.
///
/// # Errors
/// When the checkpoint lacks a tensor or has one of another shape, or ONNX Runtime refuses the graph.
///
/// # Panics
/// When `layers` is empty or names a layer that the checkpoint has not: the caller checks that.
pub(in crate::encoder) fn build(
    source: &FusedModel,
    layers: &[usize],
    half: bool,
) -> Result<Model> {
    build_with(source, layers, half, packed_attention)
}

/// As [`build`], with what `attention` adds to the graph for each layer's attention.
fn build_with(
    source: &FusedModel,
    layers: &[usize],
    half: bool,
    attention: impl Fn(&mut GraphBuilder<'_>, &PackedAttention) -> Result<()>,
) -> Result<Model> {
    let mut builder = GraphBuilder::new(source, half)?;
    packed_embeddings(&mut builder)?;
    for layer in 0..highest(source, layers) {
        let named = projections(&mut builder, layer)?;
        attention(&mut builder, &named)?;
        attention_output(&mut builder, layer)?;
        builder.after_attention(layer)?;
    }
    let int32 =
        |name: &str, shape: &[(i64, &str)]| tensor_outlet(name, TensorElementType::Int32, shape);
    let [ids, type_ids, positions] = TOKENS.map(|name| int32(name, &[(1, ""), (-1, "tokens")]));
    let inputs = [
        ids,
        type_ids,
        positions,
        int32(TOKEN_OFFSET, &[(-1, "windows"), (-1, "longest")]),
        int32(CU_SEQLENS, &[(-1, "windows + 1")]),
    ];
    builder.finish(inputs, layers, &[(-1, "tokens")])
}

fn packed_embeddings(builder: &mut GraphBuilder<'_>) -> Result<()> {
    let [ids, type_ids, positions] = TOKENS;
    builder.embedding_tables()?;
    builder.node(
        "EmbedLayerNormalization",
        CONTRIB_DOMAIN,
        &[
            ids,
            type_ids,
            WORDS,
            POSITIONS,
            TOKEN_TYPES,
            "embeddings.LayerNorm.weight",
            "embeddings.LayerNorm.bias",
            // No mask: nothing is padded.
            "",
            positions,
        ],
        &["embeddings.row", "embeddings.mask_index"],
        vec![float_attribute("epsilon", builder.shape.layer_norm_epsilon)?],
    )?;
    let shape = "embeddings.row_shape";
    shape_initializer(builder, shape, &[-1, builder.shape.embedding as i64])?;
    let normed = builder.normed_embeddings();
    let row = "embeddings.row";
    builder.node("Reshape", ONNX_DOMAIN, &[row, shape], &[&normed], vec![])?;
    builder.project_embeddings()
}

/// The sizes that an operator takes as a tensor, i64.
fn shape_initializer(builder: &mut GraphBuilder<'_>, name: &str, sizes: &[i64]) -> Result<()> {
    let action = "hold a shape";
    let mut tensor =
        Tensor::<i64>::new(&Allocator::default(), [sizes.len()]).map_err(encoder_error(action))?;
    tensor.extract_tensor_mut().1.copy_from_slice(sizes);
    let added = builder.graph.add_initializer(name, tensor, false);
    added.map_err(encoder_error(action))
}

/// Query, key and value of a layer, `[T, H]`, of which only the query needs its bias.
fn projections(builder: &mut GraphBuilder<'_>, layer: usize) -> Result<PackedAttention> {
    let hidden = builder.shape.hidden;
    let tensors = builder.shape.family.tensors;
    let at = |name: &str| format!("{}.{layer}.{name}", tensors.layers);
    let [query, key, value] = tensors.projections.map(at);
    let named = PackedAttention {
        query: at("query"),
        key: at("key"),
        value: at("value"),
        output: at("attention"),
    };
    let input = output_name(layer);

    builder.linear(&query, hidden, hidden)?;
    let (weight, bias) = (format!("{query}.weight"), format!("{query}.bias"));
    builder.node("Gemm", ONNX_DOMAIN, &[&input, &weight, &bias], &[&named.query], vec![])?;
    for (name, output) in [(&key, &named.key), (&value, &named.value)] {
        let values = builder.transposed(name, hidden, hidden)?;
        let weight = format!("{name}.weight");
        builder.initializer(&weight, &[hidden, hidden], &values)?;
        builder.matmul(&input, &weight, output)?;
    }
    Ok(named)
}

fn packed_attention(builder: &mut GraphBuilder<'_>, named: &PackedAttention) -> Result<()> {
    builder.node(
        "PackedMultiHeadAttention",
        CONTRIB_DOMAIN,
        &[
            &named.query,
            &named.key,
            &named.value,
            // No bias: it is in the projections.
            "",
            TOKEN_OFFSET,
            CU_SEQLENS,
        ],
        &[&named.output],
        vec![builder.num_heads()?],
    )
}

/// The dense layer after attention: `Wo [H, H]` and `bo + bv Wo [H]`.
fn attention_output(builder: &mut GraphBuilder<'_>, layer: usize) -> Result<()> {
    let hidden = builder.shape.hidden;
    let tensors = builder.shape.family.tensors;
    let at = |name: &str| format!("{}.{layer}.{name}", tensors.layers);
    let output = at(tensors.attention_output);
    let [.., value] = tensors.projections.map(at);
    let tensor = |name: String| builder.source.weights.tensor(&name, &[hidden]);
    let of_values = tensor(format!("{value}.bias"))?;
    let bias = tensor(format!("{output}.bias"))?;
    let weight = builder.transposed(&output, hidden, hidden)?;

    let mut sums: Vec<f64> = bias.into_iter().map(f64::from).collect();
    for (of_value, row) in of_values.iter().zip(weight.chunks_exact(hidden)) {
        for (sum, weight) in sums.iter_mut().zip(row) {
            *sum += f64::from(*of_value) * f64::from(*weight);
        }
    }
    let sums: Vec<f32> = sums.into_iter().map(|sum| sum as f32).collect();
    builder.initializer(&format!("{output}.weight"), &[hidden, hidden], &weight)?;
    builder.initializer(&format!("{output}.bias"), &[hidden], &sums)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(in crate::encoder) mod tests_oracle;

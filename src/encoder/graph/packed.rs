//! The graph without padding, for CUDA: the real tokens of all windows of a batch form one packed row.
//!
//! With T tokens in B windows, the longest of which has S tokens, everything between the embeddings and the outputs is
//! `[T, H]`: exactly the rows that are stored, with no arithmetic on padding. Per layer:
//!
//! ```text
//! x0 = Reshape(EmbedLayerNormalization(input_ids, token_type_ids, word, position, type, gamma, beta, , position_ids))
//! q  = Gemm(x, Wq, bq)    k = MatMul(x, Wk)    v = MatMul(x, Wv)
//! a  = PackedMultiHeadAttention(q, k, v, , token_offset, cu_seqlens)
//! y  = SkipLayerNormalization(MatMul(a, Wo), x, gamma, beta, bo + bv Wo)
//! x' = as in the padded graph
//! ```
//!
//! - Positions are an input: counted along the packed row, the second window's would continue where the first window's
//!   end.
//! - There are three projections instead of one of `[H, 3H]` and a `Split`: with thousands of tokens each projection
//!   fills a GPU by itself, and a split reads and writes `3 T H` values once more. Separate 2-D projections without a
//!   bias input go to Flash attention unchanged; with a bias input the operator first copies all three.
//! - The bias of the keys is left out: it adds the same `q bk` to all scores of a query, and the softmax cancels it.
//!   The bias of the values passes through attention unchanged, because the attention weights sum to 1, so it is folded
//!   into the bias of the dense layer after it.
//!
//! A relative bias of attention is `[1, heads, S, S]`, for the tokens' places in their windows. Flash attention takes
//! none. The memory-efficient kernel does if S is a multiple of [`BIAS_ALIGNMENT`], to which S is therefore rounded up;
//! this adds no row to anything else.
//!
//! `PackedMultiHeadAttention` is available for CUDA only, in f16 and f32. ONNX Runtime specifies the operators in
//! `bert_defs.cc` and `packed_multihead_attention.cc`.

use ort::{
    editor::{Model, ONNX_DOMAIN},
    value::TensorElementType,
};

use super::{
    CONTRIB_DOMAIN, GraphBuilder, GraphTarget, POSITIONS, TOKEN_TYPES, attention_bias, attribute,
    highest, output_name, tensor_outlet,
};
use crate::{encoder::checkpoint::FusedModel, error::Result};

/// The name and version of this graph; part of the fingerprint.
pub(in crate::encoder) const PROFILE: &str = "bert-packed-1";

/// Token ids, type ids and rows of the position table (which restart in each window), each i32 `[1, T]`.
pub(in crate::encoder) const TOKENS: [&str; 3] = ["input_ids", "token_type_ids", "position_ids"];

/// i32 `[B, S]`: the index in the padded batch of each token of the packed row, followed by the indices of the padding.
pub(in crate::encoder) const TOKEN_OFFSET: &str = "token_offset";

/// i32 `[B + 1]`: the index of each window's first token in the packed row, followed by T.
pub(in crate::encoder) const CU_SEQLENS: &str = "cu_seqlens";

/// The longest window of a batch is rounded up to a multiple of this where attention has a bias: the kernel loads 16
/// bytes of it at a time and asks for 8 values of f16, or 16 of f32.
pub(in crate::encoder) const BIAS_ALIGNMENT: usize = 16;

/// The names of the inputs and the output of a layer's attention, each `[T, H]`.
struct PackedAttention {
    query: String,
    key: String,
    value: String,
    output: String,
}

/// Builds the model, ending at the highest of `layers` (absolute; 0 = embeddings), each of which is an output `[T, H]`.
///
/// With `half`, the weights and the outputs are f16.
///
/// # Errors
/// Returns an error if the checkpoint lacks a tensor or has one of another shape, or if ONNX Runtime rejects the graph.
///
/// # Panics
/// Panics if `layers` is empty or names a layer that the checkpoint does not have; the caller checks that.
pub(in crate::encoder) fn build(
    source: &FusedModel,
    layers: &[usize],
    half: bool,
) -> Result<Model> {
    build_with(source, layers, half, packed_attention)
}

/// Builds the model as [`build`] does, using `attention` to add each layer's attention to the graph.
fn build_with(
    source: &FusedModel,
    layers: &[usize],
    half: bool,
    attention: impl Fn(&mut GraphBuilder<'_>, &PackedAttention) -> Result<()>,
) -> Result<Model> {
    let mut builder = GraphBuilder::new(source, half)?;
    packed_embeddings(&mut builder)?;
    builder.relative_bias()?;
    for layer in 0..highest(source, layers) {
        let named = projections(&mut builder, layer)?;
        attention(&mut builder, &named)?;
        attention_output(&mut builder, layer)?;
        builder.after_attention(layer)?;
    }
    let int32 =
        |name: &str, shape: &[(i64, &str)]| tensor_outlet(name, TensorElementType::Int32, shape);
    let [ids, type_ids, positions] = TOKENS.map(|name| int32(name, &[(1, ""), (-1, "tokens")]));
    let longest = (-1, "longest");
    let mut inputs = vec![
        ids,
        type_ids,
        positions,
        int32(TOKEN_OFFSET, &[(-1, "windows"), longest]),
        int32(CU_SEQLENS, &[(-1, "windows + 1")]),
    ];
    if source.shape.family.relative_bias.is_some() {
        inputs.push(int32(attention_bias::DISTANCES, &[longest; 2]));
    }
    builder.finish(inputs, layers, &[(-1, "tokens")])
}

fn packed_embeddings(builder: &mut GraphBuilder<'_>) -> Result<()> {
    let [ids, type_ids, positions] = TOKENS;
    builder.embedding_tables()?;
    let words = builder.words();
    builder.node(
        "EmbedLayerNormalization",
        CONTRIB_DOMAIN,
        &[
            ids,
            type_ids,
            &words,
            POSITIONS,
            TOKEN_TYPES,
            "embeddings.LayerNorm.weight",
            "embeddings.LayerNorm.bias",
            // No mask, because nothing is padded.
            "",
            positions,
        ],
        &["embeddings.row", "embeddings.mask_index"],
        vec![attribute("epsilon", builder.shape.layer_norm_epsilon)],
    )?;
    let shape = "embeddings.row_shape";
    shape_initializer(builder, shape, &[-1, builder.shape.embedding as i64])?;
    let normed = builder.normed_embeddings();
    let row = "embeddings.row";
    builder.node("Reshape", ONNX_DOMAIN, &[row, shape], &[&normed], vec![])?;
    builder.project_embeddings()
}

/// Adds the sizes that an operator takes as an i64 tensor.
fn shape_initializer(builder: &mut GraphBuilder<'_>, name: &str, sizes: &[i64]) -> Result<()> {
    builder.graph.add_tensor(name, &[sizes.len()], sizes.into())
}

/// Adds query, key and value of a layer, `[T, H]`; only the query needs its bias.
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
    let mut inputs = vec![
        &named.query[..],
        &named.key,
        &named.value,
        // No bias, because the projections already include it.
        "",
        TOKEN_OFFSET,
        CU_SEQLENS,
    ];
    inputs.extend(attention_bias::scores(builder.shape));
    let heads = vec![builder.num_heads()];
    builder.node("PackedMultiHeadAttention", CONTRIB_DOMAIN, &inputs, &[&named.output], heads)
}

/// Adds the dense layer after attention, with `Wo [H, H]` and `bo + bv Wo [H]`.
fn attention_output(builder: &mut GraphBuilder<'_>, layer: usize) -> Result<()> {
    let hidden = builder.shape.hidden;
    let tensors = builder.shape.family.tensors;
    let at = |name: &str| format!("{}.{layer}.{name}", tensors.layers);
    let output = at(tensors.attention_output);
    let [.., value] = tensors.projections.map(at);
    let tensor = |name: String| builder.stored(&name, &[hidden]);
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

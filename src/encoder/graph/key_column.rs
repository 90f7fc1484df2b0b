//! Attention on a CPU with the mask as one more column of the keys.
//!
//! ```text
//! q = concat(q, 1), k = concat(k, c)                                     for each head; c: 0, far below 0 for padding
//! a = MultiHeadAttention(q, k, v, scale = 1 / sqrt(D))
//! ```
//!
//! Without a mask and a bias, ONNX Runtime's operator computes a tile of scores at a time, as Flash attention does.
//! With either, it holds those of all pairs, `[heads, S, S]`, and takes longer; and so it does where the system does
//! not report the size of the L2 cache (`sysconf(_SC_LEVEL2_CACHE_SIZE)`), from which it takes the size of a tile.

use ort::editor::ONNX_DOMAIN;

use super::{CONTRIB_DOMAIN, GraphBuilder, GraphTarget, attention_bias::MASKED, attribute, axis};
use crate::error::Result;

/// f32 `[B, S, heads, 1]`: the column of queries, and that of keys.
const QUERY_COLUMN: &str = "column.queries";
const KEY_COLUMN: &str = "column.keys";

/// i64: the shape of heads `[B, S, heads, D]`, and that of heads with a column side by side.
const HEADS: &str = "column.heads";
const JOINED: &str = "column.joined";

impl<T: GraphTarget> GraphBuilder<'_, T> {
    /// Adds the columns of queries and keys, which all layers read.
    pub(super) fn key_column(&mut self) -> Result<()> {
        let heads = self.shape.attention_heads;
        let width = self.shape.hidden / heads;
        // A size of 0 is that of the input.
        let head_shape = [0, 0, heads as i64, width as i64];
        self.graph.add_tensor(HEADS, &[4], head_shape[..].into())?;
        let joined = [0, 0, (heads * (width + 1)) as i64];
        self.graph.add_tensor(JOINED, &[3], joined[..].into())?;

        let mask = self.input("attention_mask");
        let (one, masked, axes) = ("column.one", "column.masked", "column.axes");
        self.initializer(one, &[], &[1.0])?;
        // The operator scales this too.
        self.initializer(masked, &[], &[-MASKED * (width as f32).sqrt()])?;
        self.graph.add_tensor(axes, &[2], [2i64, 3][..].into())?;
        let (real, padding, row) = ("column.real", "column.padding", "column.row");
        let float = self.to_float();
        self.node("Cast", ONNX_DOMAIN, &[&mask], &[real], float)?;
        self.node("Sub", ONNX_DOMAIN, &[real, one], &[padding], vec![])?;
        self.node("Mul", ONNX_DOMAIN, &[padding, masked], &[row], vec![])?;

        let (of_all_heads, sizes, each_head) =
            ("column.of_all_heads", "column.sizes", "column.each_head");
        self.graph.add_tensor(each_head, &[4], [1, 1, heads as i64, 1][..].into())?;
        self.node("Unsqueeze", ONNX_DOMAIN, &[row, axes], &[of_all_heads], vec![])?;
        self.node("Shape", ONNX_DOMAIN, &[of_all_heads], &["column.size"], vec![])?;
        self.node("Mul", ONNX_DOMAIN, &["column.size", each_head], &[sizes], vec![])?;
        self.node("Expand", ONNX_DOMAIN, &[of_all_heads, sizes], &[KEY_COLUMN], vec![])?;
        self.node("Expand", ONNX_DOMAIN, &[one, sizes], &[QUERY_COLUMN], vec![])
    }

    /// Adds the attention of a layer to whole texts, given its queries, keys and values.
    pub(super) fn attention_by_key_column(
        &mut self,
        layer: usize,
        states: &[String],
    ) -> Result<()> {
        let mut joined = Vec::new();
        for (state, column) in states.iter().zip([QUERY_COLUMN, KEY_COLUMN]) {
            let of = |what: &str| format!("{state}.{what}");
            self.node("Reshape", ONNX_DOMAIN, &[state, HEADS], &[&of("by_head")], vec![])?;
            let wider = of("with_column");
            self.node("Concat", ONNX_DOMAIN, &[&of("by_head"), column], &[&wider], axis(-1))?;
            self.node("Reshape", ONNX_DOMAIN, &[&wider, JOINED], &[&of("joined")], vec![])?;
            joined.push(of("joined"));
        }
        let width = (self.shape.hidden / self.shape.attention_heads) as f32;
        let attributes = vec![self.num_heads(), attribute("scale", 1.0 / width.sqrt())];
        let attention = format!("{}.{layer}.attention", self.shape.family.tensors.layers);
        let inputs = [&joined[0][..], &joined[1], &states[2]];
        self.node("MultiHeadAttention", CONTRIB_DOMAIN, &inputs, &[&attention], attributes)
    }
}

#[cfg(test)]
mod tests;

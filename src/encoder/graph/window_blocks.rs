//! Attention within windows, by blocks of queries that bring their keys with them.
//!
//! ```text
//! q, k, v = Gather(q, queries), Gather(k, keys), Gather(v, keys)         [B n, Q, H], [B n, K, H], [B n, K, H]
//! m       = Gather(attention_mask, keys) present                         [B n, K]
//! a       = MultiHeadAttention(q, k, v, m, window)                       window [1, 1, Q, K]
//! ```
//!
//! The `n` blocks of Q queries and K keys come with each batch (`WindowBlocks`). A batch of short texts has one block,
//! with all pairs of tokens. Rows of queries beyond a text are cut off again.

use ort::editor::ONNX_DOMAIN;

use super::{CONTRIB_DOMAIN, GraphBuilder, GraphTarget, attribute, axis};
use crate::{
    encoder::{attention_positions::BlockInput, onnx_model::Role},
    error::Result,
};

/// i32 `[n, Q]`, an input: the places of queries.
const QUERIES: &str = "window_queries";

/// i32 `[n, K]`, an input: the places of keys.
const KEYS: &str = "window_keys";

/// i32 `[n, K]`, an input: whether keys are within the text.
const PRESENT: &str = "window_present";

/// i32 `[Q, K]`, an input: whether a key is outside a query's window.
pub(super) const OUTSIDE: &str = "window_outside";

/// i32 `[B n, K]`: the mask of the keys of each block.
const MASK: &str = "window.mask";

/// i64: the shapes `[-1, Q, H]` and `[-1, K, H]` of blocks, and `[B, -1, H]` of texts.
const QUERY_SHAPE: &str = "window.query_shape";
const KEY_SHAPE: &str = "window.key_shape";
const TEXT_SHAPE: &str = "window.text_shape";

/// i64 `[1]`: the number of tokens of the longest text, the first of them, and the axis of tokens.
const LENGTH: &str = "window.length";
const START: &str = "window.start";
const AXIS: &str = "window.axis";

/// Returns the inputs of a graph that cuts texts, with their names.
pub(super) fn inputs(window: usize) -> Vec<(Role, &'static str)> {
    let named = [
        (BlockInput::Queries, QUERIES),
        (BlockInput::Keys, KEYS),
        (BlockInput::Present, PRESENT),
        (BlockInput::Outside, OUTSIDE),
    ];
    named.map(|(part, name)| (Role::Blocks(part, window), name)).to_vec()
}

/// Returns the names of the sizes of an input.
pub(super) fn sizes(part: BlockInput) -> [&'static str; 2] {
    match part {
        BlockInput::Queries => ["blocks", "block_queries"],
        BlockInput::Keys | BlockInput::Present => ["blocks", "block_keys"],
        BlockInput::Outside => ["block_queries", "block_keys"],
    }
}

impl<T: GraphTarget> GraphBuilder<'_, T> {
    /// Adds the shapes and the mask of blocks, which all layers with a window read.
    pub(super) fn block_sizes(&mut self) -> Result<()> {
        let hidden = self.shape.hidden as i64;
        let (rest, width) = ("window.rest", "window.width");
        for (name, value) in [(rest, -1), (width, hidden), (START, 0), (AXIS, 1)] {
            self.graph.add_tensor(name, &[1], [value][..].into())?;
        }
        let mask = self.input("attention_mask");
        let (queries, keys, texts) = ("window.n_queries", "window.n_keys", "window.n_texts");
        for (of, place, size) in [
            (QUERIES, 1i64, queries),
            (KEYS, 1, keys),
            (&mask[..], 0, texts),
            (&mask[..], 1, LENGTH),
        ] {
            let range = vec![attribute("start", place), attribute("end", place + 1)];
            self.node("Shape", ONNX_DOMAIN, &[of], &[size], range)?;
        }
        let mask_shape = "window.mask_shape";
        for (sizes, shape) in [
            (&[rest, queries, width][..], QUERY_SHAPE),
            (&[rest, keys, width][..], KEY_SHAPE),
            (&[texts, rest, width][..], TEXT_SHAPE),
            (&[rest, keys][..], mask_shape),
        ] {
            self.node("Concat", ONNX_DOMAIN, sizes, &[shape], axis(0))?;
        }
        let (of_keys, of_blocks) = ("window.mask_of_keys", "window.mask_of_blocks");
        self.node("Gather", ONNX_DOMAIN, &[&mask, KEYS], &[of_keys], axis(1))?;
        self.node("Mul", ONNX_DOMAIN, &[of_keys, PRESENT], &[of_blocks], vec![])?;
        self.node("Reshape", ONNX_DOMAIN, &[of_blocks, mask_shape], &[MASK], vec![])
    }

    /// Adds the attention of a layer, given its queries, keys and values, and the bias by queries and keys of a block.
    pub(super) fn attention_in_blocks(
        &mut self,
        layer: usize,
        states: &[String],
        bias: &str,
    ) -> Result<()> {
        let mut blocks = Vec::new();
        let cuts = [(QUERIES, QUERY_SHAPE), (KEYS, KEY_SHAPE), (KEYS, KEY_SHAPE)];
        for (state, (places, shape)) in states.iter().zip(cuts) {
            let (gathered, block) = (format!("{state}.gathered"), format!("{state}.blocks"));
            self.node("Gather", ONNX_DOMAIN, &[state, places], &[&gathered], axis(1))?;
            self.node("Reshape", ONNX_DOMAIN, &[&gathered, shape], &[&block], vec![])?;
            blocks.push(block);
        }
        let attention = format!("{}.{layer}.attention", self.shape.family.tensors.layers);
        let (of_blocks, joined) = (format!("{attention}.blocks"), format!("{attention}.joined"));
        let inputs = [&blocks[0][..], &blocks[1], &blocks[2], "", MASK, bias];
        let heads = vec![self.num_heads()];
        self.node("MultiHeadAttention", CONTRIB_DOMAIN, &inputs, &[&of_blocks], heads)?;
        self.node("Reshape", ONNX_DOMAIN, &[&of_blocks, TEXT_SHAPE], &[&joined], vec![])?;
        self.node("Slice", ONNX_DOMAIN, &[&joined, START, LENGTH, AXIS], &[&attention], vec![])
    }
}

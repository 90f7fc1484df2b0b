//! What attention adds to its scores: a table by distance in the graph, from which each batch takes the scores' bias.

use ort::editor::ONNX_DOMAIN;

use super::{GraphBuilder, axis, window_blocks};
use crate::{
    encoder::{
        attention_positions::alibi_slopes, config::FusedShape, family::Attention,
        graph_target::GraphTarget, onnx_model::Role,
    },
    error::Result,
};

/// i32 `[S, S]`, an input: the index of the distance of each key from each query in the table by distance; of a window,
/// whether it is outside; with ALiBi, the distance itself. It is not computed in the graph, because ONNX Runtime would
/// run that arithmetic of shapes on the CPU.
pub(in crate::encoder) const DISTANCES: &str = "relative_distances";

/// f32 `[1, heads, distances]`: the bias of each distance.
const BY_DISTANCE: &str = "relative_bias.by_distance";

/// f32 `[1, heads, S, S]`: what attention adds to the scores of every window, whatever the layer.
const SCORES: &str = "relative_bias.scores";

/// f32 `[1, heads, 1, 1]`: what a distance of 1 adds to the scores with ALiBi.
const SLOPES: &str = "alibi.slopes";

/// f32 `[S, S]`: the distances.
const LENGTHS: &str = "alibi.lengths";

/// f32 `[1, 1, S, S]`, or by queries and keys of a block: what the layers with a window add to the scores of every
/// window of a batch.
pub(super) const WINDOW: &str = "window.scores";

/// f32 `[1, 1, 2]`: the bias of a key inside and outside.
const WINDOW_SIDES: &str = "window.sides";

/// What is added to the score of a key that a query does not see. Its share is then 0 in f32, and f16 holds the sum.
pub(super) const MASKED: f32 = -3e4;

/// Returns what the input of [`DISTANCES`] is fed with, if the graph has it.
pub(super) fn role(shape: &FusedShape) -> Option<Role> {
    let relative = shape.family.relative_bias.map(Role::Distances);
    let window = shape.rotary.iter().flatten().find_map(|layer| layer.window);
    let lengths = has_alibi(shape).then_some(Role::Lengths);
    let buckets = shape.disentangled.map(Role::Buckets);
    relative.or(buckets).or(window.map(Role::Window)).or(lengths)
}

/// Returns the attention bias of a shape's family by its name in the graph, if it has one.
pub(super) fn scores(shape: &FusedShape) -> Option<&'static str> {
    (shape.family.relative_bias.is_some() || has_alibi(shape)).then_some(SCORES)
}

fn has_alibi(shape: &FusedShape) -> bool {
    shape.family.layer.attention == Attention::Alibi
}

impl<T: GraphTarget> GraphBuilder<'_, T> {
    /// Adds the attention bias of [`scores`], if the family has one.
    pub(super) fn relative_bias(&mut self) -> Result<()> {
        if has_alibi(self.shape) {
            return self.alibi();
        }
        let Some(bias) = self.shape.family.relative_bias else {
            return Ok(());
        };
        let heads = self.shape.attention_heads;
        let table = self.source.weights.tensor(bias.tensor, &[bias.buckets, heads])?;
        let rows: Vec<usize> = bias.distances().map(|distance| bias.bucket(distance)).collect();
        let by_head = (0..heads).flat_map(|head| rows.iter().map(move |row| row * heads + head));
        let values: Vec<f32> = by_head.map(|place| table[place]).collect();
        self.initializer(BY_DISTANCE, &[1, heads, rows.len()], &values)?;
        self.node("Gather", ONNX_DOMAIN, &[BY_DISTANCE, DISTANCES], &[SCORES], axis(2))
    }

    /// Adds the attention bias of [`scores`] that distances make by themselves.
    fn alibi(&mut self) -> Result<()> {
        let heads = self.shape.attention_heads;
        let slopes: Vec<f32> = alibi_slopes(heads).into_iter().map(|slope| -slope).collect();
        self.initializer(SLOPES, &[1, heads, 1, 1], &slopes)?;
        let float = self.to_float();
        self.node("Cast", ONNX_DOMAIN, &[DISTANCES], &[LENGTHS], float)?;
        self.node("Mul", ONNX_DOMAIN, &[SLOPES, LENGTHS], &[SCORES], vec![])
    }

    /// Adds the bias of [`WINDOW`], if there are layers with a window.
    pub(super) fn window_bias(&mut self) -> Result<()> {
        if self.shape.rotary.iter().flatten().all(|layer| layer.window.is_none()) {
            return Ok(());
        }
        self.initializer(WINDOW_SIDES, &[1, 1, 2], &[0.0, MASKED])?;
        let places = if self.for_cpu { window_blocks::OUTSIDE } else { DISTANCES };
        self.node("Gather", ONNX_DOMAIN, &[WINDOW_SIDES, places], &[WINDOW], axis(2))?;
        if self.for_cpu { self.block_sizes() } else { Ok(()) }
    }
}

//! The relative bias of attention: a table by distance in the graph, from which each batch takes the scores' bias.

use ort::editor::ONNX_DOMAIN;

use super::GraphBuilder;
use crate::{
    encoder::{
        config::FusedShape,
        graph_target::{GraphTarget, attribute},
    },
    error::Result,
};

/// i32 `[S, S]`, an input: the index of the distance of each key from each query in the table by distance. It is not
/// computed in the graph, because ONNX Runtime would run that arithmetic of shapes on the CPU.
pub(in crate::encoder) const DISTANCES: &str = "relative_distances";

/// f32 `[1, heads, distances]`: the bias of each distance.
const BY_DISTANCE: &str = "relative_bias.by_distance";

/// f32 `[1, heads, S, S]`: what attention adds to the scores of every window, whatever the layer.
const SCORES: &str = "relative_bias.scores";

/// Returns the attention bias of a shape's family by its name in the graph, if it has one.
pub(super) fn scores(shape: &FusedShape) -> Option<&'static str> {
    shape.family.relative_bias.map(|_| SCORES)
}

impl<T: GraphTarget> GraphBuilder<'_, T> {
    /// Adds the attention bias of [`scores`], if the family has one.
    pub(super) fn relative_bias(&mut self) -> Result<()> {
        let Some(bias) = self.shape.family.relative_bias else {
            return Ok(());
        };
        let heads = self.shape.attention_heads;
        let table = self.source.weights.tensor(bias.tensor, &[bias.buckets, heads])?;
        let rows: Vec<usize> = bias.distances().map(|distance| bias.bucket(distance)).collect();
        let by_head = (0..heads).flat_map(|head| rows.iter().map(move |row| row * heads + head));
        let values: Vec<f32> = by_head.map(|place| table[place]).collect();
        self.initializer(BY_DISTANCE, &[1, heads, rows.len()], &values)?;
        let axis = vec![attribute("axis", 2i64)];
        self.node("Gather", ONNX_DOMAIN, &[BY_DISTANCE, DISTANCES], &[SCORES], axis)
    }
}

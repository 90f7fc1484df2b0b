//! Attention of parts, in families whose attention itself knows positions.
//!
//! ```text
//! q, k, v = x Wq + bq, x Wk + bk, x Wv + bv                              (biases where the family has them)
//! rotary:        q, k = RotaryEmbedding(q, cosines, sines), RotaryEmbedding(k, cosines, sines)
//!                a    = MultiHeadAttention(q, k, v, attention_mask, window)        on a CPU as described below
//! disentangled:  c2p  = GatherElements(q (r Wk + bk)', rows)             r [2 span, H]: the states of distances
//!                p2c  = GatherElements((r Wq + bq) k', rows)             rows [S, S]: the distance of each pair
//!                a    = MultiHeadAttention(q, k, v, attention_mask, (c2p + p2c) / divisor, scale = 1 / divisor)
//! ```
//!
//! `window [1, 1, S, S]` is 0, or far below 0 for a key outside the query's window. Only layers with a window take it.
//! On a CPU, they cut long texts into blocks ([`window_blocks`](super::window_blocks)), and in the others the mask is a
//! column of the keys ([`key_column`](super::key_column)), so that neither holds the scores of all pairs of a long text.
//! What depends on weights alone, as `r Wk + bk`, ONNX Runtime computes once, when it loads the graph.

use ort::editor::ONNX_DOMAIN;

use super::{
    CONTRIB_DOMAIN, GraphBuilder, GraphTarget,
    attention_bias::{DISTANCES, WINDOW},
    attribute, axis,
    ordinary::HEAD_SHAPE,
};
use crate::{
    encoder::attention_positions::{Disentangled, RotaryLayer},
    error::Result,
};

/// i64 `[1]`: the position of the first token.
const FIRST_POSITION: &str = "rotary.first_position";

/// i64 `[S]`, in a file: the place of each token.
pub(super) const PLACES: &str = "places";

/// f32 `[2 span, H]`: the state of each distance.
const DISTANCE_STATES: &str = "distances.states";
/// The divided heads of tokens `[B, S, heads, D]`, and of distances `[2 span, heads, D]`.
const HEADS: &str = "distances.heads";
const DISTANCE_HEADS: &str = "distances.own_heads";
/// f32 scalar: what the terms of distances are multiplied by.
const SCALE: &str = "distances.scale";
/// i64 `[1]`: S.
const LENGTH: &str = "distances.length";

/// i32 `[B, heads, S, S]`: the row of the table of distances for each pair of tokens.
const ROWS: &str = "distances.rows";

const DISTANCE_TABLE: &str = "encoder.rel_embeddings";
const DISTANCE_NORM: &str = "encoder.LayerNorm";

impl<T: GraphTarget> GraphBuilder<'_, T> {
    /// Adds what the attention of all layers needs.
    pub(super) fn attention_constants(&mut self) -> Result<()> {
        self.relative_bias()?;
        self.window_bias()?;
        let shape = self.shape;
        if let Some(layers) = &shape.rotary {
            if self.for_cpu {
                self.key_column()?;
            }
            self.graph.add_tensor(FIRST_POSITION, &[1], [0i64][..].into())?;
            let width = shape.hidden / shape.attention_heads;
            for (layer, rotary) in layers.iter().enumerate() {
                if first_with_angles(layers, layer) != layer {
                    continue;
                }
                let tables = rotary.angles(shape.positions, width);
                for (name, values) in angle_tables(layer).iter().zip(tables) {
                    self.angles(name, values, width)?;
                }
            }
        }
        match shape.disentangled {
            Some(disentangled) => self.distance_states(&disentangled),
            None => Ok(()),
        }
    }

    /// Adds the cosines or sines of all angles `[positions, D / 2]`; in ordinary operators, those of the places of a
    /// text for both halves of a head, `[S, D]`.
    fn angles(&mut self, name: &str, values: Vec<f32>, width: usize) -> Result<()> {
        let positions = self.shape.positions;
        if !self.is_ordinary {
            return self.initializer(name, &[positions, width / 2], &values);
        }
        let halves = values.chunks_exact(width / 2).flat_map(|half| half.iter().chain(half));
        let table = format!("{name}.table");
        let values: Vec<f32> = halves.copied().collect();
        self.initializer(&table, &[positions, width], &values)?;
        let places = self.input(PLACES);
        self.node("Gather", ONNX_DOMAIN, &[&table, &places], &[name], axis(0))
    }

    /// Adds the states of distances and the sizes of their heads.
    fn distance_states(&mut self, disentangled: &Disentangled) -> Result<()> {
        let (hidden, heads) = (self.shape.hidden, self.shape.attention_heads);
        let width = hidden / heads;
        let rows = 2 * disentangled.span();
        let table = format!("{DISTANCE_TABLE}.weight");
        let values = self.stored(&table, &[rows, hidden])?;
        if disentangled.is_normed {
            self.initializer(&table, &[rows, hidden], &values)?;
            let norm = self.norm(DISTANCE_NORM, hidden)?;
            self.normalise(&table, &norm, DISTANCE_STATES)?;
        } else {
            self.initializer(DISTANCE_STATES, &[rows, hidden], &values)?;
        }
        let (heads, width) = (heads as i64, width as i64);
        // A size of 0 is that of the input.
        self.graph.add_tensor(HEADS, &[4], [0, 0, heads, width][..].into())?;
        self.graph.add_tensor(DISTANCE_HEADS, &[3], [-1, heads, width][..].into())?;
        self.initializer(SCALE, &[], &[1.0 / disentangled.divisor(width as usize)])?;
        let second = vec![attribute("start", 1i64), attribute("end", 2i64)];
        self.node("Shape", ONNX_DOMAIN, &[DISTANCES], &[LENGTH], second)
    }

    /// Adds a layer's attention, without the dense layer after it.
    pub(super) fn attention_of_parts(&mut self, layer: usize) -> Result<()> {
        let shape = self.shape;
        let tensors = shape.family.tensors;
        let at = |name: &str| format!("{}.{layer}.{name}", tensors.layers);
        let input = self.attention_input(layer)?;
        let names = tensors.projections.map(at);
        let mut states = Vec::new();
        for name in &names {
            self.linear(name, shape.hidden, shape.hidden)?;
            states.push(self.product(&input, name, &format!("{name}.states"))?);
        }
        if self.is_ordinary {
            return self.ordinary_attention_of_parts(layer, &states);
        }
        self.attention_of_states(layer, states)
    }

    /// Adds a layer's attention, given the names of its queries, keys and values with their biases.
    pub(super) fn attention_of_states(
        &mut self,
        layer: usize,
        mut states: Vec<String>,
    ) -> Result<()> {
        let shape = self.shape;
        let mut attributes = vec![self.num_heads()];
        let mut bias = None;
        if let Some(layers) = &shape.rotary {
            let [cosines, sines] = angle_tables(first_with_angles(layers, layer));
            for state in &mut states[..2] {
                let turned = format!("{state}.turned");
                let inputs = [&state[..], FIRST_POSITION, &cosines, &sines];
                self.node("RotaryEmbedding", CONTRIB_DOMAIN, &inputs, &[&turned], vec![])?;
                *state = turned;
            }
            bias = layers[layer].window.map(|_| WINDOW.to_string());
            match (self.for_cpu, &bias) {
                (true, Some(_)) => return self.attention_in_blocks(layer, &states, WINDOW),
                (true, None) => return self.attention_by_key_column(layer, &states),
                (false, _) => {}
            }
        }
        if let Some(disentangled) = shape.disentangled {
            bias = Some(self.scores_of_distances(layer, &states, &disentangled)?);
            let divisor = disentangled.divisor(shape.hidden / shape.attention_heads);
            attributes.push(attribute("scale", 1.0 / divisor));
        }
        let mask = self.input("attention_mask");
        // The biases of the projections, which are added already.
        let mut inputs = vec![&states[0][..], &states[1], &states[2], "", &mask];
        inputs.extend(bias.as_deref());
        let attention = format!("{}.{layer}.attention", shape.family.tensors.layers);
        self.node("MultiHeadAttention", CONTRIB_DOMAIN, &inputs, &[&attention], attributes)
    }

    /// Adds a layer's attention in ordinary operators, given its projections.
    fn ordinary_attention_of_parts(&mut self, layer: usize, states: &[String]) -> Result<()> {
        let shape = self.shape;
        let by_head = [0, 2, 1, 3];
        let value = self.heads_of(&states[2], HEAD_SHAPE, by_head)?;
        if let Some(disentangled) = shape.disentangled {
            let bias = self.scores_of_distances(layer, states, &disentangled)?;
            let [query, key] = [&states[0], &states[1]].map(|state| format!("{state}.heads"));
            return self.ordinary_attention_of_heads(layer, &[query, key, value], Some(&bias));
        }
        let mut turned = [
            self.heads_of(&states[0], HEAD_SHAPE, by_head)?,
            self.heads_of(&states[1], HEAD_SHAPE, by_head)?,
        ];
        let mut bias = None;
        if let Some(layers) = &shape.rotary {
            let angles = angle_tables(first_with_angles(layers, layer));
            for heads in &mut turned {
                *heads = self.ordinary_rotation(heads, &angles)?;
            }
            bias = layers[layer].window.map(|_| WINDOW);
        }
        let [query, key] = turned;
        let transposed = format!("{key}.transposed");
        let permutation = vec![attribute("perm", vec![0i64, 1, 3, 2])];
        self.node("Transpose", ONNX_DOMAIN, &[&key], &[&transposed], permutation)?;
        self.ordinary_attention_of_heads(layer, &[query, transposed, value], bias)
    }

    /// Adds the product of states with the weight of a linear layer, and its bias if it has one; returns its name.
    fn product(&mut self, input: &str, name: &str, output: &str) -> Result<String> {
        let weight = format!("{name}.weight");
        if !self.shape.has_bias(name) {
            self.matmul(input, &weight, output)?;
            return Ok(output.into());
        }
        let product = format!("{output}.product");
        self.matmul(input, &weight, &product)?;
        let bias = format!("{name}.bias");
        self.node("Add", ONNX_DOMAIN, &[&product, &bias], &[output], vec![])?;
        Ok(output.into())
    }

    /// Adds the part of a layer's scores that comes from distances, and returns its name: `[B, heads, S, S]`.
    fn scores_of_distances(
        &mut self,
        layer: usize,
        states: &[String],
        disentangled: &Disentangled,
    ) -> Result<String> {
        let tensors = self.shape.family.tensors;
        let at = |name: &str| format!("{}.{layer}.{name}", tensors.layers);
        let [query, key, _] = tensors.projections;
        let queries = self.heads_of(&states[0], HEADS, [0, 2, 1, 3])?;
        let keys = self.heads_of(&states[1], HEADS, [0, 2, 3, 1])?;
        if layer == 0 {
            self.rows_of_distances(&queries)?;
        }
        let mut terms = Vec::new();
        if disentangled.keys_of_distances {
            let own =
                if disentangled.shares_projections { key } else { "attention.self.pos_key_proj" };
            let of_distances = self.projected_distances(layer, own, "keys", [1, 2, 0])?;
            let scores = at("distances.by_query");
            self.matmul(&queries, &of_distances, &scores)?;
            let term = at("distances.of_queries");
            self.node("GatherElements", ONNX_DOMAIN, &[&scores, ROWS], &[&term], axis(3))?;
            terms.push(term);
        }
        if disentangled.queries_of_distances {
            let own = if disentangled.shares_projections {
                query
            } else {
                "attention.self.pos_query_proj"
            };
            let of_distances = self.projected_distances(layer, own, "queries", [1, 0, 2])?;
            let scores = at("distances.by_key");
            self.matmul(&of_distances, &keys, &scores)?;
            let term = at("distances.of_keys");
            self.node("GatherElements", ONNX_DOMAIN, &[&scores, ROWS], &[&term], axis(2))?;
            terms.push(term);
        }
        let mut sum = terms[0].clone();
        if let Some(second) = terms.get(1) {
            let both = at("distances.sum");
            self.node("Add", ONNX_DOMAIN, &[&sum, second], &[&both], vec![])?;
            sum = both;
        }
        let scaled = at("distances.scores");
        self.node("Mul", ONNX_DOMAIN, &[&sum, SCALE], &[&scaled], vec![])?;
        Ok(scaled)
    }

    /// Adds the rows of distances for every text and head, which all layers read, given the queries of the first.
    fn rows_of_distances(&mut self, queries: &str) -> Result<()> {
        let [texts, sizes] = ["distances.texts", "distances.sizes"];
        let three = vec![attribute("start", 0i64), attribute("end", 3i64)];
        self.node("Shape", ONNX_DOMAIN, &[queries], &[texts], three)?;
        self.node("Concat", ONNX_DOMAIN, &[texts, LENGTH], &[sizes], axis(0))?;
        self.node("Expand", ONNX_DOMAIN, &[DISTANCES, sizes], &[ROWS], vec![])
    }

    /// Adds the keys or queries of distances by a layer's projection, divided into heads and transposed; returns their
    /// name.
    fn projected_distances(
        &mut self,
        layer: usize,
        projection: &str,
        what: &str,
        permutation: [i64; 3],
    ) -> Result<String> {
        let hidden = self.shape.hidden;
        let tensors = self.shape.family.tensors;
        let name = format!("{}.{layer}.{projection}", tensors.layers);
        if !tensors.projections.contains(&projection) {
            self.linear(&name, hidden, hidden)?;
        }
        let output = format!("{}.{layer}.distances.{what}", tensors.layers);
        let states = self.product(DISTANCE_STATES, &name, &output)?;
        self.heads_of(&states, DISTANCE_HEADS, permutation)
    }

    /// Adds states divided into heads and transposed; returns their name.
    fn heads_of<const N: usize>(
        &mut self,
        states: &str,
        sizes: &str,
        permutation: [i64; N],
    ) -> Result<String> {
        let (split, heads) = (format!("{states}.split"), format!("{states}.heads"));
        self.node("Reshape", ONNX_DOMAIN, &[states, sizes], &[&split], vec![])?;
        let permutation = vec![attribute("perm", permutation.to_vec())];
        self.node("Transpose", ONNX_DOMAIN, &[&split], &[&heads], permutation)?;
        Ok(heads)
    }
}

/// Returns the first layer with the angles of this one.
fn first_with_angles(layers: &[RotaryLayer], layer: usize) -> usize {
    let angles = |layer: &RotaryLayer| (layer.theta, layer.divisor);
    let same = |other: &RotaryLayer| angles(other) == angles(&layers[layer]);
    layers.iter().position(same).unwrap_or(layer)
}

/// Returns the names of the cosines and sines of the angles that this layer is the first to have.
fn angle_tables(layer: usize) -> [String; 2] {
    ["cosines", "sines"].map(|table| format!("rotary.{layer}.{table}"))
}

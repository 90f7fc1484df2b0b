//! Layers of an encoder at the bottom of a network, which are trained together with the layers above them.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::{
    Dropout, NetworkInput, TensorLayout,
    token_rows::{TokenPooling, TokenReader},
};
use crate::train::{
    encoder_layer::{
        DistanceBias, EncoderLayer, LayerDropout, LayerInput, LayerReal, LayerScratch, LayerShape,
        LayerTrace, N_TENSORS,
    },
    real::Real,
};

/// Maximum number of attention heads, of buckets of distances, and of layers: no encoder comes near.
const MOST: usize = 10_000;

/// The layers of an encoder, by their names in its checkpoint, and how their output is pooled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EncoderLayersSpec {
    /// Number of attention heads; divides the width of a state.
    pub attention_heads: usize,
    /// Width of the feed-forward part.
    pub intermediate: usize,
    /// Added to the variance in layer normalisation.
    pub epsilon: f32,
    /// Probability that a unit is dropped in training after the feed-forward part.
    pub dropout: f32,
    /// Probability that a unit is dropped in training after attention.
    pub attention_output_dropout: f32,
    /// Probability that a token's share of attention is dropped in training.
    pub attention_dropout: f32,
    /// What is made of the tokens of a document, unless attention pools them.
    pub pooling: TokenPooling,
    /// Whether a sample is a pair of documents that go through the layers apart, and a head reads
    /// `[u, v, |u - v|, u * v]` of their pooled states.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub pair: bool,
    /// The bias of attention scores, in families that have one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub distance_bias: Option<DistanceBiasSpec>,
    /// For each layer, from the lowest, the names of its tensors in the order of [`LayerShape::tensors`].
    pub tensors: Vec<Vec<String>>,
}

/// A bias for each distance between two tokens, which all layers share and which is held fixed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DistanceBiasSpec {
    /// The name of its table in the checkpoint.
    pub tensor: String,
    /// The smallest distance of each bucket, ascending from 0. Keys after the query have as many buckets of their own.
    pub first_distances: Vec<usize>,
}

impl EncoderLayersSpec {
    /// Number of parameters on states of this width; `None` if the sizes, rates or names are not those of layers.
    pub(crate) fn n_parameters(&self, hidden: usize) -> Option<usize> {
        let is_rate = |rate: f32| (0.0..1.0).contains(&rate);
        let divides = (1..=MOST).contains(&self.attention_heads)
            && hidden.is_multiple_of(self.attention_heads);
        let has_numbers = is_rate(self.dropout)
            && is_rate(self.attention_output_dropout)
            && is_rate(self.attention_dropout)
            && is_rate(self.epsilon)
            && self.intermediate > 0;
        let has_names = (1..=MOST).contains(&self.tensors.len())
            && self.tensors.iter().all(|names| names.len() == N_TENSORS);
        if !(divides && has_numbers && has_names) {
            return None;
        }
        let biases = match &self.distance_bias {
            None => 0,
            Some(bias) => {
                let first = &bias.first_distances;
                let ascend = first.windows(2).all(|pair| pair[0] < pair[1]);
                if first.first() != Some(&0) || !ascend || first.len() > MOST {
                    return None;
                }
                2 * first.len() * self.attention_heads
            }
        };
        // Four squares of the hidden size and two matrices of the feed-forward part, with less than ten vectors of
        // both.
        let square = hidden.checked_add(10)?.checked_mul(hidden)?.checked_mul(4)?;
        let wide = hidden.checked_add(1)?.checked_mul(self.intermediate)?.checked_mul(2)?;
        let layers = square.checked_add(wide)?.checked_mul(self.tensors.len())?;
        layers.checked_add(biases)
    }
}

/// The layers with their places in the parameter vector.
#[derive(Clone, Debug)]
pub(super) struct EncoderLayers {
    shape: LayerShape,
    layers: Vec<Range<usize>>,
    /// The place of the table and the first distances of its buckets.
    distance_bias: Option<(Range<usize>, Vec<usize>)>,
    dropout: f32,
    attention_output_dropout: f32,
    attention_dropout: f32,
    reader: TokenReader,
}

/// Buffers of the layers' passes.
#[derive(Clone, Debug, Default)]
pub(super) struct EncoderTrace<F> {
    layers: Vec<LayerTrace<F>>,
    scratch: LayerScratch<F>,
}

impl<F> EncoderTrace<F> {
    /// `[rows, hidden]` of the last forward pass.
    pub(super) fn output(&self) -> &[F] {
        match self.layers.last() {
            Some(layer) => layer.output(),
            None => &[],
        }
    }
}

impl EncoderLayers {
    /// Lays out the parameters, from the lowest layer; the table of biases is the last.
    pub(super) fn new(
        spec: &EncoderLayersSpec,
        hidden: usize,
        layout: &mut TensorLayout,
    ) -> EncoderLayers {
        let shape = LayerShape {
            hidden,
            attention_heads: spec.attention_heads,
            intermediate: spec.intermediate,
            epsilon: spec.epsilon,
        };
        let layers = spec.tensors.iter().map(|names| {
            let places = names.iter().zip(shape.tensors());
            let places: Vec<Range<usize>> =
                places.map(|(name, shape)| layout.tensor(name, &shape)).collect();
            places[0].start..places[places.len() - 1].end
        });
        let layers = layers.collect();
        let distance_bias = spec.distance_bias.as_ref().map(|bias| {
            let first = bias.first_distances.clone();
            (layout.tensor(&bias.tensor, &[2 * first.len(), spec.attention_heads]), first)
        });
        EncoderLayers {
            shape,
            layers,
            distance_bias,
            dropout: spec.dropout,
            attention_output_dropout: spec.attention_output_dropout,
            attention_dropout: spec.attention_dropout,
            reader: TokenReader { hidden, pooling: spec.pooling, is_pair: spec.pair },
        }
    }

    /// The place of each layer in the parameter vector, from the lowest.
    pub(super) fn places(&self) -> &[Range<usize>] {
        &self.layers
    }

    /// Number of parameters, with those that are held fixed.
    pub(super) fn n_parameters(&self) -> usize {
        let table = self.distance_bias.as_ref().map(|(place, _)| place.end);
        table.unwrap_or_else(|| self.layers.last().map_or(0, |layer| layer.end))
    }

    /// How a head reads the states of the last layer.
    pub(super) fn reader(&self) -> TokenReader {
        self.reader
    }

    /// Computes the states of the last layer. The samples of the input are windows, whose tokens attend to one another.
    pub(super) fn forward<F: LayerReal>(
        &self,
        parameters: &[F],
        input: &NetworkInput<'_, F>,
        dropout: Option<Dropout<'_>>,
        trace: &mut EncoderTrace<F>,
    ) {
        trace.layers.resize_with(self.layers.len(), LayerTrace::default);
        for (number, place) in self.layers.iter().enumerate() {
            let (below, own) = trace.layers.split_at_mut(number);
            let input = self.input(parameters, input, dropout, below);
            let layer = EncoderLayer { shape: self.shape, parameters: &parameters[place.clone()] };
            F::layer_forward(layer, &input, &mut own[0]);
        }
    }

    /// Adds `dL/dparameters` to `gradients`, given `dL/d` of the states of the last layer, which is overwritten.
    pub(super) fn backward<F: LayerReal>(
        &self,
        parameters: &[F],
        input: &NetworkInput<'_, F>,
        dropout: Option<Dropout<'_>>,
        trace: &mut EncoderTrace<F>,
        gradient: &mut [F],
        gradients: &mut [F],
    ) {
        let EncoderTrace { layers, scratch } = trace;
        for (number, place) in self.layers.iter().enumerate().rev() {
            let input = self.input(parameters, input, dropout, &layers[..number]);
            let layer = EncoderLayer { shape: self.shape, parameters: &parameters[place.clone()] };
            let own = &mut gradients[place.clone()];
            F::layer_backward(layer, &input, &layers[number], scratch, gradient, own, number > 0);
        }
    }

    /// What a layer reads: the output of the one below it.
    fn input<'a, F: Real>(
        &'a self,
        parameters: &'a [F],
        input: &'a NetworkInput<'_, F>,
        dropout: Option<Dropout<'a>>,
        below: &'a [LayerTrace<F>],
    ) -> LayerInput<'a, F> {
        let number = below.len() as u64;
        LayerInput {
            rows: match below.last() {
                Some(layer) => layer.output(),
                None => input.rows.as_slice().expect("contiguous rows"),
            },
            starts: input.starts,
            distance_bias: self.distance_bias.as_ref().map(|(place, first_distances)| {
                DistanceBias { table: &parameters[place.clone()], first_distances }
            }),
            dropout: dropout.map(|dropout| LayerDropout {
                after_attention: self.attention_output_dropout,
                after_feed_forward: self.dropout,
                attention: self.attention_dropout,
                // Far from the seeds of the layers above.
                seed: dropout.seed ^ (number + (1 << 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15),
                epoch: dropout.epoch,
                row_ids: dropout.row_ids,
            }),
        }
    }
}

#[cfg(test)]
mod tests;

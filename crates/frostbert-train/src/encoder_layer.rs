//! One layer of a BERT encoder, forward and backward, on texts of different lengths without padding.
//!
//! ```text
//! s = dropout(attention(x) W_o^T + b_o) + x          y = norm(s)
//! t = dropout(gelu(y W_w^T + b_w) W_n^T + b_n) + y   output = norm(t)
//! ```
//!
//! This is the layer of BERT, RoBERTa and ELECTRA, that of DistilBERT without the dropout after attention, and that of
//! MPNet with a bias for each distance (Devlin et al. 2019). All matrices are row-major slices; the rows of a text follow one another.

mod attention;
mod linear;
mod rows;

use crate::{
    dropout::drop_units,
    layer_norm::{LayerNorm, RowSums},
    real::Real,
};

/// The sizes of a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerShape {
    /// Width of a state.
    pub hidden: usize,
    /// Number of attention heads; divides `hidden`.
    pub attention_heads: usize,
    /// Width between the two halves of the feed-forward part.
    pub intermediate: usize,
    /// Added to the variance in both normalisations.
    pub epsilon: f32,
}

/// Number of tensors of a layer.
pub const N_TENSORS: usize = 16;

/// Number of parts into which the parameters are divided: as the tensors, with query, key and value in one.
const N_PARTS: usize = 12;

impl LayerShape {
    /// The shapes of the tensors in the order in which they follow one another in a parameter vector: the weights of
    /// query, key and value, their biases; then weight and bias of the dense layer after attention, of its
    /// normalisation, of the two halves of the feed-forward part, and of its normalisation. A weight is
    /// `[outputs, inputs]`.
    pub fn tensors(&self) -> [Vec<usize>; N_TENSORS] {
        let (hidden, wide) = (self.hidden, self.intermediate);
        let (square, row) = (|| vec![hidden, hidden], || vec![hidden]);
        [
            square(),
            square(),
            square(),
            row(),
            row(),
            row(),
            square(),
            row(),
            row(),
            row(),
            vec![wide, hidden],
            vec![wide],
            vec![hidden, wide],
            row(),
            row(),
            row(),
        ]
    }

    /// Length of a layer's parameter vector.
    ///
    /// ```
    /// use frostbert_train::encoder_layer::LayerShape;
    /// let shape = LayerShape { hidden: 384, attention_heads: 12, intermediate: 1536, epsilon: 1e-12 };
    /// assert_eq!(shape.n_parameters(), 1_774_464);
    /// ```
    pub fn n_parameters(&self) -> usize {
        self.lengths().iter().sum()
    }

    fn norm(&self) -> LayerNorm {
        LayerNorm { epsilon: f64::from(self.epsilon), sums: RowSums::InParts }
    }

    fn lengths(&self) -> [usize; N_PARTS] {
        let (hidden, wide) = (self.hidden, self.intermediate);
        [
            3 * hidden * hidden,
            3 * hidden,
            hidden * hidden,
            hidden,
            hidden,
            hidden,
            wide * hidden,
            wide,
            hidden * wide,
            hidden,
            hidden,
            hidden,
        ]
    }

    fn parts<'a, F>(&self, parameters: &'a [F]) -> [&'a [F]; N_PARTS] {
        let mut start = 0;
        self.lengths().map(|length| {
            start += length;
            &parameters[start - length..start]
        })
    }

    fn parts_mut<'a, F>(&self, parameters: &'a mut [F]) -> [&'a mut [F]; N_PARTS] {
        let mut rest = parameters;
        self.lengths().map(|length| {
            let (own, others) = std::mem::take(&mut rest).split_at_mut(length);
            rest = others;
            own
        })
    }
}

/// The sizes and the parameters of a layer.
#[derive(Clone, Copy, Debug)]
pub struct EncoderLayer<'a, F> {
    /// Its sizes.
    pub shape: LayerShape,
    /// Its tensors in the order of [`LayerShape::tensors`], one after the other.
    pub parameters: &'a [F],
}

/// What a layer reads.
#[derive(Clone, Copy, Debug)]
pub struct LayerInput<'a, F> {
    /// `[rows, hidden]`, text after text.
    pub rows: &'a [F],
    /// Text `i` has the rows `starts[i]..starts[i + 1]`, so there is one entry more than there are texts.
    pub starts: &'a [usize],
    /// What attention adds to its scores, in families that have it.
    pub distance_bias: Option<DistanceBias<'a, F>>,
    /// The dropout of a training step.
    pub dropout: Option<LayerDropout<'a>>,
}

/// A number for each attention head and each distance between two tokens, which is added to attention scores. It is
/// held fixed in training, because the layers below share it.
#[derive(Clone, Copy, Debug)]
pub struct DistanceBias<'a, F> {
    /// `[buckets, attention_heads]`: the buckets of keys that do not follow the query, then as many of those that do.
    pub table: &'a [F],
    /// The smallest distance of each bucket of a side, ascending from 0.
    pub first_distances: &'a [usize],
}

impl<F: Copy> DistanceBias<'_, F> {
    /// The bias of a head for a query and a key at these places.
    fn of(&self, n_heads: usize, head: usize, query: usize, key: usize) -> F {
        let distance = key.abs_diff(query);
        let bucket = self.first_distances.partition_point(|first| *first <= distance) - 1;
        let side = if key > query { self.first_distances.len() } else { 0 };
        self.table[(side + bucket) * n_heads + head]
    }
}

/// The dropout of a layer. Which units are dropped depends on these numbers and on the place of a unit in its row, so
/// not on the thread or the batch: see [`drop_units`].
#[derive(Clone, Copy, Debug)]
pub struct LayerDropout<'a> {
    /// Probability that a unit is dropped after attention.
    pub after_attention: f32,
    /// Probability that a unit is dropped after the feed-forward part.
    pub after_feed_forward: f32,
    /// Probability that a token's share of attention is dropped.
    pub attention: f32,
    /// A number that differs from layer to layer.
    pub seed: u64,
    /// The epoch, counted from 1.
    pub epoch: u64,
    /// An id for each row.
    pub row_ids: &'a [u64],
}

/// The places in a layer where units are dropped.
#[derive(Clone, Copy)]
enum DropoutPlace {
    AfterAttention,
    AfterFeedForward,
    Shares { head: usize },
}

impl LayerDropout<'_> {
    /// Drops units of one row.
    fn drop_row<F: Real>(&self, place: DropoutPlace, row: usize, values: &mut [F]) {
        let (rate, number) = match place {
            DropoutPlace::AfterAttention => (self.after_attention, 0),
            DropoutPlace::AfterFeedForward => (self.after_feed_forward, 1),
            DropoutPlace::Shares { head } => (self.attention, 2 + head as u64),
        };
        let seed = self.seed ^ (number + 1).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        drop_units(values, rate, seed, self.epoch, self.row_ids[row]);
    }

    /// Drops units of all rows.
    fn drop_rows<F: Real>(&self, place: DropoutPlace, width: usize, values: &mut [F]) {
        for (row, values) in values.chunks_exact_mut(width).enumerate() {
            self.drop_row(place, row, values);
        }
    }
}

/// What the backward pass of a layer needs from its forward pass; the buffers are reused from pass to pass.
#[derive(Clone, Debug, Default)]
pub struct LayerTrace<F> {
    /// Query, key and value of each row, `[rows, 3 hidden]`.
    projected: Vec<F>,
    /// `softmax` of the scores before dropout: of each text and each head `[rows of the text, rows of the text]`.
    shares: Vec<F>,
    /// Those of one text and head after dropout.
    dropped: Vec<F>,
    context: Vec<F>,
    attention_normalised: Vec<F>,
    attention_deviations: Vec<F>,
    middle: Vec<F>,
    units: Vec<F>,
    active: Vec<F>,
    output_normalised: Vec<F>,
    output_deviations: Vec<F>,
    output: Vec<F>,
}

impl<F> LayerTrace<F> {
    /// The output of the last forward pass, `[rows, hidden]`.
    pub fn output(&self) -> &[F] {
        &self.output
    }
}

/// Buffers of a backward pass, reused from layer to layer.
#[derive(Clone, Debug, Default)]
pub struct LayerScratch<F> {
    inner: Vec<F>,
    d_units: Vec<F>,
    d_context: Vec<F>,
    d_projected: Vec<F>,
    d_shares: Vec<F>,
    dropped: Vec<F>,
}

/// `f32` or `f64`, with the passes of a layer compiled in this crate.
pub trait LayerReal: Real {
    /// Computes the output of a layer and stores it in `trace`, along with what [`LayerReal::layer_backward`] needs.
    ///
    /// Runs on the calling thread. The bits of a text's rows do not depend on the other texts, as long as the number of
    /// rows is the same.
    ///
    /// # Panics
    /// Panics if lengths do not fit.
    fn layer_forward(
        layer: EncoderLayer<'_, Self>,
        input: &LayerInput<'_, Self>,
        trace: &mut LayerTrace<Self>,
    );

    /// Adds `dL/dparameters` to `gradients`. `gradient` holds `dL/doutput` on entry and, if `passes_on`, `dL/drows` on
    /// return; otherwise its contents on return mean nothing.
    ///
    /// Nothing is added for the bias of the keys: it adds the same number to all scores of a query, which the softmax
    /// takes out again, so its gradient is 0 and what would be computed is rounding.
    ///
    /// # Panics
    /// Panics if lengths do not fit, or the input is not that of the last forward pass with this trace.
    fn layer_backward(
        layer: EncoderLayer<'_, Self>,
        input: &LayerInput<'_, Self>,
        trace: &LayerTrace<Self>,
        scratch: &mut LayerScratch<Self>,
        gradient: &mut [Self],
        gradients: &mut [Self],
        passes_on: bool,
    );
}

macro_rules! compile_layer {
    ($number:ty) => {
        impl LayerReal for $number {
            fn layer_forward(
                layer: EncoderLayer<'_, Self>,
                input: &LayerInput<'_, Self>,
                trace: &mut LayerTrace<Self>,
            ) {
                forward(layer, input, trace);
            }

            fn layer_backward(
                layer: EncoderLayer<'_, Self>,
                input: &LayerInput<'_, Self>,
                trace: &LayerTrace<Self>,
                scratch: &mut LayerScratch<Self>,
                gradient: &mut [Self],
                gradients: &mut [Self],
                passes_on: bool,
            ) {
                backward(layer, input, trace, scratch, gradient, gradients);
                if passes_on {
                    let [projections, projection_bias, ..] = layer.shape.parts(layer.parameters);
                    let width = projection_bias.len();
                    linear::add_input_gradient(&scratch.d_projected, width, projections, gradient);
                }
            }
        }
    };
}

compile_layer!(f32);
compile_layer!(f64);

fn forward<F: Real>(
    layer: EncoderLayer<'_, F>,
    input: &LayerInput<'_, F>,
    trace: &mut LayerTrace<F>,
) {
    let EncoderLayer { shape, parameters } = layer;
    assert_eq!(parameters.len(), shape.n_parameters(), "parameters of this layer");
    let hidden = shape.hidden;
    let n_values = input.rows.len();
    assert!(n_values.is_multiple_of(hidden), "whole rows");
    let n_rows = n_values / hidden;
    assert_eq!(input.starts.last(), Some(&n_rows), "texts that hold all rows");
    let [projections, projection_bias, dense, dense_bias, gain, shift, widen, widen_bias, ..] =
        shape.parts(parameters);
    let [.., narrow, narrow_bias, output_gain, output_shift] = shape.parts(parameters);

    let projected = room(&mut trace.projected, 3 * n_values);
    linear::forward(input.rows, projections, projection_bias, projected);
    let context = room(&mut trace.context, n_values);
    attention::forward(&shape, input, projected, &mut trace.shares, &mut trace.dropped, context);
    let sum = room(&mut trace.attention_normalised, n_values);
    linear::forward(context, dense, dense_bias, sum);
    if let Some(dropout) = &input.dropout {
        dropout.drop_rows(DropoutPlace::AfterAttention, hidden, sum);
    }
    rows::add(sum, input.rows);
    let deviations = room(&mut trace.attention_deviations, n_rows);
    let middle = room(&mut trace.middle, n_values);
    shape.norm().forward(gain, shift, sum, deviations, middle);

    let units = room(&mut trace.units, n_rows * shape.intermediate);
    linear::forward(middle, widen, widen_bias, units);
    let active = room(&mut trace.active, units.len());
    rows::gelu(units, active);
    let sum = room(&mut trace.output_normalised, n_values);
    linear::forward(active, narrow, narrow_bias, sum);
    if let Some(dropout) = &input.dropout {
        dropout.drop_rows(DropoutPlace::AfterFeedForward, hidden, sum);
    }
    rows::add(sum, middle);
    let deviations = room(&mut trace.output_deviations, n_rows);
    let output = room(&mut trace.output, n_values);
    shape.norm().forward(output_gain, output_shift, sum, deviations, output);
}

/// The backward pass up to the gradient of the projections, which `scratch` holds on return; `gradient` is then that of
/// the rows apart from the projections' share.
fn backward<F: Real>(
    layer: EncoderLayer<'_, F>,
    input: &LayerInput<'_, F>,
    trace: &LayerTrace<F>,
    scratch: &mut LayerScratch<F>,
    gradient: &mut [F],
    gradients: &mut [F],
) {
    let EncoderLayer { shape, parameters } = layer;
    assert_eq!(parameters.len(), shape.n_parameters(), "parameters of this layer");
    assert_eq!(gradients.len(), parameters.len(), "a gradient per parameter");
    assert_eq!(gradient.len(), trace.output.len(), "a gradient per output");
    assert_eq!(input.rows.len(), trace.output.len(), "the input of the forward pass");
    let (hidden, n_values) = (shape.hidden, gradient.len());
    let [_, _, dense, _, gain, _, widen, _, narrow, _, output_gain, _] = shape.parts(parameters);
    let [
        d_projections,
        d_projection_bias,
        d_dense,
        d_dense_bias,
        d_gain,
        d_shift,
        d_widen,
        d_widen_bias,
        d_narrow,
        d_narrow_bias,
        d_output_gain,
        d_output_shift,
    ] = shape.parts_mut(gradients);

    let (normalised, deviations) = (&trace.output_normalised, &trace.output_deviations);
    shape.norm().backward(
        output_gain,
        normalised,
        deviations,
        gradient,
        d_output_gain,
        d_output_shift,
    );
    let inner = room(&mut scratch.inner, n_values);
    inner.copy_from_slice(gradient);
    if let Some(dropout) = &input.dropout {
        dropout.drop_rows(DropoutPlace::AfterFeedForward, hidden, inner);
    }
    linear::backward(&trace.active, inner, d_narrow, d_narrow_bias);
    let d_units = room(&mut scratch.d_units, trace.units.len());
    linear::input_gradient(inner, hidden, narrow, d_units);
    rows::gelu_backward(&trace.units, d_units);
    linear::backward(&trace.middle, d_units, d_widen, d_widen_bias);
    linear::add_input_gradient(d_units, shape.intermediate, widen, gradient);

    let (normalised, deviations) = (&trace.attention_normalised, &trace.attention_deviations);
    shape.norm().backward(gain, normalised, deviations, gradient, d_gain, d_shift);
    inner.copy_from_slice(gradient);
    if let Some(dropout) = &input.dropout {
        dropout.drop_rows(DropoutPlace::AfterAttention, hidden, inner);
    }
    linear::backward(&trace.context, inner, d_dense, d_dense_bias);
    let d_context = room(&mut scratch.d_context, n_values);
    linear::input_gradient(inner, hidden, dense, d_context);
    let d_projected = room(&mut scratch.d_projected, 3 * n_values);
    attention::backward(
        &shape,
        input,
        trace,
        d_context,
        [&mut scratch.d_shares, &mut scratch.dropped],
        d_projected,
    );
    let before = d_projection_bias[hidden..2 * hidden].to_vec();
    linear::backward(input.rows, d_projected, d_projections, d_projection_bias);
    d_projection_bias[hidden..2 * hidden].copy_from_slice(&before);
}

/// Resizes a buffer to this length; its earlier contents do not matter.
fn room<F: Real>(buffer: &mut Vec<F>, length: usize) -> &mut [F] {
    buffer.resize(length, F::zero());
    buffer
}

#[cfg(test)]
mod tests;

//! The forward pass of a network from inputs to logits, and the backward pass of its gradients.

use ndarray::{ArrayView2, ArrayViewMut2};

use super::{
    HiddenLayer, Linear, Network, Skip,
    encoder_layers::{EncoderLayers, EncoderTrace},
    token_rows::TokenPlan,
};
use crate::{
    features::TokenRole,
    head::layers::{
        LAYER_NORM, activation,
        attention::{self, Samples},
        dense, mix,
    },
    train::{
        dropout::drop_units,
        encoder_layer::LayerReal,
        gemm::{multiply, multiply_add},
        real::Real,
    },
};

/// The input of a network.
#[derive(Clone, Copy, Debug)]
pub struct NetworkInput<'a, F> {
    /// `[rows, n_layers * n_features]`.
    pub rows: ArrayView2<'a, F>,
    /// With attention or layers of an encoder, sample `i` holds the rows `starts[i]..starts[i + 1]`, all rows in order;
    /// otherwise unused.
    pub starts: &'a [usize],
    /// What each row is for layers of an encoder; if it is empty, each sample is a document of one window, and each row
    /// has an output. Otherwise unused.
    pub roles: &'a [TokenRole],
}

impl<F> NetworkInput<'_, F> {
    /// The same rows with windows as samples.
    fn by_windows<'a>(&'a self, plan: &'a TokenPlan) -> NetworkInput<'a, F> {
        NetworkInput { rows: self.rows.view(), starts: &plan.windows, roles: self.roles }
    }
}

/// Which units are dropped: see [`drop_units`].
#[derive(Clone, Copy, Debug)]
pub struct Dropout<'a> {
    /// Probability that an input (after the mix) or a hidden unit is dropped.
    pub rate: f32,
    /// The seed of the head.
    pub seed: u64,
    /// The epoch, counted from 1.
    pub epoch: u64,
    /// The id of each row, which determines its mask; a pooled sample uses the id of its first row.
    pub row_ids: &'a [u64],
}

/// Buffers of a pass: what [`Network::backward`] needs from [`Network::forward`], reused from pass to pass.
///
/// The buffers grow to the size of the largest batch; after that nothing is allocated.
#[derive(Clone, Debug, Default)]
pub struct Trace<F> {
    n_outputs: usize,
    encoder: EncoderTrace<F>,
    plan: TokenPlan,
    /// `softmax(s)` of the mix.
    mix_shares: Vec<F>,
    mix_sums: Vec<F>,
    /// Inputs after the encoder's layers, mix and dropout, if there is any.
    rows: Vec<F>,
    /// Attention weight of every row.
    shares: Vec<F>,
    d_scores: Vec<F>,
    /// Inputs after pooling; or those of the tokens that have outputs.
    pooled: Vec<F>,
    /// Pooled documents of pairs, and `dL/d` of them.
    sides: Vec<F>,
    d_sides: Vec<F>,
    layers: Vec<LayerTrace<F>>,
    logits: Vec<F>,
    masks: Masks,
    /// `dL/d` of the output of the layer that the backward pass has reached, and of the values before its skip
    /// connection.
    gradient: Vec<F>,
    inner: Vec<F>,
    next: Vec<F>,
}

#[derive(Clone, Debug, Default)]
struct LayerTrace<F> {
    normalised: Vec<F>,
    deviations: Vec<F>,
    /// Input of the activation.
    units: Vec<F>,
    output: Vec<F>,
}

/// The dropout of a pass; a rate of 0 means none.
#[derive(Clone, Debug, Default)]
struct Masks {
    rate: f32,
    seed: u64,
    epoch: u64,
    row_ids: Vec<u64>,
    /// Ids of the rows that go through the hidden layers.
    sample_ids: Vec<u64>,
}

impl<F: Real> Trace<F> {
    /// `[rows, n_outputs]` of the last forward pass, or `[samples, n_outputs]` if the network pools; above layers of an
    /// encoder, a row for each token that has an output.
    pub fn logits(&self) -> ArrayView2<'_, F> {
        matrix(&self.logits, self.n_outputs.max(1))
    }
}

impl Network {
    /// Computes the logits and stores them in `trace`, along with what a backward pass needs.
    ///
    /// Runs on the calling thread. Without mix, dropout and hidden layers it is a single matrix product on the rows as
    /// they are. A sample without rows is pooled to zeros.
    ///
    /// # Panics
    /// Panics if shapes do not fit the spec, or if rows are not contiguous and there is a mix, dropout, attention or an
    /// encoder's layer.
    pub fn forward<F: LayerReal>(
        &self,
        parameters: &[F],
        input: &NetworkInput<'_, F>,
        dropout: Option<Dropout<'_>>,
        trace: &mut Trace<F>,
    ) {
        self.check(parameters, input);
        let n_features = self.spec.n_features;
        trace.n_outputs = self.spec.n_outputs;
        if let Some(encoder) = &self.encoder {
            trace.plan.set(input, encoder.reader().is_pair);
        }
        trace.masks.set(self, input, &trace.plan, dropout);
        if let Some(encoder) = &self.encoder {
            let windows = input.by_windows(&trace.plan);
            encoder.forward(parameters, &windows, dropout, &mut trace.encoder);
            let rows = room(&mut trace.rows, input.rows.len());
            rows.copy_from_slice(trace.encoder.output());
        } else if let Some(mix) = &self.mix {
            let shares = room(&mut trace.mix_shares, mix.len());
            let rows = room(&mut trace.rows, input.rows.nrows() * n_features);
            mix::forward(&parameters[mix.clone()], input.rows.view(), shares, rows);
        } else if trace.masks.rate > 0.0 {
            let rows = room(&mut trace.rows, input.rows.len());
            matrix_mut(rows, n_features).assign(&input.rows);
        }
        if self.reads_plainly().is_none() {
            trace.masks.drop_inputs(&mut trace.rows, n_features);
        }
        if let Some(query) = &self.query {
            let samples =
                Samples { rows: self.rows(input, &trace.masks, &trace.rows), starts: input.starts };
            let shares = room(&mut trace.shares, input.rows.nrows());
            let pooled = room(&mut trace.pooled, (input.starts.len() - 1) * n_features);
            attention::forward(&parameters[query.clone()], samples, shares, pooled);
        }
        if let Some(encoder) = self.reads_plainly() {
            let reader = encoder.reader();
            reader.gather(&trace.plan, &trace.rows, &mut trace.sides, &mut trace.pooled);
            trace.masks.drop_pooled(&mut trace.pooled, reader.width());
        }
        let mut layers = std::mem::take(&mut trace.layers);
        layers.resize_with(self.hidden.len(), LayerTrace::default);
        for (index, layer) in self.hidden.iter().enumerate() {
            let (before, rest) = layers.split_at_mut(index);
            let x = self.layer_input(input, trace, before);
            self.forward_hidden(layer, parameters, x, &mut rest[0]);
            let width = layer.linear.outputs;
            trace.masks.drop_hidden(index, &mut rest[0].output, width);
            let mut output = matrix_mut(&mut rest[0].output, width);
            match &layer.skip {
                Skip::None => {}
                Skip::Identity => output += &x,
                Skip::Projection(range) => {
                    let weight = matrix(&parameters[range.clone()], layer.linear.inputs);
                    multiply_add(x, weight.t(), output);
                }
            }
        }
        let mut logits = std::mem::take(&mut trace.logits);
        let x = self.layer_input(input, trace, &layers);
        self.output.forward(parameters, x, &mut logits);
        trace.logits = logits;
        trace.layers = layers;
    }

    /// Adds `dL/dparameters` to `gradients`, given `dL/dlogits` of the last forward pass with this trace, which had the
    /// same dropout.
    ///
    /// # Panics
    /// Panics if shapes do not fit, or `d_logits` is not in row-major order.
    pub fn backward<F: LayerReal>(
        &self,
        parameters: &[F],
        input: &NetworkInput<'_, F>,
        dropout: Option<Dropout<'_>>,
        trace: &mut Trace<F>,
        d_logits: ArrayView2<'_, F>,
        gradients: &mut [F],
    ) {
        self.check(parameters, input);
        assert_eq!(gradients.len(), parameters.len(), "a gradient per parameter");
        assert_eq!(d_logits.dim(), trace.logits().dim(), "a gradient per logit");
        let mut gradient = std::mem::take(&mut trace.gradient);
        let mut inner = std::mem::take(&mut trace.inner);
        let mut next = std::mem::take(&mut trace.next);

        let n = d_logits.nrows();
        let learns_below = self.reads_pooled() || self.mix.is_some();
        let x = self.layer_input(input, trace, &trace.layers);
        self.output.backward(x, d_logits, gradients);
        if learns_below || !self.hidden.is_empty() {
            let width = self.output.inputs;
            let d_x = matrix_mut(room(&mut gradient, n * width), width);
            dense::backward_input(d_logits, self.output.weight(parameters), d_x);
        }
        for (index, layer) in self.hidden.iter().enumerate().rev() {
            let (inputs, width) = (layer.linear.inputs, layer.linear.outputs);
            let layer_trace = &trace.layers[index];
            let x = self.layer_input(input, trace, &trace.layers[..index]);
            room(&mut inner, n * width).copy_from_slice(&gradient);
            trace.masks.drop_hidden(index, &mut inner, width);
            activation::backward(self.spec.activation, &layer_trace.units, &mut inner);
            if let Some([gain, bias]) = &layer.norm {
                let (d_gain, d_bias) = gradients[gain.start..bias.end].split_at_mut(gain.len());
                LAYER_NORM.backward(
                    &parameters[gain.clone()],
                    &layer_trace.normalised,
                    &layer_trace.deviations,
                    &mut inner,
                    d_gain,
                    d_bias,
                );
            }
            layer.linear.backward(x, matrix(&inner, width), gradients);
            let d_output = matrix(&gradient, width);
            if let Skip::Projection(range) = &layer.skip {
                let d_weight = matrix_mut(&mut gradients[range.clone()], inputs);
                multiply_add(d_output.t(), x, d_weight);
            }
            if index == 0 && !learns_below {
                break;
            }
            let mut d_x = matrix_mut(room(&mut next, n * inputs), inputs);
            multiply(matrix(&inner, width), layer.linear.weight(parameters), d_x.view_mut());
            match &layer.skip {
                Skip::None => {}
                Skip::Identity => d_x += &d_output,
                Skip::Projection(range) => {
                    multiply_add(d_output, matrix(&parameters[range.clone()], inputs), d_x);
                }
            }
            std::mem::swap(&mut gradient, &mut next);
        }
        if let Some(query) = &self.query {
            let n_rows = input.rows.nrows();
            let mut d_scores = std::mem::take(&mut trace.d_scores);
            let learns_rows = self.mix.is_some() || self.encoder.is_some();
            let d_rows_len = if learns_rows { n_rows * self.spec.n_features } else { 0 };
            attention::backward(
                &parameters[query.clone()],
                Samples { rows: self.rows(input, &trace.masks, &trace.rows), starts: input.starts },
                &trace.shares,
                &gradient,
                room(&mut d_scores, n_rows),
                &mut gradients[query.clone()],
                room(&mut next, d_rows_len),
            );
            trace.d_scores = d_scores;
            std::mem::swap(&mut gradient, &mut next);
        }
        if let Some(encoder) = &self.encoder {
            let width = self.spec.n_features;
            if self.query.is_some() {
                trace.masks.drop_inputs(&mut gradient, width);
            } else {
                let reader = encoder.reader();
                trace.masks.drop_pooled(&mut gradient, reader.width());
                let d_rows = room(&mut next, input.rows.len());
                let read = [&trace.rows[..], &trace.sides];
                reader.scatter(&trace.plan, read, &gradient, &mut trace.d_sides, d_rows);
                std::mem::swap(&mut gradient, &mut next);
            }
            let windows = input.by_windows(&trace.plan);
            let own = &mut trace.encoder;
            encoder.backward(parameters, &windows, dropout, own, &mut gradient, gradients);
        }
        if let Some(mix) = &self.mix {
            trace.masks.drop_inputs(&mut gradient, self.spec.n_features);
            mix::backward(
                &trace.mix_shares,
                input.rows.view(),
                &gradient,
                room(&mut trace.mix_sums, mix.len()),
                &mut gradients[mix.clone()],
            );
        }
        (trace.gradient, trace.inner, trace.next) = (gradient, inner, next);
    }

    fn check<F>(&self, parameters: &[F], input: &NetworkInput<'_, F>) {
        assert_eq!(parameters.len(), self.n_parameters(), "parameters of this network");
        assert_eq!(input.rows.ncols(), self.spec.n_inputs(), "rows of all layers' features");
        let (first, last) = (input.starts.first(), input.starts.last());
        assert!(
            !self.reads_pooled() || (first == Some(&0) && last == Some(&input.rows.nrows())),
            "samples that hold all rows"
        );
        let n_roles = input.roles.len();
        assert!(n_roles == 0 || n_roles == input.rows.nrows(), "a role for each row");
    }

    /// The encoder's layers, if their output is read without learned attention.
    fn reads_plainly(&self) -> Option<&EncoderLayers> {
        self.encoder.as_ref().filter(|_| self.query.is_none())
    }

    /// Whether the layers above read [`Trace::pooled`].
    fn reads_pooled(&self) -> bool {
        self.query.is_some() || self.encoder.is_some()
    }

    /// The rows after the encoder's layers, mix and dropout.
    fn rows<'a, F: Real>(
        &self,
        input: &'a NetworkInput<'_, F>,
        masks: &Masks,
        changed: &'a [F],
    ) -> ArrayView2<'a, F> {
        if self.encoder.is_some() || self.mix.is_some() || masks.rate > 0.0 {
            matrix(changed, self.spec.n_features)
        } else {
            input.rows.view()
        }
    }

    /// The input of the layer that follows the hidden layers `before`.
    fn layer_input<'a, F: Real>(
        &self,
        input: &'a NetworkInput<'_, F>,
        trace: &'a Trace<F>,
        before: &'a [LayerTrace<F>],
    ) -> ArrayView2<'a, F> {
        match before.last() {
            Some(layer) => matrix(&layer.output, self.hidden[before.len() - 1].linear.outputs),
            None if self.reads_pooled() => matrix(&trace.pooled, self.spec.n_read()),
            None => self.rows(input, &trace.masks, &trace.rows),
        }
    }

    fn forward_hidden<F: Real>(
        &self,
        layer: &HiddenLayer,
        parameters: &[F],
        x: ArrayView2<'_, F>,
        trace: &mut LayerTrace<F>,
    ) {
        match &layer.norm {
            None => layer.linear.forward(parameters, x, &mut trace.units),
            Some([gain, bias]) => {
                layer.linear.forward(parameters, x, &mut trace.normalised);
                let n_units = trace.normalised.len();
                LAYER_NORM.forward(
                    &parameters[gain.clone()],
                    &parameters[bias.clone()],
                    &mut trace.normalised,
                    room(&mut trace.deviations, x.nrows()),
                    room(&mut trace.units, n_units),
                );
            }
        }
        let output = room(&mut trace.output, trace.units.len());
        activation::forward(self.spec.activation, &trace.units, output);
    }
}

impl Linear {
    fn weight<'a, F>(&self, parameters: &'a [F]) -> ArrayView2<'a, F> {
        matrix(&parameters[self.weight.clone()], self.inputs)
    }

    fn forward<F: Real>(&self, parameters: &[F], x: ArrayView2<'_, F>, y: &mut Vec<F>) {
        let y = matrix_mut(room(y, x.nrows() * self.outputs), self.outputs);
        dense::forward(x, self.weight(parameters), &parameters[self.bias.clone()], y);
    }

    fn backward<F: Real>(&self, x: ArrayView2<'_, F>, d_y: ArrayView2<'_, F>, gradients: &mut [F]) {
        let (d_weight, d_bias) =
            gradients[self.weight.start..self.bias.end].split_at_mut(self.weight.len());
        dense::backward(x, d_y, matrix_mut(d_weight, self.inputs), d_bias);
    }
}

impl Masks {
    fn set<F>(
        &mut self,
        network: &Network,
        input: &NetworkInput<'_, F>,
        plan: &TokenPlan,
        dropout: Option<Dropout<'_>>,
    ) {
        self.row_ids.clear();
        self.sample_ids.clear();
        let Some(dropout) = dropout.filter(|dropout| dropout.rate > 0.0) else {
            self.rate = 0.0;
            return;
        };
        assert_eq!(dropout.row_ids.len(), input.rows.nrows(), "an id for every row");
        (self.rate, self.seed, self.epoch) = (dropout.rate, dropout.seed, dropout.epoch);
        self.row_ids.extend_from_slice(dropout.row_ids);
        if network.spec.has_output_tokens() {
            self.sample_ids.extend(plan.outputs.iter().map(|row| dropout.row_ids[*row]));
        } else if network.spec.pools() {
            let first_rows = input.starts[..input.starts.len() - 1].iter();
            // A sample without rows at the very end has no first row.
            let id = |row: &usize| dropout.row_ids.get(*row).copied().unwrap_or(u64::MAX);
            self.sample_ids.extend(first_rows.map(id));
        } else {
            self.sample_ids.extend_from_slice(dropout.row_ids);
        }
    }

    fn drop_inputs<F: Real>(&self, values: &mut [F], width: usize) {
        self.drop_rows(&self.row_ids, self.seed, values, width);
    }

    /// Applies the masks of the inputs to pooled samples, or to the tokens that have outputs.
    fn drop_pooled<F: Real>(&self, values: &mut [F], width: usize) {
        self.drop_rows(&self.sample_ids, self.seed, values, width);
    }

    /// Applies masks that differ between the hidden layers, and from that of the inputs.
    fn drop_hidden<F: Real>(&self, layer: usize, values: &mut [F], width: usize) {
        let number = layer as u64 + 1;
        let seed = self.seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.drop_rows(&self.sample_ids, seed, values, width);
    }

    fn drop_rows<F: Real>(&self, ids: &[u64], seed: u64, values: &mut [F], width: usize) {
        for (row, id) in values.chunks_exact_mut(width).zip(ids) {
            drop_units(row, self.rate, seed, self.epoch, *id);
        }
    }
}

/// Resizes a buffer to this length; its earlier contents do not matter.
fn room<F: Real>(buffer: &mut Vec<F>, length: usize) -> &mut [F] {
    buffer.resize(length, F::zero());
    buffer
}

fn matrix<F>(values: &[F], columns: usize) -> ArrayView2<'_, F> {
    ArrayView2::from_shape((values.len() / columns, columns), values).expect("whole rows")
}

fn matrix_mut<F>(values: &mut [F], columns: usize) -> ArrayViewMut2<'_, F> {
    ArrayViewMut2::from_shape((values.len() / columns, columns), values).expect("whole rows")
}

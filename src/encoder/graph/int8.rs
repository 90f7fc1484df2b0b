//! The fused graph with 8-bit linear layers, for a CPU: integer matrix products, and everything else in f32.
//!
//! Per layer, where `[T, .]` are the rows of all windows and `T = B S`:
//!
//! ```text
//! linear(x, W) = s Integer(concat(q, z ... z), W8)   (q, s, z: each row of x in 8 bits, its step and its zero point)
//!
//! q, k, v = linear(x / c, c Wq), linear(x / c, c Wk), linear(x / c, c Wv)       c: the smoothing factors of x for Wv
//!                                                                             x / c is quantised once for the three
//! a  = MultiHeadAttention(q, k, v, bqkv [3H], attention_mask [B,S], the relative bias, if the family has one)
//!      or attention of parts, with the biases added before
//! y  = LayerNormalization(linear(a, Wo) + bo + x, gamma, beta)
//! x' = LayerNormalization(linear(BiasGelu(linear(y / c, c Wi), bi), Wd) + bd + y, gamma, beta)
//!      or with a gate, which is a linear layer of y / c too
//! ```
//!
//! Where norms come before the halves of a layer, they are in the same places as in f32, and queries and keys are
//! products in f32: the errors of a layer are added to a sum that no norm bounds, and those of scores are the largest.
//!
//! [`quantize`](super::super::quantize) explains the formulas of quantisation. Each row of inputs has its own step, and
//! integer sums are exact in any order, so a row's product depends on that row alone. `Integer` is
//! `MatMulIntegerToFloat`, which also multiplies by the scales of the weights.
//!
//! `MatMulNBits` would be a single operator but is hardly faster than f32; see `docs/performance.md` for the figures.

use std::collections::BTreeSet;

use ort::editor::{Model, ONNX_DOMAIN};

use crate::{
    encoder::{
        checkpoint::FusedModel,
        device::has_vnni,
        family::{FeedForward, Norms},
        graph::{GraphBuilder, attention_bias, output_name, session_graph::SessionGraph},
        graph_target::{CONTRIB_DOMAIN, GraphTarget, NodeAttribute, TensorValues, attribute},
        quantize::{Quantized, smoothing},
    },
    error::Result,
};

/// The name of this graph and its kind of quantisation, with a version; part of the fingerprint.
///
/// `w8-out-a8-row` stands for 8-bit weights with a scale per output and 8-bit activations with a step per row; `smooth`
/// means that states are smoothed by the parameters of their normalisation.
pub(in crate::encoder) const PROFILE: &str = "bert-fused-w8-out-a8-row-smooth-1";

/// How the weights are passed to the 8-bit matrix product. The results are bit-identical.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::encoder) enum WeightForm {
    /// Values from -127 to 127: fast if the processor multiplies unsigned by signed bytes into 32 bits.
    Signed,
    /// The signed values plus 128, which a zero point subtracts again. This is correct even where ONNX Runtime's
    /// product of unsigned and signed bytes goes through 16 bits, in which the sum of two products can overflow (x86-64
    /// without VNNI).
    Unsigned,
}

impl WeightForm {
    /// Returns the form that suits this machine's processor.
    pub(in crate::encoder) fn of_this_cpu() -> WeightForm {
        if has_vnni() { WeightForm::Signed } else { WeightForm::Unsigned }
    }
}

/// Builds the model as [`build`](super::build) does, with 8-bit linear layers.
///
/// # Errors
/// Returns an error if the checkpoint lacks a tensor or has one of another shape, or if ONNX Runtime rejects the graph.
pub(in crate::encoder) fn build(
    source: &FusedModel,
    layers: &[usize],
    form: WeightForm,
) -> Result<Model> {
    let mut builder = GraphBuilder::new(source, false)?;
    builder.for_cpu = true;
    add_layers(builder, layers, form)?.finish_padded(layers)
}

/// Adds everything from the embeddings to the highest of `layers`.
pub(super) fn add_layers<'a, T: GraphTarget>(
    builder: GraphBuilder<'a, T>,
    layers: &[usize],
    form: WeightForm,
) -> Result<GraphBuilder<'a, T>> {
    let mut graph = Int8Graph { builder, form };
    graph.builder.embeddings()?;
    graph.builder.attention_constants()?;
    let highest = layers.iter().copied().max().unwrap_or(0);
    graph.constants()?;
    for layer in 0..highest {
        graph.layer(layer)?;
    }
    Ok(graph.builder)
}

struct Int8Graph<'a, T: GraphTarget = SessionGraph> {
    builder: GraphBuilder<'a, T>,
    form: WeightForm,
}

/// Rows quantised to 8 bits.
struct QuantizedRows {
    /// `[T, K + J]` u8: the rows, each followed by J copies of its zero point.
    values: String,
    /// `[T, 1]`: the step of each row.
    steps: String,
    n_corrections: usize,
}

impl<T: GraphTarget> Int8Graph<'_, T> {
    fn constants(&mut self) -> Result<()> {
        self.constant("one", &[], &[1.0f32][..])?;
        self.constant("zero", &[], &[0.0f32][..])?;
        self.constant("step_of_range", &[], &[1.0f32 / 255.0][..])?;
        // The step of an all-zero row must not be 0, because its values are divided by it.
        self.constant("least_range", &[], &[f32::MIN_POSITIVE * 1024.0][..])?;
        self.constant("no_zero_point", &[], &[0u8][..])?;
        self.constant("weight_zero_point", &[], &[128u8][..])?;
        self.constant("last_axis", &[1], &[-1i64][..])?;
        let sizes = BTreeSet::from([self.builder.shape.hidden, self.builder.shape.intermediate]);
        for size in sizes {
            self.constant(&rows_of(size), &[2], &[-1, size as i64][..])?;
        }
        self.onnx("Shape", &[&output_name(0)], "states_shape", vec![])
    }

    fn layer(&mut self, layer: usize) -> Result<()> {
        let shape = self.builder.shape;
        let tensors = shape.family.tensors;
        let (hidden, intermediate) = (shape.hidden, shape.intermediate);
        let at = |name: &str| format!("{}.{layer}.{name}", tensors.layers);
        let (input, output) = (output_name(layer), self.builder.before_convolution(layer));

        self.attention(layer)?;
        let name = at(tensors.attention_output);
        let weight = self.weight_of(&name, hidden, hidden)?;
        self.linear_of(&at("attention"), hidden, &name, &weight)?;
        let normed = at("attention_normed");
        let is_normed_after = shape.family.layer.norms == Norms::After;
        let norm = at(if is_normed_after { tensors.attention_norm } else { tensors.output_norm });
        let sum = self.skip_sum(&name, &input, at("attention_sum"))?;
        self.builder.layer_norm(&sum, &norm, &normed)?;

        let name = at(tensors.widen);
        let mut weight = self.weight_of(&name, hidden, intermediate)?;
        let factors = self.factors(&norm, &weight)?;
        let smooth = self.smooth(&normed, &factors)?;
        multiply_columns(&mut weight, &factors);
        let mut activated = at("activated");
        match shape.family.layer.feed_forward {
            FeedForward::Plain => {
                self.linear_of(&smooth, hidden, &name, &weight)?;
                let bias = format!("{name}.bias");
                self.builder.activate(&product(&name), Some(&bias), &activated)?;
            }
            FeedForward::Gated(gate) => {
                let gate = at(gate);
                let mut of_gate = self.weight_of(&gate, hidden, intermediate)?;
                multiply_columns(&mut of_gate, &factors);
                let weights = [&weight, &of_gate].map(|weight| Quantized::new(weight, hidden));
                let n_corrections = weights.iter().map(Quantized::n_corrections).max();
                let rows = self.quantized_rows(&smooth, hidden, n_corrections.unwrap_or(0))?;
                self.product(&rows, &name, &weights[0])?;
                self.product(&rows, &gate, &weights[1])?;
                self.builder.activate(&product(&name), None, &activated)?;
                let gated = at("gated");
                self.onnx("Mul", &[&activated, &product(&gate)], &gated, vec![])?;
                activated = gated;
            }
        }
        let name = at(tensors.narrow);
        let weight = self.weight_of(&name, intermediate, hidden)?;
        self.linear_of(&activated, intermediate, &name, &weight)?;
        if is_normed_after {
            let sum = self.skip_sum(&name, &normed, at("output_sum"))?;
            self.builder.layer_norm(&sum, &at(tensors.output_norm), &output)?;
            // It is one of all layers, and stays in f32.
            return self.builder.convolution(layer);
        }
        if layer + 1 < shape.layers {
            return self.skip_sum(&name, &sum, output).map(drop);
        }
        let last = self.skip_sum(&name, &sum, at("output_sum"))?;
        self.builder.layer_norm(&last, shape.family.embeddings.last_norm, &output)
    }

    /// Adds `product + bias + skip` for a linear layer's product, to be normalised, and returns its name.
    ///
    /// `SkipLayerNormalization` is six times as slow on a CPU. The sum is computed on rows and reshaped afterwards, so
    /// that ONNX Runtime does not fuse it into that operator.
    fn skip_sum(&mut self, name: &str, skip: &str, output: String) -> Result<String> {
        let hidden = self.builder.shape.hidden;
        let at = |what: &str| format!("{name}.{what}");
        let mut branch = product(name);
        if self.builder.shape.has_bias(name) {
            self.onnx("Add", &[&branch, &at("bias")], &at("biased"), vec![])?;
            branch = at("biased");
        }
        self.onnx("Reshape", &[skip, &rows_of(hidden)], &at("skip"), vec![])?;
        self.onnx("Add", &[&branch, &at("skip")], &at("sum"), vec![])?;
        self.onnx("Reshape", &[&at("sum"), "states_shape"], &output, vec![])?;
        Ok(output)
    }

    fn attention(&mut self, layer: usize) -> Result<()> {
        let shape = self.builder.shape;
        let (hidden, tensors) = (shape.hidden, shape.family.tensors);
        let at = |name: &str| format!("{}.{layer}.{name}", tensors.layers);
        let names = tensors.projections.map(at);
        let mut input = self.builder.attention_input(layer)?;
        let n_exact = if shape.family.layer.norms == Norms::Before { 2 } else { 0 };
        let (exact, names_in_8_bits) = names.split_at(n_exact);
        for name in exact {
            let weight = self.builder.linear_weight(name, hidden, hidden)?;
            self.builder.matmul(&input, &weight, &format!("{name}.windows"))?;
        }
        let weights = names_in_8_bits.iter().map(|name| self.weight_of(name, hidden, hidden));
        let mut weights: Vec<Vec<f32>> = weights.collect::<Result<_>>()?;
        if let Some(norm) = self.norm_before(layer) {
            // Use the factors for the values, in which errors matter most: queries and keys only weight them.
            let factors = self.factors(&norm, &weights[weights.len() - 1])?;
            input = self.smooth(&input, &factors)?;
            for weight in &mut weights {
                multiply_columns(weight, &factors);
            }
        }
        let weights = weights.iter().map(|weight| Quantized::new(weight, hidden));
        let weights: Vec<Quantized> = weights.collect();
        let n_corrections = weights.iter().map(Quantized::n_corrections).max();
        let rows = self.quantized_rows(&input, hidden, n_corrections.unwrap_or(0))?;
        for (name, weight) in names_in_8_bits.iter().zip(&weights) {
            self.product(&rows, name, weight)?;
            self.in_windows(name, &format!("{name}.windows"))?;
        }
        if shape.family.has_attention_of_parts() {
            let states = self.with_biases(&names)?;
            return self.builder.attention_of_states(layer, states);
        }
        let mut bias = Vec::with_capacity(3 * hidden);
        for name in &names {
            bias.extend(self.builder.stored(&format!("{name}.bias"), &[hidden])?);
        }
        self.builder.initializer(&at("qkv.bias"), &[3 * hidden], &bias)?;
        let [query, key, value] = names.each_ref().map(|name| format!("{name}.windows"));
        let biases = at("qkv.bias");
        let mask = self.builder.input("attention_mask");
        let mut inputs = vec![&query[..], &key, &value, &biases, &mask];
        inputs.extend(attention_bias::scores(shape));
        self.builder.node(
            "MultiHeadAttention",
            CONTRIB_DOMAIN,
            &inputs,
            &[&at("attention")],
            vec![self.builder.num_heads()],
        )
    }

    /// Adds the projections of attention with their biases; returns their names.
    fn with_biases(&mut self, names: &[String; 3]) -> Result<Vec<String>> {
        let shape = self.builder.shape;
        // Distances are few, so their keys and queries are computed in f32.
        let shares = shape.disentangled.is_some_and(|distances| distances.shares_projections);
        let mut states = Vec::new();
        for (place, name) in names.iter().enumerate() {
            let windows = format!("{name}.windows");
            let has_bias = shape.has_bias(name);
            if shares && place < 2 {
                self.builder.linear(name, shape.hidden, shape.hidden)?;
            } else if has_bias {
                self.builder.weight(&format!("{name}.bias"), &[shape.hidden])?;
            }
            if !has_bias {
                states.push(windows);
                continue;
            }
            let biased = format!("{name}.states");
            self.onnx("Add", &[&windows, &format!("{name}.bias")], &biased, vec![])?;
            states.push(biased);
        }
        Ok(states)
    }

    /// Adds the product of a state and a linear layer's weight, `[T, N]`, and the layer's bias, if it has one, as an
    /// initialiser.
    fn linear_of(
        &mut self,
        input: &str,
        n_inputs: usize,
        name: &str,
        weight: &[f32],
    ) -> Result<()> {
        let weight = Quantized::new(weight, n_inputs);
        let rows = self.quantized_rows(input, n_inputs, weight.n_corrections())?;
        self.product(&rows, name, &weight)?;
        if !self.builder.shape.has_bias(name) {
            return Ok(());
        }
        self.builder.weight(&format!("{name}.bias"), &[weight.n_outputs()])
    }

    /// Returns the weight of a linear layer as it is stored, `[out, in]`.
    fn weight_of(&self, name: &str, inputs: usize, outputs: usize) -> Result<Vec<f32>> {
        self.builder.stored(&format!("{name}.weight"), &[outputs, inputs])
    }

    /// Returns the normalisation that produces the input of a layer; `None` if the embeddings are projected in between.
    fn norm_before(&self, layer: usize) -> Option<String> {
        let shape = self.builder.shape;
        let tensors = shape.family.tensors;
        match (layer.checked_sub(1), shape.family.layer.norms) {
            (Some(before), Norms::After) => Some(self.builder.last_norm_of(before)),
            (Some(_), Norms::Before) => {
                Some(format!("{}.{layer}.{}", tensors.layers, tensors.attention_norm))
            }
            (None, _) => {
                (!shape.projects_embeddings()).then(|| shape.family.embeddings.norm.into())
            }
        }
    }

    /// Returns the smoothing factors of a state for a weight that multiplies it.
    fn factors(&self, norm: &str, weight: &[f32]) -> Result<Vec<f32>> {
        let hidden = self.builder.shape.hidden;
        let gamma = self.builder.stored(&format!("{norm}.weight"), &[hidden])?;
        let beta = if self.builder.shape.norm_bias {
            self.builder.stored(&format!("{norm}.bias"), &[hidden])?
        } else {
            vec![0.0; hidden]
        };
        Ok(smoothing(&gamma, &beta, weight))
    }

    /// Divides a state by its smoothing factors.
    fn smooth(&mut self, input: &str, factors: &[f32]) -> Result<String> {
        let [reciprocals, output] = ["smoothing", "smooth"].map(|name| format!("{input}.{name}"));
        let values: Vec<f32> = factors.iter().map(|factor| 1.0 / factor).collect();
        self.builder.initializer(&reciprocals, &[values.len()], &values)?;
        self.onnx("Mul", &[input, &reciprocals], &output, vec![])?;
        Ok(output)
    }

    /// Quantises rows to 8 bits, each by its own range.
    fn quantized_rows(
        &mut self,
        input: &str,
        n_inputs: usize,
        n_corrections: usize,
    ) -> Result<QuantizedRows> {
        let at = |name: &str| format!("{input}.{name}");
        let rows = at("rows");
        self.onnx("Reshape", &[input, &rows_of(n_inputs)], &rows, vec![])?;
        for (operator, extreme) in [("ReduceMax", at("max")), ("ReduceMin", at("min"))] {
            let over_columns = attribute("axes", vec![-1i64]);
            let attributes = vec![over_columns, attribute("keepdims", 0i64)];
            self.onnx(operator, &[&rows], &extreme, attributes)?;
        }
        self.onnx("Max", &[&at("max"), "least_range"], &at("high"), vec![])?;
        self.onnx("Min", &[&at("min"), "zero"], &at("low"), vec![])?;
        self.onnx("Sub", &[&at("high"), &at("low")], &at("range"), vec![])?;
        self.onnx("Mul", &[&at("range"), "step_of_range"], &at("step"), vec![])?;
        self.onnx("Neg", &[&at("low")], &at("depth"), vec![])?;
        let by_row = || vec![attribute("axis", 0i64)];
        // Without a zero point the operator outputs u8, the type that the rows' zero points need.
        self.onnx("QuantizeLinear", &[&at("depth"), &at("step")], &at("zero_point"), by_row())?;
        self.onnx(
            "QuantizeLinear",
            &[&rows, &at("step"), &at("zero_point")],
            &at("int8"),
            by_row(),
        )?;
        for (name, column) in [("step", "steps"), ("zero_point", "zero_points")] {
            self.onnx("Unsqueeze", &[&at(name), "last_axis"], &at(column), vec![])?;
        }
        let repeated = at("repeated_shape");
        self.constant(&repeated, &[2], &[1, n_corrections as i64][..])?;
        let corrections = at("repeated_zero_points");
        self.onnx("Expand", &[&at("zero_points"), &repeated], &corrections, vec![])?;
        let values = at("quantized");
        let beside = vec![attribute("axis", 1i64)];
        self.onnx("Concat", &[&at("int8"), &corrections], &values, beside)?;
        Ok(QuantizedRows { values, steps: at("steps"), n_corrections })
    }

    /// Multiplies rows by a quantised weight, giving `[T, N]` in f32 under the name of [`product`].
    fn product(&mut self, rows: &QuantizedRows, name: &str, weight: &Quantized) -> Result<()> {
        let n_outputs = weight.n_outputs();
        let shape = [weight.n_inputs + rows.n_corrections, n_outputs];
        let mut values = weight.values.clone();
        values.extend(weight.corrections(rows.n_corrections));
        let int8 = format!("{name}.int8");
        match self.form {
            WeightForm::Signed => self.constant(&int8, &shape, &values[..])?,
            WeightForm::Unsigned => {
                let shifted = values.iter().map(|value| (i16::from(*value) + 128) as u8);
                self.constant(&int8, &shape, &shifted.collect::<Vec<u8>>()[..])?;
            }
        }
        let scales = format!("{name}.scales");
        self.builder.initializer(&scales, &[n_outputs], &weight.scales)?;
        let mut inputs = vec![&rows.values[..], &int8, "one", &scales, "no_zero_point"];
        if self.form == WeightForm::Unsigned {
            inputs.push("weight_zero_point");
        }
        let of_steps = format!("{name}.of_steps");
        self.builder.node("MatMulIntegerToFloat", CONTRIB_DOMAIN, &inputs, &[&of_steps], vec![])?;
        self.onnx("Mul", &[&of_steps, &rows.steps], &product(name), vec![])
    }

    /// Reshapes the product of a linear layer to `[B, S, H]`.
    fn in_windows(&mut self, name: &str, output: &str) -> Result<()> {
        self.onnx("Reshape", &[&product(name), "states_shape"], output, vec![])
    }

    fn onnx(
        &mut self,
        operator: &str,
        inputs: &[&str],
        output: &str,
        attributes: Vec<NodeAttribute>,
    ) -> Result<()> {
        self.builder.node(operator, ONNX_DOMAIN, inputs, &[output], attributes)
    }

    /// Adds an initialiser of any type.
    fn constant<'v>(
        &mut self,
        name: &str,
        shape: &[usize],
        values: impl Into<TensorValues<'v>>,
    ) -> Result<()> {
        self.builder.add_once(name, shape, values.into())
    }
}

/// Multiplies the columns of a weight, stored as `[out, in]`, by one factor per input.
fn multiply_columns(weight: &mut [f32], factors: &[f32]) {
    for row in weight.chunks_exact_mut(factors.len()) {
        for (value, factor) in row.iter_mut().zip(factors) {
            *value *= factor;
        }
    }
}

/// Returns the name of the shape `[T, n]`.
fn rows_of(n: usize) -> String {
    format!("rows_of_{n}")
}

/// Returns the name of a linear layer's product, without its bias.
fn product(name: &str) -> String {
    format!("{name}.product")
}

#[cfg(test)]
mod tests;

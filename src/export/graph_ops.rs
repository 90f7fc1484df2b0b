//! Short names for the operators of ONNX that heads are made of.

use crate::{
    encoder::{
        graph_target::{NodeAttribute, attribute},
        onnx_writer::OnnxGraph,
    },
    error::Result,
};

/// A graph to which values are added; each method returns the name of the new one.
pub(super) struct GraphOps {
    pub(super) graph: OnnxGraph,
}

/// The number of f32 in ONNX.
const FLOAT: i64 = 1;

impl GraphOps {
    pub(super) fn apply(&mut self, operator: &str, inputs: &[&str]) -> Result<String> {
        self.graph.apply(operator, inputs, &[])
    }

    fn with(
        &mut self,
        operator: &str,
        inputs: &[&str],
        attributes: &[NodeAttribute],
    ) -> Result<String> {
        self.graph.apply(operator, inputs, attributes)
    }

    pub(super) fn scalar(&mut self, value: f32) -> Result<String> {
        self.graph.constant(&[], &[value][..])
    }

    pub(super) fn vector(&mut self, values: &[f32]) -> Result<String> {
        self.graph.constant(&[values.len()], values)
    }

    pub(super) fn numbers(&mut self, values: &[i64]) -> Result<String> {
        self.graph.constant(&[values.len()], values)
    }

    pub(super) fn number(&mut self, value: i64) -> Result<String> {
        self.graph.constant(&[], &[value][..])
    }

    pub(super) fn scaled(&mut self, input: &str, factor: f32) -> Result<String> {
        let factor = self.scalar(factor)?;
        self.apply("Mul", &[input, &factor])
    }

    /// Adds `input W + bias`, for a weight `[out, in]` as heads store it.
    pub(super) fn linear(
        &mut self,
        input: &str,
        weight: &[f32],
        n_outputs: usize,
        bias: Option<&[f32]>,
    ) -> Result<String> {
        let n_inputs = weight.len() / n_outputs;
        let mut transposed = vec![0.0; weight.len()];
        for (output, row) in weight.chunks_exact(n_inputs).enumerate() {
            for (input, value) in row.iter().enumerate() {
                transposed[input * n_outputs + output] = *value;
            }
        }
        let weight = self.graph.constant(&[n_inputs, n_outputs], &transposed[..])?;
        let product = self.apply("MatMul", &[input, &weight])?;
        match bias {
            Some(bias) => {
                let bias = self.vector(bias)?;
                self.apply("Add", &[&product, &bias])
            }
            None => Ok(product),
        }
    }

    pub(super) fn float(&mut self, input: &str) -> Result<String> {
        self.with("Cast", &[input], &[attribute("to", FLOAT)])
    }

    pub(super) fn softmax(&mut self, input: &str, axis: i64) -> Result<String> {
        self.with("Softmax", &[input], &[attribute("axis", axis)])
    }

    pub(super) fn concat(&mut self, inputs: &[String], axis: i64) -> Result<String> {
        if let [only] = inputs {
            return Ok(only.clone());
        }
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        self.with("Concat", &inputs, &[attribute("axis", axis)])
    }

    /// Takes one place of an axis, which vanishes.
    pub(super) fn take(&mut self, input: &str, place: i64, axis: i64) -> Result<String> {
        let place = self.number(place)?;
        self.with("Gather", &[input, &place], &[attribute("axis", axis)])
    }

    /// Takes places `start..end` of an axis.
    pub(super) fn slice(&mut self, input: &str, start: i64, end: i64, axis: i64) -> Result<String> {
        let [start, end, axis] = [start, end, axis];
        let start = self.numbers(&[start])?;
        let end = self.numbers(&[end])?;
        let axis = self.numbers(&[axis])?;
        self.apply("Slice", &[input, &start, &end, &axis])
    }

    pub(super) fn unsqueeze(&mut self, input: &str, axes: &[i64]) -> Result<String> {
        let axes = self.numbers(axes)?;
        self.apply("Unsqueeze", &[input, &axes])
    }

    pub(super) fn transpose(&mut self, input: &str, permutation: &[i64]) -> Result<String> {
        self.with("Transpose", &[input], &[attribute("perm", permutation.to_vec())])
    }

    pub(super) fn sum(&mut self, input: &str, axis: i64, keeps: bool) -> Result<String> {
        let axes = self.numbers(&[axis])?;
        self.with("ReduceSum", &[input, &axes], &[attribute("keepdims", i64::from(keeps))])
    }

    /// Takes the largest value along an axis.
    pub(super) fn largest(&mut self, input: &str, axis: i64, keeps: bool) -> Result<String> {
        let attributes = [attribute("axes", vec![axis]), attribute("keepdims", i64::from(keeps))];
        self.with("ReduceMax", &[input], &attributes)
    }

    /// Adds layer normalisation over the last axis.
    pub(super) fn layer_norm(
        &mut self,
        input: &str,
        gain: &[f32],
        bias: &[f32],
        epsilon: f32,
    ) -> Result<String> {
        let gain = self.vector(gain)?;
        let bias = self.vector(bias)?;
        self.with("LayerNormalization", &[input, &gain, &bias], &[attribute("epsilon", epsilon)])
    }

    /// Adds an activation by its name; `identity` adds nothing.
    pub(super) fn activation(&mut self, name: &str, input: &str) -> Result<String> {
        match name {
            "tanh" => self.apply("Tanh", &[input]),
            "relu" => self.apply("Relu", &[input]),
            "sigmoid" => self.apply("Sigmoid", &[input]),
            "silu" => {
                let sigmoid = self.apply("Sigmoid", &[input])?;
                self.apply("Mul", &[input, &sigmoid])
            }
            "gelu" => {
                let scaled = self.scaled(input, std::f32::consts::FRAC_1_SQRT_2)?;
                let erf = self.apply("Erf", &[&scaled])?;
                let one = self.scalar(1.0)?;
                let doubled = self.apply("Add", &[&erf, &one])?;
                let product = self.apply("Mul", &[input, &doubled])?;
                self.scaled(&product, 0.5)
            }
            _ => Ok(input.to_string()),
        }
    }

    /// Pools with a sliding window along the last axis of `[batch, 1, length]`: the largest value, or the sum.
    pub(super) fn sliding_largest(&mut self, input: &str, width: usize) -> Result<String> {
        let reach = (width / 2) as i64;
        let attributes = [
            attribute("kernel_shape", vec![width as i64]),
            attribute("pads", vec![reach, reach]),
            attribute("strides", vec![1i64]),
        ];
        self.with("MaxPool", &[input], &attributes)
    }

    pub(super) fn sliding_sum(&mut self, input: &str, width: usize) -> Result<String> {
        let reach = (width / 2) as i64;
        let ones = self.graph.constant(&[1, 1, width], &vec![1.0f32; width][..])?;
        let attributes =
            [attribute("kernel_shape", vec![width as i64]), attribute("pads", vec![reach, reach])];
        self.with("Conv", &[input, &ones], &attributes)
    }
}

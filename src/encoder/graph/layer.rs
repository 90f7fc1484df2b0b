//! A layer, put together from the parts that its family names.

use ort::editor::ONNX_DOMAIN;

use super::{CONTRIB_DOMAIN, GraphBuilder, GraphTarget, attention_bias, attribute, output_name};
use crate::{
    encoder::family::{Attention, EncoderActivation, FeedForward, Norms},
    error::Result,
};

impl<T: GraphTarget> GraphBuilder<'_, T> {
    pub(super) fn layer(&mut self, layer: usize) -> Result<()> {
        let tensors = self.shape.family.tensors;
        let at = |name: &str| format!("{}.{layer}.{name}", tensors.layers);
        let hidden = self.shape.hidden;
        match self.shape.family.layer.attention {
            Attention::Plain | Attention::Alibi if self.is_ordinary => {
                self.ordinary_attention(layer)?;
            }
            Attention::Plain | Attention::Alibi => self.fused_attention(layer)?,
            Attention::Rotary(_) | Attention::Disentangled => self.attention_of_parts(layer)?,
        }
        self.linear(&at(tensors.attention_output), hidden, hidden)?;
        self.after_attention(layer)
    }

    /// Adds the attention of a layer with its projections as one operator.
    fn fused_attention(&mut self, layer: usize) -> Result<()> {
        let tensors = self.shape.family.tensors;
        let at = |name: &str| format!("{}.{layer}.{name}", tensors.layers);
        self.query_key_value(layer)?;
        let (input, weight, bias) = (output_name(layer), at("qkv.weight"), at("qkv.bias"));
        let mask = self.input("attention_mask");
        let mut inputs = vec![&input[..], &weight, &bias, &mask];
        if let Some(scores) = attention_bias::scores(self.shape) {
            // The input before it holds states of earlier tokens, which an encoder does not have.
            inputs.extend(["", scores]);
        }
        self.node("Attention", CONTRIB_DOMAIN, &inputs, &[&at("attention")], vec![self.num_heads()])
    }

    /// Adds the input of a layer's attention, if it is normalised before, and returns its name.
    pub(super) fn attention_input(&mut self, layer: usize) -> Result<String> {
        let shape = self.shape;
        let tensors = shape.family.tensors;
        // The embeddings are normalised already.
        if shape.family.layer.norms == Norms::After || layer == 0 {
            return Ok(output_name(layer));
        }
        let at = |name: &str| format!("{}.{layer}.{name}", tensors.layers);
        let normed = at("input_normed");
        self.layer_norm(&output_name(layer), &at(tensors.attention_norm), &normed)?;
        Ok(normed)
    }

    /// Adds the rest of a layer, given the output of its attention and the weights of the dense layer after it.
    pub(super) fn after_attention(&mut self, layer: usize) -> Result<()> {
        let shape = self.shape;
        let tensors = shape.family.tensors;
        let at = |name: &str| format!("{}.{layer}.{name}", tensors.layers);
        let output = at(tensors.attention_output);
        let (input, normed) = (output_name(layer), at("attention_normed"));
        self.matmul(&at("attention"), &format!("{output}.weight"), &at("attended"))?;
        if shape.family.layer.norms == Norms::After {
            let norm = at(tensors.attention_norm);
            self.skip_layer_norm(&[&at("attended"), &input], &output, &norm, &normed)?;
            self.feed_forward(layer, &normed)?;
            let (narrow, norm) = (at(tensors.narrow), at(tensors.output_norm));
            let summands = [&at("narrowed")[..], &normed];
            self.skip_layer_norm(&summands, &narrow, &norm, &self.before_convolution(layer))?;
            return self.convolution(layer);
        }
        let sum = at("attention_sum");
        self.biased_sum(&[&at("attended"), &input], &output, &sum)?;
        self.layer_norm(&sum, &at(tensors.output_norm), &normed)?;
        self.feed_forward(layer, &normed)?;
        let summands = [&at("narrowed")[..], &sum];
        if layer + 1 < shape.layers {
            return self.biased_sum(&summands, &at(tensors.narrow), &output_name(layer + 1));
        }
        let last = at("output_sum");
        self.biased_sum(&summands, &at(tensors.narrow), &last)?;
        self.layer_norm(&last, shape.family.embeddings.last_norm, &output_name(layer + 1))
    }

    /// Adds the feed-forward half of a layer up to the product with its last weight, without that one's bias.
    fn feed_forward(&mut self, layer: usize, input: &str) -> Result<()> {
        let shape = self.shape;
        let (hidden, intermediate) = (shape.hidden, shape.intermediate);
        let tensors = shape.family.tensors;
        let at = |name: &str| format!("{}.{layer}.{name}", tensors.layers);
        let widen = at(tensors.widen);
        self.linear(&widen, hidden, intermediate)?;
        self.matmul(input, &format!("{widen}.weight"), &at("widened"))?;
        let mut activated = at("activated");
        match shape.family.layer.feed_forward {
            FeedForward::Plain => {
                self.activate(&at("widened"), Some(&format!("{widen}.bias")), &activated)?;
            }
            FeedForward::Gated(gate) => {
                self.activate(&at("widened"), None, &activated)?;
                let weight = self.transposed(&at(gate), hidden, intermediate)?;
                let name = format!("{}.weight", at(gate));
                self.initializer(&name, &[hidden, intermediate], &weight)?;
                self.matmul(input, &name, &at("gate"))?;
                let gated = at("gated");
                self.node("Mul", ONNX_DOMAIN, &[&activated, &at("gate")], &[&gated], vec![])?;
                activated = gated;
            }
        }
        let narrow = at(tensors.narrow);
        self.linear(&narrow, intermediate, hidden)?;
        self.matmul(&activated, &format!("{narrow}.weight"), &at("narrowed"))
    }

    pub(super) fn matmul(&mut self, input: &str, weight: &str, output: &str) -> Result<()> {
        self.node("MatMul", ONNX_DOMAIN, &[input, weight], &[output], vec![])
    }

    /// Adds the activation of `input + bias`.
    pub(super) fn activate(&mut self, input: &str, bias: Option<&str>, output: &str) -> Result<()> {
        if self.is_ordinary {
            return self.ordinary_activation(input, bias, output);
        }
        let (operator, attributes) = match (self.shape.activation, bias) {
            (EncoderActivation::Gelu, Some(_)) => ("BiasGelu", vec![]),
            (EncoderActivation::Gelu, None) => ("Gelu", vec![]),
            (EncoderActivation::GeluTanh, _) => ("FastGelu", vec![]),
            // It takes no bias; the families that have it have none.
            (EncoderActivation::Silu, _) => ("QuickGelu", vec![attribute("alpha", 1.0f32)]),
        };
        let inputs: Vec<&str> = [Some(input), bias].into_iter().flatten().collect();
        self.node(operator, CONTRIB_DOMAIN, &inputs, &[output], attributes)
    }

    /// Adds `LayerNorm(branch + skip + bias)`, with the bias of the linear layer `of`.
    fn skip_layer_norm(
        &mut self,
        summands: &[&str; 2],
        of: &str,
        norm: &str,
        output: &str,
    ) -> Result<()> {
        if self.is_ordinary || self.adds_apart {
            let sum = format!("{output}.sum");
            let branch = format!("{output}.branch");
            let norm = self.norm(norm, self.shape.hidden)?;
            self.biased_sum_by(summands, of, &branch, &sum)?;
            return self.normalise(&sum, &norm, output);
        }
        let norm = self.norm(norm, self.shape.hidden)?;
        let bias = format!("{of}.bias");
        let mut inputs = summands.to_vec();
        inputs.extend(norm.iter().map(String::as_str));
        if self.shape.has_bias(of) {
            inputs.push(&bias);
        }
        let epsilon = vec![attribute("epsilon", self.shape.layer_norm_epsilon)];
        self.node("SkipLayerNormalization", CONTRIB_DOMAIN, &inputs, &[output], epsilon)
    }

    /// Adds `branch + skip`, and the bias of the linear layer `of` if it has one.
    fn biased_sum(&mut self, summands: &[&str; 2], of: &str, output: &str) -> Result<()> {
        self.biased_sum_by(summands, of, &format!("{output}.branch"), output)
    }

    fn biased_sum_by(
        &mut self,
        summands: &[&str; 2],
        of: &str,
        branch: &str,
        output: &str,
    ) -> Result<()> {
        let [given, skip] = *summands;
        let bias = format!("{of}.bias");
        let mut first = given;
        if self.shape.has_bias(of) {
            self.node("Add", ONNX_DOMAIN, &[given, &bias], &[branch], vec![])?;
            first = branch;
        }
        self.node("Add", ONNX_DOMAIN, &[first, skip], &[output], vec![])
    }

    /// Adds a normalisation with its weights.
    pub(super) fn layer_norm(&mut self, input: &str, norm: &str, output: &str) -> Result<()> {
        let norm = self.norm(norm, self.shape.hidden)?;
        self.normalise(input, &norm, output)
    }

    /// Adds a normalisation, given the names of its weights.
    pub(super) fn normalise(&mut self, input: &str, norm: &[String], output: &str) -> Result<()> {
        let mut inputs = vec![input];
        inputs.extend(norm.iter().map(String::as_str));
        let epsilon = vec![attribute("epsilon", self.shape.layer_norm_epsilon)];
        self.node("LayerNormalization", ONNX_DOMAIN, &inputs, &[output], epsilon)
    }
}

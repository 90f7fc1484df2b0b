//! The convolution over neighbouring tokens that a family may add to its first layer (the larger ones of DeBERTa v2).
//!
//! ```text
//! c  = activation(Conv(mask x0))                   x0: the embeddings; beyond the ends of a text and in its padding, 0
//! x1 = LayerNormalization(c + the output of the first layer)
//! ```

use ort::editor::ONNX_DOMAIN;

use super::{GraphBuilder, GraphTarget, attribute, output_name};
use crate::error::Result;

/// f32 `[B, S, H]`: the output of the first layer, to which the convolution is added.
const FIRST_LAYER: &str = "convolution.first_layer";

impl<T: GraphTarget> GraphBuilder<'_, T> {
    /// Returns the name of a layer's output before the convolution, or that of its states if none follows.
    pub(super) fn before_convolution(&self, layer: usize) -> String {
        let is_followed = layer == 0 && self.shape.convolution.is_some();
        if is_followed { FIRST_LAYER.into() } else { output_name(layer + 1) }
    }

    /// Returns the normalisation that a layer's states come from.
    pub(super) fn last_norm_of(&self, layer: usize) -> String {
        match self.shape.convolution {
            Some(convolution) if layer == 0 => format!("{}.LayerNorm", convolution.tensors),
            _ => {
                let tensors = self.shape.family.tensors;
                format!("{}.{layer}.{}", tensors.layers, tensors.output_norm)
            }
        }
    }

    /// Adds the convolution, if one follows the layer.
    pub(super) fn convolution(&mut self, layer: usize) -> Result<()> {
        let Some(convolution) = self.shape.convolution.filter(|_| layer == 0) else {
            return Ok(());
        };
        let (hidden, groups) = (self.shape.hidden, convolution.groups);
        let at = |name: &str| format!("convolution.{name}");
        // A token beside padding has the states that it has at the end of a text alone.
        let mask = self.input("attention_mask");
        let float = self.to_float();
        self.node("Cast", ONNX_DOMAIN, &[&mask], &[&at("real")], float)?;
        self.graph.add_tensor(&at("axis"), &[1], [2i64][..].into())?;
        self.node("Unsqueeze", ONNX_DOMAIN, &[&at("real"), &at("axis")], &[&at("mask")], vec![])?;
        let inputs = [&output_name(0)[..], &at("mask")];
        self.node("Mul", ONNX_DOMAIN, &inputs, &[&at("tokens")], vec![])?;
        let swapped = || vec![attribute("perm", vec![0i64, 2, 1])];
        self.node("Transpose", ONNX_DOMAIN, &[&at("tokens")], &[&at("values")], swapped())?;

        let named = |part: &str| format!("{}.conv.{part}", convolution.tensors);
        let [weight, bias] = ["weight", "bias"].map(named);
        self.weight(&weight, &[hidden, hidden / groups, convolution.kernel])?;
        self.weight(&bias, &[hidden])?;
        let side = (convolution.kernel / 2) as i64;
        let attributes = vec![
            attribute("kernel_shape", vec![convolution.kernel as i64]),
            attribute("pads", vec![side, side]),
            attribute("group", groups as i64),
        ];
        let inputs = [&at("values")[..], &weight, &bias];
        self.node("Conv", ONNX_DOMAIN, &inputs, &[&at("sums")], attributes)?;
        self.node("Transpose", ONNX_DOMAIN, &[&at("sums")], &[&at("states")], swapped())?;
        if convolution.is_tanh {
            self.node("Tanh", ONNX_DOMAIN, &[&at("states")], &[&at("activated")], vec![])?;
        } else {
            self.activate(&at("states"), None, &at("activated"))?;
        }
        let summands = [&at("activated")[..], FIRST_LAYER];
        self.node("Add", ONNX_DOMAIN, &summands, &[&at("sum")], vec![])?;
        let norm = self.norm(&self.last_norm_of(layer), hidden)?;
        self.normalise(&at("sum"), &norm, &output_name(layer + 1))
    }
}

//! The parts of the graph in operators of ONNX itself (opset 17), for files that any runtime can run.
//!
//! ```text
//! x0 = LayerNormalization(Gather(word) + Gather(position) + Gather(type))
//! a  = Softmax(Q K' / sqrt(D) + mask + the relative bias, if the family has one) V      Q, K, V: x W + b by head
//! y  = LayerNormalization(a Wo + bo + x)
//! x' = LayerNormalization(Gelu(y Wi + bi) Wd + bd + y)                    Gelu(z) = z (1 + Erf(z / sqrt(2))) / 2
//!                                                                         GeluTanh: Tanh(.) for Erf(.), as in the code
//! ```

use ort::editor::ONNX_DOMAIN;

use super::{
    GraphBuilder, GraphTarget, POSITION_IDS, POSITIONS, TOKEN_TYPES, attention_bias, attribute,
    output_name,
};
use crate::{encoder::family::EncoderActivation, error::Result};

/// f32 `[B, 1, 1, S]`, or `[B, heads, S, S]` with a relative bias: what is added to the scores of attention.
const SCORE_BIAS: &str = "attention.bias";

/// What is added to the score of a padding token. Its share is then 0 in f32, whatever the score.
const MASKED: f32 = -1e9;

pub(super) const HEAD_SHAPE: &str = "attention.head_shape";
const JOINED_SHAPE: &str = "attention.joined_shape";
const SCALE: &str = "attention.scale";
const ONE: &str = "ordinary.one";
const HALF: &str = "ordinary.half";
const ROOT_OF_HALF: &str = "ordinary.root_of_half";

impl<T: GraphTarget> GraphBuilder<'_, T> {
    /// Adds an operator without attributes.
    fn ordinary(&mut self, operator: &str, inputs: &[&str], output: &str) -> Result<()> {
        self.node(operator, ONNX_DOMAIN, inputs, &[output], vec![])
    }

    /// Adds the normalised sum of the embeddings by operators of their own, which is layer 0 unless they are projected.
    pub(super) fn embeddings_apart(&mut self) -> Result<()> {
        if self.is_ordinary {
            self.ordinary_constants()?;
        }
        self.embedding_tables()?;
        let ids = self.input("input_ids");
        let mut sum = "embeddings.words";
        self.ordinary("Gather", &[&self.words(), &ids], sum)?;
        let has_positions = self.shape.family.has_position_table();
        if has_positions {
            self.ordinary("Gather", &[POSITIONS, POSITION_IDS], "embeddings.positions")?;
            self.ordinary("Add", &[sum, "embeddings.positions"], "embeddings.placed")?;
            sum = "embeddings.placed";
        }
        let types = if self.shape.token_types > 1 {
            let types = self.input("token_type_ids");
            self.ordinary("Gather", &[TOKEN_TYPES, &types], "embeddings.types")?;
            "embeddings.types"
        } else {
            // The only row is that of every token.
            TOKEN_TYPES
        };
        if has_positions || self.shape.token_types > 0 {
            self.ordinary("Add", &[sum, types], "embeddings.sum")?;
            sum = "embeddings.sum";
        }
        let name = self.shape.family.embeddings.norm;
        let mut norm = vec![format!("{name}.weight")];
        if self.shape.norm_bias {
            norm.push(format!("{name}.bias"));
        }
        self.normalise(sum, &norm, &self.normed_embeddings())?;
        self.project_embeddings()
    }

    fn ordinary_constants(&mut self) -> Result<()> {
        let (hidden, heads) = (self.shape.hidden, self.shape.attention_heads);
        let width = hidden / heads;
        let divisor = (width as f32).sqrt();
        let divisor = self.shape.disentangled.map_or(divisor, |terms| terms.divisor(width));
        // A size of 0 is that of the input.
        let head_shape = [0, 0, heads as i64, width as i64];
        self.graph.add_tensor(HEAD_SHAPE, &[4], head_shape[..].into())?;
        self.graph.add_tensor(JOINED_SHAPE, &[3], [0, 0, hidden as i64][..].into())?;
        self.initializer(SCALE, &[], &[1.0 / divisor])?;
        self.initializer(ONE, &[], &[1.0])?;
        self.initializer(HALF, &[], &[0.5])?;
        self.initializer(ROOT_OF_HALF, &[], &[std::f32::consts::FRAC_1_SQRT_2])
    }

    /// Adds what attention adds to its scores; must come after the relative bias.
    pub(super) fn ordinary_score_bias(&mut self) -> Result<()> {
        let mask = self.input("attention_mask");
        let float = vec![attribute("to", 1i64)];
        self.node("Cast", ONNX_DOMAIN, &[&mask], &["attention.real"], float)?;
        self.ordinary("Sub", &[ONE, "attention.real"], "attention.padding")?;
        self.initializer("attention.masked", &[], &[MASKED])?;
        self.ordinary("Mul", &["attention.padding", "attention.masked"], "attention.mask_row")?;
        self.graph.add_tensor("attention.mask_axes", &[2], [1i64, 2][..].into())?;
        let relative = attention_bias::scores(self.shape);
        let row = if relative.is_some() { "attention.mask_bias" } else { SCORE_BIAS };
        self.ordinary("Unsqueeze", &["attention.mask_row", "attention.mask_axes"], row)?;
        match relative {
            Some(scores) => self.ordinary("Add", &[row, scores], SCORE_BIAS),
            None => Ok(()),
        }
    }

    /// Adds a layer's attention, without the dense layer after it.
    pub(super) fn ordinary_attention(&mut self, layer: usize) -> Result<()> {
        let hidden = self.shape.hidden;
        let tensors = self.shape.family.tensors;
        let at = |name: &str| format!("{}.{layer}.{name}", tensors.layers);
        let input = output_name(layer);
        let by_head = [vec![0i64, 2, 1, 3], vec![0, 2, 3, 1], vec![0, 2, 1, 3]];
        let names = tensors.projections.map(at);
        for (name, permutation) in names.iter().zip(by_head) {
            self.linear(name, hidden, hidden)?;
            let of = |what: &str| format!("{name}.{what}");
            self.matmul(&input, &of("weight"), &of("product"))?;
            self.ordinary("Add", &[&of("product"), &of("bias")], &of("biased"))?;
            self.ordinary("Reshape", &[&of("biased"), HEAD_SHAPE], &of("split"))?;
            let permutation = vec![attribute("perm", permutation)];
            self.node("Transpose", ONNX_DOMAIN, &[&of("split")], &[&of("heads")], permutation)?;
        }
        let heads = names.each_ref().map(|name| format!("{name}.heads"));
        self.ordinary_attention_of_heads(layer, &heads, None)
    }

    /// Adds a layer's attention, given its queries `[B, heads, S, D]`, keys `[B, heads, D, S]` and values by head, and
    /// what the layer adds to its scores besides what all layers add.
    pub(super) fn ordinary_attention_of_heads(
        &mut self,
        layer: usize,
        [query, key, value]: &[String; 3],
        bias: Option<&str>,
    ) -> Result<()> {
        let tensors = self.shape.family.tensors;
        let at = |name: &str| format!("{}.{layer}.{name}", tensors.layers);
        self.ordinary("Mul", &[query, SCALE], &at("query.scaled"))?;
        self.matmul(&at("query.scaled"), key, &at("scores"))?;
        let mut biased = at("scores.biased");
        self.ordinary("Add", &[&at("scores"), SCORE_BIAS], &biased)?;
        if let Some(bias) = bias {
            let by_positions = at("scores.by_positions");
            self.ordinary("Add", &[&biased, bias], &by_positions)?;
            biased = by_positions;
        }
        let last = vec![attribute("axis", -1i64)];
        self.node("Softmax", ONNX_DOMAIN, &[&biased], &[&at("shares")], last)?;
        self.matmul(&at("shares"), value, &at("attended.heads"))?;
        let back = vec![attribute("perm", vec![0i64, 2, 1, 3])];
        let split = at("attended.split");
        self.node("Transpose", ONNX_DOMAIN, &[&at("attended.heads")], &[&split], back)?;
        self.ordinary("Reshape", &[&split, JOINED_SHAPE], &at("attention"))
    }

    /// Adds states by head `[B, heads, S, D]` turned by angles: `x cosines + (-x2, x1) sines`, where x1 and x2 are the
    /// halves of x. Returns their name.
    pub(super) fn ordinary_rotation(
        &mut self,
        heads: &str,
        angles: &[String; 2],
    ) -> Result<String> {
        let at = |name: &str| format!("{heads}.{name}");
        let last = || vec![attribute("axis", -1i64)];
        let halves = [at("first"), at("second")];
        let named = halves.each_ref().map(String::as_str);
        self.node("Split", ONNX_DOMAIN, &[heads], &named, last())?;
        self.ordinary("Neg", &[&halves[1]], &at("negative"))?;
        let across = at("across");
        self.node("Concat", ONNX_DOMAIN, &[&at("negative"), &halves[0]], &[&across], last())?;
        self.ordinary("Mul", &[heads, &angles[0]], &at("along_cosines"))?;
        self.ordinary("Mul", &[&across, &angles[1]], &at("along_sines"))?;
        let turned = at("turned");
        self.ordinary("Add", &[&at("along_cosines"), &at("along_sines")], &turned)?;
        Ok(turned)
    }

    /// Adds the activation of `input + bias`.
    pub(super) fn ordinary_activation(
        &mut self,
        input: &str,
        bias: Option<&str>,
        output: &str,
    ) -> Result<()> {
        let at = |name: &str| format!("{output}.{name}");
        let mut given = input.to_string();
        if let Some(bias) = bias {
            given = at("biased");
            self.ordinary("Add", &[input, bias], &given)?;
        }
        match self.shape.activation {
            EncoderActivation::Gelu => {
                self.ordinary("Mul", &[&given, ROOT_OF_HALF], &at("scaled"))?;
                self.ordinary("Erf", &[&at("scaled")], &at("erf"))?;
            }
            EncoderActivation::GeluTanh => {
                // sqrt(2 / pi) (z + 0.044715 z^3)
                let (cubic, root) = (at("cubic"), at("root"));
                self.ordinary("Mul", &[&given, &given], &at("square"))?;
                self.initializer(&cubic, &[], &[0.044_715])?;
                self.initializer(&root, &[], &[(2.0 / std::f32::consts::PI).sqrt()])?;
                self.ordinary("Mul", &[&at("square"), &cubic], &at("share"))?;
                self.ordinary("Add", &[&at("share"), ONE], &at("factor"))?;
                self.ordinary("Mul", &[&at("factor"), &given], &at("bent"))?;
                self.ordinary("Mul", &[&at("bent"), &root], &at("scaled"))?;
                self.ordinary("Tanh", &[&at("scaled")], &at("erf"))?;
            }
            EncoderActivation::Silu => {
                self.ordinary("Sigmoid", &[&given], &at("share"))?;
                return self.ordinary("Mul", &[&given, &at("share")], output);
            }
        }
        self.ordinary("Add", &[&at("erf"), ONE], &at("doubled"))?;
        self.ordinary("Mul", &[&given, &at("doubled")], &at("product"))?;
        self.ordinary("Mul", &[&at("product"), HALF], output)
    }
}

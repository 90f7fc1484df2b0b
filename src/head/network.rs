//! A head as a small network: its layers and the layout of their parameters.

mod encoder_layers;
mod output;
mod pass;
mod token_rows;

use std::ops::Range;

use encoder_layers::EncoderLayers;
pub(crate) use encoder_layers::{DistanceBiasSpec, EncoderLayersSpec};
pub(crate) use pass::{Dropout, NetworkInput, Trace};
use rand::{SeedableRng, distributions::Uniform};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};
use serde::{Deserialize, Serialize};
pub(crate) use token_rows::TokenPooling;

use super::{layers::activation::Activation, matching, pair};

/// Standard deviation of the initial weights of all but the hidden layers, as in BERT.
const INITIAL_DEVIATION: f32 = 0.02;

/// The layers of a head.
///
/// ```text
/// [mix of n_layers] -> [dropout] -> [attention pooling] -> hidden layers -> linear
/// layers of an encoder -> [pooling] -> [features of a pair] -> [dropout] -> hidden layers -> linear
/// hidden layer: linear -> [layer norm] -> activation -> [dropout] -> [+ skip]
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSpec {
    /// Number of encoder layers whose states an input row holds, concatenated; more than one are mixed.
    pub n_layers: usize,
    /// Size of the state of one encoder layer.
    pub n_features: usize,
    /// Whether attention pools the rows of a sample into one.
    pub attention: bool,
    /// Widths of the hidden layers.
    pub hidden: Vec<usize>,
    /// The activation function of the hidden layers.
    pub activation: Activation,
    /// Whether a hidden layer's input is added to its output: directly if both have the same width, otherwise through a
    /// learned projection without bias.
    pub skip: bool,
    /// Whether layer normalisation is applied in hidden layers before the activation.
    pub layer_norm: bool,
    /// Number of logits.
    pub n_outputs: usize,
    /// Whether the outputs are the emissions of a linear-chain CRF with learned scores.
    pub crf: bool,
    /// Layers of the encoder that are trained with the head: a sample's rows are the states below them, token by token.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub encoder_layers: Option<EncoderLayersSpec>,
}

impl NetworkSpec {
    /// A single matrix and its biases: `[n_features, n_outputs]` and `[n_outputs]`.
    ///
    /// ```
    /// use frostbert::internals::head::network::{Network, NetworkSpec};
    /// assert_eq!(Network::new(NetworkSpec::linear(384, 3)).n_parameters(), 384 * 3 + 3);
    /// ```
    pub fn linear(n_features: usize, n_outputs: usize) -> NetworkSpec {
        NetworkSpec {
            n_layers: 1,
            n_features,
            attention: false,
            hidden: Vec::new(),
            activation: Activation::default(),
            skip: false,
            layer_norm: false,
            n_outputs,
            crf: false,
            encoder_layers: None,
        }
    }

    /// Whether it is a single matrix and its biases.
    pub fn is_linear(&self) -> bool {
        let reads_rows = !self.attention && self.encoder_layers.is_none();
        self.hidden.is_empty() && reads_rows && self.n_layers == 1 && !self.crf
    }

    /// Whether there is one row of outputs for each sample, however many rows it has.
    pub fn pools(&self) -> bool {
        let layers = self.encoder_layers.as_ref();
        self.attention || layers.is_some_and(|layers| !layers.pooling.keeps_tokens())
    }

    /// Whether there is a row of outputs for each token that has one, above layers of an encoder.
    pub(crate) fn has_output_tokens(&self) -> bool {
        self.encoder_layers.is_some() && !self.pools()
    }

    /// Number of values of a row that the layers after mix and pooling read.
    pub(crate) fn n_read(&self) -> usize {
        match &self.encoder_layers {
            Some(layers) if layers.pooling == TokenPooling::Matching => {
                matching::width(self.n_features, 1)
            }
            Some(layers) if layers.pair && !self.attention => pair::width(self.n_features),
            _ => self.n_features,
        }
    }

    /// Number of values in an input row.
    pub fn n_inputs(&self) -> usize {
        self.n_layers * self.n_features
    }
}

/// One tensor among a network's parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorPlace {
    /// Its name as in PyTorch, such as `hidden.0.weight`.
    pub name: String,
    /// Its shape in row-major order; a linear layer's weights are `[outputs, inputs]`.
    pub shape: Vec<usize>,
    /// Its position in the parameter vector.
    pub range: Range<usize>,
}

/// The positions of a CRF's scores in the parameter vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrfRanges {
    /// `[from, to]`.
    pub transitions: Range<usize>,
    /// One score per output.
    pub start: Range<usize>,
    /// One score per output.
    pub end: Range<usize>,
}

/// A spec with its parameters laid out in one vector.
#[derive(Clone, Debug)]
pub struct Network {
    spec: NetworkSpec,
    tensors: Vec<TensorPlace>,
    encoder: Option<EncoderLayers>,
    mix: Option<Range<usize>>,
    query: Option<Range<usize>>,
    hidden: Vec<HiddenLayer>,
    output: Linear,
    crf: Option<CrfRanges>,
}

/// The position of a linear layer: `weight [outputs, inputs]`, then `bias [outputs]`.
#[derive(Clone, Debug)]
struct Linear {
    inputs: usize,
    outputs: usize,
    weight: Range<usize>,
    bias: Range<usize>,
}

#[derive(Clone, Debug)]
struct HiddenLayer {
    linear: Linear,
    /// Gain, then bias.
    norm: Option<[Range<usize>; 2]>,
    skip: Skip,
}

#[derive(Clone, Debug)]
enum Skip {
    None,
    Identity,
    /// `[outputs, inputs]`.
    Projection(Range<usize>),
}

impl Network {
    /// Lays out the parameters of a spec.
    ///
    /// ```
    /// use frostbert::internals::head::network::{Network, NetworkSpec};
    /// let network = Network::new(NetworkSpec { hidden: vec![8], ..NetworkSpec::linear(4, 3) });
    /// let names: Vec<&str> = network.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
    /// assert_eq!(names, ["hidden.0.weight", "hidden.0.bias", "weight", "bias"]);
    /// assert_eq!(network.n_parameters(), 4 * 8 + 8 + 8 * 3 + 3);
    /// ```
    ///
    /// # Panics
    /// Panics if a number of layers, features or outputs, or a width, is 0, or if layers of an encoder are those of
    /// several mixed layers.
    pub fn new(spec: NetworkSpec) -> Network {
        let sizes = [spec.n_layers, spec.n_features, spec.n_outputs];
        assert!(
            !sizes.iter().chain(&spec.hidden).any(|size| *size == 0),
            "a network of sizes from 1"
        );
        let mut layout = TensorLayout { tensors: Vec::new() };
        assert!(
            spec.n_layers == 1 || spec.encoder_layers.is_none(),
            "one layer below an encoder's"
        );
        let encoder = spec.encoder_layers.as_ref();
        let encoder = encoder.map(|own| EncoderLayers::new(own, spec.n_features, &mut layout));
        let mix = (spec.n_layers > 1).then(|| layout.tensor("mix.weight", &[spec.n_layers]));
        let query = spec.attention.then(|| layout.tensor("attention.query", &[spec.n_features]));
        let mut inputs = spec.n_read();
        let mut hidden = Vec::new();
        for (index, width) in spec.hidden.iter().copied().enumerate() {
            let prefix = format!("hidden.{index}.");
            let linear = layout.linear(&prefix, inputs, width);
            let norm = spec.layer_norm.then(|| {
                ["weight", "bias"]
                    .map(|name| layout.tensor(&format!("{prefix}norm.{name}"), &[width]))
            });
            let skip = if !spec.skip {
                Skip::None
            } else if inputs == width {
                Skip::Identity
            } else {
                Skip::Projection(layout.tensor(&format!("{prefix}skip.weight"), &[width, inputs]))
            };
            hidden.push(HiddenLayer { linear, norm, skip });
            inputs = width;
        }
        let output = layout.linear("", inputs, spec.n_outputs);
        let classes = spec.n_outputs;
        let crf = spec.crf.then(|| CrfRanges {
            transitions: layout.tensor("crf.transitions", &[classes, classes]),
            start: layout.tensor("crf.start", &[classes]),
            end: layout.tensor("crf.end", &[classes]),
        });
        Network { spec, tensors: layout.tensors, encoder, mix, query, hidden, output, crf }
    }

    /// The spec that the network was built from.
    pub fn spec(&self) -> &NetworkSpec {
        &self.spec
    }

    /// All tensors in the order of their positions, which leave no gaps.
    pub fn tensors(&self) -> &[TensorPlace] {
        &self.tensors
    }

    /// Length of the parameter vector.
    pub fn n_parameters(&self) -> usize {
        self.tensors.last().map_or(0, |tensor| tensor.range.end)
    }

    /// The positions of the CRF's scores, if there are any.
    pub fn crf_ranges(&self) -> Option<&CrfRanges> {
        self.crf.as_ref()
    }

    /// The places of the parameters of each of the encoder's layers, from the lowest.
    pub(crate) fn encoder_places(&self) -> &[Range<usize>] {
        match &self.encoder {
            Some(encoder) => encoder.places(),
            None => &[],
        }
    }

    /// Number of parameters of the encoder's layers, which come before all others. Some belong to no layer and are held
    /// fixed.
    pub fn n_encoder_parameters(&self) -> usize {
        self.encoder.as_ref().map_or(0, EncoderLayers::n_parameters)
    }

    /// Returns the initial parameters, which depend only on the spec and the seed. Those of the encoder's layers are 0.
    ///
    /// Output weights, query and projections are drawn from `normal(0, 0.02)`, hidden weights uniformly from
    /// `+-1 / sqrt(inputs)` (PyTorch's default for a linear layer). Gains are 1, everything else is 0. Output weights
    /// are drawn first, input by input, so those of a network without hidden layers do not depend on its other parts.
    pub fn initial(&self, seed: u64) -> Vec<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let normal = Normal::new(0.0, INITIAL_DEVIATION).expect("a finite deviation");
        let mut parameters = vec![0.0; self.n_parameters()];
        let output = &self.output;
        let weights = &mut parameters[output.weight.clone()];
        for input in 0..output.inputs {
            for class in 0..output.outputs {
                weights[class * output.inputs + input] = normal.sample(&mut rng);
            }
        }
        if let Some(range) = &self.query {
            parameters[range.clone()].fill_with(|| normal.sample(&mut rng));
        }
        for layer in &self.hidden {
            let bound = 1.0 / (layer.linear.inputs as f32).sqrt();
            let uniform = Uniform::new(-bound, bound);
            parameters[layer.linear.weight.clone()].fill_with(|| uniform.sample(&mut rng));
            if let Some([gain, _]) = &layer.norm {
                parameters[gain.clone()].fill(1.0);
            }
            if let Skip::Projection(range) = &layer.skip {
                parameters[range.clone()].fill_with(|| normal.sample(&mut rng));
            }
        }
        parameters
    }
}

/// Tensors that are laid out one after the other.
struct TensorLayout {
    tensors: Vec<TensorPlace>,
}

impl TensorLayout {
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Range<usize> {
        let start = self.tensors.last().map_or(0, |tensor| tensor.range.end);
        let range = start..start + shape.iter().product::<usize>();
        self.tensors.push(TensorPlace {
            name: name.into(),
            shape: shape.to_vec(),
            range: range.clone(),
        });
        range
    }

    fn linear(&mut self, prefix: &str, inputs: usize, outputs: usize) -> Linear {
        Linear {
            inputs,
            outputs,
            weight: self.tensor(&format!("{prefix}weight"), &[outputs, inputs]),
            bias: self.tensor(&format!("{prefix}bias"), &[outputs]),
        }
    }
}

#[cfg(test)]
mod tests;

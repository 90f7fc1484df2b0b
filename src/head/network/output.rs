//! Views of a network's parameters: its last layer, the weights of its layer mix, and the named tensors of a file.

use ndarray::{Array1, Array2, ArrayView1, ArrayView2};

use super::{super::crf::CrfScores, Network};

impl Network {
    /// Returns the last layer: weights `[inputs, outputs]` and biases `[outputs]`.
    ///
    /// # Panics
    /// Panics if the parameters do not belong to this network.
    pub fn output_layer(&self, parameters: &[f32]) -> (Array2<f32>, Array1<f32>) {
        let output = &self.output;
        let weights = &parameters[output.weight.clone()];
        let shape = (output.inputs, output.outputs);
        let weights =
            Array2::from_shape_fn(shape, |(input, class)| weights[class * output.inputs + input]);
        let bias = Array1::from(parameters[output.bias.clone()].to_vec());
        (weights, bias)
    }

    /// Replaces the last layer of the parameters by weights `[inputs, outputs]` and biases `[outputs]`.
    ///
    /// # Panics
    /// Panics if the shapes are not those of this network.
    pub fn with_output_layer(
        &self,
        mut parameters: Vec<f32>,
        weights: ArrayView2<'_, f32>,
        bias: ArrayView1<'_, f32>,
    ) -> Vec<f32> {
        let output = &self.output;
        assert_eq!(weights.dim(), (output.inputs, output.outputs));
        assert_eq!(bias.len(), output.outputs);
        let places = weights.indexed_iter();
        for ((input, class), weight) in places {
            parameters[output.weight.start + class * output.inputs + input] = *weight;
        }
        for (place, value) in parameters[output.bias.clone()].iter_mut().zip(bias) {
            *place = *value;
        }
        parameters
    }

    /// Parameters that are all zero.
    pub fn zeros(&self) -> Vec<f32> {
        vec![0.0; self.n_parameters()]
    }

    /// The share of each layer in the mix, `softmax(mix.weight)`; `None` if there is nothing to mix.
    pub fn layer_profile(&self, parameters: &[f32]) -> Option<Vec<f32>> {
        let scores = &parameters[self.mix.clone()?];
        let highest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let powers: Vec<f32> = scores.iter().map(|score| (score - highest).exp()).collect();
        let total: f32 = powers.iter().sum();
        Some(powers.into_iter().map(|power| power / total).collect())
    }

    /// The scores of its CRF.
    ///
    /// # Panics
    /// Panics if it has no CRF.
    pub fn crf_scores<'a>(&self, parameters: &'a [f32]) -> CrfScores<'a, f32> {
        let ranges = self.crf.as_ref().expect("a network with a CRF");
        let n = self.spec.n_outputs;
        let transitions = &parameters[ranges.transitions.clone()];
        CrfScores {
            transitions: ArrayView2::from_shape((n, n), transitions).expect("a square"),
            start: ArrayView1::from(&parameters[ranges.start.clone()]),
            end: ArrayView1::from(&parameters[ranges.end.clone()]),
        }
    }

    /// Number of tensors of the encoder's layers, which come before all others.
    pub(crate) fn n_encoder_tensors(&self) -> usize {
        let end = self.n_encoder_parameters();
        self.tensors.iter().take_while(|tensor| tensor.range.end <= end).count()
    }

    /// Returns every tensor with its name, shape and values.
    pub fn named_tensors(&self, parameters: &[f32]) -> Vec<(String, Vec<usize>, Vec<f32>)> {
        let tensors = self.tensors.iter();
        tensors
            .map(|tensor| {
                let values = parameters[tensor.range.clone()].to_vec();
                (tensor.name.clone(), tensor.shape.clone(), values)
            })
            .collect()
    }

    /// Builds the parameters from the values of every tensor, which are requested by name and shape.
    ///
    /// # Errors
    /// Returns the first error of `values_of`.
    pub fn from_named<E>(
        &self,
        values_of: impl Fn(&str, &[usize]) -> Result<Vec<f32>, E>,
    ) -> Result<Vec<f32>, E> {
        let mut parameters = self.zeros();
        for tensor in &self.tensors {
            let values = values_of(&tensor.name, &tensor.shape)?;
            parameters[tensor.range.clone()].copy_from_slice(&values);
        }
        Ok(parameters)
    }
}

//! A head as dense layers, one after the other: all that the classes of `transformers` and sentence-transformers know.

use std::collections::HashMap;

use ndarray::{Array1, Array2, ArrayView2, Axis, concatenate, s};

use crate::{
    encoder::portable::PortableTensor,
    head::{
        layers::activation::{Activation, forward},
        saved::Head,
    },
};

/// `y = f(W x + b)`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct DenseLayer {
    /// `W [outputs, inputs]`.
    pub(super) weight: Array2<f32>,
    pub(super) bias: Array1<f32>,
    /// `None` for the last layer.
    pub(super) activation: Option<Activation>,
}

/// Returns the layers that compute from states what a head does: class logits over the temperature, and numbers in the
/// unit of the targets. Standardisation and principal components are in the weights of the first layer.
///
/// # Errors
/// Returns what else the head does, in words.
pub(super) fn layers_of(head: &Head) -> Result<Vec<DenseLayer>, String> {
    let (network, parameters) = head.network();
    let (spec, description) = (network.spec(), &head.description);
    let n_hidden = spec.hidden.len();
    if description.kind == "matching" {
        return Err("a head that compares each token with those of the question (matching)".into());
    }
    if description.pair {
        return Err("a head over two texts that are encoded separately".into());
    }
    if spec.n_layers > 1 {
        return Err(format!("a mix of {} layers", spec.n_layers));
    }
    if spec.attention {
        return Err("a head that pools tokens by attention".into());
    }
    if spec.crf {
        return Err("a CRF, in which a tag depends on those around it".into());
    }
    if n_hidden > 0 && spec.skip {
        return Err("a hidden layer whose input is added to its output (head.skip)".into());
    }
    if n_hidden > 0 && spec.layer_norm {
        return Err("a hidden layer with layer normalisation (head.layer_norm)".into());
    }
    let tensors = network.named_tensors(parameters).into_iter();
    let mut tensors: HashMap<String, (Vec<usize>, Vec<f32>)> =
        tensors.map(|(name, shape, values)| (name, (shape, values))).collect();
    let mut tensor = |name: String| tensors.remove(&name).expect("a tensor of the network");
    let mut layers: Vec<DenseLayer> = Vec::new();
    for number in 0..=n_hidden {
        let prefix = if number < n_hidden { format!("hidden.{number}.") } else { String::new() };
        let (shape, weight) = tensor(format!("{prefix}weight"));
        let (_, bias) = tensor(format!("{prefix}bias"));
        layers.push(DenseLayer {
            weight: Array2::from_shape_vec((shape[0], shape[1]), weight).expect("a matrix"),
            bias: Array1::from(bias),
            activation: (number < n_hidden).then_some(spec.activation),
        });
    }
    let first = &mut layers[0];
    if !head.transform.is_identity() {
        let (weight, bias) = head.transform.fold(&transposed(&first.weight), &first.bias);
        (first.weight, first.bias) = (transposed(&weight), bias);
    }
    let last = &mut layers[n_hidden];
    let [mean, deviation] = description.output_scale.unwrap_or([0.0, 1.0]);
    let factor = deviation / description.temperature;
    last.weight.mapv_inplace(|value| (f64::from(value) * factor) as f32);
    last.bias.mapv_inplace(|value| (f64::from(value) * factor + mean) as f32);
    Ok(layers)
}

fn transposed(array: &Array2<f32>) -> Array2<f32> {
    array.t().as_standard_layout().into_owned()
}

/// Returns two layers of which the first has `width` outputs and this activation, as the heads of texts in
/// `transformers` have them, and which together compute the same.
///
/// A narrower first layer gets outputs that are always 0. A single layer `z` becomes `f(z) - f(-z)`, which is `z`
/// itself for ReLU and GELU; that takes two outputs for each of its own.
///
/// # Errors
/// Returns what does not fit, in words.
pub(super) fn as_two(
    layers: &[DenseLayer],
    width: usize,
    activation: Activation,
) -> Result<[DenseLayer; 2], String> {
    let (first, last) = match layers {
        [first, _] if first.activation != Some(activation) => {
            return Err(format!("another activation than {}", name_of(activation)));
        }
        [first, _] if first.weight.nrows() > width => {
            let got = first.weight.nrows();
            return Err(format!("a hidden layer of {got} units, of at most {width}"));
        }
        [first, last] => (first.clone(), last.clone()),
        [_] if activation == Activation::Tanh => {
            return Err("no hidden layer with tanh before the last one".into());
        }
        [only] if 2 * only.weight.nrows() > width => {
            let got = only.weight.nrows();
            return Err(format!("{got} outputs without a hidden layer, of at most {}", width / 2));
        }
        [only] => split(only, activation),
        _ => return Err(format!("{} hidden layers", layers.len() - 1)),
    };
    let n_more = width - first.weight.nrows();
    let wider = |axis: Axis, array: &Array2<f32>| {
        let mut shape = array.raw_dim();
        shape[axis.index()] = n_more;
        let zeros = Array2::zeros(shape);
        concatenate(axis, &[array.view(), zeros.view()]).expect("arrays of equal length")
    };
    let mut bias = Array1::zeros(width);
    bias.slice_mut(s![..first.bias.len()]).assign(&first.bias);
    Ok([
        DenseLayer { weight: wider(Axis(0), &first.weight), bias, activation: Some(activation) },
        DenseLayer { weight: wider(Axis(1), &last.weight), ..last },
    ])
}

/// The name of an activation, as in `head.activation`.
pub(super) fn name_of(activation: Activation) -> &'static str {
    match activation {
        Activation::Relu => "relu",
        Activation::Gelu => "gelu",
        Activation::Tanh => "tanh",
    }
}

/// Returns two layers that compute a single one, `z = f(z) - f(-z)`.
fn split(only: &DenseLayer, activation: Activation) -> (DenseLayer, DenseLayer) {
    let n_outputs = only.weight.nrows();
    let (weight, bias) = (only.weight.view(), only.bias.view());
    let both = "arrays of equal length";
    let first = DenseLayer {
        weight: concatenate(Axis(0), &[weight, (-&weight).view()]).expect(both),
        bias: concatenate(Axis(0), &[bias, (-&bias).view()]).expect(both),
        activation: Some(activation),
    };
    let ones: Array2<f32> = Array2::eye(n_outputs);
    let last = DenseLayer {
        weight: concatenate(Axis(1), &[ones.view(), (-&ones).view()]).expect(both),
        bias: Array1::zeros(n_outputs),
        activation: None,
    };
    (first, last)
}

/// Computes the outputs of layers on rows of states.
pub(super) fn apply(layers: &[DenseLayer], rows: ArrayView2<'_, f32>) -> Array2<f32> {
    let mut rows = rows.to_owned();
    for layer in layers {
        let mut outputs = rows.dot(&layer.weight.t()) + &layer.bias;
        if let Some(activation) = layer.activation {
            outputs.mapv_inplace(|value| {
                let mut activated = [0.0f32];
                forward(activation, &[value], &mut activated);
                activated[0]
            });
        }
        rows = outputs;
    }
    rows
}

impl DenseLayer {
    /// Its tensors, `<name>.weight` and `<name>.bias`.
    pub(super) fn tensors(&self, name: &str) -> [PortableTensor; 2] {
        let shape = self.weight.shape().to_vec();
        [
            PortableTensor {
                name: format!("{name}.weight"),
                shape,
                values: self.weight.iter().copied().collect(),
            },
            PortableTensor {
                name: format!("{name}.bias"),
                shape: vec![self.bias.len()],
                values: self.bias.to_vec(),
            },
        ]
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;
    use crate::{
        features::scaler::Scaler,
        head::{
            network::{Network, NetworkSpec},
            saved::HeadDescription,
            transform::Transform,
        },
    };

    fn head(spec: NetworkSpec, change: impl FnOnce(&mut HeadDescription)) -> Head {
        let network = Network::new(spec.clone());
        let parameters = network.initial(3).iter().map(|value| value * 4.0).collect();
        let mut description = HeadDescription { network: Some(spec), ..HeadDescription::default() };
        change(&mut description);
        let scaler =
            Scaler { mean: array![0.5, -1.0, 2.0, 0.0], deviation: array![2.0, 0.5, 1.0, 4.0] };
        Head::new(description, parameters, Transform { scaler, projection: None })
    }

    fn rows() -> Array2<f32> {
        array![[1.0, -2.0, 0.5, 3.0], [0.0, 0.25, -1.0, 2.0], [-4.0, 1.0, 1.5, -2.5]]
    }

    fn assert_close(got: &Array2<f32>, expected: &Array2<f32>) {
        assert_eq!(got.dim(), expected.dim());
        let largest = (got - expected).iter().fold(0.0f32, |most, value| most.max(value.abs()));
        assert!(largest < 2e-5, "{got} and {expected}");
    }

    #[test]
    fn layers_compute_what_the_head_does_over_its_temperature() {
        for hidden in [vec![], vec![6], vec![6, 3]] {
            let spec = NetworkSpec { hidden, ..NetworkSpec::linear(4, 2) };
            let head = head(spec, |description| description.temperature = 2.5);
            let layers = layers_of(&head).unwrap();
            let expected = head.outputs(rows(), &[0, 1, 2, 3]) / 2.5;
            assert_close(&apply(&layers, rows().view()), &expected);
        }
    }

    #[test]
    fn numbers_are_in_the_unit_of_the_targets() {
        let head = head(NetworkSpec::linear(4, 1), |description| {
            description.output_scale = Some([10.0, 3.0]);
        });
        let expected = head.outputs(rows(), &[0, 1, 2, 3]) * 3.0 + 10.0;
        assert_close(&apply(&layers_of(&head).unwrap(), rows().view()), &expected);
    }

    #[test]
    fn two_layers_of_a_given_width_compute_the_same() {
        use Activation::{Gelu, Relu, Tanh};
        for (hidden, of_head, activation) in [
            (vec![6], Tanh, Tanh),
            (vec![8], Gelu, Gelu),
            (vec![], Tanh, Relu),
            (vec![], Tanh, Gelu),
        ] {
            let spec = NetworkSpec { hidden, activation: of_head, ..NetworkSpec::linear(4, 3) };
            let layers = layers_of(&head(spec, |_| ())).unwrap();
            let two = as_two(&layers, 8, activation).unwrap();
            assert_eq!(two.clone().map(|layer| layer.weight.dim()), [(8, 4), (3, 8)]);
            assert_close(&apply(&two, rows().view()), &apply(&layers, rows().view()));
        }
    }

    #[test]
    fn what_is_no_chain_of_dense_layers_is_named() {
        let linear = || NetworkSpec::linear(4, 2);
        let hidden = || NetworkSpec { hidden: vec![6], ..linear() };
        let plain = |_: &mut HeadDescription| ();
        let reasons = [
            layers_of(&head(NetworkSpec { attention: true, ..linear() }, plain)),
            layers_of(&head(NetworkSpec { crf: true, ..linear() }, plain)),
            layers_of(&head(NetworkSpec { skip: true, ..hidden() }, plain)),
            layers_of(&head(NetworkSpec { layer_norm: true, ..hidden() }, plain)),
            layers_of(&head(linear(), |description| description.pair = true)),
        ];
        let words = ["attention", "CRF", "head.skip", "head.layer_norm", "two texts"];
        for (reason, word) in reasons.into_iter().zip(words) {
            assert!(reason.unwrap_err().contains(word), "{word}");
        }
        let layers = layers_of(&head(hidden(), plain)).unwrap();
        for (width, activation, word) in
            [(4, Activation::Gelu, "6 units"), (8, Activation::Tanh, "than tanh")]
        {
            assert!(as_two(&layers, width, activation).unwrap_err().contains(word), "{word}");
        }
        let single = layers_of(&head(linear(), plain)).unwrap();
        for (activation, word) in [(Activation::Tanh, "no hidden"), (Activation::Relu, "2 outputs")]
        {
            assert!(as_two(&single, 3, activation).unwrap_err().contains(word), "{word}");
        }
    }
}

//! A Dense module: a linear layer and an activation.

use std::path::Path;

use frostbert_cache::mmap;
use ndarray::{Array2, ArrayView1};
use serde::Deserialize;

use super::{FETCH_AGAIN, NAME_A_POOLING, json, refuse};
use crate::{
    encoder::weights::{self, WeightFile},
    error::Result,
};

/// What is applied to each output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DenseActivation {
    Identity,
    Tanh,
    Relu,
    Sigmoid,
    Silu,
    /// The exact one, by the error function.
    Gelu,
}

impl DenseActivation {
    /// Returns the activation of a class of torch: `torch.nn.modules.activation.Tanh`.
    fn of_class(class: &str) -> Option<DenseActivation> {
        let name = class.strip_prefix("torch.")?.rsplit('.').next()?;
        Some(match name {
            "Identity" => DenseActivation::Identity,
            "Tanh" => DenseActivation::Tanh,
            "ReLU" => DenseActivation::Relu,
            "Sigmoid" => DenseActivation::Sigmoid,
            "SiLU" => DenseActivation::Silu,
            "GELU" => DenseActivation::Gelu,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            DenseActivation::Identity => "identity",
            DenseActivation::Tanh => "tanh",
            DenseActivation::Relu => "relu",
            DenseActivation::Sigmoid => "sigmoid",
            DenseActivation::Silu => "silu",
            DenseActivation::Gelu => "gelu",
        }
    }

    fn apply(self, value: f32) -> f32 {
        let sigmoid = |value: f32| 1.0 / (1.0 + (-value).exp());
        match self {
            DenseActivation::Identity => value,
            DenseActivation::Tanh => value.tanh(),
            DenseActivation::Relu => value.max(0.0),
            DenseActivation::Sigmoid => sigmoid(value),
            DenseActivation::Silu => value * sigmoid(value),
            DenseActivation::Gelu => {
                0.5 * value * (1.0 + libm::erff(value * std::f32::consts::FRAC_1_SQRT_2))
            }
        }
    }
}

/// The settings of the module.
#[derive(Deserialize)]
struct DenseSettings {
    in_features: usize,
    out_features: usize,
    #[serde(default = "yes")]
    bias: bool,
    activation_function: Option<String>,
    #[serde(default)]
    use_residual: bool,
}

fn yes() -> bool {
    true
}

/// `y = f(W x + b)`.
#[derive(Clone, Debug)]
pub(crate) struct Dense {
    /// `[out, in]`.
    weight: Array2<f32>,
    bias: Option<Vec<f32>>,
    activation: DenseActivation,
}

impl Dense {
    /// Returns its weight, `[out, in]`.
    pub(crate) fn weight(&self) -> &Array2<f32> {
        &self.weight
    }

    /// Returns its bias.
    pub(crate) fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
    }

    /// Returns the name of its activation: identity, tanh, relu, sigmoid, silu or gelu.
    pub(crate) fn activation(&self) -> &'static str {
        self.activation.name()
    }

    /// Reads the module in a folder, whose input has `width` values.
    ///
    /// # Errors
    /// Returns an error that names the file and what in it does not fit or is not computed.
    pub(super) fn read(folder: &Path, width: usize) -> Result<Dense> {
        let path = folder.join("config.json");
        let settings: DenseSettings = json(&path, "the settings of a Dense module")?;
        if settings.in_features != width {
            return Err(refuse(
                &path,
                format!("in_features = {width}, the width of what comes before"),
                settings.in_features.to_string(),
                "fetch the model again: these files do not belong together",
            ));
        }
        if settings.out_features == 0 {
            let expected = "out_features of at least 1".into();
            return Err(refuse(&path, expected, "0".into(), FETCH_AGAIN));
        }
        if settings.use_residual {
            let expected = "a Dense module without `use_residual`".into();
            return Err(refuse(&path, expected, "one with it".into(), NAME_A_POOLING));
        }
        let activation = match &settings.activation_function {
            None => DenseActivation::Tanh,
            Some(class) => DenseActivation::of_class(class).ok_or_else(|| {
                let expected = "torch's Identity, Tanh, ReLU, Sigmoid, SiLU or GELU".into();
                refuse(&path, expected, format!("`{class}`"), NAME_A_POOLING)
            })?,
        };
        let mut shapes = vec![("linear.weight", vec![settings.out_features, width])];
        if settings.bias {
            shapes.push(("linear.bias", vec![settings.out_features]));
        }
        let mut tensors = read_tensors(folder, &shapes)?.into_iter();
        let weight = tensors.next().unwrap_or_default();
        let weight = Array2::from_shape_vec((settings.out_features, width), weight);
        Ok(Dense {
            weight: weight.expect("a tensor of the shape that was asked for"),
            bias: tensors.next(),
            activation,
        })
    }

    pub(super) fn n_outputs(&self) -> usize {
        self.weight.nrows()
    }

    /// What it does, in a few words.
    pub(super) fn describe(&self) -> String {
        format!("Dense {} -> {}, {}", self.weight.ncols(), self.n_outputs(), self.activation.name())
    }

    pub(super) fn apply(&self, input: &[f32]) -> Vec<f32> {
        let mut out = self.weight.dot(&ArrayView1::from(input)).to_vec();
        for (place, value) in out.iter_mut().enumerate() {
            let bias = self.bias.as_ref().map_or(0.0, |bias| bias[place]);
            *value = self.activation.apply(*value + bias);
        }
        out
    }

    /// Does the same for each row.
    pub(super) fn apply_to_rows(&self, inputs: &Array2<f32>) -> Array2<f32> {
        let mut out = inputs.dot(&self.weight.t());
        for mut row in out.rows_mut() {
            for (place, value) in row.iter_mut().enumerate() {
                let bias = self.bias.as_ref().map_or(0.0, |bias| bias[place]);
                *value = self.activation.apply(*value + bias);
            }
        }
        out
    }

    /// Appends everything that determines the outputs.
    pub(super) fn put_bytes(&self, out: &mut Vec<u8>) {
        out.extend(self.describe().into_bytes());
        for value in self.weight.iter().chain(self.bias.iter().flatten()) {
            out.extend(value.to_le_bytes());
        }
    }
}

/// Reads tensors of these names and shapes from the weights of a module, model.safetensors or pytorch_model.bin, as f32.
fn read_tensors(folder: &Path, wanted: &[(&str, Vec<usize>)]) -> Result<Vec<Vec<f32>>> {
    let found = weights::find(folder).filter(|found| !weights::is_index(found));
    let path = found.ok_or_else(|| {
        refuse(
            &folder.join(weights::SINGLE_FILE),
            "the weights of a Dense module in it, or in pytorch_model.bin".into(),
            "no such file".into(),
            FETCH_AGAIN,
        )
    })?;
    let file = WeightFile::open(path.clone(), mmap::map(&path)?)?;
    let read = wanted.iter().map(|(name, shape)| {
        let expected = || format!("`{name}` of shape {shape:?}, as f32, f16 or bf16");
        let tensor = file.tensor(name)?.ok_or_else(|| {
            refuse(&path, expected(), "no tensor of that name".into(), FETCH_AGAIN)
        })?;
        let decoded = if tensor.shape() == *shape { weights::decode(&tensor) } else { None };
        decoded.ok_or_else(|| {
            let got = format!("{:?} of shape {:?}", tensor.dtype(), tensor.shape());
            refuse(&path, expected(), got, FETCH_AGAIN)
        })
    });
    read.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_activation_is_found_by_the_last_part_of_its_class_and_only_in_torch() {
        for (class, expected) in [
            ("torch.nn.modules.activation.Tanh", Some(DenseActivation::Tanh)),
            ("torch.nn.modules.linear.Identity", Some(DenseActivation::Identity)),
            ("torch.nn.Mish", None),
            ("own.Tanh", None),
        ] {
            assert_eq!(DenseActivation::of_class(class), expected, "{class}");
        }
        // torch.nn.functional.gelu(torch.tensor(0.5)) and silu of the same.
        assert!((DenseActivation::Gelu.apply(0.5) - 0.345_731_2).abs() < 1e-6);
        assert!((DenseActivation::Silu.apply(0.5) - 0.311_229_67).abs() < 1e-6);
        assert_eq!(DenseActivation::Relu.apply(-0.5), 0.0);
    }

    #[test]
    fn a_dense_module_without_weights_or_of_another_width_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let settings = r#"{"in_features": 2, "out_features": 3, "bias": true}"#;
        std::fs::write(folder.path().join("config.json"), settings).unwrap();
        let refused = |width| Dense::read(folder.path(), width).unwrap_err().to_string();
        assert!(
            refused(4).ends_with("expected in_features = 4, the width of what comes before, got 2")
        );
        assert!(
            refused(2).ends_with("or in pytorch_model.bin, got no such file"),
            "{}",
            refused(2)
        );
        std::fs::write(folder.path().join("pytorch_model.bin"), "PK").unwrap();
        assert!(refused(2).contains("pytorch_model.bin"), "{}", refused(2));
    }
}

//! A trained linear head as it is saved and used: on raw states, with its labels and its temperature.

use std::{collections::HashMap, path::Path};

use ndarray::{Array1, Array2, s};
use rayon::prelude::*;
use safetensors::{SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    features::FeatureView,
    metrics::calibration::softmax_rows,
    states::StateId,
    train::gemm::multiply,
};

/// The file of a head's weights in a run folder.
pub const WEIGHTS_FILE: &str = "head.safetensors";

/// The file of what its weights mean.
pub const DESCRIPTION_FILE: &str = "head.json";

/// What a head's weights mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeadDescription {
    /// `classification`.
    pub task: String,
    /// `linear`.
    pub kind: String,
    /// The label of each output, in order.
    pub labels: Vec<String>,
    /// The pooling of its input, as `mean`.
    pub pooling: String,
    /// The absolute layers of its input.
    pub layers: Vec<usize>,
    /// Width of its input.
    pub hidden: usize,
    /// Whether features were standardised in training; the scaling is folded into the weights.
    pub standardize: bool,
    /// Logits are divided by this before the softmax; fitted on validation rows.
    pub temperature: f64,
    /// The epoch whose weights these are.
    pub best_epoch: usize,
    /// The state that it reads, as `mean-L06`.
    pub state: StateId,
}

/// A linear head on raw states: `softmax((x W + b) / temperature)`.
#[derive(Clone, Debug)]
pub struct LinearHead {
    /// What it is.
    pub description: HeadDescription,
    /// `[hidden, classes]`.
    pub weights: Array2<f32>,
    /// `[classes]`.
    pub bias: Array1<f32>,
}

/// Rows whose logits one thread computes at a time; fixed, so that bits do not depend on the number of threads.
const TILE_ROWS: usize = 256;

impl LinearHead {
    /// Logits `[samples, classes]` of rows of a view.
    pub fn logits(&self, view: &FeatureView, samples: &[u32]) -> Array2<f32> {
        let mut logits = Array2::zeros((samples.len(), self.bias.len()));
        logits
            .axis_chunks_iter_mut(ndarray::Axis(0), TILE_ROWS)
            .into_par_iter()
            .enumerate()
            .for_each(|(tile, mut out)| {
                let rows = &samples[tile * TILE_ROWS..(tile * TILE_ROWS + out.nrows())];
                // Short tiles are padded with their first row: a product of another shape has other last bits.
                let mut padded = rows.to_vec();
                padded.resize(TILE_ROWS, rows[0]);
                let mut product = Array2::zeros((TILE_ROWS, self.bias.len()));
                multiply(
                    view.decode(&padded).view(),
                    self.weights.view(),
                    product.view_mut(),
                );
                out.assign(&product.slice(s![..rows.len(), ..]));
                out += &self.bias;
            });
        logits
    }

    /// Calibrated probabilities `[samples, classes]` of rows of a view.
    pub fn probabilities(&self, view: &FeatureView, samples: &[u32]) -> Array2<f32> {
        softmax_rows(
            self.logits(view, samples).view(),
            self.description.temperature,
        )
    }

    /// Writes head.safetensors (`weight [classes, hidden]` and `bias [classes]`, as PyTorch's Linear names them) and
    /// head.json.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let bytes = |values: &mut dyn Iterator<Item = f32>| -> Vec<u8> {
            values.flat_map(f32::to_le_bytes).collect()
        };
        let weight = bytes(&mut self.weights.t().iter().copied());
        let bias = bytes(&mut self.bias.iter().copied());
        let (n_features, n_classes) = self.weights.dim();
        let view = |shape, data| {
            TensorView::new(safetensors::Dtype::F32, shape, data).expect("bytes of this shape")
        };
        let tensors = vec![
            ("weight", view(vec![n_classes, n_features], &weight)),
            ("bias", view(vec![n_classes], &bias)),
        ];
        let path = folder.join(WEIGHTS_FILE);
        let file = safetensors::serialize(tensors, None::<HashMap<String, String>>)
            .map_err(|error| Error::io("write", &path)(std::io::Error::other(error)))?;
        std::fs::write(&path, file).map_err(Error::io("write", &path))?;
        let path = folder.join(DESCRIPTION_FILE);
        let mut json =
            serde_json::to_string_pretty(&self.description).expect("plain fields become JSON");
        json.push('\n');
        std::fs::write(&path, json).map_err(Error::io("write", &path))
    }

    /// Reads a head from a run folder.
    ///
    /// # Errors
    /// When a file is missing or damaged, or the two do not belong together.
    pub fn load(folder: &Path) -> Result<LinearHead> {
        let path = folder.join(DESCRIPTION_FILE);
        let text = std::fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let refuse = |path: &Path, expected: &str, got: String| Error::Run {
            path: path.to_path_buf(),
            expected: expected.into(),
            got,
            hint: "name a whole run folder, as `frostbert run` prints it".into(),
        };
        let description: HeadDescription = serde_json::from_str(&text)
            .map_err(|error| refuse(&path, "a head description", error.to_string()))?;
        let path = folder.join(WEIGHTS_FILE);
        let bytes = std::fs::read(&path).map_err(Error::io("read", &path))?;
        let tensors = SafeTensors::deserialize(&bytes)
            .map_err(|error| refuse(&path, "a whole safetensors file", error.to_string()))?;
        let (n_classes, n_features) = (description.labels.len(), description.hidden);
        let tensor = |name: &str, shape: &[usize]| {
            let view = tensors
                .tensor(name)
                .ok()
                .filter(|view| view.shape() == shape && view.dtype() == safetensors::Dtype::F32)
                .ok_or_else(|| {
                    refuse(
                        &path,
                        &format!("f32 `{name}` of shape {shape:?}"),
                        "another or none".into(),
                    )
                })?;
            let four = view.data().chunks_exact(4);
            Ok::<Vec<f32>, Error>(
                four.map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]))
                    .collect(),
            )
        };
        let weight = tensor("weight", &[n_classes, n_features])?;
        let bias = tensor("bias", &[n_classes])?;
        let weights =
            Array2::from_shape_vec((n_classes, n_features), weight).expect("a checked shape");
        Ok(LinearHead {
            description,
            weights: weights.reversed_axes().as_standard_layout().into_owned(),
            bias: Array1::from(bias),
        })
    }
}

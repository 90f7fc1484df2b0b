//! A trained head as it is saved and used: its network on untouched states, with what its outputs mean.

mod check;

use std::{collections::HashMap, fs, path::Path};

use frostbert_cache::{durable::write_file, states::StateId};
use ndarray::{Array1, Array2, ArrayView1, ArrayView2, Axis, concatenate, s};
use rayon::prelude::*;
use safetensors::{SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    features::{FeatureView, scaler::Scaler},
    head::{
        learner::parts,
        network::{Network, NetworkInput, NetworkSpec, Trace},
        trained_head::TrainedHead,
        transform::{Projection, Transform},
    },
};

/// The file of a head's weights in a run folder.
pub const WEIGHTS_FILE: &str = "head.safetensors";

/// The file of what its weights mean.
pub const DESCRIPTION_FILE: &str = "head.json";

/// What a head's weights mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeadDescription {
    /// As `data.task` of a pipeline.
    pub task: String,
    /// As `head.kind`.
    pub kind: String,
    /// The label of each output, in order; none for numbers and spans.
    pub labels: Vec<String>,
    /// The number by which the data of its training called the first label, where cells held ids of labels.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub first_label_id: Option<usize>,
    /// The column of labels that it learned from (`train.label`), where that was named.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub label_column: Option<String>,
    /// What it reads of a layer: a pooling, `attention`, `words` or `tokens`.
    pub pooling: String,
    /// The absolute layers of its input; several are mixed.
    pub layers: Vec<usize>,
    /// The share of each of several layers in the mix, in their order: they add up to 1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub layer_profile: Option<Vec<f32>>,
    /// Whether two texts are compared, as `[u, v, |u - v|, u * v]`.
    #[serde(default)]
    pub pair: bool,
    /// Whether features were standardised in training.
    pub standardize: bool,
    /// Logits of classes are divided by this before the softmax; fitted on validation rows.
    pub temperature: f64,
    /// Where a label's probability makes it a prediction, for multi-label heads; tuned on validation rows.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub thresholds: Option<Vec<f64>>,
    /// Where the score of no answer, less that of the best span, makes it the answer; tuned on validation rows. None
    /// where every question has an answer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub no_answer_threshold: Option<f64>,
    /// Longest answer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_answer_tokens: Option<usize>,
    /// Mean and deviation of the numbers that were learned scaled: an output `y` means `mean + deviation y`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub output_scale: Option<[f64; 2]>,
    /// The epoch whose weights these are.
    pub best_epoch: usize,
    /// The states that it reads, as `mean-L06`.
    pub states: Vec<StateId>,
    /// What it computes; none for a cosine.
    pub network: Option<NetworkSpec>,
}

impl Default for HeadDescription {
    /// Nothing said, and a temperature of 1.
    fn default() -> HeadDescription {
        HeadDescription {
            task: String::new(),
            kind: String::new(),
            labels: Vec::new(),
            first_label_id: None,
            label_column: None,
            pooling: String::new(),
            layers: Vec::new(),
            layer_profile: None,
            pair: false,
            standardize: false,
            temperature: 1.0,
            thresholds: None,
            no_answer_threshold: None,
            max_answer_tokens: None,
            output_scale: None,
            best_epoch: 0,
            states: Vec::new(),
            network: None,
        }
    }
}

impl HeadDescription {
    /// The numbers that outputs mean.
    pub fn numbers(&self, outputs: ArrayView1<'_, f32>) -> Vec<f64> {
        let [mean, deviation] = self.output_scale.unwrap_or([0.0, 1.0]);
        let outputs = outputs.iter();
        outputs.map(|output| mean + deviation * f64::from(*output)).collect()
    }
}

/// A head on untouched states.
#[derive(Clone, Debug)]
pub struct Head {
    /// What it is.
    pub description: HeadDescription,
    /// What is done to rows first; nothing where it could be folded into the weights.
    pub transform: Transform,
    network: Network,
    parameters: Vec<f32>,
}

/// Rows whose outputs one thread computes at a time; fixed, so that bits do not depend on the number of threads.
const PART_ROWS: usize = 256;

/// Samples that are decoded at a time.
pub(super) const TILE_SAMPLES: usize = 1024;

impl Head {
    /// A head of trained parameters. A linear one takes the transform into its weights.
    ///
    /// # Panics
    /// When the description has no network, or the parameters are not those of one like it.
    pub fn new(
        mut description: HeadDescription,
        parameters: Vec<f32>,
        transform: Transform,
    ) -> Head {
        let spec = description.network.as_mut().expect("a head with a network");
        let n_stored = transform.scaler.mean.len();
        let mut head_transform = transform;
        let mut network = Network::new(spec.clone());
        let mut parameters = parameters;
        if spec.n_layers == 1 && !spec.attention && spec.hidden.is_empty() && !spec.crf {
            let (weights, bias) = network.output_layer(&parameters);
            let (weights, bias) = head_transform.fold(&weights, &bias);
            spec.n_features = n_stored;
            network = Network::new(spec.clone());
            parameters = network.with_output_layer(network.zeros(), weights.view(), bias.view());
            head_transform = Transform::identity(n_stored);
        }
        description.layer_profile = network.layer_profile(&parameters);
        Head { description, transform: head_transform, network, parameters }
    }

    /// A head that belongs to no run: a network as it was trained on transformed features.
    ///
    /// # Panics
    /// When the parameters are not those of the network.
    pub fn of(network: NetworkSpec, trained: TrainedHead, transform: Transform) -> Head {
        let description = HeadDescription {
            best_epoch: trained.best_epoch,
            network: Some(network),
            ..HeadDescription::default()
        };
        Head::new(description, trained.parameters, transform)
    }

    /// What the head computes, and its parameters.
    pub fn network(&self) -> (&Network, &[f32]) {
        (&self.network, &self.parameters)
    }

    /// Outputs on the rows of some samples: `[rows, outputs]`, or where the head pools them `[samples, outputs]`.
    pub fn outputs(&self, rows: Array2<f32>, starts: &[usize]) -> Array2<f32> {
        let rows = if self.transform.is_identity() { rows } else { self.transform.apply(rows) };
        outputs(&self.network, &self.parameters, rows.view(), starts)
    }

    /// Shows the outputs on some samples of a view, tile by tile in storage order: the samples, the first row of each,
    /// and the outputs.
    ///
    /// # Errors
    /// When a file of the cache is not what the manifest says; [`Error::Diverged`] when an output is not finite.
    pub fn for_each_output(
        &self,
        view: &FeatureView<'_>,
        samples: &[u32],
        visit: impl FnMut(&[u32], &[usize], Array2<f32>),
    ) -> Result<()> {
        self.for_each_output_of(view, samples, TILE_SAMPLES, visit)
    }

    /// As [`Head::for_each_output`], with so many samples at a time.
    pub(super) fn for_each_output_of(
        &self,
        view: &FeatureView<'_>,
        samples: &[u32],
        at_a_time: usize,
        mut visit: impl FnMut(&[u32], &[usize], Array2<f32>),
    ) -> Result<()> {
        let mut are_finite = true;
        view.for_each_tile(samples, at_a_time, |samples, tile| {
            let outputs = self.outputs(tile.rows, &tile.starts);
            are_finite &= outputs.iter().all(|output| output.is_finite());
            visit(samples, &tile.starts, outputs);
        })?;
        if are_finite {
            Ok(())
        } else {
            Err(Error::Diverged {
                problem: "outputs of the head are not finite (NaN or infinity)".into(),
                hint: "train it again with a lower train.lr, or with train.clip".into(),
            })
        }
    }

    /// Outputs `[samples, outputs]` of a head that has one row of outputs for every sample of a view, of all its samples
    /// in their order.
    ///
    /// # Errors
    /// When a file of the cache is not what the manifest says.
    pub fn logits(&self, view: &FeatureView<'_>) -> Result<Array2<f32>> {
        let n_outputs = self.description.network.as_ref().map_or(1, |spec| spec.n_outputs);
        let mut logits = Array2::zeros((view.n_samples(), n_outputs));
        let all: Vec<u32> = (0..view.n_samples() as u32).collect();
        self.for_each_output(view, &all, |samples, _, outputs| {
            assert_eq!(samples.len(), outputs.nrows(), "a row of outputs a sample");
            for (sample, row) in samples.iter().zip(outputs.rows()) {
                logits.row_mut(*sample as usize).assign(&row);
            }
        })?;
        Ok(logits)
    }

    /// Writes head.safetensors (the tensors by the names that PyTorch's modules would give them, `weight [outputs,
    /// inputs]` and `bias [outputs]` being the last layer) and head.json.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let mut tensors: Vec<(String, Vec<usize>, Vec<f32>)> =
            self.network.named_tensors(&self.parameters);
        if !self.transform.is_identity() {
            let scaler = &self.transform.scaler;
            let width = scaler.mean.len();
            tensors.push(("scaler.mean".into(), vec![width], scaler.mean.to_vec()));
            let deviation = scaler.deviation.to_vec();
            tensors.push(("scaler.deviation".into(), vec![width], deviation));
        }
        if let Some(projection) = &self.transform.projection {
            let (width, n_components) = projection.components.dim();
            tensors.push(("pca.mean".into(), vec![width], projection.mean.to_vec()));
            let components = projection.components.iter().copied().collect();
            tensors.push(("pca.components".into(), vec![width, n_components], components));
        }
        save(folder, &self.description, &tensors)
    }

    /// The head that [`Head::save`] wrote to a folder. It may belong to no run, and then names no states.
    ///
    /// # Errors
    /// When a file is missing or damaged, or the two do not belong together.
    pub fn open(folder: &Path) -> Result<Head> {
        let read = |path: &Path| fs::read(path).map_err(Error::io("read", path));
        let path = folder.join(DESCRIPTION_FILE);
        let description = parse_description(&path, &read(&path)?)?;
        let of_run = !description.states.is_empty();
        let checked =
            if of_run { check::check(&description) } else { check::check_network(&description) };
        checked.map_err(|(expected, got)| refusal(&path, expected.into(), got))?;
        let path = folder.join(WEIGHTS_FILE);
        Head::from_bytes(&path, &read(&path)?, description)
    }

    /// The head whose weights are the bytes of `path`, a safetensors file.
    ///
    /// # Errors
    /// When the file is damaged, holds a value that is no number, or does not belong to the description.
    pub fn from_bytes(path: &Path, bytes: &[u8], description: HeadDescription) -> Result<Head> {
        let refuse = |expected: String, got: String| refusal(path, expected, got);
        let Some(spec) = description.network.clone() else {
            return Err(refuse("a head with weights".into(), description.kind.clone()));
        };
        let file = SafeTensors::deserialize(bytes)
            .map_err(|error| refuse("a whole safetensors file".into(), error.to_string()))?;
        let tensor = |name: &str, shape: &[usize]| {
            let view = file.tensor(name).ok();
            let view = view
                .filter(|view| view.shape() == shape && view.dtype() == safetensors::Dtype::F32)
                .ok_or_else(|| {
                    let expected = format!("f32 `{name}` of shape {shape:?}");
                    refuse(expected, "another or none".into())
                })?;
            let four = view.data().chunks_exact(4);
            let values: Vec<f32> =
                four.map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect();
            match values.iter().find(|value| !value.is_finite()) {
                None => Ok(values),
                Some(value) => Err(refuse(format!("numbers in `{name}`"), value.to_string())),
            }
        };
        let network = Network::new(spec);
        let parameters = network.from_named(tensor)?;
        let width_of = |name: &str| {
            let view = file.tensor(name).ok();
            view.and_then(|view| view.shape().first().copied()).unwrap_or(0)
        };
        let n_stored = network.spec().n_layers * network.spec().n_features;
        let mut transform = Transform::identity(n_stored);
        if width_of("scaler.mean") > 0 {
            let width = width_of("scaler.mean");
            transform.scaler = Scaler {
                mean: Array1::from(tensor("scaler.mean", &[width])?),
                deviation: Array1::from(tensor("scaler.deviation", &[width])?),
            };
        }
        if width_of("pca.mean") > 0 {
            let (width, n_components) = (width_of("pca.mean"), n_stored);
            let components = tensor("pca.components", &[width, n_components])?;
            transform.projection = Some(Projection {
                mean: Array1::from(tensor("pca.mean", &[width])?),
                components: Array2::from_shape_vec((width, n_components), components)
                    .expect("a checked shape"),
            });
        }
        Ok(Head { description, transform, network, parameters })
    }
}

/// Outputs of a network on transformed rows, in parts of whole samples side by side.
///
/// A part is padded to whole multiples of 256 rows, because a product of another shape has other last bits: so a sample
/// has the same outputs alone and among others.
pub(super) fn outputs(
    network: &Network,
    parameters: &[f32],
    rows: ArrayView2<'_, f32>,
    starts: &[usize],
) -> Array2<f32> {
    let computed: Vec<Array2<f32>> = parts(starts, PART_ROWS)
        .into_par_iter()
        .map_init(Trace::default, |trace, (first, end)| {
            let part = starts[first]..starts[end];
            let n_padded = part.len().next_multiple_of(PART_ROWS);
            let mut padded = Array2::zeros((n_padded, rows.ncols()));
            padded.slice_mut(s![..part.len(), ..]).assign(&rows.slice(s![part.clone(), ..]));
            let mut own: Vec<usize> =
                starts[first..=end].iter().map(|row| row - part.start).collect();
            own.push(n_padded);
            let input = NetworkInput { rows: padded.view(), starts: &own };
            network.forward(parameters, &input, None, trace);
            let logits = trace.logits();
            let n_outputs = if network.spec().attention { end - first } else { part.len() };
            logits.slice(s![..n_outputs, ..]).to_owned()
        })
        .collect();
    let views: Vec<ArrayView2<'_, f32>> = computed.iter().map(|part| part.view()).collect();
    if views.is_empty() {
        Array2::zeros((0, network.spec().n_outputs))
    } else {
        concatenate(Axis(0), &views).expect("parts of equal width")
    }
}

/// Writes a head's tensors (name, shape, values) and its description.
///
/// # Errors
/// When the folder cannot be written.
pub(crate) fn save(
    folder: &Path,
    description: &HeadDescription,
    tensors: &[(String, Vec<usize>, Vec<f32>)],
) -> Result<()> {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, _, values)| values.iter().flat_map(|value| value.to_le_bytes()).collect())
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        let view = TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes);
        (name.as_str(), view.expect("bytes of this shape"))
    });
    let path = folder.join(WEIGHTS_FILE);
    let file = safetensors::serialize(views, None::<HashMap<String, String>>)
        .map_err(|error| Error::io("write", &path)(std::io::Error::other(error)))?;
    write_file(&path, &file)?;
    let path = folder.join(DESCRIPTION_FILE);
    let mut json = serde_json::to_string_pretty(description).expect("plain fields become JSON");
    json.push('\n');
    Ok(write_file(&path, json.as_bytes())?)
}

/// What a run's head is, by the bytes of `path`, its head.json.
///
/// # Errors
/// When the file is damaged, or describes what cannot be.
pub fn read_description(path: &Path, bytes: &[u8]) -> Result<HeadDescription> {
    let description = parse_description(path, bytes)?;
    check::check(&description).map_err(|(expected, got)| refusal(path, expected.into(), got))?;
    Ok(description)
}

fn parse_description(path: &Path, bytes: &[u8]) -> Result<HeadDescription> {
    serde_json::from_slice(bytes)
        .map_err(|error| refusal(path, "a head description".into(), error.to_string()))
}

fn refusal(path: &Path, expected: String, got: String) -> Error {
    Error::Run {
        path: path.to_path_buf(),
        expected,
        got,
        hint: "name a whole run folder, as `frostbert run` prints it".into(),
    }
}

//! A trained head as it is stored and used: its network on the original states, and the meaning of its outputs.

mod check;

use std::{collections::HashMap, fs, path::Path};

use frostbert_cache::{durable::write_file, fingerprint::Digest, states::StateId};
use ndarray::{Array1, Array2, ArrayView1};
use safetensors::{SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    features::{FeatureView, TokenRole, scaler::Scaler},
    head::{
        network::{Network, NetworkInput, NetworkSpec},
        network_outputs::network_outputs,
        trained_head::TrainedHead,
        transform::{Projection, Transform},
    },
};

/// The file of a head's weights in a run folder.
pub const WEIGHTS_FILE: &str = "head.safetensors";

/// The file of the encoder's layers that were trained with a head, in the names of the checkpoint.
pub(crate) const LAYERS_FILE: &str = "layers.safetensors";

/// The file that describes what the weights mean.
pub const DESCRIPTION_FILE: &str = "head.json";

/// Describes what a head's weights mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeadDescription {
    /// The task, as in `data.task` of a pipeline.
    pub task: String,
    /// The kind of head, as in `head.kind`.
    pub kind: String,
    /// The label of each output, in order; empty for numbers and spans.
    pub labels: Vec<String>,
    /// The id of the first label in the training data, if its cells held ids of labels.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub first_label_id: Option<usize>,
    /// The column of labels that the head was trained on (`train.label`), if one was named.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub label_column: Option<String>,
    /// What it reads of a layer: a pooling, `attention`, `sentence`, `words` or `tokens`.
    pub pooling: String,
    /// The hash of the modules that make sentence vectors of states, if it reads those.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sentence: Option<Digest>,
    /// The absolute indices of its input layers; several are mixed.
    pub layers: Vec<usize>,
    /// The share of each layer in the mix, in the order of `layers`; the shares sum to 1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub layer_profile: Option<Vec<f32>>,
    /// Whether two texts are compared, as `[u, v, |u - v|, u * v]`.
    #[serde(default)]
    pub pair: bool,
    /// Whether features were standardised in training.
    pub standardize: bool,
    /// Class logits are divided by this before the softmax; fitted on validation rows.
    pub temperature: f64,
    /// For multi-label heads, the probability from which each label is predicted; tuned on validation rows.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub thresholds: Option<Vec<f64>>,
    /// "No answer" is predicted if its score minus that of the best span exceeds this; tuned on validation rows. `None`
    /// if every question has an answer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub no_answer_threshold: Option<f64>,
    /// Maximum length of an answer in tokens.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub max_answer_tokens: Option<usize>,
    /// Mean and standard deviation of the targets if they were scaled for training: an output `y` means
    /// `mean + deviation y`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub output_scale: Option<[f64; 2]>,
    /// `C` of a logistic regression, if folds over the training rows chose it.
    #[serde(rename = "C", skip_serializing_if = "Option::is_none", default)]
    pub c: Option<f64>,
    /// `lambda` of a ridge regression or a discriminant analysis, if folds chose it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lambda: Option<f64>,
    /// The epoch whose weights these are.
    pub best_epoch: usize,
    /// The states that it reads, such as `mean-L06`.
    pub states: Vec<StateId>,
    /// Its layers; `None` for the cosine head.
    pub network: Option<NetworkSpec>,
    /// The hash of the checkpoint's weights, if layers of the encoder were trained.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub base: Option<Digest>,
}

impl Default for HeadDescription {
    /// An empty description, with a temperature of 1.
    fn default() -> HeadDescription {
        HeadDescription {
            task: String::new(),
            kind: String::new(),
            labels: Vec::new(),
            first_label_id: None,
            label_column: None,
            pooling: String::new(),
            sentence: None,
            layers: Vec::new(),
            layer_profile: None,
            pair: false,
            standardize: false,
            temperature: 1.0,
            thresholds: None,
            no_answer_threshold: None,
            max_answer_tokens: None,
            output_scale: None,
            c: None,
            lambda: None,
            best_epoch: 0,
            states: Vec::new(),
            network: None,
            base: None,
        }
    }
}

impl HeadDescription {
    /// Whether layers of the encoder were trained with the head.
    pub(crate) fn has_encoder_layers(&self) -> bool {
        self.network.as_ref().is_some_and(|network| network.encoder_layers.is_some())
    }

    /// The numbers that the outputs stand for.
    pub fn numbers(&self, outputs: ArrayView1<'_, f32>) -> Vec<f64> {
        let [mean, deviation] = self.output_scale.unwrap_or([0.0, 1.0]);
        let outputs = outputs.iter();
        outputs.map(|output| mean + deviation * f64::from(*output)).collect()
    }
}

/// A head that reads the original states.
#[derive(Clone, Debug)]
pub struct Head {
    /// Its description.
    pub description: HeadDescription,
    /// The transform that is applied to rows first; the identity if it could be folded into the weights.
    pub transform: Transform,
    network: Network,
    parameters: Vec<f32>,
}

/// Number of samples that are decoded at a time.
pub(super) const TILE_SAMPLES: usize = 1024;

impl Head {
    /// Creates a head from trained parameters. The transform of a linear head is folded into its weights.
    ///
    /// # Panics
    /// Panics if the description has no network, or if the parameters do not belong to such a network.
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
        if spec.is_linear() {
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

    /// Creates a head that belongs to no run, from a network as it was trained on transformed features.
    ///
    /// # Panics
    /// Panics if the parameters do not belong to the network.
    pub fn of(network: NetworkSpec, trained: TrainedHead, transform: Transform) -> Head {
        let description = HeadDescription {
            best_epoch: trained.best_epoch,
            network: Some(network),
            ..HeadDescription::default()
        };
        Head::new(description, trained.parameters, transform)
    }

    /// Number of values of a stored row that it reads.
    pub(crate) fn width(&self) -> usize {
        self.transform.scaler.mean.len()
    }

    /// The head's network and its parameters.
    pub fn network(&self) -> (&Network, &[f32]) {
        (&self.network, &self.parameters)
    }

    /// Computes the outputs on the rows of some samples: `[rows, outputs]`, or `[samples, outputs]` if the head pools
    /// them.
    pub fn outputs(&self, rows: Array2<f32>, starts: &[usize]) -> Array2<f32> {
        self.outputs_of_tokens(rows, starts, &[])
    }

    /// Does the same as [`Head::outputs`] for rows with roles, as layers of an encoder read them; a head that does not
    /// pool has an output for each token that [is one](TokenRole::is_output).
    pub(crate) fn outputs_of_tokens(
        &self,
        rows: Array2<f32>,
        starts: &[usize],
        roles: &[TokenRole],
    ) -> Array2<f32> {
        let rows = if self.transform.is_identity() { rows } else { self.transform.apply(rows) };
        let input = NetworkInput { rows: rows.view(), starts, roles };
        network_outputs(&self.network, &self.parameters, &input)
    }

    /// Visits the outputs on some samples of a view, tile by tile in storage order: the samples, the first output of
    /// each for a head with one for each row or token, and the outputs.
    ///
    /// # Errors
    /// Returns an error if a file of the cache does not match the manifest, and [`Error::Diverged`] if an output is not
    /// finite.
    pub fn for_each_output(
        &self,
        view: &FeatureView<'_>,
        samples: &[u32],
        visit: impl FnMut(&[u32], &[usize], Array2<f32>),
    ) -> Result<()> {
        self.for_each_output_of(view, samples, TILE_SAMPLES, visit)
    }

    /// Like [`Head::for_each_output`], with `at_a_time` samples at a time.
    pub(super) fn for_each_output_of(
        &self,
        view: &FeatureView<'_>,
        samples: &[u32],
        at_a_time: usize,
        mut visit: impl FnMut(&[u32], &[usize], Array2<f32>),
    ) -> Result<()> {
        let mut are_finite = true;
        view.for_each_tile(samples, at_a_time, |samples, tile| {
            let output_starts = tile.output_starts().into_owned();
            let outputs = self.outputs_of_tokens(tile.rows, &tile.starts, &tile.roles);
            are_finite &= outputs.iter().all(|output| output.is_finite());
            visit(samples, &output_starts, outputs);
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

    /// Computes the outputs `[samples, outputs]` on all samples of a view, in order, for a head with one output row per
    /// sample.
    ///
    /// # Errors
    /// Returns an error if a file of the cache does not match the manifest.
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

    /// Writes head.json and head.safetensors. The tensors have the names that PyTorch's modules would give them; the
    /// last layer is `weight [outputs, inputs]` and `bias [outputs]`. Layers of an encoder are written to
    /// layers.safetensors.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let mut tensors: Vec<(String, Vec<usize>, Vec<f32>)> =
            self.network.named_tensors(&self.parameters);
        let above = tensors.split_off(self.network.n_encoder_tensors());
        let layers = std::mem::replace(&mut tensors, above);
        if !layers.is_empty() {
            let base = self.description.base.as_ref();
            let base = base.map(|hash| HashMap::from([("base".to_string(), hash.to_string())]));
            write_tensors(&folder.join(LAYERS_FILE), &layers, base)?;
        }
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

    /// Opens the head that [`Head::save`] wrote to a folder. A head that belongs to no run names no states.
    ///
    /// # Errors
    /// Returns an error if a file is missing or damaged, or if the two files do not belong together.
    pub fn open(folder: &Path) -> Result<Head> {
        let read = |path: &Path| fs::read(path).map_err(Error::io("read", path));
        let path = folder.join(DESCRIPTION_FILE);
        let description = parse_description(&path, &read(&path)?)?;
        let of_run = !description.states.is_empty();
        let checked =
            if of_run { check::check(&description) } else { check::check_network(&description) };
        checked.map_err(|(expected, got)| refusal(&path, expected.into(), got))?;
        let layers_path = folder.join(LAYERS_FILE);
        let layers =
            if description.has_encoder_layers() { Some(read(&layers_path)?) } else { None };
        let layers = layers.as_ref().map(|bytes| (&*layers_path, &bytes[..]));
        let path = folder.join(WEIGHTS_FILE);
        Head::from_files(&path, &read(&path)?, layers, description)
    }

    /// Reads a head's weights from `bytes`, the contents of the safetensors file at `path`.
    ///
    /// # Errors
    /// Returns an error if the file is damaged, holds a value that is not finite, or does not match the description.
    pub fn from_bytes(path: &Path, bytes: &[u8], description: HeadDescription) -> Result<Head> {
        Head::from_files(path, bytes, None, description)
    }

    /// Like [`Head::from_bytes`], for a head with layers of an encoder too, which are in the safetensors file `layers`:
    /// its path and its contents.
    ///
    /// # Errors
    /// Returns the errors of [`Head::from_bytes`].
    pub(crate) fn from_files(
        path: &Path,
        bytes: &[u8],
        layers: Option<(&Path, &[u8])>,
        description: HeadDescription,
    ) -> Result<Head> {
        let Some(spec) = description.network.clone() else {
            let kind = description.kind.clone();
            return Err(refusal(path, "a head with weights".into(), kind));
        };
        let file = parse_tensors(path, bytes)?;
        let layers =
            layers.map(|(path, bytes)| Ok::<_, Error>((path, parse_tensors(path, bytes)?)));
        let layers = layers.transpose()?;
        let tensor = |name: &str, shape: &[usize]| {
            let (path, view) = match (file.tensor(name).ok(), &layers) {
                (None, Some((path, layers))) => (*path, layers.tensor(name).ok()),
                (own, _) => (path, own),
            };
            let refuse = |expected: String, got: String| refusal(path, expected, got);
            let view = view
                .filter(|view| view.shape() == shape && view.dtype() == safetensors::Dtype::F32)
                .ok_or_else(|| {
                    let expected = format!("f32 `{name}` of shape {shape:?}");
                    refuse(expected, "a different one or none".into())
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

/// Writes a head's tensors (name, shape, values) and its description.
///
/// # Errors
/// Returns an error if the folder cannot be written.
pub(crate) fn save(
    folder: &Path,
    description: &HeadDescription,
    tensors: &[(String, Vec<usize>, Vec<f32>)],
) -> Result<()> {
    write_tensors(&folder.join(WEIGHTS_FILE), tensors, None)?;
    let path = folder.join(DESCRIPTION_FILE);
    let mut json = serde_json::to_string_pretty(description).expect("plain fields become JSON");
    json.push('\n');
    Ok(write_file(&path, json.as_bytes())?)
}

fn write_tensors(
    path: &Path,
    tensors: &[(String, Vec<usize>, Vec<f32>)],
    metadata: Option<HashMap<String, String>>,
) -> Result<()> {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, _, values)| values.iter().flat_map(|value| value.to_le_bytes()).collect())
        .collect();
    let views = tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| {
        let view = TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes);
        (name.as_str(), view.expect("bytes of this shape"))
    });
    let file = safetensors::serialize(views, metadata)
        .map_err(|error| Error::io("write", path)(std::io::Error::other(error)))?;
    Ok(write_file(path, &file)?)
}

fn parse_tensors<'b>(path: &Path, bytes: &'b [u8]) -> Result<SafeTensors<'b>> {
    SafeTensors::deserialize(bytes)
        .map_err(|error| refusal(path, "a whole safetensors file".into(), error.to_string()))
}

/// Parses the description of a run's head from `bytes`, the contents of the head.json at `path`.
///
/// # Errors
/// Returns an error if the file is damaged, or if its description is inconsistent.
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

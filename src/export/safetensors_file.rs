//! The head's tensors in one safetensors file, for programs that apply it to states of their own.

use std::{collections::HashMap, fs, path::Path};

use ndarray::{Array1, Array2};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::{
    error::{Error, Result},
    export::{
        Exporting,
        folder::NewFolder,
        request::{ExportCheck, ExportKind, TOLERANCE, largest_difference},
    },
    features::scaler::Scaler,
    head::{
        network::Network,
        saved::{Head, HeadDescription, WEIGHTS_FILE},
        transform::{Projection, Transform},
    },
};

/// A tensor of any type: its name, type, shape and bytes.
type RawTensor = (String, Dtype, Vec<usize>, Vec<u8>);

/// Writes the file and checks that what is in it gives the outputs of the run's head.
pub(super) fn write(exporting: &Exporting<'_>, folder: &NewFolder) -> Result<ExportCheck> {
    let run = exporting.predictor.run();
    let head = run.head.as_ref().ok_or_else(|| {
        ExportKind::Safetensors.refuse(
            "a trained head",
            "a cosine, which has no weights".into(),
            "the cosine of two states is their dot product divided by their lengths",
        )
    })?;
    let tensors = tensors_of(head);
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        let view = TensorView::new(*dtype, shape.clone(), bytes);
        (name.as_str(), view.expect("bytes of this shape"))
    });
    let path = folder.path().join(WEIGHTS_FILE);
    let bytes = safetensors::serialize(views, Some(metadata(head)))
        .map_err(|error| Error::io("write", &path)(std::io::Error::other(error)))?;
    folder.write(WEIGHTS_FILE, &bytes)?;
    let read = read(&path, &head.description)?;
    let rows = &exporting.rows.head;
    let outputs = read.outputs(rows.states.clone(), &rows.starts);
    let written = fs::read(&path).map_err(Error::io("read", &path))?;
    let difference = if holds(&written, &tensors, &metadata(head)) {
        largest_difference(&outputs, rows.outputs.iter().flatten())
    } else {
        f64::INFINITY
    };
    Ok(ExportCheck {
        part: exporting.rows.part,
        rows: exporting.rows.records.len(),
        compared: "logits",
        largest_difference: difference,
        tolerance: TOLERANCE,
        ..ExportCheck::default()
    })
}

/// The network's tensors, and those that are applied before and after it. The mean and the deviation are always there,
/// so that a program needs no special case for heads into which they are folded.
fn tensors_of(head: &Head) -> Vec<RawTensor> {
    let (network, parameters) = head.network();
    let f32s = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let named = network.named_tensors(parameters).into_iter();
    let mut tensors: Vec<RawTensor> =
        named.map(|(name, shape, values)| (name, Dtype::F32, shape, f32s(&values))).collect();
    let mut add = |name: &str, shape: Vec<usize>, values: Vec<f32>| {
        tensors.push((name.into(), Dtype::F32, shape, f32s(&values)));
    };
    let Transform { scaler, projection } = &head.transform;
    add("mean", vec![scaler.mean.len()], scaler.mean.to_vec());
    add("deviation", vec![scaler.deviation.len()], scaler.deviation.to_vec());
    if let Some(Projection { mean, components }) = projection {
        add("pca.mean", vec![mean.len()], mean.to_vec());
        let (width, n_components) = components.dim();
        add("pca.components", vec![width, n_components], components.iter().copied().collect());
    }
    let description = &head.description;
    let mut add = |name: &str, values: &[f64]| {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        tensors.push((name.into(), Dtype::F64, vec![values.len()], bytes));
    };
    add("temperature", &[description.temperature]);
    if let Some(thresholds) = &description.thresholds {
        add("thresholds", thresholds);
    }
    if let Some(scale) = &description.output_scale {
        add("output_scale", scale);
    }
    tensors
}

/// What the tensors mean: the task, the kind of head, its labels and the states that it reads; lists are JSON.
fn metadata(head: &Head) -> HashMap<String, String> {
    let description = &head.description;
    let json = |value: serde_json::Value| value.to_string();
    let states: Vec<String> = description.states.iter().map(ToString::to_string).collect();
    let network = serde_json::to_value(&description.network).expect("plain fields become JSON");
    HashMap::from([
        ("format".into(), "frostbert-head-1".into()),
        ("task".into(), description.task.clone()),
        ("kind".into(), description.kind.clone()),
        ("labels".into(), json(description.labels.clone().into())),
        ("states".into(), json(states.into())),
        ("network".into(), network.to_string()),
    ])
}

/// Whether a file holds these tensors and this metadata: the outputs of a head do not depend on some of them, such as
/// the temperature.
fn holds(file: &[u8], tensors: &[RawTensor], metadata: &HashMap<String, String>) -> bool {
    let Ok(read) = SafeTensors::deserialize(file) else { return false };
    let Ok((_, header)) = SafeTensors::read_metadata(file) else { return false };
    let is_there = |(name, dtype, shape, values): &RawTensor| {
        read.tensor(name).is_ok_and(|view| {
            view.dtype() == *dtype
                && view.shape() == shape.as_slice()
                && view.data() == values.as_slice()
        })
    };
    read.len() == tensors.len()
        && tensors.iter().all(is_there)
        && header.metadata().as_ref() == Some(metadata)
}

/// Reads the file as another program would.
fn read(path: &Path, description: &HeadDescription) -> Result<Head> {
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    let refuse = |got: String| Error::Run {
        path: path.to_path_buf(),
        expected: "a whole safetensors file".into(),
        got,
        hint: "export again".into(),
    };
    let file = SafeTensors::deserialize(&bytes).map_err(|error| refuse(error.to_string()))?;
    let tensor = |name: &str| {
        let view = file.tensor(name).map_err(|error| refuse(error.to_string()))?;
        let four = view.data().chunks_exact(4);
        let values = four.map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]));
        Ok::<Vec<f32>, Error>(values.collect())
    };
    let spec = description.network.clone().expect("a head with weights has a network");
    let parameters = Network::new(spec).from_named(|name, _| tensor(name))?;
    let scaler = Scaler {
        mean: Array1::from(tensor("mean")?),
        deviation: Array1::from(tensor("deviation")?),
    };
    let projection = if file.tensor("pca.mean").is_ok() {
        let mean = Array1::from(tensor("pca.mean")?);
        let components = tensor("pca.components")?;
        let shape = (mean.len(), components.len() / mean.len().max(1));
        let components = Array2::from_shape_vec(shape, components);
        let components = components.map_err(|error| refuse(error.to_string()))?;
        Some(Projection { mean, components })
    } else {
        None
    };
    Ok(Head::new(description.clone(), parameters, Transform { scaler, projection }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_holds_what_was_written_and_nothing_else() {
        let tensor = |value: f64| -> Vec<RawTensor> {
            vec![("temperature".into(), Dtype::F64, vec![1], value.to_le_bytes().to_vec())]
        };
        let metadata = |kind: &str| HashMap::from([("kind".to_owned(), kind.to_owned())]);
        let tensors = tensor(1.5);
        let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
            (name.as_str(), TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        let file = safetensors::serialize(views, Some(metadata("ridge"))).unwrap();
        assert!(holds(&file, &tensor(1.5), &metadata("ridge")));
        assert!(!holds(&file, &tensor(1.0), &metadata("ridge")));
        assert!(!holds(&file, &tensor(1.5), &metadata("lda")));
        assert!(!holds(&file, &[], &metadata("ridge")));
        assert!(!holds(&file[..20], &tensor(1.5), &metadata("ridge")));
    }
}

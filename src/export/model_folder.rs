//! The files of a model as `transformers` keeps them, and as sentence-transformers keeps the encoder of a folder.

use std::collections::HashMap;

use frostbert_cache::states::{Pooling, StateId, StateKind};
use safetensors::{Dtype, tensor::TensorView};
use serde_json::{Map, Value, json};

use crate::{
    encoder::{
        checkpoint::Checkpoint,
        device::Precision,
        portable::{PortableEncoder, PortableTensor},
    },
    error::{Error, Result},
    export::{folder::NewFolder, request::ExportKind},
    head::{
        network::TokenPooling,
        saved::{Head, HeadDescription},
    },
    prediction::saved_run::SavedRun,
};

/// The file of a model's weights.
pub(super) const MODEL_WEIGHTS: &str = "model.safetensors";

/// Returns the state of the last layer that a head reads, of an encoder with `n_layers` layers of which the last were
/// trained with it; `None` if none were.
pub(super) fn trained_state(description: &HeadDescription, n_layers: usize) -> Option<StateId> {
    let network = description.network.as_ref()?;
    network.encoder_layers.as_ref()?;
    let kind = trained_pooling(description).map_or(StateKind::Tokens, StateKind::Pooled);
    Some(StateId { kind, layer: n_layers })
}

/// Returns the tensors of the layers that were trained with a head, by their names in the checkpoint.
pub(super) fn trained_tensors(head: &Head) -> HashMap<String, Vec<f32>> {
    let (network, parameters) = head.network();
    let tensors = network.named_tensors(parameters).into_iter();
    tensors.take(network.n_encoder_tensors()).map(|(name, _, values)| (name, values)).collect()
}

/// Returns how a head pools the last layer of an encoder whose last layers were trained with it; `None` if none were,
/// if it pools by attention, or if it reads tokens one by one.
pub(super) fn trained_pooling(description: &HeadDescription) -> Option<Pooling> {
    let network = description.network.as_ref().filter(|network| !network.attention)?;
    match network.encoder_layers.as_ref()?.pooling {
        TokenPooling::Mean => Some(Pooling::Mean),
        TokenPooling::Cls => Some(Pooling::Cls),
        TokenPooling::Max => Some(Pooling::Max),
        TokenPooling::Outputs | TokenPooling::Matching => None,
    }
}

/// Returns the encoder of a run up to the layer that its head reads, and a note if that is not the last one. Layers
/// that were trained with the head are in it as they were trained.
///
/// # Errors
/// Returns an error if the head reads several layers or the embeddings, if its states were computed in int8, or if the
/// model is a model.onnx.
pub(super) fn encoder_of(
    run: &SavedRun,
    checkpoint: &Checkpoint,
    kind: ExportKind,
) -> Result<(PortableEncoder, Option<String>)> {
    let trained = run.head.as_ref().filter(|_| run.description.has_encoder_layers());
    let layer = match run.description.layers[..] {
        _ if trained.is_some() => checkpoint.config.layers,
        [0] => {
            let got = "the embeddings, layer 0".into();
            return Err(kind.refuse(
                "a head that reads a layer of the encoder",
                got,
                "use --to onnx",
            ));
        }
        [layer] => layer,
        _ => {
            let got = format!("a mix of the layers {:?}", run.description.layers);
            return Err(kind.refuse("a head that reads one layer", got, "use --to onnx"));
        }
    };
    if run.pipeline.extraction.precision == Precision::Int8 {
        let expected = "a run whose states were computed in floating point";
        let hint = "use --to onnx --precision int8, or train again with model.precision = \"f32\"";
        return Err(kind.refuse(expected, "model.precision = \"int8\"".into(), hint));
    }
    let n_layers = checkpoint.config.layers;
    let Some(mut encoder) = PortableEncoder::read(checkpoint, layer)? else {
        let got = format!("the model.onnx of `{}`", checkpoint.folder.display());
        return Err(kind.refuse("a model with weights by their names", got, "use --to onnx-head"));
    };
    if let Some(head) = trained {
        replace_layers(&mut encoder, head);
    }
    let note = (layer < n_layers).then(|| {
        format!("the head reads layer {layer} of {n_layers}: the exported encoder ends there")
    });
    Ok((encoder, note))
}

/// Puts the layers that were trained with a head in place of the checkpoint's.
fn replace_layers(encoder: &mut PortableEncoder, head: &Head) {
    let mut trained = trained_tensors(head);
    for tensor in &mut encoder.tensors {
        if let Some(values) = trained.remove(&tensor.name) {
            tensor.values = values;
        }
    }
    assert!(trained.is_empty(), "tensors by their names in the checkpoint");
}

/// The longest input in tokens: what the run was trained with, and no more than the model has positions for.
pub(super) fn max_length(run: &SavedRun, checkpoint: &Checkpoint) -> usize {
    let asked = run.pipeline.extraction.max_length;
    checkpoint.config.max_tokens.map_or(asked, |most| most.min(asked))
}

/// Writes the tokenizer as the run uses it. The class takes tokenizer.json unchanged, whatever the model's family.
pub(super) fn write_tokenizer(
    folder: &NewFolder,
    encoder: &PortableEncoder,
    max_length: usize,
) -> Result<()> {
    folder.write("tokenizer.json", &encoder.tokenizer)?;
    let mut config = Map::from_iter([
        ("tokenizer_class".to_string(), json!("PreTrainedTokenizerFast")),
        ("model_max_length".to_string(), json!(max_length)),
        ("model_input_names".to_string(), json!(encoder.input_names)),
        ("clean_up_tokenization_spaces".to_string(), json!(false)),
    ]);
    config.extend(encoder.special_tokens.clone());
    write_json(folder, "tokenizer_config.json", &config.into())
}

/// Writes a JSON file.
pub(super) fn write_json(folder: &NewFolder, name: &str, value: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value).expect("plain values become JSON") + "\n";
    folder.write(name, text.as_bytes())
}

/// Writes tensors as `transformers` does.
pub(super) fn write_tensors(
    folder: &NewFolder,
    name: &str,
    tensors: Vec<PortableTensor>,
) -> Result<()> {
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .map(|PortableTensor { name, shape, values }| {
            (name, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect())
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        (name.as_str(), view.expect("bytes of this shape"))
    });
    // `transformers` refuses a file that does not say of which framework it is.
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let bytes = safetensors::serialize(views, Some(metadata));
    let path = folder.path().join(name);
    let bytes = bytes.map_err(|error| Error::io("write", &path)(std::io::Error::other(error)))?;
    folder.write(name, &bytes)
}

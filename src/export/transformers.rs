//! A folder that `transformers` loads: the encoder with one of its heads, where that computes exactly what the run's
//! head does.

use std::fs;

use frostbert_cache::states::{Pooling, StateKind};
use ndarray::{Array1, Array2};
use safetensors::SafeTensors;
use serde_json::{Map, Value, json};

use crate::{
    encoder::{checkpoint::Checkpoint, portable::PortableEncoder, windows::Overflow},
    error::{Error, Result},
    export::{
        Exporting,
        dense_layers::{DenseLayer, apply, as_two, layers_of, name_of},
        exported_task::exported_task,
        folder::NewFolder,
        folder_check::compare,
        model_files::about,
        model_folder::{
            MODEL_WEIGHTS, encoder_of, max_length, trained_pooling, trained_state, write_json,
            write_tensors, write_tokenizer,
        },
        reencoded,
        request::{ExportCheck, ExportKind},
    },
    head::{layers::activation::Activation, saved::HeadDescription},
    metrics::tag_scheme::TagScheme,
    prediction::saved_run::SavedRun,
};

const KIND: ExportKind = ExportKind::Transformers;

/// What config.json says under this key is for people and programs; `transformers` keeps it and does not read it.
const OWN_KEY: &str = "frostbert";

/// A class of `transformers` with the layers of its head.
struct HeadClass {
    /// The end of its name, after the family's.
    name: &'static str,
    /// The layers by the names of their modules.
    layers: Vec<(&'static str, DenseLayer)>,
}

/// The head of texts of a family: two layers over the first token's state of the last layer.
struct SequenceHead {
    first: &'static str,
    activation: Activation,
    last: &'static str,
}

impl SequenceHead {
    fn of(family: &str) -> SequenceHead {
        let (first, activation, last) = match family {
            "bert" => ("bert.pooler.dense", Activation::Tanh, "classifier"),
            "distilbert" => ("pre_classifier", Activation::Relu, "classifier"),
            "electra" => ("classifier.dense", Activation::Gelu, "classifier.out_proj"),
            // RoBERTa and those that follow it, and MPNet.
            _ => ("classifier.dense", Activation::Tanh, "classifier.out_proj"),
        };
        SequenceHead { first, activation, last }
    }
}

/// Writes the folder and checks it; adds to the notes what there is to know about it.
pub(super) fn write(
    exporting: &Exporting<'_>,
    folder: &NewFolder,
    notes: &mut Vec<String>,
) -> Result<ExportCheck> {
    let (run, checkpoint) = (exporting.predictor.run(), exporting.predictor.checkpoint()?);
    let head = run.head.as_ref().ok_or_else(|| {
        let got = "a cosine, for which nothing is trained".into();
        KIND.refuse("a trained head", got, "use --to sentence-transformers")
    })?;
    let layers = layers_of(head)
        .map_err(|got| KIND.refuse("a head of dense layers over one text", got, "use --to onnx"))?;
    let (mut encoder, note) = encoder_of(run, checkpoint, KIND)?;
    if run.pipeline.data.task.reads_words() {
        encoder.tokenize_words();
    }
    let class = HeadClass::of(run, &encoder, layers)?;
    let modules: Vec<(&str, Option<Activation>)> =
        class.layers.iter().map(|(name, layer)| (*name, layer.activation)).collect();
    let max_length = max_length(run, checkpoint);
    write_json(folder, "config.json", &config(run, &encoder, &class).into())?;
    write_tokenizer(folder, &encoder, max_length)?;
    let mut tensors = encoder.tensors;
    for tensor in &mut tensors {
        tensor.name.insert_str(0, encoder.base);
    }
    let of_head = class.layers.iter().flat_map(|(name, layer)| layer.tensors(name));
    tensors.extend(of_head);
    write_tensors(folder, MODEL_WEIGHTS, tensors)?;
    let exported = Checkpoint::open(&folder.path())?;
    let states = match trained_state(&run.description, exported.config.layers) {
        Some(state) => reencoded::trained_rows(exporting, &exported, state)?,
        None => reencoded::head_rows(exporting, &exported)?.states,
    };
    let layers = read_layers(folder, &modules)?;
    notes.extend(note);
    add_notes(notes, run, max_length);
    Ok(compare(exporting, &apply(&layers, states.view())))
}

impl HeadClass {
    /// Chooses the class whose head computes what these layers do.
    fn of(run: &SavedRun, encoder: &PortableEncoder, layers: Vec<DenseLayer>) -> Result<HeadClass> {
        let task = exported_task(run.pipeline.data.task);
        let name = task.class_name();
        let Some(module) = task.token_module() else {
            return HeadClass::of_texts(name, &run.description, encoder, &layers);
        };
        match <[DenseLayer; 1]>::try_from(layers) {
            Ok([layer]) => Ok(HeadClass { name, layers: vec![(module, layer)] }),
            Err(layers) => {
                let expected = format!("a linear head, which is all that *{name} has");
                let got = format!("one with {} hidden layers", layers.len() - 1);
                Err(KIND.refuse(&expected, got, "use --to onnx"))
            }
        }
    }

    fn of_texts(
        name: &'static str,
        description: &HeadDescription,
        encoder: &PortableEncoder,
        layers: &[DenseLayer],
    ) -> Result<HeadClass> {
        let class = format!("{}{name}", encoder.class);
        let [state] = &description.states[..] else {
            let expected = format!("a head that reads the first token, as {class} does");
            let got = "one that reads sentence vectors".into();
            return Err(KIND.refuse(&expected, got, "use --to sentence-transformers or --to onnx"));
        };
        let trained = trained_pooling(description);
        let is_first = match trained {
            Some(pooling) => pooling == Pooling::Cls,
            None => state.kind == StateKind::Pooled(Pooling::Cls),
        };
        if !is_first || description.sentence.is_some() {
            return Err(KIND.refuse(
                &format!("a head that reads the first token, as {class} does"),
                match trained {
                    Some(pooling) => format!("one that reads `{}`", pooling.name()),
                    None => format!("one that reads `{}`", description.pooling),
                },
                "use --to sentence-transformers or --to onnx, or train with head.pooling = \"cls\"",
            ));
        }
        let SequenceHead { first, activation, last } = SequenceHead::of(encoder.family);
        let two = as_two(layers, encoder.hidden, activation).map_err(|got| {
            let function = name_of(activation);
            let (expected, hint) = (
                format!("a head as that of {class}, a {function} layer and a linear one"),
                format!(
                    "use --to sentence-transformers or --to onnx, or train with head.kind = \"mlp\", head.activation = \
                     \"{function}\" and head.hidden = [{}]",
                    encoder.hidden
                ),
            );
            KIND.refuse(&expected, got, &hint)
        })?;
        let [one, other] = two;
        Ok(HeadClass { name, layers: vec![(first, one), (last, other)] })
    }
}

/// Returns config.json of the encoder with this head.
fn config(run: &SavedRun, encoder: &PortableEncoder, class: &HeadClass) -> Map<String, Value> {
    let mut config = encoder.config.clone();
    config.insert("architectures".into(), json!([format!("{}{}", encoder.class, class.name)]));
    let task = exported_task(run.pipeline.data.task);
    if let Some(labels) = task.labels(&run.description) {
        let by_id = labels.iter().enumerate();
        let by_id = by_id.map(|(id, label)| (id.to_string(), label.clone().into()));
        config.insert("id2label".into(), Value::Object(by_id.collect()));
        let by_label = labels.iter().enumerate().map(|(id, label)| (label.clone(), id.into()));
        config.insert("label2id".into(), Value::Object(by_label.collect()));
    }
    if let Some(problem) = task.problem_type() {
        config.insert("problem_type".into(), problem.into());
    }
    let mut own = about(run);
    if let Some(own) = own.as_object_mut() {
        // It is in the weights.
        own.shift_remove("temperature");
    }
    config.insert(OWN_KEY.into(), own);
    config
}

/// Notes what `transformers` does otherwise than `predict`, unless it is told.
fn add_notes(notes: &mut Vec<String>, run: &SavedRun, max_length: usize) {
    if run.description.thresholds.is_some() {
        notes.push(format!(
            "the thresholds of the labels are in config.json ({OWN_KEY}.thresholds); a pipeline of transformers has \
             one for all"
        ));
    }
    if run.prompts().text.is_some() {
        notes.push(format!(
            "texts need the run's prompt before them, which is in config.json ({OWN_KEY}.prompt)"
        ));
    }
    let task = run.pipeline.data.task;
    if task.reads_words() && TagScheme::new(&run.description.labels).is_some() {
        notes.push(
            "predict chooses the best valid sequence of IOB2 tags, a pipeline of transformers the best tag of a token"
                .into(),
        );
    }
    if !task.reads_contexts() && run.pipeline.extraction.overflow != Overflow::Truncate {
        notes.push(format!(
            "predict reads texts of more than {max_length} tokens in windows; transformers cuts them off"
        ));
    }
}

/// Reads the layers of the head from the weights that were written.
fn read_layers(
    folder: &NewFolder,
    modules: &[(&str, Option<Activation>)],
) -> Result<Vec<DenseLayer>> {
    let path = folder.path().join(MODEL_WEIGHTS);
    let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
    let refuse = |error: safetensors::SafeTensorError| {
        Error::io("read", &path)(std::io::Error::other(error))
    };
    let file = SafeTensors::deserialize(&bytes).map_err(refuse)?;
    let layers = modules.iter().map(|(name, activation)| {
        let weight = file.tensor(&format!("{name}.weight")).map_err(refuse)?;
        let bias = file.tensor(&format!("{name}.bias")).map_err(refuse)?;
        let values = |bytes: &[u8]| -> Vec<f32> {
            let four = bytes.chunks_exact(4);
            four.map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect()
        };
        let shape = (weight.shape()[0], weight.shape()[1]);
        Ok(DenseLayer {
            weight: Array2::from_shape_vec(shape, values(weight.data())).expect("a whole tensor"),
            bias: Array1::from(values(bias.data())),
            activation: *activation,
        })
    });
    layers.collect()
}

//! A folder that sentence-transformers loads: the encoder, the pooling that the head reads, and the head as Dense
//! modules where it is a chain of dense layers over one text.

use frostbert_cache::states::{Pooling, StateKind};
use ndarray::{Array1, Array2, Axis, concatenate, s};
use serde_json::{Map, Value, json};

use crate::{
    encoder::{
        checkpoint::Checkpoint,
        portable::PortableEncoder,
        sentence_folder::{SentenceFolder, SentenceVector, VectorStep},
        windows::Overflow,
    },
    error::Result,
    export::{
        Exporting,
        dense_layers::{DenseLayer, layers_of},
        folder::NewFolder,
        folder_check::{compare, compare_states},
        model_folder::{
            MODEL_WEIGHTS, encoder_of, max_length, trained_pooling, write_json, write_tensors,
            write_tokenizer,
        },
        reencoded::states_of_documents,
        request::{ExportCheck, ExportKind},
    },
    extraction::sentence::SENTENCE,
    head::layers::activation::Activation,
    prediction::saved_run::SavedRun,
};

const KIND: ExportKind = ExportKind::SentenceTransformers;

/// A module after the encoder.
enum Module {
    /// `y = f(W x + b)`, with the class of its activation in torch.
    Dense { weight: Array2<f32>, bias: Option<Array1<f32>>, activation: &'static str },
    /// To length 1.
    Normalize,
}

/// The modules after the pooling.
struct Modules {
    modules: Vec<Module>,
    /// How many values of the last one are returned, if not all.
    truncate_dim: Option<usize>,
    /// Whether the head is among them.
    with_head: bool,
}

/// Writes the folder and checks it; adds to the notes what there is to know about it.
pub(super) fn write(
    exporting: &Exporting<'_>,
    folder: &NewFolder,
    notes: &mut Vec<String>,
) -> Result<ExportCheck> {
    let (run, checkpoint) = (exporting.predictor.run(), exporting.predictor.checkpoint()?);
    let poolings = poolings_of(run)?;
    let (encoder, note) = encoder_of(run, checkpoint, KIND)?;
    notes.extend(note);
    let modules = modules_of(run, checkpoint, notes)?;
    let max_length = max_length(run, checkpoint);
    write_encoder(folder, encoder, max_length)?;
    let hidden = checkpoint.config.hidden;
    write_pooling(folder, &poolings, hidden, checkpoint.include_prompt)?;
    write_modules(folder, &modules.modules)?;
    write_settings(folder, run, &modules)?;
    if run.pipeline.extraction.overflow != Overflow::Truncate {
        notes.push(format!(
            "predict reads texts of more than {max_length} tokens in windows; sentence-transformers cuts them off"
        ));
    }
    if run.pipeline.reads_pairs() && !run.pipeline.has_separate_pairs() {
        notes.push("encode takes pairs of texts, as a list of (first, second)".into());
    }
    let exported = Checkpoint::open(&folder.path())?;
    let vectors = vectors_of(exporting, &exported)?;
    if modules.with_head {
        return Ok(compare(exporting, &vectors));
    }
    Ok(compare_states(exporting, &vectors, &states_of(exporting, vectors.ncols())))
}

/// The poolings of the encoder's last layer that the head's input is made of.
fn poolings_of(run: &SavedRun) -> Result<Vec<Pooling>> {
    let description = &run.description;
    if let Some(pooling) = trained_pooling(description) {
        return Ok(vec![pooling]);
    }
    let poolings = description.states.iter().map(|state| match state.kind {
        StateKind::Pooled(pooling) => Ok(pooling),
        StateKind::Words | StateKind::Tokens => {
            let got = format!("one that reads `{}`", description.pooling);
            let hint = "use --to onnx, or for tags and answers --to transformers";
            Err(KIND.refuse("a head that reads one vector of a text", got, hint))
        }
    });
    poolings.collect()
}

/// Returns the modules after the pooling: those of the model's own folder if the head reads its sentence vectors, and
/// the head if it can be expressed.
fn modules_of(run: &SavedRun, checkpoint: &Checkpoint, notes: &mut Vec<String>) -> Result<Modules> {
    let mut modules = Vec::new();
    let (mut width, mut kept) = (checkpoint.config.hidden, checkpoint.config.hidden);
    if let Some(vector) = sentence_vector(run, checkpoint)? {
        width *= vector.states(0).len();
        for step in vector.steps() {
            modules.push(match step {
                VectorStep::Dense(dense) => {
                    width = dense.weight().nrows();
                    Module::Dense {
                        weight: dense.weight().clone(),
                        bias: dense.bias().map(|bias| Array1::from(bias.to_vec())),
                        activation: class_of(dense.activation()),
                    }
                }
                VectorStep::Normalize => Module::Normalize,
            });
        }
        kept = vector.n_values();
    }
    let layers = match &run.head {
        Some(head) => layers_of(head),
        None => Err("the cosine of two texts".into()),
    };
    match layers {
        Ok(mut layers) => {
            // The values that the folder cuts off do not reach the head.
            let first = &mut layers[0].weight;
            let cut_off = Array2::zeros((first.nrows(), width - kept));
            let both = concatenate(Axis(1), &[first.view(), cut_off.view()]);
            *first = both.expect("arrays of equal height");
            modules.extend(layers.into_iter().map(Module::of_head));
            let what = if run.description.labels.is_empty() {
                "the number that is predicted"
            } else {
                "the logits of the labels, over the temperature"
            };
            notes.push(format!("encode returns {what}"));
            Ok(Modules { modules, truncate_dim: None, with_head: true })
        }
        Err(reason) if run.description.has_encoder_layers() => {
            let expected =
                "a head of dense layers, where layers of the encoder were trained with it";
            Err(KIND.refuse(
                expected,
                reason,
                "use the run folder with `frostbert predict` or `serve`",
            ))
        }
        Err(reason) => {
            notes.push(match run.head {
                Some(_) => format!(
                    "encode returns the vector that the head reads, without the head: no module computes {reason}"
                ),
                None => "encode returns the vector of a text, and similarity the cosine of two".into(),
            });
            let truncate_dim = (kept < width).then_some(kept);
            Ok(Modules { modules, truncate_dim, with_head: false })
        }
    }
}

/// How the model's own folder makes sentence vectors, if the head reads those.
fn sentence_vector(run: &SavedRun, checkpoint: &Checkpoint) -> Result<Option<SentenceVector>> {
    if run.description.pooling != SENTENCE {
        return Ok(None);
    }
    let Some(folder) = SentenceFolder::read(&checkpoint.folder)? else {
        return Ok(None);
    };
    folder.vector(checkpoint.config.hidden, checkpoint.lowercase).map(Some)
}

/// The class of an activation by its name.
fn class_of(activation: &str) -> &'static str {
    match activation {
        "tanh" => "torch.nn.modules.activation.Tanh",
        "relu" => "torch.nn.modules.activation.ReLU",
        "sigmoid" => "torch.nn.modules.activation.Sigmoid",
        "silu" => "torch.nn.modules.activation.SiLU",
        "gelu" => "torch.nn.modules.activation.GELU",
        _ => "torch.nn.modules.linear.Identity",
    }
}

impl Module {
    fn of_head(layer: DenseLayer) -> Module {
        let activation = match layer.activation {
            Some(Activation::Relu) => "relu",
            Some(Activation::Gelu) => "gelu",
            Some(Activation::Tanh) => "tanh",
            None => "identity",
        };
        Module::Dense {
            weight: layer.weight,
            bias: Some(layer.bias),
            activation: class_of(activation),
        }
    }

    /// The last part of its class.
    fn name(&self) -> &'static str {
        match self {
            Module::Dense { .. } => "Dense",
            Module::Normalize => "Normalize",
        }
    }
}

/// Writes the encoder as the bare model of `transformers`.
fn write_encoder(folder: &NewFolder, encoder: PortableEncoder, max_length: usize) -> Result<()> {
    let mut config = encoder.config.clone();
    config.insert("architectures".into(), json!([format!("{}Model", encoder.class)]));
    write_json(folder, "config.json", &config.into())?;
    write_tokenizer(folder, &encoder, max_length)?;
    let settings = json!({ "max_seq_length": max_length, "do_lower_case": false });
    write_json(folder, "sentence_bert_config.json", &settings)?;
    let mut tensors = encoder.tensors;
    tensors.extend(encoder.pooler);
    write_tensors(folder, MODEL_WEIGHTS, tensors)
}

/// Writes the settings of the pooling. A single one is spelled as all versions read it; of several, only the newer
/// spelling keeps the order.
fn write_pooling(
    folder: &NewFolder,
    poolings: &[Pooling],
    hidden: usize,
    include_prompt: bool,
) -> Result<()> {
    let settings = match poolings {
        [pooling] => json!({
            "word_embedding_dimension": hidden,
            "pooling_mode_cls_token": *pooling == Pooling::Cls,
            "pooling_mode_mean_tokens": *pooling == Pooling::Mean,
            "pooling_mode_max_tokens": *pooling == Pooling::Max,
            "include_prompt": include_prompt,
        }),
        several => {
            let names: Vec<&str> = several.iter().map(|pooling| pooling.name()).collect();
            json!({
                "embedding_dimension": hidden,
                "pooling_mode": names,
                "include_prompt": include_prompt,
            })
        }
    };
    write_json(folder, "1_Pooling/config.json", &settings)
}

/// Writes the list of modules, and the settings and weights of those after the pooling.
fn write_modules(folder: &NewFolder, modules: &[Module]) -> Result<()> {
    let listed = |place: usize, path: &str, class: &str| {
        json!({
            "idx": place,
            "name": place.to_string(),
            "path": path,
            "type": format!("sentence_transformers.models.{class}"),
        })
    };
    let mut list = vec![listed(0, "", "Transformer"), listed(1, "1_Pooling", "Pooling")];
    for (module, place) in modules.iter().zip(2..) {
        let path = format!("{place}_{}", module.name());
        list.push(listed(place, &path, module.name()));
        let Module::Dense { weight, bias, activation } = module else {
            write_json(folder, &format!("{path}/config.json"), &json!({}))?;
            continue;
        };
        let (outputs, inputs) = weight.dim();
        let settings = json!({
            "in_features": inputs,
            "out_features": outputs,
            "bias": bias.is_some(),
            "activation_function": activation,
        });
        write_json(folder, &format!("{path}/config.json"), &settings)?;
        let layer = DenseLayer {
            weight: weight.clone(),
            bias: bias.clone().unwrap_or_default(),
            activation: None,
        };
        let [weight, bias_tensor] = layer.tensors("linear");
        let bias_tensor = bias.is_some().then_some(bias_tensor);
        let tensors = [weight].into_iter().chain(bias_tensor).collect();
        write_tensors(folder, &format!("{path}/{MODEL_WEIGHTS}"), tensors)?;
    }
    write_json(folder, "modules.json", &list.into())
}

/// Writes the settings of the whole model: the run's prompts, and how many values `encode` returns.
fn write_settings(folder: &NewFolder, run: &SavedRun, modules: &Modules) -> Result<()> {
    let given = run.prompts();
    let is_pair = run.pipeline.has_separate_pairs();
    let mut prompts = Map::new();
    for (name, prompt) in [("text", &given.text), ("text_pair", &given.text_pair)] {
        if let Some(prompt) = prompt.as_deref().filter(|_| name == "text" || is_pair) {
            prompts.insert(name.into(), prompt.into());
        }
    }
    // Of two prompts, none is every text's.
    let is_every = given.text.is_some() && (!is_pair || given.text == given.text_pair);
    let mut settings = Map::from_iter([
        ("model_type".to_string(), json!("SentenceTransformer")),
        ("prompts".to_string(), Value::Object(prompts)),
        ("default_prompt_name".to_string(), json!(is_every.then_some("text"))),
        ("similarity_fn_name".to_string(), json!("cosine")),
    ]);
    if let Some(kept) = modules.truncate_dim {
        settings.insert("truncate_dim".into(), kept.into());
    }
    write_json(folder, "config_sentence_transformers.json", &settings.into())
}

/// Computes what the exported folder says of the documents of the checked rows.
fn vectors_of(exporting: &Exporting<'_>, exported: &Checkpoint) -> Result<Array2<f32>> {
    let folder =
        SentenceFolder::read(&exported.folder)?.expect("a folder with the list of modules");
    let vector = folder.vector(exported.config.hidden, None)?;
    let states = vector.states(exported.config.layers);
    let pooled = states_of_documents(exporting, exported, &states)?;
    let mut vectors = Array2::zeros((pooled.nrows(), vector.n_values()));
    for (states, mut out) in pooled.rows().into_iter().zip(vectors.rows_mut()) {
        let out = out.as_slice_mut().expect("a row is contiguous");
        vector.compute(&states.to_vec(), out);
    }
    Ok(vectors)
}

/// What the run's head reads of each document: of a pair, that of the first text and then that of the second.
fn states_of(exporting: &Exporting<'_>, width: usize) -> Array2<f32> {
    let states = &exporting.rows.head.states;
    if !exporting.predictor.run().pipeline.has_separate_pairs() {
        return states.clone();
    }
    let mut vectors = Array2::zeros((2 * states.nrows(), width));
    for (pair, row) in states.rows().into_iter().enumerate() {
        for text in 0..2 {
            let own = row.slice(s![text * width..(text + 1) * width]);
            vectors.row_mut(2 * pair + text).assign(&own);
        }
    }
    vectors
}

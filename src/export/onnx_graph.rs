//! The ONNX file of a whole run: encoder, pooling, standardisation, head and temperature.

use std::{collections::HashMap, path::Path};

use frostbert_cache::states::{StateId, StateKind};

use crate::{
    config::{names::Task, settings::KindSettings},
    encoder::{
        checkpoint::Checkpoint,
        graph::exported::{EncoderForm, EncoderInputs},
        onnx_writer::{Dimension, OnnxGraph, OnnxType},
    },
    error::Result,
    export::{
        exported_task::exported_task,
        graph_ops::GraphOps,
        head_graph::add_head,
        model_folder::{trained_state, trained_tensors},
        state_graph::{TextStates, cosine, halves, pair},
    },
    extraction::sentence::SentenceState,
    head::saved::HeadDescription,
    prediction::saved_run::SavedRun,
};

const BATCH: Dimension<'static> = Dimension::Named("batch");

/// What is put in place of the logits of tokens that are not part of the context.
const NO_CANDIDATE: f32 = -1e4;

/// What the graph needs to know besides the run.
pub(super) struct GraphPlan<'a> {
    pub(super) run: &'a SavedRun,
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) form: EncoderForm,
    /// The number of tokens of each text's prompt that pooling leaves out.
    pub(super) left_out: [u32; 2],
}

impl GraphPlan<'_> {
    /// The states of the encoder that the head reads: of its last layer, if layers were trained with the head.
    fn read_states(&self) -> Vec<StateId> {
        let description = &self.run.description;
        match trained_state(description, self.checkpoint.config.layers) {
            Some(state) => vec![state],
            None => description.states.clone(),
        }
    }
}

/// The suffixes of the inputs of one text, or of the two of a pair.
pub(super) fn suffixes(run: &SavedRun) -> &'static [&'static str] {
    if run.pipeline.has_separate_pairs() { &["_a", "_b"] } else { &[""] }
}

/// Writes the file.
pub(super) fn write(plan: &GraphPlan<'_>, path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(path);
    let mut ops = GraphOps { graph: OnnxGraph::new(folder)? };
    let read = plan.read_states();
    let has_types = plan.checkpoint.has_token_types();
    let suffixes = suffixes(plan.run);
    for suffix in suffixes {
        let sequence = format!("sequence{suffix}");
        let shape = [BATCH, Dimension::Named(&sequence)];
        for name in ["input_ids", "attention_mask", "token_type_ids"] {
            if name != "token_type_ids" || has_types {
                ops.graph.input(&format!("{name}{suffix}"), OnnxType::I64, &shape);
            }
        }
    }
    let own = |name: &str| name.to_string();
    let is_pair = suffixes.len() == 2;
    let [ids, mask] = ["input_ids", "attention_mask"]
        .map(|name| if is_pair { both(&mut ops, name) } else { Ok(own(name)) });
    let (ids, mask) = (ids?, mask?);
    let types = match (has_types, is_pair) {
        (false, _) => None,
        (true, false) => Some(own("token_type_ids")),
        (true, true) => Some(both(&mut ops, "token_type_ids")?),
    };
    let mut layers: Vec<usize> = read.iter().map(|state| state.layer).collect();
    layers.sort_unstable();
    layers.dedup();
    let inputs = EncoderInputs { ids: &ids, types: types.as_deref(), mask: &mask };
    let trained = match &plan.run.head {
        Some(head) => trained_tensors(head),
        None => HashMap::new(),
    };
    let encoder = plan.checkpoint;
    let (graph, names) = encoder.add_encoder(ops.graph, &inputs, &layers, plan.form, &trained)?;
    ops = GraphOps { graph };
    let states: Vec<(usize, String)> = layers.into_iter().zip(names).collect();
    let mask = ops.float(&mask)?;
    if plan.run.pipeline.data.task.reads_contexts() {
        let texts = TextStates { layers: &states, mask: &mask, left_out: 0 };
        questions(&mut ops, plan, &texts)?;
    } else if is_pair {
        let masks = halves(&mut ops, &mask)?;
        let mut sides: [Vec<(usize, String)>; 2] = Default::default();
        for (layer, name) in &states {
            for (side, half) in sides.iter_mut().zip(halves(&mut ops, name)?) {
                side.push((*layer, half));
            }
        }
        pairs(&mut ops, plan, &sides, &masks)?;
    } else {
        let texts = TextStates { layers: &states, mask: &mask, left_out: plan.left_out[0] };
        single_texts(&mut ops, plan, &texts)?;
    }
    ops.graph.write(path)
}

/// Adds the batches of both texts, one after the other, padded to the same length.
fn both(ops: &mut GraphOps, name: &str) -> Result<String> {
    let inputs = ["_a", "_b"].map(|suffix| format!("{name}{suffix}"));
    let mut lengths = Vec::with_capacity(2);
    for input in &inputs {
        let shape = ops.apply("Shape", &[input])?;
        lengths.push(ops.slice(&shape, 1, 2, 0)?);
    }
    let longest = ops.apply("Max", &[&lengths[0], &lengths[1]])?;
    let zeros = ops.numbers(&[0, 0, 0])?;
    let mut padded = Vec::with_capacity(2);
    for (input, length) in inputs.iter().zip(&lengths) {
        let missing = ops.apply("Sub", &[&longest, length])?;
        let pads = ops.concat(&[zeros.clone(), missing], 0)?;
        padded.push(ops.apply("Pad", &[input, &pads])?);
    }
    ops.concat(&padded, 0)
}

/// The sentence vector that the head reads, if it reads one.
fn sentence(plan: &GraphPlan<'_>) -> Result<Option<SentenceState>> {
    if !plan.run.pipeline.reads_sentence() {
        return Ok(None);
    }
    SentenceState::required(plan.checkpoint).map(Some)
}

fn single_texts(ops: &mut GraphOps, plan: &GraphPlan<'_>, texts: &TextStates<'_>) -> Result<()> {
    let description = &plan.run.description;
    let head = plan.run.head.as_ref().expect("only a pair has a cosine");
    let states = &plan.read_states();
    let is_pooled = matches!(states[0].kind, StateKind::Pooled(_));
    let logits = if is_pooled {
        let sentence = sentence(plan)?;
        let sentence = sentence.as_ref().map(SentenceState::vector);
        let pooled = texts.pooled(ops, states, sentence)?;
        let rows = ops.concat(&pooled, -1)?;
        add_head(ops, head, &rows, 2, None)?
    } else {
        let rows = texts.tokens(ops, states)?;
        add_head(ops, head, &rows, 3, Some(texts.mask))?
    };
    let task = plan.run.pipeline.data.task;
    let shape =
        if task.reads_words() { vec![BATCH, Dimension::Named("sequence")] } else { vec![BATCH] };
    outputs(ops, description, task, &logits, &shape)
}

fn pairs(
    ops: &mut GraphOps,
    plan: &GraphPlan<'_>,
    sides: &[Vec<(usize, String)>; 2],
    masks: &[String; 2],
) -> Result<()> {
    let description = &plan.run.description;
    let sentence = sentence(plan)?;
    let sentence = sentence.as_ref().map(SentenceState::vector);
    let mut pooled = Vec::with_capacity(2);
    for (number, (layers, mask)) in sides.iter().zip(masks).enumerate() {
        let texts = TextStates { layers, mask, left_out: plan.left_out[number] };
        pooled.push(texts.pooled(ops, &plan.read_states(), sentence)?);
    }
    let task = plan.run.pipeline.data.task;
    match &plan.run.head {
        Some(head) => {
            let rows = pair(ops, &pooled[0], &pooled[1])?;
            let logits = add_head(ops, head, &rows, 2, None)?;
            outputs(ops, description, task, &logits, &[BATCH])
        }
        None => {
            let value = cosine(ops, &pooled[0][0], &pooled[1][0])?;
            let shape = [BATCH, Dimension::Fixed(1)];
            ops.graph.output("value", &value, OnnxType::F32, &shape)
        }
    }
}

fn questions(ops: &mut GraphOps, plan: &GraphPlan<'_>, texts: &TextStates<'_>) -> Result<()> {
    let shape = [BATCH, Dimension::Named("sequence")];
    ops.graph.input("sequence_ids", OnnxType::I64, &shape);
    let mut of_sequence = |number: i64| {
        let number = ops.number(number)?;
        let is_of = ops.apply("Equal", &["sequence_ids", &number])?;
        ops.float(&is_of)
    };
    let question = of_sequence(0)?;
    let context = of_sequence(1)?;
    let head = plan.run.head.as_ref().expect("questions have no cosine");
    let states = &plan.read_states();
    let rows = if matches!(plan.run.pipeline.head.kind, KindSettings::Matching(..)) {
        texts.matching(ops, states, &question, &context)?
    } else {
        texts.tokens(ops, states)?
    };
    let logits = add_head(ops, head, &rows, 3, Some(texts.mask))?;
    // The first token stands for "no answer".
    let first = ops.slice(&context, 0, 1, 1)?;
    let zero = ops.scaled(&first, 0.0)?;
    let one = ops.scalar(1.0)?;
    let first = ops.apply("Add", &[&zero, &one])?;
    let others = ops.slice(&context, 1, i64::MAX, 1)?;
    let candidates = ops.concat(&[first, others], 1)?;
    let left_out = ops.apply("Sub", &[&one, &candidates])?;
    let penalty = ops.scaled(&left_out, NO_CANDIDATE)?;
    for (place, name) in [(0, "start_logits"), (1, "end_logits")] {
        let scores = ops.take(&logits, place, 2)?;
        let kept = ops.apply("Mul", &[&scores, &candidates])?;
        let masked = ops.apply("Add", &[&kept, &penalty])?;
        ops.graph.output(name, &masked, OnnxType::F32, &shape)?;
    }
    Ok(())
}

/// Declares what the outputs of a head mean: logits and probabilities, or a number.
pub(super) fn outputs(
    ops: &mut GraphOps,
    description: &HeadDescription,
    task: Task,
    logits: &str,
    shape: &[Dimension<'_>],
) -> Result<()> {
    let n_outputs = description.network.as_ref().map_or(1, |network| network.n_outputs);
    let shape = [shape, &[Dimension::Fixed(n_outputs)]].concat();
    let task = exported_task(task);
    if task.has_numbers() {
        let [mean, deviation] = description.output_scale.unwrap_or([0.0, 1.0]);
        let scaled = ops.scaled(logits, deviation as f32)?;
        let mean = ops.scalar(mean as f32)?;
        let value = ops.apply("Add", &[&scaled, &mean])?;
        return ops.graph.output("value", &value, OnnxType::F32, &shape);
    }
    ops.graph.output("logits", logits, OnnxType::F32, &shape)?;
    match task.add_probabilities(ops, description, logits)? {
        Some(name) => ops.graph.output("probabilities", &name, OnnxType::F32, &shape),
        None => Ok(()),
    }
}

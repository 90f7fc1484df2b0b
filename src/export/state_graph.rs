//! From the states of the encoder's layers to what a head reads, in ONNX: pooling, sentence vectors, pairs, and the
//! features of the matching head.

use frostbert_cache::states::{Pooling, StateId, StateKind};

use crate::{
    encoder::{
        graph_target::{GraphTarget, attribute},
        sentence_folder::{SentenceVector, VectorStep},
    },
    error::{Error, Result},
    export::graph_ops::GraphOps,
    head::matching::{MAX_ROWS, MEAN_ROWS, SHARPNESS},
};

/// What is added to a value that must not be the largest.
const MASKED: f32 = -1e9;

/// The states of the texts on one side of a pair, or of all texts.
pub(super) struct TextStates<'a> {
    /// The layers and the names of their states, `[batch, sequence, hidden]`.
    pub(super) layers: &'a [(usize, String)],
    /// f32 `[batch, sequence]`, 1 for real tokens.
    pub(super) mask: &'a str,
    /// The number of tokens at the beginning that pooling leaves out, because they are of a prompt.
    pub(super) left_out: u32,
}

impl TextStates<'_> {
    fn of_layer(&self, layer: usize) -> &str {
        let found = self.layers.iter().find(|(number, _)| *number == layer);
        &found.expect("the encoder ends at the highest layer that the head reads").1
    }

    /// Adds the pooled states, or the sentence vector that is made of them: one value for each layer, `[batch, width]`.
    pub(super) fn pooled(
        &self,
        ops: &mut GraphOps,
        states: &[StateId],
        sentence: Option<&SentenceVector>,
    ) -> Result<Vec<String>> {
        let mut mask = self.mask.to_string();
        if self.left_out > 0 {
            mask = ops.slice(&mask, i64::from(self.left_out), i64::MAX, 1)?;
        }
        let mut pooled = Vec::with_capacity(states.len());
        for state in states {
            let StateKind::Pooled(pooling) = state.kind else { continue };
            let mut rows = self.of_layer(state.layer).to_string();
            if self.left_out > 0 {
                rows = ops.slice(&rows, i64::from(self.left_out), i64::MAX, 1)?;
            }
            pooled.push(pool(ops, pooling, &rows, &mask)?);
        }
        match sentence {
            None => Ok(pooled),
            Some(sentence) => Ok(vec![sentence_vector(ops, sentence, &pooled)?]),
        }
    }

    /// Adds the states of all tokens, `[batch, sequence, layers x hidden]`.
    pub(super) fn tokens(&self, ops: &mut GraphOps, states: &[StateId]) -> Result<String> {
        let layers = states.iter().map(|state| self.of_layer(state.layer).to_string());
        ops.concat(&layers.collect::<Vec<_>>(), -1)
    }

    /// Adds the features of the matching head, `[batch, sequence, width]`, for f32 `[batch, sequence]` with 1 for the
    /// question's tokens and for the context's.
    pub(super) fn matching(
        &self,
        ops: &mut GraphOps,
        states: &[StateId],
        question: &str,
        context: &str,
    ) -> Result<String> {
        let layers = states.iter().map(|state| {
            let layer = self.of_layer(state.layer);
            matching(ops, layer, question, context)
        });
        let layers = layers.collect::<Result<Vec<String>>>()?;
        ops.concat(&layers, -1)
    }
}

fn pool(ops: &mut GraphOps, pooling: Pooling, rows: &str, mask: &str) -> Result<String> {
    match pooling {
        Pooling::Cls => ops.take(rows, 0, 1),
        Pooling::Mean => {
            let weights = ops.unsqueeze(mask, &[2])?;
            let kept = ops.apply("Mul", &[rows, &weights])?;
            let total = ops.sum(&kept, 1, false)?;
            let n_tokens = ops.sum(mask, 1, true)?;
            ops.apply("Div", &[&total, &n_tokens])
        }
        Pooling::Max => {
            let penalty = penalty(ops, mask)?;
            let penalty = ops.unsqueeze(&penalty, &[2])?;
            let kept = ops.apply("Add", &[rows, &penalty])?;
            ops.largest(&kept, 1, false)
        }
        Pooling::Given(_) => Err(Error::Argument {
            action: "export the encoder",
            expected: "states that the model computes".into(),
            got: "vectors of another model".into(),
            hint: "export the head alone: --to onnx-head".into(),
        }),
    }
}

/// Adds 0 where a mask is 1, and a very low number where it is 0.
fn penalty(ops: &mut GraphOps, mask: &str) -> Result<String> {
    let one = ops.scalar(1.0)?;
    let others = ops.apply("Sub", &[&one, mask])?;
    ops.scaled(&others, MASKED)
}

fn sentence_vector(
    ops: &mut GraphOps,
    sentence: &SentenceVector,
    pooled: &[String],
) -> Result<String> {
    let mut values = ops.concat(pooled, -1)?;
    for step in sentence.steps() {
        values = match step {
            VectorStep::Dense(dense) => {
                let weight: Vec<f32> = dense.weight().iter().copied().collect();
                let n_outputs = dense.weight().nrows();
                let product = ops.linear(&values, &weight, n_outputs, dense.bias())?;
                ops.activation(dense.activation(), &product)?
            }
            VectorStep::Normalize => {
                let length = length(ops, &values, 1e-12)?;
                ops.apply("Div", &[&values, &length])?
            }
        };
    }
    ops.slice(&values, 0, sentence.n_values() as i64, -1)
}

/// Adds the lengths of vectors, at least `least`, with a last axis of 1.
fn length(ops: &mut GraphOps, vectors: &str, least: f32) -> Result<String> {
    let squares = ops.apply("Mul", &[vectors, vectors])?;
    let total = ops.sum(&squares, -1, true)?;
    let length = ops.apply("Sqrt", &[&total])?;
    let least = ops.scalar(least)?;
    ops.apply("Max", &[&length, &least])
}

/// Adds the features of two texts: `u, v, |u - v|, u v` of each layer.
pub(super) fn pair(ops: &mut GraphOps, u: &[String], v: &[String]) -> Result<String> {
    let mut parts = Vec::with_capacity(4 * u.len());
    for (u, v) in u.iter().zip(v) {
        let difference = ops.apply("Sub", &[u, v])?;
        let distance = ops.apply("Abs", &[&difference])?;
        let product = ops.apply("Mul", &[u, v])?;
        parts.extend([u.clone(), v.clone(), distance, product]);
    }
    ops.concat(&parts, -1)
}

/// Adds the cosine of two vectors, `[batch, 1]`.
pub(super) fn cosine(ops: &mut GraphOps, u: &str, v: &str) -> Result<String> {
    let products = ops.apply("Mul", &[u, v])?;
    let product = ops.sum(&products, -1, true)?;
    let of_u = length(ops, u, 1e-30)?;
    let of_v = length(ops, v, 1e-30)?;
    let lengths = ops.apply("Mul", &[&of_u, &of_v])?;
    ops.apply("Div", &[&product, &lengths])
}

/// Splits what two batches were concatenated to.
pub(super) fn halves(ops: &mut GraphOps, both: &str) -> Result<[String; 2]> {
    let halves = ["first", "second"].map(|half| format!("{both}.{half}"));
    let outputs = halves.each_ref().map(String::as_str);
    ops.graph.add_node("Split", "", &[both], &outputs, &[attribute("axis", 0i64)])?;
    Ok(halves)
}

/// Adds the features of one layer for the matching head: see `head::matching`.
fn matching(ops: &mut GraphOps, states: &str, question: &str, context: &str) -> Result<String> {
    let turned = ops.transpose(states, &[0, 2, 1])?;
    let products = ops.apply("MatMul", &[states, &turned])?;
    let lengths = length(ops, states, 1e-30)?;
    let inverse = ops.apply("Reciprocal", &[&lengths])?;
    let inverse_of_question = ops.transpose(&inverse, &[0, 2, 1])?;
    let scaled = ops.apply("Mul", &[&products, &inverse])?;
    let cosines = ops.apply("Mul", &[&scaled, &inverse_of_question])?;
    let others = penalty(ops, question)?;
    let others = ops.unsqueeze(&others, &[1])?;
    let cosines = ops.apply("Add", &[&cosines, &others])?;
    let best = ops.largest(&cosines, -1, true)?;
    let sharp = ops.scaled(&cosines, SHARPNESS)?;
    let shares = ops.softmax(&sharp, -1)?;
    let aligned = ops.apply("MatMul", &[&shares, states])?;
    let aligned = ops.apply("Mul", &[states, &aligned])?;
    let question_row = ops.unsqueeze(question, &[1])?;
    let total = ops.apply("MatMul", &[&question_row, states])?;
    let n_tokens = ops.sum(&question_row, -1, true)?;
    let mean = ops.apply("Div", &[&total, &n_tokens])?;
    let of_mean = ops.apply("Mul", &[states, &mean])?;
    let similarities = similarities(ops, &best, context)?;
    ops.concat(&[states.to_string(), aligned, of_mean, similarities], -1)
}

/// Adds each token's best cosine, its mean and its largest value near the token, among the context's tokens. The first
/// token has none near it.
fn similarities(ops: &mut GraphOps, best: &str, context: &str) -> Result<String> {
    let row = ops.transpose(best, &[0, 2, 1])?;
    let weights = ops.unsqueeze(context, &[1])?;
    let kept = ops.apply("Mul", &[&row, &weights])?;
    let mut columns = vec![best.to_string()];
    let one = ops.scalar(1.0)?;
    for n_rows in MEAN_ROWS {
        let total = ops.sliding_sum(&kept, n_rows)?;
        let count = ops.sliding_sum(&weights, n_rows)?;
        let count = ops.apply("Max", &[&count, &one])?;
        let mean = ops.apply("Div", &[&total, &count])?;
        columns.push(ops.transpose(&mean, &[0, 2, 1])?);
    }
    let others = penalty(ops, &weights)?;
    let of_context = ops.apply("Add", &[&row, &others])?;
    let largest = ops.sliding_largest(&of_context, MAX_ROWS)?;
    let largest = ops.apply("Max", &[&largest, &row])?;
    columns.push(ops.transpose(&largest, &[0, 2, 1])?);
    let n_columns = columns.len();
    let all = ops.concat(&columns, -1)?;
    let others = ops.slice(&all, 1, i64::MAX, 1)?;
    let first = ops.slice(best, 0, 1, 1)?;
    let first = ops.concat(&vec![first; n_columns], -1)?;
    ops.concat(&[first, others], 1)
}

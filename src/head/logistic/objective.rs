//! Losses and gradients of many logistic regressions in one pass over their common rows.

use std::{ops::Range, sync::Arc};

use multiversion::multiversion;
use ndarray::{Array1, Array2, ArrayView2, ArrayViewMut2, Axis, CowArray, Ix2, ShapeBuilder, s};
use rayon::prelude::*;

use super::rows::TurnedRows;
use crate::{
    head::row_groups::RowGroups,
    train::{
        exp::exp,
        gemm::{multiply, multiply_add},
        loss::{Loss, Targets},
        real::Real,
    },
};

/// Number of rows whose outputs are computed at a time.
const TILE_ROWS: usize = 512;

/// Number of rows whose gradients are summed in f32; the sums of such chunks are added up in f64.
const CHUNK_ROWS: usize = 1024;

/// Number of rows that the two-class loss processes in parallel.
const LANES: usize = 16;

/// One logistic regression, over some of the rows.
///
/// ```text
/// F(W, b) = (sum_i s_i -log p_i(y_i) + |W|^2 / (2 C)) / sum_i s_i
/// ```
///
/// With two classes `p(1) = 1 / (1 + e^-z)` with a single column, otherwise `p = softmax(z)`.
pub(crate) struct LogisticProblem {
    /// Which groups of rows it learns from: one entry per group.
    pub groups: Vec<bool>,
    /// The classes that occur in these rows, ascending: one column each, or a single column for two classes.
    pub classes: Vec<u32>,
    /// The index of each row's class in `classes`, in the order of the row groups; arbitrary for rows of other groups.
    pub targets: Arc<Vec<u32>>,
    /// The weight of each of the classes; `None` for 1 each.
    pub class_weights: Option<Vec<f32>>,
    /// For each class, the sum of the weights `s_i` of its rows.
    pub row_weights: Vec<f64>,
    /// Sum of the weights of all rows.
    pub total_weight: f64,
    /// `C`.
    pub c: f64,
}

/// A problem's value and gradient `[n_features + 1, columns]`, the biases last.
pub(crate) struct Evaluation {
    /// `F`.
    pub value: f64,
    /// `dF / d(W, b)`.
    pub gradient: Array2<f64>,
}

/// Weights and biases `[n_features + 1, columns]` at which a problem is to be evaluated.
pub(crate) struct EvaluationPoint<'a> {
    /// The problem.
    pub problem: &'a LogisticProblem,
    /// The weights and biases.
    pub point: ArrayView2<'a, f64>,
}

impl LogisticProblem {
    /// Number of columns of its weight matrix.
    pub(crate) fn n_columns(&self) -> usize {
        match self.classes.len() {
            2 => 1,
            n => n,
        }
    }

    /// The weight of a row whose class has this index.
    fn class_weight(&self, place: usize) -> f64 {
        let weights = self.class_weights.as_ref();
        weights.map_or(1.0, |weights| f64::from(weights[place]))
    }
}

/// The precision of products and probabilities: f32, which is fast, or f64, for what f32 rounds away.
pub(crate) trait Arithmetic: Real {
    /// Converts some rows to this type.
    fn rows(rows: ArrayView2<'_, f32>) -> CowArray<'_, Self, Ix2>;

    /// Returns the summed loss of some rows and writes its gradient by their logits; both are `[rows, columns]`.
    fn loss(
        problem: &LogisticProblem,
        logits: ArrayView2<'_, Self>,
        targets: &[u32],
        errors: ArrayViewMut2<'_, Self>,
    ) -> f64;
}

impl Arithmetic for f32 {
    fn rows(rows: ArrayView2<'_, f32>) -> CowArray<'_, f32, Ix2> {
        rows.into()
    }

    fn loss(
        problem: &LogisticProblem,
        logits: ArrayView2<'_, f32>,
        targets: &[u32],
        mut errors: ArrayViewMut2<'_, f32>,
    ) -> f64 {
        if problem.classes.len() != 2 {
            let loss = Loss::CrossEntropy {
                class_weights: problem.class_weights.clone(),
                label_smoothing: 0.0,
            };
            let targets = Targets::Classes(targets);
            return loss.gradient(logits, targets, 1.0, errors).sum;
        }
        let weights = [0, 1].map(|place| problem.class_weight(place) as f32);
        let mut own = logits.column(0).to_vec();
        let sum = binary(&mut own, targets, weights);
        for (error, own) in errors.column_mut(0).iter_mut().zip(own) {
            *error = own;
        }
        sum
    }
}

impl Arithmetic for f64 {
    fn rows(rows: ArrayView2<'_, f32>) -> CowArray<'_, f64, Ix2> {
        rows.mapv(f64::from).into()
    }

    fn loss(
        problem: &LogisticProblem,
        logits: ArrayView2<'_, f64>,
        targets: &[u32],
        mut errors: ArrayViewMut2<'_, f64>,
    ) -> f64 {
        let mut sum = 0.0;
        let rows = logits.rows().into_iter().zip(errors.rows_mut());
        let mut all = Vec::with_capacity(problem.classes.len());
        for ((logits, mut errors), target) in rows.zip(targets) {
            let target = *target as usize;
            all.clear();
            // Two classes have the logits 0 and z; only the second entry of their gradient is kept.
            if problem.classes.len() == 2 {
                all.push(0.0);
            }
            all.extend(logits);
            let highest = all.iter().fold(f64::NEG_INFINITY, |most, z| most.max(*z));
            let total: f64 = all.iter().map(|z| (z - highest).exp()).sum();
            let weight = problem.class_weight(target);
            sum += weight * (highest + total.ln() - all[target]);
            let first = all.len() - errors.len();
            for (place, error) in errors.iter_mut().enumerate() {
                let place = first + place;
                let own = if place == target { 1.0 } else { 0.0 };
                *error = weight * ((all[place] - highest).exp() / total - own);
            }
        }
        sum
    }
}

/// Returns `sum_i w_y log(1 + e^s)` with `s = z` for rows of the first class and `s = -z` for the second, and replaces
/// `z` by its gradient, `w_y / (1 + e^-s)` times the sign.
///
/// `log(1 + e^s) = max(s, 0) + log(1 + e^-|s|)`. The factors `1 + e^-|s|`, which lie between 1 and 2, are multiplied
/// before the logarithm is taken, at most 512 / 16 of them at a time.
#[multiversion(targets = "simd")]
fn binary(logits: &mut [f32], targets: &[u32], weights: [f32; 2]) -> f64 {
    let mut linear = [0.0f64; LANES];
    let mut products = [[1.0f64; LANES]; 2];
    for (logits, targets) in logits.chunks_mut(LANES).zip(targets.chunks(LANES)) {
        let mut signs = [1.0f32; LANES];
        // The padding of the last rows has neither loss nor gradient.
        let mut shifted = [-1e30f32; LANES];
        for (lane, (logit, target)) in logits.iter().zip(targets).enumerate() {
            signs[lane] = 1.0 - 2.0 * *target as f32;
            shifted[lane] = *logit * signs[lane];
        }
        let mut errors = [0.0f32; LANES];
        for lane in 0..LANES {
            let (s, sign) = (shifted[lane], signs[lane]);
            let is_second = (1.0 - sign) * 0.5;
            let weight = weights[0] + is_second * (weights[1] - weights[0]);
            let power = exp(-s.abs());
            let share = 1.0 / (1.0 + power);
            let (above, slope) = if s > 0.0 { (s, share) } else { (0.0, power * share) };
            linear[lane] += f64::from(weight * above);
            products[0][lane] *= 1.0 + f64::from(power * (1.0 - is_second));
            products[1][lane] *= 1.0 + f64::from(power * is_second);
            errors[lane] = sign * weight * slope;
        }
        logits.copy_from_slice(&errors[..logits.len()]);
    }
    let logarithms = products.map(|lanes| lanes.iter().map(|p| p.ln()).sum::<f64>());
    linear.iter().sum::<f64>()
        + f64::from(weights[0]) * logarithms[0]
        + f64::from(weights[1]) * logarithms[1]
}

/// A chunk of rows of one group.
struct Chunk {
    group: usize,
    rows: Range<usize>,
}

/// The contribution of a chunk: a loss for each request, and the gradient of all columns.
struct PartialGradient<F> {
    losses: Vec<f64>,
    weights: Array2<F>,
    bias: Array1<f64>,
}

/// Evaluates some problems together: their columns form one matrix, so that the rows are read once.
///
/// Products and probabilities are in `F`, sums in f64 over chunks of 1024 rows. Chunks run on all threads and are added
/// up in order, so the bits do not depend on the number of threads.
pub(crate) fn evaluate<F: Arithmetic>(
    data: &TurnedRows,
    groups: &RowGroups,
    requests: &[EvaluationPoint<'_>],
) -> Vec<Evaluation> {
    let n_features = data.rows.ncols();
    let mut columns: Vec<Range<usize>> = Vec::with_capacity(requests.len());
    for request in requests {
        let first = columns.last().map_or(0, |range| range.end);
        columns.push(first..first + request.problem.n_columns());
    }
    let n_columns = columns.last().map_or(0, |range| range.end);
    let mut weights = Array2::zeros((n_features, n_columns));
    let mut bias = Array1::zeros(n_columns);
    for (request, range) in requests.iter().zip(&columns) {
        let (own, own_bias) = request.point.split_at(Axis(0), n_features);
        let own = own.mapv(F::of);
        weights.slice_mut(s![.., range.clone()]).assign(&own);
        let own = own_bias.row(0).mapv(F::of);
        bias.slice_mut(s![range.clone()]).assign(&own);
    }
    let chunks: Vec<Chunk> = chunks(groups, requests).collect();
    let parts: Vec<PartialGradient<F>> = chunks
        .par_iter()
        .map(|chunk| part(data, chunk, requests, &columns, &weights, &bias))
        .collect();
    let each = requests.par_iter().zip(&columns).enumerate();
    each.map(|(number, (request, range))| {
        let problem = request.problem;
        let n = problem.total_weight;
        let mut gradient: Array2<f64> = Array2::zeros(request.point.dim());
        let mut loss = 0.0;
        let (mut of_weights, mut of_bias) = gradient.view_mut().split_at(Axis(0), n_features);
        for (chunk, part) in chunks.iter().zip(&parts) {
            if !problem.groups[chunk.group] {
                continue;
            }
            loss += part.losses[number];
            let own = part.weights.slice(s![.., range.clone()]);
            of_weights.zip_mut_with(&own, |sum, value| *sum += (*value).into());
            of_bias.row_mut(0).scaled_add(1.0, &part.bias.slice(s![range.clone()]));
        }
        if problem.n_columns() > 1 {
            // The sum over the classes is 0 except for rounding of the probabilities.
            for mut row in gradient.rows_mut() {
                let mean = row.sum() / row.len() as f64;
                row -= mean;
            }
        }
        let mut of_weights = gradient.slice_mut(s![..n_features, ..]);
        let own = request.point.slice(s![..n_features, ..]);
        of_weights.scaled_add(1.0 / problem.c, &own);
        gradient /= n;
        let penalty: f64 = own.iter().map(|weight| weight * weight).sum();
        Evaluation { value: (loss + penalty / (2.0 * problem.c)) / n, gradient }
    })
    .collect()
}

/// The chunks of the groups that any request learns from.
fn chunks(groups: &RowGroups, requests: &[EvaluationPoint<'_>]) -> impl Iterator<Item = Chunk> {
    let wanted = groups
        .ranges
        .iter()
        .enumerate()
        .filter(|(group, _)| requests.iter().any(|request| request.problem.groups[*group]));
    wanted.flat_map(|(group, range)| {
        range
            .clone()
            .step_by(CHUNK_ROWS)
            .map(move |first| Chunk { group, rows: first..(first + CHUNK_ROWS).min(range.end) })
    })
}

/// ```text
/// Z = U W + b      E = dL/dZ, 0 in the columns of problems without these rows      G = U^T E
/// ```
fn part<F: Arithmetic>(
    data: &TurnedRows,
    chunk: &Chunk,
    requests: &[EvaluationPoint<'_>],
    columns: &[Range<usize>],
    weights: &Array2<F>,
    bias: &Array1<F>,
) -> PartialGradient<F> {
    let mut part = PartialGradient {
        losses: vec![0.0; requests.len()],
        weights: Array2::zeros(weights.dim()),
        bias: Array1::zeros(bias.len()),
    };
    // The two-class loss reads a single column, the others read whole rows.
    let by_columns = requests.iter().all(|request| request.problem.n_columns() == 1);
    for first in chunk.rows.clone().step_by(TILE_ROWS) {
        let rows = first..(first + TILE_ROWS).min(chunk.rows.end);
        let features = F::rows(data.rows.slice(s![rows.clone(), ..]));
        let shape = (rows.len(), weights.ncols()).set_f(by_columns);
        let mut logits: Array2<F> = Array2::zeros(shape);
        multiply(features.view(), weights.view(), logits.view_mut());
        logits += bias;
        let mut errors: Array2<F> = Array2::zeros(shape);
        for (number, (request, range)) in requests.iter().zip(columns).enumerate() {
            let problem = request.problem;
            if !problem.groups[chunk.group] {
                continue;
            }
            let targets = &problem.targets[rows.clone()];
            let logits = logits.slice(s![.., range.clone()]);
            let errors = errors.slice_mut(s![.., range.clone()]);
            part.losses[number] += F::loss(problem, logits, targets, errors);
        }
        part.bias += &errors.sum_axis(Axis(0)).mapv(F::into);
        multiply_add(features.t(), errors.view(), part.weights.view_mut());
    }
    part
}

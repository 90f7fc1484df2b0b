//! Out-of-fold predictions: the rows of each fold are predicted by a linear head that was trained on the others.

use ndarray::{Array2, s};
use rayon::prelude::*;

use super::{
    bank::{self, BankData, BankSettings, SampleSet},
    network::{Network, NetworkSpec},
    spec::HeadSpec,
    targets::TargetTable,
    transform::Transform,
};
use crate::{
    error::Result,
    features::{FeatureView, order},
    metrics::calibration::softmax_rows,
    train::{
        gemm::multiply,
        optimizer::{Optimizer, OptimizerKind},
        schedule::Schedule,
    },
};

/// Number of folds: each is predicted by a head that was trained on the others.
pub(crate) const N_FOLDS: usize = 5;

/// Least number of epochs of each head.
const EPOCHS: usize = 10;

/// Number of steps that a head needs to move away from its initial weights, however few samples there are.
const LEAST_STEPS: usize = 300;

const BATCH_SIZE: usize = 64;

const LEARNING_RATE: f64 = 1e-2;

const WEIGHT_DECAY: f64 = 0.1;

/// Number of rows that are multiplied at a time.
const TILE_SAMPLES: usize = 512;

/// Returns the fold of each sample, from 0 to [`N_FOLDS`] - 1, given the classes of the samples. The samples of a class
/// are shuffled by `seed` and dealt out in turn, and each class continues where the last one stopped.
///
/// ```
/// use frostbert::internals::head::out_of_fold::folds;
/// let folds = folds(&[0, 0, 0, 0, 0, 1, 1, 1, 1, 1], 42);
/// let mut of_class = folds[..5].to_vec();
/// of_class.sort();
/// assert_eq!(of_class, [0, 1, 2, 3, 4]);
/// ```
pub fn folds(labels: &[u32], seed: u64) -> Vec<usize> {
    let places: Vec<u32> = (0..labels.len() as u32).collect();
    let mut order = order::shuffled(&places, seed, 0);
    order.sort_by_key(|place| labels[*place as usize]);
    let mut folds = vec![0; labels.len()];
    for (turn, place) in order.into_iter().enumerate() {
        folds[place as usize] = turn % N_FOLDS;
    }
    folds
}

/// The number of epochs for this many samples: 10, or enough for about 300 steps.
///
/// ```
/// use frostbert::internals::head::out_of_fold::epochs;
/// assert_eq!((epochs(100_000), epochs(1000)), (10, 19));
/// ```
pub fn epochs(n_samples: usize) -> usize {
    LEAST_STEPS.div_ceil(n_samples.div_ceil(BATCH_SIZE).max(1)).max(EPOCHS)
}

/// The cost of [`probabilities`] for this many samples, features and classes: one product forward and one backward for
/// each sample, in each epoch of each head that sees it, with as many columns as a block has.
///
/// ```
/// use frostbert::internals::head::out_of_fold::multiply_adds;
/// assert_eq!(multiply_adds(100_000, 384, 2), 2 * 4 * 10 * 100_000 * 384 * 32);
/// ```
pub fn multiply_adds(n_samples: usize, n_features: usize, n_classes: usize) -> u64 {
    let columns = n_classes.next_multiple_of(16).max(32);
    2 * (N_FOLDS - 1) as u64 * epochs(n_samples) as u64 * (n_samples * n_features * columns) as u64
}

/// Returns the class probabilities `[samples, n_classes]` of some samples, each row predicted by a linear head that was
/// trained on the other [`folds`]. Every sample of the view has one row; `labels[i]` is the class of `samples[i]`.
///
/// All rows are standardised together, which uses no labels. The heads train for [`epochs`] with batches of 64, AdamW
/// at a learning rate of 1e-2 with weight decay 0.1, and a cosine schedule. The result depends on `seed`, never on the
/// number of threads.
///
/// # Errors
/// Returns an error if a file of the cache does not match the manifest, or if a training diverges.
///
/// # Panics
/// Panics if a fold leaves nothing to learn from, or if labels do not fit samples and classes.
pub fn probabilities(
    view: &FeatureView<'_>,
    samples: &[u32],
    labels: &[u32],
    n_classes: usize,
    seed: u64,
) -> Result<Array2<f32>> {
    assert_eq!(samples.len(), labels.len(), "a label for each sample");
    let transform = Transform::standardize(view, samples)?;
    let mut classes = vec![0; view.n_samples()];
    for (sample, label) in samples.iter().zip(labels) {
        classes[*sample as usize] = *label;
    }
    let targets = TargetTable::Classes(classes);
    let folds = folds(labels, seed);
    let spec = spec(view.n_features(), n_classes, seed, epochs(samples.len()));
    let places = |within: &dyn Fn(usize) -> bool| -> Vec<usize> {
        let all = 0..samples.len();
        all.filter(|place| within(folds[*place])).collect()
    };
    let samples_of =
        |places: &[usize]| -> Vec<u32> { places.iter().map(|place| samples[*place]).collect() };
    let judged = (0..N_FOLDS).into_par_iter().map(|fold| {
        let train = samples_of(&places(&|of| of != fold));
        let data = BankData {
            view,
            transform: &transform,
            sets: &[SampleSet {
                targets: &targets,
                train: &train,
                validation: &[],
                evaluator: &(),
            }],
        };
        let settings = BankSettings { seed, shuffles: true, evaluates_all: false, gives_up: false };
        let head = bank::train(std::slice::from_ref(&spec), &data, settings, &())?.remove(0);
        let held_out = places(&|of| of == fold);
        let logits = logits(view, &transform, &spec, &head.parameters, &samples_of(&held_out))?;
        Ok((held_out, softmax_rows(logits.view(), 1.0)))
    });
    let judged: Vec<(Vec<usize>, Array2<f32>)> = judged.collect::<Result<_>>()?;
    let mut probabilities = Array2::zeros((samples.len(), n_classes));
    for (places, rows) in &judged {
        for (place, row) in places.iter().zip(rows.rows()) {
            probabilities.row_mut(*place).assign(&row);
        }
    }
    Ok(probabilities)
}

fn spec(n_features: usize, n_outputs: usize, seed: u64, epochs: usize) -> HeadSpec {
    HeadSpec {
        dropout: 0.0,
        optimizer: Optimizer {
            kind: OptimizerKind::AdamW,
            lr: LEARNING_RATE,
            weight_decay: WEIGHT_DECAY,
            ..Optimizer::default()
        },
        schedule: Schedule::Cosine,
        seed,
        stopping: None,
        epochs,
        batch_size: BATCH_SIZE,
        ..HeadSpec::new(NetworkSpec::linear(n_features, n_outputs))
    }
}

/// The outputs of a linear head on some samples, in order.
fn logits(
    view: &FeatureView<'_>,
    transform: &Transform,
    spec: &HeadSpec,
    parameters: &[f32],
    samples: &[u32],
) -> Result<Array2<f32>> {
    let (weights, bias) = Network::new(spec.network.clone()).output_layer(parameters);
    let mut logits = Array2::zeros((samples.len(), bias.len()));
    let mut first = 0;
    for window in view.loads(samples, TILE_SAMPLES) {
        let (window, loaded) = window?;
        for part in window.chunks(TILE_SAMPLES) {
            let rows = transform.apply(view.tile(&loaded, part).rows);
            let mut out = logits.slice_mut(s![first..first + part.len(), ..]);
            multiply(rows.view(), weights.view(), out.view_mut());
            out += &bias;
            first += part.len();
        }
    }
    Ok(logits)
}

#[cfg(test)]
mod tests;

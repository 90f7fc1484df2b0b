//! The loss of a pipeline's head, with its class weights.

use crate::{
    config::{
        file::ClassWeights,
        names::{Loss as LossName, Task},
        settings::{LossSettings, Pipeline},
    },
    data::dataset::Dataset,
    error::Result,
    train::loss::Loss,
};

/// Returns the loss over rows of outputs, as set in `[train]`.
///
/// # Errors
/// Returns an error if the class weights name a label that is not in train, or if one is not a positive number.
pub(crate) fn loss(pipeline: &Pipeline, dataset: &Dataset, train: &[u32]) -> Result<Loss> {
    let LossSettings { name, gamma, label_smoothing, .. } = pipeline.head.loss;
    let class_weights = class_weights(pipeline, dataset, train)?;
    let is_multilabel = pipeline.data.task == Task::Multilabel;
    Ok(match name {
        LossName::CrossEntropy => Loss::CrossEntropy { class_weights, label_smoothing },
        LossName::Focal if is_multilabel => Loss::BinaryFocal { gamma, class_weights },
        LossName::Focal => Loss::Focal { gamma, class_weights, label_smoothing },
        LossName::Bce => Loss::Bce { class_weights },
        LossName::Mse => Loss::Mse,
    })
}

/// Returns the weight of each class. `balanced` is `n / (C n_c)`, as in scikit-learn, with C the number of classes in
/// train; for multi-label tasks it is `(n - n_c) / n_c`, which gives both sides the same weight. A class without
/// training rows gets 1.
pub(crate) fn class_weights(
    pipeline: &Pipeline,
    dataset: &Dataset,
    train: &[u32],
) -> Result<Option<Vec<f32>>> {
    let table = match &pipeline.head.loss.class_weights {
        None => return Ok(None),
        Some(ClassWeights::Named(_)) => return Ok(Some(balanced(pipeline, dataset, train))),
        Some(ClassWeights::Table(table)) => table,
    };
    let mut weights = vec![1.0f32; dataset.labels.len()];
    for (label, weight) in table {
        let Some(id) = dataset.labels.id(label) else {
            return Err(pipeline.refuse(
                format!("train.class_weights names `{label}`, which is not a label of train"),
                "spell labels as the data does".into(),
            ));
        };
        if !(*weight > 0.0 && weight.is_finite()) {
            return Err(pipeline.refuse(
                format!("train.class_weights gives `{label}` the weight {weight}"),
                "give every label a weight above 0".into(),
            ));
        }
        weights[id] = *weight as f32;
    }
    Ok(Some(weights))
}

fn balanced(pipeline: &Pipeline, dataset: &Dataset, train: &[u32]) -> Vec<f32> {
    let mut counts = vec![0usize; dataset.labels.len()];
    let column = pipeline.head.label.as_ref();
    for target in train.iter().filter_map(|row| dataset.target_for(*row, column)) {
        for label in target.label_ids() {
            counts[*label] += 1;
        }
    }
    if pipeline.data.task == Task::Multilabel {
        let n = train.len();
        let weight = |count: usize| match count {
            0 => 1.0,
            count => ((n - count).max(1) as f64 / count as f64) as f32,
        };
        return counts.into_iter().map(weight).collect();
    }
    balanced_weights(&counts)
}

/// Computes `n / (C n_c)` for `n_c` of `n` rows in each of the `C` classes that have rows, and 1 for the other classes.
pub(crate) fn balanced_weights(counts: &[usize]) -> Vec<f32> {
    let n: usize = counts.iter().sum();
    let n_classes = counts.iter().filter(|count| **count > 0).count() as f64;
    let weight = |count: usize| match count {
        0 => 1.0,
        count => (n as f64 / (n_classes * count as f64)) as f32,
    };
    counts.iter().copied().map(weight).collect()
}

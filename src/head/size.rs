//! The cost of training a head, and of training the whole encoder for comparison.

use serde::Serialize;

use super::matching;

/// The trainable parameters of a head, and the memory that its training needs apart from the batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HeadSize {
    /// The kind, as in `head.kind` of a pipeline.
    pub kind: &'static str,
    /// A description in words of what is counted.
    #[serde(skip)]
    pub description: String,
    /// Number of trainable parameters.
    pub trainable: u64,
    /// See [`training_bytes`].
    pub training_bytes: u64,
}

/// Bytes that Adam needs for `parameters`: f32 weights, gradients and two moments, so 16 each. Activations come on top.
pub fn training_bytes(parameters: u64) -> u64 {
    parameters.saturating_mul(4 * 4)
}

/// Width of the hidden layer of an MLP whose pipeline names none.
pub(crate) const MLP_WIDTH: usize = 256;

/// The sizes of each kind of head for `n_classes` outputs: over pooled vectors of `pooled` values, or over the states of
/// tokens of `hidden` values.
///
/// - linear: `W [P, C]`, `b [C]`
/// - mlp: one hidden layer of [`MLP_WIDTH`]: `[P, 256]`, `[256]`, `[256, C]`, `[C]`
/// - crf: `W [H, C]`, `b [C]`, transitions `[C, C]`, and a start and an end score for each label
/// - matching: the features of [`matching::features`] to a start and an end logit: `[3 H + 5, 2]`, `[2]`
/// - cosine: nothing
///
/// ```
/// let linear = &frostbert::internals::head::size::head_sizes(384, 384, 3)[0];
/// assert_eq!((linear.trainable, linear.training_bytes), (384 * 3 + 3, 16 * 1155));
/// ```
pub fn head_sizes(pooled: usize, hidden: usize, n_classes: usize) -> Vec<HeadSize> {
    let linear = pooled * n_classes + n_classes;
    let mlp = pooled * MLP_WIDTH + MLP_WIDTH + MLP_WIDTH * n_classes + n_classes;
    let crf = hidden * n_classes + n_classes + n_classes * n_classes + 2 * n_classes;
    let matching = matching::width(hidden, 1) * 2 + 2;
    [
        ("linear", format!("{n_classes} classes"), linear),
        ("mlp", format!("one hidden layer of {MLP_WIDTH}, {n_classes} classes"), mlp),
        ("crf", format!("{n_classes} labels"), crf),
        ("matching", "start and end of an answer".to_string(), matching),
        ("cosine", "nothing to train".to_string(), 0),
    ]
    .into_iter()
    .map(|(kind, description, parameters)| {
        let trainable = parameters as u64;
        HeadSize { kind, description, trainable, training_bytes: training_bytes(trainable) }
    })
    .collect()
}

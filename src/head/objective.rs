//! What a head's outputs are worth, by its objective.

use ndarray::ArrayView2;

use super::{
    crf::{self, CrfScratch},
    network::Network,
    span,
    spec::{HeadSpec, Objective},
    targets::TargetsView,
};
use crate::train::loss::{LossSum, Targets};

/// The loss of outputs on some samples, without dropout and label smoothing. `starts` holds the first row of each sample,
/// and the number of rows; `parameters` are the head's.
///
/// # Panics
/// When the targets are not of the objective's kind.
pub fn loss(
    spec: &HeadSpec,
    network: &Network,
    parameters: &[f32],
    logits: ArrayView2<'_, f32>,
    starts: &[usize],
    targets: TargetsView<'_>,
) -> LossSum {
    match (&spec.objective, targets) {
        (Objective::Rows(loss), TargetsView::Rows(targets)) => loss.loss(logits, targets),
        (Objective::Span, TargetsView::Spans(spans)) => span::loss(logits, starts, spans),
        (Objective::Crf, TargetsView::Rows(Targets::Classes(tags))) => {
            let scores = network.crf_scores(parameters);
            let mut scratch = CrfScratch::default();
            crf::negative_log_likelihood(logits, starts, tags, &scores, &mut scratch)
        }
        _ => panic!("targets of the objective's kind"),
    }
}

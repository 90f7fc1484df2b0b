//! The loss of a head's outputs, by its objective.

use ndarray::{ArrayView2, Axis};

use super::{
    crf::{self, CrfScratch},
    network::Network,
    span,
    spec::{HeadSpec, Objective},
    targets::TargetsView,
};
use crate::{
    error::Result,
    metrics::outputs::OutputRows,
    train::loss::{LossSum, Targets},
};

/// Returns the loss of outputs on some samples, without dropout and label smoothing. `starts` holds the first row of
/// each sample, followed by the number of rows; `parameters` are the head's.
///
/// # Panics
/// Panics if the targets are not of the objective's kind.
pub(crate) fn loss(
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

/// Like [`loss`], for outputs that may not fit into memory, with one row per sample; processed part by part.
///
/// # Errors
/// Returns an error if the data that they are computed from cannot be read.
///
/// # Panics
/// Panics if the objective is not a loss of each row, or if the targets are not of its kind.
pub(crate) fn loss_of_rows(
    spec: &HeadSpec,
    logits: &dyn OutputRows,
    targets: TargetsView<'_>,
) -> Result<LossSum> {
    let (Objective::Rows(loss), TargetsView::Rows(targets)) = (&spec.objective, targets) else {
        panic!("an objective of each row, with its targets");
    };
    let mut sum = LossSum::default();
    logits.show(&mut |places, logits| {
        sum += match targets {
            Targets::Classes(all) => {
                let own: Vec<u32> = places.iter().map(|place| all[*place]).collect();
                loss.loss(logits, Targets::Classes(&own))
            }
            Targets::Labels(all) => {
                let own = all.select(Axis(0), places);
                loss.loss(logits, Targets::Labels(own.view()))
            }
            Targets::Values(all) => {
                let own: Vec<f32> = places.iter().map(|place| all[*place]).collect();
                loss.loss(logits, Targets::Values(&own))
            }
        };
    })?;
    Ok(sum)
}

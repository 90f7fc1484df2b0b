//! Evaluates heads on the validation samples of their set after an epoch.

use std::{collections::HashMap, sync::Mutex};

use super::{BankData, SampleSet};
use crate::{
    error::Result,
    head::{
        network::Network,
        objective,
        outputs::{OutputHead, for_each_head},
        spec::HeadSpec,
        targets::TargetTable,
    },
    metrics::metric::Metric,
};

/// The validation samples of a set.
pub(super) struct Validation<'a> {
    data: &'a BankData<'a>,
    set: &'a SampleSet<'a>,
    targets: TargetTable,
}

/// The loss, if any target counts towards it, and the metrics.
pub(super) type ValidationScores = (Option<f64>, Vec<(Metric, f64)>);

impl<'a> Validation<'a> {
    pub(super) fn new(data: &'a BankData<'a>, set: &'a SampleSet<'a>) -> Validation<'a> {
        Validation { data, set, targets: set.targets.gather(data.view, set.validation) }
    }

    /// Returns the scores of some heads by head number: metrics of all heads, or only of those that are stopped by a
    /// metric.
    pub(super) fn scores(
        &self,
        heads: &[usize],
        specs: &[HeadSpec],
        parameters: &dyn Fn(usize) -> Vec<f32>,
        evaluates_all: bool,
    ) -> Result<HashMap<usize, ValidationScores>> {
        let all_scores = Mutex::new(HashMap::new());
        let scored = heads.iter().map(|head| OutputHead {
            number: *head,
            network: Network::new(specs[*head].network.clone()),
            parameters: parameters(*head),
        });
        for_each_head(
            self.data.view,
            self.data.transform,
            self.set.validation,
            scored.collect(),
            |head, logits, starts| {
                let spec = &specs[head.number];
                let all = 0..self.set.validation.len();
                let targets = self.targets.slice(all, starts);
                let loss = match logits.whole() {
                    Some(logits) => objective::loss(
                        spec,
                        &head.network,
                        &head.parameters,
                        logits,
                        starts,
                        targets,
                    ),
                    None => objective::loss_of_rows(spec, logits, targets)?,
                };
                let metric = spec.stopping.as_ref().map(|stopping| stopping.metric);
                let is_evaluated = evaluates_all || metric.is_some_and(|m| m != Metric::Loss);
                let scores = if is_evaluated {
                    self.set.evaluator.scores_of(logits, head)?
                } else {
                    Vec::new()
                };
                let scored: ValidationScores = ((loss.weight > 0.0).then(|| loss.mean()), scores);
                let mut all_scores = all_scores.lock().expect("no evaluator panicked");
                all_scores.insert(head.number, scored);
                Ok(())
            },
        )?;
        Ok(all_scores.into_inner().expect("no evaluator panicked"))
    }
}

//! What is tuned to the outputs of the heads of all folds, for the winner that is trained again on all of them.

use ndarray::{Array2, ArrayView2, Axis, concatenate};

use crate::{
    error::Result,
    head::{
        network::Network,
        outputs::{HeadOutputs, OutputHead, WAVE_BYTES},
    },
    metrics::outputs::{Chained, gathered},
    sweep::{
        Sweep,
        heads::{FittedParameters, HeadPlan, HeadResult, SharedFeatures},
        outcome::SearchOutcome,
    },
    tasks::predictions::{Calibration, PredictionEvaluator},
    training::train::Refit,
};

impl Sweep<'_> {
    /// Whether the winner is trained again, on train and validation together.
    pub(super) fn refits(&self) -> bool {
        self.section.refit.unwrap_or(self.section.folds.is_some())
    }

    /// The heads of a trial whose outputs it is calibrated on when it is trained again: one for the rows of each fold.
    pub(super) fn calibrating_heads(&self, trial: usize) -> Vec<HeadPlan> {
        let splits = (0..self.splits.len()).filter(|split| self.is_whole(&self.splits[*split]));
        splits.map(|split| HeadPlan { trial, seed: 0, split }).collect()
    }

    /// Returns how a trial is trained again, by the results of its heads on the rows that they were not trained on.
    pub(super) fn refit(
        &self,
        trial: usize,
        best_epoch: Option<f64>,
        done: &SearchOutcome,
    ) -> Result<Refit> {
        let calibration = match done.calibration(trial) {
            Some(known) => known.clone(),
            None => self.shared(trial)?.calibration(&self.calibrating_heads(trial), self)?,
        };
        let has_epochs = self.trials[trial].pipeline.head.kind.steps().is_some();
        let epochs = best_epoch.filter(|_| has_epochs).map(|epoch| (epoch.round() as usize).max(1));
        let parts = self.dataset.rows.iter().map(|row| row.part).collect();
        Ok(Refit { epochs, calibration, parts })
    }
}

impl SharedFeatures<'_> {
    /// What is tuned to the outputs of a trial's heads on the rows of all folds, none of which they learned from. Trains
    /// these heads for it.
    fn calibration(&self, plans: &[HeadPlan], sweep: &Sweep<'_>) -> Result<Calibration> {
        if self.learns_nothing {
            return Ok(Calibration::default());
        }
        let samples = self.judged(plans);
        let evaluator = self.rows.task.evaluator(sweep.pipeline, sweep.dataset, &samples, &[]);
        if !evaluator.is_calibrated() {
            return Ok(Calibration::default());
        }
        let is_row_each = self.rows.task.has_one_output_row();
        let evaluators = self.evaluators(sweep);
        let mut logits: Vec<Array2<f32>> = Vec::with_capacity(plans.len());
        for plans in self.waves(plans) {
            let fits = self.fit(plans, sweep, &mut |_| {}, &())?;
            let n_outputs = fits.iter().map(|fit| fit.network.n_outputs).max();
            let bytes = samples.len().saturating_mul(4 * n_outputs.unwrap_or(0));
            // Heads with layers of the encoder are larger than their outputs.
            if bytes > WAVE_BYTES && is_row_each && !self.trains_layers {
                let heads = plans.iter().zip(fits).map(|(plan, fit)| {
                    let head = OutputHead {
                        number: 0,
                        network: Network::new(fit.network),
                        parameters: fit.parameters,
                    };
                    let samples = &self.validation[plan.split];
                    HeadOutputs::new(&self.rows.view, &self.transform, samples, head)
                });
                return evaluator.calibration(&Chained(heads.collect()));
            }
            logits.extend(self.evaluate(plans, &fits, &evaluators, |_, logits, _| {
                Ok(gathered(logits)?.into_owned())
            })?);
        }
        calibrated(&*evaluator, &logits)
    }

    /// Returns the results of heads like [`SharedFeatures::results`], and their outputs on the rows of their splits.
    pub(super) fn results_and_outputs(
        &self,
        plans: &[HeadPlan],
        fits: &[FittedParameters],
        evaluators: &[Box<dyn PredictionEvaluator + '_>],
    ) -> Result<(Vec<HeadResult>, Vec<Array2<f32>>)> {
        let both = self.evaluate(plans, fits, evaluators, |evaluator, logits, head| {
            Ok((evaluator.predictions_of(logits, head)?, gathered(logits)?.into_owned()))
        })?;
        let heads = fits.iter().zip(both);
        Ok(heads
            .map(|(fit, (predictions, outputs))| (HeadResult::new(fit, predictions), outputs))
            .unzip())
    }

    /// What is tuned to the outputs of heads on the rows of their splits, where these are at hand.
    pub(super) fn calibration_to(
        &self,
        plans: &[HeadPlan],
        outputs: &[Array2<f32>],
        sweep: &Sweep<'_>,
    ) -> Result<Calibration> {
        let samples = self.judged(plans);
        let evaluator = self.rows.task.evaluator(sweep.pipeline, sweep.dataset, &samples, &[]);
        calibrated(&*evaluator, outputs)
    }

    /// The samples that heads are judged on, head by head.
    fn judged(&self, plans: &[HeadPlan]) -> Vec<u32> {
        plans.iter().flat_map(|plan| self.validation[plan.split].iter().copied()).collect()
    }
}

fn calibrated(evaluator: &dyn PredictionEvaluator, outputs: &[Array2<f32>]) -> Result<Calibration> {
    let views: Vec<ArrayView2<'_, f32>> = outputs.iter().map(Array2::view).collect();
    let all = concatenate(Axis(0), &views).expect("outputs of one width");
    evaluator.calibration(&all.view())
}

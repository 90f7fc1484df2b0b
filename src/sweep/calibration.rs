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
        heads::{HeadPlan, SharedFeatures},
    },
    tasks::predictions::Calibration,
};

impl SharedFeatures<'_> {
    /// What is tuned to the outputs of a trial's heads on the rows of all folds, none of which they learned from.
    pub(super) fn calibration(&self, plans: &[HeadPlan], sweep: &Sweep<'_>) -> Result<Calibration> {
        if self.learns_nothing {
            return Ok(Calibration::default());
        }
        let samples: Vec<u32> =
            plans.iter().flat_map(|plan| self.validation[plan.split].iter().copied()).collect();
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
        let views: Vec<ArrayView2<'_, f32>> = logits.iter().map(Array2::view).collect();
        let all = concatenate(Axis(0), &views).expect("outputs of one width");
        evaluator.calibration(&all.view())
    }
}

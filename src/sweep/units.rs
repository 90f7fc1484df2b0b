//! Units of a sweep: heads that read the same features and are trained together.

use std::time::Instant;

use frostbert_cache::{progress::Progress, wording::part_of};
use ndarray::Array2;

use crate::{
    error::Result,
    head::bank::Bank,
    sweep::{
        Sweep,
        heads::{HeadPlan, HeadResult, SharedFeatures, ViewKey, best_loss},
        journal::UnitRecord,
        test_scores,
    },
    tasks::predictions::PredictionEvaluator,
};

/// Trials whose heads read the same states and are fitted in the same way.
pub(super) struct TrialGroup {
    pub(super) key: ViewKey,
    pub(super) has_epochs: bool,
    pub(super) trials: Vec<usize>,
}

/// Returns all trials in groups.
///
/// # Errors
/// Returns an error if a trial is invalid.
pub(super) fn groups(sweep: &Sweep<'_>) -> Result<Vec<TrialGroup>> {
    let mut groups: Vec<TrialGroup> = Vec::new();
    for (number, trial) in sweep.trials.iter().enumerate() {
        let key = sweep.view_key(number)?;
        let has_epochs = trial.pipeline.head.kind.steps().is_some();
        let found =
            groups.iter_mut().find(|group| group.key == key && group.has_epochs == has_epochs);
        match found {
            Some(group) => group.trials.push(number),
            None => groups.push(TrialGroup { key, has_epochs, trials: vec![number] }),
        }
    }
    Ok(groups)
}

/// Returns the heads of some trials: every seed on every split.
pub(super) fn plans(sweep: &Sweep<'_>, trials: &[usize]) -> Vec<HeadPlan> {
    let mut plans = Vec::new();
    for trial in trials {
        for seed in 0..sweep.section.seeds as u64 {
            plans.extend((0..sweep.splits.len()).map(|split| HeadPlan {
                trial: *trial,
                seed,
                split,
            }));
        }
    }
    plans
}

/// Trains the heads of some trials that read the same features.
///
/// # Errors
/// Returns an error if the cache cannot be read, or if a training diverges.
pub(super) fn train_unit(
    sweep: &Sweep<'_>,
    shared: &SharedFeatures<'_>,
    trials: &[usize],
    progress: &dyn Progress,
) -> Result<UnitRecord> {
    let plans = plans(sweep, trials);
    let evaluators = shared.evaluators(sweep);
    let start = Instant::now();
    let mut on_epoch = |bank: &Bank<'_>| {
        let active = bank.active();
        let loss = best_loss(active.iter().map(|head| bank.last(*head)));
        let loss = loss.map_or(String::new(), |loss| format!(", best validation loss {loss:.4}"));
        progress.detail(&format!(
            "epoch {}: {} still learning{loss}",
            bank.epochs_done(),
            part_of(active.len(), plans.len(), "head")
        ));
    };
    if shared.learns_nothing {
        let mut results = shared.compare(&plans)?;
        let seconds = start.elapsed().as_secs_f64();
        test_scores::add_predictions(sweep, shared, &plans, &[], &mut results)?;
        return Ok(unit(shared, &plans, results, &evaluators, seconds));
    }
    // Such heads would take long to train again for the calibration of a winner.
    let keeps = shared.trains_layers
        && sweep.refits()
        && evaluators.iter().any(|evaluator| evaluator.is_calibrated());
    let calibrating = match trials {
        [trial] if keeps => sweep.calibrating_heads(*trial),
        _ => Vec::new(),
    };
    let mut outputs: Vec<Array2<f32>> = Vec::with_capacity(calibrating.len());
    let mut results = Vec::with_capacity(plans.len());
    let mut seconds = 0.0;
    for plans in shared.waves(&plans) {
        let start = Instant::now();
        let fits = shared.fit(plans, sweep, &mut on_epoch, progress)?;
        seconds += start.elapsed().as_secs_f64();
        let mut own = if calibrating.contains(&plans[0]) {
            let (own, its_outputs) = shared.results_and_outputs(plans, &fits, &evaluators)?;
            outputs.extend(its_outputs);
            own
        } else {
            shared.results(plans, &fits, &evaluators)?
        };
        test_scores::add_predictions(sweep, shared, plans, &fits, &mut own)?;
        results.extend(own);
    }
    let mut unit = unit(shared, &plans, results, &evaluators, seconds);
    if !calibrating.is_empty() && unit.heads.iter().all(|(_, result)| !result.diverged) {
        unit.calibration = Some(shared.calibration_to(&calibrating, &outputs, sweep)?);
    }
    Ok(unit)
}

pub(super) fn unit(
    shared: &SharedFeatures<'_>,
    plans: &[HeadPlan],
    results: Vec<HeadResult>,
    evaluators: &[Box<dyn PredictionEvaluator + '_>],
    seconds: f64,
) -> UnitRecord {
    let n_train = |plan: &HeadPlan| shared.n_train(plan) as u64;
    let products = plans.iter().zip(&results);
    UnitRecord {
        rows: plans.iter().map(n_train).sum(),
        head_samples: products.map(|(plan, result)| n_train(plan) * result.epochs as u64).sum(),
        judged: evaluators.iter().map(|evaluator| evaluator.rows()).collect(),
        heads: plans.iter().cloned().zip(results).collect(),
        seconds,
        calibration: None,
    }
}

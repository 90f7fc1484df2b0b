//! Successive halving: all heads that are trained epoch by epoch run side by side, and the worse ones are dropped at
//! each rung.
//!
//! The decision of each rung is saved to disk. After a kill, the heads that go on are trained from their first epoch
//! again, but without those that were dropped: a head's bits do not depend on its neighbours, so the result is the
//! same.

use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

use frostbert_cache::progress::Progress;

use crate::{
    config::settings::described,
    error::Result,
    head::{
        bank::{Bank, BankData, SampleSet},
        spec::HeadSpec,
    },
    metrics::metric::Metric,
    selection::halving::rungs,
    sweep::{
        Sweep,
        heads::{FittedParameters, HeadPlan, HeadResult, SharedFeatures, bank_settings},
        journal::{Journal, Rung},
        outcome::{SearchOutcome, score_of, whole_splits},
        test_scores,
        trials::Trial,
        units::{TrialGroup, plans, unit},
    },
    tasks::predictions::PredictionEvaluator,
};

/// The trial, the seed and the split of a head.
type HeadKey = (usize, u64, usize);

fn key_of(plan: &HeadPlan) -> HeadKey {
    (plan.trial, plan.seed, plan.split)
}

/// Trains all heads that are trained epoch by epoch side by side, and drops the worse ones at each rung. Returns the
/// number of the last rung.
pub(super) fn halve(
    sweep: &Sweep<'_>,
    groups: &[TrialGroup],
    metric: Metric,
    journal: &Journal,
    done: &mut SearchOutcome,
    progress: &dyn Progress,
) -> Result<usize> {
    let groups: Vec<&TrialGroup> = groups.iter().filter(|group| group.has_epochs).collect();
    let mut halving = Halving::new(sweep, &groups, metric);
    let n_decided = halving.follow(journal, done, progress);

    let shared: Vec<SharedFeatures<'_>> =
        groups.iter().map(|group| sweep.shared(group.trials[0])).collect::<Result<_>>()?;
    let evaluators: Vec<Vec<Box<dyn PredictionEvaluator + '_>>> =
        shared.iter().map(|shared| shared.evaluators(sweep)).collect();
    if let Some(evaluators) = evaluators.first() {
        done.judged = evaluators.iter().map(|evaluator| evaluator.rows()).collect();
    }
    let heads: Vec<RungHeads<'_>> = groups
        .iter()
        .zip(shared.iter().zip(&evaluators))
        .map(|(group, (shared, evaluators))| {
            RungHeads::new(sweep, group, &halving.left, shared, evaluators)
        })
        .collect::<Result<_>>()?;
    let sets: Vec<Vec<SampleSet<'_>>> =
        heads.iter().map(|heads| heads.shared.sets(heads.evaluators)).collect();
    let data: Vec<BankData<'_>> =
        heads.iter().zip(&sets).map(|(heads, sets)| heads.shared.data(sets)).collect();
    // A group whose trials were all dropped trains nothing.
    let mut banks: Vec<Option<Bank<'_>>> = heads
        .iter()
        .zip(&data)
        .map(|(heads, data)| {
            let settings = bank_settings(sweep.pipeline);
            (!heads.specs.is_empty()).then(|| Bank::new(&heads.specs, data, settings))
        })
        .collect();

    for rung in n_decided..halving.stages.len() {
        let (after, go_on) = halving.stages[rung];
        let start = Instant::now();
        train_until(&mut banks, after)?;
        let seconds = start.elapsed().as_secs_f64();
        let mut now = HashMap::new();
        for (heads, bank) in heads.iter().zip(&banks) {
            now.extend(heads.results(bank.as_ref(), &halving.left, None)?);
        }
        let ranked = halving.ranked(&now, done);
        let decided = Rung::new(&ranked, go_on, now, seconds);
        for (heads, bank) in heads.iter().zip(&mut banks) {
            heads.keep(bank.as_mut(), &decided.go_on);
        }
        journal.write(&rung_name(rung), &decided)?;
        halving.pass(rung, decided, done);
        let (score, best) = ranked[0];
        progress.detail(&format!(
            "after {after} epochs the best {go_on} of {} settings go on; {} {score:.4}: {}",
            ranked.len(),
            metric.in_words(),
            described(&sweep.trials[best].settings),
        ));
    }

    let start = Instant::now();
    train_until(&mut banks, usize::MAX)?;
    halving.seconds += start.elapsed().as_secs_f64();
    let last = halving.stages.len();
    for trial in &halving.left {
        done.rungs[*trial] = Some(last);
    }
    for ((group, heads), bank) in groups.iter().zip(&heads).zip(&banks) {
        let mut results = heads.results(bank.as_ref(), &halving.left, Some(sweep))?;
        let all = plans(sweep, &group.trials);
        let own = all.iter().map(|plan| {
            let key = key_of(plan);
            let ended = results.remove(&key).or_else(|| halving.given_up.remove(&key));
            ended.expect("a head went on or was given up")
        });
        // The time of all banks is recorded with the first group.
        let seconds = std::mem::take(&mut halving.seconds);
        let own = own.collect();
        done.add(unit(heads.shared, &all, own, heads.evaluators, seconds));
        progress.advance(all.len() as u64, 0);
    }
    Ok(last)
}

/// The trials that go on, and the results of those that were dropped.
struct Halving<'a> {
    sweep: &'a Sweep<'a>,
    metric: Metric,
    /// For each rung, the number of epochs before it and the number of trials that go on after it.
    stages: Vec<(usize, usize)>,
    /// The trials that were not dropped.
    left: Vec<usize>,
    given_up: HashMap<HeadKey, HeadResult>,
    /// Wall time of the fits so far.
    seconds: f64,
}

impl<'a> Halving<'a> {
    fn new(sweep: &'a Sweep<'a>, groups: &[&TrialGroup], metric: Metric) -> Halving<'a> {
        let trials = groups.iter().flat_map(|group| group.trials.iter().copied());
        let left: Vec<usize> = trials.collect();
        Halving {
            sweep,
            metric,
            stages: stages(left.iter().map(|trial| &sweep.trials[*trial])),
            left,
            given_up: HashMap::new(),
            seconds: 0.0,
        }
    }

    /// Applies the rungs that were decided before a kill, and returns how many there are.
    fn follow(
        &mut self,
        journal: &Journal,
        done: &mut SearchOutcome,
        progress: &dyn Progress,
    ) -> usize {
        let n_trials = self.left.len();
        let mut n_decided = 0;
        while let Some((_, go_on)) = self.stages.get(n_decided) {
            let is_same = |rung: &Rung| rung.decides(self.sweep, &self.left, *go_on);
            let Some(decided) = journal.read(&rung_name(n_decided)).filter(is_same) else {
                break;
            };
            self.pass(n_decided, decided, done);
            n_decided += 1;
        }
        if n_decided > 0 {
            let n_left = self.left.len();
            let n_given_up = n_trials - n_left;
            progress.note(&format!(
                "{n_given_up} settings were given up before; the other {n_left} are trained again from the first epoch"
            ));
        }
        n_decided
    }

    /// Returns the trials that are left with their scores, best first.
    fn ranked(
        &self,
        now: &HashMap<HeadKey, HeadResult>,
        done: &SearchOutcome,
    ) -> Vec<(f64, usize)> {
        let (metric, whole) = (self.metric, whole_splits(self.sweep));
        let higher_is_better = metric.higher_is_better();
        let worst = if higher_is_better { f64::NEG_INFINITY } else { f64::INFINITY };
        let scored = self.left.iter().map(|trial| {
            let own = |seed, split| &now[&(*trial, seed, split)];
            let score = score_of(self.sweep, done, metric, &whole, own);
            (score.unwrap_or(worst), *trial)
        });
        let mut scored: Vec<(f64, usize)> = scored.collect();
        scored.sort_by(
            |(a, _), (b, _)| if higher_is_better { b.total_cmp(a) } else { a.total_cmp(b) },
        );
        scored
    }

    /// Applies the decision of a rung.
    fn pass(&mut self, number: usize, rung: Rung, done: &mut SearchOutcome) {
        self.left = rung.go_on;
        self.seconds += rung.seconds;
        for (plan, result) in rung.given_up {
            done.rungs[plan.trial] = Some(number);
            self.given_up.insert(key_of(&plan), result);
        }
    }
}

/// The rungs of those trials that are trained epoch by epoch.
fn stages<'a>(trials: impl Iterator<Item = &'a Trial>) -> Vec<(usize, usize)> {
    let steps = trials.filter_map(|trial| trial.pipeline.head.kind.steps());
    let epochs: Vec<usize> = steps.map(|steps| steps.epochs).collect();
    rungs(epochs.len(), epochs.iter().copied().max().unwrap_or(0))
}

/// Number of trials that halving trains to the end: those that the last rung leaves, and those without epochs.
pub(super) fn n_trained_to_the_end(trials: &[Trial]) -> usize {
    let n_with_epochs =
        trials.iter().filter(|trial| trial.pipeline.head.kind.steps().is_some()).count();
    let n_left = stages(trials.iter()).last().map_or(n_with_epochs, |(_, go_on)| *go_on);
    trials.len() - n_with_epochs + n_left
}

fn set_of(trials: &[usize]) -> HashSet<usize> {
    trials.iter().copied().collect()
}

fn rung_name(rung: usize) -> String {
    format!("rung-{}", rung + 1)
}

fn train_until(banks: &mut [Option<Bank<'_>>], epochs: usize) -> Result<()> {
    for bank in banks.iter_mut().flatten() {
        while bank.is_training() && bank.epochs_done() < epochs {
            bank.epoch()?;
        }
    }
    Ok(())
}

impl Rung {
    /// Decides a rung: the best `go_on` of the trials in `ranked` go on; `now` has the results of all their heads.
    fn new(
        ranked: &[(f64, usize)],
        go_on: usize,
        now: HashMap<HeadKey, HeadResult>,
        seconds: f64,
    ) -> Rung {
        let go_on: Vec<usize> = ranked[..go_on].iter().map(|(_, trial)| *trial).collect();
        let ahead = set_of(&go_on);
        let mut given_up: Vec<(HeadPlan, HeadResult)> = now
            .into_iter()
            .filter(|((trial, ..), _)| !ahead.contains(trial))
            .map(|((trial, seed, split), result)| (HeadPlan { trial, seed, split }, result))
            .collect();
        given_up.sort_by_key(|(plan, _)| key_of(plan));
        Rung { go_on, given_up, seconds }
    }

    /// Whether this is a decision about these trials: `go_on` of them go on, and the results of the others are
    /// complete.
    fn decides(&self, sweep: &Sweep<'_>, left: &[usize], go_on: usize) -> bool {
        let (all, ahead) = (set_of(left), set_of(&self.go_on));
        let mut others: Vec<usize> = all.difference(&ahead).copied().collect();
        others.sort_unstable();
        let given_up = self.given_up.iter().map(|(plan, _)| plan);
        self.go_on.len() == go_on
            && ahead.len() == go_on
            && ahead.is_subset(&all)
            && given_up.eq(&plans(sweep, &others))
    }
}

/// The heads of a group that were not dropped before.
struct RungHeads<'a> {
    shared: &'a SharedFeatures<'a>,
    evaluators: &'a [Box<dyn PredictionEvaluator + 'a>],
    plans: Vec<HeadPlan>,
    specs: Vec<HeadSpec>,
}

impl<'a> RungHeads<'a> {
    fn new(
        sweep: &Sweep<'_>,
        group: &TrialGroup,
        left: &[usize],
        shared: &'a SharedFeatures<'a>,
        evaluators: &'a [Box<dyn PredictionEvaluator + 'a>],
    ) -> Result<RungHeads<'a>> {
        let left = set_of(left);
        let trials = group.trials.iter().filter(|trial| left.contains(trial));
        let plans = plans(sweep, &trials.copied().collect::<Vec<_>>());
        Ok(RungHeads { shared, evaluators, specs: shared.specs(&plans, sweep)?, plans })
    }

    /// Stops the training of all heads except those of some trials.
    fn keep(&self, bank: Option<&mut Bank<'_>>, trials: &[usize]) {
        let Some(bank) = bank else { return };
        let trials = set_of(trials);
        let mut given_up = bank.active();
        given_up.retain(|head| !trials.contains(&self.plans[*head].trial));
        bank.stop(&given_up);
    }

    /// What the heads of some trials say now, with their best parameters so far; of test rows too, where they have
    /// `ended` and the sweep asks for it.
    fn results(
        &self,
        bank: Option<&Bank<'_>>,
        trials: &[usize],
        ended: Option<&Sweep<'_>>,
    ) -> Result<HashMap<HeadKey, HeadResult>> {
        let Some(bank) = bank else {
            return Ok(HashMap::new());
        };
        let trials = set_of(trials);
        let own = (0..self.plans.len()).filter(|head| trials.contains(&self.plans[*head].trial));
        let own: Vec<usize> = own.collect();
        let plans: Vec<HeadPlan> = own.iter().map(|head| self.plans[*head].clone()).collect();
        let fits =
            own.iter().map(|head| FittedParameters::of(bank.best(*head), &self.specs[*head]));
        let fits: Vec<FittedParameters> = fits.collect();
        let mut results = self.shared.results(&plans, &fits, self.evaluators)?;
        if let Some(sweep) = ended {
            test_scores::add_predictions(sweep, self.shared, &plans, &fits, &mut results)?;
        }
        Ok(plans.iter().map(key_of).zip(results).collect())
    }
}

//! Successive halving: all heads that learn epoch by epoch side by side, with the worse ones given up at each rung.
//!
//! What a rung decided is kept on disk. After a kill the heads that go on are trained from their first epoch again, but
//! without those that were given up: a head's bits do not depend on its neighbours, so they come to the same.

use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

use super::{
    Sweep,
    candidates::Metric,
    heads::{Fields, Fit, HeadPlan, HeadResult, bank_settings},
    kept::{Kept, Rung},
    search::{Done, Group, plans, score_of, unit, whole_cuts},
    trials::described,
};
use crate::{
    error::Result,
    head::{
        bank::{Bank, BankData, SampleSet},
        spec::HeadSpec,
    },
    pipeline::tasks::said::Listener,
    progress::Progress,
    sweep::halving::rungs,
};

/// A head by its trial, its seed and its cut.
type HeadKey = (usize, u64, usize);

fn key_of(plan: &HeadPlan) -> HeadKey {
    (plan.trial, plan.seed, plan.cut)
}

/// Trains all heads that learn epoch by epoch side by side, and gives the worse ones up at each rung. Returns the number of
/// the last rung.
pub(super) fn halve(
    sweep: &Sweep<'_>,
    groups: &[Group],
    metric: &Metric,
    kept: &Kept,
    done: &mut Done,
    progress: &dyn Progress,
) -> Result<usize> {
    let groups: Vec<&Group> = groups.iter().filter(|group| !group.in_full_batch).collect();
    let mut left: Vec<usize> = groups
        .iter()
        .flat_map(|group| group.trials.iter().copied())
        .collect();
    let epochs = left
        .iter()
        .map(|trial| sweep.trials[*trial].pipeline.file.train.epochs);
    let stages = rungs(left.len(), epochs.max().unwrap_or(0));
    let mut results: HashMap<HeadKey, HeadResult> = HashMap::new();
    let mut seconds = 0.0;
    let mut n_decided = 0;
    for (rung, (_, go_on)) in stages.iter().enumerate() {
        let is_same = |kept: &Rung| kept.decides(sweep, &left, *go_on);
        let Some(decided) = kept.read(&rung_name(rung)).filter(is_same) else {
            break;
        };
        let Rung {
            go_on, given_up, ..
        } = decided;
        seconds += decided.seconds;
        for (plan, result) in given_up {
            done.rungs[plan.trial] = Some(rung);
            results.insert(key_of(&plan), result);
        }
        left = go_on;
        n_decided += 1;
    }
    if n_decided > 0 {
        let n_given_up = groups.iter().map(|group| group.trials.len()).sum::<usize>() - left.len();
        progress.note(&format!(
            "{n_given_up} settings were given up before; the other {} learn from the first epoch again",
            left.len()
        ));
    }

    let fields: Vec<Fields<'_>> = groups
        .iter()
        .map(|group| sweep.fields(group.trials[0]))
        .collect::<Result<_>>()?;
    let heads: Vec<Heads> = groups
        .iter()
        .zip(&fields)
        .map(|(group, fields)| {
            let trials = group.trials.iter().filter(|trial| left.contains(trial));
            let plans = plans(sweep, &trials.copied().collect::<Vec<_>>());
            let specs = fields.specs(&plans, sweep)?;
            Ok(Heads { plans, specs })
        })
        .collect::<Result<_>>()?;
    let judges: Vec<Vec<Box<dyn Listener + '_>>> =
        fields.iter().map(|fields| fields.judges(sweep)).collect();
    if let Some(judges) = judges.first() {
        done.judged = judges.iter().map(|judge| judge.rows()).collect();
    }
    let sets: Vec<Vec<SampleSet<'_>>> = fields
        .iter()
        .zip(&judges)
        .map(|(fields, judges)| fields.sets(judges))
        .collect();
    let data: Vec<BankData<'_>> = fields
        .iter()
        .zip(&sets)
        .map(|(fields, sets)| fields.data(sets))
        .collect();
    // A group whose trials were all given up trains nothing.
    let mut banks: Vec<Option<Bank<'_>>> = heads
        .iter()
        .zip(&data)
        .map(|(heads, data)| {
            let settings = bank_settings(sweep.pipeline);
            (!heads.specs.is_empty()).then(|| Bank::new(&heads.specs, data, settings))
        })
        .collect();

    let whole = whole_cuts(sweep);
    for (rung, (after, go_on)) in stages.iter().enumerate().skip(n_decided) {
        let start = Instant::now();
        train_until(&mut banks, *after)?;
        let rung_seconds = start.elapsed().as_secs_f64();
        seconds += rung_seconds;
        let mut now: HashMap<HeadKey, (HeadPlan, HeadResult)> = HashMap::new();
        for (number, bank) in banks.iter().enumerate() {
            let Some(bank) = bank else { continue };
            let own = heads[number].results(&fields[number], bank, &judges[number], &left)?;
            now.extend(own.into_iter().map(|own| (key_of(&own.0), own)));
        }
        let mut scored: Vec<(f64, usize)> = left
            .iter()
            .map(|trial| {
                let own = |seed, cut| &now[&(*trial, seed, cut)].1.said;
                let score = score_of(sweep, done, metric, &whole, own);
                // The worst that there is where nothing can be said.
                let worst = if metric.higher_is_better {
                    f64::NEG_INFINITY
                } else {
                    f64::INFINITY
                };
                (score.unwrap_or(worst), *trial)
            })
            .collect();
        scored.sort_by(|(a, _), (b, _)| match metric.higher_is_better {
            true => b.total_cmp(a),
            false => a.total_cmp(b),
        });
        left = scored[..*go_on].iter().map(|(_, trial)| *trial).collect();
        for (bank, heads) in banks.iter_mut().zip(&heads) {
            let Some(bank) = bank else { continue };
            let mut given_up = bank.active();
            given_up.retain(|head| !left.contains(&heads.plans[*head].trial));
            bank.stop(&given_up);
        }
        let mut given_up: Vec<(HeadPlan, HeadResult)> = now
            .into_values()
            .filter(|(plan, _)| !left.contains(&plan.trial))
            .collect();
        given_up.sort_by_key(|(plan, _)| key_of(plan));
        let decided = Rung {
            go_on: left.clone(),
            given_up,
            seconds: rung_seconds,
        };
        kept.write(&rung_name(rung), &decided)?;
        for (plan, result) in decided.given_up {
            done.rungs[plan.trial] = Some(rung);
            results.insert(key_of(&plan), result);
        }
        let settings = described(&sweep.trials[scored[0].1].settings);
        progress.detail(&format!(
            "after {after} epochs the best {go_on} of {} settings go on; {} {:.4}: {settings}",
            scored.len(),
            metric.name.replace('_', " "),
            scored[0].0
        ));
    }
    let start = Instant::now();
    train_until(&mut banks, usize::MAX)?;
    seconds += start.elapsed().as_secs_f64();
    for trial in &left {
        done.rungs[*trial] = Some(stages.len());
    }
    for (number, group) in groups.iter().enumerate() {
        if let Some(bank) = &banks[number] {
            let own = heads[number].results(&fields[number], bank, &judges[number], &left)?;
            results.extend(
                own.into_iter()
                    .map(|(plan, result)| (key_of(&plan), result)),
            );
        }
        let all = plans(sweep, &group.trials);
        let own = all.iter().map(|plan| results.remove(&key_of(plan)));
        let own = own.map(|result| result.expect("a head went on or was given up"));
        // The time of all banks stands with the first.
        let seconds = std::mem::take(&mut seconds);
        let own = own.collect();
        done.add(unit(&fields[number], &all, own, &judges[number], seconds));
        progress.advance(all.len() as u64, 0);
    }
    Ok(stages.len())
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
    /// Whether it decides about these trials: so many go on, and of every other one there are all heads.
    fn decides(&self, sweep: &Sweep<'_>, left: &[usize], go_on: usize) -> bool {
        let all: HashSet<usize> = left.iter().copied().collect();
        let ahead: HashSet<usize> = self.go_on.iter().copied().collect();
        let mut others: Vec<usize> = all.difference(&ahead).copied().collect();
        others.sort_unstable();
        let given_up = self.given_up.iter().map(|(plan, _)| plan);
        self.go_on.len() == go_on
            && ahead.len() == go_on
            && ahead.is_subset(&all)
            && given_up.eq(&plans(sweep, &others))
    }
}

/// The heads of a group that were not given up before.
struct Heads {
    plans: Vec<HeadPlan>,
    specs: Vec<HeadSpec>,
}

impl Heads {
    /// What the heads of some trials say now, with their best parameters so far.
    fn results(
        &self,
        fields: &Fields<'_>,
        bank: &Bank<'_>,
        judges: &[Box<dyn Listener + '_>],
        trials: &[usize],
    ) -> Result<Vec<(HeadPlan, HeadResult)>> {
        let own = (0..self.plans.len()).filter(|head| trials.contains(&self.plans[*head].trial));
        let own: Vec<usize> = own.collect();
        let plans: Vec<HeadPlan> = own.iter().map(|head| self.plans[*head].clone()).collect();
        let fits = own
            .iter()
            .map(|head| Fit::of(bank.best(*head), &self.specs[*head]));
        let results = fields.results(&plans, fits.collect(), judges)?;
        Ok(plans.into_iter().zip(results).collect())
    }
}

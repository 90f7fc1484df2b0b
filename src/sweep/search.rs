//! Trains all heads of a sweep: unit after unit, or all together in successive halving.

use frostbert_cache::{
    progress::{Progress, WithinStage},
    wording::part_of,
};

use crate::{
    config::{file::sweep::Search, settings::described},
    error::Result,
    metrics::metric::Metric,
    sweep::{
        Sweep,
        candidates::better_of,
        halving::halve,
        heads::SharedFeatures,
        journal::{Journal, UnitRecord, unit_name},
        layer_memory,
        outcome::{SearchOutcome, score},
        units::{TrialGroup, groups, plans, train_unit},
    },
    training::class_memory::ClassMemory,
};

/// Maximum number of heads that are trained together: enough to share the work, few enough to lose little by a kill.
const UNIT_HEADS: usize = 256;

/// Trains every head.
///
/// # Errors
/// Returns an error if the heads do not fit in memory, the cache cannot be read, or the journal cannot be written.
pub(super) fn search(
    sweep: &Sweep<'_>,
    metric: Metric,
    journal: &Journal,
    progress: &dyn Progress,
) -> Result<SearchOutcome> {
    let mut done = SearchOutcome::new(sweep);
    let heads_of_trial = sweep.section.seeds * sweep.splits.len();
    let groups = groups(sweep)?;
    let halves = sweep.section.search == Search::Halving;
    let n_heads = heads_of_trial * sweep.trials.len();
    let unit_heads = at_a_time(sweep, &groups)?;
    layer_memory::check(sweep, &groups, progress)?;
    progress.start("training heads", Some(n_heads as u64), "heads");
    let mut best: Option<(f64, usize)> = None;
    let (mut number, mut n_kept) = (0, 0);
    for (group, unit_heads) in groups.iter().zip(unit_heads) {
        if halves && group.has_epochs {
            continue;
        }
        let mut shared: Option<SharedFeatures<'_>> = None;
        for trials in group.trials.chunks((unit_heads / heads_of_trial).max(1)) {
            let expected = plans(sweep, trials);
            let is_same = |unit: &UnitRecord| unit.heads.iter().map(|(plan, _)| plan).eq(&expected);
            let within = WithinStage::new(progress);
            let unit = match journal.read(&unit_name(number)).filter(is_same) {
                Some(unit) => {
                    n_kept += unit.heads.len();
                    unit
                }
                None => {
                    if shared.is_none() {
                        shared = Some(sweep.shared(trials[0])?);
                    }
                    let shared = shared.as_ref().expect("just read");
                    let unit = train_unit(sweep, shared, trials, &within)?;
                    journal.write(&unit_name(number), &unit)?;
                    unit
                }
            };
            number += 1;
            let n_heads = unit.heads.len() as u64;
            done.add(unit);
            for trial in trials {
                let score = score(sweep, &done, metric, *trial);
                best = better_of(metric, best, score.map(|score| (score, *trial)));
            }
            if let Some((score, trial)) = best {
                let settings = described(&sweep.trials[trial].settings);
                progress.detail(&format!("best {} {score:.4}: {settings}", metric.in_words()));
            }
            // Fits in full batch were already counted one by one.
            progress.advance(n_heads.saturating_sub(within.advanced()), 0);
        }
    }
    if n_kept > 0 {
        progress.note(&format!("{} were trained before", part_of(n_kept, n_heads, "head")));
    }
    if halves {
        let last = halve(sweep, &groups, metric, journal, &mut done, progress)?;
        // Heads without epochs are complete.
        for group in groups.iter().filter(|group| !group.has_epochs) {
            for trial in &group.trials {
                done.rungs[*trial] = Some(last);
            }
        }
    }
    progress.finish();
    Ok(done)
}

/// Returns how many heads of each group are trained together: as many as fit in memory if there are many classes, and
/// one if layers of the encoder are trained.
///
/// # Errors
/// When the heads of one trial do not fit.
pub(super) fn at_a_time(sweep: &Sweep<'_>, groups: &[TrialGroup]) -> Result<Vec<usize>> {
    let halves = sweep.section.search == Search::Halving;
    let heads_of_trial = sweep.section.seeds * sweep.splits.len();
    let mut all = Vec::with_capacity(groups.len());
    for group in groups {
        let mut fewest = if group.key.trains_layers() { 1 } else { UNIT_HEADS };
        for trial in &group.trials {
            let pipeline = &sweep.trials[*trial].pipeline;
            let model = sweep.model(*trial);
            let shape = [model.layers(), model.hidden()];
            let Some(memory) = ClassMemory::of(pipeline, sweep.dataset, shape)? else {
                continue;
            };
            let (together, cure) = if halves && group.has_epochs {
                (
                    heads_of_trial * group.trials.len(),
                    ", or search without halving, which trains all heads at once",
                )
            } else {
                (heads_of_trial, ", with fewer seeds or folds")
            };
            let own = memory.heads_at_a_time(pipeline, together, UNIT_HEADS, cure)?;
            fewest = fewest.min(own);
        }
        all.push(fewest);
    }
    Ok(all)
}

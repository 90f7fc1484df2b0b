//! The training of all heads of a sweep, unit after unit; or all together, with the worse ones given up.

use std::{collections::HashMap, path::Path, sync::Mutex, time::Instant};

use crate::{
    data::dataset::Dataset,
    error::Result,
    extraction::forecast::megabytes,
    head::bank::Bank,
    metrics::metric::Metric,
    progress::{Progress, WithinStage},
    report::sheet::Sheet,
    selection::section::Search,
    sweep::{
        Sweep,
        candidates::{better_of, pooled},
        halving::halve,
        heads::{HeadPlan, HeadResult, SharedFeatures, ViewKey, best_loss},
        journal::{Journal, UnitRecord, unit_name},
        trials::described,
    },
    tasks::predictions::{Gold, PredictionEvaluator, Predictions},
    training::class_memory::ClassMemory,
    wording::counted,
};

/// Heads that are trained together at most: many enough to share the work, few enough to lose little by a kill.
const UNIT_HEADS: usize = 256;

/// How long the units took.
const TIMINGS_FILE: &str = "timings.csv";

/// Everything that was trained.
pub(super) struct SearchOutcome {
    results: HashMap<(usize, u64, usize), HeadResult>,
    /// Rows of the dataset that are judged, of each cut.
    pub(super) judged: Vec<Vec<u32>>,
    /// For each trial the rung that it reached, where heads are given up.
    pub(super) rungs: Vec<Option<usize>>,
    pub(super) heads: usize,
    /// Sums over heads: samples that it learned from, epochs, and their products.
    pub(super) rows: f64,
    pub(super) epochs: f64,
    pub(super) head_samples: f64,
    pub(super) seconds: f64,
    units: Vec<(usize, u64, f64)>,
    gold: Mutex<HashMap<Vec<usize>, std::sync::Arc<Gold>>>,
}

impl SearchOutcome {
    pub(super) fn new(sweep: &Sweep<'_>) -> SearchOutcome {
        SearchOutcome {
            results: HashMap::new(),
            judged: vec![Vec::new(); sweep.splits.len()],
            rungs: vec![None; sweep.trials.len()],
            heads: 0,
            rows: 0.0,
            epochs: 0.0,
            head_samples: 0.0,
            seconds: 0.0,
            units: Vec::new(),
            gold: Mutex::new(HashMap::new()),
        }
    }

    pub(super) fn add(&mut self, unit: UnitRecord) {
        self.heads += unit.heads.len();
        self.rows += unit.rows as f64;
        self.head_samples += unit.head_samples as f64;
        self.seconds += unit.seconds;
        self.units.push((unit.heads.len(), unit.head_samples, unit.seconds));
        self.judged = unit.judged;
        for (plan, result) in unit.heads {
            self.epochs += result.epochs as f64;
            self.results.insert((plan.trial, plan.seed, plan.split), result);
        }
    }

    /// Heads that diverged, also those of which no setting's score is made.
    pub(super) fn n_diverged(&self) -> usize {
        self.results.values().filter(|result| result.diverged).count()
    }

    /// What came of a head.
    pub(super) fn result(&self, trial: usize, seed: u64, split: usize) -> &HeadResult {
        &self.results[&(trial, seed, split)]
    }

    /// What is true of the rows of some cuts, one after the other.
    pub(super) fn gold(&self, dataset: &Dataset, splits: &[usize]) -> std::sync::Arc<Gold> {
        let mut known = self.gold.lock().expect("no panic while rows are gathered");
        let gold = known.entry(splits.to_vec()).or_insert_with(|| {
            let rows = splits.iter().flat_map(|split| self.judged[*split].iter().copied());
            std::sync::Arc::new(Gold::new(dataset, rows.collect()))
        });
        gold.clone()
    }

    /// timings.csv: a line for each unit.
    ///
    /// # Errors
    /// When the disk refuses.
    pub(super) fn write_timings(&self, run: &Path) -> Result<()> {
        let units = || self.units.iter();
        let mut sheet = Sheet::default();
        sheet.integers("unit", (1..=self.units.len()).map(Some));
        sheet.integers("heads", units().map(|(heads, ..)| Some(*heads)));
        sheet.integers("head_samples", units().map(|(_, samples, _)| Some(*samples as usize)));
        sheet.numbers("seconds", units().map(|(.., seconds)| Some(*seconds)));
        sheet.write_csv(&run.join(TIMINGS_FILE))
    }
}

/// Trials whose heads read the same states and are fitted in the same way.
pub(super) struct TrialGroup {
    key: ViewKey,
    pub(super) has_epochs: bool,
    pub(super) trials: Vec<usize>,
}

/// All trials, group by group.
///
/// # Errors
/// When a trial is at fault.
pub(super) fn groups(sweep: &Sweep<'_>) -> Result<Vec<TrialGroup>> {
    let mut groups: Vec<TrialGroup> = Vec::new();
    for (number, trial) in sweep.trials.iter().enumerate() {
        let key = ViewKey::of(&trial.pipeline, sweep.checkpoint.config.layers)?;
        let has_epochs = trial.pipeline.file.head.kind.has_epochs();
        let found =
            groups.iter_mut().find(|group| group.key == key && group.has_epochs == has_epochs);
        match found {
            Some(group) => group.trials.push(number),
            None => groups.push(TrialGroup { key, has_epochs, trials: vec![number] }),
        }
    }
    Ok(groups)
}

/// The heads of some trials: every seed on every cut.
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

/// Trains every head.
///
/// # Errors
/// When the cache or the disk is at fault.
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
    let unit_heads = at_a_time(sweep, metric, &groups, n_heads)?;
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
            // Fits in full batch were counted one by one.
            progress.advance(n_heads.saturating_sub(within.advanced()), 0);
        }
    }
    if n_kept > 0 {
        progress.note(&format!("{n_kept} of {} were trained before", counted(n_heads, "head")));
    }
    if halves {
        let last = halve(sweep, &groups, metric, journal, &mut done, progress)?;
        // What has no epochs is whole.
        for group in groups.iter().filter(|group| !group.has_epochs) {
            for trial in &group.trials {
                done.rungs[*trial] = Some(last);
            }
        }
    }
    progress.finish();
    Ok(done)
}

/// How many heads of each group are trained together: as many as fit into memory where there are many classes.
///
/// # Errors
/// When the heads of one trial do not fit, or what heads say of the rows does not.
fn at_a_time(
    sweep: &Sweep<'_>,
    metric: Metric,
    groups: &[TrialGroup],
    n_heads: usize,
) -> Result<Vec<usize>> {
    let halves = sweep.section.search == Search::Halving;
    let heads_of_trial = sweep.section.seeds * sweep.splits.len();
    let model = &sweep.checkpoint.config;
    let n_judged: usize = sweep.splits.iter().map(|split| split.validation.len()).sum();
    let mut all = Vec::with_capacity(groups.len());
    for group in groups {
        let mut fewest = UNIT_HEADS;
        for trial in &group.trials {
            let pipeline = &sweep.trials[*trial].pipeline;
            let Some(memory) = ClassMemory::of(pipeline, sweep.dataset, model)? else {
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
            let predictions = memory.prediction_bytes(n_heads / sweep.splits.len(), n_judged);
            if metric.needs_probabilities() && predictions > memory.left_bytes() {
                return Err(sweep.pipeline.refuse(
                    format!(
                        "{metric} is compared by the probability of every class on every row that is judged, {} for {}",
                        megabytes(predictions),
                        counted(n_heads, "head"),
                    ),
                    "set sweep.select to \"accuracy\" or another metric of right and wrong answers".into(),
                ));
            }
        }
        all.push(fewest);
    }
    Ok(all)
}

/// Trains the heads of some trials that read the same features.
///
/// # Errors
/// When the cache is at fault, or a training diverges.
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
            "epoch {}: {} of {} still learning{loss}",
            bank.epochs_done(),
            active.len(),
            counted(plans.len(), "head")
        ));
    };
    if shared.learns_nothing {
        let results = shared.compare(&plans)?;
        let seconds = start.elapsed().as_secs_f64();
        return Ok(unit(shared, &plans, results, &evaluators, seconds));
    }
    let fits = shared.fit(&plans, sweep, &mut on_epoch, progress)?;
    let seconds = start.elapsed().as_secs_f64();
    let results = shared.results(&plans, fits, &evaluators)?;
    Ok(unit(shared, &plans, results, &evaluators, seconds))
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
    }
}

/// A trial's score: the mean over its seeds, on the rows of all folds; of the heads that learned from all rows.
fn score(sweep: &Sweep<'_>, done: &SearchOutcome, metric: Metric, trial: usize) -> Option<f64> {
    score_on(sweep, done, metric, trial, &whole_cuts(sweep))
}

/// The cuts whose heads can win.
pub(super) fn whole_cuts(sweep: &Sweep<'_>) -> Vec<usize> {
    (0..sweep.splits.len()).filter(|split| sweep.is_whole(&sweep.splits[*split])).collect()
}

/// The mean over a trial's seeds of its score on the rows of some cuts together.
pub(super) fn score_on(
    sweep: &Sweep<'_>,
    done: &SearchOutcome,
    metric: Metric,
    trial: usize,
    splits: &[usize],
) -> Option<f64> {
    let result = |seed: u64, split: usize| done.result(trial, seed, split);
    score_of(sweep, done, metric, splits, result)
}

/// The mean over the seeds of what heads came to on the rows of some cuts; none where one of them diverged, or the metric
/// has no value.
pub(super) fn score_of<'a>(
    sweep: &Sweep<'_>,
    done: &SearchOutcome,
    metric: Metric,
    splits: &[usize],
    result: impl Fn(u64, usize) -> &'a HeadResult,
) -> Option<f64> {
    let mut total = 0.0;
    for seed in 0..sweep.section.seeds as u64 {
        let results: Vec<&HeadResult> = splits.iter().map(|split| result(seed, *split)).collect();
        if results.iter().any(|result| result.diverged) {
            return None;
        }
        let all: Vec<&Predictions> = results.iter().map(|result| &result.predictions).collect();
        total += pooled(splits, &all, done, sweep, metric).score(metric, None)?;
    }
    Some(total / sweep.section.seeds as f64)
}

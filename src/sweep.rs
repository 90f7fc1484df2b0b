//! Sweeps: many heads over one cache, or over one for each of several models, compared on the rows that they did not see,
//! and the best of them as a run.
//!
//! A *trial* is one setting (`trials`); a *split* is the rows that a head is trained on and those that it is evaluated
//! on (`splits`); a head is a trial with a seed on a split (`heads`). Heads that read the same states are trained
//! together, some hundreds at a time: such a *unit* is saved to disk when it is done (`journal`).

mod calibration;
mod candidates;
mod corrected;
mod cross_validation;
mod halving;
mod heads;
mod journal;
mod layer_memory;
mod nested;
mod outcome;
mod prediction_memory;
mod search;
mod splits;
mod target_sets;
mod test_scores;
mod tested_setting;
mod trials;
mod units;

use std::{
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    time::Instant,
};

use frostbert_cache::{
    progress::Progress,
    states::StateId,
    wording::{counted, part_of},
};
use serde::Serialize;
use serde_json::{Map, Value};

pub use crate::sweep::{corrected::BiasCorrected, nested::NestedScore};
pub(crate) use crate::sweep::{
    cross_validation::{OutOfFold, out_of_fold},
    journal::Journal,
    tested_setting::{TestedSetting, test_setting},
};
use crate::{
    config::{
        file::sweep::SweepSection,
        settings::{Pipeline, described},
    },
    data::{Part, dataset::Dataset},
    encoder::checkpoint::Checkpoint,
    error::{Error, Result},
    metrics::{intervals::Bootstrap, metric::Metric, scores::Scores},
    report::{leaderboard, tensorboard},
    run_folder::lock::LockedSplit,
    selection::{
        SweepFindings,
        bias_corrected::CorrectedScore,
        leaderboard::{Leaderboard, drawn_scores, rank},
    },
    sweep::{
        candidates::SweepCandidates,
        heads::{SharedFeatures, ViewKey},
        outcome::SearchOutcome,
        search::search,
        splits::{Split, splits},
        trials::{Trial, Trials, trials},
    },
    tasks::{TaskMetrics, own_metric},
    training::{
        extras::RunExtras,
        inputs::{Inputs, ModelCache, SweepInputs},
        train::{self, TrainReport, TrainedRun, train_on},
    },
};

/// Number of draws of the bootstrap that compares the heads: enough for intervals and standard errors, but not for far
/// tails.
const DRAWS: usize = 200;

/// Maximum number of heads, because their predictions are in memory.
const MOST_HEADS: usize = 200_000;

/// The report of a sweep.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct SweepReport {
    /// The new run folder, or the one of an unfinished sweep that was resumed.
    #[serde(serialize_with = "frostbert_cache::wording::path_shown")]
    pub run: PathBuf,
    /// The page that shows it; none where it could not be written.
    #[serde(
        serialize_with = "frostbert_cache::wording::path_shown_if_any",
        skip_serializing_if = "Option::is_none"
    )]
    pub report: Option<PathBuf>,
    /// The name of the task.
    pub task: String,
    /// Number of heads: settings x seeds x folds, x shares x resamples if there are any; with nested folds, those of
    /// each fold too.
    pub heads: usize,
    /// Number of rows that a head is trained on, as a mean over heads.
    pub rows: f64,
    /// Number of epochs that were actually trained, as a mean over heads.
    pub epochs: f64,
    /// Wall time of fitting and of the validation after each epoch.
    pub seconds: f64,
    /// `heads x rows x epochs / seconds`.
    pub head_samples_per_second: f64,
    /// Wall time of the whole stage, from the open cache to the run folder.
    pub total_seconds: f64,
    /// The head that was chosen.
    pub best: Best,
    /// The score of the chosen head, corrected for its choice, with intervals.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bias_corrected: Option<BiasCorrected>,
    /// What the choice itself is worth, with nested folds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nested: Option<NestedScore>,
    /// The leaderboard: the heads in order.
    pub leaderboard: Vec<Map<String, Value>>,
    /// The findings, for display.
    #[serde(skip)]
    pub findings: SweepFindings,
    /// The run of the chosen head.
    #[serde(skip)]
    pub winner: TrainReport,
}

/// The head that was chosen.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Best {
    /// The settings that were varied, with their values.
    pub settings: Map<String, Value>,
    /// The metric that chose it, on the rows that its heads were not trained on.
    pub validation: Scores,
    /// The metrics on rows that played no part in the choice.
    pub test: Option<TaskMetrics>,
}

/// Returns the rows of a pipeline that can be trained on, by its `[sweep]` too if it has one, and shows their warnings.
///
/// # Errors
/// Returns an error if the pipeline or its data is invalid.
pub(crate) fn checked_dataset(pipeline: &Pipeline, progress: &dyn Progress) -> Result<Dataset> {
    let dataset = train::checked_dataset(pipeline, progress)?;
    if let Some(section) = &pipeline.sweep {
        check(pipeline, section, &dataset, progress)?;
    }
    Ok(dataset)
}

/// Checks a sweep as far as that is possible without states.
///
/// # Errors
/// Returns an error if the section, or a trial of it, is invalid.
fn check(
    pipeline: &Pipeline,
    section: &SweepSection,
    dataset: &Dataset,
    progress: &dyn Progress,
) -> Result<()> {
    if section.seeds == 0 {
        return Err(pipeline.refuse(
            "sweep.seeds is 0, but every setting needs a head".into(),
            "set sweep.seeds to 1 or more, or leave it out".into(),
        ));
    }
    let Trials { all: trials, warnings } = trials(pipeline, section)?;
    for warning in &warnings {
        progress.warn(warning);
    }
    let metric = candidates::metric(pipeline, section, dataset)?;
    candidates::check_metric(metric, pipeline, &trials)?;
    let splits = splits(pipeline, section, dataset)?;
    target_sets::check(pipeline, dataset, &trials, &splits)?;
    test_scores::check(pipeline, section, dataset)?;
    let n_heads = heads_of(section, trials.len(), splits.len());
    if n_heads > MOST_HEADS {
        return Err(pipeline.refuse(
            format!("the sweep has more than {MOST_HEADS} heads"),
            "name fewer values, seeds, folds or resamples".into(),
        ));
    }
    prediction_memory::check(pipeline, section, dataset, metric, &trials, &splits)?;
    let without_epochs = trials.iter().find(|trial| trial.pipeline.head.kind.steps().is_none());
    if let Some(trial) = without_epochs.filter(|_| section.bootstrap.is_some_and(|n| n > 0)) {
        return Err(pipeline.refuse(
            format!(
                "sweep.bootstrap draws rows more than once, but a head of kind {} counts each row once",
                trial.pipeline.head.kind.name()
            ),
            "sweep it without sweep.bootstrap, or other kinds with it".into(),
        ));
    }
    for trial in &trials {
        crate::tasks::weights::class_weights(&trial.pipeline, dataset, &dataset.part(Part::Train))?;
    }
    Ok(())
}

/// Returns the number of heads that a pipeline's `[sweep]` trains, each for some epochs at least.
///
/// # Errors
/// Returns an error if the section, or a trial of it, is invalid.
pub(crate) fn n_heads(
    pipeline: &Pipeline,
    section: &SweepSection,
    dataset: &Dataset,
) -> Result<usize> {
    let n_trials = trials(pipeline, section)?.all.len();
    Ok(heads_of(section, n_trials, splits(pipeline, section, dataset)?.len()))
}

fn heads_of(section: &SweepSection, n_trials: usize, n_splits: usize) -> usize {
    n_splits.saturating_mul(n_trials).saturating_mul(section.seeds)
}

/// Trains all heads of a pipeline's `[sweep]` on cached states, and writes the leaderboard and the best head to the
/// folder `run`. Heads that the journal already holds are not trained again.
///
/// # Errors
/// Returns an error if the cache lacks rows or is damaged, or if every training diverges.
pub(crate) fn sweep_on(
    inputs: SweepInputs<'_>,
    section: &SweepSection,
    run: &Path,
    journal: &Journal,
    progress: &dyn Progress,
) -> Result<SweepReport> {
    let start = Instant::now();
    let SweepInputs { pipeline, dataset, models, extras } = inputs;
    let trials = trials(pipeline, section)?.all;
    tell_choices(&trials, progress);
    let splits = splits(pipeline, section, dataset)?;
    let metric = candidates::metric(pipeline, section, dataset)?;
    let sweep = Sweep {
        pipeline,
        section,
        dataset,
        models,
        trials: &trials,
        splits: &splits,
        says_unchosen: &AtomicBool::new(false),
    };
    let done = search(&sweep, metric, journal, progress)?;
    let judged = SweepCandidates::new(&sweep, &done, metric);
    let bootstrap = Bootstrap { resamples: DRAWS, seed: pipeline.seed };
    let scores = drawn_scores(&judged.candidates, metric, &judged.each_row(), bootstrap);
    let board = rank(&judged.candidates, metric, &scores);
    let drawn: Vec<String> = section
        .keys
        .iter()
        .filter(|(_, value)| value.is_table())
        .map(|(key, _)| key.clone())
        .collect();
    let mut findings = SweepFindings::new(board, &drawn);
    findings.test = test_scores::scores(&sweep, &done, &judged, &findings.leaderboard, bootstrap);
    let nested = nested::score(&sweep, &done, metric, progress)?;
    let rows = &findings.leaderboard.rows;
    let n_diverged = done.n_diverged();
    if n_diverged > 0 {
        progress.warn(&format!(
            "{} diverged (a loss was not a number): their settings have no score, and none of them can win",
            part_of(n_diverged, done.heads, "head"),
        ));
    }
    let write = |test: Option<(usize, f64)>, corrected: Option<(usize, CorrectedScore)>| {
        leaderboard::write(run, &findings, test, corrected)?;
        judged.write_resamples(run, &findings.leaderboard)?;
        if let Some(nested) = &nested {
            nested.write(run)?;
        }
        done.write_timings(run)
    };
    let board = &findings.leaderboard;
    let trained = sweep.train_best(&judged, board, &done, (metric, extras), progress)?;
    let Some((place, winner)) = trained else {
        write(None, None)?;
        return Err(Error::Diverged {
            problem: format!(
                "of {}, none could be trained to the end: {} lists them",
                counted(trials.len(), "setting"),
                run.join(leaderboard::LEADERBOARD_CSV).display()
            ),
            hint: "sweep lower values of lr, or set train.clip".to_owned(),
        });
    };
    let row = &rows[place];
    let test = winner.metrics().test.as_ref();
    let test = test.and_then(|test| test.scores().value(metric));
    let bias_corrected =
        corrected::correct(&sweep, &done, &judged, &scores, board, place, progress)?;
    let corrected = bias_corrected.as_ref().map(|figure| (place, figure.corrected));
    write(test.map(|value| (place, value)), corrected)?;
    let winner = winner.write(run)?;
    if let Some(folder) = extras.tensorboard_of(run, &pipeline.run_dir) {
        let left_out = tensorboard::write_trials(&folder, &findings.leaderboard)?;
        if left_out > 0 {
            progress.note(&format!(
                "the {} best trials have event files: {left_out} more are in {}",
                tensorboard::MOST_TRIALS,
                leaderboard::LEADERBOARD_CSV
            ));
        }
    }
    let best = Best {
        settings: candidates::settings(row),
        validation: Scores::new([metric], [row.score], [row.interval]),
        test: winner.metrics.test.clone(),
    };
    Ok(SweepReport {
        task: winner.task.clone(),
        heads: done.heads,
        rows: done.rows / done.heads as f64,
        epochs: done.epochs / done.heads as f64,
        seconds: done.seconds,
        head_samples_per_second: done.rows * done.epochs
            / done.heads as f64
            / done.seconds.max(1e-9),
        total_seconds: start.elapsed().as_secs_f64(),
        best,
        bias_corrected,
        nested,
        leaderboard: candidates::lines(&findings),
        findings,
        winner,
        run: run.to_path_buf(),
        report: None,
    })
}

/// Says how many settings leave a number to folds: each of their heads is fitted many times.
fn tell_choices(trials: &[Trial], progress: &dyn Progress) {
    let choosing = trials.iter().filter(|trial| trial.pipeline.head.kind.is_chosen_by_folds());
    let n_choosing = choosing.count();
    if n_choosing > 0 {
        progress.note(&format!(
            "{} leave C or lambda to folds over the rows that each head learns from: values in sweep.C and sweep.lambda \
             take fewer fits",
            part_of(n_choosing, trials.len(), "setting")
        ));
    }
}

/// What all parts of a sweep look at.
struct Sweep<'a> {
    pipeline: &'a Pipeline,
    section: &'a SweepSection,
    dataset: &'a Dataset,
    models: &'a [ModelCache<'a>],
    trials: &'a [Trial],
    splits: &'a [Split],
    /// Whether it was said that folds cannot choose the C or lambda of a head.
    says_unchosen: &'a AtomicBool,
}

impl Sweep<'_> {
    /// Trains the best setting of a leaderboard as a run of its own or, if it diverges there, the next. Returns it with
    /// its row; `None` if none can be trained to the end.
    fn train_best(
        &self,
        judged: &SweepCandidates,
        board: &Leaderboard,
        done: &SearchOutcome,
        (metric, extras): (Metric, &RunExtras),
        progress: &dyn Progress,
    ) -> Result<Option<(usize, TrainedRun)>> {
        if board.rows.iter().all(|row| row.score.is_none()) {
            progress.warn(&format!(
                "no head has a value of {metric} on the rows that it did not see, so the first setting is used: set \
                 sweep.select to another metric, or use other rows"
            ));
        }
        for chosen in judged.ranked(self, board) {
            let row = &board.rows[chosen.row];
            let settings = if row.settings.is_empty() {
                "the only one".to_string()
            } else {
                described(&row.settings)
            };
            let n_trials = counted(self.trials.len(), "setting");
            progress.note(&format!("the best of {n_trials}: {settings}"));
            match self.train_winner(chosen.trial, row.best_epoch, done, extras, progress) {
                Err(Error::Diverged { problem, .. }) => progress.warn(&format!(
                    "trained as a run of its own, it diverged ({problem}), so the next setting is used"
                )),
                other => return Ok(Some((chosen.row, other?))),
            }
        }
        Ok(None)
    }

    /// Trains the chosen trial as a run of its own. With `refit`, it is trained on train and validation together, for
    /// the number of epochs after which its heads were best, and calibrated on the rows that they were not trained on.
    fn train_winner(
        &self,
        trial: usize,
        best_epoch: Option<f64>,
        done: &SearchOutcome,
        extras: &RunExtras,
        progress: &dyn Progress,
    ) -> Result<TrainedRun> {
        let ModelCache { checkpoint, cache } = self.model(trial);
        let dataset = self.dataset;
        let pipeline = &self.trials[trial].pipeline;
        let mut trained = if self.refits() {
            let refit = self.refit(trial, best_epoch, done)?;
            let dataset = &dataset.with_validation_in_train();
            let inputs = Inputs { checkpoint, pipeline, dataset, cache, extras };
            train_on(inputs, Some(&refit), progress)?
        } else {
            train_on(Inputs { checkpoint, pipeline, dataset, cache, extras }, None, progress)?
        };
        // A replay sweeps again, on the split that was read.
        let Sweep { pipeline, models, .. } = *self;
        let inputs = SweepInputs { pipeline, dataset, models, extras };
        trained.lock.models = inputs.locked_models();
        trained.lock.modules = inputs.locked_modules();
        let swept = pipeline.file().clone();
        trained.lock.winner = Some(std::mem::replace(&mut trained.lock.pipeline, swept));
        trained.lock.split = LockedSplit::of(dataset);
        Ok(trained)
    }

    /// The model whose states a trial's head reads, and their cache.
    fn model(&self, trial: usize) -> ModelCache<'_> {
        let folder = &self.trials[trial].pipeline.extraction.model;
        let mut models = self.models.iter();
        let own = models.find(|model| model.is_in(folder));
        *own.expect("the models of all trials are open")
    }

    /// What the features of a trial's head depend on.
    fn view_key(&self, trial: usize) -> Result<ViewKey> {
        ViewKey::of(&self.trials[trial].pipeline, self.model(trial).layers())
    }

    /// The rows that a trial's head reads.
    fn shared(&self, trial: usize) -> Result<SharedFeatures<'_>> {
        let own_metric = self.own_metric();
        let mut followed: Vec<Metric> = Vec::new();
        for trial in self.trials {
            let steps = trial.pipeline.head.kind.steps();
            let stopping = steps.and_then(|steps| steps.stopping(own_metric));
            let metric = stopping.map(|stopping| stopping.metric);
            followed.extend(metric.filter(|metric| !followed.contains(metric)));
        }
        SharedFeatures::read(self, trial, followed)
    }

    /// Returns the task's metric that heads are chosen by if none is named.
    fn own_metric(&self) -> Metric {
        own_metric(self.pipeline.data.task, self.dataset.labels.names())
    }

    /// Whether a split has all training rows of its fold, each once: only the heads of such splits can win.
    fn is_whole(&self, split: &Split) -> bool {
        split.resample.is_none() && split.without.is_none() && split.share == self.largest_share()
    }

    /// Returns the position of the largest share of the training rows, if there are shares.
    fn largest_share(&self) -> Option<usize> {
        let shares = self.section.fraction.as_ref()?.values();
        (0..shares.len()).max_by(|a, b| shares[*a].total_cmp(&shares[*b]))
    }
}

/// The states of a model that the head of a pipeline reads, or the heads of its sweep.
///
/// # Errors
/// When a trial is at fault.
pub(crate) fn states(pipeline: &Pipeline, model: &Checkpoint) -> Result<Vec<StateId>> {
    let model_layers = model.config.layers;
    let Some(section) = &pipeline.sweep else {
        return pipeline.head_states(model_layers);
    };
    pipeline.check_unfreezings(model_layers)?;
    let mut states: Vec<StateId> = Vec::new();
    let trials = trials(pipeline, section)?.all.into_iter();
    for trial in trials.filter(|trial| trial.pipeline.extraction.model == model.folder) {
        let own = trial.pipeline.head_states(model_layers)?;
        states.extend(own.into_iter().filter(|state| !states.contains(state)).collect::<Vec<_>>());
    }
    Ok(states)
}

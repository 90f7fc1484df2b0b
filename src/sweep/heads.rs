//! The heads of trials that read the same states: their fit on every split, and their predictions for the rows that
//! they were not trained on.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Mutex, atomic::Ordering},
};

use frostbert_cache::{
    progress::{Progress, WithinStage},
    states::StateId,
};
use serde::{Deserialize, Serialize};

use crate::{
    config::settings::{KindSettings, Pipeline},
    error::Result,
    head::{
        bank::{Bank, BankData, BankSettings, SampleSet},
        network::{Network, NetworkSpec},
        outputs::{OutputHead, for_each_head},
        spec::HeadSpec,
        trained_head::{EpochRecord, TrainedHead},
        transform::Transform,
    },
    metrics::{metric::Metric, outputs::OutputRows},
    sweep::{Sweep, target_sets::TargetSets, trials::Trial},
    tasks::{
        SamplePurpose, TaskRows, cosine,
        predictions::{PredictionEvaluator, Predictions},
    },
    training::{
        fit::{network, spec, transform},
        full_batch::{self, FittedFor, FullBatchData, FullBatchHead, FullBatchKind},
        regularization::{choose_for, unchosen},
        unfrozen::UnfrozenLayers,
    },
};

/// Everything that the features of a trial's head depend on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ViewKey {
    /// The folder of the model.
    model: PathBuf,
    pub(super) states: Vec<StateId>,
    /// Whether sentence vectors are made of the states.
    sentence: bool,
    matching: bool,
    /// Number of the encoder's layers above the states that are trained with a head.
    unfrozen: usize,
    /// Whether two states are compared by their cosine, without a head.
    cosine: bool,
    pca: Option<usize>,
    standardize: bool,
    /// The maximum length of an answer, by which the outputs on questions are decoded.
    max_answer_tokens: usize,
}

impl ViewKey {
    pub(super) fn of(pipeline: &Pipeline, model_layers: usize) -> Result<ViewKey> {
        let head = &pipeline.head;
        Ok(ViewKey {
            model: pipeline.extraction.model.clone(),
            states: pipeline.head_states(model_layers)?,
            sentence: pipeline.reads_sentence(),
            matching: matches!(head.kind, KindSettings::Matching(..)),
            unfrozen: pipeline.unfrozen_layers(model_layers)?,
            cosine: head.kind.is_cosine(),
            pca: head.pca,
            standardize: head.standardize,
            max_answer_tokens: head.max_answer_tokens,
        })
    }

    /// Whether layers of the encoder are trained with the heads, which are then trained one after the other: each has
    /// millions of parameters.
    pub(super) fn trains_layers(&self) -> bool {
        self.unfrozen > 0
    }
}

/// One head: a trial with a seed, on a split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HeadPlan {
    pub(super) trial: usize,
    /// Added to the pipeline's seed.
    pub(super) seed: u64,
    /// The number of the split.
    pub(super) split: usize,
}

/// The result of a head.
#[derive(Serialize, Deserialize)]
pub(super) struct HeadResult {
    pub(super) predictions: Predictions,
    /// The epoch of the best parameters; 0 for a head that is fitted in full batch, as is `epochs`.
    pub(super) best_epoch: usize,
    pub(super) epochs: usize,
    /// Whether it was dropped because a loss, or its solver's solution, was not finite.
    pub(super) diverged: bool,
    /// For the test rows, where the head is tested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) test: Option<Predictions>,
}

impl HeadResult {
    pub(super) fn new(fit: &FittedParameters, predictions: Predictions) -> HeadResult {
        let FittedParameters { best_epoch, epochs, diverged, .. } = *fit;
        HeadResult { predictions, best_epoch, epochs, diverged, test: None }
    }
}

/// The rows of some trials with the same features, and their splits as samples.
pub(super) struct SharedFeatures<'c> {
    pub(super) rows: TaskRows<'c>,
    pub(super) transform: Transform,
    target_sets: TargetSets,
    pub(super) validation: Vec<Vec<u32>>,
    followed: Vec<Metric>,
    /// See [`ViewKey::trains_layers`].
    pub(super) trains_layers: bool,
    /// Whether the trials are cosines, which have no heads to train.
    pub(super) learns_nothing: bool,
}

/// The parameters of a head, and the number of epochs that it was trained for.
pub(super) struct FittedParameters {
    pub(super) network: NetworkSpec,
    pub(super) parameters: Vec<f32>,
    best_epoch: usize,
    pub(super) epochs: usize,
    pub(super) diverged: bool,
}

impl FittedParameters {
    /// Takes the parameters of a head that was trained in a bank.
    pub(super) fn of(head: TrainedHead, spec: &HeadSpec) -> FittedParameters {
        FittedParameters {
            network: spec.network.clone(),
            best_epoch: head.best_epoch,
            epochs: head.history.len(),
            diverged: head.history.last().is_some_and(EpochRecord::diverged),
            parameters: head.parameters,
        }
    }

    /// Returns the number of parameters that are trained. A table that layers of the encoder share with those below is
    /// held fixed.
    pub(super) fn n_trained(&self) -> usize {
        let network = Network::new(self.network.clone());
        let of_layers: usize = network.encoder_places().iter().map(|place| place.len()).sum();
        network.n_parameters() - network.n_encoder_parameters() + of_layers
    }
}

impl<'c> SharedFeatures<'c> {
    /// Reads the states that one of the trials needs, for all trials that need the same.
    pub(super) fn read(
        sweep: &'c Sweep<'_>,
        trial: usize,
        followed: Vec<Metric>,
    ) -> Result<SharedFeatures<'c>> {
        let Sweep { trials, dataset, splits, .. } = *sweep;
        let key = sweep.view_key(trial)?;
        let mut pipeline = trials[trial].pipeline.clone();
        // Trials that are trained on other label columns are evaluated by the same labels.
        pipeline.head.label = None;
        let rows = TaskRows::new(&pipeline, dataset, sweep.model(trial).cache, &key.states)?;
        let purpose = match sweep.models {
            [_] => SamplePurpose::Evaluation,
            _ => SamplePurpose::Comparison,
        };
        let judged = splits.iter().map(|split| &split.validation);
        Ok(SharedFeatures {
            transform: transform(&pipeline, &rows)?,
            target_sets: TargetSets::new(&rows, dataset, trials, splits),
            validation: judged.map(|judged| rows.samples_of(dataset, judged, purpose)).collect(),
            followed,
            rows,
            trains_layers: key.trains_layers(),
            learns_nothing: key.cosine,
        })
    }

    /// Returns the predictions of cosines for the rows of their splits.
    pub(super) fn compare(&self, plans: &[HeadPlan]) -> Result<Vec<HeadResult>> {
        let cosines = cosine::cosines(&self.rows.view)?;
        let results = plans.iter().map(|plan| {
            let judged = self.validation[plan.split].iter();
            HeadResult {
                predictions: Predictions::Values(
                    judged.map(|sample| cosines[*sample as usize]).collect(),
                ),
                best_epoch: 0,
                epochs: 0,
                diverged: false,
                test: None,
            }
        });
        Ok(results.collect())
    }

    /// Returns the number of samples that a head is trained on.
    pub(super) fn n_train(&self, plan: &HeadPlan) -> usize {
        self.target_sets.train()[self.target_sets.set(plan.trial, plan.split)].len()
    }

    pub(super) fn network(&self, trial: &Trial) -> NetworkSpec {
        network(&trial.pipeline, &self.rows, &self.transform)
    }

    /// Returns the settings of heads that are trained epoch by epoch.
    pub(super) fn specs(&self, plans: &[HeadPlan], sweep: &Sweep<'_>) -> Result<Vec<HeadSpec>> {
        let specs = plans.iter().map(|plan| {
            let trial = &sweep.trials[plan.trial];
            let train = &sweep.splits[plan.split].train;
            let objective = self.rows.task.objective(&trial.pipeline, sweep.dataset, train)?;
            let steps = trial.pipeline.head.kind.steps().expect("a head that is trained in steps");
            let checkpoint = sweep.model(plan.trial).checkpoint;
            let layers = UnfrozenLayers::read(&trial.pipeline, checkpoint)?;
            let network = NetworkSpec {
                encoder_layers: layers.as_ref().map(|layers| layers.spec.clone()),
                ..self.network(trial)
            };
            let own = spec(trial.pipeline.seed, steps, sweep.own_metric(), objective, network);
            Ok(HeadSpec {
                seed: own.seed + plan.seed,
                set: self.target_sets.set(plan.trial, plan.split),
                encoder_layers: layers.map(|layers| layers.training),
                ..own
            })
        });
        specs.collect()
    }

    /// Returns the evaluator of each split.
    pub(super) fn evaluators<'a>(
        &'a self,
        sweep: &Sweep<'a>,
    ) -> Vec<Box<dyn PredictionEvaluator + 'a>> {
        let (pipeline, dataset) = (sweep.pipeline, sweep.dataset);
        let validation = self.validation.iter();
        validation
            .map(|samples| self.rows.task.evaluator(pipeline, dataset, samples, &self.followed))
            .collect()
    }

    pub(super) fn sets<'a>(
        &'a self,
        evaluators: &'a [Box<dyn PredictionEvaluator + 'a>],
    ) -> Vec<SampleSet<'a>> {
        let sets = self.target_sets.train().iter().enumerate();
        sets.map(|(set, train)| {
            let split = self.target_sets.split(set);
            SampleSet {
                targets: self.target_sets.targets(set, &self.rows),
                train,
                validation: &self.validation[split],
                evaluator: &*evaluators[split],
            }
        })
        .collect()
    }

    pub(super) fn data<'a>(&'a self, sets: &'a [SampleSet<'a>]) -> BankData<'a> {
        BankData { view: &self.rows.view, transform: &self.transform, sets }
    }

    /// Fits heads of one sort, either all epoch by epoch or all in full batch, and returns them in the order of the
    /// plans.
    pub(super) fn fit(
        &self,
        plans: &[HeadPlan],
        sweep: &Sweep<'_>,
        on_epoch: &mut dyn FnMut(&Bank<'_>),
        progress: &dyn Progress,
    ) -> Result<Vec<FittedParameters>> {
        let first = &sweep.trials[plans[0].trial].pipeline;
        if first.head.kind.is_full_batch() {
            return self.fit_in_full_batch(plans, sweep, progress);
        }
        self.train(&self.specs(plans, sweep)?, sweep, on_epoch)
    }

    /// Fits heads in full batch; those that are trained on the same column are fitted together.
    fn fit_in_full_batch(
        &self,
        plans: &[HeadPlan],
        sweep: &Sweep<'_>,
        progress: &dyn Progress,
    ) -> Result<Vec<FittedParameters>> {
        let network = self.network(&sweep.trials[plans[0].trial]);
        let mut fitted: HashMap<(usize, usize), TrainedHead> = HashMap::new();
        for (column, sets) in self.target_sets.columns() {
            let learned = |trial: usize| sweep.trials[trial].pipeline.head.label.as_ref();
            // Their fit has no seed, so it is the same for all seeds.
            let own = plans.iter().filter(|plan| plan.seed == 0);
            let own: Vec<&HeadPlan> = own.filter(|plan| learned(plan.trial) == column).collect();
            if own.is_empty() {
                continue;
            }
            let sets: Vec<&[u32]> = sets.iter().map(Vec::as_slice).collect();
            // No head looks at a row that it is judged on, so one table does for all folds.
            let taught =
                column.map(|column| self.rows.targets_of(sweep.dataset, Some(column), &[]));
            let data = FullBatchData {
                view: &self.rows.view,
                targets: taught.as_ref().unwrap_or(&self.rows.targets),
                sets: &sets,
                transform: &self.transform,
                network: &network,
            };
            let heads: Vec<FullBatchHead> = own
                .iter()
                .map(|plan| full_batch_head(plan, data, &self.rows, sweep, progress))
                .collect::<Result<_>>()?;
            let heads = full_batch::fit(&heads, data, FittedFor::Comparison, progress)?;
            let places = own.into_iter().map(|plan| (plan.trial, plan.split));
            fitted.extend(places.zip(heads));
        }
        let fits = plans.iter().map(|plan| {
            let parameters = fitted[&(plan.trial, plan.split)].parameters.clone();
            FittedParameters {
                network: network.clone(),
                best_epoch: 0,
                epochs: 0,
                // All parameters of a fit that failed are 0.
                diverged: parameters.iter().all(|parameter| *parameter == 0.0),
                parameters,
            }
        });
        Ok(fits.collect())
    }

    /// Trains heads epoch by epoch.
    fn train(
        &self,
        specs: &[HeadSpec],
        sweep: &Sweep<'_>,
        on_epoch: &mut dyn FnMut(&Bank<'_>),
    ) -> Result<Vec<FittedParameters>> {
        let evaluators = self.evaluators(sweep);
        let sets = self.sets(&evaluators);
        let data = self.data(&sets);
        let mut bank = Bank::new(specs, &data, bank_settings(sweep.pipeline));
        while bank.is_training() {
            bank.epoch()?;
            on_epoch(&bank);
        }
        let heads = bank.finish().into_iter().zip(specs);
        Ok(heads.map(|(head, spec)| FittedParameters::of(head, spec)).collect())
    }

    /// Returns the results of heads of one sort, either all trained epoch by epoch or all fitted in full batch. Each is
    /// trained for its number of `epochs`, without looking at the rows that it is evaluated on.
    pub(super) fn after(
        &self,
        plans: &[HeadPlan],
        epochs: impl Iterator<Item = usize>,
        sweep: &Sweep<'_>,
        progress: &dyn Progress,
    ) -> Result<Vec<HeadResult>> {
        if self.learns_nothing {
            return self.compare(plans);
        }
        let evaluators = self.evaluators(sweep);
        let kind = &sweep.trials[plans[0].trial].pipeline.head.kind;
        if kind.is_full_batch() {
            let fits = self.fit(plans, sweep, &mut |_| {}, progress)?;
            return self.results(plans, &fits, &evaluators);
        }
        let epochs: Vec<usize> = epochs.collect();
        let mut results = Vec::with_capacity(plans.len());
        for (plans, epochs) in self.waves(plans).zip(self.waves(&epochs)) {
            let mut specs = self.specs(plans, sweep)?;
            for (spec, epochs) in specs.iter_mut().zip(epochs) {
                spec.stop_after = Some((*epochs).max(1));
                spec.stopping = None;
            }
            let fits = self.train(&specs, sweep, &mut |_| {})?;
            results.extend(self.results(plans, &fits, &evaluators)?);
        }
        Ok(results)
    }

    /// The heads that are trained at the same time, wave by wave.
    pub(super) fn waves<'p, T>(&self, heads: &'p [T]) -> std::slice::Chunks<'p, T> {
        heads.chunks(if self.trains_layers { 1 } else { heads.len().max(1) })
    }

    /// Returns the results of heads, with their predictions for the rows of their splits.
    pub(super) fn results(
        &self,
        plans: &[HeadPlan],
        fits: &[FittedParameters],
        evaluators: &[Box<dyn PredictionEvaluator + '_>],
    ) -> Result<Vec<HeadResult>> {
        let predictions = self.evaluate(plans, fits, evaluators, |evaluator, logits, head| {
            evaluator.predictions_of(logits, head)
        })?;
        let heads = fits.iter().zip(predictions);
        Ok(heads.map(|(fit, predictions)| HeadResult::new(fit, predictions)).collect())
    }

    /// Passes the outputs of every head on the validation samples of its split, with the evaluator of the split, to
    /// `read`, and returns its values in the order of the plans.
    pub(super) fn evaluate<T: Send>(
        &self,
        plans: &[HeadPlan],
        fits: &[FittedParameters],
        evaluators: &[Box<dyn PredictionEvaluator + '_>],
        read: impl Fn(&dyn PredictionEvaluator, &dyn OutputRows, &OutputHead) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let mut values = HashMap::new();
        for (split, samples) in self.validation.iter().enumerate() {
            let own = (0..plans.len()).filter(|number| plans[*number].split == split);
            let own: Vec<usize> = own.collect();
            let evaluator = &*evaluators[split];
            let of_split = self
                .read_outputs(samples, &own, fits, |head, logits| read(evaluator, logits, head))?;
            values.extend(of_split);
        }
        let all = (0..plans.len()).map(|number| values.remove(&number));
        Ok(all.map(|value| value.expect("every head was evaluated")).collect())
    }

    /// What `read` makes of the outputs of some heads on some samples, by the number of the head.
    pub(super) fn read_outputs<T: Send>(
        &self,
        samples: &[u32],
        numbers: &[usize],
        fits: &[FittedParameters],
        read: impl Fn(&OutputHead, &dyn OutputRows) -> Result<T> + Sync,
    ) -> Result<HashMap<usize, T>> {
        if numbers.is_empty() {
            return Ok(HashMap::new());
        }
        let heads = numbers.iter().map(|number| OutputHead {
            number: *number,
            network: Network::new(fits[*number].network.clone()),
            parameters: fits[*number].parameters.clone(),
        });
        let values = Mutex::new(HashMap::new());
        let (view, transform) = (&self.rows.view, &self.transform);
        for_each_head(view, transform, samples, heads.collect(), |head, logits, _| {
            let value = read(head, logits)?;
            let mut values = values.lock().expect("no reader panicked");
            values.insert(head.number, value);
            Ok(())
        })?;
        Ok(values.into_inner().expect("no reader panicked"))
    }
}

/// The head of a plan, with the number that it chooses by folds over the rows that it learns from, where it does.
fn full_batch_head(
    plan: &HeadPlan,
    data: FullBatchData<'_>,
    rows: &TaskRows<'_>,
    sweep: &Sweep<'_>,
    progress: &dyn Progress,
) -> Result<FullBatchHead> {
    let pipeline = &sweep.trials[plan.trial].pipeline;
    let train = &sweep.splits[plan.split].train;
    let objective = rows.task.objective(pipeline, sweep.dataset, train)?;
    // Heads are counted, and not the fits that choose.
    let quiet = WithinStage::uncounted(progress);
    let chosen = choose_for(pipeline, sweep.dataset, data, plan.split, &objective, &quiet)?;
    if let (None, Some(note)) =
        (&chosen, unchosen(&pipeline.head.kind, data.sets[plan.split].len()))
        && !sweep.says_unchosen.swap(true, Ordering::Relaxed)
    {
        progress.note(&format!("of some heads, {note}"));
    }
    let number = chosen.map(|chosen| chosen.value);
    let kind = FullBatchKind::of(&pipeline.head.kind, number);
    Ok(FullBatchHead { kind, set: plan.split, objective })
}

/// How the bank of a sweep runs: heads are evaluated where their stopping asks for it.
pub(super) fn bank_settings(pipeline: &Pipeline) -> BankSettings {
    BankSettings { shuffles: true, seed: pipeline.seed, evaluates_all: false, gives_up: true }
}

/// Returns the best validation loss, for the progress line.
pub(super) fn best_loss<'a>(records: impl Iterator<Item = &'a EpochRecord>) -> Option<f64> {
    let losses = records.filter_map(|record| record.validation_loss);
    losses.min_by(f64::total_cmp)
}

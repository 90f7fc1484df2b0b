//! The heads of trials that read the same states: their fit on every cut, and what they say of the rows they did not see.

use std::{collections::HashMap, sync::Mutex};

use ndarray::{Array2, ArrayView2, Axis, concatenate};
use serde::{Deserialize, Serialize};

use super::{Sweep, cuts::Cut, lessons::Lessons, trials::Trial};
use crate::{
    cache::reader::CacheReader,
    data::dataset::Dataset,
    error::Result,
    head::{
        bank::{Bank, BankData, BankSettings, SampleSet, TrainedHead},
        course::EpochRecord,
        network::{Network, NetworkSpec},
        outputs::{HeadOutputs, OutputHead, WAVE_BYTES, for_each_head},
        spec::{HeadSpec, StoppingMetric},
        transform::Transform,
    },
    metrics::outputs::{Chained, OutputRows, gathered},
    pipeline::{
        file::HeadKind,
        fit::{network, spec, transform},
        full_batch::{self, FullBatchData, FullBatchHead},
        settings::Pipeline,
        tasks::{
            OwnRows, TaskRows,
            said::{Listener, Said, Tuned},
            similarity,
        },
    },
    progress::Progress,
    states::StateId,
};

/// What the features of a trial's head depend on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ViewKey {
    pub(super) states: Vec<StateId>,
    matching: bool,
    /// Whether two states are compared as they are.
    cosine: bool,
    pca: Option<usize>,
    standardize: bool,
    /// What the outputs on questions are read by.
    max_answer_tokens: usize,
}

impl ViewKey {
    pub(super) fn of(pipeline: &Pipeline, model_layers: usize) -> Result<ViewKey> {
        let head = &pipeline.file.head;
        Ok(ViewKey {
            states: pipeline.head_states(model_layers)?,
            matching: head.kind == HeadKind::Matching,
            cosine: head.kind == HeadKind::Cosine,
            pca: head.pca,
            standardize: head.standardize,
            max_answer_tokens: head.max_answer_tokens,
        })
    }
}

/// One head: a trial with a seed, on a cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HeadPlan {
    pub(super) trial: usize,
    /// Added to the pipeline's seed.
    pub(super) seed: u64,
    /// The cut's place.
    pub(super) cut: usize,
}

/// What came of a head.
#[derive(Serialize, Deserialize)]
pub(super) struct HeadResult {
    pub(super) said: Said,
    /// 0 for a head that is fitted in full batch, as are its epochs.
    pub(super) best_epoch: usize,
    pub(super) epochs: usize,
    /// Whether it was given up because a loss, or what its solver found, was no number.
    pub(super) diverged: bool,
}

/// The rows of some trials with the same features, and their cuts as samples.
pub(super) struct Fields<'c> {
    pub(super) rows: TaskRows<'c>,
    transform: Transform,
    lessons: Lessons,
    validation: Vec<Vec<u32>>,
    followed: Vec<StoppingMetric>,
    /// Whether the trials are cosines, which have no heads.
    pub(super) learns_nothing: bool,
}

/// Parameters of a head, and how many epochs it was trained for.
pub(super) struct Fit {
    network: NetworkSpec,
    parameters: Vec<f32>,
    best_epoch: usize,
    epochs: usize,
    diverged: bool,
}

impl Fit {
    /// A head of a bank.
    pub(super) fn of(head: TrainedHead, spec: &HeadSpec) -> Fit {
        Fit {
            network: spec.network.clone(),
            best_epoch: head.best_epoch,
            epochs: head.history.len(),
            diverged: head.history.last().is_some_and(EpochRecord::diverged),
            parameters: head.parameters,
        }
    }
}

impl<'c> Fields<'c> {
    /// Reads the states that one of the trials needs, for all that need the same.
    pub(super) fn read(
        trials: &[Trial],
        trial: usize,
        dataset: &Dataset,
        cache: &'c CacheReader,
        key: &ViewKey,
        cuts: &[Cut],
        followed: Vec<StoppingMetric>,
    ) -> Result<Fields<'c>> {
        let mut pipeline = trials[trial].pipeline.clone();
        // Trials that learn from other columns are judged by the same.
        pipeline.file.train.label = None;
        let rows = TaskRows::new(&pipeline, dataset, cache, &key.states)?;
        let judged = cuts.iter().map(|cut| &cut.validation);
        Ok(Fields {
            transform: transform(&pipeline, &rows)?,
            lessons: Lessons::new(&rows, dataset, trials, cuts),
            validation: judged.map(|judged| rows.samples_of(dataset, judged, false)).collect(),
            followed,
            rows,
            learns_nothing: key.cosine,
        })
    }

    /// What cosines say of the rows of their cuts.
    pub(super) fn compare(&self, plans: &[HeadPlan]) -> Result<Vec<HeadResult>> {
        let cosines = similarity::cosines(&self.rows.view)?;
        let results = plans.iter().map(|plan| {
            let judged = self.validation[plan.cut].iter();
            HeadResult {
                said: Said::Values(judged.map(|sample| cosines[*sample as usize]).collect()),
                best_epoch: 0,
                epochs: 0,
                diverged: false,
            }
        });
        Ok(results.collect())
    }

    /// Samples that a head learns from.
    pub(super) fn n_train(&self, plan: &HeadPlan) -> usize {
        self.lessons.train()[self.lessons.set(plan.trial, plan.cut)].len()
    }

    pub(super) fn network(&self, trial: &Trial) -> NetworkSpec {
        network(&trial.pipeline, &self.rows, &self.transform)
    }

    /// The settings of heads that are trained epoch by epoch.
    pub(super) fn specs(&self, plans: &[HeadPlan], sweep: &Sweep<'_>) -> Result<Vec<HeadSpec>> {
        let specs = plans.iter().map(|plan| {
            let trial = &sweep.trials[plan.trial];
            let train = &sweep.cuts[plan.cut].train;
            let objective = self.rows.objective(&trial.pipeline, sweep.dataset, train)?;
            let own = spec(&trial.pipeline, objective, self.network(trial));
            Ok(HeadSpec {
                seed: own.seed + plan.seed,
                set: self.lessons.set(plan.trial, plan.cut),
                ..own
            })
        });
        specs.collect()
    }

    /// A judge for each cut.
    pub(super) fn judges<'a>(&'a self, sweep: &Sweep<'a>) -> Vec<Box<dyn Listener + 'a>> {
        let (pipeline, dataset) = (sweep.pipeline, sweep.dataset);
        let validation = self.validation.iter();
        validation
            .map(|samples| self.rows.judge(pipeline, dataset, samples, &self.followed))
            .collect()
    }

    pub(super) fn sets<'a>(&'a self, judges: &'a [Box<dyn Listener + 'a>]) -> Vec<SampleSet<'a>> {
        let sets = self.lessons.train().iter().enumerate();
        sets.map(|(set, train)| {
            let cut = self.lessons.cut(set);
            SampleSet {
                targets: self.lessons.targets(set, &self.rows),
                train,
                validation: &self.validation[cut],
                judge: &*judges[cut],
            }
        })
        .collect()
    }

    pub(super) fn data<'a>(&'a self, sets: &'a [SampleSet<'a>]) -> BankData<'a> {
        BankData { view: &self.rows.view, transform: &self.transform, sets }
    }

    /// Fits heads that are fitted alike: all epoch by epoch, or all in full batch. In the order of the plans.
    pub(super) fn fit(
        &self,
        plans: &[HeadPlan],
        sweep: &Sweep<'_>,
        on_epoch: &mut dyn FnMut(&Bank<'_>),
        progress: &dyn Progress,
    ) -> Result<Vec<Fit>> {
        let first = &sweep.trials[plans[0].trial].pipeline;
        if first.file.head.kind.is_full_batch() {
            return self.fit_in_full_batch(plans, sweep, progress);
        }
        self.train(&self.specs(plans, sweep)?, sweep, on_epoch)
    }

    /// Fits heads in full batch, those that learn from one column together.
    fn fit_in_full_batch(
        &self,
        plans: &[HeadPlan],
        sweep: &Sweep<'_>,
        progress: &dyn Progress,
    ) -> Result<Vec<Fit>> {
        let network = self.network(&sweep.trials[plans[0].trial]);
        let mut fitted: HashMap<(usize, usize), TrainedHead> = HashMap::new();
        for (column, sets) in self.lessons.columns() {
            let learned = |trial: usize| sweep.trials[trial].pipeline.file.train.label.as_ref();
            // Their fit has no seed: it is the same for all.
            let own = plans.iter().filter(|plan| plan.seed == 0);
            let own: Vec<&HeadPlan> = own.filter(|plan| learned(plan.trial) == column).collect();
            if own.is_empty() {
                continue;
            }
            let sets: Vec<&[u32]> = sets.iter().map(Vec::as_slice).collect();
            let heads: Vec<FullBatchHead<'_>> = own
                .iter()
                .map(|plan| {
                    let pipeline = &sweep.trials[plan.trial].pipeline;
                    let train = &sweep.cuts[plan.cut].train;
                    Ok(FullBatchHead {
                        pipeline,
                        set: plan.cut,
                        objective: self.rows.objective(pipeline, sweep.dataset, train)?,
                    })
                })
                .collect::<Result<_>>()?;
            // No head looks at a row that it is judged on, so one table does for all folds.
            let taught =
                column.map(|column| self.rows.targets_of(sweep.dataset, Some(column), &[]));
            let data = FullBatchData {
                rows: &self.rows,
                targets: taught.as_ref().unwrap_or(&self.rows.targets),
                sets: &sets,
                transform: &self.transform,
                network: &network,
            };
            let heads = full_batch::fit(&heads, data, true, progress)?;
            let places = own.into_iter().map(|plan| (plan.trial, plan.cut));
            fitted.extend(places.zip(heads));
        }
        let fits = plans.iter().map(|plan| {
            let parameters = fitted[&(plan.trial, plan.cut)].parameters.clone();
            Fit {
                network: network.clone(),
                best_epoch: 0,
                epochs: 0,
                // So it stands for a fit that failed.
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
    ) -> Result<Vec<Fit>> {
        let judges = self.judges(sweep);
        let sets = self.sets(&judges);
        let data = self.data(&sets);
        let mut bank = Bank::new(specs, &data, bank_settings(sweep.pipeline));
        while bank.is_training() {
            bank.epoch()?;
            on_epoch(&bank);
        }
        let heads = bank.finish().into_iter().zip(specs);
        Ok(heads.map(|(head, spec)| Fit::of(head, spec)).collect())
    }

    /// What heads that are fitted alike say of the rows of their cuts, each after so many epochs and without having looked at
    /// those rows before.
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
        let kind = sweep.trials[plans[0].trial].pipeline.file.head.kind;
        let fits = if kind.is_full_batch() {
            self.fit(plans, sweep, &mut |_| {}, progress)?
        } else {
            let mut specs = self.specs(plans, sweep)?;
            for (spec, epochs) in specs.iter_mut().zip(epochs) {
                spec.stop_after = Some(epochs.max(1));
                spec.stopping = None;
            }
            self.train(&specs, sweep, &mut |_| {})?
        };
        self.results(plans, fits, &self.judges(sweep))
    }

    /// What heads say of the rows of their cuts.
    pub(super) fn results(
        &self,
        plans: &[HeadPlan],
        fits: Vec<Fit>,
        judges: &[Box<dyn Listener + '_>],
    ) -> Result<Vec<HeadResult>> {
        let said =
            self.listen(plans, &fits, judges, |judge, logits, head| judge.said_of(logits, head))?;
        let results = fits.iter().zip(said).map(|(fit, said)| HeadResult {
            said,
            best_epoch: fit.best_epoch,
            epochs: fit.epochs,
            diverged: fit.diverged,
        });
        Ok(results.collect())
    }

    /// Shows the outputs of every head on the validation samples of its cut to the cut's judge.
    fn listen<T: Send>(
        &self,
        plans: &[HeadPlan],
        fits: &[Fit],
        judges: &[Box<dyn Listener + '_>],
        hear: impl Fn(&dyn Listener, &dyn OutputRows, &OutputHead) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let heard = Mutex::new(HashMap::new());
        for (cut, samples) in self.validation.iter().enumerate() {
            let own = (0..plans.len()).filter(|number| plans[*number].cut == cut);
            let heads: Vec<OutputHead> = own
                .map(|number| OutputHead {
                    number,
                    network: Network::new(fits[number].network.clone()),
                    parameters: fits[number].parameters.clone(),
                })
                .collect();
            if heads.is_empty() {
                continue;
            }
            let judge = &*judges[cut];
            let (view, transform) = (&self.rows.view, &self.transform);
            for_each_head(view, transform, samples, heads, |head, logits, _| {
                let value = hear(judge, logits, head)?;
                let mut heard = heard.lock().expect("no judge panicked");
                heard.insert(head.number, value);
                Ok(())
            })?;
        }
        let mut heard = heard.into_inner().expect("no judge panicked");
        let all = (0..plans.len()).map(|number| heard.remove(&number));
        Ok(all.map(|value| value.expect("every head was heard")).collect())
    }

    /// What is tuned to what a trial's heads say of the rows of all folds, none of which they learned from.
    pub(super) fn tuned(&self, plans: &[HeadPlan], sweep: &Sweep<'_>) -> Result<Tuned> {
        if self.learns_nothing {
            return Ok(Tuned::default());
        }
        let fits = self.fit(plans, sweep, &mut |_| {}, &())?;
        let samples: Vec<u32> =
            plans.iter().flat_map(|plan| self.validation[plan.cut].iter().copied()).collect();
        let judge = self.rows.judge(sweep.pipeline, sweep.dataset, &samples, &[]);
        let n_outputs = fits.iter().map(|fit| fit.network.n_outputs).max();
        let bytes = samples.len().saturating_mul(4 * n_outputs.unwrap_or(0));
        let is_row_each = matches!(self.rows.own, OwnRows::Documents(_));
        if bytes > WAVE_BYTES && is_row_each {
            let heads = plans.iter().zip(fits).map(|(plan, fit)| {
                let head = OutputHead {
                    number: 0,
                    network: Network::new(fit.network),
                    parameters: fit.parameters,
                };
                let samples = &self.validation[plan.cut];
                HeadOutputs::new(&self.rows.view, &self.transform, samples, head)
            });
            return judge.tuned(&Chained(heads.collect()));
        }
        let judges = self.judges(sweep);
        let logits =
            self.listen(plans, &fits, &judges, |_, logits, _| Ok(gathered(logits)?.into_owned()))?;
        let views: Vec<ArrayView2<'_, f32>> = logits.iter().map(Array2::view).collect();
        let all = concatenate(Axis(0), &views).expect("outputs of one width");
        judge.tuned(&all.view())
    }
}

/// How the bank of a sweep runs: heads are judged where their stopping asks for it.
pub(super) fn bank_settings(pipeline: &Pipeline) -> BankSettings {
    BankSettings { shuffles: true, seed: pipeline.file.seed, judges_all: false, gives_up: true }
}

/// The best loss on validation that was seen, for the progress line.
pub(super) fn best_loss<'a>(records: impl Iterator<Item = &'a EpochRecord>) -> Option<f64> {
    let losses = records.filter_map(|record| record.validation_loss);
    losses.min_by(f64::total_cmp)
}

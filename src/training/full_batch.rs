//! Heads that are fitted to all their rows at once: all settings on all sets of rows in one call of the solver.

use frostbert_cache::{progress::Progress, wording::counted};

use crate::{
    config::settings::{KindSettings, UNCHOSEN},
    error::{Error, Result},
    features::{FeatureView, linfa::records},
    head::{
        gram::Gram,
        lda::{self, LdaSpec},
        linfa_logistic, linfa_svm,
        logistic::{self, ClassRows, LogisticSettings, LogisticSpec},
        network::{Network, NetworkSpec},
        ridge::{self, RidgeSpec},
        spec::Objective,
        targets::TargetTable,
        trained_head::TrainedHead,
        transform::Transform,
    },
    train::loss::Loss,
};

/// A kind of head that is fitted in full batch, with its number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum FullBatchKind {
    Ridge { lambda: f64 },
    Lda { lambda: f64 },
    Logistic { c: f64 },
    LinfaLogistic { c: f64 },
    LinfaSvm { c: f64 },
}

impl FullBatchKind {
    /// A kind as its settings say, with the number `chosen` where they leave it to folds.
    ///
    /// # Panics
    /// When heads of this kind are trained in steps, or learn nothing.
    pub(crate) fn of(kind: &KindSettings, chosen: Option<f64>) -> FullBatchKind {
        let chosen = chosen.unwrap_or(UNCHOSEN);
        match *kind {
            KindSettings::Ridge { lambda } => {
                FullBatchKind::Ridge { lambda: lambda.unwrap_or(chosen) }
            }
            KindSettings::Lda { lambda } => FullBatchKind::Lda { lambda: lambda.unwrap_or(chosen) },
            KindSettings::Logistic { c } => FullBatchKind::Logistic { c: c.unwrap_or(chosen) },
            KindSettings::LinfaLogistic { c } => FullBatchKind::LinfaLogistic { c },
            KindSettings::LinfaSvm { c } => FullBatchKind::LinfaSvm { c },
            _ => unreachable!("a kind of head that is fitted in full batch"),
        }
    }
}

/// One head: its kind, the place of its rows among the sets, and its objective on them.
pub(crate) struct FullBatchHead {
    pub(crate) kind: FullBatchKind,
    pub(crate) set: usize,
    pub(crate) objective: Objective,
}

/// What heads are fitted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FittedFor {
    /// A run: a solver that fails is an error.
    Run,
    /// A comparison: a head whose solver fails says nothing, all its parameters are 0.
    Comparison,
    /// The choice of a number: as a comparison, with heads that come as close to their minimum as what they predict needs.
    Choice,
}

/// The gradient at which logistic regressions are close enough to their minimum to choose a C by what they predict:
/// scikit-learn's default.
const CHOICE_TOLERANCE: f64 = 1e-4;

impl FittedFor {
    /// When a logistic regression stops.
    fn logistic_settings(self) -> LogisticSettings {
        match self {
            FittedFor::Run | FittedFor::Comparison => LogisticSettings::default(),
            FittedFor::Choice => {
                LogisticSettings { tolerance: CHOICE_TOLERANCE, ..LogisticSettings::default() }
            }
        }
    }
}

/// What the heads of one fit share.
#[derive(Clone, Copy)]
pub(crate) struct FullBatchData<'a> {
    pub(crate) view: &'a FeatureView<'a>,
    /// What every sample is to be.
    pub(crate) targets: &'a TargetTable,
    /// The sets of samples that heads are trained on; a set holds a sample only once.
    pub(crate) sets: &'a [&'a [u32]],
    pub(crate) transform: &'a Transform,
    pub(crate) network: &'a NetworkSpec,
}

/// Fits heads, in their order.
///
/// # Errors
/// When the cache is damaged, features are not finite, or a solver fails for a run.
pub(crate) fn fit(
    heads: &[FullBatchHead],
    data: FullBatchData<'_>,
    purpose: FittedFor,
    progress: &dyn Progress,
) -> Result<Vec<TrainedHead>> {
    let FullBatchData { view, targets, sets, transform, network } = data;
    let (mut ridge, mut lda, mut logistic, mut linfa) = (vec![], vec![], vec![], vec![]);
    for (place, head) in heads.iter().enumerate() {
        let rows = head.set;
        match head.kind {
            FullBatchKind::Ridge { lambda } => ridge.push((place, RidgeSpec { lambda, rows })),
            FullBatchKind::Lda { lambda } => lda.push((place, LdaSpec { lambda, rows })),
            FullBatchKind::Logistic { c } => {
                let class_weights = class_weights(&head.objective);
                logistic.push((place, LogisticSpec { c, class_weights, rows }));
            }
            FullBatchKind::LinfaLogistic { .. } | FullBatchKind::LinfaSvm { .. } => {
                linfa.push(place);
            }
        }
    }
    let mut fitted: Vec<Option<TrainedHead>> = heads.iter().map(|_| None).collect();
    let mut keep = |places: &[usize], own: Vec<TrainedHead>| {
        for (place, head) in places.iter().zip(own) {
            fitted[*place] = Some(head);
        }
    };
    if !(ridge.is_empty() && lda.is_empty()) {
        let gram = Gram::of(view, transform, targets, network.n_outputs, sets)?;
        let (places, specs): (Vec<usize>, Vec<RidgeSpec>) = ridge.into_iter().unzip();
        keep(&places, ridge::fit(&gram, &specs)?);
        let (places, specs): (Vec<usize>, Vec<LdaSpec>) = lda.into_iter().unzip();
        if !specs.is_empty() {
            keep(&places, lda::fit(&gram, &specs)?);
        }
    }
    if !logistic.is_empty() {
        let (places, specs): (Vec<usize>, Vec<LogisticSpec>) = logistic.into_iter().unzip();
        keep(&places, fit_logistic(&specs, data, purpose, progress)?);
    }
    for place in linfa {
        let own = match fit_with_linfa(&heads[place], data) {
            Err(Error::Diverged { .. }) if purpose != FittedFor::Run => given_up(network),
            own => own?,
        };
        keep(&[place], vec![own]);
        progress.advance(1, 0);
    }
    let fitted = fitted.into_iter();
    Ok(fitted.map(|head| head.expect("a kind of head that is fitted in full batch")).collect())
}

/// Returns the class weights of an objective.
fn class_weights(objective: &Objective) -> Option<Vec<f32>> {
    match objective {
        Objective::Rows(
            Loss::CrossEntropy { class_weights, .. } | Loss::Focal { class_weights, .. },
        ) => class_weights.clone(),
        _ => None,
    }
}

fn fit_logistic(
    specs: &[LogisticSpec],
    data: FullBatchData<'_>,
    purpose: FittedFor,
    progress: &dyn Progress,
) -> Result<Vec<TrainedHead>> {
    let settings = purpose.logistic_settings();
    let rows = ClassRows {
        view: data.view,
        transform: data.transform,
        labels: classes(data.targets),
        n_classes: data.network.n_outputs,
    };
    let fitted = logistic::fit(&rows, data.sets, specs, settings, progress)?;
    let unfinished = fitted.iter().filter(|fit| fit.iterations >= settings.max_iterations);
    match unfinished.count() {
        0 => {}
        _ if purpose == FittedFor::Choice => {}
        n => progress.warn(&format!(
            "{} stopped after {} iterations, before the minimum: lower head.C, or keep head.standardize = true",
            counted(n, "logistic regression"),
            settings.max_iterations
        )),
    }
    let trained = fitted.into_iter().map(|fit| {
        if fit.loss.is_finite() {
            Ok(fit.head)
        } else if purpose != FittedFor::Run {
            Ok(given_up(data.network))
        } else {
            Err(Error::Diverged {
                problem: "the loss of a logistic regression is not finite".into(),
                hint: "keep head.standardize = true, or look for huge or missing values among the states".into(),
            })
        }
    });
    trained.collect()
}

/// Returns a head whose parameters are all 0, so its outputs carry no information.
fn given_up(network: &NetworkSpec) -> TrainedHead {
    TrainedHead {
        parameters: Network::new(network.clone()).zeros(),
        history: Vec::new(),
        best_epoch: 0,
    }
}

/// Returns the class of every sample.
fn classes(targets: &TargetTable) -> &[u32] {
    match targets {
        TargetTable::Classes(classes) => classes,
        _ => unreachable!("checked with the settings: this kind learns classes"),
    }
}

fn fit_with_linfa(head: &FullBatchHead, data: FullBatchData<'_>) -> Result<TrainedHead> {
    let (train, classes) = (data.sets[head.set], classes(data.targets));
    let labels: Vec<u32> = train.iter().map(|sample| classes[*sample as usize]).collect();
    let features = data.transform.apply(records(data.view, train)?);
    match head.kind {
        FullBatchKind::LinfaLogistic { c } => {
            linfa_logistic::fit(features, &labels, data.network, c)
        }
        FullBatchKind::LinfaSvm { c } => linfa_svm::fit(features, &labels, data.network, c),
        _ => unreachable!("a kind of head that linfa fits"),
    }
}

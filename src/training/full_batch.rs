//! Heads that are fitted to all their rows at once: every setting on every set of rows in one call of the solver.

use frostbert_cache::{progress::Progress, wording::counted};

use crate::{
    config::settings::{HeadSettings, KindSettings},
    error::{Error, Result},
    features::linfa::records,
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
    tasks::TaskRows,
    train::loss::Loss,
};

/// One head: its settings, the place of its rows among the sets, and its objective on them.
pub(crate) struct FullBatchHead<'a> {
    pub(crate) settings: &'a HeadSettings,
    pub(crate) set: usize,
    pub(crate) objective: Objective,
}

/// What the heads of one fit share.
#[derive(Clone, Copy)]
pub(crate) struct FullBatchData<'a> {
    pub(crate) rows: &'a TaskRows<'a>,
    /// What every sample is to be.
    pub(crate) targets: &'a TargetTable,
    /// The samples that heads learn from, each once.
    pub(crate) sets: &'a [&'a [u32]],
    pub(crate) transform: &'a Transform,
    pub(crate) network: &'a NetworkSpec,
}

/// Fits heads, in their order. With `gives_up` a head whose solver fails says nothing: all its parameters are 0.
///
/// # Errors
/// When the cache is damaged, features are not finite, or a solver fails.
pub(crate) fn fit(
    heads: &[FullBatchHead<'_>],
    data: FullBatchData<'_>,
    gives_up: bool,
    progress: &dyn Progress,
) -> Result<Vec<TrainedHead>> {
    let FullBatchData { rows, targets, sets, transform, network } = data;
    let (mut ridge, mut lda, mut logistic, mut linfa) = (vec![], vec![], vec![], vec![]);
    for (place, head) in heads.iter().enumerate() {
        let rows = head.set;
        match head.settings.kind {
            KindSettings::Ridge { lambda } => ridge.push((place, RidgeSpec { lambda, rows })),
            KindSettings::Lda { lambda } => lda.push((place, LdaSpec { lambda, rows })),
            KindSettings::Logistic { c } => {
                let class_weights = class_weights(&head.objective);
                logistic.push((place, LogisticSpec { c, class_weights, rows }));
            }
            _ => linfa.push(place),
        }
    }
    let mut fitted: Vec<Option<TrainedHead>> = heads.iter().map(|_| None).collect();
    let mut keep = |places: &[usize], own: Vec<TrainedHead>| {
        for (place, head) in places.iter().zip(own) {
            fitted[*place] = Some(head);
        }
    };
    if !(ridge.is_empty() && lda.is_empty()) {
        let gram = Gram::of(&rows.view, transform, targets, network.n_outputs, sets)?;
        let (places, specs): (Vec<usize>, Vec<RidgeSpec>) = ridge.into_iter().unzip();
        keep(&places, ridge::fit(&gram, &specs)?);
        let (places, specs): (Vec<usize>, Vec<LdaSpec>) = lda.into_iter().unzip();
        if !specs.is_empty() {
            keep(&places, lda::fit(&gram, &specs)?);
        }
    }
    if !logistic.is_empty() {
        let (places, specs): (Vec<usize>, Vec<LogisticSpec>) = logistic.into_iter().unzip();
        keep(&places, fit_logistic(&specs, data, gives_up, progress)?);
    }
    for place in linfa {
        let own = match fit_with_linfa(&heads[place], data) {
            Err(Error::Diverged { .. }) if gives_up => given_up(network),
            own => own?,
        };
        keep(&[place], vec![own]);
        progress.advance(1, 0);
    }
    let fitted = fitted.into_iter();
    Ok(fitted.map(|head| head.expect("a kind of head that is fitted in full batch")).collect())
}

/// The weights of classes in an objective.
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
    gives_up: bool,
    progress: &dyn Progress,
) -> Result<Vec<TrainedHead>> {
    let settings = LogisticSettings::default();
    let rows = ClassRows {
        view: &data.rows.view,
        transform: data.transform,
        labels: classes(data.targets),
        n_classes: data.rows.n_outputs,
    };
    let fitted = logistic::fit(&rows, data.sets, specs, settings, progress)?;
    let unfinished = fitted.iter().filter(|fit| fit.iterations >= settings.max_iterations);
    match unfinished.count() {
        0 => {}
        n => progress.warn(&format!(
            "{} stopped after {} iterations, before the minimum: lower head.C, or keep head.standardize = true",
            counted(n, "logistic regression"),
            settings.max_iterations
        )),
    }
    let trained = fitted.into_iter().map(|fit| {
        if fit.loss.is_finite() {
            Ok(fit.head)
        } else if gives_up {
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

/// A head that says nothing.
fn given_up(network: &NetworkSpec) -> TrainedHead {
    TrainedHead {
        parameters: Network::new(network.clone()).zeros(),
        history: Vec::new(),
        best_epoch: 0,
    }
}

/// The class of every sample.
fn classes(targets: &TargetTable) -> &[u32] {
    match targets {
        TargetTable::Classes(classes) => classes,
        _ => unreachable!("checked with the settings: this kind learns classes"),
    }
}

fn fit_with_linfa(head: &FullBatchHead<'_>, data: FullBatchData<'_>) -> Result<TrainedHead> {
    let (train, classes) = (data.sets[head.set], classes(data.targets));
    let labels: Vec<u32> = train.iter().map(|sample| classes[*sample as usize]).collect();
    let features = data.transform.apply(records(&data.rows.view, train)?);
    match head.settings.kind {
        KindSettings::LinfaLogistic { c } => {
            linfa_logistic::fit(features, &labels, data.network, c)
        }
        KindSettings::LinfaSvm { c } => linfa_svm::fit(features, &labels, data.network, c),
        _ => unreachable!("a kind of head that is fitted in full batch"),
    }
}

//! Heads that are fitted to all their rows at once: every setting on every set of rows in one call of the solver.

use frostbert_cache::{progress::Progress, wording::counted};

use crate::{
    config::{names::HeadKind, settings::Pipeline},
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

/// One head: its pipeline, the place of its rows among the sets, and its objective on them.
pub(crate) struct FullBatchHead<'a> {
    pub(crate) pipeline: &'a Pipeline,
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
    let of_kind = |kind: HeadKind| -> Vec<usize> {
        let all = 0..heads.len();
        all.filter(|head| heads[*head].pipeline.file.head.kind == kind).collect()
    };
    let mut fitted: Vec<Option<TrainedHead>> = heads.iter().map(|_| None).collect();
    let mut keep = |places: &[usize], own: Vec<TrainedHead>| {
        for (place, head) in places.iter().zip(own) {
            fitted[*place] = Some(head);
        }
    };
    let (ridge, lda) = (of_kind(HeadKind::Ridge), of_kind(HeadKind::Lda));
    if !(ridge.is_empty() && lda.is_empty()) {
        let n_outputs = network.n_outputs;
        let gram = Gram::of(&rows.view, transform, targets, n_outputs, sets)?;
        let setting = |head: &usize| {
            let head = &heads[*head];
            (head.pipeline.file.head.lambda, head.set)
        };
        let settings = ridge.iter().map(setting);
        let specs = settings.map(|(lambda, rows)| RidgeSpec { lambda, rows });
        keep(&ridge, ridge::fit(&gram, &specs.collect::<Vec<_>>())?);
        let settings = lda.iter().map(setting);
        let specs = settings.map(|(lambda, rows)| LdaSpec { lambda, rows });
        if !lda.is_empty() {
            keep(&lda, lda::fit(&gram, &specs.collect::<Vec<_>>())?);
        }
    }
    let regressions = of_kind(HeadKind::Logistic);
    if !regressions.is_empty() {
        let own = regressions.iter().map(|head| &heads[*head]);
        keep(&regressions, fit_logistic(own, data, gives_up, progress)?);
    }
    for (number, head) in heads.iter().enumerate() {
        if matches!(head.pipeline.file.head.kind, HeadKind::LinfaLogistic | HeadKind::LinfaSvm) {
            let own = fit_with_linfa(head, data);
            let own = match own {
                Err(Error::Diverged { .. }) if gives_up => given_up(network),
                own => own?,
            };
            keep(&[number], vec![own]);
            progress.advance(1, 0);
        }
    }
    let fitted = fitted.into_iter();
    Ok(fitted.map(|head| head.expect("a kind of head that is fitted in full batch")).collect())
}

fn fit_logistic<'h>(
    heads: impl Iterator<Item = &'h FullBatchHead<'h>>,
    data: FullBatchData<'_>,
    gives_up: bool,
    progress: &dyn Progress,
) -> Result<Vec<TrainedHead>> {
    let specs: Vec<LogisticSpec> = heads
        .map(|head| LogisticSpec {
            c: head.pipeline.file.head.c,
            class_weights: match &head.objective {
                Objective::Rows(
                    Loss::CrossEntropy { class_weights, .. } | Loss::Focal { class_weights, .. },
                ) => class_weights.clone(),
                _ => None,
            },
            rows: head.set,
        })
        .collect();
    let settings = LogisticSettings::default();
    let rows = ClassRows {
        view: &data.rows.view,
        transform: data.transform,
        labels: classes(data.targets),
        n_classes: data.rows.n_outputs,
    };
    let fitted = logistic::fit(&rows, data.sets, &specs, settings, progress)?;
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
    let head = &head.pipeline.file.head;
    match head.kind {
        HeadKind::LinfaSvm => linfa_svm::fit(features, &labels, data.network, head.c),
        _ => linfa_logistic::fit(features, &labels, data.network, head.c),
    }
}

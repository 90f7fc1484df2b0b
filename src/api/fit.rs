//! From an array and its labels to a head.

use frostbert_cache::{
    progress::Progress,
    wording::{counted, shorten},
};
use ndarray::ArrayView2;

use super::{
    classifier::{Classifier, view_of},
    fit_options::{FIT, FitHead, FitOptions, NetworkOptions},
};
use crate::{
    config::{
        names::Task,
        settings::{KindSettings, UNCHOSEN},
    },
    data::LabelMap,
    error::{Error, Result},
    features::FeatureView,
    head::{
        bank::{self, BankData, BankSettings, SampleSet},
        logistic::{self, ClassRows, LogisticSettings, LogisticSpec},
        network::NetworkSpec,
        saved::{Head, HeadDescription},
        spec::{HeadSpec, Objective},
        targets::TargetTable,
        trained_head::TrainedHead,
        transform::Transform,
    },
    metrics::metric::Metric,
    tasks::weights::balanced_weights,
    train::{loss::Loss, optimizer::Optimizer},
    training::regularization::{ChoiceRows, choose, unchosen},
};

/// Trains a head to classify rows: `rows [n, features]`, with one label for each row.
///
/// The classes are the distinct labels, in numeric order if all are integers, otherwise in byte order. The head is
/// trained on all rows, so its quality has to be measured on others. Where the options leave `C` open, folds over the
/// rows choose it first. The same arguments give the same bits, with any number of threads. The rows are copied: during
/// training, memory holds them several times.
///
/// ```
/// use frostbert::{FitOptions, fit};
/// use ndarray::array;
///
/// let rows = array![[0.0, 1.0], [0.2, 0.8], [1.0, 0.1], [0.9, 0.0]];
/// let head = fit(rows.view(), &["cat", "cat", "dog", "dog"], &FitOptions::default())?;
/// assert_eq!(head.labels(), ["cat", "dog"]);
/// assert_eq!(head.predict(array![[0.1, 0.9]].view())?, ["cat"]);
/// let p = head.predict_proba(rows.view())?; // [4, 2]
/// assert!(p.rows().into_iter().all(|row| (row.sum() - 1.0).abs() < 1e-6));
/// # Ok::<(), frostbert::Error>(())
/// ```
///
/// # Errors
/// Returns [`Error::Argument`] if there is not one label for each row, a label is empty or `NaN`, there are fewer than
/// two classes, a value is not finite, or one of the options is out of range, and [`Error::Diverged`] if the loss does
/// not stay finite.
pub fn fit<L: AsRef<str>>(
    rows: ArrayView2<'_, f32>,
    labels: &[L],
    options: &FitOptions,
) -> Result<Classifier> {
    fit_with(rows, labels, options, &())
}

/// Like [`fit`], with progress reports and warnings, such as when a logistic regression stops before its minimum.
///
/// # Errors
/// Returns the errors of [`fit`].
pub fn fit_with<L: AsRef<str>>(
    rows: ArrayView2<'_, f32>,
    labels: &[L],
    options: &FitOptions,
    progress: &dyn Progress,
) -> Result<Classifier> {
    options.check()?;
    let (names, classes) = classes_of(rows.nrows(), labels)?;
    let view = view_of(rows, FIT)?;
    let all: Vec<u32> = (0..classes.len() as u32).collect();
    let transform = if options.standardize {
        Transform::standardize(&view, &all)?
    } else {
        Transform::identity(rows.ncols())
    };
    let class_weights = options.balanced.then(|| balanced_weights(&count(&classes, names.len())));
    let data = FitData { view: &view, transform: &transform, all: &all, classes, class_weights };
    let linear = NetworkSpec::linear(rows.ncols(), names.len());
    let mut chosen = None;
    let (network, trained) = match &options.head {
        FitHead::Logistic { c } => {
            if c.is_none() {
                chosen = choose_c(&data, &linear, options.seed, progress)?;
            }
            let c = c.or(chosen).unwrap_or(UNCHOSEN);
            let trained = fit_logistic(data, names.len(), c, progress)?;
            (linear, trained)
        }
        FitHead::Network(network) => {
            let NetworkOptions { hidden, epochs, learning_rate } = network.clone();
            let network = NetworkSpec { hidden, ..linear };
            let mut spec = HeadSpec::new(network.clone());
            spec.optimizer = Optimizer { lr: learning_rate, ..spec.optimizer };
            (spec.epochs, spec.seed, spec.stopping) = (epochs, options.seed, None);
            (network, fit_network(data, spec, progress)?)
        }
    };
    let description = HeadDescription {
        task: Task::Classification.to_string(),
        kind: options.head.kind().to_string(),
        labels: names.names().to_vec(),
        standardize: options.standardize,
        c: chosen,
        best_epoch: trained.best_epoch,
        network: Some(network),
        ..HeadDescription::default()
    };
    Ok(Classifier::of(Head::new(description, trained.parameters, transform)))
}

/// The training data of a head.
struct FitData<'a> {
    view: &'a FeatureView<'a>,
    transform: &'a Transform,
    /// The indices of all rows.
    all: &'a [u32],
    /// The class of every row.
    classes: Vec<u32>,
    class_weights: Option<Vec<f32>>,
}

/// Chooses `C` by folds over the rows, as a pipeline does; `None` where there are too few.
fn choose_c(
    data: &FitData<'_>,
    network: &NetworkSpec,
    seed: u64,
    progress: &dyn Progress,
) -> Result<Option<f64>> {
    let class_weights = data.class_weights.clone();
    let rows = ChoiceRows {
        view: data.view,
        transform: data.transform,
        network,
        objective: &Objective::Rows(Loss::CrossEntropy { class_weights, label_smoothing: 0.0 }),
        targets: &TargetTable::Classes(data.classes.clone()),
        samples: data.all,
        metric: Metric::MacroF1,
        seed,
    };
    let kind = KindSettings::Logistic { c: None };
    let chosen = choose(&kind, &rows, progress)?;
    if let (None, Some(note)) = (&chosen, unchosen(&kind, data.all.len())) {
        progress.note(&note);
    }
    Ok(chosen.map(|chosen| chosen.value))
}

fn fit_logistic(
    data: FitData<'_>,
    n_classes: usize,
    c: f64,
    progress: &dyn Progress,
) -> Result<TrainedHead> {
    let FitData { view, transform, all, classes, class_weights } = data;
    let rows = ClassRows { view, transform, labels: &classes, n_classes };
    let spec = LogisticSpec { c, class_weights, rows: 0 };
    let settings = LogisticSettings::default();
    let fitted = logistic::fit(&rows, &[all], &[spec], settings, progress)?.remove(0);
    if !fitted.loss.is_finite() {
        return Err(Error::Diverged {
            problem: "the loss of a logistic regression is not finite".into(),
            hint: "set FitOptions::standardize to true, or look for huge values among the rows"
                .into(),
        });
    }
    if fitted.iterations >= settings.max_iterations {
        progress.warn(&format!(
            "the logistic regression stopped after {} iterations, before the minimum: set a smaller C, or \
             FitOptions::standardize to true",
            settings.max_iterations
        ));
    }
    Ok(fitted.head)
}

fn fit_network(
    data: FitData<'_>,
    mut spec: HeadSpec,
    progress: &dyn Progress,
) -> Result<TrainedHead> {
    let FitData { view, transform, all, classes, class_weights } = data;
    let loss = Loss::CrossEntropy { class_weights, label_smoothing: 0.0 };
    spec.objective = Objective::Rows(loss);
    let settings = BankSettings { seed: spec.seed, ..BankSettings::default() };
    let set = SampleSet {
        targets: &TargetTable::Classes(classes),
        train: all,
        validation: &[],
        evaluator: &(),
    };
    let data = BankData { view, transform, sets: &[set] };
    Ok(bank::train(&[spec], &data, settings, progress)?.remove(0))
}

/// Returns the classes by name, and the class of every row.
fn classes_of<L: AsRef<str>>(n_rows: usize, labels: &[L]) -> Result<(LabelMap, Vec<u32>)> {
    let refuse = |expected: &str, got: String, hint: &str| Error::Argument {
        action: FIT,
        expected: expected.into(),
        got,
        hint: hint.into(),
    };
    if labels.len() != n_rows {
        return Err(refuse(
            "one label for each row",
            format!("{} for {}", counted(labels.len(), "label"), counted(n_rows, "row")),
            "pass labels and rows of the same texts, in the same order",
        ));
    }
    let names = LabelMap::from_train(labels);
    let mut classes = Vec::with_capacity(labels.len());
    for (row, label) in labels.iter().enumerate() {
        let class = names.id(label.as_ref()).ok_or_else(|| {
            refuse(
                "a label for each row",
                format!("labels[{row}] = `{}`", shorten(label.as_ref(), 40)),
                "leave rows without a label out",
            )
        })?;
        classes.push(class as u32);
    }
    if names.len() < 2 {
        return Err(refuse(
            "labels of at least two classes",
            counted(names.len(), "class"),
            "add rows of another class",
        ));
    }
    Ok((names, classes))
}

/// Counts the rows of each class.
fn count(classes: &[u32], n_classes: usize) -> Vec<usize> {
    let mut counts = vec![0usize; n_classes];
    classes.iter().for_each(|class| counts[*class as usize] += 1);
    counts
}

#[cfg(test)]
mod tests;

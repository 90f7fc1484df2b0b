use frostbert_cache::states::{Dtype, Pooling, StateId};
use serde::Deserialize;

use super::*;
use crate::{head::saved::Head, train::loss::Loss};

/// scikit-learn's scores on the rows of given folds: scripts/fixtures/choose_c.py.
#[derive(Deserialize)]
struct Fixture {
    rows: Vec<Vec<f32>>,
    classes: Vec<u32>,
    labels: Vec<[f32; 2]>,
    values: Vec<f32>,
    class_weights: Vec<f32>,
    folds: Vec<usize>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    kind: String,
    target: String,
    scores: Vec<f64>,
    best: f64,
}

/// Rows, and what heads learn of them.
struct Learned {
    view: FeatureView<'static>,
    transform: Transform,
    network: NetworkSpec,
    objective: Objective,
    targets: TargetTable,
    samples: Vec<u32>,
    metric: Metric,
}

impl Fixture {
    fn read() -> Fixture {
        let text = include_str!("../../../tests/fixtures/choose_c.json");
        serde_json::from_str(text).expect("the fixture is JSON")
    }

    fn learned(&self, kind: &str, target: &str) -> Learned {
        let (targets, n_outputs, metric) = match target {
            "classes" => (TargetTable::Classes(self.classes.clone()), 3, Metric::MacroF1),
            "labels" => {
                let label = |(row, label): (usize, usize)| self.labels[row][label];
                let labels = Array2::from_shape_fn((self.labels.len(), 2), label);
                (TargetTable::Labels(labels), 2, Metric::MacroF1)
            }
            _ => (TargetTable::Values(self.values.clone()), 1, Metric::Mse),
        };
        let class_weights = (kind == "balanced").then(|| self.class_weights.clone());
        let loss = Loss::CrossEntropy { class_weights, label_smoothing: 0.0 };
        Learned::new(&self.rows, targets, n_outputs, Objective::Rows(loss), metric)
    }

    /// The folds that scikit-learn was given.
    fn parts(&self) -> Vec<[Vec<u32>; 2]> {
        let within = |fold: usize, inside: bool| {
            let own = (0..self.folds.len()).filter(|row| (self.folds[*row] == fold) == inside);
            own.map(|row| row as u32).collect()
        };
        (0..5).map(|fold| [within(fold, false), within(fold, true)]).collect()
    }
}

impl Learned {
    fn new(
        rows: &[Vec<f32>],
        targets: TargetTable,
        n_outputs: usize,
        objective: Objective,
        metric: Metric,
    ) -> Learned {
        let n_features = rows[0].len();
        let mut bytes = Vec::new();
        Dtype::F32.encode(&rows.concat(), &mut bytes).unwrap();
        let state = StateId::pooled(Pooling::Mean, 1);
        let view = FeatureView::from_bytes(state, n_features, Dtype::F32, bytes);
        let samples: Vec<u32> = (0..rows.len() as u32).collect();
        Learned {
            transform: Transform::standardize(&view, &samples).unwrap(),
            network: NetworkSpec::linear(n_features, n_outputs),
            view,
            objective,
            targets,
            samples,
            metric,
        }
    }

    fn rows(&self) -> ChoiceRows<'_> {
        ChoiceRows {
            view: &self.view,
            transform: &self.transform,
            network: &self.network,
            objective: &self.objective,
            targets: &self.targets,
            samples: &self.samples,
            metric: self.metric,
            seed: 42,
        }
    }
}

/// A kind of head whose number is left to folds.
fn open(kind: &str) -> KindSettings {
    match kind {
        "ridge" => KindSettings::Ridge { lambda: None },
        "lda" => KindSettings::Lda { lambda: None },
        _ => KindSettings::Logistic { c: None },
    }
}

/// How far scores may differ: logistic regressions are fitted as closely as a choice needs, and errors are those of
/// outputs in f32.
fn tolerance(kind: &KindSettings, metric: Metric) -> f64 {
    match (kind, metric) {
        (KindSettings::Logistic { .. }, _) => 0.04,
        (_, Metric::Mse) => 1e-4,
        _ => 1e-9,
    }
}

/// Fails where something else was chosen than the best of these scores, if the second is clearly worse.
fn assert_choice(chosen: &ChosenNumber, scores: &[f64], tolerance: f64, name: &str) {
    assert_eq!(chosen.tried.len(), scores.len());
    for (tried, expected) in chosen.tried.iter().zip(scores) {
        let off = (tried.score.unwrap() - expected).abs();
        assert!(off < tolerance, "{name}: {tried:?} and not {expected}");
    }
    // The larger, the better.
    let sign = if chosen.metric.higher_is_better() { 1.0 } else { -1.0 };
    let worth: Vec<f64> = scores.iter().map(|score| sign * score).collect();
    let best = worth.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let place = worth.iter().position(|worth| *worth == best).unwrap();
    let others = worth.iter().enumerate().filter(|(other, _)| *other != place);
    if others.fold(f64::NEG_INFINITY, |most, (_, worth)| most.max(*worth)) < best - tolerance {
        assert_eq!(chosen.value, chosen.tried[place].value, "{name}");
    }
}

#[test]
fn scores_and_choices_are_those_of_scikit_learn() {
    let fixture = Fixture::read();
    assert_eq!(fixture.cases.len(), 6);
    for case in &fixture.cases {
        let (kind, name) = (open(&case.kind), format!("{} of {}", case.kind, case.target));
        let learned = fixture.learned(&case.kind, &case.target);
        let (rows, grid) = (learned.rows(), Grid::of(&kind).unwrap());
        let chosen = choose_on(&fixture.parts(), grid, &kind, &rows, &()).unwrap().unwrap();
        let tolerance = tolerance(&kind, rows.metric);
        assert_choice(&chosen, &case.scores, tolerance, &name);
        if case.kind != "balanced" {
            assert_eq!(chosen.value, case.best, "{name}");
        }
        assert_eq!((chosen.folds, chosen.metric), (5, rows.metric));
    }
}

#[test]
fn folds_choose_by_what_the_sweep_selects_by_as_far_as_they_know_it() {
    let chosen = |task: &str, kind: &str, select: &str| {
        let text = format!(
            "[model]\npath = \"model\"\n[data]\ntask = \"{task}\"\ntrain = {{ path = \"data.csv\" }}\n\
             [head]\nkind = \"{kind}\"\n{select}"
        );
        let pipeline = Pipeline::check("pipeline.toml".as_ref(), toml::from_str(&text).unwrap());
        chosen_by(&pipeline.unwrap(), &[]).name()
    };
    let by = |task: &str, kind: &str, metric: &str| {
        chosen(task, kind, &format!("[sweep]\nselect = \"{metric}\""))
    };
    assert_eq!(chosen("classification", "logistic", ""), "macro_f1");
    assert_eq!(chosen("regression", "ridge", ""), "mse");
    for (task, kind, metric, expected) in [
        ("classification", "logistic", "accuracy", "accuracy"),
        ("classification", "lda", "log_loss", "log_loss"),
        ("classification", "logistic", "roc_auc", "log_loss"),
        ("classification", "logistic", "ece", "log_loss"),
        ("classification", "ridge", "roc_auc", "macro_f1"),
        ("multilabel", "ridge", "samples_f1", "samples_f1"),
        ("multilabel", "ridge", "roc_auc", "macro_f1"),
        ("regression", "ridge", "mae", "mae"),
        ("regression", "ridge", "pearson", "mse"),
        ("regression", "ridge", "spearman", "mse"),
    ] {
        assert_eq!(by(task, kind, metric), expected, "{task}, {kind}, {metric}");
    }
}

#[test]
fn a_choice_by_the_log_loss_is_that_of_the_least_loss() {
    let fixture = Fixture::read();
    let (kind, mut learned) = (open("logistic"), fixture.learned("logistic", "classes"));
    learned.metric = Metric::LogLoss;
    let chosen = choose(&kind, &learned.rows(), &()).unwrap().unwrap();
    let losses: Vec<f64> = chosen.tried.iter().map(|tried| tried.loss.unwrap()).collect();
    let least = losses.iter().copied().fold(f64::INFINITY, f64::min);
    assert_eq!((chosen.score, chosen.metric), (least, Metric::LogLoss));
    assert_eq!(
        chosen.tried[losses.iter().position(|loss| *loss == least).unwrap()].value,
        chosen.value
    );
}

/// The mean over the classes of their F1, of pairs of what is true and what was predicted.
fn macro_f1(pairs: &[(usize, usize)]) -> f64 {
    let f1 = |class: usize| {
        let count = |holds: &dyn Fn(bool, bool) -> bool| {
            let pairs = pairs.iter().map(|(truth, got)| holds(*truth == class, *got == class));
            pairs.filter(|holds| *holds).count() as f64
        };
        let right = count(&|truth, got| truth && got);
        let wrong = count(&|truth, got| truth != got);
        2.0 * right / (2.0 * right + wrong)
    };
    (0..3).map(f1).sum::<f64>() / 3.0
}

/// The score of a value, from a head for each fold that is fitted and applied alone.
fn score_alone(kind: &KindSettings, value: f64, learned: &Learned) -> f64 {
    let TargetTable::Classes(classes) = &learned.targets else { panic!("classes") };
    let mut pairs = Vec::new();
    for [train, judged] in &parts(&learned.rows()) {
        let data = FullBatchData {
            view: &learned.view,
            targets: &learned.targets,
            sets: &[train.as_slice()],
            transform: &learned.transform,
            network: &learned.network,
        };
        let head = FullBatchHead {
            kind: FullBatchKind::of(kind, Some(value)),
            set: 0,
            objective: learned.objective.clone(),
        };
        let fitted = full_batch::fit(&[head], data, FittedFor::Run, &()).unwrap().remove(0);
        let head = Head::of(learned.network.clone(), fitted, learned.transform.clone());
        let predicted = predictions(head.logits(&learned.view).unwrap().view());
        let judged = judged.iter().map(|sample| *sample as usize);
        pairs.extend(judged.map(|sample| (classes[sample] as usize, predicted[sample])));
    }
    assert_eq!(pairs.len(), learned.samples.len());
    macro_f1(&pairs)
}

#[test]
fn the_chosen_value_is_the_best_of_heads_that_are_fitted_one_by_one() {
    let fixture = Fixture::read();
    for name in ["logistic", "balanced", "ridge", "lda"] {
        let (kind, learned) = (open(name), fixture.learned(name, "classes"));
        let chosen = choose(&kind, &learned.rows(), &()).unwrap().unwrap();
        let tried = chosen.tried.iter();
        let scores: Vec<f64> =
            tried.map(|tried| score_alone(&kind, tried.value, &learned)).collect();
        assert_choice(&chosen, &scores, tolerance(&kind, Metric::MacroF1), name);
        // A ridge regression has no probabilities.
        assert!(chosen.tried.iter().all(|tried| tried.loss.is_some() == (name != "ridge")));
    }
}

#[test]
fn folds_that_are_fitted_one_after_the_other_decide_as_all_together() {
    let fixture = Fixture::read();
    for (name, target) in [("ridge", "classes"), ("ridge", "labels"), ("lda", "classes")] {
        let (kind, learned) = (open(name), fixture.learned(name, target));
        let (rows, grid) = (learned.rows(), Grid::of(&kind).unwrap());
        let parts = parts(&rows);
        let judged: Vec<u32> = parts.iter().flat_map(|[_, judged]| judged.clone()).collect();
        let scores = |at_a_time: usize| -> Vec<Option<f64>> {
            let mut decided: Vec<Decisions> =
                grid.values.iter().map(|_| Decisions::none(rows.targets)).collect();
            for parts in parts.chunks(at_a_time) {
                decide(parts, grid, &kind, &rows, &mut decided, &()).unwrap();
            }
            decided.into_iter().map(|decided| decided.score(&rows, &judged)).collect()
        };
        assert_eq!(scores(1), scores(5), "{name} of {target}");
    }
}

#[test]
fn the_choice_depends_on_no_number_of_threads() {
    let fixture = Fixture::read();
    for (name, target) in [("logistic", "classes"), ("lda", "classes"), ("ridge", "values")] {
        let (kind, learned) = (open(name), fixture.learned(name, target));
        let with_threads = |n: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
            pool.install(|| choose(&kind, &learned.rows(), &()).unwrap())
        };
        assert_eq!(with_threads(1), with_threads(3), "{name}");
    }
}

#[test]
fn of_equal_scores_the_lower_loss_decides_and_then_the_strongest_regularisation() {
    let tried = |scores: [Option<f64>; 4], losses: [Option<f64>; 4]| -> Vec<TriedNumber> {
        let values = [1.0, 2.0, 3.0, 4.0].into_iter().zip(scores).zip(losses);
        values.map(|((value, score), loss)| TriedNumber { value, score, loss }).collect()
    };
    let scores = [Some(0.5), Some(0.7), None, Some(0.7)];
    let without = tried(scores, [None; 4]);
    assert_eq!(best(Metric::MacroF1, &without), Some((2.0, 0.7)));
    assert_eq!(best(Metric::Mse, &without), Some((1.0, 0.5)));
    assert_eq!(best(Metric::MacroF1, &tried([None; 4], [None; 4])), None);
    let losses = [0.1, 0.3, 0.0, 0.2].map(Some);
    assert_eq!(best(Metric::MacroF1, &tried(scores, losses)), Some((4.0, 0.7)));
    assert_eq!(best(Metric::MacroF1, &tried(scores, [Some(0.3); 4])), Some((2.0, 0.7)));
}

#[test]
fn rows_that_leave_no_folds_choose_nothing_and_a_note_says_so() {
    let fixture = Fixture::read();
    for classes in [vec![0], vec![0, 0, 1]] {
        let rows = &fixture.rows[..classes.len()];
        let loss = Loss::CrossEntropy { class_weights: None, label_smoothing: 0.0 };
        let targets = TargetTable::Classes(classes);
        let learned = Learned::new(rows, targets, 2, Objective::Rows(loss), Metric::MacroF1);
        assert_eq!(choose(&open("logistic"), &learned.rows(), &()).unwrap(), None);
        // What is given needs no folds.
        let given = KindSettings::Logistic { c: Some(0.1) };
        assert_eq!(choose(&given, &learned.rows(), &()).unwrap(), None);
        assert_eq!(unchosen(&given, 3), None);
    }
    let said = [("logistic", 1), ("ridge", 3)].map(|(kind, n)| unchosen(&open(kind), n).unwrap());
    let expected = [
        "C is 1: folds of 1 row cannot choose it",
        "lambda is 1: folds of 3 rows cannot choose it",
    ];
    assert_eq!(said, expected);
}

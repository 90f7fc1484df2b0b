use frostbert_cache::states::{Dtype, Pooling, StateId};
use ndarray::Array2;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::{
    features::scaler::Scaler,
    head::{
        network::NetworkSpec,
        spec::{Objective, Stopping},
    },
    train::{
        loss::Loss,
        optimizer::{Optimizer, OptimizerKind},
        schedule::Schedule,
    },
};

const N_FEATURES: usize = 20;

/// Rows of three classes that differ in the mean of their first features, with much noise.
fn rows(n: usize) -> (FeatureView<'static>, Vec<u32>) {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut bytes = Vec::new();
    let labels: Vec<u32> = (0..n).map(|row| (row % 3) as u32).collect();
    for label in &labels {
        let row: Vec<f32> = (0..N_FEATURES)
            .map(|feature| {
                let noise: f32 = rand::Rng::gen_range(&mut rng, -1.0..1.0);
                noise + if feature as u32 == *label { 1.0 } else { 0.0 }
            })
            .collect();
        Dtype::F16.encode(&row, &mut bytes).unwrap();
    }
    let state = StateId::pooled(Pooling::Mean, 1);
    (FeatureView::from_bytes(state, N_FEATURES, Dtype::F16, bytes), labels)
}

fn spec(lr: f64, seed: u64) -> HeadSpec {
    HeadSpec {
        network: NetworkSpec::linear(N_FEATURES, 3),
        objective: Objective::Rows(Loss::CrossEntropy {
            class_weights: None,
            label_smoothing: 0.05,
        }),
        dropout: 0.2,
        optimizer: Optimizer {
            kind: OptimizerKind::AdamW,
            lr,
            weight_decay: 0.01,
            momentum: 0.9,
            betas: [0.9, 0.999],
        },
        schedule: Schedule::Cosine,
        warmup: 0.1,
        clip: Some(1.0),
        seed,
        stopping: Some(Stopping { metric: Metric::Loss, patience: 3 }),
        ..HeadSpec::new(NetworkSpec::linear(N_FEATURES, 3))
    }
}

/// The share of rows whose highest output is that of their class.
struct Accuracy<'a>(&'a [u32]);

impl Evaluator for Accuracy<'_> {
    fn scores(&self, logits: ArrayView2<'_, f32>, _: &OutputHead) -> Vec<(Metric, f64)> {
        let predicted = crate::metrics::probability::predictions(logits);
        let right = predicted.iter().zip(self.0).filter(|(p, l)| **p as u32 == **l);
        vec![(Metric::Accuracy, right.count() as f64 / self.0.len() as f64)]
    }
}

fn train_on(specs: &[HeadSpec], epochs: usize, threads: usize) -> Vec<TrainedHead> {
    let (view, labels) = rows(600);
    let samples: Vec<u32> = (0..600).collect();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    pool.install(|| {
        let transform =
            Transform { scaler: Scaler::fit(&view, &samples).unwrap(), projection: None };
        let data = BankData {
            view: &view,
            transform: &transform,
            sets: &[SampleSet {
                targets: &TargetTable::Classes(labels.clone()),
                train: &samples[..480],
                validation: &samples[480..],
                evaluator: &Accuracy(&labels[480..]),
            }],
        };
        let specs: Vec<HeadSpec> =
            specs.iter().map(|spec| HeadSpec { epochs, ..spec.clone() }).collect();
        train(&specs, &data, BankSettings::default(), &()).unwrap()
    })
}

#[test]
fn a_head_learns_what_there_is_to_learn() {
    let head = train_on(&[spec(1e-2, 1)], 10, 1).remove(0);
    let (first, best) = (&head.history[0], &head.history[head.best_epoch - 1]);
    assert!(best.score(Metric::Accuracy).unwrap() > 0.75, "{best:?}");
    assert!(best.validation_loss < first.validation_loss);
}

#[test]
fn heads_trained_together_equal_the_same_heads_trained_alone_bit_for_bit() {
    let specs: Vec<HeadSpec> = (0..25)
        .map(|number| spec(10f64.powf(-3.0 + 0.1 * f64::from(number)), 1 + number as u64 % 2))
        .collect();
    let together = train_on(&specs, 4, 2);
    for (number, spec) in specs.iter().enumerate() {
        let alone = train_on(std::slice::from_ref(spec), 4, 1).remove(0);
        assert_eq!(together[number].parameters, alone.parameters, "head {number}");
        assert_eq!(together[number].history, alone.history, "head {number}");
    }
}

/// Heads that differ in everything that a sweep can vary.
fn of_every_setting() -> Vec<HeadSpec> {
    let mut specs = Vec::new();
    for set in 0..3 {
        for batch_size in [32, 50] {
            for dropout in [0.0, 0.3] {
                for n_outputs in [2, 3, 40] {
                    let number = specs.len();
                    let weights = (0..n_outputs).map(|class| 0.5 + class as f32);
                    specs.push(HeadSpec {
                        network: NetworkSpec::linear(N_FEATURES, n_outputs),
                        objective: Objective::Rows(Loss::CrossEntropy {
                            class_weights: (number % 2 == 0).then(|| weights.collect()),
                            label_smoothing: 0.01 * number as f32,
                        }),
                        dropout,
                        clip: (number % 3 == 0).then_some(0.5),
                        epochs: 2 + number % 3,
                        batch_size,
                        set,
                        ..spec(1e-2, number as u64 % 2)
                    });
                }
            }
        }
        specs.push(HeadSpec {
            network: NetworkSpec { hidden: vec![8], ..NetworkSpec::linear(N_FEATURES, 3) },
            set,
            ..spec(1e-2, 1)
        });
    }
    specs
}

#[test]
fn heads_of_many_sets_batch_sizes_and_widths_equal_the_same_heads_alone_bit_for_bit() {
    let (view, labels) = rows(300);
    let two_classes = TargetTable::Classes(labels.iter().map(|label| label % 2).collect());
    let parts: Vec<[Vec<u32>; 2]> = (0..3)
        .map(|fold| {
            let (train, validation) = (0..300).partition(|sample| sample % 3 != fold);
            [train, validation]
        })
        .collect();
    let sets: Vec<SampleSet<'_>> = parts
        .iter()
        .map(|[train, validation]| SampleSet {
            targets: &two_classes,
            train,
            validation,
            evaluator: &(),
        })
        .collect();
    let data = BankData { view: &view, transform: &Transform::identity(N_FEATURES), sets: &sets };
    let specs = of_every_setting();
    let settings = BankSettings::default();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3);
    let pool = pool.build().unwrap();
    let together = pool.install(|| train(&specs, &data, settings, &()).unwrap());
    assert!(together[0].parameters != together[1].parameters);
    for (spec, head) in specs.iter().zip(&together) {
        let alone = train(std::slice::from_ref(spec), &data, settings, &());
        let alone = alone.unwrap().remove(0);
        assert_eq!(head.parameters, alone.parameters, "{spec:?}");
        assert_eq!(head.history, alone.history, "{spec:?}");
        assert_eq!(head.history.len(), spec.epochs.min(head.history.len()));
    }
}

#[test]
fn heads_that_are_stopped_between_epochs_leave_the_others_as_they_would_have_been() {
    let (view, labels) = rows(300);
    let samples: Vec<u32> = (0..300).collect();
    let data = BankData {
        view: &view,
        transform: &Transform::identity(N_FEATURES),
        sets: &[SampleSet {
            targets: &TargetTable::Classes(labels),
            train: &samples[..200],
            validation: &samples[200..],
            evaluator: &(),
        }],
    };
    let specs: Vec<HeadSpec> = (0..30)
        .map(|number| HeadSpec {
            epochs: 4,
            stopping: None,
            ..spec(1e-3 * f64::from(number + 1), 1)
        })
        .collect();
    let whole = train(&specs, &data, BankSettings::default(), &()).unwrap();
    let mut bank = Bank::new(&specs, &data, BankSettings::default());
    bank.epoch().unwrap();
    let half: Vec<usize> = (0..30).filter(|head| head % 2 == 0).collect();
    bank.stop(&half);
    assert_eq!(bank.active().len(), 15);
    while bank.is_training() {
        bank.epoch().unwrap();
    }
    assert_eq!(bank.epochs_done(), 4);
    let halved = bank.finish();
    for (number, (whole, halved)) in whole.iter().zip(&halved).enumerate() {
        if number % 2 == 0 {
            assert_eq!((halved.best_epoch, halved.history.len()), (1, 1));
            assert_ne!(whole.parameters, halved.parameters);
        } else {
            assert_eq!(whole.parameters, halved.parameters, "head {number}");
        }
    }
}

#[test]
fn a_stopped_head_keeps_its_best_weights_and_leaves_its_neighbours_alone() {
    let hasty =
        HeadSpec { stopping: Some(Stopping { metric: Metric::Loss, patience: 1 }), ..spec(0.5, 1) };
    let patient = HeadSpec { stopping: None, ..spec(1e-3, 1) };
    let heads = train_on(&[hasty.clone(), patient.clone()], 12, 2);
    assert!(heads[0].history.len() < 12, "a rate of 0.5 stops early");
    assert_eq!(heads[1].history.len(), 12);
    assert_eq!(heads[1].best_epoch, 12);
    let best = heads[0]
        .history
        .iter()
        .min_by(|a, b| a.validation_loss.partial_cmp(&b.validation_loss).unwrap());
    assert_eq!(heads[0].best_epoch, best.unwrap().epoch);
    let up_to_best =
        HeadSpec { stopping: None, schedule: Schedule::Constant, warmup: 0.0, ..hasty.clone() };
    let long = HeadSpec { schedule: Schedule::Constant, warmup: 0.0, ..hasty };
    let stopped = train_on(&[long], 12, 1).remove(0);
    let cut = train_on(&[up_to_best], stopped.best_epoch, 1).remove(0);
    assert_eq!(stopped.parameters, cut.parameters, "the best epoch's weights are restored");
}

/// One head of every kind of learner and objective, over windows of three rows.
fn of_every_kind() -> Vec<(&'static str, HeadSpec, TargetTable)> {
    let classes = |n: usize| TargetTable::Classes((0..n as u32).map(|row| row % 3).collect());
    let network = spec(1e-2, 1).network;
    let with = |network: NetworkSpec, objective: Objective| HeadSpec {
        network,
        objective,
        ..spec(1e-2, 1)
    };
    let loss = || spec(1e-2, 1).objective;
    let mlp = NetworkSpec { hidden: vec![16, 8], skip: true, layer_norm: true, ..network.clone() };
    let attention = NetworkSpec { attention: true, hidden: vec![8], ..network.clone() };
    let mixed = NetworkSpec { n_layers: 2, n_features: N_FEATURES / 2, ..network.clone() };
    let span = NetworkSpec { n_outputs: 2, ..network.clone() };
    let crf = NetworkSpec { crf: true, ..network.clone() };
    let value = NetworkSpec { n_outputs: 1, ..network };
    let tags = |n: usize| TargetTable::Tags((0..n as u32).map(|row| row % 3).collect());
    let spans = |n: usize| TargetTable::Spans((0..n as u32).map(|i| [i % 3, i % 3]).collect());
    let values = |n: usize| TargetTable::Values((0..n).map(|i| i as f32 / n as f32).collect());
    let labels = Array2::from_shape_fn((1800, 3), |(row, label)| f32::from(row % 3 == label));
    let sigmoid = Objective::Rows(Loss::Bce { class_weights: None });
    vec![
        ("linear tags", with(spec(1e-2, 1).network, loss()), tags(1800)),
        ("mlp tags", with(mlp, loss()), tags(1800)),
        ("attention", with(attention, loss()), classes(600)),
        ("mix", with(mixed, loss()), tags(1800)),
        ("span", with(span, Objective::Span), spans(600)),
        ("crf", with(crf, Objective::Crf), tags(1800)),
        ("mse", with(value, Objective::Rows(Loss::Mse)), values(1800)),
        ("bce", with(spec(1e-2, 1).network, sigmoid), TargetTable::Labels(labels)),
    ]
}

#[test]
fn every_kind_of_head_has_the_same_bits_on_any_number_of_threads() {
    for (name, spec, targets) in of_every_kind() {
        let trained: Vec<TrainedHead> = [1, 2, 4]
            .into_iter()
            .map(|threads| {
                let (view, _) = rows(1800);
                let per_row = matches!(targets, TargetTable::Values(_) | TargetTable::Labels(_));
                let view = if per_row { view } else { view.grouped(3) };
                let samples: Vec<u32> = (0..view.n_samples() as u32).collect();
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let (train_samples, validation) = samples.split_at(samples.len() * 4 / 5);
                let data = BankData {
                    view: &view,
                    transform: &Transform::identity(N_FEATURES),
                    sets: &[SampleSet {
                        targets: &targets,
                        train: train_samples,
                        validation,
                        evaluator: &(),
                    }],
                };
                // Batches of many parts, so that there is something to run in parallel.
                let spec = HeadSpec { epochs: 3, batch_size: 300, ..spec.clone() };
                let settings = BankSettings::default();
                pool.install(|| train(&[spec], &data, settings, &()).unwrap().remove(0))
            })
            .collect();
        let first = &trained[0];
        assert!(
            first.history[2].train_loss < first.history[0].train_loss,
            "{name} learns: {:?}",
            first.history
        );
        for other in &trained[1..] {
            assert_eq!(first.parameters, other.parameters, "{name}");
            assert_eq!(first.history, other.history, "{name}");
        }
    }
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let specs: Vec<HeadSpec> = (0..40).map(|number| spec(1e-3, number)).collect();
    let one = train_on(&specs, 2, 1);
    for threads in [2, 4] {
        for (a, b) in one.iter().zip(train_on(&specs, 2, threads)) {
            assert_eq!(a.parameters, b.parameters);
        }
    }
}

#[test]
fn a_diverged_head_is_an_error_and_not_a_result() {
    let (view, labels) = rows(60);
    let samples: Vec<u32> = (0..60).collect();
    let data = BankData {
        view: &view,
        transform: &Transform::identity(N_FEATURES),
        sets: &[SampleSet {
            targets: &TargetTable::Classes(labels),
            train: &samples,
            validation: &samples,
            evaluator: &(),
        }],
    };
    let wild = HeadSpec {
        optimizer: Optimizer { kind: OptimizerKind::Sgd, lr: 1e38, ..spec(1.0, 1).optimizer },
        clip: None,
        batch_size: 8,
        ..spec(1.0, 1)
    };
    let error = train(&[wild], &data, BankSettings::default(), &()).unwrap_err();
    assert!(error.to_string().contains("epoch"), "{error}");
    assert!(error.hint().unwrap().contains("train.lr"));
}

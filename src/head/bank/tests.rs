use super::*;
use crate::{
    head::spec::Stopping,
    states::{Dtype, Pooling, StateId},
    train::{
        loss::Loss,
        optimizer::{Optimizer, OptimizerKind},
        schedule::Schedule,
    },
};

const N_FEATURES: usize = 20;

/// Rows of two classes that lie apart along the first features, with much noise.
fn rows(n: usize) -> (FeatureView, Vec<u32>) {
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
    (
        FeatureView::from_bytes(state, N_FEATURES, Dtype::F16, bytes),
        labels,
    )
}

fn spec(lr: f64, seed: u64) -> HeadSpec {
    HeadSpec {
        n_classes: 3,
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
        loss: Loss::CrossEntropy {
            class_weights: None,
            label_smoothing: 0.05,
        },
        seed,
        stopping: Some(Stopping::default()),
    }
}

fn train_on(specs: &[HeadSpec], epochs: usize, threads: usize) -> Vec<TrainedHead> {
    let (view, labels) = rows(600);
    let samples: Vec<u32> = (0..600).collect();
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .unwrap();
    pool.install(|| {
        let scaler = Scaler::fit(&view, &samples);
        let data = BankData {
            view: &view,
            scaler: &scaler,
            train: LabelledRows {
                samples: &samples[..480],
                labels: &labels[..480],
            },
            validation: LabelledRows {
                samples: &samples[480..],
                labels: &labels[480..],
            },
        };
        let settings = BankSettings {
            epochs,
            batch_size: 32,
            seed: 42,
        };
        train(specs, &data, settings, &()).unwrap()
    })
}

#[test]
fn a_head_learns_what_there_is_to_learn() {
    let head = train_on(&[spec(1e-2, 1)], 10, 1).remove(0);
    let (first, best) = (&head.history[0], &head.history[head.best_epoch - 1]);
    assert!(best.validation_accuracy.unwrap() > 0.75, "{best:?}");
    assert!(best.validation_loss < first.validation_loss);
}

#[test]
fn heads_trained_together_equal_the_same_heads_trained_alone_bit_for_bit() {
    let specs: Vec<HeadSpec> = (0..25)
        .map(|number| {
            spec(
                10f64.powf(-3.0 + 0.1 * f64::from(number)),
                1 + number as u64 % 2,
            )
        })
        .collect();
    let together = train_on(&specs, 4, 2);
    for (number, spec) in specs.iter().enumerate() {
        let alone = train_on(std::slice::from_ref(spec), 4, 1).remove(0);
        assert_eq!(together[number].weights, alone.weights, "head {number}");
        assert_eq!(together[number].bias, alone.bias, "head {number}");
        assert_eq!(together[number].history, alone.history, "head {number}");
    }
}

#[test]
fn a_stopped_head_keeps_its_best_weights_and_leaves_its_neighbours_alone() {
    let hasty = HeadSpec {
        stopping: Some(Stopping {
            metric: StoppingMetric::Loss,
            patience: 1,
        }),
        ..spec(0.5, 1)
    };
    let patient = HeadSpec {
        stopping: None,
        ..spec(1e-3, 1)
    };
    let heads = train_on(&[hasty.clone(), patient.clone()], 12, 2);
    assert!(heads[0].history.len() < 12, "a rate of 0.5 stops early");
    assert_eq!(heads[1].history.len(), 12);
    assert_eq!(heads[1].best_epoch, 12);
    let best = heads[0]
        .history
        .iter()
        .min_by(|a, b| a.validation_loss.partial_cmp(&b.validation_loss).unwrap());
    assert_eq!(heads[0].best_epoch, best.unwrap().epoch);
    let up_to_best = HeadSpec {
        stopping: None,
        schedule: Schedule::Constant,
        warmup: 0.0,
        ..hasty.clone()
    };
    let long = HeadSpec {
        schedule: Schedule::Constant,
        warmup: 0.0,
        ..hasty
    };
    let stopped = train_on(&[long], 12, 1).remove(0);
    let cut = train_on(&[up_to_best], stopped.best_epoch, 1).remove(0);
    assert_eq!(
        stopped.weights, cut.weights,
        "the best epoch's weights are restored"
    );
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let specs: Vec<HeadSpec> = (0..40).map(|number| spec(1e-3, number)).collect();
    let one = train_on(&specs, 2, 1);
    for threads in [2, 4] {
        for (a, b) in one.iter().zip(train_on(&specs, 2, threads)) {
            assert_eq!(a.weights, b.weights);
        }
    }
}

#[test]
fn a_diverged_head_is_an_error_and_not_a_result() {
    let (view, labels) = rows(60);
    let samples: Vec<u32> = (0..60).collect();
    let scaler = Scaler::identity(N_FEATURES);
    let rows = LabelledRows {
        samples: &samples,
        labels: &labels,
    };
    let data = BankData {
        view: &view,
        scaler: &scaler,
        train: rows,
        validation: rows,
    };
    let wild = HeadSpec {
        optimizer: Optimizer {
            kind: OptimizerKind::Sgd,
            lr: 1e38,
            ..spec(1.0, 1).optimizer
        },
        clip: None,
        ..spec(1.0, 1)
    };
    let settings = BankSettings {
        epochs: 5,
        batch_size: 8,
        seed: 1,
    };
    let error = train(&[wild], &data, settings, &()).unwrap_err();
    assert!(error.to_string().contains("epoch"), "{error}");
    assert!(error.hint().unwrap().contains("train.lr"));
}

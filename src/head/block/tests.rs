use ndarray::Array2;
use serde_json::Value;

use super::*;
use crate::head::network::NetworkSpec;
use crate::train::{
    loss::Loss,
    optimizer::{Optimizer, OptimizerKind},
    schedule::Schedule,
};

/// Parameters after every step, by PyTorch 2 on the same data (scripts/fixtures/adamw.py).
const PYTORCH: &str = include_str!("../../../tests/fixtures/adamw.json");

fn matrix(value: &Value) -> Array2<f32> {
    let rows: Vec<Vec<f32>> = serde_json::from_value(value.clone()).unwrap();
    let columns = rows[0].len();
    Array2::from_shape_vec((rows.len(), columns), rows.concat()).unwrap()
}

fn spec_of(settings: &Value, n_features: usize, n_classes: usize) -> HeadSpec {
    let number = |key: &str| settings[key].as_f64().unwrap();
    let network = NetworkSpec::linear(n_features, n_classes);
    HeadSpec {
        network,
        objective: Objective::Rows(Loss::CrossEntropy {
            class_weights: serde_json::from_value(settings["class_weights"].clone()).unwrap(),
            label_smoothing: number("label_smoothing") as f32,
        }),
        dropout: 0.0,
        optimizer: Optimizer {
            kind: serde_json::from_value::<OptimizerKind>(settings["optimizer"].clone()).unwrap(),
            lr: number("lr"),
            weight_decay: number("weight_decay"),
            momentum: number("momentum"),
            betas: serde_json::from_value(settings["betas"].clone()).unwrap(),
        },
        schedule: serde_json::from_value::<Schedule>(settings["schedule"].clone()).unwrap(),
        warmup: number("warmup"),
        clip: settings["clip"].as_f64(),
        seed: 0,
        stopping: None,
        ..HeadSpec::new(NetworkSpec::linear(n_features, n_classes))
    }
}

#[test]
fn every_step_of_every_optimiser_equals_pytorchs() {
    let fixture: Value = serde_json::from_str(PYTORCH).unwrap();
    let cases = fixture["cases"].as_object().unwrap();
    assert!(cases.len() >= 8, "the fixture holds its cases");
    for (name, case) in cases {
        let data = &fixture["data"][case["settings"]["data"].as_str().unwrap()];
        let (features, weights) = (matrix(&data["X"]), matrix(&data["W"]));
        let labels: Vec<u32> = serde_json::from_value(data["labels"].clone()).unwrap();
        let bias: Vec<f32> = serde_json::from_value(data["b"].clone()).unwrap();
        let batches: Vec<Vec<usize>> = serde_json::from_value(case["batches"].clone()).unwrap();
        let steps = case["steps"].as_array().unwrap();
        assert_eq!(batches.len(), steps.len());

        let spec = spec_of(&case["settings"], features.ncols(), weights.ncols());
        let is_one_logit = spec.is_one_logit();
        assert_eq!(is_one_logit, weights.ncols() == 2, "{name}");
        let mut head = LinearHead::new(0, spec, batches.len());
        head.set_parameters(&weights, &bias);
        let mut block = Block::new(vec![head], features.ncols());
        for (number, (rows, expected)) in batches.iter().zip(steps).enumerate() {
            let batch = features.select(ndarray::Axis(0), rows);
            let batch_labels: Vec<u32> = rows.iter().map(|row| labels[*row]).collect();
            let row_ids: Vec<u64> = rows.iter().map(|row| *row as u64).collect();
            block.step(&TrainingBatch {
                rows: batch.view(),
                starts: &[],
                output_starts: &[],
                row_ids: &row_ids,
                roles: &[],
                targets: TargetsView::Rows(Targets::Classes(&batch_labels)),
                epoch: 1,
            });
            let (_, loss) = block.take_losses().remove(0);
            let close = |got: f64, expected: f64| (got - expected).abs() <= 1e-5;
            assert!(
                close(loss.mean(), expected["loss"].as_f64().unwrap()),
                "{name}: loss of step {number} is {}, expected {}",
                loss.mean(),
                expected["loss"]
            );
            let network = Network::new(block.heads[0].head.spec.network.clone());
            let (weights, bias) = network.output_layer(&block.parameters(0));
            let expected_weights = matrix(&expected["W"]);
            let expected_bias: Vec<f32> = serde_json::from_value(expected["b"].clone()).unwrap();
            let seen = |weights: &Array2<f32>, bias: &[f32]| -> Vec<f32> {
                let all = weights.iter().chain(bias).copied().collect::<Vec<f32>>();
                if is_one_logit {
                    all.chunks(2).map(|pair| pair[1] - pair[0]).collect()
                } else {
                    all
                }
            };
            let got = seen(&weights, &bias.to_vec());
            let pairs = got.iter().zip(seen(&expected_weights, &expected_bias));
            for (got, expected) in pairs {
                let (got, expected) = (f64::from(*got), f64::from(expected));
                assert!(close(got, expected), "{name}: step {number}: {got}, expected {expected}");
            }
        }
    }
}

/// Runs four steps of a two-class head on the first rows of the fixture.
fn trajectory(spec: &HeadSpec, features: &Array2<f32>) -> Vec<(f64, Vec<f32>)> {
    let mut block = Block::new(vec![LinearHead::new(3, spec.clone(), 4)], features.ncols());
    let n_rows = features.nrows();
    (0..4)
        .map(|step| {
            let classes: Vec<u32> = (0..n_rows).map(|row| (row * (step + 2)) as u32 % 2).collect();
            let row_ids: Vec<u64> = (0..n_rows as u64).collect();
            block.step(&TrainingBatch {
                rows: features.view(),
                starts: &[],
                output_starts: &[],
                row_ids: &row_ids,
                roles: &[],
                targets: TargetsView::Rows(Targets::Classes(&classes)),
                epoch: 1,
            });
            let (_, loss) = block.take_losses().remove(0);
            (loss.mean(), block.parameters(3))
        })
        .collect()
}

#[test]
fn one_logit_moves_as_the_difference_of_two() {
    let fixture: Value = serde_json::from_str(PYTORCH).unwrap();
    let features = matrix(&fixture["data"]["two"]["X"]);
    for kind in [OptimizerKind::AdamW, OptimizerKind::Sgd] {
        let one = HeadSpec {
            objective: Objective::Rows(Loss::CrossEntropy {
                class_weights: Some(vec![0.7, 2.0]),
                label_smoothing: 0.1,
            }),
            dropout: 0.0,
            optimizer: Optimizer { kind, lr: 0.05, weight_decay: 0.1, ..Optimizer::default() },
            clip: Some(0.3),
            ..HeadSpec::new(NetworkSpec::linear(features.ncols(), 2))
        };
        // A focal loss with gamma 0 is the cross-entropy, and keeps its two columns.
        let two = HeadSpec {
            objective: Objective::Rows(Loss::Focal {
                gamma: 0.0,
                class_weights: Some(vec![0.7, 2.0]),
                label_smoothing: 0.1,
            }),
            ..one.clone()
        };
        assert!(one.is_one_logit() && !two.is_one_logit());
        let network = Network::new(one.network.clone());
        let differences = |parameters: &[f32]| {
            let (weights, bias) = network.output_layer(parameters);
            let rows = weights.rows().into_iter().chain([bias.view()]);
            rows.map(|row| row[1] - row[0]).collect::<Vec<f32>>()
        };
        let steps = trajectory(&one, &features).into_iter();
        for ((loss, parameters), (loss_of_two, of_two)) in steps.zip(trajectory(&two, &features)) {
            assert!((loss - loss_of_two).abs() < 1e-6, "{kind:?}: {loss}, {loss_of_two}");
            let pairs = differences(&parameters).into_iter().zip(differences(&of_two));
            for (one, two) in pairs {
                assert!((one - two).abs() < 1e-5, "{kind:?}: {one}, {two}");
            }
        }
    }
}

#[test]
fn heads_fill_blocks_in_their_order_and_those_of_one_logit_blocks_of_their_own() {
    let fixture: Value = serde_json::from_str(PYTORCH).unwrap();
    let base = spec_of(&fixture["cases"]["adam"]["settings"], 4, 3);
    let heads: Vec<LinearHead> = [3, 2, 20, 10, 2, 70, 3]
        .into_iter()
        .enumerate()
        .map(|(index, n_outputs)| {
            let network = NetworkSpec { n_outputs, ..base.network.clone() };
            let objective = Objective::Rows(Loss::default());
            LinearHead::new(index, HeadSpec { network, objective, ..base.clone() }, 1)
        })
        .collect();
    let blocks = fill_blocks(heads, 4, 32);
    let placed: Vec<(Vec<usize>, usize)> =
        blocks.iter().map(|block| (block.heads(), block.columns)).collect();
    let expected =
        [(vec![1, 4], 16), (vec![0, 2], 32), (vec![3], 16), (vec![5], 80), (vec![6], 16)];
    assert_eq!(placed, expected);
}

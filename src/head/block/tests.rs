use ndarray::Array2;
use serde_json::Value;

use super::*;
use crate::head::network::NetworkSpec;
use crate::train::{
    loss::Loss,
    optimizer::{Optimizer, OptimizerKind},
    schedule::Schedule,
};

/// Parameters after every step of PyTorch 2 on the same data (scripts/fixtures/adamw.py).
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
        let mut block = Block::new(vec![(0, spec)], features.ncols(), batches.len());
        block.set_parameters(&weights, &bias);
        for (number, (rows, expected)) in batches.iter().zip(steps).enumerate() {
            let batch = features.select(ndarray::Axis(0), rows);
            let batch_labels: Vec<u32> = rows.iter().map(|row| labels[*row]).collect();
            let row_ids: Vec<u64> = rows.iter().map(|row| *row as u64).collect();
            block.step(&Batch {
                rows: batch.view(),
                starts: &[],
                row_ids: &row_ids,
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
            let network = Network::new(block.heads[0].spec.network.clone());
            let (weights, bias) = network.output_layer(&block.parameters(0));
            let expected_weights = matrix(&expected["W"]);
            let expected_bias: Vec<f32> = serde_json::from_value(expected["b"].clone()).unwrap();
            let pairs = weights
                .iter()
                .zip(&expected_weights)
                .chain(bias.iter().zip(&expected_bias));
            for (got, expected) in pairs {
                let (got, expected) = (f64::from(*got), f64::from(*expected));
                assert!(
                    close(got, expected),
                    "{name}: step {number}: {got}, expected {expected}"
                );
            }
        }
    }
}

#[test]
fn heads_share_a_block_only_where_their_inputs_are_dropped_alike() {
    let fixture: Value = serde_json::from_str(PYTORCH).unwrap();
    let base = spec_of(&fixture["cases"]["adam"]["settings"], 4, 3);
    let head = |n_outputs, dropout, seed| HeadSpec {
        network: NetworkSpec {
            n_outputs,
            ..base.network.clone()
        },
        dropout,
        seed,
        ..base.clone()
    };
    let all = |n: usize| (0..n).collect::<Vec<usize>>();
    // No dropout: the seed does not matter. 10 heads of 3 classes fill 30 of 32 columns.
    let plain: Vec<HeadSpec> = (0..11).map(|seed| head(3, 0.0, seed)).collect();
    assert_eq!(
        assign(&plain, &all(11)),
        [(0..10).collect::<Vec<_>>(), vec![10]]
    );
    // Dropout: other rates and other seeds drop other inputs. A wide head stands alone.
    let mixed = [
        head(3, 0.1, 1),
        head(3, 0.2, 1),
        head(3, 0.1, 1),
        head(3, 0.1, 2),
        head(40, 0.1, 1),
    ];
    assert_eq!(
        assign(&mixed, &all(5)),
        [vec![0, 2], vec![1], vec![3], vec![4]]
    );
}

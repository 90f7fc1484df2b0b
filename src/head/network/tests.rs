use ndarray::Array2;
use serde_json::Value;

use super::*;
use crate::{
    head::{
        block::{Block, LinearHead},
        learner::Learner,
        spec::HeadSpec,
    },
    train::{
        encoder_layer::LayerReal,
        loss::{Loss, Targets},
        optimizer::{FlatOptimizer, Optimizer, OptimizerKind},
        real::Real,
    },
};

/// Logits and gradients by PyTorch 2 in f64 (scripts/fixtures/networks.py).
const PYTORCH: &str = include_str!("../../../tests/fixtures/networks.json");

/// A network, an input and labels.
struct Case {
    name: String,
    network: Network,
    rows: Array2<f64>,
    starts: Vec<usize>,
    labels: Vec<u32>,
    parameters: Vec<f64>,
    gradients: Vec<f64>,
    logits: Vec<f64>,
    loss: f64,
}

fn flat(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(flat).collect(),
        number => vec![number.as_f64().unwrap()],
    }
}

fn cases() -> Vec<Case> {
    let fixture: Value = serde_json::from_str(PYTORCH).unwrap();
    let cases: Vec<Case> = fixture["networks"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, case)| {
            let spec: NetworkSpec = serde_json::from_value(case["spec"].clone()).unwrap();
            let n_inputs = spec.n_inputs();
            let network = Network::new(spec);
            let by_name = |key: &str| {
                let tensors = case[key].as_object().unwrap();
                assert_eq!(tensors.len(), network.tensors().len(), "{name}");
                let places = network.tensors().iter();
                let values = places.flat_map(|place| {
                    let values = flat(&tensors[&place.name]);
                    assert_eq!(values.len(), place.shape.iter().product::<usize>());
                    values
                });
                values.collect::<Vec<f64>>()
            };
            let rows = flat(&case["rows"]);
            Case {
                name: name.clone(),
                rows: Array2::from_shape_vec((rows.len() / n_inputs, n_inputs), rows).unwrap(),
                starts: serde_json::from_value(case["starts"].clone()).unwrap(),
                labels: serde_json::from_value(case["labels"].clone()).unwrap(),
                parameters: by_name("parameters"),
                gradients: by_name("gradients"),
                logits: flat(&case["logits"]),
                loss: case["loss"].as_f64().unwrap(),
                network,
            }
        })
        .collect();
    assert!(cases.len() >= 14, "the fixture holds its cases");
    cases
}

/// Returns the loss of a case, its logits and its gradients.
fn pass<F: LayerReal>(
    case: &Case,
    parameters: &[F],
    dropout: Option<Dropout<'_>>,
    trace: &mut Trace<F>,
) -> (f64, Vec<F>) {
    let rows = case.rows.mapv(F::of);
    let input = NetworkInput { rows: rows.view(), starts: &case.starts, roles: &[] };
    case.network.forward(parameters, &input, dropout, trace);
    let (loss, targets) = (Loss::default(), Targets::Classes(&case.labels));
    let mut d_logits = Array2::zeros(trace.logits().dim());
    let scale = loss.scale(targets);
    let sum = loss.gradient(trace.logits(), targets, scale, d_logits.view_mut());
    let mut gradients = vec![F::zero(); parameters.len()];
    case.network.backward(parameters, &input, dropout, trace, d_logits.view(), &mut gradients);
    (sum.mean(), gradients)
}

fn single(values: &[f64]) -> Vec<f32> {
    values.iter().map(|value| *value as f32).collect()
}

#[track_caller]
fn assert_close<F: Real>(got: &[F], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        let got: f64 = (*got).into();
        assert!(
            (got - expected).abs() <= tolerance * expected.abs().max(1.0),
            "{what}, {index}: {got} instead of {expected}"
        );
    }
}

#[test]
fn every_network_gives_pytorchs_logits_loss_and_gradients() {
    // One trace for all cases: what an earlier network left in it must not matter.
    let (mut trace, mut wide_trace) = (Trace::default(), Trace::default());
    for case in cases() {
        let name = &case.name;
        let (loss, gradients) = pass(&case, &single(&case.parameters), None, &mut trace);
        assert!((loss - case.loss).abs() < 1e-5, "{name}: {loss}");
        assert_close(trace.logits().as_slice().unwrap(), &case.logits, 1e-5, name);
        assert_close(&gradients, &case.gradients, 1e-5, name);

        let (loss, gradients) = pass(&case, &case.parameters, None, &mut wide_trace);
        assert!((loss - case.loss).abs() < 1e-12, "{name}: {loss}");
        assert_close(wide_trace.logits().as_slice().unwrap(), &case.logits, 1e-12, name);
        assert_close(&gradients, &case.gradients, 1e-12, name);
    }
}

#[test]
fn gradients_agree_with_finite_differences_with_and_without_dropout() {
    let mut trace = Trace::default();
    for case in cases() {
        let row_ids: Vec<u64> = (0..case.rows.nrows() as u64).map(|row| row + 40).collect();
        let masks = Dropout { rate: 0.25, seed: 3, epoch: 2, row_ids: &row_ids };
        for dropout in [None, Some(masks)] {
            let (_, gradients) = pass(&case, &case.parameters, dropout, &mut trace);
            assert!(gradients.iter().any(|gradient| *gradient != 0.0));
            for index in 0..case.parameters.len() {
                let step = 1e-5;
                let loss = |change: f64, trace: &mut Trace<f64>| {
                    let mut parameters = case.parameters.clone();
                    parameters[index] += change;
                    pass(&case, &parameters, dropout, trace).0
                };
                let numeric = (loss(step, &mut trace) - loss(-step, &mut trace)) / (2.0 * step);
                let exact = gradients[index];
                assert!(
                    (numeric - exact).abs() <= 1e-6 * exact.abs() + 1e-9,
                    "{}, parameter {index}: {numeric} and {exact}, dropout {}",
                    case.name,
                    dropout.is_some()
                );
            }
        }
    }
}

#[test]
fn a_batch_in_parts_gives_the_sum_of_its_parts() {
    let mut trace = Trace::default();
    for case in cases().iter().filter(|case| !case.network.spec.attention) {
        let row_ids: Vec<u64> = (0..case.rows.nrows() as u64).collect();
        let mut sums = [vec![0.0; case.parameters.len()], vec![0.0; case.parameters.len()]];
        let n = case.rows.nrows();
        for (cut, gradients) in [0, 3].into_iter().zip(&mut sums) {
            for range in [0..cut, cut..n] {
                let input = NetworkInput {
                    rows: case.rows.slice(ndarray::s![range.clone(), ..]),
                    starts: &[],
                    roles: &[],
                };
                let dropout =
                    Dropout { rate: 0.3, seed: 1, epoch: 1, row_ids: &row_ids[range.clone()] };
                let network = &case.network;
                network.forward(&case.parameters, &input, Some(dropout), &mut trace);
                let targets = Targets::Classes(&case.labels).slice(range.clone());
                let mut d_logits = Array2::zeros(trace.logits().dim());
                Loss::default().gradient(trace.logits(), targets, 0.5, d_logits.view_mut());
                network.backward(
                    &case.parameters,
                    &input,
                    Some(dropout),
                    &mut trace,
                    d_logits.view(),
                    gradients,
                );
            }
        }
        assert_close(&sums[1], &sums[0], 1e-12, &case.name);
    }
}

#[test]
fn a_sample_without_rows_is_pooled_to_zeros() {
    let case = cases().into_iter().find(|case| case.name == "attention").unwrap();
    let empty = case.starts.windows(2).position(|two| two[0] == two[1]);
    let mut trace = Trace::default();
    pass(&case, &case.parameters, None, &mut trace);
    let bias = &case.parameters[case.parameters.len() - 3..];
    assert_eq!(trace.logits().row(empty.unwrap()).as_slice().unwrap(), bias);
}

fn spec(n_features: usize, hidden: &[usize], n_outputs: usize) -> NetworkSpec {
    NetworkSpec { hidden: hidden.to_vec(), ..NetworkSpec::linear(n_features, n_outputs) }
}

#[test]
fn a_linear_network_begins_with_the_weights_of_a_linear_head_of_the_bank() {
    let head = HeadSpec { seed: 7, ..HeadSpec::new(spec(5, &[], 3)) };
    let plain = Network::new(spec(5, &[], 3)).initial(7);
    let block = Block::new(vec![LinearHead::new(0, head, 1)], 5);
    assert_eq!(plain, Learner::parameters(&block, 0));

    let pooling = Network::new(NetworkSpec { attention: true, crf: true, ..spec(5, &[], 3) });
    let parameters = pooling.initial(7);
    let crf = pooling.crf_ranges().unwrap();
    assert_eq!((crf.transitions.len(), crf.end.end), (9, parameters.len()));
    assert!(parameters[crf.transitions.start..].iter().all(|score| *score == 0.0));
    assert_eq!(parameters[5..crf.transitions.start], plain);
    assert!(parameters[..5].iter().all(|weight| *weight != 0.0));
}

#[test]
fn every_kind_of_network_learns_what_no_linear_head_can() {
    // Whether two of sixteen standardised numbers have the same sign.
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let normal = Normal::new(0.0f32, 1.0).unwrap();
    let rows = Array2::from_shape_simple_fn((512, 16), || normal.sample(&mut rng));
    let labels: Vec<u32> =
        rows.rows().into_iter().map(|row| u32::from(row[0] * row[1] > 0.0)).collect();
    let optimizer = Optimizer {
        kind: OptimizerKind::AdamW,
        lr: 0.01,
        weight_decay: 0.0,
        momentum: 0.0,
        betas: [0.9, 0.999],
    };
    let accuracy = |spec: NetworkSpec| {
        let network = Network::new(spec);
        let mut parameters = network.initial(1);
        let mut state = FlatOptimizer::new(parameters.len());
        let mut trace = Trace::default();
        let targets = Targets::Classes(&labels);
        let input = NetworkInput { rows: rows.view(), starts: &[], roles: &[] };
        let (loss, mut d_logits) = (Loss::default(), Array2::zeros((512, 2)));
        for step in 0..200 {
            network.forward(&parameters, &input, None, &mut trace);
            let scale = loss.scale(targets);
            loss.gradient(trace.logits(), targets, scale, d_logits.view_mut());
            let mut gradients = vec![0.0; parameters.len()];
            network.backward(
                &parameters,
                &input,
                None,
                &mut trace,
                d_logits.view(),
                &mut gradients,
            );
            state.step(&mut parameters, &gradients, &optimizer, step, 1.0, 1.0);
        }
        network.forward(&parameters, &input, None, &mut trace);
        let logits = trace.logits();
        let hits = logits.rows().into_iter().zip(&labels);
        hits.filter(|(row, label)| u32::from(row[1] > row[0]) == **label).count() as f64 / 512.0
    };
    let linear = accuracy(spec(16, &[], 2));
    assert!(linear < 0.7, "{linear}");
    for activation in [Activation::Relu, Activation::Gelu, Activation::Tanh] {
        for (skip, layer_norm) in [(false, false), (true, false), (false, true)] {
            let spec = NetworkSpec { activation, skip, layer_norm, ..spec(16, &[32], 2) };
            let reached = accuracy(spec.clone());
            assert!(reached > 0.95, "{spec:?}: {reached}");
        }
    }
}

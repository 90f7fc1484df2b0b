use super::*;
use crate::{
    head::network::{EncoderLayersSpec, NetworkSpec, TokenPooling},
    train::{optimizer::OptimizerKind, vector::dot},
};

const RANK: usize = 2;

/// Two layers of width 6 under an output.
fn network() -> Network {
    let names = |layer: usize| -> Vec<String> {
        (0..N_TENSORS).map(|tensor| format!("{layer}.{tensor}")).collect()
    };
    Network::new(NetworkSpec {
        encoder_layers: Some(EncoderLayersSpec {
            attention_heads: 2,
            intermediate: 10,
            epsilon: 1e-5,
            dropout: 0.0,
            attention_output_dropout: 0.0,
            attention_dropout: 0.0,
            pooling: TokenPooling::Mean,
            pair: false,
            distance_bias: None,
            tensors: (0..2).map(names).collect(),
        }),
        ..NetworkSpec::linear(6, 3)
    })
}

fn numbers(n: usize, factor: f32) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * factor).sin()).collect()
}

/// Updates by plain gradient descent, with the parameters that they start from.
fn updates(network: &Network, lr: f64) -> (LoraUpdates, Vec<f32>) {
    let parameters = numbers(network.n_parameters(), 0.7);
    let spec = LoraSpec {
        rank: RANK,
        alpha: 6.0,
        targets: vec![LoraTarget::Query, LoraTarget::Intermediate, LoraTarget::Output],
    };
    let optimizer = Optimizer {
        kind: OptimizerKind::Sgd,
        weight_decay: 0.0,
        momentum: 0.0,
        ..Optimizer::default()
    };
    let start = parameters[..network.n_encoder_parameters()].into();
    let training = LayerTraining { parameters: start, lr, decay: 0.5, lora: Some(spec.clone()) };
    (LoraUpdates::new(&spec, &training, network, &parameters, &optimizer, 3), parameters)
}

#[test]
fn a_network_begins_as_it_was_and_only_the_targets_change() {
    let network = network();
    let (mut lora, mut parameters) = updates(&network, 0.1);
    let before = parameters.clone();
    lora.step(0, 1.0, 1.0, &mut parameters);
    assert_eq!(parameters, before, "without a gradient");
    lora.gradients_of(&numbers(before.len(), 0.3));
    lora.step(1, 1.0, 1.0, &mut parameters);
    for (number, tensor) in network.tensors().iter().enumerate() {
        let changes = parameters[tensor.range.clone()] != before[tensor.range.clone()];
        let is_target = number < 2 * N_TENSORS && [0, 10, 12].contains(&(number % N_TENSORS));
        assert_eq!(changes, is_target, "{}", tensor.name);
    }
}

#[test]
fn the_gradients_of_the_factors_are_slopes_of_what_is_merged() {
    let network = network();
    let (mut lora, parameters) = updates(&network, 1.0);
    let direction = numbers(parameters.len(), 0.3);
    // So that neither factor is 0.
    lora.factors = numbers(lora.factors.len(), 1.1);
    let merged = |lora: &mut LoraUpdates| {
        let mut merged = parameters.clone();
        lora.gradients.fill(0.0);
        lora.step(0, 1.0, 1.0, &mut merged);
        dot(&merged, &direction)
    };
    let gradients = lora.gradients_of(&direction).to_vec();
    for (index, gradient) in gradients.iter().enumerate() {
        let step = 0.25;
        lora.factors[index] += step;
        let above = merged(&mut lora);
        lora.factors[index] -= 2.0 * step;
        let below = merged(&mut lora);
        lora.factors[index] += step;
        let slope = (above - below) / (2.0 * step);
        let gap = (slope - gradient).abs();
        assert!(gap < 1e-3, "{index}: {gradient} instead of {slope}");
    }
    assert!(gradients.iter().any(|gradient| gradient.abs() > 0.5));
}

#[test]
fn each_layer_has_its_own_rate() {
    let network = network();
    let (lora, _) = updates(&network, 0.1);
    let rates: Vec<f64> = lora.updates.iter().map(|update| update.settings.lr).collect();
    assert_eq!(rates, [0.1, 0.1, 0.1, 0.05, 0.05, 0.05]);
}

use ndarray::Array2;

use super::*;
use crate::{
    features::TokenRole,
    head::network::{Network, NetworkSpec, Trace},
};

const STARTS: [usize; 5] = [0, 4, 5, 5, 9];

const ROW_IDS: [u64; 9] = [40, 41, 42, 43, 50, 70, 71, 72, 73];

fn numbers(n: usize, factor: f64) -> Vec<f64> {
    (0..n).map(|i| (i as f64 * factor).sin()).collect()
}

fn spec(pooling: TokenPooling) -> EncoderLayersSpec {
    let names = |layer: usize| -> Vec<String> {
        (0..N_TENSORS).map(|tensor| format!("layer.{layer}.{tensor}")).collect()
    };
    EncoderLayersSpec {
        attention_heads: 2,
        intermediate: 8,
        epsilon: 1e-5,
        dropout: 0.2,
        attention_output_dropout: 0.1,
        attention_dropout: 0.1,
        pooling,
        pair: false,
        distance_bias: Some(DistanceBiasSpec {
            tensor: "bias".into(),
            first_distances: vec![0, 1, 3],
        }),
        tensors: (0..2).map(names).collect(),
    }
}

/// Samples of 4, 1, 0 and 4 tokens: two windows, and of a pair two documents; three tokens have outputs.
fn roles() -> Vec<TokenRole> {
    let documents = [vec![3], vec![1], vec![1], vec![2], vec![1, 1]];
    let mut roles = TokenRole::of_documents(documents.into_iter().map(Vec::into_iter));
    for row in [1, 4, 8] {
        roles[row].is_output = true;
    }
    roles
}

/// The same rows as windows of questions: two tokens of a question among candidates, no question, and a question at the
/// end.
fn questions() -> Vec<TokenRole> {
    let mut roles = Vec::new();
    for n_tokens in [4, 1, 4] {
        TokenRole::push_window(&mut roles, n_tokens);
    }
    for row in [1, 2, 8] {
        roles[row].is_question = true;
    }
    for row in [0, 3, 4, 5, 6, 7] {
        (roles[row].is_candidate, roles[row].is_output) = (true, true);
    }
    roles
}

fn networks() -> [Network; 7] {
    let linear =
        |pooling| NetworkSpec { encoder_layers: Some(spec(pooling)), ..NetworkSpec::linear(6, 3) };
    let hidden = NetworkSpec { hidden: vec![5], ..linear(TokenPooling::Cls) };
    let attention = NetworkSpec { attention: true, ..linear(TokenPooling::Mean) };
    let outputs = NetworkSpec { hidden: vec![4], ..linear(TokenPooling::Outputs) };
    let pair = EncoderLayersSpec { pair: true, ..spec(TokenPooling::Mean) };
    let pair = NetworkSpec { encoder_layers: Some(pair), ..linear(TokenPooling::Mean) };
    let max = linear(TokenPooling::Max);
    let matching = NetworkSpec { hidden: vec![4], ..linear(TokenPooling::Matching) };
    [linear(TokenPooling::Mean), hidden, attention, outputs, pair, max, matching].map(Network::new)
}

/// The product of a network's logits with some numbers, and its gradient.
fn loss(
    network: &Network,
    parameters: &[f64],
    rows: &Array2<f64>,
    roles: &[TokenRole],
) -> (f64, Vec<f64>) {
    let input = NetworkInput { rows: rows.view(), starts: &STARTS, roles };
    let dropout = Some(Dropout { rate: 0.3, seed: 4, epoch: 2, row_ids: &ROW_IDS });
    let mut trace = Trace::default();
    network.forward(parameters, &input, dropout, &mut trace);
    let weights = numbers(trace.logits().len(), 1.7);
    let weights = Array2::from_shape_vec(trace.logits().dim(), weights).unwrap();
    let loss = (&trace.logits() * &weights).sum();
    let mut gradients = vec![0.0; parameters.len()];
    let view = weights.view();
    network.backward(parameters, &input, dropout, &mut trace, view, &mut gradients);
    (loss, gradients)
}

#[test]
fn gradients_through_every_pooling_are_slopes_of_the_loss_with_dropout() {
    let rows = Array2::from_shape_vec((9, 6), numbers(54, 0.9)).unwrap();
    let (none, all, asked) = (Vec::new(), roles(), questions());
    let [mean, cls, attention, outputs, pair, max, matching] = networks();
    let cases = [
        (mean.clone(), &none),
        (mean, &all),
        (cls, &none),
        (attention.clone(), &none),
        (attention, &all),
        (outputs, &all),
        (pair, &all),
        (max, &all),
        (matching, &asked),
    ];
    for (network, roles) in cases {
        let mut parameters: Vec<f64> =
            numbers(network.n_parameters(), 0.7).iter().map(|value| 0.6 * value).collect();
        let (_, gradients) = loss(&network, &parameters, &rows, roles);
        let fixed = network.encoder_places()[1].end..network.n_encoder_parameters();
        assert_eq!(fixed.len(), 2 * 3 * 2);
        assert!(gradients[fixed.clone()].iter().all(|gradient| *gradient == 0.0));
        for index in (0..parameters.len()).filter(|index| !fixed.contains(index)) {
            let step = 1e-5;
            parameters[index] += step;
            let (above, _) = loss(&network, &parameters, &rows, roles);
            parameters[index] -= 2.0 * step;
            let (below, _) = loss(&network, &parameters, &rows, roles);
            parameters[index] += step;
            let slope = (above - below) / (2.0 * step);
            let gap = (gradients[index] - slope).abs();
            assert!(gap < 1e-6, "{index}: {} instead of {slope}", gradients[index]);
        }
        assert!(gradients.iter().any(|gradient| gradient.abs() > 0.1));
    }
}

#[test]
fn what_cannot_be_layers_has_no_number_of_parameters() {
    let good = spec(TokenPooling::Mean);
    let network = Network::new(NetworkSpec {
        encoder_layers: Some(good.clone()),
        ..NetworkSpec::linear(6, 3)
    });
    let bound = good.n_parameters(6).unwrap();
    assert!(network.n_encoder_parameters() <= bound, "{bound}");
    let changes: [&dyn Fn(&mut EncoderLayersSpec); 8] = [
        &|spec| spec.attention_heads = 0,
        &|spec| spec.attention_heads = 4,
        &|spec| spec.intermediate = usize::MAX,
        &|spec| spec.dropout = 1.0,
        &|spec| spec.epsilon = f32::NAN,
        &|spec| spec.tensors.clear(),
        &|spec| spec.tensors[1].truncate(3),
        &|spec| {
            let bias = DistanceBiasSpec { tensor: "bias".into(), first_distances: vec![1, 2] };
            spec.distance_bias = Some(bias);
        },
    ];
    for change in changes {
        let mut bad = good.clone();
        change(&mut bad);
        assert_eq!(bad.n_parameters(6), None, "{bad:?}");
    }
}

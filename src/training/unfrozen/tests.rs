use std::path::Path;

use ndarray::Array2;
use safetensors::SafeTensors;

use super::*;
use crate::{
    head::{
        learner::{Learner, TrainingBatch},
        network::{Network, NetworkInput, NetworkSpec, Trace},
        network_learner::NetworkLearner,
        saved::{Head, HeadDescription, LAYERS_FILE},
        spec::HeadSpec,
        targets::TargetsView,
        transform::Transform,
    },
    train::{
        encoder_layer::LayerReal,
        loss::{Loss, Targets},
        optimizer::Optimizer,
    },
};

/// What transformers computes in PyTorch 2 in f64 (scripts/fixtures/top_layers.py).
const PYTORCH: &[u8] = include_bytes!("../../../tests/fixtures/top_layers.safetensors");

/// The families, with their checkpoints of two layers.
const CHECKPOINTS: [(&str, &str); 5] = [
    ("bert", "tiny_bert"),
    ("roberta", "families/roberta"),
    ("distilbert", "families/distilbert"),
    ("electra", "families/electra"),
    ("mpnet", "families/mpnet"),
];

const STARTS: [usize; 4] = [0, 7, 8, 20];

const LABELS: [u32; 3] = [0, 2, 1];

const N_LAYERS: usize = 2;

fn pytorch(name: &str) -> Option<Vec<f64>> {
    tensor_of(PYTORCH, name)
}

/// A tensor of a safetensors file in f64; `None` if it has none of this name.
pub(super) fn tensor_of(file: &[u8], name: &str) -> Option<Vec<f64>> {
    let file = SafeTensors::deserialize(file).unwrap();
    let view = file.tensor(name).ok()?;
    let data = view.data();
    Some(match view.dtype() {
        safetensors::Dtype::F64 => data
            .chunks_exact(8)
            .map(|eight| f64::from_le_bytes(eight.try_into().unwrap()))
            .collect(),
        _ => data
            .chunks_exact(4)
            .map(|four| f64::from(f32::from_le_bytes(four.try_into().unwrap())))
            .collect(),
    })
}

/// The last layers of a checkpoint of the fixtures, without dropout.
pub(super) fn last_layers(folder: &str, n_layers: usize, pooling: TokenPooling) -> UnfrozenLayers {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let checkpoint = Checkpoint::open(&fixtures.join(folder)).unwrap();
    let layers = TopLayers::read(&checkpoint, n_layers).unwrap();
    let mut layers = UnfrozenLayers::of(layers, pooling, [5e-5, 0.5]);
    layers.spec.dropout = 0.0;
    layers.spec.attention_output_dropout = 0.0;
    layers.spec.attention_dropout = 0.0;
    layers
}

/// The last layers of a family's checkpoint under a linear head, without dropout.
struct Case {
    family: &'static str,
    network: Network,
    training: LayerTraining,
    parameters: Vec<f64>,
    /// The states below the layers.
    rows: Array2<f64>,
}

impl Case {
    fn new((family, folder): (&'static str, &str), n_layers: usize) -> Case {
        let UnfrozenLayers { spec, training } = last_layers(folder, n_layers, TokenPooling::Mean);
        let network = Network::new(NetworkSpec {
            encoder_layers: Some(spec),
            ..NetworkSpec::linear(32, LABELS.len())
        });
        let mut parameters: Vec<f64> = training.parameters.iter().copied().map(f64::from).collect();
        parameters.extend(pytorch(&format!("{family}.weight")).unwrap());
        parameters.extend(pytorch(&format!("{family}.bias")).unwrap());
        let rows = pytorch(&format!("{family}.states.{}", N_LAYERS - n_layers)).unwrap();
        let rows = Array2::from_shape_vec((STARTS[3], 32), rows).unwrap();
        Case { family, network, training, parameters, rows }
    }

    /// Compares logits, loss and gradients with PyTorch's.
    fn check<F: LayerReal>(&self, tolerance: f64) {
        let rows = self.rows.mapv(F::of);
        let parameters: Vec<F> = self.parameters.iter().copied().map(F::of).collect();
        let input = NetworkInput { rows: rows.view(), starts: &STARTS, roles: &[] };
        let mut trace = Trace::default();
        self.network.forward(&parameters, &input, None, &mut trace);
        let (loss, targets) = (Loss::default(), Targets::Classes(&LABELS));
        let mut d_logits = Array2::zeros(trace.logits().dim());
        let sum = loss.gradient(trace.logits(), targets, loss.scale(targets), d_logits.view_mut());
        let logits: Vec<F> = trace.logits().iter().copied().collect();
        let mut gradients = vec![F::zero(); parameters.len()];
        let view = d_logits.view();
        self.network.backward(&parameters, &input, None, &mut trace, view, &mut gradients);
        let expected = |name: &str| pytorch(&format!("{}.{name}", self.family));
        close(&[F::of(sum.mean())], &expected("loss").unwrap(), tolerance, self.family);
        close(&logits, &expected("logits").unwrap(), tolerance, self.family);
        let mut n_fixed = 0;
        for tensor in self.network.tensors() {
            let got = &gradients[tensor.range.clone()];
            match expected(&format!("gradient.{}", tensor.name)) {
                Some(expected) => close(got, &expected, tolerance, &tensor.name),
                None => {
                    assert!(got.iter().all(|value| *value == F::zero()), "{}", tensor.name);
                    n_fixed += 1;
                }
            }
        }
        let n_layers = self.network.encoder_places().len();
        // The biases of the keys, and MPNet's table.
        assert_eq!(n_fixed, n_layers + usize::from(self.family == "mpnet"));
    }
}

/// Compares numbers by their distance in shares of the largest expected one.
#[track_caller]
pub(super) fn close<F: LayerReal>(got: &[F], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        let got: f64 = (*got).into();
        let gap = (got - expected).abs() / largest;
        assert!(gap <= tolerance, "{what}, {index}: {got} instead of {expected}, {gap:e}");
    }
}

#[test]
fn one_and_both_layers_of_every_family_give_the_logits_loss_and_gradients_of_transformers() {
    for checkpoint in CHECKPOINTS {
        for n_layers in 1..=N_LAYERS {
            let case = Case::new(checkpoint, n_layers);
            case.check::<f64>(1e-9);
            // Attention scores of electra reach 181 on these weights, those of the others 50: rounding its
            // projections to f32, and nothing else, moves a gradient by 5e-6.
            case.check::<f32>(if case.family == "electra" { 2e-5 } else { 1e-5 });
        }
    }
}

#[test]
fn three_steps_of_adamw_with_a_rate_for_each_layer_give_the_parameters_of_pytorch() {
    for checkpoint in CHECKPOINTS {
        let case = Case::new(checkpoint, N_LAYERS);
        let spec = HeadSpec {
            dropout: 0.0,
            optimizer: Optimizer { lr: 1e-3, ..Optimizer::default() },
            encoder_layers: Some(case.training.clone()),
            ..HeadSpec::new(case.network.spec().clone())
        };
        let mut learner = NetworkLearner::new(0, spec, 3);
        learner.start_from(case.parameters.iter().map(|value| *value as f32).collect());
        let rows = case.rows.mapv(|value| value as f32);
        let row_ids: Vec<u64> = (0..STARTS[3] as u64).collect();
        for _ in 0..3 {
            learner.step(&TrainingBatch {
                rows: rows.view(),
                starts: &STARTS,
                output_starts: &STARTS,
                row_ids: &row_ids,
                roles: &[],
                targets: TargetsView::Rows(Targets::Classes(&LABELS)),
                epoch: 1,
            });
        }
        let trained = learner.parameters(0);
        let mut n_changed = 0;
        for tensor in case.network.tensors() {
            let (got, before) =
                (&trained[tensor.range.clone()], &case.parameters[tensor.range.clone()]);
            let Some(expected) = pytorch(&format!("{}.after.{}", case.family, tensor.name)) else {
                continue;
            };
            // AdamW divides by the size of the gradient, so that where this is rounding, so is the step.
            close(got, &expected, 1e-5, &tensor.name);
            let pairs = got.iter().zip(&expected);
            let gap: f64 = pairs.map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
            let moved: f64 = expected.iter().zip(before).map(|(a, b)| (a - b).powi(2)).sum();
            assert!(gap < 4e-4 * moved, "{}: {gap:e} of {moved:e}", tensor.name);
            n_changed += usize::from(moved > 0.0);
        }
        assert_eq!(n_changed, 2 * 15 + 2, "{}", case.family);
    }
}

#[test]
fn a_text_has_the_same_outputs_alone_and_among_others() {
    let case = Case::new(CHECKPOINTS[4], N_LAYERS);
    let network = Some(case.network.spec().clone());
    let description = HeadDescription { network, ..HeadDescription::default() };
    let parameters = case.parameters.iter().map(|value| *value as f32).collect();
    let head = Head::new(description, parameters, Transform::identity(32));
    let rows = case.rows.mapv(|value| value as f32);
    let together = head.outputs(rows.clone(), &STARTS);
    assert_eq!(together.dim(), (3, 3));
    for (text, bounds) in STARTS.windows(2).enumerate() {
        let own = rows.slice(ndarray::s![bounds[0]..bounds[1], ..]).to_owned();
        let alone = head.outputs(own, &[0, bounds[1] - bounds[0]]);
        assert_eq!(alone.row(0), together.row(text));
    }
    // What is saved is what is used: the layers in the names of the checkpoint, the rest beside them.
    let folder = tempfile::tempdir().unwrap();
    head.save(folder.path()).unwrap();
    let bytes = std::fs::read(folder.path().join(LAYERS_FILE)).unwrap();
    let names = SafeTensors::deserialize(&bytes).unwrap();
    assert!(names.tensor("encoder.layer.0.attention.attn.q.weight").is_ok());
    assert!(names.tensor("encoder.relative_attention_bias.weight").is_ok());
    assert!(names.tensor("weight").is_err());
    let opened = Head::open(folder.path()).unwrap();
    assert_eq!(opened.outputs(rows, &STARTS), together);
    std::fs::remove_file(folder.path().join(LAYERS_FILE)).unwrap();
    assert!(Head::open(folder.path()).is_err());
}

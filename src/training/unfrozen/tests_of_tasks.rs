//! Heads of every kind over the tokens above layers of an encoder, beside transformers in PyTorch.

use ndarray::{Array2, ArrayViewMut2, s};

use super::{
    tests::{close, last_layers, tensor_of},
    *,
};
use crate::{
    features::{TokenRole, output_starts},
    head::{
        learner::{Learner, TrainingBatch},
        network::{Network, NetworkInput, NetworkSpec, Trace},
        network_learner::NetworkLearner,
        saved::{Head, HeadDescription},
        span,
        spec::{HeadSpec, Objective},
        targets::TargetsView,
        transform::Transform,
    },
    train::{
        encoder_layer::LayerReal,
        loss::{Loss, Targets},
        optimizer::Optimizer,
    },
};

/// What transformers computes in f64 (scripts/fixtures/top_layers_tasks.py).
const PYTORCH: &[u8] = include_bytes!("../../../tests/fixtures/top_layers_tasks.safetensors");

/// The first rows of the four inputs, and the number of rows.
const INPUTS: [usize; 5] = [0, 7, 8, 20, 25];

const SPANS: [[u32; 2]; 4] = [[1, 2], [0, 0], [3, 5], [0, 0]];

const VALUES: [f32; 2] = [0.3, -1.2];

/// A task of the script, as a head learns it.
struct TaskCase {
    name: &'static str,
    network: Network,
    parameters: Vec<f64>,
    /// The states below the layers.
    rows: Array2<f64>,
    starts: &'static [usize],
    roles: Vec<TokenRole>,
    training: LayerTraining,
    objective: Objective,
    family: &'static str,
}

fn pytorch(name: &str) -> Option<Vec<f64>> {
    tensor_of(PYTORCH, name)
}

/// The roles of the four inputs as windows, with outputs for some of their rows.
fn with_outputs(rows: impl Iterator<Item = usize>) -> Vec<TokenRole> {
    let mut roles = Vec::new();
    for input in INPUTS.windows(2) {
        TokenRole::push_window(&mut roles, input[1] - input[0]);
    }
    rows.for_each(|row| roles[row].is_output = true);
    roles
}

/// The roles of the four inputs, divided into documents of windows.
fn with_documents(documents: &[&[u32]]) -> Vec<TokenRole> {
    TokenRole::of_documents(documents.iter().map(|windows| windows.iter().copied()))
}

impl TaskCase {
    fn new(family: &'static str, name: &'static str) -> TaskCase {
        let folder = if family == "bert" { "tiny_bert" } else { "families/mpnet" };
        let rows_loss = || Objective::Rows(Loss::default());
        let (pooling, n_outputs, starts, roles, objective) = match name {
            "tokens" => {
                let rows = [1, 3, 6, 7, 9, 12, 20, 21, 24];
                let roles = with_outputs(rows.into_iter());
                (TokenPooling::Outputs, 3, &INPUTS[..], roles, rows_loss())
            }
            "answers" => {
                let contexts = [3..6, 0..0, 4..11, 2..4];
                let rows = INPUTS.into_iter().zip(contexts).flat_map(|(start, context)| {
                    std::iter::once(start).chain(context.map(move |place| start + place))
                });
                (TokenPooling::Outputs, 2, &INPUTS[..], with_outputs(rows), Objective::Span)
            }
            "pairs" => {
                let roles = with_documents(&[&[7], &[1], &[12], &[5]]);
                (TokenPooling::Mean, 1, &[0, 8, 25][..], roles, Objective::Rows(Loss::Mse))
            }
            _ => {
                let roles = with_documents(&[&[7, 1], &[12, 5]]);
                (TokenPooling::Mean, 3, &[0, 8, 25][..], roles, rows_loss())
            }
        };
        let UnfrozenLayers { mut spec, training } = last_layers(folder, 2, pooling);
        spec.pair = name == "pairs";
        let network = Network::new(NetworkSpec {
            encoder_layers: Some(spec),
            ..NetworkSpec::linear(32, n_outputs)
        });
        let mut parameters: Vec<f64> = training.parameters.iter().copied().map(f64::from).collect();
        parameters.extend(pytorch(&format!("{family}.{name}.weight")).unwrap());
        parameters.extend(pytorch(&format!("{family}.{name}.bias")).unwrap());
        let rows = pytorch(&format!("{family}.states.0")).unwrap();
        let rows = Array2::from_shape_vec((INPUTS[4], 32), rows).unwrap();
        TaskCase { name, network, parameters, rows, starts, roles, training, objective, family }
    }

    fn targets(&self) -> TargetsView<'_> {
        match self.name {
            "tokens" => TargetsView::Rows(Targets::Classes(&[0, 2, 1, 1, 0, 2, 2, 0, 1])),
            "answers" => TargetsView::Spans(&SPANS),
            "pairs" => TargetsView::Rows(Targets::Values(&VALUES)),
            _ => TargetsView::Rows(Targets::Classes(&[2, 0])),
        }
    }

    fn expected(&self, name: &str) -> Option<Vec<f64>> {
        pytorch(&format!("{}.{}.{name}", self.family, self.name))
    }

    /// Compares logits, loss and gradients with PyTorch's.
    fn check<F: LayerReal>(&self, tolerance: f64) {
        let rows = self.rows.mapv(F::of);
        let parameters: Vec<F> = self.parameters.iter().copied().map(F::of).collect();
        let input = NetworkInput { rows: rows.view(), starts: self.starts, roles: &self.roles };
        let mut trace = Trace::default();
        self.network.forward(&parameters, &input, None, &mut trace);
        let mut d_logits = Array2::zeros(trace.logits().dim());
        let view: ArrayViewMut2<'_, F> = d_logits.view_mut();
        let loss = match (&self.objective, self.targets()) {
            (Objective::Rows(loss), TargetsView::Rows(targets)) => {
                loss.gradient(trace.logits(), targets, loss.scale(targets), view)
            }
            (_, TargetsView::Spans(spans)) => {
                let scale = F::of(1.0 / spans.len() as f64);
                let starts = output_starts(self.starts, &self.roles);
                span::gradient(trace.logits(), &starts, spans, scale, view)
            }
            _ => unreachable!("targets of the objective's kind"),
        };
        let logits: Vec<F> = trace.logits().iter().copied().collect();
        let mut gradients = vec![F::zero(); parameters.len()];
        let view = d_logits.view();
        self.network.backward(&parameters, &input, None, &mut trace, view, &mut gradients);
        let what = format!("{} of {}", self.name, self.family);
        close(&[F::of(loss.mean())], &self.expected("loss").unwrap(), tolerance, &what);
        close(&logits, &self.expected("logits").unwrap(), tolerance, &what);
        let mut n_compared = 0;
        for tensor in self.network.tensors() {
            if let Some(expected) = self.expected(&format!("gradient.{}", tensor.name)) {
                let what = format!("{what}: {}", tensor.name);
                close(&gradients[tensor.range.clone()], &expected, tolerance, &what);
                n_compared += 1;
            }
        }
        // Those of the first layer but the bias of its keys, and of the head but the bias of answers.
        assert_eq!(n_compared, if self.name == "answers" { 16 } else { 17 }, "{what}");
    }
}

fn cases() -> Vec<TaskCase> {
    let of_bert = ["tokens", "answers", "pairs", "windows"].map(|name| ("bert", name));
    let of_mpnet = ["tokens", "pairs"].map(|name| ("mpnet", name));
    let all = of_bert.into_iter().chain(of_mpnet);
    all.map(|(family, name)| TaskCase::new(family, name)).collect()
}

#[test]
fn words_answers_pairs_and_windows_give_the_logits_loss_and_gradients_of_transformers() {
    for case in cases() {
        case.check::<f64>(1e-9);
        // PyTorch's own f32 is 1.8e-5 from its f64 for the words of bert on these weights.
        let of_words = (case.family, case.name) == ("bert", "tokens");
        case.check::<f32>(if of_words { 2e-5 } else { 1e-5 });
    }
}

#[test]
fn a_step_of_training_reads_the_tokens_by_their_roles() {
    for case in cases() {
        let spec = HeadSpec {
            dropout: 0.0,
            objective: case.objective.clone(),
            // A decay moves weights without a gradient.
            optimizer: Optimizer { weight_decay: 0.0, ..Optimizer::default() },
            encoder_layers: Some(case.training.clone()),
            ..HeadSpec::new(case.network.spec().clone())
        };
        let mut learner = NetworkLearner::new(0, spec, 1);
        learner.start_from(case.parameters.iter().map(|value| *value as f32).collect());
        let rows = case.rows.mapv(|value| value as f32);
        let row_ids: Vec<u64> = (0..INPUTS[4] as u64).collect();
        learner.step(&TrainingBatch {
            rows: rows.view(),
            starts: case.starts,
            output_starts: &output_starts(case.starts, &case.roles),
            row_ids: &row_ids,
            roles: &case.roles,
            targets: case.targets(),
            epoch: 1,
        });
        let (_, loss) = learner.take_losses().remove(0);
        close(&[loss.mean()], &case.expected("loss").unwrap(), 1e-5, case.name);
        let after = learner.parameters(0);
        let mut tensors = case.network.tensors().iter();
        let lowest = tensors
            .find(|tensor| {
                tensor.name.starts_with("encoder.layer.0.") && tensor.name.ends_with(".weight")
            })
            .unwrap();
        let values = after[lowest.range.clone()].iter().zip(&case.parameters[lowest.range.clone()]);
        let mut moved = values.filter(|(after, before)| **after != **before as f32);
        assert!(moved.next().is_some(), "{} of {}: {}", case.name, case.family, lowest.name);
    }
}

#[test]
fn a_sample_has_its_outputs_alone_and_among_others_whatever_its_tokens_are_for() {
    for case in cases() {
        let network = Some(case.network.spec().clone());
        let description = HeadDescription { network, ..HeadDescription::default() };
        let parameters = case.parameters.iter().map(|value| *value as f32).collect();
        let head = Head::new(description, parameters, Transform::identity(32));
        let rows = case.rows.mapv(|value| value as f32);
        let together = head.outputs_of_tokens(rows.clone(), case.starts, &case.roles);
        let expected = case.expected("logits").unwrap();
        let logits: Vec<f32> = together.iter().copied().collect();
        close(&logits, &expected, 1e-5, case.name);
        let starts: Vec<usize> = if case.network.spec().pools() {
            (0..case.starts.len()).collect()
        } else {
            output_starts(case.starts, &case.roles).into_owned()
        };
        for (sample, bounds) in case.starts.windows(2).enumerate() {
            let own = rows.slice(s![bounds[0]..bounds[1], ..]).to_owned();
            let roles = &case.roles[bounds[0]..bounds[1]];
            let alone = head.outputs_of_tokens(own, &[0, bounds[1] - bounds[0]], roles);
            let among = together.slice(s![starts[sample]..starts[sample + 1], ..]);
            if case.network.spec().has_output_tokens() {
                assert_eq!(alone, among, "{}", case.name);
            } else {
                assert_eq!(alone.dim(), among.dim());
                let gap = (&alone - &among).iter().fold(0.0f32, |most, gap| most.max(gap.abs()));
                assert!(gap < 1e-6, "{}: {gap:e}", case.name);
            }
        }
    }
}

use ndarray::{Array2, array};
use serde_json::Value;

use super::*;

/// Losses by PyTorch 2 in f64 (scripts/fixtures/networks.py).
const PYTORCH: &str = include_str!("../../../../tests/fixtures/networks.json");

enum Owned {
    Classes(Vec<u32>),
    Labels(Array2<f32>),
    Values(Vec<f32>),
}

impl Owned {
    fn targets(&self) -> Targets<'_> {
        match self {
            Owned::Classes(classes) => Targets::Classes(classes),
            Owned::Labels(labels) => Targets::Labels(labels.view()),
            Owned::Values(values) => Targets::Values(values),
        }
    }
}

struct Case {
    name: String,
    loss: Loss,
    logits: Array2<f64>,
    targets: Owned,
    sum: f64,
    weight: f64,
    gradient: Array2<f64>,
}

fn matrix(value: &Value) -> Array2<f64> {
    let rows: Vec<Vec<f64>> = serde_json::from_value(value.clone()).unwrap();
    Array2::from_shape_vec((rows.len(), rows[0].len()), rows.concat()).unwrap()
}

fn cases() -> Vec<Case> {
    let fixture: Value = serde_json::from_str(PYTORCH).unwrap();
    let cases: Vec<Case> = fixture["losses"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, case)| {
            let settings = &case["settings"];
            let class_weights = serde_json::from_value(settings["class_weights"].clone()).unwrap();
            let label_smoothing = settings["label_smoothing"].as_f64().unwrap_or(0.0) as f32;
            let gamma = || settings["gamma"].as_f64().unwrap() as f32;
            let loss = match settings["kind"].as_str().unwrap() {
                "cross_entropy" => Loss::CrossEntropy { class_weights, label_smoothing },
                "focal" => Loss::Focal { gamma: gamma(), class_weights, label_smoothing },
                "bce" => Loss::Bce { class_weights },
                "binary_focal" => Loss::BinaryFocal { gamma: gamma(), class_weights },
                "mse" => Loss::Mse,
                other => panic!("{other}"),
            };
            let targets = match &loss {
                Loss::Mse => {
                    Owned::Values(serde_json::from_value(case["targets"].clone()).unwrap())
                }
                Loss::Bce { .. } | Loss::BinaryFocal { .. } => {
                    Owned::Labels(matrix(&case["targets"]).mapv(|label| label as f32))
                }
                _ => {
                    let classes: Vec<i64> =
                        serde_json::from_value(case["targets"].clone()).unwrap();
                    let class = |class: i64| u32::try_from(class).unwrap_or(IGNORED);
                    Owned::Classes(classes.into_iter().map(class).collect())
                }
            };
            Case {
                name: name.clone(),
                loss,
                logits: matrix(&case["logits"]),
                targets,
                sum: case["sum"].as_f64().unwrap(),
                weight: case["weight"].as_f64().unwrap(),
                gradient: matrix(&case["gradient"]),
            }
        })
        .collect();
    assert!(cases.len() >= 12, "the fixture holds its cases");
    cases
}

fn check<F: Real>(case: &Case, tolerance: f64) {
    let (name, targets) = (&case.name, case.targets.targets());
    let logits = case.logits.mapv(F::of);
    let mut gradient = Array2::from_elem(logits.dim(), F::nan());
    let scale = case.loss.scale(targets);
    let sum = case.loss.gradient(logits.view(), targets, scale, gradient.view_mut());
    assert!((sum.weight - case.weight).abs() < 1e-12, "{name}");
    assert!((sum.mean() - case.sum / case.weight).abs() < tolerance, "{name}: {sum:?}");
    for (got, expected) in gradient.iter().zip(&case.gradient) {
        let got: f64 = (*got).into();
        assert!((got - expected).abs() < tolerance, "{name}: {got} instead of {expected}");
    }
}

#[test]
fn every_loss_and_its_gradient_equal_pytorchs() {
    for case in cases() {
        check::<f32>(&case, 1e-6);
        check::<f64>(&case, 1e-12);
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    for case in cases() {
        let targets = case.targets.targets();
        let sum = |logits: &Array2<f64>| {
            let mut unused = Array2::zeros(logits.dim());
            case.loss.gradient(logits.view(), targets, 1.0, unused.view_mut()).sum
        };
        let mut gradient = Array2::zeros(case.logits.dim());
        case.loss.gradient(case.logits.view(), targets, 1.0, gradient.view_mut());
        for (index, exact) in gradient.indexed_iter() {
            let (mut up, mut down) = (case.logits.clone(), case.logits.clone());
            up[index] += 1e-5;
            down[index] -= 1e-5;
            let numeric = (sum(&up) - sum(&down)) / 2e-5;
            assert!(
                (numeric - exact).abs() <= 1e-6 * exact.abs() + 1e-8,
                "{}, {index:?}: {numeric} and {exact}",
                case.name
            );
        }
    }
}

#[test]
fn a_loss_without_gradient_is_the_same_without_smoothing() {
    for case in cases() {
        let plain = match case.loss.clone() {
            Loss::CrossEntropy { class_weights, .. } => {
                Loss::CrossEntropy { class_weights, label_smoothing: 0.0 }
            }
            Loss::Focal { gamma, class_weights, .. } => {
                Loss::Focal { gamma, class_weights, label_smoothing: 0.0 }
            }
            other => other,
        };
        let (logits, targets) = (case.logits.view(), case.targets.targets());
        let mut unused = Array2::zeros(logits.dim());
        let expected = plain.gradient(logits, targets, 1.0, unused.view_mut());
        assert_eq!(case.loss.loss(logits, targets), expected, "{}", case.name);
    }
}

#[test]
fn a_batch_in_parts_gives_the_sum_and_the_gradient_of_the_whole() {
    for case in cases() {
        let (logits, targets) = (case.logits.view(), case.targets.targets());
        let mut total = LossSum::default();
        for range in [0..5, 5..19] {
            let part = logits.slice(s![range.clone(), ..]);
            let mut gradient = Array2::zeros(part.dim());
            let scale = case.loss.scale(targets);
            let targets = targets.slice(range.clone());
            total += case.loss.gradient(part, targets, scale, gradient.view_mut());
            let difference = &gradient - &case.gradient.slice(s![range, ..]);
            assert!(difference.iter().all(|d| d.abs() < 1e-12), "{}", case.name);
        }
        assert!((total.sum - case.sum).abs() < 1e-10);
        assert!((total.weight - case.weight).abs() < 1e-12);
    }
}

#[test]
fn logits_of_any_size_give_finite_numbers() {
    let logits = array![[1e30f32, -1e30, 0.0], [300.0, 200.0, -90.0], [-1e30, 5.0, 1e30]];
    let set = array![[1.0f32, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 1.0, 0.0]];
    for case in cases() {
        let targets = match &case.loss {
            Loss::Mse => continue,
            Loss::Bce { .. } | Loss::BinaryFocal { .. } => Targets::Labels(set.view()),
            _ => Targets::Classes(&[0, 1, 2]),
        };
        let mut gradient = Array2::zeros((3, 3));
        let sum = case.loss.gradient(logits.view(), targets, 1.0, gradient.view_mut());
        assert!(sum.sum.is_finite(), "{}: {sum:?}", case.name);
        assert!(gradient.iter().all(|value| value.is_finite()), "{}: {gradient}", case.name);
    }
    let plain = Loss::default();
    let classes = Targets::Classes(&[0, 0, 2]);
    assert_eq!(plain.loss(logits.view(), classes).mean(), 0.0);
}

#[test]
fn a_logit_that_is_no_number_does_not_go_unseen() {
    let logits = array![[f32::NAN, 0.0], [0.0, f32::NAN], [0.0, 0.0]];
    for row in [0..1, 1..2] {
        let part = logits.slice(s![row, ..]);
        let loss = Loss::default().loss(part, Targets::Classes(&[0]));
        assert!(loss.mean().is_nan());
    }
}

#[test]
fn rows_that_are_all_ignored_have_no_loss_and_no_gradient() {
    let targets = Targets::Classes(&[IGNORED, IGNORED]);
    let loss = Loss::default();
    let mut gradient = array![[1.0f32, 1.0], [1.0, 1.0]];
    let logits = array![[3.0f32, f32::NAN], [0.0, 1.0]];
    let sum = loss.gradient(logits.view(), targets, loss.scale(targets), gradient.view_mut());
    assert_eq!((sum.mean(), sum.weight), (0.0, 0.0));
    assert!(gradient.iter().all(|value| *value == 0.0));
}

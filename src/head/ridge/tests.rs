use ndarray::{Array2, Axis, s};

use super::*;
use crate::head::{
    sklearn::{Case, Fixture, difference, parameters},
    targets::TargetTable,
    transform::Transform,
};

fn fit_cases(
    fixture: &Fixture,
    targets: &TargetTable,
    n_outputs: usize,
    cases: &[Case],
) -> Vec<TrainedHead> {
    let transform = Transform::identity(fixture.n_features());
    let sets = fixture.row_sets();
    let gram = Gram::of(&fixture.view(), &transform, targets, n_outputs, &sets).unwrap();
    let specs: Vec<RidgeSpec> =
        cases.iter().map(|case| RidgeSpec { lambda: case.lambda, rows: case.set }).collect();
    fit(&gram, &specs).unwrap()
}

/// Fails if the head's outputs on its own rows, or its weights, differ from scikit-learn's by more than 1e-5.
fn assert_equal(fixture: &Fixture, case: &Case, weights: &Array2<f64>, bias: &Array1<f64>) {
    let (expected, expected_bias) = case.parameters();
    let off = difference(weights, &expected);
    assert!(off < 1e-5, "weights of set {}, {}: {off}", case.set, case.lambda);
    let scores = fixture.scores(case.set, weights, bias);
    let off = difference(&scores, &fixture.scores(case.set, &expected, &expected_bias));
    assert!(off < 1e-5, "outputs of set {}, {}: {off}", case.set, case.lambda);
}

#[test]
fn classifiers_of_every_lambda_and_fold_equal_scikit_learns() {
    let fixture = Fixture::read();
    let targets = TargetTable::Classes(fixture.classes.clone());
    let heads = fit_cases(&fixture, &targets, 3, &fixture.ridge_classes);
    for (case, head) in fixture.ridge_classes.iter().zip(&heads) {
        let (weights, bias) = parameters(head, fixture.n_features());
        match &fixture.present(case.set, &fixture.classes)[..] {
            // scikit-learn's only column is that of the second of two classes.
            [_, second] => {
                let (weights, bias) = (weights.slice(s![.., 1..2]), bias.slice(s![1..2]));
                assert_equal(&fixture, case, &weights.to_owned(), &bias.to_owned());
                assert_eq!(*second, 1);
            }
            _ => assert_equal(&fixture, case, &weights, &bias),
        }
    }
}

#[test]
fn a_class_without_rows_is_never_predicted() {
    let fixture = Fixture::read();
    let targets = TargetTable::Classes(fixture.classes.clone());
    let heads = fit_cases(&fixture, &targets, 3, &fixture.ridge_classes);
    let without = fixture.ridge_classes.iter().zip(&heads).filter(|(case, _)| case.set == 2);
    let mut n = 0;
    for (_, head) in without {
        let (weights, bias) = parameters(head, fixture.n_features());
        assert!(weights.index_axis(Axis(1), 2).iter().all(|weight| *weight == 0.0));
        assert_eq!(bias[2], f64::from(NEVER));
        n += 1;
    }
    assert_eq!(n, 3);
}

#[test]
fn labels_and_numbers_equal_scikit_learns() {
    let fixture = Fixture::read();
    let labels =
        Array2::from_shape_fn((fixture.labels.len(), 2), |(row, label)| fixture.labels[row][label]);
    let heads = fit_cases(&fixture, &TargetTable::Labels(labels), 2, &fixture.ridge_labels);
    let values = TargetTable::Values(fixture.values.clone());
    let of_values = fit_cases(&fixture, &values, 1, &fixture.ridge_values);
    let cases = fixture.ridge_labels.iter().chain(&fixture.ridge_values);
    for (case, head) in cases.zip(heads.iter().chain(&of_values)) {
        let (weights, bias) = parameters(head, fixture.n_features());
        assert_equal(&fixture, case, &weights, &bias);
    }
}

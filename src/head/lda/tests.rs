use ndarray::{Array1, Array2, Axis};

use super::*;
use crate::{
    head::{
        sklearn::{Fixture, difference, parameters},
        targets::TargetTable,
        transform::Transform,
    },
    metrics::calibration::softmax_rows,
};

fn centred(matrix: &Array2<f64>) -> Array2<f64> {
    matrix - &matrix.mean_axis(Axis(1)).unwrap().insert_axis(Axis(1))
}

#[test]
fn discriminants_of_every_lambda_and_fold_equal_scikit_learns() {
    let fixture = Fixture::read();
    let transform = Transform::identity(fixture.n_features());
    let targets = TargetTable::Classes(fixture.classes.clone());
    let gram = Gram::of(&fixture.view(), &transform, &targets, 3, &fixture.row_sets()).unwrap();
    let specs = fixture.lda.iter().map(|case| LdaSpec { lambda: case.lambda, rows: case.set });
    let heads = fit(&gram, &specs.collect::<Vec<_>>()).unwrap();
    for (case, head) in fixture.lda.iter().zip(&heads) {
        let present = fixture.present(case.set, &fixture.classes);
        let (weights, bias) = parameters(head, fixture.n_features());
        let (own, own_bias) = (weights.select(Axis(1), &present), bias.select(Axis(0), &present));
        let (expected, expected_bias) = case.parameters();
        let (own, expected) = match expected.ncols() {
            // For two classes scikit-learn gives the difference.
            1 => (
                &own.column(1).insert_axis(Axis(1)) - &own.column(0).insert_axis(Axis(1)),
                expected,
            ),
            _ => (centred(&own), centred(&expected)),
        };
        let off = difference(&own, &expected);
        assert!(off < 1e-5, "set {}, lambda {}: {off}", case.set, case.lambda);
        if expected_bias.len() == 1 {
            let off = (own_bias[1] - own_bias[0] - expected_bias[0]).abs();
            assert!(off < 1e-4 * expected_bias[0].abs().max(1.0), "{off}");
        }

        let scores: Array2<f64> = fixture.scores(case.set, &weights, &bias);
        let scores = scores.select(Axis(1), &present).mapv(|score| score as f32);
        let got = softmax_rows(scores.view(), 1.0);
        for (row, probabilities) in case.probabilities.iter().enumerate() {
            let row: Array1<f64> = got.row(row).mapv(f64::from);
            for (got, expected) in row.iter().zip(probabilities) {
                assert!((got - expected).abs() < 1e-4, "{got} and {expected}");
            }
        }
    }
}

#[test]
fn classes_without_any_variance_are_told_apart_by_their_means() {
    let view = crate::head::sklearn::view(&[0.0, 1.0, 0.0, 1.0, 2.0, 1.0, 2.0, 1.0], 2);
    let targets = TargetTable::Classes(vec![0, 0, 1, 1]);
    let gram = Gram::of(&view, &Transform::identity(2), &targets, 2, &[&[0, 1, 2, 3]]).unwrap();
    let heads = fit(&gram, &[LdaSpec { lambda: 1.0, rows: 0 }]).unwrap();
    let (weights, bias) = parameters(&heads[0], 2);
    let scores = |x: f64| x * &weights.row(0) + weights.row(1) + &bias;
    let (low, high) = (scores(0.0), scores(2.0));
    assert!(low[0] > low[1] && high[1] > high[0], "{low} {high}");
}

use ndarray::{Array2, Axis};

use super::{
    objective::{Arithmetic, EvaluationPoint, evaluate},
    *,
};
use crate::head::sklearn::{Case, Fixture, difference, parameters, view};

const TIGHT: LogisticSettings = LogisticSettings { tolerance: 1e-8, max_iterations: 2000 };

fn spec(fixture: &Fixture, case: &Case, labels: &[u32]) -> LogisticSpec {
    let class_weights = match case.class_weights {
        0 => None,
        1 => {
            let own = &fixture.sets[case.set];
            let count = |class: u32| own.iter().filter(|s| labels[**s as usize] == class).count();
            let counts = [0, 1, 2].map(count);
            let n_classes = counts.iter().filter(|count| **count > 0).count();
            Some(
                counts
                    .map(|count| (own.len() as f64 / (n_classes * count.max(1)) as f64) as f32)
                    .to_vec(),
            )
        }
        _ => Some(fixture.given_weights.clone()),
    };
    LogisticSpec { c: case.c, class_weights, rows: case.set }
}

/// Fits all cases at once; fails if a head differs from scikit-learn's.
fn assert_equal(fixture: &Fixture, labels: &[u32], cases: &[Case]) {
    let specs: Vec<LogisticSpec> = cases.iter().map(|case| spec(fixture, case, labels)).collect();
    let (n_features, sets) = (fixture.n_features(), fixture.row_sets());
    let transform = Transform::identity(n_features);
    let data = ClassRows { view: &fixture.view(), transform: &transform, labels, n_classes: 3 };
    let fits = fit(&data, &sets, &specs, TIGHT, &()).unwrap();
    for (case, fitted) in cases.iter().zip(&fits) {
        let name = format!("set {}, C {}, weights {}", case.set, case.c, case.class_weights);
        let (weights, bias) = parameters(&fitted.head, n_features);
        let present = fixture.present(case.set, labels);
        assert!((0..3).all(|class| present.contains(&class) == (bias[class] != f64::from(NEVER))));
        let mut own = weights.select(Axis(1), &present);
        let mut own_bias = bias.select(Axis(0), &present);
        let (expected, expected_bias) = case.parameters();
        if expected.ncols() == 1 {
            own = &own.column(1).insert_axis(Axis(1)) - &own.column(0).insert_axis(Axis(1));
            own_bias = &own_bias.slice(ndarray::s![1..]) - &own_bias.slice(ndarray::s![..1]);
        }
        let off = difference(&own, &expected);
        assert!(off < 1e-4, "weights of {name}: {off}");
        // The biases of several classes may have a common shift.
        let own_mean = own_bias.mean().unwrap() * f64::from(expected.ncols() > 1);
        let expected_mean = expected_bias.mean().unwrap() * f64::from(expected.ncols() > 1);
        let got = fixture.scores(case.set, &own, &(own_bias - own_mean));
        let wanted = fixture.scores(case.set, &expected, &(expected_bias - expected_mean));
        let off = difference(&got, &wanted);
        assert!(off < 1e-4, "outputs of {name}: {off}");
    }
}

#[test]
fn regressions_of_three_classes_equal_scikit_learns() {
    let fixture = Fixture::read();
    assert_equal(&fixture, &fixture.classes, &fixture.logistic);
}

#[test]
fn regressions_of_two_classes_equal_scikit_learns() {
    let fixture = Fixture::read();
    assert_equal(&fixture, &fixture.two, &fixture.logistic_two);
}

/// Rows of many classes, as overlapping clusters.
fn clusters(n: usize, n_features: usize, n_classes: u32) -> (Vec<f32>, Vec<u32>) {
    let labels: Vec<u32> = (0..n as u32).map(|row| row * 7 % n_classes).collect();
    let noise = |at: usize| ((at * 2_654_435_761) % 1_000_003) as f32 / 500_001.5 - 1.0;
    let value = |at: usize| {
        let (row, feature) = (at / n_features, at % n_features);
        let centre = noise(labels[row] as usize * n_features + feature + 17);
        (centre + 3.0 * noise(at * 31 + 5)) * (1.0 + 0.1 * feature as f32)
    };
    ((0..n * n_features).map(value).collect(), labels)
}

fn many(n_classes: u32, c: &[f64], settings: LogisticSettings) -> Vec<LogisticFit> {
    let (values, labels) = clusters(1500, 12, n_classes);
    let folds: Vec<Vec<u32>> =
        (0..2).map(|fold| (0..1500).filter(|row| row % 2 == fold).collect()).collect();
    let specs: Vec<LogisticSpec> = [0, 1]
        .iter()
        .flat_map(|rows| c.iter().map(|c| LogisticSpec { c: *c, class_weights: None, rows: *rows }))
        .collect();
    let sets: Vec<&[u32]> = folds.iter().map(Vec::as_slice).collect();
    let transform = Transform::identity(12);
    let data = ClassRows {
        view: &view(&values, 12),
        transform: &transform,
        labels: &labels,
        n_classes: n_classes as usize,
    };
    fit(&data, &sets, &specs, settings, &()).unwrap()
}

#[test]
fn many_classes_at_every_c_reach_the_minimum_that_each_reaches_alone() {
    let all = many(40, &[1.0, 0.01, 0.1], LogisticSettings::default());
    for (place, c) in [1.0, 0.01, 0.1].iter().enumerate() {
        let alone = many(40, &[*c], LogisticSettings::default());
        for (fold, alone) in alone.iter().enumerate() {
            let among = &all[fold * 3 + place];
            for fit in [among, alone] {
                let reached = fit.gradient_norm;
                assert!(reached <= 1e-6, "C {c}: {reached:e} after {}", fit.iterations);
            }
            assert!((among.loss - alone.loss).abs() < 1e-7, "{} {}", among.loss, alone.loss);
            let (own, _) = parameters(&alone.head, 12);
            let off = difference(&parameters(&among.head, 12).0, &own);
            assert!(off < 2e-3, "C {c}, fold {fold}: {off}");
        }
    }
}

#[test]
fn the_bits_of_every_head_depend_on_no_number_of_threads() {
    for n_classes in [2, 5, 40] {
        let with_threads = |n: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(n).build().unwrap();
            pool.install(|| many(n_classes, &[0.01, 0.1, 1.0], LogisticSettings::default()))
        };
        let (one, three) = (with_threads(1), with_threads(3));
        for (one, three) in one.iter().zip(&three) {
            assert_eq!(one.head.parameters, three.head.parameters);
            assert_eq!((one.iterations, one.loss), (three.iterations, three.loss));
        }
    }
}

#[test]
fn the_gradient_is_the_slope_of_the_loss() {
    let (values, labels) = clusters(300, 4, 3);
    let groups = RowGroups::new(&[&(0..300).collect::<Vec<u32>>()]);
    let data = TurnedRows::new(&view(&values, 4), &Transform::identity(4), &groups).unwrap();
    for n_classes in [2u32, 3] {
        let labels: Vec<u32> = labels.iter().map(|label| label % n_classes).collect();
        let spec = LogisticSpec { c: 0.5, class_weights: Some(vec![2.0, 0.5, 1.0]), rows: 0 };
        let problem = problems(&groups, &labels, 3, &[spec]).remove(0);
        let shape = (5, problem.n_columns());
        let point = Array2::from_shape_fn(shape, |(i, j)| 0.05 * i as f64 - 0.1 * j as f64);
        // In f32 a small step would be lost in rounding.
        assert_slopes::<f32>(&problem, &point, (0.01, 2e-3), &data, &groups);
        assert_slopes::<f64>(&problem, &point, (1e-4, 1e-7), &data, &groups);
    }
}

/// Fails if a gradient differs from the central difference of the loss by more than a share of it, or of 0.1.
fn assert_slopes<F: Arithmetic>(
    problem: &LogisticProblem,
    point: &Array2<f64>,
    (step, tolerance): (f64, f64),
    data: &TurnedRows,
    groups: &RowGroups,
) {
    let value = |point: &Array2<f64>| {
        let request = EvaluationPoint { problem, point: point.view() };
        evaluate::<F>(data, groups, &[request]).remove(0)
    };
    for (place, slope) in value(point).gradient.indexed_iter() {
        let moved = |by: f64| {
            let mut moved = point.clone();
            moved[place] += by;
            value(&moved).value
        };
        let expected = (moved(step) - moved(-step)) / (2.0 * step);
        assert!(
            (slope - expected).abs() < tolerance * expected.abs().max(0.1),
            "{place:?}: {slope} {expected}"
        );
    }
}

#[test]
fn a_tolerance_that_f32_cannot_reach_is_reached() {
    for n_classes in [2, 40] {
        let tight = LogisticSettings { tolerance: 1e-11, max_iterations: 5000 };
        for fit in many(n_classes, &[1.0, 100.0], tight) {
            let (reached, steps) = (fit.gradient_norm, fit.iterations);
            assert!(reached <= 1e-11, "{reached:e} after {steps}");
        }
    }
}

#[test]
fn rows_of_one_class_predict_it() {
    let (values, _) = clusters(20, 3, 2);
    let specs = [LogisticSpec { c: 1.0, class_weights: None, rows: 0 }];
    let samples: Vec<u32> = (0..20).collect();
    let transform = Transform::identity(3);
    let data = ClassRows {
        view: &view(&values, 3),
        transform: &transform,
        labels: &[1; 20],
        n_classes: 2,
    };
    let fits = fit(&data, &[&samples], &specs, TIGHT, &()).unwrap();
    let (weights, bias) = parameters(&fits[0].head, 3);
    assert!(weights.iter().all(|weight| *weight == 0.0));
    assert_eq!((bias[0], bias[1]), (f64::from(NEVER), 0.0));
}

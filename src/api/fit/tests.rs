use std::fs;

use ndarray::{Array2, array};
use serde::Deserialize;

use super::*;

/// The rows of tests/fixtures/classical.json.
#[derive(Deserialize)]
struct Rows {
    rows: Vec<Vec<f32>>,
    classes: Vec<u32>,
    two: Vec<u32>,
}

impl Rows {
    fn read() -> Rows {
        let text = include_str!("../../../tests/fixtures/classical.json");
        serde_json::from_str(text).expect("the fixture is JSON")
    }

    fn array(&self) -> Array2<f32> {
        let shape = (self.rows.len(), self.rows[0].len());
        Array2::from_shape_vec(shape, self.rows.concat()).expect("rows of equal width")
    }

    fn labels(&self) -> Vec<String> {
        self.classes.iter().map(u32::to_string).collect()
    }
}

/// scikit-learn's results on these rows: scripts/fixtures/fit.py.
#[derive(Deserialize)]
struct Fixture {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    target: String,
    c: f64,
    balanced: bool,
    probabilities: Vec<Vec<f32>>,
}

#[test]
fn probabilities_equal_those_of_scikit_learns_scaler_and_logistic_regression() {
    let rows = Rows::read();
    let fixture: Fixture =
        serde_json::from_str(include_str!("../../../tests/fixtures/fit.json")).unwrap();
    assert_eq!(fixture.cases.len(), 8);
    for case in &fixture.cases {
        let classes = if case.target == "two" { &rows.two } else { &rows.classes };
        let labels: Vec<String> = classes.iter().map(u32::to_string).collect();
        let head = FitHead::logistic(case.c);
        let options = FitOptions::default().head(head).balanced(case.balanced);
        let fitted = fit(rows.array().view(), &labels, &options).unwrap();
        let probabilities = fitted.predict_proba(rows.array().view()).unwrap();
        assert_eq!(probabilities.dim(), (120, fitted.labels().len()));
        let expected = case.probabilities.concat();
        let differences =
            probabilities.iter().zip(&expected).map(|(one, other)| (one - other).abs());
        let largest = differences.fold(0.0f32, f32::max);
        assert!(largest < 5e-5, "{} C {} {}: {largest}", case.target, case.c, case.balanced);
    }
}

#[test]
fn folds_choose_a_c_that_the_saved_head_tells() {
    let rows = Rows::read();
    let (values, labels) = (rows.array(), rows.labels());
    let fitted = |options: &FitOptions| fit(values.view(), &labels, options).unwrap();
    let chosen = fitted(&FitOptions::default());
    let c = chosen.description().c.unwrap();
    assert!([1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1000.0].contains(&c), "{c}");
    let given = fitted(&FitOptions::default().head(FitHead::logistic(c)));
    assert_eq!(given.description().c, None, "nothing was chosen");
    let proba = |head: &Classifier| head.predict_proba(values.view()).unwrap();
    assert_eq!(proba(&chosen), proba(&given));
    // Two rows leave no folds to choose by.
    let few = array![[0.0f32, 1.0], [1.0, 0.0]];
    let head = fit(few.view(), &["a", "b"], &FitOptions::default()).unwrap();
    assert_eq!(head.description().c, None);
    let one = fit(few.view(), &["a", "b"], &FitOptions::default().head(FitHead::logistic(1.0)));
    let proba = |head: &Classifier| head.predict_proba(few.view()).unwrap();
    assert_eq!(proba(&head), proba(&one.unwrap()));
}

#[test]
fn a_network_learns_the_same_bits_from_the_same_seed_and_others_from_another() {
    let rows = Rows::read();
    let (values, labels) = (rows.array(), rows.labels());
    for head in [FitHead::linear(), FitHead::mlp(&[8])] {
        let proba = |seed: u64| {
            let options = FitOptions::default().head(head.clone()).balanced(true).seed(seed);
            fit(values.view(), &labels, &options).unwrap().predict_proba(values.view()).unwrap()
        };
        let (one, same, other) = (proba(1), proba(1), proba(2));
        assert_eq!(one, same);
        assert_ne!(one, other);
    }
    let network = NetworkOptions::default().hidden(&[16]).epochs(60).learning_rate(1e-2);
    let head = FitHead::Network(network);
    let fitted = fit(values.view(), &labels, &FitOptions::default().head(head)).unwrap();
    let predicted = fitted.predict(values.view()).unwrap();
    let right = predicted.iter().zip(&labels).filter(|(one, other)| *one == other).count();
    assert!(right > 90, "{right} of 120");
}

#[test]
fn a_saved_head_predicts_the_same_bits() {
    let rows = Rows::read();
    let (values, labels) = (rows.array(), rows.labels());
    let folder = tempfile::tempdir().unwrap();
    for (number, head) in
        [FitHead::default(), FitHead::linear(), FitHead::mlp(&[8])].into_iter().enumerate()
    {
        let fitted = fit(values.view(), &labels, &FitOptions::default().head(head)).unwrap();
        let path = folder.path().join(format!("heads/{number}"));
        fitted.save(&path).unwrap();
        let opened = Classifier::open(&path).unwrap();
        assert_eq!((opened.labels(), opened.n_features()), (fitted.labels(), 6));
        assert_eq!(opened.description(), fitted.description());
        let proba = |head: &Classifier| head.predict_proba(values.view()).unwrap();
        assert_eq!(proba(&opened), proba(&fitted));
    }
    fs::write(folder.path().join("heads/0/head.safetensors"), b"short").unwrap();
    let error = Classifier::open(folder.path().join("heads/0")).unwrap_err();
    assert!(error.to_string().contains("expected a whole safetensors file"), "{error}");
    assert!(matches!(Classifier::open(folder.path()), Err(Error::Io(_))));
}

#[test]
fn rows_in_another_memory_order_and_parts_of_them_are_the_same_rows() {
    let rows = Rows::read();
    let (values, labels) = (rows.array(), rows.labels());
    let fitted = fit(values.view(), &labels, &FitOptions::default()).unwrap();
    let all = fitted.predict_proba(values.view()).unwrap();
    let columns_first = values.t().as_standard_layout().into_owned();
    assert_eq!(fitted.predict_proba(columns_first.t()).unwrap(), all);
    let part = fitted.predict_proba(values.slice(ndarray::s![7..9, ..])).unwrap();
    assert_eq!(part, all.slice(ndarray::s![7..9, ..]));
    let none = fitted.predict_proba(values.slice(ndarray::s![..0, ..])).unwrap();
    assert_eq!(none.dim(), (0, 3));
}

#[test]
fn labels_that_are_numbers_stand_in_their_order() {
    let rows = array![[0.0f32], [1.0], [2.0], [0.1], [1.1], [2.1]];
    let labels = ["10", "2", "-1", "10", "2", "-1"];
    let head = fit(rows.view(), &labels, &FitOptions::default()).unwrap();
    assert_eq!(head.labels(), ["-1", "2", "10"]);
    assert_eq!(head.predict(array![[2.5f32], [-1.0]].view()).unwrap(), ["-1", "10"]);
}

#[test]
fn arguments_that_do_not_fit_are_named_with_a_cure() {
    let rows = array![[0.0f32, 1.0], [1.0, 0.0], [2.0, 0.0]];
    let options = FitOptions::default();
    let refused = |labels: &[&str], rows: ArrayView2<'_, f32>, options: &FitOptions| {
        let error = fit(rows, labels, options).unwrap_err();
        assert!(error.hint().is_some());
        error.to_string()
    };
    let message = refused(&["a", "b"], rows.view(), &options);
    assert_eq!(
        message,
        "cannot fit a head: expected one label for each row, got 2 labels for 3 rows"
    );
    let message = refused(&["a", "", "b"], rows.view(), &options);
    assert_eq!(message, "cannot fit a head: expected a label for each row, got labels[1] = ``");
    let message = refused(&["a", "a", "a"], rows.view(), &options);
    assert_eq!(message, "cannot fit a head: expected labels of at least two classes, got 1 class");
    let mut broken = rows.clone();
    broken[[1, 1]] = f32::NAN;
    let message = refused(&["a", "b", "b"], broken.view(), &options);
    assert_eq!(message, "cannot fit a head: expected finite values, got rows[[1, 1]] = NaN");
    let network = |network: NetworkOptions| options.clone().head(FitHead::Network(network));
    let wrong = [
        options.clone().head(FitHead::logistic(0.0)),
        options.clone().head(FitHead::logistic(f64::NAN)),
        network(NetworkOptions::default().epochs(0)),
        network(NetworkOptions::default().hidden(&[4, 0])),
        network(NetworkOptions::default().learning_rate(-1.0)),
    ];
    for options in wrong {
        refused(&["a", "b", "b"], rows.view(), &options);
    }
    let head = fit(rows.view(), &["a", "b", "b"], &options).unwrap();
    let error = head.predict(array![[1.0f32]].view()).unwrap_err();
    assert_eq!(error.to_string(), "cannot predict: expected rows of 2 features, got rows of 1");
}

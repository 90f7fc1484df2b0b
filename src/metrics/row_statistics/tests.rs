use std::sync::Arc;

use ndarray::{Array2, Axis};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use super::*;
use crate::metrics::{classification, multilabel, regression, span, tagging};

const OF_PROBABILITIES: [Metric; 4] = [Metric::RocAuc, Metric::LogLoss, Metric::Brier, Metric::Ece];

/// Asserts that every metric on all rows is defined and equals the one in `expected`.
fn holds(statistics: &RowStatistics, expected: &Value) {
    for metric in statistics.metrics() {
        let got = statistics.score(metric, None);
        assert!(got.is_some(), "{metric} is undefined");
        assert_eq!(got, expected[metric.name()].as_f64(), "{metric}");
    }
}

/// Returns how often each row is drawn, and the drawn rows.
fn draw(rng: &mut ChaCha8Rng, n_rows: usize) -> (Vec<u32>, Vec<usize>) {
    let weights: Vec<u32> = (0..n_rows).map(|_| rng.gen_range(0..4)).collect();
    let rows = (0..n_rows).flat_map(|row| std::iter::repeat_n(row, weights[row] as usize));
    let rows = rows.collect();
    (weights, rows)
}

/// Asserts that a weighted score is that of repeated rows, up to the rounding of sums in another order.
fn weighs(statistics: &RowStatistics, repeated: &RowStatistics, weights: &[u32]) {
    assert_eq!(repeated.n_rows() as u32, weights.iter().sum::<u32>(), "the rows drawn");
    for metric in statistics.metrics() {
        let got = statistics.score(metric, Some(weights)).unwrap();
        let expected = repeated.score(metric, None).unwrap();
        assert!((got - expected).abs() < 1e-12, "{metric}: {got} {expected}");
    }
}

#[test]
fn classes_score_as_the_classifier_does() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    for n_classes in [2, 5] {
        let gold: Vec<u32> = (0..120).map(|_| rng.gen_range(0..n_classes)).collect();
        let probabilities =
            Array2::from_shape_simple_fn((120, n_classes as usize), || rng.gen_range(0.0..1.0f32));
        let predicted: Vec<u32> = crate::metrics::probability::predictions(probabilities.view())
            .into_iter()
            .map(|class| class as u32)
            .collect();
        let labels: Vec<usize> = gold.iter().map(|&class| class as usize).collect();
        let metrics =
            classification::evaluate(&labels, probabilities.view(), n_classes as usize, None);
        let of = |rows: &[usize]| {
            RowStatistics::classes(
                Arc::new(rows.iter().map(|&row| gold[row]).collect()),
                rows.iter().map(|&row| predicted[row]).collect(),
                n_classes as usize,
            )
        };
        let statistics = of(&(0..120).collect::<Vec<_>>());
        assert_eq!(statistics.metrics().len(), 5);
        holds(&statistics, &serde_json::to_value(metrics).unwrap());
        let (weights, rows) = draw(&mut rng, 120);
        weighs(&statistics, &of(&rows), &weights);
    }
}

#[test]
fn labels_score_as_the_multi_label_classifier_does() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let gold = Array2::from_shape_simple_fn((80, 4), || rng.gen_bool(0.3));
    let probabilities = gold.mapv(|has| {
        let noise: f32 = rng.gen_range(0.0..1.0);
        0.4 * f32::from(u8::from(has)) + 0.6 * noise
    });
    let predicted = probabilities.mapv(|probability| probability >= 0.5);
    let metrics = multilabel::evaluate(gold.view(), probabilities.view(), &[0.5; 4], None);
    let statistics = RowStatistics::labels(gold.view(), predicted.view());
    assert_eq!(statistics.metrics().len(), 5);
    holds(&statistics, &serde_json::to_value(metrics).unwrap());
    let (weights, rows) = draw(&mut rng, 80);
    let repeated = RowStatistics::labels(
        gold.select(Axis(0), &rows).view(),
        predicted.select(Axis(0), &rows).view(),
    );
    weighs(&statistics, &repeated, &weights);
}

/// Runs [`holds`] and [`weighs`] on statistics that are created for each metric of probabilities.
fn of_probabilities(
    n_rows: usize,
    expected: &Value,
    of: impl Fn(Metric, &[usize]) -> RowStatistics,
) {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let all: Vec<usize> = (0..n_rows).collect();
    for metric in OF_PROBABILITIES {
        let statistics = of(metric, &all);
        assert!(statistics.metrics().contains(&metric), "{metric}");
        holds(&statistics, expected);
        let (weights, rows) = draw(&mut rng, n_rows);
        weighs(&statistics, &of(metric, &rows), &weights);
        assert_eq!(statistics.right(metric), None);
    }
}

#[test]
fn probabilities_of_classes_score_as_the_classifier_does() {
    let mut rng = ChaCha8Rng::seed_from_u64(21);
    for n_classes in [2, 5] {
        let gold: Vec<u32> = (0..120).map(|_| rng.gen_range(0..n_classes)).collect();
        let logits = Array2::from_shape_fn((120, n_classes as usize), |(row, class)| {
            rng.gen_range(-1.0..1.0f32) + f32::from(u8::from(gold[row] as usize == class))
        });
        let probabilities = crate::metrics::calibration::softmax_rows(logits.view(), 1.0);
        let labels: Vec<usize> = gold.iter().map(|&class| class as usize).collect();
        let metrics =
            classification::evaluate(&labels, probabilities.view(), n_classes as usize, None);
        let expected = serde_json::to_value(metrics).unwrap();
        of_probabilities(120, &expected, |metric, rows| {
            let gold: Vec<u32> = rows.iter().map(|&row| gold[row]).collect();
            let own = probabilities.select(Axis(0), rows);
            RowStatistics::class_probabilities(metric, &gold, own.view())
        });
    }
}

#[test]
fn probabilities_of_labels_score_as_the_multi_label_classifier_does() {
    let mut rng = ChaCha8Rng::seed_from_u64(22);
    let gold = Array2::from_shape_simple_fn((80, 4), || rng.gen_bool(0.3));
    let probabilities = gold.mapv(|has| {
        let noise: f32 = rng.gen_range(0.0..1.0);
        0.4 * f32::from(u8::from(has)) + 0.6 * noise
    });
    let metrics = multilabel::evaluate(gold.view(), probabilities.view(), &[0.5; 4], None);
    let expected = serde_json::to_value(metrics).unwrap();
    of_probabilities(80, &expected, |metric, rows| {
        let [gold, probabilities] =
            [gold.mapv(|has| f32::from(u8::from(has))), probabilities.clone()]
                .map(|all| all.select(Axis(0), rows));
        let gold = gold.mapv(|has| has == 1.0);
        RowStatistics::label_probabilities(metric, gold.view(), probabilities.view())
    });
}

#[test]
fn probabilities_that_are_not_finite_have_no_score() {
    let probabilities = ndarray::array![[f32::NAN, 1.0], [0.5, 0.5]];
    let gold = ndarray::array![[true, false], [false, true]];
    for metric in OF_PROBABILITIES {
        let of_classes = RowStatistics::class_probabilities(metric, &[0, 1], probabilities.view());
        let of_labels =
            RowStatistics::label_probabilities(metric, gold.view(), probabilities.view());
        for statistics in [of_classes, of_labels] {
            assert_eq!((statistics.n_rows(), statistics.score(metric, None)), (2, None));
        }
    }
}

#[test]
fn values_score_as_the_regressor_does() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let gold: Vec<f64> = (0..90).map(|_| f64::from(rng.gen_range(0..9))).collect();
    let noisy = |value: &f64| value + f64::from(rng.gen_range(-30..30)) / 8.0;
    let predicted: Vec<f64> = gold.iter().map(noisy).collect();
    let statistics = RowStatistics::values(&gold, &predicted);
    let metrics = regression::evaluate(&gold, &predicted, None);
    assert_eq!(statistics.metrics().len(), 4);
    holds(&statistics, &serde_json::to_value(metrics).unwrap());
    let (weights, rows) = draw(&mut rng, 90);
    let [gold, predicted] =
        [&gold, &predicted].map(|all| rows.iter().map(|&row| all[row]).collect::<Vec<f64>>());
    weighs(&statistics, &RowStatistics::values(&gold, &predicted), &weights);
}

#[test]
fn a_head_that_diverged_has_no_score() {
    let statistics = RowStatistics::values(&[1.0, 2.0], &[f64::NAN, 1.0]);
    assert_eq!((statistics.n_rows(), statistics.score(Metric::Mse, None)), (2, None));
}

#[test]
fn sentences_score_as_the_tagger_does() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    for labels in [&["O", "B-x", "I-x", "B-y", "I-y"][..], &["NOUN", "VERB", "DET"][..]] {
        let labels: Vec<String> = labels.iter().map(ToString::to_string).collect();
        let n_labels = labels.len();
        let tags: Vec<(Vec<usize>, Vec<Option<usize>>)> = (0..40)
            .map(|_| {
                let n_words = rng.gen_range(1..9);
                let truth: Vec<usize> = (0..n_words).map(|_| rng.gen_range(0..n_labels)).collect();
                let say = |&tag: &usize| match rng.gen_range(0..10) {
                    0 => None,
                    1..4 => Some(rng.gen_range(0..n_labels)),
                    _ => Some(tag),
                };
                let predicted = truth.iter().map(say).collect();
                (truth, predicted)
            })
            .collect();
        let sentence = |row: usize| TaggedSentence { truth: &tags[row].0, predicted: &tags[row].1 };
        let sentences: Vec<TaggedSentence> = (0..40).map(sentence).collect();
        let metrics = serde_json::to_value(tagging::evaluate(&sentences, &labels, None)).unwrap();
        let (weights, rows) = draw(&mut rng, 40);
        let drawn: Vec<TaggedSentence> = rows.iter().map(|&row| sentence(row)).collect();
        for of in [RowStatistics::sentences, RowStatistics::tags] {
            let statistics = of(&sentences, &labels);
            holds(&statistics, &metrics);
            weighs(&statistics, &of(&drawn, &labels), &weights);
        }
        let known = RowStatistics::sentences(&sentences, &labels).metrics();
        assert_eq!(known.len(), if n_labels == 5 { 5 } else { 1 });
    }
}

#[test]
fn answers_score_by_the_rules_of_squad() {
    let question = |gold: &str, predicted: &str| AnsweredQuestion {
        gold: vec![gold.to_string()],
        predicted: Some(predicted.to_string()),
    };
    let questions =
        [question("the Seine", "Seine"), question("in 1889", "1889"), question("Eiffel", "")];
    let statistics = RowStatistics::answers(&questions);
    let metrics = span::evaluate(&questions, None);
    holds(&statistics, &serde_json::to_value(metrics).unwrap());
    assert_eq!(statistics.score(Metric::ExactMatch, Some(&[0, 2, 0])), Some(0.0));
    assert_eq!(statistics.right(Metric::ExactMatch), Some(vec![true, false, false]));
}

#[test]
fn right_rows_are_told_where_the_metric_is_their_share() {
    let classes = RowStatistics::classes(Arc::new(vec![0, 1, 1]), vec![0, 0, 1], 2);
    assert_eq!(classes.right(Metric::Accuracy), Some(vec![true, false, true]));
    assert_eq!(classes.right(Metric::MacroF1), None);
    let gold = ndarray::array![[true, false], [true, true]];
    let labels =
        RowStatistics::labels(gold.view(), ndarray::array![[true, false], [true, false]].view());
    assert_eq!(labels.right(Metric::Accuracy), Some(vec![true, false]));
    assert_eq!(RowStatistics::values(&[1.0], &[1.0]).right(Metric::Mse), None);
}

#[test]
fn without_rows_there_is_no_score() {
    let none = [
        RowStatistics::classes(Arc::new(vec![]), vec![], 2),
        RowStatistics::labels(Array2::default((0, 3)).view(), Array2::default((0, 3)).view()),
        RowStatistics::values(&[], &[]),
        RowStatistics::sentences(&[], &["O".into(), "B-x".into()]),
        RowStatistics::tags(&[], &["O".into()]),
        RowStatistics::answers(&[]),
    ];
    for statistics in none {
        for metric in statistics.metrics() {
            assert_eq!(statistics.score(metric, None), None, "{metric}");
        }
    }
}

#[test]
#[should_panic(expected = "class Some(2) is below 2")]
fn a_class_outside_the_label_map_is_refused() {
    RowStatistics::classes(Arc::new(vec![0]), vec![2], 2);
}

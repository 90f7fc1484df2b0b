use frostbert_cache::states::{Dtype, Pooling, StateId};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::metrics::probability::predictions;

const N_FEATURES: usize = 40;

/// Rows of noise, with the feature of a row's class raised by `signal`. The classes alternate.
fn rows(n: usize, n_classes: usize, signal: f32) -> (FeatureView<'static>, Vec<u32>) {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let labels: Vec<u32> = (0..n).map(|row| (row % n_classes) as u32).collect();
    let mut bytes = Vec::new();
    for label in &labels {
        let row: Vec<f32> = (0..N_FEATURES)
            .map(|feature| {
                let raised = if feature == *label as usize { signal } else { 0.0 };
                random.gen_range(-1.0..1.0) + raised
            })
            .collect();
        Dtype::F32.encode(&row, &mut bytes).unwrap();
    }
    let state = StateId::pooled(Pooling::Mean, 1);
    (FeatureView::from_bytes(state, N_FEATURES, Dtype::F32, bytes), labels)
}

fn accuracy(view: &FeatureView<'_>, labels: &[u32], n_classes: usize) -> f64 {
    let samples: Vec<u32> = (0..labels.len() as u32).collect();
    let probabilities = probabilities(view, &samples, labels, n_classes, 42).unwrap();
    let predicted = predictions(probabilities.view());
    let n_right = predicted.iter().zip(labels).filter(|(p, label)| **p == **label as usize).count();
    n_right as f64 / labels.len() as f64
}

#[test]
fn folds_are_equally_large_and_so_is_each_class_in_them() {
    let labels: Vec<u32> = (0..203).map(|row| [0, 0, 0, 1, 2][row % 5]).collect();
    let folds = folds(&labels, 7);
    let size = |fold: usize, class: Option<u32>| {
        let both = folds.iter().zip(&labels);
        both.filter(|(f, l)| **f == fold && class.is_none_or(|class| **l == class)).count()
    };
    for class in [None, Some(0), Some(1), Some(2)] {
        let sizes: Vec<usize> = (0..N_FOLDS).map(|fold| size(fold, class)).collect();
        let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
        assert!(*least > 0 && most - least <= 1, "{class:?}: {sizes:?}");
    }
}

#[test]
fn classes_that_differ_are_told_apart() {
    let (view, labels) = rows(600, 3, 1.5);
    let accuracy = accuracy(&view, &labels, 3);
    assert!(accuracy > 0.85, "{accuracy}");
}

/// A head that had seen these rows would be right on nearly all of them: there are about as many features as rows.
#[test]
fn no_row_is_judged_by_a_head_that_learned_its_label() {
    let (view, labels) = rows(60, 2, 0.0);
    let accuracy = accuracy(&view, &labels, 2);
    assert!((0.3..0.7).contains(&accuracy), "{accuracy} on labels that mean nothing");
}

#[test]
fn each_row_of_probabilities_belongs_to_its_sample() {
    let (view, labels) = rows(300, 3, 3.0);
    let samples: Vec<u32> = (0..300).rev().filter(|sample| sample % 7 != 0).collect();
    let labels: Vec<u32> = samples.iter().map(|sample| labels[*sample as usize]).collect();
    let probabilities = probabilities(&view, &samples, &labels, 3, 42).unwrap();
    assert_eq!(probabilities.dim(), (samples.len(), 3));
    let sums = probabilities.rows().into_iter().map(|row| row.sum());
    assert!(sums.into_iter().all(|sum| (sum - 1.0).abs() < 1e-5));
    let predicted = predictions(probabilities.view());
    let n_right = predicted
        .iter()
        .zip(&labels)
        .filter(|(predicted, label)| **predicted == **label as usize)
        .count();
    assert!(n_right * 20 > labels.len() * 19, "{n_right} of {}", labels.len());
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let (view, labels) = rows(400, 3, 0.5);
    let samples: Vec<u32> = (0..400).collect();
    let of_threads = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| probabilities(&view, &samples, &labels, 3, 42).unwrap())
    };
    let one = of_threads(1);
    assert_eq!(one, of_threads(2));
    assert_eq!(one, of_threads(4));
}

use std::collections::BTreeMap;

use ndarray::{Array1, Array2, array};
use proptest::prelude::*;
use serde::Deserialize;

use super::*;

/// Losses, gradients and best scores of PyTorch 2 in f64 (scripts/fixtures/crf.py).
const PYTORCH: &str = include_str!("../../../tests/fixtures/crf.json");

#[derive(Deserialize)]
struct Fixture {
    cases: BTreeMap<String, Case>,
}

#[derive(Deserialize)]
struct Case {
    offsets: Vec<usize>,
    tags: Vec<u32>,
    #[serde(flatten)]
    numbers: Numbers,
    loss: f64,
    gradients: Numbers,
    best_scores: Vec<f64>,
}

#[derive(Deserialize)]
struct Numbers {
    emissions: Vec<Vec<f64>>,
    transitions: Vec<Vec<f64>>,
    start: Vec<f64>,
    end: Vec<f64>,
}

/// The inputs of the loss, or their gradients.
#[derive(Clone)]
struct Arrays<F> {
    emissions: Array2<F>,
    transitions: Array2<F>,
    start: Array1<F>,
    end: Array1<F>,
}

impl Numbers {
    fn arrays<F: NdFloat>(&self) -> Arrays<F> {
        let narrow = |value: &f64| F::from(*value).unwrap();
        let matrix = |rows: &[Vec<f64>]| {
            Array2::from_shape_fn((rows.len(), self.start.len()), |(i, j)| narrow(&rows[i][j]))
        };
        Arrays {
            emissions: matrix(&self.emissions),
            transitions: matrix(&self.transitions),
            start: self.start.iter().map(narrow).collect(),
            end: self.end.iter().map(narrow).collect(),
        }
    }
}

impl<F: NdFloat + Default> Arrays<F> {
    fn scores(&self) -> CrfScores<'_, F> {
        CrfScores {
            transitions: self.transitions.view(),
            start: self.start.view(),
            end: self.end.view(),
        }
    }

    /// Returns the loss and the gradient of its mean per word; emissions start as NaN, so that they must be
    /// overwritten.
    fn gradient(&self, offsets: &[usize], tags: &[u32]) -> (LossSum, Arrays<F>) {
        let mut out = Arrays {
            emissions: Array2::from_elem(self.emissions.dim(), F::nan()),
            transitions: Array2::zeros(self.transitions.dim()),
            start: Array1::zeros(self.start.len()),
            end: Array1::zeros(self.end.len()),
        };
        let loss = gradient(
            self.emissions.view(),
            offsets,
            tags,
            &self.scores(),
            F::one() / F::from(tags.len()).unwrap(),
            &mut CrfGradients {
                emissions: out.emissions.view_mut(),
                transitions: out.transitions.view_mut(),
                start: out.start.view_mut(),
                end: out.end.view_mut(),
            },
            &mut CrfScratch::default(),
        );
        (loss, out)
    }

    fn loss(&self, offsets: &[usize], tags: &[u32]) -> LossSum {
        let mut scratch = CrfScratch::default();
        negative_log_likelihood(self.emissions.view(), offsets, tags, &self.scores(), &mut scratch)
    }

    fn values(&self) -> Vec<f64> {
        let parts = [self.emissions.iter(), self.transitions.iter()];
        let ends = [self.start.iter(), self.end.iter()];
        let all = parts.into_iter().flatten();
        all.chain(ends.into_iter().flatten()).map(|value| wide(*value)).collect()
    }

    fn values_mut(&mut self) -> Vec<&mut F> {
        let matrices = self.emissions.iter_mut().chain(self.transitions.iter_mut());
        matrices.chain(self.start.iter_mut()).chain(self.end.iter_mut()).collect()
    }

    fn score(&self, words: std::ops::Range<usize>, tags: &[u32]) -> f64 {
        let tag = |word: usize| tags[word] as usize;
        let (first, last) = (words.start, words.end - 1);
        let own = words.clone().map(|word| wide(self.emissions[[word, tag(word)]]));
        let steps = words.skip(1).map(|word| wide(self.transitions[[tag(word - 1), tag(word)]]));
        wide(self.start[tag(first)])
            + wide(self.end[tag(last)])
            + own.sum::<f64>()
            + steps.sum::<f64>()
    }
}

fn cases() -> BTreeMap<String, Case> {
    serde_json::from_str::<Fixture>(PYTORCH).unwrap().cases
}

fn largest_difference(one: &[f64], other: &[f64]) -> f64 {
    assert_eq!(one.len(), other.len());
    let differences = one.iter().zip(other).map(|(one, other)| (one - other).abs());
    // Not `f64::max`, which drops a NaN.
    differences.fold(0.0, |most, next| if next > most || next.is_nan() { next } else { most })
}

fn agrees_with_pytorch<F: NdFloat + Default>(tolerance: f64) {
    let cases = cases();
    assert_eq!(cases.len(), 5);
    for (name, case) in cases {
        let arrays = case.numbers.arrays::<F>();
        let (loss, gradients) = arrays.gradient(&case.offsets, &case.tags);
        assert_eq!(loss.weight, case.tags.len() as f64, "{name}");
        assert!(
            (loss.mean() - case.loss).abs() < tolerance,
            "{name}: {} is not {}",
            loss.mean(),
            case.loss
        );
        assert_eq!(loss, arrays.loss(&case.offsets, &case.tags), "{name}");
        let expected = case.gradients.arrays::<f64>().values();
        let difference = largest_difference(&gradients.values(), &expected);
        assert!(difference < tolerance, "{name} differs by {difference:e}");
    }
}

#[test]
fn loss_and_gradient_in_f32_are_pytorchs() {
    agrees_with_pytorch::<f32>(1e-5);
}

#[test]
fn loss_and_gradient_in_f64_are_pytorchs() {
    agrees_with_pytorch::<f64>(1e-9);
}

#[test]
fn the_gradient_agrees_with_finite_differences() {
    let case = &cases()["every_sequence_of_three_tags"];
    let arrays = case.numbers.arrays::<f64>();
    let (_, gradients) = arrays.gradient(&case.offsets, &case.tags);
    let step = 1e-5;
    let numeric: Vec<f64> = (0..gradients.values().len())
        .map(|index| {
            let at = |shift: f64| {
                let mut shifted = arrays.clone();
                *shifted.values_mut()[index] += shift;
                shifted.loss(&case.offsets, &case.tags).mean()
            };
            (at(step) - at(-step)) / (2.0 * step)
        })
        .collect();
    let difference = largest_difference(&gradients.values(), &numeric);
    assert!(difference < 1e-6, "differs by {difference:e}");
}

#[test]
fn the_best_sequence_scores_as_high_as_pytorchs() {
    for (name, case) in cases() {
        let arrays = case.numbers.arrays::<f32>();
        let (emissions, scores) = (arrays.emissions.view(), arrays.scores());
        let tags = decode(emissions, &case.offsets, &scores, None, None).unwrap();
        for (words, best) in segments(&case.offsets, tags.len()).zip(case.best_scores) {
            if !words.is_empty() {
                // Sums of eighths are exact.
                assert_eq!(arrays.score(words, &tags), best, "{name}");
            }
        }
    }
}

#[test]
fn parts_of_a_batch_add_up_to_the_whole() {
    let case = &cases()["every_sequence_of_three_tags"];
    let arrays = case.numbers.arrays::<f64>();
    let (loss, whole) = arrays.gradient(&case.offsets, &case.tags);
    let mut parts = arrays.clone();
    parts.values_mut().into_iter().for_each(|value| *value = 0.0);
    let mut scratch = CrfScratch::default();
    let mut sum = LossSum::default();
    for words in segments(&case.offsets, case.tags.len()) {
        sum += gradient(
            arrays.emissions.slice(s![words.clone(), ..]),
            &[0, words.len()],
            &case.tags[words.clone()],
            &arrays.scores(),
            1.0 / case.tags.len() as f64,
            &mut CrfGradients {
                emissions: parts.emissions.slice_mut(s![words, ..]),
                transitions: parts.transitions.view_mut(),
                start: parts.start.view_mut(),
                end: parts.end.view_mut(),
            },
            &mut scratch,
        );
    }
    assert_eq!(sum, loss);
    assert_eq!(parts.values(), whole.values());
}

#[test]
fn a_forbidden_transition_has_no_probability_and_no_gradient() {
    let arrays = Arrays {
        emissions: array![[0.5f32, -1.0, 2.0], [1.0, 0.0, -0.5], [0.0, 0.0, 0.0]],
        transitions: array![
            [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY],
            [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY],
            [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY]
        ],
        start: array![0.0, 0.0, f32::NEG_INFINITY],
        end: array![0.0, 0.0, 0.0],
    };
    let (loss, gradients) = arrays.gradient(&[0, 3], &[0, 1, 1]);
    // Two sequences are left: 0 1 1 and 1 1 1.
    let probability = 1.0 / (1.0 + (-1.5f64).exp());
    assert!((loss.sum + probability.ln()).abs() < 1e-6);
    let expected = array![probability - 1.0, 1.0 - probability, 0.0];
    let own = gradients.emissions.row(0).mapv(|value| f64::from(value) * 3.0);
    assert!((own - expected).iter().all(|difference| difference.abs() < 1e-6));
    assert!(gradients.values().iter().all(|value| value.is_finite()));
    assert_eq!(gradients.transitions[[1, 0]], 0.0);
}

#[test]
fn scores_of_any_size_give_a_finite_loss() {
    let arrays = Arrays {
        emissions: array![[1e30f32, -1e30], [-1e30, 1e30]],
        transitions: array![[0.0, 0.0], [0.0, 0.0]],
        start: array![0.0, 0.0],
        end: array![0.0, 0.0],
    };
    let (loss, gradients) = arrays.gradient(&[0, 2], &[0, 1]);
    assert_eq!(loss.sum, 0.0);
    assert!(gradients.values().iter().all(|value| *value == 0.0));
}

proptest! {
    #[test]
    fn a_masked_best_sequence_is_the_best_of_all_allowed_ones(
        numbers in prop::collection::vec(-16i8..16, 3 * 4 + 3 * 3 + 6),
        rules in prop::collection::vec(prop::bool::weighted(0.6), 3 * 3 + 3),
        forced in prop::collection::vec(prop::option::weighted(0.2, 0u32..3), 4),
    ) {
        let mut arrays = Arrays::<f32> {
            emissions: Array2::zeros((4, 3)),
            transitions: Array2::zeros((3, 3)),
            start: Array1::zeros(3),
            end: Array1::zeros(3),
        };
        for (value, eighths) in arrays.values_mut().into_iter().zip(numbers) {
            *value = f32::from(eighths) / 8.0;
        }
        let transitions = Array2::from_shape_vec((3, 3), rules[3..].to_vec()).unwrap();
        let allowed = AllowedTags { transitions: transitions.view(), starts: &rules[..3] };
        // A forced word's emissions do not count.
        let mut unforced = arrays.clone();
        for (word, forced) in forced.iter().enumerate() {
            if forced.is_some() {
                unforced.emissions.row_mut(word).fill(0.0);
            }
        }
        let mut best: Option<(Vec<u32>, f64)> = None;
        for number in 0..81u32 {
            let tags: Vec<u32> = (0..4).map(|word| number / 3u32.pow(3 - word) % 3).collect();
            let valid = allowed.starts[tags[0] as usize]
                && tags.windows(2).all(|pair| transitions[[pair[0] as usize, pair[1] as usize]])
                && tags.iter().zip(&forced).all(|(tag, only)| only.is_none_or(|only| only == *tag));
            let score = unforced.score(0..4, &tags);
            if valid && best.as_ref().is_none_or(|(_, best)| score > *best) {
                best = Some((tags, score));
            }
        }
        let decoded = decode(
            arrays.emissions.view(), &[0, 4], &arrays.scores(), Some(&allowed), Some(&forced),
        );
        prop_assert_eq!(decoded, best.map(|(tags, _)| tags));
    }
}

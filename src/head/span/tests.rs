use ndarray::{Array2, array};
use proptest::prelude::*;
use serde::Deserialize;

use super::*;

/// Loss and gradient by PyTorch 2 in f64 (scripts/fixtures/span.py).
const PYTORCH: &str = include_str!("../../../tests/fixtures/span.json");

#[derive(Deserialize)]
struct Fixture {
    offsets: Vec<usize>,
    targets: Vec<[u32; 2]>,
    logits: Vec<[f64; 2]>,
    loss: f64,
    gradient: Vec<[f64; 2]>,
}

fn fixture() -> Fixture {
    serde_json::from_str(PYTORCH).unwrap()
}

fn agrees_with_pytorch<F: NdFloat>(tolerance: f64) {
    let fixture = fixture();
    let logits = Array2::from(fixture.logits).mapv(|value| F::from(value).unwrap());
    let mut out = Array2::from_elem(logits.dim(), F::nan());
    let scale = F::one() / F::from(fixture.targets.len()).unwrap();
    let sum = gradient(logits.view(), &fixture.offsets, &fixture.targets, scale, out.view_mut());
    assert_eq!(sum, loss(logits.view(), &fixture.offsets, &fixture.targets));
    assert_eq!(sum.weight, 5.0);
    assert!(
        (sum.mean() - fixture.loss).abs() < tolerance,
        "{} is not {}",
        sum.mean(),
        fixture.loss
    );
    for (index, expected) in Array2::from(fixture.gradient).indexed_iter() {
        let difference = (out[index].to_f64().unwrap() - expected).abs();
        assert!(difference < tolerance, "{index:?}: {difference:e}");
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
    let logits = array![[0.5, -1.0], [2.0, 0.0], [-0.5, 1.5], [0.25, 0.75], [3.0, -2.0]];
    let (offsets, targets) = ([0, 3, 5], [[1, 2], [0, 0]]);
    let mut out = Array2::<f64>::zeros(logits.dim());
    gradient(logits.view(), &offsets, &targets, 0.5, out.view_mut());
    let step = 1e-5;
    for (index, analytic) in out.indexed_iter() {
        let at = |shift: f64| {
            let mut shifted = logits.clone();
            shifted[index] += shift;
            loss(shifted.view(), &offsets, &targets).mean()
        };
        let difference = ((at(step) - at(-step)) / (2.0 * step) - analytic).abs();
        assert!(difference < 1e-6, "{index:?}: {difference:e}");
    }
}

#[test]
fn a_window_without_context_has_no_span() {
    let logits = array![[1.0, 2.0]];
    assert_eq!(best_spans(logits.view(), 30, 5), []);
    assert_eq!(best_spans(array![[1.0, 2.0], [3.0, 4.0]].view(), 0, 5), []);
    let answer = join_windows([logits.view()], 30);
    assert_eq!((answer.best, answer.null_score), (None, 3.0));
}

#[test]
fn of_two_equal_windows_the_earlier_one_answers() {
    let window = array![[1.0, 2.0], [3.0, 4.0]];
    let answer = join_windows([window.view(), window.view()], 30);
    assert_eq!(answer.best.unwrap().0, 0);
}

/// All spans, sorted; among ties the earlier comes first, then the shorter.
fn by_brute_force(logits: &Array2<f32>, max_answer_tokens: usize) -> Vec<Span> {
    let mut spans = Vec::new();
    for start in 1..logits.nrows() {
        for end in start..logits.nrows().min(start + max_answer_tokens) {
            let score = f64::from(logits[[start, 0]]) + f64::from(logits[[end, 1]]);
            spans.push(Span { start, end, score });
        }
    }
    // The sort is stable, and the spans were generated in the order that breaks ties.
    spans.sort_by(|one, other| other.score.total_cmp(&one.score));
    spans
}

/// Logits that are multiples of 1/8, so that ties occur.
fn window() -> impl Strategy<Value = Array2<f32>> {
    prop::collection::vec(prop::array::uniform2(-10i8..10), 1..25)
        .prop_map(|rows| Array2::from(rows).mapv(|eighths| f32::from(eighths) / 8.0))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_best_spans_are_those_of_brute_force(
        logits in window(),
        max_answer_tokens in 1usize..30,
        n_best in 0usize..400,
    ) {
        let mut expected = by_brute_force(&logits, max_answer_tokens);
        let best = best_spans(logits.view(), max_answer_tokens, 1);
        prop_assert_eq!(&best[..], &expected[..expected.len().min(1)]);
        expected.truncate(n_best);
        prop_assert_eq!(best_spans(logits.view(), max_answer_tokens, n_best), expected);
    }

    #[test]
    fn windows_are_joined_to_the_best_span_and_the_lowest_null_score(
        windows in prop::collection::vec(window(), 1..5),
        max_answer_tokens in 1usize..30,
    ) {
        let answer = join_windows(windows.iter().map(|window| window.view()), max_answer_tokens);
        let bests = windows.iter().map(|window| by_brute_force(window, max_answer_tokens));
        let highest = bests.flatten().map(|span| span.score).reduce(f64::max);
        prop_assert_eq!(answer.best.map(|(_, span)| span.score), highest);
        if let Some((window, span)) = answer.best {
            prop_assert_eq!(&best_spans(windows[window].view(), max_answer_tokens, 1), &[span]);
        }
        for window in &windows {
            prop_assert!(answer.null_score <= f64::from(window[[0, 0]] + window[[0, 1]]));
        }
        prop_assert!(windows.iter().any(|window| null_score(window.view()) == answer.null_score));
    }
}

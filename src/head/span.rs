//! Extractive question answering: the objective over a window's rows, and the best span of an answer.
//!
//! A window's rows are its candidate positions: row 0 is "no answer" (the `[CLS]` of BERT's SQuAD 2 code), rows 1 and
//! up are the context's tokens in order. Logits are `[rows, 2]`: one for the start and one for the end of the answer.

use std::{
    cmp::Ordering,
    collections::{BinaryHeap, VecDeque},
    ops::RangeInclusive,
};

use ndarray::{ArrayView1, ArrayView2, ArrayViewMut2, NdFloat, s};

use super::segments::segments;
use crate::train::loss::LossSum;

/// Returns `(CE(start logits, start) + CE(end logits, end)) / 2` summed over windows, each cross-entropy being taken
/// over the window's own rows. The weight of the sum is the number of windows.
///
/// `offsets[i]..offsets[i + 1]` are the rows of window `i` in `logits [rows, 2]`, and `targets[i]` its start and end as
/// row numbers within the window, or `[0, 0]` if it does not contain the answer. As in BERT's `run_squad`.
///
/// ```
/// use frostbert::internals::head::span::loss;
/// use ndarray::array;
/// let logits = array![[0.0f32, 0.0], [0.0, 0.0], [0.0, 0.0], [9.0, 9.0]];
/// let loss = loss(logits.view(), &[0, 3, 4], &[[1, 2], [0, 0]]);
/// assert!((loss.mean() - 3f64.ln() / 2.0).abs() < 1e-6);
/// ```
///
/// # Panics
/// Panics if shapes differ, a window has no rows, or a target is not one of its rows.
pub fn loss<F: NdFloat>(
    logits: ArrayView2<'_, F>,
    offsets: &[usize],
    targets: &[[u32; 2]],
) -> LossSum {
    check(logits, offsets, targets);
    let mut sum = 0.0;
    for (rows, target) in segments(offsets, logits.nrows()).zip(targets) {
        for (side, target) in target.iter().enumerate() {
            let column = logits.slice(s![rows.clone(), side]);
            let (maximum, total) = maximum_and_total(column);
            let own = column[*target as usize] - maximum - total.ln();
            sum -= own.to_f64().expect("f32 and f64 are f64 too") / 2.0;
        }
    }
    LossSum { sum, weight: targets.len() as f64 }
}

/// Computes [`loss`], and writes `scale` times the gradient of its sum to `gradient [rows, 2]`: for each side
/// `scale (softmax(logits) - [row = target]) / 2`.
///
/// `scale` is 1 / windows of the whole batch if the loss is the mean over windows.
///
/// # Panics
/// Panics if [`loss`] would.
pub(crate) fn gradient<F: NdFloat>(
    logits: ArrayView2<'_, F>,
    offsets: &[usize],
    targets: &[[u32; 2]],
    scale: F,
    mut gradient: ArrayViewMut2<'_, F>,
) -> LossSum {
    assert_eq!(logits.dim(), gradient.dim(), "one gradient per logit");
    let sum = loss(logits, offsets, targets);
    let half = scale / (F::one() + F::one());
    for (rows, target) in segments(offsets, logits.nrows()).zip(targets) {
        for (side, target) in target.iter().enumerate() {
            let column = logits.slice(s![rows.clone(), side]);
            let mut out = gradient.slice_mut(s![rows.clone(), side]);
            let (maximum, total) = maximum_and_total(column);
            out.zip_mut_with(&column, |out, logit| {
                *out = (*logit - maximum).exp() / total * half;
            });
            out[*target as usize] -= half;
        }
    }
    sum
}

fn check<F>(logits: ArrayView2<'_, F>, offsets: &[usize], targets: &[[u32; 2]]) {
    assert_eq!(logits.ncols(), 2, "a start and an end logit");
    assert_eq!(offsets.len(), targets.len() + 1, "one target per window");
}

/// Returns the maximum, and `sum exp(z - maximum)`.
fn maximum_and_total<F: NdFloat>(logits: ArrayView1<'_, F>) -> (F, F) {
    let maximum = logits.iter().fold(F::neg_infinity(), |maximum, logit| maximum.max(*logit));
    let total = logits.iter().fold(F::zero(), |total, logit| total + (*logit - maximum).exp());
    (maximum, total)
}

/// An answer within a window: its first and its last row, both 1 or more.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// The first row.
    pub start: usize,
    /// The last row, which belongs to the answer.
    pub end: usize,
    /// Start logit of the first row plus end logit of the last row.
    pub score: f64,
}

/// Returns the `n_best` highest-scoring spans of at most `max_answer_tokens` rows in `logits [rows, 2]`, best first.
///
/// Spans lie in rows 1 and up of the window. Among equal scores the span that starts earlier comes first, then the
/// shorter one. Returns fewer than `n_best` if the window has fewer, and none if it has only row 0.
///
/// Takes at most `O(rows log rows)` steps (a sliding maximum gives the best start of each end, and a heap orders them),
/// and `O(max_answer_tokens + log rows)` for each span after the first.
///
/// ```
/// use frostbert::internals::head::span::{Span, best_spans};
/// use ndarray::array;
/// let logits = array![[9.0, 9.0], [1.0, 0.0], [2.0, 0.5], [0.0, 3.0]];
/// let spans = best_spans(logits.view(), 2, 2);
/// assert_eq!(spans[0], Span { start: 2, end: 3, score: 5.0 });
/// assert_eq!(spans[1], Span { start: 3, end: 3, score: 3.0 });
/// ```
///
/// # Panics
/// Panics if there are not two columns.
pub fn best_spans(
    logits: ArrayView2<'_, f32>,
    max_answer_tokens: usize,
    n_best: usize,
) -> Vec<Span> {
    assert_eq!(logits.ncols(), 2, "a start and an end logit");
    if max_answer_tokens == 0 {
        return Vec::new();
    }
    let starts = logits.column(0);
    let candidate = |start, end, range| SpanCandidate {
        span: Span { start, end, score: f64::from(starts[start]) + f64::from(logits[[end, 1]]) },
        range,
    };
    let mut candidates = BinaryHeap::with_capacity(logits.nrows());
    // Starts that may still be the best of a later range, with decreasing logits.
    let mut falling: VecDeque<usize> = VecDeque::new();
    for end in 1..logits.nrows() {
        while falling.back().is_some_and(|&last| starts[last] < starts[end]) {
            falling.pop_back();
        }
        falling.push_back(end);
        let earliest = (end + 1).saturating_sub(max_answer_tokens).max(1);
        if falling[0] < earliest {
            falling.pop_front();
        }
        candidates.push(candidate(falling[0], end, earliest..=end));
    }
    let mut spans = Vec::new();
    while spans.len() < n_best {
        let Some(SpanCandidate { span, range }) = candidates.pop() else {
            break;
        };
        spans.push(span);
        // The remaining spans with this end: those that start before this one, and those that start after it.
        for rest in [*range.start()..=span.start - 1, span.start + 1..=*range.end()] {
            let best = rest.clone().reduce(
                |best, start| {
                    if starts[start] > starts[best] { start } else { best }
                },
            );
            candidates.extend(best.map(|start| candidate(start, span.end, rest)));
        }
    }
    spans
}

/// All spans with the same end whose starts lie in a range, represented by the best of them.
struct SpanCandidate {
    span: Span,
    range: RangeInclusive<usize>,
}

impl Ord for SpanCandidate {
    fn cmp(&self, other: &SpanCandidate) -> Ordering {
        let (one, other) = (&self.span, &other.span);
        let earlier_and_shorter = (other.start, other.end).cmp(&(one.start, one.end));
        one.score.total_cmp(&other.score).then(earlier_and_shorter)
    }
}

impl PartialOrd for SpanCandidate {
    fn partial_cmp(&self, other: &SpanCandidate) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for SpanCandidate {
    fn eq(&self, other: &SpanCandidate) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for SpanCandidate {}

/// The score of "no answer" in one window: start plus end logit of row 0.
///
/// # Panics
/// Panics if the window has no rows or does not have two columns.
pub(crate) fn null_score(logits: ArrayView2<'_, f32>) -> f64 {
    f64::from(logits[[0, 0]]) + f64::from(logits[[0, 1]])
}

/// The combined result of the windows of one question.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SpanAnswer {
    /// The index of a window and the best span in it; `None` if no window contains a context token.
    pub best: Option<(usize, Span)>,
    /// The score of "no answer"; infinite if there are no windows.
    pub null_score: f64,
}

/// Combines the windows of one question. The best span is the one with the highest score in any window, from the
/// earlier window if two are equal; the null score is the lowest of all windows, as in BERT's `run_squad`.
///
/// The caller predicts "no answer" if `null_score - best score` exceeds a tuned threshold.
///
/// ```
/// use frostbert::internals::head::span::join_windows;
/// use ndarray::array;
/// let (one, other) = (array![[1.0, 1.0], [2.0, 2.0]], array![[0.0, 1.0], [2.0, 3.0]]);
/// let answer = join_windows([one.view(), other.view()], 30);
/// assert_eq!(answer.best.map(|(window, span)| (window, span.score)), Some((1, 5.0)));
/// assert_eq!(answer.null_score, 1.0);
/// ```
///
/// # Panics
/// Panics if [`best_spans`] or [`null_score`] would.
pub fn join_windows<'a>(
    windows: impl IntoIterator<Item = ArrayView2<'a, f32>>,
    max_answer_tokens: usize,
) -> SpanAnswer {
    let mut answer = SpanAnswer { best: None, null_score: f64::INFINITY };
    for (number, logits) in windows.into_iter().enumerate() {
        answer.null_score = answer.null_score.min(null_score(logits));
        if let [span] = best_spans(logits, max_answer_tokens, 1)[..]
            && answer.best.is_none_or(|(_, best)| span.score > best.score)
        {
            answer.best = Some((number, span));
        }
    }
    answer
}

#[cfg(test)]
mod tests;

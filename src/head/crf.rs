//! A linear-chain conditional random field over the words of each sentence: loss, gradient and best sequence.
//!
//! Lafferty, McCallum and Pereira, "Conditional Random Fields", 2001. A sequence of tags `y` of `n` words has the score
//!
//! ```text
//! start[y_1] + sum_t emissions[t, y_t] + sum_t transitions[y_t, y_t+1] + end[y_n]
//! ```
//!
//! and its probability is the `softmax` of the scores over all sequences of that sentence.
//!
//! Every row here is a word with a tag. Before training, the caller removes the rows of words without a label, so that
//! their neighbours become adjacent; for decoding it keeps the rows of words without a state and forces their tags.

use ndarray::{Array2, ArrayView1, ArrayView2, ArrayViewMut1, ArrayViewMut2, NdFloat, s};

use super::{
    decode::{AllowedTags, Steps, best_sequences},
    segments::segments,
};
use crate::train::loss::LossSum;

/// The scores that a CRF learns in addition to the emissions.
#[derive(Clone, Copy, Debug)]
pub struct CrfScores<'a, F> {
    /// `[from, to]`; minus infinity forbids a transition.
    pub transitions: ArrayView2<'a, F>,
    /// `[tags]`.
    pub start: ArrayView1<'a, F>,
    /// `[tags]`.
    pub end: ArrayView1<'a, F>,
}

/// Where [`gradient`] puts `dL/d...`.
#[derive(Debug)]
pub(crate) struct CrfGradients<'a, F> {
    /// `[words, tags]`, overwritten.
    pub emissions: ArrayViewMut2<'a, F>,
    /// `[from, to]`, added to.
    pub transitions: ArrayViewMut2<'a, F>,
    /// `[tags]`, added to.
    pub start: ArrayViewMut1<'a, F>,
    /// `[tags]`, added to.
    pub end: ArrayViewMut1<'a, F>,
}

/// Buffers that are reused from one batch to the next.
#[derive(Clone, Debug, Default)]
pub struct CrfScratch<F> {
    /// `log p(tag of the word | words so far)`; after a sentence's last word, conditioned on the whole sentence.
    log_now: Vec<F>,
    log_before: Vec<F>,
    /// `[words - 1, to, from]`: `p(previous tag = from | tag = to, words so far)`.
    origins: Vec<F>,
    /// `p(tag | whole sentence)` of the current word, and of the one before.
    now: Vec<F>,
    before: Vec<F>,
}

/// Returns `-log p(tags | emissions)`, summed over the sentences of a batch. The weight of the sum is the number of
/// words, so its mean is per word.
///
/// `emissions` is `[words, tags]`, `offsets[i]..offsets[i + 1]` are the words of sentence `i` (an empty sentence
/// contributes nothing), and `tags` holds one tag per word. The forward algorithm runs in log space and is normalised
/// at each word, so neither large scores nor long sentences overflow or lose precision; the sum is in f64.
///
/// ```
/// use frostbert::internals::head::crf::{CrfScores, CrfScratch, negative_log_likelihood};
/// use ndarray::array;
/// // One transition stands out: of exp(2) + 3 in all, exp(2) is its share.
/// let (transitions, zeros) = (array![[0.0, 2.0], [0.0, 0.0]], array![0.0, 0.0]);
/// let scores = CrfScores { transitions: transitions.view(), start: zeros.view(), end: zeros.view() };
/// let emissions = array![[0.0, 0.0], [0.0, 0.0]];
/// let loss = negative_log_likelihood(emissions.view(), &[0, 2], &[0, 1], &scores, &mut CrfScratch::default());
/// assert!((loss.sum - ((2f64.exp() + 3.0).ln() - 2.0)).abs() < 1e-12);
/// assert_eq!(loss.weight, 2.0);
/// ```
///
/// # Panics
/// Panics if shapes differ or a tag is out of range.
pub fn negative_log_likelihood<F: NdFloat>(
    emissions: ArrayView2<'_, F>,
    offsets: &[usize],
    tags: &[u32],
    scores: &CrfScores<'_, F>,
    scratch: &mut CrfScratch<F>,
) -> LossSum {
    check(emissions, tags, scores);
    let mut loss = LossSum::default();
    for words in segments(offsets, tags.len()) {
        let sentence = emissions.slice(s![words.clone(), ..]);
        loss += forward(sentence, &tags[words], scores, scratch);
    }
    loss
}

/// Computes [`negative_log_likelihood`] and `scale` times the gradient of its sum: expected minus observed counts.
///
/// `scale` is 1 / words of the whole batch if the loss is the mean per word. The gradients of the emissions are
/// overwritten; those of the parameters are added to, so that a batch can be processed in parts.
///
/// # Panics
/// Panics if shapes differ or a tag is out of range.
pub(crate) fn gradient<F: NdFloat>(
    emissions: ArrayView2<'_, F>,
    offsets: &[usize],
    tags: &[u32],
    scores: &CrfScores<'_, F>,
    scale: F,
    gradients: &mut CrfGradients<'_, F>,
    scratch: &mut CrfScratch<F>,
) -> LossSum {
    check(emissions, tags, scores);
    assert_eq!(emissions.dim(), gradients.emissions.dim(), "one gradient per emission");
    let mut loss = LossSum::default();
    for words in segments(offsets, tags.len()) {
        let sentence = emissions.slice(s![words.clone(), ..]);
        loss += forward(sentence, &tags[words.clone()], scores, scratch);
        let mut of_sentence = CrfGradients {
            emissions: gradients.emissions.slice_mut(s![words.clone(), ..]),
            transitions: gradients.transitions.view_mut(),
            start: gradients.start.view_mut(),
            end: gradients.end.view_mut(),
        };
        backward(&tags[words], scale, &mut of_sentence, scratch);
    }
    loss
}

/// Returns the most probable sequence of tags of each sentence, among those that are `allowed` (`None`: all).
///
/// Arguments, ties and `None` are as in [`super::decode::decode`], except that a forced word keeps its transition
/// scores.
///
/// # Panics
/// Panics if shapes differ or a forced tag is out of range.
pub(crate) fn decode(
    emissions: ArrayView2<'_, f32>,
    offsets: &[usize],
    scores: &CrfScores<'_, f32>,
    allowed: Option<&AllowedTags<'_>>,
    forced: Option<&[Option<u32>]>,
) -> Option<Vec<u32>> {
    let n_tags = scores.start.len();
    if let Some(allowed) = allowed {
        assert_eq!(allowed.starts.len(), n_tags, "one rule per start");
    }
    let steps = Steps {
        start: (0..n_tags)
            .map(|tag| {
                let may = allowed.is_none_or(|allowed| allowed.starts[tag]);
                may.then(|| f64::from(scores.start[tag]))
            })
            .collect(),
        transitions: Array2::from_shape_fn(scores.transitions.dim(), |pair| {
            let may = allowed.is_none_or(|allowed| allowed.transitions[pair]);
            may.then(|| f64::from(scores.transitions[pair]))
        }),
        end: scores.end.iter().map(|score| f64::from(*score)).collect(),
    };
    best_sequences(emissions, offsets, &steps, forced)
}

fn check<F>(emissions: ArrayView2<'_, F>, tags: &[u32], scores: &CrfScores<'_, F>) {
    let (n_words, n_tags) = emissions.dim();
    assert_eq!(n_words, tags.len(), "one tag per word");
    assert_eq!(scores.transitions.dim(), (n_tags, n_tags), "one transition per pair of tags");
    assert_eq!(scores.start.len(), n_tags, "one start per tag");
    assert_eq!(scores.end.len(), n_tags, "one end per tag");
}

/// Returns the loss of one sentence, and leaves in the scratch what [`backward`] needs.
fn forward<F: NdFloat>(
    emissions: ArrayView2<'_, F>,
    tags: &[u32],
    scores: &CrfScores<'_, F>,
    scratch: &mut CrfScratch<F>,
) -> LossSum {
    let (n_words, n_tags) = emissions.dim();
    if n_words == 0 {
        return LossSum::default();
    }
    let CrfScratch { log_now, log_before, origins, .. } = scratch;
    origins.resize((n_words - 1) * n_tags * n_tags, F::zero());
    log_now.clear();
    log_now.extend(scores.start.iter().zip(emissions.row(0)).map(|(start, own)| *start + *own));
    let first = tags[0] as usize;
    let mut sum = normalise(log_now) - wide(scores.start[first]) - wide(emissions[[0, first]]);
    for word in 1..n_words {
        std::mem::swap(log_now, log_before);
        log_now.clear();
        let of_word = &mut origins[(word - 1) * n_tags * n_tags..][..n_tags * n_tags];
        for (to, origin) in of_word.chunks_exact_mut(n_tags).enumerate() {
            let steps = scores.transitions.column(to);
            for ((origin, log), step) in origin.iter_mut().zip(&*log_before).zip(steps) {
                *origin = *log + *step;
            }
            log_now.push(softmax(origin) + emissions[[word, to]]);
        }
        let (from, to) = (tags[word - 1] as usize, tags[word] as usize);
        sum +=
            normalise(log_now) - wide(scores.transitions[[from, to]]) - wide(emissions[[word, to]]);
    }
    for (log, end) in log_now.iter_mut().zip(scores.end) {
        *log += *end;
    }
    sum += normalise(log_now) - wide(scores.end[tags[n_words - 1] as usize]);
    LossSum { sum, weight: n_words as f64 }
}

/// Computes the derivative of the forward algorithm, which needs no backward scores: with
/// `p(y_t | y_t+1, words up to t)` kept from the forward pass, `p(y_t, y_t+1) = p(y_t | y_t+1) p(y_t+1)` holds from the
/// last word to the first, and only probabilities are multiplied.
fn backward<F: NdFloat>(
    tags: &[u32],
    scale: F,
    gradients: &mut CrfGradients<'_, F>,
    scratch: &mut CrfScratch<F>,
) {
    let CrfScratch { log_now, origins, now, before, .. } = scratch;
    let (n_words, n_tags) = gradients.emissions.dim();
    let Some(last) = tags.last() else {
        return;
    };
    now.clear();
    now.extend(log_now.iter().map(|log| log.exp()));
    add_scaled(gradients.end.view_mut(), now, scale);
    gradients.end[*last as usize] -= scale;
    for word in (0..n_words).rev() {
        let tag = tags[word] as usize;
        let mut of_word = gradients.emissions.row_mut(word);
        of_word.fill(F::zero());
        add_scaled(of_word, now, scale);
        gradients.emissions[[word, tag]] -= scale;
        if word == 0 {
            break;
        }
        before.clear();
        before.resize(n_tags, F::zero());
        let of_word = &origins[(word - 1) * n_tags * n_tags..][..n_tags * n_tags];
        for (to, origin) in of_word.chunks_exact(n_tags).enumerate() {
            for (from, origin) in origin.iter().enumerate() {
                let both = *origin * now[to];
                before[from] += both;
                gradients.transitions[[from, to]] += both * scale;
            }
        }
        gradients.transitions[[tags[word - 1] as usize, tag]] -= scale;
        std::mem::swap(now, before);
    }
    add_scaled(gradients.start.view_mut(), now, scale);
    gradients.start[tags[0] as usize] -= scale;
}

fn add_scaled<F: NdFloat>(mut out: ArrayViewMut1<'_, F>, values: &[F], scale: F) {
    for (out, value) in out.iter_mut().zip(values) {
        *out += *value * scale;
    }
}

/// Subtracts `log sum exp` from the values and returns it.
fn normalise<F: NdFloat>(logs: &mut [F]) -> f64 {
    let maximum = maximum(logs);
    let total = logs.iter().fold(F::zero(), |sum, log| sum + (*log - maximum).exp());
    let log_total = maximum + total.ln();
    for log in logs {
        *log -= log_total;
    }
    wide(log_total)
}

/// Replaces scores by their softmax and returns `log sum exp`; if all are forbidden, gives zeros and minus infinity.
fn softmax<F: NdFloat>(values: &mut [F]) -> F {
    let maximum = maximum(values);
    if maximum == F::neg_infinity() {
        values.fill(F::zero());
        return maximum;
    }
    let mut total = F::zero();
    for value in values.iter_mut() {
        *value = (*value - maximum).exp();
        total += *value;
    }
    for value in values {
        *value /= total;
    }
    maximum + total.ln()
}

fn maximum<F: NdFloat>(values: &[F]) -> F {
    values.iter().fold(F::neg_infinity(), |maximum, value| maximum.max(*value))
}

fn wide<F: NdFloat>(value: F) -> f64 {
    value.to_f64().expect("f32 and f64 are f64 too")
}

#[cfg(test)]
mod tests;
